//! The report of a soak: `report.json` for machines, a table for people.
//!
//! What always holds: it holds what was measured and the verdict on it, nothing derived elsewhere; what was not
//! measured is `null`.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde::Serialize;

use super::figures::{Interval, Latency, Phase, Second};
use super::orders::{Missing, Totals};
use super::verdict::{Descriptors, Memory, Verdict};
use crate::load::error::LoadError;
use crate::load::report::{Table, count};

/// Everything.
#[derive(Serialize, Debug)]
#[expect(missing_docs, reason = "the names are the interface; README.md says what each means")]
pub struct Report {
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
    pub latency: Latencies,
    pub memory: Option<Memory>,
    pub descriptors: Vec<Descriptors>,
    pub refused: Vec<Refused>,
    pub load: Vec<Process>,
    pub intervals: Vec<Interval>,
    pub seconds: Vec<Second>,
}

/// What was asked for.
#[derive(Serialize, Debug)]
#[expect(missing_docs, reason = "the names are the options'")]
pub struct Setup {
    pub target: SocketAddr,
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
    pub gateway_pid: Option<u32>,
    pub kernel: String,
}

/// One phase.
#[derive(Clone, Copy, Serialize, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Span {
    pub phase: Phase,
    pub from_s: f64,
    pub to_s: f64,
}

/// How everybody came.
#[derive(Clone, Copy, Default, Serialize, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Ramp {
    pub logged_in: u64,
    pub seconds: f64,
    pub logins_per_s: f64,
}

/// Latencies of the steady phase, microseconds.
#[derive(Clone, Copy, Default, Serialize, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Latencies {
    pub delivery: Latency,
    pub ack: Latency,
    pub pong: Latency,
}

/// Something that was refused, by name.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Refused {
    /// Who counted it: `gateway` or `load`.
    pub side: &'static str,
    /// Connections, requests, or what the kernel was asked for.
    pub what: &'static str,
    pub name: String,
    pub count: u64,
}

/// How a process of the load generator did in the steady phase.
#[derive(Clone, Copy, Serialize, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Process {
    pub clients: u32,
    pub busy_share: f64,
    pub late_share: f64,
    pub lag_ms_max: f64,
    pub cpu_cores: f64,
    pub resident_bytes: u64,
}

impl Report {
    /// Writes `report.json` and `report.html` into a directory, which is made.
    pub fn write(&self, dir: &Path) -> Result<(), LoadError> {
        fs::create_dir_all(dir).map_err(LoadError::io("the report's directory cannot be made"))?;
        let json = serde_json::to_vec_pretty(self)?;
        fs::write(dir.join("report.json"), json).map_err(LoadError::io("report.json cannot be written"))
    }

    /// As a table.
    pub fn table(&self) -> String {
        let mut table = Table::default();
        let (setup, totals) = (&self.setup, &self.totals);
        let asked = format!("{} asked for, from {} processes", count(setup.connections.into()), setup.processes);
        table.line("connections", &asked);
        let ramp = &self.ramp;
        let pace =
            format!("{} in {:.1} s, {} a second", count(ramp.logged_in), ramp.seconds, count(ramp.logins_per_s as u64));
        table.line("logged in", &pace);
        table.line("churned, resumed", &format!("{}, {}", count(totals.churned), count(totals.resumed)));
        let groups = format!("{} of {} members", count(setup.groups_made), setup.members);
        table.line("groups", &groups);
        let sent = format!("{} to groups, {} to users", count(totals.group_sent), count(totals.direct_sent));
        table.line("messages", &sent);
        match &self.deliveries {
            Some(missing) => {
                table.line("deliveries due", &count(missing.due));
                table.line("lost", &count(missing.lost));
                table.line("not to be checked", &count(missing.away));
            }
            None => table.line("deliveries due", "not found out"),
        }
        table.line("duplicated", &count(totals.duplicated));
        table.line("out of order", &count(totals.out_of_order));
        table.line("corrupt", &count(totals.corrupt));
        table.line("heartbeats answered", &format!("{} of {}", count(totals.pongs), count(totals.pings)));
        table.quantiles_head();
        table.quantiles("delivery", &self.latency.delivery.us);
        table.quantiles("ack", &self.latency.ack.us);
        table.quantiles("heartbeat", &self.latency.pong.us);
        self.resources(&mut table);
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

    fn resources(&self, table: &mut Table) {
        let mib = |bytes: f64| format!("{:.1} MiB", bytes / (1 << 20) as f64);
        if let Some(memory) = &self.memory {
            let (before, after) = (mib(memory.baseline_bytes as f64), mib(memory.after_ramp_bytes as f64));
            table.line("gateway memory", &format!("{before} before, {after} after the ramp"));
            if let Some(bytes) = memory.bytes_per_connection {
                table.line("per connection", &format!("{bytes:.0} bytes ({:.2} KiB)", bytes / 1024.0));
            }
            if let Some(steady) = &memory.steady {
                let grown = format!("{} in {:.0} s of messages", mib(steady.growth_bytes), steady.seconds);
                table.line("memory grew by", &format!("{grown} ({} allowed)", mib(steady.allowed_bytes)));
            }
        }
        for d in &self.descriptors {
            table.line("descriptors, all left", &format!("{} ({} at first)", d.after_all_left, d.baseline));
        }
        let most = |value: fn(&Process) -> f64| self.load.iter().map(value).fold(0.0, f64::max);
        let (busy, late) = (most(|p| p.busy_share) * 100.0, most(|p| p.late_share) * 100.0);
        table.line("load generator", &format!("busy {busy:.0} %, late {late:.1} % of the time (the worst process)"));
        let memory: u64 = self.load.iter().map(|p| p.resident_bytes).sum();
        table.line("load generator's memory", &mib(memory as f64));
    }
}
