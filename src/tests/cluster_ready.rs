//! What ails a node of a cluster is in `/readyz` and in the metrics as long as it lasts, by its own name, and no longer.

use std::path::Path;

use nix::sys::signal::Signal;
use ringway::clock::Clock;
use ringway::limits::{LEASE_MS, REDIS_SETTLES_MS};
use ringway_client::Event;
use ringway_wire::ids::{ClientMsgId, Conversation, UserId};
use ringway_wire::schema::ErrorCode;

use crate::cluster::{node, send};
use crate::connection::{Connection, ConnectionError};
use crate::gateway::{Gateway, PATIENCE};
use crate::outage::{metric, send_some};
use crate::proxy::Proxy;
use crate::redis::{Ledger, Redis, Split};
use crate::services::Database;

const TO: Conversation = Conversation::User(UserId(2));

/// The node is not ready, says why, and its metric says so too.
fn says(gateway: &mut Gateway, why: &str) {
    gateway.wait_until(&format!("it says: {why}"), |gateway| {
        let page = gateway.admin_page("/readyz");
        page.starts_with("HTTP/1.1 503")
            && page.contains(why)
            && metric(gateway, "ringway_ledger_stands_still") == Some(1)
    });
}

/// It takes messages again, and says so.
fn is_well(gateway: &mut Gateway, client: &mut Connection) {
    gateway.wait_until("it is ready", |gateway| {
        gateway.admin_page("/readyz").starts_with("HTTP/1.1 200")
            && metric(gateway, "ringway_ledger_stands_still") == Some(0)
    });
    send(client, TO, "all is well");
}

/// What a message is answered with.
fn answer(client: &mut Connection, name: ClientMsgId) -> Event {
    let request = client.send(TO, name, b"in trouble").unwrap();
    client.answer(request, PATIENCE).unwrap()
}

/// So many lines of the log say this.
fn lines(gateway: &Gateway, words: &str) -> usize {
    gateway.log().lines().filter(|line| line.contains(words)).count()
}

struct Bed {
    redis: Redis,
    gateway: Gateway,
    client: Connection,
    _database: Database,
    _dir: tempfile::TempDir,
}

/// A node that is well.
fn bed() -> Bed {
    let (redis, database) = (Redis::start(), Database::create());
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = node(dir.path(), &redis, &database, 1);
    let mut client = gateway.client(1, 1, None);
    is_well(&mut gateway, &mut client);
    Bed { redis, gateway, client, _database: database, _dir: dir }
}

#[test]
fn a_redis_that_is_stopped_is_said_in_readyz_and_once_in_the_log() {
    let Bed { mut redis, mut gateway, mut client, _database, _dir } = bed();
    redis.kill();
    says(&mut gateway, "Redis does not answer this node");
    let name = client.new_client_msg_id();
    assert!(matches!(answer(&mut client, name), Event::Refused { code: ErrorCode::RetryLater, .. }));
    let clock = Clock::start();
    redis.start_again();
    is_well(&mut gateway, &mut client);
    let waited_ms = clock.now().mono_ms;
    assert!(waited_ms >= REDIS_SETTLES_MS, "others may have read more than it has, and say so: {waited_ms} ms");
    assert_eq!(lines(&gateway, "Redis is away"), 1, "{}", gateway.log());
}

#[test]
fn a_redis_behind_a_cut_network_is_said_in_readyz() {
    let (redis, database) = (Redis::start(), Database::create());
    let way = Proxy::to(redis.port());
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = through(&way, dir.path(), &database);
    let mut client = gateway.client(1, 1, None);
    is_well(&mut gateway, &mut client);
    way.cut();
    says(&mut gateway, "Redis does not answer this node");
    way.mend();
    is_well(&mut gateway, &mut client);
}

fn through(way: &Proxy, dir: &Path, database: &Database) -> Gateway {
    let url = format!("cluster.redis_url=redis://127.0.0.1:{}", way.port());
    let store = format!("store.url={}", database.url());
    Gateway::start(dir, &["--shards", "1", "--set", &url, "--set", &store, "--set", "cluster.node_id=1"])
}

#[test]
fn one_of_several_masters_that_is_stopped_is_said_in_readyz_whatever_bucket_it_has() {
    let (mut ledger, database) = (Split::start(3), Database::create());
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = node(dir.path(), &ledger, &database, 1);
    let mut client = gateway.client(1, 1, None);
    is_well(&mut gateway, &mut client);
    for bucket in 0..3 {
        let master = ledger.cluster.master_of(bucket);
        ledger.masters_mut()[master].kill();
        says(&mut gateway, "Redis does not answer this node");
        let name = client.new_client_msg_id();
        assert!(matches!(answer(&mut client, name), Event::Refused { code: ErrorCode::RetryLater, .. }));
        ledger.masters_mut()[master].start_again();
        is_well(&mut gateway, &mut client);
    }
}

