//! The index behind the tail: which messages are there, under which names, and in whose inboxes.
//!
//! Owned by the tail. What always holds: entries are numbered in journal order without holes; a roster is here
//! while a message refers to it, and users are listed exactly under the rosters that are here and the one-to-one
//! messages that are unapplied. Rosters without unapplied messages stay while they are their group's newest and
//! there is room: the group's next message will refer to them.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::corrupt;
use crate::contract::internal::{OrCount, Place};
use crate::contract::keyed::TableKey;
use crate::contract::position::{JournalPosition, StreamDigest};
use crate::contract::store::Lookup;
use crate::journal::JournalError;
use crate::journal::disk::Disk;
use crate::journal::reader::Reader;
use crate::journal::record::{Record, RosterRecord};
use crate::limits::TAIL_IDLE_MEMBERSHIPS_MAX;
use ringway_wire::ids::{ClientMsgId, GroupId, MsgId, Seq, UserId};

/// An entry's place in journal order; numbers are never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Number(u64);

/// One unapplied record with effects in the store.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) at: JournalPosition,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Group { sender: UserId, client_msg_id: ClientMsgId, roster_at: JournalPosition, msg_id: MsgId },
    Direct { sender: UserId, client_msg_id: ClientMsgId, to: UserId, msg_id: MsgId },
    Change,
}

/// Where an entry of a stream ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mark {
    /// The entry.
    pub(super) count: u64,
    /// What the entries are up to it.
    pub(super) digest: StreamDigest,
    /// Behind the mark.
    pub(super) end: JournalPosition,
}

/// A roster and the unapplied messages that refer to it.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) record: RosterRecord,
    messages: VecDeque<Number>,
    /// Its key in `Index::idle`, while no message refers to it.
    idle_since: Option<u64>,
}

/// What the tail has for one user: 32 bytes, and none elsewhere for the many that are in one roster.
#[derive(Debug, Default)]
struct UserTail {
    memberships: Memberships,
    #[expect(clippy::box_collection, reason = "8 bytes for those who have none, who are nearly all")]
    direct: Option<Box<VecDeque<(Number, Seq)>>>,
}

const _: () = assert!(size_of::<UserTail>() == 32, "there is one for every member of every roster that is here");

/// A roster the user is in, and where in it.
type Membership = (JournalPosition, u32);

#[derive(Debug, Default)]
enum Memberships {
    #[default]
    None,
    One(Membership),
    Several(Vec<Membership>),
}

impl UserTail {
    fn is_empty(&self) -> bool {
        self.memberships.all().is_empty() && self.direct.is_none()
    }

    fn push_direct(&mut self, number: Number, seq: Seq) {
        self.direct.get_or_insert_default().push_back((number, seq));
    }
}

impl Memberships {
    fn all(&self) -> &[Membership] {
        match self {
            Memberships::None => &[],
            Memberships::One(one) => std::slice::from_ref(one),
            Memberships::Several(several) => several,
        }
    }

    fn push(&mut self, membership: Membership) {
        match self {
            Memberships::None => *self = Memberships::One(membership),
            Memberships::One(one) => *self = Memberships::Several(vec![*one, membership]),
            Memberships::Several(several) => several.push(membership),
        }
    }

    fn remove(&mut self, roster_at: JournalPosition) {
        match self {
            Memberships::One((at, _)) if *at == roster_at => *self = Memberships::None,
            Memberships::None | Memberships::One(_) => {}
            Memberships::Several(several) => {
                several.retain(|(at, _)| *at != roster_at);
                if let [one] = several[..] {
                    *self = Memberships::One(one);
                }
            }
        }
    }
}

/// Entries with rows of one user, in journal order.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a> {
    Group { snapshot: &'a Snapshot, member: usize },
    Direct(&'a VecDeque<(Number, Seq)>),
}

impl Source<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Source::Group { snapshot, .. } => snapshot.messages.len(),
            Source::Direct(rows) => rows.len(),
        }
    }

    pub(super) fn number(&self, place: usize) -> Option<Number> {
        match self {
            Source::Group { snapshot, .. } => snapshot.messages.get(place).copied(),
            Source::Direct(rows) => rows.get(place).map(|(number, _)| *number),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) entries: VecDeque<Entry>,
    /// Oldest first.
    pub(super) marks: VecDeque<Mark>,
    /// The number of the first entry.
    first: u64,
    /// Of all entries together.
    pub(super) rows: usize,
    names: HashMap<(UserId, ClientMsgId), Number, TableKey>,
    rosters: HashMap<JournalPosition, Snapshot, TableKey>,
    /// The newest roster of each group that has one in `rosters`.
    newest: HashMap<GroupId, JournalPosition, TableKey>,
    /// Rosters that no message refers to, the longest idle first.
    idle: BTreeMap<u64, JournalPosition>,
    idle_stamp: u64,
    memberships: usize,
    memberships_idle: usize,
    users: HashMap<UserId, UserTail, TableKey>,
}

