//! Calls of Redis with what is in flight, and what its replies, and the store's answers, come to.
//!
//! On the ledger's thread. What always holds: only what is on this node's disk is called; a reply counts when the stream has
//! been read as far as Redis was then; and what is refused is withdrawn from the log, which is written before anybody is
//! told.

use super::in_flight::Tracked;
use super::searches::{Again, Searched};
use super::subject::Subject;
use super::{Submitter, View};
use crate::clock::Now;
use crate::contract::digest::digest;
use crate::contract::internal::{self, OrCount};
use crate::contract::message::Incoming;
use crate::contract::position::StreamPosition;
use crate::contract::store::{LookupFound, StoredMessage};
use crate::contract::submission::MessageSubmission;
use crate::journal::disk::Disk;
use crate::journal::record::Record;
use crate::ledger::answers::{Answers, Refusal};
use crate::ledger::dedup::{Known, Name};
use crate::ledger::pending::Place;
use crate::ledger::redis::entry::{Call, Claimed, Entry, change_call, direct_call, group_call};
use crate::ledger::redis::link::Reply;
use crate::limits::{CALL_SUBMISSIONS_MAX, LOST_CHANGES_MS, SENDS_ANSWERED_MS};
use ringway_wire::ids::{Conversation, MsgId, RosterVersion};
use ringway_wire::schema::{ErrorCode, GroupChangeKind};

/// Whether what stands on a lost change waits for that to be made again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Patience {
    /// It does.
    Waits,
    /// It has.
    GivesUp,
}

impl<D: Disk> Submitter<D> {
    /// The store's answer, if it is about what is in flight. `again`: when it is asked for again, if it is none.
    pub(super) fn found_in_flight(&mut self, name: &Name, found: LookupFound, again: Again, view: &mut View<'_, D>) {
        if found == LookupFound::Unavailable {
            return self.in_flight.ask_again(name, again);
        }
        let Searched { submissions, known_s } = self.in_flight.answered(name);
        for msg_id in submissions {
            match found {
                LookupFound::Unavailable => {}
                // It was acked: rather sent twice under its number, which recipients know, than lost.
                LookupFound::Nothing => self.in_flight.not_stored(msg_id, known_s),
                // It was stored, and retention has deleted it: it must not come back to whoever has joined since.
                LookupFound::Expired => self.refuse(msg_id, Refusal::Code(ErrorCode::BadRequest), view.answers),
                LookupFound::Stored(StoredMessage { msg_id: stored, seq, digest, .. }) => {
                    self.settle_as_repeat(msg_id, Known { msg_id: stored, seq, digest }, view.answers);
                }
            }
        }
    }

    /// Tells those who have waited long to ask again. What they sent goes on, and is what they are then answered with; a
    /// change of a group is then found to be made.
    pub(in crate::ledger::redis) fn answer_late(&mut self, now: Now, answers: &mut Answers) {
        for (msg_id, origin) in self.in_flight.take_unanswered(now.mono_ms.saturating_sub(SENDS_ANSWERED_MS)) {
            if let Some(Tracked { subject: Subject::Change { record, .. }, .. }) = self.in_flight.get(msg_id)
                && record.kind == GroupChangeKind::Created
            {
                self.late_creations.push(now.mono_ms, msg_id, record);
            }
            answers.refuse(origin, Refusal::RetryLater);
        }
    }

    /// It must not be submitted again, and whoever waits for it is told why.
    fn refuse(&mut self, msg_id: MsgId, refusal: Refusal, answers: &mut Answers) {
        let Some(subject) = self.in_flight.remove(msg_id) else { return };
        self.log.withdraw(msg_id);
        answers.refuse(subject.origin(), refusal);
    }

    /// The stream, or the database, has its name, under this number or another.
    pub(super) fn settle_as_repeat(&mut self, msg_id: MsgId, known: Known, answers: &mut Answers) {
        // One that was read meanwhile is settled: it is in the stream, and not yet in the database.
        let Some(subject) = self.in_flight.remove(msg_id) else { return };
        if let Subject::Message(submission) = &subject {
            answers.repeat(&submission.incoming, known);
        }
        self.close(msg_id, known.msg_id);
    }

