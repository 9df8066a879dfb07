//! The parts that need no Redis: entries, numbers, the log, the copy that the store's thread reads.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod clocks;
mod fold;
mod limited;
mod orders;
mod page;
mod put_back;
mod submissions;
mod world;

use std::sync::Arc;

use self::world::base_of;
use super::copy::StreamCopy;
use super::entry::{Claimed, Entry};
use super::link::{Generation, News, link};
use super::seed::{floor_of, generation_of};
use super::senders::SenderRows;
use super::submitter::log::{Committed, Log, Submitted};
use super::windows::{EntryRows, Windows};
use crate::contract::ids::LedgerSlot;
use crate::contract::message::{Roster, RosterMember};
use crate::contract::position::{AppliedPosition, JournalPosition, StreamDigest, StreamPosition};
use crate::contract::progress::Progress;
use crate::journal::memory_disk::MemoryDisk;
use crate::journal::record::{ChangeRecord, DirectRecord, GroupRecord, Record};
use crate::limits::{SENDER_ROWS_MAX, SEQ_JUMP, STREAM_UNSTORED_MAX, WINDOW_ENTRIES};
use crate::store::tail::Tail;
use ringway_wire::ids::{ClientMsgId, GroupId, MsgId, RosterVersion, Seq, UserId};
use ringway_wire::schema::{GroupChangeKind, Role};

fn direct(msg_id: u64) -> Record<'static> {
    Record::Direct(DirectRecord {
        msg_id: MsgId(msg_id),
        sender: UserId(1),
        to: UserId(2),
        client_msg_id: ClientMsgId([msg_id as u8; 16]),
        sender_seq: Seq(msg_id),
        recipient_seq: Seq(msg_id + 100),
        body: b"body",
    })
}

