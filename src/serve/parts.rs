//! What persists, opened in order: the database, then the journal on top of what the database has.
//!
//! On the main thread, before anything else runs. What always holds: when [`Persistence::open`] has returned, the
//! engine numbers beyond everything that anybody was ever told.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, never};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::clock::{Clock, Now};
use crate::cluster::LedgerLink;
use crate::config::{Cluster, Config, StoreUrl};
use crate::contract::chain::Chain;
use crate::contract::delivery::Delivery;
use crate::contract::keyed::unguessable;
use crate::contract::policies::Rules;
use crate::contract::progress::Progress;
use crate::contract::report::LedgerCounters;
use crate::contract::snapshot::snapshots;
use crate::contract::store::StorePosition;
use crate::contract::store::{Lookup, LookupAnswer};
use crate::contract::submission::Submission;
use crate::control::webhooks::JournalSource;
use crate::control::{Stage, StopSignal};
use crate::doctor::checks::redis::losses_said;
use crate::journal::disk::Directory;
use crate::ledger::journal_engine::{JournalEngine, Settings};
use crate::ledger::redis::link::link;
use crate::ledger::redis::start::RedisStart;
use crate::ledger::redis::{self, RedisEngine};
use crate::ledger::start::{Start, Started};
use crate::ledger::{Engine, GroupLimits, LedgerError};
use crate::limits::SEGMENT_BYTES;
use crate::store::backoff::Backoff;
use crate::store::keeper::Keeper;
use crate::store::mysql::{MySqlStore, Sharing, Use};
use crate::store::sqlite::SqliteStore;
use crate::store::{Store, StoreError};
use crate::topology::cpus::CpuPlan;
use ringway_wire::ids::UserId;

const STORE_FILE: &str = "store.sqlite";
const JOURNAL_DIRECTORY: &str = "journal";
const LOG_DIRECTORY: &str = "cluster-log";
const COPY_DIRECTORY: &str = "cluster-copy";

/// What the ledger's, the store's and Redis's threads own.
pub(super) struct Persistence {
    /// For the ledger's thread.
    pub(crate) engine: LedgerEngine,
    /// Wakes the ledger's loop when Redis's thread has something for it; never, without a cluster.
    pub(crate) nudges: Receiver<()>,
    /// For Redis's thread, in a cluster.
    pub(crate) redis: Option<LedgerLink>,
    /// For the store's thread.
    pub(crate) keeper: AnyKeeper,
    /// What the store was opened on, and has to run on.
    pub(crate) runtime: Runtime,
    /// For those who are told what happens.
    pub(crate) source: JournalSource,
}

/// One of the ledger's two engines.
pub(super) enum LedgerEngine {
    /// This machine's own.
    Journal(Box<JournalEngine<Directory>>),
    /// The cluster's.
    Redis(Box<RedisEngine<Directory>>),
}

/// The store's core, by database.
pub(super) enum AnyKeeper {
    /// The embedded one.
    Sqlite(Box<Keeper<SqliteStore, Directory>>),
    /// On a server.
    MySql(Box<Keeper<MySqlStore, Directory>>),
}

/// What a start found, to be waited for or not.
enum Opened<S: Store> {
    Ready(Box<(LedgerParts, Keeper<S, Directory>)>),
    /// Somebody wanted the process to stop first.
    Stopped,
}

/// What is not the store's.
struct LedgerParts {
    engine: LedgerEngine,
    nudges: Receiver<()>,
    redis: Option<LedgerLink>,
    source: JournalSource,
}

/// What a database said, for either engine.
enum Known {
    Alone(Box<Start>),
    Cluster { start: Box<RedisStart>, at: StorePosition },
}

impl Persistence {
    /// Opens store and journal, and recovers. A database that is away is waited for, unless a stop comes first:
    /// then there is nothing.
    pub(super) fn open(
        config: &Config,
        clock: &Clock,
        cpus: &CpuPlan,
        stage: &watch::Sender<Stage>,
        stops: &Receiver<StopSignal>,
    ) -> Result<Option<Self>, Box<dyn Error + Send + Sync>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let opening = Opening { config, clock, shards: cpus.shards.len() as u16, runtime: &runtime, stage, stops };
        let sharing = if config.cluster.redis_url.is_some() { Sharing::Cluster } else { Sharing::Alone };
        let (parts, keeper) = match &config.store.url {
            StoreUrl::Sqlite(path) => {
                let file = path.clone().unwrap_or_else(|| config.data_dir.join(STORE_FILE));
                let store = async || SqliteStore::open(&file, config.store.batch_rows);
                let Opened::Ready(ready) = opening.refused_if_unavailable(store)? else { return Ok(None) };
                let (parts, keeper) = *ready;
                (parts, AnyKeeper::Sqlite(Box::new(keeper)))
            }
            StoreUrl::MySql(url) => {
                let how = Use { batch_rows: config.store.batch_rows, pool_size: config.store.pool_size, sharing };
                let store = async || MySqlStore::open(url, how).await;
                let Opened::Ready(ready) = opening.waited_for(store)? else { return Ok(None) };
                let (parts, keeper) = *ready;
                (parts, AnyKeeper::MySql(Box::new(keeper)))
            }
        };
        let LedgerParts { engine, nudges, redis, source } = parts;
        Ok(Some(Persistence { engine, nudges, redis, keeper, runtime, source }))
    }
}

