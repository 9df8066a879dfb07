//! A ledger in several buckets, over the masters of a Redis Cluster: what one bucket promises they promise together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use ringway::ledger::redis::entry::Home;
use ringway_client::{Event, Row};
use ringway_wire::ids::{ClientMsgId, Conversation, GroupId, Seq, UserId};
use ringway_wire::schema::ErrorCode;

use crate::cluster::{WRITER, create, keep_stores_from_writing, node, rows_until, send, settings, told, wait_for_rows};
use crate::connection::Connection;
use crate::gateway::{Gateway, PATIENCE, pause};
use crate::redis::{Ledger, Redis, Split};
use crate::services::Database;

const BUCKETS: usize = 3;

fn bucket(group: GroupId) -> usize {
    Home::of_group(group).bucket(BUCKETS)
}

/// A group of these users in each bucket.
fn group_in_each(client: &mut Connection, users: &[UserId]) -> Vec<GroupId> {
    let mut groups: Vec<Option<GroupId>> = vec![None; BUCKETS];
    while groups.contains(&None) {
        let group = create(client, users);
        groups[bucket(group)] = Some(group);
    }
    groups.into_iter().flatten().collect()
}

/// What is said to a message under a name, asked until it is something else than to try again.
fn send_as(client: &mut Connection, to: Conversation, name: ClientMsgId, body: &str) -> Event {
    for _ in 0..PATIENCE.as_millis() / 50 {
        let request = client.send(to, name, body.as_bytes()).unwrap();
        match client.answer(request, PATIENCE).unwrap() {
            Event::Refused { code: ErrorCode::RetryLater, .. } => pause(Duration::from_millis(50)),
            said => return said,
        }
    }
    panic!("{body:?} is not taken");
}

#[test]
fn what_is_said_in_all_buckets_reaches_every_node_in_one_order_and_the_database_once() {
    let (ledger, database) = (Split::start(BUCKETS), Database::create());
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let nodes: Vec<Gateway> = (0..3).map(|at| node(dirs[at].path(), &ledger, &database, at as u16 + 1)).collect();
    let users: Vec<UserId> = (1..=3).map(UserId).collect();
    let mut clients: Vec<Connection> =
        std::iter::zip(&nodes, 1..).map(|(node, user)| node.client(user, 1, None)).collect();
    let groups = group_in_each(&mut clients[0], &users);
    let mut expected = BTreeSet::new();
    for round in 0..10 {
        for (at, group) in groups.iter().enumerate() {
            for (user, client) in clients.iter_mut().enumerate() {
                let body = format!("{} says {round} in {at}", user + 1);
                send(client, Conversation::Group(*group), &body);
                expected.insert(body);
            }
        }
    }
    // One-to-one as well, from everybody to the first.
    for (user, client) in clients.iter_mut().enumerate() {
        let body = format!("{} says to one", user + 1);
        send(client, Conversation::User(UserId(1)), &body);
        expected.insert(body);
    }
    let last = "the end";
    send(&mut clients[2], Conversation::Group(groups[1]), last);
    expected.insert(last.to_owned());
    // Whoever asks, on whichever node, gets the same rows.
    let inboxes: Vec<_> = nodes
        .iter()
        .map(|node| rows_until(&mut node.client(1, 7, Some(Seq(0))), last))
        .map(|rows| rows.into_iter().map(|row| (row.seq, row.msg_id, row.body)).collect::<Vec<_>>())
        .collect();
    assert_eq!(inboxes[0], inboxes[1]);
    assert_eq!(inboxes[0], inboxes[2]);
    let bodies: BTreeSet<String> =
        inboxes[0].iter().map(|(.., body)| String::from_utf8(body.clone()).unwrap()).collect();
    assert_eq!(bodies, expected);
    assert!(inboxes[0].iter().map(|(seq, ..)| seq.0).eq(1..=expected.len() as u64), "no number is left out");
    // Who said something sees it where it was said.
    for user in 1..=3 {
        for at in 0..BUCKETS {
            let said = |body: &String| body.starts_with(&format!("{user} says")) && body.ends_with(&format!("in {at}"));
            let order: Vec<String> =
                inboxes[0].iter().map(|(.., body)| String::from_utf8(body.clone()).unwrap()).filter(said).collect();
            assert!(order.iter().enumerate().all(|(round, body)| *body == format!("{user} says {round} in {at}")));
        }
    }
    wait_for_rows(&database, 3 * 91 + 5);
    assert_eq!((database.count("messages"), database.count("inbox")), (94, 3 * 91 + 5));
    for bucket in 0..BUCKETS {
        let stream = format!("{{ringway:{bucket}}}:3:state");
        let count = ledger.masters()[ledger.cluster.master_of(bucket)].command(&["HGET", &stream, "count"]).unwrap();
        assert!(!count.ends_with("1099511627776\r\n"), "bucket {bucket} has nothing: {count}");
    }
}

