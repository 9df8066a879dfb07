//! What a backend does over the API beside sending: groups are deleted and replaced, inboxes read backwards, messages sent that
//! are not stored.

use ringway_client::Event;
use ringway_wire::ids::UserId;
use ringway_wire::schema::GroupChangeKind;
use serde_json::{Value, json};

use crate::connection::Connection;
use crate::gateway::{Gateway, PATIENCE};
use crate::http::{Http, api, created};

#[test]
fn a_group_is_deleted_and_nobody_is_in_it_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &[]);
    let mut http = api(dir.path());
    let mut member = gateway.client(9, 1, None);
    let group = created(&mut http, "7", json!(["8", "9"]));
    let path = format!("/api/v1/groups/{group}");
    let deleted = http.send_raw("DELETE", &path, "", b"").unwrap();
    assert_eq!((deleted.status, &deleted.json["group"]), (200, &json!(group)), "{deleted:?}");
    assert_eq!((http.get(&path).unwrap().status, http.get(&path).unwrap().code()), (404, "UnknownGroup"));
    for user in ["7", "8", "9"] {
        assert_eq!(http.get(&format!("/api/v1/users/{user}/groups")).unwrap().json, json!({"groups": []}));
    }
    let again = http.send_raw("DELETE", &path, "", b"").unwrap();
    assert_eq!((again.status, again.code()), (404, "UnknownGroup"));
    // Its members are told.
    let mut removed = false;
    while !removed {
        match member.next(PATIENCE).unwrap().expect("a change in time") {
            Event::GroupChanged { kind, members, .. } => {
                removed = kind == GroupChangeKind::Removed && members.contains(&UserId(9));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_members_of_a_group_are_replaced_and_the_same_again_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let _gateway = Gateway::start(dir.path(), &["--shards", "2"]);
    let mut http = api(dir.path());
    let group = created(&mut http, "7", json!(["8", "9"]));
    let (path, members) = (format!("/api/v1/groups/{group}"), format!("/api/v1/groups/{group}/members"));
    let replace = |http: &mut Http, users: Value| http.send("PUT", &members, &json!({"members": users})).unwrap();
    let replaced = replace(&mut http, json!(["7", "9", "10", "11"]));
    assert_eq!(replaced.status, 200, "{replaced:?}");
    let read = http.get(&path).unwrap().json;
    assert_eq!((&read["owner"], &read["members"]), (&json!("7"), &json!(["7", "9", "10", "11"])));
    assert_eq!(read["version"], replaced.json["version"]);
    let again = replace(&mut http, json!(["11", "10", "9", "7"]));
    assert_eq!((again.status, &again.json["version"]), (200, &read["version"]));
    // Without the owner: another one is.
    assert_eq!(replace(&mut http, json!(["10", "12"])).status, 200);
    let read = http.get(&path).unwrap().json;
    assert_eq!((&read["owner"], &read["members"]), (&json!("10"), &json!(["10", "12"])));
    let wrong = replace(&mut http, json!([]));
    assert_eq!((wrong.status, wrong.code()), (400, "BadRequest"));
}

#[test]
fn an_inbox_is_read_backwards_page_by_page_with_every_row_once() {
    let dir = tempfile::tempdir().unwrap();
    let _gateway = Gateway::start(dir.path(), &[]);
    let mut http = api(dir.path());
    let posts: Vec<Value> = (1..=700)
        // Long ones, of which a page of the store has fewer than are asked for.
        .map(|id| json!({"from": "7", "to": {"user": "8"}, "text": format!("{id} {}", "x".repeat(if id > 500 { 9_000 } else { 9 }))}))
        .collect();
    for posts in posts.chunks(300) {
        assert_eq!(http.send("POST", "/api/v1/messages", &json!(posts)).unwrap().status, 200);
    }
    for limit in [1, 7, 256] {
        let (mut seqs, mut before, mut pages): (Vec<u64>, _, _) = (Vec::new(), "18446744073709551615".to_owned(), 0);
        while limit > 1 || pages < 20 {
            let page = http.get(&format!("/api/v1/users/8/inbox?before={before}&limit={limit}")).unwrap();
            assert_eq!(page.status, 200, "{page:?}");
            let rows = page.json["rows"].as_array().unwrap();
            assert!(rows.len() <= limit, "{} rows", rows.len());
            seqs.extend(rows.iter().map(|row| row["seq"].as_str().unwrap().parse::<u64>().unwrap()));
            pages += 1;
            match page.json["next_before"].as_str() {
                Some(next) => before = next.to_owned(),
                None => break,
            }
        }
        let first = if limit == 1 { 681 } else { 1 };
        assert_eq!(seqs, (first..=700).rev().collect::<Vec<u64>>(), "limit {limit}");
    }
    let both = http.get("/api/v1/users/8/inbox?before=3&after=1").unwrap();
    assert_eq!((both.status, both.code()), (400, "BadRequest"));
    let nobody = http.get("/api/v1/users/1234/inbox?before=100").unwrap();
    assert_eq!(nobody.json, json!({"rows": []}));
}

fn heard(client: &mut Connection) -> (u64, Vec<u8>) {
    loop {
        match client.next(PATIENCE).unwrap().expect("a message in time") {
            Event::Row(row) => return (row.seq.0, row.body),
            Event::Ephemeral(row) => return (0, row.body),
            Event::GroupChanged { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_ephemeral_message_reaches_whoever_is_online_and_is_in_no_inbox() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "2"]);
    let mut http = api(dir.path());
    let mut clients: Vec<Connection> = [8, 9].map(|user| gateway.client(user, 1, None)).into();
    let group = created(&mut http, "7", json!(["8", "9"]));
    for to in [json!({"user": "8"}), json!({"user": "9"}), json!({"group": group})] {
        let post = json!({"from": "7", "to": to, "text": "typing", "ephemeral": true});
        let sent = http.send("POST", "/api/v1/messages", &post).unwrap();
        assert_eq!((sent.status, &sent.json["repeat"]), (200, &json!(false)), "{sent:?}");
    }
    for client in &mut clients {
        for _ in 0..2 {
            assert_eq!(heard(client), (0, b"typing".to_vec()));
        }
    }
    let several = json!([
        {"from": "7", "to": {"user": "8"}, "text": "one", "ephemeral": true},
        {"from": "7", "to": {"user": "8"}, "text": "two"},
        {"from": "10", "to": {"group": group}, "text": "of no member", "ephemeral": true},
    ]);
    let sent = http.send("POST", "/api/v1/messages", &several).unwrap();
    assert_eq!(
        (sent.json[1]["repeat"].as_bool(), &sent.json[2]["code"]),
        (Some(false), &json!("NotAMember")),
        "{sent:?}"
    );
    let rows = http.get("/api/v1/users/8/inbox").unwrap().json;
    assert_eq!(rows["rows"].as_array().unwrap().len(), 1, "{rows}");
    assert_eq!(rows["rows"][0]["text"], "two");
}
