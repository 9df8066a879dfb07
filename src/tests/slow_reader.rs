//! One member of 300 stops reading in a flood: the others do not notice, the gateway's memory stays, and when it
//! reads again it receives everything in order.

use std::time::Duration;

use ringway::limits::OUTBOX_BYTES_MAX;
use ringway_client::Event;
use ringway_wire::frame::Encoder;
use ringway_wire::ids::{Conversation, DeviceId, GroupId, Seq, UserId};
use ringway_wire::request::Reply;
use socket2::{Domain, Socket, Type};

use crate::connection::Connection;
use crate::frames::Frames;
use crate::gateway::{Gateway, PATIENCE, UNLIMITED, pause, token};

const MEMBERS: u64 = 300;
/// A flood comes in waves: everybody who reads has read one before the next is sent.
const WAVE_MESSAGES: u64 = 100;
/// Together more than the kernel's socket buffers take on loopback, so that the outbox must fill.
const WAVES: usize = 30;
const BODY_BYTES: usize = 4_000;
/// What a flood may add when the caches are full: allocations that come and go. Two floods kept for one member are
/// 24 MB, less the few that the kernel's socket buffers take.
const NOISE_BYTES: u64 = 4 << 20;
/// Floods after which the store's caches must be full.
const FLOODS_MAX: usize = 20;

#[test]
fn a_stalled_member_neither_delays_the_others_nor_grows_memory_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // On a slow machine it must not be time that closes a connection.
    let patient = ["--shards", "1", "--set", "session.stall_timeout_s=3600", "--set", "session.heartbeat_s=3600"];
    let mut gateway = Gateway::spawn(dir.path(), Gateway::command(dir.path(), &patient).envs(UNLIMITED));
    let mut sender = gateway.client(1, 1, None);
    let others: Vec<UserId> = (2..=MEMBERS).map(UserId).collect();
    let (group, _) = sender.group_create(&others, PATIENCE).unwrap();
    let mut stalled = small_window(&gateway);
    let mut reading: Vec<Connection> = (3..=12).map(|user| gateway.client(user, 1, None)).collect();

    // Floods in which everybody reads, until two no longer add anything: the process has its size.
    let mut rows = 0;
    let mut flood = |mut stalled: Option<&mut Connection>| {
        let before = gateway.memory_bytes();
        for _ in 0..WAVES {
            wave(&mut sender, group);
            rows += WAVE_MESSAGES;
            for client in reading.iter_mut().chain(stalled.as_deref_mut()) {
                read_all(client, rows);
            }
        }
        gateway.memory_bytes().saturating_sub(before)
    };
    let settled = (0..FLOODS_MAX).any(|_| (0..2).all(|_| flood(Some(&mut stalled)) < NOISE_BYTES));
    assert!(settled, "after {FLOODS_MAX} floods that everybody read, the gateway still grows");

    let grown = flood(None) + flood(None);
    assert!(
        grown < OUTBOX_BYTES_MAX as u64 + 2 * NOISE_BYTES,
        "the gateway grew by {grown} bytes while one member did not read"
    );
    gateway.wait_until("the stalled member, and nobody else, is behind", |gateway| {
        gateway.admin_page("/metrics").contains("ringway_sessions_behind{shard=\"0\"} 1\n")
    });
    read_all(&mut stalled, rows);
    // And it is live again.
    let id = sender.new_client_msg_id();
    sender.send(Conversation::Group(group), id, b"live").unwrap();
    read_all(&mut stalled, rows + 1);
}

/// What the slow but steady member reads at once, and how often: 20 KB a second.
const SIP_BYTES: usize = 2_000;
const SIP_EVERY: Duration = Duration::from_millis(100);

#[test]
fn a_slow_but_steady_reader_is_not_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let settings = ["--shards", "1", "--set", "session.stall_timeout_s=4", "--set", "session.heartbeat_s=3600"];
    let gateway = Gateway::start(dir.path(), &settings);
    let mut sender = gateway.client(1, 1, None);
    // More than the kernel's buffers and the outbox together.
    const MESSAGES: u64 = 3_000;
    for _ in 0..MESSAGES / WAVE_MESSAGES {
        for _ in 0..WAVE_MESSAGES {
            let id = sender.new_client_msg_id();
            sender.send(Conversation::User(UserId(2)), id, &[b's'; BODY_BYTES]).unwrap();
        }
        let mut acks = 0;
        while acks < WAVE_MESSAGES {
            acks += acked(&mut sender);
        }
    }
    // All of it waits when the slow one comes.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    socket.connect(&gateway.addr().into()).unwrap();
    let mut slow = Frames::over(socket.into());
    slow.send(Encoder::new().login(1, &token(2, 1), DeviceId(1), Some(Seq(0))));
    slow.next(|_, reply| assert!(matches!(reply, Reply::LoginOk { .. }), "{reply:?}"));
    // Four times as long as a stalled connection lives.
    for _ in 0..160 {
        slow.read_some(SIP_BYTES);
        pause(SIP_EVERY);
    }
    // Then it reads as fast as it can, and has missed nothing.
    for expected in 1..=MESSAGES {
        slow.next(|_, reply| match reply {
            Reply::Push(push) => assert_eq!(push.seq, Seq(expected)),
            other => panic!("row {expected}: {other:?}"),
        });
    }
}

/// User 2, on a socket that takes little while it is not read.
fn small_window(gateway: &Gateway) -> Connection {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    socket.connect(&gateway.addr().into()).unwrap();
    let mut client = Connection::over(socket.into()).unwrap();
    client.login(&token(2, 1), DeviceId(1), None, PATIENCE).unwrap();
    client
}

/// Sends so many messages and waits until they are stored.
fn wave(sender: &mut Connection, group: GroupId) {
    for _ in 0..WAVE_MESSAGES {
        let id = sender.new_client_msg_id();
        sender.send(Conversation::Group(group), id, &[b'f'; BODY_BYTES]).unwrap();
    }
    let mut acks = 0;
    while acks < WAVE_MESSAGES {
        acks += acked(sender);
    }
}

fn acked(sender: &mut Connection) -> u64 {
    match sender.next(PATIENCE).unwrap().expect("an answer in time") {
        Event::Sent { .. } => 1,
        Event::GroupChanged { .. } => 0,
        other => panic!("{other:?}"),
    }
}

/// Reads until the cursor is at `newest`; the client itself refuses a hole, a repeat or another order.
fn read_all(client: &mut Connection, newest: u64) {
    while client.cursor() < Seq(newest) {
        match client.next(PATIENCE).unwrap().expect("the next row in time") {
            Event::Row(_) | Event::GroupChanged { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(client.cursor(), Seq(newest));
}
