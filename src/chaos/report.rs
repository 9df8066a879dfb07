//! What is printed in the end: what was done how often, what the history holds, and the verdict.

use std::collections::BTreeMap;
use std::path::Path;

use crate::checker::{Evidence, Findings};

/// Prints all of it; whether all is well, and something was sent, delivered and disturbed.
pub(crate) fn print(evidence: &Evidence, findings: &Findings, report: &Path, seed: u64) -> bool {
    println!("\nwhat was done:");
    for (name, count) in &evidence.faults {
        println!("  {count:5}  {name}");
    }
    println!("what the history holds:");
    let counts = [
        ("messages sent", evidence.sent() as u64),
        ("acked", evidence.acked),
        ("of these as repeats", evidence.repeats),
        ("rows delivered to devices", evidence.deliveries),
        ("rows in the inboxes", evidence.inbox_rows() as u64),
        ("rows in the database", evidence.stored_rows() as u64),
        ("gaps announced", evidence.gaps),
        ("logins", evidence.logins),
    ];
    for (name, count) in counts {
        println!("  {count:7}  {name}");
    }
    print_counts("refused for now", &evidence.delays);
    print_counts("connections ended", &evidence.disconnects);
    for (kind, count, words) in findings.all() {
        println!("{kind:?}: {count}");
        for words in words {
            println!("  {words}");
        }
    }
    let disturbed = !evidence.faults.is_empty();
    let happened = evidence.acked > 0 && evidence.deliveries > 0 && evidence.stored_rows() > 0 && disturbed;
    let verdict = match (findings.is_empty(), happened) {
        (true, true) => "well: nothing lost, duplicated, reordered, resurrected or unexpected",
        (true, false) => "shows nothing: nothing was sent, delivered, stored or disturbed",
        (false, _) => "NOT WELL",
    };
    println!("verdict (seed {seed}): {verdict}; the history and the logs are in {}", report.display());
    findings.is_empty() && happened
}

fn print_counts(name: &str, counts: &BTreeMap<String, u64>) {
    let total: u64 = counts.values().sum();
    let parts: Vec<String> = counts.iter().map(|(what, count)| format!("{what} {count}")).collect();
    println!("  {total:7}  {name}: {}", parts.join(", "));
}
