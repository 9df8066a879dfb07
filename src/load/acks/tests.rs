#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;
use crate::latency::latencies;
use ringway_client::{Incoming, Now, Session};
use ringway_wire::frame::Encoder;
use ringway_wire::ids::UserId;
use ringway_wire::request::{Durability, Taken};

/// Two messages after row 10, answered with these (index, seq).
fn check(kind: Durability, answers: &[(u32, u64)], acked: u64, out_of_order: u64, repeated: u64) {
    let mut acks = Acks::new(kind);
    let mut session = Session::new(Some(Seq(10)));
    session.connecting(Now::default());
    session.receive(Now::default(), Encoder::new().login_ok(1, 1, UserId(1), 1, 0, Seq(10), Seq(10))).unwrap();
    acks.sent(1_000, 5);
    acks.sent(2_000, 5);
    for (index, seq) in answers {
        let mut encoder = Encoder::new();
        let frame = encoder.send_ok(index + 1, MsgId(100 + u64::from(*index)), Seq(*seq), 1, Taken::Now);
        let Incoming::Sent(answer) = session.receive(Now::default(), frame).unwrap() else { panic!("no SendOk") };
        acks.answered(&answer, 9_000, &mut latencies());
    }
    assert_eq!((acks.acked(), acks.out_of_order(), acks.repeated()), (acked, out_of_order, repeated));
}

#[test]
fn each_message_is_acked_once_under_the_senders_next_row() {
    check(Durability::Durable, &[(0, 11), (1, 12)], 2, 0, 0);
    check(Durability::Durable, &[(0, 11)], 1, 0, 0);
    check(Durability::Ephemeral, &[(0, 0), (1, 0)], 2, 0, 0);
}

#[test]
fn an_ack_that_comes_twice_or_for_nothing_is_not_counted() {
    check(Durability::Durable, &[(0, 11), (0, 12), (1, 13)], 2, 0, 1);
    check(Durability::Durable, &[(0, 11), (2, 12)], 1, 0, 1);
}

#[test]
fn a_row_that_does_not_follow_is_out_of_order() {
    check(Durability::Durable, &[(0, 12), (1, 11)], 2, 1, 0);
    check(Durability::Durable, &[(0, 10)], 1, 1, 0);
    check(Durability::Ephemeral, &[(0, 11)], 1, 1, 0);
}

#[test]
fn what_was_given_up_is_not_waited_for() {
    let mut acks = Acks::new(Durability::Ephemeral);
    acks.sent(1, 1);
    acks.sent(2, 1);
    acks.give_up();
    assert_eq!((acks.standing(), acks.next_index()), (1, 2));
}
