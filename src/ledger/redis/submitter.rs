//! What shards have submitted by way of this node and Redis has not settled.
//!
//! Owned by the engine, which gives it what is heard: entries, replies, the store's answers. It knows nothing of sessions but
//! whether it may number. What always holds: a submission waits until its name is looked for, or is in flight in one stage
//! ([`in_flight`]), or is over; what is in flight is in the log, on disk before Redis hears of it; and what is over
//! without being in the stream is marked there before anybody is told.

mod calls;
mod group_calls;
mod in_flight;
mod late_creations;
pub(super) mod log;
mod no_room;
mod searches;
mod subject;
mod taking;

use self::in_flight::InFlight;
use self::late_creations::LateCreations;
use self::log::{Committed, Log, Submitted};
use self::no_room::NoRoom;
use self::searches::Again;
use self::subject::Subject;
use super::Settings;
use super::entry::Entry;
use super::follower::Follower;
use super::link::Reply;
use super::seed::FIRST_GENERATION;
use super::session::{Certainty, Reading, Session};
use crate::clock::Now;
use crate::contract::digest::digest;
use crate::contract::ids::Origin;
use crate::contract::keyed::TableKey;
use crate::contract::latencies::Latencies;
use crate::contract::message::Incoming;
use crate::contract::position::StreamPosition;
use crate::contract::progress::Progress;
use crate::contract::report::StandsStill;
use crate::contract::store::{Lookup, LookupAnswer, LookupFound};
use crate::contract::submission::ChangeSubmission;
use crate::journal::disk::Disk;
use crate::journal::record::Record;
use crate::ledger::LedgerError;
use crate::ledger::admission::Admission;
use crate::ledger::answers::{Answers, Refusal};
use crate::ledger::dedup::{Known, Name};
use crate::ledger::ledger_clock::LedgerClock;
use crate::ledger::sequence::MsgIdSource;
use crate::ledger::unstored::{Load, Unstored};
use crate::limits::{COMMIT_BYTES_MAX, COMMIT_MESSAGES_MAX, LOST_CHANGES_MS, REOPENED_MS, TAIL_MESSAGES_MAX};
use crate::spending::FanoutSpending;
use ringway_wire::ids::{ClientMsgId, Conversation, GroupId, MsgId, Seq, UserId};
use ringway_wire::schema::ErrorCode;

/// See the module.
#[derive(Debug)]
pub(super) struct Submitter<D: Disk> {
    clock: LedgerClock,
    ids: MsgIdSource,
    log: Log<D>,
    /// A moment is a second of Redis's clock by which all that it had was read.
    waiting: Admission<u64>,
    in_flight: InFlight,
    late_creations: LateCreations,
    /// What senders and groups have had lately of this node; what Redis did not take in the end is not given back.
    spending: FanoutSpending,
    no_room: NoRoom,
    staged: Staged,
    /// The stream's entries that the store has not, of all nodes, by sender.
    unstored: Unstored<StreamPosition>,
}

/// What the next commit of the log has.
#[derive(Debug, Default)]
struct Staged {
    /// Rows that it will make.
    rows: usize,
    /// Of these, those of what had waited for the store; a message counts as one more.
    released: usize,
    /// The same by sender, until it is taken.
    by_sender: Vec<(UserId, usize)>,
}

/// What the submitter may see of the rest of the engine, and where its answers go.
#[derive(Debug)]
pub(super) struct View<'a, D: Disk> {
    pub(super) settings: &'a Settings,
    pub(super) progress: &'a Progress,
    pub(super) session: &'a Session,
    pub(super) follower: &'a Follower<D>,
    pub(super) answers: &'a mut Answers,
}

