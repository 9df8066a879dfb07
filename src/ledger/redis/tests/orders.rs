//! What the engine asks of Redis's thread, whatever room there is for it.

use super::world::{Database, NOW, Node, Stream, origin};
use crate::contract::message::Incoming;
use crate::contract::report::StandsStill;
use crate::contract::submission::{MessageSubmission, Submission};
use crate::contract::traffic::TrafficLimits;
use crate::ledger::Engine;
use crate::ledger::redis::link::{News, What};
use crate::ledger::redis::seed::base_of;
use crate::limits::{CALL_SUBMISSIONS_MAX, LINK_ORDERS_MAX};
use ringway_wire::ids::{ClientMsgId, Conversation, Seq, UserId};

/// A node that follows an empty ledger.
fn node() -> (Stream, Node) {
    let stream = Stream::begin(1, Seq(0), 0);
    let mut node = Node::start(1, 1, &Database { at: base_of(1).0, ..Database::default() });
    node.receive(stream.status()).unwrap();
    node.wants.clear();
    (stream, node)
}

/// A commit during which nobody takes orders.
fn commit_alone(node: &mut Node) {
    node.engine.commit(node.now, &mut [Vec::new()]).unwrap();
}

#[test]
fn a_session_begins_though_the_channel_is_full_of_orders_of_the_last_one() {
    let (stream, mut node) = node();
    node.engine.settings.traffic = TrafficLimits::UNLIMITED;
    for number in 0..=(LINK_ORDERS_MAX * CALL_SUBMISSIONS_MAX) as u64 {
        let client_msg_id = ClientMsgId::from_parts(NOW.unix_ms, u128::from(number) << 16);
        let incoming =
            Incoming::new(origin(), UserId(1_000 + number), Conversation::User(UserId(1)), client_msg_id, b"body");
        node.engine.submit(NOW, Submission::Message(MessageSubmission { incoming }));
    }
    // Redis stands still, the connection fails, and the next session begins before anybody has taken what is of the last.
    commit_alone(&mut node);
    node.redis.notify(News::Disconnected).unwrap();
    node.redis.notify(News::Status { session: 2, found: Some(stream.found.clone()), highest: 1 }).unwrap();
    commit_alone(&mut node);
    let mut of_last = 0;
    while let Ok(order) = node.redis.orders.try_recv() {
        assert_eq!(order.session, 1);
        of_last += 1;
    }
    assert_eq!(of_last, LINK_ORDERS_MAX, "there was no room");
    node.commit().unwrap();
    assert!(
        matches!(node.wants[..], [What::Follow { .. }, What::Submit { .. }, ..]),
        "what is to be followed goes first"
    );
}

#[test]
fn why_there_is_no_session_is_not_told_of_one_before() {
    let (stream, mut node) = node();
    node.receive(News::Disconnected).unwrap();
    node.receive(News::NoSession(StandsStill::NoMemory)).unwrap();
    assert_eq!(node.engine.counters().stands_still, Some(StandsStill::NoMemory));
    node.receive(stream.status()).unwrap();
    assert_eq!(node.engine.counters().stands_still, None);
    node.receive(News::Disconnected).unwrap();
    assert_eq!(node.engine.counters().stands_still, Some(StandsStill::Disconnected));
    node.receive(stream.status()).unwrap();
    node.receive(News::OtherGeneration).unwrap();
    assert_eq!(node.engine.counters().stands_still, Some(StandsStill::Rebuilding), "Redis answers");
}
