//! The figures of a bench: one object for machines, one table for people.
//!
//! What always holds: the counts of losses are sums over all rounds and the counts of successes the worst
//! round's, so neither hides a bad round; times are medians over the rounds.

use serde::Serialize;

use super::latency::Quantiles;
use super::rounds::{Round, Rounds};
use super::table::{Table, count};

/// What the round was made of.
#[derive(Clone, Serialize, Debug)]
pub(crate) struct Scenario {
    /// `group` or `direct`.
    pub scenario: &'static str,
    /// `burst`, `rate` or `flood`.
    pub pace: &'static str,
    /// Everybody who gets rows.
    pub members: u64,
    /// Recipients who are online, senders left out.
    pub online: u64,
    /// Bytes of a body.
    pub body: u64,
    /// Not numbered, not stored.
    pub ephemeral: bool,
}

/// The report as `--json` prints it.
#[derive(Clone, Serialize, Debug)]
pub(crate) struct BenchReport {
    #[serde(flatten)]
    pub scenario: Scenario,
    pub rounds: u64,
    pub messages: u64,
    pub expected: u64,
    pub delivered: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub out_of_order: u64,
    pub corrupt: u64,
    pub acked: u64,
    pub deferred: u64,
    pub rows_expected: u64,
    pub rows_stored: Option<u64>,
    pub rows_stored_ms: Option<f64>,
    pub stored_rows_per_s: Option<f64>,
    pub burst_ms: f64,
    pub burst_ms_min: f64,
    pub burst_ms_max: f64,
    pub deliveries_per_s: f64,
    pub server_cpu_us_per_delivery: Option<f64>,
    pub server_cpu_us_per_delivery_stored: Option<f64>,
    pub ack_us: Quantiles,
    pub delivery_us: Quantiles,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery_across_us: Option<Quantiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stalled: Option<Stall>,
    pub clean: bool,
}

/// What members who did not read changed.
#[derive(Clone, Serialize, Debug)]
pub(crate) struct Stall {
    pub stalled: u64,
    pub delivery_us_without: Quantiles,
    pub p99_ratio: f64,
    pub caught_up_ms: f64,
    pub resident_growth_bytes: Option<u64>,
}

impl BenchReport {
    /// Sums up rounds.
    pub(crate) fn of(scenario: Scenario, all: &Rounds) -> BenchReport {
        let rounds = &all.rounds;
        let least = |value: fn(&Round) -> u64| rounds.iter().map(value).min().unwrap_or(0);
        let sum = |value: fn(&Round) -> u64| rounds.iter().map(value).sum::<u64>();
        let middle = |value: fn(&Round) -> Option<f64>| median(rounds.iter().filter_map(value).collect());
        let burst: Vec<f64> = rounds.iter().map(|r| r.burst_ms).collect();
        BenchReport {
            scenario,
            rounds: rounds.len() as u64,
            messages: least(|r| r.messages),
            expected: least(|r| r.expected),
            delivered: least(|r| r.tally.delivered),
            lost: sum(Round::lost),
            duplicated: sum(|r| r.tally.duplicated),
            out_of_order: sum(|r| r.tally.out_of_order),
            corrupt: sum(|r| r.tally.corrupt),
            acked: least(|r| r.acked),
            deferred: sum(|r| r.deferred),
            rows_expected: least(|r| r.rows_expected),
            rows_stored: rounds.iter().map(|r| r.rows_stored).min().flatten(),
            rows_stored_ms: middle(|r| r.rows_stored_ms),
            stored_rows_per_s: middle(|r| per(r.rows_stored? as f64, r.storing_s?)),
            burst_ms: median(burst.clone()).unwrap_or(0.0),
            burst_ms_min: burst.iter().copied().fold(f64::INFINITY, f64::min),
            burst_ms_max: burst.iter().copied().fold(0.0, f64::max),
            deliveries_per_s: middle(|r| per(r.tally.delivered as f64, r.burst_ms / 1e3)).unwrap_or(0.0),
            server_cpu_us_per_delivery: middle(|r| per(r.cpu_ns? as f64 / 1e3, r.tally.delivered as f64)),
            server_cpu_us_per_delivery_stored: middle(|r| per(r.cpu_stored_ns? as f64 / 1e3, r.tally.delivered as f64)),
            ack_us: Quantiles::of(&all.ack),
            delivery_us: Quantiles::of(&all.delivery),
            delivery_across_us: (!all.delivery_across.is_empty()).then(|| Quantiles::of(&all.delivery_across)),
            stalled: None,
            clean: !rounds.is_empty() && rounds.iter().all(Round::is_clean),
        }
    }

