#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;
use crate::check::Tally;
use crate::latency::latencies;

fn round(delivered: u64, burst_ms: f64) -> Round {
    Round {
        messages: 2,
        expected: 10,
        tally: Tally { delivered, ..Tally::default() },
        acked: 2,
        rows_expected: 12,
        rows_stored: Some(12),
        rows_stored_ms: Some(4.0),
        storing_s: Some(0.5),
        burst_ms,
        cpu_ns: Some(20_000),
        ..Round::default()
    }
}

fn report(rounds: Vec<Round>) -> BenchReport {
    let scenario = Scenario { scenario: "group", pace: "burst", members: 6, online: 5, body: 100, ephemeral: false };
    BenchReport::of(scenario, &Rounds { rounds, delivery: latencies(), delivery_across: latencies(), ack: latencies() })
}

#[test]
fn times_are_medians_and_losses_are_sums() {
    let report = report(vec![round(10, 3.0), round(9, 1.0), round(8, 2.0)]);
    assert_eq!((report.burst_ms, report.burst_ms_min, report.burst_ms_max), (2.0, 1.0, 3.0));
    assert_eq!((report.delivered, report.lost, report.clean), (8, 3, false));
    assert_eq!(report.stored_rows_per_s, Some(24.0));
}

#[test]
fn each_kind_of_loss_makes_the_report_not_clean() {
    assert!(report(vec![round(10, 1.0)]).clean);
    let spoil: [fn(&mut Round); 7] = [
        |r| r.tally.delivered = 9,
        |r| r.tally.duplicated = 1,
        |r| r.tally.out_of_order = 1,
        |r| r.tally.corrupt = 1,
        |r| r.acked = 1,
        |r| r.rows_stored = Some(11),
        |r| r.rows_stored = Some(13),
    ];
    for (at, spoil) in spoil.iter().enumerate() {
        let mut spoilt = round(10, 1.0);
        spoil(&mut spoilt);
        assert!(!report(vec![round(10, 1.0), spoilt]).clean, "{at}");
    }
    assert!(!report(vec![]).clean);
}

#[test]
fn the_json_has_the_keys_that_scripts_read() {
    let json = serde_json::to_value(report(vec![round(10, 1.0)])).unwrap();
    for key in [
        "members",
        "online",
        "messages",
        "expected",
        "delivered",
        "lost",
        "duplicated",
        "out_of_order",
        "acked",
        "deferred",
        "rows_expected",
        "rows_stored",
        "rows_stored_ms",
        "burst_ms",
        "deliveries_per_s",
        "server_cpu_us_per_delivery",
    ] {
        assert!(json[key].is_number(), "{key}");
    }
    for (object, quantile) in [("ack_us", "p50"), ("delivery_us", "p999")] {
        assert!(json[object][quantile].is_number(), "{object}.{quantile}");
    }
}

#[test]
fn the_median_of_an_even_number_lies_between() {
    assert_eq!(median(vec![]), None);
    assert_eq!(median(vec![3.0]), Some(3.0));
    assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
    assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
}

#[test]
fn counts_are_written_with_thousands_apart() {
    assert_eq!(
        ["0", "999", "1,000", "30,000", "1,234,567"].map(str::to_owned),
        [0, 999, 1000, 30_000, 1_234_567].map(count)
    );
}
