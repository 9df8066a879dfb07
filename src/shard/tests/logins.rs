//! Logins: who gets in, where the session lives, which sessions make room.

use super::closing;
use super::world::{Got, SECRET, World};
use crate::auth::mint_hs256;
use crate::contract::delivery::Delivery;
use crate::contract::device_policy::DevicePolicy;
use crate::contract::ids::{Origin, ShardId};
use crate::contract::store::{StoreAnswer, StoreAsk};
use crate::contract::submission::Submission;
use crate::shard::effects::Closed;
use ringway_wire::ids::{Conversation, DeviceId, Seq, UserId};
use ringway_wire::schema::{CloseReason, ErrorCode};

#[test]
fn a_user_with_nothing_missing_is_live_without_a_read() {
    let mut world = World::new(1);
    let client = world.login(7, 1, Some(0));
    assert_eq!(world.got(client), [Got::LoginOk { last: 0, from: 0 }]);
    let counters = world.shards[0].counters();
    assert_eq!((counters.sessions, counters.users, counters.sessions_behind), (1, 1, 0));
    assert_eq!(counters.connections_unauthenticated, 0);
}

#[test]
fn a_first_frame_other_than_login_closes_with_not_logged_in() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.frame(client, |encoder| encoder.ping(1));
    world.settle();
    assert_eq!(closing(&world.got(client)), Some(CloseReason::NotLoggedIn));
    assert!(!world.is_open(client));
    assert_eq!(world.shards[0].counters().closes_total[usize::from(CloseReason::NotLoggedIn.0)], 1);
}

#[test]
fn expired_forged_and_foreign_tokens_each_get_their_reason() {
    let mut world = World::new(1);
    let expired = mint_hs256(SECRET, UserId(1), None, world.now.unix_ms / 1000 - 1);
    let forged = mint_hs256(b"another secret of the same length......", UserId(1), None, u64::MAX / 2_000);
    let other_device = world.token(1, Some(9));
    for (token, reason) in [
        (expired, CloseReason::TokenExpired),
        (forged, CloseReason::TokenInvalid),
        (other_device, CloseReason::TokenInvalid),
        ("no token".to_owned(), CloseReason::TokenInvalid),
    ] {
        let client = world.connect(0);
        world.frame(client, |encoder| encoder.login(1, &token, DeviceId(1), None));
        world.settle();
        assert_eq!(closing(&world.got(client)), Some(reason));
        assert!(!world.is_open(client));
    }
    assert_eq!(world.shards[0].counters().connections, 0);
}

#[test]
fn a_connection_is_handed_to_its_users_shard_with_its_unread_bytes() {
    let mut world = World::new(2);
    let user = world.user_on(1, 0);
    let client = world.connect(0);
    // Login, Ping and half of another Ping in one piece.
    let mut encoder = ringway_wire::frame::Encoder::new();
    let token = world.token(user, None);
    let mut bytes = encoder.login(1, &token, DeviceId(1), Some(Seq(0))).to_vec();
    bytes.extend_from_slice(encoder.ping(2));
    let ping = encoder.ping(3).to_vec();
    bytes.extend_from_slice(&ping[..5]);
    world.send_bytes(client, &bytes);
    world.settle();
    assert_eq!(world.conn(client).0, ShardId(1));
    assert_eq!(world.got(client), [Got::LoginOk { last: 0, from: 0 }, Got::Pong(2)]);
    world.send_bytes(client, &ping[5..]);
    world.settle();
    assert_eq!(world.got(client), [Got::Pong(3)]);
    assert_eq!(world.shards[0].counters().connections, 0);
    assert_eq!(world.shards[0].counters().handed_over_total, 1);
    assert_eq!(world.shards[1].counters().sessions, 1);
}

#[test]
fn requests_behind_a_login_wait_for_it_and_are_answered_in_order() {
    let mut world = World::new(1);
    world.hold_ledger = true;
    let client = world.connect(0);
    world.login_frame(client, 5, 1, Some(0));
    let (_, conn) = world.conn(client);
    assert!(!world.shards[0].wants_read(conn), "nothing is read while the login is looked up");
    world.frame(client, |encoder| encoder.ping(2));
    world.settle();
    assert_eq!(world.got(client), []);
    world.hold_ledger = false;
    world.settle();
    assert_eq!(world.got(client), [Got::LoginOk { last: 0, from: 0 }, Got::Pong(2)]);
}

#[test]
fn the_same_device_replaces_itself() {
    let mut world = World::new(1);
    let first = world.login(5, 1, Some(0));
    let other = world.login(5, 2, Some(0));
    let second = world.login(5, 1, Some(0));
    assert_eq!(closing(&world.got(first)), Some(CloseReason::Replaced));
    assert!(!world.is_open(first));
    assert!(world.is_open(other) && world.is_open(second));
    assert_eq!(world.shards[0].counters().sessions, 2);
}

