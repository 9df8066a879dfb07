//! The checker refuses what it must, one history for each verdict, and takes what the cluster's page allows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::{Kind, check};
use crate::history::{Device, Harm, Line, Row, To};

const GROUP: u64 = 900;

/// A history of users 1, 2 and 3, one device and one group, that is well until something is changed.
struct Book {
    lines: Vec<Line>,
    clock_us: u64,
}

fn who(user: u64) -> Device {
    Device { user, device: 1 }
}

fn row(seq: u64, msg_id: u64, sender: u64, to: To, key: &str) -> Row {
    Row { seq, msg_id, sender, to, body: format!("{key}:body") }
}

impl Book {
    fn new() -> Book {
        let group = Line::Group { group: GROUP, members: vec![1, 2, 3] };
        let fault = Line::Fault { at_us: 0, name: "a gateway killed".into(), detail: String::new(), harm: Harm::None };
        Book { lines: vec![group, fault], clock_us: 10 }
    }

    fn tick(&mut self) -> u64 {
        self.clock_us += 10;
        self.clock_us
    }

    fn send(&mut self, sender: u64, to: To, key: &str) {
        let at_us = self.tick();
        self.lines.push(Line::Sent { at_us, who: who(sender), connection: 1, to, body: format!("{key}:body") });
    }

    fn ack(&mut self, key: &str, msg_id: u64, seq: u64) {
        let at_us = self.tick();
        let (connection, own_row, repeat) = (1, true, false);
        self.lines.push(Line::Acked { at_us, key: key.into(), connection, msg_id, seq, own_row, repeat });
    }

    fn deliver(&mut self, user: u64, row: Row) {
        let at_us = self.tick();
        self.lines.push(Line::Delivered { at_us, who: who(user), row });
    }

    fn inbox(&mut self, user: u64, row: Row) {
        for node in 0..2 {
            self.lines.push(Line::Inbox { user, node, row: row.clone() });
        }
        self.lines.push(Line::Stored { user, row });
    }

    /// All of it: sent by user 1 to the group, acked, delivered, read and stored.
    fn said(&mut self, key: &str, msg_id: u64, seq: u64) {
        let to = To::Group(GROUP);
        self.send(1, to, key);
        self.ack(key, msg_id, seq);
        for user in [2, 3] {
            self.deliver(user, row(seq, msg_id, 1, to, key));
        }
        for user in [1, 2, 3] {
            self.inbox(user, row(seq, msg_id, 1, to, key));
        }
    }

    fn ends(&mut self, last_seq: u64) {
        for user in [1, 2, 3] {
            for node in 0..2 {
                self.lines.push(Line::InboxRead { user, node, last_seq });
            }
        }
    }

    fn redis_lost(&mut self) {
        let (name, detail) = ("Redis emptied".to_owned(), String::new());
        self.lines.push(Line::Fault { at_us: 0, name, detail, harm: Harm::RedisLost });
    }

    fn finds(self, kind: Kind) {
        let (_, findings) = check(self.lines);
        assert!(findings.count(kind) > 0, "not found: {kind:?}; but {findings:?}");
    }

    fn taken_as_well(self) {
        let (_, findings) = check(self.lines);
        assert!(findings.is_empty(), "{findings:?}");
    }
}

/// Three messages, and all is well.
fn book() -> Book {
    let mut book = Book::new();
    for at in 1..=3 {
        book.said(&format!("k{at}"), 100 + at, at);
    }
    book.ends(3);
    book
}

#[test]
fn what_is_well_is_taken() {
    book().taken_as_well();
}

#[test]
fn what_was_acked_and_is_in_no_inbox_is_lost() {
    let mut book = book();
    book.lines.retain(|line| !matches!(line, Line::Inbox { user: 2, node: 1, row } if row.seq == 2));
    book.finds(Kind::Lost);
}

#[test]
fn what_was_acked_and_is_not_in_the_database_is_lost() {
    let mut book = book();
    book.lines.retain(|line| !matches!(line, Line::Stored { user: 2, row } if row.seq == 2));
    book.finds(Kind::Lost);
}

