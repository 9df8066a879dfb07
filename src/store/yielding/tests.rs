#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;

fn waited_us(what: impl FnOnce()) -> u64 {
    let began_us = Clock::of_host().mono_us();
    what();
    Clock::of_host().mono_us() - began_us
}

fn shared() -> (StoreYield, Arc<YieldUntil>) {
    let until = Arc::new(YieldUntil::default());
    (StoreYield::SharedCpu(Arc::clone(&until)), until)
}

/// Deliveries that never end.
fn endless() -> Arc<YieldUntil> {
    let until = YieldUntil::default();
    until.step_us.store(u64::MAX, Ordering::Relaxed);
    Arc::new(until)
}

#[test]
fn the_store_yields_until_the_deliveries_are_through() {
    let (notice, until) = shared();
    begin(Arc::clone(&until));
    notice.commit_begins();
    let until_us = until.us();
    yield_to_deliveries();
    assert!(Clock::of_host().mono_us() >= until_us);
}

#[test]
fn a_commit_that_lands_is_not_waited_for() {
    let (notice, until) = shared();
    notice.commit_begins();
    let until_us = until.us();
    notice.commit_lands();
    assert!(until.us() < until_us + STEP_US, "only the step to the shards is left");
    assert_eq!(until.commit_us.load(Ordering::Relaxed), 0);
}

#[test]
fn deliveries_that_never_end_leave_the_store_a_slice() {
    begin(endless());
    let waited = waited_us(yield_to_deliveries);
    assert!((WAIT_US_MAX..10_000_000).contains(&waited), "{waited} us");
    let slice = YIELDER.with_borrow(|yielder| yielder.as_ref().map(|yielder| yielder.slice_until_us));
    assert!(slice > Some(0), "a slice without waiting follows");
}

#[test]
fn a_store_that_claims_its_share_does_not_wait() {
    begin(endless());
    set(Yielding::Off);
    assert!(waited_us(yield_to_deliveries) < WAIT_US_MAX);
}
