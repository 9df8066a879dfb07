//! What is taken of shards: refused, let wait, or made durable in this node's log for Redis.
//!
//! On the ledger's thread. What always holds: a message is taken only if nobody can have used its name, as far as Redis and
//! the store know between them, and only behind what its sender sent before.

use super::late_creations::group_of;
use super::subject::Subject;
use super::{Submitter, View, unstored_max};
use crate::clock::Now;
use crate::contract::message::Incoming;
use crate::contract::report::StandsStill;
use crate::contract::submission::{ChangeSubmission, MessageSubmission};
use crate::journal::disk::Disk;
use crate::journal::record::ChangeRecord;
use crate::ledger::admission::{Turn, named_at};
use crate::ledger::answers::Refusal;
use crate::ledger::dedup::Name;
use crate::ledger::groups::{NotPlanned, Plan};
use crate::ledger::pending::{Place, Wait};
use crate::ledger::redis::follower::Follower;
use crate::limits::{
    CLOCK_SKEW_MAX_MS, JOURNAL_BATCH_BYTES_MAX, LEDGER_USERS_MAX, LEDGER_USERS_RESERVE, RELEASED_ROWS_MAX,
    SUBMISSIONS_IN_FLIGHT_ACCOUNT_MAX, SUBMISSIONS_IN_FLIGHT_MAX, TAIL_MESSAGES_MAX,
};
use crate::spending::Recipient;
use ringway_wire::ids::{Conversation, UserId};
use ringway_wire::limits::CLIENT_MSG_ID_AHEAD_MS;
use ringway_wire::schema::{ErrorCode, GroupChangeKind};

/// The largest submission, and what is put behind it, fit in what a batch keeps free.
const RECORD_RESERVE_BYTES: usize = 1 << 20;

/// Where a name has been looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Looked {
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

impl<D: Disk> Submitter<D> {
    /// Goes on with what waited, of senders for whom the store has answered, as far as the commit has room for it.
    pub(in crate::ledger::redis) fn release(&mut self, now: Now, view: &mut View<'_, D>) {
        while self.staged.released < RELEASED_ROWS_MAX && !self.is_full(view.session, view.follower, view.answers) {
            let rows_before = self.staged.rows;
            let turn = match self.numbers(view) {
                true => self.waiting.next(view.answers),
                false => self.waiting.refuse_next(view.answers),
            };
            let sender = match &turn {
                None => return,
                Some(Turn::Over) => continue,
                Some(Turn::Unasked(submission) | Turn::NotStored(submission, _)) => submission.incoming.sender,
            };
            match turn {
                None | Some(Turn::Over) => {}
                Some(Turn::Unasked(submission)) => self.send(now, submission, Place::First, view),
                // Another asking of the same name was taken a moment ago: this one has to ask again.
                Some(Turn::NotStored(submission, _))
                    if self.in_flight.of_name(&Name::of(&submission.incoming)).is_some() =>
                {
                    view.answers.refuse(submission.incoming.origin, Refusal::RetryLater);
                }
                Some(Turn::NotStored(submission, known_s)) => {
                    self.take(now, submission, Looked::Everywhere { known_s }, view);
                }
            }
            let released = 1 + self.staged.rows - rows_before;
            self.staged.released += released;
            self.staged.by_sender.push((sender, released));
        }
    }

