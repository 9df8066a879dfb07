//! The core of the store's thread: applies the journal to the database and answers from database and tail.
//!
//! Owned by the store's thread (topology/store_loop.rs), or by the simulator. What always holds: an answer covers everything that
//! was durable when the question was asked; a page has no hole between the database's rows and the tail's,
//! because how far the database is counts only once the keeper has taken it, which it does between pages; and a database that is away delays only what is in it alone.
//! It leaves out waiting: [`Keeper::turn`] says when it wants to be called again.

pub(crate) mod devices;
pub(crate) mod lookups;
pub(crate) mod pages;
mod position;
mod share;
mod trace;

use std::sync::Arc;

use super::backoff::Backoff;
use super::cursors::Cursors;
use super::in_flight::{InFlight, Load};
use super::messages::Messages;
use super::names::Written;
use super::retention::{Expire, Retention};
use super::trouble::{JournalRoom, Said, Severity, Trouble};
use super::{Store, StoreError, Transaction};
use crate::clock::Now;
use crate::contract::cause::Cause;
use crate::contract::chain::Chain;
use crate::contract::ids::ShardId;
use crate::contract::internal::InternalErrors;
use crate::contract::position::{JournalPosition, StreamDigest, StreamPosition};
use crate::contract::progress::Progress;
use crate::contract::snapshot::{SnapshotAnswerer, SnapshotAsk};
use crate::contract::store::{StoreAnswer, StoreAsk};
use crate::contract::store_counters::StoreCounters;
use crate::journal::JournalError;
use crate::journal::disk::Disk;
use crate::limits::{CURSORS_SAVED_MAX, SECURE_BYTES, SECURE_MS, TRANSACTION_BYTES_MAX};
use crate::store::tail::Tail;
use devices::CursorAsked;
use pages::PageAsked;
use position::{Follows, Holes, Known};
use ringway_wire::ids::MsgId;
use share::TransactionRows;

/// Cursors are saved so often: what a device may receive again after a crash of the machine.
const CURSORS_SAVE_MS: u64 = 1_000;

/// What one turn did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// All that is durable is applied.
    Idle,
    /// A transaction is on its way; [`Keeper::ended`] waits for its end.
    Writing,
    /// One transaction was applied; there may be more.
    Applied {
        /// Its inbox rows.
        rows: usize,
        /// Its messages.
        messages: usize,
    },
    /// The database refused; the next try is at this monotonic time in milliseconds.
    RetryAt(u64),
}

/// What is durable and not applied.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Backlog {
    /// In the journal.
    pub(crate) bytes: u64,
    /// In inboxes.
    pub(crate) rows: usize,
}

/// Applies and answers.
pub struct Keeper<S: Store, D: Disk> {
    store: S,
    disk: D,
    tail: Tail<D>,
    in_flight: InFlight<S>,
    position: Known,
    /// In a cluster: what the database has at its position, as it was read last.
    digest: StreamDigest,
    progress: Arc<Progress>,
    messages: Messages,
    cursors: Cursors,
    cursors_saved_ms: u64,
    /// In a cluster: whose store this is, and when the others' progress was last looked at.
    follows: Follows,
    looked_ms: u64,
    /// In a cluster: the ledger's questions for a snapshot, and the one that is being answered.
    answerer: Option<SnapshotAnswerer>,
    /// In a cluster: up to here this node has all that the database has lost, and writes it again, whoever's turn it is.
    puts_back_to: StreamPosition,
    /// In a cluster: what the database has lost and this node does not have, while another node may.
    holes: Option<Holes>,
    snapshot_ask: Option<SnapshotAsk>,
    /// A read failed, and nothing has succeeded since: reads are refused at once, until a turn finds the database
    /// back (a lost connection may take seconds to be noticed, each time).
    reads_unavailable: bool,
    /// Reads that failed are said in the log once a minute, however many ask.
    reads_said: Said,
    /// When the last turn began, monotonic.
    turned_ms: u64,
    /// Writes that failed in a row, and when the next may be tried.
    backoff: Backoff,
    retry_at_ms: u64,
    trouble: Trouble,
    retention: Retention,
    /// The newest message of when the database's position was read last.
    newest: MsgId,
    secured: JournalPosition,
    secured_ms: u64,
    secure_failed: bool,
    rows: TransactionRows,
    counters: StoreCounters,
}

/// Why something was not done; which of them makes no difference to what is done next.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("the database was away a moment ago")]
    Unavailable,
}

