//! The journal's reader: records in order, or the one at a position.
//!
//! Owned by the store's thread, and by the ledger's at start. It reads the files (the page cache, mostly) and
//! shares nothing with the writer. What always holds: it shows nothing at or above the position it was told to
//! read to, and what it keeps in memory lies below that, so it never goes stale.

use std::collections::VecDeque;

use super::JournalError;
use super::batch::{BATCH_HEADER_BYTES, BATCH_MAGIC, BatchHeader};
use super::disk::{Disk, DiskFile};
use super::record::{RECORD_PREFIX_BYTES, Record, RecordError};
use super::segment::{SEGMENT_HEADER_BYTES, SegmentHeader, list_segments, segment_name};
use crate::contract::internal::{OrCount, Place};
use crate::contract::position::JournalPosition;

/// Segments kept open: those that page reads go back and forth between.
const SEGMENTS_OPEN_MAX: usize = 8;
/// Bytes read at once around a single record: a page's rows tend to lie close together.
const SPOT_BYTES: usize = 16 * 1024;

/// Reads records.
#[derive(Debug)]
pub(crate) struct Reader<D: Disk> {
    disk: D,
    /// Starts of the segments when they were last listed, in order.
    starts: Vec<JournalPosition>,
    /// Every segment that starts below this is in `starts`, unless it was removed.
    listed: JournalPosition,
    /// The longest unused in front.
    open: VecDeque<OpenSegment<D::File>>,
    /// Bytes below this never change any more.
    settled: JournalPosition,
    /// The batch that [`Reader::read`] is in.
    batch: Chunk,
    /// What lies around the record read last by [`Reader::record_at`].
    spot: Chunk,
}

#[derive(Clone, Debug)]
struct OpenSegment<F> {
    header: SegmentHeader,
    file: F,
}

/// A piece of one segment. What a file has behind its last batch is at positions that belong to the next
/// segment: so a chunk answers only for its own.
#[derive(Debug, Default)]
struct Chunk {
    segment: JournalPosition,
    at: JournalPosition,
    bytes: Vec<u8>,
}

impl Chunk {
    /// What the chunk has from a position on, if it has anything there.
    fn from(&self, segment: &SegmentHeader, at: JournalPosition) -> Option<&[u8]> {
        if self.segment != segment.start {
            return None;
        }
        let offset = at.0.checked_sub(self.at.0)?;
        self.bytes.get(usize::try_from(offset).ok()?..).filter(|bytes| !bytes.is_empty())
    }

    /// The whole record at a position, without its length.
    fn record(&self, segment: &SegmentHeader, at: JournalPosition) -> Option<&[u8]> {
        let (prefix, rest) = self.from(segment, at)?.split_first_chunk::<RECORD_PREFIX_BYTES>()?;
        rest.get(..Record::length(*prefix)?)
    }
}

/// What stands at a position.
enum Next {
    /// A record of so many bytes, its length included; it is in the batch's chunk.
    Record(u64),
    /// A batch's header; the batch is now in the chunk.
    Header,
    /// Nothing that this segment has.
    End(&'static str),
}

impl<D: Disk> Reader<D> {
    /// A reader of the journal in `disk`. Nothing is read yet.
    pub(crate) fn new(disk: D) -> Self {
        Reader {
            disk,
            starts: Vec::new(),
            listed: JournalPosition(0),
            open: VecDeque::new(),
            settled: JournalPosition(0),
            batch: Chunk::default(),
            spot: Chunk::default(),
        }
    }