#[test]
fn what_was_on_its_way_to_a_redis_that_stands_still_is_answered_meanwhile_and_is_one_message() {
    let Bed { redis, mut gateway, mut client, _database, _dir } = bed();
    redis.signal(Signal::SIGSTOP);
    let names: Vec<ClientMsgId> = (0..50).map(|_| client.new_client_msg_id()).collect();
    let requests: Vec<_> = names.iter().map(|name| client.send(TO, *name, b"in trouble").unwrap()).collect();
    for request in requests {
        let said = client.answer(request, PATIENCE).unwrap();
        assert!(matches!(said, Event::Refused { code: ErrorCode::RetryLater, .. }), "{said:?}");
    }
    says(&mut gateway, "Redis does not answer this node");
    redis.signal(Signal::SIGCONT);
    is_well(&mut gateway, &mut client);
    // The same again is the same message, and none of them is lost or doubled.
    let mut seqs = Vec::new();
    for name in names {
        gateway.wait_until("it is taken", |_| match answer(&mut client, name) {
            Event::Sent { seq, .. } => {
                seqs.push(seq.0);
                true
            }
            Event::Refused { code: ErrorCode::RetryLater, .. } => false,
            other => panic!("{other:?}"),
        });
    }
    let newest = send(&mut client, TO, "the end");
    seqs.sort_unstable();
    seqs.dedup();
    assert_eq!(seqs.len(), 50, "each has a row of its own");
    assert_eq!(newest, 50 + 3, "and nobody has another: {seqs:?}");
}

#[test]
fn a_group_that_was_on_its_way_to_a_redis_that_stands_still_is_answered_meanwhile_and_is_one_group() {
    let Bed { redis, mut gateway, mut client, _database, _dir } = bed();
    let members = [UserId(2), UserId(3)];
    redis.signal(Signal::SIGSTOP);
    let create = |client: &mut Connection| match client.group_create(&members, PATIENCE) {
        Ok((group, _)) => Some(group),
        Err(ConnectionError::Refused { code: ErrorCode::RetryLater, retry_after_ms, .. }) => {
            assert!(retry_after_ms > 0);
            None
        }
        Err(other) => panic!("{other}"),
    };
    assert_eq!(create(&mut client), None);
    says(&mut gateway, "Redis does not answer this node");
    assert_eq!(create(&mut client), None);
    redis.signal(Signal::SIGCONT);
    is_well(&mut gateway, &mut client);
    let mut made = None;
    gateway.wait_until("it is made", |_| {
        made = create(&mut client);
        made.is_some()
    });
    assert_eq!(client.group_list(PATIENCE).unwrap(), [made.unwrap()]);
}

#[test]
fn a_redis_that_takes_no_writes_is_said_in_readyz_by_that_name() {
    let Bed { redis, mut gateway, mut client, _database, _dir } = bed();
    // What a fail-over makes of the one that was the primary.
    assert!(redis.command(&["REPLICAOF", "127.0.0.1", "1"]).unwrap().starts_with("+OK"));
    says(&mut gateway, "Redis takes no writes");
    let name = client.new_client_msg_id();
    assert!(matches!(answer(&mut client, name), Event::Refused { code: ErrorCode::RetryLater, .. }));
    assert!(redis.command(&["REPLICAOF", "NO", "ONE"]).unwrap().starts_with("+OK"));
    is_well(&mut gateway, &mut client);
}

#[test]
fn a_redis_without_memory_is_said_in_readyz_and_to_senders() {
    let Bed { redis, mut gateway, mut client, _database, _dir } = bed();
    assert!(redis.command(&["CONFIG", "SET", "maxmemory", "1"]).unwrap().starts_with("+OK"));
    gateway.wait_until("senders are told", |_| {
        let name = client.new_client_msg_id();
        match answer(&mut client, name) {
            Event::Refused { code: ErrorCode::StorageFull, retry_after_ms, .. } => retry_after_ms > 0,
            other => panic!("expected STORAGE_FULL, heard {other:?}"),
        }
    });
    says(&mut gateway, "Redis has no memory left");
    assert!(redis.command(&["CONFIG", "SET", "maxmemory", "0"]).unwrap().starts_with("+OK"));
    is_well(&mut gateway, &mut client);
}

/// A node whose way to its database can be cut, and its sender.
struct Far {
    redis: Redis,
    database: Database,
    way: Proxy,
    url: String,
    gateway: Gateway,
    client: Connection,
    _dir: tempfile::TempDir,
}

fn far() -> Far {
    let (redis, database) = (Redis::start(), Database::create());
    let (way, url) = Proxy::to_url(&database.url());
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = far_node(dir.path(), &redis, &url, 1);
    let mut client = gateway.client(1, 1, None);
    is_well(&mut gateway, &mut client);
    Far { redis, database, way, url, gateway, client, _dir: dir }
}

