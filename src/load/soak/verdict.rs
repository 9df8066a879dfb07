//! What the figures mean: did the gateway pass, did it fail, or do they say nothing about it?
//!
//! A pure function. What always holds: a loss is the gateway's failure whatever else happened; what ran out by name is
//! a fact whoever was slow, and explains what is missing; a load generator that was the bottleneck makes every other
//! finding worthless; and a soak that delivered nothing has shown nothing.

use std::time::Duration;

use serde::Serialize;

use super::figures::Latency;
use super::orders::{Effort, Missing, Names, Totals};

/// A process whose thread was not waiting for more of its time than this could not keep up.
pub const BUSY_SHARE_MAX: f64 = 0.95;
/// A process that was late for more of its time than this reports its own latencies.
pub const LATE_SHARE_MAX: f64 = 0.05;
/// Memory is flat if it grows by less than this part,
pub const GROWTH_SHARE_MAX: f64 = 0.02;
/// or by less than this,
pub const GROWTH_BYTES_MAX: u64 = 8 << 20;
/// beside what the gateway keeps of each message for as long as repeats of it are known.
pub const GROWTH_PER_MESSAGE_BYTES: u64 = 160;
/// Descriptors are back at the baseline if there are not more than so many more: files of the journal and the store.
pub const DESCRIPTORS_MORE_MAX: u64 = 8;

/// The exit code of a soak that could not be carried out.
pub const NOT_CARRIED_OUT: u8 = 2;

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything held.
    Passed,
    /// The gateway did not do what it must.
    Failed,
    /// The figures say nothing about the gateway.
    InvalidEvidence,
    /// The host ran out of something, or would.
    HostNotFit,
}

impl Outcome {
    /// The exit code; [`NOT_CARRIED_OUT`] is the one that no outcome has.
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Passed => 0,
            Outcome::Failed => 1,
            Outcome::InvalidEvidence => 3,
            Outcome::HostNotFit => 4,
        }
    }

    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Failed => "failed",
            Outcome::InvalidEvidence => "invalid evidence",
            Outcome::HostNotFit => "host not fit",
        }
    }
}

/// One thing that was found, and what it speaks for.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
pub struct Finding {
    /// The outcome it would have alone; `Passed`: worth knowing.
    pub speaks_for: Outcome,
    /// The measurement and its bound, in a sentence for the report.
    pub text: String,
}

/// The verdict.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
pub struct Verdict {
    /// How it ended.
    pub outcome: Outcome,
    /// What was found, for each the outcome it speaks for; empty: nothing to remark.
    pub findings: Vec<Finding>,
}

/// The gateway's memory.
#[derive(Clone, Copy, PartialEq, Default, Serialize, Debug)]
pub struct Memory {
    /// Before the first connection.
    pub baseline_bytes: u64,
    /// With all connections, before the first message.
    pub after_ramp_bytes: u64,
    /// The difference over the connections.
    pub bytes_per_connection: Option<f64>,
    /// How it changed while messages were sent; `None`: not looked at for long enough.
    pub steady: Option<Growth>,
    /// All of it while messages were sent, with what is not judged.
    pub rise: Option<MemoryRise>,
}

/// What the gateway's whole memory did in the steady phase, and the parts of that which are not judged.
#[derive(Clone, Copy, PartialEq, Default, Serialize, Debug)]
pub struct MemoryRise {
    /// At its beginning.
    pub from_bytes: u64,
    /// At its end.
    pub to_bytes: u64,
    /// In its first quarter, while buffers fill.
    pub first_quarter_bytes: i64,
    /// In the rest, the store's cache of the database's pages, which has a limit.
    pub store_cache_bytes: i64,
}

/// How memory changed, by the line that fits its samples best.
#[derive(Clone, Copy, PartialEq, Default, Serialize, Debug)]
#[expect(missing_docs, reason = "the names are the report's; README.md says what each means")]
pub struct Growth {
    pub seconds: f64,
    pub from_bytes: f64,
    pub growth_bytes: f64,
    pub allowed_bytes: f64,
}

/// The gateway's descriptors after everybody left.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
#[expect(missing_docs, reason = "the names are the report's; README.md says what each means")]
pub struct Descriptors {
    pub baseline: u64,
    pub after_all_left: u64,
    pub back: bool,
}

