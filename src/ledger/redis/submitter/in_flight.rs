//! What this node has taken and Redis has not settled: one table, in which each submission has one stage.
//!
//! Owned by the submitter; `src/cluster/README.md` says of each stage what ends it. What always holds: a submission is in
//! the table until its entry is read, an entry of the same name is, or it is refused or known to be another's; what lists
//! the submissions of a stage is changed together with the stage, by [`InFlight::list`] and [`InFlight::leave`] alone; calls
//! are made in the order of taking, and after a lost session all that is not settled is called again in that order.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;

use super::group_calls::GroupCalls;
use super::searches::{Again, Searched, Searches};
use super::subject::Subject;
use crate::contract::ids::Origin;
use crate::contract::internal::{self, OrCount, Place};
use crate::contract::keyed::TableKey;
use crate::contract::names_kept::NamesKept;
use crate::contract::position::StreamPosition;
use crate::contract::store::Lookup;
use crate::ledger::dedup::Name;
use crate::ledger::redis::link::Reply;
use ringway_wire::ids::{GroupId, MsgId, RosterVersion, UserId};

/// How far a submission has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// In the log, which is not synced yet: Redis must not hear of it.
    Uncommitted,
    /// Durable on this node; Redis does not have it, or may not.
    Unsent,
    /// Redis was given it, and has not replied, or has replied that it is in the stream.
    Called,
    /// Redis has taken nothing of it; that counts when the stream has been read up to this entry.
    Replied { last: StreamPosition, reply: Reply },
    /// The store is asked whether it has it.
    Searched,
    /// One of a former process or generation that stands on a change that is lost: perhaps that is made again.
    Deferred,
}

impl Stage {
    /// Redis may take it, or has, as far as was read.
    fn is_out(&self) -> bool {
        matches!(self, Stage::Called | Stage::Replied { .. })
    }
}

/// One of them.
#[derive(Debug)]
pub(super) struct Tracked {
    name: Option<Name>,
    /// Nobody used the name before this second of Redis's clock, or it would have been found.
    pub(super) known_s: u64,
    pub(super) subject: Subject,
    stage: Stage,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    /// By message, which is the order of taking.
    submissions: BTreeMap<MsgId, Tracked>,
    names: HashMap<Name, MsgId, TableKey>,
    /// How many of them are of each account; nobody has none.
    accounts: HashMap<UserId, usize, TableKey>,
    /// When each was taken, monotonic milliseconds, the oldest first: whoever waits for it is answered in time.
    unanswered: VecDeque<(u64, MsgId)>,
    /// Calls that have no reply, in their order.
    calls: VecDeque<Vec<MsgId>>,
    // What is in a stage. In the order of taking:
    uncommitted: BTreeSet<MsgId>,
    unsent: BTreeSet<MsgId>,
    deferred: BTreeSet<MsgId>,
    // In the order of replies:
    replied: VecDeque<MsgId>,
    // By group, and by sender:
    group_calls: GroupCalls,
    searches: Searches,
}

impl InFlight {
    pub(super) fn len(&self) -> usize {
        self.submissions.len()
    }

    /// How many of them are this account's.
    pub(super) fn count_of(&self, account: UserId) -> usize {
        self.accounts.get(&account).copied().unwrap_or_default()
    }

    /// What Redis has not been given.
    pub(super) fn unsent_count(&self) -> usize {
        self.uncommitted.len() + self.unsent.len()
    }

    pub(super) fn get(&self, msg_id: MsgId) -> Option<&Tracked> {
        self.submissions.get(&msg_id)
    }

    pub(super) fn contains(&self, msg_id: MsgId) -> bool {
        self.submissions.contains_key(&msg_id)
    }

    /// What is on its way under this name.
    pub(super) fn of_name(&self, name: &Name) -> Option<MsgId> {
        self.names.get(name).copied()
    }

    /// The group that it is a message to.
    pub(super) fn group_of(&self, msg_id: MsgId) -> Option<GroupId> {
        self.get(msg_id).and_then(|tracked| tracked.subject.group())
    }

    /// Nobody waits for it: it has to try again by itself.
    pub(super) fn is_of_nobody(&self, msg_id: MsgId) -> bool {
        self.get(msg_id).is_some_and(|tracked| tracked.subject.origin() == Origin::NOBODY)
    }

