//! What this node has submitted to the cluster and no store has yet: a journal of its own.
//!
//! Owned by the ledger's thread. What always holds: a submission is on this disk before Redis hears of it, and until
//! it is in the database or refused; so a Redis that has lost it can be given it again. It leaves out rows: they are
//! Redis's to give.

use std::collections::{HashMap, VecDeque};

use crate::contract::internal::{OrCount, Place};
use crate::contract::keyed::TableKey;
use crate::contract::latencies::Latencies;
use crate::contract::position::{JournalPosition, StreamPosition};
use crate::journal::JournalError;
use crate::journal::batch::Batch;
use crate::journal::disk::Disk;
use crate::journal::reader::Reader;
use crate::journal::record::Record;
use crate::journal::recovery::{TornTail, recover};
use crate::journal::segment::{Journal, list_segments};
use crate::ledger::LedgerError;
use ringway_wire::ids::MsgId;

/// What was submitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Submitted {
    /// A message.
    Message,
    /// A change of a group.
    Change,
}

/// What became of what was staged.
#[derive(Debug)]
pub(crate) enum Committed {
    /// It is on disk.
    Durable,
    /// The disk did not take it.
    Refused(JournalError),
}

/// The log.
#[derive(Debug)]
pub(crate) struct Log<D: Disk> {
    disk: D,
    journal: Journal<D>,
    batch: Batch,
    /// Submissions that may have to be made again, and where they lie.
    open: HashMap<MsgId, JournalPosition, TableKey>,
    /// Those that are in the stream, by entry.
    read: VecDeque<(StreamPosition, MsgId, Submitted)>,
    /// Withdrawn, and not on disk yet: staged, and, while the disk is full, not staged.
    withdrawn: Vec<MsgId>,
    /// How many of these are staged, from the first one on.
    withdrawn_staged: usize,
    /// Where the batch will begin, and what is in it.
    at: Option<JournalPosition>,
    staged: Vec<(MsgId, JournalPosition)>,
    /// Segments with how many open submissions they have, oldest first.
    segments: VecDeque<(JournalPosition, usize)>,
}

impl<D: Disk> Log<D> {
    /// Recovers what a former process left, and goes on behind it.
    pub(crate) fn open(disk: D, segment_bytes: u64, seed: u64) -> Result<(Self, Option<TornTail>), JournalError> {
        let recovered = recover(&disk, segment_bytes)?;
        let mut starts = list_segments(&disk)?;
        starts.retain(|start| *start < recovered.end);
        let mut open: HashMap<MsgId, JournalPosition, TableKey> = HashMap::with_hasher(TableKey::new(seed));
        replay(&disk, recovered.end, &starts, &mut open)?;
        let mut segments: VecDeque<(JournalPosition, usize)> = starts.iter().map(|start| (*start, 0)).collect();
        for at in open.values() {
            count(&mut segments, *at, 1);
        }
        let journal = Journal::with_segments_of(segment_bytes, disk.clone(), recovered.end, seed)?;
        segments.push_back((recovered.end, 0));
        let log = Log {
            disk,
            journal,
            batch: Batch::new(),
            open,
            read: VecDeque::new(),
            withdrawn: Vec::new(),
            withdrawn_staged: 0,
            at: None,
            staged: Vec::new(),
            segments,
        };
        Ok((log, recovered.torn))
    }

    /// How many submissions are neither stored nor refused.
    #[cfg(test)]
    pub(crate) fn open_count(&self) -> usize {
        self.open.len()
    }

