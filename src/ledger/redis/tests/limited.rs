//! Rows are limited by the node that submits, before anything is written down.

use super::world::{Database, NOW, Node, Stream, origin};
use crate::contract::message::Incoming;
use crate::contract::position::{JournalPosition, StreamPosition};
use crate::contract::store::{LookupAnswer, LookupFound};
use crate::contract::submission::{MessageSubmission, Submission};
use crate::contract::traffic::{TrafficLimit, TrafficLimits};
use crate::ledger::Engine;
use crate::ledger::redis::link::News;
use crate::ledger::redis::seed::base_of;
use crate::limits::{SUBMISSIONS_IN_FLIGHT_ACCOUNT_MAX, SUBMISSIONS_IN_FLIGHT_MAX};
use crate::rate::Rate;
use ringway_wire::ids::{ClientMsgId, Conversation, Seq, UserId};
use ringway_wire::schema::ErrorCode;

fn send(node: &mut Node, name: u128, to: Conversation) {
    send_of(node, UserId(1), name, to);
}

fn send_of(node: &mut Node, sender: UserId, name: u128, to: Conversation) {
    let client_msg_id = ClientMsgId::from_parts(NOW.unix_ms, name << 16);
    let incoming = Incoming::new(origin(), sender, to, client_msg_id, b"body");
    let submission = MessageSubmission { incoming };
    node.engine.submit(node.now, Submission::Message(submission));
}

/// A node that numbers, with these limits, and its stream.
fn numbering(traffic: TrafficLimits) -> (Stream, Node) {
    let stream = Stream::begin(1, Seq(0), 0);
    let mut node = Node::start(1, 1, &Database { at: base_of(1).0, ..Database::default() });
    node.engine.settings.traffic = traffic;
    node.receive(stream.status()).unwrap();
    let generation = stream.found.there.text();
    node.receive(News::Clock { generation, count: stream.found.count, redis_ms: NOW.unix_ms }).unwrap();
    (stream, node)
}

#[test]
fn who_has_much_on_its_way_to_redis_leaves_room_for_the_others() {
    let (_, mut node) = numbering(TrafficLimits::UNLIMITED);
    let to = Conversation::User(UserId(9));
    for name in 0..SUBMISSIONS_IN_FLIGHT_MAX as u128 {
        send_of(&mut node, UserId(1), name, to);
        if name % 1_000 == 0 {
            node.commit().unwrap();
        }
    }
    send_of(&mut node, UserId(2), 1, to);
    node.commit().unwrap();
    assert_eq!(node.engine.submitter.check(), SUBMISSIONS_IN_FLIGHT_ACCOUNT_MAX + 1);
    assert_eq!(node.refused.len(), SUBMISSIONS_IN_FLIGHT_MAX - SUBMISSIONS_IN_FLIGHT_ACCOUNT_MAX);
    assert!(node.refused.iter().all(|code| *code == ErrorCode::RetryLater));
}

#[test]
fn who_floods_while_the_database_is_away_has_a_share_of_what_may_be_unstored() {
    let (mut stream, mut node) = numbering(TrafficLimits { user_unstored_percent: 25, ..TrafficLimits::UNLIMITED });
    node.engine.settings.entries_max = 100;
    let (flood, other) = (UserId(1), UserId(2));
    let to = Conversation::User(UserId(9));
    // The store is behind: more than an eighth waits for it.
    node.progress.report_tail_messages(13, JournalPosition(0));
    let from = stream.found.count;
    (0..24).for_each(|_| stream.direct(flood.0, 9));
    node.follow(&stream, from).unwrap();
    send_of(&mut node, flood, 1, to);
    node.commit().unwrap();
    assert_eq!(node.refused, [], "a quarter of a hundred");
    let from = stream.found.count;
    stream.direct(flood.0, 9);
    node.follow(&stream, from).unwrap();
    send_of(&mut node, flood, 2, to);
    send_of(&mut node, other, 3, to);
    node.commit().unwrap();
    assert_eq!(node.refused, [ErrorCode::RetryLater]);
    assert_eq!(node.engine.counters().limited.of(TrafficLimit::UserUnstored), 1);
    // The store has all of it.
    node.progress.advance_applied(StreamPosition(stream.found.count).into());
    node.progress.report_tail_messages(0, JournalPosition(0));
    send_of(&mut node, flood, 2, to);
    node.commit().unwrap();
    assert_eq!(node.refused.len(), 1);
    assert_eq!(node.engine.submitter.check(), 3);
}

#[test]
fn rows_and_what_waited_for_the_store_are_said_to_whoever_gives_turns() {
    let (_, mut node) = numbering(TrafficLimits::UNLIMITED);
    let to = Conversation::User(UserId(9));
    send(&mut node, 1, to);
    assert_eq!(node.engine.staged_rows(), 2);
    let long_ago = ClientMsgId::from_parts(NOW.unix_ms - 3_600_000, 7);
    let incoming = Incoming::new(origin(), UserId(3), to, long_ago, b"body");
    node.engine.submit(node.now, Submission::Message(MessageSubmission { incoming }));
    node.commit().unwrap();
    assert_eq!(node.engine.staged_rows(), 0);
    let (mut lookups, mut released) = (Vec::new(), Vec::new());
    node.engine.take_lookups(&mut lookups);
    node.engine.found(node.now, LookupAnswer { lookup: lookups[0], found: LookupFound::Nothing });
    node.engine.take_released(&mut released);
    assert_eq!(released, [(UserId(3), 3)], "a message, and two rows");
}

#[test]
fn what_a_sender_may_not_send_now_is_refused_and_not_submitted() {
    let (_, mut node) = numbering(TrafficLimits { user_rows: Rate::new(2, 5), ..TrafficLimits::UNLIMITED });
    let (other, oneself) = (Conversation::User(UserId(2)), Conversation::User(UserId(1)));
    for (name, to) in [(1, other), (2, other), (3, other), (4, oneself), (5, oneself)] {
        send(&mut node, name, to);
    }
    node.commit().unwrap();
    assert_eq!(node.refused, [ErrorCode::RetryLater; 2], "two rows each, and one to oneself: five");
    assert_eq!(node.engine.submitter.check(), 3);
    assert_eq!(node.engine.counters().limited.of(TrafficLimit::UserRows), 2);
    node.now.mono_ms += 1_000;
    send(&mut node, 3, other);
    node.commit().unwrap();
    assert_eq!(node.engine.submitter.check(), 4);
}
