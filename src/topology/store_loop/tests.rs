//! The loop with threads, a real SQLite file and a real journal directory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, never};
use tempfile::TempDir;

use super::*;
use crate::contract::ids::{Origin, SessionRef};
use crate::contract::policies::StoreRules;
use crate::contract::position::JournalPosition;
use crate::contract::progress::Progress;
use crate::contract::store::{CursorRow, LookupFound, PagePurpose, StoreAnswer, StoreAsk};
use crate::journal::batch::Batch;
use crate::journal::disk::Directory;
use crate::journal::record::{DirectRecord, Record};
use crate::journal::segment::Journal;
use crate::limits::{BATCH_ROWS, LOOKUPS_PENDING_MAX, SQLITE_TRANSACTION_ROWS_MAX, STORE_ANSWERS_MAX};
use crate::store::sqlite::SqliteStore;
use crate::store::yielding::StoreYield;
use crate::topology::mailbox::{Mail, Mailbox, mailbox};
use crate::topology::store::{StoreSender, inbox};
use ringway_wire::ids::{ClientMsgId, DeviceId, MsgId, Seq, UserId};

/// Rows that wait to be written, and those of one commit: eight transactions of the usual size.
const BACKLOG_ROWS: u64 = 8 * SQLITE_TRANSACTION_ROWS_MAX as u64;
const COMMIT_ROWS: u64 = 20_000;

struct Running {
    dir: TempDir,
    progress: Arc<Progress>,
    journal: Journal<Directory>,
    mailbox: Mailbox,
    door: StoreSender,
    found: Receiver<LookupAnswer>,
    thread: thread::JoinHandle<Stopped>,
}

fn start() -> Running {
    let dir = TempDir::new().unwrap();
    let disk = Directory::open(&dir.path().join("journal")).unwrap();
    let journal = Journal::create(disk.clone(), JournalPosition(0), 1).unwrap();
    let progress = Arc::new(Progress::default());
    let (mailbox, slots) = mailbox(ShardId(0), 1);
    let (inbox, door, found) = inbox(vec![slots.answers], StoreYield::OwnCpu);
    let (path, thread_progress) = (dir.path().join("store.sqlite"), Arc::clone(&progress));
    let thread = thread::spawn(move || {
        let keeper = Keeper::new(SqliteStore::open(&path, BATCH_ROWS).unwrap(), disk, thread_progress, 1);
        let (report, _reports) = mpsc::channel(1);
        let rules = StoreRules { linger_ms: 2, retention_days: 0 };
        let ends = StoreEnds { clock: Clock::start(), inbox, report, rules, new_rules: never(), stop_ms: 10_000 };
        let looping = StoreLoop::new(keeper, ends, Priority::own_cpu());
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(looping.run())
    });
    Running { dir, progress, journal, mailbox, door, found, thread }
}

fn name(n: u64) -> ClientMsgId {
    ClientMsgId::from_parts(1_800_000_000_000, u128::from(n))
}

impl Running {
    /// Commits messages `numbers` from user 1 to itself.
    fn commit(&mut self, numbers: std::ops::RangeInclusive<u64>) {
        let durable = self.write(numbers);
        self.progress.advance_durable(durable);
        self.door.grew();
    }

    /// The same without telling anybody; returns what is durable then.
    fn write(&mut self, numbers: std::ops::RangeInclusive<u64>) -> JournalPosition {
        self.journal.prepare().unwrap();
        let mut batch = Batch::new();
        for n in numbers {
            batch.push(&Record::Direct(DirectRecord {
                msg_id: MsgId(n),
                sender: UserId(1),
                to: UserId(1),
                client_msg_id: name(n),
                sender_seq: Seq(n),
                recipient_seq: Seq(n),
                body: b"hello",
            }));
        }
        self.journal.append(&mut batch).unwrap();
        self.journal.sync().unwrap()
    }