    /// The name of what is open in the log is this message's.
    fn close(&mut self, msg_id: MsgId, stored: MsgId) {
        if stored == msg_id {
            // What is in the stream's unread part would have been settled by its entry: this one is in the database.
            self.log.close(msg_id);
        } else {
            self.log.withdraw(msg_id);
        }
    }

    /// Makes calls of what waits for it. `since_ms`: since when this node has numbered in the generation, monotonic
    /// milliseconds. `offer`: gives Redis's thread a call, if it has room.
    pub(in crate::ledger::redis) fn make_calls(
        &mut self,
        now: Now,
        since_ms: u64,
        view: &mut View<'_, D>,
        offer: &mut dyn FnMut(Vec<Call>) -> bool,
    ) {
        let patience = match now.mono_ms.saturating_sub(since_ms) < LOST_CHANGES_MS {
            true => Patience::Waits,
            false => Patience::GivesUp,
        };
        if patience == Patience::GivesUp {
            self.in_flight.retry_deferred();
        }
        let calls_max = CALL_SUBMISSIONS_MAX * view.settings.buckets;
        let redis_s = view.follower.redis_clock.latest_s();
        let mut at = MsgId(0);
        loop {
            let (mut calls, mut called) = (Vec::new(), Vec::new());
            while calls.len() < calls_max
                && let Some(msg_id) = self.in_flight.next_unsent(at)
            {
                at = msg_id;
                // Behind something of the same sender that is searched for, or of the same group that may come back.
                if self.in_flight.is_held(msg_id) || self.is_behind_old_version(msg_id, view) {
                    continue;
                }
                if self.in_flight.is_forgotten(msg_id, view.settings.names, redis_s) {
                    self.in_flight.search(msg_id);
                    continue;
                }
                if let Some((call, version)) = self.call(msg_id, patience, view) {
                    calls.push(call);
                    called.push((msg_id, version));
                }
            }
            if calls.is_empty() || !offer(calls) {
                return;
            }
            self.in_flight.call(called);
        }
    }

    /// A message to a group of which others were called at an older version, which Redis may not take: if it does not,
    /// they go first.
    fn is_behind_old_version(&self, msg_id: MsgId, view: &View<'_, D>) -> bool {
        let Some(group) = self.in_flight.group_of(msg_id) else { return false };
        let Some(roster) = view.follower.groups.roster(group) else { return false };
        self.in_flight.has_older(group, roster.version)
    }

    /// A submission's call, and the version of its group, if it is a message to one; `None`: it is settled, or cannot be made
    /// any more.
    fn call(
        &mut self,
        msg_id: MsgId,
        patience: Patience,
        view: &mut View<'_, D>,
    ) -> Option<(Call, Option<RosterVersion>)> {
        let node = view.settings.node;
        let Tracked { subject, known_s, .. } = self.in_flight.get(msg_id)?;
        let change = match subject {
            Subject::Message(MessageSubmission { incoming }) | Subject::Old(incoming) => {
                let version = match incoming.to {
                    Conversation::User(_) => Some(None),
                    Conversation::Group(group) => view.follower.version_for(incoming.sender, group).map(Some),
                };
                let Some(version) = version else {
                    self.not_a_member(msg_id, patience, view);
                    return None;
                };
                let record = subject.record(msg_id);
                let entry = Entry { node, version: version.unwrap_or(RosterVersion(0)), record };
                return Some((message_call(msg_id, *known_s, incoming, &entry), version));
            }
            Subject::Change { record, .. } => record.clone(),
            Subject::OldChange(record) => match view.follower.groups.remade(record) {
                Some(remade) => remade,
                None if view.follower.groups.roster(record.group).is_none() => {
                    self.defer(msg_id, patience);
                    return None;
                }
                None => {
                    self.give_up(msg_id);
                    return None;
                }
            },
        };
        let (before, left) = (RosterVersion(change.version.0 - 1), view.follower.left_by(&change));
        let group = change.group;
        let entry = Entry { node, version: RosterVersion(0), record: Record::Change(change) };
        Some((change_call(group, before, left, &entry), None))
    }

