//! Who may call the API: keys with names and scopes, from a file.
//!
//! Read at a start, and whenever the settings are read again. What always holds: of a key only its SHA-256 is kept, and looking one up takes as long for a wrong
//! key as for a right one; a file that anybody else may read or write is refused; without a file only this machine's own
//! programs may call, never a page in a browser.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::problem::Problem;
use crate::limits::API_KEY_CHARS_MIN;

/// What may be done.
const SCOPES: [(&str, Scope); 4] =
    [("send", Scope::Send), ("groups", Scope::Groups), ("read", Scope::Read), ("operate", Scope::Operate)];

/// What a key allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scope {
    /// Messages in any user's name.
    Send,
    /// Changes of groups.
    Groups,
    /// What is stored, and who is online.
    Read,
    /// What an operator does.
    Operate,
}

/// Who may call.
#[derive(Debug)]
pub(crate) enum Keys {
    /// Whoever has one of these, as of now.
    Of(watch::Receiver<Vec<Key>>),
    /// Any program of this machine: no keys were configured, and the address is a loopback one.
    ThisMachine,
    /// The gateway's own user, over a socket that nobody else may open.
    Owner,
    /// Nobody: no keys were configured, and others could call.
    Nobody,
}

/// A key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key {
    name: Arc<str>,
    scopes: Vec<Scope>,
    sha256: [u8; 32],
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("name", &self.name).field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

/// Where is said which keys a file has by now.
pub(crate) type KeysChange = watch::Sender<Vec<Key>>;

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file is not there or not readable.
    #[error("api.keys_file: {0} cannot be read")]
    Read(PathBuf, #[source] io::Error),
    /// Others may read or change it.
    #[error("api.keys_file: {0} can be read or written by others than its owner: chmod 600 {0}")]
    Open(PathBuf),
    /// A line that is none.
    #[error(
        "api.keys_file: line {0} is not `NAME SCOPE[,SCOPE] KEY`, with scopes of send, groups, read, operate and a key of \
             at least {API_KEY_CHARS_MIN} characters"
    )]
    Line(usize),
    /// Nobody could call.
    #[error("api.keys_file: {0} holds no key")]
    Empty(PathBuf),
}

impl Keys {
    /// From the file, and where to say that it has others; without one, whoever can only be this machine, where the API
    /// listens on a loopback address.
    pub(crate) fn load(file: Option<&Path>, listens_on: IpAddr) -> Result<(Keys, Option<KeysChange>), KeysError> {
        match file {
            Some(path) => {
                let (change, keys) = watch::channel(read_keys(path)?);
                Ok((Keys::Of(keys), Some(change)))
            }
            None if listens_on.is_loopback() => Ok((Keys::ThisMachine, None)),
            None => Ok((Keys::Nobody, None)),
        }
    }

    /// The name of whoever calls, if it may do this.
    pub(crate) fn allow(&self, headers: &HeaderMap, scope: Scope) -> Result<Arc<str>, Problem> {
        match self {
            Keys::Nobody => {
                Err(Problem::forbidden("the API has no keys, and its address is not a loopback one: set api.keys_file"))
            }
            Keys::Owner => Ok("its own user".into()),
            Keys::ThisMachine => match headers.contains_key(header::ORIGIN) {
                // A page of any site may send requests to this machine's addresses from its user's browser.
                true => Err(Problem::forbidden("a page in a browser needs a key: set api.keys_file")),
                false => Ok("this machine".into()),
            },
            Keys::Of(keys) => {
                let given = bearer(headers).ok_or_else(Problem::unauthorized)?;
                let sha256: [u8; 32] = Sha256::digest(given).into();
                let keys = keys.borrow();
                let key = keys.iter().fold(None, |found, key| if key.sha256 == sha256 { Some(key) } else { found });
                let key = key.ok_or_else(Problem::unauthorized)?;
                if !key.scopes.contains(&scope) {
                    let name = SCOPES.iter().find(|(_, it)| *it == scope).map_or("", |(name, _)| name);
                    return Err(Problem::forbidden(format!("the key {} has not the scope {name}", key.name)));
                }
                Ok(Arc::clone(&key.name))
            }
        }
    }
}

/// The keys of a file.
pub(crate) fn read_keys(path: &Path) -> Result<Vec<Key>, KeysError> {
    let read = |error| KeysError::Read(path.to_owned(), error);
    if std::fs::metadata(path).map_err(read)?.permissions().mode() & 0o077 != 0 {
        return Err(KeysError::Open(path.to_owned()));
    }
    let keys = parse(&std::fs::read_to_string(path).map_err(read)?)?;
    if keys.is_empty() { Err(KeysError::Empty(path.to_owned())) } else { Ok(keys) }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, key) = value.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(key)
}

fn parse(text: &str) -> Result<Vec<Key>, KeysError> {
    let mut keys = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, scopes, key] = words[..] else { return Err(KeysError::Line(at + 1)) };
        let scopes: Option<Vec<Scope>> = scopes
            .split(',')
            .map(|scope| SCOPES.iter().find(|(name, _)| *name == scope).map(|(_, scope)| *scope))
            .collect();
        let Some(scopes) = scopes.filter(|_| key.len() >= API_KEY_CHARS_MIN) else {
            return Err(KeysError::Line(at + 1));
        };
        keys.push(Key { name: name.into(), scopes, sha256: Sha256::digest(key).into() });
    }
    Ok(keys)
}

#[cfg(test)]
mod tests;
