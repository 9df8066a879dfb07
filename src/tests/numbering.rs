//! Nodes number by themselves: what they come to is compared, and one that differs does not go on.

use ringway::limits::WINDOW_ENTRIES;
use ringway_client::Event;
use ringway_wire::ids::{Conversation, Seq, UserId};

use crate::cluster::{create, node, send, wait_for_rows};
use crate::connection::Connection;
use crate::gateway::PATIENCE;
use crate::redis::Redis;
use crate::services::Database;

/// Sends so many, some at once; the answers must come, unless the node ends.
fn send_many(client: &mut Connection, to: Conversation, count: u64) -> bool {
    const AT_ONCE: u64 = 64;
    for _ in 0..count.div_ceil(AT_ONCE) {
        for _ in 0..AT_ONCE {
            let id = client.new_client_msg_id();
            if client.send(to, id, b"one of many").is_err() {
                return false;
            }
        }
        let mut answered = 0;
        while answered < AT_ONCE {
            match client.next(PATIENCE) {
                Ok(Some(Event::Sent { .. } | Event::Refused { .. })) => answered += 1,
                Ok(Some(Event::Row(_) | Event::Gap { .. } | Event::GroupChanged { .. })) => {}
                _ => return false,
            }
        }
    }
    true
}

#[test]
fn a_node_that_numbers_otherwise_than_another_is_found_and_ends() {
    let (redis, database) = (Redis::start(), Database::create());
    let (dir_a, dir_b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut a, mut b) = (node(dir_a.path(), &redis, &database, 1), node(dir_b.path(), &redis, &database, 2));
    let mut one = a.client(1, 1, None);
    let group = create(&mut one, &[UserId(1), UserId(2)]);
    let to = Conversation::Group(group);
    send(&mut one, to, "first");
    // They agree, for as long as nobody interferes.
    assert!(send_many(&mut one, to, 2 * WINDOW_ENTRIES));
    let newest = send(&mut one, to, "last");
    wait_for_rows(&database, 2 * newest);
    drop(b.client(9, 1, None));

    // Somebody changes rows by hand, and one node starts from that.
    b.terminate();
    assert!(b.wait().success(), "{}", b.log());
    database.sql(&format!("UPDATE inbox SET seq = seq + 5 WHERE user_id = 2 AND seq = {newest}"));
    b = node(dir_b.path(), &redis, &database, 2);
    drop(b.client(9, 1, None));
    send_many(&mut one, to, 3 * WINDOW_ENTRIES);
    a.wait_until("one of them has ended", |a| a.has_ended() || b.has_ended());
    let (ended, left) = if a.has_ended() { (&a, &b) } else { (&b, &a) };
    assert!(ended.log().contains("this node has numbered window"), "{}", ended.log());

    // Who is left goes on.
    let mut three = left.client(3, 1, Some(Seq(0)));
    send(&mut three, Conversation::User(UserId(4)), "still here");
}