#[test]
fn an_entry_is_read_as_it_was_written_and_none_of_its_beginnings_is_one() {
    let entry = Entry { node: 513, version: RosterVersion(7), record: direct(9) };
    let bytes = entry.encode();
    assert_eq!(Entry::decode(&bytes), Ok(entry));
    for length in 0..bytes.len() - b"body".len() {
        assert!(Entry::decode(&bytes[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn a_claim_and_a_generation_are_read_back() {
    let mut bytes = [5u64.to_be_bytes(), 6u64.to_be_bytes()].concat();
    assert_eq!(Claimed::decode(&bytes), None);
    bytes.extend_from_slice(b"1099511627777");
    assert_eq!(Claimed::decode(&bytes), Some(Claimed { msg_id: MsgId(5), digest: 6, count: base_of(1) + 1 }));
    bytes.push(b'-');
    assert_eq!(Claimed::decode(&bytes), None);
    let generation = Generation { number: 3, nonce: 0xABC };
    assert_eq!(Generation::parse(&generation.text()), Some(generation));
    assert_eq!(Generation::parse("3"), None);
    assert_eq!(generation_of(StreamPosition(base_of(3) + 12)), 3);
}

#[test]
fn the_log_has_after_a_crash_what_was_neither_stored_nor_withdrawn() {
    let disk = MemoryDisk::new(1);
    let (mut log, _) = Log::open(disk.clone(), 0, 1).unwrap();
    for msg_id in 1..=5 {
        log.make_room().unwrap();
        log.stage(MsgId(msg_id), &direct(msg_id));
    }
    assert!(matches!(log.commit().unwrap(), Committed::Durable));
    log.withdraw(MsgId(2));
    log.read(MsgId(1), StreamPosition(10), Submitted::Message);
    log.read(MsgId(3), StreamPosition(11), Submitted::Message);
    log.stored(StreamPosition(10));
    assert!(matches!(log.commit().unwrap(), Committed::Durable));
    assert_eq!(log.open_count(), 3);
    disk.crash();
    let (log, _) = Log::open(disk, 0, 2).unwrap();
    let mut left = Vec::new();
    log.each_open(&mut |record| left.extend(record.msg_id())).unwrap();
    // That the first is stored is not on this disk: whoever submits it again finds it in the database.
    assert_eq!(left, [1, 3, 4, 5].map(MsgId));
}

#[test]
fn a_change_that_is_stored_is_not_made_again_whatever_has_become_of_its_group() {
    let disk = MemoryDisk::new(1);
    let (mut log, _) = Log::open(disk.clone(), 0, 1).unwrap();
    let (msg_id, group) = (MsgId(1), GroupId(1));
    let (version, kind, actor, users) = (RosterVersion(1), GroupChangeKind::Created, UserId(1), vec![UserId(2)]);
    let created = ChangeRecord { msg_id, group, version, kind, actor, users, new_owner: None };
    log.make_room().unwrap();
    log.stage(msg_id, &Record::Change(created));
    assert!(matches!(log.commit().unwrap(), Committed::Durable));
    log.read(msg_id, StreamPosition(10), Submitted::Change);
    log.stored(StreamPosition(10));
    assert!(log.withdraws());
    assert!(matches!(log.commit().unwrap(), Committed::Durable));
    disk.crash();
    assert_eq!(Log::open(disk, 0, 2).unwrap().0.open_count(), 0);
}

#[test]
fn the_store_is_given_whole_stretches_of_the_stream_and_forgets_those_that_others_have_written() {
    let disk = MemoryDisk::new(1);
    let progress = Arc::new(Progress::default());
    let mut copy = StreamCopy::begin(disk.clone(), 0, Arc::clone(&progress), 1).unwrap();
    let mut tail = Tail::of_stream(disk, JournalPosition(0));
    let member = |user| RosterMember { user: UserId(user), slot: LedgerSlot(0), role: Role::Member };
    let roster = Roster::new(GroupId(4), RosterVersion(1), (1..=3).map(member).collect(), 1);
    let message = |msg_id| GroupRecord {
        msg_id: MsgId(msg_id),
        sender: UserId(1),
        group: GroupId(4),
        client_msg_id: ClientMsgId([msg_id as u8; 16]),
        roster_at: JournalPosition(0),
        differences: &[],
        body: b"body",
    };
    let base = base_of(1);
    for entry in 1..=3u64 {
        copy.push_group(message(entry), &roster, &[Seq(entry), Seq(entry), Seq(entry)]).unwrap();
        copy.end_entry(StreamPosition(base + entry), StreamDigest::default());
    }
    // All three are read at once.
    copy.flush().unwrap();
    tail.ingest(progress.durable()).unwrap();
    let transaction = tail.transaction(tail.applied(), 6, u64::MAX).unwrap().unwrap();
    assert_eq!((transaction.rows.len(), transaction.applied), (6, AppliedPosition(base + 2)));
    // Another node has written the first two and a part that this node has not read: only the third is left.
    tail.advance(AppliedPosition(base + 2));
    let transaction = tail.transaction(tail.applied(), 6, u64::MAX).unwrap().unwrap();
    assert_eq!((transaction.rows.len(), transaction.applied), (3, AppliedPosition(base + 3)));
    // The stream is lost, and the database's position is in the next generation.
    tail.advance(AppliedPosition(base_of(2)));
    assert!(tail.transaction(tail.applied(), 6, u64::MAX).unwrap().is_none());
    assert_eq!(tail.applied(), progress.durable());
}

#[test]
fn a_node_that_never_had_a_message_does_not_wait_for_its_store() {
    let progress = Arc::new(Progress::default());
    let _copy = StreamCopy::begin(MemoryDisk::new(1), 0, Arc::clone(&progress), 1).unwrap();
    // The file's header is nothing to be stored.
    assert_eq!(progress.durable(), Tail::of_stream(MemoryDisk::new(1), JournalPosition(0)).applied());
}

#[test]
fn a_floor_is_above_all_that_was_given_out_before_it_whatever_of_it_was_stored() {
    // Nothing was ever stored, and each generation gave a user all it could.
    assert_eq!(floor_of(1, Seq(0)), Seq(0));
    for generation in 1..10 {
        let given = floor_of(generation, Seq(0)).0 + STREAM_UNSTORED_MAX;
        assert!(floor_of(generation + 1, Seq(0)).0 >= given, "after generation {generation}");
    }
    // Some of it was: the rest is no more than may be unstored.
    for (generation, stored, unstored) in [(1, 1, STREAM_UNSTORED_MAX), (1, 5, 10), (7, 3, STREAM_UNSTORED_MAX)] {
        let highest = Seq(floor_of(generation, Seq(12)).0 + stored);
        assert!(floor_of(generation + 1, highest).0 >= highest.0 + unstored);
    }
    // What was numbered before there was a cluster lies below.
    assert_eq!(floor_of(1, Seq(40)), Seq(40 + SEQ_JUMP));
}

#[test]
fn the_senders_rows_of_the_last_entries_are_known_and_no_others() {
    let mut rows = SenderRows::default();
    assert_eq!(rows.find(StreamPosition(0)), None);
    let base = base_of(3);
    let last = base + SENDER_ROWS_MAX as u64 + 5;
    for count in base + 1..=last {
        rows.push(StreamPosition(count), Seq(count - base));
    }
    assert_eq!([rows.find(StreamPosition(base + 5)), rows.find(StreamPosition(last + 1))], [None, None]);
    assert_eq!(
        [rows.find(StreamPosition(base + 6)), rows.find(StreamPosition(last))],
        [Some(Seq(6)), Some(Seq(last - base))]
    );
    // Entries are left out: what lies before is not told as if it lay elsewhere.
    rows.push(StreamPosition(last + 10), Seq(1));
    assert_eq!(
        [rows.find(StreamPosition(last)), rows.find(StreamPosition(last + 9)), rows.find(StreamPosition(last + 10))],
        [None, None, Some(Seq(1))]
    );
}

/// Follows entries in which each of these users has a row, and returns what there is to compare.
fn windows(counts: std::ops::RangeInclusive<u64>, rows: &[(u64, u64)], msg_id: u64) -> Vec<(u64, u64)> {
    let (mut windows, mut done) = (Windows::default(), Vec::new());
    for count in counts {
        let mut entry = EntryRows::default();
        rows.iter().for_each(|(user, seq)| entry.add(UserId(*user), Seq(seq + count)));
        windows.take(StreamPosition(count), MsgId(msg_id + count), entry);
        done.extend(windows.front());
        windows.pop_front();
    }
    done
}

#[test]
fn whole_windows_alone_are_compared_and_any_other_row_makes_another_digest() {
    let base = base_of(2);
    let two = base + 1..=base + 2 * WINDOW_ENTRIES;
    let first = windows(two.clone(), &[(1, 5), (2, 9)], 0);
    let window = base / WINDOW_ENTRIES;
    assert_eq!(first.iter().map(|(window, _)| *window).collect::<Vec<_>>(), [window, window + 1]);
    assert_eq!(windows(two.clone(), &[(2, 9), (1, 5)], 0), first, "members stand in another order");
    for other in [&[(1, 5), (2, 10)][..], &[(1, 9), (2, 5)], &[(1, 5)], &[(1, 5), (3, 9)]] {
        let other = windows(two.clone(), other, 0);
        assert!(std::iter::zip(&first, &other).all(|(one, other)| one.0 == other.0 && one.1 != other.1));
    }
    assert_ne!(windows(two, &[(1, 5), (2, 9)], 1)[0], first[0], "other messages");
    // One who came later compares what it has followed from its beginning on.
    assert_eq!(windows(base + 2..=base + 2 * WINDOW_ENTRIES, &[(1, 5), (2, 9)], 0), first[1..]);
    assert_eq!(windows(base + 2..=base + 2 * WINDOW_ENTRIES - 1, &[(1, 5), (2, 9)], 0), []);
}

#[test]
fn news_for_a_ledger_that_has_ended_are_not_held_back() {
    let (ledger, redis, _nudges) = link();
    while redis.notify(News::Count(1)).is_ok() {}
    assert!(redis.notify(News::Count(1)).is_err(), "a full channel hands them back");
    drop(ledger);
    assert!(redis.notify(News::Count(1)).is_ok());
}
