//! What shards and the ledger ask of the store, what it answers, and what it has to say at a start.
//!
//! Each variant's comment says who recovers if it is dropped.

use std::sync::Arc;

use ringway_wire::ids::{ClientMsgId, Conversation, DeviceId, GroupId, MsgId, RosterVersion, Seq, UserId};
use ringway_wire::schema::Role;

use crate::contract::ids::{Origin, SessionRef};
use crate::contract::message::Message;
use crate::contract::position::{AppliedPosition, JournalPosition, StreamDigest};

/// What a shard asks of the store.
#[derive(Debug)]
pub enum StoreAsk {
    /// Rows of an inbox. Refused: the session asks again at the next tick.
    Page {
        /// Who reads.
        session: SessionRef,
        /// 0 while catching up; a Sync's request id otherwise (its answer is a `SyncPage`).
        purpose: PagePurpose,
        /// Whose inbox.
        user: UserId,
        /// Rows after this one.
        after: Seq,
        /// At most so many, and about `PAGE_BYTES_MAX` bytes of bodies.
        rows_max: u16,
    },
    /// Where did this device stop? Refused: asked again a little later, until the time for logging in is over.
    Cursor {
        /// The session that logs in, and its login's request id.
        origin: Origin,
        /// That session's user.
        user: UserId,
        /// Its device.
        device: DeviceId,
    },
    /// Cursors to keep. Refused: kept, merged with newer ones, sent again later.
    SaveCursors(Vec<CursorRow>),
    /// What is known of a message, or of devices? The API's. Refused: its caller is told to come again.
    Trace {
        /// The request.
        origin: Origin,
        /// What it asks.
        ask: TraceAsk,
    },
}

/// What whoever follows a message asks.
#[derive(Debug)]
pub enum TraceAsk {
    /// The message of this number.
    Message(MsgId),
    /// What all devices of these users have acknowledged.
    Devices(Vec<UserId>),
}

/// What the store knows of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Traced {
    /// `None`: there is none of this number, or it is no longer kept.
    Message(Option<MessageFound>),
    /// By user and device; of devices that never acknowledged anything there is none.
    Devices(Vec<CursorRow>),
    /// The store cannot be read now.
    Unavailable,
}

/// A message, and where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageFound {
    /// What it is.
    pub head: MessageHead,
    /// Where its record is in the journal, while the database does not have it yet.
    pub journal: Option<JournalPosition>,
}

/// What a message is, but for what it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageHead {
    /// Who sent it.
    pub sender: UserId,
    /// To whom.
    pub to: Conversation,
    /// The sender's name for it.
    pub client_msg_id: ClientMsgId,
    /// The sender's own row.
    pub sender_seq: Seq,
    /// How long what it says is.
    pub body_bytes: u64,
}

/// What a page is read for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PagePurpose {
    /// The session is behind and reads until it is live.
    CatchUp,
    /// The client asked for history, with this request id.
    Sync(u32),
}

/// What one device has acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CursorRow {
    /// The device's user.
    pub user: UserId,
    /// Which device.
    pub device: DeviceId,
    /// Everything up to this row.
    pub seq: Seq,
}

/// What the store answers a shard.
#[derive(Debug)]
pub enum StoreAnswer {
    /// Rows after `after`, in order, without holes except as `gap_to` says.
    Page {
        /// The asking session, which gets the answer.
        session: SessionRef,
        /// What the page was read for.
        purpose: PagePurpose,
        /// After which row.
        after: Seq,
        /// The rows.
        page: Page,
    },
    /// The cursor the store has for the device; `None`: it never acknowledged anything.
    Cursor {
        /// The asking session, which gets the answer.
        origin: Origin,
        /// The last row that the device has acknowledged.
        seq: Option<Seq>,
    },
    /// What is known of a message, or of devices.
    Traced {
        /// The request.
        origin: Origin,
        /// What is known.
        traced: Traced,
    },
    /// The store cannot be read now (the log says why).
    Unavailable {
        /// The asking session, which gets the answer.
        session: SessionRef,
        /// What for; `None`: a cursor.
        purpose: Option<PagePurpose>,
    },
}

/// Rows of one inbox.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// `(seq, message)` in seq order.
    pub rows: Vec<(Seq, Arc<Message>)>,
    /// Rows up to here are no longer kept; the page starts after it.
    pub gap_to: Option<Seq>,
}

/// The ledger asks whether a message was stored long ago. Refused: the sender gets `RETRY_LATER`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lookup {
    /// Who sent it.
    pub sender: UserId,
    /// Under which name.
    pub client_msg_id: ClientMsgId,
    /// In which generation of a cluster's ledger it was asked; zero on one machine.
    pub(crate) generation: u64,
}

/// What the store found, in its rows and in the unapplied tail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LookupAnswer {
    /// What was asked.
    pub lookup: Lookup,
    /// What the store knows of it.
    pub found: LookupFound,
}

/// What became of a message sent long ago.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LookupFound {
    /// It was never stored.
    Nothing,
    /// It is not there, but its name is older than what retention keeps: it may have been.
    Expired,
    /// The store cannot be read now: the sender gets `RETRY_LATER`.
    Unavailable,
    /// It was.
    Stored(StoredMessage),
}

/// A stored message, as much of it as a repeat needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoredMessage {
    /// The number that the ledger gave it, unique in the cluster and for ever.
    pub msg_id: MsgId,
    /// The sender's own row, also after retention deleted it.
    pub seq: Seq,
    /// Unix milliseconds.
    pub sent_at_ms: u64,
    /// [`crate::contract::digest::digest`] of its conversation and body.
    pub digest: u64,
}

/// What the ledger's slot table needs to know of a user at start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewestRow {
    /// The user whose inbox it is.
    pub user: UserId,
    /// The newest stored row.
    pub seq: Seq,
}

/// A group as the store has it at start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredGroup {
    /// The group's id.
    pub group: GroupId,
    /// At which version.
    pub version: RosterVersion,
    /// Who, in any order.
    pub members: Vec<(UserId, Role)>,
    /// Whom it counts against; `None`: an older version has stored it, which did not say.
    pub maker: Option<UserId>,
}

/// What a snapshot of the database has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stored {
    /// A group with its members.
    Group(StoredGroup),
    /// A user's newest row.
    Newest(NewestRow),
}

/// Where a store stands.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct StorePosition {
    /// Batches below are applied.
    pub applied: AppliedPosition,
    /// No message stored has a higher number.
    pub msg_id_max: MsgId,
    /// In a cluster: what the stream's entries are, up to the position.
    pub digest: StreamDigest,
}
