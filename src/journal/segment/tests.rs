#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::super::memory_disk::MemoryDisk;
use super::super::reader::Reader;
use super::super::record::{DirectRecord, Record};
use super::*;
use ringway_wire::ids::{ClientMsgId, MsgId, Seq, UserId};

fn direct(number: u64, body: &[u8]) -> Record<'_> {
    Record::Direct(DirectRecord {
        msg_id: MsgId(number),
        sender: UserId(1),
        to: UserId(2),
        client_msg_id: ClientMsgId([1; 16]),
        sender_seq: Seq(number),
        recipient_seq: Seq(number),
        body,
    })
}

fn write(journal: &mut Journal<MemoryDisk>, numbers: std::ops::Range<u64>, body: &[u8]) {
    let mut batch = Batch::new();
    journal.prepare().unwrap();
    numbers.for_each(|number| {
        batch.push(&direct(number, body));
    });
    journal.append(&mut batch).unwrap();
    journal.sync().unwrap();
}

fn read_all(reader: &mut Reader<MemoryDisk>, to: JournalPosition, bytes_max: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    let mut positions = Vec::new();
    let mut at = JournalPosition(0);
    while at < to {
        let before = at;
        at = reader
            .read(at, to, bytes_max, &mut |position, record| {
                numbers.push(record.msg_id().unwrap().0);
                positions.push(position);
            })
            .unwrap();
        assert!(at > before, "reading goes on");
    }
    for (number, position) in numbers.iter().zip(positions).rev() {
        assert_eq!(reader.record_at(position).unwrap().msg_id(), Some(MsgId(*number)));
    }
    numbers
}

#[test]
fn records_come_back_in_order_over_many_segments_and_restarts() {
    let disk = MemoryDisk::new(1);
    let body = vec![7; 16 * 1024];
    let mut journal = Journal::create(disk.clone(), JournalPosition(0), 1).unwrap();
    let mut reader = Reader::new(disk.clone());
    for commit in 0..80 {
        write(&mut journal, commit * 100..commit * 100 + 100, &body);
    }
    assert!(journal.segment() > JournalPosition(0), "the test spans segments");
    let mut journal = Journal::create(disk.clone(), journal.tail(), 2).unwrap();
    write(&mut journal, 8000..8010, b"x");
    for bytes_max in [1, 100_000, usize::MAX] {
        assert_eq!(read_all(&mut reader, journal.tail(), bytes_max), (0..8010).collect::<Vec<_>>());
        let mut fresh = Reader::new(disk.clone());
        assert_eq!(read_all(&mut fresh, journal.tail(), bytes_max), (0..8010).collect::<Vec<_>>());
    }
}

