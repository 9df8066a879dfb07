#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use super::*;
use crate::contract::ids::{SessionRef, ShardId};

fn origin(conn: ConnId, request_id: u32) -> Origin {
    Origin::new(SessionRef { shard: ShardId(1), conn }, request_id)
}

fn online(count: usize) -> Answer {
    Answer::Online(vec![Default::default(); count])
}

/// How many users each answer holds; `None`: it failed.
fn counts(answers: Vec<Answer>) -> Vec<Option<usize>> {
    let count = |answer| match answer {
        Answer::Online(users) => Some(users.len()),
        _ => None,
    };
    answers.into_iter().map(count).collect()
}

#[test]
fn answers_stand_where_their_questions_did_whatever_the_order_in_which_they_come() {
    let (mut requests, now) = (OpenRequests::default(), Instant::now());
    let (answered, mut answers) = oneshot::channel();
    let conn = requests.insert(now, 3, answered);
    requests.answer(origin(conn, 2), online(2));
    requests.answer(origin(conn, 0), online(0));
    // Twice, and to a question that nobody has asked.
    requests.answer(origin(conn, 0), online(9));
    requests.answer(origin(conn, 3), online(9));
    assert!(answers.try_recv().is_err());
    assert_eq!(requests.questions(), 1);
    requests.answer(origin(conn, 1), online(1));
    assert_eq!(counts(answers.try_recv().unwrap()), [Some(0), Some(1), Some(2)]);
    assert_eq!(requests.questions(), 0);
}

#[test]
fn what_comes_too_late_answers_nobody_else() {
    let (mut requests, now) = (OpenRequests::default(), Instant::now());
    let (answered, mut answers) = oneshot::channel();
    let late = requests.insert(now, 2, answered);
    requests.answer(origin(late, 1), online(1));
    requests.give_up(now.checked_sub(Duration::from_millis(1)).unwrap());
    assert!(answers.try_recv().is_err(), "its time is not over yet");
    requests.give_up(now);
    assert_eq!(counts(answers.try_recv().unwrap()), [None, Some(1)]);
    assert_eq!(requests.questions(), 0);

    let (answered, mut answers) = oneshot::channel();
    let next = requests.insert(now, 1, answered);
    assert_eq!(next.slot, late.slot, "the slot is used again");
    requests.answer(origin(late, 0), online(9));
    assert!(answers.try_recv().is_err());
    requests.answer(origin(next, 0), online(3));
    assert_eq!(counts(answers.try_recv().unwrap()), [Some(3)]);
}
