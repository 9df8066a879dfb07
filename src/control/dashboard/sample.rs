//! The figures of a second, and those of the last hour.
//!
//! Made of what the threads have reported. What always holds: what was not reported is `null` and not 0; rates are over the time
//! between two reports, so that it makes no difference when it is looked; there are at most `DASHBOARD_SAMPLES_MAX` seconds.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ringway_wire::request::reason_name;
use ringway_wire::schema::CloseReason;
use serde::Serialize;
use serde_json::{Value, json};

use crate::VERSION;
use crate::contract::latencies::Latencies;
use crate::contract::report::{LedgerReport, ShardReport};
use crate::control::http::Facts;
use crate::control::metrics::shed;
use crate::control::operate::name_of;
use crate::control::snapshot::{Readiness, Snapshot};
use crate::control::webhooks::status::Webhook;
use crate::limits::DASHBOARD_SAMPLES_MAX;

/// What is known of each second, in this order.
const COLUMNS: [&str; 19] = [
    "connections",
    "sessions",
    "behind",
    "logins",
    "messages",
    "deliveries",
    "frames_in",
    "bytes_out",
    "delivery_p50",
    "delivery_p99",
    "ack_p50",
    "ack_p99",
    "sync_p99",
    "submissions",
    "mailboxes",
    "store_asks",
    "outbox_bytes",
    "lag_bytes",
    "lag_s",
];
type Values = [Option<f64>; COLUMNS.len()];

/// Percentiles are over so many seconds.
const LATENCY_SAMPLES: usize = 5;
/// A rate holds so long without another report.
const RATE_HOLDS_MS: u64 = 3_000;

/// A second.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Sample {
    /// Unix milliseconds.
    at_ms: u64,
    values: Values,
    /// The part of its time that each shard was busy.
    loads: Vec<Option<f64>>,
}

/// A second, and what is known besides.
#[derive(Serialize)]
pub(super) struct Second {
    sample: Sample,
    state: Value,
}

/// The last hour.
#[derive(Serialize)]
pub(super) struct History {
    columns: [&'static str; COLUMNS.len()],
    samples: VecDeque<Sample>,
    #[serde(skip)]
    node: u16,
    #[serde(skip)]
    shards: Vec<ShardBefore>,
    #[serde(skip)]
    ledger: Option<(u64, LedgerReport)>,
    #[serde(skip)]
    messages: Rate,
    #[serde(skip)]
    deliveries: Window,
    #[serde(skip)]
    acks: Window,
    #[serde(skip)]
    syncs: Window,
}

/// A shard's report before, and what it came to.
#[derive(Clone, Default)]
struct ShardBefore {
    report: Option<(u64, Arc<ShardReport>)>,
    logins: Rate,
    deliveries: Rate,
    frames_in: Rate,
    bytes_out: Rate,
    busy: Rate,
}

/// So many a second, as two reports have it.
#[derive(Clone, Copy, Default)]
struct Rate {
    per_s: Option<f64>,
    at_ms: u64,
}

impl Rate {
    fn take(&mut self, at_ms: u64, before: (u64, u64), now: u64) {
        let (before_ms, before) = before;
        let elapsed_ms = at_ms.saturating_sub(before_ms);
        if elapsed_ms > 0 {
            *self = Rate { per_s: Some(now.saturating_sub(before) as f64 * 1e3 / elapsed_ms as f64), at_ms };
        }
    }

    fn at(&self, now_ms: u64) -> Option<f64> {
        self.per_s.filter(|_| now_ms.saturating_sub(self.at_ms) <= RATE_HOLDS_MS)
    }
}

/// Durations of the last seconds.
#[derive(Default)]
struct Window(VecDeque<Latencies>);

impl Window {
    fn push(&mut self, second: Latencies) {
        self.0.push_back(second);
        while self.0.len() > LATENCY_SAMPLES {
            self.0.pop_front();
        }
    }

    /// Milliseconds.
    fn quantile(&self, part: f64) -> Option<f64> {
        let all = self.0.iter().fold(Latencies::default(), Latencies::with);
        all.quantile_us(part).map(|us| us / 1e3)
    }
}

impl History {
    pub(super) fn new(node: u16) -> History {
        History {
            columns: COLUMNS,
            samples: VecDeque::new(),
            node,
            shards: Vec::new(),
            ledger: None,
            messages: Rate::default(),
            deliveries: Window::default(),
            acks: Window::default(),
            syncs: Window::default(),
        }
    }

