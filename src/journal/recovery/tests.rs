#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;
use crate::journal::batch::Batch;
use crate::journal::memory_disk::MemoryDisk;
use crate::journal::record::DirectRecord;
use crate::journal::segment::Journal;
use crate::limits::SEGMENT_BYTES;
use ringway_wire::ids::{ClientMsgId, MsgId, Seq, UserId};

fn write(journal: &mut Journal<MemoryDisk>, body: &[u8]) -> JournalPosition {
    append(journal, body);
    journal.sync().unwrap()
}

fn append(journal: &mut Journal<MemoryDisk>, body: &[u8]) {
    let mut batch = Batch::new();
    let at = journal.prepare().unwrap();
    let (sender, to) = (UserId(1), UserId(2));
    let client_msg_id = ClientMsgId([1; 16]);
    let record = DirectRecord {
        msg_id: MsgId(at.0),
        sender,
        to,
        client_msg_id,
        sender_seq: Seq(1),
        recipient_seq: Seq(1),
        body,
    };
    batch.push(&Record::Direct(record));
    journal.append(&mut batch).unwrap();
}

#[test]
fn an_empty_directory_is_an_empty_journal() {
    assert_eq!(recover(&MemoryDisk::new(1), SEGMENT_BYTES).unwrap(), Recovered::default());
}

#[test]
fn what_was_synced_is_there_after_any_crash_and_the_rest_whole_or_not_at_all() {
    let (mut torn, mut kept, mut lost) = (0, 0, 0);
    for seed in 0..200 {
        let disk = MemoryDisk::new(seed);
        let mut journal = Journal::create(disk.clone(), JournalPosition(0), seed).unwrap();
        write(&mut journal, &[1; 3000]);
        let synced = write(&mut journal, &[2; 3000]);
        append(&mut journal, &[3; 3000]);
        disk.crash();
        let before = verify(&disk, SEGMENT_BYTES).unwrap();
        let recovered = recover(&disk, SEGMENT_BYTES).unwrap();
        assert_eq!(before.journal, recovered);
        assert!(!disk.has_unsynced(), "what recovery believes is on disk");
        torn += u32::from(recovered.torn.is_some());
        kept += u32::from(recovered.end > synced);
        lost += u32::from(recovered.end == synced && recovered.torn.is_none());
        assert_eq!(recovered.batches, if recovered.end > synced { 3 } else { 2 });
        // The next start goes on behind what was kept, and what was torn is no corruption to the one after.
        let mut journal = Journal::create(disk.clone(), recovered.end, seed).unwrap();
        write(&mut journal, b"next");
        let next = recover(&disk, SEGMENT_BYTES).unwrap();
        assert_eq!((next.batches, next.torn), (recovered.batches + 1, None));
    }
    assert!(torn > 10 && kept > 10 && lost > 10, "{torn} {kept} {lost}");
}

#[test]
fn a_damaged_batch_before_a_whole_one_refuses_the_start_and_changes_nothing() {
    let disk = MemoryDisk::new(1);
    let mut journal = Journal::create(disk.clone(), JournalPosition(0), 1).unwrap();
    let second = write(&mut journal, &[1; 100]);
    write(&mut journal, &[2; 100]);
    write(&mut journal, &[3; 100]);
    disk.damage(&segment_name(JournalPosition(0)), second.0 as usize + 60, b"?");
    for error in [recover(&disk, SEGMENT_BYTES).unwrap_err(), verify(&disk, SEGMENT_BYTES).map(|_| ()).unwrap_err()] {
        let JournalError::Corrupt { file, offset, .. } = &error else { panic!("{error}") };
        assert_eq!((file.as_str(), *offset), ("0000000000000000.seg", second.0));
        assert!(error.to_string().contains("journal verify"), "says what to do: {error}");
    }
    assert_eq!(list_segments(&disk).unwrap(), [JournalPosition(0)]);
}

#[test]
fn a_damaged_end_of_a_segment_is_corruption_when_another_segment_follows() {
    let disk = MemoryDisk::new(1);
    let mut journal = Journal::create(disk.clone(), JournalPosition(0), 1).unwrap();
    let last = write(&mut journal, &[1; 100]);
    let end = write(&mut journal, &[2; 100]);
    let mut journal = Journal::create(disk.clone(), end, 2).unwrap();
    write(&mut journal, &[3; 100]);
    disk.damage(&segment_name(JournalPosition(0)), last.0 as usize + 60, b"?");
    assert!(matches!(recover(&disk, SEGMENT_BYTES), Err(JournalError::Corrupt { offset, .. }) if offset == last.0));
}

#[test]
fn a_segment_in_the_middle_that_is_missing_is_corruption() {
    let disk = MemoryDisk::new(1);
    let mut starts = vec![JournalPosition(0)];
    for seed in 0..3 {
        let mut journal = Journal::create(disk.clone(), starts[starts.len() - 1], seed).unwrap();
        starts.push(write(&mut journal, &[1; 100]));
    }
    disk.remove(&segment_name(starts[1])).unwrap();
    assert!(matches!(recover(&disk, SEGMENT_BYTES), Err(JournalError::Corrupt { .. })));
}

