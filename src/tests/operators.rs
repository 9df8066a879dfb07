//! What an operator sees and does over the API: users with their sessions, connections, their end.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

use ringway_client::Event;
use ringway_wire::ids::Seq;
use ringway_wire::schema::CloseReason;
use serde_json::{Value, json};

use crate::access::{admin, end};
use crate::cluster::node;
use crate::connection::Connection;
use crate::gateway::{Gateway, PATIENCE, UNLIMITED, address};
use crate::http::{Http, api, until};
use crate::redis::Redis;
use crate::services::Database;

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

fn post(http: &mut Http, to: u64, texts: &[String]) {
    let posts: Vec<Value> =
        texts.iter().map(|text| json!({"from": "7", "to": {"user": to.to_string()}, "text": text})).collect();
    assert_eq!(http.send("POST", "/api/v1/messages", &Value::Array(posts)).unwrap().status, 200);
}

fn is_served(client: &mut Connection) {
    let request = client.ping().unwrap();
    assert!(matches!(client.answer(request, PATIENCE).unwrap(), Event::Pong { .. }));
}

#[test]
fn a_user_is_shown_with_each_session_its_rows_and_its_groups() {
    let dir = tempfile::tempdir().unwrap();
    let began_ms = now_ms();
    let gateway = Gateway::start(dir.path(), &["--shards", "2"]);
    let mut http = api(dir.path());
    let nobody = http.get("/api/v1/users/42").unwrap().json;
    assert_eq!(nobody, json!({"user": "42", "online": false, "newest_seq": "0", "groups": [], "sessions": []}));

    let made = http.send("POST", "/api/v1/groups", &json!({"owner": "42", "members": ["8"]})).unwrap();
    post(&mut http, 42, &["hello".to_owned()]);
    let mut client = gateway.client(42, 3, None);
    let _other = gateway.client(42, 4, None);
    client.ack(Seq(1)).unwrap();
    let user = until(&mut http, "/api/v1/users/42", |user| {
        let sessions = user["sessions"].as_array().unwrap();
        // The one that has just come is sent its row first.
        sessions.iter().all(|it| it["connection"]["state"] == "live")
            && sessions.iter().any(|it| it["connection"]["acknowledged_seq"] == "1")
    });
    assert_eq!(
        (&user["online"], &user["newest_seq"], &user["groups"]),
        (&json!(true), &json!("1"), &json!([made.json["group"]]))
    );
    let devices: Vec<&Value> = user["sessions"].as_array().unwrap().iter().map(|it| &it["device"]).collect();
    assert_eq!(devices, [&json!("4"), &json!("3")], "the newest first");
    for session in user["sessions"].as_array().unwrap() {
        let connection = &session["connection"];
        assert_eq!(
            (&session["node"], &connection["state"], &connection["transport"]),
            (&json!(0), &json!("live"), &json!("tcp"))
        );
        assert_eq!(connection["rows_behind"], 0);
        for moment in [&session["since_ms"], &connection["heard_ms"]] {
            // The wheel's tick is what it is known to.
            assert!((began_ms - 100..=now_ms() + 100).contains(&moment.as_u64().unwrap()), "{session}");
        }
        let peer: std::net::SocketAddr = connection["peer"].as_str().unwrap().parse().unwrap();
        assert!(peer.ip().is_loopback() && peer.port() != 0, "{peer}");
    }
}

#[test]
fn whoever_does_not_read_is_found_among_those_who_are_behind_until_everything_was_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Gateway::command(dir.path(), &["--shards", "2"]);
    let gateway = Gateway::spawn(dir.path(), command.envs(UNLIMITED));
    let mut http = api(dir.path());
    let _beside = gateway.client(9, 1, None);
    let mut slow = gateway.client(8, 1, None);
    let texts = vec!["x".repeat(16_000); 200];
    let mut sent = 0;
    let behind = "/api/v1/connections?state=behind&behind=1";
    while http.get(behind).unwrap().json["connections"] == json!([]) {
        assert!(sent < 20_000, "it never falls behind");
        post(&mut http, 8, &texts);
        sent += 200;
    }
    let found = http.get(behind).unwrap().json;
    let [it] = &found["connections"].as_array().unwrap()[..] else { panic!("{found}") };
    assert_eq!((&it["user"], &it["device"]), (&json!("8"), &json!("1")));
    assert!(it["connection"]["rows_behind"].as_u64().unwrap() > 0, "{it}");
    for _ in 0..sent {
        assert!(matches!(slow.next(PATIENCE).unwrap(), Some(Event::Row(_))));
    }
    until(&mut http, behind, |page| page["connections"] == json!([]));
}

