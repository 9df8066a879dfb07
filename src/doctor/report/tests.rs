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

/// The page about these findings.
fn page(checks: Vec<Finding>) -> String {
    let because = "those of the largest profile whose CPUs and memory are here: small".to_owned();
    HostReport {
        connections: 50_000,
        because,
        shards: 2,
        profile: "small".to_owned(),
        outcome: Outcome::of(&checks),
        checks,
        tuning: "tuning/apply.sh --profile small".to_owned(),
    }
    .page()
}

#[test]
fn what_is_wrong_comes_first_and_the_worst_on_top() {
    use {Severity::*, Verdict::*};
    let named = |id: &str, verdict, severity| Finding { id: id.to_owned(), ..finding(verdict, severity) };
    let text = page(vec![
        named("fine", Good, Fatal),
        named("slow", Bad, Hint),
        named("risky", Bad, Warning),
        named("hidden", Unknown, Fatal),
        named("missing", Bad, Fatal),
    ]);
    let order: Vec<usize> = [
        "This host cannot keep 50000",
        "missing: ",
        "risky: ",
        "hidden: ",
        "slow: ",
        "apply.sh",
        "As it should",
        "fine: ",
    ]
    .map(|words| text.find(words).unwrap_or_else(|| panic!("{words} is missing in:\n{text}")))
    .to_vec();
    assert!(order.is_sorted(), "{text}");
    assert!(
        text.contains("\nFATAL    missing: 1, must be at least 2: two are needed\n         To do: make it 2\n"),
        "{text}"
    );
}

#[test]
fn long_sentences_are_broken_between_words_and_lose_none() {
    let long = "a sentence that goes on and on ".repeat(9);
    let fix = "sysctl -w net.ipv4.tcp_mem=\"769311 1049152 1565536\", and so on until the line is full".to_owned();
    let found = Finding { why: long.clone(), fix: Some(fix.clone()), ..finding(Verdict::Bad, Severity::Warning) };
    let text = page(vec![found, finding(Verdict::Good, Severity::Hint)]);
    assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(joined.contains(long.trim()) && joined.contains(&fix), "{text}");
}