    /// Takes the next second's figures.
    pub(super) fn take(&mut self, facts: &Facts) -> Second {
        let snapshot = Arc::clone(&facts.snapshot.borrow());
        let now = facts.clock.now();
        self.follow(&snapshot);
        let (values, loads) = self.values(&snapshot, now.mono_ms);
        let sample = Sample { at_ms: now.unix_ms, values, loads };
        if self.samples.len() == DASHBOARD_SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(sample.clone());
        Second { state: state(facts, &snapshot, self.node, now.mono_ms, &sample), sample }
    }

    /// What came since the last second.
    fn follow(&mut self, snapshot: &Snapshot) {
        self.shards.resize(snapshot.shards.len(), ShardBefore::default());
        let (mut deliveries, mut acks) = (Latencies::default(), Latencies::default());
        for (before, now) in self.shards.iter_mut().zip(&snapshot.shards) {
            let Some((at_ms, report)) = now else { continue };
            if let Some((before_ms, last)) = before.report.replace((*at_ms, Arc::clone(report))) {
                before.take(*at_ms, report, before_ms, &last);
                deliveries = deliveries.with(&report.shell.deliveries.since(&last.shell.deliveries));
                acks = acks.with(&report.shell.acks.since(&last.shell.acks));
            }
        }
        self.deliveries.push(deliveries);
        self.acks.push(acks);
        let mut syncs = Latencies::default();
        if snapshot.ledger_at_ms > 0 {
            let (at_ms, report) = (snapshot.ledger_at_ms, snapshot.ledger);
            if let Some((before_ms, last)) = self.ledger.replace((at_ms, report)) {
                self.messages.take(at_ms, (before_ms, last.counters.messages), report.counters.messages);
                syncs = report.counters.syncs.since(&last.counters.syncs);
            }
        }
        self.syncs.push(syncs);
    }