/// What opening needs.
struct Opening<'a> {
    config: &'a Config,
    clock: &'a Clock,
    shards: u16,
    runtime: &'a Runtime,
    stage: &'a watch::Sender<Stage>,
    stops: &'a Receiver<StopSignal>,
}

impl Opening<'_> {
    fn refused_if_unavailable<S: Store>(
        &self,
        open: impl AsyncFn() -> Result<S, StoreError>,
    ) -> Result<Opened<S>, Box<dyn Error + Send + Sync>> {
        let known = self.runtime.block_on(self.read(open))?;
        self.recover(known)
    }

    /// The newest row of every user is in the database, and numbering goes on from there: without it nothing can be
    /// served.
    fn waited_for<S: Store>(
        &self,
        open: impl AsyncFn() -> Result<S, StoreError>,
    ) -> Result<Opened<S>, Box<dyn Error + Send + Sync>> {
        let mut backoff = Backoff::new(unguessable());
        loop {
            let error = match self.runtime.block_on(self.read(&open)) {
                Ok(known) => {
                    self.stage.send_replace(Stage::Starting);
                    return self.recover(known);
                }
                Err(error) if error.passes_by_itself() => error,
                Err(error) => return Err(error.into()),
            };
            let wait_ms = backoff.refused();
            tracing::warn!(
                error = %Chain(&error),
                retry_ms = wait_ms,
                "waiting for the store: nobody is served before its newest rows are known"
            );
            self.stage.send_replace(Stage::WaitingForStore);
            if self.stops.recv_timeout(Duration::from_millis(wait_ms)).is_ok() {
                return Ok(Opened::Stopped);
            }
        }
    }

    /// What the store knows.
    async fn read<S: Store>(
        &self,
        open: impl AsyncFn() -> Result<S, StoreError>,
    ) -> Result<(S, Known, u64), StoreError> {
        let mut store = open().await?;
        let seed = unguessable();
        if self.config.cluster.redis_url.is_some() {
            let known = self.read_for_cluster(&mut store, seed).await?;
            return Ok((store, known, seed));
        }
        let settings = Settings {
            node: self.config.cluster.node_id,
            journal_bytes_max: self.config.limits.journal_bytes_max,
            groups: self.group_limits(),
            traffic: self.config.limits.traffic,
            policies: self.config.policies,
            ..Settings::new(self.shards, seed)
        };
        let mut start = Start::new(settings, store.position().await?);
        store.newest_rows(&mut |row| start.newest_row(row)).await?;
        store.groups(&mut |group| start.group(&group)).await?;
        Ok((store, Known::Alone(Box::new(start)), seed))
    }

    fn group_limits(&self) -> GroupLimits {
        let user_groups_bytes_max = self.config.limits.user_groups_bytes_max;
        GroupLimits { user_groups_bytes_max, ..GroupLimits::default() }
    }

    /// The same in a cluster, whose other nodes may write meanwhile.
    async fn read_for_cluster<S: Store>(&self, store: &mut S, seed: u64) -> Result<Known, StoreError> {
        let Cluster { node_id: node, buckets, names, .. } = self.config.cluster;
        let (shards, Rules { traffic, policies, .. }) = (self.shards, self.config.rules());
        let groups = self.group_limits();
        let (segment_bytes, entries_max) = (SEGMENT_BYTES, self.config.limits.stream_entries_max);
        let settings = redis::Settings {
            shards,
            node,
            segment_bytes,
            buckets,
            names,
            entries_max,
            groups,
            traffic,
            policies,
            seed,
        };
        let mut start = RedisStart::new(settings);
        let at = store.snapshot(&mut |stored| start.visit(stored)).await?;
        Ok(Known::Cluster { start: Box::new(start), at })
    }

    /// The journal on top of it.
    fn recover<S: Store>(
        &self,
        (store, known, seed): (S, Known, u64),
    ) -> Result<Opened<S>, Box<dyn Error + Send + Sync>> {
        let progress = Arc::new(Progress::default());
        let data_dir = &self.config.data_dir;
        let webhooks = &self.config.webhooks;
        progress.keep_behind(webhooks.endpoints_file.as_ref().map_or(0, |_| webhooks.journal_bytes));
        let (parts, keeper) = match known {
            Known::Alone(start) => {
                let disk = Directory::open(&data_dir.join(JOURNAL_DIRECTORY))?;
                let (engine, started) = start.finish(disk.clone(), Arc::clone(&progress), self.clock.now())?;
                log_recovery(&started, self.clock);
                let source = JournalSource { disk: disk.clone(), progress: Arc::clone(&progress), is_cluster: false };
                let keeper = Keeper::new(store, disk, progress, seed);
                let engine = LedgerEngine::Journal(Box::new(engine));
                (LedgerParts { engine, nudges: never(), redis: None, source }, keeper)
            }
            Known::Cluster { start, at } => {
                let log = Directory::open(&data_dir.join(LOG_DIRECTORY))?;
                let copy = Directory::open(&data_dir.join(COPY_DIRECTORY))?;
                let (ledger, ends, nudges) = link();
                let (asker, answerer) = snapshots(ends.nudge());
                let disks = (log, copy.clone());
                let engine = start.finish(disks, Arc::clone(&progress), (ledger, asker), at)?;
                let engine = LedgerEngine::Redis(Box::new(engine));
                let cluster = &self.config.cluster;
                assert!(cluster.redis_url.is_some(), "a cluster's ledger is begun where no Redis was configured");
                let (url, node) = (cluster.redis_url.clone().unwrap_or_default(), cluster.node_id);
                // Another one in every process: a copy of the data directory is not this node, and waits until its lease ends.
                let token = unguessable();
                let entries_max = self.config.limits.stream_entries_max;
                let (buckets, progress_of_redis) = (cluster.buckets, Arc::clone(&progress));
                let redis = LedgerLink {
                    ends,
                    url,
                    buckets,
                    names: cluster.names,
                    node,
                    token,
                    entries_max,
                    losses: losses_said,
                    progress: progress_of_redis,
                };
                let source = JournalSource { disk: copy.clone(), progress: Arc::clone(&progress), is_cluster: true };
                let keeper = Keeper::of_cluster(store, copy, progress, answerer, seed);
                (LedgerParts { engine, nudges, redis: Some(redis), source }, keeper)
            }
        };
        Ok(Opened::Ready(Box::new((parts, keeper))))
    }
}

