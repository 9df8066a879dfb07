//! The records inside a batch: what one message, one roster or one change of a group looks like on disk.
//!
//! Encoded by the ledger's thread, decoded by the store's and at start. What always holds: decoding never
//! reads past the bytes it was given and never panics, whatever they hold. What guards against bit rot is the
//! CRC of the batch, not anything here.
//!
//! On disk a record is a `u32` length (little-endian, itself not counted), a tag byte and the fields. Numbers
//! that tend to be small are LEB128 varints; ids made of time and chance are eight bytes.

use std::iter;

use super::varint::{self, Cut};
use crate::contract::position::{JournalPosition, StreamDigest};
use crate::limits::JOURNAL_BATCH_BYTES_MAX;
use crate::spending::Making;
use ringway_wire::ids::{ClientMsgId, Conversation, GroupId, MsgId, RosterVersion, Seq, UserId};
use ringway_wire::schema::{GroupChangeKind, Role};

/// A record's length stands before it in so many bytes.
pub(crate) const RECORD_PREFIX_BYTES: usize = 4;

const TAG_ROSTER: u8 = 1;
const TAG_GROUP: u8 = 2;
const TAG_DIRECT: u8 = 3;
const TAG_CHANGE: u8 = 4;
const TAG_MARK: u8 = 5;
const TAG_WITHDRAWN: u8 = 6;

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
    /// In a node's copy of the cluster's stream: all before it is the stream up to this entry, whose entries are these.
    Mark(u64, StreamDigest),
    /// In a node's log of what it submitted to the cluster: this one was refused, and must not be submitted again.
    Withdrawn(MsgId),
}

/// A roster as group messages refer to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RosterRecord {
    /// The group whose members these are.
    pub group: GroupId,
    /// The version that messages name; a later one has another record.
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
    /// Its number, which holds its time too ([`MsgId::sent_at_ms`]).
    pub msg_id: MsgId,
    /// Who sent it.
    pub sender: UserId,
    /// To which group.
    pub group: GroupId,
    /// The sender's name for it.
    pub client_msg_id: ClientMsgId,
    /// Where its [`RosterRecord`] lies, in the same segment.
    pub roster_at: JournalPosition,
    /// One varint a member: the row's seq minus the member's base.
    pub differences: &'a [u8],
    /// What was said.
    pub body: &'a [u8],
}

/// A one-to-one message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirectRecord<'a> {
    /// Its number, which holds its time too.
    pub(crate) msg_id: MsgId,
    /// Who sent it.
    pub(crate) sender: UserId,
    /// To whom; may be the sender.
    pub(crate) to: UserId,
    /// The sender's name for it.
    pub(crate) client_msg_id: ClientMsgId,
    /// The sender's row.
    pub(crate) sender_seq: Seq,
    /// The recipient's row; equal to `sender_seq` in a message to oneself.
    pub(crate) recipient_seq: Seq,
    /// What was said.
    pub(crate) body: &'a [u8],
}

/// A change of a group, complete enough to be applied to the version before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangeRecord {
    /// Its number: changes and messages share one counter.
    pub(crate) msg_id: MsgId,
    /// Which group.
    pub(crate) group: GroupId,
    /// The version after the change; 1 for a new group.
    pub(crate) version: RosterVersion,
    /// What was done.
    pub(crate) kind: GroupChangeKind,
    /// By whom; the owner, when the group is new.
    pub(crate) actor: UserId,
    /// Who was added or removed; all members but the owner, when the group is new.
    pub(crate) users: Vec<UserId>,
    /// Who becomes owner, when the owner left.
    pub(crate) new_owner: Option<UserId>,
}

/// Why bytes are no record. Behind a good CRC this is another version's journal or a defect of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// The bytes end before the record does.
    #[error("the record is cut short")]
    Short,
    /// Bytes are left over behind the last field.
    #[error("the record is longer than its fields")]
    Long,
    /// A field holds a value that no field of its kind has.
    #[error("the record's {0} is none that this version knows")]
    Unknown(&'static str),
    /// The differences do not fit the roster they refer to.
    #[error("the record has differences for {differences} members, its roster has {members}")]
    Differences {
        /// How many there are.
        differences: usize,
        /// How many there should be.
        members: usize,
    },
}

impl From<Cut> for RecordError {
    fn from(_: Cut) -> Self {
        RecordError::Short
    }
}

