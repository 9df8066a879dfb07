//! What this node has taken and Redis has not settled: on its way, replied to but not read, or searched for.
//!
//! Owned by the engine. What always holds: calls are made in the order in which submissions were taken, and after a
//! lost session all that is not settled is called again in that order; a submission leaves when its entry is read, or
//! when it is refused or known to be another's.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::entry::{Call, Claimed, Entry, Left, change_call, direct_call, group_call};
use super::link::{Reply, What};
use super::{NOBODY, RedisEngine, Refusal};
use crate::clock::Now;
use crate::contract::delivery::Delivery;
use crate::contract::digest::digest;
use crate::contract::ids::Origin;
use crate::contract::keyed::TableKey;
use crate::contract::message::{Incoming, RosterMember};
use crate::contract::position::JournalPosition;
use crate::contract::store::{Lookup, LookupFound, StoredMessage};
use crate::contract::submission::{ChangeSubmission, MessageSubmission};
use crate::journal::disk::Disk;
use crate::journal::record::{ChangeRecord, DirectRecord, GroupRecord, Record};
use crate::ledger::dedup::Name;
use crate::ledger::staged::Staged;
use crate::limits::{CALL_SUBMISSIONS_MAX, LOST_CHANGES_MS};
use ringway_wire::ids::{Conversation, MsgId, RosterVersion};
use ringway_wire::schema::{ErrorCode, GroupChangeKind};

/// Whether what stands on a lost change waits for that to be made again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Patience {
    /// It does.
    Waits,
    /// It has.
    GivesUp,
}

/// Names that are asked for at once when submissions are made again.
const SEARCHED_AT_ONCE: usize = 256;

/// What was submitted.
#[derive(Debug)]
pub(super) enum Subject {
    /// A message.
    Message(MessageSubmission),
    /// A change of a group, as planned on this node's rosters.
    Change { submission: ChangeSubmission, record: ChangeRecord },
    /// A message of a former process; if it is to a group, its roster is whichever is current.
    Old(Incoming),
    /// A change of a former process, or generation, to be made on whichever roster is current.
    OldChange(ChangeRecord),
}

impl Subject {
    pub(super) fn origin(&self) -> Origin {
        match self {
            Subject::Message(MessageSubmission { incoming, .. }) => incoming.origin,
            Subject::Change { submission, .. } => submission.origin,
            Subject::Old(_) | Subject::OldChange(_) => NOBODY,
        }
    }

    /// As the log and the stream have it.
    pub(super) fn record(&self, msg_id: MsgId) -> Record<'_> {
        match self {
            Subject::Message(MessageSubmission { incoming, .. }) | Subject::Old(incoming) => {
                message_record(msg_id, incoming)
            }
            Subject::Change { record, .. } | Subject::OldChange(record) => Record::Change(record.clone()),
        }
    }

    /// From a former process's log.
    pub(super) fn from_log(record: &Record<'_>) -> Option<(MsgId, Option<Name>, Subject)> {
        let (msg_id, incoming) = match record {
            Record::Direct(DirectRecord { msg_id, sender, to, client_msg_id, body, .. }) => {
                (*msg_id, Incoming::new(NOBODY, *sender, Conversation::User(*to), *client_msg_id, body))
            }
            Record::Group(GroupRecord { msg_id, sender, group, client_msg_id, body, .. }) => {
                (*msg_id, Incoming::new(NOBODY, *sender, Conversation::Group(*group), *client_msg_id, body))
            }
            Record::Change(record) => return Some((record.msg_id, None, Subject::OldChange(record.clone()))),
            Record::Roster(_) | Record::Mark(_) | Record::Withdrawn(_) => return None,
        };
        Some((msg_id, Some(Name::of(&incoming)), Subject::Old(incoming)))
    }
}

