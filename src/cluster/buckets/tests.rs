//! Which ledgers are whole, and what belongs where.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::*;

fn there(generation: &str, count: u64) -> There {
    let order = Some(Place { entry: 15, buckets: vec![5, 4, 6] });
    let generation = generation.to_owned();
    There {
        generation,
        count,
        floor: 0,
        since_s: 0,
        fresh_ms: 0,
        buckets: 3,
        order,
        highest: 0,
        is_confirmed: true,
        now_ms: 0,
        names_s: 900,
    }
}

fn check(counts: [u64; 3], generations: [&str; 3], expected: Extent) {
    let all: Vec<There> =
        std::iter::zip(generations, counts).map(|(generation, count)| there(generation, count)).collect();
    let (first, others) = all.split_first().unwrap();
    assert_eq!(extent_of(first, others, 3), expected, "{counts:?} {generations:?}");
}

#[test]
fn a_ledger_is_whole_if_every_bucket_is_of_its_generation_and_has_what_was_ordered_of_it() {
    check([5, 4, 6], ["1.a"; 3], Extent::Whole);
    check([9, 4, 7], ["1.a"; 3], Extent::Whole);
    for lost in 0..3 {
        let mut counts = [5, 4, 6];
        counts[lost] -= 1;
        check(counts, ["1.a"; 3], Extent::Part);
        let mut generations = ["1.a"; 3];
        for other in ["", "1.b", "2.a"] {
            generations[lost] = other;
            check([9, 9, 9], generations, Extent::Part);
        }
    }
}

#[test]
fn another_number_of_buckets_is_not_whole_and_one_bucket_needs_no_order() {
    let one = There { buckets: 1, order: None, ..there("1.a", 7) };
    assert_eq!(extent_of(&one, &[], 1), Extent::Whole);
    assert_eq!(extent_of(&one, &[there("1.a", 9)], 2), Extent::Part);
    assert_eq!(extent_of(&there("1.a", 9), &[], 1), Extent::Part);
    let unordered = There { order: None, ..there("1.a", 9) };
    assert_eq!(extent_of(&unordered, &[there("1.a", 9), there("1.a", 9)], 3), Extent::Part);
}

#[test]
fn every_group_lies_in_one_bucket() {
    let pairs: Vec<Vec<u8>> = (1..=500).flat_map(|group| [decimal(group), decimal(group + 7)]).collect();
    let parts: Vec<Vec<Vec<u8>>> = (0..3).map(|bucket| groups_of(&pairs, bucket, 3)).collect();
    assert_eq!(parts.iter().map(Vec::len).sum::<usize>(), pairs.len());
    for part in &parts {
        assert!(part.len() > pairs.len() / 6, "they spread");
        assert!(part.chunks(2).all(|pair| pairs.chunks(2).any(|known| known == pair)));
    }
}
