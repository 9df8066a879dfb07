//! Webhooks in a cluster: one node tells, and when it is killed another one goes on.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::cluster::settings;
use crate::gateway::{Gateway, PATIENCE, pause};
use crate::http::{Http, api};
use crate::receiver::{Received, Receiver, Reply};
use crate::redis::Redis;
use crate::services::Database;

/// Sends until it is taken; returns the message's number.
fn send(http: &mut Http, to: u64) -> String {
    let post = json!({"from": "7", "to": {"user": to.to_string()}, "text": "x"});
    for _ in 0..PATIENCE.as_millis() / 20 {
        let sent = http.send("POST", "/api/v1/messages", &post).unwrap();
        if let Some(msg_id) = sent.json["msg_id"].as_str() {
            return msg_id.to_owned();
        }
        pause(std::time::Duration::from_millis(20));
    }
    panic!("it is not taken");
}

fn ids(all: &[Received]) -> BTreeSet<String> {
    let messages = all.iter().filter_map(|it| it.json["data"]["messages"].as_array());
    messages.flatten().map(|it| it["msg_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn one_node_tells_and_when_it_is_killed_another_goes_on() {
    let (redis, database) = (Redis::start(), Database::create());
    let receiver = Receiver::start(|_| Reply::ok());
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let begin = |at: usize| {
        let path = dirs[at].path().join("endpoints.toml");
        let text = format!(
            "[[endpoint]]\nname = \"push\"\nurl = \"{}\"\nevents = [\"message.offline\"]\ngrace_s = 1\n\
             secrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]\nprivate_addresses = true\n",
            receiver.url("/")
        );
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let mut settings = settings(&redis, &database, at as u16 + 1);
        settings.extend([format!("webhooks.endpoints_file={}", path.display()), "drain.spread_s=0".to_owned()]);
        let mut arguments = vec!["--shards", "2"];
        settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
        Gateway::start(dirs[at].path(), &arguments)
    };
    let mut nodes: Vec<Option<Gateway>> = vec![Some(begin(0)), Some(begin(1))];
    for node in nodes.iter_mut().flatten() {
        node.wait_until("it is ready", |node| node.admin_page("/readyz").starts_with("HTTP/1.1 200"));
    }
    let state = |at: usize| -> Value {
        api(dirs[at].path()).get("/api/v1/webhooks").unwrap().json["webhooks"][0]["state"].clone()
    };
    let leader = || (0..2).find(|at| state(*at) == "telling" && state(1 - at) == "standby");
    let node = nodes[0].as_mut().unwrap();
    node.wait_until("one of them tells", |_| leader().is_some());
    let leads = leader().unwrap();
    let stays = 1 - leads;

    let mut sent: BTreeSet<String> = (100..110).map(|to| send(&mut api(dirs[stays].path()), to)).collect();
    receiver.until("they are told", |all| ids(all) == sent);
    // The next one goes on from what the database has of that.
    let node = nodes[stays].as_mut().unwrap();
    let kept = || database.rows::<u64>(&format!("SELECT seq FROM cursors WHERE user_id = {}", u64::MAX));
    node.wait_until("how far the endpoint is, is kept", |_| !kept().is_empty());
    sent.insert(send(&mut api(dirs[leads].path()), 200));
    // What it has taken and not told yet is told by the other.
    nodes[leads].take().unwrap().kill();
    sent.extend((110..120).map(|to| send(&mut api(dirs[stays].path()), to)));
    let all = receiver.until("all are told", |all| ids(all) == sent);
    let of_events = all.iter().filter_map(|it| it.json["data"]["messages"].as_array()).flatten();
    let events: BTreeSet<&str> = of_events.map(|it| it["id"].as_str().unwrap()).collect();
    assert_eq!(events.len(), sent.len(), "each has one id");
    assert_eq!(state(stays), "telling");
}
