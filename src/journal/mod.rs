//! The journal: the ledger's append-only log on disk, in segments.
//!
//! Written by the ledger's thread, read by the store's thread (and by both at start). What always holds:
//! nothing below [`Progress::durable`] changes; what lies above it may be torn, and recovery throws it away.

pub mod batch;
pub mod disk;
pub mod memory_disk;
pub mod reader;
pub mod record;
pub mod recovery;
pub mod segment;
pub mod tail;
pub mod varint;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A place in the journal: bytes since its first segment began, over all segments. A record's position is
/// where its first byte lies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Position(pub u64);

/// Why the journal could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk did not do it. Nothing is known to be wrong with what is on it.
    #[error("the journal's {file}: {what} failed: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Which file; empty: the directory.
        file: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// What is on the disk is not what was written. Nothing is changed; an operator decides.
    #[error(
        "the journal is corrupt: {file} at byte {offset} (position {position}): {what}. Keep a copy of the \
         directory; `ringway journal verify` shows what can be read. Restore the file from a copy of the disk, \
         or move the journal away to start without it: then acknowledged messages that were not yet in the \
         store are lost"
    )]
    Corrupt {
        /// Which file.
        file: String,
        /// Where in it.
        offset: u64,
        /// The same as a position in the journal.
        position: u64,
        /// What was found there.
        what: &'static str,
    },
    /// The journal does not reach back to a position that is needed: its segment was removed.
    #[error(
        "the journal has nothing at position {wanted}, it begins at {first}: segments were removed that are still needed"
    )]
    Missing {
        /// What was to be read.
        wanted: u64,
        /// Where the journal begins.
        first: u64,
    },
    /// Another version wrote it.
    #[error("the journal's {file} has format {version}, this version of Ringway reads format {expected}")]
    Version {
        /// Which file.
        file: String,
        /// What it says.
        version: u32,
        /// What is understood.
        expected: u32,
    },
}

/// How far the journal and the store are, shared by the ledger's and the store's threads (no shard sees it).
#[derive(Debug, Default)]
pub struct Progress {
    durable: AtomicU64,
    applied: AtomicU64,
    secured: AtomicU64,
    tail_messages: AtomicU64,
    writes_store: AtomicBool,
    fence_asked: AtomicU64,
    fenced: AtomicU64,
}

impl Progress {
    /// Everything below is durable. Written by the ledger before anybody hears of what lies below.
    pub fn durable(&self) -> Position {
        Position(self.durable.load(Ordering::Acquire))
    }

    /// The ledger has synced up to here.
    pub fn advance_durable(&self, position: Position) {
        self.durable.store(position.0, Ordering::Release);
    }

    /// Everything below is in the store, and readers of the store see it.
    pub fn applied(&self) -> Position {
        Position(self.applied.load(Ordering::Acquire))
    }

    /// The store has committed up to here.
    pub fn advance_applied(&self, position: Position) {
        self.applied.store(position.0, Ordering::Release);
    }

    /// Everything below is in the store so that a power loss cannot take it back: segments below may go.
    pub fn secured(&self) -> Position {
        Position(self.secured.load(Ordering::Acquire))
    }

    /// The store has checkpointed up to here.
    pub fn advance_secured(&self, position: Position) {
        self.secured.store(position.0, Ordering::Release);
    }

    /// In a cluster: this node's store is the one that writes.
    pub fn writes_store(&self) -> bool {
        self.writes_store.load(Ordering::Relaxed)
    }

    /// In a cluster: whether this node's store is to write from now on.
    pub fn let_store_write(&self, writes: bool) {
        self.writes_store.store(writes, Ordering::Relaxed);
    }

    /// In a cluster: the position that the database is to be moved to, past a stream that is lost.
    pub fn fence_asked(&self) -> Position {
        Position(self.fence_asked.load(Ordering::Acquire))
    }

    /// Asks the store's thread to move the database's position there.
    pub fn ask_fence(&self, position: Position) {
        self.fence_asked.store(position.0, Ordering::Release);
    }

    /// In a cluster: the last position that this node's store, and no other, has moved the database's to.
    pub fn fenced(&self) -> Position {
        Position(self.fenced.load(Ordering::Acquire))
    }

    /// This node's store has moved the database's position there.
    pub fn report_fenced(&self, position: Position) {
        self.fenced.store(position.0, Ordering::Release);
    }

    /// Messages the tail indexes that the store has not applied.
    pub fn tail_messages(&self) -> u64 {
        self.tail_messages.load(Ordering::Relaxed)
    }

    /// The store's thread says how many messages its tail indexes.
    pub fn report_tail_messages(&self, count: u64) {
        self.tail_messages.store(count, Ordering::Relaxed);
    }
}