impl<S: Store, D: Disk> Keeper<S, D> {
    /// Keeps `store` up with the journal in `disk`. `seed` spreads its retries.
    pub fn new(store: S, disk: D, progress: Arc<Progress>, seed: u64) -> Self {
        Keeper {
            rows: TransactionRows::of(&store),
            store,
            tail: Tail::new(disk.clone(), JournalPosition(0)),
            disk,
            in_flight: InFlight::default(),
            position: Known::Never,
            digest: StreamDigest::default(),
            progress,
            messages: Messages::default(),
            cursors: Cursors::default(),
            cursors_saved_ms: 0,
            follows: Follows::Alone,
            looked_ms: 0,
            answerer: None,
            puts_back_to: StreamPosition(0),
            holes: None,
            snapshot_ask: None,
            reads_unavailable: false,
            reads_said: Said::default(),
            turned_ms: 0,
            backoff: Backoff::new(seed),
            retry_at_ms: 0,
            trouble: Trouble::default(),
            retention: Retention::new(0),
            newest: MsgId(0),
            secured: JournalPosition(0),
            secured_ms: 0,
            secure_failed: false,
            counters: StoreCounters::default(),
        }
    }

    /// The same for a node of a cluster: what is in `disk` is the node's copy of the stream.
    pub fn of_cluster(store: S, disk: D, progress: Arc<Progress>, answerer: SnapshotAnswerer, seed: u64) -> Self {
        let tail = Tail::of_stream(disk.clone(), JournalPosition(0));
        let answerer = Some(answerer);
        Keeper { tail, answerer, follows: Follows::Stream, ..Keeper::new(store, disk, progress, seed) }
    }

    /// Answers a shard; `None`: it expects no answer.
    pub async fn ask(&mut self, ask: StoreAsk) -> Option<(ShardId, StoreAnswer)> {
        match ask {
            StoreAsk::Page { session, purpose, user, after, rows_max } => {
                let mut answers = Vec::with_capacity(1);
                self.pages(&[PageAsked { session, purpose, user, after, rows_max }], &mut answers).await;
                answers.pop()
            }
            StoreAsk::Cursor { origin, user, device } => {
                let mut answers = Vec::with_capacity(1);
                self.cursors(&[CursorAsked { origin, user, device }], &mut answers).await;
                answers.pop()
            }
            StoreAsk::SaveCursors(rows) => {
                self.counters.cursors_dropped += self.cursors.merge(&rows);
                None
            }
            StoreAsk::Trace { origin, ask } => {
                let traced = self.trace(&ask).await;
                Some((origin.session.shard, StoreAnswer::Traced { origin, traced }))
            }
        }
    }

    /// Ingests the journal and applies at most one transaction. To be called when there is something new, at the
    /// time it asked for, when a transaction has ended, and at least once a second.
    pub async fn turn(&mut self, now: Now) -> Turn {
        self.turned_ms = now.mono_ms;
        if self.in_flight.is_busy() {
            return self.follow_up(now);
        }
        if self.backoff.refusals() > 0 && now.mono_ms < self.retry_at_ms {
            // The tail follows meanwhile, so that its weight is known and reading it stays quick.
            if self.position != Known::Never
                && let Err(error) = self.ingest()
            {
                self.failed(now, &error.into());
            }
            return Turn::RetryAt(self.retry_at_ms);
        }
        match self.work(now).await {
            Ok(turn) => turn,
            Err(fault) => {
                self.failed(now, &fault);
                Turn::RetryAt(self.retry_at_ms)
            }
        }
    }

    /// Waits until the transaction on its way has ended, for [`Self::turn`] to look at; for ever, if there is none.
    pub(crate) async fn ended(&mut self) {
        self.in_flight.ended().await;
    }

    /// A transaction is on its way, or its end was not looked at yet.
    pub(crate) fn is_writing(&self) -> bool {
        self.in_flight.is_busy()
    }

    /// Looks whether the transaction on its way has ended; if not, makes the next one ready, once it is a full one.
    fn follow_up(&mut self, now: Now) -> Turn {
        let Some((load, outcome)) = self.in_flight.take_ended() else {
            if let Err(error) = self.prepare_full() {
                self.failed(now, &error.into());
            }
            return Turn::Writing;
        };
        match outcome {
            Ok(written) => {
                self.position = Known::Sure;
                self.take_written(&written);
                self.advance(load.applied, load.digest);
                self.counters.rows += load.rows as u64;
                self.counters.messages += load.messages as u64;
                self.counters.group_changes += load.groups as u64;
                self.counters.transactions += 1;
                self.succeeded();
                Turn::Applied { rows: load.rows, messages: load.messages }
            }
            Err(error) => {
                self.failed(now, &error.into());
                Turn::RetryAt(self.retry_at_ms)
            }
        }
    }