    fn ask(&mut self, ask: StoreAsk) -> StoreAnswer {
        self.door.ask(ask).unwrap();
        self.door.wake();
        loop {
            match self.mailbox.next(&mut 0) {
                Some(Mail::Answer(answer)) => return answer,
                Some(other) => panic!("{other:?}"),
                None => thread::yield_now(),
            }
        }
    }

    fn page(&mut self, after: u64) -> Vec<u64> {
        let (session, purpose) = (SessionRef::default(), PagePurpose::Sync(7));
        let ask = StoreAsk::Page { session, purpose, user: UserId(1), after: Seq(after), rows_max: 256 };
        match self.ask(ask) {
            StoreAnswer::Page { page, .. } => page.rows.iter().map(|(seq, _)| seq.0).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn stop(self) -> (TempDir, Arc<Progress>, Stopped) {
        let wake = self.door.clone();
        drop(self.door);
        wake.wake();
        drop(wake);
        (self.dir, self.progress, self.thread.join().unwrap())
    }
}

#[test]
fn what_is_durable_can_be_read_and_is_applied_without_being_asked_for() {
    let mut running = start();
    running.commit(1..=10);
    assert_eq!(running.page(3), [4, 5, 6, 7, 8, 9, 10]);
    while running.progress.applied().in_journal() < running.progress.durable() {
        thread::yield_now();
    }
    assert_eq!(running.page(3), [4, 5, 6, 7, 8, 9, 10]);
    running.door.look_up(Lookup { sender: UserId(1), client_msg_id: name(4), generation: 0 }).unwrap();
    running.door.look_up(Lookup { sender: UserId(1), client_msg_id: name(44), generation: 0 }).unwrap();
    running.door.wake();
    let answers = [running.found.recv().unwrap(), running.found.recv().unwrap()];
    assert!(matches!(answers[0].found, LookupFound::Stored(message) if message.msg_id == MsgId(4)));
    assert_eq!(answers[1].found, LookupFound::Nothing);
}

#[test]
fn at_the_end_everything_is_applied_and_secured_and_cursors_are_saved() {
    let mut running = start();
    let cursor = CursorRow { user: UserId(1), device: DeviceId(2), seq: Seq(3) };
    running.door.ask(StoreAsk::SaveCursors(vec![cursor])).unwrap();
    running.commit(1..=5_000);
    let (dir, progress, stopped) = running.stop();
    assert_eq!(stopped, Stopped::Settled);
    assert_eq!((progress.applied().in_journal(), progress.secured()), (progress.durable(), progress.durable()));
    let mut store = SqliteStore::open(&dir.path().join("store.sqlite"), BATCH_ROWS).unwrap();
    let saved = futures_lite::future::block_on(store.cursors(&[(UserId(1), DeviceId(2))])).unwrap();
    assert_eq!(saved, [Some(Seq(3))]);
    let mut newest = Vec::new();
    futures_lite::future::block_on(store.newest_rows(&mut |row| newest.push(row.seq.0))).unwrap();
    assert_eq!(newest, [5_000]);
}

#[test]
fn a_cursor_is_answered_to_the_session_that_asked() {
    let mut running = start();
    let origin = Origin { request_id: 9, ..Origin::default() };
    match running.ask(StoreAsk::Cursor { origin, user: UserId(1), device: DeviceId(2) }) {
        StoreAnswer::Cursor { origin: answered, seq } => assert_eq!((answered, seq), (origin, None)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_reads_does_not_wait_until_a_backlog_is_written() {
    let mut running = start();
    // The first page is asked for when the store hears of all of it.
    let mut durable = JournalPosition(0);
    for part in 0..BACKLOG_ROWS / COMMIT_ROWS {
        durable = running.write(part * COMMIT_ROWS + 1..=(part + 1) * COMMIT_ROWS);
    }
    running.progress.advance_durable(durable);
    for page in 0..30 {
        assert_eq!(running.page(page * 256).len(), 256);
    }
    let (applied, durable) = (running.progress.applied().in_journal().0, running.progress.durable().0);
    assert!(applied < durable / 2, "30 pages have waited for {applied} bytes of {durable} to be written");
    // And what is owed is written all the same, beside readers too.
    let mut after = 0;
    while running.progress.applied().in_journal() < running.progress.durable() {
        running.page(after % BACKLOG_ROWS);
        after += 256;
    }
}

#[test]
fn a_crowd_that_logs_in_at_once_is_answered_each_with_its_own_cursor() {
    let running = start();
    let saved = |user| CursorRow { user: UserId(user), device: DeviceId(2), seq: Seq(user * 10) };
    running.door.ask(StoreAsk::SaveCursors((1..=2_000).map(saved).collect())).unwrap();
    // More than are read at once.
    for user in 1..=2_500 {
        let origin = Origin { request_id: user as u32, ..Origin::default() };
        running.door.ask(StoreAsk::Cursor { origin, user: UserId(user), device: DeviceId(2) }).unwrap();
    }
    let mut answered = std::collections::BTreeMap::new();
    running.door.wake();
    while answered.len() < 2_500 {
        match running.mailbox.next(&mut 0) {
            Some(Mail::Answer(StoreAnswer::Cursor { origin, seq })) => {
                assert_eq!(answered.insert(origin.request_id, seq), None, "answered twice");
            }
            Some(other) => panic!("{other:?}"),
            None => thread::yield_now(),
        }
    }
    for (user, seq) in answered {
        assert_eq!(seq, (user <= 2_000).then_some(Seq(u64::from(user) * 10)), "of user {user}");
    }
}

#[test]
fn an_answer_is_not_lost_when_the_shard_that_asked_has_too_many_to_read() {
    let running = start();
    let asks_count = STORE_ANSWERS_MAX as u32 + 500;
    for request_id in 1..=asks_count {
        let origin = Origin { request_id, ..Origin::default() };
        let ask = StoreAsk::Cursor { origin, user: UserId(1), device: DeviceId(2) };
        while running.door.ask(ask_again(&ask)).is_err() {
            running.door.wake();
            thread::yield_now();
        }
    }
    running.door.wake();
    // The mailbox is full before anything is read from it, and all questions have been taken.
    while running.mailbox.depths().answers < STORE_ANSWERS_MAX as u64 || !running.door.len() == 0 {
        thread::yield_now();
    }
    let mut answered = std::collections::BTreeSet::new();
    while answered.len() < asks_count as usize {
        match running.mailbox.next(&mut 0) {
            Some(Mail::Answer(StoreAnswer::Cursor { origin, .. })) => assert!(answered.insert(origin.request_id)),
            Some(other) => panic!("{other:?}"),
            None => thread::yield_now(),
        }
    }
}

fn ask_again(ask: &StoreAsk) -> StoreAsk {
    match ask {
        StoreAsk::Cursor { origin, user, device } => StoreAsk::Cursor { origin: *origin, user: *user, device: *device },
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_answer_is_not_lost_when_the_ledger_has_too_many_to_read() {
    let mut running = start();
    // More than the ledger has room for: it stands still while the store answers what was asked before.
    let lookups_count = LOOKUPS_PENDING_MAX as u64 + 300;
    for n in 1..=lookups_count {
        let lookup = Lookup { sender: UserId(1), client_msg_id: name(n), generation: 0 };
        while running.door.look_up(lookup).is_err() {
            running.door.wake();
            thread::yield_now();
        }
    }
    running.door.wake();
    while running.found.len() < LOOKUPS_PENDING_MAX {
        thread::yield_now();
    }
    // Each of these is answered in another round of the store's: what it can look up, it has looked up.
    (0..10).for_each(|_| assert_eq!(running.page(0), Vec::<u64>::new()));
    let mut found = std::collections::BTreeSet::new();
    while found.len() < lookups_count as usize {
        let answer = running.found.recv_timeout(Duration::from_secs(60)).expect("every look-up is answered");
        assert!(found.insert(answer.lookup.client_msg_id.0));
    }
}
