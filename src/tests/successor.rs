//! What a process of a node had sent to Redis before it died may be executed much later, and is no harm to the next one.

use std::path::Path;

use nix::sys::signal::Signal;
use ringway_wire::ids::{Conversation, UserId};

use crate::cluster::{node, send};
use crate::gateway::{Gateway, signal};
use crate::redis::Redis;
use crate::scripts::{BASE, HEARTBEAT, ROOT, eval};
use crate::services::Database;

const TO: Conversation = Conversation::User(UserId(2));
/// How a node says that another process has its id.
const TAKEN: &str = "another gateway has this node's id";

/// What a bulk string says; nothing if there is none.
fn word(answer: &str) -> Option<String> {
    answer.lines().nth(1).map(str::to_owned)
}

/// Says what heartbeats of this process of node 7 say, whenever it is executed.
struct Former {
    token: String,
    session: String,
}

impl Former {
    /// Of the process that has the lease.
    fn of_holder(redis: &Redis) -> Former {
        let token = redis.command(&["HGET", &format!("{ROOT}node:7"), "token"]).unwrap();
        let session = redis.command(&["HGET", &format!("{ROOT}sessions"), "7:holds"]).unwrap();
        Former { token: word(&token).unwrap(), session: word(&session).unwrap_or_else(|| "1".to_owned()) }
    }

    fn beat(&self, redis: &Redis) {
        let base = BASE.to_string();
        let answer =
            eval(redis, HEARTBEAT, &["7", &self.token, "5000", &base, &base, "100", "1", "~", &self.session, "900"]);
        assert!(answer.starts_with('*'), "{answer}");
    }
}

/// For how long node 7's lease lasts, milliseconds; nothing: nobody has it.
fn lease_ms(redis: &Redis) -> Option<u64> {
    let answer = redis.command(&["PTTL", &format!("{ROOT}node:7")]).unwrap();
    answer.trim().trim_start_matches(':').parse().ok()
}

/// A process of node 7 that was well, and is killed.
fn killed(dir: &Path, redis: &Redis, database: &Database) -> Former {
    let first = node(dir, redis, database, 7);
    send(&mut first.client(1, 1, None), TO, "first");
    let former = Former::of_holder(redis);
    first.kill();
    former
}

fn is_well(gateway: &mut Gateway) {
    gateway.wait_until("it is ready", |gateway| gateway.admin_page("/readyz").starts_with("HTTP/1.1 200"));
    send(&mut gateway.returning_client(1, 1, None), TO, "all is well");
}

#[test]
fn a_heartbeat_of_a_dead_process_that_comes_late_does_not_take_the_id_of_the_next_one() {
    let (redis, database, dir) = (Redis::start(), Database::create(), tempfile::tempdir().unwrap());
    let former = killed(dir.path(), &redis, &database);
    let mut second = node(dir.path(), &redis, &database, 7);
    is_well(&mut second);
    let warned = second.log().matches(TAKEN).count();
    // It stands still until its lease has ended.
    signal(second.pid(), Signal::SIGSTOP).unwrap();
    second.wait_until("the lease has ended", |_| lease_ms(&redis).is_none());
    former.beat(&redis);
    signal(second.pid(), Signal::SIGCONT).unwrap();
    second.wait_until("it has a lease again", |_| lease_ms(&redis).is_some());
    is_well(&mut second);
    assert_eq!(second.log().matches(TAKEN).count(), warned, "{}", second.log());
}

#[test]
fn a_start_outlasts_the_lease_that_late_heartbeats_of_its_former_process_renew() {
    let (redis, database, dir) = (Redis::start(), Database::create(), tempfile::tempdir().unwrap());
    let former = killed(dir.path(), &redis, &database);
    former.beat(&redis);
    let mut second = node(dir.path(), &redis, &database, 7);
    second.wait_until("it waits for the lease", |second| second.log().contains("waiting for its lease to end"));
    // The former one's heartbeats come one by one, each when half of the lease is over.
    for _ in 0..3 {
        second.wait_until("half of the lease is over", |_| lease_ms(&redis).is_none_or(|left_ms| left_ms < 2_500));
        former.beat(&redis);
    }
    is_well(&mut second);
}
