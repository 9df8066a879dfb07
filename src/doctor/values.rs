//! What a host must be like: `tuning/values.conf`, which the tuning scripts read too.
//!
//! The file is part of the program. What always holds: every line of it was understood, or nothing of it is used
//! and the error names the line.

#[cfg(test)]
mod tests;

use crate::doctor::Severity;
use crate::doctor::kernel::KernelVersion;

/// The file as it was when the program was built.
const SHIPPED: &str = include_str!("../../tuning/values.conf");
/// Where its lines are looked for.
const FILE: &str = "tuning/values.conf";
/// Numbers stay below this, so that the scripts' awk computes with them exactly.
const NUMBER_MAX: u64 = 1 << 53;

/// The whole file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Values {
    /// From the smallest up.
    pub(crate) profiles: Vec<Profile>,
    /// In the file's order.
    pub(crate) rules: Vec<Rule>,
}

/// A size of host, and what it is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Profile {
    /// As `--profile` takes it.
    pub(crate) name: String,
    /// CPUs it is meant to have.
    pub(crate) cpus: usize,
    /// Memory it is meant to have.
    pub(crate) memory_gib: u64,
    /// Connections it is for.
    pub(crate) connections: u64,
}

/// One demand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rule {
    /// What the key names.
    pub(crate) kind: Kind,
    /// Without the field's number.
    pub(crate) key: String,
    /// Which of the value's several numbers, from 1.
    pub(crate) field: Option<usize>,
    /// When the host is good.
    pub(crate) compare: Compare,
    /// What it means if it is not.
    pub(crate) severity: Severity,
    /// One sentence for whoever reads the output.
    pub(crate) why: String,
}

/// What a rule's key names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// The kernel's version.
    Kernel,
    /// Bytes of memory.
    Memory,
    /// A limit of this process.
    Rlimit,
    /// A sysctl.
    Sysctl,
    /// A sysctl that counts only while connections are tracked.
    Conntrack,
    /// A sysctl that counts only where a NIC's packets are spread over several CPUs.
    Nic,
    /// A file below /sys, whose path may have a `*`.
    Sysfs,
}

/// When a value is good.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Compare {
    /// At least so much.
    Min(Amount),
    /// At most so much.
    Max(Amount),
    /// One of these words, of which the scripts set the first.
    OneOf(Vec<String>),
    /// This version or a newer one.
    Release(KernelVersion),
}

/// A number that may grow with the connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Amount {
    /// For none.
    pub(crate) base: u64,
    /// For each.
    pub(crate) per_connection: u64,
}

impl Amount {
    /// For so many.
    pub(crate) fn for_connections(self, connections: u64) -> u64 {
        self.base.saturating_add(self.per_connection.saturating_mul(connections))
    }
}

/// A line that cannot be understood, or one that is missing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ValuesError {
    /// A line that is no rule and no profile.
    #[error("{FILE}, line {line}: expected {expected}, found `{found}`")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What would do.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// The doctor cannot do without it.
    #[error("{FILE}: there is no line for `{0}`")]
    Missing(&'static str),
}

impl Values {
    /// Those the program was built with.
    pub(crate) fn shipped() -> Result<Values, ValuesError> {
        Values::parse(SHIPPED)
    }

    /// Understands a whole file.
    pub(crate) fn parse(text: &str) -> Result<Values, ValuesError> {
        let mut values = Values { profiles: Vec::new(), rules: Vec::new() };
        for (at, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let line = Line { number: at + 1, columns: line.split('|').map(str::trim).collect() };
            match line.columns.first().copied() {
                Some("profile") => values.add_profile(&line)?,
                _ => values.add_rule(&line)?,
            }
        }
        match values.profiles.is_empty() {
            true => Err(ValuesError::Missing("profile")),
            false => Ok(values),
        }
    }

    /// The profile of this name.
    pub(crate) fn profile(&self, name: &str) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.name == name)
    }

    /// The smallest profile for so many connections; the largest there is if none is.
    pub(crate) fn profile_for(&self, connections: u64) -> Result<&Profile, ValuesError> {
        let enough = self.profiles.iter().find(|profile| profile.connections >= connections);
        enough.or(self.profiles.last()).ok_or(ValuesError::Missing("profile"))
    }

    /// The amount that is demanded of something the doctor cannot do without.
    pub(crate) fn amount(&self, kind: Kind, key: &'static str) -> Result<Amount, ValuesError> {
        let rule = self.rules.iter().find(|rule| rule.kind == kind && rule.key == key);
        match rule.map(|rule| &rule.compare) {
            Some(Compare::Min(amount) | Compare::Max(amount)) => Ok(*amount),
            _ => Err(ValuesError::Missing(key)),
        }
    }

    fn add_profile(&mut self, line: &Line<'_>) -> Result<(), ValuesError> {
        let [_, name, cpus, memory, connections, about] = line.columns.as_slice() else {
            return Err(line.wrong("6 columns for a profile", &line.columns.join(" | ")));
        };
        let profile = Profile {
            name: line.filled(name, "a profile's name")?.to_owned(),
            cpus: line.number(cpus)? as usize,
            memory_gib: line.number(memory)?,
            connections: line.number(connections)?,
        };
        line.filled(about, "what the profile is for")?;
        if self.profile(name).is_some() {
            return Err(line.wrong("each profile once", name));
        }
        if self.profiles.last().is_some_and(|before| before.connections >= profile.connections) {
            return Err(line.wrong("profiles in rising order of connections", connections));
        }
        self.profiles.push(profile);
        Ok(())
    }

    fn add_rule(&mut self, line: &Line<'_>) -> Result<(), ValuesError> {
        let [kind, key, compare, base, per_connection, severity, why] = line.columns.as_slice() else {
            return Err(line.wrong("7 columns for a rule", &line.columns.join(" | ")));
        };
        let kind = line.kind(kind)?;
        let (key, field) = line.key(kind, key)?;
        let rule = Rule {
            kind,
            key,
            field,
            compare: line.compare(kind, compare, base, per_connection)?,
            severity: line.severity(severity)?,
            why: line.filled(why, "why")?.to_owned(),
        };
        if self.rules.iter().any(|other| other.key == rule.key && (other.field, other.kind) == (field, kind)) {
            return Err(line.wrong("each key once", &rule.key));
        }
        self.rules.push(rule);
        Ok(())
    }
}

