//! What is kept: retention deletes what is old and says so to those who would miss it, and `ringway store check` finds
//! what the store has otherwise than the journal. On the embedded store and on a real MariaDB.

use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use ringway_client::Event;
use ringway_wire::ids::{ClientMsgId, Conversation, GroupId, Seq, UserId};
use ringway_wire::schema::ErrorCode;
use tempfile::TempDir;

use crate::connection::Connection;
use crate::gateway::{Gateway, PATIENCE};
use crate::services::Database;

/// A gateway's data directory, and its database.
struct Bed {
    dir: TempDir,
    database: Option<Database>,
}

impl Bed {
    fn sqlite() -> Bed {
        Bed { dir: tempfile::tempdir().unwrap(), database: None }
    }

    fn mysql() -> Bed {
        Bed { dir: tempfile::tempdir().unwrap(), database: Some(Database::create()) }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("store.sqlite")
    }

    fn start(&self, arguments: &[&str]) -> Gateway {
        let mut command = Gateway::command(self.dir.path(), &[&["--shards", "1"], arguments].concat());
        if let Some(database) = &self.database {
            command.env("RINGWAY_STORE_URL", database.url());
        }
        Gateway::spawn(self.dir.path(), &mut command)
    }

    fn sql(&self, statement: &str) {
        match &self.database {
            Some(database) => database.sql(statement),
            None => {
                rusqlite::Connection::open(self.file()).unwrap().execute(statement, []).unwrap();
            }
        }
    }

    /// The one column of a query.
    fn numbers(&self, query: &str) -> Vec<u64> {
        match &self.database {
            Some(database) => database.rows(query),
            None => {
                let connection = rusqlite::Connection::open(self.file()).unwrap();
                let mut statement = connection.prepare(query).unwrap();
                let rows = statement.query_map([], |row| row.get::<_, i64>(0)).unwrap();
                rows.map(|number| number.unwrap() as u64).collect()
            }
        }
    }

    fn number(&self, query: &str) -> u64 {
        let numbers = self.numbers(query);
        assert_eq!(numbers.len(), 1, "{query}");
        numbers[0]
    }

    /// `ringway store check`: its exit code, and all that it said.
    fn check(&self) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
        command.args(["store", "check", "--data-dir"]).arg(self.dir.path());
        if let Some(database) = &self.database {
            command.env("RINGWAY_STORE_URL", database.url());
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code().unwrap(), said)
    }
}

fn stop(mut gateway: Gateway) {
    gateway.terminate();
    assert!(gateway.wait().success(), "{}", gateway.log());
}

/// Sends; returns the sender's row.
fn send(client: &mut Connection, to: Conversation, body: &str) -> u64 {
    let id = client.new_client_msg_id();
    let request = client.send(to, id, body.as_bytes()).unwrap();
    match client.answer(request, PATIENCE).unwrap() {
        Event::Sent { seq, .. } => seq.0,
        other => panic!("expected SendOk, heard {other:?}"),
    }
}

fn to(user: u64) -> Conversation {
    Conversation::User(UserId(user))
}

/// What is heard next: a row's number and body.
fn row(client: &mut Connection) -> (u64, String) {
    match client.next(PATIENCE).unwrap().expect("a row in time") {
        Event::Row(row) => (row.seq.0, String::from_utf8(row.body).unwrap()),
        other => panic!("expected a row, heard {other:?}"),
    }
}

