#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;
use crate::contract::ids::ShardId;
use crate::contract::report::{BUDGETS, Depths, ShardReport, ShellCounters, Spent};
use crate::contract::shard_counters::ShardCounters;
use crate::contract::traffic::TrafficLimit;
use crate::control::snapshot::Readiness;
use ringway_wire::schema::CloseReason;

fn snapshot() -> Snapshot {
    let mut core = ShardCounters { connections: 7, ..ShardCounters::default() };
    core.closes_total[usize::from(CloseReason::BadFrame.0)] = 3;
    core.shed.submissions = 2;
    core.limited.count(TrafficLimit::UserSends);
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
    let mut snapshot = snapshot();
    // Shards and the ledger refuse for the same limits.
    for limit in [TrafficLimit::UserRows, TrafficLimit::UserSends, TrafficLimit::UserSends] {
        snapshot.ledger.counters.limited.count(limit);
    }
    let text = metrics::text(&snapshot, &Readiness::Ready, &room(), None, 0);
    for line in [
        "ringway_ready 1",
        "ringway_connections_max{limited_by=\"memory.available\"} 1000",
        "ringway_connections{shard=\"1\"} 7",
        "ringway_closes_total{shard=\"1\",reason=\"BadFrame\"} 3",
        "ringway_shed_total{shard=\"1\",what=\"submissions\"} 2",
        "ringway_limited_total{limit=\"user_sends\"} 3",
        "ringway_limited_total{limit=\"user_rows\"} 1",
        "ringway_limited_total{limit=\"group_rows\"} 0",
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
    snapshot.take(0, Report::Ledger(Box::default()));
    snapshot.take(0, Report::Store(Box::default()));
    let text = metrics::text(&snapshot, &Readiness::Ready, &room(), Some(1), 0);
    let mut typed = std::collections::HashSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(typed.insert(rest.split(' ').next().unwrap()), "{line} comes twice");
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
            assert!(
                typed.contains(name) || of_histogram.is_some_and(|name| typed.contains(name)),
                "{name} has no type"
            );
            assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
        }
    }
    assert!(typed.len() > 60);
}

/// A row for each metric: its name, its type, and what it means.
fn rows_of_metrics() -> Vec<String> {
    let mut snapshot = snapshot();
    snapshot.take(0, Report::Nodes(Box::default()));
    let text = metrics::text(&snapshot, &Readiness::Ready, &room(), Some(1), 0) + &metrics::webhooks::text(&[]);
    let heads: Vec<&str> = text.lines().filter(|line| line.starts_with('#')).collect();
    let row = |head: &[&str]| {
        let (name, help) = head[0].strip_prefix("# HELP ").unwrap().split_once(' ').unwrap();
        let kind = head[1].rsplit(' ').next().unwrap();
        format!("| `{name}` | {kind} | {} |", help.trim_end_matches('.').replace('|', "\\|"))
    };
    heads.chunks(2).map(row).collect()
}

#[test]
fn the_page_lists_every_metric_that_is_served_and_no_other() {
    let page = include_str!("README.md");
    let listed: Vec<&str> =
        page.lines().filter(|line| line.starts_with("| `ringway_") || line.starts_with("| `process_")).collect();
    let served = rows_of_metrics();
    assert_eq!(listed, served, "the table of src/control/README.md should be:\n{}", served.join("\n"));
}

#[test]
fn dashboard_and_alerts_name_no_metric_that_is_not_served() {
    let rows = rows_of_metrics();
    let served: Vec<&str> = rows.iter().filter_map(|row| row.split('`').nth(1)).collect();
    for (file, least) in [
        (include_str!("../../tuning/grafana/dashboard.json"), 30),
        (include_str!("../../tuning/grafana/alerts.yml"), 10),
    ] {
        let words = file.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let named: std::collections::BTreeSet<&str> =
            words.filter(|word| word.starts_with("ringway_") || word.starts_with("process_")).collect();
        assert!(named.len() >= least, "{named:?}");
        for name in named {
            assert!(served.contains(&name.trim_end_matches("_bucket")), "{name} is not served");
        }
    }
}

#[test]
fn a_histogram_counts_each_duration_in_all_buckets_from_its_own_on() {
    let mut snapshot = snapshot();
    for us in [40, 900, 20_000_000] {
        snapshot.ledger.counters.syncs.record(us);
    }
    let text = metrics::text(&snapshot, &Readiness::Ready, &room(), None, 0);
    for line in [
        "# TYPE ringway_ledger_sync_seconds histogram",
        "ringway_ledger_sync_seconds_bucket{le=\"0.00005\"} 1",
        "ringway_ledger_sync_seconds_bucket{le=\"0.0005\"} 1",
        "ringway_ledger_sync_seconds_bucket{le=\"0.001\"} 2",
        "ringway_ledger_sync_seconds_bucket{le=\"10\"} 2",
        "ringway_ledger_sync_seconds_bucket{le=\"+Inf\"} 3",
        "ringway_ledger_sync_seconds_sum 20.00094",
        "ringway_ledger_sync_seconds_count 3",
        "ringway_delivery_seconds_count{shard=\"1\"} 0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is missing in:\n{text}");
    }
}

