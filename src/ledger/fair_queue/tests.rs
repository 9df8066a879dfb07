//! Claims about who is taken when.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;
use crate::contract::ids::Origin;
use crate::contract::message::Incoming;
use crate::contract::submission::MessageSubmission;
use crate::limits::FAIR_TURN_ROWS;
use ringway_wire::ids::{ClientMsgId, Conversation, GroupId};

const GREEDY: UserId = UserId(1);
const HONEST: UserId = UserId(2);

fn queue() -> FairQueue {
    FairQueue::new(TableKey::new(7), FAIR_TURN_ROWS)
}

fn message(sender: UserId, number: u128, body: &[u8]) -> Submission {
    let (to, name) = (Conversation::User(UserId(99)), ClientMsgId(number.to_be_bytes()));
    let incoming = Incoming::new(Origin::default(), sender, to, name, body);
    Submission::Message(MessageSubmission { incoming })
}

fn push(queue: &mut FairQueue, sender: UserId, numbers: std::ops::Range<u128>) {
    numbers.for_each(|number| queue.push(ShardId(0), message(sender, number, b"x")));
}

/// Who is taken next, and its message's number.
fn taken(queue: &mut FairQueue) -> Option<(UserId, u128)> {
    match queue.pop()?.1 {
        Submission::Message(MessageSubmission { incoming }) => {
            Some((incoming.sender, u128::from_be_bytes(incoming.client_msg_id.0)))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_has_sent_little_goes_before_the_rest_of_who_has_sent_much() {
    let mut queue = queue();
    push(&mut queue, GREEDY, 0..1_000);
    push(&mut queue, HONEST, 0..1);
    let mut rows_before = 0;
    while taken(&mut queue).unwrap().0 == GREEDY {
        queue.charge(5_000);
        rows_before += 5_000;
    }
    assert_eq!(rows_before, 5_000, "one message of those that came before");
    assert_eq!(queue.len(), 999);
}

#[test]
fn long_messages_cost_as_rows_do() {
    let mut queue = queue();
    let body = [7; 16_384];
    (0..1_000).for_each(|number| queue.push(ShardId(0), message(GREEDY, number, &body)));
    push(&mut queue, HONEST, 0..1);
    let before = (0..).take_while(|_| taken(&mut queue).unwrap().0 == GREEDY).count();
    assert!(before <= FAIR_TURN_ROWS * COMMIT_BYTES_PER_ROW / body.len() + 1, "{before}");
}

#[test]
fn what_one_sends_keeps_its_order_whoever_else_sends() {
    let mut queue = queue();
    let mut expected = [0; 5];
    // Some of each, taken in part, and more of each behind what waits still.
    for round in 0..4 {
        (0..5).for_each(|user| push(&mut queue, UserId(user), round * 100..round * 100 + 100));
        for _ in 0..if round == 3 { 4_096 } else { 170 } {
            let Some((sender, number)) = taken(&mut queue) else { break };
            queue.charge(sender.0 as usize * 300);
            assert_eq!(number, expected[sender.0 as usize], "of {sender:?}");
            expected[sender.0 as usize] += 1;
        }
    }
    assert_eq!(expected, [400; 5]);
    assert!(queue.is_empty() && queue.pop().is_none());
}

#[test]
fn all_get_the_same_share_however_large_their_messages_are() {
    let mut queue = queue();
    let rows = [2, 50, 5_000];
    (0..3).for_each(|user| push(&mut queue, UserId(user), 0..20_000));
    let mut had = [0; 3];
    let of_itself = 1 + message(HONEST, 1, b"x").bytes() / COMMIT_BYTES_PER_ROW;
    while had.iter().sum::<usize>() < 300_000 {
        let at = taken(&mut queue).unwrap().0.0 as usize;
        queue.charge(rows[at]);
        had[at] += rows[at] + of_itself;
    }
    let (least, most) = (had.iter().min().unwrap(), had.iter().max().unwrap());
    assert!(most - least < 2 * 5_000 + FAIR_TURN_ROWS * 2, "{had:?}");
}

#[test]
fn nobody_waits_for_ever_behind_those_who_come_and_go() {
    let mut queue = queue();
    push(&mut queue, HONEST, 0..1);
    for number in 0..50 {
        push(&mut queue, UserId(100 + number as u64), number..number + 1);
        if taken(&mut queue).unwrap().0 == HONEST {
            return;
        }
        queue.charge(5_000);
    }
    panic!("others were always first");
}

#[test]
fn places_are_used_again() {
    let mut queue = queue();
    for number in 0..1_000 {
        push(&mut queue, UserId(number as u64), number..number + 3);
        queue.push(ShardId(0), Submission::Roster { shard: ShardId(0), group: GroupId(1) });
        (0..4).for_each(|_| assert!(queue.pop().is_some()));
    }
    assert!(queue.pop().is_none());
    assert!(queue.items.len() <= 4 && queue.waiting.len() <= 4, "{} {}", queue.items.len(), queue.waiting.len());
    assert!(queue.places.is_empty() && queue.turns.is_empty());
}

#[test]
fn what_was_made_out_of_turn_is_charged_to_whoever_has_more_waiting() {
    let mut queue = queue();
    push(&mut queue, GREEDY, 0..10);
    push(&mut queue, HONEST, 10..11);
    queue.charge_sender(GREEDY, 2 * FAIR_TURN_ROWS);
    queue.charge_sender(UserId(77), FAIR_TURN_ROWS);
    assert_eq!(taken(&mut queue), Some((HONEST, 10)));
    assert_eq!(taken(&mut queue), Some((GREEDY, 0)), "somebody is taken as long as anything waits");
}
