//! How long Redis keeps names, made short: what is on its way for longer is still one message.

use std::path::Path;

use ringway_client::Event;
use ringway_wire::ids::{ClientMsgId, Conversation, MsgId, Seq, UserId};
use ringway_wire::schema::ErrorCode;

use crate::cluster::{WRITER, keep_stores_from_writing, rows_until, send, told, wait_for_rows};
use crate::connection::Connection;
use crate::gateway::{Gateway, PATIENCE};
use crate::proxy::Proxy;
use crate::redis::Redis;
use crate::services::Database;

const TO: Conversation = Conversation::User(UserId(2));

/// A node whose Redis, on this port, keeps names for so many seconds.
fn node(dir: &Path, redis_port: u16, database: &Database, id: u16, names_s: u64) -> Gateway {
    let settings = [
        format!("cluster.redis_url=redis://127.0.0.1:{redis_port}"),
        format!("store.url={}", database.url()),
        format!("cluster.node_id={id}"),
        format!("limits.names_s={names_s}"),
    ];
    let mut arguments = vec!["--shards", "1"];
    settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
    Gateway::start(dir, &arguments)
}

/// Sends under this name until it is taken; whether it was there before.
fn send_as(gateway: &mut Gateway, client: &mut Connection, name: ClientMsgId) -> (MsgId, bool) {
    let mut taken = None;
    gateway.wait_until("it is taken", |gateway| {
        let request = client.send(TO, name, b"on its way").unwrap();
        match client.answer(request, PATIENCE).unwrap() {
            Event::Sent { msg_id, repeat, .. } => taken = Some((msg_id, repeat)),
            Event::Refused { code: ErrorCode::RetryLater, .. } => {}
            other => panic!("{other:?}\n{}", gateway.log()),
        }
        taken.is_some()
    });
    taken.unwrap()
}

#[test]
fn what_was_on_its_way_for_longer_than_names_are_kept_and_was_sent_again_elsewhere_is_one_message() {
    let (redis, database) = (Redis::start(), Database::create());
    let way = Proxy::to(redis.port());
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut a = node(dirs[0].path(), way.port(), &database, 1, 15);
    let mut b = node(dirs[1].path(), redis.port(), &database, 2, 15);
    let (mut at_a, mut at_b) = (a.client(1, 1, None), b.client(1, 2, None));
    send(&mut at_a, TO, "before");
    send(&mut at_b, TO, "before too");
    way.cut();
    let name = at_a.new_client_msg_id();
    let request = at_a.send(TO, name, b"on its way").unwrap();
    let said = at_a.answer(request, PATIENCE).unwrap();
    assert!(matches!(said, Event::Refused { code: ErrorCode::RetryLater, .. }), "{said:?}");
    let (msg_id, repeat) = send_as(&mut b, &mut at_b, name);
    assert!(!repeat);
    wait_for_rows(&database, 6);
    b.wait_until("Redis has forgotten all names", |_| redis.command(&["KEYS", "*:c:*"]).unwrap().trim() == "*0");
    way.mend();
    a.wait_until("it is ready", |a| a.admin_page("/readyz").starts_with("HTTP/1.1 200"));
    assert_eq!(send_as(&mut a, &mut at_a, name), (msg_id, true));
    send(&mut at_b, TO, "the end");
    let inbox = told(&rows_until(&mut a.client(2, 1, Some(Seq(0))), "the end"));
    assert_eq!(inbox.len(), 4, "{inbox:?}\n{}", a.log());
    wait_for_rows(&database, 8);
    assert_eq!((database.count("messages"), database.count("names_taken")), (4, 0));
}

#[test]
fn a_node_with_another_life_of_names_is_refused_while_others_run_and_taken_when_all_have_been_stopped() {
    let (redis, database) = (Redis::start(), Database::create());
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let a = node(dirs[0].path(), redis.port(), &database, 1, 20);
    let mut one = a.client(1, 1, None);
    // Nothing of this is stored when it changes.
    keep_stores_from_writing(&redis, &[&a]);
    let before = send(&mut one, TO, "before");
    let mut b = node(dirs[1].path(), redis.port(), &database, 2, 900);
    b.wait_until("it says so meanwhile", |b| {
        let page = b.admin_page("/readyz");
        page.starts_with("HTTP/1.1 503") && page.contains("the other gateways have another limits.names_s")
    });
    assert!(!b.wait().success());
    assert!(b.log().contains("limits.names_s = 20, and this one has 900"), "{}", b.log());
    send(&mut one, TO, "still here");
    a.kill();
    redis.command(&["DEL", WRITER]).unwrap();

    let a = node(dirs[0].path(), redis.port(), &database, 1, 900);
    let mut one = a.returning_client(1, 1, None);
    assert!(send(&mut one, TO, "the end") > before + (1 << 20), "the ledger is made anew: {}", a.log());
    wait_for_rows(&database, 6);
    assert_eq!(database.count("messages"), 3);
}
