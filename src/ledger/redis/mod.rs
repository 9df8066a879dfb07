//! The ledger of several machines: Redis orders, and the order is the numbering; every node follows the stream it makes.
//!
//! Owned by the ledger's thread; a thread of its own talks to Redis (`cluster`), and this one does no network I/O. A
//! submission is written to this node's log and synced, and one atomic call of Redis drops it as a repeat, checks its
//! group's version and appends it to the stream. It comes back in the stream like those of the other nodes, and each
//! node gives every recipient's row the number after the recipient's last: only then is it acked and delivered. All
//! nodes come to the same numbers, because they begin from a snapshot of the database, which one of them writes in the
//! stream's order, and leave no entry out. They compare what they have come to, and one that differs ends.
//!
//! What always holds: rosters, newest seqs and deliveries follow the stream, entry by entry; what a call replies is
//! heeded only when the stream has been read as far as Redis was then; without a session nothing is numbered, and
//! senders get `RETRY_LATER`.
//!
//! ```text
//! entry.rs    submissions and entries as bytes      flying.rs   what Redis has not settled yet
//! link.rs     what crosses to Redis's thread        follow.rs   from entries to numbered rows and deliveries
//! log.rs      what this node submitted, on disk     seed.rs     a new generation, when Redis has lost its data
//! copy.rs     this node's copy of the stream        reload.rs   a snapshot of the database, for a new generation
//! senders.rs  senders' rows, to answer repeats      windows.rs  digests of rows, to compare with other nodes
//! start.rs    from the database to an engine
//! ```

pub mod copy;
pub mod entry;
pub mod flying;
pub mod follow;
pub mod link;
pub mod log;
pub mod reload;
pub mod seed;
pub mod senders;
pub mod start;
pub mod windows;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use self::copy::Copy;
use self::flying::{Flying, Patience, Subject};
use self::link::{Compared, Found, Generation, LedgerEnds, News, Order, What};
use self::log::Log;
use self::senders::SenderRows;
use self::windows::Windows;
use crate::clock::Now;
use crate::contract::delivery::Delivery;
use crate::contract::digest::digest;
use crate::contract::ids::Origin;
use crate::contract::keyed::TableKey;
use crate::contract::message::Incoming;
use crate::contract::progress::Progress;
use crate::contract::report::LedgerCounters;
use crate::contract::snapshot::SnapshotAsker;
use crate::contract::store::{Lookup, LookupAnswer, LookupFound};
use crate::contract::submission::{ChangeSubmission, MessageSubmission, Submission};
use crate::journal::disk::Disk;
use crate::ledger::dedup::{Name, named_ms};
use crate::ledger::groups::{Groups, Plan};
use crate::ledger::pending::{Parked, Pending};
use crate::ledger::sequence::{MsgIdSource, Sequences};
use crate::ledger::staged::Staged;
use crate::ledger::{Engine, LedgerError};
use crate::limits::{
    COMMIT_BYTES_MAX, COMMIT_MESSAGES_MAX, FLYING_MAX, LEDGER_RETRY_MS, LEDGER_USERS_MAX, LEDGER_USERS_RESERVE,
    STORAGE_FULL_RETRY_MS, TAIL_MESSAGES_MAX, WINDOW_MS,
};
use ringway_wire::ids::{Conversation, GroupId, MsgId, Seq, UserId};
use ringway_wire::limits::BODY_BYTES_MAX;
use ringway_wire::limits::CLIENT_MSG_ID_AHEAD_MS;
use ringway_wire::schema::{ErrorCode, GroupChangeKind};

/// The largest submission, and what is put behind it, fit in what a batch keeps free.
const RECORD_RESERVE_BYTES: usize = 1 << 20;

/// Who asked for what other nodes submitted.
const NOBODY: Origin = Origin::NOBODY;

/// What an operator or a test decides.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How many shards there are.
    pub shards: u16,
    /// This node's number, 0 to 1023.
    pub node: u16,
    /// Size of a segment of the log and of the copy.
    pub segment_bytes: u64,
    /// Into how many buckets the ledger is split: a call may have so many times as much.
    pub buckets: usize,
    /// What salts and hashes are made from; not to be guessed from outside.
    pub seed: u64,
}

