//! MySQL goes away from a cluster: acks go on until the stream has reached its limit, who comes back is served from the
//! stream, and in the end all of it is in the database, once.

use std::path::Path;

use nix::sys::signal::Signal;
use ringway::ledger::redis::entry::Home;
use ringway_client::Event;
use ringway_wire::ids::{Conversation, MsgId, Seq, UserId};
use ringway_wire::schema::ErrorCode;

use crate::cluster::{send, settings};
use crate::connection::Connection;
use crate::gateway::{Gateway, PATIENCE};
use crate::outage::{hear, is_there, metric, open_to_others, send_some};
use crate::redis::{Ledger, Redis, Split};
use crate::services::{Database, MariaDb};

/// What may be unstored.
const ENTRIES_MAX: usize = 600;

fn node(dir: &Path, ledger: &impl Ledger, database: &Database, id: u16) -> Gateway {
    let data_dir = dir.join(format!("node-{id}"));
    std::fs::create_dir(&data_dir).unwrap();
    let limit = format!("limits.stream_entries_max={ENTRIES_MAX}");
    let settings = settings(ledger, database, id);
    // One user fills it.
    let mut arguments = vec!["--shards", "1", "--set", &limit, "--set", "limits.user_unstored_percent=100"];
    settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
    Gateway::start(&data_dir, &arguments)
}

/// How the database is away.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Away {
    Stopped,
    Frozen,
}

#[test]
fn a_stream_that_is_full_because_the_database_is_stopped_refuses_disconnects_nobody_and_recovers_by_itself() {
    the_stream_fills_up(&Redis::start(), 1, Away::Stopped);
}

#[test]
fn each_bucket_has_its_part_of_the_limit_and_is_cut_behind_what_is_stored() {
    the_stream_fills_up(&Split::start(3), 3, Away::Stopped);
}

#[test]
fn a_stream_that_is_full_because_the_database_stands_still_refuses_disconnects_nobody_and_recovers_by_itself() {
    the_stream_fills_up(&Redis::start(), 1, Away::Frozen);
}

/// The database goes away; a node that can tell says so.
fn goes_away(mariadb: &mut MariaDb, away: Away, node: &mut Gateway) {
    match away {
        Away::Stopped => {
            mariadb.stop();
            node.wait_until("it is ready, and says what cannot be had", |gateway| {
                let page = gateway.admin_page("/readyz");
                page.starts_with("HTTP/1.1 200") && page.contains("degraded: the database takes no writes")
            });
        }
        Away::Frozen => mariadb.signal(Signal::SIGSTOP),
    }
}

