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
//! counts only when the stream has been read as far as Redis was then; without a session nothing is numbered, and
//! senders get `RETRY_LATER`.
//!
//! ```text
//! taking.rs     what shards submit                    in_flight.rs  what Redis has not settled yet
//! calls.rs      calls of Redis and their replies      follow.rs     from entries to numbered rows and deliveries
//! link.rs       what crosses to Redis's thread        entry.rs      submissions and entries as bytes
//! log.rs        what this node submitted, on disk     seed.rs       a new generation, when Redis has lost its data
//! copy.rs       this node's copy of the stream        reload.rs     a snapshot of the database, for a new generation
//! senders.rs    senders' rows, to answer repeats      windows.rs    digests of rows, to compare with other nodes
//! questions.rs  what shards ask                       recent.rs     the last entries, to know the stream again
//! searches.rs   what is looked for in the store       clock.rs      what Redis says of the time
//! no_room.rs    why nothing new finds room            start.rs      from the database to an engine
//! orders.rs     what is given to Redis's thread, and how
//! group_calls.rs      messages to groups on their way, and at which version
//! late_creations.rs   groups whose creators were told to ask again
//! ```

mod calls;
pub(crate) mod clock;
pub(crate) mod copy;
pub mod entry;
pub(crate) mod follow;
mod group_calls;
mod in_flight;
mod late_creations;
pub mod link;
pub(crate) mod log;
mod no_room;
mod orders;
mod questions;
mod recent;
pub(crate) mod reload;
mod searches;
pub(crate) mod seed;
pub(crate) mod senders;
pub mod start;
mod taking;
pub(crate) mod windows;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use self::calls::Patience;
use self::clock::RedisClock;
use self::copy::StreamCopy;
use self::in_flight::InFlight;
use self::late_creations::LateCreations;
use self::link::{Compared, Found, Generation, News, Order, Reply, What, Writer};
use self::log::Log;
use self::no_room::NoRoom;
use self::orders::Orders;
use self::questions::{Question, Questions};
use self::recent::RecentEntries;
use self::searches::Again;
use self::senders::SenderRows;
use self::taking::Refusal;
use self::windows::Windows;
use crate::clock::Now;
use crate::contract::delivery::Delivery;
use crate::contract::ids::Origin;
use crate::contract::keyed::TableKey;
use crate::contract::progress::Progress;
use crate::contract::report::{LedgerCounters, StandsStill};
use crate::contract::snapshot::SnapshotAsker;
use crate::contract::spending::FanoutSpending;
use crate::contract::store::{Lookup, LookupAnswer, LookupFound};
use crate::contract::submission::Submission;
use crate::contract::traffic::TrafficLimits;
use crate::journal::disk::Disk;
use crate::ledger::dedup::Name;
use crate::ledger::groups::{GroupLimits, Groups};
use crate::ledger::ledger_clock::LedgerClock;
use crate::ledger::pending::{Pending, Place};
use crate::ledger::pending_delivery::PendingDelivery;
use crate::ledger::sequence::{MsgIdSource, Sequences};
use crate::ledger::{Engine, LedgerError};
use crate::limits::{COMMIT_BYTES_MAX, COMMIT_MESSAGES_MAX};
use ringway_wire::ids::{GroupId, UserId};

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
    /// Sizes of groups.
    pub groups: GroupLimits,
    /// What one account may send by way of this node.
    pub traffic: TrafficLimits,
    /// What salts and hashes are made from; not to be guessed from outside.
    pub seed: u64,
}