#[test]
fn what_somebody_has_seen_and_others_have_not_is_lost_though_never_acked() {
    let mut book = Book::new();
    book.send(1, To::Group(GROUP), "a");
    book.deliver(2, row(1, 7, 1, To::Group(GROUP), "a"));
    book.ends(1);
    book.finds(Kind::Lost);
}

#[test]
fn one_message_under_two_numbers_is_duplicated() {
    let mut book = book();
    book.lines.retain(|line| !matches!(line, Line::InboxRead { .. }));
    for user in [1, 2, 3] {
        book.deliver(user, row(4, 999, 1, To::Group(GROUP), "k2"));
        book.inbox(user, row(4, 999, 1, To::Group(GROUP), "k2"));
    }
    book.ends(4);
    book.finds(Kind::Duplicated);
}

#[test]
fn a_message_that_comes_to_a_device_again_is_duplicated_unless_redis_had_lost_it_and_a_gap_says_so() {
    let again = |lost: bool, gap: bool| {
        let mut book = Book::new();
        let to = To::Group(GROUP);
        if lost {
            book.redis_lost();
        }
        book.send(1, to, "a");
        book.ack("a", 7, 1);
        book.deliver(2, row(1, 7, 1, to, "a"));
        let at = if gap { 1_001 } else { 2 };
        if gap {
            for user in [1, 2, 3] {
                book.lines.push(Line::Gap { at_us: 0, who: who(user), from: 2, to: 1_000 });
            }
        }
        for user in [1, 2, 3] {
            book.deliver(user, row(at, 7, 1, to, "a"));
            book.inbox(user, row(at, 7, 1, to, "a"));
        }
        book.ends(at);
        book
    };
    again(false, false).finds(Kind::Duplicated);
    again(false, true).finds(Kind::Duplicated);
    again(true, false).finds(Kind::Duplicated);
    let mut allowed = again(true, true);
    // User 3 was not there before the gap.
    allowed.lines.insert(2, Line::Gap { at_us: 0, who: who(3), from: 1, to: 1 });
    allowed.taken_as_well();
}

/// Two messages of user 1 to the group, both on their way at once, in an inbox the wrong way round.
fn overtaken(change: impl FnOnce(&mut Book)) -> Book {
    let mut book = Book::new();
    let to = To::Group(GROUP);
    book.send(1, to, "a");
    book.send(1, to, "b");
    change(&mut book);
    book.ack("b", 8, 1);
    book.ack("a", 7, 2);
    for user in [2, 3] {
        book.deliver(user, row(1, 8, 1, to, "b"));
        book.deliver(user, row(2, 7, 1, to, "a"));
    }
    for user in [1, 2, 3] {
        book.inbox(user, row(1, 8, 1, to, "b"));
        book.inbox(user, row(2, 7, 1, to, "a"));
    }
    book.ends(2);
    book
}

#[test]
fn what_one_device_sent_in_another_order_is_reordered_unless_it_was_refused_meanwhile() {
    overtaken(|_| ()).finds(Kind::Reordered);
    overtaken(|book| {
        book.lines.push(Line::Delayed { at_us: 0, key: "a".into(), code: "RetryLater".into() });
    })
    .taken_as_well();
    // Over one connection also after Redis has lost something.
    overtaken(Book::redis_lost).finds(Kind::Reordered);
}

#[test]
fn what_was_acked_before_another_message_was_sent_stands_before_it_whoever_sent_it() {
    let mut book = Book::new();
    let to = To::Group(GROUP);
    book.send(1, to, "a");
    book.ack("a", 7, 2);
    book.send(2, to, "b");
    book.ack("b", 8, 1);
    for user in [1, 2, 3] {
        book.inbox(user, row(1, 8, 2, to, "b"));
        book.inbox(user, row(2, 7, 1, to, "a"));
    }
    book.finds(Kind::Reordered);
}

