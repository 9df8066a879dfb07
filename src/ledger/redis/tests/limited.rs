//! Rows are limited by the node that submits, before anything is written down.

use super::world::{Database, NOW, Node, Stream, origin};
use crate::contract::message::Incoming;
use crate::contract::submission::{MessageSubmission, Submission};
use crate::contract::traffic::{TrafficLimit, TrafficLimits};
use crate::ledger::Engine;
use crate::ledger::redis::link::News;
use crate::ledger::redis::seed::base_of;
use crate::rate::Rate;
use ringway_wire::ids::{ClientMsgId, Conversation, Seq, UserId};
use ringway_wire::schema::ErrorCode;

fn send(node: &mut Node, name: u128, to: Conversation) {
    let client_msg_id = ClientMsgId::from_parts(NOW.unix_ms, name << 16);
    let incoming = Incoming::new(origin(), UserId(1), to, client_msg_id, b"body");
    let submission = MessageSubmission { incoming };
    node.engine.submit(node.now, Submission::Message(submission));
}

#[test]
fn what_a_sender_may_not_send_now_is_refused_and_not_submitted() {
    let stream = Stream::begin(1, Seq(0), 0);
    let mut node = Node::start(1, 1, &Database { at: base_of(1).0, ..Database::default() });
    node.engine.settings.traffic = TrafficLimits { user_rows: Rate::new(2, 5), ..TrafficLimits::UNLIMITED };
    node.receive(stream.status()).unwrap();
    let generation = stream.found.there.text();
    node.receive(News::Clock { generation, count: stream.found.count, redis_ms: NOW.unix_ms }).unwrap();
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
