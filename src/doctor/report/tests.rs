#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;

fn finding(verdict: Verdict, severity: Severity) -> Finding {
    let (id, current, required, why) = ("an_id".into(), "1".into(), "at least 2".into(), "two are needed".into());
    let fix = (verdict != Verdict::Good).then(|| "make it 2".to_owned());
    Finding { id, current, required, severity, verdict, fix, why }
}

fn outcome(findings: &[(Verdict, Severity)]) -> Outcome {
    let findings: Vec<Finding> = findings.iter().map(|(verdict, severity)| finding(*verdict, *severity)).collect();
    Outcome::of(&findings)
}

#[test]
fn the_worst_finding_decides() {
    use {Severity::*, Verdict::*};
    let good = (Good, Fatal);
    assert_eq!(outcome(&[]).exit_code(), 0);
    assert_eq!(outcome(&[good, (Bad, Hint), (Unknown, Hint)]).exit_code(), 0);
    assert_eq!(outcome(&[good, (Bad, Warning), (Bad, Hint)]).exit_code(), 1);
    assert_eq!(outcome(&[(Bad, Fatal), (Bad, Warning)]).exit_code(), 2);
}

#[test]
fn what_could_not_be_seen_is_neither_good_nor_fatal() {
    use {Severity::*, Verdict::*};
    assert_eq!(outcome(&[(Unknown, Fatal)]).exit_code(), 1);
    assert_eq!(outcome(&[(Unknown, Warning)]).exit_code(), 1);
}

#[test]
fn a_finding_is_a_sentence_with_what_to_do() {
    let sentence = finding(Verdict::Bad, Severity::Fatal).to_string();
    assert_eq!(sentence, "an_id: 1, must be at least 2: two are needed. To do: make it 2");
    let sentence = finding(Verdict::Unknown, Severity::Fatal).to_string();
    assert_eq!(sentence, "an_id: unknown (1), must be at least 2: two are needed. To do: make it 2");
    assert_eq!(finding(Verdict::Good, Severity::Fatal).to_string(), "an_id: 1, as it should be (at least 2)");
}