impl<D: Disk> View<'_, D> {
    /// Whether the sender may write to the other user, as far as this node knows groups.
    pub(super) fn check_recipient(&self, incoming: &Incoming) -> Result<(), Refusal> {
        let permission = self.settings.policies.direct_messages.asked_by(incoming.origin, self.settings.shards);
        let Follower { groups, sequences, .. } = self.follower;
        groups.check_recipient(permission, incoming, sequences).map_err(Refusal::Code)
    }

    /// Refuses who is in no such group, as far as this node knows. A moment after a ledger was made anew that is for now: a
    /// change that was lost is made again by the node that took it, and what was sent to its group is a repeat then.
    fn refuse_stranger(&mut self, origin: Origin, code: ErrorCode) {
        let latest_ms = self.follower.redis_clock.latest_s() * 1_000;
        let is_new = |reading: &Reading| {
            reading.generation.number > FIRST_GENERATION && latest_ms < reading.since_ms + LOST_CHANGES_MS
        };
        let is_remade = self.session.reading().is_some_and(is_new);
        self.answers.refuse(origin, if is_remade { Refusal::RetryLater } else { Refusal::Code(code) });
    }
}

impl<D: Disk> Submitter<D> {
    /// With what a former process left in the log; `ids` goes on above it.
    pub(super) fn new(log: Log<D>, ids: MsgIdSource, seed: u64) -> Self {
        Submitter {
            clock: LedgerClock::default(),
            ids,
            log,
            waiting: Admission::new(seed ^ 5),
            in_flight: InFlight::default(),
            late_creations: LateCreations::default(),
            spending: FanoutSpending::new(TableKey::new(seed ^ 8)),
            no_room: NoRoom::default(),
            staged: Staged::default(),
            unstored: Unstored::new(TableKey::new(seed ^ 10)),
        }
    }

    /// Rows that what was taken since the last commit will make.
    pub(super) fn staged_rows(&self) -> usize {
        self.staged.rows
    }

    /// [`crate::ledger::Engine::take_released`].
    pub(super) fn take_released(&mut self, out: &mut Vec<(UserId, usize)>) {
        out.append(&mut self.staged.by_sender);
    }

    /// The clock, as far as it is believed.
    pub(super) fn read_clock(&mut self, now: Now) -> Now {
        self.clock.read(now)
    }

    /// Time passes.
    pub(super) fn pass(&mut self, now: Now) {
        self.in_flight.pass(now.mono_ms);
    }

