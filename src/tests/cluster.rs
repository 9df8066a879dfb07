//! Several gateways, one ledger: real processes, a real Redis, a real MariaDB.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use ringway_client::{Event, Row};
use ringway_wire::ids::{Conversation, GroupId, MsgId, Seq, UserId};

use crate::connection::Connection;
use crate::gateway::{Gateway, PATIENCE, pause};
use crate::redis::{Ledger, Redis, Split, SplitAlone};
use crate::services::Database;

/// Starts a node of a cluster.
pub(crate) fn node(dir: &Path, ledger: &impl Ledger, database: &Database, id: u16) -> Gateway {
    let settings = settings(ledger, database, id);
    let mut arguments = vec!["--shards", "1"];
    settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
    Gateway::start(dir, &arguments)
}

pub(crate) fn settings(ledger: &impl Ledger, database: &Database, id: u16) -> Vec<String> {
    let mut settings = ledger.settings();
    settings.extend([format!("store.url={}", database.url()), format!("cluster.node_id={id}")]);
    settings
}

/// Sends until it is taken, and returns the row's number.
pub(crate) fn send(client: &mut Connection, to: Conversation, body: &str) -> u64 {
    let id = client.new_client_msg_id();
    for _ in 0..PATIENCE.as_millis() / 50 {
        let request = client.send(to, id, body.as_bytes()).unwrap();
        match client.answer(request, PATIENCE).unwrap() {
            Event::Sent { seq, .. } => return seq.0,
            Event::Refused { .. } => pause(Duration::from_millis(50)),
            other => panic!("expected SendOk, heard {other:?}"),
        }
    }
    panic!("{body:?} is not taken");
}

pub(crate) fn create(client: &mut Connection, users: &[UserId]) -> GroupId {
    for _ in 0..PATIENCE.as_millis() / 50 {
        match client.group_create(users, PATIENCE) {
            Ok((group, _)) => return group,
            Err(_) => pause(Duration::from_millis(50)),
        }
    }
    panic!("the group is not made");
}

/// The next rows' numbers and bodies.
fn rows(client: &mut Connection, count: usize) -> Vec<(u64, String)> {
    let mut rows = Vec::new();
    while rows.len() < count {
        match client.next(PATIENCE).unwrap().expect("a row in time") {
            Event::Row(row) => rows.push((row.seq.0, String::from_utf8(row.body).unwrap())),
            Event::GroupChanged { .. } => {}
            other => panic!("expected a row, heard {other:?}"),
        }
    }
    rows
}

#[test]
fn what_is_sent_on_one_node_is_delivered_on_another_in_order() {
    is_delivered_in_order(&Redis::start());
}

#[test]
fn a_ledger_in_one_bucket_lies_on_whichever_master_of_a_redis_cluster_has_its_slot() {
    is_delivered_in_order(&Split::start(1));
}

#[test]
fn with_several_buckets_what_is_sent_on_one_node_is_delivered_on_another_in_order() {
    is_delivered_in_order(&Split::start(3));
}

#[test]
fn several_buckets_may_lie_in_one_redis() {
    is_delivered_in_order(&SplitAlone { redis: Redis::start(), buckets: 5 });
}