    /// Makes the next transaction ready, if there is enough for a full one behind what is on its way.
    fn prepare_full(&mut self) -> Result<(), JournalError> {
        let Some(writing) = self.in_flight.load() else { return Ok(()) };
        if self.in_flight.has_next() || self.follows == Follows::Stream {
            return Ok(());
        }
        self.ingest()?;
        let bytes = self.tail.ingested().0.saturating_sub(writing.applied.0);
        if (self.tail.rows().saturating_sub(writing.rows) >= self.rows.max() || bytes >= TRANSACTION_BYTES_MAX)
            && let Some(transaction) =
                self.tail.transaction(writing.applied.in_journal(), self.rows.max(), TRANSACTION_BYTES_MAX)?
        {
            self.in_flight.prepare(&self.store, transaction);
        }
        Ok(())
    }

    fn succeeded(&mut self) {
        self.trouble.ends(self.backoff.accepted(), &mut self.counters);
    }

    /// Makes what was applied survive a power loss.
    pub async fn secure(&mut self, now: Now) {
        self.secured_ms = now.mono_ms;
        match self.store.secure().await {
            Ok(secured) => {
                // The copy of a stream is no longer needed where the tail no longer reads it.
                let secured = match self.follows {
                    Follows::Stream => self.copy_needed_from(),
                    Follows::Alone => secured.in_journal(),
                };
                self.secured = secured;
                self.progress.advance_secured(secured);
                self.counters.secures += 1;
                self.secure_failed = false;
            }
            // Nothing is lost: the journal keeps what is not secured.
            Err(error) => {
                if !self.secure_failed {
                    tracing::error!(error = %Chain(&error), "the store could not be synced");
                }
                self.secure_failed = true;
            }
        }
    }

    /// Counters as of now.
    pub fn counters(&self) -> StoreCounters {
        StoreCounters {
            applied: self.tail.applied().0,
            durable: self.progress.durable().0,
            secured: self.secured.0,
            cache_bytes: self.store.cache_bytes(),
            tail_weight: self.tail.weight(),
            internal: InternalErrors::of_this_thread(),
            ..self.counters
        }
    }

    /// A transaction took so long; measured outside, where there is a clock.
    pub(crate) fn applied_in(&mut self, us: u64) {
        self.counters.applying.record(us);
    }

    /// Nothing waits to be written: all that is durable is applied, and no cursor waits.
    pub fn is_settled(&self) -> bool {
        let written = match self.follows {
            // What this node's store is not to write, another's will.
            Follows::Stream if !self.progress.writes_store() => true,
            _ => self.position == Known::Sure && self.tail.applied() >= self.progress.durable(),
        };
        written && self.cursors.is_empty()
    }

    /// What waits to be applied and is not on its way, as far as the journal can be read; `None`: it is not known yet
    /// where to start.
    pub(crate) fn backlog(&mut self) -> Option<Backlog> {
        if self.position == Known::Never {
            return None;
        }
        // What cannot be read now is reported by the next turn.
        self.ingest().ok();
        let writing = self.in_flight.load().unwrap_or(Load { applied: self.tail.applied().into(), ..Load::default() });
        let reached = match self.follows {
            Follows::Alone => writing.applied.in_journal(),
            // The database counts the stream's entries, not this journal's bytes.
            Follows::Stream => self.tail.applied(),
        };
        Some(Backlog {
            bytes: self.progress.durable().0.saturating_sub(reached.0),
            rows: self.tail.rows().saturating_sub(writing.rows),
        })
    }

