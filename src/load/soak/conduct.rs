//! The conductor: starts the processes, leads them through the phases, watches, and judges at the end.
//!
//! One thread leads; others only read pipes, the gateway's metrics and signals for it. What always holds: nothing is
//! compared before everybody has stopped sending and nothing more arrives; every wait has an end, and what was waited
//! for in vain is in the verdict; whatever ends a soak early, the report is written.

use std::cell::Cell;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use nix::sys::signal::{SigSet, Signal};

use super::args::SoakArgs;
use super::assignment::Counts;
use super::children::{Children, News};
use super::figures::{Figures, Phase, Span};
use super::fit::{Host, Spread};
use super::html;
use super::memory_limit::MemoryLimits;
use super::orders::{Names, Order, Plan};
use super::progress::Progress;
use super::report::Ramp;
use super::subject::Subject;
use super::verdict::{DESCRIPTORS_MORE_MAX, Descriptors, Memory, Outcome};
use super::watch::{self, Metrics, Sample};
use crate::clock::Clock;
use crate::contract::SoakFacts;
use crate::error::LoadError;

/// How often what happened is looked at.
const TURN: Duration = Duration::from_millis(50);
/// Without any progress for so long, a phase is over.
const PATIENCE_NS: u64 = 15_000_000_000;
/// The same on a machine that is emulated.
const PATIENCE_EMULATED_NS: u64 = 60_000_000_000;
/// The longest that the gateway's memory may take to settle.
const SETTLE_NS: u64 = 60_000_000_000;
/// The gateway has so few connections that its descriptors can be counted.
const FEW_CONNECTIONS: f64 = 1_000.0;
/// Memory that changes by less than this in a second has settled.
const SETTLED_BYTES: u64 = 64 << 10;
/// The last metrics are waited for so long.
const METRICS_PATIENCE_NS: u64 = 10_000_000_000;
/// So old are the figures in the gateway's metrics at most.
const METRICS_AGE_NS: u64 = 1_500_000_000;
/// A gateway that is not there in so many looks is gone.
const LOOKS_GONE: u32 = 2;

/// Leads one soak.
pub struct Conductor<'a> {
    pub(super) args: &'a SoakArgs,
    pub(super) facts: SoakFacts,
    pub(super) subject: &'a Subject,
    pub(super) spread: &'a Spread,
    pub(super) figures: Figures,
    pub(super) spans: Vec<Span>,
    pub(super) ramp: Ramp,
    pub(super) memory: Option<Memory>,
    pub(super) descriptors: Vec<Descriptors>,
    pub(super) baseline: Baseline,
    pub(super) groups_made: u64,
    pub(super) gateway_gone: bool,
    pub(super) processes_lost: u64,
    pub(super) interrupted: bool,
    /// Logged in when everything had been waited for.
    pub(super) live_at_end: u64,
    pub(super) clock: Clock,
    children: Children,
    samples: Receiver<Sample>,
    signals: Receiver<()>,
    progress: Progress,
    orders_sent: u32,
    looks_gone: u32,
    /// When the gateway last gave its metrics.
    metrics_ns: u64,
    phase_ns: u64,
}

/// The gateway before the first connection.
#[derive(Clone, Default, Debug)]
pub struct Baseline {
    /// Its memory.
    pub resident_bytes: Option<u64>,
    /// Its descriptors.
    pub descriptors: Option<u64>,
    /// Its metrics.
    pub metrics: Option<Metrics>,
    /// The memory limits it is under.
    pub memory_limits: MemoryLimits,
    /// What had happened at them.
    pub memory_events: Names,
}

/// A phase of a soak.
type Step<'a> = fn(&mut Conductor<'a>) -> Result<(), LoadError>;

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waited {
    Done,
    InVain,
}

