//! Entries and their order, in whatever sequence they are read: every node hands out the same.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::*;

const BUCKETS: usize = 3;

/// What Redis has: each bucket's entries are its number and theirs, and an order of them.
struct Ledger {
    base: u64,
    streams: Vec<u64>,
    taken: Place,
    orders: Vec<(u64, String)>,
    /// Bucket and entry, in the ledger's order.
    all: Vec<(usize, u64)>,
}

impl Ledger {
    fn new(base: u64) -> Ledger {
        let taken = Place { entry: base, buckets: vec![base; BUCKETS] };
        Ledger { base, streams: vec![base; BUCKETS], taken, orders: Vec::new(), all: Vec::new() }
    }

    fn append(&mut self, bucket: usize, count: u64) {
        self.streams[bucket] += count;
    }

    /// As `order.lua` does it.
    fn order(&mut self, bucket: usize, newest: u64) {
        let taken = self.taken.buckets[bucket];
        if newest <= taken {
            return;
        }
        let before = self.taken.buckets.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
        self.taken.entry += newest - taken;
        self.taken.buckets[bucket] = newest;
        self.orders.push((self.taken.entry, format!("{bucket} {newest} {before}")));
        self.all.extend((taken + 1..=newest).map(|entry| (bucket, entry)));
    }

    /// One of a random history.
    fn random(random: &mut fastrand::Rng, base: u64) -> Ledger {
        let mut ledger = Ledger::new(base);
        for _ in 0..random.usize(1..60) {
            let bucket = random.usize(..BUCKETS);
            ledger.append(bucket, random.u64(..4));
            if random.bool() {
                let bucket = random.usize(..BUCKETS);
                // A node may know less than there is.
                let newest = ledger.streams[bucket] - random.u64(..2).min(ledger.streams[bucket] - base);
                ledger.order(bucket, newest);
            }
        }
        ledger
    }

    /// The place behind so many entries of the ledger.
    fn place(&self, behind: usize) -> Place {
        let mut place = Place { entry: self.base + behind as u64, buckets: vec![self.base; BUCKETS] };
        self.all[..behind].iter().for_each(|(bucket, entry)| place.buckets[*bucket] = *entry);
        place
    }
}

fn arrival(bucket: usize, entry: u64) -> Arrival {
    Arrival { count: entry, entry: format!("{bucket} {entry}").into_bytes() }
}

/// Reads a ledger from a place on, in a random sequence of reads, and returns what comes out.
fn follow(ledger: &Ledger, from: Place, random: &mut fastrand::Rng) -> (Merge, Vec<(u64, String)>) {
    let mut merge = Merge::begin(from);
    let mut out = Vec::new();
    for _ in 0..10_000 {
        match random.usize(..BUCKETS + 1) {
            BUCKETS => {
                let Some(after) = merge.wants_order() else { continue };
                let next = ledger.orders.iter().filter(|(end, _)| *end > after).take(random.usize(..3));
                for (end, text) in next {
                    merge.ordered(OrderEntry::parse(*end, text.as_bytes(), BUCKETS).unwrap());
                }
            }
            bucket => {
                let Some(after) = merge.wants(bucket) else { continue };
                let last = ledger.streams[bucket].min(after + random.u64(..3));
                merge.read(bucket, (after + 1..=last).map(|entry| arrival(bucket, entry)).collect());
            }
        }
        let taken = merge.take(random.usize(1..4));
        out.extend(taken.into_iter().map(|arrival| (arrival.count, String::from_utf8(arrival.entry).unwrap())));
        if merge.given() == ledger.taken.entry {
            break;
        }
    }
    (merge, out)
}

#[test]
fn in_whatever_sequence_streams_and_order_are_read_everybody_hands_out_the_same() {
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..400 {
        let ledger = Ledger::random(&mut random, round << 40);
        let expected: Vec<(u64, String)> = std::iter::zip(ledger.base + 1.., &ledger.all)
            .map(|(number, (bucket, entry))| (number, format!("{bucket} {entry}")))
            .collect();
        for _ in 0..3 {
            let behind = random.usize(..=ledger.all.len());
            let (merge, out) = follow(&ledger, ledger.place(behind), &mut random);
            assert_eq!(out, expected[behind..], "round {round} behind {behind}");
            // And every entry that was handed out is found again by its number in its bucket.
            for (number, (bucket, entry)) in std::iter::zip(ledger.base + 1.., &ledger.all) {
                let known = (number > ledger.base + behind as u64).then_some(number);
                assert_eq!(merge.entry_of(*bucket, *entry), known);
                assert!(merge.has_given(*bucket, *entry));
            }
        }
    }
}

