//! What the stream comes to: rosters, every user's newest row, and this node's copy of it.
//!
//! Owned by the engine. It knows nothing of sessions, nor of what this node has submitted. What always holds: entries are
//! taken in order and none is left out, so every node gives each row the same number, which is one more than the user's
//! last; nothing but the entries and the snapshot they began from goes into it, no clock and no setting of this node.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::clock::RedisClock;
use super::copy::StreamCopy;
use super::entry::{Entry, Left, decimal};
use super::followed::Followed;
use super::senders::SenderRows;
use super::windows::{EntryRows, Windows};
use crate::contract::delivery::{Delivery, GroupAnnouncement};
use crate::contract::ids::Origin;
use crate::contract::keyed::TableKey;
use crate::contract::message::{Message, Roster, RosterMember};
use crate::contract::position::StreamPosition;
use crate::contract::snapshot::Snapshot;
use crate::contract::store::{NewestRow, StorePosition};
use crate::contract::submission::ChangeSubmission;
use crate::journal::disk::Disk;
use crate::journal::record::{ChangeRecord, DirectRecord, GroupRecord, Record};
use crate::ledger::LedgerError;
use crate::ledger::answers::Answers;
use crate::ledger::groups::Groups;
use crate::ledger::sequence::Sequences;
use crate::limits::{CLOCK_SKEW_MAX_MS, GROUPS_LEFT_KEPT_MS};
use ringway_wire::ids::{ClientMsgId, Conversation, GroupId, MsgId, RosterVersion, Seq, UserId};
use ringway_wire::push::PushFrame;
use ringway_wire::schema::GroupChangeKind;

/// Groups of one step, when Redis is given all of them.
const GROUPS_PER_STEP: usize = 1_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Follower<D: Disk> {
    pub(super) followed: Followed,
    pub(super) sequences: Sequences,
    pub(super) groups: Groups,
    /// What Redis has said of the time, and how far the stream was then.
    pub(super) redis_clock: RedisClock,
    pub(super) senders: SenderRows,
    pub(super) windows: Windows,
    copy: StreamCopy<D>,
    /// Groups that have changed, and the entry that changed them last, until the database has it.
    changed_at: HashMap<GroupId, StreamPosition, TableKey>,
    /// Of the groups that this node's log would make: those that the database had, and that everybody has left. `None`: it
    /// was not asked since the start.
    left: Option<BTreeSet<GroupId>>,
    seed: u64,
}

/// An entry with its numbers.
#[derive(Debug)]
pub(super) enum Numbered<'a> {
    /// A message to a group; `seqs` are parallel to the roster's members.
    Group { record: &'a GroupRecord<'a>, roster: Arc<Roster>, seqs: Arc<[Seq]>, sender_seq: Seq },
    /// A message to one user.
    Direct { record: &'a DirectRecord<'a>, sender_seq: Seq, recipient_seq: Seq },
    /// A change, and what it made of its group.
    Change { record: &'a ChangeRecord, roster: Arc<Roster> },
}

impl<D: Disk> Follower<D> {
    /// With what a snapshot of the database has, and an empty copy.
    pub(super) fn new(
        at: StorePosition,
        (groups, sequences): (Groups, Sequences),
        copy: StreamCopy<D>,
        seed: u64,
    ) -> Self {
        Follower {
            followed: Followed::from_snapshot(at),
            sequences,
            groups,
            redis_clock: RedisClock::default(),
            senders: SenderRows::default(),
            windows: Windows::default(),
            copy,
            changed_at: HashMap::with_hasher(TableKey::new(seed ^ 7)),
            left: None,
            seed,
        }
    }

    /// Numbers the next entry. It is followed when [`Self::follow`] has been told so.
    pub(super) fn number<'e>(&mut self, at: StreamPosition, entry: &'e Entry<'e>) -> Result<Numbered<'e>, LedgerError> {
        match &entry.record {
            Record::Group(record) => self.group_entry(at, entry.version, record),
            Record::Direct(record) => self.direct_entry(at, record),
            Record::Change(record) => self.change_entry(at, record),
            Record::Roster(_) | Record::Mark(..) | Record::Withdrawn(_) => Err(LedgerError::Entry(at.0)),
        }
    }

