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
