#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::net::{Ipv4Addr, SocketAddr};

use super::*;
use crate::soak::assignment::Counts;
use crate::soak::dial::Dialer;
use crate::tokens::Secret;
use ringway_wire::ids::{MsgId, Seq, UserId};

const BODY_BYTES: usize = 20;

/// Ten clients without sockets: what they send is lost, and what comes for them is made by the test.
struct Scene {
    messages: Messages,
    clients: Clients,
    swarm: Swarm,
    assignment: Assignment,
}

impl Scene {
    fn new() -> Scene {
        let clock = Clock::start();
        let counts = Counts { first_user: 100, connections: 10, processes: 1, groups: 0, members: 0 };
        let assignment = Assignment::new(counts, 0);
        let nowhere = Dialer::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), Vec::new());
        let clients = Clients::new(assignment, nowhere, Secret(vec![0; 32]), None, clock);
        let messages = Messages::new(assignment, 7, BODY_BYTES, clock);
        Scene { messages, clients, swarm: Swarm::new(clock).unwrap(), assignment }
    }

    fn are_live(&mut self, clients: &[u32]) {
        clients.iter().for_each(|client| self.messages.is_live(*client));
    }

    /// Sends one message; who sends, and to whom.
    fn say(&mut self) -> (u32, u32) {
        self.messages.say(&self.clients, &mut self.swarm);
        let sent = self.messages.sent.last().unwrap();
        (sent.from, sent.to)
    }

    /// The push of message `index` comes to `client`, as from `from`.
    fn push(&mut self, index: u32, from: u32, client: u32) {
        let mut body = [0; BODY_BYTES];
        body::write(Mark { run: 7, index, sent_ns: 0 }, &mut body);
        self.push_body(&body, from, client);
    }

    fn push_body(&mut self, body: &[u8], from: u32, client: u32) {
        let (sender, to) = (self.assignment.user(from), Conversation::User(UserId(0)));
        let push = PushView { seq: Seq(1), msg_id: MsgId(1), sender, to, sent_at_ms: 0, body };
        self.messages.arrived(client, &push, u64::MAX / 2);
    }
}

#[test]
fn messages_go_only_between_two_who_are_logged_in() {
    let mut scene = Scene::new();
    scene.are_live(&[1, 4, 6, 9]);
    scene.messages.is_live(4);
    scene.messages.is_gone(1);
    scene.messages.is_gone(1);
    scene.messages.is_gone(2);
    for _ in 0..200 {
        let (from, to) = scene.say();
        assert!(from != to && [4, 6, 9].contains(&from) && [4, 6, 9].contains(&to), "{from} to {to}");
    }
    scene.messages.nobody_is_live();
    scene.messages.is_live(3);
    let sent = scene.messages.sent();
    scene.messages.start(1e9);
    scene.messages.turn(&scene.clients, &mut scene.swarm);
    assert_eq!(scene.messages.sent(), sent, "one alone has nobody to send to");
}

#[test]
fn a_message_is_through_when_it_is_acked_and_has_arrived_and_only_once() {
    let mut scene = Scene::new();
    scene.are_live(&[0, 1]);
    let (from, to) = scene.say();
    assert_eq!((scene.messages.open(), scene.messages.unacked(), scene.messages.lost()), (2, 1, 0));
    scene.messages.acked(from, RequestId(1), 5);
    assert_eq!((scene.messages.open(), scene.messages.unacked(), scene.messages.lost()), (1, 0, 1));
    scene.push(0, from, to);
    assert_eq!((scene.messages.open(), scene.messages.unacked(), scene.messages.lost()), (0, 0, 0));
    scene.push(0, from, to);
    scene.messages.acked(from, RequestId(1), 5);
    assert_eq!((scene.messages.duplicated, scene.messages.corrupt, scene.messages.open()), (2, 0, 0));
    let (delivery, ack) = scene.messages.take_latencies();
    assert_eq!((delivery.len(), ack.len()), (1, 1));
    assert_eq!(scene.messages.take_latencies().0.len(), 0);
}

#[test]
fn what_was_never_sent_to_whom_it_comes_is_corrupt() {
    let mut scene = Scene::new();
    scene.are_live(&[0, 1]);
    let (from, to) = scene.say();
    scene.push(0, from, 5);
    scene.push(0, 5, to);
    scene.push(1, from, to);
    scene.push_body(&[0; BODY_BYTES], from, to);
    scene.messages.acked(to, RequestId(1), 5);
    scene.messages.acked(from, RequestId(2), 5);
    assert_eq!((scene.messages.corrupt, scene.messages.open()), (6, 2));
    // The row of a client's own message is none of these.
    scene.push(0, from, from);
    assert_eq!(scene.messages.corrupt, 6);
}

#[test]
fn a_refused_message_is_given_up_and_never_acked() {
    let mut scene = Scene::new();
    scene.are_live(&[0, 1]);
    let (from, _) = scene.say();
    scene.messages.refused(from, RequestId(1), ErrorCode::RetryLater);
    assert_eq!((scene.messages.open(), scene.messages.unacked(), scene.messages.lost()), (0, 1, 0));
    assert_eq!(scene.messages.refusals.get("RetryLater"), Some(&1));
}