    async fn work(&mut self, now: Now) -> Result<Turn, Fault> {
        let first = self.position == Known::Never;
        self.look(now);
        self.settle().await?;
        self.close_holes();
        if first {
            self.secure(now).await;
        }
        self.ingest()?;
        let mut turn = Turn::Idle;
        let writes = self.may_write();
        if writes
            && !self.in_flight.has_next()
            && let Some(transaction) =
                self.tail.transaction(self.tail.applied(), self.rows.max(), TRANSACTION_BYTES_MAX)?
        {
            self.in_flight.prepare(&self.store, transaction);
        }
        if !self.in_flight.has_next() {
            self.fence().await?;
            self.answer_snapshot().await?;
        }
        if self.in_flight.has_next() {
            self.position = Known::Unverified;
            self.in_flight.start(&mut self.store);
            turn = self.follow_up(now);
            if let Turn::RetryAt(_) = turn {
                return Ok(turn);
            }
        }
        let cursors_due = now.mono_ms.saturating_sub(self.cursors_saved_ms) >= CURSORS_SAVE_MS;
        if cursors_due || self.cursors.len() >= CURSORS_SAVED_MAX {
            self.cursors_saved_ms = now.mono_ms;
            self.save_cursors().await?;
        }
        let unsecured = self.tail.applied().0.saturating_sub(self.secured.0);
        let secure_due = unsecured >= SECURE_BYTES || now.mono_ms.saturating_sub(self.secured_ms) >= SECURE_MS;
        let paused = self.secure_failed && now.mono_ms.saturating_sub(self.secured_ms) < SECURE_MS;
        if unsecured > 0 && secure_due && !paused {
            self.secure(now).await;
        }
        if turn == Turn::Idle {
            self.succeeded();
        }
        Ok(turn)
    }

    /// Applies a transaction and waits for its end.
    async fn apply(&mut self, transaction: Transaction) -> Result<(), StoreError> {
        self.position = Known::Unverified;
        let encoded = self.store.encode(transaction);
        let written = self.store.apply(encoded).await?;
        self.take_written(&written);
        Ok(())
    }

    fn take_written(&mut self, written: &Written) {
        self.counters.names_taken += written.names_taken.len() as u64;
        written.log();
    }

    /// Saves some of the cursors that wait.
    pub(crate) async fn save_cursors(&mut self) -> Result<(), StoreError> {
        let rows = self.cursors.some(CURSORS_SAVED_MAX);
        if !rows.is_empty() {
            self.store.save_cursors(&rows).await?;
            self.counters.cursors += rows.len() as u64;
            self.cursors.saved(&rows);
        }
        Ok(())
    }

    async fn prepare_read(&mut self) -> Result<(), Fault> {
        if self.position == Known::Never {
            if self.reads_unavailable {
                return Err(Fault::Unavailable);
            }
            self.settle().await?;
        }
        self.ingest()?;
        Ok(())
    }

    /// A read was refused.
    fn refused(&mut self, fault: &Fault) {
        self.counters.reads_refused += 1;
        if !matches!(fault, Fault::Unavailable) {
            self.counters.refuse(fault.kind().0);
        }
        match fault {
            Fault::Unavailable => {}
            Fault::Store(StoreError::Unavailable { .. }) => {
                if !self.reads_unavailable {
                    tracing::warn!(error = %Chain(fault), "the store cannot be read now");
                }
                self.reads_unavailable = true;
            }
            // It concerns what was read; the rest may be well.
            Fault::Store(StoreError::Broken { .. }) | Fault::Journal(_) => {
                if self.reads_said.is_due(self.turned_ms, fault.kind().0) {
                    tracing::error!(error = %Chain(fault), "a read failed");
                }
            }
        }
    }

    /// A write failed: the next try waits.
    fn failed(&mut self, now: Now, fault: &Fault) {
        let journal = if self.progress.journal_is_full() { JournalRoom::Full } else { JournalRoom::Keeps };
        self.trouble.begins_or_lasts(now.mono_ms, journal, fault.kind(), fault, &mut self.counters);
        self.retry_at_ms = now.mono_ms + self.backoff.refused();
    }
}

impl<S: Expire, D: Disk> Keeper<S, D> {
    /// Deletes a little of what is old, if that is due.
    pub(crate) fn retain(&mut self, now: Now) {
        if self.position != Known::Never && self.backoff.refusals() == 0 {
            self.retention.step(&mut self.store, now, self.newest, &mut self.counters);
        }
    }

    /// When [`Self::retain`] has something to do, on the monotonic clock.
    pub(crate) fn retain_due_ms(&self) -> Option<u64> {
        self.retention.due_ms()
    }

    /// Keeps messages so many days; 0: for ever.
    pub(crate) fn keep_days(&mut self, days: u32) {
        self.retention.keep_days(days);
    }
}

impl Fault {
    fn kind(&self) -> (Cause, Severity) {
        match self {
            Fault::Store(error @ StoreError::Broken { .. }) => (error.cause(), Severity::Contradiction),
            Fault::Store(error) => (error.cause(), Severity::Passing),
            Fault::Journal(_) => (Cause::Journal, Severity::Contradiction),
            Fault::Unavailable => (Cause::Connection, Severity::Passing),
        }
    }
}

#[cfg(test)]
mod tests;
