//! All that crosses between a shard and another thread: a closed set of envelopes.
//!
//! Each variant's comment says who recovers if it is dropped. Sending is `try_send` (in the shell); a refusal
//! hands the envelope back to the core, which answers the asker. No envelope holds a descriptor or a lock.

pub mod nodes;

use std::sync::Arc;

use crate::ids::{
    ClientMsgId, DeviceId, GroupId, LedgerSlot, MsgId, Origin, RosterVersion, Seq, SessionRef, ShardId, UserId,
};
use crate::message::{Message, Roster};
use crate::wire::generated::ringway::wire::{ErrorCode, GroupChangeKind, Role};

// ---- shard to ledger --------------------------------------------------------------------------------

/// What a shard asks of the ledger.
#[derive(Debug)]
pub enum Submission {
    /// A one-to-one message. Refused or dropped: the sender gets `RETRY_LATER` and sends again.
    Direct(DirectSubmission),
    /// A group message, from the group's shard. Refused: as above.
    Group(GroupSubmission),
    /// A change of a group, or a new one. Refused: as above.
    Change(ChangeSubmission),
    /// A login asks for its user's newest durable seq. Refused: the session is closed as `Overloaded`.
    Position {
        /// The session that logs in.
        origin: Origin,
        /// Its user.
        user: UserId,
    },
    /// Which groups is this user in? Refused: `RETRY_LATER`.
    Groups {
        /// The asking session.
        origin: Origin,
        /// Its user.
        user: UserId,
    },
    /// A group's shard asks for the roster it does not have. Refused: asked again with the next request.
    Roster {
        /// The asking shard, which is the group's home.
        shard: ShardId,
        /// The group.
        group: GroupId,
    },
}

/// A one-to-one message on its way to the ledger.
#[derive(Debug)]
pub struct DirectSubmission {
    /// The sending session.
    pub origin: Origin,
    /// Its user.
    pub sender: UserId,
    /// The recipient; may be the sender.
    pub to: UserId,
    /// The sender's name for the message.
    pub client_msg_id: ClientMsgId,
    /// 1 to `BODY_BYTES_MAX` bytes.
    pub body: Arc<[u8]>,
}

/// A group message on its way to the ledger.
#[derive(Debug)]
pub struct GroupSubmission {
    /// The sending session (on the sender's shard, not necessarily the group's).
    pub origin: Origin,
    /// Its user. Perhaps no member, or no longer: only the ledger knows what is a repeat, so it is the ledger that
    /// refuses the others.
    pub sender: UserId,
    /// The members as the group's shard knows them; `Roster::of_nobody` where it knows of no such group.
    pub roster: Arc<Roster>,
    /// The sender's name for the message.
    pub client_msg_id: ClientMsgId,
    /// 1 to `BODY_BYTES_MAX` bytes.
    pub body: Arc<[u8]>,
    /// How often it came back because the roster was old.
    pub bounces: u8,
}

/// A change of a group on its way to the ledger, which checks who may do it against its own roster.
#[derive(Debug)]
pub struct ChangeSubmission {
    /// The asking session.
    pub origin: Origin,
    /// Its user.
    pub actor: UserId,
    /// What is to change.
    pub change: GroupChange,
}

/// What may be done to a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupChange {
    /// A new group, owned by the actor. The ledger numbers it.
    Create(Vec<UserId>),
    /// The owner adds members; those already in it are no error.
    Add(GroupId, Vec<UserId>),
    /// The owner removes members; those not in it are no error. The owner can only leave.
    Remove(GroupId, Vec<UserId>),
    /// A member leaves. When the owner leaves, the member with the lowest user id becomes owner.
    Leave(GroupId),
}

// ---- ledger to shard --------------------------------------------------------------------------------