    /// A message whose sender has left its group since it was taken, or whose group is no more. If nobody waits for it,
    /// perhaps the change is lost that made its sender a member. Else it may still be a repeat, which the store can tell, and
    /// is refused if it is none.
    fn not_a_member(&mut self, msg_id: MsgId, patience: Patience, view: &mut View<'_, D>) {
        if !matches!(self.in_flight.get(msg_id), Some(Tracked { subject: Subject::Message(_), .. })) {
            return self.defer(msg_id, patience);
        }
        let Some(Subject::Message(submission)) = self.in_flight.remove(msg_id) else {
            return internal::count(internal::Place::InFlight);
        };
        self.log.withdraw(msg_id);
        self.look_up(submission, Place::Last, view);
    }

    /// A submission that cannot be made now, because a change that it stands on is lost. Whoever made that change makes
    /// it again; if that takes too long it is given up.
    fn defer(&mut self, msg_id: MsgId, patience: Patience) {
        match patience {
            Patience::Waits => self.in_flight.defer(msg_id),
            Patience::GivesUp => self.give_up(msg_id),
        }
    }

    /// A submission that can no longer be made: nobody waits for it.
    fn give_up(&mut self, msg_id: MsgId) {
        self.in_flight.remove(msg_id);
        self.log.withdraw(msg_id);
    }

    /// Applies replies that the stream has caught up with.
    pub(in crate::ledger::redis) fn apply_replies(&mut self, now: Now, view: &mut View<'_, D>) {
        while let Some((msg_id, reply)) = self.in_flight.next_reply(view.follower.followed.seen()) {
            match reply {
                Reply::Appended => debug_assert!(false, "it waits for its entry"),
                Reply::Forgotten => self.in_flight.search(msg_id),
                // An old one has nobody to try again: it does so by itself.
                Reply::NoMemory if self.in_flight.is_of_nobody(msg_id) => self.in_flight.send(msg_id),
                Reply::Full if self.in_flight.is_of_nobody(msg_id) => self.in_flight.search(msg_id),
                Reply::NoMemory | Reply::Full => self.refuse(msg_id, Refusal::StorageFull, view.answers),
                Reply::Reused => self.refuse(msg_id, Refusal::Code(ErrorCode::ClientMsgIdReused), view.answers),
                Reply::Repeat(claimed) => {
                    // Redis's thread has decoded it before.
                    if let Some(claimed) = Claimed::decode(&claimed).or_count(internal::Place::InFlight) {
                        self.claimed_before(msg_id, claimed, view);
                    }
                }
                Reply::Bounced => self.bounced_by_redis(now, msg_id, view),
            }
        }
    }

    /// Redis knows the name. Which row the sender has is known here, if that was not long ago, and else in the store.
    fn claimed_before(&mut self, msg_id: MsgId, claimed: Claimed, view: &mut View<'_, D>) {
        let Claimed { msg_id: stored, digest, count } = claimed;
        if let Some(seq) = view.follower.senders.find(StreamPosition(count)) {
            return self.settle_as_repeat(msg_id, Known { msg_id: stored, seq, digest }, view.answers);
        }
        let Some(subject) = self.in_flight.remove(msg_id) else { return };
        self.close(msg_id, stored);
        if let Subject::Message(submission) = subject {
            self.look_up(submission, Place::Last, view);
        }
    }

    fn bounced_by_redis(&mut self, now: Now, msg_id: MsgId, view: &mut View<'_, D>) {
        view.answers.counters.bounced += 1;
        match self.in_flight.get(msg_id).map(|tracked| &tracked.subject) {
            // Another change came first, and has been read: this goes to what that one made of the group, before what was
            // taken later.
            Some(Subject::Message(_) | Subject::Old(_) | Subject::OldChange(_)) => self.in_flight.send(msg_id),
            Some(Subject::Change { .. }) => {
                let Some(Subject::Change { submission, .. }) = self.in_flight.remove(msg_id) else {
                    return internal::count(internal::Place::InFlight);
                };
                self.log.withdraw(msg_id);
                self.change(now, submission, view);
            }
            None => {}
        }
    }
}

/// A message's call.
fn message_call(msg_id: MsgId, known_s: u64, incoming: &Incoming, entry: &Entry<'_>) -> Call {
    let (name, digest) = (Name::of(incoming), digest(incoming.to, incoming.body()));
    match incoming.to {
        Conversation::User(_) => direct_call(&name, msg_id, (digest, known_s), entry),
        Conversation::Group(group) => group_call(&name, msg_id, (digest, known_s), group, entry),
    }
}