/// All messages are of one sender to another user: they lie in one of the ledger's buckets.
fn the_stream_fills_up(ledger: &impl Ledger, buckets: usize, away: Away) {
    let entries_max = ENTRIES_MAX / buckets;
    let dir = tempfile::tempdir().unwrap();
    open_to_others(dir.path());
    let mut mariadb = MariaDb::start(&dir.path().join("mariadb"), &[]);
    let database = Database::create_on(&mariadb.url());
    let mut one = node(dir.path(), ledger, &database, 1);
    let mut two = node(dir.path(), ledger, &database, 2);
    let (mut sender, mut receiver) = (one.client(1, 1, Some(Seq(0))), two.client(2, 1, Some(Seq(0))));
    let mut idle = one.client(3, 1, Some(Seq(0)));
    // The ledger is there, and something is in the database already.
    send(&mut sender, Conversation::User(UserId(2)), "before");
    let first = receiver.next(PATIENCE).unwrap();
    let Some(Event::Row(first)) = first else { panic!("expected the first row, heard {first:?}") };
    let mut all: Vec<MsgId> = vec![first.msg_id];
    one.wait_until("the first one is stored", |_| database.count("messages") == 1);
    let stored = all.len();
    one.wait_until("Redis has heard so", |_| stored_of_each(ledger, buckets).iter().sum::<u64>() == stored as u64);

    goes_away(&mut mariadb, away, &mut one);
    // A ledger that was made a moment ago asks the database whether a message is a repeat; then Redis knows all names.
    one.wait_until("acks go on without the database", |_| {
        let taken = try_one(&mut sender);
        all.extend(taken);
        taken.is_some()
    });
    hear(&mut receiver, &all[stored..]);
    loop {
        let (acked, full) = send_some(&mut sender, 50, b"while the database is away");
        hear(&mut receiver, &acked);
        all.extend(acked);
        if full > 0 {
            break;
        }
        assert!(all.len() < 2 * entries_max, "it is never full");
    }
    assert_eq!(all.len() - stored, entries_max, "what is not stored is counted, and nothing else");
    one.wait_until("it is counted", |gateway| metric(gateway, "ringway_ledger_storage_full_total") >= Some(1));
    one.wait_until("it is not ready, and says why", |gateway| {
        assert_eq!(send_some(&mut sender, 1, b"too much"), (vec![], 1), "nothing has changed");
        let page = gateway.admin_page("/readyz");
        page.starts_with("HTTP/1.1 503") && page.contains("the stream has as much as it may")
    });
    // Whoever was there stays, and who comes back, on either node, receives everything that the database has not.
    [&mut sender, &mut receiver, &mut idle].into_iter().for_each(is_there);
    let mut again = [one.client(2, 2, Some(Seq(stored as u64))), two.client(2, 3, Some(Seq(stored as u64)))];
    again.iter_mut().for_each(|client| hear(client, &all[stored..]));
    assert_eq!(send_some(&mut sender, 1, b"too much"), (vec![], 1), "nothing has changed");

    match away {
        Away::Stopped => mariadb.resume(),
        Away::Frozen => mariadb.signal(Signal::SIGCONT),
    }
    one.wait_until("messages are taken again", |_| {
        let (acked, _) = send_some(&mut sender, 1, b"when it is back");
        all.extend(&acked);
        !acked.is_empty()
    });
    let newest = &all[all.len() - 1..];
    hear(&mut receiver, newest);
    again.iter_mut().for_each(|client| hear(client, newest));
    [&mut sender, &mut receiver, &mut idle].into_iter().chain(&mut again).for_each(is_there);
    let count = all.len() as u64;
    one.wait_until("everything is stored", |_| database.count("messages") >= count);
    let rows: Vec<(u64, u64)> = database.rows("SELECT seq, msg_id FROM inbox WHERE user_id = 2 ORDER BY seq");
    assert!(rows.into_iter().eq((1..).zip(all.iter().map(|msg_id| msg_id.0))), "every row once, in order");
    assert_eq!((database.count("messages"), database.count("inbox")), (count, 2 * count));
    stop_well([&mut one, &mut two]);
}

fn stop_well(nodes: [&mut Gateway; 2]) {
    for node in nodes {
        node.terminate();
        assert!(node.wait().success(), "{}", node.log());
    }
}

/// How many entries of each bucket the database has, as Redis was told with the last heartbeats.
fn stored_of_each(ledger: &impl Ledger, buckets: usize) -> Vec<u64> {
    let stored = |bucket: usize| {
        let key = format!("{{ringway:{bucket}}}:3:state");
        let answers = ledger.masters().iter().map(|master| master.command(&["HGET", &key, "stored"]).unwrap());
        // The others say that it is not theirs. A generation's entries are numbered from a multiple of 2^40 on.
        let entry = answers.filter_map(|answer| answer.lines().nth(1)?.parse::<u64>().ok()).next();
        entry.map_or(0, |entry| entry % (1 << 40))
    };
    (0..buckets).map(stored).collect()
}

