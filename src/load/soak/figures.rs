//! What was measured, second by second: the latest beat of every process, the gateway from outside, the latencies of
//! each interval.
//!
//! Owned by the conductor. What always holds: sums are over the processes' latest beats; a latency is in one interval
//! only; nothing is interpolated.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::orders::{Beat, Effort, Missing, Names, Totals, add_names};
use super::watch::Sample;
use crate::latency::{Quantiles, latencies};

/// Seconds kept: of longer soaks every second, third, ... one.
const SECONDS_MAX: u64 = 3_600;

/// One second.
#[derive(Clone, Default, Serialize, Debug)]
pub(crate) struct Second {
    pub at_s: f64,
    pub phase: Phase,
    pub live: u64,
    pub delivered: u64,
    /// Over whole beats of one phase; `null`: some process has reported none of those in this second.
    pub deliveries_per_s: Option<f64>,
    pub gateway_resident_bytes: Option<u64>,
    pub gateway_cache_bytes: Option<u64>,
    pub gateway_cpu_cores: Option<f64>,
    pub gateway_descriptors: Option<u64>,
    pub gateway_connections: Option<u64>,
    pub load_resident_bytes: u64,
    pub load_busy_max: f64,
    pub load_lag_ms_max: f64,
}

/// What the soak was doing.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Debug)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    #[default]
    Start,
    Ramp,
    Settle,
    Groups,
    Steady,
    Leave,
    Return,
    Quiesce,
    End,
}

impl Phase {
    /// As people read it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Phase::Start => "start",
            Phase::Ramp => "ramp",
            Phase::Settle => "settle",
            Phase::Groups => "groups",
            Phase::Steady => "steady",
            Phase::Leave => "leave",
            Phase::Return => "return",
            Phase::Quiesce => "quiesce",
            Phase::End => "end",
        }
    }
}

/// One phase.
#[derive(Clone, Copy, Serialize, Debug)]
pub(crate) struct Span {
    pub phase: Phase,
    pub from_s: f64,
    pub to_s: f64,
}

/// Latencies of one interval.
#[derive(Clone, Serialize, Debug)]
pub(crate) struct Interval {
    pub from_s: f64,
    pub to_s: f64,
    pub phase: Phase,
    pub delivery: Latency,
    pub ack: Latency,
    pub pong: Latency,
}

/// How many, and how long.
#[derive(Clone, Copy, Default, Serialize, Debug)]
pub struct Latency {
    pub count: u64,
    #[serde(flatten)]
    pub us: Quantiles,
}

/// Three kinds of latency.
struct Latencies {
    delivery: Histogram<u64>,
    ack: Histogram<u64>,
    pong: Histogram<u64>,
}

/// All of it.
pub(crate) struct Figures {
    /// Second by second.
    pub seconds: Vec<Second>,
    /// Interval by interval.
    pub intervals: Vec<Interval>,
    /// The newest look at the gateway.
    pub gateway: Sample,
    start_ns: u64,
    interval_ns: u64,
    interval_from_ns: u64,
    second_every_ns: u64,
    second_ns: u64,
    phase: Phase,
    beats: Vec<Beat>,
    efforts: Vec<Effort>,
    /// Efforts of the steady phase, by process.
    steady: Vec<Effort>,
    now: Latencies,
    all_steady: Latencies,
    cpu_before: Option<(u64, u64)>,
    /// By process: what was delivered since the last second.
    deliveries: Vec<Deliveries>,
    /// The interval that was closed last, to be joined with a short end of its phase.
    closed: Latencies,
}

/// What one process has delivered in whole beats of one phase.
#[derive(Clone, Copy, Default)]
struct Deliveries {
    wall_ns: u64,
    delivered: u64,
    /// The next beat began in another phase.
    straddles: bool,
    /// Until the next phase begins no beat is all sending or all silence.
    suspended: bool,
}

impl Figures {
    /// Of `processes`, from `start_ns` on, for about `length_s`.
    pub(crate) fn new(processes: usize, start_ns: u64, length_s: u64) -> Figures {
        let interval_s = if length_s >= 600 { 60 } else { 10 };
        Figures {
            seconds: Vec::new(),
            intervals: Vec::new(),
            gateway: Sample::default(),
            start_ns,
            interval_ns: interval_s * 1_000_000_000,
            interval_from_ns: start_ns,
            second_every_ns: length_s.div_ceil(SECONDS_MAX).max(1) * 1_000_000_000,
            second_ns: start_ns,
            phase: Phase::Start,
            beats: vec![Beat::default(); processes],
            efforts: vec![Effort::default(); processes],
            steady: vec![Effort::default(); processes],
            now: Latencies::new(),
            all_steady: Latencies::new(),
            cpu_before: None,
            deliveries: vec![Deliveries::default(); processes],
            closed: Latencies::new(),
        }
    }