    /// One that was taken just now. `name`: with the second before which nobody used it.
    pub(super) fn add(&mut self, mono_ms: u64, msg_id: MsgId, name: Option<(Name, u64)>, subject: Subject) {
        if subject.origin() != Origin::NOBODY {
            self.unanswered.push_back((mono_ms, msg_id));
        }
        self.put(msg_id, name, subject, Stage::Uncommitted);
    }

    /// One of a former generation or process; [`Self::search_all`] comes next.
    pub(super) fn add_again(&mut self, msg_id: MsgId, name: Option<Name>, subject: Subject) {
        if !self.contains(msg_id) {
            self.put(msg_id, name.map(|name| (name, 0)), subject, Stage::Unsent);
        }
    }

    fn put(&mut self, msg_id: MsgId, name: Option<(Name, u64)>, subject: Subject, stage: Stage) {
        let (name, known_s) = (name.map(|(name, _)| name), name.map_or(0, |(_, known_s)| known_s));
        if let Some(name) = name {
            // One of a former process may have the name already.
            self.names.entry(name).or_insert(msg_id);
        }
        *self.accounts.entry(subject.account()).or_default() += 1;
        self.submissions.insert(msg_id, Tracked { name, known_s, subject, stage: stage.clone() });
        self.list(msg_id, name, stage);
    }

    /// It comes to another stage.
    fn enter(&mut self, msg_id: MsgId, stage: Stage) {
        let Some(tracked) = self.submissions.get_mut(&msg_id).or_count(Place::InFlight) else { return };
        let name = tracked.name;
        let before = std::mem::replace(&mut tracked.stage, stage.clone());
        self.leave(msg_id, &before, Some(&stage));
        self.list(msg_id, name, stage);
    }

    fn list(&mut self, msg_id: MsgId, name: Option<Name>, stage: Stage) {
        match stage {
            Stage::Uncommitted => drop(self.uncommitted.insert(msg_id)),
            Stage::Unsent => drop(self.unsent.insert(msg_id)),
            // Its call has it, and its group.
            Stage::Called => {}
            Stage::Replied { .. } => self.replied.push_back(msg_id),
            Stage::Searched => self.searches.add(msg_id, name),
            Stage::Deferred => drop(self.deferred.insert(msg_id)),
        }
    }

    /// It leaves a stage's list for that of the `next` stage, or for none.
    fn leave(&mut self, msg_id: MsgId, stage: &Stage, next: Option<&Stage>) {
        match stage {
            Stage::Uncommitted => drop(self.uncommitted.remove(&msg_id)),
            Stage::Unsent => drop(self.unsent.remove(&msg_id)),
            // What has not been read of calls and replies passes over it.
            Stage::Called | Stage::Replied { .. } => {
                if !next.is_some_and(Stage::is_out)
                    && let Some(group) = self.group_of(msg_id)
                {
                    self.group_calls.ended(group, msg_id);
                }
            }
            Stage::Searched => {
                let name = self.get(msg_id).and_then(|tracked| tracked.name);
                self.searches.remove(msg_id, name.as_ref());
            }
            Stage::Deferred => drop(self.deferred.remove(&msg_id)),
        }
    }

    /// It is settled, or will never be.
    pub(super) fn remove(&mut self, msg_id: MsgId) -> Option<Subject> {
        let stage = self.get(msg_id)?.stage.clone();
        self.leave(msg_id, &stage, None);
        let tracked = self.submissions.remove(&msg_id)?;
        if let Some(name) = tracked.name
            && self.names.get(&name) == Some(&msg_id)
        {
            self.names.remove(&name);
        }
        match self.accounts.entry(tracked.subject.account()) {
            Entry::Occupied(count) if *count.get() == 1 => drop(count.remove()),
            Entry::Occupied(mut count) => *count.get_mut() -= 1,
            Entry::Vacant(_) => internal::count(Place::InFlight),
        }
        Some(tracked.subject)
    }

    /// What was taken since the last commit is on disk.
    pub(super) fn committed(&mut self) {
        while let Some(msg_id) = self.uncommitted.pop_first() {
            self.enter(msg_id, Stage::Unsent);
        }
    }

    /// It could not be written.
    pub(super) fn take_uncommitted(&mut self) -> Vec<Subject> {
        let uncommitted = self.uncommitted.clone();
        uncommitted.into_iter().filter_map(|msg_id| self.remove(msg_id)).collect()
    }

