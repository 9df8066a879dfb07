//! The figures of a storm: one object for machines, one table for people.
//!
//! What always holds: a latency stands beside how late the load was in the same phase; what could not be measured
//! (a gateway of somebody else's, without its metrics) is absent, never zero.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Phase;
use super::crowd::{Crowd, Effort};
use crate::args::StormArgs;
use crate::latency::Quantiles;
use crate::soak::orders::Names;
use crate::soak::watch::Metrics;
use crate::table::Table;

/// The report as `--json` prints it.
#[derive(Serialize, Debug)]
pub(crate) struct StormReport {
    pub scenario: &'static str,
    pub connections: u32,
    pub shards: Option<u64>,
    pub login: Login,
    pub idle: Vec<Idle>,
    pub quiet: Traffic,
    #[serde(rename = "return")]
    pub back: Return,
    pub storm: Traffic,
    pub p99_ratio: f64,
    pub messages: u64,
    pub unacked: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub out_of_order: u64,
    pub corrupt: u64,
    pub still_connected: u32,
    pub connections_ended: Names,
    pub refusals: Names,
    pub clean: bool,
}

/// Everybody's first login.
#[derive(Serialize, Debug)]
pub(crate) struct Login {
    pub seconds: f64,
    pub per_s: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_s_per_shard: Option<f64>,
    pub server_cpu_us: Option<f64>,
    pub server_cpu_percent: Option<f64>,
    pub load: LoadFigures,
    pub budgets: Option<Budgets>,
}

/// Nothing but heartbeats, so often.
#[derive(Serialize, Debug)]
pub(crate) struct Idle {
    pub heartbeat_s: u32,
    pub seconds: f64,
    pub heartbeats: u64,
    pub server_cpu_percent: Option<f64>,
    pub budgets: Option<Budgets>,
}

/// Messages while nothing else, or while everybody came back.
#[derive(Serialize, Debug)]
pub(crate) struct Traffic {
    pub seconds: f64,
    pub delivered: u64,
    pub delivery_us: Quantiles,
    pub ack_us: Quantiles,
    pub server_cpu_percent: Option<f64>,
    pub load: LoadFigures,
    pub budgets: Option<Budgets>,
}

/// How everybody came back.
#[derive(Serialize, Debug)]
pub(crate) struct Return {
    pub drop_ms: f64,
    pub jitter_s: f64,
    pub back_s: f64,
    pub logins: u64,
}

/// How busy the load was, and how late at most.
#[derive(Clone, Copy, Serialize, Debug)]
pub(crate) struct LoadFigures {
    pub busy_percent: f64,
    pub lag_ms_max: f64,
}

/// What each budget took of the shards' time in a phase, by name.
#[derive(Clone, PartialEq, Default, Serialize, Debug)]
pub(crate) struct Budgets(pub BTreeMap<String, Taken>);

/// What one took.
#[derive(Clone, Copy, PartialEq, Default, Serialize, Debug)]
pub(crate) struct Taken {
    pub shares: f64,
    pub busy_ms: f64,
    pub turns: f64,
}

impl Budgets {
    /// What was taken between two looks at the metrics.
    pub(crate) fn between(then: &Metrics, now: &Metrics) -> Budgets {
        let start = "ringway_budget_shares{budget=\"";
        let names = now.0.keys().filter_map(|name| name.strip_prefix(start)?.strip_suffix("\"}"));
        let taken = |name: &str| {
            let value = |metrics: &Metrics, metric: &str| {
                metrics.value(&format!("ringway_budget_{metric}{{budget=\"{name}\"}}")).unwrap_or(0.0)
            };
            let since = |metric: &str| value(now, metric) - value(then, metric);
            let busy_ms = since("busy_seconds_total") * 1e3;
            Taken { shares: value(now, "shares"), busy_ms, turns: since("turns_total") }
        };
        Budgets(names.map(|name| (name.to_owned(), taken(name))).collect())
    }

    fn line(&self, seconds: f64) -> String {
        let part = |(name, taken): (&String, &Taken)| {
            let percent = taken.busy_ms / 10.0 / seconds;
            let turn_us = if taken.turns > 0.0 { taken.busy_ms * 1e3 / taken.turns } else { 0.0 };
            format!("{name} {percent:.1} % ({turn_us:.0} µs a turn)")
        };
        self.0.iter().map(part).collect::<Vec<_>>().join(", ")
    }
}

impl LoadFigures {
    fn of(effort: &Effort, wall_ns: u64) -> LoadFigures {
        LoadFigures {
            busy_percent: 100.0 * effort.busy_ns as f64 / wall_ns.max(1) as f64,
            lag_ms_max: effort.lag_ns_max as f64 / 1e6,
        }
    }

    fn text(&self) -> String {
        format!("busy {:.0} %, {:.1} ms late at most", self.busy_percent, self.lag_ms_max)
    }
}

impl Phase {
    fn seconds(&self) -> f64 {
        self.wall_ns as f64 / 1e9
    }

    fn cpu_percent(&self) -> Option<f64> {
        Some(100.0 * self.cpu_ns? as f64 / self.wall_ns.max(1) as f64)
    }
}

impl Login {
    /// Of so many who logged in during the phase.
    pub(super) fn of(connections: u32, phase: &Phase) -> Login {
        let count = f64::from(connections);
        Login {
            seconds: phase.seconds(),
            per_s: count / phase.seconds(),
            per_s_per_shard: None,
            server_cpu_us: phase.cpu_ns.map(|ns| ns as f64 / 1e3 / count),
            server_cpu_percent: phase.cpu_percent(),
            load: LoadFigures::of(&phase.load, phase.wall_ns),
            budgets: phase.budgets.clone(),
        }
    }
}

