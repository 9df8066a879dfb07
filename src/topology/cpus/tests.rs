#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;

fn check(cpus: &[usize], shards: Shards, expected: (&[usize], Option<usize>, Option<usize>)) {
    let plan = CpuPlan::over(cpus, shards);
    assert_eq!((plan.shards.as_slice(), plan.ledger, plan.store), expected, "{cpus:?} {shards:?}");
}

#[test]
fn shards_come_first_and_the_persistence_threads_get_what_is_left() {
    check(&[0], Shards::Auto, (&[0], None, None));
    check(&[0, 1], Shards::Auto, (&[0], Some(1), Some(1)));
    check(&[0, 1, 2], Shards::Auto, (&[0, 1], Some(2), Some(2)));
    check(&[0, 1, 2, 3], Shards::Auto, (&[0, 1], Some(2), Some(3)));
    check(&[4, 5, 6, 7, 8, 9, 10, 11], Shards::Auto, (&[4, 5, 6, 7, 8, 9], Some(10), Some(11)));
}

#[test]
fn more_shards_than_cpus_share_them_in_turn() {
    check(&[0, 1], Shards::Count(2), (&[0, 1], None, None));
    check(&[0, 1], Shards::Count(5), (&[0, 1, 0, 1, 0], None, None));
    check(&[3], Shards::Count(2), (&[3, 3], None, None));
}

#[test]
fn deliveries_say_nothing_to_a_store_that_has_a_cpu_of_its_own() {
    let own = |cpus: &[usize]| matches!(CpuPlan::over(cpus, Shards::Auto).store_yield(), StoreYield::OwnCpu);
    assert!(own(&[0, 1]) && own(&[0, 1, 2]) && own(&[0, 1, 2, 3]));
    assert!(!own(&[0]));
    assert!(!matches!(CpuPlan::over(&[0, 1], Shards::Count(2)).store_yield(), StoreYield::OwnCpu));
}
