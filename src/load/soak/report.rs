//! The report of a soak: `report.json` for machines, `report.html` and a table for people.
//!
//! What always holds: it holds what was measured and the verdict on it, nothing derived elsewhere; what was not
//! measured is `null`.

use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::figures::{Interval, Latency, Second, Span};
use super::orders::{Missing, Totals};
use super::verdict::{Descriptors, Memory, MemoryRise, Verdict};
use crate::table::{Table, count};

/// Everything.
#[derive(Serialize, Debug)]
pub(crate) struct SoakReport {
    pub version: &'static str,
    pub started_unix_ms: u64,
    pub exit_code: u8,
    #[serde(flatten)]
    pub verdict: Verdict,
    pub setup: Setup,
    pub phases: Vec<Span>,
    pub ramp: Ramp,
    pub deliveries: Option<Missing>,
    pub totals: Totals,
    pub latency: SteadyLatencies,
    pub memory: Option<Memory>,
    pub descriptors: Vec<Descriptors>,
    pub refused: Vec<Refused>,
    pub load: Vec<LoadProcess>,
    pub intervals: Vec<Interval>,
    pub seconds: Vec<Second>,
}

/// What was asked for.
#[derive(Serialize, Debug)]
pub(crate) struct Setup {
    pub targets: Vec<SocketAddr>,
    pub connections: u32,
    pub processes: u32,
    pub source_addresses: usize,
    pub ramp_per_s: f64,
    pub for_s: u64,
    /// `null`: as often as the gateway wants it.
    pub heartbeat_s: Option<f64>,
    pub groups: u32,
    pub groups_made: u64,
    pub members: u32,
    pub rate_per_s: f64,
    pub direct_rate_per_s: f64,
    pub churn_per_min: f64,
    pub body_bytes: usize,
    pub returned: bool,
    pub p99_max_ms: Option<f64>,
    pub memory_max: Option<f64>,
    pub gateway_pids: Vec<u32>,
    pub emulated: bool,
    pub kernel: String,
}

/// How everybody came.
#[derive(Clone, Copy, Default, Serialize, Debug)]
pub(crate) struct Ramp {
    pub logged_in: u64,
    pub seconds: f64,
    pub logins_per_s: f64,
}

/// SteadyLatencies of the steady phase, microseconds.
#[derive(Clone, Copy, Default, Serialize, Debug)]
pub(crate) struct SteadyLatencies {
    pub delivery: Latency,
    pub ack: Latency,
    pub pong: Latency,
}

/// Something that was refused, by name.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
pub(crate) struct Refused {
    /// Who counted it: `gateway`, `load` or `kernel`.
    pub side: &'static str,
    /// Connections, requests, or what the kernel was asked for.
    pub what: &'static str,
    pub name: String,
    pub count: u64,
}

/// How a process of the load generator did in the steady phase.
#[derive(Clone, Copy, Serialize, Debug)]
pub(crate) struct LoadProcess {
    pub clients: u32,
    pub busy_share: f64,
    pub late_share: f64,
    pub lag_ms_max: f64,
    pub cpu_cores: f64,
    pub resident_bytes: u64,
}

impl MemoryRise {
    /// From where to where, and which of it is not judged.
    fn text(&self) -> String {
        let mib = |bytes: i64| bytes as f64 / (1 << 20) as f64;
        let [from, to] = [self.from_bytes, self.to_bytes].map(|bytes| bytes as f64 / (1 << 20) as f64);
        let (first, cache) = (mib(self.first_quarter_bytes), mib(self.store_cache_bytes));
        format!(
            "{from:.1} to {to:.1} MiB; not judged: {first:+.1} in the first quarter (buffers fill), then {cache:+.1} \
             of the store's cache"
        )
    }
}

impl Setup {
    /// The options, as they would be typed.
    pub(crate) fn options(&self) -> Vec<(&'static str, String)> {
        let mut options = vec![
            ("--connections", self.connections.to_string()),
            ("--ramp", format!("{}/s", self.ramp_per_s)),
            ("--for", format!("{} s", self.for_s)),
            ("--heartbeat", self.heartbeat_s.map_or("as the gateway wants it".to_owned(), |s| format!("{s} s"))),
            ("--groups", format!("{}x{}", self.groups, self.members)),
            ("--rate", format!("{}/s to groups", self.rate_per_s)),
            ("--direct-rate", format!("{}/s to users", self.direct_rate_per_s)),
            ("--churn", format!("{} % of the connections a minute", self.churn_per_min * 100.0)),
            ("--body", format!("{} bytes", self.body_bytes)),
            ("--processes", self.processes.to_string()),
        ];
        if self.returned {
            options.push(("--return", "everybody left and came again".to_owned()));
        }
        if let Some(ms) = self.p99_max_ms {
            options.push(("--p99-max-ms", format!("{ms} ms")));
        }
        if let Some(bytes) = self.memory_max {
            options.push(("--memory-max", format!("{bytes} bytes a connection")));
        }
        if self.emulated {
            options.push(("--emulated", "no latency is judged".to_owned()));
        }
        options
    }
}