impl Idle {
    /// With so many heartbeats answered.
    pub(super) fn of(heartbeat_s: u32, heartbeats: u64, phase: &Phase) -> Idle {
        let (seconds, budgets) = (phase.seconds(), phase.budgets.clone());
        Idle { heartbeat_s, seconds, heartbeats, server_cpu_percent: phase.cpu_percent(), budgets }
    }
}

impl Traffic {
    /// With these latencies.
    pub(super) fn of(delivered: u64, delivery_us: Quantiles, ack_us: Quantiles, phase: &Phase) -> Traffic {
        Traffic {
            seconds: phase.seconds(),
            delivered,
            delivery_us,
            ack_us,
            server_cpu_percent: phase.cpu_percent(),
            load: LoadFigures::of(&phase.load, phase.wall_ns),
            budgets: phase.budgets.clone(),
        }
    }
}

impl StormReport {
    /// Sums up; `traffic`: quiet, and during the storm.
    pub(super) fn of(
        args: &StormArgs,
        shards: Option<u64>,
        mut login: Login,
        idle: Vec<Idle>,
        traffic: (Traffic, Traffic),
        back: Return,
        crowd: &Crowd,
    ) -> StormReport {
        let (quiet, storm) = traffic;
        login.per_s_per_shard = shards.filter(|shards| *shards > 0).map(|shards| login.per_s / shards as f64);
        let (said, totals) = (&crowd.messages, &crowd.totals);
        let still_connected = crowd.clients.census().live;
        let duplicated = said.duplicated + totals.duplicated;
        let corrupt = said.corrupt + totals.corrupt;
        let (unacked, lost, out_of_order) = (said.unacked(), said.lost(), totals.out_of_order);
        let clean = unacked + lost + duplicated + out_of_order + corrupt == 0
            && still_connected == args.connections
            && crowd.clients.ends.is_empty()
            && quiet.delivered > 0
            && storm.delivered > 0;
        StormReport {
            scenario: "storm",
            connections: args.connections,
            shards,
            login,
            idle,
            p99_ratio: if quiet.delivery_us.p99 > 0.0 { storm.delivery_us.p99 / quiet.delivery_us.p99 } else { 0.0 },
            quiet,
            back,
            storm,
            messages: said.sent(),
            unacked,
            lost,
            duplicated,
            out_of_order,
            corrupt,
            still_connected,
            connections_ended: crowd.clients.ends.clone(),
            refusals: said.refusals.clone(),
            clean,
        }
    }

    /// As a table.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::default();
        let shards = self.shards.map_or_else(|| "an unknown number of".to_owned(), |shards| shards.to_string());
        table.line("storm", &format!("{} connections, {shards} shard(s)", self.connections));
        let login = &self.login;
        table.line("logins per second", &format!("{:.0} (all within {:.2} s)", login.per_s, login.seconds));
        if let Some(per_shard) = login.per_s_per_shard {
            table.line("  per shard", &format!("{per_shard:.0}"));
        }
        if let (Some(us), Some(percent)) = (login.server_cpu_us, login.server_cpu_percent) {
            table.line("  gateway CPU", &format!("{us:.1} µs a login, {percent:.0} % of a core"));
        }
        table.line("  load", &login.load.text());
        budgets(&mut table, login.budgets.as_ref(), login.seconds);
        for idle in &self.idle {
            let percent =
                idle.server_cpu_percent.map_or("not measured".to_owned(), |cpu| format!("{cpu:.2} % of a core"));
            let shown = format!("{percent} ({} heartbeats in {:.0} s)", idle.heartbeats, idle.seconds);
            table.line(&format!("idle, heartbeat {} s", idle.heartbeat_s), &shown);
            budgets(&mut table, idle.budgets.as_ref(), idle.seconds);
        }
        let back = &self.back;
        let came = format!("{} in {:.2} s, jitter {:.1} s", back.logins, back.back_s, back.jitter_s);
        table.line("all dropped, back", &came);
        table.quantiles_head();
        for (name, traffic) in [("quiet", &self.quiet), ("storm", &self.storm)] {
            table.quantiles(&format!("{name}, delivery"), &traffic.delivery_us);
            table.quantiles(&format!("{name}, ack"), &traffic.ack_us);
        }
        table.line("p99 beside quiet", &format!("{:.2} times", self.p99_ratio));
        for (name, traffic) in [("quiet", &self.quiet), ("storm", &self.storm)] {
            let cpu = traffic.server_cpu_percent.map_or(String::new(), |cpu| format!(", gateway CPU {cpu:.0} %"));
            table.line(name, &format!("{} messages in {:.1} s{cpu}", traffic.delivered, traffic.seconds));
            table.line("  load", &traffic.load.text());
            budgets(&mut table, traffic.budgets.as_ref(), traffic.seconds);
        }
        let wrong = [
            ("unacked", self.unacked),
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("out of order", self.out_of_order),
            ("corrupt", self.corrupt),
        ];
        wrong.into_iter().for_each(|(name, count)| table.line(name, &count.to_string()));
        for (name, count) in self.connections_ended.iter().chain(&self.refusals) {
            table.line(name, &count.to_string());
        }
        table.line("verdict", if self.clean { "nothing lost, everybody back" } else { "NOT CLEAN" });
        table.text().to_owned()
    }
}

fn budgets(table: &mut Table, budgets: Option<&Budgets>, seconds: f64) {
    if let Some(budgets) = budgets {
        table.line("  budgets", &budgets.line(seconds));
    }
}

#[cfg(test)]
mod tests;
