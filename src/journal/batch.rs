//! A batch: what one group commit appends, records behind a header that proves them whole.
//!
//! Filled by the ledger's thread, checked by whoever reads. What always holds: a batch is believed only in the
//! segment and at the position it was written for, because both go into its CRC-32C (the segment by a salt that
//! nobody outside knows, so that no body can pose as a batch).

use super::record::Record;
use crate::contract::position::JournalPosition;
use crate::limits::JOURNAL_BATCH_BYTES_MAX;

/// Magic, payload length, position, records, CRC-32C: five little-endian fields.
pub(crate) const BATCH_HEADER_BYTES: usize = 24;

/// The first four bytes of a batch. As a record's length it would be out of range, so that a reader who stands
/// between two records can tell what comes.
pub(crate) const BATCH_MAGIC: [u8; 4] = *b"RWB1";

const _: () = assert!(u32::from_le_bytes(BATCH_MAGIC) as usize > JOURNAL_BATCH_BYTES_MAX);

/// A batch being filled.
#[derive(Debug)]
pub struct Batch {
    /// Room for the header, then the records.
    bytes: Vec<u8>,
    records: u32,
}

impl Batch {
    /// An empty one.
    pub fn new() -> Batch {
        Batch { bytes: vec![0; BATCH_HEADER_BYTES], records: 0 }
    }

    /// Empties it; the memory is kept.
    pub(crate) fn clear(&mut self) {
        self.bytes.truncate(BATCH_HEADER_BYTES);
        self.records = 0;
    }

    /// Adds a record; returns how far behind the batch's beginning it lies.
    pub fn push(&mut self, record: &Record<'_>) -> u64 {
        let at = self.bytes.len() as u64;
        record.encode(&mut self.bytes);
        self.records += 1;
        at
    }

    /// Bytes, header included.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// No records.
    pub(crate) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// The bytes to write at `position` of a segment with this salt, and behind them so many zeroes, which are
    /// no part of the batch. Nothing may be added any more until it is cleared. What no reader would believe is not
    /// written: it would be taken for a torn tail after it was acked.
    pub(crate) fn seal(&mut self, position: JournalPosition, salt: u64, zeroes: usize) -> &[u8] {
        let length = self.bytes.len() - BATCH_HEADER_BYTES;
        assert!((1..=JOURNAL_BATCH_BYTES_MAX).contains(&length), "a batch of {length} bytes cannot be read again");
        let length = length as u32;
        let (header, payload) = self.bytes.split_at_mut(BATCH_HEADER_BYTES);
        header[0..4].copy_from_slice(&BATCH_MAGIC);
        header[4..8].copy_from_slice(&length.to_le_bytes());
        header[8..16].copy_from_slice(&position.0.to_le_bytes());
        header[16..20].copy_from_slice(&self.records.to_le_bytes());
        let crc = checksum(salt, &header[..20], payload);
        header[20..24].copy_from_slice(&crc.to_le_bytes());
        self.bytes.resize(self.bytes.len() + zeroes, 0);
        &self.bytes
    }
}

impl Default for Batch {
    fn default() -> Self {
        Batch::new()
    }
}

/// What a batch says of itself; believed only with [`BatchHeader::proves`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BatchHeader {
    /// Bytes of its records.
    pub(crate) payload_bytes: usize,
    /// How many records.
    pub(crate) records: u32,
    crc: u32,
    head: [u8; 20],
}

impl BatchHeader {
    /// Reads the header of a batch at `position`; `None`: there is none, or it is for another position.
    pub(crate) fn read(bytes: &[u8], position: JournalPosition) -> Option<BatchHeader> {
        let (magic, rest) = bytes.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (at, rest) = rest.split_first_chunk::<8>()?;
        let (records, rest) = rest.split_first_chunk::<4>()?;
        let (crc, _) = rest.split_first_chunk::<4>()?;
        let payload_bytes = u32::from_le_bytes(*length) as usize;
        let plausible = *magic == BATCH_MAGIC
            && u64::from_le_bytes(*at) == position.0
            && (1..=JOURNAL_BATCH_BYTES_MAX).contains(&payload_bytes);
        if !plausible {
            return None;
        }
        let (records, crc) = (u32::from_le_bytes(*records), u32::from_le_bytes(*crc));
        Some(BatchHeader { payload_bytes, records, crc, head: *bytes.first_chunk::<20>()? })
    }

    /// The payload is the one that was written, in the segment with this salt.
    pub(crate) fn proves(&self, salt: u64, payload: &[u8]) -> bool {
        payload.len() == self.payload_bytes && checksum(salt, &self.head, payload) == self.crc
    }

    /// The batch's bytes, header included.
    pub(crate) fn batch_bytes(&self) -> u64 {
        (BATCH_HEADER_BYTES + self.payload_bytes) as u64
    }
}

fn checksum(salt: u64, head: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), head), payload)
}