/// A message's own fields for its rows are empty: whoever follows the stream numbers them.
fn message_record(msg_id: MsgId, incoming: &Incoming) -> Record<'_> {
    let Incoming { sender, to, client_msg_id, .. } = *incoming;
    let body = incoming.body();
    match to {
        Conversation::User(to) => {
            let (sender_seq, recipient_seq) = Default::default();
            Record::Direct(DirectRecord { msg_id, sender, to, client_msg_id, sender_seq, recipient_seq, body })
        }
        Conversation::Group(group) => {
            let (roster_at, differences) = (JournalPosition(0), &[][..]);
            Record::Group(GroupRecord { msg_id, sender, group, client_msg_id, roster_at, differences, body })
        }
    }
}

#[derive(Debug)]
struct Flight {
    name: Option<Name>,
    subject: Subject,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Flying {
    /// By message, which is the order of taking.
    flights: BTreeMap<MsgId, Flight>,
    names: HashMap<Name, MsgId, TableKey>,
    /// Taken since the last commit.
    uncommitted: Vec<MsgId>,
    /// To be called, in order.
    unsent: VecDeque<MsgId>,
    /// Called: one list per call, in the order of calls.
    called: VecDeque<Vec<MsgId>>,
    /// Replied to, with how far the stream must be read before the reply counts.
    replied: VecDeque<(u64, MsgId, Reply)>,
    /// To be searched for in the store before they are called, and those that are being.
    unsearched: VecDeque<MsgId>,
    searched: HashMap<Name, Vec<MsgId>, TableKey>,
    lookups: Vec<Lookup>,
    /// Old ones that cannot be made on the groups as they are, but perhaps after another lost change has been made again.
    deferred: Vec<MsgId>,
    /// The store must be here before it is searched: until then its tail has entries of a stream that is lost.
    search_from: u64,
}

impl Flying {
    pub(super) fn len(&self) -> usize {
        self.flights.len()
    }

    pub(super) fn unsent_count(&self) -> usize {
        self.unsent.len()
    }

    /// Some are still to be found in the store or not.
    pub(super) fn searches(&self) -> bool {
        !self.unsearched.is_empty() || !self.searched.is_empty()
    }

    /// The digest of what is on its way under this name.
    pub(super) fn named(&self, name: &Name) -> Option<u64> {
        match &self.flights.get(self.names.get(name)?)?.subject {
            Subject::Message(MessageSubmission { incoming, .. }) | Subject::Old(incoming) => {
                Some(digest(incoming.to, incoming.body()))
            }
            Subject::Change { .. } | Subject::OldChange(_) => None,
        }
    }

    pub(super) fn add(&mut self, msg_id: MsgId, name: Option<Name>, subject: Subject) {
        self.put(msg_id, name, subject);
        self.uncommitted.push(msg_id);
        self.unsent.push_back(msg_id);
    }

    /// One of a former generation or process, to be searched for before it is called.
    pub(super) fn add_again(&mut self, msg_id: MsgId, name: Option<Name>, subject: Subject) {
        if !self.flights.contains_key(&msg_id) {
            self.put(msg_id, name, subject);
            self.unsearched.push_back(msg_id);
        }
    }

    fn put(&mut self, msg_id: MsgId, name: Option<Name>, subject: Subject) {
        if let Some(name) = name {
            self.names.insert(name, msg_id);
        }
        self.flights.insert(msg_id, Flight { name, subject });
    }

    /// It is settled.
    pub(super) fn remove(&mut self, msg_id: MsgId) -> Option<Subject> {
        let flight = self.flights.remove(&msg_id)?;
        if let Some(name) = flight.name {
            if self.names.get(&name) == Some(&msg_id) {
                self.names.remove(&name);
            }
            // One of a former process may have the same name as another that took its place.
            if let Some(searched) = self.searched.get_mut(&name) {
                searched.retain(|other| *other != msg_id);
                if searched.is_empty() {
                    self.searched.remove(&name);
                }
            }
        }
        Some(flight.subject)
    }

