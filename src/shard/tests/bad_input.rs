//! What is not Ringway's protocol, and WebSocket, which carries it.

use super::closing;
use super::world::{Got, World};
use crate::contract::lane::Transport;
use ringway_wire::frame::Encoder;
use ringway_wire::ids::{Conversation, DeviceId, Seq, UserId};
use ringway_wire::request::Durability;
use ringway_wire::schema::CloseReason;

fn check(bytes: &[u8], expected: CloseReason) {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.send_bytes(client, bytes);
    world.settle();
    assert_eq!(closing(&world.got(client)), Some(expected));
    assert!(!world.is_open(client));
    assert_eq!(world.shards[0].counters().connections, 0);
}

#[test]
fn tls_garbage_and_frames_over_the_limit_are_told_what_they_are() {
    check(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03], CloseReason::NotRingway);
    check(&[0xff; 64], CloseReason::FrameTooLarge);
    check(&[8, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8], CloseReason::BadFrame);
    check(&[0, 0, 0, 0], CloseReason::BadFrame);
}

#[test]
fn plain_http_gets_an_http_answer() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.send_bytes(client, b"GET / HTTP/1.1\r\nHost: x\r\n");
    world.settle();
    assert!(world.is_open(client), "the head is not complete");
    world.send_bytes(client, b"\r\n");
    world.settle();
    assert!(world.clients[client.0].raw.starts_with(b"HTTP/1.1 4"));
    assert!(!world.is_open(client));
    assert_eq!(world.shards[0].counters().closes_total[usize::from(CloseReason::NotRingway.0)], 1);
}

#[test]
fn a_bad_frame_after_login_closes_too() {
    let mut world = World::new(1);
    let client = world.login(5, 1, Some(0));
    world.send_bytes(client, &[8, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    world.settle();
    assert_eq!(closing(&world.got(client)), Some(CloseReason::BadFrame));
    assert_eq!(world.shards[0].counters().sessions, 0);
}

#[test]
fn frames_cut_at_any_byte_are_understood_all_the_same() {
    let mut encoder = Encoder::new();
    for step in 1..40 {
        let mut world = World::new(1);
        let client = world.connect(0);
        let mut bytes = encoder.login(1, &world.token(5, None), DeviceId(1), Some(Seq(0))).to_vec();
        for request in 2..10 {
            bytes.extend_from_slice(encoder.ping(request));
        }
        for piece in bytes.chunks(step) {
            world.send_bytes(client, piece);
            world.settle();
        }
        let expected: Vec<Got> =
            [Got::LoginOk { last: 0, from: 0 }].into_iter().chain((2..10).map(Got::Pong)).collect();
        assert_eq!(world.got(client), expected);
    }
}

/// One masked client message.
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match payload.len() {
        len @ 0..126 => bytes.push(0x80 | len as u8),
        len => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(len as u16).to_be_bytes());
        }
    }
    let mask = [1, 2, 3, 4];
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    bytes
}

/// Server messages: opcode and payload.
fn unwrapped(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    while let [first, len, rest @ ..] = bytes {
        let (len, rest) = match *len {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            127 => (u64::from_be_bytes(rest[..8].try_into().unwrap()) as usize, &rest[8..]),
            len => (usize::from(len), rest),
        };
        all.push((first & 0x0f, rest[..len].to_vec()));
        bytes = &rest[len..];
    }
    all
}

const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[test]
fn a_websocket_carries_frames_both_ways_over_a_hand_over() {
    let mut world = World::new(2);
    let user = world.user_on(1, 0);
    let client = world.connect(0);
    let mut encoder = Encoder::new();
    let mut bytes = UPGRADE.to_vec();
    bytes.extend(masked(2, encoder.login(1, &world.token(user, None), DeviceId(1), Some(Seq(0)))));
    bytes.extend(masked(9, b"are you there"));
    bytes.extend(masked(2, encoder.ping(2)));
    for piece in bytes.chunks(50) {
        world.send_bytes(client, piece);
        world.settle();
    }
    let sender = world.login(world.user_on(0, 0), 1, Some(0));
    for len in [10, 300, 5_000] {
        world.send_to(sender, 1, Conversation::User(UserId(user)), &vec![b'w'; len]);
    }
    world.settle();
    let raw = &world.clients[client.0].raw;
    let head = raw.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    assert!(raw.starts_with(b"HTTP/1.1 101"));
    let messages = unwrapped(&raw[head..]);
    let kinds: Vec<u8> = messages.iter().map(|message| message.0).collect();
    assert_eq!(kinds, [2, 10, 2, 2, 2, 2]);
    assert_eq!(messages[1].1, b"are you there");
    let lens: Vec<usize> = messages[3..].iter().map(|message| message.1.len()).collect();
    assert!(lens[0] < 200 && lens[1] > 300 && lens[2] > 5_000);
    for (_, frame) in messages.iter().filter(|message| message.0 == 2) {
        assert_eq!(u32::from_le_bytes(frame[..4].try_into().unwrap()) as usize + 4, frame.len());
    }
}

#[test]
fn a_handshake_that_was_not_written_yet_travels_with_the_connection() {
    let mut world = World::new(2);
    let user = world.user_on(1, 0);
    let client = world.connect(0);
    let login = masked(2, Encoder::new().login(1, &world.token(user, None), DeviceId(1), Some(Seq(0))));
    world.send_bytes(client, &[UPGRADE, &login].concat());
    let handed = &world.shards[0].effects().handovers[0].2;
    assert_eq!(handed.transport, Transport::WebSocket);
    assert!(handed.unsent.starts_with(b"HTTP/1.1 101"));
    world.settle();
    assert!(world.clients[client.0].raw.starts_with(b"HTTP/1.1 101"));
}

#[test]
fn a_websocket_that_closes_or_sends_text_is_closed_in_its_own_way() {
    for (message, reason) in
        [(masked(8, &[3, 232]), CloseReason::PeerClosed), (masked(1, b"hi"), CloseReason::BadFrame)]
    {
        let mut world = World::new(1);
        let client = world.connect(0);
        world.send_bytes(client, UPGRADE);
        world.settle();
        world.send_bytes(client, &message);
        world.settle();
        let raw = &world.clients[client.0].raw;
        let head = raw.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        assert_eq!(unwrapped(&raw[head..]).last().unwrap().0, 8, "the last message is a close");
        assert!(!world.is_open(client));
        assert_eq!(world.shards[0].counters().closes_total[usize::from(reason.0)], 1);
    }
}

#[test]
fn no_bytes_whatever_make_the_core_panic() {
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..2_000 {
        let mut world = World::new(1);
        let client = if random.bool() { world.login(5, 1, Some(0)) } else { world.connect(0) };
        let mut bytes =
            Encoder::new().send(1, Conversation::User(UserId(5)), world.name(), b"body", Durability::Durable).to_vec();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(0..bytes.len());
            bytes[at] = random.u8(..);
        }
        world.send_bytes(client, &bytes);
        world.settle();
    }
}
