//! A Redis that is put back to an old dump: what it was given since is neither lost nor mixed up.

use std::collections::{BTreeMap, BTreeSet};

use ringway::ids::{ClientMsgId, Conversation, MsgId, Seq, UserId};
use ringway::load::client::{Client, Row, Said};
use ringway::wire::generated::ringway::wire::ErrorCode;

use crate::cluster::{create, node, rows_until, send, told, wait_for_rows};
use crate::gateway::{Gateway, PATIENCE, pause};
use crate::redis::Redis;
use crate::services::Database;

/// Sends under a name until it is taken.
fn send_as(client: &mut Client, to: Conversation, name: ClientMsgId, body: &str) -> (MsgId, bool) {
    for _ in 0..PATIENCE.as_millis() / 50 {
        let request = client.send(to, name, body.as_bytes(), false).unwrap();
        match client.answer(request, PATIENCE).unwrap() {
            Said::Sent { msg_id, repeat, .. } => return (msg_id, repeat),
            Said::Refused { .. } => pause(std::time::Duration::from_millis(50)),
            other => panic!("expected SendOk, heard {other:?}"),
        }
    }
    panic!("{body:?} is not taken");
}

/// What a number was given to, each time it was seen: never two things.
fn check_numbers(seen: &mut BTreeMap<Seq, MsgId>, rows: &[Row], gateway: &Gateway) {
    for row in rows {
        let before = *seen.entry(row.seq).or_insert(row.msg_id);
        assert_eq!(before, row.msg_id, "{:?} was given to two messages\n{}", row.seq, gateway.log());
    }
}

/// Whether the database gets what Redis loses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Store {
    Writes,
    StandsStill,
}

fn an_old_dump_loses_nothing_that_was_acked(store: Store) {
    let (mut redis, database) = (Redis::start(), Database::create());
    let (dir_a, dir_b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut a, b) = (node(dir_a.path(), &redis, &database, 1), node(dir_b.path(), &redis, &database, 2));
    let (mut one, mut two) = (a.client(1, 1, None), b.client(2, 1, None));
    let group = create(&mut one, &[UserId(1), UserId(2), UserId(3)]);
    let to = Conversation::Group(group);
    let mut expected = BTreeSet::new();
    let mut say = |client: &mut Client, body: String| {
        send(client, to, &body);
        expected.insert(body);
    };
    for index in 1..=20 {
        say(&mut one, format!("before {index}"));
    }
    wait_for_rows(&database, 60);
    let dump = redis.copy();
    if store == Store::StandsStill {
        assert!(redis.command(&["SET", "{ringway:0}:2:writer", "nobody"]).unwrap().starts_with("+OK"));
        let gave_up = |log: String| log.lines().any(|line| line.contains("changed hands") && line.contains("false"));
        a.wait_until("the node whose store wrote has heard so", |a| gave_up(a.log()) || gave_up(b.log()));
    }
    let name = one.new_client_msg_id();
    let (first, _) = send_as(&mut one, to, name, "lost 0");
    for index in 1..=20 {
        say(&mut one, format!("lost {index}"));
        say(&mut two, format!("lost too {index}"));
    }
    if store == Store::Writes {
        wait_for_rows(&database, 3 * 61);
    }
    redis.kill();
    redis.put_back(&dump);
    // Without it nothing is numbered, and who sends is told so on the connection that stays.
    let id = one.new_client_msg_id();
    let mut refused = false;
    a.wait_until("a sender is told to try again", |_| {
        let request = one.send(to, id, b"meanwhile", false).unwrap();
        // One that was on its way when Redis went is not answered before it is back.
        refused |= matches!(
            one.answer(request, std::time::Duration::from_millis(500)),
            Ok(Said::Refused { code: ErrorCode::RetryLater, .. })
        );
        refused
    });
    redis.start_again();
    send_as(&mut one, to, id, "meanwhile");
    for index in 1..=20 {
        say(&mut one, format!("after {index}"));
        say(&mut two, format!("after too {index}"));
    }
    say(&mut one, "the end".to_owned());
    expected.extend(["lost 0", "meanwhile"].map(str::to_owned));
    assert!(a.log().contains("made anew") || b.log().contains("made anew"), "the old dump was not noticed");
    // The same name is the same message, wherever it lies now.
    assert_eq!(send_as(&mut one, to, name, "lost 0"), (first, true));

    // Live, in order; what was sent by the session itself came as answers.
    let mut seen = BTreeMap::new();
    let live = rows_until(&mut two, "the end");
    check_numbers(&mut seen, &live, &b);
    let bodies = |rows: &[Row]| told(rows).into_iter().map(|(_, body)| body).collect::<BTreeSet<_>>();
    let heard = bodies(&live);
    let missing: Vec<_> = expected.iter().filter(|body| !heard.contains(*body) && !body.contains("too")).collect();
    assert!(missing.is_empty(), "not delivered: {missing:?}\n{}", b.log());
    // And for who was not there, on either node.
    for gateway in [&a, &b] {
        let inbox = rows_until(&mut gateway.client(2, 7, Some(Seq(0))), "the end");
        check_numbers(&mut seen, &inbox, gateway);
        assert_eq!(bodies(&inbox), expected, "{}", gateway.log());
        assert_eq!(told(&inbox).len(), expected.len(), "a message came under two numbers of its own");
        assert_eq!(bodies(&rows_until(&mut gateway.client(3, 7, Some(Seq(0))), "the end")), expected);
    }
    wait_for_rows(&database, 3 * expected.len() as u64);
    let twice: Vec<(u64, u64)> =
        database.rows("SELECT user_id, msg_id FROM inbox GROUP BY user_id, msg_id HAVING COUNT(*) > 1");
    assert_eq!(twice, [], "a message is in an inbox twice");
}

#[test]
fn a_redis_put_back_to_an_old_dump_loses_nothing_that_was_acked_and_stored() {
    an_old_dump_loses_nothing_that_was_acked(Store::Writes);
}

#[test]
fn a_redis_put_back_to_an_old_dump_loses_nothing_that_was_acked_and_not_stored() {
    an_old_dump_loses_nothing_that_was_acked(Store::StandsStill);
}
