//! The doctor: what a machine must be like to keep so many connections, what this one is like, and what to do.
//!
//! Three steps: [`host`] reads everything once, [`checks`] judges what was read, [`report`] shows it. `ringway doctor`
//! ([`cli`]) shows all of it; `serve` ([`start`]) asks for what it could not run without, and refuses in the same
//! words. The numbers stand in `tuning/values.conf` ([`values`]), from which the tuning scripts set them.
//!
//! What always holds: the doctor changes nothing, a check knows only the [`host::Host`] it is given, and what could
//! not be found out is never called good. It leaves out the network cards: `tuning/status.sh` shows those.

pub(crate) mod checks;
pub mod cli;
pub(crate) mod host;
pub(crate) mod kernel;
pub(crate) mod report;
pub(crate) mod start;
pub(crate) mod uring;
pub(crate) mod values;

#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;

use crate::doctor::values::{Profile, Values};

/// What is to be kept, and by what.
#[derive(Clone, Debug)]
pub(crate) struct Need<'a> {
    /// Connections at once.
    pub(crate) connections: u64,
    /// Shards that share them.
    pub(crate) shards: usize,
    /// The profile asked for, or the smallest for so many connections.
    pub(crate) profile: &'a Profile,
    /// Who chose the profile.
    pub(crate) profile_by: ProfileBy,
    /// Bytes that the journal may take there before senders are refused.
    pub(crate) journal_bytes_max: u64,
    /// The rules.
    pub(crate) values: &'a Values,
}

impl Need<'_> {
    /// The command that sets what a host must be like for this.
    pub(crate) fn tuning(&self) -> String {
        let Need { profile, connections, .. } = self;
        match profile.connections >= *connections {
            true => format!("tuning/apply.sh --profile {}", profile.name),
            false => format!("tuning/apply.sh --profile {} --connections {connections}", profile.name),
        }
    }
}

/// Who chose a profile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ProfileBy {
    /// The operator: the host is to be one of its kind.
    Operator,
    /// The number of connections: its size is advice.
    Connections,
}

/// What it means if a check is not good, the worst last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Debug)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// It costs speed or memory, nothing else.
    Hint,
    /// So many connections can be kept until load or a reconnect storm comes.
    Warning,
    /// So many connections cannot be kept.
    Fatal,
}

/// How a check went.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad,
    /// It could not be found out; that is not good.
    Unknown,
}

impl Verdict {
    fn good_if(is_as_it_should_be: bool) -> Verdict {
        if is_as_it_should_be { Verdict::Good } else { Verdict::Bad }
    }
}

/// One check's outcome, whatever was looked at: the host, or a service the gateway needs.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
pub struct Finding {
    /// What was looked at: a sysctl's own name, a path, or a name of ours.
    pub(crate) id: String,
    /// What it is.
    pub(crate) current: String,
    /// What it must be for so many connections.
    pub(crate) required: String,
    /// What it means if it is not.
    pub(crate) severity: Severity,
    /// Whether it is.
    pub(crate) verdict: Verdict,
    /// What to do: a command where there is one. Nothing if it is good.
    pub(crate) fix: Option<String>,
    /// What it is required for.
    pub(crate) why: String,
}

impl Finding {
    /// What is wrong, or that nothing is.
    pub(crate) fn problem(&self) -> String {
        let Finding { id, current, required, why, .. } = self;
        match self.verdict {
            Verdict::Good => format!("{id}: {current}, as it should be ({required})"),
            Verdict::Bad => format!("{id}: {current}, must be {required}: {why}"),
            Verdict::Unknown => format!("{id}: unknown ({current}), must be {required}: {why}"),
        }
    }

    /// So many connections cannot be kept because of it.
    pub(crate) fn is_fatal(&self) -> bool {
        self.verdict == Verdict::Bad && self.severity == Severity::Fatal
    }
}

/// A sentence: what is wrong and what to do.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem())?;
        match &self.fix {
            Some(fix) => write!(f, ". To do: {fix}"),
            None => Ok(()),
        }
    }
}
