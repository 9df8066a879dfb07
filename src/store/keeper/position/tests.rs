//! A database that goes back, under the store of a cluster's node: a real SQLite file and a copy of the stream on a disk
//! in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::PathBuf;
use std::sync::Arc;

use crossbeam_channel::bounded;
use futures_lite::future::block_on;
use tempfile::TempDir;

use super::*;
use crate::contract::ids::SessionRef;
use crate::contract::progress::{Progress, StoreWriter};
use crate::contract::snapshot::snapshots;
use crate::contract::store::{Lookup, LookupFound, PagePurpose, StoreAnswer};
use crate::journal::batch::Batch;
use crate::journal::memory_disk::MemoryDisk;
use crate::journal::record::{DirectRecord, Record};
use crate::journal::segment::Journal;
use crate::limits::{BATCH_ROWS, DATABASE_BEHIND_MS};
use crate::store::keeper::Turn;
use crate::store::keeper::pages::PageAsked;
use crate::store::keeper::tests::world::Flaky;
use crate::store::sqlite::SqliteStore;
use ringway_wire::ids::{ClientMsgId, MsgId, Seq, UserId};

/// The node that writes.
struct Node {
    _dir: TempDir,
    path: PathBuf,
    copy: Journal<MemoryDisk>,
    progress: Arc<Progress>,
    keeper: Keeper<Flaky, MemoryDisk>,
    entries: u64,
    /// From the entry behind this one on it reads others than the database has been given.
    parted_at: Option<u64>,
    now_ms: u64,
}

impl Node {
    /// Its copy begins behind this entry, up to which the database has everything.
    fn behind(entry: u64) -> Node {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("store.sqlite");
        let mut store = SqliteStore::open(&path, BATCH_ROWS).unwrap();
        block_on(store.apply(Transaction { applied: AppliedPosition(entry), ..Transaction::default() })).unwrap();
        let disk = MemoryDisk::new(1);
        let copy = Journal::create(disk.clone(), JournalPosition(0), 1).unwrap();
        let progress = Arc::new(Progress::default());
        progress.set_store_writer(StoreWriter::ThisNode);
        let (_, answerer) = snapshots(bounded(1).0);
        let keeper = Keeper::of_cluster(Flaky::new(store), disk, Arc::clone(&progress), answerer, 1);
        Node { _dir: dir, path, copy, progress, keeper, entries: entry, parted_at: None, now_ms: 0 }
    }

    /// What its entries are up to this one.
    fn digest_of(&self, entry: u64) -> StreamDigest {
        let is_other = self.parted_at.is_some_and(|last| entry > last);
        StreamDigest(entry * 2 + u64::from(is_other))
    }

    /// So many entries come, each a message of user 1 to itself, with the entry's number as its row's.
    fn follow(&mut self, count: u64) {
        let mut batch = Batch::new();
        self.copy.prepare().unwrap();
        for n in self.entries + 1..=self.entries + count {
            batch.push(&Record::Direct(DirectRecord {
                msg_id: MsgId(n << 22),
                sender: UserId(1),
                to: UserId(1),
                client_msg_id: ClientMsgId::from_parts(1_800_000_000_000, u128::from(n)),
                sender_seq: Seq(n),
                recipient_seq: Seq(n),
                body: b"hello",
            }));
            batch.push(&Record::Mark(n, self.digest_of(n)));
        }
        self.entries += count;
        self.copy.append(&mut batch).unwrap();
        self.progress.advance_durable(self.copy.settle());
    }

    /// The store does what there is to do.
    fn store(&mut self) {
        for _ in 0..100 {
            self.now_ms += STREAM_LOOK_MS;
            if block_on(self.keeper.turn(Now { mono_ms: self.now_ms, unix_ms: 0 })) == Turn::Idle {
                return;
            }
        }
        panic!("it never has nothing to do");
    }

    /// Nobody writes again what the database has lost, for so long that nobody will.
    fn nobody_puts_back(&mut self) {
        self.now_ms += DATABASE_BEHIND_MS;
        self.store();
    }

    /// The database is as it was after this entry.
    fn put_back(&mut self, entry: u64) {
        let digest = self.digest_of(entry);
        self.keeper.store.digests.insert(AppliedPosition(entry), digest);
        let database = rusqlite::Connection::open(&self.path).unwrap();
        let statements = format!(
            "DELETE FROM inbox WHERE seq > {entry}; DELETE FROM messages WHERE sender_seq > {entry};
             UPDATE ledger_position SET position = {entry};"
        );
        database.execute_batch(&statements).unwrap();
    }

    /// Rows of the user's inbox after one, and up to where some are no longer kept; nothing, if it cannot be read now.
    fn page_after(&mut self, after: u64) -> Option<(Vec<Seq>, Option<Seq>)> {
        let (session, user) = (SessionRef::default(), UserId(1));
        let asked = PageAsked { session, purpose: PagePurpose::CatchUp, user, after: Seq(after), rows_max: 100 };
        let mut answers = Vec::new();
        block_on(self.keeper.pages(&[asked], &mut answers));
        match answers.pop().unwrap().1 {
            StoreAnswer::Page { page, .. } => Some((page.rows.iter().map(|(seq, _)| *seq).collect(), page.gap_to)),
            _ => None,
        }
    }

