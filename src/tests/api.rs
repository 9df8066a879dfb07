//! The HTTP API, as a backend calls it.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use ringway_client::Event;
use ringway_wire::ids::{ClientMsgId, Conversation, UserId};
use serde_json::{Value, json};

use crate::cluster::node;
use crate::connection::Connection;
use crate::gateway::{Gateway, PATIENCE, address, pause};
use crate::http::{Answer, Http, api, created};
use crate::redis::Redis;
use crate::services::Database;

const KEY: &str = "a-key-of-a-backend-of-32-or-more-characters";
const READER: &str = "another-key-which-may-only-read-what-is-there";

fn name_of(number: u128) -> String {
    let hex = format!("{:032x}", u128::from_be_bytes(ClientMsgId::from_parts(now_ms(), number).0));
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64
}

fn row(client: &mut Connection) -> (u64, u64, String) {
    loop {
        match client.next(PATIENCE).unwrap().expect("a row in time") {
            Event::Row(row) => return (row.seq.0, row.msg_id.0, String::from_utf8(row.body).unwrap()),
            Event::GroupChanged { .. } => {}
            other => panic!("expected a row, but {other:?} came"),
        }
    }
}

fn inbox(http: &mut Http, user: u64) -> Vec<Value> {
    let mut rows = Vec::new();
    let mut after = "0".to_owned();
    loop {
        let page = http.get(&format!("/api/v1/users/{user}/inbox?after={after}")).unwrap();
        assert_eq!(page.status, 200, "{page:?}");
        rows.extend(page.json["rows"].as_array().unwrap().iter().cloned());
        match page.json["next_after"].as_str() {
            Some(next) => after = next.to_owned(),
            None => return rows,
        }
    }
}

#[test]
fn a_message_that_is_posted_reaches_whoever_is_online_and_is_the_same_message_when_it_is_posted_again() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &[]);
    let mut http = api(dir.path());
    let mut receiver = gateway.client(8, 1, None);
    let mut sender = gateway.client(7, 1, None);
    let post = json!({"from": "7", "to": {"user": "8"}, "text": "your order has shipped", "client_msg_id": name_of(1)});

    let sent = http.send("POST", "/api/v1/messages", &post).unwrap();
    assert_eq!((sent.status, &sent.json["repeat"]), (200, &json!(false)), "{sent:?}");
    let msg_id: u64 = sent.json["msg_id"].as_str().unwrap().parse().unwrap();
    assert_eq!(row(&mut receiver), (1, msg_id, "your order has shipped".to_owned()));
    // Nobody was logged in for it, and the sender's own device has it as a row.
    assert_eq!(row(&mut sender), (1, msg_id, "your order has shipped".to_owned()));

    let again = http.send("POST", "/api/v1/messages", &post).unwrap();
    assert_eq!((again.status, &again.json["repeat"], &again.json["msg_id"]), (200, &json!(true), &sent.json["msg_id"]));
    let mut other = post.clone();
    other["text"] = json!("another body");
    let reused = http.send("POST", "/api/v1/messages", &other).unwrap();
    assert_eq!((reused.status, reused.code()), (409, "ClientMsgIdReused"));

    let rows = inbox(&mut http, 8);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["text"], "your order has shipped");
    assert_eq!(rows[0]["from"], "7");
    assert_eq!(rows[0]["to"], json!({"user": "8"}));
}

#[test]
fn a_thousand_messages_of_one_call_keep_their_order_and_each_has_its_own_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let _gateway = Gateway::start(dir.path(), &[]);
    let mut http = api(dir.path());
    let group = created(&mut http, "7", json!(["8", "9"]));
    let posts: Vec<Value> = (0..1_000)
        .map(|number| match number % 100 {
            50 => json!({"from": "7", "to": {"user": "8"}, "text": ""}),
            51 => json!({"from": "10", "to": {"group": group}, "text": "of no member"}),
            52 => json!({"from": "7", "to": {"group": "12345"}, "text": "to no group"}),
            _ => json!({"from": "7", "to": {"group": group}, "text": number.to_string()}),
        })
        .collect();
    let answer = http.send("POST", "/api/v1/messages", &Value::Array(posts)).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let outcomes = answer.json.as_array().unwrap();
    assert_eq!(outcomes.len(), 1_000);
    for (number, outcome) in outcomes.iter().enumerate() {
        match number % 100 {
            50 => assert_eq!(outcome["code"], "BadRequest"),
            51 => assert_eq!(outcome["code"], "NotAMember"),
            52 => assert_eq!(outcome["code"], "UnknownGroup"),
            _ => assert!(outcome["msg_id"].is_string(), "{number}: {outcome}"),
        }
    }
    let texts: Vec<u64> =
        inbox(&mut http, 9).iter().map(|row| row["text"].as_str().unwrap().parse().unwrap()).collect();
    let expected: Vec<u64> = (0..1_000).filter(|number| !(50..53).contains(&(number % 100))).collect();
    assert_eq!(texts, expected);
}

