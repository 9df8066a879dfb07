//! A node's link with Redis: one session after another, what each does next, and what the ledger is told of it.
//!
//! Stands in for the thread that talks to Redis. What always holds: news are told in the order in which they came, a full
//! channel is waited for, and a session's end is told before anything of the next session.

use std::collections::VecDeque;
use std::sync::Arc;

use ringway::cluster::others_lease::{LOOK_MS, OthersLease, Verdict};
use ringway::contract::names_kept::NamesKept;
use ringway::contract::progress::{Progress, StoreWriter};
use ringway::contract::report::StandsStill;
use ringway::ledger::redis::link::{News, Order, RedisEnds, Reply, What};
use ringway::limits::{CALLS_IN_FLIGHT_MAX, HEARTBEAT_MS, LEASE_MS};

use super::answers::{Beat, arrivals, beat_of, checksums_differ, claim_of, generation_number, status_of};
use super::mutation::Mutation;
use super::redis::{Redis, Script};
use super::session::{Ask, Ended, Inline, Said, Session, Stage, Turn, text};
use crate::events::Events;
use crate::random::Random;

/// As long as the production thread waits before it tries again.
const RETRY_FIRST_MS: u64 = 50;
const RETRY_MAX_MS: u64 = 1_000;
/// How long one read waits for an entry.
const READ_BLOCK_MS: u64 = 1_000;

enum State {
    Waiting {
        until_ms: u64,
    },
    Begun(Box<Session>),
    /// It has told the ledger that the node's id is another's.
    Over,
}

/// What is fixed of a node's link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub node: u16,
    pub token: u64,
    pub entries_max: u64,
    pub names: NamesKept,
    /// Entries that stay in the stream though nobody needs them.
    pub kept: u64,
    pub mutation: Mutation,
}

/// A node's end of the link to its ledger, and its sessions.
pub(super) struct Link {
    ends: RedisEnds,
    progress: Arc<Progress>,
    settings: Settings,
    random: Random,
    events: Events,
    number: u64,
    state: State,
    wait_ms: u64,
    others_lease: OthersLease,
    is_short: bool,
    pending_news: VecDeque<News>,
    /// What sessions that this side has ended had sent, and Redis has not executed.
    left_behind: Vec<Ask>,
    /// What the node's clock says, Unix milliseconds.
    unix_ms: u64,
}

impl Link {
    /// Nothing is connected yet.
    pub(super) fn new(
        ends: RedisEnds,
        progress: Arc<Progress>,
        settings: Settings,
        (random, events): (Random, Events),
    ) -> Link {
        Link {
            ends,
            progress,
            settings,
            random,
            events,
            number: 0,
            state: State::Waiting { until_ms: 0 },
            wait_ms: RETRY_FIRST_MS,
            others_lease: OthersLease::default(),
            is_short: false,
            pending_news: VecDeque::new(),
            left_behind: Vec::new(),
            unix_ms: 0,
        }
    }

    /// The node's clock says so.
    pub(super) fn set_clock(&mut self, unix_ms: u64) {
        self.unix_ms = unix_ms;
    }

    /// What sessions have left behind in their sockets.
    pub(super) fn take_left_behind(&mut self) -> Vec<Ask> {
        std::mem::take(&mut self.left_behind)
    }

    /// The session, if there is one.
    pub(super) fn session(&mut self) -> Option<&mut Session> {
        match &mut self.state {
            State::Begun(session) => Some(session),
            State::Waiting { .. } | State::Over => None,
        }
    }

    /// The thread takes a few steps. `redis`: what a connection would reach now.
    pub(super) fn turn(&mut self, now_ms: u64, redis: Option<&Redis>) {
        for _ in 0..1 + self.random.below(6) {
            while let Some(news) = self.pending_news.pop_front() {
                if matches!(news, News::Status { .. } | News::Begun | News::OtherEntries) {
                    self.events.note(format!("node {} is told {news:?}", self.settings.node));
                }
                if let Err(news) = self.ends.notify(news) {
                    return self.pending_news.push_front(news);
                }
            }
            match &mut self.state {
                State::Over => return,
                State::Waiting { until_ms } if now_ms < *until_ms => return,
                State::Waiting { .. } => self.begin(now_ms, redis),
                State::Begun(_) => {
                    if let Err(ended) = self.serve(now_ms) {
                        self.end(now_ms, ended);
                    }
                }
            }
        }
    }

    fn announce(&mut self, news: News) {
        self.pending_news.extend(self.settings.mutation.bend_news(news, self.unix_ms));
    }

    fn begin(&mut self, now_ms: u64, redis: Option<&Redis>) {
        self.number += 1;
        let Some(redis) = redis else { return self.end(now_ms, Ended::Lost) };
        let session = Session::new(self.number, redis.run.clone(), now_ms);
        self.state = State::Begun(Box::new(session));
    }