fn is_delivered_in_order(ledger: &impl Ledger) {
    let database = Database::create();
    let (dir_a, dir_b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (node(dir_a.path(), ledger, &database, 1), node(dir_b.path(), ledger, &database, 2));
    let mut one = a.client(1, 1, None);
    let mut two = b.client(2, 1, None);
    let group = create(&mut one, &[UserId(1), UserId(2), UserId(3)]);

    for index in 1..=50 {
        assert_eq!(send(&mut one, Conversation::Group(group), &format!("group {index}")), index);
    }
    let expected: Vec<(u64, String)> = (1..=50).map(|index| (index, format!("group {index}"))).collect();
    assert_eq!(rows(&mut two, 50), expected, "{}", b.log());

    // The other way round, and one-to-one: numbers go on where they were.
    assert_eq!(send(&mut two, Conversation::Group(group), "back"), 51);
    assert_eq!(rows(&mut one, 1), [(51, "back".to_owned())]);
    assert_eq!(send(&mut two, Conversation::User(UserId(1)), "to one"), 52);
    assert_eq!(rows(&mut one, 1), [(52, "to one".to_owned())]);

    // Who comes later, on whichever node, gets all of it.
    for gateway in [&a, &b] {
        let mut three = gateway.client(3, 1, Some(Seq(0)));
        let mut expected = expected.clone();
        expected.push((51, "back".to_owned()));
        assert_eq!(rows(&mut three, 51), expected);
    }

    // One of the two stores has written all of it, once.
    wait_for_rows(&database, 3 * 51 + 2);
    assert_eq!((database.count("messages"), database.count("inbox")), (52, 3 * 51 + 2));
}

/// In the ledger's first bucket: whose store writes.
pub(crate) const WRITER: &str = "{ringway:0}:3:writer";

/// From here on nobody's store writes, until [`WRITER`] is deleted in `first`, the master of the first bucket.
pub(crate) fn keep_stores_from_writing(first: &Redis, nodes: &[&Gateway]) {
    assert!(first.command(&["SET", WRITER, "nobody"]).unwrap().starts_with("+OK"));
    for _ in 0..PATIENCE.as_millis() / 5 {
        let gave_up = |line: &str| line.contains("changed hands") && line.contains("false");
        if nodes.iter().any(|node| node.log().lines().any(gave_up)) {
            return;
        }
        pause(Duration::from_millis(5));
    }
    panic!("the node whose store writes has not heard that it may not");
}

/// Polls until the database has so many inbox rows.
pub(crate) fn wait_for_rows(database: &Database, rows: u64) {
    for _ in 0..PATIENCE.as_millis() / 50 {
        if database.count("inbox") >= rows {
            return;
        }
        pause(Duration::from_millis(50));
    }
    panic!("the database has {} rows, not {rows}", database.count("inbox"));
}

/// All rows up to the one with this body, numbers strictly rising; what a Gap names was never given out.
pub(crate) fn rows_until(client: &mut Connection, body: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    loop {
        match client.next(PATIENCE).unwrap().expect("a row in time") {
            Event::Row(row) => {
                assert!(rows.last().is_none_or(|last| last.seq < row.seq), "numbers must rise");
                rows.push(row);
                if rows.last().is_some_and(|row| row.body == body.as_bytes()) {
                    return rows;
                }
            }
            Event::GroupChanged { .. } | Event::Gap { .. } => {}
            other => panic!("expected a row, heard {other:?}"),
        }
    }
}

/// What is received once the repeats are filtered by their message.
pub(crate) fn told(rows: &[Row]) -> BTreeSet<(MsgId, String)> {
    rows.iter().map(|row| (row.msg_id, String::from_utf8(row.body.clone()).unwrap())).collect()
}

#[test]
fn a_redis_that_is_killed_and_started_again_loses_nothing_and_gives_no_number_twice() {
    let (mut redis, database) = (Redis::start(), Database::create());
    let (dir_a, dir_b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (node(dir_a.path(), &redis, &database, 1), node(dir_b.path(), &redis, &database, 2));
    let (mut one, mut two) = (a.client(1, 1, None), b.client(2, 1, None));
    let group = create(&mut one, &[UserId(1), UserId(2)]);
    for index in 1..=20 {
        send(&mut one, Conversation::Group(group), &format!("before {index}"));
    }
    redis.kill();
    // Nothing is numbered without Redis, and the connection stays.
    let id = one.new_client_msg_id();
    one.send(Conversation::Group(group), id, b"meanwhile").unwrap();
    redis.start_again();
    for index in 1..=20 {
        send(&mut one, Conversation::Group(group), &format!("after {index}"));
    }
    let rows = rows_until(&mut two, "after 20");
    let bodies: Vec<&str> = rows.iter().map(|row| std::str::from_utf8(&row.body).unwrap()).collect();
    let expected: Vec<String> =
        ["before", "after"].iter().flat_map(|when| (1..=20).map(move |index| format!("{when} {index}"))).collect();
    let heard: Vec<&str> = bodies.iter().copied().filter(|body| *body != "meanwhile").collect();
    assert_eq!(heard, expected, "{}\n{}", a.log(), b.log());
    for (at, row) in rows.iter().enumerate() {
        assert_eq!(row.seq, Seq(at as u64 + 1), "no number is left out");
    }
}

#[test]
fn a_redis_that_was_emptied_is_given_what_was_acked_again() {
    let (redis, database) = (Redis::start(), Database::create());
    let (dir_a, dir_b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (node(dir_a.path(), &redis, &database, 1), node(dir_b.path(), &redis, &database, 2));
    let (mut one, mut two) = (a.client(1, 1, None), b.client(2, 1, None));
    let group = create(&mut one, &[UserId(1), UserId(2), UserId(3)]);
    let mut newest = 0;
    for index in 1..=30 {
        newest = send(&mut one, Conversation::Group(group), &format!("before {index}"));
    }
    assert!(redis.command(&["FLUSHALL"]).unwrap().starts_with("+OK"));
    for index in 1..=30 {
        let seq = send(&mut one, Conversation::Group(group), &format!("after {index}"));
        assert!(seq > newest, "{seq} was given before");
        newest = seq;
    }
    let expected: BTreeSet<String> =
        ["before", "after"].iter().flat_map(|when| (1..=30).map(move |index| format!("{when} {index}"))).collect();
    let live = told(&rows_until(&mut two, "after 30"));
    assert_eq!(live.iter().map(|(_, body)| body.clone()).collect::<BTreeSet<_>>(), expected, "{}", b.log());
    assert_eq!(live.len(), expected.len(), "a message came under two numbers of its own");
    // And who was not there receives the same, on either node.
    for gateway in [&a, &b] {
        let mut three = gateway.client(3, 1, Some(Seq(0)));
        assert_eq!(told(&rows_until(&mut three, "after 30")), live, "{}", gateway.log());
    }
    wait_for_rows(&database, 3 * 60);
    let twice: Vec<(u64, u64)> =
        database.rows("SELECT user_id, msg_id FROM inbox GROUP BY user_id, msg_id HAVING COUNT(*) > 1");
    assert_eq!(twice, [], "a message is in an inbox twice");
}

#[test]
fn a_second_gateway_with_the_same_node_id_is_refused() {
    let (redis, database) = (Redis::start(), Database::create());
    let (dir_a, dir_b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let a = node(dir_a.path(), &redis, &database, 7);
    let mut one = a.client(1, 1, None);
    send(&mut one, Conversation::User(UserId(2)), "first");
    let settings = settings(&redis, &database, 7);
    let mut arguments = vec!["--shards", "1"];
    settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
    let mut second = Gateway::start(dir_b.path(), &arguments);
    assert!(!second.wait().success());
    assert!(second.log().contains("another gateway runs as node 7"), "{}", second.log());
    send(&mut one, Conversation::User(UserId(2)), "still here");
}

#[test]
fn a_copy_of_a_data_directory_does_not_run_beside_its_original_and_takes_over_when_that_is_gone() {
    let (redis, database) = (Redis::start(), Database::create());
    let (dir, copied) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = node(dir.path(), &redis, &database, 7);
    let mut client = first.client(1, 1, None);
    send(&mut client, Conversation::User(UserId(2)), "first");
    let copy = std::process::Command::new("cp").arg("-a").arg(dir.path().join(".")).arg(copied.path()).status();
    assert!(copy.unwrap().success());
    let mut second = node(copied.path(), &redis, &database, 7);
    assert!(!second.wait().success());
    assert!(second.log().contains("another gateway runs as node 7"), "{}", second.log());
    // The original is well, and when it is killed the copy takes its place.
    send(&mut client, Conversation::User(UserId(2)), "second");
    first.kill();
    let third = node(copied.path(), &redis, &database, 7);
    let mut client = third.client(1, 1, None);
    send(&mut client, Conversation::User(UserId(2)), "third");
}