fn metric(gateway: &Gateway, name: &str) -> Option<u64> {
    let page = gateway.admin_page("/metrics");
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

const DAYS_3_MS: u64 = 3 * 24 * 60 * 60 * 1000;

/// Messages up to this one are made three days older by hand: nobody can wait for that.
fn make_older(bed: &Bed, last: u64) {
    let shift = DAYS_3_MS << 22;
    bed.sql(&format!(
        "UPDATE messages SET msg_id = msg_id - {shift}, sent_at = sent_at - {DAYS_3_MS} WHERE msg_id <= {last}"
    ));
    bed.sql(&format!("UPDATE inbox SET msg_id = msg_id - {shift} WHERE msg_id <= {last}"));
}

fn a_cursor_older_than_what_is_kept_is_told_and_goes_on(bed: &Bed) {
    let gateway = bed.start(&[]);
    let mut one = gateway.client(1, 1, None);
    send(&mut one, to(3), "the only one for user 3");
    for n in 1..=20 {
        send(&mut one, to(2), &format!("{n}"));
    }
    stop(gateway);
    make_older(bed, bed.numbers("SELECT msg_id FROM messages ORDER BY msg_id")[15]);

    let mut gateway = bed.start(&["--set", "store.retention_days=1"]);
    gateway.wait_until("a pass is over", |gateway| metric(gateway, "ringway_store_expiries_total") == Some(1));
    assert_eq!(bed.numbers("SELECT seq FROM inbox WHERE user_id = 1 ORDER BY seq"), (17..=21).collect::<Vec<_>>());
    assert_eq!(bed.numbers("SELECT seq FROM inbox WHERE user_id = 2 ORDER BY seq"), (16..=20).collect::<Vec<_>>());
    assert_eq!(bed.numbers("SELECT seq FROM inbox WHERE user_id = 3"), [1], "a newest row stays");
    assert_eq!(bed.number("SELECT COUNT(*) FROM messages"), 6);
    assert_eq!(metric(&gateway, "ringway_store_rows_expired_total"), Some(31));
    assert_eq!(metric(&gateway, "ringway_store_messages_expired_total"), Some(15));

    // What it would miss is said; what is kept follows, and then what is new.
    let mut two = gateway.client(2, 1, Some(Seq(3)));
    assert_eq!(two.next(PATIENCE).unwrap(), Some(Event::Gap { from: Seq(4), to: Seq(15) }));
    for n in 16..=20 {
        assert_eq!(row(&mut two), (n, format!("{n}")));
    }
    let mut one = gateway.client(1, 1, Some(Seq(21)));
    assert_eq!(send(&mut one, to(2), "new"), 22);
    assert_eq!(row(&mut two), (21, "new".to_owned()));
    // So it is in a page that is asked for.
    let Event::Page { rows, gap_to, end: true, .. } = two.sync(Seq(0), 100, PATIENCE).unwrap() else { panic!() };
    assert_eq!((rows.first().map(|row| row.seq), rows.len(), gap_to), (Some(Seq(16)), 6, Some(Seq(15))));
    // Who has all that is gone is told nothing of it.
    let mut known = gateway.client(2, 2, Some(Seq(15)));
    assert_eq!(row(&mut known), (16, "16".to_owned()));
    let mut three = gateway.client(3, 1, Some(Seq(0)));
    assert_eq!(row(&mut three), (1, "the only one for user 3".to_owned()));
    send(&mut one, to(3), "the second");
    assert_eq!(row(&mut three), (2, "the second".to_owned()));

    // Whether this is a repeat of what was deleted cannot be known any more.
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let old_name = ClientMsgId::from_parts(now_ms - DAYS_3_MS, fastrand::u128(..));
    let request = one.send(to(2), old_name, b"an old one").unwrap();
    let answer = one.answer(request, PATIENCE).unwrap();
    let Event::Refused { code: ErrorCode::BadRequest, message, .. } = &answer else { panic!("{answer:?}") };
    assert!(message.contains("older than the messages that are kept"), "{message}");

    // The numbers go on where they were, after a start as well.
    stop(gateway);
    let gateway = bed.start(&["--set", "store.retention_days=1"]);
    let mut one = gateway.client(1, 1, Some(Seq(23)));
    assert_eq!(send(&mut one, to(2), "after a start"), 24);
    let mut two = gateway.client(2, 1, Some(Seq(20)));
    assert_eq!([row(&mut two), row(&mut two)], [(21, "new".to_owned()), (22, "after a start".to_owned())]);
}

#[test]
fn in_sqlite_a_cursor_older_than_what_is_kept_is_told_and_goes_on() {
    a_cursor_older_than_what_is_kept_is_told_and_goes_on(&Bed::sqlite());
}

#[test]
fn in_mysql_a_cursor_older_than_what_is_kept_is_told_and_goes_on() {
    a_cursor_older_than_what_is_kept_is_told_and_goes_on(&Bed::mysql());
}

/// Checks after a change by hand, which must be found and nothing else, and undoes it.
fn finds(bed: &Bed, change: &str, undo: &str, differences: &[&str]) {
    bed.sql(change);
    let (code, said) = bed.check();
    assert_eq!(code, 1, "after {change}:\n{said}");
    assert!(
        said.contains(&format!("differences between journal and store: {}\n", differences.len())),
        "{change}: {said}"
    );
    for difference in differences {
        assert!(said.contains(difference), "expected {difference:?} after {change}:\n{said}");
    }
    bed.sql(undo);
}

/// What `store check` says when it finds nothing.
fn clean(bed: &Bed) -> String {
    let (code, said) = bed.check();
    assert_eq!(code, 0, "{said}");
    assert!(said.starts_with("the store has what the journal says\n"), "{said}");
    said
}

fn check_finds_what_was_changed_by_hand(bed: &Bed) {
    let gateway = bed.start(&[]);
    let mut one = gateway.client(1, 1, None);
    let (group, _): (GroupId, u32) = one.group_create(&[UserId(2), UserId(3)], PATIENCE).unwrap();
    for n in 1..=10 {
        send(&mut one, to(2), &format!("{n}"));
    }
    for n in 1..=5 {
        send(&mut one, Conversation::Group(group), &format!("all {n}"));
    }
    // Beside a gateway that runs, and after it.
    clean(bed);
    stop(gateway);
    let same = "the same   15 messages, 35 inbox rows\n";
    let said = clean(bed);
    assert!(said.contains(same) && said.contains("waiting    0 messages, 0 inbox rows"), "{said}");

    let ids = bed.numbers("SELECT msg_id FROM inbox WHERE user_id = 2 ORDER BY seq");
    finds_changed_rows(bed, ids[3], ids[4]);
    finds_changed_groups(bed, group);
    finds_a_changed_position(bed);
    passes_over_what_retention_deleted(bed, ids[3]);
    // Not all of many are named, and all are counted.
    bed.sql("DELETE FROM inbox WHERE seq > 3");
    let (code, said) = bed.check();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("journal and store: 26\n") && said.contains("and 6 more"), "{said}");
}