    /// What was taken since the last commit is on disk.
    pub(super) fn committed(&mut self) {
        self.uncommitted.clear();
    }

    /// It could not be written.
    pub(super) fn take_uncommitted(&mut self) -> Vec<Subject> {
        let uncommitted = std::mem::take(&mut self.uncommitted);
        self.unsent.retain(|msg_id| !uncommitted.contains(msg_id));
        uncommitted.into_iter().filter_map(|msg_id| self.remove(msg_id)).collect()
    }

    /// The session is over: all is called again in the next one.
    pub(super) fn lost(&mut self) {
        self.called.clear();
        self.replied.clear();
        self.deferred.clear();
        self.unsent = self.flights.keys().copied().collect();
        let searching: HashSet<MsgId> =
            self.unsearched.iter().chain(self.searched.values().flatten()).copied().collect();
        self.unsent.retain(|msg_id| !searching.contains(msg_id));
    }

    /// The generation is over: whether any of it is stored has to be found out first.
    pub(super) fn search_all(&mut self, from: u64) {
        self.search_from = from;
        self.unsent.clear();
        self.deferred.clear();
        let searched: HashSet<MsgId> = self.searched.values().flatten().copied().collect();
        self.unsearched = self.flights.keys().copied().filter(|msg_id| !searched.contains(msg_id)).collect();
    }

    /// A group has changed, or it is time to give up: what was deferred is tried again.
    pub(super) fn retry_deferred(&mut self) {
        self.unsent.extend(self.deferred.drain(..));
    }

    pub(super) fn replied(&mut self, replies: Vec<Reply>, count: u64) {
        let called = self.called.pop_front().unwrap_or_default();
        for (msg_id, reply) in std::iter::zip(called, replies) {
            if reply != Reply::Appended {
                self.replied.push_back((count, msg_id, reply));
            }
        }
    }

    /// Look-ups for what is to be made again.
    pub(super) fn take_lookups(&mut self, applied: u64, out: &mut Vec<Lookup>) {
        if applied < self.search_from {
            return;
        }
        while self.searched.len() < SEARCHED_AT_ONCE
            && let Some(msg_id) = self.unsearched.pop_front()
        {
            let Some(flight) = self.flights.get(&msg_id) else { continue };
            match flight.name {
                Some(Name { sender, client_msg_id }) => {
                    let searched = self.searched.entry(Name { sender, client_msg_id }).or_default();
                    searched.push(msg_id);
                    if searched.len() == 1 {
                        self.lookups.push(Lookup { sender, client_msg_id, generation: 0 });
                    }
                }
                // A change told by its version whether it was made already.
                None => self.unsent.push_back(msg_id),
            }
        }
        out.append(&mut self.lookups);
    }
}

impl<D: Disk> RedisEngine<D> {
    /// The store's answer, if it is about what is to be made again.
    pub(super) fn found_again(&mut self, name: &Name, found: LookupFound) -> bool {
        let Some(searched) = self.flying.searched.remove(name) else { return false };
        for msg_id in searched {
            match found {
                LookupFound::Unavailable => self.flying.unsearched.push_back(msg_id),
                // It was acked: rather sent twice under its number, which recipients know, than lost.
                LookupFound::Nothing | LookupFound::Expired => self.flying.unsent.push_back(msg_id),
                LookupFound::Stored(StoredMessage { msg_id: stored, seq, digest, .. }) => {
                    self.settle_as_repeat(msg_id, stored, seq, digest);
                }
            }
        }
        true
    }

    fn settle_as_repeat(&mut self, msg_id: MsgId, stored: MsgId, seq: ringway_wire::ids::Seq, digest: u64) {
        // One that was read meanwhile is settled: it is in the stream, and not yet in the database.
        let Some(subject) = self.flying.remove(msg_id) else { return };
        if let Subject::Message(submission) = &subject {
            self.repeat(&submission.incoming, stored, seq, digest);
        }
        if stored == msg_id {
            // What is in the stream's unread part would have been settled by its entry: this one is in the database.
            self.log.close(msg_id);
        } else {
            self.log.withdraw(msg_id);
        }
    }

