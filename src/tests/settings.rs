//! Settings that are changed while the gateway runs: all of a change or nothing of it, and nobody is cut off by it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal::SIGHUP;
use ringway::auth::mint_hs256;
use ringway_client::Event;
use ringway_wire::ids::{Conversation, DeviceId, UserId};
use ringway_wire::schema::CloseReason;
use serde_json::{Value, json};

use crate::connection::{Connection, ConnectionError};
use crate::gateway::{Gateway, PATIENCE, address, pause, signal, token};
use crate::http::{Http, api};

const OLD: &str = "the-old-key,-of-32-characters-or-more";

fn setting(http: &mut Http, name: &str) -> Value {
    let all = http.get("/api/v1/config").unwrap().json;
    let found = all["settings"].as_array().unwrap().iter().find(|it| it["setting"] == name).unwrap().clone();
    json!([found["value"], found["origin"], found["changes"], found["next_value"]])
}

fn generation(http: &mut Http) -> u64 {
    http.get("/api/v1/stats").unwrap().json["generation"].as_u64().unwrap()
}

fn taken(client: &mut Connection) -> usize {
    let mut taken = 0;
    for _ in 0..10 {
        let name = client.new_client_msg_id();
        let sent = client.send(Conversation::User(UserId(2)), name, b"hello").unwrap();
        taken += usize::from(matches!(client.answer(sent, PATIENCE).unwrap(), Event::Sent { .. }));
    }
    taken
}

/// SIGHUP, until the log has said so much more often that it was followed or not.
fn reload(gateway: &mut Gateway, said: &str) {
    let before = gateway.log().matches(said).count();
    signal(gateway.pid(), SIGHUP).unwrap();
    gateway.wait_until("the settings are read again", |gateway| gateway.log().matches(said).count() > before);
}

fn private(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

#[test]
fn settings_are_shown_with_their_origin_and_changed_all_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(dir.path(), &["--shards", "2"]);
    let mut http = api(dir.path());
    let mut client = gateway.client(1, 1, None);
    assert_eq!(setting(&mut http, "shards"), json!(["2", "command line", "at_start", null]));
    assert_eq!(setting(&mut http, "log.level"), json!(["info", "default", "now", null]));
    let secret = json!(["(hidden)", "environment RINGWAY_AUTH_HS256_SECRET", "at_start", null]);
    assert_eq!(setting(&mut http, "auth.hs256_secret"), secret);
    assert_eq!(generation(&mut http), 1);

    // One that cannot be used, one that is read at a start, one that nobody knows: nothing of it holds.
    for (name, value) in [("limits.user_rows", json!("many")), ("shards", json!(3)), ("what.is_this", json!("x"))] {
        let change = json!({"limits.user_sends": "1/s, burst 3", name: value});
        let refused = http.send("PATCH", "/api/v1/config", &change).unwrap();
        assert_eq!((refused.status, refused.code()), (400, "BadRequest"), "{refused:?}");
        assert!(refused.json["detail"].as_str().unwrap().contains(name), "{refused:?}");
    }
    assert_eq!((generation(&mut http), taken(&mut client)), (1, 10));

    let change = json!({"limits.user_sends": "1/s, burst 3", "log.level": "debug", "drain.timeout_s": 20});
    let changed = http.send("PATCH", "/api/v1/config", &change).unwrap();
    assert_eq!((changed.status, &changed.json["generation"]), (200, &json!(2)), "{changed:?}");
    assert_eq!(setting(&mut http, "log.level"), json!(["debug", "API, key this machine", "now", null]));
    gateway.wait_until("the new limit holds", |_| taken(&mut client) < 10);
    gateway.wait_until("the log says more", |gateway| {
        send_one(&mut http);
        gateway.log().contains("api: messages were sent")
    });
    for line in ["\"setting\":\"log.level\",\"old\":\"info\",\"new\":\"debug\"", "\"setting\":\"drain.timeout_s\""] {
        assert!(gateway.log().contains(line), "{line} is not in the log: {}", gateway.log());
    }
    // What the API said goes before the files, until it is taken back.
    reload(&mut gateway, "say now");
    assert_eq!(setting(&mut http, "log.level"), json!(["debug", "API, key this machine", "now", null]));
    let back = json!({"limits.user_sends": null, "log.level": null});
    assert_eq!(http.send("PATCH", "/api/v1/config", &back).unwrap().json["generation"], 3);
    assert_eq!(setting(&mut http, "log.level"), json!(["info", "default", "now", null]));
    gateway.wait_until("no limit holds", |_| taken(&mut client) == 10);
    gateway.terminate();
    assert!(gateway.wait().success());
}

