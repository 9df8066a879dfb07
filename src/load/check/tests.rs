#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;
use crate::latency::latencies;
use ringway_wire::frame::{PushFrame, read_server};
use ringway_wire::ids::GroupId;
use ringway_wire::request::{Durability, Reply};

const SENDER: UserId = UserId(1);
const TO: Conversation = Conversation::Group(GroupId(9));
const RUN: u32 = 77;
const RECIPIENTS: u32 = 3;
const CURSOR: u64 = 40;

fn checker(kind: Durability) -> Checker {
    let mut checker = Checker::new(Terms { run: RUN, sender: SENDER, to: TO, kind, body_bytes: 100 });
    for _ in 0..RECIPIENTS {
        checker.join(Seq(CURSOR));
    }
    checker
}

fn frame(index: u32, seq: u64) -> Vec<u8> {
    let mut body = [0; 100];
    body::write(Mark { run: RUN, index, sent_ns: 1_000 }, &mut body);
    let push = PushFrame::encode(MsgId(500 + u64::from(index)), SENDER, TO, 123, &body);
    let mut bytes = push.bytes().to_vec();
    bytes[push.seq_at()..push.seq_at() + 8].copy_from_slice(&seq.to_le_bytes());
    bytes
}

/// One frame for a recipient, as its session takes it.
fn take(checker: &mut Checker, lane: LaneId, frame: &[u8], now_ns: u64, latency: &mut Histogram<u64>) {
    if checker.take_copy(lane, frame, now_ns, latency).is_some() {
        return;
    }
    match read_server(frame) {
        Ok((_, Reply::Push(push))) => checker.take_push(lane, frame, &push, now_ns, latency),
        Ok(_) => {}
        Err(_) => checker.take_corrupt(),
    }
}

/// Messages 0, 1, ... in the order given, with the seqs that belong to them, to recipient `lane`.
fn deliver(checker: &mut Checker, lane: u32, order: &[u32]) {
    for index in order {
        let bytes = frame(*index, CURSOR + 1 + u64::from(*index));
        take(checker, LaneId(lane), &bytes, 2_000, &mut latencies());
    }
    checker.trim();
}

/// What is found must not depend on who is read first.
fn check(of_the_second: &[u32], expected: Tally) {
    for order in [[0, 1, 2], [1, 0, 2], [0, 2, 1]] {
        let mut checker = checker(Durability::Durable);
        for lane in order {
            deliver(&mut checker, lane, if lane == 1 { of_the_second } else { &[0, 1, 2, 3] });
        }
        let others = 8;
        let expected = Tally { delivered: expected.delivered + others, ..expected };
        assert_eq!(checker.tally(), expected, "read in the order {order:?}");
        assert_eq!(checker.missing(LaneId(1)), 12 - expected.delivered);
    }
}

#[test]
fn a_stream_that_arrives_whole_is_clean_and_complete() {
    check(&[0, 1, 2, 3], Tally { delivered: 4, ..Tally::default() });
    let mut checker = checker(Durability::Durable);
    for lane in 0..RECIPIENTS {
        deliver(&mut checker, lane, &[0, 1, 2]);
    }
    assert_eq!((checker.complete(), checker.seen()), (3, 3));
    assert_eq!(checker.msg_id_of(2), Some(MsgId(502)));
}

#[test]
fn a_lost_message_is_missing_wherever_it_stood() {
    for lost in [[1, 2, 3], [0, 2, 3], [0, 1, 2]] {
        check(&lost, Tally { delivered: 3, ..Tally::default() });
        let mut checker = checker(Durability::Durable);
        deliver(&mut checker, 0, &[0, 1, 2, 3]);
        deliver(&mut checker, 1, &lost);
        assert_eq!(checker.missing(LaneId(1)), 1, "{lost:?}");
    }
}

#[test]
fn a_message_that_comes_twice_is_a_duplicate() {
    check(&[0, 1, 1, 2, 3], Tally { delivered: 4, duplicated: 1, ..Tally::default() });
    check(&[0, 1, 2, 3, 0, 3], Tally { delivered: 4, duplicated: 2, ..Tally::default() });
}

#[test]
fn swapped_messages_are_out_of_order_and_not_lost() {
    check(&[0, 2, 1, 3], Tally { delivered: 4, out_of_order: 1, ..Tally::default() });
}

#[test]
fn a_message_twice_instead_of_another_is_a_duplicate_and_a_loss() {
    check(&[0, 1, 1, 3], Tally { delivered: 3, duplicated: 1, ..Tally::default() });
}

#[test]
fn the_right_messages_in_the_wrong_order_of_another_recipient_are_noticed_too() {
    let mut checker = checker(Durability::Durable);
    deliver(&mut checker, 0, &[1, 0, 2]);
    deliver(&mut checker, 1, &[0, 1, 2]);
    assert!(checker.tally().out_of_order > 0);
}

