//! A user is followed: how somebody came and went, was refused and why, and could not keep up.

use std::net::TcpStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringway_client::Event;
use ringway_wire::ids::{DeviceId, UserId};
use serde_json::{Value, json};

use crate::access::{admin, end};
use crate::connection::Connection;
use crate::gateway::{Gateway, PATIENCE, SECRET, UNLIMITED, pause};
use crate::http::{Http, api};

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// What happened to a user, once as much of it is known as is asked for.
fn events(http: &mut Http, user: u64, is_all: impl Fn(&[(String, String)]) -> bool) -> Vec<Value> {
    let path = format!("/api/v1/users/{user}/events");
    for _ in 0..PATIENCE.as_millis() / 20 {
        let answer = http.get(&path).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        let events = answer.json["events"].as_array().unwrap().clone();
        if is_all(&told(&events)) {
            return events;
        }
        pause(Duration::from_millis(20));
    }
    panic!("{path} never says it: {:?}", http.get(&path).unwrap());
}

/// What, and why.
fn told(events: &[Value]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    events.iter().map(|event| (text(&event["event"]), text(&event["why"]))).collect()
}

fn all<'a>(expected: &'a [(&'a str, &'a str)]) -> impl Fn(&[(String, String)]) -> bool + 'a {
    move |told| {
        told.len() == expected.len()
            && told.iter().zip(expected).all(|((a, b), (c, d))| (a.as_str(), b.as_str()) == (*c, *d))
    }
}

#[test]
fn a_user_is_followed_from_connecting_to_the_end_of_the_session_and_after_what_was_refused() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "3"]);
    let mut http = api(dir.path());
    assert_eq!(http.get("/api/v1/users/42/events").unwrap().json["events"], json!([]));

    let began_ms = now_s() * 1_000;
    let mut client = gateway.client(42, 3, None);
    let found = events(&mut http, 42, all(&[("connected", ""), ("logged_in", "")]));
    let [_, login] = &found[..] else { panic!("{found:?}") };
    assert_eq!((&login["device"], &login["times"]), (&json!("3"), &json!(1)));
    assert!((began_ms..=(now_s() + 1) * 1_000).contains(&login["at_ms"].as_u64().unwrap()), "{login}");
    assert_eq!(login["connection"], json!(client.session().unwrap().session.to_string()));

    // Two refusals are one event.
    for _ in 0..2 {
        let name = client.new_client_msg_id();
        let request = client.send(ringway_wire::ids::Conversation::User(UserId(7)), name, b"").unwrap();
        assert!(matches!(client.answer(request, PATIENCE).unwrap(), Event::Refused { .. }));
    }
    let until_refused = [("connected", ""), ("logged_in", ""), ("refused", "BadRequest")];
    let found = events(&mut http, 42, all(&until_refused));
    assert_eq!(found[2]["times"], 2, "{found:?}");
    assert!(found[2]["first_ms"].as_u64().unwrap() <= found[2]["at_ms"].as_u64().unwrap());

    admin(dir.path(), &["kick", "42"]).unwrap();
    assert_eq!(end(&mut client), ringway_wire::schema::CloseReason::Kicked);
    admin(dir.path(), &["ban", "42"]).unwrap();
    let mut refused = Connection::connect(gateway.addr(), PATIENCE).unwrap();
    refused.ask_to_log_in(&crate::gateway::token(42, 3), DeviceId(3), None).unwrap();
    let expired = ringway::auth::mint_hs256(SECRET.as_bytes(), UserId(42), Some(DeviceId(9)), now_s() - 10);
    let mut late = Connection::connect(gateway.addr(), PATIENCE).unwrap();
    late.ask_to_log_in(&expired, DeviceId(9), None).unwrap();
    let found = events(&mut http, 42, |told| told.len() == 6);
    let said = told(&found);
    assert_eq!(said[3], ("closed".to_owned(), "Kicked".to_owned()));
    for why in ["Banned", "TokenExpired"] {
        assert!(said.contains(&("login_refused".to_owned(), why.to_owned())), "{said:?}");
    }
    // Nobody else is concerned, and whoever connects without a token is nobody.
    let _silent = TcpStream::connect(gateway.addr()).unwrap();
    assert_eq!(http.get("/api/v1/users/43/events").unwrap().json["events"], json!([]));

    let table = admin(dir.path(), &["events", "42"]).unwrap();
    assert!(table.starts_with("AGO") && table.contains("login_refused") && table.contains("Kicked"), "{table}");
    let json: Value = serde_json::from_str(&admin(dir.path(), &["events", "42", "--json"]).unwrap()).unwrap();
    assert_eq!(json["events"].as_array().unwrap().len(), 6);
}

#[test]
fn whoever_cannot_keep_up_and_is_caught_up_again_is_seen_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Gateway::command(dir.path(), &["--shards", "2"]);
    let gateway = Gateway::spawn(dir.path(), command.envs(UNLIMITED));
    let mut http = api(dir.path());
    let mut slow = gateway.client(8, 1, None);
    let text = "x".repeat(16_000);
    let posts: Vec<Value> = (0..200).map(|_| json!({"from": "7", "to": {"user": "8"}, "text": text})).collect();
    let mut sent = 0;
    let is_behind = |http: &mut Http| {
        told(http.get("/api/v1/users/8/events").unwrap().json["events"].as_array().unwrap())
            .contains(&("behind".to_owned(), String::new()))
    };
    while !is_behind(&mut http) {
        assert!(sent < 20_000, "it never falls behind");
        assert_eq!(http.send("POST", "/api/v1/messages", &json!(posts)).unwrap().status, 200);
        sent += 200;
    }
    for _ in 0..sent {
        assert!(matches!(slow.next(PATIENCE).unwrap(), Some(Event::Row(_))));
    }
    let found = events(&mut http, 8, |told| told.last().is_some_and(|(event, _)| event == "caught_up"));
    assert_eq!(told(&found).len(), 4, "{found:?}");
}
