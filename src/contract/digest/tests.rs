#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;
use ringway_wire::ids::{GroupId, UserId};

#[test]
fn a_digest_tells_bodies_lengths_and_conversations_apart() {
    let user = Conversation::User(UserId(1));
    let digests = [
        digest(user, b"a"),
        digest(user, b"b"),
        digest(user, b"a\0"),
        digest(Conversation::User(UserId(2)), b"a"),
        digest(Conversation::Group(GroupId(1)), b"a"),
    ];
    for (at, one) in digests.iter().enumerate() {
        assert!(digests.iter().skip(at + 1).all(|other| other != one), "{at}");
    }
    assert_eq!(digest(user, b"hello"), 11_077_380_560_708_507_009, "stable: the store outlives this version");
}
