//! Segments, and the journal's writer.
//!
//! The writer is owned by the ledger's thread. A segment is a file of `SEGMENT_BYTES`, named by the position at
//! which it starts: a header, then batches, one right behind the other, none across segments. The next segment
//! starts at the position where the batches of the one before end, so positions have no holes; what a file
//! still has behind them is never read. What always holds: a batch is never written over one that was synced,
//! and a segment's header and name are durable before its first batch is written.

use std::collections::VecDeque;
use std::io;

use super::JournalError;
use super::batch::{BATCH_HEADER_BYTES, Batch};
use super::disk::{Disk, DiskFile};
use crate::clock::Clock;
use crate::contract::latencies::Latencies;
use crate::contract::position::JournalPosition;
use crate::limits::{JOURNAL_BATCH_BYTES_MAX, SEGMENT_BYTES};

/// Magic, format, start, salt, CRC-32C.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 32;
/// The format that this version writes and reads.
pub(crate) const SEGMENT_FORMAT: u32 = 1;

/// The largest batch, its header included.
pub(super) const BATCH_BYTES_MAX: u64 = (JOURNAL_BATCH_BYTES_MAX + BATCH_HEADER_BYTES) as u64;
/// A segment holds at least the largest batch, and a little.
pub(crate) const SEGMENT_BYTES_MIN: u64 = SEGMENT_HEADER_BYTES + BATCH_BYTES_MAX + 4096;

/// How far the writer fills a segment with zeroes ahead of its batches. The first write to an allocated block
/// changes the file's metadata, which makes `fdatasync` commit the file system's own journal too (172 instead of
/// 114 µs for batches of 8 KB on ext4); so, where a batch reaches new blocks, the same write zeroes so many more.
const ZEROES_AHEAD_BYTES: u64 = 256 * 1024;

const SEGMENT_MAGIC: [u8; 8] = *b"RWJOURNL";

/// The file name of the segment that starts at a position.
pub(crate) fn segment_name(start: JournalPosition) -> String {
    format!("{:016x}.seg", start.0)
}

/// The position in a file name; `None`: this is no segment's name.
pub(crate) fn segment_start(name: &str) -> Option<JournalPosition> {
    let hex = name.strip_suffix(".seg").filter(|hex| hex.len() == 16)?;
    u64::from_str_radix(hex, 16).ok().map(JournalPosition).filter(|start| segment_name(*start) == name)
}

/// The starts of all segments in a directory, in order.
pub(crate) fn list_segments<D: Disk>(disk: &D) -> Result<Vec<JournalPosition>, JournalError> {
    let names = disk.list().map_err(|source| JournalError::Io {
        what: "listing the directory",
        file: String::new(),
        source,
    })?;
    let mut starts: Vec<JournalPosition> = names.iter().filter_map(|name| segment_start(name)).collect();
    starts.sort_unstable();
    Ok(starts)
}

/// What a segment's first bytes say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    /// Where it starts.
    pub(crate) start: JournalPosition,
    /// A number that goes into the CRC of each of its batches.
    pub(crate) salt: u64,
}

impl SegmentHeader {
    /// The bytes of it.
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES as usize] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        bytes[0..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&SEGMENT_FORMAT.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.start.0.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.salt.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..28]);
        bytes[28..32].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads and checks the header of the segment that should start at `start`.
    pub(crate) fn read<F: DiskFile>(file: &F, start: JournalPosition) -> Result<SegmentHeader, JournalError> {
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        let filled = file.read_at(0, &mut bytes).map_err(|source| JournalError::Io {
            what: "reading the header",
            file: segment_name(start),
            source,
        })?;
        let corrupt = |what| JournalError::Corrupt { file: segment_name(start), offset: 0, position: start.0, what };
        let (fields, crc) = bytes.split_at(28);
        if filled < bytes.len() || fields[..8] != SEGMENT_MAGIC || crc32c::crc32c(fields).to_le_bytes() != *crc {
            return Err(corrupt("the segment's header is damaged"));
        }
        let version = u32_at(fields, 8);
        if version != SEGMENT_FORMAT {
            return Err(JournalError::Version { file: segment_name(start), version, expected: SEGMENT_FORMAT });
        }
        if u64_at(fields, 12) != start.0 {
            return Err(corrupt("the segment's header names another position than the file"));
        }
        Ok(SegmentHeader { start, salt: u64_at(fields, 20) })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().copied().map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().copied().map_or(0, u64::from_le_bytes)
}

