#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;

impl Spent {
    fn take(&mut self, now_ms: u64, rate: &Rate, units: u64) -> Result<(), u32> {
        *self = self.with(now_ms, rate, units)?;
        Ok(())
    }
}

/// What comes of taking so many units at these moments.
fn check(rate: Rate, taken: &[(u64, u64, Result<(), u32>)]) {
    let mut spent = Spent::default();
    for (now_ms, units, expected) in taken {
        assert_eq!(spent.take(*now_ms, &rate, *units), *expected, "{units} at {now_ms} ms: {rate:?}");
    }
}

#[test]
fn a_burst_is_granted_at_once_and_then_what_has_been_earned() {
    check(
        Rate::new(10, 3),
        &[(5, 1, Ok(())), (5, 2, Ok(())), (5, 1, Err(100)), (50, 1, Err(55)), (105, 1, Ok(())), (105, 1, Err(100))],
    );
    // Who has taken nothing for long has no more than a burst.
    check(Rate::new(10, 3), &[(0, 3, Ok(())), (1_000_000, 3, Ok(())), (1_000_000, 1, Err(100))]);
    // Nothing costs nothing, even of one who owes all he may.
    check(Rate::new(10, 3), &[(0, 3, Ok(())), (0, 0, Ok(()))]);
}

#[test]
fn what_is_refused_is_granted_after_the_time_that_was_told_and_not_before() {
    check(Rate::new(3, 2), &[(7, 2, Ok(())), (7, 1, Err(334)), (340, 1, Err(1)), (341, 1, Ok(()))]);
    check(Rate::new(50_000, 1_000_000), &[(0, 1_000_000, Ok(())), (0, 5_000, Err(100)), (100, 5_000, Ok(()))]);
}

#[test]
fn what_is_more_than_a_burst_is_never_granted_and_costs_nothing() {
    check(Rate::new(10, 3), &[(0, 4, Err(100)), (100, 4, Err(100)), (100, 3, Ok(()))]);
    check(Rate::new(1, 1), &[(0, u64::MAX, Err(u32::MAX)), (u64::MAX, 1, Ok(()))]);
}

#[test]
fn what_is_not_limited_is_never_refused() {
    for rate in [Rate::UNLIMITED, Rate::new(0, 5), Rate::new(5, 0)] {
        check(rate, &[(0, u64::MAX, Ok(())), (0, u64::MAX, Ok(()))]);
        assert_eq!(rate, Rate::UNLIMITED);
    }
}

#[test]
fn a_rate_can_be_replaced_and_who_owes_more_than_the_new_one_knows_begins_anew() {
    let (slow, fast) = (Rate::new(1, 1_000), Rate::new(1_000, 10));
    let mut spent = Spent::default();
    spent.take(0, &slow, 1_000).unwrap();
    assert_eq!(spent.take(0, &slow, 1), Err(1_000));
    assert_eq!(spent.take(0, &fast, 10), Ok(()));
    assert_eq!(spent.take(0, &fast, 1), Err(1));
    // What is less is owed on.
    assert_eq!(spent.take(0, &Rate::new(1_000, 100), 91), Err(1));
    assert_eq!(spent.take(0, &Rate::UNLIMITED, 1_000_000), Ok(()));
}

#[test]
fn over_any_time_no_more_is_granted_than_a_burst_and_what_was_earned_and_no_less_to_who_keeps_to_it() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (per_s, burst) = (random.u32(1..=2_000_000), random.u32(1..=1_000_000));
        let rate = Rate::new(per_s, burst);
        let (mut greedy, mut now_ms) = (Spent::default(), random.u64(..1_000_000));
        let mut granted: Vec<(u64, u64)> = Vec::new();
        for _ in 0..300 {
            now_ms += if random.bool() { 0 } else { random.u64(..200) };
            let units = random.u64(1..=u64::from(burst));
            match greedy.take(now_ms, &rate, units) {
                Ok(()) => granted.push((now_ms, units)),
                Err(wait_ms) => {
                    let (mut sooner, mut later) = (greedy, greedy);
                    assert!(sooner.take(now_ms + u64::from(wait_ms) - 1, &rate, units).is_err(), "seed {seed}");
                    assert!(later.take(now_ms + u64::from(wait_ms), &rate, units).is_ok(), "seed {seed}");
                }
            }
        }
        for (first, (from_ms, _)) in granted.iter().enumerate() {
            let mut sum = 0;
            for (at_ms, units) in &granted[first..] {
                sum += units;
                let earned = (at_ms - from_ms) as f64 / 1_000.0 * f64::from(per_s);
                assert!(sum as f64 <= earned * 1.001 + f64::from(burst), "seed {seed}: {sum} since {from_ms}");
            }
        }
    }
}

#[test]
fn who_keeps_to_the_rate_is_never_refused() {
    for (per_s, burst) in [(1, 1), (7, 1), (1_000, 1), (1_000, 50), (50_000, 5_000), (1_000_000, 1_000)] {
        let rate = Rate::new(per_s, burst);
        let mut spent = Spent::default();
        // So many milliseconds for what can be earned in them, as whole units.
        let step_ms = 1_000u64.div_ceil(u64::from(per_s)).max(1);
        let units = (step_ms * u64::from(per_s) / 1_000).min(u64::from(burst));
        for step in 0..10_000 {
            assert_eq!(spent.take(step * step_ms, &rate, units), Ok(()), "step {step}: {rate:?}");
        }
    }
}