/// The engine.
#[derive(Debug)]
pub struct RedisEngine<D: Disk> {
    settings: Settings,
    clock: LedgerClock,
    progress: Arc<Progress>,
    orders: Orders,
    log: Log<D>,
    copy: StreamCopy<D>,
    ids: MsgIdSource,
    sequences: Sequences,
    groups: Groups,
    senders: SenderRows,
    windows: Windows,
    /// A moment is a second of Redis's clock by which all that it had was read.
    pending: Pending<u64>,
    /// Senders for whom the store has answered, and whose messages have not all been gone on with.
    releasing: VecDeque<UserId>,
    redis_clock: RedisClock,
    in_flight: InFlight,
    late_creations: LateCreations,
    /// What senders and groups have had lately of this node; what Redis did not take in the end is not given back.
    spending: FanoutSpending,
    questions: Questions,
    asker: SnapshotAsker,
    /// What is gone on with when the snapshot is loaded.
    found: Option<Found>,
    /// Groups that have changed, and the entry that changed them last, until the database has it.
    changed_at: HashMap<GroupId, u64, TableKey>,
    session: Session,
    /// Why there is no session, while there is none.
    away: StandsStill,
    generation: Option<Generation>,
    /// The one that this node is making.
    making: Option<Generation>,
    /// Goes into its nonce.
    nonce: u64,
    /// The highest number of a generation that was found.
    highest: u64,
    recent: RecentEntries,
    /// The last entry that was followed, or that is in the snapshot of the database.
    seen: u64,
    /// Since when the generation's stream has been followed, monotonic milliseconds.
    caught_up_since_ms: Option<u64>,
    patience: Patience,
    /// How far the stream was when the session began.
    caught_up_at: u64,
    /// Nobody knows whether that is all of it: it is stored, and then a new generation is made.
    is_unverified: bool,
    /// Names at or above this time are known to Redis, if anybody used them.
    since_ms: u64,
    /// No message that the database had when this node began from it was numbered later.
    stored_ms: u64,
    no_room: NoRoom,
    deliveries: Vec<PendingDelivery>,
    counters: LedgerCounters,
}

/// What this node and Redis are to each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Session {
    /// Nothing is heard of Redis.
    Disconnected,
    /// This session: Redis was started a moment ago, or has lost its data, and another node is making it anew, or this
    /// one asks for the lock.
    Lost(u64),
    /// This session: the database's position is being moved to behind the lost stream.
    Fencing(u64),
    /// This session: the stream is cut off behind the snapshot that this node was to follow it from. Nothing of it was read,
    /// and another snapshot is read next.
    Behind(u64),
    /// This session: a snapshot of the database is read, for a generation that this node makes or begins to follow.
    Loading(u64),
    /// This session: a new generation is being made.
    Seeding(u64),
    /// This session: the stream is followed.
    Following(u64),
}

impl<D: Disk> Engine for RedisEngine<D> {
    fn submit(&mut self, now: Now, submission: Submission) {
        let now = self.clock.read(now);
        match submission {
            Submission::Message(submission) => self.send(now, submission, Place::Last),
            Submission::Change(change) => self.change(now, change),
            Submission::Position { origin, user } => self.questions.new.push(Question::Position { origin, user }),
            Submission::Groups { origin, user } => self.questions.new.push(Question::Groups { origin, user }),
            Submission::Roster { group, .. } => self.questions.new.push(Question::Roster(group)),
        }
    }

    fn found(&mut self, now: Now, answer: LookupAnswer) {
        let now = self.clock.read(now);
        let Lookup { sender, client_msg_id, generation } = answer.lookup;
        let name = Name { sender, client_msg_id };
        // The database may have got it since, from a generation that is over: whoever still wants to know asks again.
        let (found, again) = match generation == self.generation_number() {
            true => (answer.found, Again::Unavailable(now.mono_ms)),
            false => (LookupFound::Unavailable, Again::OutOfDate),
        };
        self.found_again(&name, found, again);
        self.pending.answered(&answer.lookup, found);
        self.releasing.push_back(sender);
        self.release(now);
    }

    fn full(&self) -> bool {
        self.deliveries.len() >= COMMIT_MESSAGES_MAX
            || (self.is_caught_up() && self.in_flight.unsent_count() >= COMMIT_MESSAGES_MAX)
            || self.log.staged_bytes() >= COMMIT_BYTES_MAX
    }

