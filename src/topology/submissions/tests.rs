//! Claims about the ledger's inbox.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use super::inbox;
use crate::contract::ids::{Origin, ShardId};
use crate::contract::submission::{ChangeSubmission, GroupChange, Submission};
use crate::limits::{SUBMISSIONS_ACCOUNT_BYTES_MAX, SUBMISSIONS_BYTES_MAX, SUBMISSIONS_MAX};
use ringway_wire::ids::{GroupId, UserId};
use ringway_wire::limits::GROUP_MEMBERS_MAX;
use ringway_wire::request::Adding;

/// The largest change, of one account or another.
fn large(actor: u64) -> Submission {
    let users = vec![UserId(7); GROUP_MEMBERS_MAX];
    Submission::Change(ChangeSubmission {
        origin: Origin::default(),
        actor: UserId(actor),
        change: GroupChange::Create(users),
        adding: Adding::All,
    })
}

#[test]
fn what_one_shard_has_waiting_is_bounded_in_bytes_and_takes_no_other_shards_room() {
    let (mut inbox, senders) = inbox(2);
    let (one, other) = (senders.of_shard(ShardId(0)), senders.of_shard(ShardId(1)));
    let mut waiting = 0;
    // By so many that none has much.
    while one.submit(large(waiting as u64)).is_ok() {
        waiting += 1;
    }
    assert_eq!(waiting, SUBMISSIONS_BYTES_MAX / large(1).bytes());
    assert!(waiting < SUBMISSIONS_MAX / 16, "{waiting} is far from the limit in numbers");
    other.submit(large(5_001)).expect("the other shard has room");
    one.submit(Submission::Position { origin: Origin::default(), user: UserId(5_000) }).expect("a login is small");
    // What the ledger takes makes room again, for as much.
    for _ in 0..10 {
        inbox.next().unwrap();
    }
    assert_eq!((0..20).take_while(|actor| one.submit(large(*actor)).is_ok()).count(), 10);
    while inbox.next().is_ok() {}
    assert!(one.submit(large(1)).is_ok());
}

#[test]
fn what_one_account_has_waiting_is_bounded_and_takes_no_other_accounts_room() {
    let (mut inbox, senders) = inbox(1);
    let sender = senders.of_shard(ShardId(0));
    let waiting = (0..).take_while(|_| sender.submit(large(1)).is_ok()).count();
    assert_eq!(waiting, SUBMISSIONS_ACCOUNT_BYTES_MAX / large(1).bytes());
    let leaves = |actor| {
        let (origin, actor, adding) = (Origin::default(), UserId(actor), Adding::All);
        Submission::Change(ChangeSubmission { origin, actor, change: GroupChange::Leave(GroupId(7)), adding })
    };
    while sender.submit(leaves(1)).is_ok() {}
    sender.submit(Submission::Position { origin: Origin::default(), user: UserId(1) }).expect("a login");
    // All but those few that share its bucket.
    let of_50 = (2..52).filter(|actor| sender.submit(large(*actor)).is_ok()).count();
    let of_1000 = (2..1_002).filter(|actor| sender.submit(leaves(*actor)).is_ok()).count();
    assert!(of_50 >= 45 && of_1000 >= 950, "{of_50} of 50, {of_1000} of 1,000");
    while inbox.next().is_ok() {}
    assert_eq!((0..waiting).take_while(|_| sender.submit(large(1)).is_ok()).count(), waiting);
}
