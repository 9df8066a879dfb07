//! What a lab is made of, and how long its servers are waited for.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

/// How long a server may take to answer on a busy machine.
pub(crate) const START_PATIENCE: Duration = Duration::from_secs(90);
/// How long a question to a server may take.
pub(crate) const ASK_PATIENCE: Duration = Duration::from_secs(15);
/// Masters of a Redis Cluster, and buckets of the ledger in it.
pub(crate) const REDIS_MASTERS: usize = 3;

/// What a lab is made of.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The gateway's binary.
    pub(crate) ringway: PathBuf,
    /// Where everything lies that goes afterwards.
    pub(crate) dir: PathBuf,
    /// Where the logs go.
    pub(crate) report: PathBuf,
    /// How Redis is run.
    pub(crate) redis: RedisKind,
    /// How long it keeps names: `limits.names_s`.
    pub(crate) names: Duration,
}

/// How Redis is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum RedisKind {
    /// One server.
    Alone,
    /// A Redis Cluster of three masters, one for each bucket of the ledger.
    Cluster,
    /// A primary and an asynchronous replica; Sentinel promotes.
    Sentinel,
}

impl RedisKind {
    /// How many servers that are.
    pub(crate) fn servers(self) -> usize {
        match self {
            RedisKind::Alone => 1,
            RedisKind::Cluster => REDIS_MASTERS,
            RedisKind::Sentinel => 2,
        }
    }
}
