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
//! session.rs     the states of a session, and what is known in each
//! followed.rs    what was followed, whatever session it was in
//! seed.rs        from one state to another; a new generation, when Redis has lost its data
//! reload.rs      a snapshot of the database, for what was not followed
//! questions.rs   what shards ask
//! orders.rs      what is given to Redis's thread      link.rs       what crosses to it
//! start.rs       from the database to an engine       entry.rs      submissions and entries as bytes
//!
//! submitter/     what shards submitted and Redis has not settled
//!   taking.rs    what is taken of shards              calls.rs      calls, and what replies come to
//!   log.rs       it on disk                           in_flight.rs  its stages; subject.rs: what it is
//!   searches.rs  what is looked for in the store      group_calls.rs      what is out to groups, at which version
//!   no_room.rs   why nothing new finds room           late_creations.rs   groups whose creators were told to ask again
//!
//! follower.rs    from entries to rosters and numbered rows
//!   copy.rs      this node's copy of the stream       recent.rs     the last entries, to know the stream again
//!   senders.rs   senders' rows, to answer repeats     windows.rs    digests of rows, to compare with other nodes
//!   clock.rs     what Redis says of the time
//! ```

pub(crate) mod clock;
pub(crate) mod copy;
pub mod entry;
mod followed;
mod follower;
pub mod link;
mod orders;
mod questions;
mod recent;
pub(crate) mod reload;
pub(crate) mod seed;
pub(crate) mod senders;
mod session;
pub mod start;
mod submitter;
pub(crate) mod windows;

use std::sync::Arc;

use self::entry::Entry;
use self::follower::Follower;
use self::link::{Arrival, Compared, News, Order, What, Writer};
use self::orders::Orders;
use self::questions::{Question, Questions};
use self::reload::Standing;
use self::session::Session;
use self::submitter::{Submitter, View};
use crate::clock::Now;
use crate::contract::delivery::Delivery;
use crate::contract::names_kept::NamesKept;
use crate::contract::policies::{Policies, Rules};
use crate::contract::position::StreamPosition;
use crate::contract::progress::Progress;
use crate::contract::report::{LedgerCounters, StandsStill};
use crate::contract::snapshot::SnapshotAsker;
use crate::contract::store::{Lookup, LookupAnswer};
use crate::contract::submission::Submission;
use crate::contract::traffic::TrafficLimits;
use crate::journal::disk::Disk;
use crate::ledger::answers::Answers;
use crate::ledger::groups::GroupLimits;
use crate::ledger::pending::Place;
use crate::ledger::{Engine, LedgerError};
use crate::limits::COMMIT_MESSAGES_MAX;
use ringway_wire::ids::UserId;

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
    /// How long Redis keeps names.
    pub names: NamesKept,
    /// Entries that may be unstored.
    pub entries_max: u64,
    /// Sizes of groups.
    pub groups: GroupLimits,
    /// What one account may send by way of this node.
    pub traffic: TrafficLimits,
    /// What clients are let do.
    pub policies: Policies,
    /// What salts and hashes are made from; not to be guessed from outside.
    pub seed: u64,
}

/// The engine.
#[derive(Debug)]
pub struct RedisEngine<D: Disk> {
    settings: Settings,
    progress: Arc<Progress>,
    orders: Orders,
    asker: SnapshotAsker,
    session: Session,
    submitter: Submitter<D>,
    follower: Follower<D>,
    questions: Questions,
    answers: Answers,
    /// Goes into the nonce of a generation that this node makes.
    nonce: u64,
    /// The last generation of whose making the log has told.
    making_told: u64,
    standing: Standing,
}

impl<D: Disk> Engine for RedisEngine<D> {
    fn submit(&mut self, now: Now, submission: Submission) {
        let now = self.read_clock(now);
        let (submitter, mut view) = self.submitting();
        match submission {
            Submission::Message(submission) => submitter.send(now, submission, Place::Last, &mut view),
            Submission::Change(change) => submitter.change(now, change, &mut view),
            Submission::Position { origin, user } => self.questions.new.push(Question::Position { origin, user }),
            Submission::Made { origin, user } => {
                let groups = view.follower.groups.made_by(user);
                view.answers.stage(Delivery::Groups { origin, groups });
            }
            Submission::Sharing { origin, user, users } => {
                let users = view.follower.groups.sharing(user, users, &view.follower.sequences);
                view.answers.stage(Delivery::Sharing { origin, users });
            }
            Submission::Ephemeral(incoming) => {
                let origin = incoming.origin;
                match view.check_recipient(&incoming) {
                    Ok(()) => view.answers.stage(Delivery::Permitted { origin, incoming: Box::new(incoming) }),
                    Err(refusal) => view.answers.refuse(origin, refusal),
                }
            }
            Submission::Groups { origin, user } => self.questions.new.push(Question::Groups { origin, user }),
            Submission::Roster { group, .. } => self.questions.new.push(Question::Roster(group)),
        }
    }

