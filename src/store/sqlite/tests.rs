//! The embedded store against real files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use futures_lite::future::block_on;
use tempfile::TempDir;

use super::*;
use crate::ledger::dedup::digest;

const FAR: u64 = 1 << 63;

fn open(dir: &TempDir) -> SqliteStore {
    SqliteStore::open(&dir.path().join("store.sqlite")).unwrap()
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
fn transaction(numbers: std::ops::RangeInclusive<u64>) -> Transaction {
    let to = Conversation::User(UserId(FAR));
    let mut rows: Vec<_> = numbers.clone().flat_map(|n| [row(1, n, n), row(FAR, n, n)]).collect();
    rows.sort();
    Transaction {
        messages: numbers.clone().map(|n| body(n, 1, to, n)).collect(),
        rows,
        groups: vec![],
        applied: Position(*numbers.end() * 100),
        msg_id_max: MsgId(*numbers.end() << 22),
    }
}

fn rows_count(store: &SqliteStore) -> i64 {
    store.connection.query_row("SELECT count(*) FROM inbox", [], |row| row.get(0)).unwrap()
}

fn seqs(page: &Page) -> Vec<u64> {
    page.rows.iter().map(|(seq, _)| seq.0).collect()
}

fn page(store: &mut SqliteStore, user: u64, after: u64, rows_max: usize, bytes_max: usize) -> Page {
    block_on(store.page(UserId(user), Seq(after), rows_max, bytes_max, &mut Messages::default())).unwrap()
}

#[test]
fn a_transaction_applied_again_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    block_on(store.apply(&transaction(1..=3))).unwrap();
    block_on(store.apply(&transaction(1..=3))).unwrap();
    assert_eq!(rows_count(&store), 6);
    drop(store);
    let mut store = open(&dir);
    block_on(store.apply(&transaction(1..=3))).unwrap();
    assert_eq!(rows_count(&store), 6);
    let at = block_on(store.position()).unwrap();
    assert_eq!(at, StorePosition { applied: Position(300), msg_id_max: MsgId(3 << 22) });
}

#[test]
fn a_row_numbered_twice_is_refused_and_nothing_of_its_transaction_stays() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    block_on(store.apply(&transaction(1..=3))).unwrap();
    let mut twice = transaction(4..=4);
    twice.rows.push(row(1, 3, 4));
    assert!(matches!(block_on(store.apply(&twice)), Err(StoreError::Broken { .. })));
    assert_eq!(rows_count(&store), 6);
    assert_eq!(block_on(store.position()).unwrap().applied, Position(300));
    block_on(store.apply(&transaction(4..=4))).unwrap();
    assert_eq!(rows_count(&store), 8);
}

#[test]
fn whole_batches_and_what_is_left_over_are_all_written() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    block_on(store.apply(&transaction(1..=601))).unwrap();
    assert_eq!(rows_count(&store), 1202);
    let all = page(&mut store, FAR, 0, 1000, usize::MAX);
    assert_eq!(seqs(&all), (1..=601).collect::<Vec<_>>());
    for (seq, message) in &all.rows {
        assert_eq!(message.msg_id, MsgId(seq.0 << 22));
        assert_eq!(message.push.body(), format!("body {}", seq.0).as_bytes());
        assert_eq!((message.sender, message.to), (UserId(1), Conversation::User(UserId(FAR))));
        assert_eq!(message.client_msg_id, name(seq.0));
    }
}

#[test]
fn a_page_starts_after_the_cursor_and_ends_at_its_limits() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    block_on(store.apply(&transaction(1..=9))).unwrap();
    assert_eq!(seqs(&page(&mut store, 1, 3, 4, usize::MAX)), [4, 5, 6, 7]);
    // Bodies of six bytes: the third one reaches thirteen.
    assert_eq!(seqs(&page(&mut store, 1, 0, 100, 13)), [1, 2, 3]);
    assert_eq!(seqs(&page(&mut store, 1, 9, 100, 100)), [0u64; 0]);
    assert_eq!(seqs(&page(&mut store, 1, u64::MAX - 1, 100, 100)), [0u64; 0]);
    assert_eq!(seqs(&page(&mut store, 77, 0, 100, 100)), [0u64; 0]);
}

