#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;

fn metrics(accept_s: f64, accept_turns: u64) -> Metrics {
    Metrics::parse(&format!(
        "ringway_budget_shares{{shard=\"0\",budget=\"accept\"}} 100\n\
         ringway_budget_shares{{shard=\"0\",budget=\"delivery\"}} 1000\n\
         ringway_budget_busy_seconds_total{{shard=\"0\",budget=\"accept\"}} {accept_s}\n\
         ringway_budget_turns_total{{shard=\"0\",budget=\"accept\"}} {accept_turns}\n\
         ringway_budget_busy_seconds_total{{shard=\"0\",budget=\"delivery\"}} 3\n\
         ringway_budget_turns_total{{shard=\"0\",budget=\"delivery\"}} 9\n"
    ))
}

#[test]
fn a_budget_is_what_was_taken_between_two_looks() {
    let budgets = Budgets::between(&metrics(1.0, 10), &metrics(1.5, 260));
    let accept = Taken { shares: 100.0, busy_ms: 500.0, turns: 250.0 };
    let delivery = Taken { shares: 1_000.0, busy_ms: 0.0, turns: 0.0 };
    let expected = [("accept".to_owned(), accept), ("delivery".to_owned(), delivery)];
    assert_eq!(budgets, Budgets(expected.into()));
    assert_eq!(budgets.line(5.0), "accept 10.0 % (2000 µs a turn), delivery 0.0 % (0 µs a turn)");
}

#[test]
fn the_load_is_told_by_how_busy_and_how_late_it_was() {
    let load = LoadFigures::of(&Effort { busy_ns: 250_000_000, lag_ns_max: 12_300_000 }, 1_000_000_000);
    assert_eq!(load.text(), "busy 25 %, 12.3 ms late at most");
}

#[test]
fn what_was_not_measured_is_absent() {
    let phase = Phase { wall_ns: 2_000_000_000, cpu_ns: None, budgets: None, load: Effort::default() };
    let json = serde_json::to_value(Login::of(100, &phase)).unwrap();
    assert_eq!((json["per_s"].as_f64(), json["server_cpu_percent"].as_f64()), (Some(50.0), None));
    let phase = Phase { cpu_ns: Some(500_000_000), ..phase };
    let json = serde_json::to_value(Login::of(100, &phase)).unwrap();
    assert_eq!((json["server_cpu_us"].as_f64(), json["server_cpu_percent"].as_f64()), (Some(5_000.0), Some(25.0)));
}