/// What a verdict rests on.
#[derive(Clone, Default, Debug)]
#[expect(missing_docs, reason = "the names are the report's; README.md says what each means")]
pub struct Facts {
    pub connections: u64,
    pub seen: u64,
    pub live_at_end: u64,
    pub groups: u64,
    pub groups_made: u64,
    pub traffic_asked: bool,
    pub totals: Totals,
    pub missing: Option<Missing>,
    pub open_at_end: u64,
    pub ends: Names,
    pub refusals: Names,
    /// What ran out, by name, at either side, and how often.
    pub exhausted: Names,
    /// Requests refused because the gateway's disk or journal was full.
    pub storage_full: u64,
    /// Processes of the gateway's cgroup that the kernel killed at its memory limit.
    pub killed_at_limit: u64,
    pub gateway_gone: bool,
    pub processes_lost: u64,
    pub interrupted: bool,
    pub efforts: Vec<Effort>,
    pub delivery: Latency,
    pub p99_max_ms: Option<f64>,
    pub memory_max: Option<f64>,
    pub emulated: bool,
    pub memory: Option<Memory>,
    pub descriptors: Vec<Descriptors>,
}

/// Judges.
pub fn judge(facts: &Facts) -> Verdict {
    let mut findings = Findings(Vec::new());
    let worst = findings.losses(facts);
    findings.evidence(facts);
    findings.host(facts);
    findings.conduct(facts);
    findings.resources(facts);
    let any = |outcome| findings.0.iter().any(|finding| finding.speaks_for == outcome);
    let outcome = if worst {
        Outcome::Failed
    } else if any(Outcome::HostNotFit) {
        Outcome::HostNotFit
    } else if any(Outcome::InvalidEvidence) {
        Outcome::InvalidEvidence
    } else if any(Outcome::Failed) {
        Outcome::Failed
    } else {
        Outcome::Passed
    };
    Verdict { outcome, findings: findings.0 }
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, speaks_for: Outcome, text: impl Into<String>) {
        self.0.push(Finding { speaks_for, text: text.into() });
    }

    fn fail_if(&mut self, count: u64, what: &str) {
        if count > 0 {
            self.add(Outcome::Failed, format!("{count} {what}"));
        }
    }

    /// What no circumstance excuses; true: there is some.
    fn losses(&mut self, facts: &Facts) -> bool {
        let (before, totals) = (self.0.len(), &facts.totals);
        self.fail_if(facts.missing.map_or(0, |m| m.lost), "acked deliveries are lost: their clients are logged in");
        self.fail_if(totals.duplicated, "rows came twice");
        self.fail_if(totals.out_of_order, "rows or messages came out of order");
        self.fail_if(totals.corrupt, "frames were not what was sent, or not for whom they came to");
        self.fail_if(totals.gaps, "gaps: rows were not kept until their client came back");
        if facts.gateway_gone {
            let why =
                if facts.killed_at_limit > 0 { ": the kernel killed it at its cgroup's memory limit" } else { "" };
            self.add(Outcome::Failed, format!("the gateway's process ended{why}"));
        }
        self.0.len() > before
    }

    /// Whether the figures are the gateway's at all.
    fn evidence(&mut self, facts: &Facts) {
        let invalid = Outcome::InvalidEvidence;
        if facts.interrupted {
            self.add(invalid, "the soak was interrupted");
        }
        if facts.processes_lost > 0 {
            self.add(invalid, format!("{} processes of the load generator ended", facts.processes_lost));
        }
        // Where nobody looks at latencies, being late is worth knowing.
        let slow = if facts.emulated { Outcome::Passed } else { invalid };
        for (process, effort) in facts.efforts.iter().enumerate() {
            let (busy, late) = (effort.busy_share() * 100.0, effort.late_share() * 100.0);
            if effort.busy_share() > BUSY_SHARE_MAX {
                let most = BUSY_SHARE_MAX * 100.0;
                self.add(
                    slow,
                    format!("process {process} was busy for {busy:.0} % of its time, {most:.0} % is too much"),
                );
            }
            if effort.late_share() > LATE_SHARE_MAX {
                let (most, lag) = (LATE_SHARE_MAX * 100.0, effort.lag_ns_max as f64 / 1e6);
                self.add(
                    slow,
                    format!(
                        "process {process} was late for {late:.0} % of its time (at most by {lag:.0} ms), {most:.0} % is \
                         too much: latencies are its own"
                    ),
                );
            }
        }
        if facts.traffic_asked && facts.totals.delivered == 0 && !facts.gateway_gone {
            self.add(invalid, "no message was delivered, so nothing was checked");
        }
    }

    fn host(&mut self, facts: &Facts) {
        let fell_short = facts.seen < facts.connections || facts.live_at_end < facts.seen;
        for (name, count) in &facts.exhausted {
            let outcome = if fell_short { Outcome::HostNotFit } else { Outcome::Passed };
            self.add(outcome, format!("{name} ran out ({count} times)"));
        }
        if facts.storage_full > 0 {
            let full = facts.storage_full;
            self.add(Outcome::HostNotFit, format!("the gateway's disk or journal was full ({full} refusals)"));
        }
    }

    /// What the gateway owes its clients beside the messages.
    fn conduct(&mut self, facts: &Facts) {
        let list = |names: &Names| {
            let all: Vec<String> = names.iter().map(|(name, count)| format!("{name} {count}")).collect();
            all.join(", ")
        };
        let failed = Outcome::Failed;
        if facts.seen < facts.connections {
            let (missing, ends) = (facts.connections - facts.seen, list(&facts.ends));
            self.add(failed, format!("{missing} of {} clients were never logged in ({ends})", facts.connections));
        }
        if facts.live_at_end < facts.seen {
            let away = facts.seen - facts.live_at_end;
            self.add(failed, format!("{away} clients could not come back ({})", list(&facts.ends)));
        }
        if facts.totals.dropped > 0 {
            let dropped = facts.totals.dropped;
            self.add(failed, format!("{dropped} sessions ended that should have stayed ({})", list(&facts.ends)));
        }
        self.fail_if(facts.missing.map_or(0, |m| m.away), "deliveries could not be checked: their clients are away");
        self.fail_if(facts.open_at_end, "requests were never answered");
        if facts.missing.is_none() && facts.traffic_asked {
            self.add(failed, "it was not found out what is missing");
        }
        if facts.groups_made < facts.groups {
            self.add(failed, format!("{} of {} groups could be made", facts.groups_made, facts.groups));
        }
        for (name, count) in &facts.refusals {
            let usual = matches!(name.as_str(), "RetryLater" | "StorageFull");
            let outcome = if usual { Outcome::Passed } else { failed };
            self.add(outcome, format!("{count} requests were refused with {name}"));
        }
        let p99_ms = facts.delivery.us.p99 / 1e3;
        if let Some(most) = facts.p99_max_ms.filter(|most| p99_ms > *most) {
            self.add(failed, format!("one delivery in a hundred took {p99_ms:.1} ms or longer, {most} ms is allowed"));
        }
    }

    fn resources(&mut self, facts: &Facts) {
        let mib = |bytes: f64| bytes / (1 << 20) as f64;
        let costs = facts.memory.and_then(|memory| memory.bytes_per_connection);
        if let (Some(bytes), Some(most)) = (costs, facts.memory_max)
            && bytes > most
        {
            self.add(Outcome::Failed, format!("a connection costs {bytes:.0} bytes of memory, {most} are allowed"));
        }
        if let Some(growth) = facts.memory.and_then(|memory| memory.steady).filter(|g| !g.is_flat()) {
            let (grown, allowed) = (mib(growth.growth_bytes), mib(growth.allowed_bytes));
            self.add(
                Outcome::Failed,
                format!(
                    "the gateway's memory is not flat: it grew by {grown:.1} MiB in {:.0} s of messages, {allowed:.1} MiB is \
                     allowed",
                    growth.seconds
                ),
            );
        }
        for descriptors in facts.descriptors.iter().filter(|descriptors| !descriptors.back) {
            let (now, before) = (descriptors.after_all_left, descriptors.baseline);
            self.add(
                Outcome::Failed,
                format!("the gateway has {now} descriptors after everybody left, it had {before}"),
            );
        }
    }
}

