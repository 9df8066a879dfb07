//! What every database does for the store's thread, tested on each of them: a real SQLite file and a real MariaDB.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::future::Future;

use rusqlite::Connection;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::mysql::{MySqlStore, Sharing, Use};
use super::names::NameTaken;
use super::sqlite::SqliteStore;
use super::*;
use crate::contract::digest::digest;
use crate::limits::{BATCH_ROWS, CURSORS_READ_MAX, MYSQL_POOL_SIZE, USER_CURSORS_MAX};
use crate::services::Database;

pub(super) const FAR: u64 = 1 << 63;

/// A database for one test, which can be opened again and again.
pub(super) trait Bed {
    type S: Store;
    fn new() -> Self;
    fn open(&self) -> Self::S;
    fn run<T>(&self, future: impl Future<Output = T>) -> T;
    fn sql(&self, statement: &str);
    fn count(&self, table: &str) -> u64;
}

pub(super) struct Sqlite {
    dir: TempDir,
    runtime: Runtime,
}

pub(super) struct MySql {
    pub(super) database: Database,
    runtime: Runtime,
}

pub(super) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

impl Bed for Sqlite {
    type S = SqliteStore;

    fn new() -> Self {
        Sqlite { dir: TempDir::new().unwrap(), runtime: runtime() }
    }

    fn open(&self) -> SqliteStore {
        SqliteStore::open(&self.dir.path().join("store.sqlite"), BATCH_ROWS).unwrap()
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    fn sql(&self, statement: &str) {
        Connection::open(self.dir.path().join("store.sqlite")).unwrap().execute(statement, []).unwrap();
    }

    fn count(&self, table: &str) -> u64 {
        let connection = Connection::open(self.dir.path().join("store.sqlite")).unwrap();
        connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0)).unwrap() as u64
    }
}

impl MySql {
    /// As one of several gateways.
    pub(super) fn open_of_cluster(&self) -> MySqlStore {
        self.open_as(MYSQL_POOL_SIZE, Sharing::Cluster)
    }

    /// The same, on the runtime that runs this.
    pub(super) async fn opened_of_cluster(&self) -> MySqlStore {
        let how = Use { batch_rows: BATCH_ROWS, pool_size: MYSQL_POOL_SIZE, sharing: Sharing::Cluster };
        MySqlStore::open(&self.database.opts(), how).await.unwrap()
    }

    /// With so many connections.
    pub(super) fn open_with_pool(&self, pool_size: usize) -> MySqlStore {
        self.open_as(pool_size, Sharing::Alone)
    }

    fn open_as(&self, pool_size: usize, sharing: Sharing) -> MySqlStore {
        let how = Use { batch_rows: BATCH_ROWS, pool_size, sharing };
        self.run(MySqlStore::open(&self.database.opts(), how)).unwrap()
    }
}

impl Bed for MySql {
    type S = MySqlStore;

    fn new() -> Self {
        MySql { database: Database::create(), runtime: runtime() }
    }

