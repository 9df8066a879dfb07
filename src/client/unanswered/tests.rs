#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;
use crate::UserId;

const TO: Conversation = Conversation::User(UserId(2));

fn name(n: u8) -> ClientMsgId {
    ClientMsgId::from_parts(1_000, u128::from(n))
}

/// Messages 1 to `count` in flight, named by their numbers.
fn in_flight(count: u8) -> Unanswered {
    let mut unanswered = Unanswered::default();
    for n in 1..=count {
        unanswered.keep(RequestId(n.into()), name(n), NameIs::New, TO, &[n]).unwrap();
    }
    unanswered
}

fn refuse(
    unanswered: &mut Unanswered,
    now_ms: u64,
    request: u32,
    code: ErrorCode,
    retry_after_ms: u32,
) -> Option<Fate> {
    unanswered.refused(now_ms, &Refusal { request: RequestId(request), code, message: "no", retry_after_ms })
}

/// The numbers and names of what is due.
fn due(unanswered: &mut Unanswered, now_ms: u64) -> Vec<(u32, ClientMsgId)> {
    let mut due = Vec::new();
    unanswered.take_due(now_ms, || Some(name(99)), |again| due.push((again.request.0, again.client_msg_id)));
    due
}

#[test]
fn what_has_no_answer_is_sent_again_after_a_reconnect_in_order_under_its_first_names() {
    let mut unanswered = in_flight(4);
    assert_eq!(due(&mut unanswered, 0), []);
    assert_eq!(unanswered.answered(RequestId(2)), Some(name(2)));
    unanswered.disconnected();
    let first = [(1, name(1)), (3, name(3)), (4, name(4))];
    assert_eq!(due(&mut unanswered, 0), first);
    assert_eq!(due(&mut unanswered, 0), [], "once a connection");
    unanswered.disconnected();
    assert_eq!(due(&mut unanswered, 0), first);
}

#[test]
fn a_busy_gateway_is_asked_again_when_it_said_and_later_each_time() {
    let mut unanswered = in_flight(1);
    let mut now_ms = 0;
    for wait_ms in [250, 500, 1_000] {
        assert_eq!(refuse(&mut unanswered, now_ms, 1, ErrorCode::RetryLater, 250), Some(Fate::Kept));
        assert_eq!(unanswered.next_due_ms(), Some(now_ms + wait_ms));
        assert_eq!(due(&mut unanswered, now_ms + wait_ms - 1), []);
        now_ms += wait_ms;
        assert_eq!(due(&mut unanswered, now_ms), [(1, name(1))]);
    }
    for _ in 0..40 {
        refuse(&mut unanswered, 0, 1, ErrorCode::StorageFull, 2_000);
    }
    assert_eq!(unanswered.next_due_ms(), Some(RETRY_MS_MAX));
    refuse(&mut unanswered, 0, 1, ErrorCode(999), 60_000);
    assert_eq!(unanswered.next_due_ms(), Some(60_000), "never before the gateway's own time");
}

#[test]
fn what_is_refused_for_good_is_not_kept() {
    let mut unanswered = in_flight(2);
    assert_eq!(refuse(&mut unanswered, 0, 1, ErrorCode::NotAMember, 0), Some(Fate::GivenUp));
    assert_eq!(refuse(&mut unanswered, 0, 7, ErrorCode::NotAMember, 0), None, "no message of ours");
    unanswered.disconnected();
    assert_eq!(due(&mut unanswered, 0), [(2, name(2))]);
}

#[test]
fn a_name_from_the_future_is_made_anew_but_not_for_ever() {
    let mut unanswered = in_flight(1);
    for _ in 0..RENAMES_MAX {
        assert_eq!(refuse(&mut unanswered, 0, 1, ErrorCode::ClientMsgIdAhead, 0), Some(Fate::Kept));
        assert_eq!(due(&mut unanswered, 0), [(1, name(99))]);
    }
    assert_eq!(refuse(&mut unanswered, 0, 1, ErrorCode::ClientMsgIdAhead, 0), Some(Fate::GivenUp));
    assert!(unanswered.is_empty());
}

#[test]
fn what_may_be_stored_under_its_name_keeps_it_though_it_lies_in_the_future() {
    let ahead = |unanswered: &mut Unanswered| refuse(unanswered, 0, 1, ErrorCode::ClientMsgIdAhead, 0);
    let check = |mut unanswered: Unanswered, what: &str| {
        assert_eq!(ahead(&mut unanswered), Some(Fate::Kept), "{what}");
        let first_ms = unanswered.next_due_ms().unwrap();
        assert!(first_ms >= AHEAD_RETRY_MS.into(), "{what}: {first_ms}");
        assert_eq!(due(&mut unanswered, first_ms), [(1, name(1))], "{what}");
        assert_eq!(ahead(&mut unanswered), Some(Fate::Kept), "{what}");
        assert_eq!(unanswered.next_due_ms(), Some(2 * first_ms), "{what}: later each time");
    };
    let mut lost = in_flight(1);
    lost.disconnected();
    due(&mut lost, 0);
    check(lost, "its first answer was lost with the connection");
    let mut busy = in_flight(1);
    refuse(&mut busy, 0, 1, ErrorCode::RetryLater, 200);
    due(&mut busy, 200);
    check(busy, "a busy gateway may have stored it all the same");
    let mut earlier = Unanswered::default();
    earlier.keep(RequestId(1), name(1), NameIs::Used, TO, b"x").unwrap();
    check(earlier, "an earlier life of the program has sent it");
}

#[test]
fn no_more_is_kept_than_the_limit() {
    let mut unanswered = Unanswered::default();
    for n in 0..UNANSWERED_MAX {
        unanswered.keep(RequestId(n as u32 + 1), name(1), NameIs::New, TO, b"x").unwrap();
    }
    assert_eq!(unanswered.keep(RequestId(9_999), name(1), NameIs::New, TO, b"x"), Err(TooManyUnanswered));
    unanswered.answered(RequestId(5));
    unanswered.keep_for_later(RequestId(9_999), name(1), NameIs::New, TO, b"x").unwrap();
    assert_eq!(due(&mut unanswered, 0), [(9_999, name(1))]);
}