/// The engine.
#[derive(Debug)]
pub struct RedisEngine<D: Disk> {
    settings: Settings,
    progress: Arc<Progress>,
    link: LedgerEnds,
    log: Log<D>,
    copy: Copy<D>,
    ids: MsgIdSource,
    sequences: Sequences,
    groups: Groups,
    senders: SenderRows,
    windows: Windows,
    pending: Pending,
    flying: Flying,
    questions: Questions,
    asker: SnapshotAsker,
    /// What is gone on with when the snapshot is loaded.
    found: Option<Found>,
    /// Groups that have changed, and the entry that changed them last, until the database has it.
    changed_at: HashMap<GroupId, u64, TableKey>,
    session: Session,
    generation: Option<Generation>,
    /// The one that this node is making.
    making: Option<Generation>,
    /// Goes into its nonce.
    nonce: u64,
    /// The highest number of a generation that was found.
    highest: u64,
    /// The last entry that was followed, or that is in the snapshot of the database.
    seen: u64,
    /// Since when the generation's stream has been followed, monotonic milliseconds.
    level_since_ms: Option<u64>,
    patience: Patience,
    /// How far the stream was when the session began.
    level_at: u64,
    /// Nobody knows whether that is all of it: it is stored, and then a new generation is made.
    is_doubtful: bool,
    /// Names at or above this time are known to Redis, if anybody used them.
    since_ms: u64,
    staged: Vec<Staged>,
    counters: LedgerCounters,
}

/// What this node and Redis are to each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Session {
    /// Nothing is heard of Redis.
    Away,
    /// This session: Redis was started a moment ago, or has lost its data, and another node is making it anew, or this
    /// one asks for the lock.
    Lost(u64),
    /// This session: the database's position is being moved to behind the lost stream.
    Fencing(u64),
    /// This session: a snapshot of the database is read, for a generation that this node makes or begins to follow.
    Loading(u64),
    /// This session: a new generation is being made.
    Seeding(u64),
    /// This session: the stream is followed.
    Following(u64),
}

/// Questions that wait until the stream has been read as far as it was when they were asked.
#[derive(Debug, Default)]
struct Questions {
    new: Vec<Question>,
    asked: VecDeque<(Option<u64>, Vec<Question>)>,
}

#[derive(Clone, Copy, Debug)]
enum Question {
    Position { origin: Origin, user: UserId },
    Groups { origin: Origin, user: UserId },
    Roster(GroupId),
}

/// Where a name has been looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Looked {
    /// In the store and its tail.
    Everywhere,
    /// Nowhere yet: Redis knows all names of its time.
    NoNeed,
}

/// Why something was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refusal {
    Code(ErrorCode),
    StorageFull,
    RetryLater,
}

impl<D: Disk> Engine for RedisEngine<D> {
    fn submit(&mut self, now: Now, submission: Submission) {
        match submission {
            Submission::Message(submission) => self.send(now, submission),
            Submission::Change(change) => self.change(now, change),
            Submission::Position { origin, user } => self.questions.new.push(Question::Position { origin, user }),
            Submission::Groups { origin, user } => self.questions.new.push(Question::Groups { origin, user }),
            Submission::Roster { group, .. } => self.questions.new.push(Question::Roster(group)),
        }
    }

    fn found(&mut self, now: Now, answer: LookupAnswer) {
        let Lookup { sender, client_msg_id, generation } = answer.lookup;
        let name = Name { sender, client_msg_id };
        // The database may have got it since, from a generation that is over: whoever still wants to know asks again.
        let found = if generation == self.generation_number() { answer.found } else { LookupFound::Unavailable };
        if self.found_again(&name, found) {
            return;
        }
        for submission in self.pending.release(&name) {
            let origin = submission.incoming.origin;
            match found {
                LookupFound::Unavailable => self.refuse(origin, Refusal::RetryLater),
                // Whether it is a repeat cannot be known any more.
                LookupFound::Expired => self.refuse(origin, Refusal::Code(ErrorCode::BadRequest)),
                LookupFound::Stored(stored) => {
                    let (msg_id, seq) = (stored.msg_id, stored.seq);
                    self.repeat(&submission.incoming, msg_id, seq, stored.digest);
                }
                LookupFound::Nothing => self.take(now, name, submission, Looked::Everywhere),
            }
        }
    }

