//! What persists, opened in order: the database, then the journal on top of what the database has.
//!
//! On the main thread, before anything else runs. What always holds: when [`Persistence::open`] has returned, the
//! engine numbers beyond everything that anybody was ever told.

use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use futures_lite::future::block_on;

use crate::clock::Clock;
use crate::config::{Config, StoreUrl};
use crate::journal::Progress;
use crate::journal::disk::Directory;
use crate::ledger::journal_engine::{JournalEngine, Settings};
use crate::ledger::start::{Start, Started};
use crate::store::Store;
use crate::store::keeper::Keeper;
use crate::store::sqlite::SqliteStore;

const STORE_FILE: &str = "store.sqlite";
const JOURNAL_DIRECTORY: &str = "journal";

/// What the ledger's and the store's threads own.
pub struct Persistence {
    /// For the ledger's thread.
    pub engine: JournalEngine<Directory>,
    /// For the store's thread.
    pub keeper: Keeper<SqliteStore, Directory>,
}

impl Persistence {
    /// Opens store and journal, and recovers.
    pub fn open(config: &Config, clock: &Clock, shards: u16) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let file = match &config.store.url {
            StoreUrl::Sqlite(Some(path)) => path.clone(),
            StoreUrl::Sqlite(None) => config.data_dir.join(STORE_FILE),
        };
        let disk = Directory::open(&config.data_dir.join(JOURNAL_DIRECTORY))?;
        let mut store = SqliteStore::open(&file)?;
        let seed = unguessable();
        let settings = Settings {
            node: config.node_id,
            journal_bytes_max: config.limits.journal_bytes_max,
            ..Settings::new(shards, seed)
        };
        let progress = Arc::new(Progress::default());
        let mut start = Start::new(settings, block_on(store.position())?);
        block_on(store.newest_rows(&mut |row| start.newest_row(row)))?;
        block_on(store.groups(&mut |group| start.group(&group)))?;
        let (engine, started) = start.finish(disk.clone(), Arc::clone(&progress), clock.now())?;
        tell(&started, clock);
        Ok(Persistence { engine, keeper: Keeper::new(store, disk, progress, seed) })
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