#[test]
fn a_conversation_that_two_members_have_in_different_order_is_reordered() {
    let mut book = Book::new();
    let to = To::Group(GROUP);
    book.send(1, to, "a");
    book.send(2, to, "b");
    for (user, a, b) in [(1, 1, 2), (2, 1, 2), (3, 2, 1)] {
        let mut rows = [row(a, 7, 1, to, "a"), row(b, 8, 2, to, "b")];
        rows.sort_by_key(|row| row.seq);
        rows.into_iter().for_each(|row| book.inbox(user, row));
    }
    book.finds(Kind::Reordered);
}

#[test]
fn what_was_refused_for_good_and_is_there_is_resurrected() {
    let mut book = Book::new();
    let to = To::User(2);
    book.send(1, to, "a");
    book.lines.push(Line::Refused { at_us: 0, key: "a".into(), code: "BadRequest".into() });
    for user in [1, 2] {
        book.inbox(user, row(1, 7, 1, to, "a"));
    }
    book.finds(Kind::Resurrected);
}

#[test]
fn what_was_never_sent_or_not_like_this_or_not_to_this_user_is_unexpected() {
    let strange = |row: Row, user: u64| {
        let mut book = book();
        book.inbox(user, row);
        book.finds(Kind::Unexpected);
    };
    strange(row(4, 104, 1, To::Group(GROUP), "k9"), 1);
    strange(Row { body: "k1:other".into(), ..row(4, 104, 1, To::Group(GROUP), "k1") }, 1);
    strange(row(4, 104, 2, To::Group(GROUP), "k1"), 1);
    strange(row(4, 104, 1, To::User(2), "k1"), 2);
    strange(row(1, 101, 1, To::Group(GROUP), "k1"), 4);
}

#[test]
fn a_number_that_two_messages_have_is_numbered_twice() {
    let mut book = book();
    // Another device has another message under a number.
    book.lines.push(Line::Delivered {
        at_us: 0,
        who: Device { user: 2, device: 2 },
        row: row(1, 102, 1, To::Group(GROUP), "k2"),
    });
    book.finds(Kind::NumberedTwice);
    let mut bodies = Book::new();
    for (key, seq) in [("a", 1), ("b", 2)] {
        bodies.said(key, 7, seq);
    }
    bodies.finds(Kind::NumberedTwice);
}

#[test]
fn rows_that_do_not_rise_and_rows_that_are_left_out_are_found() {
    let mut book = book();
    book.deliver(2, row(2, 102, 1, To::Group(GROUP), "k2"));
    book.finds(Kind::NotRising);
    let mut book = self::book();
    book.lines.retain(|line| !matches!(line, Line::Delivered { who, row, .. } if who.user == 2 && row.seq == 2));
    book.finds(Kind::Skipped);
    let mut book = self::book();
    book.lines.retain(|line| !matches!(line, Line::Delivered { who, row, .. } if who.user == 2 && row.seq == 3));
    book.finds(Kind::Skipped);
    let mut book = self::book();
    book.lines.push(Line::Gap { at_us: 0, who: who(2), from: 3, to: 3 });
    book.finds(Kind::Skipped);
}

#[test]
fn a_database_with_other_rows_than_the_inboxes_differs() {
    let mut book = book();
    book.lines.push(Line::Stored { user: 2, row: row(9, 102, 1, To::Group(GROUP), "k2") });
    book.finds(Kind::DatabaseDiffers);
}

#[test]
fn no_answer_a_broken_session_and_what_the_driver_saw_are_found() {
    let mut book = book();
    book.send(1, To::User(2), "late");
    book.finds(Kind::Unanswered);
    let mut book = self::book();
    book.lines.push(Line::Broken { at_us: 0, who: who(1), why: "row 5 came where row 4 was due".into() });
    book.finds(Kind::Broken);
    let mut book = self::book();
    book.lines.push(Line::Observed { at_us: 0, what_is_wrong: "gateway 1 crashed".into() });
    book.finds(Kind::Observed);
}