impl Record<'_> {
    /// The message's or the change's number; a roster has none.
    pub(crate) fn msg_id(&self) -> Option<MsgId> {
        match self {
            Record::Roster(_) | Record::Mark(..) | Record::Withdrawn(_) => None,
            Record::Group(record) => Some(record.msg_id),
            Record::Direct(record) => Some(record.msg_id),
            Record::Change(record) => Some(record.msg_id),
        }
    }

    /// Appends the record with its length in front.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; RECORD_PREFIX_BYTES]);
        match self {
            Record::Roster(record) => record.encode(out),
            Record::Group(record) => record.encode(out),
            Record::Direct(record) => record.encode(out),
            Record::Change(record) => record.encode(out),
            Record::Mark(count, digest) => {
                out.push(TAG_MARK);
                varint::put(out, *count);
                out.extend_from_slice(&digest.0.to_le_bytes());
            }
            Record::Withdrawn(msg_id) => {
                out.push(TAG_WITHDRAWN);
                out.extend_from_slice(&msg_id.0.to_le_bytes());
            }
        }
        let length = (out.len() - start - RECORD_PREFIX_BYTES) as u32;
        out[start..start + RECORD_PREFIX_BYTES].copy_from_slice(&length.to_le_bytes());
    }
}

impl<'a> Record<'a> {
    /// Reads a record from exactly its bytes, the length in front not included.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Record<'a>, RecordError> {
        let mut input = Input(bytes);
        match input.byte()? {
            TAG_ROSTER => RosterRecord::decode(input).map(Record::Roster),
            TAG_GROUP => GroupRecord::decode(input).map(Record::Group),
            TAG_DIRECT => DirectRecord::decode(input).map(Record::Direct),
            TAG_CHANGE => ChangeRecord::decode(input).map(Record::Change),
            TAG_MARK => {
                let (count, digest) = (input.varint()?, StreamDigest(input.fixed()?));
                input.end().map(|()| Record::Mark(count, digest))
            }
            TAG_WITHDRAWN => {
                let msg_id = MsgId(input.fixed()?);
                input.end().map(|()| Record::Withdrawn(msg_id))
            }
            _ => Err(RecordError::Unknown("tag")),
        }
    }

    /// The length that stands before a record, if it can be one. A batch's magic, and zeroes, cannot.
    pub(crate) fn length(prefix: [u8; RECORD_PREFIX_BYTES]) -> Option<usize> {
        let length = u32::from_le_bytes(prefix) as usize;
        (1..=JOURNAL_BATCH_BYTES_MAX).contains(&length).then_some(length)
    }
}

impl RosterRecord {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(TAG_ROSTER);
        out.extend_from_slice(&self.group.0.to_le_bytes());
        varint::put(out, u64::from(self.version.0));
        varint::put(out, self.members.len() as u64);
        for member in &self.members {
            varint::put(out, member.user.0);
            varint::put(out, (member.base.0 << 1) | u64::from(member.role == Role::Owner));
        }
    }

    fn decode(mut input: Input<'_>) -> Result<Self, RecordError> {
        let group = GroupId(input.fixed()?);
        let version = RosterVersion(input.small()?);
        let count = input.varint()? as usize;
        if count > input.0.len() / 2 {
            return Err(RecordError::Short);
        }
        let mut members = Vec::with_capacity(count);
        for _ in 0..count {
            let user = UserId(input.varint()?);
            let base_and_role = input.varint()?;
            let role = if base_and_role & 1 == 1 { Role::Owner } else { Role::Member };
            members.push(RosterRecordMember { user, role, base: Seq(base_and_role >> 1) });
        }
        input.end()?;
        Ok(RosterRecord { group, version, members })
    }
}

impl<'a> GroupRecord<'a> {
    /// Where it was addressed.
    pub(crate) fn to(&self) -> Conversation {
        Conversation::Group(self.group)
    }

    /// Every row of the message: who, and under which seq, in the roster's order.
    pub(crate) fn rows<'r>(
        &'r self,
        roster: &'r RosterRecord,
    ) -> Result<impl Iterator<Item = (UserId, Seq)> + 'r, RecordError> {
        let seqs = self.seqs(roster.members.len())?;
        Ok(iter::zip(&roster.members, seqs).map(|(m, difference)| (m.user, Seq(m.base.0.wrapping_add(difference)))))
    }

    /// The row of the member at `index` of the roster, without decoding the others.
    pub(crate) fn seq_at(&self, roster: &RosterRecord, index: usize) -> Option<Seq> {
        let base = roster.members.get(index)?.base;
        let difference = if self.differences.len() == roster.members.len() {
            u64::from(*self.differences.get(index).filter(|byte| **byte < 0x80)?)
        } else {
            varint::nth(self.differences, index)?
        };
        Some(Seq(base.0.wrapping_add(difference)))
    }

    /// The differences, one a member, after checking that there are as many as members.
    pub(crate) fn seqs(&self, members: usize) -> Result<impl Iterator<Item = u64> + 'a, RecordError> {
        let differences = varint::count(self.differences)?;
        if differences != members {
            return Err(RecordError::Differences { differences, members });
        }
        let mut rest = self.differences;
        Ok(iter::from_fn(move || varint::take(&mut rest).ok()))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(TAG_GROUP);
        out.extend_from_slice(&self.msg_id.0.to_le_bytes());
        out.extend_from_slice(&self.group.0.to_le_bytes());
        out.extend_from_slice(&self.client_msg_id.0);
        varint::put(out, self.sender.0);
        varint::put(out, self.roster_at.0);
        varint::put(out, self.differences.len() as u64);
        out.extend_from_slice(self.differences);
        out.extend_from_slice(self.body);
    }

    fn decode(mut input: Input<'a>) -> Result<Self, RecordError> {
        let msg_id = MsgId(input.fixed()?);
        let group = GroupId(input.fixed()?);
        let client_msg_id = ClientMsgId(input.array()?);
        let sender = UserId(input.varint()?);
        let roster_at = JournalPosition(input.varint()?);
        let differences_bytes = input.varint()?;
        let differences = input.bytes(usize::try_from(differences_bytes).map_err(|_| RecordError::Short)?)?;
        Ok(GroupRecord { msg_id, sender, group, client_msg_id, roster_at, differences, body: input.0 })
    }
}

