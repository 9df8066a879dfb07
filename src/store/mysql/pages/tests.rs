//! The pool on a real MariaDB.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use mysql_async::prelude::Queryable;

use super::*;
use crate::store::Store;
use crate::store::contract::{Bed, FAR, MySql, apply, seqs, transaction};

fn wanted(count: u64) -> Vec<PageWanted> {
    (0..count).map(|after| PageWanted { user: UserId(FAR), after: Seq(after), rows_max: 3, bytes_max: 1_000 }).collect()
}

fn check(pages: &[Result<Page, crate::store::StoreError>]) {
    for (after, page) in (0..).zip(pages) {
        assert_eq!(seqs(page.as_ref().unwrap()), [after + 1, after + 2, after + 3]);
    }
}

#[test]
fn as_many_pages_are_read_at_once_as_the_pool_has_readers() {
    let bed = MySql::new();
    // One of them writes.
    let mut store = bed.open_with_pool(4);
    bed.run(async {
        apply(&mut store, transaction(1..=20)).await.unwrap();
        let opts = mysql_async::OptsBuilder::from_opts(bed.database.opts()).prefer_socket(false);
        let mut other = mysql_async::Conn::new(opts).await.unwrap();
        let reading = "SELECT COUNT(*) FROM information_schema.processlist \
             WHERE db = DATABASE() AND info LIKE 'SELECT seq, msg_id FROM inbox%'";
        let (asked, mut at_once) = (wanted(10), 0);
        // On a busy machine the time for a read may be over before all three are seen.
        for _ in 0..20 {
            other.query_drop("LOCK TABLES inbox WRITE").await.unwrap();
            let release = async {
                for _ in 0..100 {
                    at_once = at_once.max(other.query_first::<u64, _>(reading).await.unwrap().unwrap());
                    if at_once >= 3 {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                other.query_drop("UNLOCK TABLES").await.unwrap();
            };
            let mut messages = Messages::default();
            let (pages, ()) = tokio::join!(store.pages(&asked, &mut messages), release);
            if at_once >= 3 && pages.iter().all(Result::is_ok) {
                check(&pages);
                break;
            }
        }
        assert_eq!(at_once, 3, "no more and no fewer");
        check(&store.pages(&asked, &mut Messages::default()).await);
        let open =
            "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()";
        assert_eq!(other.query_first::<u64, _>(open).await.unwrap(), Some(4), "the pool's size");
    });
}

#[test]
fn connections_that_were_cut_while_they_were_idle_are_replaced() {
    let bed = MySql::new();
    let mut store = bed.open_with_pool(4);
    bed.run(apply(&mut store, transaction(1..=20))).unwrap();
    check(&bed.run(store.pages(&wanted(10), &mut Messages::default())));
    let ask = format!(
        "SELECT id FROM information_schema.processlist WHERE db = '{}' AND command = 'Sleep'",
        bed.database.name()
    );
    let idle: Vec<u64> = bed.database.rows(&ask);
    assert!(idle.len() >= 3, "{idle:?}");
    for id in idle {
        bed.database.sql(&format!("KILL {id}"));
    }
    check(&bed.run(store.pages(&wanted(10), &mut Messages::default())));
}