/// The fourth and fifth message of user 2's inbox.
fn finds_changed_rows(bed: &Bed, fourth: u64, fifth: u64) {
    finds(
        bed,
        "DELETE FROM inbox WHERE user_id = 2 AND seq = 4",
        &format!("INSERT INTO inbox (user_id, seq, msg_id) VALUES (2, 4, {fourth})"),
        &[&format!("row 4 of user 2 (message {fourth}) is missing in the store")],
    );
    finds(
        bed,
        &format!("UPDATE inbox SET msg_id = {fifth} WHERE user_id = 2 AND seq = 4"),
        &format!("UPDATE inbox SET msg_id = {fourth} WHERE user_id = 2 AND seq = 4"),
        &[&format!("row 4 of user 2 is message {fifth} in the store and {fourth} in the journal")],
    );
    finds(
        bed,
        &format!("INSERT INTO inbox (user_id, seq, msg_id) VALUES (2, 77, {fourth})"),
        "DELETE FROM inbox WHERE user_id = 2 AND seq = 77",
        &["user 2 has rows up to 77 in the store, and up to 15 in the journal"],
    );
    finds(
        bed,
        &format!("UPDATE messages SET body = x'616263' WHERE msg_id = {fourth}"),
        &format!("UPDATE messages SET body = x'34' WHERE msg_id = {fourth}"),
        &[&format!("message {fourth} is another in the store")],
    );
    let elsewhere = format!("UPDATE messages SET msg_id = 1 WHERE msg_id = {fourth}");
    let back = format!("UPDATE messages SET msg_id = {fourth} WHERE msg_id = 1");
    finds(bed, &elsewhere, &back, &[&format!("message {fourth} is missing in the store")]);
}

fn finds_changed_groups(bed: &Bed, group: GroupId) {
    let role = bed.number("SELECT role FROM group_members WHERE user_id = 3");
    finds(
        bed,
        "DELETE FROM group_members WHERE user_id = 3",
        &format!("INSERT INTO group_members (group_id, user_id, role) VALUES ({}, 3, {role})", group.0),
        &[&format!("user 3 of group {group} is not in the store as in the journal")],
    );
    finds(
        bed,
        "UPDATE chat_groups SET version = version - 1",
        "UPDATE chat_groups SET version = version + 1",
        &[&format!("group {group} has version")],
    );
}

fn finds_a_changed_position(bed: &Bed) {
    // The store says that it has less than it has.
    let position = bed.number("SELECT position FROM ledger_position WHERE node = 0");
    let back = format!("UPDATE ledger_position SET position = {position} WHERE node = 0");
    bed.sql("UPDATE ledger_position SET position = 0 WHERE node = 0");
    let (code, said) = bed.check();
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("journal and store: 15\n") && said.contains("though by its position it is still to get it"),
        "{said}"
    );
    bed.sql(&back);
    // And that it has what the journal does not have.
    finds(
        bed,
        &format!("UPDATE ledger_position SET position = {} WHERE node = 0", position + 1_000_000),
        &back,
        &["this one ends at"],
    );
}

/// What retention has deleted is no difference.
fn passes_over_what_retention_deleted(bed: &Bed, fourth: u64) {
    bed.sql(&format!("INSERT INTO retention (id, kept_from) VALUES (1, {fourth})"));
    bed.sql(&format!("DELETE FROM messages WHERE msg_id < {fourth}"));
    bed.sql(&format!("DELETE FROM inbox WHERE msg_id < {fourth}"));
    let said = clean(bed);
    assert!(
        said.contains("the same   12 messages, 29 inbox rows\n") && said.contains("expired    3 messages"),
        "{said}"
    );
}

#[test]
fn in_sqlite_store_check_finds_what_was_changed_by_hand() {
    let bed = Bed::sqlite();
    check_finds_what_was_changed_by_hand(&bed);
    std::fs::remove_file(bed.file()).unwrap();
    let (code, said) = bed.check();
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("could not be compared"), "{said}");
    assert!(!bed.file().exists(), "it makes nothing");
}

#[test]
fn in_mysql_store_check_finds_what_was_changed_by_hand() {
    let bed = Bed::mysql();
    check_finds_what_was_changed_by_hand(&bed);
    bed.sql("DROP TABLE ringway_schema");
    let (code, said) = bed.check();
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("could not be compared"), "{said}");
}

#[test]
fn store_check_says_when_there_is_no_journal() {
    let bed = Bed::sqlite();
    let (code, said) = bed.check();
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("could not be compared") && said.contains("journal"), "{said}");
}
