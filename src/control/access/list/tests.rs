//! Claims about the file of those who may not log in.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::{AccessList, ListError};
use crate::contract::access::{AccessFact, Standing};
use crate::limits::ACCESS_FACTS_MAX;
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
    for bad in ["x banned 1 0", "3 barred 1 0", "3 banned 1", "3 banned 1 0 0", "-3 banned 1 0"] {
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
