//! Calls of Redis with what is in flight, and what its replies come to.
//!
//! On the ledger's thread. What always holds: a reply counts when the stream has been read as far as Redis was then; and
//! nothing is refused before this node's disk knows that it must not be submitted again.

use super::entry::{Call, Claimed, Entry, Left, change_call, direct_call, group_call};
use super::in_flight::{Flight, Subject};
use super::link::{Reply, What};
use super::searches::{Again, Searched};
use super::taking::Refusal;
use super::{NOBODY, RedisEngine};
use crate::clock::Now;
use crate::contract::digest::digest;
use crate::contract::message::{Incoming, RosterMember};
use crate::contract::store::{LookupFound, StoredMessage};
use crate::contract::submission::MessageSubmission;
use crate::journal::disk::Disk;
use crate::journal::record::{ChangeRecord, Record};
use crate::ledger::dedup::Name;
use crate::ledger::pending::Wait;
use crate::limits::{CALL_SUBMISSIONS_MAX, LOST_CHANGES_MS, SENDS_ANSWERED_MS};
use ringway_wire::ids::{Conversation, GroupId, MsgId, RosterVersion, Seq, UserId};
use ringway_wire::schema::{ErrorCode, GroupChangeKind};

/// Whether what stands on a lost change waits for that to be made again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Patience {
    /// It does.
    Waits,
    /// It has.
    GivesUp,
}

impl<D: Disk> RedisEngine<D> {
    /// The store's answer, if it is about what is to be made again. `again`: when it is asked for again, if it is none.
    pub(super) fn found_again(&mut self, name: &Name, found: LookupFound, again: Again) {
        let Searched { flights, known_s } = self.in_flight.searches.take_answered(name);
        if !flights.is_empty() && found != LookupFound::Unavailable {
            self.in_flight.searches.is_answered();
        }
        for msg_id in flights {
            match found {
                LookupFound::Unavailable => self.in_flight.searches.put_back(msg_id, *name, again),
                // It was acked: rather sent twice under its number, which recipients know, than lost.
                LookupFound::Nothing => {
                    if let Some(flight) = self.in_flight.flights.get_mut(&msg_id) {
                        flight.known_s = known_s;
                        self.in_flight.unsent.insert(msg_id);
                    }
                }
                // It was stored, and retention has deleted it: it must not come back to whoever has joined since.
                LookupFound::Expired => {
                    let origin = self.in_flight.remove(msg_id).map_or(NOBODY, |subject| subject.origin());
                    self.log.withdraw(msg_id);
                    self.refuse(origin, Refusal::Code(ErrorCode::BadRequest));
                }
                LookupFound::Stored(StoredMessage { msg_id: stored, seq, digest, .. }) => {
                    self.settle_as_repeat(msg_id, stored, seq, digest);
                }
            }
        }
    }

    /// An entry of the stream has this name: nothing else can have it.
    pub(super) fn settle_name(&mut self, name: &Name, msg_id: MsgId, seq: Seq, to: Conversation, body: &[u8]) {
        if let Some(other) = self.in_flight.of_name(name) {
            self.settle_as_repeat(other, msg_id, seq, digest(to, body));
        }
    }

    /// Tells those who have waited long to ask again. What they sent goes on, and is what they are then answered with; a
    /// change of a group is then found to be made.
    pub(super) fn answer_late(&mut self, now: Now) {
        for (msg_id, origin) in self.in_flight.take_unanswered(now.mono_ms.saturating_sub(SENDS_ANSWERED_MS)) {
            if let Some(Flight { subject: Subject::Change { record, .. }, .. }) = self.in_flight.flights.get(&msg_id)
                && record.kind == GroupChangeKind::Created
            {
                self.late_creations.push(now.mono_ms, msg_id, record);
            }
            self.refuse(origin, Refusal::RetryLater);
        }
    }