    /// The stream in which something new can be numbered: Redis is there, and all that it may have lost is on its way
    /// again. `Err`: why nothing can.
    pub(super) fn numbering<'s>(
        &self,
        session: &'s Session,
        follower: &Follower<D>,
    ) -> Result<&'s Reading, StandsStill> {
        let reading = session.caught_up(follower.followed.seen())?;
        if reading.certainty == Certainty::Unverified {
            return Err(StandsStill::Unverified);
        }
        if self.in_flight.searches_all() {
            return Err(StandsStill::Searching);
        }
        if follower.redis_clock.is_astray() { Err(StandsStill::Clock) } else { Ok(reading) }
    }

    fn numbers(&self, view: &View<'_, D>) -> bool {
        self.numbering(view.session, view.follower).is_ok()
    }

    /// Why nothing new can be numbered, or finds room, for operators.
    pub(super) fn stands_still(&self, session: &Session, follower: &Follower<D>) -> Option<StandsStill> {
        self.numbering(session, follower).err().or_else(|| self.no_room.why())
    }

    /// How long the log's syncs took.
    pub(super) fn syncs(&self) -> Latencies {
        self.log.syncs()
    }

    /// The turn of something that waited has come.
    pub(super) fn has_turns(&self) -> bool {
        self.waiting.has_turns()
    }

    /// Moves what the store is to be asked for to `out`.
    pub(super) fn take_lookups(
        &mut self,
        applied: StreamPosition,
        session: &Session,
        follower: &Follower<D>,
        out: &mut Vec<Lookup>,
    ) {
        let before = out.len();
        self.waiting.take_lookups(out);
        // An answer is worth what of the stream was read when it was asked for.
        if session.caught_up(follower.followed.seen()).is_ok() {
            self.in_flight.take_lookups(applied, follower.redis_clock.read_s(), out);
        }
        let generation = follower.followed.generation_number();
        out.iter_mut().skip(before).for_each(|lookup| lookup.generation = generation);
    }

    /// Redis has replied to the first call that has no reply, when it had so many entries.
    pub(super) fn reply(&mut self, now: Now, replies: Vec<Reply>, at: StreamPosition) {
        for (reply, why) in [(Reply::Full, StandsStill::Full), (Reply::NoMemory, StandsStill::NoMemory)] {
            if replies.contains(&reply) {
                self.no_room.meet(now, why);
            }
        }
        self.in_flight.reply(replies, at);
    }

    /// Nothing new would find room in Redis.
    pub(super) fn has_no_room(&mut self, now: Now, why: StandsStill) {
        self.no_room.meet(now, why);
    }

    /// Looks whether what found no room would find it now.
    pub(super) fn look_for_room(&mut self, now: Now) {
        if self.no_room.why() == Some(StandsStill::LogFull) && self.log.make_room().is_err() {
            self.no_room.meet(now, StandsStill::LogFull);
        }
        self.no_room.pass(now);
    }

    /// The database has all up to this entry of the generation that is followed.
    pub(super) fn stored(&mut self, applied: StreamPosition) {
        self.log.stored(applied);
    }

    /// A snapshot of the database is gone on from, which has no message of a higher number: a process that had this node's id
    /// before may have given it. Where submissions stood in the stream that was read says no more whether they are stored.
    pub(super) fn begin_behind(&mut self, stored: MsgId) {
        self.ids.raise(stored);
        self.log.forget_entries();
        self.unstored.forget();
    }

    /// The session is over: all is called again in the next one.
    pub(super) fn lost(&mut self) {
        self.in_flight.lost();
    }

    /// The next commit has reached a limit.
    pub(super) fn is_full(&self, session: &Session, follower: &Follower<D>, answers: &Answers) -> bool {
        let sends = session.caught_up(follower.followed.seen()).is_ok();
        answers.len() >= COMMIT_MESSAGES_MAX
            || (sends && self.in_flight.unsent_count() >= COMMIT_MESSAGES_MAX)
            || self.log.staged_bytes() >= COMMIT_BYTES_MAX
    }

    /// Makes durable what was taken and what was withdrawn. What the disk has no room for is refused.
    pub(super) fn write_log(&mut self, now: Now, answers: &mut Answers) -> Result<(), LedgerError> {
        (self.staged.rows, self.staged.released) = (0, 0);
        if let Committed::Refused(error) = self.log.commit()? {
            self.no_room.meet_full_disk(now, &error);
            for subject in self.in_flight.take_uncommitted() {
                answers.refuse(subject.origin(), Refusal::StorageFull);
            }
        }
        self.in_flight.committed();
        Ok(())
    }

    /// An entry was read, in which the sender's row has this number. Returns the session that sent it, and the
    /// change of a group that it is, if that is one of ours.
    pub(super) fn settle(
        &mut self,
        at: StreamPosition,
        entry: &Entry<'_>,
        seq: Seq,
        view: &mut View<'_, D>,
    ) -> (Origin, Option<ChangeSubmission>) {
        let Some(msg_id) = entry.record.msg_id() else { return (Origin::NOBODY, None) };
        self.ids.raise(msg_id);
        let is_change = matches!(entry.record, Record::Change(_));
        if entry.node == view.settings.node {
            let what = if is_change { Submitted::Change } else { Submitted::Message };
            self.log.read(msg_id, at, what);
        }
        if is_change {
            self.in_flight.retry_deferred();
        }
        self.count_unstored(at, &entry.record, view);
        let subject = self.in_flight.remove(msg_id);
        // Nothing else can have its name.
        if let Some((name, to, body)) = named(&entry.record)
            && let Some(other) = self.in_flight.of_name(&name)
        {
            self.settle_as_repeat(other, Known { msg_id, seq, digest: digest(to, body) }, view.answers);
        }
        let origin = subject.as_ref().map_or(Origin::NOBODY, Subject::origin);
        let change = match subject {
            Some(Subject::Change { submission, .. }) => Some(submission),
            _ => None,
        };
        (origin, change)
    }

    /// Whether much is unstored now.
    fn look_at_unstored(&mut self, view: &View<'_, D>) {
        let all = Load { bytes: 0, weight: view.progress.tail_messages() };
        self.unstored.look(all, unstored_max(view), view.progress.applied().in_stream());
    }

    /// An entry that the store does not have yet counts against its sender, where much is unstored.
    fn count_unstored(&mut self, at: StreamPosition, record: &Record<'_>, view: &View<'_, D>) {
        self.look_at_unstored(view);
        if self.unstored.counts()
            && let Some((name, ..)) = named(record)
        {
            self.unstored.count(name.sender, at, Load { bytes: 0, weight: 1 });
        }
    }

    /// The store's answer: to what is in flight, and to what waits for it.
    pub(super) fn found(&mut self, now: Now, answer: LookupAnswer, view: &mut View<'_, D>) {
        let Lookup { sender, client_msg_id, generation } = answer.lookup;
        let name = Name { sender, client_msg_id };
        // The database may have got it since, from a generation that is over: whoever still wants to know asks again.
        let (found, again) = match generation == view.follower.followed.generation_number() {
            true => (answer.found, Again::Unavailable(now.mono_ms)),
            false => (LookupFound::Unavailable, Again::OutOfDate),
        };
        self.found_in_flight(&name, found, again, view);
        self.waiting.found(&answer.lookup, found);
        self.release(now, view);
    }

    /// Groups that the log would make and that this node does not know.
    pub(super) fn unknown_groups(&self, follower: &Follower<D>) -> Vec<GroupId> {
        let mut unknown = Vec::new();
        let read = self.log.each_open(&mut |record| match record {
            Record::Change(record) if follower.makes_unknown(&record) => unknown.push(record.group),
            _ => {}
        });
        // Said when it is read to be submitted again.
        read.map_or_else(|_| Vec::new(), |()| unknown)
    }

    /// The generation that was followed is over, at this time of Redis's clock: what was taken for stored is looked for too, but
    /// for what is older than a fail-over can be that nobody has noticed.
    pub(super) fn reopen(&mut self, redis_ms: u64) {
        let from = MsgId::first_at(redis_ms.saturating_sub(REOPENED_MS));
        if let Err(error) = self.log.reopen(from) {
            tracing::error!(%error, "this node's log cannot be read: what was taken for stored is not looked for");
        }
    }

    /// All that this node has submitted, and that is perhaps neither in the database, which is at this entry, nor in the
    /// stream.
    pub(super) fn submit_again(&mut self, from: StreamPosition, follower: &Follower<D>, answers: &mut Answers) {
        let mut open = Vec::new();
        let again = self.log.each_open(&mut |record| open.extend(Subject::from_log(&record)));
        for (msg_id, name, subject) in open {
            match &subject {
                Subject::OldChange(record) if follower.is_over(record) => {
                    self.log.withdraw(msg_id);
                    let origin = self.in_flight.remove(msg_id).map_or(Origin::NOBODY, |subject| subject.origin());
                    answers.refuse(origin, Refusal::RetryLater);
                }
                Subject::OldChange(record) if follower.is_made(record) => self.log.withdraw(msg_id),
                _ => self.in_flight.add_again(msg_id, name, subject),
            }
        }
        if let Err(error) = again {
            tracing::error!(%error, "this node's log cannot be read: what Redis lost of it is not submitted again");
        }
        self.in_flight.search_all(from);
        if self.in_flight.len() > 0 {
            tracing::info!(submissions = self.in_flight.len(), "looking for what was submitted and may be nowhere");
        }
    }

    /// How many are in flight, each in one stage.
    #[cfg(test)]
    pub(super) fn check(&self) -> usize {
        self.in_flight.check();
        self.in_flight.len()
    }
}

/// Entries that may be unstored. Their bytes are not counted here: Redis has them.
fn unstored_max<D: Disk>(view: &View<'_, D>) -> Load {
    Load { bytes: u64::MAX, weight: view.settings.entries_max.min(TAIL_MESSAGES_MAX as u64) }
}

/// What an entry's message is known by.
fn named<'a>(record: &'a Record<'_>) -> Option<(Name, Conversation, &'a [u8])> {
    let name = |sender: UserId, client_msg_id: ClientMsgId| Name { sender, client_msg_id };
    match record {
        Record::Group(record) => Some((name(record.sender, record.client_msg_id), record.to(), record.body)),
        Record::Direct(record) => Some((name(record.sender, record.client_msg_id), record.to(), record.body)),
        Record::Change(_) | Record::Roster(_) | Record::Mark(..) | Record::Withdrawn(_) => None,
    }
}
