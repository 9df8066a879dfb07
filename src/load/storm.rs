//! `bench storm`: thousands of connections that log in at once, are idle, are dropped at once and come back, and what
//! the messages between those who are there notice of it.
//!
//! One thread for all clients, each with a user of its own. What always holds: messages go only between clients that
//! are logged in, every one of them is accounted for, and all are through before everybody is dropped; beside each
//! figure of the gateway's stands how busy and how late the load itself was, for both share the machine.
//!
//! - [`crowd`]: the clients, their sockets, and what came for them.
//! - [`messages`]: the messages between them.
//! - [`report`]: the figures.

pub(crate) mod crowd;
pub(crate) mod messages;
pub(crate) mod report;

use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;
use indicatif::ProgressBar;

use self::crowd::{Crowd, Effort};
use self::report::{Budgets, Idle, Login, Return, StormReport, Traffic};
use super::args::StormArgs;
use super::bars::bar;
use super::contract::Stores;
use super::error::LoadError;
use super::gateway::{Gateway, written_address};
use super::latency::Quantiles;
use super::soak::watch::{self, Metrics};
use super::target::Target;

/// The heartbeats whose cost is measured, seconds: what outlives a balancer that cuts a connection after a minute of
/// silence, and the longest that needs no such balancer to be set up. Logins ask for the longer.
const HEARTBEATS_S: [u32; 2] = [25, 60];
/// As many connections a second as there may be.
const AT_ONCE_PER_S: f64 = 1e9;
/// How long logins, returns or deliveries may make no progress.
const PATIENCE_NS: u64 = 30_000_000_000;
/// Before CPU time is called idle: what the logins left behind is done by then.
const CALM: Duration = Duration::from_secs(2);
/// How often the metrics are asked for until they are of now; shards report once a second.
const REPORT_POLL: Duration = Duration::from_millis(20);
const REPORT_PATIENCE_NS: u64 = 5_000_000_000;
/// A turn may wait so long while nothing is measured that an oversleeping load would lengthen.
const IDLE_WAIT: Duration = Duration::from_millis(10);

/// Everything a storm needs.
struct Storm {
    crowd: Crowd,
    gateway: Option<Gateway>,
    admin: Option<SocketAddr>,
    bar: ProgressBar,
    /// How long to sleep at most while something is due.
    wait: Duration,
}

/// What one phase took.
struct Phase {
    wall_ns: u64,
    cpu_ns: Option<u64>,
    budgets: Option<Budgets>,
    load: Effort,
}

/// Where a phase began.
struct Mark {
    at_ns: u64,
    cpu_ns: Option<u64>,
    metrics: Option<Metrics>,
}

/// Runs it and prints the report; false: something was lost, or somebody did not come back.
pub(crate) fn run(args: &StormArgs, stores: &dyn Stores) -> Result<bool, LoadError> {
    args.check()?;
    let [_, heartbeat_s] = HEARTBEATS_S;
    let target = Target::prepare(&args.target, stores)?;
    let data_dir = args.target.data_dir.clone();
    let admin = target.gateway.as_ref().map(|gateway| gateway.data_dir().to_owned()).or(data_dir);
    let mut storm = Storm {
        crowd: Crowd::new(&target, args, heartbeat_s * 1_000)?,
        wait: target.cpus.patience(),
        admin: admin.and_then(|dir| written_address(&dir, "admin")),
        gateway: target.gateway,
        bar: bar(u64::from(args.connections), "logging in"),
    };
    let login = storm.log_in(args)?;
    let idle = storm.heartbeats_s().into_iter().map(|every| storm.idle(args, every)).collect::<Result<Vec<_>, _>>()?;
    let quiet = storm.exchange(args)?;
    let (back, storming) = storm.drop_everybody(args)?;
    storm.bar.finish_and_clear();
    let shards = storm.metrics().and_then(|metrics| metrics.value("ringway_shards")).map(|shards| shards as u64);
    let stopped_well = storm.gateway.take().map_or(Ok(true), Gateway::stop)?;
    let mut report = StormReport::of(args, shards, login, idle, (quiet, storming), back, &storm.crowd);
    report.clean &= stopped_well;
    if args.target.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", report.table());
    }
    Ok(report.clean)
}

impl Storm {
    /// Everybody connects and logs in, as fast as the two sides can.
    fn log_in(&mut self, args: &StormArgs) -> Result<Login, LoadError> {
        let mark = self.mark();
        self.crowd.clients.come(AT_ONCE_PER_S);
        self.await_all(args.connections)?;
        let phase = self.phase(&mark)?;
        Ok(Login::of(args.connections, &phase))
    }

    /// Those that the gateway allows, or else its own.
    fn heartbeats_s(&self) -> Vec<u32> {
        let wanted_s = self.crowd.clients.heartbeat_wanted_ms() / 1_000;
        let allowed: Vec<u32> = HEARTBEATS_S.into_iter().filter(|every_s| *every_s <= wanted_s).collect();
        if allowed.is_empty() { vec![wanted_s.max(1)] } else { allowed }
    }

    /// Nobody says anything but, this often, that it is alive.
    fn idle(&mut self, args: &StormArgs, heartbeat_s: u32) -> Result<Idle, LoadError> {
        self.crowd.clients.keep_alive_every(heartbeat_s * 1_000);
        self.turns_for(CALM, IDLE_WAIT)?;
        let pongs = self.crowd.totals.pongs;
        let mark = self.mark();
        self.bar.set_message("idle");
        self.turns_for(Duration::from_secs_f64(args.idle), IDLE_WAIT)?;
        let phase = self.phase(&mark)?;
        Ok(Idle::of(heartbeat_s, self.crowd.totals.pongs - pongs, &phase))
    }