    /// The entry that was numbered is followed.
    pub(super) fn follow(&mut self, at: StreamPosition, entry: &[u8]) -> Result<(), LedgerError> {
        self.followed.push(at, entry);
        self.copy.end_entry(at, self.followed.digest());
        if self.copy.is_long() { self.flush() } else { Ok(()) }
    }

    /// Redis had so many entries at this time of its clock.
    pub(super) fn stood(&mut self, last: StreamPosition, redis_ms: u64) {
        self.redis_clock.stood(last, redis_ms);
        self.read_on();
    }

    /// Entries were followed: the time up to which all is read is a later one.
    pub(super) fn read_on(&mut self) {
        self.redis_clock.read(self.followed.seen());
    }

    /// Shows the store's thread what was followed.
    pub(super) fn flush(&mut self) -> Result<(), LedgerError> {
        self.copy.flush().map_err(LedgerError::Copy)
    }

    /// Bytes of the copy.
    pub(super) fn bytes(&self) -> u64 {
        self.copy.bytes()
    }

    /// The database has all up to this entry of the generation that is followed.
    pub(super) fn stored(&mut self, applied: StreamPosition) {
        self.changed_at.retain(|_, at| *at > applied);
    }

    fn group_entry<'e>(
        &mut self,
        at: StreamPosition,
        version: RosterVersion,
        record: &'e GroupRecord<'e>,
    ) -> Result<Numbered<'e>, LedgerError> {
        // Redis took it at this version, and changes stand in the stream where Redis took them.
        let current = self.groups.roster(record.group).filter(|roster| roster.version == version);
        let roster = Arc::clone(current.ok_or(LedgerError::Entry(at.0))?);
        let sender = roster.position(record.sender).ok_or(LedgerError::Entry(at.0))?;
        let seqs: Arc<[Seq]> = roster.members().iter().map(|member| self.sequences.next(member.slot)).collect();
        let mut rows = EntryRows::default();
        std::iter::zip(roster.members(), seqs.iter()).for_each(|(member, seq)| rows.add(member.user, *seq));
        // Parallel to the members.
        let sender_seq = seqs[sender];
        self.numbered(at, record.msg_id, sender_seq, rows);
        self.copy.push_group(record.clone(), &roster, &seqs).map_err(LedgerError::Copy)?;
        Ok(Numbered::Group { record, roster, seqs, sender_seq })
    }

    fn direct_entry<'e>(
        &mut self,
        at: StreamPosition,
        record: &'e DirectRecord<'e>,
    ) -> Result<Numbered<'e>, LedgerError> {
        let mut rows = EntryRows::default();
        let sender_seq = self.next_of(record.sender).ok_or(LedgerError::Entry(at.0))?;
        rows.add(record.sender, sender_seq);
        let mut recipient_seq = sender_seq;
        if record.to != record.sender {
            recipient_seq = self.next_of(record.to).ok_or(LedgerError::Entry(at.0))?;
            rows.add(record.to, recipient_seq);
        }
        self.numbered(at, record.msg_id, sender_seq, rows);
        let numbered = DirectRecord { sender_seq, recipient_seq, ..record.clone() };
        self.copy.push(&Record::Direct(numbered)).map_err(LedgerError::Copy)?;
        Ok(Numbered::Direct { record, sender_seq, recipient_seq })
    }

    fn change_entry<'e>(&mut self, at: StreamPosition, record: &'e ChangeRecord) -> Result<Numbered<'e>, LedgerError> {
        let applied = self.groups.apply(record, &mut self.sequences);
        let roster = applied.ok().flatten().ok_or(LedgerError::Entry(at.0))?;
        self.groups.keep();
        self.changed_at.insert(record.group, at);
        let mut members = EntryRows::default();
        roster.members().iter().for_each(|member| members.add(member.user, Seq(u64::from(member.role.0))));
        self.numbered(at, record.msg_id, Seq(0), members);
        self.copy.push(&Record::Change(record.clone())).map_err(LedgerError::Copy)?;
        Ok(Numbered::Change { record, roster })
    }

    /// What is kept of every entry.
    fn numbered(&mut self, at: StreamPosition, msg_id: MsgId, sender_seq: Seq, rows: EntryRows) {
        self.senders.push(at, sender_seq);
        self.windows.take(at, msg_id, rows);
    }

    fn next_of(&mut self, user: UserId) -> Option<Seq> {
        let slot = self.sequences.assign(user)?;
        Some(self.sequences.next(slot))
    }

    /// The version of the group, if this user is in it.
    pub(super) fn version_for(&self, sender: UserId, group: GroupId) -> Option<RosterVersion> {
        let roster = self.groups.roster(group).filter(|roster| roster.position(sender).is_some())?;
        Some(roster.version)
    }

    /// What a change leaves of its group.
    pub(super) fn left_by(&self, record: &ChangeRecord) -> Left {
        let adds = matches!(record.kind, GroupChangeKind::Created | GroupChangeKind::Added);
        let stays = |member: &RosterMember| record.users.binary_search(&member.user).is_err();
        match self.groups.roster(record.group) {
            Some(before) if !adds && !before.members().iter().any(stays) => Left::Nobody,
            _ => Left::Members,
        }
    }

    /// A change that the database has now need not be made again.
    pub(super) fn is_made(&self, record: &ChangeRecord) -> bool {
        self.groups.roster(record.group).is_some_and(|roster| roster.version >= record.version)
    }

    /// It makes a group that this node does not know: one that is lost, or that was stored, and everybody has left since.
    pub(super) fn makes_unknown(&self, record: &ChangeRecord) -> bool {
        record.kind == GroupChangeKind::Created && self.groups.roster(record.group).is_none()
    }

    /// Whether [`Self::is_over`] can tell one from the other.
    pub(super) fn knows_left(&self) -> bool {
        self.left.is_some()
    }

    /// It makes a group that was stored, and that everybody has left since: the database says so, or it is so long ago that
    /// the database has forgotten it.
    pub(super) fn is_over(&self, record: &ChangeRecord) -> bool {
        let is_left = self.left.as_ref().is_some_and(|left| left.contains(&record.group));
        let kept_until_ms = record.msg_id.sent_at_ms() + GROUPS_LEFT_KEPT_MS - CLOCK_SKEW_MAX_MS;
        self.makes_unknown(record) && (is_left || kept_until_ms < self.followed.stored_ms())
    }

    /// What a snapshot is compared with: this node's groups; at version zero those that the database may not have, as another
    /// change may have made the same version there.
    pub(super) fn versions(&self) -> HashMap<GroupId, RosterVersion, TableKey> {
        let mut versions = HashMap::with_hasher(TableKey::new(self.seed ^ 6));
        versions.extend(self.groups.each().map(|roster| (roster.group, roster.version)));
        versions.extend(self.changed_at.keys().map(|group| (*group, RosterVersion(0))));
        versions
    }

    /// Every group with its version, as Redis keeps them, in steps.
    pub(super) fn group_versions(&self) -> Vec<Vec<Vec<u8>>> {
        let pairs: Vec<[Vec<u8>; 2]> =
            self.groups.each().map(|roster| [decimal(roster.group.0), decimal(roster.version.0.into())]).collect();
        pairs.chunks(GROUPS_PER_STEP).map(<[_]>::concat).collect()
    }

    /// At a generation's beginning every user's number is the floor. So what nodes have been told of the lost stream,
    /// some more than others, makes no difference, as long as it lies below.
    pub(super) fn check_floor(&self, floor: Seq) -> Result<(), LedgerError> {
        let highest = self.sequences.highest();
        if highest > floor {
            return Err(LedgerError::Floor { floor, highest });
        }
        Ok(())
    }

    /// Goes on from what the database has.
    pub(super) fn replace(&mut self, snapshot: Snapshot, answers: &mut Answers) -> Result<(), LedgerError> {
        let Snapshot { at, changed, gone, left, rows, .. } = snapshot;
        let is_known = |group: &GroupId| self.groups.roster(*group).is_some();
        let gone: Vec<GroupId> = gone.into_iter().filter(is_known).collect();
        self.left = Some(left.into_iter().collect());
        if self.followed.generation().is_some() && changed.len() + gone.len() > 0 {
            tracing::warn!(
                groups = changed.len() + gone.len(),
                "groups are taken from the database: it has others than the lost ledger had"
            );
        }
        for stored in &changed {
            self.groups.replace(stored, &mut self.sequences).ok_or(LedgerError::Users)?;
        }
        gone.iter().for_each(|group| self.groups.remove(*group));
        for group in changed.iter().map(|stored| stored.group).chain(gone) {
            answers.stage(Delivery::Reloaded { group, roster: self.groups.roster(group).cloned() });
        }
        self.copy.forget_rosters();
        self.changed_at.clear();
        self.senders.clear();
        self.windows.interrupted();
        self.missed(rows, answers)?;
        self.followed.replace(at);
        Ok(())
    }

    /// Rows that are in the database and that this node has not delivered: those who are online read them from there.
    fn missed(&mut self, rows: Vec<NewestRow>, answers: &mut Answers) -> Result<(), LedgerError> {
        let mut missed: Vec<(UserId, Seq)> = Vec::new();
        for NewestRow { user, seq } in rows {
            let slot = self.sequences.assign(user).ok_or(LedgerError::Users)?;
            if seq > self.sequences.at(slot) {
                self.sequences.raise(slot, seq);
                missed.push((user, seq));
            }
        }
        if self.followed.generation().is_some() && !missed.is_empty() {
            answers.stage(Delivery::Missed { newest: missed.into() });
        }
        Ok(())
    }
}