    /// Sums up pairs of rounds, the one without and the other with some who do not read. Their p99s are compared pair by
    /// pair, and the median tells: what else the machine does hits both alike, or only few pairs.
    pub(crate) fn of_pairs(scenario: Scenario, without: &Rounds, with: &Rounds, stalled: u64) -> BenchReport {
        let before = BenchReport::of(scenario.clone(), without);
        if with.rounds.is_empty() {
            return before;
        }
        let p99 = |round: &Round| round.delivery_p99_ns as f64;
        let pairs = std::iter::zip(&without.rounds, &with.rounds);
        let ratio = median(pairs.filter_map(|(without, with)| per(p99(with), p99(without))).collect());
        let mut report = BenchReport::of(scenario, with);
        report.stalled = Some(Stall {
            stalled,
            delivery_us_without: before.delivery_us,
            p99_ratio: ratio.unwrap_or(0.0),
            caught_up_ms: with.rounds.iter().filter_map(|r| r.caught_up_ms).fold(0.0, f64::max),
            resident_growth_bytes: with.rounds.iter().filter_map(|r| r.resident_growth_bytes).max(),
        });
        report.clean &= before.clean;
        report
    }

    /// As a table.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::default();
        let s = &self.scenario;
        table.line(
            s.scenario,
            &format!(
                "{} members, {} online, {} messages ({}), {} B bodies{}",
                s.members,
                s.online,
                count(self.messages),
                s.pace,
                s.body,
                if s.ephemeral { ", ephemeral" } else { "" }
            ),
        );
        table.line("rounds", &format!("{} after a warm-up", self.rounds));
        table.line("deliveries expected", &count(self.expected));
        table.line("deliveries arrived", &count(self.delivered));
        table.line("lost", &count(self.lost));
        table.line("duplicated", &count(self.duplicated));
        table.line("out of order", &count(self.out_of_order));
        table.line("corrupt", &count(self.corrupt));
        table.line("acks", &count(self.acked));
        if self.deferred > 0 {
            table.line("refused, sent again", &count(self.deferred));
        }
        if !s.ephemeral {
            let stored = self.rows_stored.map_or("not counted".to_owned(), count);
            table.line("inbox rows stored", &format!("{stored} of {}", count(self.rows_expected)));
        }
        let spread = format!("({:.2} to {:.2})", self.burst_ms_min, self.burst_ms_max);
        table.line("to the last delivery", &format!("{:.2} ms {spread}", self.burst_ms));
        if let Some(ms) = self.rows_stored_ms {
            table.line("then to the last row", &format!("{ms:.1} ms"));
        }
        table.line("deliveries per second", &count(self.deliveries_per_s as u64));
        if let Some(rows) = self.stored_rows_per_s {
            table.line("stored rows per second", &count(rows as u64));
        }
        if let Some(us) = self.server_cpu_us_per_delivery {
            table.line("gateway CPU per delivery", &format!("{us:.3} µs"));
        }
        if let Some(us) = self.server_cpu_us_per_delivery_stored {
            table.line("  all rows stored", &format!("{us:.3} µs"));
        }
        table.quantiles_head();
        table.quantiles("ack", &self.ack_us);
        table.quantiles("delivery", &self.delivery_us);
        if let Some(across) = &self.delivery_across_us {
            table.quantiles("delivery to other nodes", across);
        }
        if let Some(stall) = &self.stalled {
            table.quantiles("delivery, none stalled", &stall.delivery_us_without);
            table.line("stalled", &format!("{} of {}", stall.stalled, s.online));
            table.line("p99 beside none stalled", &format!("{:.2} times (median of {})", stall.p99_ratio, self.rounds));
            table.line("the stalled caught up in", &format!("{:.1} ms", stall.caught_up_ms));
            if let Some(bytes) = stall.resident_growth_bytes {
                table.line("gateway memory grew by", &format!("{} KiB", count(bytes / 1024)));
            }
        }
        table.line("verdict", if self.clean { "nothing lost" } else { "NOT CLEAN" });
        table.text().to_owned()
    }
}

/// The middle of some values; `None` of none.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().saturating_sub(1) / 2)?, values.get(values.len() / 2)?);
    Some((low + high) / 2.0)
}

fn per(what: f64, over: f64) -> Option<f64> {
    (over > 0.0).then(|| what / over)
}

#[cfg(test)]
mod tests;