/// A line's columns, and where it stands.
struct Line<'a> {
    number: usize,
    columns: Vec<&'a str>,
}

impl Line<'_> {
    fn wrong(&self, expected: &'static str, found: &str) -> ValuesError {
        ValuesError::Line { line: self.number, expected, found: found.to_owned() }
    }

    fn filled<'b>(&self, column: &'b str, expected: &'static str) -> Result<&'b str, ValuesError> {
        Some(column).filter(|column| !column.is_empty()).ok_or_else(|| self.wrong(expected, column))
    }

    fn number(&self, column: &str) -> Result<u64, ValuesError> {
        let number = match column {
            "-" => Some(0),
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
            _ => None,
        };
        number
            .filter(|number| *number < NUMBER_MAX)
            .ok_or_else(|| self.wrong("a whole number below 2^53, or -", column))
    }

    fn kind(&self, column: &str) -> Result<Kind, ValuesError> {
        Ok(match column {
            "kernel" => Kind::Kernel,
            "memory" => Kind::Memory,
            "rlimit" => Kind::Rlimit,
            "sysctl" => Kind::Sysctl,
            "conntrack" => Kind::Conntrack,
            "nic" => Kind::Nic,
            "sysfs" => Kind::Sysfs,
            _ => return Err(self.wrong("profile, kernel, memory, rlimit, sysctl, conntrack, nic or sysfs", column)),
        })
    }

    fn severity(&self, column: &str) -> Result<Severity, ValuesError> {
        Ok(match column {
            "fatal" => Severity::Fatal,
            "warning" => Severity::Warning,
            "hint" => Severity::Hint,
            _ => return Err(self.wrong("fatal, warning or hint", column)),
        })
    }

    fn key(&self, kind: Kind, column: &str) -> Result<(String, Option<usize>), ValuesError> {
        let (key, field) = match column.split_once(':') {
            Some((key, field)) => (key, Some(field)),
            None => (column, None),
        };
        let field = match field.map(str::parse) {
            None => None,
            Some(Ok(field @ 1..=9)) => Some(field),
            Some(_) => return Err(self.wrong("a key, with `:1` to `:9` for one of several numbers", column)),
        };
        let sensible = match kind {
            Kind::Kernel => key == "release",
            Kind::Memory => matches!(key, "total" | "available"),
            Kind::Rlimit => matches!(key, "nofile" | "memlock"),
            Kind::Sysctl | Kind::Conntrack | Kind::Nic => {
                key.contains('.') && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
            }
            Kind::Sysfs => key.starts_with("/sys/") && !key.contains("..") && !key.contains(char::is_whitespace),
        };
        match sensible {
            true => Ok((key.to_owned(), field)),
            false => Err(self.wrong("a key of its kind", column)),
        }
    }

    fn compare(&self, kind: Kind, compare: &str, base: &str, per_connection: &str) -> Result<Compare, ValuesError> {
        let amount = || Ok(Amount { base: self.number(base)?, per_connection: self.number(per_connection)? });
        if (compare == "one-of" || kind == Kind::Kernel) && per_connection != "-" {
            return Err(self.wrong("- as per_connection", per_connection));
        }
        match (kind, compare) {
            (Kind::Kernel, "min") => {
                let version = KernelVersion::parse(base);
                Ok(Compare::Release(version.ok_or_else(|| self.wrong("a kernel's version, as in 5.8", base))?))
            }
            (Kind::Kernel, _) => Err(self.wrong("min", compare)),
            (_, "min") => Ok(Compare::Min(amount()?)),
            (_, "max") => Ok(Compare::Max(amount()?)),
            (_, "one-of") => {
                let words = self.filled(base, "words to be equal to")?;
                Ok(Compare::OneOf(words.split_whitespace().map(str::to_owned).collect()))
            }
            _ => Err(self.wrong("min, max or one-of", compare)),
        }
    }
}