    fn end(&mut self, now_ms: u64, ended: Ended) {
        let was_serving = self.session().is_some_and(|session| session.stage == Stage::Serving);
        let over = if ended == Ended::OtherGeneration { News::OtherGeneration } else { News::Disconnected };
        was_serving.then_some(over).into_iter().for_each(|news| self.announce(news));
        let unexecuted = self.session().map(Session::take_unexecuted).unwrap_or_default();
        self.left_behind.extend(unexecuted);
        self.is_short = ended == Ended::NoMemory;
        let why = match ended {
            Ended::Lost => StandsStill::Disconnected,
            Ended::NoMemory => StandsStill::NoMemory,
            Ended::Taken { .. } => StandsStill::Taken,
            Ended::OtherGeneration => StandsStill::Rebuilding,
        };
        self.pending_news.push_back(News::NoSession(why));
        let Ended::Taken { renewed } = ended else {
            let wait_ms = self.wait_ms - self.random.below(self.wait_ms as usize / 2 + 1) as u64;
            self.state = State::Waiting { until_ms: now_ms + wait_ms };
            self.wait_ms = (self.wait_ms * 2).min(RETRY_MAX_MS);
            return;
        };
        self.progress.set_store_writer(StoreWriter::NotThisNode);
        self.state = State::Waiting { until_ms: now_ms + LOOK_MS };
        if self.others_lease.meet(Some(renewed)) == Verdict::Lives {
            self.pending_news.push_back(News::Taken);
            self.state = State::Over;
        }
    }

    /// One step of a session.
    fn serve(&mut self, now_ms: u64) -> Result<(), Ended> {
        let State::Begun(session) = &mut self.state else { return Ok(()) };
        if session.broken || session.is_late(now_ms) {
            return Err(Ended::Lost);
        }
        session.take_answers();
        match session.stage {
            Stage::Numbering => return self.learn_number(now_ms),
            Stage::Claiming => return self.claim(now_ms),
            Stage::Looking => return self.look(),
            Stage::Serving => {}
        }
        if session.inline.is_some() {
            return self.go_on();
        }
        session.ask_what_is_due(now_ms);
        // Whatever is there first is taken first.
        for what in 0..4 {
            let what = (what + self.random.below(4)) % 4;
            let done = match what {
                0 => self.answer(now_ms)?,
                1 => self.read(now_ms)?,
                2 => self.beat(now_ms),
                _ => self.take_order(now_ms)?,
            };
            if done {
                return Ok(());
            }
        }
        Ok(())
    }

    fn learn_number(&mut self, now_ms: u64) -> Result<(), Ended> {
        let values = self.heartbeat();
        let State::Begun(session) = &mut self.state else { return Ok(()) };
        let Some(Inline::Asked(ask)) = session.inline else {
            let ask = session.ask(now_ms, Ask::Eval(Script::Heartbeat, values));
            session.inline = Some(Inline::Asked(ask));
            return Ok(());
        };
        let Some(said) = session.take(ask) else { return Ok(()) };
        session.inline = None;
        session.claim = claim_of(said)?;
        session.stage = Stage::Claiming;
        Ok(())
    }

    fn claim(&mut self, now_ms: u64) -> Result<(), Ended> {
        let State::Begun(session) = &mut self.state else { return Ok(()) };
        let Some(Inline::Asked(ask)) = session.inline else {
            self.beat(now_ms);
            return Ok(());
        };
        let Some(said) = session.take(ask) else { return Ok(()) };
        self.beaten(said)?;
        let State::Begun(session) = &mut self.state else { return Ok(()) };
        session.stage = Stage::Looking;
        let ask = session.ask(now_ms, session.status(None));
        session.inline = Some(Inline::Asked(ask));
        Ok(())
    }

    fn look(&mut self) -> Result<(), Ended> {
        let State::Begun(session) = &mut self.state else { return Ok(()) };
        let Some(Inline::Asked(ask)) = session.inline else { return Ok(()) };
        let Some(said) = session.take(ask) else { return Ok(()) };
        session.inline = None;
        session.stage = Stage::Serving;
        let status = status_of(session.number, said)?;
        (self.wait_ms, self.others_lease) = (RETRY_FIRST_MS, OthersLease::default());
        self.announce(status);
        Ok(())
    }

    /// What a heartbeat says.
    fn heartbeat(&self) -> Vec<Vec<u8>> {
        let State::Begun(session) = &self.state else { return Vec::new() };
        let Settings { node, token, kept, names, .. } = self.settings;
        let kept = if self.is_short { 0 } else { kept };
        let cuts = if self.is_short { "=" } else { "~" };
        let stored = self.progress.applied().0;
        let read = session.following.as_ref().map_or(self.progress.followed().0, |(_, after)| *after);
        let token = format!("{token:016x}");
        vec![
            text(node),
            text(token),
            text(LEASE_MS),
            text(read),
            text(stored),
            text(kept),
            text(1),
            text(cuts),
            text(&session.claim),
            text(names.seconds()),
        ]
    }

