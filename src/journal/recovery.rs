//! What a start finds on disk, and what `ringway journal verify` reports.
//!
//! Runs before the ledger's thread does. What always holds: bad data is taken for a torn tail, and left out, only
//! when nothing valid follows it, no more of it than one batch is there, and the file is as long as it was allocated;
//! otherwise the start is refused and nothing on disk is touched. What counts as journal afterwards is on disk, not only in
//! the page cache that a killed process left behind. What was overwritten with zeroes from the last batches on looks like
//! room that was never used: only the store may know better.

use std::io;

use super::JournalError;
use super::batch::{BATCH_HEADER_BYTES, BATCH_MAGIC, BatchHeader};
use super::disk::{Disk, DiskFile};
use super::record::{RECORD_PREFIX_BYTES, Record, RosterRecord};
use super::segment::{
    BATCH_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENT_HEADER_BYTES, SegmentHeader, list_segments, segment_name,
};
use crate::contract::position::JournalPosition;
use ringway_wire::limits::{BODY_BYTES_MAX, GROUP_MEMBERS_MAX};

/// Read at once; more than any record has.
const READ_BYTES: usize = 256 * 1024;

const _: () = assert!(READ_BYTES > GROUP_MEMBERS_MAX * 20 + BODY_BYTES_MAX + 1024);

/// What the journal holds.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Recovered {
    /// Where its first segment starts.
    pub(crate) first: JournalPosition,
    /// Where its last batch ends; zero if it has no segments. The next segment starts here.
    pub(crate) end: JournalPosition,
    /// Segments with at least a header.
    pub(crate) segments: usize,
    /// Batches that are whole.
    pub(crate) batches: u64,
    /// The unfinished end of the last segment, which was thrown away.
    pub(crate) torn: Option<TornTail>,
}

/// A batch that was being written when the power went. Nobody was told of its messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TornTail {
    /// In which file.
    pub(crate) file: String,
    /// From which byte.
    pub(crate) offset: u64,
}

/// Checks every batch and makes the end of the journal durable. A last segment without batches is removed, so
/// that starts without traffic do not fill the disk. Segments are at least so long.
pub(crate) fn recover<D: Disk>(disk: &D, segment_bytes: u64) -> Result<Recovered, JournalError> {
    let mut recovered = Recovered::default();
    let starts = list_segments(disk)?;
    recovered.first = starts.first().copied().unwrap_or_default();
    let mut last_batch = None;
    for (index, start) in starts.iter().enumerate() {
        let scan = Scan::of(disk, *start, starts.get(index + 1).copied(), segment_bytes)?;
        let Some(scan) = scan else {
            recovered.end = recovered.end.max(*start);
            break;
        };
        let batches = scan.batches(&mut |_, _| Ok(()))?;
        recovered.segments += 1;
        recovered.batches += batches.count;
        recovered.end = batches.end;
        recovered.torn = batches.torn;
        last_batch = batches.last.map(|at| (scan, at));
    }
    if let Some((scan, at)) = last_batch {
        scan.write_again(at, recovered.end)?;
    }
    if let Some(last) = starts.last().copied()
        && recovered.end.0 <= last.0 + SEGMENT_HEADER_BYTES
    {
        disk.remove(&segment_name(last)).map_err(failed(last, "removing a segment without batches"))?;
        recovered.end = last;
        recovered.segments = starts.len() - 1;
    }
    assert!(recovered.first <= recovered.end, "the journal ends before it begins");
    assert!(starts.iter().all(|start| *start <= recovered.end), "a segment begins behind the journal's end");
    Ok(recovered)
}

/// What [`verify`] counts.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Report {
    /// As a start would find it.
    pub(crate) journal: Recovered,
    /// Records of all kinds.
    pub(crate) records: u64,
    /// Messages.
    pub(crate) messages: u64,
    /// Inbox rows of the messages.
    pub(crate) rows: u64,
    /// Changes of groups.
    pub(crate) changes: u64,
}