    /// Visits the records from `from` up to `to`, with the position of each, until `bytes_max` bytes of them
    /// were visited (at least one record is). Returns where to go on: `to`, or the position of a record.
    ///
    /// `from` is 0, a position returned before, a record's or a batch's; `to` is at most the durable position.
    pub(crate) fn read(
        &mut self,
        from: JournalPosition,
        to: JournalPosition,
        bytes_max: usize,
        visit: &mut dyn FnMut(JournalPosition, Record<'_>),
    ) -> Result<JournalPosition, JournalError> {
        self.settled = self.settled.max(to);
        let mut at = from;
        let mut bytes = 0;
        while at < to && bytes < bytes_max as u64 {
            let segment = self.segment_of(at)?;
            if at.0 < segment.header.start.0 + SEGMENT_HEADER_BYTES {
                at = JournalPosition(segment.header.start.0 + SEGMENT_HEADER_BYTES);
                continue;
            }
            match self.next(&segment, at)? {
                Next::Header => at.0 += BATCH_HEADER_BYTES as u64,
                Next::Record(length) => {
                    let record = self.batch.record(&segment.header, at).or_count(Place::Journal).unwrap_or_default();
                    visit(at, Record::decode(record).map_err(|error| not_a_record(&segment.header, at, error))?);
                    at.0 += length;
                    bytes += length;
                }
                Next::End(what) => {
                    self.batch.bytes.clear();
                    self.list()?;
                    if self.starts.binary_search(&at).is_err() {
                        return Err(corrupt(&segment.header, at, what));
                    }
                }
            }
        }
        Ok(at.min(to).max(from))
    }

    /// Tells the reader that all below `to` is durable, when it is another reader that visits.
    pub(crate) fn settle(&mut self, to: JournalPosition) {
        self.settled = self.settled.max(to);
    }

    /// The record at a position that a [`Reader::read`] visited, or that a record refers to.
    pub(crate) fn record_at(&mut self, at: JournalPosition) -> Result<Record<'_>, JournalError> {
        let segment = self.segment_of(at)?;
        if self.batch.record(&segment.header, at).is_none() && self.spot.record(&segment.header, at).is_none() {
            let settled = self.settled.0.saturating_sub(at.0).min(SPOT_BYTES as u64) as usize;
            load(&mut self.spot, &segment, at, settled.max(RECORD_PREFIX_BYTES))?;
            let prefix = self.spot.from(&segment.header, at).and_then(|bytes| bytes.first_chunk().copied());
            let Some(length) = prefix.and_then(Record::length) else {
                return Err(corrupt(&segment.header, at, "there is no record at a position that one refers to"));
            };
            let whole = RECORD_PREFIX_BYTES + length;
            if self.spot.bytes.len() < whole {
                load(&mut self.spot, &segment, at, whole)?;
            }
        }
        let header = &segment.header;
        let bytes = match self.batch.record(header, at) {
            Some(bytes) => bytes,
            None => self.spot.record(header, at).ok_or_else(|| corrupt(header, at, "the record is cut short"))?,
        };
        Record::decode(bytes).map_err(|error| not_a_record(header, at, error))
    }

    /// Closes the segments that lie wholly below a position, so that the disk gets their space back.
    pub(crate) fn forget(&mut self, below: JournalPosition) {
        let current = self.starts.partition_point(|start| *start <= below);
        let keep_from = current.checked_sub(1).and_then(|at| self.starts.get(at).copied()).unwrap_or_default();
        self.open.retain(|segment| segment.header.start >= keep_from);
    }