    /// The first that Redis is to be given, behind this one.
    pub(super) fn next_unsent(&self, behind: MsgId) -> Option<MsgId> {
        self.unsent.range((Bound::Excluded(behind), Bound::Unbounded)).next().copied()
    }

    /// It is to be called, now or again.
    pub(super) fn send(&mut self, msg_id: MsgId) {
        self.enter(msg_id, Stage::Unsent);
    }

    /// Its name may have been forgotten, or there was no room for it: the store is asked before it is called.
    pub(super) fn search(&mut self, msg_id: MsgId) {
        self.searches.begin_one();
        self.enter(msg_id, Stage::Searched);
    }

    /// It cannot be made on the groups as they are, but perhaps after another lost change has been made again.
    pub(super) fn defer(&mut self, msg_id: MsgId) {
        self.enter(msg_id, Stage::Deferred);
    }

    /// A group has changed, or it is time to give up: what was deferred is tried again.
    pub(super) fn retry_deferred(&mut self) {
        while let Some(msg_id) = self.deferred.pop_first() {
            self.enter(msg_id, Stage::Unsent);
        }
    }

    /// Redis is given these in one call, each with the version of its group, if it is a message to one.
    pub(super) fn call(&mut self, called: Vec<(MsgId, Option<RosterVersion>)>) {
        for (msg_id, version) in &called {
            self.enter(*msg_id, Stage::Called);
            if let (Some(group), Some(version)) = (self.group_of(*msg_id), version) {
                self.group_calls.called(group, *version, *msg_id);
            }
        }
        self.calls.push_back(called.into_iter().map(|(msg_id, _)| msg_id).collect());
    }

    /// Redis has replied to the first call, when it had so many entries.
    pub(super) fn reply(&mut self, replies: Vec<Reply>, last: StreamPosition) {
        let Some(called) = self.calls.pop_front().or_count(Place::InFlight) else { return };
        if called.len() != replies.len() {
            internal::count(Place::InFlight);
        }
        for (msg_id, reply) in std::iter::zip(called, replies) {
            let is_called = self.get(msg_id).is_some_and(|tracked| tracked.stage == Stage::Called);
            if reply != Reply::Appended && is_called {
                self.enter(msg_id, Stage::Replied { last, reply });
            }
        }
    }

    /// The next reply that counts, as the stream has been read up to this entry.
    pub(super) fn next_reply(&mut self, seen: StreamPosition) -> Option<(MsgId, Reply)> {
        while let Some(msg_id) = self.replied.front().copied() {
            match self.get(msg_id).map(|tracked| &tracked.stage) {
                Some(Stage::Replied { last, .. }) if *last > seen => return None,
                Some(Stage::Replied { reply, .. }) => {
                    let reply = reply.clone();
                    self.replied.pop_front();
                    return Some((msg_id, reply));
                }
                // It is settled, whatever Redis replied.
                _ => drop(self.replied.pop_front()),
            }
        }
        None
    }

    /// The session is over: all is called again in the next one.
    pub(super) fn lost(&mut self) {
        self.calls.clear();
        self.replied.clear();
        let again = |tracked: &Tracked| tracked.stage.is_out() || tracked.stage == Stage::Deferred;
        let again = self.submissions.iter().filter(|(_, tracked)| again(tracked)).map(|(msg_id, _)| *msg_id);
        for msg_id in again.collect::<Vec<MsgId>>() {
            self.enter(msg_id, Stage::Unsent);
        }
    }

    /// The generation is over: whether any of it is stored has to be found out first, when the store is at this entry.
    pub(super) fn search_all(&mut self, from: StreamPosition) {
        debug_assert!(self.uncommitted.is_empty(), "what was taken is on disk before news are taken");
        debug_assert!(self.calls.is_empty(), "Redis replies before it is looked at");
        self.replied.clear();
        self.searches.begin_all(from);
        for msg_id in self.submissions.keys().copied().collect::<Vec<MsgId>>() {
            if self.get(msg_id).is_some_and(|tracked| tracked.stage != Stage::Searched) {
                self.enter(msg_id, Stage::Searched);
            }
        }
    }

    /// Something of all that a lost generation may have had is still searched for.
    pub(super) fn searches_all(&self) -> bool {
        self.searches.is_of_all()
    }

    /// Something that this sender sent is still to be found in the store or not: what it sends waits behind it.
    pub(super) fn searches_for(&self, sender: UserId) -> bool {
        self.searches.any_of(sender)
    }

