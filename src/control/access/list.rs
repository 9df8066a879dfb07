//! The facts that a node keeps of who may log in, and their file in the data directory.
//!
//! Read by the main thread at start, then owned by the thread of [`super`]. What always holds: the file is replaced whole,
//! and on disk before anybody is told that a fact holds; a file that cannot be understood keeps a gateway from starting,
//! since it would let in whom it names; there are at most `ACCESS_FACTS_MAX` facts, and `REVOKED_TOKENS_MAX` revoked tokens
//! that have not expired.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use crate::contract::access::{AccessFact, AccessOrder, RevokedToken, Standing, TokenId};
use crate::datadir::replace_file;
use crate::limits::{ACCESS_FACTS_MAX, REVOKED_TOKENS_MAX};
use ringway_wire::ids::UserId;

/// The file's name in the data directory.
const FILE: &str = "access";
/// Its first line.
const HEAD: &str = "# who may log in: user, allowed or banned, since (Unix ms), tokens from (Unix s); \
                    or user, token, its id, until (Unix s)";

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
    #[error(
        "{path}, line {line}: expected a user, `allowed` or `banned`, and two times, or a user, `token`, its id and a time; \
         mend it, or remove the line"
    )]
    Line {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// There are too many.
    #[error("{ACCESS_FACTS_MAX} users have facts already, as many as are kept")]
    Full,
    /// There are too many revoked tokens.
    #[error(
        "{REVOKED_TOKENS_MAX} tokens are revoked that have not expired, as many as are kept: revoke all tokens of a user \
         that were issued before some time instead"
    )]
    FullOfTokens,
}

/// The facts.
#[derive(Debug)]
pub(crate) struct AccessList {
    data_dir: PathBuf,
    facts: BTreeMap<u64, AccessFact>,
    /// By user and token: until when, Unix seconds.
    tokens: BTreeMap<(UserId, TokenId), u64>,
}

/// What a line of the file says.
enum Line {
    Fact(AccessFact),
    Token(RevokedToken),
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
        let mut list = AccessList { data_dir: data_dir.to_owned(), facts: BTreeMap::new(), tokens: BTreeMap::new() };
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            match parsed(line).ok_or_else(|| ListError::Line { path: path.clone(), line: at + 1 })? {
                Line::Fact(fact) => drop(list.facts.insert(fact.user.0, fact)),
                Line::Token(RevokedToken { user, token, until_s }) => {
                    list.tokens.insert((user, token), until_s);
                }
            }
        }
        Ok(list)
    }

    /// All that is stated, as orders: the facts first.
    pub(crate) fn orders(&self) -> impl Iterator<Item = AccessOrder> {
        self.facts().copied().map(AccessOrder::Fact).chain(self.tokens().map(AccessOrder::Token))
    }

    /// The revoked tokens, by user; some may have expired.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = RevokedToken> {
        self.tokens.iter().map(|((user, token), until_s)| RevokedToken {
            user: *user,
            token: *token,
            until_s: *until_s,
        })
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
        self.write(&merged, &self.tokens)?;
        self.facts = merged;
        Ok(())
    }

    /// Adds revoked tokens, leaves out what has expired, and keeps it on disk. On an error nothing has changed.
    pub(crate) fn revoke(&mut self, tokens: &[RevokedToken], now_s: u64) -> Result<(), ListError> {
        let mut merged = self.tokens.clone();
        for RevokedToken { user, token, until_s } in tokens {
            let kept_s = merged.entry((*user, *token)).or_default();
            *kept_s = (*until_s).max(*kept_s);
        }
        merged.retain(|_, until_s| *until_s > now_s);
        if merged == self.tokens {
            return Ok(());
        }
        if merged.len() > REVOKED_TOKENS_MAX {
            return Err(ListError::FullOfTokens);
        }
        self.write(&self.facts, &merged)?;
        self.tokens = merged;
        Ok(())
    }

    fn write(
        &self,
        facts: &BTreeMap<u64, AccessFact>,
        tokens: &BTreeMap<(UserId, TokenId), u64>,
    ) -> Result<(), ListError> {
        let tokens =
            tokens.iter().map(|((user, token), until_s)| format!("{} token {:016x} {until_s}", user.0, token.0));
        let lines = std::iter::once(HEAD.to_owned()).chain(facts.values().map(line_of)).chain(tokens);
        let lines: Vec<String> = lines.collect();
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

fn parsed(line: &str) -> Option<Line> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [user, what, first, second] = words.as_slice() else { return None };
    let user = UserId(user.parse().ok()?);
    let second = second.parse().ok()?;
    let standing = match *what {
        "allowed" => Standing::Allowed,
        "banned" => Standing::Banned,
        "token" => {
            let token = TokenId(NonZeroU64::new(u64::from_str_radix(first, 16).ok()?)?);
            return Some(Line::Token(RevokedToken { user, token, until_s: second }));
        }
        _ => return None,
    };
    Some(Line::Fact(AccessFact { user, standing, since_ms: first.parse().ok()?, tokens_from_s: second }))
}
