//! Where the database stands: learned when it is not sure, moved past a lost stream, and found out when it went back.
//!
//! What always holds: nothing is applied on top of a position that was not read since it was last unverified, nor of an entry that is
//! not the one that this node has read under its number; and rows that a
//! database has lost with a position that went back are applied to it again, as far as the journal reaches back, or are
//! named in the log.

use std::ops::RangeInclusive;

use super::{Fault, Keeper};
use crate::clock::Now;
use crate::contract::cause::Cause;
use crate::contract::internal::{self, Place};
use crate::contract::position::{AppliedPosition, JournalPosition, StreamDigest, StreamPosition};
use crate::contract::snapshot::SnapshotAsk;
use crate::journal::JournalError;
use crate::journal::disk::Disk;
use crate::journal::segment::list_segments;
use crate::limits::{COPY_KEPT_BYTES, DATABASE_BEHIND_MS, TRANSACTION_BYTES_MAX};
use crate::store::in_flight::InFlight;
use crate::store::tail::Tail;
use crate::store::{Store, StoreError, Transaction};

/// How often a node of a cluster looks how far the others' stores are.
const STREAM_LOOK_MS: u64 = 200;

/// What is known of the database's position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Known {
    /// Nothing yet: there is no tail.
    Never,
    /// A transaction ended in an error and may have been committed all the same. Reading is right either way: rows
    /// that are in the database and in the tail are taken once.
    Unverified,
    /// It is the tail's.
    Sure,
}

/// What the journal is to the database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Follows {
    /// All of it, and nobody else writes.
    Alone,
    /// A copy of the stream that the stores of all nodes follow; one of them writes at a time.
    Stream,
}