#[test]
fn a_segment_that_was_only_being_created_is_removed() {
    let disk = MemoryDisk::new(1);
    let mut journal = Journal::create(disk.clone(), JournalPosition(0), 1).unwrap();
    let end = write(&mut journal, &[1; 100]);
    disk.create(&segment_name(end), SEGMENT_BYTES).unwrap();
    let recovered = recover(&disk, SEGMENT_BYTES).unwrap();
    assert_eq!((recovered.end, recovered.segments, recovered.batches), (end, 1, 1));
    assert_eq!(list_segments(&disk).unwrap(), [JournalPosition(0)]);
}

#[test]
fn a_damaged_header_of_a_segment_with_batches_is_corruption() {
    let disk = MemoryDisk::new(1);
    let mut journal = Journal::create(disk.clone(), JournalPosition(0), 1).unwrap();
    write(&mut journal, &[1; 100]);
    disk.damage(&segment_name(JournalPosition(0)), 22, b"????");
    assert!(matches!(recover(&disk, SEGMENT_BYTES), Err(JournalError::Corrupt { offset: 0, .. })));
}

#[test]
fn a_body_that_looks_like_a_batch_is_not_taken_for_one() {
    // A sender who knew position and format, but not the segment's salt, puts a batch into his body; then the
    // batch around it is torn.
    let disk = MemoryDisk::new(1);
    let mut journal = Journal::create(disk.clone(), JournalPosition(0), 1).unwrap();
    let tail = write(&mut journal, &[1; 100]);
    let body_at = JournalPosition(tail.0 + 24 + 4 + 1 + 8 + 16 + 4);
    let mut fake = Batch::new();
    fake.push(&Record::Direct(DirectRecord {
        msg_id: MsgId(1),
        sender: UserId(1),
        to: UserId(2),
        client_msg_id: ClientMsgId([1; 16]),
        sender_seq: Seq(1),
        recipient_seq: Seq(1),
        body: b"x",
    }));
    write(&mut journal, fake.seal(body_at, 0, 0));
    disk.damage(&segment_name(JournalPosition(0)), tail.0 as usize + 18, &[0xff]);
    let recovered = recover(&disk, SEGMENT_BYTES).unwrap();
    assert_eq!(recovered.end, tail);
    assert!(recovered.torn.is_some());
}

#[test]
fn another_versions_segment_is_named_as_such() {
    let disk = MemoryDisk::new(1);
    let mut header = SegmentHeader { start: JournalPosition(0), salt: 1 }.encode();
    header[8] = 9;
    let crc = crc32c::crc32c(&header[..28]);
    header[28..].copy_from_slice(&crc.to_le_bytes());
    disk.create(&segment_name(JournalPosition(0)), SEGMENT_BYTES).unwrap().write_at(0, &header).unwrap();
    assert!(matches!(recover(&disk, SEGMENT_BYTES), Err(JournalError::Version { version: 9, expected: 1, .. })));
}

#[test]
fn a_segment_that_was_cut_off_is_no_torn_end_and_is_said_to_be_missing_from_there() {
    let disk = MemoryDisk::new(1);
    let mut journal = Journal::create(disk.clone(), JournalPosition(0), 1).unwrap();
    write(&mut journal, &[1; 100]);
    let end = write(&mut journal, &[2; 100]);
    // Behind the last batch, in it, and before it.
    for size in [SEGMENT_BYTES - 1, end.0 + 10, end.0, end.0 - 10, 200] {
        disk.truncate(&segment_name(JournalPosition(0)), size as usize);
        for error in [recover(&disk, SEGMENT_BYTES).unwrap_err(), verify(&disk, SEGMENT_BYTES).map(|_| ()).unwrap_err()]
        {
            let JournalError::Corrupt { offset, .. } = &error else { panic!("{error}") };
            assert_eq!(*offset, size);
            assert!(error.to_string().contains("is missing"), "{error}");
        }
    }
}

#[test]
fn more_damage_than_one_batch_has_is_no_torn_end() {
    let disk = MemoryDisk::new(1);
    let mut journal = Journal::create(disk.clone(), JournalPosition(0), 1).unwrap();
    let end = write(&mut journal, &[1; 100]);
    let name = segment_name(JournalPosition(0));
    disk.damage(&name, (end.0 + BATCH_BYTES_MAX) as usize - 1, b"?");
    assert!(recover(&disk, SEGMENT_BYTES).unwrap().torn.is_some());
    disk.damage(&name, (end.0 + BATCH_BYTES_MAX) as usize, b"?");
    assert!(matches!(recover(&disk, SEGMENT_BYTES), Err(JournalError::Corrupt { offset, .. }) if offset == end.0));
}
