//! Changes of groups that some nodes have read and others not, when Redis loses them.

use std::time::Duration;

use nix::sys::signal::Signal;
use ringway_client::Event;
use ringway_wire::ids::{Conversation, GroupId, UserId};

use crate::cluster::{create, keep_stores_from_writing, node, send};
use crate::connection::Connection;
use crate::gateway::{Gateway, PATIENCE, pause, signal};
use crate::redis::Redis;
use crate::services::Database;

/// Stops a node, and waits until Redis has told it all that it had asked for: what comes later it does not read. The
/// others wait for something nearly always, so if the stopped one still did, one more would be seen among many looks.
fn stop_reading(gateway: &Gateway, redis: &Redis, others: usize) {
    const LOOKS: usize = 50;
    signal(gateway.pid(), Signal::SIGSTOP).unwrap();
    let mut fewer = 0;
    for _ in 0..PATIENCE.as_millis() / 5 {
        let info = redis.command(&["INFO", "clients"]).unwrap();
        let blocked = info.lines().find_map(|line| line.strip_prefix("blocked_clients:")).unwrap();
        fewer = if blocked.parse::<usize>().unwrap() <= others { fewer + 1 } else { 0 };
        if fewer == LOOKS {
            return;
        }
        pause(Duration::from_millis(5));
    }
    panic!("Redis still has something for the stopped node");
}

fn go_on(gateway: &Gateway) {
    signal(gateway.pid(), Signal::SIGCONT).unwrap();
}

/// Reads rows up to the one with this body. A sender may be pushed its own row, if the number before it was never
/// given out.
fn wait_for_body(client: &mut Connection, body: &str, gateway: &Gateway) {
    while next_body(client, gateway) != body {}
}

/// The next row's body; other things may come before it.
fn next_body(client: &mut Connection, gateway: &Gateway) -> String {
    loop {
        match client.next(PATIENCE).unwrap() {
            Some(Event::Row(row)) => return String::from_utf8(row.body).unwrap(),
            Some(Event::GroupChanged { .. } | Event::Gap { .. }) => {}
            other => panic!("expected a row, heard {other:?}\n{}", gateway.log()),
        }
    }
}

/// A group's version and members, as this session's node knows them.
fn group_info(client: &mut Connection, group: GroupId) -> (u32, Vec<u64>) {
    match client.group_info(group, PATIENCE).unwrap() {
        Event::GroupInfo { version, members, .. } => {
            let mut users: Vec<u64> = members.iter().map(|(user, _)| user.0).collect();
            users.sort_unstable();
            (version, users)
        }
        other => panic!("expected GroupInfo, heard {other:?}"),
    }
}

fn add(client: &mut Connection, group: GroupId, user: u64) {
    for _ in 0..PATIENCE.as_millis() / 50 {
        if client.group_add(group, &[UserId(user)], PATIENCE).is_ok() {
            return;
        }
        pause(Duration::from_millis(50));
    }
    panic!("user {user} is not added");
}

#[test]
fn a_change_that_a_node_had_not_read_when_redis_was_emptied_reaches_it_all_the_same() {
    let (redis, database) = (Redis::start(), Database::create());
    let (dir_a, dir_b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (node(dir_a.path(), &redis, &database, 1), node(dir_b.path(), &redis, &database, 2));
    let (mut one, mut two) = (a.client(1, 1, None), b.client(2, 1, None));
    let group = create(&mut one, &[UserId(1), UserId(2)]);
    let to = Conversation::Group(group);
    send(&mut two, to, "before");
    assert_eq!(next_body(&mut one, &a), "before");

    stop_reading(&b, &redis, 1);
    add(&mut one, group, 3);
    assert!(redis.command(&["FLUSHALL"]).unwrap().starts_with("+OK"));
    send(&mut one, to, "meanwhile");
    go_on(&b);

    assert_eq!(next_body(&mut two, &b), "meanwhile");
    send(&mut two, to, "after");
    wait_for_body(&mut one, "after", &a);
    assert_eq!(group_info(&mut two, group), (2, vec![1, 2, 3]));
    let mut three = b.client(3, 1, None);
    assert_eq!(next_body(&mut three, &b), "meanwhile");
    assert_eq!(next_body(&mut three, &b), "after");
}

#[test]
fn a_change_that_only_one_node_had_read_when_it_was_lost_for_good_is_no_more_there_either() {
    let (redis, database) = (Redis::start(), Database::create());
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let start = |at: usize| node(dirs[at].path(), &redis, &database, at as u16 + 1);
    let (a, b, c) = (start(0), start(1), start(2));
    let (mut two, mut four) = (b.client(2, 1, None), a.client(4, 1, None));
    let mut one = c.client(1, 1, None);
    let group = create(&mut one, &[UserId(1), UserId(2), UserId(4)]);
    let to = Conversation::Group(group);
    send(&mut one, to, "before");
    assert_eq!((next_body(&mut two, &b), next_body(&mut four, &a)), ("before".to_owned(), "before".to_owned()));
    crate::cluster::wait_for_rows(&database, 3);

    keep_stores_from_writing(&redis, &[&a, &b, &c]);
    stop_reading(&a, &redis, 2);
    add(&mut one, group, 3);
    match two.next(PATIENCE).unwrap() {
        Some(Event::GroupChanged { version: 2, .. }) => {}
        other => panic!("expected the change, heard {other:?}"),
    }
    c.kill();
    signal(b.pid(), Signal::SIGSTOP).unwrap();
    assert!(redis.command(&["FLUSHALL"]).unwrap().starts_with("+OK"));
    go_on(&a);
    send(&mut four, to, "meanwhile");
    assert_eq!(group_info(&mut four, group), (1, vec![1, 2, 4]), "the change is nowhere but where it was read");
    go_on(&b);

    assert_eq!(next_body(&mut two, &b), "meanwhile");
    send(&mut two, to, "after");
    wait_for_body(&mut four, "after", &a);
    assert_eq!(group_info(&mut two, group), (1, vec![1, 2, 4]));

    // Another change makes the same version: everybody has that one.
    let mut one = a.client(1, 1, None);
    add(&mut one, group, 5);
    let mut five = b.client(5, 1, None);
    let mut three = b.client(3, 1, None);
    send(&mut four, to, "to the fifth");
    assert_eq!(next_body(&mut five, &b), "to the fifth");
    assert_eq!(group_info(&mut two, group), (2, vec![1, 2, 4, 5]));
    send(&mut four, Conversation::User(UserId(3)), "to the third alone");
    assert_eq!(next_body(&mut three, &b), "to the third alone");
}
