//! How far the ledger and the store are, as numbers that their threads share. (The others that share numbers are the
//! store's yielding and the count of submissions taken.)
//!
//! Written and read by the ledger's, the store's and, in a cluster, Redis's threads; no shard sees it. What always holds:
//! nothing below `durable` changes, and a position only grows, but for these: `applied` and `stored` are less when the database
//! itself went back, and a fence that was asked for may be taken back. In a cluster `applied` says where the database is,
//! and `stored` how much of what this node has read it has.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::contract::position::{AppliedPosition, JournalPosition, StreamPosition};

/// In a cluster, whose store writes the database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreWriter {
    /// This node's.
    ThisNode,
    /// Another node's, or nobody's.
    NotThisNode,
}

impl StoreWriter {
    /// From the flag that Redis answers.
    pub fn of(is_this_node: bool) -> StoreWriter {
        if is_this_node { StoreWriter::ThisNode } else { StoreWriter::NotThisNode }
    }
}

/// How far the journal and the store are, shared by the ledger's and the store's threads (no shard sees it).
#[derive(Debug, Default)]
pub struct Progress {
    durable: AtomicU64,
    applied: AtomicU64,
    compared: AtomicU64,
    diverged: AtomicU64,
    secured: AtomicU64,
    followed: AtomicU64,
    tail_messages: AtomicU64,
    ingested: AtomicU64,
    writes_store: AtomicBool,
    fence_asked: AtomicU64,
    fenced: AtomicU64,
    journal_is_full: AtomicBool,
    kept_bytes: AtomicU64,
}

impl Progress {
    /// Everything below is durable. Written by the ledger before anybody hears of what lies below.
    pub fn durable(&self) -> JournalPosition {
        JournalPosition(self.durable.load(Ordering::Acquire))
    }

    /// The ledger has synced up to here.
    pub fn advance_durable(&self, position: JournalPosition) {
        self.durable.store(position.0, Ordering::Release);
    }

    /// Everything below is in the store, and readers of the store see it.
    pub fn applied(&self) -> AppliedPosition {
        AppliedPosition(self.applied.load(Ordering::Acquire))
    }

    /// The store has committed up to here, and that is what this gateway's journal has up to here.
    pub fn advance_applied(&self, position: AppliedPosition) {
        self.applied.store(position.0, Ordering::Release);
        self.compared.store(position.0, Ordering::Release);
    }

    /// In a cluster: the database is here, and this node's copy of the stream has no entry of this number to compare it with,
    /// or another one.
    pub(crate) fn advance_uncompared(&self, position: AppliedPosition) {
        self.applied.store(position.0, Ordering::Release);
    }

    /// In a cluster: the database went back to here.
    pub(crate) fn put_back(&self, position: AppliedPosition) {
        self.applied.store(position.0, Ordering::Release);
        self.compared.fetch_min(position.0, Ordering::AcqRel);
    }

    /// In a cluster: the ledger goes on from a snapshot of the database, which has this.
    pub(crate) fn begin_behind(&self, position: StreamPosition) {
        self.compared.store(position.0, Ordering::Release);
    }

    /// In a cluster: up to here the database has what this node has read, entry by entry. It may be further.
    pub(crate) fn stored(&self) -> StreamPosition {
        StreamPosition(self.compared.load(Ordering::Acquire))
    }

    /// In a cluster: the database has something else at this entry than this node has read; zero: not as far as is known.
    pub(crate) fn diverged(&self) -> StreamPosition {
        StreamPosition(self.diverged.load(Ordering::Acquire))
    }

    /// The store's thread has compared them. Zero: they do not differ.
    pub fn report_diverged(&self, entry: StreamPosition) {
        self.diverged.store(entry.0, Ordering::Release);
    }

    /// Everything below is in the store so that a power loss cannot take it back: segments below may go.
    pub(crate) fn secured(&self) -> JournalPosition {
        JournalPosition(self.secured.load(Ordering::Acquire))
    }

    /// The store has checkpointed up to here.
    pub fn advance_secured(&self, position: JournalPosition) {
        self.secured.store(position.0, Ordering::Release);
    }

    /// Others than the store read the journal: so many bytes below [`Self::durable`] are kept for them.
    pub(crate) fn keep_behind(&self, bytes: u64) {
        self.kept_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Nobody needs what lies below. A disk that has no room is not kept full for those who read behind the store.
    pub(crate) fn needed_from(&self) -> JournalPosition {
        let secured = self.secured();
        if self.journal_is_full() {
            return secured;
        }
        let kept_from = self.durable().0.saturating_sub(self.kept_bytes.load(Ordering::Relaxed));
        secured.min(JournalPosition(kept_from))
    }

    /// In a cluster: the last entry of the stream that the ledger has read, or that is in the snapshot of the database which
    /// it began from. What lies behind it must not be cut off.
    pub fn followed(&self) -> StreamPosition {
        StreamPosition(self.followed.load(Ordering::Acquire))
    }

    /// The ledger has read so far.
    pub(crate) fn report_followed(&self, position: StreamPosition) {
        self.followed.store(position.0, Ordering::Release);
    }

    /// In a cluster: this node's store is the one that writes.
    pub(crate) fn writes_store(&self) -> bool {
        self.writes_store.load(Ordering::Relaxed)
    }

    /// In a cluster: which node's store is to write from now on.
    pub fn set_store_writer(&self, writer: StoreWriter) {
        self.writes_store.store(writer == StoreWriter::ThisNode, Ordering::Relaxed);
    }

    /// In a cluster: the position that the database is to be moved to, past a stream that is lost.
    pub fn fence_asked(&self) -> StreamPosition {
        StreamPosition(self.fence_asked.load(Ordering::Acquire))
    }

    /// Asks the store's thread to move the database's position there.
    pub(crate) fn ask_fence(&self, position: StreamPosition) {
        self.fence_asked.store(position.0, Ordering::Release);
    }

    /// It is not to be moved any more; perhaps it was already.
    pub fn take_back_fence(&self) {
        self.fence_asked.store(0, Ordering::Release);
    }

    /// In a cluster: the last position that this node's store, and no other, has moved the database's to.
    pub(crate) fn fenced(&self) -> StreamPosition {
        StreamPosition(self.fenced.load(Ordering::Acquire))
    }

    /// This node's store has moved the database's position there.
    pub fn report_fenced(&self, position: StreamPosition) {
        self.fenced.store(position.0, Ordering::Release);
    }

    /// The journal takes nothing: messages are refused.
    pub(crate) fn journal_is_full(&self) -> bool {
        self.journal_is_full.load(Ordering::Relaxed)
    }

    /// The ledger could not write, or may not.
    pub(crate) fn journal_refuses_messages(&self) {
        self.journal_is_full.store(true, Ordering::Relaxed);
    }

    /// The ledger can write again.
    pub(crate) fn journal_takes_messages(&self) {
        self.journal_is_full.store(false, Ordering::Relaxed);
    }

    /// Messages the tail indexes that the store has not applied.
    pub(crate) fn tail_messages(&self) -> u64 {
        self.tail_messages.load(Ordering::Relaxed)
    }

    /// Everything below is in the tail, or was, and counted there.
    pub(crate) fn ingested(&self) -> JournalPosition {
        JournalPosition(self.ingested.load(Ordering::Acquire))
    }

    /// The store's thread says how many messages its tail indexes, and up to where it has taken the journal in.
    pub(crate) fn report_tail_messages(&self, count: u64, ingested: JournalPosition) {
        self.tail_messages.store(count, Ordering::Relaxed);
        self.ingested.store(ingested.0, Ordering::Release);
    }
}