#[test]
fn the_session_of_one_device_or_all_are_ended_and_do_not_come_back_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "2"]);
    let mut http = api(dir.path());
    let mut devices = [1, 2, 3].map(|device| gateway.client(42, device, None));
    let mut beside = gateway.client(43, 1, None);
    let ended = http.send_raw("DELETE", "/api/v1/users/42/sessions?device=2", "", b"").unwrap();
    assert_eq!((ended.status, &ended.json["sessions"][0]["device"]), (200, &json!("2")), "{ended:?}");
    assert_eq!(end(&mut devices[1]), CloseReason::Kicked);
    is_served(&mut devices[0]);
    is_served(&mut devices[2]);
    let ended = http.send_raw("DELETE", "/api/v1/users/42/sessions", "", b"").unwrap();
    assert_eq!(ended.json["sessions"].as_array().unwrap().len(), 2, "{ended:?}");
    assert_eq!(end(&mut devices[0]), CloseReason::Kicked);
    assert_eq!(end(&mut devices[2]), CloseReason::Kicked);
    is_served(&mut beside);
    let user = until(&mut http, "/api/v1/users/42", |user| user["online"] == false);
    assert_eq!(user["sessions"], json!([]));
    is_served(&mut gateway.client(42, 1, None));
    assert!(gateway.log().contains("api: sessions were ended"), "{}", gateway.log());
    let audit = std::fs::read_to_string(dir.path().join("api-audit.jsonl")).unwrap();
    let records: Vec<Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 2, "{audit}");
    assert_eq!(
        (&records[0]["user"], &records[0]["device"], &records[1]["device"]),
        (&json!("42"), &json!("2"), &Value::Null)
    );
    assert_eq!((&records[0]["key"], &records[0]["what"]), (&json!("this machine"), &json!("sessions were ended")));
}

#[test]
fn in_a_cluster_sessions_of_all_nodes_are_shown_and_ended_on_any() {
    let (redis, database) = (Redis::start(), Database::create());
    let [dir_a, dir_b] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let a = node(dir_a.path(), &redis, &database, 1);
    let b = node(dir_b.path(), &redis, &database, 2);
    let (mut here, mut there) = (a.client(42, 1, None), b.client(42, 2, None));
    let mut http = api(dir_a.path());
    let user = until(&mut http, "/api/v1/users/42", |user| user["sessions"].as_array().unwrap().len() == 2);
    let node_of = |device: &str| {
        user["sessions"].as_array().unwrap().iter().find(|it| it["device"] == device).map(|it| it["node"].clone())
    };
    assert_eq!((node_of("1"), node_of("2")), (Some(json!(1)), Some(json!(2))), "{user}");
    let ended = http.send_raw("DELETE", "/api/v1/users/42/sessions?device=2", "", b"").unwrap();
    assert_eq!(ended.status, 200, "{ended:?}");
    assert_eq!(end(&mut there), CloseReason::Kicked);
    is_served(&mut here);
}

/// All connections that fit, page by page, and how many pages it took.
fn listed(http: &mut Http, query: &str) -> (Vec<Value>, usize) {
    let (mut all, mut pages, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let page = http.get(&format!("/api/v1/connections?{query}{cursor}")).unwrap();
        assert_eq!(page.status, 200, "{page:?}");
        all.extend(page.json["connections"].as_array().unwrap().iter().cloned());
        pages += 1;
        match page.json["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return (all, pages),
        }
    }
}