    /// What is said of the name of an entry's message.
    fn look_up(&mut self, entry: u64) -> LookupFound {
        let client_msg_id = ClientMsgId::from_parts(1_800_000_000_000, u128::from(entry));
        block_on(self.keeper.lookup(Lookup { sender: UserId(1), client_msg_id, generation: 0 })).found
    }

    fn rows(&self) -> Vec<i64> {
        let database = rusqlite::Connection::open(&self.path).unwrap();
        let mut statement = database.prepare("SELECT seq FROM inbox ORDER BY seq").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }
}

#[test]
fn rows_that_a_database_has_lost_when_it_went_back_are_written_again() {
    let mut node = Node::behind(0);
    node.follow(10);
    node.store();
    assert_eq!(node.rows(), (1..=10).collect::<Vec<_>>());
    node.put_back(6);
    node.store();
    assert_eq!(node.rows(), (1..=10).collect::<Vec<_>>());
    node.follow(2);
    node.store();
    assert_eq!(node.rows(), (1..=12).collect::<Vec<_>>());
    let counters = node.keeper.counters();
    assert_eq!((counters.put_back, counters.entries_lost), (1, 0));
}

#[test]
fn rows_that_a_database_lost_a_moment_ago_are_not_said_to_be_gone() {
    let mut node = Node::behind(0);
    node.follow(10);
    node.store();
    node.put_back(6);
    node.follow(2);
    // Before the store has looked: the database ends with row 6, and the tail begins with row 11.
    assert_eq!(node.page_after(6), None, "it cannot be read now");
    assert_eq!(node.page_after(6), Some(((7..=12).map(Seq).collect(), None)));
    node.store();
    assert_eq!(node.page_after(6), Some(((7..=12).map(Seq).collect(), None)));
}

#[test]
fn rows_that_another_node_puts_back_while_a_page_is_read_are_not_said_to_be_gone() {
    let mut node = Node::behind(0);
    node.follow(10);
    node.store();
    let copy = node.path.with_extension("copy");
    let database = rusqlite::Connection::open(&node.path).unwrap();
    database.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    node.put_back(6);
    node.follow(2);
    // The page is read without them; by the time this node looks how far the database is, the other has applied them again.
    node.keeper.store.after_page = Some(Box::new(move || {
        let statements = format!(
            "ATTACH '{}' AS copy;
             INSERT INTO messages SELECT * FROM copy.messages WHERE sender_seq > 6;
             INSERT INTO inbox SELECT * FROM copy.inbox WHERE seq > 6;
             UPDATE ledger_position SET position = 10;",
            copy.display()
        );
        database.execute_batch(&statements).unwrap();
    }));
    assert_eq!(node.page_after(6), Some(((7..=12).map(Seq).collect(), None)));
}

#[test]
fn a_name_that_a_database_lost_a_moment_ago_is_not_said_to_be_unknown() {
    let mut node = Node::behind(0);
    node.follow(10);
    node.store();
    assert_eq!(node.look_up(99), LookupFound::Nothing);
    node.put_back(6);
    // Before the store has looked: neither the database nor the tail has it, nor can any other name be told.
    assert_eq!(node.look_up(8), LookupFound::Unavailable);
    assert_eq!(node.look_up(99), LookupFound::Unavailable);
    assert!(matches!(node.look_up(5), LookupFound::Stored(_)), "what is there is known");
    node.store();
    assert!(matches!(node.look_up(8), LookupFound::Stored(_)));
    assert_eq!(node.look_up(99), LookupFound::Nothing);
}

#[test]
fn what_a_database_has_lost_and_no_copy_has_is_counted_and_the_rest_goes_on() {
    let mut node = Node::behind(4);
    node.follow(6);
    node.store();
    node.put_back(2);
    node.follow(1);
    node.store();
    assert_eq!(node.rows(), Vec::<i64>::new(), "another node may have them");
    node.nobody_puts_back();
    assert_eq!(node.rows(), (5..=11).collect::<Vec<_>>());
    let counters = node.keeper.counters();
    assert_eq!((counters.put_back, counters.entries_lost), (1, 2));
}

#[test]
fn what_a_database_has_lost_is_written_again_though_it_is_the_turn_of_a_node_that_may_not_have_it() {
    let mut node = Node::behind(0);
    node.follow(10);
    node.store();
    node.progress.set_store_writer(StoreWriter::NotThisNode);
    node.put_back(6);
    node.store();
    assert_eq!(node.rows(), (1..=10).collect::<Vec<_>>());
    node.follow(2);
    node.store();
    assert_eq!(node.rows(), (1..=10).collect::<Vec<_>>(), "the rest is for the node whose turn it is");
    // Another may have what is not here.
    let mut node = Node::behind(4);
    node.follow(6);
    node.store();
    node.progress.set_store_writer(StoreWriter::NotThisNode);
    node.put_back(2);
    node.store();
    assert_eq!(node.rows(), Vec::<i64>::new());
}

