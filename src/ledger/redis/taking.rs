//! What is taken of shards: refused, let wait, or made durable in this node's log for Redis.
//!
//! On the ledger's thread. What always holds: a message is taken only if nobody can have used its name, as far as Redis and
//! the store know between them, and only behind what its sender sent before.

use super::in_flight::Subject;
use super::late_creations::group_of;
use super::{NOBODY, RedisEngine};
use crate::clock::Now;
use crate::contract::delivery::Delivery;
use crate::contract::digest::digest;
use crate::contract::ids::Origin;
use crate::contract::message::Incoming;
use crate::contract::report::StandsStill;
use crate::contract::spending::Recipient;
use crate::contract::store::{LookupFound, StoredMessage};
use crate::contract::submission::{ChangeSubmission, MessageSubmission};
use crate::contract::traffic::Limited;
use crate::journal::disk::Disk;
use crate::journal::record::ChangeRecord;
use crate::ledger::Engine;
use crate::ledger::dedup::{Name, named_ms};
use crate::ledger::groups::Plan;
use crate::ledger::pending::{Answered, Parked, Place, Released, Wait};
use crate::ledger::pending_delivery::PendingDelivery;
use crate::limits::{
    JOURNAL_BATCH_BYTES_MAX, LEDGER_RETRY_MS, LEDGER_USERS_MAX, LEDGER_USERS_RESERVE, STORAGE_FULL_RETRY_MS,
    SUBMISSIONS_IN_FLIGHT_MAX, TAIL_MESSAGES_MAX, WINDOW_MS,
};
use ringway_wire::ids::{Conversation, GroupId, MsgId, RosterVersion, Seq};
use ringway_wire::limits::{BODY_BYTES_MAX, CLIENT_MSG_ID_AHEAD_MS};
use ringway_wire::schema::{ErrorCode, GroupChangeKind};

/// The largest submission, and what is put behind it, fit in what a batch keeps free.
const RECORD_RESERVE_BYTES: usize = 1 << 20;

/// Where a name has been looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Looked {
    /// In the store and its tail, which had all that Redis had by this second of its clock.
    Everywhere { known_s: u64 },
    /// Nowhere yet: nobody can have used the name before this second, and Redis knows all names of its time.
    NoNeed { place: Place, known_s: u64 },
}

impl Looked {
    fn known_s(self) -> u64 {
        match self {
            Looked::Everywhere { known_s } | Looked::NoNeed { known_s, .. } => known_s,
        }
    }
}

/// Why something was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    Code(ErrorCode),
    StorageFull,
    RetryLater,
    Limited(Limited),
}

impl<D: Disk> RedisEngine<D> {
    /// Goes on with what waited, of senders for whom the store has answered, as far as the commit has room.
    pub(super) fn release(&mut self, now: Now) {
        while let Some(sender) = self.releasing.front().copied() {
            while !self.full()
                && let Some(released) = self.pending.next(sender)
            {
                self.released(now, released);
            }
            if self.full() {
                return;
            }
            self.releasing.pop_front();
        }
    }

    pub(super) fn released(&mut self, now: Now, Released { submission, answered }: Released<u64>) {
        let Incoming { origin, sender, .. } = submission.incoming;
        if answered.is_some_and(|answered| answered.found == LookupFound::Unavailable) || !self.numbers() {
            self.refuse(origin, Refusal::RetryLater);
            for behind in self.pending.refuse(sender) {
                self.refuse(behind.incoming.origin, Refusal::RetryLater);
            }
            return;
        }
        let Some(Answered { found, asked: known_s }) = answered else {
            return self.send(now, submission, Place::First);
        };
        match found {
            // Whether it is a repeat cannot be known any more.
            LookupFound::Expired => self.refuse(origin, Refusal::Code(ErrorCode::BadRequest)),
            LookupFound::Stored(StoredMessage { msg_id, seq, digest, .. }) => {
                self.repeat(&submission.incoming, msg_id, seq, digest);
            }
            // Another asking of the same name was taken a moment ago: this one has to ask again.
            _ if self.in_flight.of_name(&Name::of(&submission.incoming)).is_some() => {
                self.refuse(origin, Refusal::RetryLater);
            }
            _ => self.take(now, submission, Looked::Everywhere { known_s }),
        }
    }

