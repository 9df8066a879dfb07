#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;
use crate::ledger::sequence::MsgIdSource;

const TIME: u64 = 1_800_000_000_000;

fn name(number: u64) -> Name {
    Name { sender: UserId(1), client_msg_id: ClientMsgId::from_parts(TIME, u128::from(number) << 16) }
}

fn window_of(count: u64, entries_max: usize) -> (Window, Vec<Known>) {
    let mut window = Window::new(1, 0).with_entries_max(entries_max);
    let mut ids = MsgIdSource::new(0, MsgId(0));
    let known = |at: u64, ids: &mut MsgIdSource| Known { msg_id: ids.next(TIME + at * 1000), seq: Seq(at), digest: at };
    let known: Vec<Known> = (0..count).map(|at| known(at, &mut ids)).collect();
    known.iter().enumerate().for_each(|(at, known)| window.insert(name(at as u64), *known));
    (window, known)
}

#[test]
fn what_is_in_the_window_is_known_and_what_is_younger_than_the_horizon_is_new() {
    let (window, known) = window_of(3, 100);
    assert_eq!(window.seen(&name(2), TIME), Seen::Before(known[2]));
    assert_eq!(window.seen(&name(9), TIME), Seen::Never);
}

#[test]
fn a_name_that_may_be_of_a_message_before_the_horizon_is_to_be_looked_up() {
    let window = Window::new(1, TIME);
    assert_eq!(window.seen(&name(9), TIME + CLIENT_MSG_ID_AHEAD_MS), Seen::Never);
    // Numbered up to so much before the time in its name, it may have been before the horizon.
    assert_eq!(window.seen(&name(9), TIME + CLIENT_MSG_ID_AHEAD_MS - 1), Seen::Perhaps);
    assert_eq!(window.seen(&name(9), 0), Seen::Perhaps);
}

#[test]
fn at_its_limit_the_oldest_go_and_the_horizon_moves_behind_them() {
    let (window, known) = window_of(10, 4);
    assert_eq!(window.len(), 4);
    assert_eq!(window.horizon_ms(), TIME + 1 - CLIENT_MSG_ID_AHEAD_MS);
    assert_eq!(window.seen(&name(5), TIME), Seen::Perhaps);
    assert_eq!(window.seen(&name(11), TIME + 1), Seen::Never);
    assert_eq!(window.seen(&name(6), TIME), Seen::Before(known[6]));
}

#[test]
fn as_time_passes_the_old_go_a_part_at_a_time() {
    let (mut window, _) = window_of(1_000, 10_000);
    let later = TIME + 999_000 + WINDOW_MS;
    window.advance(later);
    assert_eq!(window.horizon_ms(), later - WINDOW_MS);
    assert_eq!(window.len(), 1_000 - EVICTIONS_MAX);
    (0..10).for_each(|_| window.advance(later));
    assert_eq!(window.len(), 1, "the one at the horizon stays");
    // The clock was wrong: what was let go has names of its own time.
    window.advance(TIME + 1_000);
    assert_eq!(window.horizon_ms(), TIME + 1 - CLIENT_MSG_ID_AHEAD_MS);
}

#[test]
fn names_of_now_are_known_though_messages_are_dated_an_hour_ahead_and_the_oldest_have_gone() {
    let mut window = Window::new(1, 0).with_entries_max(4);
    let mut ids = MsgIdSource::new(0, MsgId(0));
    ids.next(TIME + 3_600_000);
    let named = |at: u64| Name { sender: UserId(1), client_msg_id: ClientMsgId::from_parts(TIME + at, 1) };
    for at in (0..20).map(|second| second * 1_000) {
        window.insert(named(at), Known { msg_id: ids.next(TIME + at), seq: Seq(at), digest: at });
        window.advance(ids.time_ms(TIME + at));
    }
    assert_eq!(window.seen(&named(15_000), TIME + 15_000), Seen::Perhaps);
    assert!(matches!(window.seen(&named(16_000), TIME + 16_000), Seen::Before(_)));
    assert_eq!(window.seen(&named(20_000), TIME + 20_000), Seen::Never);
}

#[test]
fn what_is_taken_back_was_never_seen() {
    let (mut window, known) = window_of(3, 100);
    window.take_back(&name(2));
    window.take_back(&name(0));
    assert_eq!(window.seen(&name(2), TIME), Seen::Never);
    assert_eq!(window.seen(&name(0), TIME), Seen::Before(known[0]), "only the newest can be taken back");
}

#[test]
fn a_name_must_be_a_uuidv7_of_about_now_or_before() {
    let at = |ms| named_ms(&ClientMsgId::from_parts(ms, 1), TIME);
    assert_eq!(at(TIME + CLIENT_MSG_ID_AHEAD_MS), Ok(TIME + CLIENT_MSG_ID_AHEAD_MS));
    assert_eq!(at(TIME + CLIENT_MSG_ID_AHEAD_MS + 1), Err(ErrorCode::ClientMsgIdAhead));
    assert_eq!(at(0), Ok(0));
    assert_eq!(named_ms(&ClientMsgId([0xff; 16]), TIME), Err(ErrorCode::ClientMsgIdInvalid));
}
