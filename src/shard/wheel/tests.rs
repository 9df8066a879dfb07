#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// How many of the first so many ids are armed.
fn armed(wheel: &Wheel, ids: u32) -> usize {
    (0..ids).filter(|id| wheel.deadline(*id).is_some()).count()
}

#[test]
fn a_wheel_agrees_with_a_sorted_map_whatever_is_armed_cancelled_and_advanced() {
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut wheel = Wheel::default();
        let mut model: BTreeMap<u32, u32> = BTreeMap::new();
        let mut now = 0;
        for _ in 0..5_000 {
            let id = random.u32(0..500);
            match random.u32(0..10) {
                0..5 => {
                    let deadline = now + random.u32(0..3 * SLOTS as u32);
                    wheel.arm(id, deadline);
                    model.insert(id, deadline.max(now + 1));
                }
                5..7 => {
                    wheel.cancel(id);
                    model.remove(&id);
                }
                _ => {
                    now += if random.u32(0..50) == 0 { random.u32(0..20_000) } else { random.u32(0..64) };
                    let mut due = Vec::new();
                    wheel.advance(now, &mut due);
                    let expected: BTreeSet<u32> =
                        model.iter().filter(|(_, deadline)| **deadline <= now).map(|(id, _)| *id).collect();
                    model.retain(|_, deadline| *deadline > now);
                    assert_eq!(due.len(), expected.len(), "each timer comes out once");
                    assert_eq!(due.into_iter().collect::<BTreeSet<_>>(), expected);
                }
            }
            assert_eq!(wheel.deadline(id), model.get(&id).copied());
            assert_eq!(armed(&wheel, 500), model.len());
        }
    }
}

#[test]
fn very_many_timers_at_once_come_out_over_several_advances_and_none_is_lost() {
    let mut wheel = Wheel::default();
    for id in 0..20_000 {
        wheel.arm(id, 10 + id % 7);
    }
    let mut all = BTreeSet::new();
    let mut advances = 0;
    while armed(&wheel, 20_000) > 0 {
        let mut due = Vec::new();
        wheel.advance(20, &mut due);
        all.extend(due);
        advances += 1;
    }
    assert_eq!(all.len(), 20_000);
    assert!(advances > 1, "one advance would have stopped everything else for long");
}

#[test]
fn a_timer_armed_for_the_past_is_due_at_the_next_tick() {
    let mut wheel = Wheel::default();
    wheel.advance(100, &mut Vec::new());
    wheel.arm(3, 50);
    let mut due = Vec::new();
    wheel.advance(101, &mut due);
    assert_eq!(due, [3]);
}