    fn found(&mut self, now: Now, answer: LookupAnswer) {
        let now = self.read_clock(now);
        let (submitter, mut view) = self.submitting();
        submitter.found(now, answer, &mut view);
    }

    fn full(&self) -> bool {
        self.submitter.is_full(&self.session, &self.follower, &self.answers)
    }

    /// The stream's followers number them.
    fn staged_rows(&self) -> usize {
        self.submitter.staged_rows()
    }

    fn take_released(&mut self, out: &mut Vec<(UserId, usize)>) {
        self.submitter.take_released(out);
    }

    /// What was taken is durable before anything is heard of Redis, and what that comes to before anything is told.
    fn commit(&mut self, now: Now, out: &mut [Vec<Delivery>]) -> Result<(), LedgerError> {
        let (host, now) = (now, self.read_clock(now));
        self.release(now);
        self.write_log(now)?;
        self.take_news(host, now)?;
        self.write_log(now)?;
        self.make_calls(now);
        self.compare();
        self.ask();
        self.write_log(now)?;
        let shards = self.settings.shards;
        self.answers.drain().for_each(|delivery| delivery.hand_out(shards, out));
        Ok(())
    }

    fn take_lookups(&mut self, out: &mut Vec<Lookup>) {
        self.submitter.take_lookups(self.progress.applied().in_stream(), &self.session, &self.follower, out);
    }

    fn set_rules(&mut self, Rules { traffic, policies, .. }: Rules) {
        (self.settings.traffic, self.settings.policies) = (traffic, policies);
    }

    fn counters(&self) -> LedgerCounters {
        LedgerCounters {
            syncs: self.submitter.syncs(),
            bytes: self.follower.bytes(),
            stands_still: self.submitter.stands_still(&self.session, &self.follower),
            clock_skew_ms: self.follower.redis_clock.skew_ms(),
            ..self.answers.counters
        }
    }

    /// The store looks each time: what it is asked to load it hears of by this alone.
    fn grew(&mut self) -> bool {
        true
    }

    fn has_more(&self) -> bool {
        self.orders.has_news() || (self.submitter.has_turns() && !self.full())
    }
}

impl<D: Disk> RedisEngine<D> {
    /// The clock, as far as it is believed: messages are dated by it.
    fn read_clock(&mut self, now: Now) -> Now {
        let believed = self.submitter.read_clock(now);
        self.follower.redis_clock.date_by(believed);
        believed
    }

    /// The submitter, and what it may see.
    fn submitting(&mut self) -> (&mut Submitter<D>, View<'_, D>) {
        let RedisEngine { settings, progress, session, follower, submitter, answers, .. } = self;
        (submitter, View { settings, progress, session, follower, answers })
    }

    fn release(&mut self, now: Now) {
        let (submitter, mut view) = self.submitting();
        submitter.pass(now);
        submitter.release(now, &mut view);
    }

    /// Makes durable what was taken and what was withdrawn.
    fn write_log(&mut self, now: Now) -> Result<(), LedgerError> {
        self.submitter.write_log(now, &mut self.answers)
    }

    /// Takes the news of Redis and of the store, and goes on as far as they lead. `host`: the clock as it was read.
    fn take_news(&mut self, host: Now, now: Now) -> Result<(), LedgerError> {
        self.orders.give_owed();
        while self.answers.len() < COMMIT_MESSAGES_MAX
            && let Some(news) = self.orders.news()
        {
            self.apply(host, news)?;
        }
        self.follower.flush()?;
        let stored = self.progress.stored();
        // The database's position in a later generation says nothing of the entries of this one. Nor does one that this node
        // learns of while it is cut off: a Redis that a fail-over put in the place of another may have given these numbers to
        // something else.
        let seen = self.follower.followed.seen();
        if self.session.reading().is_some() && stored.generation() == seen.generation() && stored <= seen {
            self.submitter.stored(stored);
            self.follower.stored(stored);
        }
        self.settle_unverified();
        self.leave_unstorable(now);
        self.fence();
        self.loaded(host)?;
        let (submitter, mut view) = self.submitting();
        submitter.apply_replies(now, &mut view);
        submitter.answer_late(now, view.answers);
        Ok(())
    }

    /// Gives Redis what is durable and waits for it.
    fn make_calls(&mut self, now: Now) {
        let RedisEngine { settings, progress, orders, session, submitter, follower, answers, .. } = self;
        let (Ok(reading), Some(number)) = (submitter.numbering(session, follower), session.number()) else { return };
        let generation = reading.generation.clone();
        let since_ms = follower.followed.numbers(now.mono_ms);
        let mut view = View { settings, progress, session, follower, answers };
        submitter.make_calls(now, since_ms, &mut view, &mut |calls| {
            orders.offer(Order { session: number, what: What::Submit { generation: generation.clone(), calls } })
        });
    }

