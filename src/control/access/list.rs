//! The facts that a node keeps of who may log in, and their file in the data directory.
//!
//! Read by the main thread at start, then owned by the thread of [`super`]. What always holds: the file is replaced whole,
//! and on disk before anybody is told that a fact holds; a file that cannot be understood keeps a gateway from starting,
//! since it would let in whom it names; there are at most `ACCESS_FACTS_MAX` facts.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::contract::access::{AccessFact, Standing};
use crate::datadir::replace_file;
use crate::limits::ACCESS_FACTS_MAX;
use ringway_wire::ids::UserId;

/// The file's name in the data directory.
const FILE: &str = "access";
/// Its first line.
const HEAD: &str = "# who may log in: user, allowed or banned, since (Unix ms), tokens from (Unix s)";

/// Why the facts cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The file could not be read or written.
    #[error("{path} cannot be {what}")]
    File {
        /// The file that is concerned.
        path: PathBuf,
        /// "read" or "written": what could not be done with it.
        what: &'static str,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A line is not one.
    #[error("{path}, line {line}: expected a user, `allowed` or `banned`, and two times; mend it, or remove the line")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// There are too many.
    #[error("{ACCESS_FACTS_MAX} users have facts already, as many as are kept")]
    Full,
}

/// The facts.
#[derive(Debug)]
pub(crate) struct AccessList {
    data_dir: PathBuf,
    facts: BTreeMap<u64, AccessFact>,
}

impl AccessList {
    /// What the directory has.
    pub(crate) fn read(data_dir: &Path) -> Result<AccessList, ListError> {
        let path = data_dir.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(ListError::File { path, what: "read", source }),
        };
        let mut facts = BTreeMap::new();
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let fact = parsed(line).ok_or_else(|| ListError::Line { path: path.clone(), line: at + 1 })?;
            facts.insert(fact.user.0, fact);
        }
        Ok(AccessList { data_dir: data_dir.to_owned(), facts })
    }

    /// All, by user.
    pub(crate) fn facts(&self) -> impl Iterator<Item = &AccessFact> {
        self.facts.values()
    }

    /// What is known of a user.
    pub(crate) fn of(&self, user: UserId) -> AccessFact {
        self.facts.get(&user.0).copied().unwrap_or_else(|| AccessFact::none(user))
    }

    /// Adds to what is known, and keeps it on disk. On an error nothing has changed.
    pub(crate) fn merge(&mut self, facts: &[AccessFact]) -> Result<(), ListError> {
        let mut merged = self.facts.clone();
        for fact in facts {
            let kept = merged.entry(fact.user.0).or_insert_with(|| AccessFact::none(fact.user));
            *kept = kept.with(*fact);
        }
        if merged == self.facts {
            return Ok(());
        }
        if merged.len() > ACCESS_FACTS_MAX {
            return Err(ListError::Full);
        }
        self.write(&merged)?;
        self.facts = merged;
        Ok(())
    }

    fn write(&self, facts: &BTreeMap<u64, AccessFact>) -> Result<(), ListError> {
        let lines: Vec<String> = std::iter::once(HEAD.to_owned()).chain(facts.values().map(line_of)).collect();
        replace_file(&self.data_dir, FILE, &(lines.join("\n") + "\n")).map_err(|source| ListError::File {
            path: self.data_dir.join(FILE),
            what: "written",
            source,
        })
    }
}

fn line_of(fact: &AccessFact) -> String {
    let standing = match fact.standing {
        Standing::Allowed => "allowed",
        Standing::Banned => "banned",
    };
    format!("{} {standing} {} {}", fact.user.0, fact.since_ms, fact.tokens_from_s)
}

fn parsed(line: &str) -> Option<AccessFact> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [user, standing, since_ms, tokens_from_s] = words.as_slice() else { return None };
    let standing = match *standing {
        "allowed" => Standing::Allowed,
        "banned" => Standing::Banned,
        _ => return None,
    };
    let user = UserId(user.parse().ok()?);
    Some(AccessFact { user, standing, since_ms: since_ms.parse().ok()?, tokens_from_s: tokens_from_s.parse().ok()? })
}
