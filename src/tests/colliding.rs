//! Ids that meet in one place of a table that spreads them with SplitMix64's finalizer, which anybody can invert.

/// So many, all different, whose hashes differ in their highest 17 bits alone.
pub(crate) fn colliding_ids(count: u64) -> Vec<u64> {
    assert!(count < 1 << 17);
    (1..=count).map(|number| inverted(number << 47)).collect()
}

/// The number that is spread to `hash`.
pub(crate) fn inverted(hash: u64) -> u64 {
    let z = hash ^ (hash >> 31) ^ (hash >> 62);
    let z = z.wrapping_mul(0x3196_42B2_D24D_8EC3);
    let z = z ^ (z >> 27) ^ (z >> 54);
    let z = z.wrapping_mul(0x96DE_1B17_3F11_9089);
    let z = z ^ (z >> 30) ^ (z >> 60);
    z.wrapping_sub(0x9E37_79B9_7F4A_7C15)
}
