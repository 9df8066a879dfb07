#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use crossbeam_channel::bounded;

use super::*;
use crate::contract::chain::Chain;
use crate::ledger::LedgerError;

fn ended(thread: &str, outcome: Result<(), LedgerError>) -> Ended {
    Ended { thread: thread.to_owned(), outcome: outcome.map_err(Into::into) }
}

#[test]
fn the_error_of_a_thread_is_told_though_another_that_has_ended_because_of_it_is_heard_of_first() {
    let (end, others) = bounded(4);
    end.send(ended("shard-0", Ok(()))).unwrap();
    end.send(ended("ledger", Err(LedgerError::Lease(7)))).unwrap();
    let told = unexpected(Some(ended("redis", Ok(()))), &others);
    let told = Chain(&told).to_string();
    assert!(told.contains("`ledger`") && told.contains("node 7"), "{told}");
    // Where nobody has a reason, the first one is named.
    drop(end);
    let told = unexpected(Some(ended("redis", Ok(()))), &others);
    assert!(told.to_string().contains("`redis`"), "{told}");
}
