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
    let mut seats = Seats::default();
    let taken = socket();
    let descriptor = taken.as_raw_fd();
    seats.take(conn(5_000, 1), Seat::new(taken, conn(5_000, 1), Budget::Accept));
    assert!(seats.seat(conn(5_000, 0)).is_none());
    assert!(seats.seat(conn(5_001, 1)).is_none());
    assert!(seats.seat(conn(1 << 30, 1)).is_none());
    assert_eq!(seats.seat(conn(5_000, 1)).unwrap().socket.as_raw_fd(), descriptor);
    assert!(seats.leave(conn(5_000, 0)).is_none());
    assert_eq!(seats.len(), 1);
}

#[test]
fn seats_are_counted_however_they_are_left() {
    let mut seats = Seats::default();
    for slot in 0..3 {
        seats.take(conn(slot, 1), Seat::new(socket(), conn(slot, 1), Budget::Accept));
    }
    // The slot is used again.
    assert!(seats.leave(conn(1, 1)).is_some());
    seats.take(conn(1, 2), Seat::new(socket(), conn(1, 2), Budget::Accept));
    assert_eq!(seats.len(), 3);
    assert!(seats.leave(conn(1, 1)).is_none());
    for (slot, generation) in [(0, 1), (1, 2), (2, 1)] {
        assert!(seats.leave(conn(slot, generation)).is_some());
        assert!(seats.leave(conn(slot, generation)).is_none());
    }
    assert!(seats.is_empty());
}
