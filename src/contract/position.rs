//! How far a journal, a cluster's stream and a database have come: three counts that are not to be mistaken for each
//! other.

/// A place in a journal: bytes since its first segment began, over all segments. A record's position is where its
/// first byte lies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct JournalPosition(pub u64);

/// A place in a cluster's stream: entries since the ledger began, each generation's from a number of its own on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct StreamPosition(pub u64);

/// Entries of a generation are numbered in so many bits.
const ENTRY_BITS: u32 = 40;

impl StreamPosition {
    /// The entry before a generation's first one.
    pub(crate) fn before(generation: u64) -> StreamPosition {
        StreamPosition(generation << ENTRY_BITS)
    }

    /// The generation that it belongs to.
    pub(crate) fn generation(self) -> u64 {
        self.0 >> ENTRY_BITS
    }

    /// The entry behind it.
    pub(crate) fn next(self) -> StreamPosition {
        StreamPosition(self.0 + 1)
    }
}

/// What the entries of a stream's generation are, up to one of them: the checksum of that entry in the lower half, and in the
/// upper one a checksum over those of all entries up to it. Two streams that have parted have others from there on, also
/// where they have the same number of entries. Zero: none of the generation, or it is not known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct StreamDigest(pub u64);

impl StreamDigest {
    /// With the next entry, which has this CRC-32C.
    pub(crate) fn then(self, checksum: u32) -> StreamDigest {
        let all = crc32c::crc32c_append(crc32c::crc32c(&self.0.to_le_bytes()), &checksum.to_le_bytes());
        StreamDigest(u64::from(all) << 32 | u64::from(checksum))
    }

    /// The last entry's CRC-32C; `None`: there is none.
    pub(crate) fn last(self) -> Option<u32> {
        (self.0 != 0).then_some(self.0 as u32)
    }
}

/// What a database has, as it keeps it: a [`JournalPosition`] on one machine, a [`StreamPosition`] in a cluster. Only
/// who knows which of the two the database follows may ask.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct AppliedPosition(pub u64);

impl AppliedPosition {
    /// On one machine.
    pub(crate) fn in_journal(self) -> JournalPosition {
        JournalPosition(self.0)
    }

    /// In a cluster.
    pub fn in_stream(self) -> StreamPosition {
        StreamPosition(self.0)
    }
}

impl From<JournalPosition> for AppliedPosition {
    fn from(position: JournalPosition) -> Self {
        AppliedPosition(position.0)
    }
}

impl From<StreamPosition> for AppliedPosition {
    fn from(position: StreamPosition) -> Self {
        AppliedPosition(position.0)
    }
}
