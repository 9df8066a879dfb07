//! What the gateway says unasked is enough to act on: who owns a group since, when to come back.

use ringway_client::Event;
use ringway_wire::ids::{GroupId, UserId};
use ringway_wire::schema::{CloseReason, GroupChangeKind};

use crate::connection::Connection;
use crate::gateway::{Gateway, PATIENCE};

/// The next change of the group: what was done, to whom, and who owns it since.
fn changed(client: &mut Connection, group: GroupId) -> (GroupChangeKind, Vec<UserId>, UserId) {
    match client.next(PATIENCE).unwrap() {
        Some(Event::GroupChanged { group: changed, kind, members, owner, .. }) if changed == group => {
            (kind, members, owner)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_leaves_a_group_that_was_his_is_told_and_tells_who_owns_it_since() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "2"]);
    let mut clients: Vec<Connection> = (1..=4).map(|user| gateway.client(user, 1, None)).collect();
    let (group, _) = clients[0].group_create(&[UserId(2), UserId(3)], PATIENCE).unwrap();
    for client in &mut clients[..3] {
        assert_eq!(changed(client, group), (GroupChangeKind::Created, vec![UserId(2), UserId(3)], UserId(1)));
    }
    // A member leaves, then the owner.
    clients[1].group_leave(group, PATIENCE).unwrap();
    for client in &mut clients[..3] {
        assert_eq!(changed(client, group), (GroupChangeKind::Left, vec![UserId(2)], UserId(1)));
    }
    clients[0].group_leave(group, PATIENCE).unwrap();
    for client in [0, 2] {
        assert_eq!(changed(&mut clients[client], group), (GroupChangeKind::Left, vec![UserId(1)], UserId(3)));
    }
    // And the new owner may do what owners may.
    clients[2].group_add(group, &[UserId(4)], PATIENCE).unwrap();
    assert_eq!(changed(&mut clients[3], group), (GroupChangeKind::Added, vec![UserId(4)], UserId(3)));
}

#[test]
fn no_client_of_a_gateway_that_stops_is_told_to_come_back_at_once() {
    for spread in ["drain.spread_s=3", "drain.spread_s=0"] {
        let dir = tempfile::tempdir().unwrap();
        let mut gateway = Gateway::start(dir.path(), &["--shards", "2", "--set", spread]);
        let clients: Vec<Connection> = (1..=20).map(|user| gateway.client(user, 1, None)).collect();
        gateway.terminate();
        for mut client in clients {
            match client.next(PATIENCE).unwrap() {
                Some(Event::Closing { reason: CloseReason::Draining, reconnect_after_ms: Some(after_ms), .. }) => {
                    assert!((500..=3_000).contains(&after_ms), "{spread}: {after_ms} ms");
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(gateway.wait().success());
    }
}