#[test]
fn groups_are_made_read_and_changed_in_their_owners_name() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &[]);
    let mut http = api(dir.path());
    let mut member = gateway.client(8, 1, None);
    let group = created(&mut http, "7", json!(["9", "8"]));
    match member.next(PATIENCE).unwrap() {
        Some(Event::GroupChanged { owner, .. }) => assert_eq!(owner, UserId(7)),
        other => panic!("a member is told, but {other:?} came"),
    }
    let path = format!("/api/v1/groups/{group}");
    let read = http.get(&path).unwrap();
    assert_eq!(read.json, json!({"group": group, "version": 1, "owner": "7", "members": ["7", "8", "9"]}));

    let members = format!("{path}/members");
    let added = http.send("POST", &members, &json!({"members": ["10", "9"]})).unwrap();
    assert_eq!((added.status, &added.json["version"]), (200, &json!(2)), "{added:?}");
    // The owner among them goes last, and the group has another one.
    let removed = http.send("DELETE", &members, &json!({"members": ["7", "9", "77"]})).unwrap();
    assert_eq!(removed.status, 200, "{removed:?}");
    let read = http.get(&path).unwrap();
    assert_eq!((&read.json["owner"], &read.json["members"]), (&json!("8"), &json!(["8", "10"])));

    let of_member = http.get("/api/v1/users/10/groups").unwrap();
    let expected = json!([{"group": group, "version": read.json["version"], "role": "member", "members_count": 2}]);
    assert_eq!(of_member.json["groups"], expected);
    // The last ones: then there is no such group.
    let removed = http.send("DELETE", &members, &json!({"members": ["8", "10"]})).unwrap();
    assert_eq!(removed.status, 200, "{removed:?}");
    assert_eq!((http.get(&path).unwrap().status, http.get(&path).unwrap().code()), (404, "UnknownGroup"));
    assert_eq!(http.send("POST", &members, &json!({"members": ["8"]})).unwrap().code(), "UnknownGroup");
}

#[test]
fn who_is_online_is_told_of_users_of_all_shards_in_one_call() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "2"]);
    let clients: Vec<Connection> = (1..=20).map(|user| gateway.client(user, 1, None)).collect();
    let mut http = api(dir.path());
    let users: Vec<String> = (1..=1_000).map(|user: u64| user.to_string()).collect();
    let answer = http.send("POST", "/api/v1/presence", &json!({"users": users})).unwrap();
    assert_eq!(answer.json["online"], json!((1..=20).map(|user: u64| user.to_string()).collect::<Vec<_>>()));
    drop(clients);
}