#[test]
fn a_name_is_one_messages_whatever_bucket_another_one_would_lie_in() {
    let (ledger, database) = (Split::start(BUCKETS), Database::create());
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let (a, b) = (node(dirs[0].path(), &ledger, &database, 1), node(dirs[1].path(), &ledger, &database, 2));
    let mut setup = a.client(1, 9, None);
    let users: Vec<UserId> = (1..=2).map(UserId).collect();
    let mut to: Vec<Conversation> = group_in_each(&mut setup, &users).into_iter().map(Conversation::Group).collect();
    to.push(Conversation::User(UserId(2)));
    // Names that the ledger knows from Redis alone are younger than it.
    pause(Duration::from_millis(ringway_wire::limits::CLIENT_MSG_ID_AHEAD_MS + 2_000));
    let (mut one, mut again) = (a.client(1, 1, None), b.client(1, 2, None));
    for first in &to {
        for second in &to {
            let name = one.new_client_msg_id();
            let Event::Sent { msg_id, repeat: false, .. } = send_as(&mut one, *first, name, "this") else {
                panic!("the first one is taken")
            };
            for client in [&mut again, &mut one] {
                if first == second {
                    // The same again is the same message.
                    let said = send_as(client, *second, name, "this");
                    assert!(
                        matches!(said, Event::Sent { msg_id: same, repeat: true, .. } if same == msg_id),
                        "{said:?}"
                    );
                }
                let body = if first == second { "that" } else { "this" };
                let said = send_as(client, *second, name, body);
                assert!(
                    matches!(said, Event::Refused { code: ErrorCode::ClientMsgIdReused, .. }),
                    "{name:?} for {first:?} and then for {second:?}: {said:?}"
                );
            }
        }
    }
    wait_for_rows(&database, 2 * 16);
    assert_eq!((database.count("messages"), database.count("inbox")), (16, 32));
}

/// The first user from this one on whose names lie in a bucket.
fn user_in(bucket: usize, from: u64) -> UserId {
    (from..).map(UserId).find(|user| Home::of_sender(*user).bucket(BUCKETS) == bucket).unwrap()
}

#[test]
fn what_one_sends_to_a_group_stays_in_order_though_others_wait_for_a_master_that_stands_still() {
    let (ledger, database) = (Split::start(BUCKETS), Database::create());
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), &ledger, &database, 1);
    // The names of one lie in the first bucket, those of the other in the last, the group in the one between.
    let (one, other) = (user_in(0, 1), user_in(2, 1));
    let mut sender = node.client(one.0, 1, None);
    let group = group_in_each(&mut sender, &[one, other])[1];
    let to = Conversation::Group(group);
    pause(Duration::from_millis(ringway_wire::limits::CLIENT_MSG_ID_AHEAD_MS + 2_000));
    let mut waiting = node.client(other.0, 1, None);
    send(&mut sender, to, "first");
    send(&mut waiting, to, "first of the other");
    let frozen = &ledger.masters()[ledger.cluster.master_of(2)];
    const PAIRS: usize = 20;
    let mut requests = Vec::new();
    for round in 0..5 {
        frozen.signal(Signal::SIGSTOP);
        let mut ask = |client: &mut Connection, who, index| {
            let name = client.new_client_msg_id();
            let body = format!("{who} {round} {index}");
            requests.push((who, client.send(to, name, body.as_bytes()).unwrap()));
        };
        // Some calls have messages of both, and those behind them of one alone.
        for index in 0..PAIRS {
            ask(&mut waiting, "other", index);
            ask(&mut sender, "one", index);
        }
        for index in PAIRS..2 * PAIRS {
            ask(&mut sender, "one", index);
            pause(Duration::from_millis(2));
        }
        pause(Duration::from_millis(200));
        frozen.signal(Signal::SIGCONT);
        for (who, request) in requests.drain(..) {
            let client = if who == "one" { &mut sender } else { &mut waiting };
            let said = client.answer(request, PATIENCE).unwrap();
            assert!(matches!(said, Event::Sent { .. }), "{said:?}");
        }
    }
    send(&mut sender, to, "the end");
    let bodies: Vec<String> = rows_until(&mut node.client(one.0, 7, Some(Seq(0))), "the end")
        .into_iter()
        .map(|row| String::from_utf8(row.body).unwrap())
        .collect();
    for who in ["one", "other"] {
        let said: Vec<&String> = bodies.iter().filter(|body| body.starts_with(&format!("{who} "))).collect();
        let count = if who == "one" { 2 * PAIRS } else { PAIRS };
        let expected = (0..5).flat_map(|round| (0..count).map(move |index| format!("{who} {round} {index}")));
        assert!(said.iter().copied().eq(expected.collect::<Vec<_>>().iter()), "{said:?}");
    }
}

