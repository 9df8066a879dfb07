use std::sync::Arc;

use super::*;
use crate::contract::ids::{ConnId, SessionRef};
use crate::contract::message::Incoming;
use ringway_wire::ids::{ClientMsgId, Conversation, MsgId, Seq, UserId};
use ringway_wire::schema::ErrorCode;

fn sent_at(shard: u16, asked_us: u64) -> Delivery {
    let mut origin = Origin::new(SessionRef { shard: ShardId(shard), conn: ConnId::default() }, 1);
    origin.handed_on(asked_us);
    direct(origin)
}

fn direct(origin: Origin) -> Delivery {
    let to = Conversation::User(UserId(2));
    let incoming = Incoming::new(origin, UserId(1), to, ClientMsgId::default(), b"hello");
    let message = Arc::new(incoming.numbered(MsgId(1)));
    Delivery::Direct { message, sender_seq: Seq(1), recipient_seq: Seq(1), origin }
}

#[test]
fn a_message_is_measured_when_what_it_was_put_into_is_written_and_only_once() {
    let (mut unwritten, mut counters) = (Unwritten::default(), ShellCounters::default());
    let refused = Delivery::Refused { origin: Origin::default(), code: ErrorCode::RetryLater, retry_after_ms: 1 };
    unwritten.begin(&[sent_at(0, 1_000), refused, sent_at(1, 2_000)]);
    unwritten.written(5_000, ShardId(0), &mut counters);
    assert_eq!(counters.deliveries.count(), 0, "nothing of it was handed in yet");
    unwritten.taken_but(1);
    unwritten.written(5_000, ShardId(0), &mut counters);
    assert_eq!((counters.deliveries.count(), counters.deliveries.sum_us()), (1, 4_000));
    unwritten.taken_but(0);
    unwritten.written(6_000, ShardId(0), &mut counters);
    assert_eq!((counters.deliveries.count(), counters.deliveries.sum_us()), (2, 8_000));
    assert_eq!((counters.acks.count(), counters.acks.sum_us()), (1, 4_000), "the other one's sender is elsewhere");
    unwritten.written(7_000, ShardId(0), &mut counters);
    assert_eq!(counters.deliveries.count(), 2);
}

#[test]
fn what_nobody_timed_is_not_measured() {
    let (mut unwritten, mut counters) = (Unwritten::default(), ShellCounters::default());
    unwritten.begin(&[direct(Origin::NOBODY)]);
    unwritten.taken_but(0);
    unwritten.written(6_000, ShardId(0), &mut counters);
    assert_eq!(counters, ShellCounters::default());
}

#[test]
fn a_latency_is_right_while_the_clock_s_lower_half_wraps() {
    let mut origin = Origin::new(SessionRef::default(), 1);
    origin.handed_on((1 << 32) - 10);
    assert_eq!(origin.waited_us((1 << 32) + 15), Some(25));
}
