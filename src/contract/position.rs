//! How far the journal, or a cluster's stream, has come.

/// A place in the journal: bytes since its first segment began, over all segments. A record's position is
/// where its first byte lies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Position(pub u64);
