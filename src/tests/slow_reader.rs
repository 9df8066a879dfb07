//! One member of 300 stops reading in a flood: the others do not notice, the gateway's memory stays, and when it
//! reads again it receives everything in order.

use std::time::Duration;

use ringway::ids::{Conversation, DeviceId, GroupId, Seq, UserId};
use ringway::limits::OUTBOX_BYTES_MAX;
use ringway::load::client::{Client, Said};
use socket2::{Domain, Socket, Type};

use crate::gateway::{Gateway, PATIENCE, token};

const MEMBERS: u64 = 300;
/// More than the kernel's socket buffers take on loopback, so that the outbox must fill.
const MESSAGES: usize = 3_000;
const BODY_BYTES: usize = 4_000;
/// What two like floods may differ by for other reasons: SQLite's cache, and when the store gets round to it.
const NOISE_BYTES: u64 = 8 << 20;

#[test]
fn a_stalled_member_neither_delays_the_others_nor_grows_memory_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "1"]);
    let mut sender = gateway.client(1, 1, None);
    let others: Vec<UserId> = (2..=MEMBERS).map(UserId).collect();
    let (group, _) = sender.group_create(&others, PATIENCE).unwrap();
    let mut stalled = small_window(&gateway);
    let mut reading: Vec<Client> = (3..=12).map(|user| gateway.client(user, 1, None)).collect();

    // Two floods in which everybody reads: the first brings the process to its size, the second tells how much a
    // flood adds to that anyway.
    let mut rows = 0;
    let mut grown = Vec::new();
    for stalls in [false, false, true] {
        let before = gateway.resident_bytes();
        flood(&mut sender, group);
        rows += MESSAGES as u64;
        for client in &mut reading {
            read_all(client, rows);
        }
        grown.push(gateway.resident_bytes().saturating_sub(before));
        if !stalls {
            read_all(&mut stalled, rows);
        }
    }
    println!("grown by {grown:?} bytes in each flood");
    assert!(
        grown[2] <= grown[1] + OUTBOX_BYTES_MAX as u64 + NOISE_BYTES,
        "the gateway grew by {} bytes while one member did not read, by {} when all did",
        grown[2],
        grown[1],
    );
    read_all(&mut stalled, rows);
    // And it is live again.
    let id = sender.new_client_msg_id();
    sender.send(Conversation::Group(group), id, b"live", false).unwrap();
    read_all(&mut stalled, rows + 1);
}

/// User 2, on a socket that takes little while it is not read.
fn small_window(gateway: &Gateway) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    socket.connect(&gateway.addr().into()).unwrap();
    let mut client = Client::over(socket.into()).unwrap();
    client.login(&token(2, 1), DeviceId(1), None, PATIENCE).unwrap();
    client
}

fn flood(sender: &mut Client, group: GroupId) {
    let mut waiting = 0;
    for _ in 0..MESSAGES {
        let id = sender.new_client_msg_id();
        sender.send(Conversation::Group(group), id, &[b'f'; BODY_BYTES], false).unwrap();
        waiting += 1;
        while waiting > 100 {
            waiting -= acked(sender, PATIENCE);
        }
    }
    while waiting > 0 {
        waiting -= acked(sender, PATIENCE);
    }
}

fn acked(sender: &mut Client, patience: Duration) -> usize {
    match sender.next(patience).unwrap().expect("an answer in time") {
        Said::Sent { .. } => 1,
        Said::GroupChanged { .. } => 0,
        other => panic!("{other:?}"),
    }
}

/// Reads until the cursor is at `newest`; the client itself refuses a hole, a repeat or another order.
fn read_all(client: &mut Client, newest: u64) {
    while client.cursor() < Seq(newest) {
        match client.next(PATIENCE).unwrap().expect("the next row in time") {
            Said::Row(_) | Said::GroupChanged { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(client.cursor(), Seq(newest));
}
