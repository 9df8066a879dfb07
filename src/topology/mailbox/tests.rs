#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Wake;

use super::*;
use crate::limits::COMMITS_IN_FLIGHT_MAX;

#[derive(Default)]
struct Count(AtomicU64);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_shard_that_is_awake_is_not_woken() {
    let (mailbox, slots) = mailbox(ShardId(0), 2);
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    mailbox.register(&waker);
    slots.orders.put(Order::Drain).unwrap();
    slots.orders.wake();
    slots.deliveries.put(Vec::new()).unwrap();
    slots.deliveries.wake();
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    mailbox.register(&waker);
    slots.answers.wake();
    assert_eq!(count.0.load(Ordering::Relaxed), 2);
}

#[test]
fn a_full_mailbox_hands_the_envelope_back() {
    let (mailbox, slots) = mailbox(ShardId(0), 1);
    for _ in 0..COMMITS_IN_FLIGHT_MAX {
        slots.deliveries.put(Vec::new()).unwrap();
    }
    assert!(slots.deliveries.put(Vec::with_capacity(7)).unwrap_err().capacity() >= 7);
    assert_eq!(mailbox.depths().commits, COMMITS_IN_FLIGHT_MAX as u64);
    assert!(mailbox.next(&mut 0).is_some());
    slots.deliveries.put(Vec::new()).unwrap();
}

#[test]
fn a_flood_of_one_kind_does_not_keep_the_others_out() {
    let (mailbox, slots) = mailbox(ShardId(1), 3);
    for _ in 0..COMMITS_IN_FLIGHT_MAX {
        slots.deliveries.put(Vec::new()).unwrap();
    }
    slots.orders.put(Order::Drain).unwrap();
    let mut turn = 0;
    let mut before = 0;
    while !matches!(mailbox.next(&mut turn), Some(Mail::Order(_))) {
        before += 1;
    }
    assert!(before <= 1, "{before} commits came before the order");
}

#[test]
fn lanes_stay_affordable_however_many_shards_there_are() {
    for shards in [1u16, 2, 8, 64, 256] {
        let envelopes = usize::from(shards) * lane_envelopes_max(shards);
        assert!(envelopes <= LANES_ENVELOPES_MAX.max(usize::from(shards) * LANE_ENVELOPES_MIN));
        assert!(lane_envelopes_max(shards) >= LANE_ENVELOPES_MIN);
    }
    assert_eq!(lane_envelopes_max(2), limits::LANE_ENVELOPES_MAX);
}