#[test]
fn connections_are_listed_by_page_each_once_and_by_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "2"]);
    let mut http = api(dir.path());
    let _clients: Vec<Connection> = (1..=30).map(|user| gateway.client(user, 1, None)).collect();
    let _silent: Vec<TcpStream> = (0..5).map(|_| TcpStream::connect(gateway.addr()).unwrap()).collect();
    until(&mut http, "/api/v1/connections?limit=1000", |page| page["connections"].as_array().unwrap().len() == 35);
    let (all, pages) = listed(&mut http, "limit=7");
    assert!(pages >= 5, "{pages}");
    let users: BTreeSet<u64> = all.iter().filter_map(|it| it["user"].as_str()?.parse().ok()).collect();
    assert_eq!((all.len(), users), (35, (1..=30).collect()));
    let numbers: BTreeSet<&str> = all.iter().filter_map(|it| it["connection"]["number"].as_str()).collect();
    assert_eq!(numbers.len(), 35, "each is there once");
    for (query, count) in [
        ("state=live", 30),
        ("state=unauthenticated", 5),
        ("state=behind", 0),
        ("behind=1", 0),
        ("address=127.0.0.1", 35),
        ("address=::ffff:127.0.0.1", 35),
        ("address=10.0.0.1", 0),
        ("user=7", 1),
        ("user=7&state=behind", 0),
        ("user=31", 0),
    ] {
        assert_eq!(listed(&mut http, query).0.len(), count, "{query}");
    }
    for wrong in
        ["limit=0", "limit=1001", "state=odd", "address=localhost", "user=x", "cursor=AAAA", "behind=-1", "who=me"]
    {
        let answer = http.get(&format!("/api/v1/connections?{wrong}")).unwrap();
        assert_eq!((answer.status, answer.code()), (400, "BadRequest"), "{wrong}");
    }
    // A cursor beyond the end is an end.
    let page = http.get("/api/v1/connections?cursor=__________8").unwrap();
    assert_eq!((page.status, page.code()), (400, "BadRequest"));
    let page = http.get("/api/v1/connections?cursor=________").unwrap();
    assert_eq!((page.status, &page.json), (200, &json!({"connections": []})));
}