    /// Sends a heartbeat, if it is time.
    fn beat(&mut self, now_ms: u64) -> bool {
        let values = self.heartbeat();
        let State::Begun(session) = &mut self.state else { return false };
        if now_ms < session.beat_at_ms {
            return false;
        }
        session.beat_at_ms += HEARTBEAT_MS;
        let ask = session.ask(now_ms, Ask::Eval(Script::Heartbeat, values));
        session.inline = Some(Inline::Asked(ask));
        true
    }

    /// What a heartbeat comes to.
    fn beaten(&mut self, said: Said) -> Result<(), Ended> {
        let State::Begun(session) = &mut self.state else { return Ok(()) };
        session.inline = None;
        let Beat { writes, there, redis_ms, count, has_memory } = beat_of(said)?;
        self.progress.set_store_writer(StoreWriter::of(writes));
        if session.following.as_ref().is_some_and(|(generation, _)| generation.text() != there) {
            return Err(Ended::OtherGeneration);
        }
        session.there = if session.following.is_some() { count } else { 0 };
        let stored = self.progress.applied().0;
        if !has_memory {
            self.is_short = true;
            self.pending_news.push_back(News::NoRoom(StandsStill::NoMemory));
        } else if generation_number(count) == generation_number(stored)
            && count.saturating_sub(stored) >= self.settings.entries_max
        {
            self.pending_news.push_back(News::NoRoom(StandsStill::Full));
        }
        let clock = News::Clock { generation: there, count, redis_ms };
        self.announce(clock);
        Ok(())
    }

    /// Goes on with what the session waits for.
    fn go_on(&mut self) -> Result<(), Ended> {
        let State::Begun(session) = &mut self.state else { return Ok(()) };
        let ask = match &session.inline {
            Some(Inline::Asked(ask) | Inline::Known { ask, .. }) => *ask,
            None => return Ok(()),
        };
        let Some(said) = session.take(ask) else { return Ok(()) };
        let Some(Inline::Known { generation, after, known, .. }) = session.inline.take() else {
            return self.beaten(said);
        };
        match checksums_differ(&said, &known) {
            true => session.found_other_entries(),
            false => session.follow(generation, after),
        }
        Ok(())
    }

    /// Tells the first order's answer.
    fn answer(&mut self, now_ms: u64) -> Result<bool, Ended> {
        let State::Begun(session) = &mut self.state else { return Ok(false) };
        session.answer_turns(now_ms);
        match session.in_flight.pop_front() {
            Some(Turn::Answered(answer)) => {
                let news = answer?;
                self.is_short |= matches!(&news, News::Replies { replies, .. } if replies.contains(&Reply::NoMemory));
                self.announce(news);
                Ok(true)
            }
            Some(Turn::Ends(at_ms, ended)) if now_ms >= at_ms => Err(ended),
            other => {
                other.into_iter().for_each(|turn| session.in_flight.push_front(turn));
                Ok(false)
            }
        }
    }

    /// Tells entries that were read, or reads on.
    fn read(&mut self, now_ms: u64) -> Result<bool, Ended> {
        let State::Begun(session) = &mut self.state else { return Ok(false) };
        if let Some((number, said)) = session.reads.down.pop_front() {
            if session.reading == Some(number) {
                session.reading = None;
                let entries = arrivals(said)?;
                if let (true, Some((_, after))) = (entries.is_empty(), &session.following)
                    && session.there_before > *after
                {
                    self.pending_news.push_back(News::Cut(session.there_before));
                }
                if let (Some(last), Some((_, after))) = (entries.last(), &mut session.following) {
                    *after = last.count;
                    self.announce(News::Entries(entries));
                }
            }
            return Ok(true);
        }
        let (None, Some((generation, after))) = (session.reading, &session.following) else { return Ok(false) };
        let (generation, after) = (generation.clone(), *after);
        session.asked += 1;
        session.reading = Some(session.asked);
        session.there_before = session.there;
        let ask = Ask::Read { generation, after, until_ms: now_ms + READ_BLOCK_MS };
        session.reads.up.push_back((session.asked, now_ms, ask));
        Ok(true)
    }

    fn take_order(&mut self, now_ms: u64) -> Result<bool, Ended> {
        let State::Begun(session) = &mut self.state else { return Ok(false) };
        if session.in_flight.len() >= CALLS_IN_FLIGHT_MAX {
            return Ok(false);
        }
        match self.ends.orders.try_recv() {
            Ok(Order { session: number, what }) if number == session.number => {
                let what = self.settings.mutation.bend_order(what);
                if !matches!(what, What::Submit { .. } | What::Count) {
                    self.events.note(format!("node {} orders {what:?}", self.settings.node));
                }
                session.carry_out(now_ms, what, (self.settings.entries_max, self.settings.names));
            }
            // The ledger makes it again.
            Ok(_) => {}
            Err(_) => return Ok(false),
        }
        Ok(true)
    }
}
