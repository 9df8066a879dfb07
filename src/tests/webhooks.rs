//! Webhooks: what a backend is told, and what becomes of it when the gateway is killed or the backend is down.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::gateway::{Gateway, PATIENCE, pause, signal};
use crate::http::{Http, api, created};
use crate::receiver::{Received, Receiver, Reply};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Writes a file of one endpoint, which is told of messages after a second.
fn endpoint(dir: &Path, url: &str, more: &str) -> String {
    let path = dir.join("endpoints.toml");
    let text = format!(
        "[[endpoint]]\nname = \"push\"\nurl = \"{url}\"\nevents = [\"message.offline\", \"group.changed\"]\n\
         secrets = [\"{SECRET}\"]\ngrace_s = 1\n{more}\n"
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    format!("webhooks.endpoints_file={}", path.display())
}

fn start(dir: &Path, set: &str) -> Gateway {
    Gateway::start(dir, &["--shards", "2", "--set", set, "--set", "drain.spread_s=0"])
}

fn send(http: &mut Http, to: &Value, text: &str) -> String {
    let sent = http.send("POST", "/api/v1/messages", &json!({"from": "7", "to": to, "text": text})).unwrap();
    assert_eq!(sent.status, 200, "{sent:?}");
    sent.json["msg_id"].as_str().unwrap().to_owned()
}

fn shown(http: &mut Http) -> Value {
    http.get("/api/v1/webhooks").unwrap().json["webhooks"][0].clone()
}

fn until(http: &mut Http, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..2 * PATIENCE.as_millis() / 20 {
        let now = shown(http);
        if is_so(&now) {
            return now;
        }
        pause(Duration::from_millis(20));
    }
    panic!("waited in vain until {what}: {}", shown(http));
}

/// The events of one kind in all that was received.
fn events(all: &[Received], kind: &str, within: &str) -> Vec<Value> {
    let of_kind = all.iter().filter(|it| it.json["type"] == kind);
    of_kind.flat_map(|it| it.json["data"][within].as_array().unwrap().clone()).collect()
}

fn messages(all: &[Received]) -> Vec<Value> {
    events(all, "message.offline", "messages")
}

/// What the standard's own library for Node says of a request.
fn verify(received: &Received, secret: &str) -> std::process::Output {
    let modules = concat!(env!("CARGO_MANIFEST_DIR"), "/target/npm/node_modules");
    assert!(Path::new(modules).is_dir(), "scripts/setup.sh tests fetches what this test needs");
    let program = "const { Webhook } = require('standardwebhooks');
        const [secret, headers, body] = process.argv.slice(1);
        console.log(new Webhook(secret).verify(body, JSON.parse(headers)).type);";
    let headers: serde_json::Map<String, Value> =
        received.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let arguments = ["-e", program, "--", secret, &Value::Object(headers).to_string(), &received.body];
    Command::new("node").args(arguments).env("NODE_PATH", modules).output().unwrap()
}

#[test]
fn whoever_is_offline_is_announced_signed_and_nobody_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(|_| Reply::ok());
    let set = endpoint(dir.path(), &receiver.url("/hook?x=1"), "private_addresses = true\nbodies = true");
    let gateway = start(dir.path(), &set);
    let mut http = api(dir.path());
    let _online = gateway.client(9, 1, None);
    let group = created(&mut http, "7", json!(["8", "9", "10"]));
    let first = send(&mut http, &json!({"user": "8"}), "to 8");
    send(&mut http, &json!({"user": "9"}), "to somebody who is online");
    send(&mut http, &json!({"user": "7"}), "to oneself");
    let second = send(&mut http, &json!({"group": group}), "to all");
    let last = send(&mut http, &json!({"user": "8"}), "the last");
    let all = receiver
        .until("the last message is announced", |all| messages(all).iter().any(|it| it["msg_id"] == last.as_str()));

    let told: Vec<(String, String)> = messages(&all)
        .iter()
        .map(|it| (it["msg_id"].as_str().unwrap().to_owned(), it["user"].as_str().unwrap().to_owned()))
        .collect();
    let of_8: Vec<&str> = told.iter().filter(|(_, user)| user == "8").map(|(msg_id, _)| msg_id.as_str()).collect();
    assert_eq!(of_8, [&first, &second, &last], "in order, each once");
    let of_group: BTreeSet<&str> = told.iter().filter(|(id, _)| *id == second).map(|(_, user)| user.as_str()).collect();
    assert_eq!(of_group, BTreeSet::from(["10", "8"]), "neither the sender nor who is online");
    assert_eq!(told.len(), 4, "{told:?}");
    let event = &messages(&all)[0];
    assert_eq!(
        event,
        &json!({
            "id": format!("{first}-8"), "user": "8", "seq": "1", "msg_id": first, "from": "7", "to": {"user": "8"},
            "sent_at_ms": event["sent_at_ms"], "body": "dG8gOA==", "text": "to 8",
        })
    );
    let changes = events(&all, "group.changed", "changes");
    assert_eq!((&changes[0]["group"], &changes[0]["change"], changes.len()), (&json!(group), &json!("created"), 1));
    for received in &all {
        assert_eq!((received.path.as_str(), received.header("content-type")), ("/hook?x=1", "application/json"));
        let good = verify(received, SECRET);
        assert!(good.status.success(), "{good:?}");
        assert_eq!(String::from_utf8(good.stdout).unwrap().trim(), received.json["type"]);
        assert!(!verify(received, "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").status.success());
    }
    let status = until(&mut http, "all of it is told", |it| it["events_total"] == 5);
    assert_eq!(
        (&status["webhook"], &status["state"], &status["failures_total"]),
        (&json!("push"), &json!("telling"), &json!(0))
    );
    assert!(gateway.admin_page("/metrics").contains("ringway_webhook_events_total{webhook=\"push\"} 5\n"));
}