/// What the ledger hands a shard, in the ledger's order; one `Vec` of these per commit and shard. None is ever
/// dropped: the ledger takes only as many submissions as every shard's mailbox has room for.
#[derive(Debug)]
pub enum Delivery {
    /// A durable group message, to each shard that has members of the roster (the sender's is one of them).
    Group {
        /// The message.
        message: Arc<Message>,
        /// Its recipients.
        roster: Arc<Roster>,
        /// Parallel to the roster's members.
        seqs: Arc<[Seq]>,
        /// The sending session, which gets `SendOk` instead of a push.
        origin: Origin,
    },
    /// A durable one-to-one message, to the shards of both users (once, if it is one shard).
    Direct {
        /// The message; the recipient is in its `to`.
        message: Arc<Message>,
        /// The sender's row.
        sender_seq: Seq,
        /// The recipient's row; equal to `sender_seq` in a message to oneself, which has one row.
        recipient_seq: Seq,
        /// The sending session, which gets `SendOk` instead of a push.
        origin: Origin,
    },
    /// The message was stored before; to the origin's shard.
    Repeat {
        /// Who sent it again.
        origin: Origin,
        /// The first one's number.
        msg_id: MsgId,
        /// The sender's row.
        seq: Seq,
        /// The first one's time, Unix milliseconds.
        sent_at_ms: u64,
    },
    /// The submission was refused; to the origin's shard.
    Refused {
        /// Who asked.
        origin: Origin,
        /// Why.
        code: ErrorCode,
        /// When to try again; 0: never.
        retry_after_ms: u32,
    },
    /// The roster was old: to the group's shard, which swaps its roster and submits again.
    Bounced {
        /// What came.
        submission: GroupSubmission,
        /// The current roster; `None`: the group has no members any more.
        roster: Option<Arc<Roster>>,
    },
    /// The answer to [`Submission::Position`]: every delivery with a seq up to `newest` came before this one.
    Position {
        /// Who asked.
        origin: Origin,
        /// The user's newest durable seq.
        newest: Seq,
        /// A client may have been told numbers up to this one: above `newest` lie rows of a lost stream, or such as this
        /// node has not heard of.
        given: Seq,
    },
    /// The answer to [`Submission::Groups`].
    Groups {
        /// Who asked.
        origin: Origin,
        /// The user's groups, by group id.
        groups: Vec<GroupEntry>,
    },
    /// The answer to [`Submission::Roster`]; `None`: there is no such group.
    Roster {
        /// The group.
        group: GroupId,
        /// Its current roster.
        roster: Option<Arc<Roster>>,
    },
    /// A durable change of a group, to every shard: the group's home swaps its roster, the shards of those
    /// concerned announce it, the origin's shard answers.
    Changed {
        /// Who asked.
        origin: Origin,
        /// The roster after the change; empty when the last member left.
        roster: Arc<Roster>,
        /// What changed.
        announcement: Arc<GroupAnnouncement>,
    },
    /// The ledger has lost changes of a group, and goes on with this roster, which may be an older one; to every shard.
    Reloaded {
        /// The group.
        group: GroupId,
        /// Its roster; `None`: there is no such group.
        roster: Option<Arc<Roster>>,
    },
    /// Rows that are in the store and were never delivered here; to every shard. Whoever is online reads them there.
    Missed {
        /// Users and their newest rows.
        newest: Arc<[(UserId, Seq)]>,
    },
    /// The change changed nothing (everybody was in it already): only the answer, to the origin's shard.
    Unchanged {
        /// Who asked.
        origin: Origin,
        /// The group.
        group: GroupId,
        /// Its version, as it was.
        version: RosterVersion,
    },
}

/// What the members are told of a change.
#[derive(PartialEq, Eq, Debug)]
pub struct GroupAnnouncement {
    /// What was done.
    pub kind: GroupChangeKind,
    /// By whom.
    pub actor: UserId,
    /// To whom: only those who were really added or removed, sorted.
    pub users: Vec<UserId>,
}

/// One of a user's groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupEntry {
    /// The group.
    pub group: GroupId,
    /// Its current version.
    pub version: RosterVersion,
    /// The user's role.
    pub role: Role,
    /// How many members it has.
    pub members_count: u32,
}

// ---- shard to shard ---------------------------------------------------------------------------------

/// What one shard's core asks another over a lane. (Connections cross the same lanes, but the shell sends
/// them: they hold a descriptor.)
#[derive(Debug)]
pub enum LaneEnvelope {
    /// A group message on its way to the group's shard. Refused: the sender gets `RETRY_LATER`.
    GroupSend {
        /// The sending session.
        origin: Origin,
        /// Its user.
        sender: UserId,
        /// The group.
        group: GroupId,
        /// The sender's name for the message.
        client_msg_id: ClientMsgId,
        /// The body.
        body: Arc<[u8]>,
        /// Neither numbered nor stored.
        ephemeral: bool,
    },
    /// An ephemeral message from its group's shard (or its sender's, one-to-one) to a shard with recipients.
    /// Refused: lost, as ephemeral messages may be; counted.
    Ephemeral {
        /// The message; its push has seq 0.
        message: Arc<Message>,
        /// The recipients of a group message; `None`: the user in the message's `to`, one-to-one.
        roster: Option<Arc<Roster>>,
        /// The sending session, which gets no push.
        origin: Origin,
    },
    /// An answer from the group's shard to the sender's. Refused: the client's own time-out.
    Answer {
        /// Who asked.
        origin: Origin,
        /// What to tell it.
        answer: LaneAnswer,
    },
    /// Who is in this group? To the group's shard. Refused: `RETRY_LATER`.
    GroupInfo {
        /// The asking session.
        origin: Origin,
        /// Its user: only members are told.
        user: UserId,
        /// The group.
        group: GroupId,
    },
    /// Which of these users, who live on the receiving shard, are online? Refused: `RETRY_LATER`.
    Presence {
        /// The asking session.
        origin: Origin,
        /// At most `PRESENCE_USERS_MAX`.
        users: Vec<UserId>,
    },
}

