//! What persists, opened in order: the database, then the journal on top of what the database has.
//!
//! On the main thread, before anything else runs. What always holds: when [`Persistence::open`] has returned, the
//! engine numbers beyond everything that anybody was ever told.

use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::{Config, StoreUrl};
use crate::control::{Stage, StopSignal};
use crate::journal::Progress;
use crate::journal::disk::Directory;
use crate::ledger::journal_engine::{JournalEngine, Settings};
use crate::ledger::start::{Start, Started};
use crate::store::backoff::Backoff;
use crate::store::keeper::Keeper;
use crate::store::mysql::MySqlStore;
use crate::store::sqlite::SqliteStore;
use crate::store::{Store, StoreError};

const STORE_FILE: &str = "store.sqlite";
const JOURNAL_DIRECTORY: &str = "journal";

/// What the ledger's and the store's threads own.
pub struct Persistence {
    /// For the ledger's thread.
    pub engine: JournalEngine<Directory>,
    /// For the store's thread.
    pub keeper: AnyKeeper,
    /// What the store was opened on, and has to run on.
    pub runtime: Runtime,
}

/// The store's core, by database.
pub enum AnyKeeper {
    /// The embedded one.
    Sqlite(Box<Keeper<SqliteStore, Directory>>),
    /// On a server.
    MySql(Box<Keeper<MySqlStore, Directory>>),
}

/// What a start found, to be waited for or not.
enum Opened<S: Store> {
    Ready(Box<(JournalEngine<Directory>, Keeper<S, Directory>)>),
    /// Somebody wanted the process to stop first.
    Stopped,
}

impl Persistence {
    /// Opens store and journal, and recovers. A database that is away is waited for, unless a stop comes first:
    /// then there is nothing.
    pub fn open(
        config: &Config,
        clock: &Clock,
        shards: u16,
        stage: &watch::Sender<Stage>,
        stops: &Receiver<StopSignal>,
    ) -> Result<Option<Self>, Box<dyn Error + Send + Sync>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let disk = Directory::open(&config.data_dir.join(JOURNAL_DIRECTORY))?;
        let opening = Opening { config, clock, shards, disk, runtime: &runtime, stage, stops };
        let (engine, keeper) = match &config.store.url {
            StoreUrl::Sqlite(path) => {
                let file = path.clone().unwrap_or_else(|| config.data_dir.join(STORE_FILE));
                let store = async || SqliteStore::open(&file, config.store.batch_rows);
                let Opened::Ready(ready) = opening.refused_if_away(store)? else { return Ok(None) };
                let (engine, keeper) = *ready;
                (engine, AnyKeeper::Sqlite(Box::new(keeper)))
            }
            StoreUrl::MySql(url) => {
                let store = async || MySqlStore::open(url, config.store.batch_rows).await;
                let Opened::Ready(ready) = opening.waited_for(store)? else { return Ok(None) };
                let (engine, keeper) = *ready;
                (engine, AnyKeeper::MySql(Box::new(keeper)))
            }
        };
        Ok(Some(Persistence { engine, keeper, runtime }))
    }
}

/// What opening needs.
struct Opening<'a> {
    config: &'a Config,
    clock: &'a Clock,
    shards: u16,
    disk: Directory,
    runtime: &'a Runtime,
    stage: &'a watch::Sender<Stage>,
    stops: &'a Receiver<StopSignal>,
}

impl Opening<'_> {
    fn refused_if_away<S: Store>(
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
                error = &error as &dyn Error,
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
    ) -> Result<(S, Start, u64), StoreError> {
        let mut store = open().await?;
        let seed = unguessable();
        let settings = Settings {
            node: self.config.node_id,
            journal_bytes_max: self.config.limits.journal_bytes_max,
            ..Settings::new(self.shards, seed)
        };
        let mut start = Start::new(settings, store.position().await?);
        store.newest_rows(&mut |row| start.newest_row(row)).await?;
        store.groups(&mut |group| start.group(&group)).await?;
        Ok((store, start, seed))
    }

    /// The journal on top of it.
    fn recover<S: Store>(
        &self,
        (store, start, seed): (S, Start, u64),
    ) -> Result<Opened<S>, Box<dyn Error + Send + Sync>> {
        let progress = Arc::new(Progress::default());
        let (engine, started) = start.finish(self.disk.clone(), Arc::clone(&progress), self.clock.now())?;
        tell(&started, self.clock);
        let keeper = Keeper::new(store, self.disk.clone(), progress, seed);
        Ok(Opened::Ready(Box::new((engine, keeper))))
    }
}

fn tell(started: &Started, clock: &Clock) {
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

/// A seed that nobody outside can guess (std seeds its hasher from the kernel).
fn unguessable() -> u64 {
    RandomState::new().hash_one(std::process::id())
}
