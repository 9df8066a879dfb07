#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;
use crate::contract::report::Depths;
use crate::contract::report::ShellCounters;
use crate::contract::report::{BUDGETS, Spent};
use crate::contract::shard_counters::ShardCounters;
use ringway_wire::schema::CloseReason;

fn snapshot() -> Snapshot {
    let mut core = ShardCounters { connections: 7, ..ShardCounters::default() };
    core.closes_total[usize::from(CloseReason::BadFrame.0)] = 3;
    core.shed.submissions = 2;
    let spent = Spent { name: "accept", shares: 100, busy_ns: 1_500_000_000, turns: 7 };
    let report = ShardReport {
        shard: ShardId(1),
        core,
        shell: ShellCounters::default(),
        depths: Depths::default(),
        store_asks: 0,
        budgets: [spent; BUDGETS],
    };
    let mut snapshot = Snapshot { shards: vec![None; 2], ..Snapshot::default() };
    snapshot.take(1_000, Report::Shard(Box::new(report)));
    snapshot
}

fn room() -> Room {
    Room { connections_max: 1_000, limited_by: "memory.available".to_owned() }
}

#[test]
fn metrics_name_the_shard_the_close_reason_what_was_full_and_the_budget() {
    let text = metrics::text(&snapshot(), true, &room());
    for line in [
        "ringway_ready 1",
        "ringway_connections_max{limited_by=\"memory.available\"} 1000",
        "ringway_connections{shard=\"1\"} 7",
        "ringway_closes_total{shard=\"1\",reason=\"BadFrame\"} 3",
        "ringway_shed_total{shard=\"1\",what=\"submissions\"} 2",
        "ringway_budget_shares{shard=\"1\",budget=\"accept\"} 100",
        "ringway_budget_busy_seconds_total{shard=\"1\",budget=\"accept\"} 1.5",
        "ringway_budget_turns_total{shard=\"1\",budget=\"accept\"} 7",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is missing in:\n{text}");
    }
}

#[test]
fn every_metric_has_its_type_before_its_first_value() {
    let mut snapshot = snapshot();
    snapshot.take(0, Report::Ledger(LedgerReport::default()));
    snapshot.take(0, Report::Store(Box::default()));
    let text = metrics::text(&snapshot, true, &room());
    let mut typed = std::collections::HashSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(typed.insert(rest.split(' ').next().unwrap()), "{line} comes twice");
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            assert!(typed.contains(name), "{name} has no type");
            assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
        }
    }
    assert!(typed.len() > 60);
}

#[test]
fn not_being_ready_says_why() {
    let check = |snapshot: &Snapshot, stage, now_ms, expected: &[&str]| {
        let reasons = snapshot.reasons_not_ready(stage, now_ms, 1_000);
        assert_eq!(reasons.len(), expected.len(), "{reasons:?}");
        for (reason, expected) in reasons.iter().zip(expected) {
            assert!(reason.contains(expected), "{reason}");
        }
    };
    let mut snapshot = snapshot();
    check(&snapshot, Stage::Serving, 2_000, &[]);
    check(&snapshot, Stage::Starting, 2_000, &["starting"]);
    check(&snapshot, Stage::Draining, 2_000, &["draining"]);
    snapshot.take(8_000, Report::Ledger(LedgerReport::default()));
    snapshot.serving_since_ms = 5_000;
    check(&snapshot, Stage::Serving, 9_000, &[]);
    // Shard 0 has never reported: it has as long from the first client on.
    check(&snapshot, Stage::Serving, 10_001, &["shard 0 has not reported", "shard 1 has not reported"]);
    check(&snapshot, Stage::Draining, 10_001, &["draining"]);
    check(&snapshot, Stage::Serving, 13_001, &["shard 0", "shard 1", "the ledger has not reported"]);
    let away = StoreCounters { unavailable: 1, durable: 5_000, secured: 4_000, ..StoreCounters::default() };
    snapshot.take(0, Report::Store(Box::new(away)));
    check(&snapshot, Stage::Serving, 2_000, &["store takes no writes", "journal is full"]);
}