fn send_one(http: &mut Http) {
    let post = json!({"from": "7", "to": {"user": "8"}, "text": "x"});
    assert_eq!(http.send("POST", "/api/v1/messages", &post).unwrap().status, 200);
}

#[test]
fn fifty_reloads_in_a_second_cut_nobody_off_and_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ringway.toml");
    let write =
        |rows: u32| std::fs::write(&file, format!("[limits]\nuser_rows = \"{rows}/s, burst 1000000\"\n")).unwrap();
    write(50_000);
    let mut gateway = Gateway::start(dir.path(), &["--shards", "2", "--config", file.to_str().unwrap()]);
    let (mut sender, mut receiver) = (gateway.client(1, 1, None), gateway.client(2, 1, None));
    let pid = gateway.pid();
    let reloads = std::thread::spawn(move || {
        for _ in 0..50 {
            signal(pid, SIGHUP).unwrap();
            pause(Duration::from_millis(20));
        }
    });
    let mut acked = 0;
    while !reloads.is_finished() {
        write(50_000 + acked as u32);
        acked += taken(&mut sender);
    }
    reloads.join().unwrap();
    for seq in 1..=acked as u64 {
        match receiver.next(PATIENCE).unwrap().expect("a row in time") {
            Event::Row(row) => assert_eq!(row.seq.0, seq),
            other => panic!("{other:?}"),
        }
    }
    assert!(!gateway.log().contains("cannot be used"), "{}", gateway.log());
    // A file that is broken changes nothing, and what waits for a start is named.
    std::fs::write(&file, "[limits\n").unwrap();
    reload(&mut gateway, "cannot be used");
    std::fs::write(&file, "[store]\nbatch_rows = 60\n").unwrap();
    reload(&mut gateway, "say now");
    let mut http = api(dir.path());
    assert_eq!(setting(&mut http, "store.batch_rows"), json!(["500", "default", "at_start", "60"]));
    assert!(gateway.log().contains("\"setting\":\"store.batch_rows\",\"next\":\"60\""), "{}", gateway.log());
    assert_eq!(taken(&mut sender), 10);
}

#[test]
fn keys_are_changed_without_a_restart_and_both_are_good_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    let (old, new) = (OLD.to_owned(), "the-new-key,-of-32-characters-or-more");
    private(&keys, &format!("shop operate {old}\n"));
    let set = format!("api.keys_file={}", keys.display());
    let mut gateway = Gateway::start(dir.path(), &["--set", &set]);
    let admin = address(dir.path(), "admin").unwrap();
    let status = |key: &str| Http::connect(admin, Some(key)).unwrap().get("/api/v1/stats").unwrap().status;
    assert_eq!((status(&old), status(new)), (200, 401));
    private(&keys, &format!("shop operate {old}\nshop operate {new}\n"));
    reload(&mut gateway, "say now");
    assert_eq!((status(&old), status(new)), (200, 200));
    private(&keys, "no key at all\n");
    reload(&mut gateway, "cannot be used");
    assert_eq!((status(&old), status(new)), (200, 200));
    private(&keys, &format!("shop operate {new}\n"));
    reload(&mut gateway, "say now");
    assert_eq!((status(&old), status(new)), (401, 200));
    assert!(!gateway.log().contains(new) && !gateway.log().contains(&old), "a key is in the log");
}

