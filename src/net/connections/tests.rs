#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::fs::File;
use std::os::fd::AsRawFd;

use super::*;

/// Any descriptor.
fn socket() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

fn conn(slot: u32, generation: u32) -> ConnId {
    ConnId { slot, generation }
}

#[test]
fn an_old_generation_finds_nothing() {
    let mut connections = Connections::default();
    let taken = socket();
    let descriptor = taken.as_raw_fd();
    connections.insert(conn(5_000, 1), Connection::new(taken, conn(5_000, 1), Line::Login));
    assert!(connections.get(conn(5_000, 0)).is_none());
    assert!(connections.get(conn(5_001, 1)).is_none());
    assert!(connections.get(conn(1 << 30, 1)).is_none());
    assert_eq!(connections.get(conn(5_000, 1)).unwrap().socket.as_raw_fd(), descriptor);
    assert!(connections.remove(conn(5_000, 0)).is_none());
    assert_eq!(connections.count, 1);
}

#[test]
fn connections_are_counted_however_they_end() {
    let mut connections = Connections::default();
    for slot in 0..3 {
        connections.insert(conn(slot, 1), Connection::new(socket(), conn(slot, 1), Line::Login));
    }
    // The slot is used again.
    assert!(connections.remove(conn(1, 1)).is_some());
    connections.insert(conn(1, 2), Connection::new(socket(), conn(1, 2), Line::Login));
    assert_eq!(connections.count, 3);
    assert!(connections.remove(conn(1, 1)).is_none());
    for (slot, generation) in [(0, 1), (1, 2), (2, 1)] {
        assert!(connections.remove(conn(slot, generation)).is_some());
        assert!(connections.remove(conn(slot, generation)).is_none());
    }
    assert!(connections.is_empty());
}
