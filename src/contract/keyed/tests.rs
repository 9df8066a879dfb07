use std::collections::HashSet;

use super::*;

/// Of `hashes`, how many share their lowest `bits` with another one that came before.
fn met(hashes: impl Iterator<Item = u64>, bits: u32) -> usize {
    let mut places = HashSet::new();
    hashes.filter(|hash| !places.insert(hash & ((1 << bits) - 1))).count()
}

/// Values that differ in `width` bits from `at` on: what meets wherever a hash shifts bits out or lets them cancel.
fn check(at: u32, width: u32) {
    let count = 1u64 << width;
    for seed in 0..16 {
        let key = TableKey::new(seed);
        let met = met((0..count).map(|value| key.hash(value << at)), 2 * width);
        // Of n values in n² places half a pair meets.
        assert!(met <= 8, "{met} of {count} values meet that differ in bits {at}.. (seed {seed})");
        let met = self::met((0..count).map(|value| key.hash_one(value << at)), 2 * width);
        assert!(met <= 8, "{met} of {count} words meet that differ in bits {at}.. (seed {seed})");
    }
}

#[test]
fn values_that_differ_in_few_bits_do_not_meet_whichever_bits_these_are() {
    (0..=52).for_each(|at| check(at, 12));
}

#[test]
fn processes_have_different_keys_and_a_key_hashes_the_same_again() {
    assert_ne!(TableKey::new(1).hash(7), TableKey::new(2).hash(7));
    assert_ne!(TableKey::new(1).derived(1).hash(7), TableKey::new(1).derived(2).hash(7));
    assert_eq!(TableKey::new(1).hash(7), TableKey::new(1).hash(7));
    assert_eq!(TableKey::of_process().hash(7), TableKey::of_process().hash(7));
}

#[test]
fn every_byte_counts() {
    let key = TableKey::new(1);
    let hashes = (0..24).flat_map(|at| (1..=u8::MAX).map(move |byte| (at, byte))).map(|(at, byte)| {
        let mut bytes = [0u8; 24];
        bytes[at] = byte;
        key.hash_one(bytes)
    });
    assert_eq!(met(hashes, 64 - 1), 0);
}
