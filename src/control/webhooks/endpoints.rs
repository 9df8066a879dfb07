//! Who is told what: the file of endpoints, and how what they are told is signed.
//!
//! Read at a start and whenever the settings are read again. What always holds: a file that anybody else may read is refused, for
//! it holds secrets; one wrong endpoint refuses the whole file; secrets are never printed.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use axum::http::Uri;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::limits::{
    WEBHOOK_ENDPOINTS_MAX, WEBHOOK_GRACE_S, WEBHOOK_GRACE_S_MAX, WEBHOOK_SECRET_BYTES, WEBHOOK_SECRETS_MAX,
};

/// How a secret begins.
const SECRET_PREFIX: &str = "whsec_";

/// What an endpoint can be told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize, Serialize)]
pub(crate) enum EventKind {
    /// A durable message to somebody who is online nowhere.
    #[serde(rename = "message.offline")]
    MessageOffline,
    /// A group was made, or its members have changed.
    #[serde(rename = "group.changed")]
    GroupChanged,
    /// A durable message, whoever is online.
    #[serde(rename = "message.sent")]
    MessageSent,
}

impl EventKind {
    /// As it is written.
    pub(crate) fn name(self) -> &'static str {
        match self {
            EventKind::MessageOffline => "message.offline",
            EventKind::GroupChanged => "group.changed",
            EventKind::MessageSent => "message.sent",
        }
    }
}

/// Who is told what, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Endpoint {
    /// Letters, digits, `-` and `_`: its files and its metrics are called so.
    pub(crate) name: String,
    /// `http` or `https`, with a host.
    pub(crate) url: Uri,
    /// What it is told.
    pub(crate) events: BTreeSet<EventKind>,
    /// Each signs what is sent.
    pub(crate) secrets: Vec<SigningSecret>,
    /// Whether it is told what messages say.
    pub(crate) bodies: bool,
    /// Whether its host may have an address that is not public.
    pub(crate) private_addresses: bool,
    /// How long a message waits for its recipient to come online, milliseconds.
    pub(crate) grace_ms: u64,
    /// Certificates (PEM) that are trusted beside the public ones.
    pub(crate) ca_file: Option<PathBuf>,
}

/// A key that signs.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SigningSecret(Vec<u8>);

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(hidden)")
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EndpointsFile {
    #[serde(default)]
    endpoint: Vec<EndpointTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EndpointTable {
    name: String,
    url: String,
    events: BTreeSet<EventKind>,
    secrets: Vec<String>,
    #[serde(default)]
    bodies: bool,
    #[serde(default)]
    private_addresses: bool,
    #[serde(default = "grace_s")]
    grace_s: u64,
    ca_file: Option<PathBuf>,
}

fn grace_s() -> u64 {
    WEBHOOK_GRACE_S
}

/// Why the endpoints cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EndpointsError {
    /// The file is not there or not readable.
    #[error("webhooks.endpoints_file: {0} cannot be read")]
    Read(PathBuf, #[source] io::Error),
    /// Others may read or change it.
    #[error("webhooks.endpoints_file: {0} can be read or written by others than its owner: chmod 600 {0}")]
    Open(PathBuf),
    /// It is not what was expected. The text of the file, which has secrets, is not in it.
    #[error("webhooks.endpoints_file: {0}")]
    Form(String),
    /// An endpoint makes no sense.
    #[error("webhooks.endpoints_file: the endpoint {0:?}: {1}")]
    Endpoint(String, &'static str),
    /// More than there may be.
    #[error("webhooks.endpoints_file: there are more than {WEBHOOK_ENDPOINTS_MAX} endpoints")]
    TooMany,
}

/// Reads the file.
pub(crate) fn load(path: &Path) -> Result<Vec<Endpoint>, EndpointsError> {
    let read = |error| EndpointsError::Read(path.to_owned(), error);
    if std::fs::metadata(path).map_err(read)?.permissions().mode() & 0o077 != 0 {
        return Err(EndpointsError::Open(path.to_owned()));
    }
    parse(&std::fs::read_to_string(path).map_err(read)?)
}

fn parse(text: &str) -> Result<Vec<Endpoint>, EndpointsError> {
    let file: EndpointsFile = toml::from_str(text).map_err(|error| EndpointsError::Form(error.message().to_owned()))?;
    if file.endpoint.len() > WEBHOOK_ENDPOINTS_MAX {
        return Err(EndpointsError::TooMany);
    }
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for table in file.endpoint {
        let name = table.name.clone();
        let endpoint = meant(table).map_err(|why| EndpointsError::Endpoint(name.clone(), why))?;
        if endpoints.iter().any(|other| other.name == endpoint.name) {
            return Err(EndpointsError::Endpoint(name, "there is another one of this name"));
        }
        endpoints.push(endpoint);
    }
    Ok(endpoints)
}

fn meant(table: EndpointTable) -> Result<Endpoint, &'static str> {
    let EndpointTable { name, url, events, secrets, bodies, private_addresses, grace_s, ca_file } = table;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > 64 || !name.chars().all(is_plain) {
        return Err("name has 1 to 64 letters, digits, - and _");
    }
    let url: Uri = url.parse().map_err(|_| "url is no URL")?;
    let is_http = matches!(url.scheme_str(), Some("http" | "https"));
    if !is_http || url.host().is_none_or(str::is_empty) || url.authority().is_some_and(|it| it.as_str().contains('@')) {
        return Err("url is https://HOST[:PORT]/PATH, or http://... within a network of one's own");
    }
    if events.is_empty() {
        return Err("events names nothing: message.offline, message.sent, group.changed");
    }
    // Events come in the journal's order: what is told at once would wait for what waits until somebody comes online.
    if events.contains(&EventKind::MessageSent) && events.contains(&EventKind::MessageOffline) {
        return Err("message.sent and message.offline are for two endpoints, which may have one url");
    }
    if secrets.is_empty() || secrets.len() > WEBHOOK_SECRETS_MAX {
        return Err("secrets are 1 to 4");
    }
    if grace_s > WEBHOOK_GRACE_S_MAX {
        return Err("grace_s is 0 to 3600");
    }
    let secrets = secrets.iter().map(|text| SigningSecret::parse(text)).collect::<Option<_>>();
    let secrets = secrets.ok_or("a secret is whsec_ and base64 of 24 to 64 bytes")?;
    Ok(Endpoint { name, url, events, secrets, bodies, private_addresses, grace_ms: grace_s * 1_000, ca_file })
}

impl SigningSecret {
    fn parse(text: &str) -> Option<SigningSecret> {
        let key = STANDARD.decode(text.strip_prefix(SECRET_PREFIX)?).ok()?;
        WEBHOOK_SECRET_BYTES.contains(&key.len()).then_some(SigningSecret(key))
    }
}

impl Endpoint {
    /// The header `webhook-signature` (Standard Webhooks 1.0): one signature for each secret.
    pub(crate) fn signature(&self, id: &str, timestamp_s: u64, payload: &[u8]) -> String {
        let signed = [format!("{id}.{timestamp_s}.").as_bytes(), payload].concat();
        let sign = |SigningSecret(key): &SigningSecret| {
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &signed);
            format!("v1,{}", STANDARD.encode(tag))
        };
        self.secrets.iter().map(sign).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests;