/// Entries that the database has lost, and this node's copy does not have. Nothing is written behind them, and no row is
/// called gone, while another node may write them again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Holes {
    entries: Vec<RangeInclusive<u64>>,
    /// That is over, monotonic milliseconds.
    until_ms: u64,
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
    /// In a cluster: from time to time another node may have written.
    pub(super) fn look(&mut self, now: Now) {
        let due = now.mono_ms.saturating_sub(self.looked_ms) >= STREAM_LOOK_MS;
        if self.follows == Follows::Stream && self.position == Known::Sure && due {
            self.looked_ms = now.mono_ms;
            self.position = Known::Unverified;
        }
    }

    /// In a cluster whose Redis has lost the stream: once all that was read of it is written, the database's position
    /// moves to where the next stream begins, and no store can write anything of the lost one any more.
    pub(super) async fn fence(&mut self) -> Result<(), Fault> {
        let to = self.progress.fence_asked();
        if self.follows == Follows::Alone || self.progress.applied() >= to.into() || self.holes.is_some() {
            return Ok(());
        }
        // What is read by this node and written by nobody goes first, whoever's turn it is.
        self.ingest()?;
        while !self.has_diverged()
            && let Some(transaction) =
                self.tail.transaction(self.tail.applied(), self.rows.max(), TRANSACTION_BYTES_MAX)?
        {
            let (applied, digest) = (transaction.applied, transaction.digest);
            self.apply(transaction).await?;
            self.advance(applied, digest);
        }
        if self.progress.applied() < to.into() {
            self.apply(Transaction { applied: to.into(), ..Transaction::default() }).await?;
            self.progress.report_fenced(to);
        }
        self.settle().await
    }

    /// In a cluster: answers the ledger what the database has. Read again if it fails.
    pub(super) async fn answer_snapshot(&mut self) -> Result<(), Fault> {
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
        self.position = Known::Unverified;
        self.settle().await?;
        let gone = self.snapshot_ask.as_ref().map(SnapshotAsk::gone).unwrap_or_default();
        let left = if gone.is_empty() { Vec::new() } else { self.store.left(&gone).await? };
        if let (Some(answerer), Some(ask)) = (&self.answerer, self.snapshot_ask.take()) {
            answerer.answer(ask.finish(at, gone, left));
        }
        Ok(())
    }

    /// Learns the database's position where it is not sure, and that a database that was away is back.
    pub(super) async fn settle(&mut self) -> Result<(), Fault> {
        if self.position == Known::Sure && !self.reads_unavailable {
            return Ok(());
        }
        let at = self.store.position().await?;
        let known = self.position;
        self.newest = self.newest.max(at.msg_id_max);
        self.reads_unavailable = false;
        if self.follows == Follows::Stream {
            if at.applied < self.progress.applied() {
                self.begin_again(at.applied.in_stream())?;
            }
            self.position = Known::Sure;
            self.advance(at.applied, at.digest);
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
            self.in_flight = InFlight::default();
            self.tail = Tail::new(self.disk.clone(), at.applied.in_journal());
        }
        self.advance(at.applied, at.digest);
        Ok(())
    }

    /// In a cluster: the database went back to an entry that it was past (a replica that lacked the last ones took over,
    /// or a backup was restored). What it has lost is applied again from this node's copy of the stream.
    fn begin_again(&mut self, at: StreamPosition) -> Result<(), JournalError> {
        let before = self.progress.applied().in_stream();
        self.in_flight = InFlight::default();
        self.progress.put_back(at.into());
        let first = list_segments(&self.disk)?.first().copied().unwrap_or_default();
        // Nothing of the copy goes while it is read.
        self.progress.advance_secured(first);
        self.tail = Tail::of_stream(self.disk.clone(), first);
        self.ingest()?;
        self.counters.put_back += 1;
        tracing::error!(
            entry = at.0,
            before = before.0,
            "the database was put back to an earlier state: what it has lost is applied to it again"
        );
        // A node begins behind a snapshot, and perhaps goes on behind another: what those had is nowhere here.
        let missing = match self.tail.has_no_entry() {
            true => vec![at.max(StreamPosition::before(before.generation())).next().0..=before.0],
            false => self.tail.missing_behind(at),
        };
        let missing: Vec<RangeInclusive<u64>> = missing.into_iter().filter(|lost| !lost.is_empty()).collect();
        self.puts_back_to = if missing.is_empty() { before } else { StreamPosition(0) };
        let until_ms = self.turned_ms + DATABASE_BEHIND_MS;
        self.holes = (!missing.is_empty()).then_some(Holes { entries: missing, until_ms });
        Ok(())
    }

    /// What the database has lost, and this node does not have, another node has written again; or nobody has, for so long
    /// that nobody will.
    pub(super) fn close_holes(&mut self) {
        let applied = self.progress.applied().0;
        let Some(holes) = &mut self.holes else { return };
        holes.entries.retain(|lost| *lost.end() > applied);
        if holes.entries.is_empty() {
            self.holes = None;
        } else if self.turned_ms >= holes.until_ms {
            for lost in &holes.entries {
                self.counters.entries_lost += lost.end() - lost.start() + 1;
                tracing::error!(
                    from = lost.start(),
                    to = lost.end(),
                    "the database has lost these entries of the stream, and no node has written them again: their messages \
                     are announced as no longer kept, unless a backup of the database has them"
                );
            }
            self.holes = None;
        }
    }

    /// The database has lost what this node has, to the last entry. The node whose turn it is to write may not have it: it may
    /// have been started since. Of two that write one finds that the other was first.
    pub(super) fn puts_back(&self) -> bool {
        self.progress.applied().in_stream() < self.puts_back_to
    }

    /// Takes all that is durable into the tail. In a cluster, but for what the database is past: it has that, or it is of a
    /// stream that is lost, and then nobody has it, and nobody may write it.
    pub(super) fn ingest(&mut self) -> Result<(), JournalError> {
        let durable = self.progress.durable();
        if self.tail.ingested() < durable {
            self.tail.ingest(durable)?;
            if self.follows == Follows::Stream {
                self.tail.advance(self.progress.applied());
                self.compare();
            }
            self.progress.report_tail_messages(self.tail.weight(), self.tail.ingested());
        }
        Ok(())
    }

    /// In a cluster: below this the copy of the stream is not needed, also if the database goes back a little.
    pub(super) fn copy_needed_from(&self) -> JournalPosition {
        JournalPosition(self.tail.applied().0.saturating_sub(COPY_KEPT_BYTES))
    }

    /// The database has everything up to here. In a cluster it is not less than before, unless [`Self::begin_again`] was told
    /// so: what is not stored would count as stored.
    pub(super) fn advance(&mut self, applied: AppliedPosition, digest: StreamDigest) {
        if self.follows == Follows::Stream && applied < self.progress.applied() {
            return internal::count(Place::Store);
        }
        self.tail.advance(applied);
        if self.follows == Follows::Stream {
            self.digest = digest;
            self.progress.advance_uncompared(applied);
            self.compare();
            self.progress.advance_secured(self.copy_needed_from());
        } else {
            self.progress.advance_applied(applied);
        }
        self.progress.report_tail_messages(self.tail.weight(), self.tail.ingested());
    }

    /// In a cluster: whether the database has at its position what this node has read there. A replica that lacked the newest
    /// entries may have taken Redis's place, and this node may have followed other ones under their numbers.
    fn compare(&mut self) {
        let applied = self.progress.applied();
        let Some(read) = self.tail.digest_of(applied.in_stream()) else { return };
        // A gateway of a former version has written there: what, it does not say.
        let is_same = read == self.digest || self.digest == StreamDigest::default();
        let diverged = if is_same { StreamPosition(0) } else { applied.in_stream() };
        if diverged == StreamPosition(0) {
            self.progress.advance_applied(applied);
        } else if self.progress.diverged() != diverged {
            tracing::error!(
                entry = diverged.0,
                "the database has another entry of this number than this node has read: it writes nothing behind it"
            );
        }
        self.progress.report_diverged(diverged);
    }

    /// The database has other entries than this node has read.
    fn has_diverged(&self) -> bool {
        let diverged = self.progress.diverged();
        diverged != StreamPosition(0) && self.progress.applied().in_stream() == diverged
    }

    /// It is this node's turn to write, and what it has read lies behind what the database has.
    pub(super) fn may_write(&self) -> bool {
        let is_its_turn = self.follows == Follows::Alone || self.progress.writes_store() || self.puts_back();
        is_its_turn && !self.has_diverged() && self.holes.is_none()
    }
}

#[cfg(test)]
mod tests;
