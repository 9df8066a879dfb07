//! From an id to a slot, in four to nine bytes an entry: the key itself is read from the slot.
//!
//! Owned by a shard. What always holds: growing moves one segment of some hundreds of entries, never the whole; the
//! layout depends on the ids and the key alone, so runs repeat. Whoever makes a group chooses the ids of its members,
//! so the hash is keyed: with a public one, 100,000 chosen ids in one place take a shard eleven seconds.

use crate::contract::internal::{self, OrCount, Place};
use crate::contract::keyed::TableKey;

/// Segments, each with its own table: half a million entries are 500 in each.
const SEGMENTS: usize = 1_024;
/// The smallest table.
const TABLE_MIN: usize = 8;
/// An empty place.
const NIL: u32 = u32::MAX;

/// Slots found by a 64-bit id.
#[derive(Debug)]
pub(super) struct Index {
    key: TableKey,
    segments: Vec<Segment>,
}

#[derive(Clone, Default, Debug)]
struct Segment {
    /// A power of two, or nothing.
    table: Box<[u32]>,
    count: u32,
}

impl Index {
    pub(super) fn new(key: TableKey) -> Self {
        Index { key, segments: vec![Segment::default(); SEGMENTS] }
    }

    /// The slot of `id`, where `id_of` tells a slot's id.
    pub(super) fn find(&self, id: u64, id_of: impl Fn(u32) -> u64) -> Option<u32> {
        let hash = self.key.hash(id);
        let segment = &self.segments[hash as usize % SEGMENTS];
        let mask = segment.table.len().checked_sub(1)?;
        let mut place = (hash >> 32) as usize & mask;
        loop {
            match segment.table.get(place) {
                None | Some(&NIL) => return None,
                Some(&slot) if id_of(slot) == id => return Some(slot),
                Some(_) => place = (place + 1) & mask,
            }
        }
    }

    /// Adds an id that is not in yet.
    pub(super) fn insert(&mut self, id: u64, slot: u32, id_of: impl Fn(u32) -> u64) {
        debug_assert!(self.find(id, &id_of).is_none(), "{id} is in already");
        let hash = self.key.hash(id);
        let segment = &mut self.segments[hash as usize % SEGMENTS];
        if (segment.count as usize + 1) * 8 > segment.table.len() * 7 {
            let grown = vec![NIL; (segment.table.len() * 2).max(TABLE_MIN)].into_boxed_slice();
            let old = std::mem::replace(&mut segment.table, grown);
            for slot in old.iter().copied().filter(|slot| *slot != NIL) {
                segment.put(self.key.hash(id_of(slot)), slot);
            }
        }
        segment.put(hash, slot);
        segment.count += 1;
    }

    /// Takes `id` out.
    pub(super) fn remove(&mut self, id: u64, id_of: impl Fn(u32) -> u64) {
        let hash = self.key.hash(id);
        let segment = &mut self.segments[hash as usize % SEGMENTS];
        let Some(mask) = segment.table.len().checked_sub(1).or_count(Place::Index) else { return };
        let table = &mut segment.table;
        let mut hole = (hash >> 32) as usize & mask;
        while table[hole] != NIL && id_of(table[hole]) != id {
            hole = (hole + 1) & mask;
        }
        if table[hole] == NIL {
            internal::count(Place::Index);
            return;
        }
        // What follows moves up if its own place is not behind the hole, so that no search stops early.
        let mut next = (hole + 1) & mask;
        while table[next] != NIL {
            let home = (self.key.hash(id_of(table[next])) >> 32) as usize & mask;
            if (next.wrapping_sub(home) & mask) >= (next.wrapping_sub(hole) & mask) {
                table[hole] = table[next];
                hole = next;
            }
            next = (next + 1) & mask;
        }
        table[hole] = NIL;
        segment.count -= 1;
        if segment.count == 0 {
            segment.table = Box::default();
        }
    }
}

impl Segment {
    fn put(&mut self, hash: u64, slot: u32) {
        let mask = self.table.len() - 1;
        let mut place = (hash >> 32) as usize & mask;
        while self.table[place] != NIL {
            place = (place + 1) & mask;
        }
        self.table[place] = slot;
    }
}

#[cfg(test)]
mod tests;