/// Reads the whole journal, every record too, and changes nothing. Segments are at least so long.
pub(crate) fn verify<D: Disk>(disk: &D, segment_bytes: u64) -> Result<Report, JournalError> {
    let mut report = Report::default();
    let starts = list_segments(disk)?;
    report.journal.first = starts.first().copied().unwrap_or_default();
    for (index, start) in starts.iter().enumerate() {
        let Some(scan) = Scan::of(disk, *start, starts.get(index + 1).copied(), segment_bytes)? else { break };
        let mut roster: Option<(JournalPosition, RosterRecord)> = None;
        let batches = scan.batches(&mut |at, record| {
            report.records += 1;
            match record {
                Record::Group(message) => {
                    if roster.as_ref().is_none_or(|(roster_at, _)| *roster_at != message.roster_at) {
                        roster = Some((message.roster_at, scan.roster(at, message.roster_at)?));
                    }
                    let members = roster.as_ref().map_or(0, |(_, roster)| roster.members.len());
                    let rows = message.seqs(members).map_err(|_| scan.corrupt(at, "its rows do not fit its roster"))?;
                    report.messages += 1;
                    report.rows += rows.count() as u64;
                }
                Record::Direct(message) => {
                    report.messages += 1;
                    report.rows += if message.sender == message.to { 1 } else { 2 };
                }
                Record::Change(_) => report.changes += 1,
                // Only a cluster's node writes these; they hold nothing of a user's.
                Record::Mark(..) | Record::Withdrawn(_) => {}
                Record::Roster(_) => {}
            }
            Ok(())
        })?;
        report.journal.segments += 1;
        report.journal.batches += batches.count;
        report.journal.end = batches.end;
        report.journal.torn = batches.torn;
    }
    Ok(report)
}

/// A segment in memory.
struct Scan<F> {
    header: SegmentHeader,
    file: F,
    /// What the file has up to its last byte that is not zero, and some zeroes.
    bytes: Vec<u8>,
    /// Where the next segment starts, if there is one.
    next: Option<JournalPosition>,
}

/// The batches of a segment.
struct Batches {
    count: u64,
    end: JournalPosition,
    last: Option<JournalPosition>,
    torn: Option<TornTail>,
}