impl<'a> DirectRecord<'a> {
    /// Where it was addressed.
    pub(crate) fn to(&self) -> Conversation {
        Conversation::User(self.to)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(TAG_DIRECT);
        out.extend_from_slice(&self.msg_id.0.to_le_bytes());
        out.extend_from_slice(&self.client_msg_id.0);
        varint::put(out, self.sender.0);
        varint::put(out, self.to.0);
        varint::put(out, self.sender_seq.0);
        varint::put(out, self.recipient_seq.0);
        out.extend_from_slice(self.body);
    }

    fn decode(mut input: Input<'a>) -> Result<Self, RecordError> {
        Ok(DirectRecord {
            msg_id: MsgId(input.fixed()?),
            client_msg_id: ClientMsgId(input.array()?),
            sender: UserId(input.varint()?),
            to: UserId(input.varint()?),
            sender_seq: Seq(input.varint()?),
            recipient_seq: Seq(input.varint()?),
            body: input.0,
        })
    }
}

impl ChangeRecord {
    /// What it makes: groups and members.
    pub(crate) fn making(&self) -> Making {
        let members = self.users.len() as u64;
        match self.kind {
            GroupChangeKind::Created => Making { groups: 1, members: members + 1 },
            GroupChangeKind::Added => Making { groups: 0, members },
            _ => Making::default(),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(TAG_CHANGE);
        out.extend_from_slice(&self.msg_id.0.to_le_bytes());
        out.extend_from_slice(&self.group.0.to_le_bytes());
        out.push(self.kind.0);
        out.push(u8::from(self.new_owner.is_some()));
        varint::put(out, u64::from(self.version.0));
        varint::put(out, self.actor.0);
        if let Some(owner) = self.new_owner {
            varint::put(out, owner.0);
        }
        varint::put(out, self.users.len() as u64);
        for user in &self.users {
            varint::put(out, user.0);
        }
    }

    fn decode(mut input: Input<'_>) -> Result<Self, RecordError> {
        let msg_id = MsgId(input.fixed()?);
        let group = GroupId(input.fixed()?);
        let kind = GroupChangeKind(input.byte()?);
        if kind.0 > GroupChangeKind::ENUM_MAX {
            return Err(RecordError::Unknown("kind of change"));
        }
        let has_new_owner = match input.byte()? {
            0 => false,
            1 => true,
            _ => return Err(RecordError::Unknown("mark of a new owner")),
        };
        let version = RosterVersion(input.small()?);
        let actor = UserId(input.varint()?);
        let new_owner = if has_new_owner { Some(UserId(input.varint()?)) } else { None };
        let count = input.varint()? as usize;
        if count > input.0.len() {
            return Err(RecordError::Short);
        }
        let mut users = Vec::with_capacity(count);
        for _ in 0..count {
            users.push(UserId(input.varint()?));
        }
        input.end()?;
        Ok(ChangeRecord { msg_id, group, version, kind, actor, users, new_owner })
    }
}

/// What is left of a record while it is read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(RecordError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(RecordError::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, RecordError> {
        self.array::<1>().map(|b| b[0])
    }

    fn fixed(&mut self) -> Result<u64, RecordError> {
        self.array().map(u64::from_le_bytes)
    }

    fn varint(&mut self) -> Result<u64, RecordError> {
        Ok(varint::take(&mut self.0)?)
    }

    fn small(&mut self) -> Result<u32, RecordError> {
        u32::try_from(self.varint()?).map_err(|_| RecordError::Unknown("version"))
    }

    fn end(self) -> Result<(), RecordError> {
        if self.0.is_empty() { Ok(()) } else { Err(RecordError::Long) }
    }
}

#[cfg(test)]
mod tests;
