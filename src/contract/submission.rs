//! What a shard asks of the ledger.
//!
//! Each variant's comment says who recovers if it is dropped: sending is `try_send`, and a refusal hands the submission
//! back to the shard, which answers the asker.

use std::sync::Arc;

use ringway_wire::ids::{ClientMsgId, GroupId, UserId};

use crate::contract::ids::{Origin, ShardId};
use crate::contract::message::Roster;

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