    fn full(&self) -> bool {
        self.staged.len() >= COMMIT_MESSAGES_MAX
            || (self.is_level() && self.flying.unsent_count() >= COMMIT_MESSAGES_MAX)
            || self.log.staged_bytes() >= COMMIT_BYTES_MAX
    }

    fn commit(&mut self, now: Now, out: &mut [Vec<Delivery>]) -> Result<(), LedgerError> {
        if !self.log.commit()? {
            for subject in self.flying.take_uncommitted() {
                self.refuse(subject.origin(), Refusal::StorageFull);
            }
        }
        self.flying.committed();
        while self.staged.len() < COMMIT_MESSAGES_MAX
            && let Some(news) = self.link.news()
        {
            self.heed(now, news)?;
        }
        self.copy.flush().map_err(LedgerError::Copy)?;
        let applied = self.progress.applied().0;
        // The database's position in a later generation says nothing of the entries of this one.
        if seed::generation_of(applied) == seed::generation_of(self.seen) {
            self.log.stored(applied);
            self.changed_at.retain(|_, at| *at > applied);
        }
        self.settle_doubt(now);
        self.fence();
        self.loaded()?;
        self.heed_replies(now);
        self.make_calls(now);
        self.compare();
        self.ask();
        let shards = self.settings.shards;
        for item in self.staged.drain(..) {
            item.hand_out(shards, out);
        }
        self.groups.keep();
        Ok(())
    }

    fn take_lookups(&mut self, out: &mut Vec<Lookup>) {
        let before = out.len();
        self.pending.take_lookups(out);
        self.flying.take_lookups(self.progress.applied().0, out);
        let generation = self.generation_number();
        out.iter_mut().skip(before).for_each(|lookup| lookup.generation = generation);
    }

    fn counters(&self) -> LedgerCounters {
        LedgerCounters {
            sync_us: self.log.sync_us(),
            journal_free_bytes: self.log.free_bytes(),
            bytes: self.copy.bytes(),
            ..self.counters
        }
    }

    /// The store looks each time: what it is asked to load it hears of by this alone.
    fn grew(&mut self) -> bool {
        true
    }

    fn has_more(&self) -> bool {
        self.link.has_news()
    }
}

impl<D: Disk> RedisEngine<D> {
    /// The generation that is followed, or was last; zero: none yet.
    fn generation_number(&self) -> u64 {
        self.generation.as_ref().map_or(0, |generation| generation.number)
    }

    /// Takes a message for Redis, or finds that the store must be asked first whether it was sent long ago.
    fn send(&mut self, now: Now, submission: MessageSubmission) {
        let Incoming { origin, to, .. } = submission.incoming;
        let (name, body) = (Name::of(&submission.incoming), submission.incoming.body());
        if body.len() > BODY_BYTES_MAX {
            return self.refuse(origin, Refusal::Code(ErrorCode::BodyTooLarge));
        }
        let named = match named_ms(&name.client_msg_id, self.ids.time_ms(now.unix_ms)) {
            Ok(named) => named,
            Err(code) => return self.refuse(origin, Refusal::Code(code)),
        };
        match self.flying.named(&name) {
            Some(before) if before != digest(to, body) => {
                return self.refuse(origin, Refusal::Code(ErrorCode::ClientMsgIdReused));
            }
            // It is on its way, and its first asking is answered when Redis has it. This one has to ask again.
            Some(_) => return self.refuse(origin, Refusal::RetryLater),
            None if !self.numbers() => return self.refuse(origin, Refusal::RetryLater),
            None => {}
        }
        let horizon_ms = self.since_ms.max(now.unix_ms.saturating_sub(WINDOW_MS));
        if named.saturating_sub(CLIENT_MSG_ID_AHEAD_MS) >= horizon_ms && !self.pending.waits_for(&name) {
            return self.take(now, name, submission, Looked::NoNeed);
        }
        self.park(name, submission);
    }

    fn park(&mut self, name: Name, submission: MessageSubmission) {
        match self.pending.park(name, submission) {
            Ok(Parked::First) => self.counters.lookups += 1,
            Ok(Parked::WithAnother) => {}
            Err(submission) => self.refuse(submission.incoming.origin, Refusal::RetryLater),
        }
    }

    /// The stream is followed, and has been read as far as it was when the session began.
    fn is_level(&self) -> bool {
        matches!(self.session, Session::Following(_)) && self.seen >= self.level_at
    }