    /// Every submission that is neither stored nor refused, as it was submitted, in order.
    pub(crate) fn each_open(&self, visit: &mut dyn FnMut(Record<'_>)) -> Result<(), JournalError> {
        let mut places: Vec<JournalPosition> = self.open.values().copied().collect();
        places.sort_unstable();
        let mut reader = Reader::new(self.disk.clone());
        reader.settle(self.journal.tail());
        for at in places {
            visit(reader.record_at(at)?);
        }
        Ok(())
    }

    /// Sees to it that one more submission can be staged. An error: the disk has no room.
    pub(crate) fn make_room(&mut self) -> Result<(), JournalError> {
        if self.at.is_none() {
            let before = self.journal.segment();
            self.at = Some(self.journal.prepare()?);
            if self.journal.segment() != before {
                self.segments.push_back((self.journal.segment(), 0));
            }
        }
        Ok(())
    }

    /// Stages a submission; [`Self::make_room`] said yes.
    pub(crate) fn stage(&mut self, msg_id: MsgId, record: &Record<'_>) {
        assert!(self.at.is_some(), "a submission is staged where no room was made for it");
        let at = self.at.unwrap_or_default();
        let at = JournalPosition(at.0 + self.batch.push(record));
        self.staged.push((msg_id, at));
    }

    /// Bytes that are staged.
    pub(crate) fn staged_bytes(&self) -> usize {
        self.batch.len()
    }

    /// Writes and syncs what is staged. [`Committed::Refused`]: it could not be written, and no trace of it is left; what was
    /// withdrawn is written as soon as there is room.
    pub(crate) fn commit(&mut self) -> Result<Committed, LedgerError> {
        self.stage_withdrawn();
        if self.batch.is_empty() {
            return Ok(Committed::Durable);
        }
        let withdrawn_staged = std::mem::take(&mut self.withdrawn_staged);
        let appended = self.journal.append(&mut self.batch);
        self.batch.clear();
        self.at = None;
        let staged = std::mem::take(&mut self.staged);
        if let Err(error) = appended {
            // What remains of the batch is overwritten before anything else is written.
            self.journal.rollback().ok();
            return Ok(Committed::Refused(error));
        }
        self.journal.sync().map_err(LedgerError::Sync)?;
        self.withdrawn.drain(..withdrawn_staged);
        for (msg_id, at) in staged {
            count(&mut self.segments, at, 1);
            self.open.insert(msg_id, at);
        }
        Ok(Committed::Durable)
    }

    /// It is the stream's entry of this number.
    pub(crate) fn read(&mut self, msg_id: MsgId, entry: StreamPosition, what: Submitted) {
        if self.open.contains_key(&msg_id) {
            self.read.push_back((entry, msg_id, what));
        }
    }

    /// It was refused, or is another's: it must not be submitted again. On disk with [`Self::commit`], which comes before
    /// anybody is told.
    pub(crate) fn withdraw(&mut self, msg_id: MsgId) {
        if self.close(msg_id) {
            self.withdrawn.push(msg_id);
        }
    }

    /// Something was withdrawn, and the disk does not know.
    #[cfg(test)]
    pub(crate) fn withdraws(&self) -> bool {
        !self.withdrawn.is_empty()
    }

    fn stage_withdrawn(&mut self) {
        if self.withdrawn.len() > self.withdrawn_staged && self.make_room().is_ok() {
            for msg_id in self.withdrawn.iter().skip(self.withdrawn_staged) {
                self.batch.push(&Record::Withdrawn(*msg_id));
            }
            self.withdrawn_staged = self.withdrawn.len();
        }
    }

    /// It is in the database.
    pub(crate) fn close(&mut self, msg_id: MsgId) -> bool {
        let Some(at) = self.open.remove(&msg_id) else { return false };
        count(&mut self.segments, at, -1);
        true
    }

    /// The database has all entries up to this one.
    pub(crate) fn stored(&mut self, entry: StreamPosition) {
        while let Some((read, msg_id, what)) = self.read.front().copied()
            && read <= entry
        {
            self.read.pop_front();
            match what {
                // The store knows it by its name.
                Submitted::Message => drop(self.close(msg_id)),
                // It has no name, and the store forgets a group that everybody has left.
                Submitted::Change => self.withdraw(msg_id),
            }
        }
        let mut below = None;
        while self.segments.len() > 1
            && let Some((_, 0)) = self.segments.front()
        {
            self.segments.pop_front();
            below = self.segments.front().map(|(start, _)| *start);
        }
        if let Some(below) = below
            && let Err(error) = self.journal.retire(below)
        {
            tracing::warn!(%error, "a segment that is no longer needed stays on disk until the next one goes");
        }
    }

    /// The stream is lost: what was in it has to be found again.
    pub(crate) fn forget_entries(&mut self) {
        self.read.clear();
    }

    /// The generation is over. What lay in it was closed when the database came to its entry's number, and a Redis that a
    /// fail-over put in the place of another may have given that number to something else, which was stored: what is not
    /// withdrawn is open again, from this message on, as after a start.
    pub(crate) fn reopen(&mut self, from: MsgId) -> Result<(), JournalError> {
        let starts: Vec<JournalPosition> = self.segments.iter().map(|(start, _)| *start).collect();
        let mut open: HashMap<MsgId, JournalPosition, TableKey> = HashMap::with_hasher(*self.open.hasher());
        replay(&self.disk, self.journal.tail(), &starts, &mut open)?;
        open.retain(|msg_id, _| *msg_id >= from || self.open.contains_key(msg_id));
        for msg_id in &self.withdrawn {
            open.remove(msg_id);
        }
        self.segments.iter_mut().for_each(|(_, open_count)| *open_count = 0);
        open.values().for_each(|at| count(&mut self.segments, *at, 1));
        self.open = open;
        Ok(())
    }

    /// How long its syncs took.
    pub(crate) fn syncs(&self) -> Latencies {
        self.journal.syncs()
    }
}

fn count(segments: &mut VecDeque<(JournalPosition, usize)>, at: JournalPosition, more: isize) {
    let after = segments.partition_point(|(start, _)| *start <= at);
    let segment = after.checked_sub(1).and_then(|index| segments.get_mut(index));
    if let Some((_, open)) = segment.or_count(Place::InFlight) {
        *open = open.checked_add_signed(more).or_count(Place::InFlight).unwrap_or_default();
    }
}

fn replay<D: Disk>(
    disk: &D,
    tail: JournalPosition,
    starts: &[JournalPosition],
    open: &mut HashMap<MsgId, JournalPosition, TableKey>,
) -> Result<(), JournalError> {
    let mut reader = Reader::new(disk.clone());
    for (index, start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).copied().unwrap_or(tail);
        let mut at = *start;
        while at < end {
            at = reader.read(at, end, usize::MAX, &mut |position, record| match record {
                Record::Withdrawn(msg_id) => drop(open.remove(&msg_id)),
                other => drop(other.msg_id().map(|msg_id| open.insert(msg_id, position))),
            })?;
        }
    }
    Ok(())
}