/// Sends one message; nothing if it is to be sent again later.
fn try_one(sender: &mut Connection) -> Option<MsgId> {
    let name = sender.new_client_msg_id();
    let request = sender.send(Conversation::User(UserId(2)), name, b"at last").unwrap();
    match sender.answer(request, PATIENCE).unwrap() {
        Event::Sent { msg_id, .. } => Some(msg_id),
        Event::Refused { code: ErrorCode::RetryLater, .. } => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_node_that_cannot_number_is_not_ready_and_says_why_and_flushed_scripts_are_no_outage() {
    let (redis, database) = (Redis::start(), Database::create());
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = node(dir.path(), &redis, &database, 1);
    let to = Conversation::User(UserId(2));
    let mut client = gateway.client(1, 1, None);
    send(&mut client, to, "first");
    gateway.wait_until("it is ready", |gateway| gateway.admin_page("/readyz").starts_with("HTTP/1.1 200"));
    // It stands still, and takes connections all the same.
    redis.signal(Signal::SIGSTOP);
    let said = "Redis does not answer this node";
    gateway.wait_until("it says so", |gateway| gateway.admin_page("/readyz").contains(said));
    assert!(gateway.admin_page("/metrics").contains("ringway_ledger_stands_still 1"));
    redis.signal(Signal::SIGCONT);
    gateway.wait_until("it is ready again", |gateway| gateway.admin_page("/readyz").starts_with("HTTP/1.1 200"));
    redis.command(&["SCRIPT", "FLUSH"]).unwrap();
    send(&mut client, to, "second");
    let log = gateway.log();
    assert!(log.contains("Redis has forgotten its scripts"), "{log}");
}

#[test]
fn other_entries_under_the_numbers_that_a_node_has_read_are_not_followed() {
    let (redis, database) = (Redis::start(), Database::create());
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = node(dir.path(), &redis, &database, 1);
    let to = Conversation::User(UserId(2));
    let mut client = gateway.client(1, 1, None);
    let seqs = ["first", "second", "third"].map(|body| send(&mut client, to, body));
    // What a replica would have that lacked the third, and was then given another: of what the node has read the third
    // alone is compared, so those before it may be gone.
    let stream = redis.command(&["KEYS", "*:stream"]).unwrap();
    let stream = stream.lines().nth(2).unwrap().to_owned();
    let id = format!("1-{}", (1u64 << 40) + 3);
    assert!(redis.command(&["DEL", &stream]).unwrap().starts_with(":1"));
    assert!(redis.command(&["XADD", &stream, &id, "e", "another"]).unwrap().contains(&id));
    redis.command(&["CLIENT", "KILL", "TYPE", "normal"]).unwrap();
    gateway.wait_until("it has noticed", |gateway| gateway.log().contains("Redis has other entries under the numbers"));
    // What was acked is there, and numbers go on above it.
    let fourth = send(&mut client, to, "fourth");
    assert!(fourth > seqs[2]);
}

#[test]
fn other_entries_of_a_bucket_under_the_numbers_that_a_node_has_read_are_not_followed() {
    let (ledger, database) = (Split::start(3), Database::create());
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = node(dir.path(), &ledger, &database, 1);
    let to = Conversation::User(UserId(2));
    let mut client = gateway.client(1, 1, None);
    let seqs = ["first", "second", "third"].map(|body| send(&mut client, to, body));
    // A fail-over of one master: its bucket has another third, the order is what it was.
    let bucket = Home::of_sender(UserId(1)).bucket(3);
    let master = &ledger.masters()[ledger.cluster.master_of(bucket)];
    let streams = master.command(&["KEYS", &format!("{{ringway:{bucket}}}:*:stream")]).unwrap();
    let stream = streams.lines().nth(2).unwrap();
    let id = |entry: u64| format!("1-{}", (1u64 << 40) + entry);
    assert_eq!(master.command(&["XDEL", stream, &id(3)]).unwrap().trim(), ":1");
    master.command(&["XSETID", stream, &id(2)]).unwrap();
    master.command(&["XADD", stream, &id(3), "e", "another"]).unwrap();
    ledger.masters().iter().for_each(|master| drop(master.command(&["CLIENT", "KILL", "TYPE", "normal"]).unwrap()));
    gateway.wait_until("it has noticed", |gateway| gateway.log().contains("Redis has other entries under the numbers"));
    let fourth = send(&mut client, to, "fourth");
    assert!(fourth > seqs[2]);
}