impl Index {
    pub(super) fn memberships_in_use(&self) -> usize {
        self.memberships - self.memberships_idle
    }

    pub(super) fn entry(&self, number: Number) -> Option<&Entry> {
        self.entries.get(usize::try_from(number.0.checked_sub(self.first)?).ok()?)
    }

    pub(super) fn named(&self, lookup: &Lookup) -> Option<&Entry> {
        self.entry(*self.names.get(&(lookup.sender, lookup.client_msg_id))?)
    }

    /// The message of this number; found by looking at all of them, of which each is a few words in a row.
    pub(super) fn message(&self, wanted: MsgId) -> Option<&Entry> {
        let is_it = |entry: &&Entry| match &entry.kind {
            Kind::Group { msg_id, .. } | Kind::Direct { msg_id, .. } => *msg_id == wanted,
            Kind::Change => false,
        };
        self.entries.iter().find(is_it)
    }

    pub(super) fn roster(&self, at: JournalPosition) -> Option<&RosterRecord> {
        self.rosters.get(&at).map(|snapshot| &snapshot.record)
    }

    pub(super) fn rows_count(&self, entry: &Entry) -> usize {
        match &entry.kind {
            Kind::Group { roster_at, .. } => {
                self.roster(*roster_at).or_count(Place::Tail).map_or(0, |roster| roster.members.len())
            }
            Kind::Direct { sender, to, .. } => 1 + usize::from(sender != to),
            Kind::Change => 0,
        }
    }