    /// Something new can be numbered: Redis is there, and all that it may have lost is on its way again.
    fn numbers(&self) -> bool {
        self.is_level() && !self.is_doubtful && !self.flying.searches()
    }

    /// Answers what was sent before.
    fn repeat(&mut self, incoming: &Incoming, msg_id: MsgId, seq: Seq, before: u64) {
        let origin = incoming.origin;
        if digest(incoming.to, incoming.body()) != before {
            return self.refuse(origin, Refusal::Code(ErrorCode::ClientMsgIdReused));
        }
        self.counters.repeats += 1;
        let sent_at_ms = msg_id.sent_at_ms();
        self.staged.push(Staged::Delivery(Delivery::Repeat { origin, msg_id, seq, sent_at_ms }));
    }

    /// Numbers a message and logs it: it goes to Redis with the next commit. What no member sends may still be a
    /// repeat, which only the store can tell (its tail has all that was read of the stream).
    fn take(&mut self, now: Now, name: Name, submission: MessageSubmission, looked: Looked) {
        let Incoming { origin, sender, to, .. } = submission.incoming;
        let Conversation::Group(group) = to else {
            if self.sequences.users() + LEDGER_USERS_RESERVE > LEDGER_USERS_MAX {
                return self.refuse(origin, Refusal::StorageFull);
            }
            return self.fly(now, Some(name), Subject::Message(submission));
        };
        let current = self.groups.roster(group).cloned();
        let is_member = current.as_ref().is_some_and(|roster| roster.position(sender).is_some());
        match current {
            _ if !is_member && looked == Looked::NoNeed => self.park(name, submission),
            None => self.refuse(origin, Refusal::Code(ErrorCode::UnknownGroup)),
            Some(roster) if roster.version != submission.roster_version => {
                self.counters.bounced += 1;
                let (submission, roster) = (Box::new(submission), Some(roster));
                self.staged.push(Staged::Delivery(Delivery::Bounced { group, submission, roster }));
            }
            Some(_) if !is_member => self.refuse(origin, Refusal::Code(ErrorCode::NotAMember)),
            Some(_) => self.fly(now, Some(name), Subject::Message(submission)),
        }
    }

    fn fly(&mut self, now: Now, name: Option<Name>, mut subject: Subject) {
        if let Err(refusal) = self.room() {
            return self.refuse(subject.origin(), refusal);
        }
        let msg_id = self.ids.next(now.unix_ms);
        if let Subject::Change { record, .. } = &mut subject {
            record.msg_id = msg_id;
            if record.kind == GroupChangeKind::Created {
                record.group = GroupId(msg_id.0);
            }
        }
        self.log.stage(msg_id, &subject.record(msg_id));
        self.flying.add(msg_id, name, subject);
    }

    fn room(&mut self) -> Result<(), Refusal> {
        if !self.numbers() || self.flying.len() >= FLYING_MAX {
            return Err(Refusal::RetryLater);
        }
        if self.progress.tail_messages() >= TAIL_MESSAGES_MAX as u64 {
            return Err(Refusal::StorageFull);
        }
        if self.log.staged_bytes() + RECORD_RESERVE_BYTES > crate::limits::JOURNAL_BATCH_BYTES_MAX {
            return Err(Refusal::RetryLater);
        }
        self.log.make_room().map_err(|error| {
            tracing::error!(%error, "nothing can be submitted: this node's log has no room");
            Refusal::StorageFull
        })
    }

    /// A change is planned on this node's rosters; Redis takes it only if they are the current ones.
    fn change(&mut self, now: Now, submission: ChangeSubmission) {
        let origin = submission.origin;
        if !self.numbers() {
            return self.refuse(origin, Refusal::RetryLater);
        }
        match self.groups.plan(submission.actor, &submission.change, &self.sequences) {
            Ok(Plan::Change(record)) => self.fly(now, None, Subject::Change { submission, record }),
            Ok(Plan::Nothing { group, version }) => {
                self.staged.push(Staged::Delivery(Delivery::Unchanged { origin, group, version }));
            }
            Err(ErrorCode::StorageFull) => self.refuse(origin, Refusal::StorageFull),
            Err(code) => self.refuse(origin, Refusal::Code(code)),
        }
    }