#[test]
fn an_endpoint_that_is_down_gets_the_same_request_again_and_one_that_is_gone_nothing_until_it_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(|number| match number {
        0 => Reply::status(500),
        1 => Reply::status(429).with("Retry-After: 3"),
        2 => Reply::hang_up(),
        3 => Reply::status(302).with("Location: http://127.0.0.1:1/"),
        4 => Reply::ok(),
        5 => Reply::status(410),
        _ => Reply::ok(),
    });
    let set = endpoint(dir.path(), &receiver.url("/"), "private_addresses = true");
    let _gateway = start(dir.path(), &set);
    let mut http = api(dir.path());
    let began_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let first = send(&mut http, &json!({"user": "8"}), "secret");
    let all = receiver.until("it is taken", |all| all.len() >= 5);
    let ids: BTreeSet<&str> = all.iter().map(|it| it.header("webhook-id")).collect();
    let bodies: BTreeSet<&str> = all.iter().map(|it| it.body.as_str()).collect();
    assert_eq!((ids.len(), bodies.len()), (1, 1), "{all:?}");
    assert!(!all[0].body.contains("secret") && !all[0].body.contains("c2VjcmV0"), "bodies were not asked for");
    assert!(all[2].at - all[1].at >= Duration::from_secs(3), "Retry-After is followed");
    let status = until(&mut http, "it is taken", |it| it["requests_total"] == 1);
    // A connection that was kept and is closed is no failure: the same request goes over another one at once.
    assert_eq!((&status["state"], &status["failures_total"]), (&json!("telling"), &json!(3)), "{status}");
    assert_eq!(status["last_failure"], "it has answered 302 Found");

    let second = send(&mut http, &json!({"user": "8"}), "x");
    until(&mut http, "it is off", |it| it["state"] == "off");
    let third = send(&mut http, &json!({"user": "8"}), "x");
    assert_eq!(receiver.all().len(), 6);
    until(&mut http, "it is shown how far behind it is", |it| it["behind_bytes"].as_u64() > Some(0));
    let resumed = http.send("POST", "/api/v1/webhooks/push/resume", &json!({})).unwrap();
    assert_eq!((resumed.status, &resumed.json), (202, &json!({"webhook": "push"})));
    let told = |all: &[Received], id: &str| messages(all).iter().filter(|it| it["msg_id"] == id).count();
    receiver.until("the others are told", |all| told(&all[6..], &second) == 1 && told(all, &third) == 1);

    // And all of it again.
    let before = receiver.all().len();
    let played = http.send("POST", "/api/v1/webhooks/push/play", &json!({"from_ms": began_ms - 1})).unwrap();
    assert_eq!(played.status, 202, "{played:?}");
    let all = receiver.until("they are told again", |all| told(&all[before..], &third) == 1);
    assert_eq!((told(&all[before..], &first), told(&all[before..], &second)), (1, 1));
    let ids: BTreeSet<String> = messages(&all).iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 3, "each message has one id");
    let unknown = http.send("POST", "/api/v1/webhooks/other/resume", &json!({})).unwrap();
    assert_eq!((unknown.status, unknown.code()), (404, "UnknownWebhook"));
}

