//! What the ledger hands a shard, in the ledger's order.
//!
//! What always holds: none is ever dropped while its shard runs, because the ledger waits for room in a shard's mailbox
//! before it takes more submissions.

use std::sync::Arc;

use ringway_wire::ids::{GroupId, MsgId, RosterVersion, Seq, UserId};
use ringway_wire::request::GroupEntry;
use ringway_wire::schema::{ErrorCode, GroupChangeKind};

use crate::contract::ids::Origin;
use crate::contract::message::{Incoming, Message, Roster};

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
    /// The message is durable; to the API, if it sent it. A session is answered with the message itself.
    Numbered {
        /// Who sent it.
        origin: Origin,
        /// The message's number.
        msg_id: MsgId,
        /// The sender's row.
        seq: Seq,
        /// The message's time, Unix milliseconds.
        sent_at_ms: u64,
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
        /// The asking session, which gets the answer.
        origin: Origin,
        /// What the asking session is told.
        code: ErrorCode,
        /// When to try again; 0: never.
        retry_after_ms: u32,
    },
    /// A change of a group was refused, because these cannot be added; to the origin's shard.
    NotAdded {
        /// The asking session, which gets the answer.
        origin: Origin,
        /// Why.
        code: ErrorCode,
        /// Who cannot, sorted.
        users: Vec<UserId>,
    },
    /// The answer to `Submission::Position`: every delivery with a seq up to `newest` came before this one.
    Position {
        /// The asking session, which gets the answer.
        origin: Origin,
        /// The user's newest durable seq.
        newest: Seq,
        /// A client may have been told numbers up to this one: above `newest` lie rows of a lost stream, or such as this
        /// node has not heard of.
        given: Seq,
    },
    /// The answer to `Submission::Sharing`.
    Sharing {
        /// The asking session.
        origin: Origin,
        /// Those of whom it asked that share a group with its user, in the order in which it asked.
        users: Vec<UserId>,
    },
    /// The ephemeral message of `Submission::Ephemeral` may go.
    Permitted {
        /// The sending session.
        origin: Origin,
        /// The message.
        incoming: Box<Incoming>,
    },
    /// The answer to `Submission::Groups`.
    Groups {
        /// The asking session, which gets the answer.
        origin: Origin,
        /// The user's groups, by group id.
        groups: Vec<GroupEntry>,
    },
    /// The answer to `Submission::Roster`; `None`: there is no such group.
    Roster {
        /// The group asked about.
        group: GroupId,
        /// Its current roster.
        roster: Option<Arc<Roster>>,
    },
    /// A durable change of a group, to every shard: the group's home swaps its roster, the shards of those
    /// concerned announce it, the origin's shard answers.
    Changed {
        /// The asking session, which gets the answer.
        origin: Origin,
        /// The roster after the change; empty when the last member left.
        roster: Arc<Roster>,
        /// What changed.
        announcement: Arc<GroupAnnouncement>,
    },
    /// The ledger has lost changes of a group, and goes on with this roster, which may be an older one; to every shard.
    Reloaded {
        /// The group whose changes were lost.
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
        /// The asking session, which gets the answer.
        origin: Origin,
        /// The group, which stays as it is.
        group: GroupId,
        /// Its version, as it was.
        version: RosterVersion,
    },
}

impl Delivery {
    /// Who has sent it, if it is a durable message.
    pub(crate) fn sent_by(&self) -> Option<Origin> {
        match self {
            Delivery::Group { origin, .. } | Delivery::Direct { origin, .. } => Some(*origin),
            _ => None,
        }
    }
}

/// What the members are told of a change.
#[derive(PartialEq, Eq, Debug)]
pub struct GroupAnnouncement {
    /// What was done.
    pub(crate) kind: GroupChangeKind,
    /// By whom.
    pub(crate) actor: UserId,
    /// To whom: only those who were really added or removed, sorted.
    pub(crate) users: Vec<UserId>,
    /// Who was to be added and could not be, sorted: for whoever has asked.
    pub(crate) left_out: Vec<UserId>,
}

const _: () = assert!(size_of::<Delivery>() <= 56, "deliveries are copied once per shard and commit: keep them small");