impl Numbered<'_> {
    /// The sender's row; zero, if it is no message.
    pub(super) fn sender_seq(&self) -> Seq {
        match self {
            Numbered::Group { sender_seq, .. } | Numbered::Direct { sender_seq, .. } => *sender_seq,
            Numbered::Change { .. } => Seq(0),
        }
    }

    /// How many rows a message has; `None`: it is none.
    pub(super) fn rows(&self) -> Option<u64> {
        match self {
            Numbered::Group { seqs, .. } => Some(seqs.len() as u64),
            Numbered::Direct { record, .. } => Some(1 + u64::from(record.sender != record.to)),
            Numbered::Change { .. } => None,
        }
    }

    /// What shards are handed of it; `origin`: the session that sent it; `change`: as it was asked for, if that
    /// was here.
    pub(super) fn delivery(self, origin: Origin, change: Option<&ChangeSubmission>) -> Delivery {
        match self {
            Numbered::Group { record, roster, seqs, .. } => {
                let message = message(record.msg_id, record.sender, record.to(), record.client_msg_id, record.body);
                Delivery::Group { message, roster, seqs, origin }
            }
            Numbered::Direct { record, sender_seq, recipient_seq } => {
                let message = message(record.msg_id, record.sender, record.to(), record.client_msg_id, record.body);
                Delivery::Direct { message, sender_seq, recipient_seq, origin }
            }
            Numbered::Change { record, roster } => {
                let left_out = change.map_or_else(Vec::new, |change| change.left_out(&roster));
                let ChangeRecord { kind, actor, ref users, .. } = *record;
                let announcement = Arc::new(GroupAnnouncement { kind, actor, users: users.clone(), left_out });
                Delivery::Changed { origin, roster, announcement }
            }
        }
    }
}

fn message(msg_id: MsgId, sender: UserId, to: Conversation, client_msg_id: ClientMsgId, body: &[u8]) -> Arc<Message> {
    let sent_at_ms = msg_id.sent_at_ms();
    let push = PushFrame::encode(msg_id, sender, to, sent_at_ms, body);
    Arc::new(Message { msg_id, sender, to, client_msg_id, sent_at_ms, push })
}