    /// Lets Redis compare the windows that this node has followed with what other nodes have told of them.
    fn compare(&mut self) {
        let Some(generation) = self.session.reading().map(|reading| reading.generation.clone()) else { return };
        let writer = if self.progress.writes_store() { Writer::This } else { Writer::Other };
        while let Some((window, digest)) = self.follower.windows.front()
            && self.offer(What::Compare {
                generation: generation.clone(),
                window,
                digest,
                node: self.settings.node,
                writer,
            })
        {
            self.follower.windows.pop_front();
        }
    }

    /// Gives an order that the session's state waits for.
    fn order(&mut self, what: What) {
        if let Some(session) = self.session.number() {
            self.orders.give(Order { session, what });
        }
    }

    /// Gives an order that can be made again. False: there is no room for it now, or no session.
    fn offer(&mut self, what: What) -> bool {
        self.session.number().is_some_and(|session| self.orders.offer(Order { session, what }))
    }

    fn apply(&mut self, now: Now, news: News) -> Result<(), LedgerError> {
        match news {
            News::Status { session, found, highest } => self.status(now, session, found, highest)?,
            News::Begun => self.begun(),
            News::Entries(entries) => {
                self.follow(now, entries)?;
                self.follower.read_on();
            }
            News::Cut(to) if to > self.follower.followed.seen().0 => {
                self.fell_behind(now, StreamPosition(to).next())?
            }
            News::Cut(_) => {}
            News::Replies { replies, count } => self.submitter.reply(now, replies, StreamPosition(count)),
            News::Count(count) => self.counted(StreamPosition(count)),
            News::Clock { generation, count, redis_ms } => self.clock(now, &generation, count, redis_ms),
            News::Compared { window, outcome: Compared::Other } => return Err(LedgerError::Diverged(window)),
            News::Compared { outcome: Compared::Same, .. } => {}
            News::OtherEntries => {
                if let Session::Following { number, reading } = &self.session {
                    let (number, replaced) = (*number, self.replaced(reading, reading.caught_up_at));
                    let why = "Redis has other entries under the numbers that this node has followed";
                    self.make_anew(now, number, replaced, why);
                }
            }
            News::NoRoom(why) => self.submitter.has_no_room(now, why),
            News::NoSession(told) => {
                if let Session::Disconnected { why } = &mut self.session {
                    *why = told;
                }
            }
            News::Disconnected => self.ended(StandsStill::Disconnected),
            News::OtherGeneration => self.ended(StandsStill::Rebuilding),
            News::Buckets { theirs, ours } => return Err(LedgerError::Buckets { theirs, ours }),
            News::Names { theirs_s, ours_s } => return Err(LedgerError::Names { theirs_s, ours_s }),
            News::Taken => return Err(LedgerError::Lease(self.settings.node)),
        }
        Ok(())
    }

    /// The session is over, and this is why nothing can be numbered until the next one has found what there is.
    fn ended(&mut self, why: StandsStill) {
        self.session = Session::Disconnected { why };
        self.orders.lost();
        self.follower.redis_clock.ended();
        self.submitter.lost();
        self.questions.lost();
    }

    /// Redis has said the time, and how many entries it has.
    fn clock(&mut self, now: Now, generation: &str, count: u64, redis_ms: u64) {
        self.submitter.look_for_room(now);
        self.follower.redis_clock.compare(now, redis_ms);
        if self.follower.followed.generation().is_some_and(|ours| ours.text() == generation) {
            self.follower.stood(StreamPosition(count), redis_ms);
        }
    }

    /// Takes entries in the stream's order. An entry of this node carries the session that sent it, so that its ack stands
    /// among its deliveries where its row does.
    fn follow(&mut self, now: Now, entries: Vec<Arrival>) -> Result<(), LedgerError> {
        for Arrival { count, entry } in entries {
            let (at, seen) = (StreamPosition(count), self.follower.followed.seen());
            if at <= seen {
                continue;
            }
            if at != seen.next() {
                return self.fell_behind(now, at);
            }
            let decoded = Entry::decode(&entry).map_err(|_| LedgerError::Entry(count))?;
            let numbered = self.follower.number(at, &decoded)?;
            let (submitter, mut view) = self.submitting();
            let (origin, change) = submitter.settle(at, &decoded, numbered.sender_seq(), &mut view);
            self.answers.counters.messages += u64::from(numbered.rows().is_some());
            self.answers.counters.rows += numbered.rows().unwrap_or_default();
            self.answers.stage(numbered.delivery(origin, change.as_ref()));
            self.follower.follow(at, &entry)?;
            self.progress.report_followed(self.follower.followed.seen());
            self.standing = Standing::default();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
