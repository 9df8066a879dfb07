#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use ringway_wire::ids::ClientMsgId;

use super::*;
use crate::journal::batch::Batch;
use crate::journal::record::DirectRecord;
use crate::journal::segment::{Journal, SEGMENT_BYTES_MIN};

/// A journal of four segments; messages are numbered from 1.
fn journal(disk: &Directory) -> (Journal<Directory>, u64) {
    let mut journal = Journal::with_segments_of(SEGMENT_BYTES_MIN, disk.clone(), JournalPosition(0), 1).unwrap();
    let (mut batch, mut number, mut begun) = (Batch::new(), 0, 1);
    let mut segment = journal.segment();
    while begun < 4 {
        journal.prepare().unwrap();
        begun += u64::from(journal.segment() != segment);
        segment = journal.segment();
        for _ in 0..200 {
            number += 1;
            batch.push(&Record::Direct(DirectRecord {
                msg_id: MsgId(number),
                sender: UserId(1),
                to: UserId(2),
                client_msg_id: ClientMsgId([0; 16]),
                sender_seq: Seq(number),
                recipient_seq: Seq(number),
                body: &[7; 16 * 1024],
            }));
        }
        journal.append(&mut batch).unwrap();
        journal.sync().unwrap();
        batch.clear();
    }
    (journal, number)
}

/// The numbers of all that comes.
fn taken(feed: &mut JournalFeed, durable: JournalPosition) -> Vec<u64> {
    let mut numbers = Vec::new();
    while feed.peek(durable).unwrap().front().is_some() {
        let Some(FeedItem { what: FeedContent::Message(message), .. }) = feed.take() else { panic!("a message") };
        assert_eq!(message.recipients, [(UserId(2), Seq(message.msg_id.0))]);
        numbers.push(message.msg_id.0);
    }
    numbers
}

#[test]
fn all_of_a_journal_comes_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Directory::open(dir.path()).unwrap();
    let (journal, last) = journal(&disk);
    let mut feed = JournalFeed::new(disk, JournalPosition(0));
    assert_eq!(taken(&mut feed, journal.tail()), (1..=last).collect::<Vec<_>>());
    assert_eq!((feed.position(), feed.take_skipped_bytes()), (journal.tail(), 0));
}

#[test]
fn segments_that_go_while_they_are_read_are_passed_over_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Directory::open(dir.path()).unwrap();
    let (mut journal, last) = journal(&disk);
    let mut feed = JournalFeed::new(disk, JournalPosition(0));
    assert!(feed.peek(journal.tail()).unwrap().front().is_some());
    assert_eq!(journal.retire(journal.segment()).unwrap(), 3);
    let numbers = taken(&mut feed, journal.tail());
    assert!(numbers.is_sorted_by(|a, b| a < b), "nothing comes twice");
    assert_eq!((numbers.first(), numbers.last()), (Some(&1), Some(&last)));
    assert!(numbers.len() < last as usize && feed.take_skipped_bytes() > 0);
    assert_eq!(feed.take_skipped_bytes(), 0, "it is said once");
}

#[test]
fn what_happened_since_a_time_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Directory::open(dir.path()).unwrap();
    let (journal, _) = journal(&disk);
    let mut feed = JournalFeed::new(disk, journal.tail());
    let from = feed.since(0, journal.tail()).unwrap();
    feed.seek(from);
    assert_eq!(taken(&mut feed, journal.tail()).first(), Some(&1));
    assert_eq!(feed.since(MsgId(1).sent_at_ms() + 1, journal.tail()).unwrap(), journal.tail());
}