/// Kills or empties a master, by where it is, between what is said before and after.
fn nothing_is_lost(blow: impl Fn(&mut Split, usize)) {
    let (mut ledger, database) = (Split::start(BUCKETS), Database::create());
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let (a, b) = (node(dirs[0].path(), &ledger, &database, 1), node(dirs[1].path(), &ledger, &database, 2));
    let (mut one, mut two) = (a.client(1, 1, None), b.client(2, 1, None));
    let groups = group_in_each(&mut one, &[UserId(1), UserId(2)]);
    let mut expected = BTreeSet::new();
    for master in 0..BUCKETS {
        for when in ["before", "after"] {
            if when == "after" {
                blow(&mut ledger, master);
            }
            for index in 0..10 {
                for (at, group) in groups.iter().enumerate() {
                    let body = format!("{when} {master}: {index} in {at}");
                    send(&mut one, Conversation::Group(*group), &body);
                    expected.insert(body);
                }
            }
        }
    }
    send(&mut one, Conversation::Group(groups[0]), "the end");
    expected.insert("the end".to_owned());
    let live = told(&rows_until(&mut two, "the end"));
    assert_eq!(live.iter().map(|(_, body)| body.clone()).collect::<BTreeSet<_>>(), expected, "{}", b.log());
    assert_eq!(live.len(), expected.len(), "a message came under two numbers of its own");
    for gateway in [&a, &b] {
        assert_eq!(told(&rows_until(&mut gateway.client(2, 7, Some(Seq(0))), "the end")), live);
    }
    wait_for_rows(&database, 2 * expected.len() as u64);
    let twice: Vec<(u64, u64)> =
        database.rows("SELECT user_id, msg_id FROM inbox GROUP BY user_id, msg_id HAVING COUNT(*) > 1");
    assert_eq!(twice, [], "a message is in an inbox twice");
}

#[test]
fn whichever_master_is_killed_and_started_again_nothing_is_lost() {
    nothing_is_lost(|ledger, master| {
        let master = &mut ledger.masters_mut()[master];
        master.kill();
        master.start_again();
    });
}

#[test]
fn whichever_master_is_emptied_nothing_that_was_acked_is_lost() {
    nothing_is_lost(|ledger, master| ledger.masters()[master].flush());
}

#[test]
fn an_order_that_was_lost_is_not_made_otherwise_for_the_same_numbers() {
    the_order_is_lost(Nodes::Run);
}

#[test]
fn an_order_that_was_lost_while_no_node_ran_is_not_made_otherwise_for_the_same_numbers() {
    the_order_is_lost(Nodes::Stopped);
}

/// Whether somebody is there who has read what is lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nodes {
    Run,
    Stopped,
}

fn the_order_is_lost(nodes: Nodes) {
    let (mut ledger, database) = (Split::start(BUCKETS), Database::create());
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut a = node(dirs[0].path(), &ledger, &database, 1);
    let mut one = a.client(1, 1, None);
    let groups = group_in_each(&mut one, &[UserId(1), UserId(2)]);
    let first = ledger.cluster.master_of(0);
    // The database has nothing of it, so whoever comes later takes the ledger's word.
    keep_stores_from_writing(&ledger.masters()[first], &[&a]);
    let dump = ledger.masters()[first].copy();
    for index in 0..10 {
        for group in &groups[1..] {
            send(&mut one, Conversation::Group(*group), &format!("{index} in {}", bucket(*group)));
        }
    }
    send(&mut one, Conversation::Group(groups[1]), "before");
    let number = |row: &Row| (row.seq, row.msg_id);
    let mut seen: BTreeMap<_, _> = rows_until(&mut a.client(2, 1, Some(Seq(0))), "before").iter().map(number).collect();
    if nodes == Nodes::Stopped {
        a.terminate();
        a.wait();
    }
    let master = &mut ledger.masters_mut()[first];
    master.kill();
    master.put_back(&dump);
    master.start_again();
    if nodes == Nodes::Stopped {
        // It serves its slots again when it has found the others of the Redis Cluster.
        let is_deleted = || {
            (0..1_000).any(|_| {
                pause(Duration::from_millis(10));
                master.command(&["DEL", WRITER]).unwrap().starts_with(":1")
            })
        };
        assert!(is_deleted());
        a = node(dirs[0].path(), &ledger, &database, 1);
        one = a.returning_client(1, 1, None);
    }
    send(&mut one, Conversation::Group(groups[1]), "after");
    let b = node(dirs[1].path(), &ledger, &database, 2);
    for gateway in [&a, &b] {
        // What is submitted again may stand behind what is new, where they lie in different buckets.
        let (mut client, mut rows) = (gateway.client(2, 1, Some(Seq(0))), Vec::new());
        while rows.len() < 22 {
            match client.next(PATIENCE).unwrap() {
                Some(Event::Row(row)) => rows.push(row),
                Some(Event::GroupChanged { .. } | Event::Gap { .. }) => {}
                other => panic!("expected a row, heard {other:?} behind {}\n{}", rows.len(), gateway.log()),
            }
        }
        assert_eq!(told(&rows).len(), 22, "a message came twice");
        for (seq, msg_id) in rows.iter().map(number) {
            assert_eq!(*seen.entry(seq).or_insert(msg_id), msg_id, "{seq:?} was given to two messages");
        }
    }
}

