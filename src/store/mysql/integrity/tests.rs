//! On a real server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;
use crate::contract::store::Page;
use crate::store::contract::{Bed, FAR, MySql, apply, page, seqs, transaction};

fn stored(bed: &MySql) -> MySqlStore {
    let mut store = bed.open_of_cluster();
    bed.run(apply(&mut store, transaction(1..=9))).unwrap();
    store
}

#[test]
fn a_database_without_contradictions_has_none_and_all_of_it_is_looked_at() {
    let bed = MySql::new();
    let mut store = stored(&bed);
    let found = bed.run(store.integrity(Repair::Nothing)).unwrap();
    let expected = Integrity { applied: 900, rows: 18, messages: 9, ..Integrity::default() };
    assert_eq!(found, expected);
}

#[test]
fn rows_without_a_message_do_not_keep_an_inbox_unreadable_once_repaired() {
    let bed = MySql::new();
    let mut store = stored(&bed);
    bed.sql(&format!("DELETE FROM messages WHERE msg_id = {}", 4u64 << 22));
    let found = bed.run(store.integrity(Repair::Nothing)).unwrap();
    assert_eq!((found.contradictions_count, found.repaired), (2, 0), "{:?}", found.contradictions);
    assert!(found.contradictions[0].contains("row 4 of user 1 refers to message"), "{:?}", found.contradictions);
    assert_eq!(bed.count("inbox"), 18);
    let found = bed.run(store.integrity(Repair::DeleteRows)).unwrap();
    assert_eq!((found.contradictions_count, found.repaired), (2, 2));
    let found = bed.run(store.integrity(Repair::Nothing)).unwrap();
    assert_eq!((found.contradictions_count, found.inboxes_with_gaps), (0, 2));
    let Page { gap_to, .. } = page(&bed, &mut store, FAR, 3, 10, 1_000);
    assert_eq!(gap_to.map(|seq| seq.0), Some(4));
    assert_eq!(seqs(&page(&bed, &mut store, FAR, 4, 10, 1_000)), [5, 6, 7, 8, 9]);
}

#[test]
fn a_sender_s_row_that_is_another_message_and_a_group_without_members_are_named() {
    let bed = MySql::new();
    let mut store = stored(&bed);
    bed.sql("UPDATE messages SET sender_seq = 8 WHERE sender_seq = 7");
    bed.sql("INSERT INTO chat_groups (group_id, version) VALUES (5, 1)");
    let found = bed.run(store.integrity(Repair::DeleteRows)).unwrap();
    assert_eq!((found.contradictions_count, found.repaired), (2, 0), "{:?}", found.contradictions);
}