#[test]
fn above_the_device_limit_the_oldest_session_goes() {
    let mut world = World::with(1, |config| config.devices_max = 2);
    let oldest = world.login(5, 1, Some(0));
    let middle = world.login(5, 2, Some(0));
    let newest = world.login(5, 3, Some(0));
    assert_eq!(closing(&world.got(oldest)), Some(CloseReason::DeviceLimit));
    assert!(world.is_open(middle) && world.is_open(newest));
}

#[test]
fn above_the_device_limit_the_new_session_is_refused_where_the_policy_says_so() {
    let mut world = World::with(1, |config| {
        config.devices_max = 1;
        config.device_policy = DevicePolicy::RefuseNew;
    });
    let first = world.login(5, 1, Some(0));
    let second = world.login(5, 2, Some(0));
    assert_eq!(closing(&world.got(second)), Some(CloseReason::DeviceLimit));
    assert!(world.is_open(first) && !world.is_open(second));
    assert_eq!(world.shards[0].counters().sessions, 1);
}

#[test]
fn a_login_that_fails_after_it_was_registered_closes_no_session_that_stands() {
    let mut world = World::with(1, |config| config.devices_max = 2);
    let (first, second) = (world.login(5, 1, Some(0)), world.login(5, 2, Some(0)));
    world.hold_store = true;
    for device in [1, 3, 4, 5] {
        world.login(5, device, None);
    }
    for (_, ask) in std::mem::take(&mut world.held_asks) {
        let StoreAsk::Cursor { origin, .. } = ask else { continue };
        let answer = StoreAnswer::Unavailable { session: origin.session, purpose: None };
        world.shards[0].stored(world.now, answer);
    }
    world.settle();
    assert_eq!(world.got(first), [Got::LoginOk { last: 0, from: 0 }]);
    assert_eq!(world.got(second), [Got::LoginOk { last: 0, from: 0 }]);
    assert_eq!(world.shards[0].counters().sessions, 2);
}

#[test]
fn no_more_logins_of_one_user_are_looked_up_than_devices_may_be() {
    let mut world = World::with(1, |config| config.devices_max = 2);
    let stands = world.login(5, 1, Some(0));
    world.hold_store = true;
    let pending: Vec<_> = (2..20).map(|device| world.login(5, device, None)).collect();
    let again: Vec<_> = (0..20).map(|_| world.login(5, 19, None)).collect();
    assert!(world.is_open(stands) && world.is_open(pending[16]) && world.is_open(again[19]));
    assert_eq!(world.shards[0].counters().sessions, 3);
    world.hold_store = false;
    world.settle();
    assert_eq!(closing(&world.got(stands)), Some(CloseReason::DeviceLimit));
    assert_eq!(world.shards[0].counters().sessions, 2);
}

#[test]
fn a_last_seq_of_a_row_that_is_lost_is_taken_and_what_comes_next_is_not_skipped() {
    let mut world = World::new(1);
    world.hold_ledger = true;
    let client = world.login(5, 1, Some(3));
    let Some(Submission::Position { origin, .. }) = world.held_submissions.pop_front() else { panic!() };
    world.hold_ledger = false;
    let position = Delivery::Position { origin, newest: Seq(1), given: Seq(10) };
    world.deliver(vec![(ShardId(0), position)]);
    world.settle();
    assert_eq!(world.got(client), [Got::LoginOk { last: 3, from: 3 }]);
    for _ in 0..5 {
        let message = world.ledger.direct_message(UserId(1), UserId(5), b"numbered on", Origin::default());
        world.deliver(message);
    }
    world.settle();
    assert_eq!(world.seqs(client), [4, 5]);
}

#[test]
fn a_last_seq_above_the_users_newest_closes_with_seq_ahead() {
    let mut world = World::new(1);
    let client = world.login(5, 1, Some(3));
    assert_eq!(closing(&world.got(client)), Some(CloseReason::SeqAhead));
    assert_eq!(world.shards[0].counters().sessions, 0);
}

#[test]
fn without_a_last_seq_the_session_goes_on_from_the_devices_cursor() {
    let mut world = World::new(1);
    let sender = world.login(1, 1, Some(0));
    for request in 0..4 {
        world.send_to(sender, request, Conversation::User(UserId(5)), b"hello");
    }
    world.settle();
    world.ledger.cursors.insert((UserId(5), DeviceId(1)), Seq(3));
    let client = world.login(5, 1, None);
    assert_eq!(world.got(client).first(), Some(&Got::LoginOk { last: 4, from: 3 }));
    let other_device = world.login(5, 2, None);
    assert_eq!(world.seqs(other_device), [1, 2, 3, 4]);
}

