//! A node's clock and Redis's: nothing is dated further from Redis's time than may be.

use super::submissions::{TO, clock, later, lookups, named, node, submitted};
use super::world::{Database, NOW, Node, Stream, base_of, origin};
use crate::clock::Now;
use crate::contract::message::Incoming;
use crate::contract::submission::{MessageSubmission, Submission};
use crate::ledger::Engine;
use crate::limits::{CLOCK_JUMP_LASTS_MS, CLOCK_SKEW_MAX_MS, SEQ_JUMP};
use ringway_wire::ids::{ClientMsgId, Conversation, Seq, UserId};
use ringway_wire::schema::ErrorCode;

/// Sends a message; whether Redis is told of it.
fn is_numbered(node: &mut Node, client_msg_id: ClientMsgId) -> bool {
    node.wants.clear();
    node.refused.clear();
    let incoming = Incoming::new(origin(), UserId(1), Conversation::User(UserId(2)), client_msg_id, b"body");
    node.engine.submit(node.now, Submission::Message(MessageSubmission { incoming }));
    node.commit().unwrap();
    let is_numbered = submitted(node).len() == 1;
    assert_eq!(node.refused.as_slice(), if is_numbered { &[][..] } else { &[ErrorCode::RetryLater] });
    is_numbered
}

fn behind(now: Now, ms: u64) -> Now {
    Now { unix_ms: now.unix_ms - ms, ..now }
}

#[test]
fn a_node_whose_clock_is_more_than_a_minute_from_redis_numbers_nothing_and_says_so() {
    let (stream, mut node) = node();
    node.receive(clock(&stream, node.now.unix_ms - CLOCK_SKEW_MAX_MS - 1)).unwrap();
    assert!(node.engine.counters().stands_still.is_some());
    assert!(!is_numbered(&mut node, named(0, 1)));
    node.receive(clock(&stream, node.now.unix_ms + CLOCK_SKEW_MAX_MS)).unwrap();
    assert_eq!(node.engine.counters().stands_still, None);
    assert!(is_numbered(&mut node, named(0, 1)));
}

#[test]
fn a_clock_that_is_put_back_dates_nothing_though_redis_has_not_said_the_time_since() {
    let (_, mut node) = node();
    node.now = behind(later(100), CLOCK_SKEW_MAX_MS + 200);
    assert!(!is_numbered(&mut node, named(CLOCK_SKEW_MAX_MS + 200, 1)));
}

#[test]
fn a_clock_that_is_put_right_dates_nothing_until_it_is_believed() {
    let (stream, mut node) = node();
    let name = named(2 * CLOCK_SKEW_MAX_MS, 1);
    node.now = behind(later(100), 2 * CLOCK_SKEW_MAX_MS);
    node.receive(clock(&stream, later(100).unix_ms)).unwrap();
    for ms in (200..200 + CLOCK_JUMP_LASTS_MS).step_by(1_000) {
        node.now = later(ms);
        node.receive(clock(&stream, node.now.unix_ms)).unwrap();
        assert!(!is_numbered(&mut node, name), "{ms}: it would be dated two minutes back");
    }
    node.now = later(200 + CLOCK_JUMP_LASTS_MS);
    node.commit().unwrap();
    assert!(is_numbered(&mut node, named(0, 2)));
}

#[test]
fn a_name_that_a_node_whose_clock_is_ahead_has_stored_before_the_ledger_was_made_is_looked_for() {
    let mut stream = Stream::begin(2, Seq(SEQ_JUMP), 0);
    stream.found.since_ms = NOW.unix_ms;
    // By the clock of the node that has numbered it, which was ahead of Redis's by as much as it may be.
    let ahead_ms = CLOCK_SKEW_MAX_MS - 1_000;
    let database = Database { at: base_of(2), newest_ms: NOW.unix_ms + ahead_ms, ..Database::default() };
    let mut node = Node::start(1, 1, &database);
    node.receive(stream.status()).unwrap();
    node.now = later(ahead_ms);
    node.wants.clear();
    let name = ClientMsgId::from_parts(NOW.unix_ms + ahead_ms, 1 << 16);
    let incoming = Incoming::new(origin(), UserId(1), TO, name, b"body");
    node.engine.submit(node.now, Submission::Message(MessageSubmission { incoming }));
    node.commit().unwrap();
    assert_eq!((lookups(&mut node).len(), submitted(&mut node).len()), (1, 0));
}
