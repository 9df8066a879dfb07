//! Another process's lease, met again and again.

use super::*;

/// Meets a lease that was renewed so often each time; after how many milliseconds it is said to be of one that lives.
fn lives_after(renewed: impl Fn(u64) -> Option<u64>) -> Option<u64> {
    let mut lease = OthersLease::default();
    (0..100).map(|at| at * LOOK_MS).find(|ms| lease.meet(renewed(*ms)) == Verdict::Lives)
}

#[test]
fn a_lease_that_is_renewed_every_second_is_of_a_process_that_lives() {
    assert_eq!(lives_after(|ms| Some(40 + ms / 1_000)), Some(PATIENCE_MS));
    // A busy machine.
    assert_eq!(lives_after(|ms| Some(40 + ms / 3_000)), Some(12_000));
    // One whose lease ended meanwhile, and that took another.
    assert_eq!(lives_after(|ms| Some(if ms < 3_000 { 90 } else { ms / 1_000 - 2 })), Some(PATIENCE_MS));
}

#[test]
fn some_heartbeats_that_come_late_are_not_taken_for_a_process_that_lives() {
    assert_eq!(lives_after(|_| Some(40)), None);
    assert_eq!(lives_after(|ms| Some(40 + (ms / 2_500).min(3))), None);
}

#[test]
fn a_lease_of_which_that_cannot_be_told_is_waited_for_as_long_as_one_lasts() {
    assert_eq!(lives_after(|_| None), Some(PATIENCE_MS));
}