    /// Takes a process's beat.
    pub(crate) fn beat(&mut self, process: usize, mut beat: Beat) {
        beat.delivery.add_to(&mut self.now.delivery);
        beat.ack.add_to(&mut self.now.ack);
        beat.pong.add_to(&mut self.now.pong);
        for buckets in [&mut beat.delivery, &mut beat.ack, &mut beat.pong] {
            buckets.0 = Vec::new();
        }
        if let Some(effort) = self.efforts.get_mut(process) {
            *effort = beat.effort;
        }
        if let Some(sum) = self.steady.get_mut(process).filter(|_| self.phase == Phase::Steady) {
            sum.wall_ns += beat.effort.wall_ns;
            sum.busy_ns += beat.effort.busy_ns;
            sum.late_ns += beat.effort.late_ns;
            sum.cpu_ns += beat.effort.cpu_ns;
            sum.lag_ns_max = sum.lag_ns_max.max(beat.effort.lag_ns_max);
        }
        if let Some((place, deliveries)) = self.beats.get_mut(process).zip(self.deliveries.get_mut(process)) {
            deliveries.add(&beat, beat.totals.delivered.saturating_sub(place.totals.delivered));
            // What comes once, or no longer, is kept.
            beat.made = beat.made.or_else(|| place.made.take());
            beat.missing = beat.missing.or(place.missing);
            *place = beat;
        }
    }

    /// Time has passed: closes a second or an interval when it is over.
    pub(crate) fn pass(&mut self, now_ns: u64) {
        if now_ns >= self.second_ns + self.second_every_ns {
            self.second_ns = now_ns;
            let second = self.second(now_ns);
            self.seconds.push(second);
        }
        if now_ns >= self.interval_from_ns + self.interval_ns {
            self.close_interval(now_ns);
        }
    }

    /// Another phase begins: its latencies are its own.
    pub(crate) fn enter(&mut self, phase: Phase, now_ns: u64) {
        self.close_interval(now_ns);
        self.phase = phase;
        self.deliveries.fill(Deliveries { straddles: true, ..Deliveries::default() });
    }

    /// What the phase is about has ended, and the next phase has not begun: rates would be of neither.
    pub(crate) fn phase_ends(&mut self) {
        self.deliveries.fill(Deliveries { suspended: true, ..Deliveries::default() });
    }

    /// What the soak is doing.
    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// Seconds since the start.
    pub(crate) fn at_s(&self, now_ns: u64) -> f64 {
        now_ns.saturating_sub(self.start_ns) as f64 / 1e9
    }

    /// The processes' latest beats.
    pub(crate) fn beats(&self) -> &[Beat] {
        &self.beats
    }