    /// Messages between any two of them, for as long as was asked.
    fn exchange(&mut self, args: &StormArgs) -> Result<Traffic, LoadError> {
        self.bar.set_message("messages");
        let mark = self.mark();
        self.crowd.messages.start(args.rate);
        self.turns_for(Duration::from_secs_f64(args.quiet), self.wait)?;
        self.end_of_messages(&mark)
    }

    /// All connections end at once, and come back each at a time of its own; who is back sends.
    fn drop_everybody(&mut self, args: &StormArgs) -> Result<(Return, Traffic), LoadError> {
        self.bar.set_message("coming back");
        let mark = self.mark();
        let logins = self.crowd.totals.logins;
        self.crowd.drop_everybody(Duration::from_secs_f64(args.jitter));
        let dropped_ns = self.crowd.clock.mono_ns();
        self.crowd.messages.start(args.rate);
        self.await_all(args.connections)?;
        let back = Return {
            drop_ms: (dropped_ns - mark.at_ns) as f64 / 1e6,
            jitter_s: args.jitter,
            back_s: (self.crowd.clock.mono_ns() - mark.at_ns) as f64 / 1e9,
            logins: self.crowd.totals.logins - logins,
        };
        Ok((back, self.end_of_messages(&mark)?))
    }

    /// The last message was sent: waits for what is on its way, and sums up.
    fn end_of_messages(&mut self, mark: &Mark) -> Result<Traffic, LoadError> {
        let mut phase = self.phase_so_far(mark);
        self.crowd.messages.start(0.0);
        let (mut open, mut progress_ns) = (self.crowd.messages.open(), self.crowd.clock.mono_ns());
        while open > 0 && self.crowd.clock.mono_ns() - progress_ns < PATIENCE_NS {
            self.crowd.turn(self.wait)?;
            if self.crowd.messages.open() != open {
                (open, progress_ns) = (self.crowd.messages.open(), self.crowd.clock.mono_ns());
            }
        }
        phase.budgets = self.budgets_since(mark)?;
        let (delivery, ack) = self.crowd.messages.take_latencies();
        let quantiles = |latency: &Histogram<u64>| Quantiles::of(latency);
        Ok(Traffic::of(delivery.len(), quantiles(&delivery), quantiles(&ack), &phase))
    }

    fn await_all(&mut self, connections: u32) -> Result<(), LoadError> {
        let (mut live, mut progress_ns) = (0, self.crowd.clock.mono_ns());
        while live < connections {
            self.crowd.turn(self.wait)?;
            let now_live = self.crowd.clients.census().live;
            if now_live != live {
                (live, progress_ns) = (now_live, self.crowd.clock.mono_ns());
                self.bar.set_position(u64::from(live));
            }
            if self.crowd.clock.mono_ns() - progress_ns > PATIENCE_NS {
                let (asked, seconds) = (connections as usize, PATIENCE_NS / 1_000_000_000);
                return Err(LoadError::LoginTimeout { missing: asked - live as usize, asked, seconds });
            }
        }
        Ok(())
    }

    fn turns_for(&mut self, time: Duration, wait: Duration) -> Result<(), LoadError> {
        let end_ns = self.crowd.clock.mono_ns() + time.as_nanos() as u64;
        while self.crowd.clock.mono_ns() < end_ns {
            self.crowd.turn(wait)?;
        }
        Ok(())
    }

    fn mark(&mut self) -> Mark {
        self.crowd.effort = Effort::default();
        let metrics = self.metrics();
        Mark { at_ns: self.crowd.clock.mono_ns(), cpu_ns: self.gateway.as_ref().map(Gateway::cpu_ns), metrics }
    }

    /// What was taken since the mark, but for the budgets, which shards tell only once a second.
    fn phase_so_far(&mut self, mark: &Mark) -> Phase {
        let cpu_ns = self.gateway.as_ref().map(Gateway::cpu_ns);
        Phase {
            wall_ns: self.crowd.clock.mono_ns() - mark.at_ns,
            cpu_ns: cpu_ns.zip(mark.cpu_ns).map(|(now, then)| now.saturating_sub(then)),
            budgets: None,
            load: self.crowd.effort,
        }
    }

    fn phase(&mut self, mark: &Mark) -> Result<Phase, LoadError> {
        let phase = self.phase_so_far(mark);
        Ok(Phase { budgets: self.budgets_since(mark)?, ..phase })
    }

    fn metrics(&self) -> Option<Metrics> {
        self.admin.and_then(watch::metrics)
    }

    /// What each budget has taken since the mark, when the shards have reported once more.
    fn budgets_since(&mut self, mark: &Mark) -> Result<Option<Budgets>, LoadError> {
        let Some(then) = &mark.metrics else { return Ok(None) };
        let turns = |metrics: &Metrics| metrics.value("ringway_budget_turns_total{budget=\"timers\"}");
        let Some(first) = self.metrics() else { return Ok(None) };
        let end_ns = self.crowd.clock.mono_ns() + REPORT_PATIENCE_NS;
        while self.crowd.clock.mono_ns() < end_ns {
            self.turns_for(REPORT_POLL, IDLE_WAIT)?;
            match self.metrics() {
                Some(now) if turns(&now) != turns(&first) => return Ok(Some(Budgets::between(then, &now))),
                _ => {}
            }
        }
        Ok(None)
    }
}