fn far_node(dir: &Path, redis: &Redis, url: &str, id: u16) -> Gateway {
    let own = [format!("store.url={url}"), format!("cluster.node_id={id}")];
    let settings = [&redis.settings()[..], &own].concat();
    let mut arguments = vec!["--shards", "1"];
    settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
    Gateway::start(dir, &arguments)
}

#[test]
fn a_redis_that_is_full_of_what_the_database_has_not_goes_on_by_itself_when_that_has_it() {
    let Far { redis, database, way, mut gateway, mut client, _dir, .. } = far();
    let info = redis.command(&["INFO", "memory"]).unwrap();
    let used: u64 = info.lines().find_map(|line| line.strip_prefix("used_memory:")?.parse().ok()).unwrap();
    let limit = (used + (8 << 20)).to_string();
    assert!(redis.command(&["CONFIG", "SET", "maxmemory", &limit]).unwrap().starts_with("+OK"));
    way.cut();
    let body = vec![b'x'; 10_000];
    let mut acked = 1;
    loop {
        let (taken, full) = send_some(&mut client, 20, &body);
        acked += taken.len() as u64;
        if full > 0 {
            break;
        }
        assert!(acked < 5_000, "it is never full");
    }
    says(&mut gateway, "Redis has no memory left");
    way.mend();
    // Nobody changes anything of Redis.
    gateway.wait_until("messages are taken again", |_| {
        let (taken, _) = send_some(&mut client, 1, &body);
        acked += taken.len() as u64;
        !taken.is_empty()
    });
    is_well(&mut gateway, &mut client);
    gateway.wait_until("all that was acked is stored", |_| database.count("messages") == acked + 1);
}

#[test]
fn a_ledger_that_is_made_anew_is_said_in_readyz_as_long_as_it_takes() {
    let Far { redis, database, way, mut gateway, mut client, _dir, .. } = far();
    let before = send(&mut client, TO, "before");
    // It is made of what the database has, and that does not answer.
    way.cut();
    redis.flush();
    says(&mut gateway, "the cluster's ledger is being made anew");
    let name = client.new_client_msg_id();
    assert!(matches!(answer(&mut client, name), Event::Refused { code: ErrorCode::RetryLater, .. }));
    way.mend();
    is_well(&mut gateway, &mut client);
    assert!(send(&mut client, TO, "after") > before);
    gateway.wait_until("all of it is stored", |_| database.count("messages") == 4);
}

#[test]
fn a_node_that_waits_for_another_to_make_the_ledger_anew_does_not_say_that_redis_is_away() {
    let Far { redis, database: _database, way, url, mut gateway, mut client, _dir } = far();
    let dir = tempfile::tempdir().unwrap();
    let mut second = far_node(dir.path(), &redis, &url, 2);
    let mut other = second.client(2, 1, None);
    is_well(&mut second, &mut other);
    // The database answers neither of them. One has the lock, and the sessions of the other are ended meanwhile.
    way.cut();
    redis.flush();
    says(&mut gateway, "the cluster's ledger is being made anew");
    says(&mut second, "the cluster's ledger is being made anew");
    let clock = Clock::start();
    while clock.now().mono_ms < 6_000 {
        for gateway in [&gateway, &second] {
            let page = gateway.admin_page("/readyz");
            assert!(page.contains("the cluster's ledger is being made anew"), "{page}");
        }
    }
    way.mend();
    is_well(&mut gateway, &mut client);
    is_well(&mut second, &mut other);
}

#[test]
fn a_node_that_is_started_without_redis_says_so_and_is_ready_when_it_is_there() {
    let (mut redis, database) = (Redis::start(), Database::create());
    redis.kill();
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = node(dir.path(), &redis, &database, 1);
    says(&mut gateway, "Redis does not answer this node");
    redis.start_again();
    let mut client = gateway.returning_client(1, 1, None);
    is_well(&mut gateway, &mut client);
}

#[test]
fn a_node_that_waits_for_its_id_says_that_another_has_it() {
    let (redis, database) = (Redis::start(), Database::create());
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let first = node(dirs[0].path(), &redis, &database, 7);
    let mut client = first.client(1, 1, None);
    send(&mut client, TO, "first");
    let clock = Clock::start();
    let mut second = node(dirs[1].path(), &redis, &database, 7);
    says(&mut second, "another gateway has this node's id");
    assert!(!second.wait().success(), "it ends when no lease of a former process can be in its way");
    let waited_ms = clock.now().mono_ms;
    assert!(waited_ms >= LEASE_MS + 2_000, "a lease of a former process is waited for: {waited_ms} ms");
    send(&mut client, TO, "still here");
}
