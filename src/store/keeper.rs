//! The core of the store's thread: applies the journal to the database and answers from database and tail.
//!
//! Owned by the store's thread (run.rs), or by the simulator. What always holds: an answer covers everything that
//! was durable when the question was asked; a page has no hole between the database's rows and the tail's,
//! because nothing is applied while it is read; and a database that is away delays only what is in it alone.
//! It leaves out waiting: [`Keeper::turn`] says when it wants to be called again.

pub mod devices;
pub mod pages;

use std::sync::Arc;

use super::backoff::Backoff;
use super::cursors::Cursors;
use super::flight::{Flight, Load};
use super::messages::Messages;
use super::retention::{Expire, Retention};
use super::trouble::{Severity, Trouble};
use super::{Store, StoreError, Transaction};
use crate::clock::Now;
use crate::contract::cause::Cause;
use crate::contract::ids::ShardId;
use crate::contract::internal::InternalErrors;
use crate::contract::position::{AppliedPosition, JournalPosition};
use crate::contract::progress::Progress;
use crate::contract::snapshot::{SnapshotAnswerer, SnapshotAsk};
use crate::contract::store::{Lookup, LookupAnswer, LookupFound, StoreAnswer, StoreAsk};
use crate::contract::store_counters::StoreCounters;
use crate::journal::JournalError;
use crate::journal::disk::Disk;
use crate::store::tail::Tail;
use crate::limits::{CURSORS_SAVED_MAX, SECURE_BYTES, SECURE_MS, TRANSACTION_BYTES_MAX};
use crate::log::Chain;
use devices::CursorAsked;
use pages::PageAsked;
use ringway_wire::ids::MsgId;
use ringway_wire::limits::CLIENT_MSG_ID_AHEAD_MS;

/// How often a node of a cluster looks how far the others' stores are.
const STREAM_LOOK_MS: u64 = 200;

/// Cursors are saved so often: what a device may receive again after a crash of the machine.
const CURSORS_SAVE_MS: u64 = 1_000;

/// What one turn did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// All that is durable is applied.
    Idle,
    /// A transaction is on its way; [`Keeper::landed`] waits for its end.
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
pub struct Backlog {
    /// In the journal.
    pub bytes: u64,
    /// In inboxes.
    pub rows: usize,
}

/// Applies and answers.
pub struct Keeper<S: Store, D: Disk> {
    store: S,
    disk: D,
    tail: Tail<D>,
    flight: Flight<S>,
    position: Known,
    progress: Arc<Progress>,
    messages: Messages,
    cursors: Cursors,
    cursors_saved_ms: u64,
    /// In a cluster: whose store this is, and when the others' progress was last looked at.
    follows: Follows,
    looked_ms: u64,
    /// In a cluster: the ledger's questions for a snapshot, and the one that is being answered.
    answerer: Option<SnapshotAnswerer>,
    snapshot_ask: Option<SnapshotAsk>,
    /// A read failed, and nothing has succeeded since: reads are refused at once, until a turn finds the database
    /// back (a lost connection may take seconds to be noticed, each time).
    reads_away: bool,
    /// Writes that failed in a row, and when the next may be tried.
    backoff: Backoff,
    retry_at_ms: u64,
    trouble: Trouble,
    retention: Retention,
    secured: JournalPosition,
    secured_ms: u64,
    secure_failed: bool,
    /// Rows of one transaction.
    rows_max: usize,
    counters: StoreCounters,
}

/// What is known of the database's position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    /// Nothing yet: there is no tail.
    Never,
    /// A transaction ended in an error and may have been committed all the same. Reading is right either way: rows
    /// that are in the database and in the tail are taken once.
    Doubtful,
    /// It is the tail's.
    Sure,
}

/// What the journal is to the database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Follows {
    /// All of it, and nobody else writes.
    Alone,
    /// A copy of the stream that the stores of all nodes follow; one of them writes at a time.
    Stream,
}

/// Why something was not done; which of them makes no difference to what is done next.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("the database was away a moment ago")]
    Away,
}

/// The database is ahead of all that this gateway has ever written to its journal.
#[derive(Debug, thiserror::Error)]
#[error(
    "it is at position {found} of a journal, and this gateway's journal ends at {written}: stop one of the two \
     gateways, then look with `ringway store check` at what the other has done"
)]
struct Foreign {
    found: u64,
    written: u64,
}