#[test]
fn what_is_not_ordered_waits_and_is_told_until_somebody_orders_it() {
    let mut merge = Merge::begin(Place { entry: 10, buckets: vec![4, 6, 0] });
    merge.read(1, vec![arrival(1, 7), arrival(1, 8)]);
    assert!(merge.take(9).is_empty());
    assert_eq!([merge.unordered(0), merge.unordered(1)], [None, Some(8)]);
    assert!(!merge.has_given(1, 7));
    // Another node has ordered one of them, and both a moment later.
    merge.ordered(OrderEntry::parse(11, b"1 7 4 6 0", BUCKETS).unwrap());
    assert_eq!(merge.unordered(1), Some(8));
    merge.knows_ordered(1, 8);
    assert_eq!(merge.unordered(1), None);
    assert_eq!(merge.take(9).iter().map(|arrival| arrival.count).collect::<Vec<_>>(), [11]);
    assert!(merge.has_given(1, 7) && !merge.has_given(1, 8));
}

#[test]
fn where_the_order_or_a_bucket_was_cut_off_a_number_is_left_out() {
    // The order begins behind this node's place.
    let mut merge = Merge::begin(Place { entry: 10, buckets: vec![4, 6, 0] });
    merge.ordered(OrderEntry::parse(15, b"0 7 6 6 2", BUCKETS).unwrap());
    merge.read(0, (5..=7).map(|entry| arrival(0, entry)).collect());
    assert_eq!(merge.take(9).iter().map(|arrival| arrival.count).collect::<Vec<_>>(), [15]);
    // A bucket's stream does.
    let mut merge = Merge::begin(Place { entry: 10, buckets: vec![4, 6, 0] });
    merge.ordered(OrderEntry::parse(13, b"0 7 4 6 0", BUCKETS).unwrap());
    merge.read(0, vec![arrival(0, 7)]);
    assert_eq!(merge.take(9).iter().map(|arrival| arrival.count).collect::<Vec<_>>(), [13]);
}

#[test]
fn no_more_than_the_limit_waits_and_what_is_needed_next_can_always_be_read() {
    let mut ledger = Ledger::new(0);
    let many = 3 * MERGE_ENTRIES_MAX as u64;
    (0..BUCKETS).for_each(|bucket| ledger.append(bucket, many));
    // The first of them comes last.
    for bucket in [2, 1, 0] {
        ledger.order(bucket, many);
    }
    let mut merge = Merge::begin(ledger.place(0));
    let read = |merge: &mut Merge, bucket: usize| {
        let Some(after) = merge.wants(bucket) else { return };
        let last = many.min(after + STREAM_READ_MAX as u64);
        merge.read(bucket, (after + 1..=last).map(|entry| arrival(bucket, entry)).collect());
    };
    for _ in 0..1_000 {
        read(&mut merge, 0);
        read(&mut merge, 1);
    }
    assert!(merge.buckets.iter().all(|bucket| bucket.waiting.len() <= MERGE_ENTRIES_MAX));
    assert!(merge.take(9).is_empty());
    for (end, text) in &ledger.orders {
        merge.ordered(OrderEntry::parse(*end, text.as_bytes(), BUCKETS).unwrap());
    }
    let mut given = 0;
    for _ in 0..10_000 {
        (0..BUCKETS).for_each(|bucket| read(&mut merge, bucket));
        for arrival in merge.take(64) {
            given += 1;
            assert_eq!(arrival.count, given);
        }
    }
    assert_eq!(given, 3 * many);
}

#[test]
fn an_order_entry_that_makes_no_sense_is_none() {
    for text in ["", "0", "0 7", "0 7 1 2", "3 7 1 2 3", "0 7 1 2 3 4", "0 0 1 2 3", "x 7 1 2 3", "0 7 1 -2 3"] {
        assert_eq!(OrderEntry::parse(100, text.as_bytes(), BUCKETS), None, "{text:?}");
    }
    assert_eq!(OrderEntry::parse(5, b"0 7 1 2 3", BUCKETS), None, "more entries than numbers");
    assert_eq!(Place::parse("9 1 2 3", BUCKETS), Some(Place { entry: 9, buckets: vec![1, 2, 3] }));
    assert_eq!(Place::parse("9 1 2", BUCKETS), None);
}
