//! A hash map in many parts, so that growing it is many short pauses instead of a long one.
//!
//! Owned by whoever holds it. What always holds: a key's part depends on the seed and the key alone. It leaves
//! out all that the ledger does not need.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

use crate::contract::keyed::TableKey;

/// A million entries then rehash some 16,000 at a time.
const PARTS: usize = 64;

/// The map.
#[derive(Clone, Debug)]
pub(crate) struct PartedMap<K, V> {
    parts: Box<[HashMap<K, V, TableKey>]>,
    choice: TableKey,
}

impl<K: Hash + Eq, V> PartedMap<K, V> {
    /// An empty map that hashes with this seed.
    pub(crate) fn new(seed: u64) -> Self {
        let part = || HashMap::with_hasher(TableKey::new(seed));
        let parts = std::iter::repeat_with(part).take(PARTS).collect();
        PartedMap { parts, choice: TableKey::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 1) }
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.parts[self.part(key)].get(key)
    }

    /// Puts a value; returns the one it replaces.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let part = self.part(&key);
        self.parts[part].insert(key, value)
    }

    /// Takes a value out.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let part = self.part(key);
        self.parts[part].remove(key)
    }

    fn part(&self, key: &K) -> usize {
        self.choice.hash_one(key) as usize % PARTS
    }
}