    /// Takes a message for Redis, or finds that it has to wait: until the store has said whether it was sent long ago, or
    /// for what its sender sent before.
    pub(in crate::ledger::redis) fn send(
        &mut self,
        now: Now,
        submission: MessageSubmission,
        place: Place,
        view: &mut View<'_, D>,
    ) {
        let Incoming { origin, sender, .. } = submission.incoming;
        let name = Name::of(&submission.incoming);
        let named = match named_at(&submission.incoming, self.ids.time_ms(now.unix_ms), &self.clock) {
            Ok(named) => named,
            Err(refusal) => return view.answers.refuse(origin, refusal),
        };
        // Of two of the same name the one counts that is in the stream, or the store. While the first is on its way nobody
        // knows which: this one has to ask again.
        let has_to_ask_again = self.in_flight.of_name(&name).is_some() || self.in_flight.searches_for(sender);
        let since_ms = match self.numbering(view.session, view.follower) {
            Ok(reading) if !has_to_ask_again => reading.since_ms,
            _ => return view.answers.refuse(origin, Refusal::RetryLater),
        };
        // Redis knows what was named in its time, by whatever clock a node may have numbered; and what is in the database was
        // named before its newest message.
        let known_ms = since_ms + CLOCK_SKEW_MAX_MS;
        let stored_ms = view.follower.followed.stored_ms();
        let window_ms = view.settings.names.window_ms();
        let claimed_ms = known_ms.min(stored_ms + 1).max(now.unix_ms.saturating_sub(window_ms));
        let named_at_least_ms = named.saturating_sub(CLIENT_MSG_ID_AHEAD_MS);
        if named_at_least_ms < claimed_ms {
            self.look_up(submission, place, view);
        } else if place == Place::Last && self.waiting.waits_for(sender) {
            self.waiting.park(submission, Wait::Behind, view.answers);
        } else {
            self.take(now, submission, Looked::NoNeed { place, known_s: named_at_least_ms / 1_000 }, view);
        }
    }

    /// Lets a message wait for the store's answer.
    pub(super) fn look_up(&mut self, submission: MessageSubmission, place: Place, view: &mut View<'_, D>) {
        let known_s = view.follower.redis_clock.read_s();
        match place {
            Place::Last => self.waiting.park(submission, Wait::Lookup(known_s), view.answers),
            Place::First => self.waiting.park_first(submission, known_s, view.answers),
        }
    }

    /// Numbers a message and logs it: it goes to Redis with the next commit. What no member sends may still be a
    /// repeat, which only the store can tell (its tail has all that was read of the stream).
    fn take(&mut self, now: Now, submission: MessageSubmission, looked: Looked, view: &mut View<'_, D>) {
        let Incoming { origin, sender, to, .. } = submission.incoming;
        let (name, known_s) = (Name::of(&submission.incoming), looked.known_s());
        let Conversation::Group(group) = to else {
            if let Err(refusal) = view.check_recipient(&submission.incoming) {
                return view.answers.refuse(origin, refusal);
            }
            if view.follower.sequences.users() + LEDGER_USERS_RESERVE > LEDGER_USERS_MAX {
                return view.answers.refuse(origin, Refusal::StorageFull);
            }
            let rows = if to == Conversation::User(sender) { 1 } else { 2 };
            return self.log_message(now, (name, known_s), submission, rows, view);
        };
        let is_member = view.follower.version_for(sender, group).is_some();
        match view.follower.groups.roster(group) {
            _ if let (false, Looked::NoNeed { place, .. }) = (is_member, looked) => {
                self.look_up(submission, place, view);
            }
            None => view.refuse_stranger(origin, ErrorCode::UnknownGroup),
            Some(_) if !is_member => view.refuse_stranger(origin, ErrorCode::NotAMember),
            Some(roster) => {
                let rows = roster.members().len();
                self.log_message(now, (name, known_s), submission, rows, view);
            }
        }
    }

    /// A message that makes so many rows, unless its sender or its group may not have them now; what the API sends counts for
    /// nobody.
    fn log_message(
        &mut self,
        now: Now,
        name: (Name, u64),
        submission: MessageSubmission,
        rows: usize,
        view: &mut View<'_, D>,
    ) {
        let Incoming { origin, sender, to, .. } = submission.incoming;
        // What there is no room for costs nothing.
        let room = self.room(now, sender, view);
        let (limits, sequences) = (&view.settings.traffic, &view.follower.sequences);
        let is_new = matches!(to, Conversation::User(user) if user != sender && sequences.slot(user).is_none());
        let recipient = if is_new { Recipient::New } else { Recipient::Known };
        let taken = room.and_then(|()| match origin.is_api(view.settings.shards) {
            true => Ok(()),
            false => {
                let taken = self.spending.take(now.mono_ms, limits, (sender, to), rows, recipient);
                taken.map_err(Refusal::Limited)
            }
        });
        match taken {
            Ok(()) => {
                self.staged.rows += rows;
                self.log_submission(now, Some(name), Subject::Message(submission));
            }
            Err(refusal) => view.answers.refuse(origin, refusal),
        }
    }

