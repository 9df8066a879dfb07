//! Drives rounds: sends at the pace asked for, waits until everything that was sent has arrived, been checked
//! and been stored, and measures how long that took.
//!
//! Owned by the load generator's thread. What always holds: the clock stops after the last delivery was checked;
//! waiting ends when nothing has changed for ten seconds, and what is missing then counts as lost.

use std::time::Duration;

use super::bars::{bar, spinner};
use super::check::LaneId;
use super::crowd::{Crowd, SessionId};
use super::error::LoadError;
use super::gateway::Gateway;
use super::pace::Pace;
use super::room::Room;
use super::rounds::{Round, Rounds};
use super::stored::Stored;
use crate::clock::Clock;
use ringway_wire::frame::Encoder;
use ringway_wire::ids::MsgId;
use ringway_wire::request::Durability;

/// Without any progress for so long, what is missing is lost.
const PATIENCE_NS: u64 = 10_000_000_000;
/// How often the gateway's memory and the store are looked at while a round runs.
const SAMPLE_NS: u64 = 50_000_000;
/// How often the store is asked for the last message.
const STORE_POLL: Duration = Duration::from_millis(1);

/// The shortest time that polling sleeps, and what it takes at the most.
const POLL: Duration = Duration::from_millis(1);
const POLL_NS: u64 = 1_200_000;

/// Whether a round looks at the gateway's memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Memory {
    /// Every `SAMPLE_NS`: somebody reads nothing.
    Sampled,
    Unseen,
}

/// Who has the load's CPU while nothing comes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meanwhile {
    /// Nobody else needs it.
    Ours,
    /// Another thread.
    Anybodys,
}

/// A gateway, the sessions on it, and what they send each other.
pub(crate) struct Bench {
    /// The sessions.
    pub crowd: Crowd,
    /// What they send and receive.
    pub room: Room,
    /// The gateway, if it is ours.
    pub gateway: Option<Gateway>,
    /// The other nodes of its cluster.
    pub others: Vec<Gateway>,
    /// Where rows are counted, if they are to be.
    pub stored: Option<Stored>,
    /// How long to sleep at most while something is due.
    pub wait: Duration,
    /// Who has the CPU while nothing comes.
    pub meanwhile: Meanwhile,
    /// Without any progress for so long, what is missing is lost; nanoseconds.
    pub patience_ns: u64,
    encoder: Encoder,
    clock: Clock,
}

impl Bench {
    /// `stored`: where rows are counted.
    pub(crate) fn new(
        crowd: Crowd,
        room: Room,
        gateway: Option<Gateway>,
        stored: Option<Stored>,
        wait: Duration,
    ) -> Bench {
        let clock = crowd.clock();
        let others = Vec::new();
        let (meanwhile, patience_ns, encoder) = (Meanwhile::Ours, PATIENCE_NS, Encoder::new());
        Bench { crowd, room, gateway, others, stored, wait, meanwhile, patience_ns, encoder, clock }
    }

    /// Runs `count` rounds after one that is not counted.
    pub(crate) fn rounds(&mut self, count: usize, pace: Pace) -> Result<Rounds, LoadError> {
        self.series(pace, vec![0; count]).map(|[all, _]| all)
    }

    /// One round, with none before it that is not counted.
    pub(crate) fn measured(&mut self, pace: Pace) -> Result<Rounds, LoadError> {
        let mut rounds = Rounds::default();
        let round = self.round(pace, 0)?;
        rounds.add(round, &mut self.room);
        Ok(rounds)
    }

    /// Runs `count` pairs of rounds after one that is not counted: in one of each pair all read, in the other `stalled`
    /// of the first stream's recipients do not, until the others have everything. Which of them is first alternates.
    /// Returns the rounds without them, and those with them.
    pub(crate) fn pairs(&mut self, count: usize, pace: Pace, stalled: usize) -> Result<[Rounds; 2], LoadError> {
        let order = (0..count).flat_map(|pair| if pair % 2 == 0 { [0, stalled] } else { [stalled, 0] });
        self.series(pace, order.collect())
    }