    /// All that has unapplied rows of a user.
    pub(super) fn sources(&self, user: UserId) -> Vec<Source<'_>> {
        let Some(tail) = self.users.get(&user) else { return Vec::new() };
        let groups = tail.memberships.all().iter().filter_map(|(at, member)| {
            let snapshot = self.rosters.get(at).filter(|snapshot| !snapshot.messages.is_empty())?;
            Some(Source::Group { snapshot, member: *member as usize })
        });
        groups.chain(tail.direct.as_deref().map(Source::Direct)).collect()
    }

    /// Indexes the next record; `spot` reads the roster it refers to, if that is not here.
    pub(super) fn take<D: Disk>(
        &mut self,
        at: JournalPosition,
        record: Record<'_>,
        spot: &mut Reader<D>,
    ) -> Result<(), JournalError> {
        let number = Number(self.first + self.entries.len() as u64);
        let kind = match record {
            Record::Roster(roster) => {
                let older = self.add_roster(at, roster);
                self.rest(at);
                self.rest(older);
                return Ok(());
            }
            Record::Group(record) => {
                if !self.rosters.contains_key(&record.roster_at) {
                    let Record::Roster(roster) = spot.record_at(record.roster_at)? else {
                        return Err(corrupt(at, "its roster is not where it says"));
                    };
                    let older = self.add_roster(record.roster_at, roster);
                    self.refer(record.roster_at, number);
                    self.rest(older);
                } else {
                    self.refer(record.roster_at, number);
                }
                let (sender, client_msg_id) = (record.sender, record.client_msg_id);
                self.names.insert((sender, client_msg_id), number);
                Kind::Group { sender, client_msg_id, roster_at: record.roster_at, msg_id: record.msg_id }
            }
            Record::Direct(record) => {
                let (sender, to, client_msg_id) = (record.sender, record.to, record.client_msg_id);
                self.users.entry(sender).or_default().push_direct(number, record.sender_seq);
                if to != sender {
                    self.users.entry(to).or_default().push_direct(number, record.recipient_seq);
                }
                self.names.insert((sender, client_msg_id), number);
                Kind::Direct { sender, client_msg_id, to, msg_id: record.msg_id }
            }
            Record::Change(_) => Kind::Change,
            Record::Mark(count, digest) => {
                let mut bytes = Vec::new();
                Record::Mark(count, digest).encode(&mut bytes);
                self.marks.push_back(Mark { count, digest, end: JournalPosition(at.0 + bytes.len() as u64) });
                return Ok(());
            }
            Record::Withdrawn(_) => return Ok(()),
        };
        let entry = Entry { at, kind };
        self.rows += self.rows_count(&entry);
        self.entries.push_back(entry);
        Ok(())
    }

    /// Forgets the entries below a position.
    pub(super) fn drop_below(&mut self, to: JournalPosition) {
        while self.marks.front().is_some_and(|mark| mark.end < to) {
            self.marks.pop_front();
        }
        while self.entries.front().is_some_and(|entry| entry.at < to) {
            let Some(entry) = self.entries.pop_front() else { break };
            let number = Number(self.first);
            self.first += 1;
            self.rows -= self.rows_count(&entry);
            match entry.kind {
                Kind::Group { sender, client_msg_id, roster_at, .. } => {
                    self.forget_name((sender, client_msg_id), number);
                    self.refer_no_more(roster_at);
                }
                Kind::Direct { sender, client_msg_id, to, .. } => {
                    self.forget_name((sender, client_msg_id), number);
                    self.forget_direct(sender);
                    if to != sender {
                        self.forget_direct(to);
                    }
                }
                Kind::Change => {}
            }
        }
    }

    fn forget_name(&mut self, name: (UserId, ClientMsgId), number: Number) {
        if self.names.get(&name) == Some(&number) {
            self.names.remove(&name);
        }
    }

    fn forget_direct(&mut self, user: UserId) {
        if let Some(tail) = self.users.get_mut(&user).or_count(Place::Tail) {
            if let Some(rows) = &mut tail.direct {
                rows.pop_front();
            }
            tail.direct.take_if(|rows| rows.is_empty());
            if tail.is_empty() {
                self.users.remove(&user);
            }
        }
    }

    /// Puts a roster in; returns the one that was its group's newest before, or itself.
    fn add_roster(&mut self, at: JournalPosition, record: RosterRecord) -> JournalPosition {
        if self.rosters.contains_key(&at) {
            return at;
        }
        for (member, who) in record.members.iter().enumerate() {
            self.users.entry(who.user).or_default().memberships.push((at, member as u32));
        }
        self.memberships += record.members.len();
        let group = record.group;
        self.rosters.insert(at, Snapshot { record, messages: VecDeque::new(), idle_since: None });
        let newest = self.newest.entry(group).or_insert(at);
        std::mem::replace(newest, at.max(*newest))
    }

    fn refer(&mut self, at: JournalPosition, number: Number) {
        let Some(snapshot) = self.rosters.get_mut(&at).or_count(Place::Tail) else { return };
        snapshot.messages.push_back(number);
        if let Some(stamp) = snapshot.idle_since.take() {
            self.idle.remove(&stamp);
            self.memberships_idle -= snapshot.record.members.len();
        }
    }

    fn refer_no_more(&mut self, at: JournalPosition) {
        if let Some(snapshot) = self.rosters.get_mut(&at).or_count(Place::Tail) {
            snapshot.messages.pop_front();
        }
        self.rest(at);
    }

    /// A roster that no message refers to becomes idle, or goes if its group has a newer one; the longest idle go
    /// when they are too many.
    fn rest(&mut self, at: JournalPosition) {
        let Some(snapshot) = self.rosters.get_mut(&at).filter(|snapshot| snapshot.messages.is_empty()) else { return };
        if snapshot.idle_since.is_none() {
            snapshot.idle_since = Some(self.idle_stamp);
            self.idle.insert(self.idle_stamp, at);
            self.idle_stamp += 1;
            self.memberships_idle += snapshot.record.members.len();
        }
        if self.newest.get(&snapshot.record.group) != Some(&at) {
            self.remove_idle(at);
        }
        while self.memberships_idle > TAIL_IDLE_MEMBERSHIPS_MAX {
            // The one at hand is the last to go: the next message may be about to refer to it.
            let Some(oldest) = self.idle.values().next().copied().filter(|oldest| *oldest != at) else { break };
            self.remove_idle(oldest);
        }
    }

    fn remove_idle(&mut self, at: JournalPosition) {
        let Some(snapshot) = self.rosters.remove(&at).or_count(Place::Tail) else { return };
        if let Some(stamp) = snapshot.idle_since {
            self.idle.remove(&stamp);
            self.memberships_idle -= snapshot.record.members.len();
        }
        self.memberships -= snapshot.record.members.len();
        if self.newest.get(&snapshot.record.group) == Some(&at) {
            self.newest.remove(&snapshot.record.group);
        }
        for member in &snapshot.record.members {
            if let Some(tail) = self.users.get_mut(&member.user).or_count(Place::Tail) {
                tail.memberships.remove(at);
                if tail.is_empty() {
                    self.users.remove(&member.user);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