    fn refuse(&mut self, origin: Origin, refusal: Refusal) {
        if origin == NOBODY {
            return;
        }
        let (code, retry_after_ms) = match refusal {
            Refusal::Code(code) => (code, 0),
            Refusal::StorageFull => (ErrorCode::StorageFull, STORAGE_FULL_RETRY_MS),
            Refusal::RetryLater => (ErrorCode::RetryLater, LEDGER_RETRY_MS),
        };
        self.counters.storage_full += u64::from(code == ErrorCode::StorageFull);
        self.counters.retry_later += u64::from(code == ErrorCode::RetryLater);
        self.staged.push(Staged::Delivery(Delivery::Refused { origin, code, retry_after_ms }));
    }

    /// Passes questions on: Redis says how far the stream is. Without Redis the answer is what this node knows.
    fn ask(&mut self) {
        if self.generation.is_none() {
            // Nothing of the stream has been read since the start: what this node knows may be less than a session.
            return;
        }
        if !matches!(self.session, Session::Following(_)) {
            let asked = std::mem::take(&mut self.questions.asked).into_iter().flat_map(|(_, questions)| questions);
            let all: Vec<Question> = asked.chain(std::mem::take(&mut self.questions.new)).collect();
            return all.into_iter().for_each(|question| self.answer(question));
        }
        if !self.questions.new.is_empty() && self.order(What::Count) {
            let new = std::mem::take(&mut self.questions.new);
            self.questions.asked.push_back((None, new));
        }
        while let Some((Some(count), _)) = self.questions.asked.front()
            && *count <= self.seen
        {
            let (_, questions) = self.questions.asked.pop_front().unwrap_or_default();
            questions.into_iter().for_each(|question| self.answer(question));
        }
    }

    fn counted(&mut self, count: u64) {
        if let Some((waiting, _)) = self.questions.asked.iter_mut().find(|(waiting, _)| waiting.is_none()) {
            *waiting = Some(count);
        }
    }

    fn answer(&mut self, question: Question) {
        self.staged.push(match question {
            Question::Position { origin, user } => {
                // Another node may have read more than this one, when it does not read, or all of them had.
                let reads = matches!(self.session, Session::Following(_)) && !self.is_doubtful;
                let given = if reads { self.sequences.floor() } else { Seq(u64::MAX) };
                Staged::Position { origin, user, newest: self.sequences.newest(user), given }
            }
            Question::Groups { origin, user } => {
                Staged::Groups { origin, user, groups: self.groups.of_user(user, &self.sequences) }
            }
            Question::Roster(group) => {
                Staged::Delivery(Delivery::Roster { group, roster: self.groups.roster(group).cloned() })
            }
        });
    }

    /// Lets Redis compare the windows that this node has followed with what other nodes have told of them.
    fn compare(&mut self) {
        let (Session::Following(_), Some(generation)) = (self.session, &self.generation) else { return };
        while let Some((window, digest)) = self.windows.front()
            && self.order(What::Compare { generation: generation.clone(), window, digest })
        {
            self.windows.pop_front();
        }
    }

    /// Gives an order in the current session. False: there is no room for it now, or no session.
    fn order(&self, what: What) -> bool {
        let session = match self.session {
            Session::Away => return false,
            Session::Lost(session)
            | Session::Fencing(session)
            | Session::Loading(session)
            | Session::Seeding(session)
            | Session::Following(session) => session,
        };
        self.link.order(Order { session, what }).is_ok()
    }

    fn heed(&mut self, now: Now, news: News) -> Result<(), LedgerError> {
        match news {
            News::Status { session, found, highest } => self.status(now, session, found, highest)?,
            News::Begun => self.begun(),
            News::Entries(entries) => self.follow(entries)?,
            News::Replies { replies, count } => self.flying.replied(replies, count),
            News::Count(count) => self.counted(count),
            News::Compared { window, outcome: Compared::Other } => return Err(LedgerError::Diverged(window)),
            News::Compared { outcome: Compared::Same, .. } => {}
            News::Away => {
                self.session = Session::Away;
                self.flying.lost();
            }
            News::Buckets { theirs, ours } => return Err(LedgerError::Buckets { theirs, ours }),
            News::Taken => return Err(LedgerError::Lease(self.settings.node)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