    /// It is a message of a sender of whom something is searched for.
    pub(super) fn is_held(&self, msg_id: MsgId) -> bool {
        let name = self.get(msg_id).and_then(|tracked| tracked.name);
        name.is_some_and(|name| self.searches.any_of(name.sender))
    }

    /// Messages to this group are out at another version than this one, which is the newest: if Redis does not take them,
    /// they go first.
    pub(super) fn has_older(&self, group: GroupId, version: RosterVersion) -> bool {
        self.group_calls.has_older(group, version)
    }

    /// Redis does not rely on its claims of that time any more.
    pub(super) fn is_forgotten(&self, msg_id: MsgId, names: NamesKept, redis_s: u64) -> bool {
        let named = self.get(msg_id).filter(|tracked| tracked.name.is_some());
        named.is_some_and(|tracked| names.is_forgotten(tracked.known_s, redis_s))
    }

    /// Time passes, monotonic milliseconds.
    pub(super) fn pass(&mut self, mono_ms: u64) {
        self.searches.pass(mono_ms);
    }

    /// Look-ups for what is searched for, [`Searches::take_lookups`].
    pub(super) fn take_lookups(&mut self, applied: StreamPosition, known_s: u64, out: &mut Vec<Lookup>) {
        for msg_id in self.searches.take_lookups(applied, known_s, out) {
            self.enter(msg_id, Stage::Unsent);
        }
    }

    /// The store has answered: what was asked for under this name.
    pub(super) fn answered(&mut self, name: &Name) -> Searched {
        let searched = self.searches.take_answered(name);
        if !searched.submissions.is_empty() {
            self.searches.is_answered();
        }
        searched
    }

    /// The store could not answer, or its answer is out of date.
    pub(super) fn ask_again(&mut self, name: &Name, again: Again) {
        for msg_id in self.searches.take_answered(name).submissions {
            self.searches.put_back(msg_id, *name, again);
        }
    }

    /// The store does not have it, nor had anybody used its name before this second of Redis's clock.
    pub(super) fn not_stored(&mut self, msg_id: MsgId, known_s: u64) {
        if let Some(tracked) = self.submissions.get_mut(&msg_id) {
            tracked.known_s = known_s;
            self.enter(msg_id, Stage::Unsent);
        }
    }

    /// Those that were taken before this time and that somebody still waits for: nobody does any more.
    pub(super) fn take_unanswered(&mut self, before_ms: u64) -> Vec<(MsgId, Origin)> {
        let mut origins = Vec::new();
        while let Some((taken_ms, msg_id)) = self.unanswered.front().copied() {
            if self.contains(msg_id) && taken_ms >= before_ms {
                break;
            }
            self.unanswered.pop_front();
            if let Some(tracked) = self.submissions.remove(&msg_id) {
                origins.push((msg_id, tracked.subject.origin()));
                self.submissions.insert(msg_id, Tracked { subject: tracked.subject.let_go(), ..tracked });
            }
        }
        origins
    }

    /// Whatever lists the submissions of a stage has those that are in it, and no others.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let of = |stage: &Stage| -> BTreeSet<MsgId> {
            let of_stage = self.submissions.iter().filter(|(_, tracked)| tracked.stage == *stage);
            of_stage.map(|(msg_id, _)| *msg_id).collect()
        };
        assert_eq!(self.uncommitted, of(&Stage::Uncommitted));
        assert_eq!(self.unsent, of(&Stage::Unsent));
        assert_eq!(self.deferred, of(&Stage::Deferred));
        let mut accounts: HashMap<UserId, usize, TableKey> = HashMap::default();
        self.submissions.values().for_each(|tracked| *accounts.entry(tracked.subject.account()).or_default() += 1);
        assert_eq!(self.accounts, accounts);
        for (msg_id, tracked) in &self.submissions {
            let is_searched = self.searches.has(*msg_id, tracked.name.as_ref());
            assert_eq!(is_searched, tracked.stage == Stage::Searched, "{msg_id:?} {tracked:?}");
            let is_replied = matches!(tracked.stage, Stage::Replied { .. });
            assert!(!is_replied || self.replied.contains(msg_id), "{msg_id:?} {tracked:?}");
            let is_of_call = self.calls.iter().flatten().any(|called| called == msg_id);
            assert!(!is_of_call || tracked.stage == Stage::Called, "{msg_id:?} {tracked:?}");
        }
    }
}

#[cfg(test)]
mod tests;