#[test]
fn a_reader_sees_nothing_above_the_position_it_was_told() {
    let disk = MemoryDisk::new(1);
    let mut journal = Journal::create(disk.clone(), JournalPosition(0), 1).unwrap();
    write(&mut journal, 0..3, b"x");
    let durable = journal.tail();
    write(&mut journal, 3..6, b"x");
    let mut reader = Reader::new(disk);
    assert_eq!(read_all(&mut reader, durable, usize::MAX), [0, 1, 2]);
    assert_eq!(read_all(&mut reader, journal.tail(), usize::MAX), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn what_was_rolled_back_is_overwritten_and_never_read() {
    let disk = MemoryDisk::new(1);
    let mut journal = Journal::create(disk.clone(), JournalPosition(0), 1).unwrap();
    write(&mut journal, 0..1, b"x");
    let tail = journal.tail();
    let mut batch = Batch::new();
    batch.push(&direct(9, &[1; 1000]));
    disk.cut_writes(1);
    journal.append(&mut batch).unwrap_err();
    journal.rollback().unwrap();
    assert_eq!(journal.tail(), tail);
    write(&mut journal, 1..2, b"y");
    assert_eq!(read_all(&mut Reader::new(disk), journal.tail(), 1), [0, 1]);
}

#[test]
fn a_full_disk_at_the_start_of_a_segment_leaves_the_journal_usable() {
    let disk = MemoryDisk::new(1);
    let mut journal = Journal::create(disk.clone(), JournalPosition(0), 1).unwrap();
    let body = vec![7; 16 * 1024];
    let mut written = 0;
    while journal.tail().0 + BATCH_BYTES_MAX <= SEGMENT_BYTES {
        write(&mut journal, written..written + 100, &body);
        written += 100;
    }
    disk.fill();
    assert!(matches!(journal.prepare(), Err(JournalError::NoRoom { .. })));
    disk.make_room();
    write(&mut journal, written..written + 1, &body);
    assert_eq!(journal.segments.len(), 2);
    assert_eq!(read_all(&mut Reader::new(disk), journal.tail(), 1 << 20), (0..=written).collect::<Vec<_>>());
}

#[test]
fn a_first_segment_that_finds_no_room_says_how_much_it_wants() {
    let disk = MemoryDisk::new(1);
    disk.fill();
    let refused = Journal::create(disk, JournalPosition(0), 1).unwrap_err().to_string();
    assert!(refused.contains("no room for a segment of 64 MiB"), "{refused}");
}

#[test]
fn retiring_removes_only_whole_segments_below() {
    let disk = MemoryDisk::new(1);
    let mut journal = Journal::create(disk.clone(), JournalPosition(0), 1).unwrap();
    write(&mut journal, 0..1, b"x");
    let second = journal.tail();
    let mut journal = Journal::create(disk.clone(), second, 1).unwrap();
    write(&mut journal, 1..2, b"x");
    assert_eq!(journal.retire(JournalPosition(second.0 - 1)).unwrap(), 0);
    assert_eq!(journal.retire(journal.tail()).unwrap(), 1);
    assert_eq!(journal.first(), second);
    let mut reader = Reader::new(disk);
    let missing = reader.read(JournalPosition(0), journal.tail(), 1, &mut |_, _| ());
    assert!(matches!(missing, Err(JournalError::Missing { wanted: 0, .. })));
    assert!(reader.read(second, journal.tail(), 1, &mut |_, _| ()).is_ok());
}

#[test]
fn a_segment_whose_removal_was_not_synced_does_not_keep_the_next_ones() {
    let disk = MemoryDisk::new(1);
    let mut journal = Journal::create(disk.clone(), JournalPosition(0), 1).unwrap();
    for number in 0..3 {
        write(&mut journal, number..number + 1, b"x");
        journal = Journal::create(disk.clone(), journal.tail(), 1).unwrap();
    }
    disk.fail_syncs_of_removals(1);
    assert!(matches!(journal.retire(journal.tail()), Err(JournalError::Io { .. })));
    assert_eq!(journal.retire(journal.tail()).unwrap(), 3, "the one that went counts when it is found gone");
    assert_eq!(list_segments(&disk).unwrap(), [journal.segment()]);
}

#[test]
fn a_damaged_batch_is_not_read() {
    let disk = MemoryDisk::new(1);
    let mut journal = Journal::create(disk.clone(), JournalPosition(0), 1).unwrap();
    write(&mut journal, 0..1, b"hello");
    let offset = SEGMENT_HEADER_BYTES as usize + BATCH_HEADER_BYTES + 20;
    disk.damage(&segment_name(JournalPosition(0)), offset, b"?");
    let read = Reader::new(disk).read(JournalPosition(0), journal.tail(), 1, &mut |_, _| panic!("it was believed"));
    assert!(matches!(read, Err(JournalError::Corrupt { offset: 32, .. })));
}

#[test]
fn only_names_that_it_would_write_are_segments() {
    assert_eq!(segment_start("00000000000000ff.seg"), Some(JournalPosition(255)));
    for name in ["00000000000000FF.seg", "ff.seg", "00000000000000ff.seg~", "+0000000000000ff.seg", "lock"] {
        assert_eq!(segment_start(name), None, "{name}");
    }
}

#[test]
fn a_record_of_a_segment_that_began_later_is_not_read_from_the_one_before() {
    let disk = MemoryDisk::new(1);
    let mut journal = Journal::create(disk.clone(), JournalPosition(0), 1).unwrap();
    write(&mut journal, 0..3, b"kept");
    let mut reader = Reader::new(disk.clone());
    reader.settle(journal.tail());
    let first = JournalPosition(SEGMENT_HEADER_BYTES + BATCH_HEADER_BYTES as u64);
    assert_eq!(reader.record_at(first).unwrap(), direct(0, b"kept"));
    // A batch that is not synced stays behind the segment's end, whole but for its header.
    let mut batch = Batch::new();
    batch.push(&direct(77, b"left behind"));
    journal.append(&mut batch).unwrap();
    let end = journal.tail();
    drop(journal);
    let mut journal = Journal::create(disk, end, 2).unwrap();
    let at = JournalPosition(journal.prepare().unwrap().0 + BATCH_HEADER_BYTES as u64);
    write(&mut journal, 3..4, b"new");
    reader.settle(journal.tail());
    assert_eq!(reader.record_at(first).unwrap(), direct(0, b"kept"));
    assert_eq!(reader.record_at(at).unwrap(), direct(3, b"new"));
}

#[test]
fn the_remains_of_a_failed_write_at_the_end_of_a_segment_are_not_read_as_records() {
    // Whatever its alignment, the remains look like the lengths of short records.
    for shift in 0..4 {
        let disk = MemoryDisk::new(1);
        let mut journal = Journal::with_segments_of(0, disk.clone(), JournalPosition(0), 1).unwrap();
        let mut reader = Reader::new(disk.clone());
        write(&mut journal, 0..1, &vec![7; 3900]);
        reader.read(JournalPosition(0), journal.tail(), usize::MAX, &mut |_, _| {}).unwrap();
        let seen = journal.tail();
        let mut failed = Batch::new();
        failed.push(&direct(1, &[4, 0, 0, 0].repeat(1000)));
        disk.cut_writes(1);
        journal.prepare().unwrap();
        journal.append(&mut failed).unwrap_err();
        journal.rollback().unwrap();
        write(&mut journal, 2..3, &vec![7; 200 + shift]);
        write(&mut journal, 3..4, b"in the next segment");
        assert!(journal.segment() > JournalPosition(0), "the test spans segments");
        let mut numbers = Vec::new();
        reader
            .read(seen, journal.tail(), usize::MAX, &mut |_, record| numbers.push(record.msg_id().unwrap().0))
            .unwrap();
        assert_eq!(numbers, [2, 3], "the failed one is not there");
    }
}
