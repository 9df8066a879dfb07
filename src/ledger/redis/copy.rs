//! A node's copy of the stream: a journal from which its store's thread serves reads and, when it is its turn, writes.
//!
//! Written by the ledger's thread. What always holds: it has every entry behind the one it began with, in the stream's
//! order, each ended by a mark. It is never synced and thrown away at start: Redis has the stream.

use std::sync::Arc;

use crate::contract::message::Roster;
use crate::contract::position::{JournalPosition, StreamDigest, StreamPosition};
use crate::contract::progress::Progress;
use crate::journal::JournalError;
use crate::journal::batch::Batch;
use crate::journal::disk::Disk;
use crate::journal::record::{GroupRecord, Record};
use crate::journal::segment::{Journal, list_segments, segment_name};
use crate::ledger::bases::Bases;
use crate::limits::COMMIT_BYTES_MAX;
use ringway_wire::ids::Seq;

/// The copy.
#[derive(Debug)]
pub(crate) struct StreamCopy<D: Disk> {
    journal: Journal<D>,
    progress: Arc<Progress>,
    bases: Bases,
    batch: Batch,
    /// Where the batch will begin, once it has begun.
    at: Option<JournalPosition>,
    bytes: u64,
}

impl<D: Disk> StreamCopy<D> {
    /// An empty one: what a former process left in `disk` goes.
    pub(crate) fn begin(disk: D, segment_bytes: u64, progress: Arc<Progress>, seed: u64) -> Result<Self, JournalError> {
        for start in list_segments(&disk)? {
            let file = segment_name(start);
            let what = "removing a segment of a former copy";
            disk.remove(&file).map_err(|source| JournalError::Io { what, file, source })?;
        }
        let journal = Journal::with_segments_of(segment_bytes, disk, JournalPosition(0), seed)?;
        // It has no entries: the store has nothing to write before it can be said to have all.
        Ok(StreamCopy { journal, progress, bases: Bases::new(seed), batch: Batch::new(), at: None, bytes: 0 })
    }

    /// Adds what is neither a group message nor a roster.
    pub(crate) fn push(&mut self, record: &Record<'_>) -> Result<(), JournalError> {
        self.batch_at()?;
        self.batch.push(record);
        Ok(())
    }

    /// Adds a group message, `seqs` parallel to the roster's members.
    pub(crate) fn push_group(
        &mut self,
        record: GroupRecord<'_>,
        roster: &Roster,
        seqs: &[Seq],
    ) -> Result<(), JournalError> {
        let at = self.batch_at()?;
        let (roster_at, differences) = self.bases.differences(roster, seqs, &mut self.batch, at);
        self.batch.push(&Record::Group(GroupRecord { roster_at, differences, ..record }));
        Ok(())
    }

    /// The batch is long: end it with [`Self::flush`].
    pub(crate) fn is_long(&self) -> bool {
        self.batch.len() >= COMMIT_BYTES_MAX
    }

    /// Ends an entry with a mark, which says what the entries are up to it: another node's store may stop writing, and this one's begin, behind any entry.
    pub(crate) fn end_entry(&mut self, at: StreamPosition, digest: StreamDigest) {
        if !self.batch.is_empty() {
            self.batch.push(&Record::Mark(at.0, digest));
        }
    }

    /// Shows what was added to the store's thread.
    pub(crate) fn flush(&mut self) -> Result<(), JournalError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.bytes += self.batch.len() as u64;
        self.journal.append(&mut self.batch)?;
        let tail = self.journal.settle();
        self.batch.clear();
        self.at = None;
        self.progress.advance_durable(tail);
        self.journal.retire(self.progress.needed_from())?;
        Ok(())
    }

    /// A roster's version may come again as another roster.
    pub(crate) fn forget_rosters(&mut self) {
        self.bases.clear();
    }

    /// Bytes written.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn batch_at(&mut self) -> Result<JournalPosition, JournalError> {
        if let Some(at) = self.at {
            return Ok(at);
        }
        let before = self.journal.segment();
        let at = self.journal.prepare()?;
        if self.journal.segment() != before {
            self.bases.clear();
        }
        self.at = Some(at);
        Ok(at)
    }
}
