#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;
use crate::soak::orders::Buckets;

const MS: u64 = 1_000_000;

/// A beat of a process that delivers 1,000 a second, this long after the one before.
fn beat(delivered: &mut u64, wall_ms: u64) -> Beat {
    *delivered += wall_ms;
    let totals = Totals { delivered: *delivered, ..Totals::default() };
    Beat { totals, effort: Effort { wall_ns: wall_ms * MS, ..Effort::default() }, ..Beat::default() }
}

#[test]
fn a_second_with_three_beats_of_half_a_second_shows_no_peak_and_one_without_shows_none() {
    let mut figures = Figures::new(1, 0, 60);
    let mut delivered = 0;
    figures.enter(Phase::Steady, 0);
    for beats in [2, 3, 1, 0, 2] {
        (0..beats).for_each(|_| figures.beat(0, beat(&mut delivered, 500)));
        figures.pass(figures.second_ns + 1_000 * MS);
    }
    let rates: Vec<_> = figures.seconds.iter().map(|second| second.deliveries_per_s).collect();
    // Of the first two one began before the phase did.
    assert_eq!(rates, [Some(1_000.0), Some(1_000.0), Some(1_000.0), None, Some(1_000.0)]);
}

#[test]
fn a_beat_that_is_half_of_one_phase_and_half_of_another_is_no_drop() {
    let mut figures = Figures::new(1, 0, 60);
    figures.enter(Phase::Steady, 0);
    let half = |at: u64| Beat {
        totals: Totals { delivered: at * 500, ..Totals::default() },
        effort: Effort { wall_ns: 1_000 * MS, ..Effort::default() },
        ..Beat::default()
    };
    figures.beat(0, half(1));
    figures.pass(1_000 * MS);
    figures.phase_ends();
    figures.beat(0, half(2));
    figures.pass(2_000 * MS);
    assert_eq!(figures.seconds.iter().map(|second| second.deliveries_per_s).collect::<Vec<_>>(), [None, None]);
}

#[test]
fn the_short_end_of_a_phase_is_no_interval_of_its_own() {
    let mut figures = Figures::new(1, 0, 60);
    figures.enter(Phase::Steady, 0);
    let with = |value: u64, count: u64| Beat { delivery: Buckets(vec![(value, count)]), ..Beat::default() };
    figures.beat(0, with(5_000, 100));
    figures.pass(10_000 * MS);
    figures.beat(0, with(9_000, 1));
    figures.enter(Phase::Quiesce, 10_100 * MS);
    let [only] = figures.intervals.as_slice() else { panic!("{:?}", figures.intervals) };
    assert_eq!((only.from_s, only.to_s, only.delivery.count), (0.0, 10.1, 101));
    assert_eq!(figures.steady_latencies()[0].count, 101);
    // One that is long enough, or of another phase, stands by itself.
    figures.beat(0, with(5_000, 1));
    figures.enter(Phase::Leave, 10_200 * MS);
    assert_eq!(figures.intervals.len(), 2);
}