    fn settle_as_repeat(&mut self, msg_id: MsgId, stored: MsgId, seq: Seq, digest: u64) {
        // One that was read meanwhile is settled: it is in the stream, and not yet in the database.
        let Some(subject) = self.in_flight.remove(msg_id) else { return };
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
        if !self.is_caught_up()
            || self.is_unverified
            || self.in_flight.searches.is_of_all()
            || self.redis_clock.is_astray()
        {
            return;
        }
        let since_ms = *self.caught_up_since_ms.get_or_insert(now.mono_ms);
        self.patience = match now.mono_ms.saturating_sub(since_ms) < LOST_CHANGES_MS {
            true => Patience::Waits,
            false => Patience::GivesUp,
        };
        if self.patience == Patience::GivesUp {
            self.in_flight.retry_deferred();
        }
        let Some(generation) = self.generation.clone() else { return };
        // Behind something of the same sender that is searched for, or of the same group that may come back.
        let mut held = Vec::new();
        while !self.in_flight.unsent.is_empty() {
            let (mut calls, mut called) = (Vec::new(), Vec::new());
            while calls.len() < CALL_SUBMISSIONS_MAX * self.settings.buckets
                && let Some(msg_id) = self.in_flight.unsent.pop_first()
            {
                if self.in_flight.is_held(msg_id) || self.is_behind_old_version(msg_id) {
                    held.push(msg_id);
                    continue;
                }
                if self.in_flight.is_forgotten(msg_id, self.redis_clock.latest_s()) {
                    self.in_flight.search(msg_id);
                    continue;
                }
                if let Some(call) = self.call(msg_id) {
                    calls.push(call);
                    called.push(msg_id);
                }
            }
            if calls.is_empty() {
                continue;
            }
            if !self.offer(What::Submit { generation: generation.clone(), calls }) {
                self.in_flight.unsent.extend(called);
                break;
            }
            for msg_id in &called {
                if let Some(group) = self.in_flight.group_of(*msg_id)
                    && let Some(version) = self.groups.roster(group).map(|roster| roster.version)
                {
                    self.in_flight.group_calls.called(group, version, *msg_id);
                }
            }
            self.in_flight.called.push_back(called);
        }
        self.in_flight.unsent.extend(held);
    }

    /// A message to a group of which others were called at an older version, which Redis may not take: if it does not,
    /// they go first.
    fn is_behind_old_version(&self, msg_id: MsgId) -> bool {
        let Some(group) = self.in_flight.group_of(msg_id) else { return false };
        let Some(roster) = self.groups.roster(group) else { return false };
        self.in_flight.group_calls.has_older(group, roster.version)
    }

    /// The version of the group, if this user is in it.
    pub(super) fn version_for(&self, sender: UserId, group: GroupId) -> Option<RosterVersion> {
        let roster = self.groups.roster(group).filter(|roster| roster.position(sender).is_some())?;
        Some(roster.version)
    }

