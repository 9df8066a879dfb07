//! Slots that grow in chunks: half a million entries are never moved to make room for one more.
//!
//! Used for sessions, users, audiences and memberships, by the shard's thread. What always holds: a slot's
//! number does not change while it is taken, and the lowest memory is reused first-freed-last.

use crate::contract::internal::{OrCount, Place};

/// Entries of one chunk.
const CHUNK: usize = 1_024;

/// An array that grows by a chunk at a time and never moves.
#[derive(Debug)]
pub(super) struct Chunked<T> {
    chunks: Vec<Box<[T]>>,
}

impl<T: Default> Chunked<T> {
    pub(super) fn new() -> Self {
        Chunked { chunks: Vec::new() }
    }

    #[inline]
    pub(super) fn at(&self, slot: u32) -> Option<&T> {
        self.chunks.get(slot as usize / CHUNK)?.get(slot as usize % CHUNK)
    }

    #[inline]
    pub(super) fn at_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.chunks.get_mut(slot as usize / CHUNK)?.get_mut(slot as usize % CHUNK)
    }

    /// The entry of a slot; the array grows to it.
    pub(super) fn reached(&mut self, slot: u32) -> &mut T {
        self.reach(slot);
        &mut self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
    }

    /// Makes sure that `slot` exists.
    pub(super) fn reach(&mut self, slot: u32) {
        while self.chunks.len() <= slot as usize / CHUNK {
            self.chunks.push(std::iter::repeat_with(T::default).take(CHUNK).collect());
        }
    }
}

/// A [`Chunked`] whose slots are taken and given back.
#[derive(Debug)]
pub(super) struct Slab<T> {
    entries: Chunked<T>,
    /// A stack of slots given back.
    free: Chunked<u32>,
    free_count: u32,
    /// Slots ever taken at once.
    high: u32,
}

impl<T: Default> Slab<T> {
    pub(super) fn new() -> Self {
        Slab { entries: Chunked::new(), free: Chunked::new(), free_count: 0, high: 0 }
    }

    /// Takes a slot. What it holds is what its last user left.
    pub(super) fn take(&mut self) -> u32 {
        if let Some(top) = self.free_count.checked_sub(1) {
            self.free_count = top;
            if let Some(slot) = self.free.at(top).copied().or_count(Place::Index) {
                return slot;
            }
        }
        let slot = self.high;
        self.high += 1;
        self.entries.reach(slot);
        slot
    }

    /// Gives a slot back; once for each time it was taken.
    pub(super) fn give_back(&mut self, slot: u32) {
        debug_assert!(self.free_count < self.high && slot < self.high, "slot {slot} was not taken");
        *self.free.reached(self.free_count) = slot;
        self.free_count += 1;
    }

    #[inline]
    pub(super) fn at(&self, slot: u32) -> Option<&T> {
        self.entries.at(slot)
    }

    #[inline]
    pub(super) fn at_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.entries.at_mut(slot)
    }

    /// A slot that was taken, or may be: made if it is not there.
    pub(super) fn reached(&mut self, slot: u32) -> &mut T {
        self.entries.reached(slot)
    }

    /// How many slots are taken.
    pub(super) fn taken(&self) -> usize {
        (self.high - self.free_count) as usize
    }

    /// All taken slots lie below.
    pub(super) fn high(&self) -> u32 {
        self.high
    }
}