impl<S: Store, D: Disk> Keeper<S, D> {
    /// Keeps `store` up with the journal in `disk`. `seed` spreads its retries.
    pub fn new(store: S, disk: D, progress: Arc<Progress>, seed: u64) -> Self {
        Keeper {
            rows_max: store.transaction_rows_max(),
            store,
            tail: Tail::new(disk.clone(), JournalPosition(0)),
            disk,
            flight: Flight::default(),
            position: Known::Never,
            progress,
            messages: Messages::default(),
            cursors: Cursors::default(),
            cursors_saved_ms: 0,
            follows: Follows::Alone,
            looked_ms: 0,
            answerer: None,
            snapshot_ask: None,
            reads_away: false,
            backoff: Backoff::new(seed),
            retry_at_ms: 0,
            trouble: Trouble::default(),
            retention: Retention::new(0),
            secured: JournalPosition(0),
            secured_ms: 0,
            secure_failed: false,
            counters: StoreCounters::default(),
        }
    }

    /// The same for a node of a cluster: what is in `disk` is the node's copy of the stream.
    pub fn of_cluster(store: S, disk: D, progress: Arc<Progress>, answerer: SnapshotAnswerer, seed: u64) -> Self {
        let tail = Tail::of_stream(disk.clone());
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
        }
    }

    /// Answers the ledger.
    pub async fn lookup(&mut self, lookup: Lookup) -> LookupAnswer {
        let mut answers = Vec::with_capacity(1);
        self.lookups(&[lookup], &mut answers).await;
        answers.pop().unwrap_or(LookupAnswer { lookup, found: LookupFound::Unavailable })
    }

    /// Answers the ledger, several at once; the answers are appended, parallel to the look-ups.
    pub async fn lookups(&mut self, lookups: &[Lookup], answers: &mut Vec<LookupAnswer>) {
        self.counters.lookups += lookups.len() as u64;
        let found = match self.find(lookups).await {
            Ok(found) => found,
            Err(fault) => {
                self.refused(&fault);
                vec![LookupFound::Unavailable; lookups.len()]
            }
        };
        answers.extend(std::iter::zip(lookups, found).map(|(lookup, found)| LookupAnswer { lookup: *lookup, found }));
    }

    /// Ingests the journal and applies at most one transaction. To be called when there is something new, at the
    /// time it asked for, when a transaction has landed, and at least once a second.
    pub async fn turn(&mut self, now: Now) -> Turn {
        if self.flight.is_busy() {
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
    pub async fn landed(&mut self) {
        self.flight.landed().await;
    }

    /// A transaction is on its way, or its end was not looked at yet.
    pub fn is_writing(&self) -> bool {
        self.flight.is_busy()
    }

    /// Looks whether the transaction on its way has ended; if not, makes the next one ready, once it is a full one.
    fn follow_up(&mut self, now: Now) -> Turn {
        let Some((load, outcome)) = self.flight.take_landed() else {
            if let Err(error) = self.prepare_full() {
                self.failed(now, &error.into());
            }
            return Turn::Writing;
        };
        match outcome {
            Ok(()) => {
                self.position = Known::Sure;
                self.advance(load.applied);
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
        let Some(flying) = self.flight.load() else { return Ok(()) };
        if self.flight.has_next() || self.follows == Follows::Stream {
            return Ok(());
        }
        self.ingest()?;
        let bytes = self.tail.ingested().0.saturating_sub(flying.applied.0);
        if (self.tail.rows().saturating_sub(flying.rows) >= self.rows_max || bytes >= TRANSACTION_BYTES_MAX)
            && let Some(transaction) =
                self.tail.transaction(flying.applied.in_journal(), self.rows_max, TRANSACTION_BYTES_MAX)?
        {
            self.flight.prepare(&self.store, transaction);
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
                    Follows::Stream => self.tail.applied(),
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

    /// Begins to write some of what was applied to the disk.
    pub fn write_back(&mut self) {
        self.store.write_back();
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

    /// Adds to the time spent applying; measured outside, where there is a clock.
    pub fn applied_in(&mut self, us: u64) {
        self.counters.apply_us += us;
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
    pub fn backlog(&mut self) -> Option<Backlog> {
        if self.position == Known::Never {
            return None;
        }
        // What cannot be read now is reported by the next turn.
        self.ingest().ok();
        let flying = self.flight.load().unwrap_or(Load { applied: self.tail.applied().into(), ..Load::default() });
        let reached = match self.follows {
            Follows::Alone => flying.applied.in_journal(),
            // The database counts the stream's entries, not this journal's bytes.
            Follows::Stream => self.tail.applied(),
        };
        Some(Backlog {
            bytes: self.progress.durable().0.saturating_sub(reached.0),
            rows: self.tail.rows().saturating_sub(flying.rows),
        })
    }

    async fn work(&mut self, now: Now) -> Result<Turn, Fault> {
        let first = self.position == Known::Never;
        self.look(now);
        self.settle().await?;
        if first {
            self.secure(now).await;
        }
        self.ingest()?;
        let mut turn = Turn::Idle;
        let writes = self.follows == Follows::Alone || self.progress.writes_store();
        if writes
            && !self.flight.has_next()
            && let Some(transaction) =
                self.tail.transaction(self.tail.applied(), self.rows_max, TRANSACTION_BYTES_MAX)?
        {
            self.flight.prepare(&self.store, transaction);
        }
        if !self.flight.has_next() {
            self.fence().await?;
            self.tell_snapshot().await?;
        }
        if self.flight.has_next() {
            self.position = Known::Doubtful;
            self.flight.start(&mut self.store);
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

    /// In a cluster: from time to time another node may have written.
    fn look(&mut self, now: Now) {
        let due = now.mono_ms.saturating_sub(self.looked_ms) >= STREAM_LOOK_MS;
        if self.follows == Follows::Stream && self.position == Known::Sure && due {
            self.looked_ms = now.mono_ms;
            self.position = Known::Doubtful;
        }
    }

    /// In a cluster whose Redis has lost the stream: once all that was read of it is written, the database's position
    /// moves to where the next stream begins, and no store can write anything of the lost one any more.
    async fn fence(&mut self) -> Result<(), Fault> {
        let to = self.progress.fence_asked();
        if self.follows == Follows::Alone || self.progress.applied() >= to.into() {
            return Ok(());
        }
        // What is read by this node and written by nobody goes first, whoever's turn it is.
        self.ingest()?;
        while let Some(transaction) =
            self.tail.transaction(self.tail.applied(), self.rows_max, TRANSACTION_BYTES_MAX)?
        {
            let applied = transaction.applied;
            self.apply(transaction).await?;
            self.advance(applied);
        }
        self.apply(Transaction { applied: to.into(), ..Transaction::default() }).await?;
        self.progress.report_fenced(to);
        self.settle().await
    }

    /// In a cluster: tells the ledger what the database has. Read again if it fails.
    async fn tell_snapshot(&mut self) -> Result<(), Fault> {
        let Some(answerer) = &self.answerer else { return Ok(()) };
        if let Some(ask) = answerer.next() {
            self.snapshot_ask = Some(ask);
        }
        let Some(ask) = &mut self.snapshot_ask else { return Ok(()) };
        ask.begin();
        let at = self.store.snapshot(&mut |stored| ask.visit(stored)).await?;
        // Before the ledger goes on from there: what it had read of a lost stream is taken into the tail, to the last
        // entry, and dropped. Else it would be found later, and count as stored.
        self.ingest()?;
        self.position = Known::Doubtful;
        self.settle().await?;
        if let (Some(answerer), Some(ask)) = (&self.answerer, self.snapshot_ask.take()) {
            answerer.answer(ask.finish(at));
        }
        Ok(())
    }

    /// Applies a transaction and waits for its end.
    async fn apply(&mut self, transaction: Transaction) -> Result<(), StoreError> {
        self.position = Known::Doubtful;
        let encoded = self.store.encode(transaction);
        self.store.apply(encoded).await
    }

    /// Saves some of the cursors that wait.
    pub async fn save_cursors(&mut self) -> Result<(), StoreError> {
        let rows = self.cursors.some(CURSORS_SAVED_MAX);
        if !rows.is_empty() {
            self.store.save_cursors(&rows).await?;
            self.counters.cursors += rows.len() as u64;
            self.cursors.saved(&rows);
        }
        Ok(())
    }

    /// Learns the database's position where it is not sure, and that a database that was away is back.
    async fn settle(&mut self) -> Result<(), Fault> {
        if self.position == Known::Sure && !self.reads_away {
            return Ok(());
        }
        let at = self.store.position().await?;
        let known = self.position;
        self.reads_away = false;
        if self.follows == Follows::Stream {
            self.position = Known::Sure;
            self.advance(at.applied);
            return Ok(());
        }
        if known != Known::Never && at.applied.in_journal() > self.tail.ingested() {
            let source = Box::new(Foreign { found: at.applied.0, written: self.tail.ingested().0 });
            let what = "another gateway has written into this database";
            return Err(StoreError::Broken { what, cause: Cause::Taken, source }.into());
        }
        self.position = Known::Sure;
        let within =
            known != Known::Never && (self.tail.applied()..=self.tail.ingested()).contains(&at.applied.in_journal());
        if !within {
            if known != Known::Never {
                tracing::warn!(
                    position = at.applied.0,
                    before = self.tail.applied().0,
                    "the database was put back to an earlier state: the journal is applied to it again from there"
                );
            }
            self.flight = Flight::default();
            self.tail = Tail::new(self.disk.clone(), at.applied.in_journal());
        }
        self.advance(at.applied);
        Ok(())
    }

    fn advance(&mut self, applied: AppliedPosition) {
        self.tail.advance(applied);
        self.progress.advance_applied(applied);
        if self.follows == Follows::Stream {
            self.progress.advance_secured(self.tail.applied());
        }
        self.progress.report_tail_messages(self.tail.weight());
    }

    /// Takes all that is durable into the tail.
    fn ingest(&mut self) -> Result<(), JournalError> {
        let durable = self.progress.durable();
        if self.tail.ingested() < durable {
            self.tail.ingest(durable)?;
            self.progress.report_tail_messages(self.tail.weight());
        }
        Ok(())
    }

    async fn find(&mut self, lookups: &[Lookup]) -> Result<Vec<LookupFound>, Fault> {
        self.prepare_read().await?;
        let mut found = vec![LookupFound::Nothing; lookups.len()];
        let (mut elsewhere, mut places) = (Vec::new(), Vec::new());
        for (place, lookup) in lookups.iter().enumerate() {
            match self.tail.find(lookup)? {
                Some(message) => found[place] = LookupFound::Stored(message),
                None => {
                    elsewhere.push(*lookup);
                    places.push(place);
                }
            }
        }
        if elsewhere.is_empty() {
            return Ok(found);
        }
        let stored = match self.reads_away {
            true => Err(Fault::Away),
            false => self.store.find(&elsewhere).await.map_err(Fault::Store),
        };
        match stored {
            Ok(stored) => {
                let missing = stored.iter().any(Option::is_none);
                // Asked after the look-up: before a message is deleted, this is raised above it.
                let kept_from = if missing { self.store.kept_from().await? } else { MsgId(0) };
                for (place, message) in std::iter::zip(places, stored) {
                    found[place] = match message {
                        Some(message) => LookupFound::Stored(message),
                        None if is_older(&lookups[place], kept_from) => LookupFound::Expired,
                        None => LookupFound::Nothing,
                    };
                }
            }
            Err(fault) => {
                self.refused(&fault);
                for place in places {
                    found[place] = LookupFound::Unavailable;
                }
            }
        }
        Ok(found)
    }

    async fn prepare_read(&mut self) -> Result<(), Fault> {
        if self.position == Known::Never {
            if self.reads_away {
                return Err(Fault::Away);
            }
            self.settle().await?;
        }
        self.ingest()?;
        Ok(())
    }

    /// A read was refused.
    fn refused(&mut self, fault: &Fault) {
        self.counters.reads_refused += 1;
        if !matches!(fault, Fault::Away) {
            self.counters.refuse(fault.kind().0);
        }
        match fault {
            Fault::Away => {}
            Fault::Store(StoreError::Unavailable { .. }) => {
                if !self.reads_away {
                    tracing::warn!(error = %Chain(fault), "the store cannot be read now");
                }
                self.reads_away = true;
            }
            // It concerns what was read; the rest may be well.
            Fault::Store(StoreError::Broken { .. }) | Fault::Journal(_) => {
                tracing::error!(error = %Chain(fault), "a read failed");
            }
        }
    }

    /// A write failed: the next try waits.
    fn failed(&mut self, now: Now, fault: &Fault) {
        self.trouble.begins_or_lasts(now.mono_ms, fault.kind(), fault, &mut self.counters);
        self.retry_at_ms = now.mono_ms + self.backoff.refused();
    }
}

/// Whether a message of this name may have had a number below `kept_from`.
fn is_older(lookup: &Lookup, kept_from: MsgId) -> bool {
    let named_ms = lookup.client_msg_id.unix_ms().unwrap_or(0);
    kept_from > MsgId(0) && named_ms <= kept_from.sent_at_ms() + CLIENT_MSG_ID_AHEAD_MS
}

impl<S: Expire, D: Disk> Keeper<S, D> {
    /// Deletes a little of what is old, if that is due.
    pub fn retain(&mut self, now: Now) {
        if self.position != Known::Never && self.backoff.refusals() == 0 {
            self.retention.step(&mut self.store, now, &mut self.counters);
        }
    }

    /// When [`Self::retain`] has something to do, on the monotonic clock.
    pub fn retain_due_ms(&self) -> Option<u64> {
        self.retention.due_ms()
    }

    /// Keeps messages so many days; 0: for ever.
    pub fn with_retention_days(mut self, days: u32) -> Self {
        self.retention = Retention::new(days);
        self
    }
}

impl Fault {
    fn kind(&self) -> (Cause, Severity) {
        match self {
            Fault::Store(error @ StoreError::Broken { .. }) => (error.cause(), Severity::Contradiction),
            Fault::Store(error) => (error.cause(), Severity::Passing),
            Fault::Journal(_) => (Cause::Journal, Severity::Contradiction),
            Fault::Away => (Cause::Connection, Severity::Passing),
        }
    }
}

#[cfg(test)]
mod tests;
