//! `bench storm`, small: everybody comes back, nothing is lost, and the shard's time is told by budget.

use std::process::Command;

use serde_json::Value;

#[test]
fn a_small_storm_loses_nothing_and_tells_what_each_budget_took() {
    let output = Command::new(env!("CARGO_BIN_EXE_ringway"))
        .args(["bench", "storm", "--connections", "300", "--rate", "100", "--json"])
        .args(["--idle", "2", "--quiet", "1", "--jitter", "1"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert!(output.status.success(), "{report:#}\n{said}");
    let number = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer}"));
    for pointer in ["/unacked", "/lost", "/duplicated", "/out_of_order", "/corrupt"] {
        assert_eq!(number(pointer), 0.0, "{pointer}");
    }
    // What an idle crowd costs follows from its heartbeat.
    assert_eq!((number("/idle/0/heartbeat_s"), number("/idle/1/heartbeat_s")), (25.0, 60.0));
    assert!(number("/idle/0/heartbeats") > number("/idle/1/heartbeats"), "{report:#}");
    assert_eq!((number("/return/logins"), number("/still_connected")), (300.0, 300.0));
    // A quarter of what the rate asks for at least, on however busy a machine.
    assert!(number("/quiet/delivered") >= 25.0 && number("/storm/delivered") > 0.0, "{report:#}");
    assert!(number("/storm/delivery_us/p99") > 0.0 && number("/p99_ratio") > 0.0);
    // Who logs in does so on one budget, messages are delivered on another, and while all is quiet nobody logs in.
    for (phase, budget) in [("login", "accept"), ("storm", "accept"), ("quiet", "sessions"), ("quiet", "delivery")] {
        assert!(number(&format!("/{phase}/budgets/{budget}/busy_ms")) > 0.0, "{phase}, {budget}: {report:#}");
    }
    assert_eq!(number("/quiet/budgets/accept/busy_ms"), 0.0, "{report:#}");
}