    /// Finds out what stands at `at`, and has it in the batch's chunk.
    fn next(&mut self, segment: &OpenSegment<D::File>, at: JournalPosition) -> Result<Next, JournalError> {
        if let Some(record) = self.batch.record(&segment.header, at) {
            return Ok(Next::Record((RECORD_PREFIX_BYTES + record.len()) as u64));
        }
        load(&mut self.batch, segment, at, BATCH_HEADER_BYTES)?;
        if self.batch.bytes.starts_with(&BATCH_MAGIC) {
            let Some(header) = BatchHeader::read(&self.batch.bytes, at) else {
                return Ok(Next::End("the batch's header is damaged"));
            };
            load(&mut self.batch, segment, at, header.batch_bytes() as usize)?;
            if !header.proves(segment.header.salt, &self.batch.bytes[BATCH_HEADER_BYTES..]) {
                return Ok(Next::End("the batch's checksum does not match"));
            }
            return Ok(Next::Header);
        }
        // In the middle of a batch that is no longer in memory.
        let Some(length) = self.batch.bytes.first_chunk().copied().and_then(Record::length) else {
            return Ok(Next::End("there is neither a record nor a batch"));
        };
        let settled = self.settled.0.saturating_sub(at.0).min(16 * SPOT_BYTES as u64) as usize;
        load(&mut self.batch, segment, at, settled.max(RECORD_PREFIX_BYTES + length))?;
        Ok(match self.batch.record(&segment.header, at) {
            Some(record) => Next::Record((RECORD_PREFIX_BYTES + record.len()) as u64),
            None => Next::End("the record is cut short"),
        })
    }

    /// Lists the segments. The name of one that holds anything durable is durable itself.
    fn list(&mut self) -> Result<(), JournalError> {
        self.starts = list_segments(&self.disk)?;
        self.listed = self.settled;
        Ok(())
    }

    /// The segment that a position lies in, open.
    fn segment_of(&mut self, at: JournalPosition) -> Result<OpenSegment<D::File>, JournalError> {
        // A segment that began since would be taken for the end of the one before, where the remains of a write that
        // was rolled back may lie.
        if at >= self.listed || self.starts.first().is_none_or(|first| *first > at) {
            self.list()?;
        }
        let after = self.starts.partition_point(|start| *start <= at);
        let Some(start) = after.checked_sub(1).and_then(|index| self.starts.get(index).copied()) else {
            let first = self.starts.first().map_or(0, |first| first.0);
            return Err(JournalError::Missing { wanted: at.0, first });
        };
        if let Some(index) = self.open.iter().position(|segment| segment.header.start == start)
            && let Some(segment) = self.open.remove(index)
        {
            self.open.push_back(segment.clone());
            return Ok(segment);
        }
        let file = self.disk.open(&segment_name(start)).map_err(|source| JournalError::Io {
            what: "opening a segment",
            file: segment_name(start),
            source,
        })?;
        let segment = OpenSegment { header: SegmentHeader::read(&file, start)?, file };
        if self.open.len() == SEGMENTS_OPEN_MAX {
            self.open.pop_front();
        }
        self.open.push_back(segment.clone());
        Ok(segment)
    }
}

/// Reads a piece of a segment into a chunk; it is shorter where the file ends.
fn load<F: DiskFile>(
    chunk: &mut Chunk,
    segment: &OpenSegment<F>,
    at: JournalPosition,
    length: usize,
) -> Result<(), JournalError> {
    chunk.segment = segment.header.start;
    chunk.at = at;
    chunk.bytes.resize(length, 0);
    let offset = at.0.saturating_sub(segment.header.start.0);
    let filled = segment.file.read_at(offset, &mut chunk.bytes);
    chunk.bytes.truncate(*filled.as_ref().unwrap_or(&0));
    filled.map(|_| ()).map_err(|source| JournalError::Io {
        what: "reading",
        file: segment_name(segment.header.start),
        source,
    })
}

fn corrupt(segment: &SegmentHeader, at: JournalPosition, what: &'static str) -> JournalError {
    let offset = at.0.saturating_sub(segment.start.0);
    JournalError::Corrupt { file: segment_name(segment.start), offset, position: at.0, what }
}

fn not_a_record(segment: &SegmentHeader, at: JournalPosition, error: RecordError) -> JournalError {
    corrupt(
        segment,
        at,
        match error {
            RecordError::Short => "a record ends before its fields do",
            RecordError::Long => "a record is longer than its fields",
            RecordError::Unknown(_) => "a record holds a value that this version does not know",
            RecordError::Differences { .. } => "a message's rows do not fit its roster",
        },
    )
}