    fn commit(&mut self, now: Now, out: &mut [Vec<Delivery>]) -> Result<(), LedgerError> {
        let (host, now) = (now, self.clock.read(now));
        self.orders.give_owed();
        self.in_flight.searches.pass(now.mono_ms);
        self.release(now);
        self.write_log(now)?;
        while self.deliveries.len() < COMMIT_MESSAGES_MAX
            && let Some(news) = self.orders.news()
        {
            self.apply(host, news)?;
        }
        self.copy.flush().map_err(LedgerError::Copy)?;
        let applied = self.progress.applied().0;
        // The database's position in a later generation says nothing of the entries of this one.
        if seed::generation_of(applied) == seed::generation_of(self.seen) {
            self.log.stored(applied);
            self.changed_at.retain(|_, at| *at > applied);
        }
        self.settle_unverified(now);
        self.fence();
        self.loaded()?;
        self.apply_replies(now);
        self.answer_late(now);
        // What came back of Redis may have been taken again.
        self.write_log(now)?;
        self.make_calls(now);
        self.compare();
        self.ask();
        if self.log.withdraws() {
            // Who is refused is told when the disk knows it: after a crash it is not submitted all the same.
            self.write_log(now)?;
        }
        let shards = self.settings.shards;
        for item in self.deliveries.drain(..) {
            item.hand_out(shards, out);
        }
        self.groups.keep();
        Ok(())
    }

    fn take_lookups(&mut self, out: &mut Vec<Lookup>) {
        let before = out.len();
        self.pending.take_lookups(out);
        // An answer is worth what of the stream was read when it was asked for.
        if self.is_caught_up() {
            self.in_flight.take_lookups(self.progress.applied().0, self.redis_clock.read_s(), out);
        }
        let generation = self.generation_number();
        out.iter_mut().skip(before).for_each(|lookup| lookup.generation = generation);
    }

    fn counters(&self) -> LedgerCounters {
        LedgerCounters {
            sync_us: self.log.sync_us(),
            bytes: self.copy.bytes(),
            stands_still: self.stands_still(),
            clock_skew_ms: self.redis_clock.skew_ms(),
            ..self.counters
        }
    }

    /// The store looks each time: what it is asked to load it hears of by this alone.
    fn grew(&mut self) -> bool {
        true
    }

    fn has_more(&self) -> bool {
        self.orders.has_news() || (!self.releasing.is_empty() && !self.full())
    }
}

impl<D: Disk> RedisEngine<D> {
    /// Makes durable what was taken and what was withdrawn. What the disk has no room for is refused.
    fn write_log(&mut self, now: Now) -> Result<(), LedgerError> {
        if !self.log.commit()? {
            self.no_room.meet(now, StandsStill::LogFull);
            for subject in self.in_flight.take_uncommitted() {
                self.refuse(subject.origin(), Refusal::StorageFull);
            }
        }
        self.in_flight.committed();
        Ok(())
    }

    /// The generation that is followed, or was last; zero: none yet.
    fn generation_number(&self) -> u64 {
        self.generation.as_ref().map_or(0, |generation| generation.number)
    }

    /// The stream is followed, and has been read as far as it was when the session began.
    fn is_caught_up(&self) -> bool {
        matches!(self.session, Session::Following(_)) && self.seen >= self.caught_up_at
    }

    /// Something new can be numbered: Redis is there, and all that it may have lost is on its way again.
    fn numbers(&self) -> bool {
        self.is_caught_up()
            && !self.is_unverified
            && !self.in_flight.searches.is_of_all()
            && !self.redis_clock.is_astray()
    }

