#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;
use crate::server::{SERVER_MS, at, closing, error, gap, login_ok, pong, push, send_ok};

const HEARTBEAT_MS: u32 = 25_000;

/// A session that is live from row 10 on, at the time 0.
fn live() -> Session {
    let mut session = Session::new(Some(Seq(10)));
    session.connecting(at(0));
    session.receive(at(0), &login_ok(10, HEARTBEAT_MS)).unwrap();
    session
}

/// Takes rows, and has them in safety at once.
fn rows(session: &mut Session, now_ms: u64, rows: std::ops::RangeInclusive<u64>) {
    for seq in rows {
        assert!(matches!(session.receive(at(now_ms), &push(seq)).unwrap(), Incoming::Row(row) if row.seq == Seq(seq)));
        session.stored(at(now_ms), Seq(seq));
    }
}

#[test]
fn rows_are_taken_once_and_in_order_however_often_they_come() {
    let mut session = live();
    let mut taken = Vec::new();
    for seq in [11, 12, 11, 12, 9, 13] {
        match session.receive(at(0), &push(seq)).unwrap() {
            Incoming::Row(row) => taken.push(row.seq.0),
            Incoming::Repeated(row) => assert!(row.seq <= session.cursor()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((taken, session.cursor()), (vec![11, 12, 13], Seq(13)));
}

#[test]
fn a_missing_row_ends_the_session_and_the_next_login_asks_for_it() {
    let mut session = live();
    rows(&mut session, 0, 11..=12);
    let error = session.receive(at(0), &push(14)).unwrap_err();
    assert_eq!(error, SessionError::OutOfOrder { expected: Seq(13), got: Seq(14) });
    assert!(matches!(session.ended(at(0), 0), NextStep::Reconnect { .. }));
    assert_eq!(session.last_seq(), Some(Seq(12)));
    let mut session = live();
    assert!(matches!(session.receive(at(0), &gap(12, 20)), Err(SessionError::OutOfOrder { .. })));
}

#[test]
fn rows_that_are_no_longer_kept_are_passed_over_only_when_the_gateway_says_so() {
    let mut session = live();
    assert!(matches!(session.receive(at(0), &gap(11, 20)).unwrap(), Incoming::Gap { from: Seq(11), to: Seq(20) }));
    rows(&mut session, 0, 21..=21);
}

#[test]
fn an_ephemeral_message_is_no_row() {
    let mut session = live();
    assert!(matches!(session.receive(at(0), &push(0)).unwrap(), Incoming::Ephemeral(_)));
    assert_eq!(session.cursor(), Seq(10));
}

#[test]
fn a_send_ok_is_the_senders_row_only_in_its_place() {
    let mut session = live();
    let row_of = |session: &mut Session, seq| match session.receive(at(0), &send_ok(2, seq)).unwrap() {
        Incoming::Sent(sent) => sent.row,
        other => panic!("{other:?}"),
    };
    assert_eq!(row_of(&mut session, 12), OwnRow::NotNext);
    rows(&mut session, 0, 11..=12);
    assert_eq!(row_of(&mut session, 13), OwnRow::Next);
    assert_eq!(row_of(&mut session, 13), OwnRow::NotNext);
    assert_eq!(row_of(&mut session, 0), OwnRow::NotNext);
    assert_eq!(session.cursor(), Seq(13));
}

#[test]
fn acks_leave_after_256_rows_or_one_second_and_say_no_more_than_is_safe() {
    let mut session = live();
    rows(&mut session, 100, 11..=265);
    assert_eq!(session.due(at(100)), None);
    rows(&mut session, 100, 266..=266);
    assert_eq!(session.next_due_ms(at(100)), Some(100));
    assert_eq!(session.due(at(100)), Some(Due::Ack(Seq(266))));
    assert_eq!(session.due(at(100)), None);
    rows(&mut session, 200, 267..=268);
    session.receive(at(200), &push(269)).unwrap();
    assert_eq!((session.due(at(1_199)), session.next_due_ms(at(1_199))), (None, Some(1_200)));
    assert_eq!(session.due(at(1_200)), Some(Due::Ack(Seq(268))), "row 269 is not safe yet");
    assert_eq!(session.due(at(5_000)), None);
}

#[test]
fn who_has_many_sessions_is_told_when_one_of_them_has_something_to_acknowledge() {
    let mut session = live();
    let mut told = Vec::new();
    for seq in 11..=11 + ACK_ROWS_MAX {
        assert_eq!(session.receive_copy(at(5), Seq(seq)), Ok(RowPlace::Next));
        match session.stored(at(5), Seq(seq)) {
            AckDue::AsBefore => {}
            due => told.push((seq, due)),
        }
    }
    assert_eq!(told, [(11, AckDue::Later), (10 + ACK_ROWS_MAX, AckDue::Now)]);
    assert_eq!(session.due(at(5)), Some(Due::Ack(Seq(11 + ACK_ROWS_MAX))));
    assert_eq!(session.stored(at(5), Seq(11)), AckDue::AsBefore, "it is here already");
}

#[test]
fn a_copy_of_a_push_is_taken_by_its_number_as_the_push_would_be() {
    let mut session = live();
    assert_eq!(session.live_since_ms(at(100)), Some(0));
    let places = [11, 11, 0, 12].map(|seq| session.receive_copy(at(100), Seq(seq)));
    assert_eq!(places, [RowPlace::Next, RowPlace::Repeated, RowPlace::Ephemeral, RowPlace::Next].map(Ok));
    let error = SessionError::OutOfOrder { expected: Seq(13), got: Seq(15) };
    assert_eq!(session.receive_copy(at(100), Seq(15)), Err(error));
    session.pass_over(Seq(14));
    assert_eq!(session.receive_copy(at(100), Seq(15)), Ok(RowPlace::Next), "who gives up row 13 and 14 goes on");
    session.ended(at(200), 0);
    assert_eq!(session.receive_copy(at(200), Seq(16)), Err(SessionError::Unexpected));
    assert_eq!(session.live_since_ms(at(200)), None);
}

#[test]
fn rows_that_never_came_are_not_acknowledged() {
    let mut session = live();
    session.stored(at(0), Seq(1_000));
    assert_eq!(session.take_ack(at(0)), None);
    rows(&mut session, 0, 11..=11);
    session.stored(at(0), Seq(1_000));
    assert_eq!(session.take_ack(at(0)), Some(Seq(11)));
}

#[test]
fn what_was_not_acknowledged_is_acknowledged_on_the_next_connection() {
    let mut session = live();
    rows(&mut session, 0, 11..=12);
    session.ended(at(100), 0);
    assert_eq!(session.due(at(5_000)), None);
    session.connecting(at(5_000));
    session.receive(at(5_000), &login_ok(12, HEARTBEAT_MS)).unwrap();
    assert_eq!(session.due(at(6_000)), Some(Due::Ack(Seq(12))));
}

#[test]
fn a_ping_leaves_at_the_heartbeat_of_the_login_and_not_before() {
    let mut session = live();
    assert_eq!((session.heartbeat_ms(), session.next_due_ms(at(0))), (HEARTBEAT_MS, Some(25_000)));
    assert_eq!(session.due(at(24_999)), None);
    assert_eq!(session.due(at(25_000)), Some(Due::Ping));
    session.receive(at(25_010), &pong(2, SERVER_MS)).unwrap();
    assert_eq!(session.due(at(49_999)), None);
    assert_eq!(session.due(at(50_010)), Some(Due::Ping));
}

#[test]
fn who_sends_and_hears_need_not_ping() {
    let mut session = live();
    for second in (10..100).step_by(10) {
        session.sent(at(second * 1_000));
        session.receive(at(second * 1_000), &send_ok(2, 0)).unwrap();
        assert_eq!(session.due(at(second * 1_000 + 9_999)), None);
    }
}

#[test]
fn who_sends_and_hears_nothing_asks_whether_anybody_is_there_and_gives_up() {
    let mut session = live();
    session.sent(at(20_000));
    assert_eq!(session.due(at(25_000)), Some(Due::Ping));
    session.sent(at(30_000));
    assert_eq!((session.due(at(34_999)), session.next_due_ms(at(34_999))), (None, Some(35_000)));
    assert_eq!(session.due(at(35_000)), Some(Due::GiveUp));
}

#[test]
fn a_login_without_an_answer_is_given_up() {
    let mut session = Session::new(None);
    session.connecting(at(1_000));
    assert_eq!((session.due(at(30_999)), session.next_due_ms(at(1_000))), (None, Some(31_000)));
    assert_eq!(session.due(at(31_000)), Some(Due::GiveUp));
}

#[test]
fn message_names_are_made_in_the_servers_time() {
    let mut session = live();
    assert_eq!(session.new_client_msg_id(at(500), 1).unix_ms(), Some(SERVER_MS + 500));
    session.receive(at(1_000), &pong(2, SERVER_MS + 11_000)).unwrap();
    assert_eq!(session.server_ms(at(2_000)), SERVER_MS + 12_000);
    session.receive(at(2_000), &error(3, ErrorCode::ClientMsgIdAhead, 0)).unwrap();
    assert_eq!(session.server_ms(at(2_000)), SERVER_MS);
}

#[test]
fn each_reason_to_close_has_its_own_next_step() {
    use CloseReason as R;
    let next = |reason, after_ms| {
        let mut session = live();
        session.receive(at(0), &closing(reason, after_ms)).unwrap();
        assert_eq!(session.due(at(100_000)), None, "{reason:?}");
        assert!(session.receive(at(0), &push(11)).is_err(), "nothing comes after Closing");
        session.ended(at(1_000), 0)
    };
    for reason in R::ENUM_VALUES {
        let soonest = next(*reason, Some(2_000));
        assert_eq!(soonest, NextStep::Reconnect { at_ms: 3_000 }, "{reason:?}: the gateway invites");
    }
    for reason in [R::TokenInvalid, R::TokenExpired] {
        assert_eq!(next(reason, None), NextStep::NewToken(reason));
    }
    assert_eq!(next(R::SeqAhead, None), NextStep::DropInbox);
    for reason in [
        R::BadFrame,
        R::FrameTooLarge,
        R::UnknownRequest,
        R::NotLoggedIn,
        R::Replaced,
        R::DeviceLimit,
        R::LoggedOut,
        R::NotRingway,
    ] {
        assert_eq!(next(reason, None), NextStep::Stop(reason));
    }
    assert_eq!(next(CloseReason(999), None), NextStep::Stop(CloseReason(999)));
    assert_eq!(next(R::HeartbeatTimeout, Some(0)), NextStep::Reconnect { at_ms: 1_250 }, "never at once");
}

#[test]
fn a_refused_cursor_is_dropped_and_the_gateway_says_where_the_device_is() {
    let mut session = live();
    session.receive(at(0), &closing(CloseReason::SeqAhead, None)).unwrap();
    assert_eq!(session.ended(at(0), 0), NextStep::DropInbox);
    session.forget();
    assert_eq!(session.last_seq(), Some(Seq(0)));
    let mut session = live();
    assert_eq!(session.receive(at(0), &error(0, ErrorCode::SeqAhead, 0)).unwrap_err(), SessionError::AckRefused);
    assert_eq!(session.last_seq(), None);
    session.connecting(at(0));
    session.receive(at(0), &login_ok(4, HEARTBEAT_MS)).unwrap();
    assert_eq!((session.cursor(), session.last_seq()), (Seq(4), Some(Seq(4))));
}

#[test]
fn a_sync_too_far_is_a_refusal_and_no_doubt_in_the_cursor() {
    let mut session = live();
    assert!(matches!(session.receive(at(0), &error(9, ErrorCode::SeqAhead, 0)).unwrap(), Incoming::Refused(_)));
    assert_eq!(session.last_seq(), Some(Seq(10)));
}

#[test]
fn waits_grow_over_failures_and_a_session_that_stood_begins_anew() {
    let wait = |session: &mut Session, now_ms| match session.ended(at(now_ms), 0) {
        NextStep::Reconnect { at_ms } => at_ms - now_ms,
        other => panic!("{other:?}"),
    };
    let mut session = Session::new(None);
    let waits: Vec<u64> = (0..9)
        .map(|_| {
            session.connecting(at(0));
            wait(&mut session, 0)
        })
        .collect();
    assert_eq!(waits, [250, 500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000]);
    session.connecting(at(0));
    session.receive(at(0), &login_ok(0, 0)).unwrap();
    assert_eq!(wait(&mut session, 100), 15_000, "a login alone shows nothing");
    session.connecting(at(0));
    session.receive(at(0), &login_ok(0, 0)).unwrap();
    assert_eq!(wait(&mut session, 30_000), 250);
    session.connecting(at(0));
    assert_eq!(wait(&mut session, 0), 500);
}

#[test]
fn what_has_no_place_is_an_error_and_no_panic() {
    let mut session = Session::new(None);
    session.connecting(at(0));
    assert_eq!(session.receive(at(0), &push(1)).unwrap_err(), SessionError::Unexpected);
    assert!(matches!(session.receive(at(0), &[4, 0, 0, 0, 1, 2, 3, 4]), Err(SessionError::Frame(_))));
    session.receive(at(0), &login_ok(u64::MAX, 0)).unwrap();
    assert!(matches!(session.receive(at(0), &push(1)).unwrap(), Incoming::Repeated(_)));
    assert!(session.receive(at(0), &login_ok(1, 0)).is_err());
    let mut session = live();
    session.ended(at(0), 0);
    session.connecting(at(0));
    assert!(session.receive(at(0), &login_ok(9, 0)).is_err(), "not from where it was asked to");
}