impl Growth {
    /// Of samples (seconds, bytes), by least squares; `sent`: messages in that time, each of which the gateway remembers
    /// for `names_kept`. `None`: too few samples.
    pub fn of(samples: &[(f64, f64)], sent: u64, gateways: u64, names_kept: Duration) -> Option<Growth> {
        const SAMPLES_MIN: usize = 10;
        let (first, last) = (samples.first()?, samples.last()?);
        if samples.len() < SAMPLES_MIN {
            return None;
        }
        let n = samples.len() as f64;
        let mean_t = samples.iter().map(|(t, _)| t).sum::<f64>() / n;
        let mean_b = samples.iter().map(|(_, b)| b).sum::<f64>() / n;
        let covariance: f64 = samples.iter().map(|(t, b)| (t - mean_t) * (b - mean_b)).sum();
        let variance: f64 = samples.iter().map(|(t, _)| (t - mean_t).powi(2)).sum();
        let slope = if variance > 0.0 { covariance / variance } else { 0.0 };
        let (seconds, from_bytes) = (last.0 - first.0, mean_b + slope * (first.0 - mean_t));
        // Of a longer soak only the last messages of the window are kept.
        let kept = sent as f64 * (names_kept.as_secs_f64() / seconds.max(1.0)).min(1.0);
        let allowed = (from_bytes * GROWTH_SHARE_MAX).max((GROWTH_BYTES_MAX * gateways) as f64);
        Some(Growth {
            seconds,
            from_bytes,
            growth_bytes: slope * seconds,
            allowed_bytes: allowed + kept * (GROWTH_PER_MESSAGE_BYTES * gateways) as f64,
        })
    }

    /// Whether it grew by no more than is allowed.
    pub fn is_flat(&self) -> bool {
        self.growth_bytes <= self.allowed_bytes
    }
}

#[cfg(test)]
mod tests;
