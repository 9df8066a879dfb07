//! Replies of several buckets, in the ledger's numbers, and the order of calls.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::*;
use crate::cluster::order::{OrderEntry, Place};
use crate::ledger::redis::link::Arrival;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Two buckets: the ledger's entries 1 and 2 are the second one's 1 and 2, 3 is the first one's.
fn merge(given: usize) -> Merge {
    let mut merge = Merge::begin(Place { entry: 0, buckets: vec![0, 0] });
    merge.ordered(OrderEntry::parse(2, b"1 2 0 0", 2).unwrap());
    merge.ordered(OrderEntry::parse(3, b"0 1 0 2", 2).unwrap());
    let arrival = |count| Arrival { count, entry: Vec::new() };
    merge.read(0, vec![arrival(1)]);
    merge.read(1, vec![arrival(1), arrival(2)]);
    assert_eq!(merge.take(given).len(), given);
    merge
}

fn claimed(entry: &str) -> Vec<u8> {
    [&[7; KNOWN_BYTES][..], entry.as_bytes()].concat()
}

#[test]
fn a_reply_that_stands_behind_entries_is_told_when_they_have_been_and_in_the_ledgers_numbers() {
    let replies = BucketReplies {
        replies: vec![(0, Reply::Repeat(claimed("1"))), (1, Reply::Bounced), (1, Reply::Repeat(claimed("2")))],
        counts: vec![(0, 1), (1, 2)],
    };
    assert!(replies.news(&merge(2)).is_none());
    let Some(News::Replies { replies, count: 3 }) = replies.news(&merge(3)) else { panic!() };
    assert_eq!(replies, [Reply::Repeat(claimed("3")), Reply::Bounced, Reply::Repeat(claimed("2"))]);
    // One that was handed out before this session is nobody's to find.
    let replies = BucketReplies { replies: vec![(0, Reply::Repeat(claimed("0")))], counts: vec![(0, 1)] };
    let Some(News::Replies { replies, .. }) = replies.news(&merge(3)) else { panic!() };
    assert_eq!(replies, [Reply::Repeat(claimed("0"))]);
    // That something was appended is told by its entry.
    let replies = BucketReplies { replies: vec![(0, Reply::Appended)], counts: vec![(0, 9)] };
    assert!(replies.news(&merge(0)).is_some());
}

#[test]
fn a_name_that_is_reserved_for_another_bucket_is_no_claim() {
    let understood = |text: Vec<u8>| understood(Value::Bytes([b"R", &text[..]].concat().into()));
    assert_eq!(understood(claimed("12")), Some(Reply::Repeat(claimed("12"))));
    assert_eq!(understood(claimed("@1")), Some(Reply::Reused));
}

#[test]
fn a_claim_that_makes_no_sense_is_no_reply() {
    let understood = |text: &[u8]| understood(Value::Bytes([b"R", text].concat().into()));
    assert_eq!(understood(b"short"), None);
    assert_eq!(understood(&claimed("twelve")), None);
}

#[test]
fn answers_come_in_the_order_of_calls_and_all_of_them_go_on_meanwhile() {
    run(async {
        let mut calls = Calls::new();
        let (first, receive_first) = oneshot::channel::<u8>();
        let (second, receive_second) = oneshot::channel::<u8>();
        calls.push(Box::pin(async move { Ok(receive_first.await.unwrap()) })).await;
        // The second lets the first go on: it is polled though the first is not answered.
        calls
            .push(Box::pin(async move {
                let received = receive_second.await.unwrap();
                first.send(1).unwrap();
                Ok(received)
            }))
            .await;
        second.send(2).unwrap();
        assert_eq!(calls.next().await.unwrap(), 1);
        assert_eq!(calls.next().await.unwrap(), 2);
        assert_eq!(calls.len(), 0);
    });
}