    /// Takes a message for Redis, or finds that it has to wait: until the store has said whether it was sent long ago, or
    /// for what its sender sent before.
    pub(super) fn send(&mut self, now: Now, submission: MessageSubmission, place: Place) {
        let Incoming { origin, sender, .. } = submission.incoming;
        let (name, body) = (Name::of(&submission.incoming), submission.incoming.body());
        if body.len() > BODY_BYTES_MAX {
            return self.refuse(origin, Refusal::Code(ErrorCode::BodyTooLarge));
        }
        let named = match named_ms(&name.client_msg_id, self.ids.time_ms(now.unix_ms)) {
            Ok(named) => named,
            // The name may be of the time that is not believed yet.
            Err(ErrorCode::ClientMsgIdAhead) if self.clock.is_in_doubt() => {
                return self.refuse(origin, Refusal::RetryLater);
            }
            Err(code) => return self.refuse(origin, Refusal::Code(code)),
        };
        // Of two of the same name the one counts that is in the stream, or the store. While the first is on its way nobody
        // knows which: this one has to ask again.
        if self.in_flight.of_name(&name).is_some() || !self.numbers() || self.in_flight.searches_for(sender) {
            return self.refuse(origin, Refusal::RetryLater);
        }
        // Redis knows what was named in its time; and what is in the database was named before its newest message.
        let claimed_ms = self.since_ms.min(self.stored_ms + 1).max(now.unix_ms.saturating_sub(WINDOW_MS));
        let named_at_least_ms = named.saturating_sub(CLIENT_MSG_ID_AHEAD_MS);
        if named_at_least_ms < claimed_ms {
            self.look_up(submission, place);
        } else if place == Place::Last && self.pending.waits_for(sender) {
            self.park(submission, Wait::Behind);
        } else {
            self.take(now, submission, Looked::NoNeed { place, known_s: named_at_least_ms / 1_000 });
        }
    }

    /// Lets a message wait for the store's answer.
    pub(super) fn look_up(&mut self, submission: MessageSubmission, place: Place) {
        let known_s = self.redis_clock.read_s();
        match place {
            Place::Last => self.park(submission, Wait::Lookup(known_s)),
            Place::First => {
                let parked = self.pending.park_first(submission, known_s);
                self.counters.lookups += u64::from(parked == Parked::First);
            }
        }
    }

    pub(super) fn park(&mut self, submission: MessageSubmission, wait: Wait<u64>) {
        match self.pending.park(submission, wait) {
            Ok(Parked::First) => self.counters.lookups += 1,
            Ok(Parked::WithAnother) => {}
            Err(submission) => self.refuse(submission.incoming.origin, Refusal::RetryLater),
        }
    }

    /// Answers what was sent before.
    pub(super) fn repeat(&mut self, incoming: &Incoming, msg_id: MsgId, seq: Seq, before: u64) {
        let origin = incoming.origin;
        if digest(incoming.to, incoming.body()) != before {
            return self.refuse(origin, Refusal::Code(ErrorCode::ClientMsgIdReused));
        }
        self.counters.repeats += 1;
        let sent_at_ms = msg_id.sent_at_ms();
        self.deliveries.push(PendingDelivery::Delivery(Delivery::Repeat { origin, msg_id, seq, sent_at_ms }));
    }

    /// Numbers a message and logs it: it goes to Redis with the next commit. What no member sends may still be a
    /// repeat, which only the store can tell (its tail has all that was read of the stream).
    pub(super) fn take(&mut self, now: Now, submission: MessageSubmission, looked: Looked) {
        let Incoming { origin, sender, to, .. } = submission.incoming;
        let (name, known_s) = (Name::of(&submission.incoming), looked.known_s());
        let Conversation::Group(group) = to else {
            if self.sequences.users() + LEDGER_USERS_RESERVE > LEDGER_USERS_MAX {
                return self.refuse(origin, Refusal::StorageFull);
            }
            let rows = if to == Conversation::User(sender) { 1 } else { 2 };
            return self.log_message(now, (name, known_s), submission, rows);
        };
        let is_member = self.version_for(sender, group).is_some();
        match self.groups.roster(group) {
            _ if let (false, Looked::NoNeed { place, .. }) = (is_member, looked) => self.look_up(submission, place),
            None => self.refuse(origin, Refusal::Code(ErrorCode::UnknownGroup)),
            Some(_) if !is_member => self.refuse(origin, Refusal::Code(ErrorCode::NotAMember)),
            Some(roster) => {
                let rows = roster.members().len();
                self.log_message(now, (name, known_s), submission, rows);
            }
        }
    }

    /// A message that makes so many rows, unless its sender or its group may not have them now; what the API sends counts for
    /// nobody.
    fn log_message(&mut self, now: Now, name: (Name, u64), submission: MessageSubmission, rows: usize) {
        let Incoming { origin, sender, to, .. } = submission.incoming;
        // What there is no room for costs nothing.
        let room = self.room(now);
        let limits = &self.settings.traffic;
        let is_new = matches!(to, Conversation::User(user) if user != sender && self.sequences.slot(user).is_none());
        let recipient = if is_new { Recipient::New } else { Recipient::Known };
        let taken = room.and_then(|()| match origin.is_api(self.settings.shards) {
            true => Ok(()),
            false => {
                let taken = self.spending.take(now.mono_ms, limits, (sender, to), rows, recipient);
                taken.map_err(Refusal::Limited)
            }
        });
        match taken {
            Ok(()) => self.log_submission(now, Some(name), Subject::Message(submission)),
            Err(refusal) => self.refuse(origin, refusal),
        }
    }