#[test]
fn an_acknowledgement_that_has_not_reached_the_store_counts_at_the_next_login() {
    let mut world = World::new(1);
    let sender = world.login(1, 1, Some(0));
    let client = world.login(5, 1, Some(0));
    for request in 0..4 {
        world.send_to(sender, request, Conversation::User(UserId(5)), b"hello");
    }
    world.settle();
    world.frame(client, |encoder| encoder.ack(Seq(4)));
    world.hang_up(client);
    assert!(world.ledger.cursors.is_empty(), "it is sent to the store once a second");
    let again = world.login(5, 1, None);
    assert_eq!(world.got(again), [Got::LoginOk { last: 4, from: 4 }]);
    world.pass(1_100);
    assert_eq!(world.ledger.cursors[&(UserId(5), DeviceId(1))], Seq(4));
}

#[test]
fn a_login_whose_cursor_cannot_be_read_closes_with_store_unavailable() {
    let mut world = World::new(1);
    world.hold_store = true;
    let client = world.login(5, 1, None);
    let Some((_, StoreAsk::Cursor { origin, .. })) = world.held_asks.pop_front() else { panic!("a cursor is asked") };
    let answer = StoreAnswer::Unavailable { session: origin.session, purpose: None };
    world.shards[0].stored(world.now, answer);
    world.settle();
    assert_eq!(closing(&world.got(client)), Some(CloseReason::StoreUnavailable));
}

#[test]
fn a_login_the_store_has_no_room_for_is_asked_for_again_until_its_time_is_over() {
    let mut world = World::with(1, |config| config.login_timeout_ms = 5_000);
    world.hold_store = true;
    let (patient, unlucky) = (world.login(5, 1, None), world.login(6, 1, None));
    for _ in 0..2 {
        let (_, ask) = world.held_asks.pop_front().expect("a cursor is asked for");
        world.shards[0].refused_ask(world.now, ask);
    }
    assert!(world.held_asks.is_empty());
    world.pass(200);
    assert_eq!(world.held_asks.len(), 2, "both are asked for again, once");
    let (_, unlucky_ask) = world.held_asks.pop_back().expect("the second one's");
    world.hold_store = false;
    world.settle();
    assert_eq!(world.got(patient), [Got::LoginOk { last: 0, from: 0 }]);
    world.shards[0].refused_ask(world.now, unlucky_ask);
    world.hold_store = true;
    world.pass(5_100);
    assert_eq!(closing(&world.got(unlucky)), Some(CloseReason::StoreUnavailable));
    assert_eq!(world.shards[0].counters().shed.store_asks, 3);
}

#[test]
fn a_login_that_the_ledger_does_not_answer_is_told_to_come_again() {
    let mut world = World::with(1, |config| config.login_timeout_ms = 5_000);
    world.hold_ledger = true;
    let client = world.login(5, 1, Some(0));
    world.pass(5_100);
    assert_eq!(closing(&world.got(client)), Some(CloseReason::StoreUnavailable));
}

#[test]
fn a_login_the_ledger_has_no_room_for_closes_with_overloaded() {
    let mut world = World::new(1);
    world.hold_ledger = true;
    let client = world.login(5, 1, Some(0));
    world.refuse_next_submission(0);
    world.settle();
    assert_eq!(closing(&world.got(client)), Some(CloseReason::Overloaded));
    assert_eq!(world.shards[0].counters().shed.submissions, 1);
}

#[test]
fn who_says_nothing_or_one_byte_a_second_is_closed_at_the_login_timeout() {
    let mut world = World::with(1, |config| config.login_timeout_ms = 5_000);
    let silent = world.connect(0);
    let slow = world.connect(0);
    let frame = ringway_wire::frame::Encoder::new().login(1, "token", DeviceId(1), None).to_vec();
    for byte in frame.iter().take(4) {
        world.pass(1_000);
        world.send_bytes(slow, &[*byte]);
        assert!(world.is_open(silent) && world.is_open(slow));
    }
    world.pass(1_200);
    assert_eq!(closing(&world.got(silent)), Some(CloseReason::LoginTimeout));
    assert_eq!(closing(&world.got(slow)), Some(CloseReason::LoginTimeout));
    assert_eq!(world.shards[0].counters().connections, 0);
}