    fn open(&self) -> MySqlStore {
        self.open_as(MYSQL_POOL_SIZE, Sharing::Alone)
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    fn sql(&self, statement: &str) {
        self.database.sql(statement);
    }

    fn count(&self, table: &str) -> u64 {
        self.database.count(table)
    }
}

/// Each claim is a test on each database.
macro_rules! claims {
    ($($claim:ident)*) => {
        mod sqlite {
            $(#[test] fn $claim() { super::$claim(&<super::Sqlite as super::Bed>::new()); })*
        }
        mod mysql {
            $(#[test] fn $claim() { super::$claim(&<super::MySql as super::Bed>::new()); })*
        }
    };
}

claims! {
    a_transaction_applied_again_changes_nothing
    a_row_numbered_twice_is_refused_and_nothing_of_its_transaction_stays
    a_message_whose_name_is_taken_keeps_nothing_else_from_the_store
    whole_batches_and_what_is_left_over_are_all_written
    a_page_starts_after_the_cursor_and_ends_at_its_limits
    deleted_rows_are_announced_as_a_gap_and_never_skipped_in_the_middle
    a_row_without_its_message_is_an_error_not_a_hole
    several_pages_at_once_are_each_as_if_read_alone
    a_repeat_is_found_under_its_sender_and_name_only
    the_newest_row_of_every_user_is_found_also_of_ids_above_two_to_the_63
    cursors_never_go_back
    cursors_of_a_crowd_are_read_together_each_for_its_device
    a_user_has_so_many_cursors_and_the_one_furthest_behind_goes
    groups_change_by_version_and_end_with_their_last_member
    a_message_and_all_cursors_of_its_users_are_found
}

fn a_message_and_all_cursors_of_its_users_are_found<B: Bed>(bed: &B) {
    let mut store = bed.open();
    bed.run(apply(&mut store, transaction(1..=3))).unwrap();
    let head = bed.run(store.message(MsgId(2 << 22))).unwrap().unwrap();
    assert_eq!((head.sender, head.to), (UserId(1), Conversation::User(UserId(FAR))));
    assert_eq!((head.client_msg_id, head.sender_seq, head.body_bytes), (name(2), Seq(2), 6));
    assert_eq!(bed.run(store.message(MsgId(4 << 22))).unwrap(), None);
    let cursor = |user, device, seq| CursorRow { user: UserId(user), device: DeviceId(device), seq: Seq(seq) };
    let saved = [cursor(1, 1, 3), cursor(1, u64::MAX, 1), cursor(FAR, 7, 2), cursor(9, 1, 1)];
    bed.run(store.save_cursors(&saved)).unwrap();
    let mut found = bed.run(store.devices(&[UserId(FAR), UserId(1), UserId(77)])).unwrap();
    found.sort_by_key(|row| (row.user, row.device));
    assert_eq!(found, saved[..3]);
    assert_eq!(bed.run(store.devices(&[])).unwrap(), []);
}

fn name(n: u64) -> ClientMsgId {
    ClientMsgId::from_parts(1_800_000_000_000, u128::from(n))
}

fn body(n: u64, sender: u64, to: Conversation, sender_seq: u64) -> StoredBody {
    let body = format!("body {n}").into_bytes();
    StoredBody {
        msg_id: MsgId(n << 22),
        sender: UserId(sender),
        to,
        client_msg_id: name(n),
        sender_seq: Seq(sender_seq),
        digest: digest(to, &body),
        body: body.into(),
    }
}

fn row(user: u64, seq: u64, n: u64) -> InboxRow {
    InboxRow { user: UserId(user), seq: Seq(seq), msg_id: MsgId(n << 22) }
}

/// Messages `numbers`, from user 1 to user `FAR`, whose rows have the messages' numbers as seqs.
pub(super) fn transaction(numbers: std::ops::RangeInclusive<u64>) -> Transaction {
    let to = Conversation::User(UserId(FAR));
    let mut rows: Vec<_> = numbers.clone().flat_map(|n| [row(1, n, n), row(FAR, n, n)]).collect();
    rows.sort();
    Transaction {
        messages: numbers.clone().map(|n| body(n, 1, to, n)).collect(),
        rows,
        groups: vec![],
        applied: AppliedPosition(*numbers.end() * 100),
        msg_id_max: MsgId(*numbers.end() << 22),
        digest: StreamDigest::default(),
    }
}

pub(super) async fn apply<S: Store>(store: &mut S, transaction: Transaction) -> Result<Written, StoreError> {
    let encoded = store.encode(transaction);
    store.apply(encoded).await
}

pub(super) fn seqs(page: &Page) -> Vec<u64> {
    page.rows.iter().map(|(seq, _)| seq.0).collect()
}

pub(super) fn page<B: Bed>(
    bed: &B,
    store: &mut B::S,
    user: u64,
    after: u64,
    rows_max: usize,
    bytes_max: usize,
) -> Page {
    bed.run(store.page(UserId(user), Seq(after), rows_max, bytes_max, &mut Messages::default())).unwrap()
}

fn a_transaction_applied_again_changes_nothing<B: Bed>(bed: &B) {
    let mut store = bed.open();
    bed.run(apply(&mut store, transaction(1..=3))).unwrap();
    bed.run(apply(&mut store, transaction(1..=3))).unwrap();
    assert_eq!(bed.count("inbox"), 6);
    drop(store);
    let mut store = bed.open();
    bed.run(apply(&mut store, transaction(1..=3))).unwrap();
    assert_eq!(bed.count("inbox"), 6);
    let at = bed.run(store.position()).unwrap();
    assert_eq!((at.applied, at.msg_id_max), (AppliedPosition(300), MsgId(3 << 22)));
}

fn a_row_numbered_twice_is_refused_and_nothing_of_its_transaction_stays<B: Bed>(bed: &B) {
    let mut store = bed.open();
    bed.run(apply(&mut store, transaction(1..=3))).unwrap();
    let mut twice = transaction(4..=4);
    twice.rows.push(row(1, 3, 4));
    assert!(matches!(bed.run(apply(&mut store, twice)), Err(StoreError::Broken { .. })));
    assert_eq!(bed.count("inbox"), 6);
    assert_eq!(bed.run(store.position()).unwrap().applied, AppliedPosition(300));
    bed.run(apply(&mut store, transaction(4..=4))).unwrap();
    assert_eq!(bed.count("inbox"), 8);
}

fn whole_batches_and_what_is_left_over_are_all_written<B: Bed>(bed: &B) {
    let mut store = bed.open();
    bed.run(apply(&mut store, transaction(1..=601))).unwrap();
    assert_eq!(bed.count("inbox"), 1202);
    let all = page(bed, &mut store, FAR, 0, 1000, usize::MAX);
    assert_eq!(seqs(&all), (1..=601).collect::<Vec<_>>());
    for (seq, message) in &all.rows {
        assert_eq!(message.msg_id, MsgId(seq.0 << 22));
        assert_eq!(message.push.body(), format!("body {}", seq.0).as_bytes());
        assert_eq!((message.sender, message.to), (UserId(1), Conversation::User(UserId(FAR))));
        assert_eq!(message.client_msg_id, name(seq.0));
    }
}

fn a_page_starts_after_the_cursor_and_ends_at_its_limits<B: Bed>(bed: &B) {
    let mut store = bed.open();
    bed.run(apply(&mut store, transaction(1..=9))).unwrap();
    assert_eq!(seqs(&page(bed, &mut store, 1, 3, 4, usize::MAX)), [4, 5, 6, 7]);
    // Bodies of six bytes: the third one reaches thirteen.
    assert_eq!(seqs(&page(bed, &mut store, 1, 0, 100, 13)), [1, 2, 3]);
    assert_eq!(seqs(&page(bed, &mut store, 1, 9, 100, 100)), [0u64; 0]);
    assert_eq!(seqs(&page(bed, &mut store, 1, u64::MAX - 1, 100, 100)), [0u64; 0]);
    assert_eq!(seqs(&page(bed, &mut store, 77, 0, 100, 100)), [0u64; 0]);
}

fn a_message_whose_name_is_taken_keeps_nothing_else_from_the_store<B: Bed>(bed: &B) {
    let mut store = bed.open();
    bed.run(apply(&mut store, transaction(1..=3))).unwrap();
    let mut work = transaction(4..=8);
    // One of a transaction before, and one of its own.
    work.messages[1].client_msg_id = name(2);
    work.messages[3].client_msg_id = name(4);
    let written = bed.run(apply(&mut store, work)).unwrap();
    let taken = |n: u64, first: u64| NameTaken {
        msg_id: MsgId(n << 22),
        sender: UserId(1),
        client_msg_id: name(first),
        first: MsgId(first << 22),
    };
    assert_eq!(written.names_taken, [taken(5, 2), taken(7, 4)]);
    assert_eq!(bed.count("names_taken"), 2);
    assert_eq!(seqs(&page(bed, &mut store, FAR, 0, 100, 10_000)), [1, 2, 3, 4, 5, 6, 7, 8]);
    let first_of = |n| Lookup { sender: UserId(1), client_msg_id: name(n), generation: 0 };
    let found = bed.run(store.find(&[first_of(2), first_of(4), first_of(8)])).unwrap().messages;
    let found: Vec<u64> = found.iter().map(|found| found.map_or(0, |message| message.msg_id.0 >> 22)).collect();
    assert_eq!(found, [2, 4, 8], "a repeat is answered with the first");
    let written = bed.run(apply(&mut store, transaction(9..=9))).unwrap();
    assert_eq!((written, bed.run(store.position()).unwrap().applied), (Written::default(), AppliedPosition(900)));
}

fn deleted_rows_are_announced_as_a_gap_and_never_skipped_in_the_middle<B: Bed>(bed: &B) {
    let mut store = bed.open();
    bed.run(apply(&mut store, transaction(1..=9))).unwrap();
    bed.sql("DELETE FROM inbox WHERE user_id = 1 AND seq IN (1, 2, 6)");
    let first = page(bed, &mut store, 1, 0, 100, 1000);
    assert_eq!((seqs(&first), first.gap_to), (vec![3, 4, 5], Some(Seq(2))));
    let second = page(bed, &mut store, 1, 5, 100, 1000);
    assert_eq!((seqs(&second), second.gap_to), (vec![7, 8, 9], Some(Seq(6))));
    let without = page(bed, &mut store, 1, 3, 100, 1000);
    assert_eq!((seqs(&without), without.gap_to), (vec![4, 5], None));
}

fn a_row_without_its_message_is_an_error_not_a_hole<B: Bed>(bed: &B) {
    let mut store = bed.open();
    bed.run(apply(&mut store, transaction(1..=3))).unwrap();
    bed.sql(&format!("DELETE FROM messages WHERE msg_id = {}", 2u64 << 22));
    let read = bed.run(store.page(UserId(1), Seq(0), 10, 1000, &mut Messages::default()));
    assert!(matches!(read, Err(StoreError::Broken { .. })));
}

fn several_pages_at_once_are_each_as_if_read_alone<B: Bed>(bed: &B) {
    let mut store = bed.open();
    bed.run(apply(&mut store, transaction(1..=99))).unwrap();
    bed.sql(&format!("DELETE FROM messages WHERE msg_id = {}", 50u64 << 22));
    let wanted =
        |user, after, rows_max| PageWanted { user: UserId(user), after: Seq(after), rows_max, bytes_max: 1_000 };
    let asked = [wanted(1, 0, 5), wanted(FAR, 49, 5), wanted(77, 0, 5), wanted(FAR, 97, 9), wanted(1, 95, 2)];
    let pages = bed.run(store.pages(&asked, &mut Messages::default()));
    let seqs: Vec<Option<Vec<u64>>> = pages.iter().map(|page| page.as_ref().ok().map(seqs)).collect();
    // One of them cannot be read, which harms no other.
    assert_eq!(seqs, [Some(vec![1, 2, 3, 4, 5]), None, Some(vec![]), Some(vec![98, 99]), Some(vec![96, 97])]);
    assert!(matches!(pages[1], Err(StoreError::Broken { .. })));
}

fn a_repeat_is_found_under_its_sender_and_name_only<B: Bed>(bed: &B) {
    let mut store = bed.open();
    bed.run(apply(&mut store, transaction(1..=3))).unwrap();
    let lookups = [
        Lookup { sender: UserId(1), client_msg_id: name(2), generation: 0 },
        Lookup { sender: UserId(FAR), client_msg_id: name(2), generation: 0 },
        Lookup { sender: UserId(1), client_msg_id: name(9), generation: 0 },
    ];
    let found = bed.run(store.find(&lookups)).unwrap();
    let expected = StoredMessage {
        msg_id: MsgId(2 << 22),
        seq: Seq(2),
        sent_at_ms: MsgId(2 << 22).sent_at_ms(),
        digest: digest(Conversation::User(UserId(FAR)), b"body 2"),
    };
    assert_eq!(found.messages, [Some(expected), None, None]);
    assert_eq!(found.at, bed.run(store.position()).unwrap().applied);
    assert!(found.at > AppliedPosition(0));
}

fn the_newest_row_of_every_user_is_found_also_of_ids_above_two_to_the_63<B: Bed>(bed: &B) {
    let mut store = bed.open();
    let mut work = transaction(1..=3);
    work.rows.extend([row(0, 1, 1), row(u64::MAX, 8, 1), row(u64::MAX, 9, 2), row(i64::MAX as u64, 5, 1)]);
    bed.run(apply(&mut store, work)).unwrap();
    let mut newest = vec![];
    bed.run(store.newest_rows(&mut |row| newest.push((row.user.0, row.seq.0)))).unwrap();
    newest.sort();
    assert_eq!(newest, [(0, 1), (1, 3), (i64::MAX as u64, 5), (FAR, 3), (u64::MAX, 9)]);
}

fn cursors_never_go_back<B: Bed>(bed: &B) {
    let mut store = bed.open();
    let cursor = |device, seq| CursorRow { user: UserId(FAR), device: DeviceId(device), seq: Seq(seq) };
    bed.run(store.save_cursors(&[cursor(1, 5), cursor(2, 7), cursor(1, 4)])).unwrap();
    bed.run(store.save_cursors(&[cursor(2, 6)])).unwrap();
    let asked = [1, 2, 3].map(|device| (UserId(FAR), DeviceId(device)));
    assert_eq!(bed.run(store.cursors(&asked)).unwrap(), [Some(Seq(5)), Some(Seq(7)), None]);
}

fn cursors_of_a_crowd_are_read_together_each_for_its_device<B: Bed>(bed: &B) {
    let mut store = bed.open();
    // Every second device has one; a user has several, and devices of different users have the same number.
    let devices: Vec<(UserId, DeviceId)> =
        (0..CURSORS_READ_MAX as u64).map(|at| (UserId(FAR + at / 4), DeviceId(u64::MAX - at % 4))).collect();
    let seq = |at: usize| (at % 2 == 1).then_some(Seq(FAR + at as u64));
    let rows: Vec<CursorRow> = std::iter::zip(&devices, 0..)
        .filter_map(|((user, device), at)| Some(CursorRow { user: *user, device: *device, seq: seq(at)? }))
        .collect();
    bed.run(store.save_cursors(&rows)).unwrap();
    // In any order, and asked for twice.
    let mut asked: Vec<(usize, (UserId, DeviceId))> = devices.into_iter().enumerate().collect();
    asked.reverse();
    asked.push(asked[0]);
    let expected: Vec<Option<Seq>> = asked.iter().map(|(at, _)| seq(*at)).collect();
    let asked: Vec<(UserId, DeviceId)> = asked.into_iter().map(|(_, device)| device).collect();
    assert_eq!(bed.run(store.cursors(&asked)).unwrap(), expected);
    assert_eq!(bed.run(store.cursors(&[])).unwrap(), []);
}

fn a_user_has_so_many_cursors_and_the_one_furthest_behind_goes<B: Bed>(bed: &B) {
    const MORE: u64 = 5;
    let mut store = bed.open();
    let max = USER_CURSORS_MAX as u64;
    let row = |user, device, seq| CursorRow { user: UserId(user), device: DeviceId(device), seq: Seq(seq) };
    let kept = |store: &mut B::S, user| -> Vec<u64> {
        let asked: Vec<(UserId, DeviceId)> = (1..=max + MORE).map(|device| (UserId(user), DeviceId(device))).collect();
        let found = bed.run(store.cursors(&asked)).unwrap();
        std::iter::zip(1.., found).filter_map(|(device, seq)| seq.map(|_| device)).collect()
    };
    // As many as may be, and another user's.
    let rows: Vec<CursorRow> = (1..=max).map(|device| row(FAR, device, 100 + device)).collect();
    bed.run(store.save_cursors(&rows)).unwrap();
    bed.run(store.save_cursors(&[row(FAR + 1, 1, 1)])).unwrap();
    assert_eq!(kept(&mut store, FAR), (1..=max).collect::<Vec<_>>());
    // The first one reads on; then more devices come.
    bed.run(store.save_cursors(&[row(FAR, 1, 10_000)])).unwrap();
    for device in max + 1..=max + MORE {
        bed.run(store.save_cursors(&[row(FAR, device, 1_000)])).unwrap();
    }
    let expected: Vec<u64> = std::iter::once(1).chain(2 + MORE..=max + MORE).collect();
    assert_eq!(kept(&mut store, FAR), expected);
    assert_eq!(kept(&mut store, FAR + 1), [1]);
}

fn groups<B: Bed>(bed: &B, store: &mut B::S) -> Vec<StoredGroup> {
    let mut groups = vec![];
    bed.run(store.groups(&mut |group| groups.push(group))).unwrap();
    for group in &mut groups {
        group.members.sort_by_key(|(user, _)| *user);
    }
    groups
}

fn write(version: u32, put: &[(u64, Role)], delete: &[u64]) -> GroupWrite {
    GroupWrite {
        group: GroupId(7),
        version: RosterVersion(version),
        put: put.iter().map(|(user, role)| (UserId(*user), *role)).collect(),
        delete: delete.iter().map(|user| UserId(*user)).collect(),
        maker: None,
    }
}

fn groups_change_by_version_and_end_with_their_last_member<B: Bed>(bed: &B) {
    let mut store = bed.open();
    let mut apply = |position, groups| {
        let work = Transaction { groups, applied: AppliedPosition(position), ..Transaction::default() };
        bed.run(apply(&mut store, work)).unwrap();
        self::groups(bed, &mut store)
    };
    let stored = |version, members: &[(u64, Role)]| StoredGroup {
        group: GroupId(7),
        version: RosterVersion(version),
        members: members.iter().map(|(user, role)| (UserId(*user), *role)).collect(),
        maker: Some(UserId(FAR)),
    };
    let created = write(1, &[(1, Role::Owner), (2, Role::Member), (FAR, Role::Member)], &[]);
    let created = GroupWrite { maker: Some(UserId(FAR)), ..created };
    let expected = stored(1, &[(1, Role::Owner), (2, Role::Member), (FAR, Role::Member)]);
    assert_eq!(apply(1, vec![created.clone()]), std::slice::from_ref(&expected));
    assert_eq!(apply(2, vec![created]), std::slice::from_ref(&expected));
    assert_eq!(apply(3, vec![write(1, &[], &[2])]), [expected]);
    let left = vec![write(2, &[(2, Role::Owner)], &[1])];
    assert_eq!(apply(4, left), [stored(2, &[(2, Role::Owner), (FAR, Role::Member)])]);
    let added = GroupWrite { maker: Some(UserId(2)), ..write(3, &[(3, Role::Member)], &[]) };
    let expected = stored(3, &[(2, Role::Owner), (3, Role::Member), (FAR, Role::Member)]);
    assert_eq!(apply(5, vec![added]), [StoredGroup { maker: Some(UserId(2)), ..expected }]);
    assert_eq!(apply(6, vec![write(4, &[], &[2, 3, FAR])]), []);
    // One that nobody is known to have made.
    let unmade = apply(7, vec![write(1, &[(1, Role::Owner)], &[])]);
    assert_eq!(unmade, [StoredGroup { maker: None, ..stored(1, &[(1, Role::Owner)]) }]);
}
