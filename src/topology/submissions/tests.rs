//! Claims about the ledger's inbox.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use super::inbox;
use crate::contract::ids::{Origin, ShardId};
use crate::contract::submission::{ChangeSubmission, GroupChange, Submission};
use crate::limits::{SUBMISSIONS_BYTES_MAX, SUBMISSIONS_MAX};
use ringway_wire::ids::UserId;
use ringway_wire::limits::GROUP_MEMBERS_MAX;
use ringway_wire::request::Adding;

fn large() -> Submission {
    let users = vec![UserId(7); GROUP_MEMBERS_MAX];
    Submission::Change(ChangeSubmission {
        origin: Origin::default(),
        actor: UserId(1),
        change: GroupChange::Create(users),
        adding: Adding::All,
    })
}

#[test]
fn what_one_shard_has_waiting_is_bounded_in_bytes_and_takes_no_other_shards_room() {
    let (mut inbox, senders) = inbox(2);
    let (one, other) = (senders.of_shard(ShardId(0)), senders.of_shard(ShardId(1)));
    let mut waiting = 0;
    while one.submit(large()).is_ok() {
        waiting += 1;
    }
    assert_eq!(waiting, SUBMISSIONS_BYTES_MAX / large().bytes());
    assert!(waiting < SUBMISSIONS_MAX / 16, "{waiting} is far from the limit in numbers");
    other.submit(large()).expect("the other shard has room");
    one.submit(Submission::Position { origin: Origin::default(), user: UserId(1) }).expect("a login is small");
    // What the ledger takes makes room again, for as much.
    for _ in 0..10 {
        inbox.next().unwrap();
    }
    assert_eq!((0..20).take_while(|_| one.submit(large()).is_ok()).count(), 10);
    while inbox.next().is_ok() {}
    assert!(one.submit(large()).is_ok());
}