#[test]
fn counters_of_the_store_and_the_ledger_are_there_before_their_first_report() {
    let text = metrics::text(&Snapshot::default(), &Readiness::Ready, &room(), None, 0);
    for line in [
        "ringway_store_rows_total 0",
        "ringway_store_unavailable 0",
        "ringway_store_refusals_total{cause=\"full\"} 0",
        "ringway_ledger_messages_total 0",
        "ringway_journal_full 0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is missing in:\n{text}");
    }
    assert!(!text.contains("ringway_journal_disk_free_bytes"), "what is not known is not called 0");
}

#[test]
fn a_gateway_that_is_ready_and_degraded_says_both_as_metrics() {
    let check = |readiness, ready: u64, degraded: u64| {
        let text = metrics::text(&Snapshot::default(), &readiness, &room(), Some(7), 0);
        let lines = [format!("ringway_ready {ready}"), format!("ringway_degraded {degraded}")];
        assert!(lines.iter().all(|line| text.lines().any(|l| l == line)), "{lines:?} in:\n{text}");
        assert!(text.lines().any(|l| l == "ringway_journal_disk_free_bytes 7"), "{text}");
    };
    check(Readiness::Ready, 1, 0);
    check(Readiness::Degraded("x".to_owned()), 1, 1);
    check(Readiness::NotReady(vec!["x".to_owned()]), 0, 0);
}

/// A snapshot of a gateway whose shards and ledger have reported just now.
fn reported() -> Snapshot {
    let mut snapshot = snapshot();
    snapshot.shards[0] = snapshot.shards[1].clone();
    snapshot.ledger_at_ms = 1_000;
    snapshot
}

#[test]
fn not_being_ready_says_why() {
    let check = |snapshot: &Snapshot, stage, now_ms, expected: &[&str]| {
        let reasons = match snapshot.readiness(stage, now_ms) {
            Readiness::NotReady(reasons) => reasons,
            Readiness::Ready => Vec::new(),
            Readiness::Degraded(what) => panic!("{what}"),
        };
        assert_eq!(reasons.len(), expected.len(), "{reasons:?}");
        for (reason, expected) in reasons.iter().zip(expected) {
            assert!(reason.contains(expected), "{reason}");
        }
    };
    let mut snapshot = snapshot();
    check(&snapshot, Stage::Serving, 2_000, &[]);
    check(&snapshot, Stage::Starting, 2_000, &["starting"]);
    check(&snapshot, Stage::WaitingForStore, 2_000, &["waiting for the store"]);
    check(&snapshot, Stage::Draining, 2_000, &["draining"]);
    snapshot.take(8_000, Report::Ledger(Box::default()));
    snapshot.serving_since_ms = 5_000;
    check(&snapshot, Stage::Serving, 9_000, &[]);
    // Shard 0 has never reported: it has as long from the first client on.
    check(&snapshot, Stage::Serving, 10_001, &["shard 0 has not reported", "shard 1 has not reported"]);
    check(&snapshot, Stage::Draining, 10_001, &["draining"]);
    check(&snapshot, Stage::Serving, 13_001, &["shard 0", "shard 1", "the ledger has not reported"]);
}

#[test]
fn who_refuses_messages_is_not_ready_whatever_the_database_does() {
    let mut snapshot = reported();
    snapshot.ledger.counters.journal_full = 1;
    for unavailable in [0, 1] {
        snapshot.store.unavailable = unavailable;
        let Readiness::NotReady(reasons) = snapshot.readiness(Stage::Serving, 2_000) else { panic!("it refuses") };
        assert!(reasons.len() == 1 && reasons[0].contains("STORAGE_FULL"), "{reasons:?}");
        assert!(!reasons[0].contains("kept in the journal"), "what is refused is kept nowhere: {reasons:?}");
    }
}

#[test]
fn who_takes_and_delivers_messages_is_ready_though_the_database_is_away_and_says_what_that_costs() {
    let mut snapshot = reported();
    let degraded = |snapshot: &Snapshot| match snapshot.readiness(Stage::Serving, 2_000) {
        Readiness::Degraded(what) => what,
        other => panic!("{other:?}"),
    };
    snapshot.take(1_000, Report::Store(Box::new(StoreCounters { unavailable: 1, ..StoreCounters::default() })));
    assert!(degraded(&snapshot).contains("cannot be read while it does not answer"));
    snapshot.take(1_000, Report::Store(Box::new(StoreCounters { broken: 1, ..StoreCounters::default() })));
    assert!(degraded(&snapshot).contains("contradict"));
    snapshot.take(1_000, Report::Store(Box::default()));
    assert_eq!(snapshot.readiness(Stage::Serving, 2_000), Readiness::Ready);
}
