//! Checksums of the entries followed last, by which a session knows whether Redis still has the stream that it had.
//!
//! Owned by the engine. A replica that has lacked the end of the stream and was made the master gives other entries the
//! same numbers. What always holds: an entry has a message's number in it, so two streams that part have other entries
//! from there on; as many are compared as are appended at once, many times over.

use std::collections::VecDeque;

use crate::contract::position::StreamPosition;

/// How many are compared.
const RECENT_MAX: usize = 64;

/// The last entries followed.
#[derive(Debug, Default)]
pub(super) struct RecentEntries {
    last: StreamPosition,
    checksums: VecDeque<u32>,
}

impl RecentEntries {
    /// An entry with this checksum was followed.
    pub(super) fn push(&mut self, at: StreamPosition, checksum: u32) {
        if at != self.last.next() {
            self.checksums.clear();
        }
        if self.checksums.len() >= RECENT_MAX {
            self.checksums.pop_front();
        }
        self.checksums.push_back(checksum);
        self.last = at;
    }

    /// Nothing was followed since the stream began, or since the last snapshot.
    pub(super) fn is_empty(&self) -> bool {
        self.checksums.is_empty()
    }

    /// The last entries up to this one, each with its checksum.
    pub(super) fn known(&self, seen: StreamPosition) -> Vec<(u64, u32)> {
        if self.last != seen {
            return Vec::new();
        }
        let first = self.last.next().0 - self.checksums.len() as u64;
        std::iter::zip(first.., self.checksums.iter().copied()).collect()
    }
}
