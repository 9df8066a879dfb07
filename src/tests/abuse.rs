//! `bench abuse --together`, small: the pair's messages all come and are stored, and nobody honest is refused.
//!
//! With attacks that owe the store nothing: how soon a store serves a newcomer that has as much to write as it can is the
//! machine's too, and is for the bench to show and not for a debug build beside other tests.

use std::process::Command;

use serde_json::Value;

#[test]
fn under_several_attacks_at_once_nothing_of_a_pairs_is_lost_and_a_newcomer_is_served() {
    let output = Command::new(env!("CARGO_BIN_EXE_ringway"))
        .args(["bench", "abuse", "--together", "1", "--seconds", "1", "--rate", "20", "--json"])
        .args(["--attack", "typing", "--attack", "presence", "--attack", "pings"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert!(output.status.success(), "{report:#}\n{said}");
    assert_eq!((&report["clean"], &report["ended_well"]), (&true.into(), &true.into()));
    let stretches = report["stretches"].as_array().unwrap();
    assert!(!stretches.is_empty());
    for stretch in stretches {
        let bytes = |name: &str| stretch[name].as_u64().unwrap();
        assert!(bytes("own_bytes") > 0 && bytes("own_bytes") < bytes("resident_bytes"), "{stretch}");
        assert!(stretch["newcomer_ms"].as_f64().unwrap() > 0.0, "{stretch}");
    }
    // 20 messages before, and 20 in each stretch: a row for each of two.
    assert_eq!(report["rows_stored"].as_u64().unwrap(), 40 * (1 + stretches.len() as u64));
    let attacks: Vec<&str> =
        report["attacks"].as_array().unwrap().iter().filter_map(|it| it["attack"].as_str()).collect();
    assert_eq!(attacks, ["typing", "presence", "pings"]);
}
