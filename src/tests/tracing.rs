//! A message is followed: its rows, who was given it, who has acknowledged it and who lacks it.

use ringway_client::Event;
use ringway_wire::ids::Seq;
use serde_json::{Value, json};

use crate::access::admin;
use crate::cluster::node;
use crate::connection::Connection;
use crate::gateway::{Gateway, PATIENCE};
use crate::http::{Http, api, created, until};
use crate::redis::Redis;
use crate::services::Database;

fn row(client: &mut Connection) -> Seq {
    loop {
        match client.next(PATIENCE).unwrap().expect("a row in time") {
            Event::Row(row) => return row.seq,
            Event::GroupChanged { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

fn sent(http: &mut Http, post: &Value) -> String {
    let answer = http.send("POST", "/api/v1/messages", post).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json["msg_id"].as_str().unwrap().to_owned()
}

fn recipient<'a>(followed: &'a Value, user: &str) -> &'a Value {
    let found = followed["recipients"].as_array().unwrap().iter().find(|it| it["user"] == user);
    found.unwrap_or_else(|| panic!("{user} is none: {followed}"))
}

#[test]
fn a_message_to_a_group_is_followed_to_each_member_and_device() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "2"]);
    let mut http = api(dir.path());
    let group = created(&mut http, "7", json!(["8", "9"]));
    sent(&mut http, &json!({"from": "8", "to": {"user": "9"}, "text": "before"}));
    let (mut first, mut second) = (gateway.client(8, 1, None), gateway.client(8, 2, None));
    let post = json!({"from": "7", "to": {"group": group}, "text": "hello",
        "client_msg_id": "01990000-0000-7000-8000-0000000000ff"});
    let msg_id = sent(&mut http, &post);
    for client in [&mut first, &mut second] {
        while row(client) != Seq(2) {}
    }
    first.ack(Seq(2)).unwrap();
    second.ack(Seq(1)).unwrap();
    let path = format!("/api/v1/messages/{msg_id}");
    let is_acked = |it: &Value| recipient(it, "8")["acknowledged"] == json!(["1"]) && it["kept_in"] == "database";
    let followed = until(&mut http, &path, is_acked);
    assert_eq!(
        (&followed["from"], &followed["to"], &followed["client_msg_id"], &followed["body_bytes"]),
        (&json!("7"), &json!({"group": group}), &post["client_msg_id"], &json!(5))
    );
    assert_eq!((&followed["recipients_count"], &followed["next"]), (&json!(3), &Value::Null));
    let of_eight = recipient(&followed, "8");
    assert_eq!((&of_eight["seq"], &of_eight["lacking"]), (&json!("2"), &json!(["2"])));
    let pushed: Vec<&Value> = of_eight["sessions"].as_array().unwrap().iter().map(|it| &it["pushed"]).collect();
    assert_eq!(pushed, [&json!(true); 2], "{of_eight}");
    for (user, seq) in [("7", "1"), ("9", "2")] {
        let it = recipient(&followed, user);
        assert_eq!((&it["seq"], &it["sessions"]), (&json!(seq), &json!([])), "{it}");
    }

    // Page by page.
    let page = http.get(&format!("{path}?limit=2")).unwrap().json;
    assert_eq!((page["recipients"].as_array().unwrap().len(), &page["next"]), (2, &json!("8")));
    let page = http.get(&format!("{path}?limit=2&after=8")).unwrap().json;
    assert_eq!((recipient(&page, "9")["seq"].clone(), &page["next"]), (json!("2"), &Value::Null));

    let table = admin(dir.path(), &["trace", &msg_id]).unwrap();
    assert!(table.contains("from: 7\n") && table.contains("1 (pushed)"), "{table}");
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(lines.contains(&vec!["9", "2", "-", "-", "-"]), "{table}");

    for (wrong, status, code) in [
        ("1", 404, "UnknownMessage"),
        ("x", 400, "BadRequest"),
        (&*format!("{msg_id}?limit=51"), 400, "BadRequest"),
        (&*format!("{msg_id}?after=me"), 400, "BadRequest"),
    ] {
        let answer = http.get(&format!("/api/v1/messages/{wrong}")).unwrap();
        assert_eq!((answer.status, answer.code()), (status, code), "{wrong}");
    }
    // The group is no more: the sender's row is.
    assert_eq!(http.send_raw("DELETE", &format!("/api/v1/groups/{group}"), "", b"").unwrap().status, 200);
    let followed = until(&mut http, &path, |it| it["recipients_count"] == Value::Null);
    assert_eq!(followed["recipients"].as_array().unwrap().len(), 1, "{followed}");
    assert_eq!(recipient(&followed, "7")["seq"], "1");
}

#[test]
fn each_of_a_thousand_messages_is_found_in_its_row_also_before_the_database_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let _gateway = Gateway::start(dir.path(), &["--shards", "2", "--set", "store.linger_ms=10000"]);
    let mut http = api(dir.path());
    let posts: Vec<Value> =
        (0..1_000).map(|n| json!({"from": (n % 3 + 1).to_string(), "to": {"user": "8"}, "text": "x"})).collect();
    let answers = http.send("POST", "/api/v1/messages", &json!(posts)).unwrap().json;
    for (at, answer) in answers.as_array().unwrap().iter().enumerate().step_by(97) {
        let msg_id = answer["msg_id"].as_str().unwrap();
        let followed = http.get(&format!("/api/v1/messages/{msg_id}")).unwrap();
        assert_eq!(followed.status, 200, "{followed:?}");
        let seq = recipient(&followed.json, "8")["seq"].as_str().unwrap().to_owned();
        let before: u64 = seq.parse::<u64>().unwrap() - 1;
        let inbox = http.get(&format!("/api/v1/users/8/inbox?after={before}&limit=1")).unwrap().json;
        assert_eq!(inbox["rows"][0]["msg_id"], msg_id, "{at}");
        let sender = (at % 3 + 1).to_string();
        assert!(recipient(&followed.json, &sender)["seq"].is_string(), "{followed:?}");
    }
}

#[test]
fn in_a_cluster_a_message_is_followed_on_any_node() {
    let (redis, database) = (Redis::start(), Database::create());
    let [dir_a, dir_b] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let a = node(dir_a.path(), &redis, &database, 1);
    let b = node(dir_b.path(), &redis, &database, 2);
    let (mut here, mut there) = (a.client(42, 1, None), b.client(42, 2, None));
    let (mut http_a, mut http_b) = (api(dir_a.path()), api(dir_b.path()));
    let msg_id = sent(&mut http_a, &json!({"from": "7", "to": {"user": "42"}, "text": "hello"}));
    assert_eq!((row(&mut here), row(&mut there)), (Seq(1), Seq(1)));
    here.ack(Seq(1)).unwrap();
    let path = format!("/api/v1/messages/{msg_id}");
    let is_acked = |it: &Value| {
        it["recipients"].as_array().unwrap().len() == 2
            && recipient(it, "42")["acknowledged"] == json!(["1"])
            && recipient(it, "42")["sessions"].as_array().unwrap().len() == 2
    };
    let followed = until(&mut http_b, &path, is_acked);
    let it = recipient(&followed, "42");
    assert_eq!((&it["seq"], &it["lacking"]), (&json!("1"), &json!(["2"])));
    for session in it["sessions"].as_array().unwrap() {
        let pushed = if session["node"] == 2 { json!(true) } else { Value::Null };
        assert_eq!(session["pushed"], pushed, "{it}");
    }
    assert_eq!(recipient(&followed, "7")["seq"], "1");
}