    /// Makes calls of what waits.
    pub(super) fn make_calls(&mut self, now: Now) {
        if !self.is_level() || self.is_doubtful {
            return;
        }
        let since_ms = *self.level_since_ms.get_or_insert(now.mono_ms);
        self.patience = match now.mono_ms.saturating_sub(since_ms) < LOST_CHANGES_MS {
            true => Patience::Waits,
            false => Patience::GivesUp,
        };
        if self.patience == Patience::GivesUp {
            self.flying.retry_deferred();
        }
        let Some(generation) = self.generation.clone() else { return };
        while !self.flying.unsent.is_empty() {
            let (mut calls, mut called) = (Vec::new(), Vec::new());
            while calls.len() < CALL_SUBMISSIONS_MAX * self.settings.buckets
                && let Some(msg_id) = self.flying.unsent.pop_front()
            {
                if let Some(call) = self.call(msg_id) {
                    calls.push(call);
                    called.push(msg_id);
                }
            }
            if calls.is_empty() {
                continue;
            }
            if !self.order(What::Submit { generation: generation.clone(), calls }) {
                called.into_iter().rev().for_each(|msg_id| self.flying.unsent.push_front(msg_id));
                return;
            }
            self.flying.called.push_back(called);
        }
    }

    /// A submission's call; `None`: it is settled, or cannot be made any more.
    fn call(&mut self, msg_id: MsgId) -> Option<Call> {
        let node = self.settings.node;
        let Flight { subject, .. } = self.flying.flights.get(&msg_id)?;
        let record = subject.record(msg_id);
        let change = match subject {
            Subject::Message(MessageSubmission { incoming, roster_version, .. }) => {
                return Some(message_call(msg_id, incoming, Entry { node, version: *roster_version, record }));
            }
            Subject::Old(incoming) => {
                let version = match incoming.to {
                    Conversation::User(_) => Some(RosterVersion(0)),
                    Conversation::Group(group) => {
                        let roster = self.groups.roster(group);
                        roster.filter(|roster| roster.position(incoming.sender).is_some()).map(|roster| roster.version)
                    }
                };
                let call = version.map(|version| message_call(msg_id, incoming, Entry { node, version, record }));
                if call.is_none() {
                    self.defer(msg_id);
                }
                return call;
            }
            Subject::Change { record, .. } => record.clone(),
            Subject::OldChange(record) => match self.groups.remade(record) {
                Some(remade) => remade,
                None if self.groups.roster(record.group).is_none() => {
                    self.defer(msg_id);
                    return None;
                }
                None => {
                    self.give_up(msg_id);
                    return None;
                }
            },
        };
        let (before, left) = (RosterVersion(change.version.0 - 1), self.left_by(&change));
        let group = change.group;
        let entry = Entry { node, version: RosterVersion(0), record: Record::Change(change) };
        Some(change_call(group, before, left, &entry))
    }

    fn left_by(&self, record: &ChangeRecord) -> Left {
        let adds = matches!(record.kind, GroupChangeKind::Created | GroupChangeKind::Added);
        let stays = |member: &RosterMember| record.users.binary_search(&member.user).is_err();
        match self.groups.roster(record.group) {
            Some(before) if !adds && !before.members().iter().any(stays) => Left::Nobody,
            _ => Left::Members,
        }
    }

    /// A submission that cannot be made now, because a change that it stands on is lost. Whoever made that change makes
    /// it again; if that takes too long it is given up.
    fn defer(&mut self, msg_id: MsgId) {
        match self.patience {
            Patience::Waits => self.flying.deferred.push(msg_id),
            Patience::GivesUp => self.give_up(msg_id),
        }
    }

