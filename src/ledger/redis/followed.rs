//! What this node has followed of the ledger, in whatever session: with it the next session compares what Redis has.
//!
//! Owned by the engine. What always holds: everything up to `seen` has gone into rosters, numbers and the copy, entry by
//! entry or by the snapshot of the database that ends there, and nothing behind it; `recent` is of the last entries up to
//! `seen`, and empty if nothing was followed behind the snapshot; `digest` is of all up to `seen`.

use super::link::Generation;
use super::recent::RecentEntries;
use super::session::{Certainty, Reading};
use crate::contract::position::{StreamDigest, StreamPosition};
use crate::contract::store::StorePosition;

/// See the module.
#[derive(Debug)]
pub(super) struct Followed {
    seen: StreamPosition,
    recent: RecentEntries,
    /// What the entries are up to `seen`.
    digest: StreamDigest,
    /// `None`: none since the start.
    last: Option<LastGeneration>,
    /// No message that the database had when its last snapshot was read was numbered later, Unix milliseconds.
    stored_ms: u64,
}

/// The generation that is followed, or was last.
#[derive(Debug)]
struct LastGeneration {
    generation: Generation,
    certainty: Certainty,
    /// Since when this node has numbered in it, monotonic milliseconds.
    numbers_since_ms: Option<u64>,
}

/// Whether what a session follows is what the one before did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Goes {
    /// It is the same generation.
    On,
    /// It is another one, or the first.
    Anew,
}

impl Followed {
    /// What a snapshot of the database has.
    pub(super) fn from_snapshot(at: StorePosition) -> Followed {
        let StorePosition { applied, msg_id_max, digest } = at;
        let (recent, stored_ms) = (RecentEntries::default(), msg_id_max.sent_at_ms());
        Followed { seen: applied.in_stream(), recent, digest, last: None, stored_ms }
    }

    /// What was followed is replaced by what another snapshot has; the generation is not followed yet.
    pub(super) fn replace(&mut self, at: StorePosition) {
        *self = Followed { last: self.last.take(), ..Followed::from_snapshot(at) };
    }

    /// A session follows this.
    pub(super) fn follow(&mut self, reading: &Reading) -> Goes {
        let before = self.last.take().filter(|last| last.generation == reading.generation);
        let (generation, certainty) = (reading.generation.clone(), reading.certainty);
        let numbers_since_ms = before.as_ref().and_then(|last| last.numbers_since_ms);
        self.last = Some(LastGeneration { generation, certainty, numbers_since_ms });
        if before.is_some() { Goes::On } else { Goes::Anew }
    }

    /// The next entry was followed.
    pub(super) fn push(&mut self, at: StreamPosition, entry: &[u8]) {
        debug_assert_eq!(at, self.seen.next(), "none is left out");
        let checksum = crc32c::crc32c(entry);
        self.recent.push(at, checksum);
        self.digest = self.digest.then(checksum);
        self.seen = at;
    }

    /// What the entries are up to [`Self::seen`].
    pub(super) fn digest(&self) -> StreamDigest {
        self.digest
    }

    /// The last entry: what lies behind it must not be cut off.
    pub(super) fn seen(&self) -> StreamPosition {
        self.seen
    }

    /// Entries were followed behind the snapshot: another one cannot stand in for it.
    pub(super) fn has_entries(&self) -> bool {
        !self.recent.is_empty()
    }

    /// The last entries, each with its checksum; of those of the snapshot the last one alone is known.
    pub(super) fn recent(&self) -> Vec<(u64, u32)> {
        match self.recent.is_empty() {
            true => self.digest.last().map(|checksum| (self.seen.0, checksum)).into_iter().collect(),
            false => self.recent.known(self.seen),
        }
    }

    /// The generation that is followed, or was last.
    pub(super) fn generation(&self) -> Option<&Generation> {
        self.last.as_ref().map(|last| &last.generation)
    }

    /// Its number; zero: none.
    pub(super) fn generation_number(&self) -> u64 {
        self.generation().map_or(0, |generation| generation.number)
    }

    /// This node has followed it when nobody doubted that it was whole, and can say whether it still is.
    pub(super) fn can_confirm(&self, there: &Generation) -> bool {
        self.last.as_ref().is_some_and(|last| last.generation == *there && last.certainty == Certainty::Confirmed)
    }

    /// This node numbers in the generation. Returns since when, monotonic milliseconds.
    pub(super) fn numbers(&mut self, mono_ms: u64) -> u64 {
        self.last.as_mut().map_or(mono_ms, |last| *last.numbers_since_ms.get_or_insert(mono_ms))
    }

    /// No message that the database had when its last snapshot was read was numbered later, Unix milliseconds.
    pub(super) fn stored_ms(&self) -> u64 {
        self.stored_ms
    }
}
