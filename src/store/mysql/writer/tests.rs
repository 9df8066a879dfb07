//! What becomes of a writer that stops in the middle, on a real server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use super::*;
use crate::contract::position::StreamDigest;
use crate::limits::MYSQL_WRITER_SILENCE_S;
use crate::store::contract::{Bed, MySql, apply, runtime, transaction};
use crate::store::{Store, StoreError, Transaction};

/// Whether a statement of another connection waits for a lock.
const WAITING: &str = "SELECT COUNT(*) FROM information_schema.processlist \
                       WHERE db = DATABASE() AND info LIKE 'INSERT INTO inbox%'";

#[test]
fn a_writer_that_stands_still_inside_a_transaction_does_not_keep_the_others_from_writing() {
    let (bed, elsewhere) = (MySql::new(), runtime());
    let mut stopped = bed.open_of_cluster();
    bed.run(apply(&mut stopped, transaction(1..=3))).unwrap();
    // Its transaction comes to the middle and is held there by somebody else's row, which is then taken back.
    bed.run(async {
        let mut other = Connection::open(&bed.database.opts()).await.unwrap();
        other.run("START TRANSACTION", Patience::Write).await.unwrap();
        other.run("INSERT INTO inbox (user_id, seq, msg_id) VALUES (1, 4, 99)", Patience::Write).await.unwrap();
        let encoded = stopped.encode(transaction(4..=6));
        let mut writing = pin!(stopped.apply(encoded));
        let mut watching = Connection::open(&bed.database.opts()).await.unwrap();
        while watching.first::<u64>(WAITING, Patience::Read).await.unwrap() == Some(0) {
            assert!(writing.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        other.run("ROLLBACK", Patience::Write).await.unwrap();
    });
    // From here on nobody runs what it runs on, as if its process was stopped.
    let mut next = elsewhere.block_on(bed.opened_of_cluster());
    let mut tries = 0;
    while elsewhere.block_on(apply(&mut next, transaction(4..=6))).is_err() {
        tries += 1;
        assert!(tries < 3, "the one that stands still was not ended");
        elsewhere.block_on(next.position()).unwrap();
    }
    assert_eq!(bed.count("inbox"), 12);
}

#[test]
fn a_connection_that_writes_is_not_left_open_for_hours_by_the_server() {
    let bed = MySql::new();
    // Makes the tables.
    drop(bed.open());
    bed.run(async {
        for sharing in [Sharing::Alone, Sharing::Cluster] {
            let mut connection = open(&bed.database.opts(), sharing).await.unwrap();
            let ask = "SELECT variable_value FROM information_schema.session_variables \
                       WHERE variable_name = 'IDLE_TRANSACTION_TIMEOUT'";
            let limit = connection.first::<String>(ask, Patience::Read).await.unwrap();
            assert_eq!(limit, Some(MYSQL_WRITER_SILENCE_S.to_string()), "{sharing:?}");
        }
    });
}

#[test]
fn what_the_database_is_past_is_not_said_to_be_written() {
    let bed = MySql::new();
    let (mut one, mut other) = (bed.open_of_cluster(), bed.open_of_cluster());
    bed.run(apply(&mut one, transaction(4..=6))).unwrap();
    bed.run(other.position()).unwrap();
    // Of a stream that is lost: nobody has written it.
    assert!(matches!(bed.run(apply(&mut other, transaction(1..=3))), Err(StoreError::Unavailable { .. })));
    assert_eq!(bed.count("inbox"), 6);
}

#[test]
fn nothing_is_written_behind_an_entry_that_another_stream_has_under_the_same_number() {
    let bed = MySql::new();
    let (mut one, mut other) = (bed.open_of_cluster(), bed.open_of_cluster());
    let with = |numbers, digest| Transaction { digest: StreamDigest(digest), ..transaction(numbers) };
    bed.run(apply(&mut one, with(1..=3, 7))).unwrap();
    assert_eq!(bed.run(other.position()).unwrap().digest, StreamDigest(7));
    // The same number of entries, and other ones.
    bed.sql("UPDATE stream_digest SET digest = 8");
    assert!(matches!(bed.run(apply(&mut other, with(4..=6, 9))), Err(StoreError::Unavailable { .. })));
    assert_eq!(bed.count("inbox"), 6);
    assert_eq!(bed.run(other.position()).unwrap().digest, StreamDigest(8));
    bed.run(apply(&mut other, with(4..=6, 9))).unwrap();
    assert_eq!(bed.count("inbox"), 12);
    // One of a former version says where it is, and not of which stream.
    bed.sql("UPDATE stream_digest SET position = 1");
    assert_eq!(bed.run(one.position()).unwrap().digest, StreamDigest::default());
}
