//! What is SQLite's own; what every store does is in `store::contract`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use futures_lite::future::block_on;
use tempfile::TempDir;

use super::*;
use crate::limits::BATCH_ROWS;
use crate::store::contract::transaction;

fn open(dir: &TempDir) -> SqliteStore {
    SqliteStore::open(&dir.path().join("store.sqlite"), BATCH_ROWS).unwrap()
}

fn rows_count(store: &SqliteStore) -> i64 {
    store.connection.query_row("SELECT count(*) FROM inbox", [], |row| row.get(0)).unwrap()
}

#[test]
fn a_full_disk_is_tried_again_and_recovers() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    block_on(store.apply(transaction(1..=3))).unwrap();
    let pages: i64 = store.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    store.connection.pragma_update(None, "max_page_count", pages).unwrap();
    let refused = block_on(store.apply(transaction(4..=2000)));
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    assert_eq!(block_on(store.position()).unwrap().applied, AppliedPosition(300));
    assert_eq!(rows_count(&store), 6);
    store.connection.pragma_update(None, "max_page_count", 1_000_000).unwrap();
    block_on(store.apply(transaction(4..=2000))).unwrap();
    assert_eq!(rows_count(&store), 4000);
}

#[test]
fn a_writer_in_another_process_makes_it_unavailable_for_a_while() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    store.connection.busy_timeout(std::time::Duration::from_millis(1)).unwrap();
    let other = Connection::open(dir.path().join("store.sqlite")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = block_on(store.apply(transaction(1..=3)));
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    other.execute_batch("ROLLBACK").unwrap();
    block_on(store.apply(transaction(1..=3))).unwrap();
}

#[test]
fn a_newer_schema_is_refused_and_left_as_it_is() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    store.connection.pragma_update(None, "user_version", 99).unwrap();
    drop(store);
    let path = dir.path().join("store.sqlite");
    let Err(StoreError::Broken { source, .. }) = SqliteStore::open(&path, BATCH_ROWS) else {
        panic!("must be refused")
    };
    assert!(source.to_string().contains("version 99"), "{source}");
}

#[test]
fn a_file_of_something_else_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("store.sqlite");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE recipes (name TEXT)").unwrap();
    assert!(matches!(SqliteStore::open(&path, BATCH_ROWS), Err(StoreError::Broken { .. })));
    std::fs::write(&path, [7u8; 8192]).unwrap();
    assert!(matches!(SqliteStore::open(&path, BATCH_ROWS), Err(StoreError::Broken { .. })));
}

#[test]
fn what_is_secured_is_all_that_was_applied_also_while_somebody_reads() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    assert_eq!(block_on(store.secure()).unwrap(), AppliedPosition(0));
    block_on(store.apply(transaction(1..=3))).unwrap();
    assert_eq!(block_on(store.secure()).unwrap(), AppliedPosition(300));
    let reader = Connection::open(dir.path().join("store.sqlite")).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM inbox;").unwrap();
    block_on(store.apply(transaction(4..=5))).unwrap();
    assert_eq!(block_on(store.secure()).unwrap(), AppliedPosition(500));
}

#[test]
fn the_pages_kept_in_memory_are_told_and_have_a_limit() {
    const LIMIT: u64 = 64 << 20;
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    let before = store.cache_bytes();
    block_on(store.apply(transaction(1..=2_000))).unwrap();
    let after = store.cache_bytes();
    assert!(after > before + (64 << 10), "{before} -> {after}");
    assert!(after < LIMIT, "{after}");
    // It is the cache that is told: it falls when the pages are given back.
    store.connection.release_memory().unwrap();
    assert!(store.cache_bytes() < after / 2, "{after} -> {}", store.cache_bytes());
}