/// The writer.
#[derive(Debug)]
pub struct Journal<D: Disk> {
    disk: D,
    /// Starts of the segments on disk, in order; the last is the one written to.
    segments: VecDeque<JournalPosition>,
    file: D::File,
    header: SegmentHeader,
    /// Where the next batch goes.
    tail: JournalPosition,
    state: Tail,
    /// Up to this offset the file's blocks have been written once.
    written_to: u64,
    segment_bytes: u64,
    salts: fastrand::Rng,
    clock: Clock,
    syncs: Latencies,
}

/// What lies at and behind the tail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tail {
    /// Nothing that could be believed.
    Clean,
    /// A batch of so many bytes, not synced.
    Appended(u64),
    /// Perhaps a part of a batch, to be made unbelievable before anything else happens.
    Broken,
}

impl<D: Disk> Journal<D> {
    /// Begins a new segment at `start`, behind those that recovery found. `seed` makes the salts.
    pub fn create(disk: D, start: JournalPosition, seed: u64) -> Result<Self, JournalError> {
        Journal::with_segments_of(SEGMENT_BYTES, disk, start, seed)
    }

    /// The same with segments of another size, at least large enough for the largest batch.
    pub(crate) fn with_segments_of(
        segment_bytes: u64,
        disk: D,
        start: JournalPosition,
        seed: u64,
    ) -> Result<Self, JournalError> {
        let segment_bytes = segment_bytes.max(SEGMENT_BYTES_MIN);
        let mut segments: VecDeque<JournalPosition> = list_segments(&disk)?.into();
        let mut salts = fastrand::Rng::with_seed(seed);
        let (file, header) = begin(&disk, start, segment_bytes, &mut salts)?;
        segments.push_back(start);
        let tail = JournalPosition(start.0 + SEGMENT_HEADER_BYTES);
        Ok(Journal {
            disk,
            segments,
            file,
            header,
            tail,
            state: Tail::Clean,
            written_to: 0,
            segment_bytes,
            salts,
            clock: Clock::start(),
            syncs: Latencies::default(),
        })
    }

    /// Where the next batch goes; everything below it has been synced.
    pub(crate) fn tail(&self) -> JournalPosition {
        self.tail
    }

    /// Where the oldest segment on disk starts.
    #[cfg(test)]
    pub(crate) fn first(&self) -> JournalPosition {
        self.segments.front().copied().unwrap_or(self.header.start)
    }

    /// Where the segment being written to starts.
    pub(crate) fn segment(&self) -> JournalPosition {
        self.header.start
    }

    /// Makes room for a batch of any allowed size, by beginning a new segment if need be; returns where the
    /// batch will begin. Call before filling a batch: its records may refer to positions in it.
    pub fn prepare(&mut self) -> Result<JournalPosition, JournalError> {
        if self.state == Tail::Broken {
            self.rollback()?;
        }
        let used = self.tail.0 - self.header.start.0;
        if used + BATCH_BYTES_MAX > self.segment_bytes {
            let (file, header) = begin(&self.disk, self.tail, self.segment_bytes, &mut self.salts)?;
            self.file = file;
            self.header = header;
            self.segments.push_back(header.start);
            self.tail = JournalPosition(header.start.0 + SEGMENT_HEADER_BYTES);
            self.written_to = 0;
        }
        Ok(self.tail)
    }

    /// Writes a batch at the tail. On an error nothing counts as written: call [`Self::rollback`].
    pub fn append(&mut self, batch: &mut Batch) -> Result<(), JournalError> {
        assert_eq!(self.state, Tail::Clean, "one batch at a time: append, then sync or roll back");
        let offset = self.tail.0 - self.header.start.0;
        let length = batch.len() as u64;
        let end = offset + length;
        if end > self.segment_bytes {
            return Err(self.failed("appending a batch", io::ErrorKind::FileTooLarge.into()));
        }
        let mut zeroes = 0;
        if end > self.written_to {
            self.written_to =
                (end.next_multiple_of(ZEROES_AHEAD_BYTES) + ZEROES_AHEAD_BYTES / 4).min(self.segment_bytes);
            zeroes = self.written_to - end;
        }
        self.state = Tail::Broken;
        let bytes = batch.seal(self.tail, self.header.salt, zeroes as usize);
        self.file.write_at(offset, bytes).map_err(|source| self.failed("appending a batch", source))?;
        self.state = Tail::Appended(length);
        Ok(())
    }