#[test]
fn the_gateways_figures_are_told_and_a_drain_over_the_api_ends_it_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(dir.path(), &["--shards", "2", "--set", "drain.spread_s=0"]);
    let mut http = api(dir.path());
    let mut clients: Vec<Connection> = (1..=10).map(|user| gateway.client(user, 1, None)).collect();
    post(&mut http, 8, &["hello".to_owned()]);
    let is_counted = |stats: &Value| stats["shards"]["sessions"] == 10 && stats["ledger"]["messages_total"] == 1;
    let stats = until(&mut http, "/api/v1/stats", is_counted);
    assert_eq!((&stats["stage"], &stats["ready"], &stats["reasons"]), (&json!("serving"), &json!(true), &json!([])));
    assert_eq!((&stats["ledger"]["rows_total"], &stats["shards"]["logins_total"]), (&json!(2), &json!(10)));
    let shards = http.get("/api/v1/shards").unwrap().json;
    let sessions: u64 =
        shards["shards"].as_array().unwrap().iter().map(|it| it["figures"]["sessions"].as_u64().unwrap()).sum();
    assert_eq!((shards["shards"].as_array().unwrap().len(), sessions), (2, 10));
    let nodes = http.get("/api/v1/nodes").unwrap().json;
    assert_eq!((&nodes["this"]["clustered"], &nodes["others"]), (&json!(false), &json!([])));

    let draining = http.send_raw("POST", "/api/v1/drain", "", b"").unwrap();
    assert_eq!((draining.status, &draining.json), (202, &json!({"draining": true})));
    for client in &mut clients {
        loop {
            match client.next(PATIENCE).unwrap().unwrap() {
                Event::Closing { reason, .. } => break assert_eq!(reason, CloseReason::Draining),
                Event::Row(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.log());
}

#[test]
fn the_command_line_shows_and_does_the_same_as_tables_or_json() {
    let dir = tempfile::tempdir().unwrap();
    // With keys, of which the command line needs none.
    let keys = dir.path().join("keys");
    std::fs::write(&keys, "shop send a-key-of-a-backend-of-32-or-more-characters\n").unwrap();
    std::fs::set_permissions(&keys, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let keys = format!("api.keys_file={}", keys.display());
    let mut gateway = Gateway::start(dir.path(), &["--shards", "2", "--set", "drain.spread_s=0", "--set", &keys]);
    let mut devices = [1, 2].map(|device| gateway.client(42, device, None));
    let said = admin(dir.path(), &["send", "--from", "7", "--user", "42", "hello"]).unwrap();
    assert!(said.starts_with("sent: "), "{said}");
    for device in &mut devices {
        assert!(matches!(device.next(PATIENCE).unwrap(), Some(Event::Row(row)) if row.body == b"hello"));
    }
    let user = admin(dir.path(), &["users", "42"]).unwrap();
    assert!(user.contains("online: true\n") && user.contains("newest_seq: 1\n"), "{user}");
    let table: Vec<Vec<&str>> = user.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(table.iter().filter(|line| line.contains(&"live")).count(), 2, "{user}");
    let json: Value = serde_json::from_str(&admin(dir.path(), &["users", "42", "--json"]).unwrap()).unwrap();
    assert_eq!(json["sessions"].as_array().unwrap().len(), 2, "{json}");

    let listed = admin(dir.path(), &["connections", "--state", "live", "--user", "42"]).unwrap();
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(listed.starts_with("USER") && listed.contains("127.0.0.1:"), "{listed}");
    let json = admin(dir.path(), &["connections", "--limit", "1", "--json"]).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["connections"].as_array().unwrap().len(), 1);
    assert!(admin(dir.path(), &["connections", "--state", "odd"]).unwrap_err().contains("BadRequest"));
    assert_eq!(admin(dir.path(), &["groups", "42"]).unwrap().lines().count(), 1);
    assert!(admin(dir.path(), &["stats"]).unwrap().contains("stage: serving\n"));
    assert!(admin(dir.path(), &["nodes"]).unwrap().contains("this.clustered: false\n"));

    let settings = admin(dir.path(), &["config", "drain.timeout_s=20", "log.level=warn"]).unwrap();
    let line = |settings: &str, name: &str| {
        let line = settings.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line(&settings, "drain.timeout_s"), "drain.timeout_s 20 API, key its own user now -");
    assert!(line(&settings, "auth.hs256_secret ").contains("(hidden)"), "{settings}");
    assert!(admin(dir.path(), &["config", "shards=3"]).unwrap_err().contains("shards is read only at a start"));
    assert!(admin(dir.path(), &["log", "info"]).unwrap().contains("the log's level is info, generation 3"));
    let settings = admin(dir.path(), &["config", "log.level="]).unwrap();
    assert_eq!(line(&settings, "log.level"), "log.level info default now -");
    assert!(admin(dir.path(), &["webhooks"]).unwrap().starts_with("WEBHOOK"));
    assert!(admin(dir.path(), &["webhooks", "--resume", "push"]).unwrap_err().contains("UnknownWebhook"));

    assert!(admin(dir.path(), &["kick", "42", "--device", "2"]).unwrap().contains("device 2"));
    assert_eq!(end(&mut devices[1]), CloseReason::Kicked);
    is_served(&mut devices[0]);
    assert_eq!(admin(dir.path(), &["drain"]).unwrap(), "draining: true\n");
    assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.log());
    assert!(!dir.path().join("api.sock").exists());
    assert!(admin(dir.path(), &["stats"]).unwrap_err().contains("does it run"));
}

#[test]
fn the_api_has_an_address_of_its_own_and_one_that_others_reach_needs_keys() {
    let dir = tempfile::tempdir().unwrap();
    let everywhere = Gateway::command(dir.path(), &["--set", "api.listen=0.0.0.0:0"]).status().unwrap();
    assert_eq!(everywhere.code(), Some(1), "anybody could call");
    let gateway = Gateway::start(dir.path(), &["--set", "api.listen=127.0.0.1:0"]);
    let own = address(dir.path(), "api").unwrap();
    let mut http = Http::connect(own, None).unwrap();
    assert_eq!(http.get("/api/v1/stats").unwrap().status, 200);
    assert_eq!(Http::connect(own, None).unwrap().get("/metrics").unwrap().status, 404);
    let admin = gateway.admin_page("/api/v1/stats");
    assert!(admin.starts_with("HTTP/1.1 404"), "{admin}");
    assert!(gateway.admin_page("/healthz").starts_with("HTTP/1.1 200"));
}

#[test]
fn before_a_stop_the_load_balancer_is_told_while_everybody_is_served_and_a_second_signal_ends_that() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(dir.path(), &["--set", "drain.notice_s=3600", "--set", "drain.spread_s=0"]);
    let mut client = gateway.client(42, 1, None);
    let mut http = api(dir.path());
    gateway.terminate();
    gateway.wait_until("/readyz says no", |gateway| gateway.admin_page("/readyz").contains("stopping soon"));
    assert!(gateway.admin_page("/healthz").starts_with("HTTP/1.1 200"));
    is_served(&mut client);
    is_served(&mut gateway.client(43, 1, None));
    post(&mut http, 42, &["still here".to_owned()]);
    assert!(matches!(client.next(PATIENCE).unwrap(), Some(Event::Row(row)) if row.body == b"still here"));
    assert_eq!(http.get("/api/v1/stats").unwrap().json["stage"], "leaving");
    // Asked again, a drain is found begun: it is no second signal.
    assert_eq!(http.send_raw("POST", "/api/v1/drain", "", b"").unwrap().status, 202);
    is_served(&mut client);
    gateway.terminate();
    while !matches!(client.next(PATIENCE).unwrap(), Some(Event::Closing { reason: CloseReason::Draining, .. })) {}
    assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.log());
}
