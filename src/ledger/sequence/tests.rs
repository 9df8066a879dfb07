#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;

const TIME: u64 = 1_800_000_000_000;

#[test]
fn ids_rise_whatever_the_clock_does() {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut ids = MsgIdSource::new(3, MsgId(0));
    let mut last = MsgId(0);
    for _ in 0..100_000 {
        let id = ids.next((TIME + rng.u64(..1_000)).saturating_sub(rng.u64(..2) * TIME));
        assert!(id > last);
        assert_eq!((id.0 >> NODE_SHIFT) & u64::from(NODE_MAX), 3);
        last = id;
    }
}

#[test]
fn a_millisecond_that_is_used_up_borrows_from_the_next() {
    let mut ids = MsgIdSource::new(0, MsgId(0));
    let made: Vec<MsgId> = (0..4_097).map(|_| ids.next(TIME)).collect();
    assert!(made[..4_096].iter().all(|id| id.sent_at_ms() == TIME));
    assert_eq!(made[4_096].sent_at_ms(), TIME + 1);
    assert_eq!(ids.time_ms(TIME), TIME + 1);
}

#[test]
fn ids_stay_above_another_nodes_of_the_same_millisecond() {
    let mut other = MsgIdSource::new(9, MsgId(0));
    let high = other.next(TIME);
    for node in [0, 9, 1023] {
        let mut ids = MsgIdSource::new(node, high);
        let next = ids.next(TIME);
        assert!(next > high, "{node}");
        assert!(ids.next(TIME) > next);
    }
}

#[test]
fn ids_do_not_start_below_the_last_one_known() {
    let mut ids = MsgIdSource::new(0, MsgId(0));
    let last = ids.next(TIME + 60_000);
    let mut again = MsgIdSource::new(0, last);
    assert!(again.next(TIME) > last);
    assert_eq!(again.time_ms(TIME), TIME + 60_000);
}

#[test]
fn the_ledgers_time_is_not_further_ahead_of_the_hosts_than_the_limit_whatever_messages_are_dated() {
    let mut ids = MsgIdSource::new(0, MsgId(0));
    let last = ids.next(TIME + 3_600_000);
    assert_eq!(ids.time_ms(TIME), TIME + LEDGER_AHEAD_MAX_MS);
    // Ids rise all the same, also when their time is over.
    assert!(ids.next(TIME) > last);
    let (one, two) = (ids.next(u64::MAX), ids.next(TIME));
    assert!(one > last && two > one);
}

#[test]
fn a_row_taken_back_is_given_again_and_a_higher_one_known_is_not() {
    let mut sequences = Sequences::new(1);
    let slot = sequences.assign(UserId(5)).unwrap();
    assert_eq!((sequences.next(slot), sequences.next(slot)), (Seq(1), Seq(2)));
    sequences.take_back(slot);
    assert_eq!(sequences.next(slot), Seq(2));
    sequences.raise(slot, Seq(9));
    sequences.raise(slot, Seq(4));
    assert_eq!((sequences.next(slot), sequences.newest(UserId(5))), (Seq(10), Seq(10)));
    assert_eq!(sequences.newest(UserId(6)), Seq(0));
    assert_eq!(sequences.assign(UserId(5)), Some(slot));
    assert_eq!(sequences.users(), 1);
}

#[test]
fn slots_are_dense_and_found_again() {
    let mut sequences = Sequences::new(1);
    for user in 0..10_000 {
        assert_eq!(sequences.assign(UserId(user << 32)), Some(LedgerSlot(user as u32)));
    }
    assert!((0..10_000).all(|user| sequences.slot(UserId(user << 32)) == Some(LedgerSlot(user as u32))));
}

#[test]
#[should_panic(expected = "slot 3 was never assigned")]
fn a_slot_that_was_never_assigned_gets_no_number() {
    Sequences::new(1).next(LedgerSlot(3));
}

#[test]
#[should_panic(expected = "a number is taken back that was never given")]
fn a_number_that_was_never_given_is_not_taken_back() {
    let mut sequences = Sequences::new(1);
    let slot = sequences.assign(UserId(5)).unwrap();
    sequences.take_back(slot);
}