#[test]
fn what_a_database_has_lost_and_a_snapshot_had_in_the_middle_of_the_copy_is_counted() {
    let mut node = Node::behind(0);
    node.follow(5);
    node.store();
    // The ledger goes on behind another snapshot, as another node has written three entries that this one has not read.
    node.put_back(8);
    node.entries = 8;
    node.follow(5);
    node.store();
    node.put_back(2);
    node.store();
    node.nobody_puts_back();
    assert_eq!(node.rows(), [1, 2, 3, 4, 5, 9, 10, 11, 12, 13]);
    let counters = node.keeper.counters();
    assert_eq!((counters.put_back, counters.entries_lost), (1, 3));
}

#[test]
fn the_copy_is_not_given_up_as_soon_as_the_database_has_it() {
    let mut node = Node::behind(0);
    node.follow(10);
    node.store();
    assert_eq!(node.progress.secured(), JournalPosition(0), "it is all that a database that goes back can be given");
}

/// Another node's store has moved the database past the stream that this node follows.
const NEXT_STREAM: u64 = 1 << 40;

#[test]
fn entries_of_a_lost_stream_that_come_when_the_database_is_past_it_do_not_count_as_stored() {
    let mut node = Node::behind(0);
    node.follow(5);
    node.store();
    node.put_back(NEXT_STREAM);
    // Read by this node's ledger before its store looks where the database is, and after.
    for _ in 0..2 {
        node.follow(3);
        node.store();
        assert_eq!(
            node.progress.applied(),
            AppliedPosition(NEXT_STREAM),
            "it does not go back to what nobody has written"
        );
        assert_eq!(node.look_up(node.entries), LookupFound::Nothing);
    }
    assert_eq!(node.rows(), (1..=5).collect::<Vec<_>>());
    assert_eq!(node.keeper.counters().messages, 5, "what was not written is not counted");
}

#[test]
fn nothing_is_written_behind_an_entry_that_is_not_the_one_that_was_read_under_its_number() {
    let mut node = Node::behind(0);
    node.follow(5);
    node.store();
    // Another node has given the database other entries under the next numbers.
    node.put_back(7);
    node.keeper.store.digests.insert(AppliedPosition(7), StreamDigest(1_000));
    node.follow(4);
    node.store();
    assert_eq!(node.rows(), (1..=5).collect::<Vec<_>>(), "8 and 9 do not come behind another 7");
    assert_eq!(node.progress.applied(), AppliedPosition(7));
    assert_eq!(node.progress.stored(), StreamPosition(5), "what of this node's entries is stored");
    assert_eq!(node.progress.diverged(), StreamPosition(7));
    // The ledger is made anew, and what it had is not written before that either.
    node.progress.ask_fence(StreamPosition(NEXT_STREAM));
    node.store();
    assert_eq!(node.rows(), (1..=5).collect::<Vec<_>>());
    assert_eq!(node.progress.applied(), AppliedPosition(NEXT_STREAM));
    node.entries = NEXT_STREAM;
    node.follow(2);
    node.store();
    assert_eq!(node.rows().len(), 7);
    assert_eq!(node.progress.stored(), StreamPosition(NEXT_STREAM + 2));
}

#[test]
fn what_a_node_reads_later_under_the_number_at_which_the_database_is_is_compared() {
    for is_other in [false, true] {
        let mut node = Node::behind(0);
        node.follow(5);
        node.store();
        node.put_back(7);
        node.store();
        assert_eq!((node.progress.applied(), node.progress.stored()), (AppliedPosition(7), StreamPosition(5)));
        node.parted_at = is_other.then_some(5);
        node.follow(2);
        node.store();
        let expected = if is_other { StreamPosition(5) } else { StreamPosition(7) };
        assert_eq!(node.progress.stored(), expected, "is_other: {is_other}");
    }
}

#[test]
fn a_position_whose_entry_a_gateway_of_a_former_version_did_not_name_is_taken_as_it_is() {
    let mut node = Node::behind(0);
    node.follow(5);
    node.store();
    node.put_back(7);
    node.keeper.store.digests.clear();
    node.follow(4);
    node.store();
    assert_eq!(node.rows(), [1, 2, 3, 4, 5, 8, 9]);
    assert_eq!(node.progress.stored(), StreamPosition(9));
}

#[test]
fn what_a_database_has_lost_and_this_node_does_not_have_is_not_called_gone_while_another_may_write_it_again() {
    let mut node = Node::behind(4);
    node.follow(6);
    node.store();
    node.put_back(2);
    node.store();
    assert_eq!((node.rows(), node.page_after(0)), (vec![], None));
    // It does.
    let database = rusqlite::Connection::open(&node.path).unwrap();
    database.execute_batch("UPDATE ledger_position SET position = 4").unwrap();
    node.store();
    assert_eq!(node.rows(), (5..=10).collect::<Vec<_>>(), "and the rest follows");
    assert!(node.page_after(0).is_some());
    let counters = node.keeper.counters();
    assert_eq!((counters.put_back, counters.entries_lost), (1, 0));
}