#[test]
fn metrics_can_need_a_key_and_health_never_does() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    let key = OLD.to_owned();
    private(&keys, &format!("prometheus read {key}\n"));
    let set = format!("api.keys_file={}", keys.display());
    let alone = Gateway::command(dir.path(), &["--set", "api.metrics=key"]).output().unwrap();
    assert!(!alone.status.success(), "there are no keys");
    // The tests' own look at the metrics has no key: the gateway is run without it.
    let mut command = Gateway::command(dir.path(), &["--set", &set, "--set", "api.metrics=key"]);
    let mut gateway = command.spawn().unwrap();
    let admin = loop {
        match address(dir.path(), "listen").and_then(|_| address(dir.path(), "admin")) {
            Some(admin) => break admin,
            None => pause(Duration::from_millis(20)),
        }
    };
    let status = |key: Option<&str>, path: &str| Http::connect(admin, key).unwrap().get(path).unwrap().status;
    assert_eq!(
        (status(None, "/metrics"), status(Some("x"), "/metrics"), status(Some(&key), "/metrics")),
        (401, 401, 200)
    );
    assert_eq!((status(None, "/healthz"), status(None, "/readyz")), (200, 200));
    gateway.kill().unwrap();
    gateway.wait().unwrap();
}

#[test]
fn the_examples_of_controls_page_run_as_they_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let _gateway = Gateway::start(dir.path(), &[]);
    let admin = address(dir.path(), "admin").unwrap().to_string();
    let page = include_str!("../control/README.md");
    let blocks: Vec<&str> = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let block = block.replace("127.0.0.1:7401", &admin);
        let output = Command::new("bash").args(["-ec", &block]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && said.contains("ready") && said.contains("\"generation\":2"),
            "{block}: {said}"
        );
    }
}

#[test]
fn the_page_that_tries_calls_loads_nothing_from_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &[]);
    for (path, kind) in [("", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")] {
        let page = gateway.admin_page(&format!("/api/docs{path}"));
        let (head, body) = page.split_once("\r\n\r\n").unwrap();
        let head = head.to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200") && head.contains(&format!("content-type: {kind}")), "{head}");
        assert!(head.contains("content-security-policy: default-src 'none'; script-src 'self';"), "{head}");
        assert!(!body.contains("http://") && !body.contains("https://") && !body.contains("innerHTML"), "{path}");
    }
}

#[test]
fn a_file_of_settings_is_checked_without_a_gateway() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ringway.toml");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_ringway"))
            .args(["config", "check", file.to_str().unwrap()])
            .env_clear()
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    assert!(check("[log]\nlevel = \"debug\"\n").0);
    for (text, named) in [
        ("[log]\nlevel = \"loud\"\n", "log.level"),
        ("[log]\nlevle = \"info\"\n", "log.levle"),
        ("[log\n", "not valid TOML"),
        ("[api]\nkeys_file = \"/nowhere\"\n", "/nowhere"),
        ("[webhooks]\nendpoints_file = \"/nowhere\"\n", "/nowhere"),
    ] {
        let (good, said) = check(text);
        assert!(!good && said.contains(named), "{text}: {said}");
    }
}