/// Runs a soak, writes and prints its report.
pub fn run(args: &SoakArgs, facts: SoakFacts) -> Result<Outcome, LoadError> {
    args.check()?;
    let signals = signals()?;
    let subject = Subject::find(args)?;
    let wanted = args.connections.div_ceil(args.processes.unwrap_or(1)).min(1 << 20);
    let spread = Spread::plan(args, &subject.targets(), Host::here(wanted.into()));
    for missing in &spread.missing {
        eprintln!("ringway: this host is not fit: {missing}");
    }
    if !spread.missing.is_empty() && !args.anyway {
        return Ok(Outcome::HostNotFit);
    }
    subject.try_login(args)?;
    let mut conductor = Conductor::start(args, facts, &subject, &spread, signals)?;
    conductor.lead()?;
    conductor.progress.finish();
    let report = conductor.report();
    html::write(&report, &args.report)?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", report.table());
        eprintln!("the report is in {}", args.report.display());
    }
    Ok(report.verdict.outcome)
}

impl<'a> Conductor<'a> {
    fn start(
        args: &'a SoakArgs,
        facts: SoakFacts,
        subject: &'a Subject,
        spread: &'a Spread,
        signals: Receiver<()>,
    ) -> Result<Conductor<'a>, LoadError> {
        let clock = Clock::of_host();
        let groups = args.groups();
        let counts = Counts {
            first_user: subject.first_user(),
            connections: args.connections,
            processes: spread.processes,
            groups: groups.groups,
            members: groups.members,
        };
        let targets = subject.targets();
        let plan = |process: u32| Plan {
            run: subject.run,
            counts,
            process,
            target: targets[process as usize % targets.len()],
            sources: spread.sources.clone(),
            secret: subject.secret.0.clone(),
            heartbeat_ms: args.heartbeat.map(|every| every.as_millis() as u32),
            body_bytes: args.body,
        };
        let plans: Vec<Plan> = (0..spread.processes).map(plan).collect();
        let samples = watch::start(subject.gateways.clone())?;
        let now_ns = clock.mono_ns();
        let mut conductor = Conductor {
            args,
            facts,
            subject,
            spread,
            figures: Figures::new(plans.len(), now_ns, args.steady.as_secs()),
            spans: Vec::new(),
            ramp: Ramp::default(),
            memory: None,
            descriptors: Vec::new(),
            baseline: Baseline::default(),
            groups_made: 0,
            gateway_gone: false,
            processes_lost: 0,
            interrupted: false,
            live_at_end: 0,
            clock,
            children: Children::start(&plans)?,
            samples,
            signals,
            progress: Progress::start(),
            orders_sent: 0,
            looks_gone: 0,
            metrics_ns: 0,
            phase_ns: now_ns,
        };
        conductor.take_baseline();
        Ok(conductor)
    }

    /// All phases, one after another, until there is no point in going on.
    fn lead(&mut self) -> Result<(), LoadError> {
        let phases: [Step<'a>; 7] = [
            Self::ramp,
            Self::settle,
            Self::make_groups,
            Self::steady,
            Self::leave_and_return,
            Self::quiesce,
            Self::leave_for_good,
        ];
        for phase in phases {
            if self.is_over() {
                break;
            }
            phase(self)?;
        }
        if self.is_over() && self.processes_lost == 0 {
            // What is missing is known all the same.
            self.quiesce()?;
        }
        self.enter(Phase::End);
        self.children.send_all(&Order::End)
    }

    fn is_over(&self) -> bool {
        self.gateway_gone || self.interrupted || self.processes_lost > 0
    }

    fn take_baseline(&mut self) {
        let now_ns = self.clock.mono_ns();
        let settled_ns = now_ns + 1_500_000_000;
        let pids = self.subject.pids();
        let watched = self.subject.has_metrics() || !pids.is_empty();
        self.wait(|c| c.clock.mono_ns() >= settled_ns && (!watched || c.figures.gateway.at_ns > now_ns));
        let memory_limits = MemoryLimits { directories: (self.facts.memory_limit_dirs)(&pids) };
        self.baseline = Baseline {
            memory_events: memory_limits.events(),
            memory_limits,
            resident_bytes: self.subject.resident_bytes(),
            descriptors: self.subject.descriptors(),
            metrics: self.figures.gateway.metrics.clone(),
        };
    }

    fn ramp(&mut self) -> Result<(), LoadError> {
        self.enter(Phase::Ramp);
        let start_ns = self.clock.mono_ns();
        self.come()?;
        let last_ns = self.figures.beats().iter().map(|beat| beat.login_ns).max().unwrap_or(0);
        let (logged_in, seconds) = (self.figures.totals().logins, last_ns.saturating_sub(start_ns) as f64 / 1e9);
        let logins_per_s = if seconds > 0.0 { logged_in as f64 / seconds } else { 0.0 };
        self.ramp = Ramp { logged_in, seconds, logins_per_s };
        Ok(())
    }

    /// Everybody comes.
    fn come(&mut self) -> Result<(), LoadError> {
        let per_s = self.args.ramp / f64::from(self.spread.processes);
        self.send_all(&Order::Come { per_s })?;
        let asked = u64::from(self.args.connections);
        self.wait_while_progressing(|c| c.live(), |c| c.live() >= asked);
        Ok(())
    }

    /// What the connections cost, before anything is said.
    fn settle(&mut self) -> Result<(), LoadError> {
        self.enter(Phase::Settle);
        let Some(bytes) = self.subject.resident_bytes() else { return Ok(()) };
        let mut looked = (self.clock.mono_ns(), bytes);
        let end_ns = looked.0 + SETTLE_NS;
        self.wait(|c| {
            let now_ns = c.clock.mono_ns();
            if now_ns < looked.0 + 1_000_000_000 {
                return false;
            }
            let bytes = c.subject.resident_bytes().unwrap_or(0);
            let settled = bytes.abs_diff(looked.1) < SETTLED_BYTES;
            looked = (now_ns, bytes);
            settled || now_ns > end_ns
        });
        if let Some(baseline_bytes) = self.baseline.resident_bytes {
            let live = self.live();
            let more = looked.1 as f64 - baseline_bytes as f64;
            self.memory = Some(Memory {
                baseline_bytes,
                after_ramp_bytes: looked.1,
                bytes_per_connection: (live > 0).then(|| more / live as f64),
                steady: None,
                rise: None,
            });
        }
        Ok(())
    }

    fn make_groups(&mut self) -> Result<(), LoadError> {
        if self.args.groups().groups == 0 {
            return Ok(());
        }
        self.enter(Phase::Groups);
        self.send_all(&Order::MakeGroups)?;
        let made = |c: &Self| c.figures.beats().iter().all(|beat| beat.made.is_some());
        self.wait_while_progressing(|c| c.figures.sum(|beat| beat.open), |c| made(c));
        let groups: Vec<(u32, u64)> =
            self.figures.beats().iter().filter_map(|beat| beat.made.clone()).flatten().collect();
        self.groups_made = groups.len() as u64;
        self.send_all(&Order::Know { groups })
    }

    fn steady(&mut self) -> Result<(), LoadError> {
        self.enter(Phase::Steady);
        let groups = self.figures.beats().iter().map(|beat| beat.made.as_ref().map_or(0, Vec::len) as f64);
        let groups: Vec<f64> = groups.collect();
        let (all, processes) = (self.groups_made.max(1) as f64, f64::from(self.spread.processes));
        let churn_per_s = self.args.churn * f64::from(self.args.connections) / 60.0;
        for (at, own) in groups.into_iter().enumerate() {
            let order = Order::Traffic {
                group_per_s: self.args.rate * own / all,
                direct_per_s: self.args.direct_rate / processes,
                churn_per_s: churn_per_s / processes,
            };
            self.children.send(at, &order)?;
        }
        self.orders_sent += 1;
        let end_ns = self.clock.mono_ns() + self.args.steady.as_nanos() as u64;
        self.wait(|c| c.clock.mono_ns() >= end_ns);
        self.figures.phase_ends();
        self.quiet()
    }

    /// Nobody begins anything any more.
    fn quiet(&mut self) -> Result<(), LoadError> {
        self.send_all(&Order::Traffic { group_per_s: 0.0, direct_per_s: 0.0, churn_per_s: 0.0 })
    }

    fn leave_and_return(&mut self) -> Result<(), LoadError> {
        if !self.args.return_ {
            return Ok(());
        }
        self.enter(Phase::Leave);
        self.leave()?;
        if self.is_over() {
            return Ok(());
        }
        self.enter(Phase::Return);
        self.come()
    }

    fn leave_for_good(&mut self) -> Result<(), LoadError> {
        self.enter(Phase::Leave);
        self.leave()?;
        // A gateway that was full may not have given its metrics for a while.
        let (left_ns, end_ns) = (self.clock.mono_ns(), self.clock.mono_ns() + METRICS_PATIENCE_NS);
        let is_new = |c: &Self| c.metrics_ns > left_ns + METRICS_AGE_NS;
        self.wait(|c| !c.subject.has_metrics() || is_new(c) || c.clock.mono_ns() >= end_ns);
        Ok(())
    }

    /// Everybody leaves; the gateway's descriptors are looked at until they are back at the baseline.
    fn leave(&mut self) -> Result<(), LoadError> {
        self.send_all(&Order::Leave)?;
        // Half a million descriptors are not listed again and again: its metrics say when most are closed.
        let connections = |c: &Self| c.figures.gateway.metrics.as_ref().and_then(|m| m.value("ringway_connections"));
        let left = |c: &Self| c.live() == 0 && connections(c).is_none_or(|open| open < FEW_CONNECTIONS);
        self.wait_while_progressing(|c| (c.live(), connections(c).map(f64::to_bits)), left);
        let Some(baseline) = self.baseline.descriptors else { return Ok(()) };
        let more_max = DESCRIPTORS_MORE_MAX * self.subject.gateways.len() as u64;
        let back = |count: u64| count <= baseline + more_max;
        let latest = Cell::new((0, None));
        let look = |c: &Self| {
            let (looked_ns, count) = latest.get();
            let now_ns = c.clock.mono_ns();
            if now_ns >= looked_ns + 1_000_000_000 {
                latest.set((now_ns, c.subject.descriptors().or(count)));
            }
            latest.get().1
        };
        self.wait_while_progressing(look, |_| latest.get().1.is_some_and(back));
        if let Some(after_all_left) = latest.get().1.filter(|_| !self.gateway_gone) {
            self.descriptors.push(Descriptors { baseline, after_all_left, back: back(after_all_left) });
        }
        Ok(())
    }

    /// Waits until nothing is on its way, then compares what was acked with what has arrived.
    fn quiesce(&mut self) -> Result<(), LoadError> {
        self.enter(Phase::Quiesce);
        self.quiet()?;
        self.send_all(&Order::Quiesce)?;
        let progress = |c: &Self| (c.live(), c.figures.totals().delivered, c.figures.sum(|beat| beat.open));
        self.wait_while_progressing(progress, |c| {
            c.live() >= c.figures.sum(|beat| beat.seen) && c.figures.sum(|beat| beat.open) == 0
        });
        let acked = self.figures.beats().iter().filter_map(|beat| beat.acked.clone()).flatten().collect();
        self.send_all(&Order::Compare { acked })?;
        let missing = |c: &Self| c.figures.missing().map_or(u64::MAX, |missing| missing.lost + missing.away);
        self.wait_while_progressing(missing, |c| missing(c) == 0);
        self.live_at_end = self.live();
        Ok(())
    }

    fn live(&self) -> u64 {
        self.figures.sum(|beat| beat.live)
    }

    fn enter(&mut self, phase: Phase) {
        let now_ns = self.clock.mono_ns();
        let (from_s, to_s) = (self.figures.at_s(self.phase_ns), self.figures.at_s(now_ns));
        self.spans.push(Span { phase: self.figures.phase(), from_s, to_s });
        self.phase_ns = now_ns;
        self.figures.enter(phase, now_ns);
    }

    /// Sends all processes an order, and waits until they have done it.
    fn send_all(&mut self, order: &Order) -> Result<(), LoadError> {
        self.children.send_all(order)?;
        self.orders_sent += 1;
        let sent = self.orders_sent;
        let obeyed = move |c: &Self| c.figures.beats().iter().all(|beat| beat.orders >= sent);
        self.wait_while_progressing(|c| c.figures.sum(|beat| beat.orders), obeyed);
        Ok(())
    }

    /// Until `done`, as long as `progress` changes now and then.
    fn wait_while_progressing<P: PartialEq>(
        &mut self,
        progress: impl Fn(&Self) -> P,
        mut done: impl FnMut(&Self) -> bool,
    ) {
        let (mut is, mut since_ns) = (progress(self), self.clock.mono_ns());
        let patience_ns = if self.args.emulated { PATIENCE_EMULATED_NS } else { PATIENCE_NS };
        self.wait(|c| {
            let (now, now_ns) = (progress(c), c.clock.mono_ns());
            if now != is {
                (is, since_ns) = (now, now_ns);
            }
            done(c) || now_ns > since_ns + patience_ns
        });
    }

    /// Takes in what happens until `done`, or until there is no point in waiting.
    fn wait(&mut self, mut done: impl FnMut(&Self) -> bool) -> Waited {
        let over_before = self.is_over();
        loop {
            if done(self) {
                return Waited::Done;
            }
            self.turn();
            if self.is_over() && !over_before {
                return Waited::InVain;
            }
        }
    }

    fn turn(&mut self) {
        let mut news = self.children.news.recv_timeout(TURN);
        loop {
            match news {
                Ok((at, News::Beat(beat))) => self.figures.beat(at, *beat),
                Ok((_, News::Ended)) => self.processes_lost += 1,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
            news = self.children.news.recv_timeout(Duration::ZERO);
        }
        while let Ok(sample) = self.samples.try_recv() {
            let watched = self.figures.gateway.process.is_some() || self.looks_gone > 0;
            self.looks_gone = if watched && sample.process.is_none() { self.looks_gone + 1 } else { 0 };
            self.gateway_gone |= self.looks_gone >= LOOKS_GONE;
            // The last metrics it gave are what is known of it.
            let metrics = self.figures.gateway.metrics.take();
            if sample.metrics.is_some() {
                self.metrics_ns = sample.at_ns;
            }
            self.figures.gateway = Sample { metrics: sample.metrics.clone().or(metrics), ..sample };
        }
        self.interrupted |= self.signals.try_recv().is_ok();
        let now_ns = self.clock.mono_ns();
        self.figures.pass(now_ns);
        self.progress.show(&self.figures, self.args.connections, now_ns);
    }
}

/// SIGINT and SIGTERM end a soak early. Must be called before any thread is started.
fn signals() -> Result<Receiver<()>, LoadError> {
    let mut wanted = SigSet::empty();
    wanted.add(Signal::SIGINT);
    wanted.add(Signal::SIGTERM);
    wanted.thread_block().map_err(|e| LoadError::Io { what: "signals cannot be waited for", source: e.into() })?;
    let (send, signals) = bounded(1);
    let wait = move || {
        while wanted.wait().is_ok() {
            if send.try_send(()).is_err() {
                // The first had no effect yet: somebody wants it to end at once.
                std::process::exit(2);
            }
        }
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(wait)
        .map_err(LoadError::io("no thread can be started"))?;
    Ok(signals)
}