#[test]
fn a_silent_session_is_closed_after_two_and_a_half_heartbeats_and_a_speaking_one_is_not() {
    let mut world = World::with(1, |config| config.heartbeat_ms = 1_000);
    let silent = world.login(5, 1, Some(0));
    let speaking = world.login(6, 1, Some(0));
    for _ in 0..6 {
        world.pass(400);
        world.frame(speaking, |encoder| encoder.ping(0));
    }
    assert!(world.is_open(silent), "2.4 s are not two and a half intervals");
    world.pass(300);
    assert_eq!(closing(&world.got(silent)), Some(CloseReason::HeartbeatTimeout));
    world.pass(1_000);
    assert!(world.is_open(speaking));
}

#[test]
fn a_session_ends_when_its_token_expires() {
    let mut world = World::with(1, |config| config.heartbeat_ms = 1_000_000);
    let client = world.connect(0);
    let token = mint_hs256(SECRET, UserId(5), None, world.now.unix_ms / 1000 + 2);
    world.frame(client, |encoder| encoder.login(1, &token, DeviceId(1), Some(Seq(0))));
    world.pass(1_800);
    assert!(world.is_open(client));
    world.pass(400);
    assert_eq!(closing(&world.got(client)), Some(CloseReason::TokenExpired));
}

#[test]
fn a_session_goes_on_with_a_newer_token_and_with_none_that_does_not_count() {
    let mut world = World::with(1, |config| config.heartbeat_ms = 1_000_000);
    let client = world.connect(0);
    let now_s = world.now.unix_ms / 1000;
    let token = |user: u64, device: Option<u64>, life_s: u64| {
        mint_hs256(SECRET, UserId(user), device.map(DeviceId), now_s + life_s)
    };
    world.frame(client, |encoder| encoder.login(1, &token(5, None, 2), DeviceId(1), Some(Seq(0))));
    world.settle();
    world.got(client);
    let refused = |request| Got::Error(request, ErrorCode::TokenInvalid);
    for (request, bad) in [
        (2, token(6, None, 60)),
        (3, token(5, Some(2), 60)),
        (4, token(5, None, 0)),
        (5, mint_hs256(b"another secret of at least 32 bytes!", UserId(5), None, now_s + 60)),
        (6, "not a token".to_owned()),
    ] {
        world.frame(client, |encoder| encoder.refresh(request, &bad));
        world.settle();
        assert_eq!(world.got(client), [refused(request)], "{bad}");
    }
    world.frame(client, |encoder| encoder.refresh(7, &token(5, Some(1), 4)));
    world.settle();
    assert_eq!(world.got(client), [Got::Refreshed { request: 7, expires_at_ms: (now_s + 4) * 1000 }]);
    world.pass(3_000);
    assert!(world.is_open(client), "it has the newer token's time");
    // And the newer one's end is its end.
    world.pass(1_400);
    assert_eq!(closing(&world.got(client)), Some(CloseReason::TokenExpired));
}

#[test]
fn logging_out_is_answered_with_closing() {
    let mut world = World::new(1);
    let client = world.login(5, 1, Some(0));
    world.frame(client, |encoder| encoder.logout(2));
    world.settle();
    let got = world.got(client);
    assert_eq!(got.last(), Some(&Got::Closing { reason: CloseReason::LoggedOut, reconnect: None }));
    assert_eq!(world.shards[0].counters().users, 0);
}

#[test]
fn an_answer_for_a_connection_that_is_gone_reaches_nobody_else() {
    let mut world = World::new(1);
    world.hold_ledger = true;
    let first = world.login(5, 1, Some(0));
    world.hang_up(first);
    let second = world.connect(0);
    assert_eq!(world.conn(second).1.slot, 0, "the slot is used again");
    world.hold_ledger = false;
    world.settle();
    assert_eq!(world.got(second), []);
}

#[test]
fn closes_are_listed_with_whose_they_are_for_those_who_want_it_and_else_not_at_all() {
    let closes = |lists_closes: bool| {
        let mut world = World::with(1, |config| config.lists_closes = lists_closes);
        let stranger = world.connect(0);
        world.frame(stranger, |encoder| encoder.ping(1));
        let leaver = world.login(7, 1, Some(0));
        world.frame(leaver, |encoder| encoder.logout(2));
        let lost = world.login(8, 3, Some(0));
        world.hang_up(lost);
        let of = |closed: &Closed| (closed.reason, closed.who.map(|who| (who.user.0, who.device.0)));
        world.closed.iter().map(of).collect::<Vec<_>>()
    };
    let all = [
        (CloseReason::NotLoggedIn, None),
        (CloseReason::LoggedOut, Some((7, 1))),
        (CloseReason::PeerClosed, Some((8, 3))),
    ];
    assert_eq!(closes(true), all);
    assert_eq!(closes(false), []);
}
