//! All findings together: what they mean, as a page for people and as one JSON object for programs.
//!
//! What always holds: the page says first what it comes to and what is wrong, the worst on top, and its lines fit a
//! terminal of 80 columns, but for a word that is longer alone.

#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::doctor::{Finding, Need, Severity, Verdict};

/// Columns of a terminal that nobody has made wider.
const COLUMNS: usize = 80;

/// What the doctor has to say.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct HostReport {
    /// How many are to be kept.
    pub(crate) connections: u64,
    /// Why so many.
    pub(crate) because: String,
    /// By how many shards.
    pub(crate) shards: usize,
    /// The profile whose values were demanded.
    pub(crate) profile: String,
    /// What it comes to.
    pub(crate) outcome: Outcome,
    /// Every check.
    pub(crate) checks: Vec<Finding>,
    /// Sets all that can be set.
    #[serde(skip)]
    tuning: String,
}

/// What the findings come to, the worst last; its number is the exit code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Debug)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// Nothing is in the way; there may be hints.
    Good = 0,
    /// So many can be kept, but there are warnings, or something could not be seen.
    Warnings = 1,
    /// So many cannot be kept.
    CannotServe = 2,
}

impl Outcome {
    /// Of these findings.
    pub(crate) fn of(findings: &[Finding]) -> Outcome {
        let outcome = |finding: &Finding| match (finding.verdict, finding.severity) {
            (Verdict::Good, _) | (_, Severity::Hint) => Outcome::Good,
            (Verdict::Bad, Severity::Fatal) => Outcome::CannotServe,
            // What is fatal and unknown may be as it should be.
            (Verdict::Bad, Severity::Warning) | (Verdict::Unknown, _) => Outcome::Warnings,
        };
        findings.iter().map(outcome).max().unwrap_or(Outcome::Good)
    }

    /// For the shell.
    pub(crate) fn exit_code(self) -> u8 {
        self as u8
    }
}

impl HostReport {
    /// Of these findings.
    pub(crate) fn new(need: &Need<'_>, because: String, checks: Vec<Finding>) -> HostReport {
        HostReport {
            connections: need.connections,
            because,
            shards: need.shards,
            profile: need.profile.name.clone(),
            outcome: Outcome::of(&checks),
            checks,
            tuning: need.tuning(),
        }
    }

    /// As one JSON object.
    pub(crate) fn json(&self) -> String {
        // Strings, numbers and names of ours: it cannot fail.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// As a page for people.
    pub(crate) fn page(&self) -> String {
        let mut text = String::new();
        self.conclude(&mut text);
        let mut wrong: Vec<&Finding> = self.checks.iter().filter(|finding| finding.verdict != Verdict::Good).collect();
        wrong.sort_by_key(|finding| std::cmp::Reverse(rank(finding)));
        for finding in wrong {
            text.push('\n');
            paragraph(&mut text, label(finding), &finding.problem());
            if let Some(fix) = &finding.fix {
                paragraph(&mut text, "", &format!("To do: {fix}"));
            }
        }
        if self.checks.iter().any(|finding| finding.verdict == Verdict::Bad) {
            text.push('\n');
            paragraph(
                &mut text,
                "",
                &format!("{} sets what a script can set (--dry-run: it only says so)", self.tuning),
            );
        }
        text.push_str("\nAs it should be:\n");
        for Finding { id, current, required, .. } in
            self.checks.iter().filter(|finding| finding.verdict == Verdict::Good)
        {
            paragraph(&mut text, "", &format!("{id}: {current} ({required})"));
        }
        text
    }

    fn conclude(&self, text: &mut String) {
        let count = |severity, verdict| {
            self.checks.iter().filter(|finding| (finding.severity, finding.verdict) == (severity, verdict)).count()
        };
        let unknown = self.checks.iter().filter(|finding| finding.verdict == Verdict::Unknown).count();
        let verdict = match self.outcome {
            Outcome::Good => "can keep",
            Outcome::Warnings => "can keep, as far as can be seen,",
            Outcome::CannotServe => "cannot keep",
        };
        let HostReport { connections, because, shards, profile, .. } = self;
        let (fatal, warnings) = (count(Severity::Fatal, Verdict::Bad), count(Severity::Warning, Verdict::Bad));
        let hints = count(Severity::Hint, Verdict::Bad);
        wrap(
            text,
            "",
            &format!(
                "This host {verdict} {connections} connections: fatal {fatal}, warnings {warnings}, hints {hints}, \
                 unknown {unknown}. Asked for: {because}, profile {profile}, shards {shards}."
            ),
        );
    }
}

/// How bad it is, the worst last: what is unknown may be fatal, or nothing.
fn rank(finding: &Finding) -> u8 {
    match (finding.verdict, finding.severity) {
        (Verdict::Good, _) => 0,
        (Verdict::Unknown, Severity::Hint) => 1,
        (Verdict::Bad, Severity::Hint) => 2,
        (Verdict::Unknown, Severity::Warning | Severity::Fatal) => 3,
        (Verdict::Bad, Severity::Warning) => 4,
        (Verdict::Bad, Severity::Fatal) => 5,
    }
}

fn label(finding: &Finding) -> &'static str {
    match (finding.verdict, finding.severity) {
        (Verdict::Good, _) => "good",
        (Verdict::Unknown, _) => "unknown",
        (Verdict::Bad, Severity::Fatal) => "FATAL",
        (Verdict::Bad, Severity::Warning) => "warning",
        (Verdict::Bad, Severity::Hint) => "hint",
    }
}

/// Text behind a label, a line under the other.
fn paragraph(text: &mut String, label: &str, words: &str) {
    wrap(text, &format!("{label:<9}"), words);
}

/// Words behind what the first line begins with; the others are indented as far.
fn wrap(text: &mut String, begin: &str, words: &str) {
    let indent = begin.chars().count();
    let mut line = begin.to_owned();
    let mut columns = indent;
    for word in words.split_whitespace() {
        let length = word.chars().count();
        if columns > indent && columns + 1 + length > COLUMNS {
            text.push_str(&line);
            text.push('\n');
            line = " ".repeat(indent);
            columns = indent;
        }
        if columns > indent {
            line.push(' ');
            columns += 1;
        }
        line.push_str(word);
        columns += length;
    }
    text.push_str(&line);
    text.push('\n');
}