#[test]
fn deleted_rows_are_announced_as_a_gap_and_never_skipped_in_the_middle() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    block_on(store.apply(&transaction(1..=9))).unwrap();
    store.connection.execute("DELETE FROM inbox WHERE user_id = 1 AND seq IN (1, 2, 6)", []).unwrap();
    let first = page(&mut store, 1, 0, 100, 1000);
    assert_eq!((seqs(&first), first.gap_to), (vec![3, 4, 5], Some(Seq(2))));
    let second = page(&mut store, 1, 5, 100, 1000);
    assert_eq!((seqs(&second), second.gap_to), (vec![7, 8, 9], Some(Seq(6))));
    let without = page(&mut store, 1, 3, 100, 1000);
    assert_eq!((seqs(&without), without.gap_to), (vec![4, 5], None));
}

#[test]
fn a_row_without_its_message_is_an_error_not_a_hole() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    block_on(store.apply(&transaction(1..=3))).unwrap();
    store.connection.execute("DELETE FROM messages WHERE msg_id = ?1", [2i64 << 22]).unwrap();
    let read = block_on(store.page(UserId(1), Seq(0), 10, 1000, &mut Messages::default()));
    assert!(matches!(read, Err(StoreError::Broken { .. })));
}

#[test]
fn a_repeat_is_found_under_its_sender_and_name_only() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    block_on(store.apply(&transaction(1..=3))).unwrap();
    let lookups = [
        Lookup { sender: UserId(1), client_msg_id: name(2) },
        Lookup { sender: UserId(FAR), client_msg_id: name(2) },
        Lookup { sender: UserId(1), client_msg_id: name(9) },
    ];
    let found = block_on(store.find(&lookups)).unwrap();
    let expected = StoredMessage {
        msg_id: MsgId(2 << 22),
        seq: Seq(2),
        sent_at_ms: sent_at_ms(MsgId(2 << 22)),
        digest: digest(Conversation::User(UserId(FAR)), b"body 2"),
    };
    assert_eq!(found, [Some(expected), None, None]);
}

#[test]
fn the_newest_row_of_every_user_is_found_also_of_ids_above_two_to_the_63() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    let mut work = transaction(1..=3);
    work.rows.extend([row(0, 1, 1), row(u64::MAX, 8, 1), row(u64::MAX, 9, 2), row(i64::MAX as u64, 5, 1)]);
    block_on(store.apply(&work)).unwrap();
    let mut newest = vec![];
    block_on(store.newest_rows(&mut |row| newest.push((row.user.0, row.seq.0)))).unwrap();
    newest.sort();
    assert_eq!(newest, [(0, 1), (1, 3), (i64::MAX as u64, 5), (FAR, 3), (u64::MAX, 9)]);
}

#[test]
fn cursors_never_go_back() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    let cursor = |device, seq| CursorRow { user: UserId(FAR), device: DeviceId(device), seq: Seq(seq) };
    block_on(store.save_cursors(&[cursor(1, 5), cursor(2, 7), cursor(1, 4)])).unwrap();
    block_on(store.save_cursors(&[cursor(2, 6)])).unwrap();
    assert_eq!(block_on(store.cursor(UserId(FAR), DeviceId(1))).unwrap(), Some(Seq(5)));
    assert_eq!(block_on(store.cursor(UserId(FAR), DeviceId(2))).unwrap(), Some(Seq(7)));
    assert_eq!(block_on(store.cursor(UserId(FAR), DeviceId(3))).unwrap(), None);
}