    /// A change, unless its actor may not make so much now.
    fn log_change(&mut self, now: Now, submission: ChangeSubmission, record: ChangeRecord) {
        let ChangeSubmission { origin, actor, .. } = submission;
        let room = self.room(now);
        let (limits, making) = (&self.settings.traffic, record.making());
        let taken =
            room.and_then(|()| self.spending.take_change(now.mono_ms, limits, actor, making).map_err(Refusal::Limited));
        match taken {
            Ok(()) => self.log_submission(now, None, Subject::Change { submission, record }),
            Err(refusal) => self.refuse(origin, refusal),
        }
    }

    pub(super) fn log_submission(&mut self, now: Now, name: Option<(Name, u64)>, mut subject: Subject) {
        if let Err(refusal) = self.room(now) {
            return self.refuse(subject.origin(), refusal);
        }
        let msg_id = self.ids.next(now.unix_ms);
        if let Subject::Change { record, .. } = &mut subject {
            record.msg_id = msg_id;
            if record.kind == GroupChangeKind::Created {
                record.group = group_of(msg_id);
            }
        }
        self.log.stage(msg_id, &subject.record(msg_id));
        self.in_flight.add(now.mono_ms, msg_id, name, subject);
    }

    fn room(&mut self, now: Now) -> Result<(), Refusal> {
        if !self.numbers() || self.in_flight.len() >= SUBMISSIONS_IN_FLIGHT_MAX {
            return Err(Refusal::RetryLater);
        }
        if self.progress.tail_messages() >= TAIL_MESSAGES_MAX as u64 {
            self.no_room.meet(now, StandsStill::Full);
            return Err(Refusal::StorageFull);
        }
        if self.log.staged_bytes() + RECORD_RESERVE_BYTES > JOURNAL_BATCH_BYTES_MAX {
            return Err(Refusal::RetryLater);
        }
        self.log.make_room().map_err(|error| {
            self.no_room.meet(now, StandsStill::LogFull);
            tracing::error!(%error, "nothing can be submitted: this node's log has no room");
            Refusal::StorageFull
        })
    }

    /// A change is planned on this node's rosters; Redis takes it only if they are the current ones.
    pub(super) fn change(&mut self, now: Now, submission: ChangeSubmission) {
        let origin = submission.origin;
        if !self.numbers() {
            return self.refuse(origin, Refusal::RetryLater);
        }
        match self.groups.plan(submission.actor, &submission.change, &self.sequences) {
            Ok(Plan::Change(record)) if record.kind == GroupChangeKind::Created => {
                self.create(now, submission, record);
            }
            Ok(Plan::Change(record)) => self.log_change(now, submission, record),
            Ok(Plan::Nothing { group, version }) => self.unchanged(origin, group, version),
            Err(ErrorCode::StorageFull) => self.refuse(origin, Refusal::StorageFull),
            Err(code) => self.refuse(origin, Refusal::Code(code)),
        }
    }

    /// Makes a group, unless its creator asks again for one that was not answered in time.
    fn create(&mut self, now: Now, submission: ChangeSubmission, record: ChangeRecord) {
        let flights = &self.in_flight.flights;
        let Some(before) = self.late_creations.find(now.mono_ms, &record, |msg_id| flights.contains_key(&msg_id))
        else {
            return self.log_change(now, submission, record);
        };
        if self.in_flight.flights.contains_key(&before) {
            return self.refuse(submission.origin, Refusal::RetryLater);
        }
        self.late_creations.remove(before);
        match self.groups.roster(group_of(before)).map(|roster| (roster.group, roster.version)) {
            Some((group, version)) => self.unchanged(submission.origin, group, version),
            None => self.log_change(now, submission, record),
        }
    }

    fn unchanged(&mut self, origin: Origin, group: GroupId, version: RosterVersion) {
        if origin != NOBODY {
            self.deliveries.push(PendingDelivery::Delivery(Delivery::Unchanged { origin, group, version }));
        }
    }

    pub(super) fn refuse(&mut self, origin: Origin, refusal: Refusal) {
        if origin == NOBODY {
            return;
        }
        let (code, retry_after_ms) = match refusal {
            Refusal::Code(code) => (code, 0),
            Refusal::StorageFull => (ErrorCode::StorageFull, STORAGE_FULL_RETRY_MS),
            Refusal::RetryLater => (ErrorCode::RetryLater, LEDGER_RETRY_MS),
            Refusal::Limited(Limited { limit, retry_after_ms }) => {
                self.counters.limited.count(limit);
                (ErrorCode::RetryLater, retry_after_ms)
            }
        };
        self.counters.storage_full += u64::from(code == ErrorCode::StorageFull);
        self.counters.retry_later += u64::from(code == ErrorCode::RetryLater);
        self.deliveries.push(PendingDelivery::Delivery(Delivery::Refused { origin, code, retry_after_ms }));
    }
}