impl Engine for LedgerEngine {
    fn submit(&mut self, now: Now, submission: Submission) {
        match self {
            LedgerEngine::Journal(engine) => engine.submit(now, submission),
            LedgerEngine::Redis(engine) => engine.submit(now, submission),
        }
    }

    fn found(&mut self, now: Now, answer: LookupAnswer) {
        match self {
            LedgerEngine::Journal(engine) => engine.found(now, answer),
            LedgerEngine::Redis(engine) => engine.found(now, answer),
        }
    }

    fn full(&self) -> bool {
        match self {
            LedgerEngine::Journal(engine) => engine.full(),
            LedgerEngine::Redis(engine) => engine.full(),
        }
    }

    fn staged_rows(&self) -> usize {
        match self {
            LedgerEngine::Journal(engine) => engine.staged_rows(),
            LedgerEngine::Redis(engine) => engine.staged_rows(),
        }
    }

    fn take_released(&mut self, out: &mut Vec<(UserId, usize)>) {
        match self {
            LedgerEngine::Journal(engine) => engine.take_released(out),
            LedgerEngine::Redis(engine) => engine.take_released(out),
        }
    }

    fn commit(&mut self, now: Now, out: &mut [Vec<Delivery>]) -> Result<(), LedgerError> {
        match self {
            LedgerEngine::Journal(engine) => engine.commit(now, out),
            LedgerEngine::Redis(engine) => engine.commit(now, out),
        }
    }

    fn take_lookups(&mut self, out: &mut Vec<Lookup>) {
        match self {
            LedgerEngine::Journal(engine) => engine.take_lookups(out),
            LedgerEngine::Redis(engine) => engine.take_lookups(out),
        }
    }

    fn grew(&mut self) -> bool {
        match self {
            LedgerEngine::Journal(engine) => engine.grew(),
            LedgerEngine::Redis(engine) => engine.grew(),
        }
    }

    fn has_more(&self) -> bool {
        match self {
            LedgerEngine::Journal(engine) => engine.has_more(),
            LedgerEngine::Redis(engine) => engine.has_more(),
        }
    }

    fn set_rules(&mut self, rules: Rules) {
        match self {
            LedgerEngine::Journal(engine) => engine.set_rules(rules),
            LedgerEngine::Redis(engine) => engine.set_rules(rules),
        }
    }

    fn counters(&self) -> LedgerCounters {
        match self {
            LedgerEngine::Journal(engine) => engine.counters(),
            LedgerEngine::Redis(engine) => engine.counters(),
        }
    }
}

fn log_recovery(started: &Started, clock: &Clock) {
    if let Some(torn) = &started.torn {
        tracing::warn!(
            file = torn.file,
            offset = torn.offset,
            "the journal ended in a batch that was being written; nobody was told of it, and it is thrown away"
        );
    }
    if started.segments_dropped > 0 {
        tracing::warn!(
            segments = started.segments_dropped,
            "the store is ahead of the journal that was found; what the journal had left is in the store already"
        );
    }
    tracing::info!(
        users = started.users,
        groups = started.groups,
        replayed = started.messages_replayed,
        recovery_ms = clock.now().mono_ms,
        "recovered"
    );
}

#[cfg(test)]
mod tests;