    /// A round for each of `order`, which says how many do not read.
    fn series(&mut self, pace: Pace, order: Vec<usize>) -> Result<[Rounds; 2], LoadError> {
        let warm_up = match pace {
            Pace::Burst(messages) | Pace::Rate(messages, _) => Pace::Burst(messages),
            Pace::Flood(_, in_flight) => Pace::Flood(Duration::from_millis(300), in_flight),
        };
        let bar = bar(order.len() as u64 + 1, "rounds");
        let warmed_up = self.round(warm_up, 0)?;
        bar.inc(1);
        let mut all = [Rounds::default(), Rounds::default()];
        let [without, with] = &mut all;
        if !warmed_up.is_clean() {
            // What is missing would come, or be missing, in the rounds that count: this is the result.
            bar.finish_and_clear();
            without.add(warmed_up, &mut self.room);
            return Ok(all);
        }
        for stalled in order {
            let round = self.round(pace, stalled)?;
            let into = if stalled == 0 { &mut *without } else { &mut *with };
            into.add(round, &mut self.room);
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(all)
    }

    /// Stops the gateway, if it is ours; false: it did not end with 0.
    pub(crate) fn stop(self) -> Result<bool, LoadError> {
        let Bench { crowd, gateway, others, .. } = self;
        drop(crowd);
        let mut all_well = gateway.map_or(Ok(true), Gateway::stop)?;
        for other in others {
            all_well &= other.stop()?;
        }
        Ok(all_well)
    }

    fn round(&mut self, pace: Pace, stalled: usize) -> Result<Round, LoadError> {
        self.room.begin();
        let stalled = self.stall(stalled);
        let (before, resident) = (self.cpu_ns(), self.resident_bytes());
        let start_ns = self.clock.mono_ns();
        let resident_max =
            self.deliver(pace, start_ns, if stalled.is_empty() { Memory::Unseen } else { Memory::Sampled })?;
        let end_ns = self.clock.mono_ns();
        let cpu_ns = before.zip(self.cpu_ns()).map(|(before, after)| after - before);
        let resident_max = resident_max.max(self.resident_bytes().unwrap_or(0));
        let caught_up_ms = self.catch_up(&stalled)?;
        let mut round = Round {
            burst_ms: (end_ns - start_ns) as f64 / 1e6,
            cpu_ns,
            caught_up_ms,
            resident_growth_bytes: resident.map(|before| resident_max.saturating_sub(before)),
            ..Round::default()
        };
        self.count(&mut round, stalled.len() as u64);
        if self.room.kind() == Durability::Durable && self.stored.is_some() {
            self.count_stored(&mut round, start_ns, end_ns)?;
            round.cpu_stored_ns = before.zip(self.cpu_ns()).map(|(before, after)| after - before);
        }
        self.crowd.ack_all();
        Ok(round)
    }

    /// Sends and receives until all is delivered; returns the gateway's largest memory sampled, bytes.
    fn deliver(&mut self, pace: Pace, start_ns: u64, memory: Memory) -> Result<u64, LoadError> {
        let streams = self.room.streams.len() as u64;
        let mut sent = 0;
        let (mut progress, mut progress_ns, mut sampled_ns, mut resident_max) = (0, start_ns, start_ns, 0);
        let mut out = Vec::new();
        loop {
            let all_sent = self.send_due(pace, streams, start_ns, &mut sent, &mut out);
            self.turn(self.sleep(pace, start_ns, sent))?;
            let now_ns = self.clock.mono_ns();
            if memory == Memory::Sampled && now_ns - sampled_ns > SAMPLE_NS {
                resident_max = resident_max.max(self.resident_bytes().unwrap_or(0));
                sampled_ns = now_ns;
            }
            if all_sent && self.room.retries.is_empty() && self.room.is_done() {
                break;
            }
            let is = self.room.progress() + sent;
            if is != progress {
                (progress, progress_ns) = (is, now_ns);
            }
            if now_ns - progress_ns > self.patience_ns {
                break;
            }
        }
        Ok(resident_max)
    }

    /// How long to sleep at most when so many have been sent. Polling is late by up to a millisecond: what is due sooner is
    /// not slept for.
    fn sleep(&self, pace: Pace, start_ns: u64, sent: u64) -> Duration {
        let Pace::Rate(_, per_s) = pace else { return self.wait };
        let due_ns = start_ns + (sent as f64 * 1e9 / per_s) as u64;
        match self.meanwhile {
            Meanwhile::Anybodys if self.clock.mono_ns() + POLL_NS < due_ns => self.wait.max(POLL),
            Meanwhile::Anybodys | Meanwhile::Ours => self.wait,
        }
    }

    /// Sends what is due by now; true: nothing more will be.
    fn send_due(&mut self, pace: Pace, streams: u64, start_ns: u64, sent: &mut u64, out: &mut Vec<u8>) -> bool {
        let now_ns = self.clock.mono_ns();
        match pace {
            Pace::Burst(messages) => {
                if *sent == 0 {
                    for stream in 0..streams as usize {
                        self.send(stream, messages, None, out);
                    }
                    *sent = messages * streams;
                }
                true
            }
            Pace::Rate(messages, per_s) => {
                let total = messages * streams;
                while *sent < total {
                    let due_ns = start_ns + (*sent as f64 * 1e9 / per_s) as u64;
                    if due_ns > now_ns {
                        return false;
                    }
                    self.send((*sent % streams) as usize, 1, Some(due_ns), out);
                    *sent += 1;
                }
                true
            }
            Pace::Flood(time, in_flight) => {
                if now_ns - start_ns > time.as_nanos() as u64 {
                    return true;
                }
                let each = (in_flight / streams).max(1);
                for stream in 0..streams as usize {
                    let open = self.room.streams.get_mut(stream).map_or(each, |s| s.open());
                    let room = each.saturating_sub(open);
                    self.send(stream, room, None, out);
                    *sent += room;
                }
                false
            }
        }
    }

    fn send(&mut self, stream: usize, messages: u64, due_ns: Option<u64>, out: &mut Vec<u8>) {
        if messages == 0 {
            return;
        }
        let Some(sender) = self.room.streams.get(stream).map(|s| s.sender) else { return };
        let unix_ms = self.clock.unix_ms();
        out.clear();
        for _ in 0..messages {
            let sent_ns = due_ns.unwrap_or_else(|| self.clock.mono_ns());
            self.room.compose(stream, sent_ns, unix_ms, &mut self.encoder, out);
        }
        self.crowd.send(sender, out);
    }

    /// Handles what came, and what has to be answered.
    fn turn(&mut self, wait: Duration) -> Result<(), LoadError> {
        let Bench { crowd, room, .. } = self;
        crowd.turn(wait, &mut |session, event| room.receive(session, event))?;
        if let Some(failure) = room.failure.take() {
            return Err(failure);
        }
        self.send_again();
        self.reconnect()
    }

    fn send_again(&mut self) {
        if self.room.retries.is_empty() {
            return;
        }
        let now_ns = self.clock.mono_ns();
        let (due, later) = std::mem::take(&mut self.room.retries).into_iter().partition(|r| r.due_ns <= now_ns);
        self.room.retries = later;
        for retry in due {
            let mut out = Vec::new();
            self.room.compose_again(retry.stream, retry.index, &mut self.encoder, &mut out);
            if let Some(stream) = self.room.streams.get(retry.stream) {
                self.crowd.send(stream.sender, &out);
            }
        }
    }

    /// Recipients whose connection ended come again behind the last row they have.
    fn reconnect(&mut self) -> Result<(), LoadError> {
        for session in std::mem::take(&mut self.room.ended) {
            if self.room.streams.iter().any(|stream| stream.sender == session) {
                return Err(LoadError::SenderEnded);
            }
            self.crowd.log_in_again(session)?;
        }
        Ok(())
    }

    /// The first recipients of the first stream stop reading.
    fn stall(&mut self, count: usize) -> Vec<(SessionId, LaneId)> {
        let Some(stream) = self.room.streams.first_mut() else { return Vec::new() };
        let stalled: Vec<_> = stream.recipients.iter().take(count).copied().collect();
        for (session, lane) in &stalled {
            stream.checker.stall(*lane);
            self.crowd.pause(*session);
        }
        stalled
    }

    /// They read again, until they have everything.
    fn catch_up(&mut self, stalled: &[(SessionId, LaneId)]) -> Result<Option<f64>, LoadError> {
        if stalled.is_empty() {
            return Ok(None);
        }
        let start_ns = self.clock.mono_ns();
        for (session, _) in stalled {
            let Bench { crowd, room, .. } = self;
            crowd.resume(*session, &mut |session, event| room.receive(session, event));
        }
        let (mut missing, mut progress_ns) = (u64::MAX, start_ns);
        while self.room.kind() == Durability::Durable {
            self.turn(self.wait)?;
            let now_ns = self.clock.mono_ns();
            let Some(stream) = self.room.streams.first() else { break };
            let is: u64 = stalled.iter().map(|(_, lane)| stream.checker.missing(*lane)).sum();
            if is != missing {
                (missing, progress_ns) = (is, now_ns);
            }
            if missing == 0 || now_ns - progress_ns > self.patience_ns {
                break;
            }
        }
        if let Some(stream) = self.room.streams.first_mut() {
            stalled.iter().for_each(|(_, lane)| stream.checker.rejoin(*lane));
        }
        Ok(Some((self.clock.mono_ns() - start_ns) as f64 / 1e6))
    }

    fn count(&self, round: &mut Round, stalled: u64) {
        for (at, stream) in self.room.streams.iter().enumerate() {
            let messages = stream.round_messages() - stream.round_refused();
            let tally = stream.checker.tally();
            // Who reads nothing has no claim to ephemeral messages.
            let absent = if at == 0 && self.room.kind() == Durability::Ephemeral { stalled } else { 0 };
            round.messages += messages;
            round.expected += messages * (stream.recipients.len() as u64 - absent);
            round.tally.delivered += tally.delivered;
            round.tally.duplicated += tally.duplicated + stream.round_acks_repeated();
            round.tally.out_of_order += tally.out_of_order + stream.round_acks_out_of_order();
            round.tally.corrupt += tally.corrupt;
            round.acked += stream.round_acked();
            round.deferred += stream.round_deferred();
            if self.room.kind() == Durability::Durable {
                round.tally.corrupt += stream.differing_msg_ids();
                round.rows_expected += messages * stream.inboxes.len() as u64;
            }
        }
    }

    /// Waits until the store has the round's rows, and counts them one by one.
    fn count_stored(&mut self, round: &mut Round, start_ns: u64, acked_ns: u64) -> Result<(), LoadError> {
        let due: Vec<_> = self.room.streams.iter().map(|s| s.round_msg_ids()).collect();
        let bar = spinner("waiting for the store");
        let (mut best, mut progress_ns) = (0, self.clock.mono_ns());
        for last in due.iter().filter_map(|ids| ids.last()) {
            while !self.stored.as_ref().map_or(Ok(true), |s| s.has_message(*last))? {
                self.turn(STORE_POLL)?;
                bar.tick();
                if self.clock.mono_ns() - progress_ns > self.store_patience_ns(round.rows_expected) {
                    break;
                }
            }
        }
        loop {
            let stored_ns = self.clock.mono_ns();
            let found = self.count_once(&due)?;
            if found != best {
                (best, progress_ns) = (found, stored_ns);
            }
            round.rows_stored = Some(found);
            round.rows_stored_ms = Some(stored_ns.saturating_sub(acked_ns) as f64 / 1e6);
            round.storing_s = Some((stored_ns - start_ns) as f64 / 1e9);
            if found == round.rows_expected || self.clock.mono_ns() - progress_ns > self.patience_ns {
                break;
            }
            self.turn(STORE_POLL * 20)?;
        }
        bar.finish_and_clear();
        for (stream, ids) in self.room.streams.iter_mut().zip(&due) {
            for (_, newest) in &mut stream.inboxes {
                newest.0 += ids.len() as u64;
            }
        }
        Ok(())
    }

    /// A backlog takes its time: ten thousand rows a second at least are expected of a store.
    fn store_patience_ns(&self, rows: u64) -> u64 {
        self.patience_ns + rows * 100_000
    }

    fn count_once(&self, due: &[Vec<MsgId>]) -> Result<u64, LoadError> {
        let Some(stored) = &self.stored else { return Ok(0) };
        let mut rows = 0u64;
        for (stream, ids) in self.room.streams.iter().zip(due) {
            for (user, after) in &stream.inboxes {
                let found = stored.count(*user, *after, ids)?;
                // A foreign or misplaced row makes the count incomplete, whatever else is there.
                rows += found.rows.saturating_sub(found.wrong);
            }
        }
        Ok(rows)
    }

    fn cpu_ns(&self) -> Option<u64> {
        self.gateway.as_ref().map(Gateway::cpu_ns)
    }

    fn resident_bytes(&self) -> Option<u64> {
        self.gateway.as_ref().map(Gateway::resident_bytes)
    }
}