#[test]
fn in_a_cluster_any_node_takes_calls_for_the_users_of_all() {
    let (redis, database) = (Redis::start(), Database::create());
    let [dir_a, dir_b] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let _a = node(dir_a.path(), &redis, &database, 1);
    let b = node(dir_b.path(), &redis, &database, 2);
    let mut http = api(dir_a.path());
    let mut receiver = b.client(8, 1, None);
    let post = json!({"from": "7", "to": {"user": "8"}, "text": "over there", "client_msg_id": name_of(2)});
    let mut call = |method: &str, path: &str, body: &Value| {
        // A node that has just started may not have its session with Redis yet.
        for _ in 0..PATIENCE.as_millis() / 50 {
            let answer = http.send(method, path, body).unwrap();
            if answer.status != 503 {
                return answer;
            }
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
            pause(Duration::from_millis(50));
        }
        panic!("{path} is never answered");
    };
    let sent = call("POST", "/api/v1/messages", &post);
    assert_eq!((sent.status, &sent.json["repeat"]), (200, &json!(false)), "{sent:?}");
    assert_eq!(row(&mut receiver).2, "over there");
    let again = call("POST", "/api/v1/messages", &post);
    assert_eq!((&again.json["repeat"], &again.json["msg_id"]), (&json!(true), &sent.json["msg_id"]));

    let made = call("POST", "/api/v1/groups", &json!({"owner": "7", "members": ["8"]}));
    assert_eq!(made.status, 201, "{made:?}");
    let group = made.json["group"].as_str().unwrap();
    let members = format!("/api/v1/groups/{group}/members");
    assert_eq!(call("POST", &members, &json!({"members": ["9"]})).status, 200);
    let read = call("GET", &format!("/api/v1/groups/{group}"), &Value::Null);
    assert_eq!(read.json["members"], json!(["7", "8", "9"]));
    // Nodes tell each other who is there a little later.
    let is_told = (0..PATIENCE.as_millis() / 50).any(|_| {
        let online = call("POST", "/api/v1/presence", &json!({"users": ["7", "8"]}));
        let is_there = online.json["online"] == json!(["8"]);
        pause(Duration::from_millis(if is_there { 0 } else { 50 }));
        is_there
    });
    assert!(is_told, "the other node's user is online");
}

#[test]
fn a_key_is_asked_for_where_there_are_keys_and_allows_what_its_scopes_say() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    std::fs::write(&keys, format!("# who may call\nshop send,groups {}\ndesk read {}\n", KEY, READER)).unwrap();
    let arguments = ["--set", &format!("api.keys_file={}", keys.display())];
    let refused = Gateway::command(dir.path(), &arguments).status().unwrap();
    assert_eq!(refused.code(), Some(1), "a file that everybody may read is refused");
    std::fs::set_permissions(&keys, PermissionsExt::from_mode(0o600)).unwrap();
    let _gateway = Gateway::start(dir.path(), &arguments);
    let admin = address(dir.path(), "admin").unwrap();
    let post = json!({"from": "7", "to": {"user": "8"}, "text": "hello"});
    let call = |key: Option<&str>| Http::connect(admin, key).unwrap().send("POST", "/api/v1/messages", &post).unwrap();

    let problem = |answer: &Answer, status: u16, code: &str| {
        assert_eq!((answer.status, answer.code()), (status, code), "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.json["status"], json!(status));
    };
    problem(&call(None), 401, "Unauthorized");
    assert_eq!(call(None).header("www-authenticate"), Some("Bearer"));
    problem(&call(Some("a key that nobody has, of 32 characters")), 401, "Unauthorized");
    problem(&call(Some(READER)), 403, "Forbidden");
    assert_eq!(call(Some(KEY)).status, 200);
    let mut reader = Http::connect(admin, Some(READER)).unwrap();
    assert_eq!(inbox(&mut reader, 8).len(), 1);
}

#[test]
fn without_keys_a_page_in_a_browser_may_not_call() {
    let dir = tempfile::tempdir().unwrap();
    let _gateway = Gateway::start(dir.path(), &[]);
    let post = json!({"from": "7", "to": {"user": "8"}, "text": "hello"}).to_string();
    let origin = "Content-Type: application/json\r\nOrigin: http://example.com\r\n";
    let answer = api(dir.path()).send_raw("POST", "/api/v1/messages", origin, post.as_bytes()).unwrap();
    assert_eq!((answer.status, answer.code()), (403, "Forbidden"));
    // What a page may send without asking first is no JSON.
    let plain = "Content-Type: text/plain\r\n";
    let answer = api(dir.path()).send_raw("POST", "/api/v1/messages", plain, post.as_bytes()).unwrap();
    assert_eq!((answer.status, answer.code()), (415, "UnsupportedMediaType"));
}