fn groups(store: &mut SqliteStore) -> Vec<StoredGroup> {
    let mut groups = vec![];
    block_on(store.groups(&mut |group| groups.push(group))).unwrap();
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
    }
}

#[test]
fn groups_change_by_version_and_end_with_their_last_member() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    let mut apply = |position, groups| {
        let work = Transaction { groups, applied: Position(position), ..Transaction::default() };
        block_on(store.apply(&work)).unwrap();
        self::groups(&mut store)
    };
    let stored = |version, members: &[(u64, Role)]| StoredGroup {
        group: GroupId(7),
        version: RosterVersion(version),
        members: members.iter().map(|(user, role)| (UserId(*user), *role)).collect(),
    };
    let created = write(1, &[(1, Role::Owner), (2, Role::Member), (FAR, Role::Member)], &[]);
    let expected = stored(1, &[(1, Role::Owner), (2, Role::Member), (FAR, Role::Member)]);
    assert_eq!(apply(1, vec![created.clone()]), std::slice::from_ref(&expected));
    assert_eq!(apply(2, vec![created]), std::slice::from_ref(&expected));
    assert_eq!(apply(3, vec![write(1, &[], &[2])]), [expected]);
    let left = vec![write(2, &[(2, Role::Owner)], &[1])];
    assert_eq!(apply(4, left), [stored(2, &[(2, Role::Owner), (FAR, Role::Member)])]);
    assert_eq!(apply(5, vec![write(3, &[], &[2, FAR])]), []);
}

#[test]
fn a_full_disk_is_tried_again_and_recovers() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    block_on(store.apply(&transaction(1..=3))).unwrap();
    let pages: i64 = store.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    store.connection.pragma_update(None, "max_page_count", pages).unwrap();
    let refused = block_on(store.apply(&transaction(4..=2000)));
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    assert_eq!(block_on(store.position()).unwrap().applied, Position(300));
    assert_eq!(rows_count(&store), 6);
    store.connection.pragma_update(None, "max_page_count", 1_000_000).unwrap();
    block_on(store.apply(&transaction(4..=2000))).unwrap();
    assert_eq!(rows_count(&store), 4000);
}

#[test]
fn a_writer_in_another_process_makes_it_unavailable_for_a_while() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    store.connection.busy_timeout(std::time::Duration::from_millis(1)).unwrap();
    let other = Connection::open(dir.path().join("store.sqlite")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = block_on(store.apply(&transaction(1..=3)));
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    other.execute_batch("ROLLBACK").unwrap();
    block_on(store.apply(&transaction(1..=3))).unwrap();
}

#[test]
fn a_newer_schema_is_refused_and_left_as_it_is() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    store.connection.pragma_update(None, "user_version", 99).unwrap();
    drop(store);
    let path = dir.path().join("store.sqlite");
    let Err(StoreError::Broken { source, .. }) = SqliteStore::open(&path) else { panic!("must be refused") };
    assert!(source.to_string().contains("version 99"), "{source}");
}

#[test]
fn a_file_of_something_else_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("store.sqlite");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE recipes (name TEXT)").unwrap();
    assert!(matches!(SqliteStore::open(&path), Err(StoreError::Broken { .. })));
    std::fs::write(&path, [7u8; 8192]).unwrap();
    assert!(matches!(SqliteStore::open(&path), Err(StoreError::Broken { .. })));
}

#[test]
fn what_is_secured_is_all_that_was_applied_also_while_somebody_reads() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    assert_eq!(block_on(store.secure()).unwrap(), Position(0));
    block_on(store.apply(&transaction(1..=3))).unwrap();
    assert_eq!(block_on(store.secure()).unwrap(), Position(300));
    let reader = Connection::open(dir.path().join("store.sqlite")).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM inbox;").unwrap();
    block_on(store.apply(&transaction(4..=5))).unwrap();
    assert_eq!(block_on(store.secure()).unwrap(), Position(500));
}
