#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::*;

const CONN: ConnId = ConnId { slot: 7, generation: 3 };

const PATIENCE: Duration = Duration::from_secs(5);

/// The next event, for which it waits.
fn event(ring: &mut SocketRing) -> Event {
    for _ in 0..100 {
        if let Some(event) = ring.next_event() {
            return event;
        }
        ring.wait(PATIENCE);
    }
    panic!("nothing happens");
}

fn pair() -> (OwnedFd, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (ours.into(), theirs)
}

#[test]
fn a_watch_tells_of_one_event() {
    let mut ring = SocketRing::new().unwrap();
    let (ours, mut theirs) = pair();
    ring.watch(ours.as_raw_fd(), CONN, Watch::Readable);
    ring.submit();
    assert_eq!(ring.next_event(), None);
    theirs.write_all(b"a").unwrap();
    assert_eq!(event(&mut ring), Event::Socket(CONN, Watch::Readable));
    theirs.write_all(b"b").unwrap();
    assert_eq!(ring.next_event(), None);
    // What is there already is an event too.
    ring.watch(ours.as_raw_fd(), CONN, Watch::Readable);
    ring.submit();
    assert_eq!(event(&mut ring), Event::Socket(CONN, Watch::Readable));
}

#[test]
fn reading_and_writing_are_told_apart_for_the_highest_slots_too() {
    let mut ring = SocketRing::new().unwrap();
    let (ours, mut theirs) = pair();
    let conn = ConnId { slot: WRITABLE_BIT - 1, generation: u32::MAX - 1 };
    ring.watch(ours.as_raw_fd(), conn, Watch::Readable);
    ring.watch(ours.as_raw_fd(), conn, Watch::Writable);
    ring.submit();
    assert_eq!(event(&mut ring), Event::Socket(conn, Watch::Writable));
    theirs.write_all(b"a").unwrap();
    assert_eq!(event(&mut ring), Event::Socket(conn, Watch::Readable));
}

#[test]
fn shutting_a_socket_ends_all_its_watches() {
    let mut ring = SocketRing::new().unwrap();
    let (ours, mut theirs) = pair();
    ring.watch(ours.as_raw_fd(), CONN, Watch::Readable);
    // A socket that is full is not writable.
    let full = [0; 1 << 16];
    while rustix::net::send(&ours, &full, rustix::net::SendFlags::DONTWAIT).is_ok() {}
    ring.watch(ours.as_raw_fd(), CONN, Watch::Writable);
    ring.submit();
    assert_eq!(ring.next_event(), None);
    rustix::net::shutdown(&ours, rustix::net::Shutdown::Both).unwrap();
    let mut ended = [event(&mut ring), event(&mut ring)];
    ended.sort_by_key(|event| matches!(event, Event::Socket(_, Watch::Writable)));
    assert_eq!(ended, [Event::Socket(CONN, Watch::Readable), Event::Socket(CONN, Watch::Writable)]);
    drop(ours);
    theirs.read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn more_events_than_the_ring_has_room_for_are_all_told() {
    let mut ring = SocketRing::new().unwrap();
    let (ours, _theirs) = pair();
    let count = RING_EVENTS * 2 + RING_SUBMISSIONS / 2;
    for slot in 0..count {
        ring.watch(ours.as_raw_fd(), ConnId { slot, generation: 1 }, Watch::Writable);
    }
    ring.submit();
    let mut seen = vec![false; count as usize];
    let mut rounds = 0;
    while seen.contains(&false) {
        while let Some(event) = ring.next_event() {
            let Event::Socket(conn, Watch::Writable) = event else { panic!("{event:?}") };
            assert!(!std::mem::replace(&mut seen[conn.slot as usize], true), "{conn:?} came twice");
        }
        ring.submit();
        rounds += 1;
        assert!(rounds < 100, "{} of {count} did not come", seen.iter().filter(|seen| !**seen).count());
    }
}

#[test]
fn an_alarm_ends_the_wait_each_time_it_sounds() {
    let mut ring = SocketRing::new().unwrap();
    for _ in 0..3 {
        let alarm = ring.alarm();
        std::thread::spawn(move || alarm.wake()).join().unwrap();
        assert_eq!(event(&mut ring), Event::Alarm);
        assert_eq!(ring.next_event(), None);
    }
    // However often it sounded before.
    (0..3).for_each(|_| ring.alarm().wake_by_ref());
    assert_eq!(event(&mut ring), Event::Alarm);
    ring.wait(Duration::ZERO);
    assert_eq!(ring.next_event(), None);
}

#[test]
fn a_wait_ends_when_its_time_is_over() {
    let mut ring = SocketRing::new().unwrap();
    let clock = crate::clock::Clock::start();
    ring.wait(Duration::from_millis(20));
    assert!(clock.mono_ns() >= 20_000_000);
    assert_eq!(ring.next_event(), None);
}