    /// Why nothing new can be, for operators.
    fn stands_still(&self) -> Option<StandsStill> {
        match self.session {
            Session::Disconnected => Some(self.away),
            Session::Lost(_) | Session::Fencing(_) | Session::Loading(_) | Session::Seeding(_) => {
                Some(StandsStill::Rebuilding)
            }
            Session::Behind(_) => Some(StandsStill::CatchingUp),
            Session::Following(_) if !self.is_caught_up() => Some(StandsStill::CatchingUp),
            Session::Following(_) if self.is_unverified => Some(StandsStill::Unverified),
            Session::Following(_) if self.in_flight.searches.is_of_all() => Some(StandsStill::Searching),
            Session::Following(_) if self.redis_clock.is_astray() => Some(StandsStill::Clock),
            Session::Following(_) => self.no_room.why(),
        }
    }

    /// Lets Redis compare the windows that this node has followed with what other nodes have told of them.
    fn compare(&mut self) {
        let (Session::Following(_), Some(generation)) = (self.session, self.generation.clone()) else { return };
        let writer = if self.progress.writes_store() { Writer::This } else { Writer::Other };
        while let Some((window, digest)) = self.windows.front()
            && self.offer(What::Compare {
                generation: generation.clone(),
                window,
                digest,
                node: self.settings.node,
                writer,
            })
        {
            self.windows.pop_front();
        }
    }

    /// Gives an order that the session's state waits for.
    fn order(&mut self, what: What) {
        if let Some(session) = self.session_number() {
            self.orders.give(Order { session, what });
        }
    }

    /// Gives an order that can be made again. False: there is no room for it now, or no session.
    fn offer(&mut self, what: What) -> bool {
        self.session_number().is_some_and(|session| self.orders.offer(Order { session, what }))
    }

    fn session_number(&self) -> Option<u64> {
        match self.session {
            Session::Disconnected => None,
            Session::Lost(session)
            | Session::Fencing(session)
            | Session::Behind(session)
            | Session::Loading(session)
            | Session::Seeding(session)
            | Session::Following(session) => Some(session),
        }
    }

    fn apply(&mut self, now: Now, news: News) -> Result<(), LedgerError> {
        match news {
            News::Status { session, found, highest } => self.status(now, session, found, highest)?,
            News::Begun => self.begun(),
            News::Entries(entries) => {
                self.follow(entries)?;
                self.redis_clock.read(self.seen);
            }
            News::Cut(to) if to > self.seen => self.fell_behind(to + 1)?,
            News::Cut(_) => {}
            News::Replies { replies, count } => {
                for (reply, why) in [(Reply::Full, StandsStill::Full), (Reply::NoMemory, StandsStill::NoMemory)] {
                    if replies.contains(&reply) {
                        self.no_room.meet(now, why);
                    }
                }
                self.in_flight.replied(replies, count);
            }
            News::Count(count) => self.counted(count),
            News::Clock { generation, count, redis_ms } => {
                if self.no_room.why() == Some(StandsStill::LogFull) && self.log.make_room().is_err() {
                    self.no_room.meet(now, StandsStill::LogFull);
                }
                self.no_room.pass(now);
                self.redis_clock.compare(now, redis_ms);
                if self.generation.as_ref().is_some_and(|ours| ours.text() == generation) {
                    self.redis_clock.stood(count, redis_ms);
                    self.redis_clock.read(self.seen);
                }
            }
            News::Compared { window, outcome: Compared::Other } => return Err(LedgerError::Diverged(window)),
            News::Compared { outcome: Compared::Same, .. } => {}
            News::OtherEntries => {
                if let Session::Following(session) = self.session {
                    self.session = Session::Lost(session);
                    let why = "Redis has other entries under the numbers that this node has followed";
                    self.make_anew(now, self.generation.clone(), why);
                }
            }
            News::NoRoom(why) => self.no_room.meet(now, why),
            News::Away(why) => self.away = why,
            News::Disconnected => {
                self.session = Session::Disconnected;
                self.away = StandsStill::Disconnected;
                self.orders.lost();
                self.in_flight.lost();
                self.questions.lost();
            }
            News::Buckets { theirs, ours } => return Err(LedgerError::Buckets { theirs, ours }),
            News::Taken => return Err(LedgerError::Lease(self.settings.node)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
