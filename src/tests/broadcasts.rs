//! Broadcasts: each recipient has the message once, whatever comes between.

use std::time::Duration;

use ringway_wire::ids::ClientMsgId;
use serde_json::{Value, json};

use crate::gateway::{Gateway, PATIENCE, pause};
use crate::http::{Http, api};

fn begin(http: &mut Http, users: u64, rate_per_s: u32, name: &str) -> Value {
    let users: Vec<String> = (1..=users).map(|user| user.to_string()).collect();
    let new = json!({"from": "9999", "users": users, "text": "to all", "rate_per_s": rate_per_s, "broadcast": name});
    let begun = http.send("POST", "/api/v1/broadcasts", &new).unwrap();
    assert_eq!(begun.status, 202, "{begun:?}");
    begun.json
}

fn until(http: &mut Http, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..2 * PATIENCE.as_millis() / 20 {
        let answer = http.get(&format!("/api/v1/broadcasts/{name}")).unwrap();
        if answer.status == 200 && is_so(&answer.json) {
            return answer.json;
        }
        pause(Duration::from_millis(20));
    }
    panic!("it is never so: {:?}", http.get(&format!("/api/v1/broadcasts/{name}")).unwrap());
}

fn name() -> String {
    let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    format!("{:032x}", u128::from_be_bytes(ClientMsgId::from_parts(now_ms, 77).0))
}

fn rows(http: &mut Http, user: u64) -> usize {
    http.get(&format!("/api/v1/users/{user}/inbox")).unwrap().json["rows"].as_array().unwrap().len()
}

#[test]
fn every_recipient_of_a_broadcast_has_it_once_though_the_gateway_is_killed_in_the_middle() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &[]);
    let (mut http, name) = (api(dir.path()), name());
    let begun = begin(&mut http, 600, 200, &name);
    assert_eq!((&begun["state"], &begun["users"], &begun["failed"]), (&json!("running"), &json!(600), &json!(0)));
    until(&mut http, &name, |it| it["sent"].as_u64().unwrap() >= 100);
    gateway.kill();
    // As if what was said of the progress had never reached the disk.
    std::fs::remove_file(dir.path().join(format!("broadcasts/{name}.progress"))).unwrap();

    let gateway = Gateway::start(dir.path(), &[]);
    let mut http = api(dir.path());
    let there = until(&mut http, &name, |_| true);
    assert!(there["sent"].as_u64().unwrap() < 600, "the kill came too late: {there}");
    let done = until(&mut http, &name, |it| it["state"] == "done");
    assert_eq!((&done["sent"], &done["failed"]), (&json!(600), &json!(0)));
    for user in 1..=600 {
        assert_eq!(rows(&mut http, user), 1, "user {user}");
    }
    // The same again is the same broadcast, and it is known over a restart.
    assert_eq!(begin(&mut http, 600, 200, &name), done);
    gateway.kill();
    let _gateway = Gateway::start(dir.path(), &[]);
    let mut http = api(dir.path());
    assert_eq!(until(&mut http, &name, |_| true), done);
}

#[test]
fn a_broadcast_is_stopped_and_stays_so_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &[]);
    let (mut http, name) = (api(dir.path()), name());
    begin(&mut http, 1_000, 10, &name);
    until(&mut http, &name, |it| it["sent"].as_u64().unwrap() >= 2);
    let stopped = http.send_raw("DELETE", &format!("/api/v1/broadcasts/{name}"), "", b"").unwrap();
    assert_eq!((stopped.status, &stopped.json["state"]), (200, &json!("stopped")), "{stopped:?}");
    gateway.kill();
    let _gateway = Gateway::start(dir.path(), &[]);
    let mut http = api(dir.path());
    assert_eq!(until(&mut http, &name, |_| true), stopped.json);
    assert_eq!(rows(&mut http, 1_000), 0);
    // Another one goes on beside it.
    let other =
        begin(&mut http, 3, 1_000, "0190f5c2-7a3e-7c1d-8e2f-0123456789ab")["broadcast"].as_str().unwrap().to_owned();
    until(&mut http, &other, |it| it["state"] == "done");
    assert_eq!(until(&mut http, &name, |_| true), stopped.json);
}

#[test]
fn a_broadcast_that_makes_no_sense_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _gateway = Gateway::start(dir.path(), &[]);
    let mut http = api(dir.path());
    let good = json!({"from": "7", "users": ["8"], "text": "x"});
    for (field, value) in [
        ("users", json!([])),
        ("users", json!(vec!["8"; 100_001])),
        ("rate_per_s", json!(0)),
        ("rate_per_s", json!(10_001)),
        ("broadcast", json!("x")),
        ("broadcast", json!("fff0f5c2-7a3e-7c1d-8e2f-0123456789ab")),
        ("text", json!("")),
        ("to", json!("all")),
    ] {
        let mut wrong = good.clone();
        wrong[field] = value;
        let answer = http.send("POST", "/api/v1/broadcasts", &wrong).unwrap();
        assert_eq!((answer.status, answer.code()), (400, "BadRequest"), "{field}: {answer:?}");
    }
    for name in ["x", "0190f5c27a3e7c1d8e2f0123456789ab"] {
        let answer = http.get(&format!("/api/v1/broadcasts/{name}")).unwrap();
        assert_eq!((answer.status, answer.code()), (404, "UnknownBroadcast"), "{name}");
    }
}
