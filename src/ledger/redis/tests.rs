//! The parts that need no Redis: entries, the log, the copy that the store's thread reads.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use super::copy::Copy;
use super::entry::{Claimed, Entry, places, rows, seq_bytes};
use super::link::Generation;
use super::log::Log;
use super::seed::{base_of, generation_of};
use crate::ids::{ClientMsgId, GroupId, LedgerSlot, MsgId, RosterVersion, Seq, UserId};
use crate::journal::memory_disk::MemoryDisk;
use crate::journal::record::{DirectRecord, GroupRecord, Record};
use crate::journal::tail::Tail;
use crate::journal::{Position, Progress};
use crate::message::{Roster, RosterMember};
use crate::wire::generated::ringway::wire::Role;

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
fn a_row_belongs_to_the_member_who_has_its_place_by_user_id() {
    let member = |user| RosterMember { user: UserId(user), slot: LedgerSlot(0), role: Role::Member };
    // On four shards members stand in another order than by user id.
    let roster = Roster::new(GroupId(1), RosterVersion(1), (1..=50).map(member).collect(), 4);
    let packed: Vec<u8> = (1..=50).flat_map(|user| seq_bytes(Seq(user << 30))).collect();
    let seqs: Vec<Seq> = rows(&packed).collect();
    assert!(roster.members().windows(2).any(|pair| pair[0].user > pair[1].user), "the test must mix them");
    for (member, place) in roster.members().iter().zip(places(&roster).iter()) {
        assert_eq!(seqs[*place as usize], Seq(member.user.0 << 30));
    }
}

#[test]
fn a_claim_and_a_generation_are_read_back() {
    let mut bytes = [5u64.to_be_bytes(), 6u64.to_be_bytes()].concat();
    assert_eq!(Claimed::decode(&bytes), None);
    bytes.extend_from_slice(&seq_bytes(Seq(7)));
    assert_eq!(Claimed::decode(&bytes), Some(Claimed { msg_id: MsgId(5), digest: 6, seq: Seq(7) }));
    let generation = Generation { number: 3, nonce: 0xABC };
    assert_eq!(Generation::parse(&generation.text()), Some(generation));
    assert_eq!(Generation::parse("3"), None);
    assert_eq!(generation_of(base_of(3) + 12), 3);
}

#[test]
fn the_log_has_after_a_crash_what_was_neither_stored_nor_withdrawn() {
    let disk = MemoryDisk::new(1);
    let (mut log, _) = Log::open(disk.clone(), 0, 1).unwrap();
    for msg_id in 1..=5 {
        log.make_room().unwrap();
        log.stage(MsgId(msg_id), &direct(msg_id));
    }
    assert!(log.commit().unwrap());
    log.withdraw(MsgId(2));
    log.read(MsgId(1), 10);
    log.read(MsgId(3), 11);
    log.stored(10);
    assert!(log.commit().unwrap());
    assert_eq!(log.open_count(), 3);
    disk.crash();
    let (log, _) = Log::open(disk, 0, 2).unwrap();
    let mut left = Vec::new();
    log.each_open(&mut |record| left.extend(record.msg_id())).unwrap();
    // That the first is stored is not on this disk: whoever submits it again finds it in the database.
    assert_eq!(left, [1, 3, 4, 5].map(MsgId));
}

#[test]
fn the_store_is_given_whole_stretches_of_the_stream_and_forgets_those_that_others_have_written() {
    let disk = MemoryDisk::new(1);
    let progress = Arc::new(Progress::default());
    let mut copy = Copy::begin(disk.clone(), 0, Arc::clone(&progress), 1).unwrap();
    let mut tail = Tail::of_stream(disk);
    let member = |user| RosterMember { user: UserId(user), slot: LedgerSlot(0), role: Role::Member };
    let roster = Roster::new(GroupId(4), RosterVersion(1), (1..=3).map(member).collect(), 1);
    let message = |msg_id| GroupRecord {
        msg_id: MsgId(msg_id),
        sender: UserId(1),
        group: GroupId(4),
        client_msg_id: ClientMsgId([msg_id as u8; 16]),
        roster_at: Position(0),
        differences: &[],
        body: b"body",
    };
    let base = base_of(1);
    for entry in 1..=3u64 {
        copy.push_group(message(entry), &roster, &[Seq(entry), Seq(entry), Seq(entry)]).unwrap();
        copy.flush(base + entry).unwrap();
    }
    tail.ingest(progress.durable()).unwrap();
    let transaction = tail.transaction(tail.applied(), 6, u64::MAX).unwrap().unwrap();
    assert_eq!((transaction.rows.len(), transaction.applied), (6, Position(base + 2)));
    // Another node has written the first two and a part that this node has not read: only the third is left.
    tail.advance(Position(base + 2));
    let transaction = tail.transaction(tail.applied(), 6, u64::MAX).unwrap().unwrap();
    assert_eq!((transaction.rows.len(), transaction.applied), (3, Position(base + 3)));
    // The stream is lost, and the database's position is in the next generation.
    tail.advance(Position(base_of(2)));
    assert!(tail.transaction(tail.applied(), 6, u64::MAX).unwrap().is_none());
    assert_eq!(tail.applied(), progress.durable());
}
