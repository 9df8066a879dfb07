//! What the nodes of a cluster tell each other beside the ledger: who is online, logins, ephemeral messages.

use std::time::Duration;

use nix::sys::signal::Signal;
use ringway_client::Event;
use ringway_wire::ids::{Conversation, Seq, UserId};
use ringway_wire::schema::CloseReason;

use crate::cluster::{create, node, settings};
use crate::connection::Connection;
use crate::gateway::{Gateway, PATIENCE, pause, signal};
use crate::redis::Redis;
use crate::services::Database;

/// Asks until exactly these of users 1 to 9 are online.
fn wait_for_online(client: &mut Connection, expected: &[u64], gateway: &Gateway) {
    let users: Vec<UserId> = (1..=9).map(UserId).collect();
    let expected: Vec<UserId> = expected.iter().copied().map(UserId).collect();
    let mut online = Vec::new();
    for _ in 0..PATIENCE.as_millis() / 20 {
        online = client.presence(&users, PATIENCE).unwrap();
        if online == expected {
            return;
        }
        pause(Duration::from_millis(20));
    }
    panic!("{online:?} are online, not {expected:?}\n{}", gateway.log());
}

/// The value of a metric without labels.
fn metric(gateway: &Gateway, name: &str) -> Option<f64> {
    let page = gateway.admin_page("/metrics");
    page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// Waits until the session is told why it ends.
fn closing(client: &mut Connection) -> CloseReason {
    loop {
        match client.next(PATIENCE).unwrap().expect("a last frame in time") {
            Event::Closing { reason, .. } => return reason,
            Event::Row(_) | Event::GroupChanged { .. } => {}
            other => panic!("expected Closing, heard {other:?}"),
        }
    }
}

fn is_served(client: &mut Connection) {
    let request = client.ping().unwrap();
    assert!(matches!(client.answer(request, PATIENCE).unwrap(), Event::Pong { .. }));
}

#[test]
fn presence_tells_of_users_on_every_node_and_no_more_of_those_whose_node_is_gone() {
    let (redis, database) = (Redis::start(), Database::create());
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut a = node(dirs[0].path(), &redis, &database, 1);
    let b = node(dirs[1].path(), &redis, &database, 2);
    let mut one = a.client(1, 1, None);
    let mut two = b.client(2, 1, None);
    wait_for_online(&mut one, &[1, 2], &a);
    wait_for_online(&mut two, &[1, 2], &b);

    // A node that starts later is told who is there; users come and go.
    let mut c = node(dirs[2].path(), &redis, &database, 3);
    let mut three = c.client(3, 1, None);
    for (client, gateway) in [(&mut one, &a), (&mut two, &b), (&mut three, &c)] {
        wait_for_online(client, &[1, 2, 3], gateway);
    }
    two.logout().unwrap();
    wait_for_online(&mut one, &[1, 3], &a);
    let mut two = b.client(2, 1, None);
    wait_for_online(&mut one, &[1, 2, 3], &a);
    wait_for_online(&mut two, &[1, 2, 3], &b);

    // One node dies; one stands still for longer than its lease and goes on.
    b.kill();
    wait_for_online(&mut one, &[1, 3], &a);
    wait_for_online(&mut three, &[1, 3], &c);
    assert!(a.log().contains("a node is gone: its lease has ended"), "{}", a.log());
    signal(c.pid(), Signal::SIGSTOP).unwrap();
    wait_for_online(&mut one, &[1], &a);
    signal(c.pid(), Signal::SIGCONT).unwrap();
    wait_for_online(&mut one, &[1, 3], &a);
    wait_for_online(&mut three, &[1, 3], &c);
    a.wait_until("the metric tells of two nodes", |a| metric(a, "ringway_cluster_nodes") == Some(2.0));

    // One stops as it should: at once.
    drop(three);
    c.terminate();
    assert!(c.wait().success(), "{}", c.log());
    wait_for_online(&mut one, &[1], &a);
    assert!(a.log().contains("a node has left the cluster"), "{}", a.log());
    a.wait_until("the metric tells of one node", |a| metric(a, "ringway_cluster_nodes") == Some(1.0));
}

#[test]
fn presence_is_right_again_after_redis_and_after_a_lost_subscription() {
    let (mut redis, database) = (Redis::start(), Database::create());
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let (a, b) = (node(dirs[0].path(), &redis, &database, 1), node(dirs[1].path(), &redis, &database, 2));
    let mut one = a.client(1, 1, None);
    let mut two = b.client(2, 1, None);
    let three = b.client(3, 1, None);
    wait_for_online(&mut one, &[1, 2, 3], &a);

    // Only the connections that hear are cut off; logins go on meanwhile.
    for round in 0..5 {
        assert!(redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).unwrap().starts_with(':'));
        let mut four = b.client(4, 1, None);
        wait_for_online(&mut one, &[1, 2, 3, 4], &a);
        if round % 2 == 0 {
            assert!(redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).unwrap().starts_with(':'));
        }
        four.logout().unwrap();
        wait_for_online(&mut one, &[1, 2, 3], &a);
    }

    // Redis is away; meanwhile one goes, and what is known of the others still counts.
    redis.kill();
    drop(three);
    wait_for_online(&mut two, &[1, 2], &b);
    wait_for_online(&mut one, &[1, 2, 3], &a);
    redis.start_again();
    wait_for_online(&mut one, &[1, 2], &a);
    wait_for_online(&mut two, &[1, 2], &b);
}

