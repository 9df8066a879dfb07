//! A stop does not wait for what nobody will do.

use ringway_wire::ids::{Conversation, UserId};

use crate::cluster::{node, send, settings};
use crate::gateway::Gateway;
use crate::redis::Redis;
use crate::services::Database;

/// Longer than any test waits: a stop that takes its whole time is found.
const FOR_EVER: &str = "drain.timeout_s=3600";

/// Tells it to stop, and waits until it has.
fn stops(mut gateway: Gateway) {
    gateway.terminate();
    assert!(gateway.wait().success(), "{}", gateway.log());
    assert!(!gateway.log().contains("the store is behind"), "{}", gateway.log());
}

#[test]
fn a_gateway_whose_ledger_never_had_a_message_stops_at_once() {
    let dir = tempfile::tempdir().unwrap();
    stops(Gateway::start(dir.path(), &["--shards", "1", "--set", FOR_EVER]));
}

#[test]
fn a_node_whose_ledger_never_had_a_message_stops_at_once_and_so_does_one_that_others_have_written_for() {
    let (redis, database) = (Redis::start(), Database::create());
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let begin = |at: usize| {
        let settings = settings(&redis, &database, at as u16 + 1);
        let mut arguments = vec!["--shards", "1", "--set", FOR_EVER];
        settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
        Gateway::start(dirs[at].path(), &arguments)
    };
    let mut first = begin(0);
    first.wait_until("it is ready", |gateway| gateway.admin_page("/readyz").starts_with("HTTP/1.1 200"));
    stops(first);
    // Before it has heard anything of Redis.
    stops(begin(0));
    let other = node(dirs[1].path(), &redis, &database, 2);
    send(&mut other.returning_client(1, 1, None), Conversation::User(UserId(2)), "written by another");
    stops(begin(0));
    stops(other);
}