/// What a group's shard, or a user's, answers over a lane.
#[derive(Debug)]
pub enum LaneAnswer {
    /// Refused.
    Refused {
        /// Why.
        code: ErrorCode,
        /// When to try again; 0: never.
        retry_after_ms: u32,
    },
    /// An ephemeral message went out.
    EphemeralSent {
        /// Its number.
        msg_id: MsgId,
        /// When, Unix milliseconds.
        sent_at_ms: u64,
    },
    /// The members of a group.
    Members(Arc<Roster>),
    /// Those of the users asked for who are online on the answering shard.
    Online(Vec<UserId>),
}

// ---- shard to store and back ------------------------------------------------------------------------

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
        /// Its user.
        user: UserId,
        /// Its device.
        device: DeviceId,
    },
    /// Cursors to keep. Refused: kept, merged with newer ones, sent again later.
    SaveCursors(Vec<CursorRow>),
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
    /// Whose.
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
        /// Who asked.
        session: SessionRef,
        /// What for.
        purpose: PagePurpose,
        /// After which row.
        after: Seq,
        /// The rows.
        page: Page,
    },
    /// The cursor the store has for the device; `None`: it never acknowledged anything.
    Cursor {
        /// Who asked.
        origin: Origin,
        /// Up to where.
        seq: Option<Seq>,
    },
    /// The store cannot be read now (the log says why).
    Unavailable {
        /// Who asked.
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

// ---- ledger to store and back -----------------------------------------------------------------------

/// The ledger asks whether a message was stored long ago. Refused: the sender gets `RETRY_LATER`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lookup {
    /// Who sent it.
    pub sender: UserId,
    /// Under which name.
    pub client_msg_id: ClientMsgId,
    /// In which generation of a cluster's ledger it was asked; zero on one machine.
    pub generation: u64,
}

/// What the store found, in its rows and in the unapplied tail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LookupAnswer {
    /// What was asked.
    pub lookup: Lookup,
    /// The answer.
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
    /// Its number.
    pub msg_id: MsgId,
    /// The sender's own row, also after retention deleted it.
    pub seq: Seq,
    /// Unix milliseconds.
    pub sent_at_ms: u64,
    /// [`crate::ledger::dedup::digest`] of its conversation and body.
    pub digest: u64,
}

// ---- handing a connection over ----------------------------------------------------------------------

/// All that a session's new shard needs; the shell sends it with the descriptor. Dropped: the connection is
/// closed, and the client connects again.
#[derive(Debug)]
pub struct HandedOver {
    /// The login's request id.
    pub request_id: u32,
    /// From the verified token.
    pub user: UserId,
    /// From the login.
    pub device: DeviceId,
    /// When the token expires, Unix seconds.
    pub expires_at_s: u64,
    /// The login's last_seq; `None`: the device's cursor.
    pub last_seq: Option<Seq>,
    /// TCP or WebSocket.
    pub transport: Transport,
    /// Bytes that came behind the login.
    pub unread: Vec<u8>,
    /// Bytes that wait to be written (a WebSocket handshake).
    pub unsent: Vec<u8>,
}

/// How a connection carries frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Transport {
    /// Nothing has been read yet.
    #[default]
    Unknown,
    /// Size-prefixed frames, one after another.
    Tcp,
    /// One frame, prefix kept, in each binary message.
    WebSocket,
}

/// What the ledger's slot table needs to know of a user at start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewestRow {
    /// Whose.
    pub user: UserId,
    /// The newest stored row.
    pub seq: Seq,
}

/// A group as the store has it at start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredGroup {
    /// Which.
    pub group: GroupId,
    /// At which version.
    pub version: RosterVersion,
    /// Who, in any order.
    pub members: Vec<(UserId, Role)>,
}

/// Used by the compile-time size check below and by nobody else.
const _: () = {
    assert!(size_of::<Delivery>() <= 112, "deliveries are copied once per shard and commit: keep them small");
    assert!(size_of::<LedgerSlot>() == 4, "rosters hold one per member");
};