    /// A submission's call; `None`: it is settled, or cannot be made any more.
    fn call(&mut self, msg_id: MsgId) -> Option<Call> {
        let node = self.settings.node;
        let Flight { subject, known_s, .. } = self.in_flight.flights.get(&msg_id)?;
        let known_s = *known_s;
        let record = subject.record(msg_id);
        let change = match subject {
            Subject::Message(MessageSubmission { incoming }) | Subject::Old(incoming) => {
                let version = match incoming.to {
                    Conversation::User(_) => Some(RosterVersion(0)),
                    Conversation::Group(group) => self.version_for(incoming.sender, group),
                };
                let call =
                    version.map(|version| message_call(msg_id, known_s, incoming, Entry { node, version, record }));
                if call.is_none() {
                    self.not_a_member(msg_id);
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

    /// A message whose sender has left its group since it was taken, or whose group is no more. If nobody waits for it,
    /// perhaps the change is lost that made its sender a member. Else it may still be a repeat, which the store can tell, and
    /// is refused if it is none.
    fn not_a_member(&mut self, msg_id: MsgId) {
        if !matches!(self.in_flight.flights.get(&msg_id), Some(Flight { subject: Subject::Message(_), .. })) {
            return self.defer(msg_id);
        }
        let Some(Subject::Message(submission)) = self.in_flight.remove(msg_id) else { return };
        self.log.withdraw(msg_id);
        let known_s = self.redis_clock.read_s();
        self.park(submission, Wait::Lookup(known_s));
    }

    /// A submission that cannot be made now, because a change that it stands on is lost. Whoever made that change makes
    /// it again; if that takes too long it is given up.
    fn defer(&mut self, msg_id: MsgId) {
        match self.patience {
            Patience::Waits => self.in_flight.deferred.push(msg_id),
            Patience::GivesUp => self.give_up(msg_id),
        }
    }

    /// A submission that can no longer be made: nobody waits for it.
    fn give_up(&mut self, msg_id: MsgId) {
        self.in_flight.remove(msg_id);
        self.log.withdraw(msg_id);
    }

    /// Applies replies that the stream has caught up with.
    pub(super) fn apply_replies(&mut self, now: Now) {
        while let Some((count, _, _)) = self.in_flight.replied.front()
            && *count <= self.seen
        {
            let Some((_, msg_id, reply)) = self.in_flight.replied.pop_front() else { return };
            self.in_flight.not_taken(msg_id);
            match reply {
                Reply::Appended => {}
                Reply::Forgotten => self.in_flight.search(msg_id),
                // An old one has nobody to try again: it does so by itself.
                Reply::NoMemory if self.is_of_nobody(msg_id) => {
                    self.in_flight.unsent.insert(msg_id);
                }
                Reply::NoMemory => {
                    let origin = self.in_flight.remove(msg_id).map_or(NOBODY, |subject| subject.origin());
                    self.log.withdraw(msg_id);
                    self.refuse(origin, Refusal::StorageFull);
                }
                Reply::Repeat(claimed) => {
                    if let Some(claimed) = Claimed::decode(&claimed) {
                        self.claimed_before(msg_id, claimed);
                    }
                }
                Reply::Reused => {
                    let Some(subject) = self.in_flight.remove(msg_id) else { continue };
                    self.log.withdraw(msg_id);
                    self.refuse(subject.origin(), Refusal::Code(ErrorCode::ClientMsgIdReused));
                }
                Reply::Full => {
                    // An old one has nobody to try again: it does so by itself.
                    if self.is_of_nobody(msg_id) {
                        self.in_flight.search(msg_id);
                    } else if let Some(subject) = self.in_flight.remove(msg_id) {
                        self.log.withdraw(msg_id);
                        self.refuse(subject.origin(), Refusal::StorageFull);
                    }
                }
                Reply::Bounced => self.bounced_by_redis(now, msg_id),
            }
        }
    }

    fn is_of_nobody(&self, msg_id: MsgId) -> bool {
        self.in_flight.flights.get(&msg_id).is_some_and(|flight| flight.subject.origin() == NOBODY)
    }

    /// Redis knows the name. Which row the sender has is known here, if that was not long ago, and else in the store.
    fn claimed_before(&mut self, msg_id: MsgId, claimed: Claimed) {
        let Claimed { msg_id: stored, digest, count } = claimed;
        if let Some(seq) = self.senders.find(count) {
            return self.settle_as_repeat(msg_id, stored, seq, digest);
        }
        let Some(subject) = self.in_flight.remove(msg_id) else { return };
        if stored == msg_id {
            self.log.close(msg_id);
        } else {
            self.log.withdraw(msg_id);
        }
        if let Subject::Message(submission) = subject {
            let known_s = self.redis_clock.read_s();
            self.park(submission, Wait::Lookup(known_s));
        }
    }

    fn bounced_by_redis(&mut self, now: Now, msg_id: MsgId) {
        self.counters.bounced += 1;
        match self.in_flight.flights.get(&msg_id) {
            // Another change came first, and has been read: this goes to what that one made of the group, before what was
            // taken later.
            Some(Flight { subject: Subject::Message(_) | Subject::Old(_) | Subject::OldChange(_), .. }) => {
                self.in_flight.unsent.insert(msg_id);
            }
            Some(Flight { subject: Subject::Change { .. }, .. }) => {
                let Some(Subject::Change { submission, .. }) = self.in_flight.remove(msg_id) else { return };
                self.log.withdraw(msg_id);
                self.change(now, submission);
            }
            None => {}
        }
    }
}

/// A message's call.
fn message_call(msg_id: MsgId, known_s: u64, incoming: &Incoming, entry: Entry<'_>) -> Call {
    let (name, digest) = (Name::of(incoming), digest(incoming.to, incoming.body()));
    match incoming.to {
        Conversation::User(_) => direct_call(&name, msg_id, (digest, known_s), &entry),
        Conversation::Group(group) => group_call(&name, msg_id, (digest, known_s), group, &entry),
    }
}