#[test]
fn each_offline_message_is_announced_under_one_id_though_the_gateway_is_killed_in_the_middle() {
    let dir = tempfile::tempdir().unwrap();
    // Slow enough for kills to come between, and now and then it fails.
    let receiver = Receiver::start(|number| match number % 7 {
        3 => Reply::status(503),
        5 => Reply::hang_up(),
        _ => Reply::ok().after(Duration::from_millis(20)),
    });
    let set = endpoint(dir.path(), &receiver.url("/"), "private_addresses = true");
    let mut posted: BTreeMap<String, String> = BTreeMap::new();
    let mut gateway = start(dir.path(), &set);
    for round in 0..6 {
        let mut http = api(dir.path());
        for _ in 0..3 {
            let posts: Vec<Value> =
                (0..500).map(|at| json!({"from": "7", "to": {"user": (100 + at).to_string()}, "text": "x"})).collect();
            let sent = http.send("POST", "/api/v1/messages", &json!(posts)).unwrap();
            for (post, outcome) in posts.iter().zip(sent.json.as_array().unwrap()) {
                let user = post["to"]["user"].as_str().unwrap().to_owned();
                posted.insert(outcome["msg_id"].as_str().unwrap().to_owned(), user);
            }
        }
        let before = receiver.all().len();
        receiver.until("something is told", |all| all.len() > before);
        pause(Duration::from_millis(fastrand::u64(0..100)));
        gateway.kill();
        println!("round {round}: {} requests so far", receiver.all().len());
        gateway = start(dir.path(), &set);
    }
    let told = |all: &[Received]| {
        let ids = messages(all).iter().map(|it| it["msg_id"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>();
        ids.len()
    };
    let all = receiver.until("all are announced", |all| told(all) == posted.len());
    let mut bodies: BTreeMap<&str, &str> = BTreeMap::new();
    for received in &all {
        let body = bodies.entry(received.header("webhook-id")).or_insert(&received.body);
        assert_eq!(*body, received.body, "one id, one request");
    }
    for event in messages(&all) {
        let (id, user) = (event["msg_id"].as_str().unwrap(), event["user"].as_str().unwrap());
        assert_eq!(posted.get(id).map(String::as_str), Some(user), "only what was stored: {event}");
        assert_eq!(event["id"], format!("{id}-{user}"));
    }
    // Which message is in which request: in one alone.
    let mut request_of: BTreeMap<String, &str> = BTreeMap::new();
    for received in &all {
        for event in messages(std::slice::from_ref(received)) {
            let id = event["id"].as_str().unwrap().to_owned();
            let request = *request_of.entry(id).or_insert(received.header("webhook-id"));
            assert_eq!(request, received.header("webhook-id"), "never under two ids: {event}");
        }
    }
    assert!(gateway.log().contains("serving"));
}

#[test]
fn endpoints_change_come_and_go_while_the_gateway_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (Receiver::start(|_| Reply::ok()), Receiver::start(|_| Reply::ok()));
    let set = endpoint(dir.path(), &first.url("/"), "private_addresses = true");
    let mut gateway = start(dir.path(), &set);
    let mut http = api(dir.path());
    let mut reload = |said: &str| {
        let before = gateway.log().matches(said).count();
        signal(gateway.pid(), Signal::SIGHUP).unwrap();
        gateway.wait_until("the file is read again", |gateway| gateway.log().matches(said).count() > before);
    };
    let told = |receiver: &Receiver, id: &str| {
        receiver.until("it is told", |all| messages(all).iter().any(|it| it["msg_id"] == id));
    };
    let one = send(&mut http, &json!({"user": "8"}), "x");
    told(&first, &one);
    endpoint(dir.path(), &second.url("/"), "private_addresses = true");
    reload("say now");
    until(&mut http, "it is elsewhere", |it| it["url"] == second.url("/"));
    let two = send(&mut http, &json!({"user": "8"}), "x");
    told(&second, &two);
    // A file that makes no sense changes nothing; an empty one ends it, and it goes on later where it was.
    endpoint(dir.path(), &second.url("/"), "what = 1");
    reload("cannot be used");
    assert_eq!(shown(&mut http)["url"], second.url("/"));
    std::fs::write(dir.path().join("endpoints.toml"), "").unwrap();
    reload("say now");
    until(&mut http, "there is none", Value::is_null);
    let three = send(&mut http, &json!({"user": "8"}), "x");
    endpoint(dir.path(), &second.url("/"), "private_addresses = true");
    reload("say now");
    told(&second, &three);
    let all: Vec<Value> = [first.all(), second.all()].iter().flat_map(|all| messages(all)).collect();
    assert_eq!(all.len(), 3, "each once: {all:?}");
}

#[test]
fn an_endpoint_on_a_private_address_is_not_reached_unless_that_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(|_| Reply::ok());
    let set = endpoint(dir.path(), &receiver.url("/"), "");
    let _gateway = start(dir.path(), &set);
    let mut http = api(dir.path());
    send(&mut http, &json!({"user": "8"}), "x");
    let status = until(&mut http, "it is refused", |it| it["state"] == "retrying");
    assert_eq!(status["last_failure"], "its host has no public address, and private_addresses is not set");
    assert_eq!(receiver.connections(), 0);
}