    /// A change, unless its actor may not make so much now.
    fn log_change(&mut self, now: Now, submission: ChangeSubmission, record: ChangeRecord, view: &mut View<'_, D>) {
        let ChangeSubmission { origin, actor, .. } = submission;
        let room = self.room(now, actor, view);
        let (limits, making) = (&view.settings.traffic, record.making());
        let taken =
            room.and_then(|()| self.spending.take_change(now.mono_ms, limits, actor, making).map_err(Refusal::Limited));
        match taken {
            Ok(()) => self.log_submission(now, None, Subject::Change { submission, record }),
            Err(refusal) => view.answers.refuse(origin, refusal),
        }
    }

    /// There is room for it: it is durable with the next commit.
    fn log_submission(&mut self, now: Now, name: Option<(Name, u64)>, mut subject: Subject) {
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

    /// Whether there is room for one more of this account.
    fn room(&mut self, now: Now, account: UserId, view: &View<'_, D>) -> Result<(), Refusal> {
        if !self.numbers(view)
            || self.in_flight.len() >= SUBMISSIONS_IN_FLIGHT_MAX
            || self.in_flight.count_of(account) >= SUBMISSIONS_IN_FLIGHT_ACCOUNT_MAX
        {
            return Err(Refusal::RetryLater);
        }
        self.look_at_unstored(view);
        self.unstored.check(account, unstored_max(view), view.settings.traffic.user_unstored_percent)?;
        if view.progress.tail_messages() >= TAIL_MESSAGES_MAX as u64 {
            self.no_room.meet(now, StandsStill::Full);
            return Err(Refusal::StorageFull);
        }
        if self.log.staged_bytes() + RECORD_RESERVE_BYTES > JOURNAL_BATCH_BYTES_MAX {
            return Err(Refusal::RetryLater);
        }
        self.log.make_room().map_err(|error| {
            self.no_room.meet_full_disk(now, &error);
            Refusal::StorageFull
        })
    }

    /// A change is planned on this node's rosters; Redis takes it only if they are the current ones.
    pub(in crate::ledger::redis) fn change(&mut self, now: Now, submission: ChangeSubmission, view: &mut View<'_, D>) {
        let origin = submission.origin;
        if !self.numbers(view) {
            return view.answers.refuse(origin, Refusal::RetryLater);
        }
        let permission = view.settings.policies.adding_members.asked_by(origin, view.settings.shards);
        let wish = (&submission.change, submission.adding, permission);
        let Follower { groups, sequences, .. } = view.follower;
        match groups.plan(submission.actor, wish, sequences) {
            Ok(Plan::Change(record)) if record.kind == GroupChangeKind::Created => {
                self.create(now, submission, record, view);
            }
            Ok(Plan::Change(record)) => self.log_change(now, submission, record, view),
            Ok(Plan::Nothing { group, version }) => view.answers.unchanged(origin, group, version),
            Err(NotPlanned { code: code @ (ErrorCode::UnknownGroup | ErrorCode::NotAMember), .. }) => {
                view.refuse_stranger(origin, code);
            }
            Err(not_planned) => view.answers.not_planned(origin, not_planned),
        }
    }

    /// Makes a group, unless its creator asks again for one that was not answered in time.
    fn create(&mut self, now: Now, submission: ChangeSubmission, record: ChangeRecord, view: &mut View<'_, D>) {
        let in_flight = &self.in_flight;
        let Some(before) = self.late_creations.find(now.mono_ms, &record, |msg_id| in_flight.contains(msg_id)) else {
            return self.log_change(now, submission, record, view);
        };
        if self.in_flight.contains(before) {
            return view.answers.refuse(submission.origin, Refusal::RetryLater);
        }
        self.late_creations.remove(before);
        match view.follower.groups.roster(group_of(before)).map(|roster| (roster.group, roster.version)) {
            Some((group, version)) => view.answers.unchanged(submission.origin, group, version),
            None => self.log_change(now, submission, record, view),
        }
    }
}
