//! What storing and reading back costs: a burst applied, a page from the database, one from the unapplied tail, and
//! the scan at start. `cargo bench --bench store`. The files lie in the system's temporary directory.

#![allow(missing_docs, reason = "the benchmark macros make public items")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot set up has nothing to say")]

use std::cell::RefCell;
use std::sync::Arc;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use futures_lite::future::block_on;
use ringway::clock::Clock;
use ringway::contract::ids::SessionRef;
use ringway::contract::position::{AppliedPosition, JournalPosition};
use ringway::contract::progress::Progress;
use ringway::contract::store::{PagePurpose, StoreAnswer, StoreAsk};
use ringway::journal::batch::Batch;
use ringway::journal::disk::Directory;
use ringway::journal::record::{GroupRecord, Record, RosterRecord, RosterRecordMember};
use ringway::journal::segment::Journal;
use ringway::limits::BATCH_ROWS;
use ringway::store::keeper::{Keeper, Turn};
use ringway::store::sqlite::SqliteStore;
use ringway::store::{InboxRow, Store, Transaction};
use ringway_wire::ids::{ClientMsgId, GroupId, MsgId, RosterVersion, Seq, UserId};
use ringway_wire::schema::Role;
use tempfile::TempDir;

const MEMBERS: u64 = 500;
const MESSAGES: u64 = 100;

fn main() {
    divan::main();
}

/// One group whose messages are committed and applied.
struct Bed {
    _dir: TempDir,
    clock: Clock,
    journal: Journal<Directory>,
    progress: Arc<Progress>,
    keeper: Keeper<SqliteStore, Directory>,
    messages: u64,
}

impl Bed {
    fn new() -> Bed {
        let dir = TempDir::new().unwrap();
        let disk = Directory::open(&dir.path().join("journal")).unwrap();
        let progress = Arc::new(Progress::default());
        let store = SqliteStore::open(&dir.path().join("store.sqlite"), BATCH_ROWS).unwrap();
        Bed {
            clock: Clock::start(),
            journal: Journal::create(disk.clone(), JournalPosition(0), 1).unwrap(),
            keeper: Keeper::new(store, disk, Arc::clone(&progress), 1),
            progress,
            messages: 0,
            _dir: dir,
        }
    }

    /// A hundred messages of 100 bytes to 500 members, durable.
    fn commit(&mut self) {
        let begin = self.journal.prepare().unwrap();
        let mut batch = Batch::new();
        // Users spread over the whole range, as hashed ids do.
        let member = |n: u64| RosterRecordMember {
            user: UserId((n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)),
            role: Role::Member,
            base: Seq(self.messages),
        };
        let members: Vec<_> = (0..MEMBERS).map(member).collect();
        let sender = members[0].user;
        let roster = RosterRecord { group: GroupId(9), version: RosterVersion(1), members };
        let roster_at = JournalPosition(begin.0 + batch.push(&Record::Roster(roster)));
        for n in 1..=MESSAGES {
            self.messages += 1;
            batch.push(&Record::Group(GroupRecord {
                msg_id: MsgId(self.messages << 12),
                sender,
                group: GroupId(9),
                client_msg_id: ClientMsgId::from_parts(1_800_000_000_000, u128::from(self.messages)),
                roster_at,
                differences: &vec![n as u8; MEMBERS as usize],
                body: &[b'x'; 100],
            }));
        }
        self.journal.append(&mut batch).unwrap();
        self.progress.advance_durable(self.journal.sync().unwrap());
    }

    fn apply(&mut self) {
        while matches!(block_on(self.keeper.turn(self.clock.now())), Turn::Applied { .. }) {}
    }

    fn page(&mut self, member: u64, after: u64) -> usize {
        let (session, purpose) = (SessionRef::default(), PagePurpose::CatchUp);
        let user = UserId((member + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let ask = StoreAsk::Page { session, purpose, user, after: Seq(after), rows_max: 256 };
        match block_on(self.keeper.ask(ask)) {
            Some((_, StoreAnswer::Page { page, .. })) => page.rows.len(),
            _ => 0,
        }
    }
}

#[divan::bench(sample_count = 40, sample_size = 1)]
fn apply_100_messages_to_500_members(bencher: Bencher) {
    let bed = RefCell::new(Bed::new());
    bencher
        .counter(ItemsCount::new(MEMBERS * MESSAGES))
        .with_inputs(|| bed.borrow_mut().commit())
        .bench_local_values(|()| bed.borrow_mut().apply());
}

#[divan::bench]
fn page_of_100_rows_from_the_database(bencher: Bencher) {
    let mut bed = Bed::new();
    bed.commit();
    bed.apply();
    let mut member = 0;
    bencher.counter(ItemsCount::new(MESSAGES)).bench_local(|| {
        member = (member + 1) % MEMBERS;
        assert_eq!(black_box(bed.page(member, 0)), 100);
    });
}

#[divan::bench]
fn page_of_100_rows_from_the_tail(bencher: Bencher) {
    let mut bed = Bed::new();
    // Nothing takes a turn, so nothing is applied.
    bed.commit();
    let mut member = 0;
    bencher.counter(ItemsCount::new(MESSAGES)).bench_local(|| {
        member = (member + 1) % MEMBERS;
        assert_eq!(black_box(bed.page(member, 0)), 100);
    });
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn newest_rows_of_100_000_users(bencher: Bencher) {
    const USERS: u64 = 100_000;
    let dir = TempDir::new().unwrap();
    let mut store = SqliteStore::open(&dir.path().join("store.sqlite"), BATCH_ROWS).unwrap();
    let rows = |seq| (0..USERS).map(move |user| InboxRow { user: UserId(user), seq: Seq(seq), msg_id: MsgId(seq) });
    for seq in 1..=10 {
        let transaction =
            Transaction { rows: rows(seq).collect(), applied: AppliedPosition(seq), ..Transaction::default() };
        block_on(store.apply(transaction)).unwrap();
    }
    bencher.counter(ItemsCount::new(USERS)).bench_local(|| {
        let mut users = 0;
        block_on(store.newest_rows(&mut |_| users += 1)).unwrap();
        assert_eq!(users, USERS);
    });
}