#[test]
fn a_file_of_endpoints_that_others_can_read_or_that_makes_no_sense_is_refused_at_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |set: &str| {
        let output = Gateway::command(dir.path(), &["--set", set]).output().unwrap();
        assert!(!output.status.success());
        std::fs::read_to_string(dir.path().join("gateway.log")).unwrap()
    };
    let set = endpoint(dir.path(), "https://example.com/", "what = 1");
    assert!(refused(&set).contains("webhooks.endpoints_file: "));
    let set = endpoint(dir.path(), "https://example.com/", "");
    std::fs::set_permissions(dir.path().join("endpoints.toml"), std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(refused(&set).contains("chmod 600"));
    assert!(!refused("webhooks.endpoints_file=/nowhere").contains(SECRET));
}

#[test]
fn an_endpoint_with_tls_is_told_when_its_certificate_is_trusted_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start_tls(dir.path(), |_| Reply::ok());
    let set = endpoint(dir.path(), &receiver.url("/hook"), "private_addresses = true");
    let mut gateway = start(dir.path(), &set);
    let mut http = api(dir.path());
    let sent = send(&mut http, &json!({"user": "8"}), "x");
    let status = until(&mut http, "it is refused", |it| it["state"] == "retrying");
    assert!(status["last_failure"].as_str().unwrap().contains("UnknownIssuer"), "{status}");
    assert!(receiver.all().is_empty(), "something was said to whoever is not trusted");
    let ca_file = dir.path().join("ca.pem");
    endpoint(dir.path(), &receiver.url("/hook"), &format!("private_addresses = true\nca_file = {ca_file:?}"));
    signal(gateway.pid(), Signal::SIGHUP).unwrap();
    gateway.wait_until("the file is read again", |gateway| gateway.log().contains("say now"));
    let all = receiver.until("it is told", |all| !all.is_empty());
    assert_eq!(messages(&all)[0]["msg_id"], sent.as_str());
    assert!(verify(&all[0], SECRET).status.success());
}

#[test]
fn every_message_is_told_once_at_once_whoever_is_online() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(|number| if number == 1 { Reply::status(503) } else { Reply::ok() });
    let set = endpoint(dir.path(), &receiver.url("/"), "private_addresses = true");
    let file = dir.path().join("endpoints.toml");
    let text = std::fs::read_to_string(&file).unwrap().replace("message.offline", "message.sent");
    std::fs::write(&file, text).unwrap();
    let mut gateway = start(dir.path(), &set);
    let mut http = api(dir.path());
    let _online = gateway.client(9, 1, None);
    let group = created(&mut http, "7", json!(["8", "9", "10"]));
    let mut sent = vec![
        send(&mut http, &json!({"user": "9"}), "to somebody who is online"),
        send(&mut http, &json!({"group": group}), "to all"),
        send(&mut http, &json!({"user": "7"}), "to oneself"),
    ];
    let sent_events = |all: &[Received]| events(all, "message.sent", "messages");
    // The one that fails is told again, also by the gateway's next start.
    receiver.until("a request has failed", |all| all.len() > 1);
    gateway.kill();
    gateway = start(dir.path(), &set);
    let mut http = api(dir.path());
    sent.push(send(&mut http, &json!({"user": "8"}), "the last"));
    let last = sent.last().unwrap().clone();
    let all = receiver.until("the last is told", |all| sent_events(all).iter().any(|it| it["msg_id"] == last.as_str()));
    let told: BTreeSet<String> = sent_events(&all).iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(told, sent.iter().cloned().collect(), "each under one id");
    let one = &sent_events(&all)[0];
    let expected = json!({
        "id": sent[0], "msg_id": sent[0], "from": "7", "to": {"user": "9"}, "sent_at_ms": one["sent_at_ms"],
    });
    assert_eq!(one, &expected);
    assert!(gateway.admin_page("/metrics").contains("ringway_webhook_request_seconds_count{webhook=\"push\"}"));
}
