//! Rows are limited where they arise: by sender and by group, before a message has a number.

use super::*;
use crate::contract::traffic::TrafficLimit;
use crate::rate::Rate;

const RETRY_LATER: Answer = Answer::Refused(ErrorCode::RetryLater);

fn ledger(traffic: TrafficLimits) -> Ledger {
    Ledger::with(Settings { traffic, ..Settings::new(SHARDS, 7) })
}

fn sent(answers: &[(u32, Answer)]) -> Vec<u32> {
    assert!(answers.iter().all(|(_, answer)| matches!(answer, Answer::Sent { .. }) || *answer == RETRY_LATER));
    answers.iter().filter(|(_, answer)| *answer != RETRY_LATER).map(|(request, _)| *request).collect()
}

#[test]
fn a_sender_has_so_many_rows_in_all_conversations_and_others_have_theirs() {
    let mut ledger = ledger(TrafficLimits { user_rows: Rate::new(100, 42), ..TrafficLimits::UNLIMITED });
    let rosters = [ledger.create(1, 2..=20), ledger.create(1, 2..=20)];
    for request in 1..=3 {
        ledger.group(request, 1, &rosters[request as usize % 2]);
    }
    let name = ledger.name();
    ledger.direct(4, 1, 2, name, b"two rows are left");
    let name = ledger.name();
    ledger.direct(5, 1, 1, name, b"not one more");
    ledger.group(6, 2, &rosters[0]);
    let before = ledger.newest(2);
    assert_eq!(sent(&ledger.answers()), [1, 2, 4, 6]);
    assert_eq!((before, ledger.newest(2)), (4, 4), "what is refused takes no number");
    let counters = ledger.engine.counters();
    assert_eq!((counters.limited.of(TrafficLimit::UserRows), counters.retry_later), (2, 2));
    // 20 rows are earned in 200 ms.
    ledger.pass(199);
    ledger.group(7, 1, &rosters[0]);
    assert!(sent(&ledger.answers()).is_empty());
    ledger.pass(1);
    ledger.group(8, 1, &rosters[0]);
    assert_eq!(sent(&ledger.answers()), [8]);
}

#[test]
fn a_group_has_so_many_rows_and_messages_whoever_sends_and_the_refusal_says_when() {
    let traffic =
        TrafficLimits { group_sends: Rate::new(1, 3), group_rows: Rate::new(10, 40), ..TrafficLimits::UNLIMITED };
    let mut ledger = ledger(traffic);
    let (large, small) = (ledger.create(1, 2..=20), ledger.create(1, 2..=3));
    for (request, sender) in [(1, 1), (2, 2), (3, 3)] {
        ledger.group(request, sender, &large);
    }
    let refused: Vec<(u32, u32)> = ledger.commit().into_iter().flatten().filter_map(refusal).collect();
    assert_eq!(refused, [(3, 2_000)], "20 rows, at 10 a second");
    for (request, sender) in [(4, 1), (5, 2), (6, 3), (7, 1)] {
        ledger.group(request, sender, &small);
    }
    assert_eq!(sent(&ledger.answers()), [4, 5, 6]);
    let limited = ledger.engine.counters().limited;
    assert_eq!((limited.of(TrafficLimit::GroupRows), limited.of(TrafficLimit::GroupSends)), (1, 1));
}

/// The request that was refused with `RETRY_LATER`, and after how long it may come again.
fn refusal(delivery: Delivery) -> Option<(u32, u32)> {
    match delivery {
        Delivery::Refused { origin, code: ErrorCode::RetryLater, retry_after_ms } => {
            Some((origin.request_id, retry_after_ms))
        }
        _ => None,
    }
}

#[test]
fn a_repeat_is_answered_as_one_whatever_its_sender_may_send() {
    let mut ledger = ledger(TrafficLimits { user_rows: Rate::new(1, 2), ..TrafficLimits::UNLIMITED });
    let name = ledger.name();
    ledger.direct(1, 1, 2, name, b"once");
    ledger.direct(2, 1, 2, name, b"once");
    let another = ledger.name();
    ledger.direct(3, 1, 2, another, b"twice");
    let answers = ledger.answers();
    assert!(matches!(answers[..], [(1, Answer::Sent { .. }), (2, Answer::Repeat { .. }), (3, RETRY_LATER)]));
    // What was refused is sent again under its name, and is no repeat.
    ledger.pass(2_000);
    ledger.direct(4, 1, 2, another, b"twice");
    assert_eq!(sent(&ledger.answers()), [4]);
}