    /// Makes what was appended durable; returns the new tail. An error is final: the kernel may have dropped
    /// the pages, and a second try would report success.
    pub fn sync(&mut self) -> io::Result<JournalPosition> {
        assert_ne!(self.state, Tail::Broken, "what could not be written is not durable: it is rolled back first");
        if let Tail::Appended(length) = self.state {
            let before = self.clock.mono_us();
            self.file.sync()?;
            self.syncs.record(self.clock.mono_us() - before);
            self.tail.0 += length;
            self.state = Tail::Clean;
        }
        Ok(self.tail)
    }

    /// Counts what was appended as written without a sync: for a journal that need not survive its process. Returns
    /// the new tail.
    pub(crate) fn settle(&mut self) -> JournalPosition {
        assert_ne!(self.state, Tail::Broken, "what could not be written does not count as written");
        if let Tail::Appended(length) = self.state {
            self.tail.0 += length;
            self.state = Tail::Clean;
        }
        self.tail
    }

    /// How long the syncs of batches took.
    pub(crate) fn syncs(&self) -> Latencies {
        self.syncs
    }

    /// Takes back what was appended and not synced: makes its header unbelievable, durably.
    pub(crate) fn rollback(&mut self) -> Result<(), JournalError> {
        if self.state == Tail::Clean {
            return Ok(());
        }
        self.state = Tail::Broken;
        let offset = self.tail.0 - self.header.start.0;
        let zeroes = [0; BATCH_HEADER_BYTES];
        self.file
            .write_at(offset, &zeroes)
            .and_then(|()| self.file.sync())
            .map_err(|source| self.failed("taking a batch back", source))?;
        self.state = Tail::Clean;
        Ok(())
    }

    /// Removes the segments that lie wholly below a position, but never the one written to. Returns how many.
    pub(crate) fn retire(&mut self, below: JournalPosition) -> Result<usize, JournalError> {
        let mut removed = 0;
        while let (Some(first), Some(next)) = (self.segments.front().copied(), self.segments.get(1).copied()) {
            if next > below {
                break;
            }
            match self.disk.remove(&segment_name(first)) {
                Ok(()) => {}
                // It went before, when only the directory could not be synced: this time it may have been, or will be
                // with the next one.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => {
                    let what = "removing a segment that is no longer needed";
                    return Err(JournalError::Io { what, file: segment_name(first), source });
                }
            }
            self.segments.pop_front();
            removed += 1;
        }
        Ok(removed)
    }

    fn failed(&self, what: &'static str, source: io::Error) -> JournalError {
        JournalError::Io { what, file: segment_name(self.header.start), source }
    }
}

/// Creates a segment whose header and name are durable.
fn begin<D: Disk>(
    disk: &D,
    start: JournalPosition,
    segment_bytes: u64,
    salts: &mut fastrand::Rng,
) -> Result<(D::File, SegmentHeader), JournalError> {
    let name = segment_name(start);
    let header = SegmentHeader { start, salt: salts.u64(..) };
    let failed = |what| move |source| JournalError::Io { what, file: segment_name(start), source };
    let file = disk.create(&name, segment_bytes).map_err(|source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            JournalError::NoRoom { file: name.clone(), bytes: segment_bytes, source }
        }
        _ => failed("allocating a segment")(source),
    })?;
    let written = file.write_at(0, &header.encode()).and_then(|()| file.sync());
    if let Err(source) = written {
        // Without a header it holds nothing; the next try must find the name free.
        disk.remove(&name).map_err(failed("removing a segment without a header"))?;
        return Err(failed("writing a segment's header")(source));
    }
    Ok((file, header))
}

#[cfg(test)]
mod tests;