impl SoakReport {
    /// When it began, and how long it took.
    pub(crate) fn when(&self) -> String {
        let began = UNIX_EPOCH + Duration::from_millis(self.started_unix_ms);
        let began = humantime::format_rfc3339_seconds(began).to_string().replace('T', " ").replace('Z', " UTC");
        let took = Duration::from_secs(self.phases.last().map_or(0.0, |span| span.to_s) as u64);
        format!("{began}, {}", humantime::format_duration(took))
    }

    /// As a table.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::default();
        for (name, value) in self.lines() {
            table.line(&name, &value);
        }
        table.quantiles_head();
        table.quantiles("delivery", &self.latency.delivery.us);
        table.quantiles("ack", &self.latency.ack.us);
        table.quantiles("heartbeat", &self.latency.pong.us);
        for refused in &self.refused {
            let name = format!("{} {}", refused.what, refused.name);
            table.line(&format!("refused ({})", refused.side), &format!("{name}: {}", count(refused.count)));
        }
        for finding in &self.verdict.findings {
            table.line("finding", &finding.text);
        }
        table.line("verdict", self.verdict.outcome.name());
        table.text().to_owned()
    }

    /// What was done and what came of it: names and values.
    pub(crate) fn lines(&self) -> Vec<(String, String)> {
        let (setup, totals, ramp) = (&self.setup, &self.totals, &self.ramp);
        let mut lines = Vec::new();
        let mut line = |name: &str, value: String| lines.push((name.to_owned(), value));
        if setup.targets.len() > 1 {
            line("gateways", format!("{} of one cluster; figures are those of all together", setup.targets.len()));
        }
        let (asked, sources) = (count(setup.connections.into()), setup.source_addresses.max(1));
        line("connections", format!("{asked} asked for; processes {}, source addresses {sources}", setup.processes));
        let (logged_in, per_s) = (count(ramp.logged_in), count(ramp.logins_per_s as u64));
        line("logged in", format!("{logged_in} in {:.1} s, {per_s} a second", ramp.seconds));
        line("broke off, came back", format!("{}, {}", count(totals.churned), count(totals.resumed)));
        line("groups", format!("{} of {} members", count(setup.groups_made), setup.members));
        line("messages", format!("{} to groups, {} to users", count(totals.group_sent), count(totals.direct_sent)));
        line("held back", format!("{} messages could not be sent in time", count(totals.held_back)));
        match &self.deliveries {
            Some(missing) => {
                line("deliveries due", count(missing.due));
                line("lost", count(missing.lost));
                line("not to be checked", count(missing.away));
            }
            None => line("deliveries due", "not found out".to_owned()),
        }
        line("duplicated", count(totals.duplicated));
        line("out of order", count(totals.out_of_order));
        line("corrupt", count(totals.corrupt));
        line("heartbeats answered", format!("{} of {}", count(totals.pongs), count(totals.pings)));
        self.resources(&mut line);
        lines
    }

    fn resources(&self, line: &mut impl FnMut(&str, String)) {
        let mib = |bytes: f64| format!("{:.1} MiB", bytes / (1 << 20) as f64);
        if let Some(memory) = &self.memory {
            let (before, after) = (mib(memory.baseline_bytes as f64), mib(memory.after_ramp_bytes as f64));
            line("gateway memory", format!("{before} before, {after} after the ramp"));
            if let Some(bytes) = memory.bytes_per_connection {
                line("per connection", format!("{bytes:.0} bytes ({:.2} KiB)", bytes / 1024.0));
            }
            if let Some(rise) = &memory.rise {
                line("memory, while sending", rise.text());
            }
            match &memory.steady {
                Some(steady) => {
                    let (grown, allowed) = (mib(steady.growth_bytes), mib(steady.allowed_bytes));
                    let seconds = steady.seconds;
                    line("memory growth, judged", format!("{grown} over the last {seconds:.0} s ({allowed} allowed)"));
                }
                None => line("memory growth, judged", "not: too short".to_owned()),
            }
        }
        for d in &self.descriptors {
            line("descriptors, all left", format!("{} ({} at first)", d.after_all_left, d.baseline));
        }
        let most = |value: fn(&LoadProcess) -> f64| self.load.iter().map(value).fold(0.0, f64::max);
        let (busy, late) = (most(|p| p.busy_share) * 100.0, most(|p| p.late_share) * 100.0);
        line("load generator", format!("busy {busy:.0} %, late {late:.1} % of the time (the worst process)"));
        let memory: u64 = self.load.iter().map(|p| p.resident_bytes).sum();
        let clients: u64 = self.load.iter().map(|p| u64::from(p.clients)).sum();
        let each = memory / clients.max(1);
        line("load generator's memory", format!("{}, {each} bytes a client", mib(memory as f64)));
    }
}