#[test]
fn a_login_on_one_node_replaces_the_session_of_the_same_device_on_another() {
    let (redis, database) = (Redis::start(), Database::create());
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let (a, b) = (node(dirs[0].path(), &redis, &database, 1), node(dirs[1].path(), &redis, &database, 2));
    let mut other_device = a.client(1, 2, None);
    for round in 0..3 {
        let (from, to) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let mut before = from.client(1, 1, None);
        let mut after = to.client(1, 1, None);
        assert_eq!(closing(&mut before), CloseReason::Replaced, "{}", from.log());
        is_served(&mut after);
    }
    is_served(&mut other_device);
}

#[test]
fn the_oldest_of_too_many_devices_goes_on_whichever_node_it_is() {
    let (redis, database) = (Redis::start(), Database::create());
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let start = |at: usize| {
        let mut settings = settings(&redis, &database, at as u16 + 1).to_vec();
        settings.push("session.devices_max=2".to_owned());
        let mut arguments = vec!["--shards", "1"];
        settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
        Gateway::start(dirs[at].path(), &arguments)
    };
    let (a, b) = (start(0), start(1));
    let mut first = a.client(1, 1, None);
    let mut second = b.client(1, 2, None);
    // The second node knows of the first device, so that the third is the one too many.
    let mut witness = b.client(2, 1, None);
    wait_for_online(&mut witness, &[1, 2], &b);
    let mut third = b.client(1, 3, None);
    assert_eq!(closing(&mut first), CloseReason::DeviceLimit, "{}", a.log());
    is_served(&mut second);
    is_served(&mut third);
    let mut fourth = a.client(1, 4, None);
    assert_eq!(closing(&mut second), CloseReason::DeviceLimit, "{}", b.log());
    is_served(&mut third);
    is_served(&mut fourth);
}

#[test]
fn an_ephemeral_message_reaches_its_recipients_on_every_node_and_nobody_else() {
    let (redis, database) = (Redis::start(), Database::create());
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let (a, b) = (node(dirs[0].path(), &redis, &database, 1), node(dirs[1].path(), &redis, &database, 2));
    let mut one = a.client(1, 1, None);
    let mut two = b.client(2, 1, None);
    let mut three = b.client(3, 1, None);
    let group = create(&mut one, &[UserId(1), UserId(2)]);
    wait_for_online(&mut one, &[1, 2, 3], &a);

    let to = [(Conversation::Group(group), "typing to the group"), (Conversation::User(UserId(2)), "typing to two")];
    for (to, body) in to {
        // The first ones may be lost: a node learns of a group and of a login a moment later than the other.
        let mut heard = None;
        for _ in 0..PATIENCE.as_millis() / 200 {
            let id = one.new_client_msg_id();
            let request = one.send_ephemeral(to, id, body.as_bytes()).unwrap();
            let answer = one.answer(request, PATIENCE).unwrap();
            assert!(matches!(answer, Event::Sent { seq: Seq(0), .. }), "{answer:?}");
            heard = next_ephemeral(&mut two, Duration::from_millis(200));
            if heard.is_some() {
                break;
            }
        }
        assert_eq!(heard.as_deref(), Some(body), "{}", b.log());
        while next_ephemeral(&mut two, Duration::from_millis(200)).is_some() {}
    }
    // Nobody else, and not the sender: what comes first is what is sent last.
    let id = two.new_client_msg_id();
    let request = two.send(Conversation::User(UserId(3)), id, b"the end").unwrap();
    assert!(matches!(two.answer(request, PATIENCE).unwrap(), Event::Sent { .. }));
    match three.next(PATIENCE).unwrap() {
        Some(Event::Row(row)) => assert_eq!(row.body, b"the end"),
        other => panic!("expected the row, heard {other:?}"),
    }
    assert_eq!(next_ephemeral(&mut one, Duration::from_millis(200)), None);
}

/// The next ephemeral message's body, if one comes in time.
fn next_ephemeral(client: &mut Connection, time: Duration) -> Option<String> {
    while let Some(said) = client.next(time).unwrap() {
        match said {
            Event::Ephemeral(row) => return Some(String::from_utf8(row.body).unwrap()),
            Event::GroupChanged { .. } | Event::Row(_) => {}
            other => panic!("expected an ephemeral message, heard {other:?}"),
        }
    }
    None
}