    /// What every process counted, together.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.beats.iter().for_each(|beat| totals.add(&beat.totals));
        totals
    }

    /// What is missing in all processes together; `None`: some have not said yet.
    pub(crate) fn missing(&self) -> Option<Missing> {
        let mut missing = Missing::default();
        for beat in &self.beats {
            missing.add(beat.missing.as_ref()?);
        }
        Some(missing)
    }

    /// Names and counts of all processes.
    pub(crate) fn names(&self, which: impl Fn(&Beat) -> &Names) -> Names {
        let mut names = Names::new();
        self.beats.iter().for_each(|beat| add_names(&mut names, which(beat)));
        names
    }

    /// A sum over the processes.
    pub(crate) fn sum(&self, which: impl Fn(&Beat) -> u32) -> u64 {
        self.beats.iter().map(|beat| u64::from(which(beat))).sum()
    }

    /// How each process did in the steady phase.
    pub(crate) fn steady_efforts(&self) -> &[Effort] {
        &self.steady
    }

    /// Latencies of the whole steady phase: delivery, ack, pong.
    pub(crate) fn steady_latencies(&self) -> [Latency; 3] {
        self.all_steady.quantiles()
    }

    /// The latency of the running interval.
    pub(crate) fn delivery_now(&self) -> Latency {
        Latency::of(&self.now.delivery)
    }

    fn close_interval(&mut self, now_ns: u64) {
        let [delivery, ack, pong] = self.now.quantiles();
        let (from_s, to_s) = (self.at_s(self.interval_from_ns), self.at_s(now_ns));
        let is_short = now_ns.saturating_sub(self.interval_from_ns) < self.interval_ns / 2;
        let last = self.intervals.last_mut().filter(|last| is_short && last.phase == self.phase);
        if let Some(last) = last.filter(|last| last.to_s == from_s) {
            // The figures of a moment beside those of an interval would look like a change.
            self.closed.add(&self.now);
            let [delivery, ack, pong] = self.closed.quantiles();
            *last = Interval { to_s, delivery, ack, pong, ..*last };
        } else if delivery.count + ack.count + pong.count > 0 {
            self.intervals.push(Interval { from_s, to_s, phase: self.phase, delivery, ack, pong });
            self.closed.reset();
            self.closed.add(&self.now);
        }
        if self.phase == Phase::Steady {
            self.all_steady.add(&self.now);
        }
        self.now.reset();
        self.interval_from_ns = now_ns;
    }

    fn second(&mut self, now_ns: u64) -> Second {
        let process = self.gateway.process;
        let cpu = process.map(|process| (self.gateway.at_ns, process.cpu_ns));
        let cores = self.cpu_before.zip(cpu).filter(|((before, _), (now, _))| now > before);
        let gateway_cpu_cores = cores.map(|((at_before, cpu_before), (at, cpu))| {
            cpu.saturating_sub(cpu_before) as f64 / (at - at_before) as f64
        });
        self.cpu_before = cpu;
        let busy = self.efforts.iter().map(Effort::busy_share).fold(0.0, f64::max);
        let lag_ns = self.efforts.iter().map(|effort| effort.lag_ns_max).max().unwrap_or(0);
        Second {
            at_s: self.at_s(now_ns),
            phase: self.phase,
            live: self.sum(|beat| beat.live),
            delivered: self.totals().delivered,
            deliveries_per_s: self.deliveries.iter_mut().map(Deliveries::take_per_s).sum(),
            gateway_resident_bytes: process.map(|process| process.resident_bytes),
            gateway_cache_bytes: self
                .gateway
                .metrics
                .as_ref()
                .and_then(|m| Some(m.value("ringway_store_cache_bytes")? as u64)),
            gateway_cpu_cores,
            gateway_descriptors: process.and_then(|process| process.descriptors),
            gateway_connections: self
                .gateway
                .metrics
                .as_ref()
                .and_then(|m| Some(m.value("ringway_connections")? as u64)),
            load_resident_bytes: self.beats.iter().map(|beat| beat.resident_bytes).sum(),
            load_busy_max: busy,
            load_lag_ms_max: lag_ns as f64 / 1e6,
        }
    }
}

impl Deliveries {
    fn add(&mut self, beat: &Beat, delivered: u64) {
        if self.straddles || self.suspended {
            self.straddles = false;
            return;
        }
        self.wall_ns += beat.effort.wall_ns;
        self.delivered += delivered;
    }

    fn take_per_s(&mut self) -> Option<f64> {
        let (wall_ns, delivered) = (std::mem::take(&mut self.wall_ns), std::mem::take(&mut self.delivered));
        (wall_ns > 0).then(|| delivered as f64 * 1e9 / wall_ns as f64)
    }
}

impl Effort {
    /// Which part of its time the process was not waiting.
    pub fn busy_share(&self) -> f64 {
        if self.wall_ns == 0 { 0.0 } else { self.busy_ns as f64 / self.wall_ns as f64 }
    }

    /// Which part of its time it was late.
    pub fn late_share(&self) -> f64 {
        if self.wall_ns == 0 { 0.0 } else { self.late_ns as f64 / self.wall_ns as f64 }
    }
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Latency {
        Latency { count: histogram.len(), us: Quantiles::of(histogram) }
    }
}

impl Latencies {
    fn new() -> Latencies {
        Latencies { delivery: latencies(), ack: latencies(), pong: latencies() }
    }

    fn quantiles(&self) -> [Latency; 3] {
        [&self.delivery, &self.ack, &self.pong].map(Latency::of)
    }

    fn add(&mut self, other: &Latencies) {
        // All were made by `latencies`: adding cannot fail.
        self.delivery.add(&other.delivery).ok();
        self.ack.add(&other.ack).ok();
        self.pong.add(&other.pong).ok();
    }

    fn reset(&mut self) {
        self.delivery.reset();
        self.ack.reset();
        self.pong.reset();
    }
}

#[cfg(test)]
mod tests;
