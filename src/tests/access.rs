//! Who may not log in: kicked, banned and revoked with `ringway admin`, on one gateway over a restart and on all nodes of a
//! cluster.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringway::auth::Minter;
use ringway_client::Event;
use ringway_wire::ids::{DeviceId, UserId};
use ringway_wire::schema::CloseReason;
use serde_json::json;

use crate::cluster::node;
use crate::connection::{Connection, ConnectionError};
use crate::gateway::{Gateway, PATIENCE, SECRET, pause, token};
use crate::http::api;
use crate::redis::Redis;
use crate::services::Database;

/// Runs the command on the gateway of this directory; what it prints.
pub(crate) fn admin(dir: &Path, words: &[&str]) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    let output = command.arg("admin").args(words).arg("--data-dir").arg(dir).output().unwrap();
    let said = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(said(output.stdout)) } else { Err(said(output.stderr)) }
}

/// Why the session was closed; it is not to come back by itself.
pub(crate) fn end(client: &mut Connection) -> CloseReason {
    loop {
        match client.next(PATIENCE).unwrap().expect("a last frame in time") {
            Event::Closing { reason, reconnect_after_ms, .. } => {
                assert_eq!(reconnect_after_ms, None, "not by itself");
                return reason;
            }
            Event::Row(_) | Event::GroupChanged { .. } => {}
            other => panic!("expected Closing, heard {other:?}"),
        }
    }
}

/// Why a login is refused; `None`: it is not.
fn refused(gateway: &Gateway, token: &str) -> Option<CloseReason> {
    let mut client = Connection::connect(gateway.addr(), PATIENCE).unwrap();
    match client.login(token, DeviceId(1), None, PATIENCE) {
        Ok(_) => None,
        Err(ConnectionError::Closing { reason, .. }) => Some(reason),
        Err(other) => panic!("{other:?}"),
    }
}

fn is_served(client: &mut Connection) {
    let request = client.ping().unwrap();
    assert!(matches!(client.answer(request, PATIENCE).unwrap(), Event::Pong { .. }));
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A token that says when it was issued.
fn issued(user: u64, at_s: u64) -> String {
    Minter::hs256(SECRET.as_bytes()).mint_issued(UserId(user), None, Some(at_s), now_s() + 3_600)
}

#[test]
fn who_is_kicked_banned_or_revoked_is_out_at_once_and_stays_out_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(dir.path(), &["--shards", "2"]);
    let mut beside = gateway.client(9, 1, None);
    let mut kicked = gateway.client(1, 1, None);
    admin(dir.path(), &["kick", "1"]).unwrap();
    assert_eq!(end(&mut kicked), CloseReason::Kicked);
    assert_eq!(refused(&gateway, &token(1, 1)), None);

    let mut devices = [gateway.client(2, 1, None), gateway.client(2, 2, None)];
    let mut revoked = gateway.client(3, 1, None);
    let said = admin(dir.path(), &["ban", "2"]).unwrap();
    assert_eq!(said, "user 2 is banned\n");
    for device in &mut devices {
        assert_eq!(end(device), CloseReason::Banned);
    }
    let from_s = now_s() + 100;
    admin(dir.path(), &["revoke", "3", "--before", &from_s.to_string()]).unwrap();
    assert_eq!(end(&mut revoked), CloseReason::TokenRevoked);
    is_served(&mut beside);

    for start in 0..2 {
        assert_eq!(refused(&gateway, &token(2, 1)), Some(CloseReason::Banned), "start {start}");
        assert_eq!(refused(&gateway, &token(3, 1)), Some(CloseReason::TokenRevoked), "one that does not say when");
        assert_eq!(refused(&gateway, &issued(3, from_s - 1)), Some(CloseReason::TokenRevoked));
        assert_eq!(refused(&gateway, &issued(3, from_s)), None, "a newer one");
        assert_eq!(refused(&gateway, &token(9, 1)), None);
        if start == 0 {
            gateway.kill();
            assert!(admin(dir.path(), &["list"]).unwrap_err().contains("does it run"));
            gateway = Gateway::start(dir.path(), &["--shards", "1"]);
        }
    }
    let listed = admin(dir.path(), &["list"]).unwrap();
    assert_eq!(
        listed,
        format!("user 2 is banned\nuser 3 may log in, with tokens issued at {from_s} (Unix seconds) or later\n")
    );
    admin(dir.path(), &["unban", "2"]).unwrap();
    // It is on its way to the user's shard, which may see the login first.
    gateway.wait_until("who was banned may come in", |gateway| refused(gateway, &token(2, 1)).is_none());
    gateway.terminate();
    assert!(gateway.wait().success());
    assert!(!dir.path().join("admin.sock").exists());
}