#[test]
fn a_message_that_the_first_to_be_read_lost_is_found_even_after_its_neighbours_are_forgotten() {
    let mut checker = checker(Durability::Durable);
    checker.stall(LaneId(2));
    for lane in [0, 1] {
        deliver(&mut checker, lane, &[0, 2, 3]);
    }
    assert_eq!((checker.complete(), checker.tally().out_of_order), (3, 2), "seen by nobody, a jump to both");
    deliver(&mut checker, 2, &[0, 1, 2, 3]);
    assert_eq!((checker.complete(), checker.tally()), (1, Tally { delivered: 10, ..Tally::default() }));
    assert_eq!([0, 1, 2].map(|lane| checker.missing(LaneId(lane))), [1, 1, 0]);
}

#[test]
fn a_seq_that_does_not_follow_is_out_of_order() {
    for seq in [CURSOR, CURSOR + 1, CURSOR + 3, 0] {
        let mut checker = checker(Durability::Durable);
        deliver(&mut checker, 0, &[0, 1]);
        deliver(&mut checker, 1, &[0]);
        take(&mut checker, LaneId(1), &frame(1, seq), 2_000, &mut latencies());
        assert_eq!(checker.tally().out_of_order, 1, "seq {seq}");
    }
}

#[test]
fn a_message_of_which_one_byte_differs_is_corrupt() {
    let whole = frame(0, CURSOR + 1);
    let mut harmed = 0;
    for at in 0..whole.len() {
        let mut checker = checker(Durability::Durable);
        deliver(&mut checker, 0, &[0]);
        let mut bytes = whole.clone();
        bytes[at] ^= 0x20;
        take(&mut checker, LaneId(1), &bytes, 2_000, &mut latencies());
        take(&mut checker, LaneId(1), &frame(1, CURSOR + 2), 2_000, &mut latencies());
        let tally = checker.tally();
        let clean = tally.out_of_order + tally.corrupt + tally.duplicated == 0 && checker.missing(LaneId(1)) == 0;
        // Padding and the gateway's time of sending carry nothing that was sent; the rest must be noticed.
        harmed += usize::from(!clean);
    }
    assert!(harmed >= 100 + 8 + 8 + 8, "only {harmed} of {} changed bytes were noticed", whole.len());
}

#[test]
fn a_foreign_message_is_corrupt() {
    let mut checker = checker(Durability::Durable);
    let mut body = [0; 100];
    body::write(Mark { run: RUN + 1, index: 0, sent_ns: 1_000 }, &mut body);
    for (sender, to) in [(SENDER, TO), (UserId(5), TO), (SENDER, Conversation::User(UserId(9)))] {
        let push = PushFrame::encode(MsgId(500), sender, to, 123, &body);
        take(&mut checker, LaneId(0), push.bytes(), 2_000, &mut latencies());
        body::write(Mark { run: RUN, index: 0, sent_ns: 1_000 }, &mut body);
    }
    assert_eq!(checker.tally(), Tally { corrupt: 3, ..Tally::default() });
}

#[test]
fn ephemeral_messages_have_no_number_and_an_order_all_the_same() {
    let mut checker = checker(Durability::Ephemeral);
    for (lane, order) in [(0, [0, 1, 2]), (1, [0, 2, 1])] {
        for index in order {
            take(&mut checker, LaneId(lane), &frame(index, 0), 2_000, &mut latencies());
        }
    }
    assert_eq!(checker.tally(), Tally { delivered: 6, out_of_order: 1, ..Tally::default() });
    take(&mut checker, LaneId(2), &frame(0, 41), 2_000, &mut latencies());
    assert_eq!(checker.tally().out_of_order, 2);
}

#[test]
fn a_stalled_reader_is_not_waited_for_and_then_checked_like_the_others() {
    let mut checker = checker(Durability::Durable);
    checker.stall(LaneId(1));
    deliver(&mut checker, 0, &[0, 1, 2]);
    deliver(&mut checker, 2, &[0, 1, 2]);
    assert_eq!((checker.complete(), checker.missing(LaneId(1))), (3, 3));
    deliver(&mut checker, 1, &[0, 2]);
    assert_eq!(checker.missing(LaneId(1)), 1);
    deliver(&mut checker, 1, &[1]);
    assert_eq!(checker.missing(LaneId(1)), 0);
    assert_eq!(checker.tally(), Tally { delivered: 9, out_of_order: 1, ..Tally::default() });
    checker.rejoin(LaneId(1));
    for lane in 0..RECIPIENTS {
        deliver(&mut checker, lane, &[3]);
    }
    assert_eq!(checker.complete(), 4);
}

#[test]
fn latency_is_from_the_send_stamped_in_the_body() {
    let mut checker = checker(Durability::Durable);
    let mut latency = latencies();
    for lane in 0..RECIPIENTS {
        take(&mut checker, LaneId(lane), &frame(0, CURSOR + 1), 6_000, &mut latency);
    }
    assert_eq!((latency.len(), latency.max()), (3, 5_000 | 3));
}
