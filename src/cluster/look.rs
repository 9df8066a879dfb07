//! What a Redis says about itself: for the doctor, and for the warnings of a node that starts.
//!
//! What always holds: nothing is changed, everything is asked once, and what Redis does not tell is absent, not made up.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::CustomCommand;
use fred::types::config::Config;
use tokio::time::{Instant, timeout};

use super::connection::{Ended, connect};
use super::masters::{Master, Masters};
use crate::limits::REDIS_TIMEOUT_MS;

/// Round trips that are measured.
const ROUND_TRIPS: usize = 21;
/// Settings that matter to the ledger.
const SETTINGS: [&str; 2] = ["append*", "maxmemory*"];

/// What one Redis says.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Look {
    /// From `INFO`.
    pub(crate) info: HashMap<String, String>,
    /// From `CONFIG GET`; nothing where that command is forbidden.
    pub(crate) settings: HashMap<String, String>,
    /// The median of some round trips.
    pub(crate) round_trip_us: Option<u64>,
}

impl Look {
    /// Takes what `INFO` answers.
    pub(crate) fn take_info(&mut self, text: &str) {
        let pairs = text.lines().filter_map(|line| line.trim_end().split_once(':'));
        self.info.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    /// Takes what `CONFIG GET` answers: names and values by turns.
    pub(crate) fn take_settings(&mut self, words: &[String]) {
        let pairs = words.chunks_exact(2).filter_map(|pair| Some((pair.first()?.clone(), pair.get(1)?.clone())));
        self.settings.extend(pairs);
    }
}

/// Which Redis, and how much is to find room in it.
#[derive(Clone, Debug)]
pub struct RedisNeed<'a> {
    /// Its address, as it is configured.
    pub(crate) url: &'a str,
    /// Entries of the streams in it that may be unstored.
    pub(crate) stream_entries_max: u64,
    /// As what it is named.
    pub(crate) kind: RedisKind,
}

/// What the configured URL says of a Redis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RedisKind {
    /// It is by itself.
    Alone,
    /// It is a master of a Redis Cluster, found by what that says of its slots.
    OfCluster,
}

impl RedisNeed<'_> {
    /// The address without the password, which `redis-cli` takes from `REDISCLI_AUTH`.
    pub(crate) fn address(&self) -> String {
        match self.url.rsplit_once('@') {
            Some((before, host)) => {
                let user = before.rsplit("//").next().and_then(|login| login.split(':').next()).unwrap_or_default();
                match user {
                    "" => format!("redis://{host}"),
                    user => format!("redis://{user}@{host}"),
                }
            }
            None => self.url.to_owned(),
        }
    }

    /// Sets something for now and for the next start.
    pub(crate) fn sets(&self, name: &str, value: &str) -> String {
        let cli = format!("redis-cli -u {}", self.address());
        format!("{cli} config set {name} {value} && {cli} config rewrite")
    }
}

/// What a Redis that says this may lose of what it has acknowledged, a line each; the doctor's words, handed in.
pub(crate) type Losses = fn(&Look, &RedisNeed<'_>) -> Vec<String>;

/// A master of the ledger.
#[derive(Debug)]
pub(crate) struct Looked {
    /// Its URL.
    pub(crate) url: String,
    /// How many buckets it has.
    pub(crate) buckets: usize,
    /// What it says; an error says why nothing was heard.
    pub(crate) look: Result<Look, String>,
}

/// Looks at every master that has some of so many buckets of the ledger; an error says why they could not be found.
pub(crate) async fn look(url: &str, buckets: usize) -> Result<Vec<Looked>, String> {
    let masters = in_time(Masters::find(url, buckets, 0)).await?;
    let mut looked = Vec::new();
    for Master { config, url, buckets } in masters.each() {
        looked.push(Looked { url: url.clone(), buckets: *buckets, look: in_time(look_once(config)).await });
    }
    Ok(looked)
}

async fn in_time<T>(looking: impl Future<Output = Result<T, Ended>>) -> Result<T, String> {
    match timeout(Duration::from_millis(REDIS_TIMEOUT_MS), looking).await {
        Ok(Ok(looked)) => Ok(looked),
        Ok(Err(Ended::Lost(error))) => Err(error),
        Ok(Err(_)) => Err("it does not answer".to_owned()),
        Err(_) => Err(format!("it did not answer within {REDIS_TIMEOUT_MS} ms")),
    }
}

/// Connects, looks, and hangs up.
async fn look_once(config: &Config) -> Result<Look, Ended> {
    let (client, task) = connect(config).await?;
    let mut look = look_through(&client).await;
    if let Ok(look) = &mut look {
        look.round_trip_us = round_trip_us(&client).await;
    }
    task.abort();
    look
}

/// Looks on a connection that is there.
pub(super) async fn look_through(client: &Client) -> Result<Look, Ended> {
    let mut look = Look::default();
    let info: String = client.custom(CustomCommand::new_static("INFO", None, false), Vec::<String>::new()).await?;
    look.take_info(&info);
    for pattern in SETTINGS {
        let command = CustomCommand::new_static("CONFIG", None, false);
        // Who offers Redis as a service may forbid it.
        let words: Result<Vec<String>, _> = client.custom(command, vec!["GET", pattern]).await;
        look.take_settings(&words.unwrap_or_default());
    }
    Ok(look)
}

async fn round_trip_us(client: &Client) -> Option<u64> {
    let mut took = Vec::with_capacity(ROUND_TRIPS);
    for _ in 0..ROUND_TRIPS {
        let began = Instant::now();
        client.ping::<String>(None).await.ok()?;
        took.push(began.elapsed().as_micros() as u64);
    }
    took.sort_unstable();
    took.get(ROUND_TRIPS / 2).copied()
}

/// Says loudly when Redis may lose what it has acknowledged.
pub(super) async fn warn_of_losses(client: &Client, need: &RedisNeed<'_>, losses: Losses) {
    // A Redis that cannot be asked now is not gone on with, and the next session asks.
    let Ok(look) = look_through(client).await else { return };
    for finding in losses(&look, need) {
        tracing::warn!("REDIS MAY LOSE WHAT IT HAS ACKNOWLEDGED: {finding}");
    }
}
