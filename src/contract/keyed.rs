//! The key of hash tables that a peer can choose the entries of.
//!
//! Ids come from tokens, but also from frames: who is to be in a group is for its maker to say, any number of 64 bits.
//! In a table whose hash is known, such numbers can be chosen to meet in one place, and every look-up walks over all of
//! them. Every such table is therefore keyed. What always holds: the key is one of the process, from the kernel (of a
//! simulated gateway: from its seed), it is never sent anywhere, and the same key and value give the same hash. What
//! nodes compare with each other, or keep on disk, must not be hashed with it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;

use crate::contract::ids::mixed;

/// Two rounds of a multiplication folded to half its width. In both the multiplier is secret, and what goes into the
/// first is hidden by a secret word: without them nobody can say of two values that they meet. (With public multipliers
/// and only the word secret, as in foldhash's `FixedState`, differences can be chosen that vanish whatever the word.)
#[derive(Clone, Copy)]
pub struct TableKey {
    word: u64,
    multipliers: [u64; 2],
}

impl TableKey {
    /// Made from this seed, which is not to be guessed from outside.
    pub const fn new(seed: u64) -> TableKey {
        let word = mixed(seed);
        let first = mixed(word ^ seed);
        TableKey { word, multipliers: [first | 1, mixed(first ^ seed) | 1] }
    }

    /// The process's own.
    pub(crate) fn of_process() -> TableKey {
        static KEY: OnceLock<TableKey> = OnceLock::new();
        *KEY.get_or_init(|| TableKey::new(unguessable()))
    }

    /// Another one, for another purpose.
    pub(crate) const fn derived(self, purpose: u64) -> TableKey {
        TableKey::new(self.word ^ mixed(purpose))
    }

    /// Spreads an id over 64 bits.
    #[inline]
    pub(crate) fn hash(&self, id: u64) -> u64 {
        folded(folded(self.word ^ id, self.multipliers[0]), self.multipliers[1])
    }
}

impl std::fmt::Debug for TableKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TableKey")
    }
}

impl Default for TableKey {
    fn default() -> Self {
        TableKey::of_process()
    }
}

impl BuildHasher for TableKey {
    type Hasher = KeyedHasher;

    #[inline]
    fn build_hasher(&self) -> KeyedHasher {
        KeyedHasher { state: self.word, multipliers: self.multipliers }
    }
}

/// One value being hashed: a round for each of its words, and one more.
#[derive(Clone, Copy)]
pub struct KeyedHasher {
    state: u64,
    multipliers: [u64; 2],
}

impl std::fmt::Debug for KeyedHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyedHasher")
    }
}

impl Hasher for KeyedHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.write_u64(u64::from_le_bytes(*word)));
        if !rest.is_empty() {
            let mut last = [0; 8];
            last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            self.write_u64(u64::from_le_bytes(last));
        }
    }

    #[inline]
    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    #[inline]
    fn write_u16(&mut self, number: u16) {
        self.write_u64(number.into());
    }

    #[inline]
    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        self.state = folded(self.state ^ number, self.multipliers[0]);
    }

    #[inline]
    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        folded(self.state, self.multipliers[1])
    }
}

#[inline]
const fn folded(one: u64, other: u64) -> u64 {
    let product = one as u128 * other as u128;
    product as u64 ^ (product >> 64) as u64
}

/// A number that nobody outside can guess (std keys its hasher from the kernel).
pub(crate) fn unguessable() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests;