    fn values(&self, snapshot: &Snapshot, now_ms: u64) -> (Values, Vec<Option<f64>>) {
        let sum = |figure: fn(&ShardReport) -> u64| {
            let reports: Option<Vec<u64>> =
                snapshot.shards.iter().map(|it| it.as_ref().map(|(_, report)| figure(report))).collect();
            reports.map(|all| all.iter().sum::<u64>() as f64)
        };
        let rate = |rate: fn(&ShardBefore) -> &Rate| {
            let rates: Option<Vec<f64>> = self.shards.iter().map(|it| rate(it).at(now_ms)).collect();
            rates.map(|all| all.iter().sum::<f64>())
        };
        let has_ledger = snapshot.ledger_at_ms > 0;
        let lag_bytes = snapshot.store.durable.saturating_sub(snapshot.store.applied);
        let has_store = snapshot.store.durable > 0;
        let values = [
            sum(|it| it.core.connections),
            sum(|it| it.core.sessions),
            sum(|it| it.core.sessions_behind),
            rate(|it| &it.logins),
            self.messages.at(now_ms),
            rate(|it| &it.deliveries),
            rate(|it| &it.frames_in),
            rate(|it| &it.bytes_out),
            self.deliveries.quantile(0.5),
            self.deliveries.quantile(0.99),
            self.acks.quantile(0.5),
            self.acks.quantile(0.99),
            self.syncs.quantile(0.99),
            has_ledger.then_some(snapshot.ledger.submissions as f64),
            sum(|it| it.depths.commits + it.depths.lanes + it.depths.answers),
            snapshot.shards.iter().flatten().map(|(_, it)| it.store_asks as f64).reduce(f64::max),
            sum(|it| it.core.outbox_bytes),
            has_store.then_some(lag_bytes as f64),
            has_store.then_some(snapshot.store_lag.ms(now_ms) as f64 / 1e3),
        ];
        let loads = self.shards.iter().map(|it| it.busy.at(now_ms).map(|ns| rounded((ns / 1e9).min(1.0)))).collect();
        (values.map(|value| value.map(rounded)), loads)
    }
}

impl ShardBefore {
    fn take(&mut self, at_ms: u64, now: &ShardReport, before_ms: u64, before: &ShardReport) {
        let pushes = |it: &ShardReport| {
            it.core.pushes_live_total + it.core.pushes_caught_up_total + it.core.pushes_ephemeral_total
        };
        let busy = |it: &ShardReport| it.budgets.iter().map(|spent| spent.busy_ns).sum::<u64>();
        self.logins.take(at_ms, (before_ms, before.core.logins_total), now.core.logins_total);
        self.deliveries.take(at_ms, (before_ms, pushes(before)), pushes(now));
        self.frames_in.take(at_ms, (before_ms, before.core.frames_in_total), now.core.frames_in_total);
        self.bytes_out.take(at_ms, (before_ms, before.core.bytes_out_total), now.core.bytes_out_total);
        self.busy.take(at_ms, (before_ms, busy(before)), busy(now));
    }
}

/// Three places behind the point are enough for whoever looks.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// What is known besides, as of now.
fn state(facts: &Facts, snapshot: &Snapshot, node: u16, now_ms: u64, sample: &Sample) -> Value {
    let stage = *facts.stage.borrow();
    let (ready, degraded, reasons) = match facts.readiness() {
        Readiness::Ready => (true, false, Vec::new()),
        Readiness::Degraded(what) => (true, true, vec![what]),
        Readiness::NotReady(reasons) => (false, false, reasons),
    };
    let (mut closes, mut sheds): (BTreeMap<String, u64>, BTreeMap<&str, u64>) = Default::default();
    for (_, report) in snapshot.shards.iter().flatten() {
        for (reason, count) in report.core.closes_total.iter().enumerate().filter(|(_, count)| **count > 0) {
            *closes.entry(reason_name(CloseReason(reason as u16)).to_owned()).or_default() += count;
        }
        for (what, count) in shed(&report.core).filter(|(_, count)| *count > 0) {
            *sheds.entry(what).or_default() += count;
        }
    }
    let shard = |(at, it): (usize, &Option<(u64, Arc<ShardReport>)>)| {
        let load = sample.loads.get(at).copied().flatten();
        match it {
            None => json!({"shard": at, "load": load}),
            Some((at_ms, report)) => json!({
                "shard": at, "load": load, "connections": report.core.connections, "sessions": report.core.sessions,
                "behind": report.core.sessions_behind, "outbox_bytes": report.core.outbox_bytes,
                "commits": report.depths.commits, "lanes": report.depths.lanes, "answers": report.depths.answers,
                "reported_ago_ms": now_ms.saturating_sub(*at_ms),
            }),
        }
    };
    let (ledger, store) = (&snapshot.ledger.counters, &snapshot.store);
    let webhook = |it: Webhook| json!({"webhook": it.webhook, "state": it.state, "behind_bytes": it.behind_bytes});
    json!({
        "version": VERSION, "node": node, "stage": name_of(stage), "ready": ready, "degraded": degraded,
        "reasons": reasons, "up_ms": now_ms, "connections_max": facts.room.connections_max,
        "connections_limited_by": facts.room.limited_by, "closes": closes, "shed": sheds,
        "journal": {"full": ledger.journal_full != 0, "disk_free_bytes": facts.journal_disk_free_bytes(),
            "bytes_total": ledger.bytes, "commits_total": ledger.commits},
        "ledger": {"messages_total": ledger.messages, "rows_total": ledger.rows, "repeats_total": ledger.repeats},
        "store": {"known": store.durable > 0 || store.transactions > 0, "unavailable": store.unavailable != 0,
            "broken": store.broken != 0, "rows_total": store.rows, "messages_total": store.messages,
            "transactions_total": store.transactions, "retries_total": store.retries,
            "tail_weight": store.tail_weight},
        "cluster": snapshot.nodes.as_ref().map(|nodes| json!({"others": nodes.others,
            "stands_still": ledger.stands_still.map(|why| why.said()), "clock_skew_ms": ledger.clock_skew_ms})),
        "shards": snapshot.shards.iter().enumerate().map(shard).collect::<Vec<_>>(),
        "webhooks": facts.webhooks.shown().into_iter().map(webhook).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_over_the_time_between_two_reports_and_holds_for_a_while() {
        let mut rate = Rate::default();
        assert_eq!(rate.at(0), None);
        rate.take(3_000, (1_000, 100), 300);
        assert_eq!((rate.at(3_000), rate.at(6_000), rate.at(6_001)), (Some(100.0), Some(100.0), None));
        // The same report again says nothing new.
        rate.take(3_000, (3_000, 300), 300);
        assert_eq!(rate.at(3_500), Some(100.0));
    }

    #[test]
    fn percentiles_are_of_the_last_seconds_and_nothing_is_said_of_nothing() {
        let mut window = Window::default();
        assert_eq!(window.quantile(0.5), None);
        let mut slow = Latencies::default();
        slow.record(900_000);
        window.push(slow);
        assert!(window.quantile(0.99).is_some_and(|ms| (500.0..=1_000.0).contains(&ms)));
        for _ in 0..LATENCY_SAMPLES {
            window.push(Latencies::default());
        }
        assert_eq!(window.quantile(0.99), None);
    }
}
