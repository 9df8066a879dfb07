#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::*;
use crate::contract::cause::Cause;
use crate::doctor::Verdict;

fn url() -> Opts {
    Opts::from_url("mysql://gateway:secret@192.0.2.9:3307/ringway").unwrap()
}

fn recorded(version: &str, comment: &str) -> Look {
    Look { version: version.to_owned(), comment: comment.to_owned(), flush_at_commit: 1, is_read_only: false }
}

#[test]
fn the_server_that_answers_is_named_with_its_version() {
    let check = |version: &str, comment: &str, expected: &str, verdict: Verdict| {
        let findings = findings(&Ok(recorded(version, comment)), &url());
        assert_eq!((findings[0].current.as_str(), findings[0].verdict), (expected, verdict));
        assert!(findings.iter().all(|finding| !format!("{finding:?}").contains("secret")));
    };
    check("8.0.36", "MySQL Community Server - GPL", "MySQL 8.0.36", Verdict::Good);
    check("9.4.0", "MySQL Community Server - GPL", "MySQL 9.4.0", Verdict::Good);
    check("10.11.14-MariaDB-0+deb12u2", "Debian 12", "MariaDB 10.11.14", Verdict::Good);
    check("8.0.36-28", "Percona Server (GPL), Release 28", "Percona Server 8.0.36", Verdict::Good);
    check("5.7.44", "MySQL Community Server (GPL)", "MySQL 5.7.44", Verdict::Bad);
    check("10.6.18-MariaDB", "", "MariaDB 10.6.18", Verdict::Bad);
    check("8.0.11-TiDB-v7.5.0", "TiDB Server", "TiDB 8.0.11", Verdict::Bad);
    check("", "", "MySQL ", Verdict::Unknown);
}

#[test]
fn a_server_that_takes_no_writes_or_may_lose_them_is_named() {
    let look = Look { flush_at_commit: 2, is_read_only: true, ..recorded("9.4.0", "") };
    let findings = findings(&Ok(look), &url());
    let bad: Vec<(&str, Severity)> = findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Bad && finding.fix.is_some())
        .map(|finding| (finding.id.as_str(), finding.severity))
        .collect();
    let expected = [("mysql.read_only", Severity::Fatal), ("mysql.innodb_flush_log_at_trx_commit", Severity::Warning)];
    assert_eq!(bad, expected);
}

#[test]
fn a_server_that_does_not_answer_is_one_fatal_finding_without_the_password() {
    let source = Box::new(std::io::Error::other("connection refused"));
    let error = StoreError::Unavailable { what: "looking at the database", cause: Cause::Connection, source };
    let findings = findings(&Err(error), &url());
    let [finding] = findings.as_slice() else { panic!("{findings:?}") };
    assert!(finding.is_fatal() && finding.current.contains("192.0.2.9:3307"), "{finding}");
    assert!(!format!("{finding:?}").contains("secret"), "{finding}");
}
