//! The records inside a batch: what one message, one roster or one change of a group looks like on disk.
//!
//! Encoded by the ledger's thread, decoded by the store's and at start. What always holds: decoding never
//! reads past the bytes it was given and never panics, whatever they hold.

use super::Position;
use crate::ids::{ClientMsgId, GroupId, MsgId, RosterVersion, Seq, UserId};
use crate::wire::generated::ringway::wire::{GroupChangeKind, Role};

/// One record, borrowed from the batch it was read from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record<'a> {
    /// Who is in a group, and where each one's seq stands; once per version and segment, before the first
    /// message that refers to it (again when the differences to it have grown).
    Roster(RosterRecord),
    /// A group message and a row for each member of the roster it refers to.
    Group(GroupRecord<'a>),
    /// A one-to-one message with two rows (one, in a message to oneself).
    Direct(DirectRecord<'a>),
    /// A change of a group.
    Change(ChangeRecord),
}

/// A roster as group messages refer to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RosterRecord {
    /// Whose.
    pub group: GroupId,
    /// Which version.
    pub version: RosterVersion,
    /// In the order that the differences in [`GroupRecord`] follow.
    pub members: Vec<RosterRecordMember>,
}

/// A member with the seq from which the differences count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RosterRecordMember {
    /// Who.
    pub user: UserId,
    /// Owner or member.
    pub role: Role,
    /// The user's newest seq when the record was written.
    pub base: Seq,
}

/// A group message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupRecord<'a> {
    /// Its number, which holds its time too ([`crate::ledger::sequence::sent_at_ms`]).
    pub msg_id: MsgId,
    /// Who sent it.
    pub sender: UserId,
    /// To which group.
    pub group: GroupId,
    /// The sender's name for it.
    pub client_msg_id: ClientMsgId,
    /// Where its [`RosterRecord`] lies, in the same segment.
    pub roster_at: Position,
    /// One varint a member: the row's seq minus the member's base.
    pub differences: &'a [u8],
    /// What was said.
    pub body: &'a [u8],
}

/// A one-to-one message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirectRecord<'a> {
    /// Its number, which holds its time too.
    pub msg_id: MsgId,
    /// Who sent it.
    pub sender: UserId,
    /// To whom; may be the sender.
    pub to: UserId,
    /// The sender's name for it.
    pub client_msg_id: ClientMsgId,
    /// The sender's row.
    pub sender_seq: Seq,
    /// The recipient's row; equal to `sender_seq` in a message to oneself.
    pub recipient_seq: Seq,
    /// What was said.
    pub body: &'a [u8],
}

/// A change of a group, complete enough to be applied to the version before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangeRecord {
    /// Its number: changes and messages share one counter.
    pub msg_id: MsgId,
    /// Which group.
    pub group: GroupId,
    /// The version after the change; 1 for a new group.
    pub version: RosterVersion,
    /// What was done.
    pub kind: GroupChangeKind,
    /// By whom; the owner, when the group is new.
    pub actor: UserId,
    /// Who was added or removed; all members but the owner, when the group is new.
    pub users: Vec<UserId>,
    /// Who becomes owner, when the owner left.
    pub new_owner: Option<UserId>,
}