    /// A submission that can no longer be made: nobody waits for it.
    fn give_up(&mut self, msg_id: MsgId) {
        self.flying.remove(msg_id);
        self.log.withdraw(msg_id);
    }

    /// Heeds replies that the stream has caught up with.
    pub(super) fn heed_replies(&mut self, now: Now) {
        while let Some((count, _, _)) = self.flying.replied.front()
            && *count <= self.seen
        {
            let Some((_, msg_id, reply)) = self.flying.replied.pop_front() else { return };
            match reply {
                Reply::Appended => {}
                Reply::Repeat(claimed) => {
                    if let Some(claimed) = Claimed::decode(&claimed) {
                        self.claimed_before(msg_id, claimed);
                    }
                }
                Reply::Reused => {
                    let Some(subject) = self.flying.remove(msg_id) else { continue };
                    self.log.withdraw(msg_id);
                    self.refuse(subject.origin(), Refusal::Code(ErrorCode::ClientMsgIdReused));
                }
                Reply::Full => {
                    // An old one has nobody to try again: it does so by itself.
                    if self.flying.flights.get(&msg_id).is_some_and(|flight| flight.subject.origin() == NOBODY) {
                        self.flying.unsearched.push_back(msg_id);
                    } else if let Some(subject) = self.flying.remove(msg_id) {
                        self.log.withdraw(msg_id);
                        self.refuse(subject.origin(), Refusal::StorageFull);
                    }
                }
                Reply::Bounced => self.bounced_by_redis(now, msg_id),
            }
        }
    }

    /// Redis knows the name. Which row the sender has is known here, if that was not long ago, and else in the store.
    fn claimed_before(&mut self, msg_id: MsgId, claimed: Claimed) {
        let Claimed { msg_id: stored, digest, count } = claimed;
        if let Some(seq) = self.senders.find(count) {
            return self.settle_as_repeat(msg_id, stored, seq, digest);
        }
        let Some(subject) = self.flying.remove(msg_id) else { return };
        if stored == msg_id {
            self.log.close(msg_id);
        } else {
            self.log.withdraw(msg_id);
        }
        if let Subject::Message(submission) = subject {
            self.park(Name::of(&submission.incoming), submission);
        }
    }

    fn bounced_by_redis(&mut self, now: Now, msg_id: MsgId) {
        self.counters.bounced += 1;
        if let Some(Flight { subject: Subject::Old(Incoming { sender, to: Conversation::Group(group), .. }), .. }) =
            self.flying.flights.get(&msg_id)
        {
            let is_member = self.groups.roster(*group).is_some_and(|roster| roster.position(*sender).is_some());
            return if is_member { self.flying.unsent.push_back(msg_id) } else { self.defer(msg_id) };
        }
        if let Some(Flight { subject: Subject::OldChange(_), .. }) = self.flying.flights.get(&msg_id) {
            // Another change came first: on what that one made of the group.
            return self.flying.unsent.push_back(msg_id);
        }
        let Some(subject) = self.flying.remove(msg_id) else { return };
        self.log.withdraw(msg_id);
        match subject {
            Subject::Message(submission) => {
                if let Conversation::Group(group) = submission.incoming.to {
                    let (submission, roster) = (Box::new(submission), self.groups.roster(group).cloned());
                    self.staged.push(Staged::Delivery(Delivery::Bounced { group, submission, roster }));
                }
            }
            Subject::Change { submission, .. } => self.change(now, submission),
            Subject::Old(_) | Subject::OldChange(_) => {}
        }
    }
}

/// A message's call.
fn message_call(msg_id: MsgId, incoming: &Incoming, entry: Entry<'_>) -> Call {
    let (name, digest) = (Name::of(incoming), digest(incoming.to, incoming.body()));
    match incoming.to {
        Conversation::User(_) => direct_call(&name, msg_id, digest, &entry),
        Conversation::Group(group) => group_call(&name, msg_id, digest, group, &entry),
    }
}