/// Whether a client with a token of this secret can log in.
fn logs_in(gateway: &Gateway, secret: &str) -> bool {
    let token = mint_hs256(secret.as_bytes(), UserId(3), None, 99_000_000_000);
    let mut client = Connection::connect(gateway.addr(), PATIENCE).unwrap();
    match client.login(&token, DeviceId(1), None, PATIENCE) {
        Ok(_) => true,
        Err(ConnectionError::Closing { reason: CloseReason::TokenInvalid, .. }) => false,
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn the_key_of_tokens_is_changed_under_load_and_both_are_good_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = ("the old secret, of at least 32 bytes", "the new secret, of at least 32 bytes");
    let [old_file, new_file, file] = ["old", "new", "ringway.toml"].map(|name| dir.path().join(name));
    private(&old_file, old);
    private(&new_file, new);
    let write = |first: &Path, others: &str| {
        let text = format!("[auth]\nhs256_secret_file = {first:?}\nother_key_files = \"{others}\"\n");
        std::fs::write(&file, text).unwrap();
    };
    write(&old_file, "");
    let mut command = Gateway::command(dir.path(), &["--shards", "2", "--config", file.to_str().unwrap()]);
    let mut gateway = Gateway::spawn(dir.path(), command.env_remove("RINGWAY_AUTH_HS256_SECRET"));
    assert_eq!((logs_in(&gateway, old), logs_in(&gateway, new)), (true, false));
    // Somebody sends all the time, with a token of the old key.
    let token = mint_hs256(old.as_bytes(), UserId(1), None, 99_000_000_000);
    let mut sender = Connection::connect(gateway.addr(), PATIENCE).unwrap();
    sender.login(&token, DeviceId(1), None, PATIENCE).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let load = std::thread::spawn(move || {
        let (mut acked, mut asked) = (0, 0);
        while !told.load(Ordering::Relaxed) {
            acked += taken(&mut sender);
            asked += 10;
            // Slower than what one account may.
            pause(Duration::from_millis(50));
        }
        (acked, asked)
    });
    write(&old_file, new_file.to_str().unwrap());
    reload(&mut gateway, "say now");
    gateway.wait_until("the new key is good", |gateway| logs_in(gateway, new));
    assert!(logs_in(&gateway, old), "the old key is good beside it");
    // Who may operate the gateway cannot say whose tokens count.
    let change = json!({ "auth.hs256_secret_file": file.to_str().unwrap() });
    let refused = api(dir.path()).send("PATCH", "/api/v1/config", &change).unwrap();
    assert!(refused.status >= 400 && format!("{refused:?}").contains("in the files alone"), "{refused:?}");
    // One that is too short changes nothing.
    private(&new_file, "short");
    reload(&mut gateway, "cannot be used");
    assert_eq!((logs_in(&gateway, old), logs_in(&gateway, new)), (true, true));
    private(&new_file, new);
    write(&new_file, "");
    reload(&mut gateway, "say now");
    gateway.wait_until("the old key is good no more", |gateway| !logs_in(gateway, old));
    assert!(logs_in(&gateway, new));
    stop.store(true, Ordering::Relaxed);
    let (acked, asked) = load.join().unwrap();
    assert!(acked > 0 && acked == asked, "a session stays, and loses nothing: {acked} of {asked}");
    assert!(!gateway.log().contains(old) && !gateway.log().contains(new), "a key is in the log");
}

#[test]
fn sessions_settings_change_for_the_next_logins_and_cut_nobody_off() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(dir.path(), &["--shards", "2"]);
    let mut http = api(dir.path());
    let mut before = gateway.client(1, 1, None);
    let change = json!({
        "session.heartbeat_s": 7, "session.devices_max": 1, "session.device_policy": "refuse-new",
        "store.linger_ms": 1, "store.retention_days": 30,
    });
    let changed = http.send("PATCH", "/api/v1/config", &change).unwrap();
    assert_eq!(changed.status, 200, "{changed:?}");
    // A shard follows in its next turn.
    let mut device = 1;
    gateway.wait_until("the limit of devices holds", |gateway| {
        device += 1;
        let mut client = Connection::connect(gateway.addr(), PATIENCE).unwrap();
        match client.login(&token(1, device), DeviceId(device), None, PATIENCE) {
            Err(ConnectionError::Closing { reason: CloseReason::DeviceLimit, .. }) => true,
            Ok(_) => false,
            Err(other) => panic!("{other:?}"),
        }
    });
    assert_eq!(taken(&mut before), 10, "who was logged in goes on");
    assert_eq!(setting(&mut http, "store.retention_days"), json!(["30", "API, key this machine", "now", null]));
}
