//! All findings together: what they mean, as a table for people and as one JSON object for programs.

#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use serde::Serialize;

use crate::doctor::{Finding, Need, Severity, Verdict};

/// The width of a column stops growing here; what is longer pushes the rest of its line to the right.
const COLUMN_MAX: usize = 54;

/// What the doctor has to say.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How many are to be kept.
    pub connections: u64,
    /// Why so many.
    pub because: String,
    /// By how many shards.
    pub shards: usize,
    /// The profile whose values were demanded.
    pub profile: String,
    /// What it comes to.
    pub outcome: Outcome,
    /// Every check.
    pub checks: Vec<Finding>,
    /// Sets all that can be set.
    #[serde(skip)]
    tuning: String,
}

/// What the findings come to, the worst last; its number is the exit code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Nothing is in the way; there may be hints.
    Good = 0,
    /// So many can be kept, but there are warnings, or something could not be seen.
    Warnings = 1,
    /// So many cannot be kept.
    CannotServe = 2,
}

impl Outcome {
    /// Of these findings.
    pub fn of(findings: &[Finding]) -> Outcome {
        let outcome = |finding: &Finding| match (finding.verdict, finding.severity) {
            (Verdict::Good, _) | (_, Severity::Hint) => Outcome::Good,
            (Verdict::Bad, Severity::Fatal) => Outcome::CannotServe,
            // What is fatal and unknown may be as it should be.
            (Verdict::Bad, Severity::Warning) | (Verdict::Unknown, _) => Outcome::Warnings,
        };
        findings.iter().map(outcome).max().unwrap_or(Outcome::Good)
    }

    /// For the shell.
    pub fn exit_code(self) -> u8 {
        self as u8
    }
}

impl Report {
    /// Of these findings.
    pub fn new(need: &Need<'_>, because: String, checks: Vec<Finding>) -> Report {
        Report {
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
    pub fn json(&self) -> String {
        // Strings, numbers and names of ours: it cannot fail.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// As a table, and in sentences what is fatal.
    pub fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail, here and below.
        let Report { connections, because, shards, profile, .. } = self;
        writeln!(text, "{connections} connections ({because}), profile {profile}, shards: {shards}\n").ok();
        let head = ["check", "current", "required", "severity", "to do"].map(str::to_owned);
        let rows: Vec<[String; 5]> = [head].into_iter().chain(self.checks.iter().map(row)).collect();
        let width = |column: usize| {
            let widths = rows.iter().map(|row| row[column].chars().count());
            widths.filter(|width| *width <= COLUMN_MAX).max().unwrap_or(0)
        };
        let widths = [width(0), width(1), width(2), width(3)];
        for row in &rows {
            let [check, current, required, severity, fix] = row;
            let [w0, w1, w2, w3] = widths;
            let line = format!("{check:<w0$}  {current:<w1$}  {required:<w2$}  {severity:<w3$}  {fix}");
            writeln!(text, "{}", line.trim_end()).ok();
        }
        self.conclude(&mut text);
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
        writeln!(
            text,
            "\nthis host {verdict} {} connections (fatal: {}, warnings: {}, hints: {}, unknown: {unknown})",
            self.connections,
            count(Severity::Fatal, Verdict::Bad),
            count(Severity::Warning, Verdict::Bad),
            count(Severity::Hint, Verdict::Bad),
        )
        .ok();
        for finding in self.checks.iter().filter(|finding| finding.is_fatal()) {
            writeln!(text, "  {finding}").ok();
        }
        if self.checks.iter().any(|finding| finding.verdict == Verdict::Bad) {
            writeln!(text, "{} sets all that a script can set (--dry-run: what it would do)", self.tuning).ok();
        }
    }
}

fn row(finding: &Finding) -> [String; 5] {
    let severity = match (finding.verdict, finding.severity) {
        (Verdict::Good, _) => "good",
        (Verdict::Unknown, _) => "unknown",
        (Verdict::Bad, Severity::Fatal) => "FATAL",
        (Verdict::Bad, Severity::Warning) => "warning",
        (Verdict::Bad, Severity::Hint) => "hint",
    };
    let fix = finding.fix.clone().unwrap_or_default();
    [finding.id.clone(), finding.current.clone(), finding.required.clone(), severity.to_owned(), fix]
}
