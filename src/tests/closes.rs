//! Why a connection was closed: the client is told, the log says it at `debug`, the metrics count it, by one name.

use std::collections::BTreeMap;

use ringway_client::Event;
use ringway_wire::frame::Encoder;
use ringway_wire::ids::{ClientMsgId, Conversation, DeviceId, UserId};

use crate::connection::Connection;
use crate::gateway::{Gateway, PATIENCE};
use ringway_wire::request::Durability;

/// Reads until the gateway says goodbye; the name of the reason, as the wire has it.
fn told(client: &mut Connection) -> String {
    loop {
        match client.next(PATIENCE).unwrap() {
            Some(Event::Closing { reason, .. }) => return reason.variant_name().unwrap().to_owned(),
            Some(_) => {}
            None => panic!("no Closing came"),
        }
    }
}

#[test]
fn a_close_has_the_same_name_for_the_client_in_the_log_and_in_the_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let logging = ["--shards", "2", "--set", "log.level=debug", "--set", "log.format=json"];
    let mut gateway = Gateway::start(dir.path(), &logging);

    let mut stranger = Connection::connect(gateway.addr(), PATIENCE).unwrap();
    let send = Encoder::new()
        .send(1, Conversation::User(UserId(2)), ClientMsgId([0; 16]), b"hello", Durability::Durable)
        .to_vec();
    stranger.send_raw(&send).unwrap();
    let mut forger = Connection::connect(gateway.addr(), PATIENCE).unwrap();
    forger.send_raw(Encoder::new().login(1, "no token", DeviceId(1), None)).unwrap();
    let mut replaced = gateway.client(7, 1, None);
    let mut leaver = gateway.client(7, 1, None);
    leaver.logout().unwrap();
    let lost = gateway.client(8, 3, None);
    let session = lost.session().unwrap().session;
    drop(lost);

    // Reason, user and device, as the clients know them.
    let mut expected = vec![(told(&mut stranger), None), (told(&mut forger), None)];
    expected.push((told(&mut replaced), Some((7, 1))));
    expected.push((told(&mut leaver), Some((7, 1))));
    expected.push(("PeerClosed".to_owned(), Some((8, 3))));
    let names = ["NotLoggedIn", "TokenInvalid", "Replaced", "LoggedOut", "PeerClosed"];
    assert!(expected.iter().map(|(reason, _)| reason.as_str()).eq(names), "{expected:?}");

    let mut lines = Vec::new();
    gateway.wait_until("five closes are logged", |gateway| {
        let log = gateway.log();
        let parsed = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines = parsed.filter(|line| line["message"] == "closed").collect();
        lines.len() == expected.len()
    });
    let mut logged: Vec<_> = lines
        .iter()
        .map(|line| {
            assert_eq!(line["level"], "DEBUG", "{line}");
            let who = line["user"].as_u64().map(|user| (user, line["device"].as_u64().unwrap()));
            (line["reason"].as_str().unwrap().to_owned(), who)
        })
        .collect();
    logged.sort();
    expected.sort();
    assert_eq!(logged, expected);
    let of_lost = lines.iter().find(|line| line["reason"] == "PeerClosed").unwrap();
    assert_eq!(of_lost["session"].as_u64(), Some(session));
    assert!(of_lost["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{of_lost}");

    let mut counted = BTreeMap::new();
    gateway.wait_until("the shards have reported the closes", |gateway| {
        counted.clear();
        for line in gateway.admin_page("/metrics").lines() {
            let Some(labels) = line.strip_prefix("ringway_closes_total{") else { continue };
            let (labels, count) = labels.split_once("} ").unwrap();
            let reason = labels.split("reason=\"").nth(1).unwrap().trim_end_matches('"');
            *counted.entry(reason.to_owned()).or_insert(0) += count.parse::<usize>().unwrap();
        }
        counted.retain(|_, count| *count > 0);
        counted.values().sum::<usize>() == expected.len()
    });
    assert!(counted.keys().map(String::as_str).eq([
        "LoggedOut",
        "NotLoggedIn",
        "PeerClosed",
        "Replaced",
        "TokenInvalid"
    ]));
    assert!(counted.values().all(|count| *count == 1), "{counted:?}");
}
