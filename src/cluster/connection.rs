//! A connection to one Redis: how it is made, what is begun on it, and why a session over it ends.
//!
//! On Redis's thread. What always holds: a connection is never repaired and never tried again by the client; the first
//! failure of any command ends the session.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::config::{Config, PerformanceConfig};
use fred::types::{Builder, ConnectHandle, CustomCommand, Value};
use futures_lite::future::poll_once;

use crate::contract::report::StandsStill;
use crate::limits::REDIS_TIMEOUT_MS;

/// Why a session ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The ledger has ended.
    Done,
    /// The connection, or a command, failed.
    Lost(String),
    /// Redis takes no writes: it is a replica, or its disk takes nothing.
    ReadOnly(String),
    /// Redis has another generation than this node follows.
    OtherGeneration,
    /// Another process has the node's id, and has renewed its lease so often.
    Taken { renewed: u64 },
    /// The nodes that are there have another number of buckets.
    OtherBuckets(u64),
    /// The nodes that are there have Redis keep names for so many seconds, and not for as many as this one.
    OtherNames(u64),
    /// Redis has forgotten the scripts, as after `SCRIPT FLUSH`: they are loaded again.
    NoScripts,
    /// Redis has no memory left for what was asked, and has done nothing.
    NoMemory,
}

impl From<fred::error::Error> for Ended {
    fn from(error: fred::error::Error) -> Self {
        // In a script's error Redis's own words lie somewhere in the middle.
        let text = error.to_string();
        if text.contains("NOSCRIPT") {
            return Ended::NoScripts;
        }
        if text.contains("OOM command not allowed") {
            return Ended::NoMemory;
        }
        // A replica, too few replicas, a disk that takes nothing.
        if ["READONLY", "NOREPLICAS", "MISCONF"].iter().any(|word| text.contains(word)) {
            return Ended::ReadOnly(text);
        }
        Ended::Lost(text)
    }
}

impl Ended {
    /// Why nothing can be numbered until a session begins, for operators; nothing, if the next one begins at once.
    pub(super) fn stands_still(&self) -> Option<StandsStill> {
        match self {
            Ended::Done | Ended::NoScripts => None,
            // Redis answers: another node makes it, or has.
            Ended::OtherGeneration => Some(StandsStill::Rebuilding),
            Ended::Lost(_) => Some(StandsStill::Disconnected),
            Ended::ReadOnly(_) => Some(StandsStill::ReadOnly),
            Ended::NoMemory => Some(StandsStill::NoMemory),
            Ended::Taken { .. } => Some(StandsStill::Taken),
            Ended::OtherBuckets(_) => Some(StandsStill::OtherBuckets),
            Ended::OtherNames(_) => Some(StandsStill::OtherNames),
        }
    }
}

/// What was begun and is not answered.
pub(super) type Awaited<T> = Pin<Box<dyn Future<Output = Result<T, Ended>> + Send>>;

/// Sends what was begun: the first poll does, so that what is begun later is sent later.
pub(super) async fn sent<T: Send + 'static>(mut begun: Awaited<T>) -> Awaited<T> {
    match poll_once(&mut begun).await {
        Some(answer) => Box::pin(async move { answer }),
        None => begun,
    }
}

/// The first of what is under way; for ever, if nothing is.
pub(super) async fn front<T>(in_flight: &mut VecDeque<Awaited<T>>) -> Result<T, Ended> {
    match in_flight.front_mut() {
        Some(first) => first.await,
        None => std::future::pending().await,
    }
}

pub(super) async fn connect(config: &Config) -> Result<(Client, ConnectHandle), Ended> {
    connect_subscriber(config, PerformanceConfig::default().broadcast_channel_capacity).await
}

/// The same, with room for so many messages of other nodes.
pub(super) async fn connect_subscriber(config: &Config, messages: usize) -> Result<(Client, ConnectHandle), Ended> {
    let mut builder = Builder::from_config(config.clone());
    builder.set_performance_config(PerformanceConfig {
        default_command_timeout: Duration::from_millis(REDIS_TIMEOUT_MS),
        broadcast_channel_capacity: messages,
        ..PerformanceConfig::default()
    });
    builder.with_connection_config(|connection| {
        connection.connection_timeout = Duration::from_millis(REDIS_TIMEOUT_MS);
        connection.max_command_attempts = 1;
        connection.reconnect_on_auth_error = false;
        connection.tcp.nodelay = Some(true);
    });
    let client = builder.build()?;
    let task = client.init().await?;
    Ok((client, task))
}

/// Another one each time that Redis is started; nothing, if it does not say.
pub(super) async fn run_of(client: &Client) -> String {
    let command = CustomCommand::new_static("INFO", None, false);
    let answer: Result<String, _> = client.custom(command, vec!["server"]).await;
    let answer = answer.unwrap_or_default();
    answer.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default().to_owned()
}

pub(super) fn bytes_of(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Bytes(bytes) => Some(bytes.to_vec()),
        _ => None,
    }
}