impl<F: DiskFile> Scan<F> {
    /// Reads a segment. `None`: it is the last one and was only being created when the power went.
    fn of<D: Disk<File = F>>(
        disk: &D,
        start: JournalPosition,
        next: Option<JournalPosition>,
        segment_bytes: u64,
    ) -> Result<Option<Self>, JournalError> {
        let file = disk.open(&segment_name(start)).map_err(failed(start, "opening a segment"))?;
        let bytes = read_used(&file).map_err(failed(start, "reading"))?;
        match SegmentHeader::read(&file, start) {
            Ok(header) => Scan { header, file, bytes, next }.whole(segment_bytes).map(Some),
            Err(JournalError::Corrupt { .. })
                if next.is_none() && bytes.get(SEGMENT_HEADER_BYTES as usize..).is_none_or(is_zero) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Itself, unless the file is shorter than it was allocated. Its header was written after that.
    fn whole(self, segment_bytes: u64) -> Result<Self, JournalError> {
        let size = self.file.size().map_err(failed(self.header.start, "looking at the size"))?;
        if size < segment_bytes.max(SEGMENT_BYTES_MIN) {
            let end = JournalPosition(self.header.start.0 + size);
            return Err(self.corrupt(end, "the file ends here, though a segment is longer: what lay behind is missing"));
        }
        Ok(self)
    }

    /// Checks the batches, one right behind the other, and visits their records.
    fn batches(
        &self,
        visit: &mut dyn FnMut(JournalPosition, Record<'_>) -> Result<(), JournalError>,
    ) -> Result<Batches, JournalError> {
        let mut found = Batches { count: 0, end: self.header.start, last: None, torn: None };
        let mut offset = SEGMENT_HEADER_BYTES as usize;
        while self.next != Some(self.position(offset))
            && let Some((header, payload)) = self.batch(offset)
        {
            self.records(offset, &header, payload, visit)?;
            found.count += 1;
            found.last = Some(self.position(offset));
            offset += header.batch_bytes() as usize;
        }
        found.end = self.position(offset);
        match self.next {
            Some(next) if next == found.end => Ok(found),
            // A start without traffic removes its segment and begins again at the same place, header not counted.
            Some(next) if found.count == 0 && next == self.header.start => Ok(found),
            Some(_) => Err(self.corrupt(found.end, "a batch is damaged, and another segment follows")),
            None => {
                if self.later_batch(offset) {
                    return Err(self.corrupt(found.end, "a batch is damaged, and a whole one follows it"));
                }
                if !self.bytes.get(offset + BATCH_BYTES_MAX as usize..).is_none_or(is_zero) {
                    return Err(self.corrupt(found.end, "more is damaged from here on than one batch has"));
                }
                if !self.bytes.get(offset..).is_none_or(is_zero) {
                    found.torn = Some(TornTail { file: segment_name(self.header.start), offset: offset as u64 });
                }
                Ok(found)
            }
        }
    }

    /// The whole batch at an offset.
    fn batch(&self, offset: usize) -> Option<(BatchHeader, &[u8])> {
        let bytes = self.bytes.get(offset..)?;
        let header = BatchHeader::read(bytes, self.position(offset))?;
        let payload = bytes.get(BATCH_HEADER_BYTES..)?.get(..header.payload_bytes)?;
        header.proves(self.header.salt, payload).then_some((header, payload))
    }

    /// A whole batch begins somewhere behind an offset.
    fn later_batch(&self, offset: usize) -> bool {
        let mut at = offset + 1;
        while let Some(rest) = self.bytes.get(at..)
            && let Some(skipped) = rest.iter().position(|byte| *byte == BATCH_MAGIC[0])
        {
            at += skipped;
            if self.batch(at).is_some() {
                return true;
            }
            at += 1;
        }
        false
    }

    fn records(
        &self,
        batch_offset: usize,
        header: &BatchHeader,
        payload: &[u8],
        visit: &mut dyn FnMut(JournalPosition, Record<'_>) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        let mut offset = batch_offset + BATCH_HEADER_BYTES;
        let mut rest = payload;
        let mut count = 0;
        while let Some((prefix, behind)) = rest.split_first_chunk::<RECORD_PREFIX_BYTES>() {
            let at = self.position(offset);
            let length = Record::length(*prefix).filter(|length| *length <= behind.len());
            let length = length.ok_or_else(|| self.corrupt(at, "a record is longer than its batch"))?;
            let (record, behind) = behind.split_at(length);
            let record = Record::decode(record).map_err(|_| self.corrupt(at, "a record cannot be decoded"))?;
            visit(at, record)?;
            offset += RECORD_PREFIX_BYTES + length;
            rest = behind;
            count += 1;
        }
        if !rest.is_empty() || count != header.records {
            return Err(self.corrupt(self.position(batch_offset), "a batch has not as many records as it says"));
        }
        Ok(())
    }

    /// The roster that a message at `at` refers to.
    fn roster(&self, at: JournalPosition, roster_at: JournalPosition) -> Result<RosterRecord, JournalError> {
        let record = roster_at.0.checked_sub(self.header.start.0).and_then(|offset| {
            let bytes = self.bytes.get(usize::try_from(offset).ok()?..)?;
            let (prefix, behind) = bytes.split_first_chunk::<RECORD_PREFIX_BYTES>()?;
            Record::decode(behind.get(..Record::length(*prefix)?)?).ok()
        });
        match record {
            Some(Record::Roster(roster)) => Ok(roster),
            _ => Err(self.corrupt(at, "a message refers to a roster that is not in its segment")),
        }
    }

    /// Writes the last batch over itself and syncs: a process that was killed between write and sync leaves it
    /// in the page cache only, and after a failed sync the cache may even call it clean.
    fn write_again(&self, from: JournalPosition, to: JournalPosition) -> Result<(), JournalError> {
        let offset = (from.0 - self.header.start.0) as usize;
        let bytes = &self.bytes[offset..(to.0 - self.header.start.0) as usize];
        self.file
            .write_at(offset as u64, bytes)
            .and_then(|()| self.file.sync())
            .map_err(failed(self.header.start, "making the last batch durable"))
    }

    fn position(&self, offset: usize) -> JournalPosition {
        JournalPosition(self.header.start.0 + offset as u64)
    }

    fn corrupt(&self, at: JournalPosition, what: &'static str) -> JournalError {
        let offset = at.0 - self.header.start.0;
        JournalError::Corrupt { file: segment_name(self.header.start), offset, position: at.0, what }
    }
}

/// Reads a file without most of the zeroes that it ends with; the last record's own last bytes may be zeroes too.
fn read_used<F: DiskFile>(file: &F) -> io::Result<Vec<u8>> {
    let size = file.size()?;
    let mut bytes = Vec::new();
    let mut part = vec![0; READ_BYTES];
    let mut at = 0;
    while at < size {
        let filled = file.read_at(at, &mut part)?;
        if filled == 0 {
            break;
        }
        if !is_zero(&part[..filled]) {
            bytes.resize(at as usize, 0);
            bytes.extend_from_slice(&part[..filled]);
        }
        at += filled as u64;
    }
    let with_last_record = (bytes.len() + READ_BYTES) as u64;
    bytes.resize(with_last_record.min(size) as usize, 0);
    Ok(bytes)
}

fn is_zero(bytes: &[u8]) -> bool {
    const ZEROES: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROES.len()).all(|chunk| *chunk == ZEROES[..chunk.len()])
}

fn failed(start: JournalPosition, what: &'static str) -> impl FnOnce(io::Error) -> JournalError {
    move |source| JournalError::Io { what, file: segment_name(start), source }
}

#[cfg(test)]
mod tests;
