//! Claims about the file of those who may not log in.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::num::NonZeroU64;

use super::{AccessList, ListError};
use crate::contract::access::{AccessFact, AccessOrder, RevokedToken, Standing, TokenId};
use crate::limits::{ACCESS_FACTS_MAX, REVOKED_TOKENS_MAX};
use ringway_wire::ids::UserId;

fn banned(user: u64) -> AccessFact {
    AccessFact { standing: Standing::Banned, since_ms: 10, ..AccessFact::none(UserId(user)) }
}

#[test]
fn what_was_merged_is_read_again_and_what_is_older_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut list = AccessList::read(dir.path()).unwrap();
    assert_eq!(list.facts().count(), 0);
    let revoked = AccessFact { tokens_from_s: 77, ..AccessFact::none(UserId(u64::MAX)) };
    list.merge(&[banned(3), revoked]).unwrap();
    list.merge(&[AccessFact { since_ms: 9, ..AccessFact::none(UserId(3)) }]).unwrap();
    let again = AccessList::read(dir.path()).unwrap();
    assert_eq!(again.facts().copied().collect::<Vec<_>>(), [banned(3), revoked]);
    assert_eq!(again.of(UserId(4)), AccessFact::none(UserId(4)));
}

#[test]
fn a_file_that_cannot_be_understood_is_refused_by_line() {
    let dir = tempfile::tempdir().unwrap();
    for bad in [
        "x banned 1 0",
        "3 barred 1 0",
        "3 banned 1",
        "3 banned 1 0 0",
        "-3 banned 1 0",
        "3 token x 1",
        "3 token 0 1",
        "3 token 1",
    ] {
        std::fs::write(dir.path().join("access"), format!("# head\n7 banned 1 0\n{bad}\n")).unwrap();
        let error = AccessList::read(dir.path()).unwrap_err();
        assert!(matches!(error, ListError::Line { line: 3, .. }), "{bad}: {error}");
    }
}

#[test]
fn there_is_a_limit_and_beyond_it_nothing_changes() {
    let dir = tempfile::tempdir().unwrap();
    let mut list = AccessList::read(dir.path()).unwrap();
    let all: Vec<AccessFact> = (0..ACCESS_FACTS_MAX as u64).map(banned).collect();
    list.merge(&all).unwrap();
    assert!(matches!(list.merge(&[banned(u64::MAX)]), Err(ListError::Full)));
    assert_eq!(list.of(UserId(u64::MAX)), AccessFact::none(UserId(u64::MAX)));
    assert_eq!(AccessList::read(dir.path()).unwrap().facts().count(), ACCESS_FACTS_MAX);
}

fn revoked(token: u64, until_s: u64) -> RevokedToken {
    RevokedToken { user: UserId(5), token: TokenId(NonZeroU64::new(token).unwrap()), until_s }
}

#[test]
fn a_revoked_token_is_kept_until_it_expires_beside_the_facts_and_no_more_of_them_than_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let mut list = AccessList::read(dir.path()).unwrap();
    list.revoke(&[revoked(u64::MAX, 100), revoked(7, 50)], 10).unwrap();
    list.merge(&[banned(3)]).unwrap();
    // Told again with an earlier time, it is kept as long as before.
    list.revoke(&[revoked(7, 40)], 10).unwrap();
    let expected =
        [AccessOrder::Fact(banned(3)), AccessOrder::Token(revoked(7, 50)), AccessOrder::Token(revoked(u64::MAX, 100))];
    let mut list = AccessList::read(dir.path()).unwrap();
    assert_eq!(list.orders().collect::<Vec<_>>(), expected);
    list.revoke(&[], 50).unwrap();
    let read = AccessList::read(dir.path()).unwrap();
    assert_eq!(read.orders().collect::<Vec<_>>(), [expected[0], expected[2]]);

    let all: Vec<RevokedToken> = (1..REVOKED_TOKENS_MAX as u64).map(|token| revoked(token, 100)).collect();
    list.revoke(&all, 50).unwrap();
    assert!(matches!(list.revoke(&[revoked(1 << 40, 100)], 99), Err(ListError::FullOfTokens)));
    assert_eq!(list.tokens().count(), REVOKED_TOKENS_MAX);
    list.revoke(&[revoked(1 << 40, 200)], 100).unwrap();
    assert_eq!(list.tokens().collect::<Vec<_>>(), [revoked(1 << 40, 200)], "all others have expired");
}