#[test]
fn a_bucket_that_moves_to_another_master_is_followed_there() {
    nothing_is_lost(|ledger, bucket| {
        let from = ledger.cluster.master_of(bucket);
        ledger.cluster.move_bucket(bucket, (from + 1) % BUCKETS);
        assert_ne!(ledger.cluster.master_of(bucket), from);
    });
}

#[test]
fn every_master_that_may_lose_what_it_has_acknowledged_is_named_when_a_node_starts() {
    let (ledger, database) = (Split::start(BUCKETS), Database::create());
    let dir = tempfile::tempdir().unwrap();
    for bucket in [1, 2] {
        let master = &ledger.masters()[ledger.cluster.master_of(bucket)];
        assert!(master.command(&["CONFIG", "SET", "appendfsync", "everysec"]).unwrap().starts_with("+OK"));
    }
    let mut node = node(dir.path(), &ledger, &database, 1);
    for (bucket, is_named) in [(1, true), (2, true), (0, false)] {
        let port = ledger.masters()[ledger.cluster.master_of(bucket)].port();
        let names = |line: &str| {
            line.contains("MAY LOSE") && line.contains("redis.appendfsync") && line.contains(&format!(":{port} "))
        };
        if is_named {
            node.wait_until("it names the master", |node| node.log().lines().any(names));
        } else {
            assert!(!node.log().lines().any(names), "{}", node.log());
        }
    }
}

/// Starts a node of a ledger with so many buckets.
fn with_buckets(dir: &Path, redis: &Redis, database: &Database, id: u16, buckets: usize) -> Gateway {
    let buckets = format!("cluster.buckets={buckets}");
    let settings = settings(redis, database, id);
    let mut arguments = vec!["--shards", "1", "--set", &buckets];
    settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
    Gateway::start(dir, &arguments)
}

#[test]
fn a_node_with_another_number_of_buckets_is_refused_while_others_run_and_taken_when_all_have_been_stopped() {
    let (redis, database) = (Redis::start(), Database::create());
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let a = with_buckets(dirs[0].path(), &redis, &database, 1, 1);
    let mut one = a.client(1, 1, None);
    // Nothing of this is stored when the number changes.
    keep_stores_from_writing(&redis, &[&a]);
    for index in 0..10 {
        send(&mut one, Conversation::User(UserId(2)), &format!("before {index}"));
    }
    let mut b = with_buckets(dirs[1].path(), &redis, &database, 2, 4);
    b.wait_until("it says so meanwhile", |b| {
        let page = b.admin_page("/readyz");
        page.starts_with("HTTP/1.1 503") && page.contains("the other gateways have another number of buckets")
    });
    assert!(!b.wait().success());
    assert!(b.log().contains("cluster.buckets = 1, and this one has 4"), "{}", b.log());
    send(&mut one, Conversation::User(UserId(2)), "still here");
    a.kill();

    let a = with_buckets(dirs[0].path(), &redis, &database, 1, 4);
    let mut one = a.client(1, 1, None);
    let b = with_buckets(dirs[1].path(), &redis, &database, 2, 4);
    let mut two = b.client(2, 1, Some(Seq(0)));
    send(&mut one, Conversation::User(UserId(2)), "the end");
    let bodies: BTreeSet<String> = told(&rows_until(&mut two, "the end")).into_iter().map(|(_, body)| body).collect();
    let expected: BTreeSet<String> =
        (0..10).map(|index| format!("before {index}")).chain(["still here", "the end"].map(str::to_owned)).collect();
    assert_eq!(bodies, expected, "{}", a.log());
    assert!(redis.command(&["DEL", WRITER]).unwrap().starts_with(":1"));
    wait_for_rows(&database, 2 * 12);
}
