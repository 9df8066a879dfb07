#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use super::*;

const CONN: ConnId = ConnId { slot: 7, generation: 3 };

/// Waits until the bell rings, at most five seconds, and silences it.
fn bell_rings(ring: &SocketRing) -> bool {
    let mut asked = libc::pollfd { fd: ring.bell.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, which lives through the call.
    if unsafe { libc::poll(&raw mut asked, 1, 5_000) } != 1 {
        return false;
    }
    let mut rang = 0_u64;
    // SAFETY: eight writable bytes.
    unsafe { libc::read(ring.bell.as_raw_fd(), (&raw mut rang).cast(), size_of_val(&rang)) == 8 }
}

fn pair() -> (OwnedFd, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (ours.into(), theirs)
}

#[test]
fn a_watch_tells_of_one_event_and_rings() {
    let mut ring = SocketRing::new().unwrap();
    let (ours, mut theirs) = pair();
    ring.watch(ours.as_raw_fd(), CONN, Watch::Readable);
    ring.submit();
    assert_eq!(ring.next_event(), None);
    theirs.write_all(b"a").unwrap();
    assert!(bell_rings(&ring));
    assert_eq!(ring.next_event(), Some(Event::Socket(CONN, Watch::Readable)));
    theirs.write_all(b"b").unwrap();
    assert_eq!(ring.next_event(), None);
    // What is there already is an event too.
    ring.watch(ours.as_raw_fd(), CONN, Watch::Readable);
    ring.submit();
    assert!(bell_rings(&ring));
    assert_eq!(ring.next_event(), Some(Event::Socket(CONN, Watch::Readable)));
}

#[test]
fn reading_and_writing_are_told_apart_for_the_highest_slots_too() {
    let mut ring = SocketRing::new().unwrap();
    let (ours, mut theirs) = pair();
    let conn = ConnId { slot: WRITABLE_BIT - 1, generation: u32::MAX - 1 };
    ring.watch(ours.as_raw_fd(), conn, Watch::Readable);
    ring.watch(ours.as_raw_fd(), conn, Watch::Writable);
    ring.submit();
    assert!(bell_rings(&ring));
    assert_eq!(ring.next_event(), Some(Event::Socket(conn, Watch::Writable)));
    theirs.write_all(b"a").unwrap();
    assert!(bell_rings(&ring));
    assert_eq!(ring.next_event(), Some(Event::Socket(conn, Watch::Readable)));
}

#[test]
fn a_socket_that_goes_away_while_it_is_watched_is_closed_and_nobody_hears_of_it() {
    let mut ring = SocketRing::new().unwrap();
    let (ours, mut theirs) = pair();
    let (other, _kept) = pair();
    ring.watch(ours.as_raw_fd(), CONN, Watch::Readable);
    ring.watch(other.as_raw_fd(), ConnId { generation: 4, ..CONN }, Watch::Writable);
    ring.submit();
    ring.let_go(ours, CONN, Watch::Readable.bit());
    assert_eq!(ring.leaving(), 1);
    let mut heard = Vec::new();
    while ring.leaving() > 0 {
        assert!(bell_rings(&ring));
        heard.extend(std::iter::from_fn(|| ring.next_event()));
    }
    assert_eq!(heard, [Event::Socket(ConnId { generation: 4, ..CONN }, Watch::Writable)]);
    assert_eq!(theirs.read(&mut [0; 1]).unwrap(), 0);
    // One that is not watched is closed at once.
    let (ours, mut theirs) = pair();
    ring.let_go(ours, CONN, 0);
    assert_eq!((ring.leaving(), theirs.read(&mut [0; 1]).unwrap()), (0, 0));
}

#[test]
fn more_events_than_the_ring_has_room_for_are_all_told() {
    let mut ring = SocketRing::new().unwrap();
    let (ours, _theirs) = pair();
    let count = EVENTS * 2 + SUBMISSIONS / 2;
    for slot in 0..count {
        ring.watch(ours.as_raw_fd(), ConnId { slot, generation: 1 }, Watch::Writable);
    }
    ring.submit();
    let mut heard = vec![false; count as usize];
    let mut rounds = 0;
    while heard.contains(&false) {
        while let Some(event) = ring.next_event() {
            let Event::Socket(conn, Watch::Writable) = event else { panic!("{event:?}") };
            assert!(!std::mem::replace(&mut heard[conn.slot as usize], true), "{conn:?} came twice");
        }
        ring.submit();
        rounds += 1;
        assert!(rounds < 100, "{} of {count} did not come", heard.iter().filter(|heard| !**heard).count());
    }
}

#[test]
fn the_bell_can_be_rung_by_hand() {
    let ring = SocketRing::new().unwrap();
    ring.ring_bell();
    assert!(bell_rings(&ring));
    assert!(ring.bell().unwrap().as_fd().as_raw_fd() >= 0);
}