#[test]
fn what_makes_no_sense_is_its_own_problem_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let _gateway = Gateway::start(dir.path(), &[]);
    let mut http = api(dir.path());
    let mut deep = String::new();
    (0..100_000).for_each(|_| deep.push('['));
    let long = "x".repeat(16 * 1024 + 1);
    for (body, status, code) in [
        ("", 400, "BadRequest"),
        ("{", 400, "BadRequest"),
        (&deep, 400, "BadRequest"),
        ("7", 400, "BadRequest"),
        ("[]", 400, "BadRequest"),
        ("{}", 400, "BadRequest"),
        (r#"{"from": 7, "to": {"user": "8"}, "text": "x"}"#, 400, "BadRequest"),
        (r#"{"from": "-7", "to": {"user": "8"}, "text": "x"}"#, 400, "BadRequest"),
        (r#"{"from": "07", "to": {"user": "8"}, "text": "x"}"#, 400, "BadRequest"),
        (r#"{"from": "18446744073709551616", "to": {"user": "8"}, "text": "x"}"#, 400, "BadRequest"),
        (r#"{"from": "7", "to": {"user": "8", "group": "9"}, "text": "x"}"#, 400, "BadRequest"),
        (r#"{"from": "7", "to": {"user": "8"}}"#, 400, "BadRequest"),
        (r#"{"from": "7", "to": {"user": "8"}, "text": "x", "body": "eA=="}"#, 400, "BadRequest"),
        (r#"{"from": "7", "to": {"user": "8"}, "body": "!"}"#, 400, "BadRequest"),
        (r#"{"from": "7", "to": {"user": "8"}, "text": "x", "colour": "red"}"#, 400, "BadRequest"),
        (r#"{"from": "7", "to": {"user": "8"}, "text": "x", "client_msg_id": "1"}"#, 400, "ClientMsgIdInvalid"),
        (&format!(r#"{{"from": "7", "to": {{"user": "8"}}, "text": "{long}"}}"#), 413, "BodyTooLarge"),
        (&format!("[{}]", " ".repeat(5 << 20)), 413, "RequestTooLarge"),
    ] {
        let mut http = api(dir.path());
        let json = "Content-Type: application/json\r\n";
        let answer = http.send_raw("POST", "/api/v1/messages", json, body.as_bytes()).unwrap();
        let shown: String = body.chars().take(100).collect();
        assert_eq!((answer.status, answer.code()), (status, code), "{shown}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    for (method, path, status, code) in [
        ("GET", "/api/v1/messages", 405, "MethodNotAllowed"),
        ("GET", "/api/v1/nothing", 404, "UnknownPath"),
        ("GET", "/api/v1/users/x/inbox", 400, "BadRequest"),
        ("GET", "/api/v1/users/7/inbox?after=-1", 400, "BadRequest"),
        ("GET", "/api/v1/users/7/inbox?limit=0", 400, "BadRequest"),
        ("GET", "/api/v1/users/7/inbox?limit=257", 400, "BadRequest"),
        ("GET", "/api/v1/users/7/inbox?before=3&after=2", 400, "BadRequest"),
        ("GET", "/api/v1/users/7/inbox?beside=3", 400, "BadRequest"),
        ("GET", "/api/v1/groups/12345", 404, "UnknownGroup"),
        ("GET", "/api/v1/users/%FF/groups", 400, "BadRequest"),
    ] {
        let answer = http.send_raw(method, path, "", b"").unwrap();
        assert_eq!((answer.status, answer.code()), (status, code), "{path}: {answer:?}");
    }
    assert_eq!(inbox(&mut http, 8).len(), 0, "nothing of it was stored");
}

#[test]
fn every_post_that_was_answered_before_a_kill_is_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &[]);
    let post = |number: u64| {
        let name = format!("0190f5c2-7a3e-7c1d-8e2f-{number:012x}");
        json!({"from": "7", "to": {"user": "8"}, "text": number.to_string(), "client_msg_id": name})
    };
    // Names of a while ago, so that the store is asked too; each is good for one message.
    let admin = address(dir.path(), "admin").unwrap();
    let (report, answered) = std::sync::mpsc::channel();
    let poster = std::thread::spawn(move || {
        let mut http = Http::connect(admin, None).unwrap();
        for number in 0..1_000 {
            match http.send("POST", "/api/v1/messages", &post(number)) {
                Ok(answer) if answer.status == 200 => report.send(number).unwrap(),
                Ok(answer) => panic!("{answer:?}"),
                Err(_) => return,
            }
        }
    });
    let mut seen: Vec<u64> = answered.iter().take(100).collect();
    gateway.kill();
    poster.join().unwrap();
    seen.extend(answered.iter());
    assert!(seen.len() < 1_000, "the kill came too late");

    let gateway = Gateway::start(dir.path(), &[]);
    let mut http = api(dir.path());
    let post = |number: u64| {
        let name = format!("0190f5c2-7a3e-7c1d-8e2f-{number:012x}");
        json!({"from": "7", "to": {"user": "8"}, "text": number.to_string(), "client_msg_id": name})
    };
    let again: Vec<Value> = (0..1_000).map(post).collect();
    let again = http.send("POST", "/api/v1/messages", &Value::Array(again)).unwrap();
    let outcomes = again.json.as_array().unwrap();
    for number in &seen {
        assert_eq!(outcomes[*number as usize]["repeat"], json!(true), "{number} had been answered");
    }
    let mut count: HashMap<String, u32> = HashMap::new();
    inbox(&mut http, 8).iter().for_each(|row| *count.entry(row["text"].as_str().unwrap().to_owned()).or_default() += 1);
    assert_eq!((count.len(), count.values().max()), (1_000, Some(&1)));
    // A session has the same inbox.
    let mut receiver = gateway.client(8, 1, None);
    assert_eq!(row(&mut receiver).0, 1);
    let id = receiver.new_client_msg_id();
    receiver.send(Conversation::User(UserId(7)), id, b"thanks").unwrap();
}

#[test]
fn a_stop_answers_what_was_posted_and_ends_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(dir.path(), &["--set", "drain.spread_s=0"]);
    let admin = address(dir.path(), "admin").unwrap();
    let (report, answered) = std::sync::mpsc::channel();
    let poster = std::thread::spawn(move || {
        let mut http = Http::connect(admin, None).unwrap();
        let post = json!({"from": "7", "to": {"user": "8"}, "text": "x"});
        loop {
            match http.send("POST", "/api/v1/messages", &post) {
                Ok(answer) if answer.status == 200 => report.send(()).unwrap(),
                Ok(answer) => return assert_eq!((answer.status, answer.code()), (503, "NotServing"), "{answer:?}"),
                Err(_) => return,
            }
        }
    });
    let mut posted = answered.iter().take(50).count();
    gateway.terminate();
    assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.log());
    poster.join().unwrap();
    posted += answered.iter().count();
    let _gateway = Gateway::start(dir.path(), &[]);
    assert_eq!(inbox(&mut api(dir.path()), 8).len(), posted, "what was answered is stored, and nothing else");
}

#[test]
fn the_examples_of_the_page_run_as_they_are_written() {
    let page = include_str!("../api/README.md");
    let dir = tempfile::tempdir().unwrap();
    let _gateway = Gateway::start(dir.path(), &[]);
    let admin = address(dir.path(), "admin").unwrap().to_string();
    let blocks = |kind: &str| -> Vec<String> {
        let opening = format!("```{kind}\n");
        let blocks = page.split(&opening).skip(1).map(|rest| rest.split("```").next().unwrap());
        blocks.map(|block| block.replace("127.0.0.1:7401", &admin)).collect()
    };
    let mut outputs = Vec::new();
    for (program, flag, blocks) in
        [("bash", "-ec", blocks("sh")), ("python3", "-c", blocks("python")), ("node", "-e", blocks("js"))]
    {
        for block in blocks {
            let output = Command::new(program).args([flag, &block]).output().unwrap();
            assert!(output.status.success(), "{block}: {output:?}");
            outputs.push(String::from_utf8(output.stdout).unwrap());
        }
    }
    let [sent, groups, followed, python, node] = &outputs[..] else { panic!("{outputs:?}") };
    assert!(sent.contains("\"repeat\":false"), "{sent}");
    assert!(groups.contains("your order has shipped") && groups.contains("\"online\":[]"), "{groups}");
    assert!(followed.contains("id: 1\nevent: message\ndata: {\"seq\":\"1\""), "{followed}");
    assert!(python.trim().parse::<u64>().is_ok(), "{python}");
    assert!(node.trim().parse::<u64>().is_ok(), "{node}");
    assert_eq!(inbox(&mut api(dir.path()), 8).len(), 3);
}