#[test]
fn a_revoked_token_is_out_at_once_on_every_node_and_stays_out_while_the_users_other_tokens_count() {
    let (redis, database) = (Redis::start(), Database::create());
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let a = node(dirs[0].path(), &redis, &database, 1);
    let b = node(dirs[1].path(), &redis, &database, 2);
    let until_s = now_s() + 3_600;
    let named = |jti: &str| Minter::hs256(SECRET.as_bytes()).mint_named(UserId(5), jti, until_s);
    let log_in = |gateway: &Gateway, jti: &str, device| {
        let mut client = Connection::connect(gateway.addr(), PATIENCE).unwrap();
        client.login(&named(jti), DeviceId(device), None, PATIENCE).unwrap();
        client
    };
    let (mut stolen_a, mut stolen_b) = (log_in(&a, "stolen", 1), log_in(&b, "stolen", 2));
    let (mut leaked_b, mut good_b) = (log_in(&b, "leaked, with spaces", 3), log_in(&b, "good", 4));
    let said = admin(dirs[0].path(), &["revoke", "5", "--jti", "stolen", "--until", &until_s.to_string()]).unwrap();
    assert!(
        said.starts_with("user 5: token ") && said.ends_with(&format!(" until {until_s} (Unix seconds)\n")),
        "{said}"
    );
    assert_eq!((end(&mut stolen_a), end(&mut stolen_b)), (CloseReason::TokenRevoked, CloseReason::TokenRevoked));
    // The API says the same.
    let call = json!({"jti": "leaked, with spaces", "expires_at_s": until_s});
    let answer = api(dirs[0].path()).send("POST", "/api/v1/users/5/revocations", &call).unwrap();
    assert_eq!((answer.status, answer.json), (200, json!({"user": "5", "revoked": true})));
    assert_eq!(end(&mut leaked_b), CloseReason::TokenRevoked);
    is_served(&mut good_b);
    assert_eq!(admin(dirs[0].path(), &["list"]).unwrap().lines().count(), 2);
    let past = admin(dirs[0].path(), &["revoke", "5", "--jti", "old", "--until", "1000"]).unwrap_err();
    assert!(past.contains("has expired"), "{past}");

    // The second node has it on its own disk.
    a.kill();
    b.kill();
    let b = node(dirs[1].path(), &redis, &database, 2);
    assert_eq!(refused(&b, &named("stolen")), Some(CloseReason::TokenRevoked));
    assert_eq!(refused(&b, &named("leaked, with spaces")), Some(CloseReason::TokenRevoked));
    assert_eq!(refused(&b, &named("good")), None);
}

#[test]
fn a_ban_holds_on_every_node_at_once_and_on_one_that_starts_later() {
    let (redis, database) = (Redis::start(), Database::create());
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let a = node(dirs[0].path(), &redis, &database, 1);
    let b = node(dirs[1].path(), &redis, &database, 2);
    let mut there = b.client(5, 1, None);
    let mut kicked = b.client(6, 1, None);
    admin(dirs[0].path(), &["ban", "5"]).unwrap();
    assert_eq!(end(&mut there), CloseReason::Banned);
    admin(dirs[0].path(), &["kick", "6"]).unwrap();
    assert_eq!(end(&mut kicked), CloseReason::Kicked);
    assert_eq!(refused(&b, &token(5, 1)), Some(CloseReason::Banned));
    assert_eq!(refused(&b, &token(6, 1)), None);

    // A third one knows nothing; it is told when it comes.
    let c = node(dirs[2].path(), &redis, &database, 3);
    wait_until("the third node knows it", || refused(&c, &token(5, 1)) == Some(CloseReason::Banned));
    // What the first one's operator has stated is on the other nodes' disks too.
    a.kill();
    b.kill();
    let b = node(dirs[1].path(), &redis, &database, 2);
    assert_eq!(refused(&b, &token(5, 1)), Some(CloseReason::Banned));
    admin(dirs[2].path(), &["unban", "5"]).unwrap();
    wait_until("the second node knows it", || refused(&b, &token(5, 1)).is_none());
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..PATIENCE.as_millis() / 50 {
        if done() {
            return;
        }
        pause(Duration::from_millis(50));
    }
    panic!("waited in vain until {what}");
}
