//! One account floods what all share before the ledger; another one's message is acked.

use std::time::Duration;

use nix::sys::signal::Signal;
use ringway_client::{Event, RequestId};
use ringway_wire::ids::{ClientMsgId, Conversation, MsgId, Seq, UserId};
use ringway_wire::schema::ErrorCode;

use crate::cluster::{create, node, send, settings};
use crate::connection::Connection;
use crate::gateway::{Gateway, PATIENCE, UNLIMITED, pause};
use crate::outage::open_to_others;
use crate::redis::Redis;
use crate::services::{Database, MariaDb};

const FLOOD: u64 = 1;
const OTHER: u64 = 2;
const FRIEND: Conversation = Conversation::User(UserId(3));

/// What became of them: those that were taken, in order, and how many were refused for now.
fn answers(client: &mut Connection, requests: &[RequestId]) -> (Vec<MsgId>, usize) {
    let (mut taken, mut refused) = (Vec::new(), 0);
    for request in requests {
        match client.answer(*request, PATIENCE).unwrap() {
            Event::Sent { msg_id, .. } => taken.push(msg_id),
            Event::Refused { code: ErrorCode::RetryLater, retry_after_ms, .. } => {
                assert!(retry_after_ms > 0);
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    (taken, refused)
}

#[test]
fn messages_under_names_of_long_ago_are_taken_in_order_and_another_ones_message_beside_them() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "1"]);
    let (mut flood, mut other) = (gateway.client(FLOOD, 1, Some(Seq(0))), gateway.client(OTHER, 1, Some(Seq(0))));
    let members: Vec<UserId> = (0..2_000).map(|member| UserId(1_000 + member)).collect();
    let group = Conversation::Group(create(&mut flood, &members));
    // The store has to be asked for each.
    let long_ago_ms = flood.server_now_ms() - 60 * 60_000;
    let name = |number: u128| ClientMsgId::from_parts(long_ago_ms, number << 16);
    let requests: Vec<RequestId> =
        (0..200).map(|number| flood.send(group, name(number), b"again, an hour later").unwrap()).collect();
    send(&mut other, FRIEND, "hello");
    let (taken, refused) = answers(&mut flood, &requests);
    assert_eq!((taken.len(), refused), (200, 0));
    assert!(taken.is_sorted(), "{taken:?}");
}

#[test]
fn what_one_account_has_on_its_way_to_a_redis_that_stands_still_leaves_room_for_another() {
    let (redis, database) = (Redis::start(), Database::create());
    let dir = tempfile::tempdir().unwrap();
    let gateway = node(dir.path(), &redis, &database, 1);
    let mut sessions = [1, 2, 3].map(|device| gateway.client(FLOOD, device, Some(Seq(0))));
    let mut other = gateway.client(OTHER, 1, Some(Seq(0)));
    send(&mut other, FRIEND, "before");
    redis.signal(Signal::SIGSTOP);
    let requests = sessions.each_mut().map(|session| {
        let send = |_| session.send(FRIEND, session.new_client_msg_id(), b"flood").unwrap();
        (0..1_000).map(send).collect::<Vec<RequestId>>()
    });
    let others = other.send(FRIEND, other.new_client_msg_id(), b"beside it").unwrap();
    redis.signal(Signal::SIGCONT);
    let (mut taken, mut refused) = (0, 0);
    for (session, requests) in std::iter::zip(&mut sessions, &requests) {
        let of_session = answers(session, requests);
        (taken, refused) = (taken + of_session.0.len(), refused + of_session.1);
    }
    assert_eq!(taken + refused, 3_000);
    match other.answer(others, PATIENCE).unwrap() {
        Event::Sent { .. } => {}
        // Redis counts as gone after so long; then nobody's is taken until it is back.
        Event::Refused { code: ErrorCode::RetryLater, .. } => drop(send(&mut other, FRIEND, "again")),
        answer => panic!("{answer:?}"),
    }
}

#[test]
fn who_floods_while_the_database_is_away_is_refused_before_the_stream_is_full_and_the_others_go_on() {
    const ENTRIES_MAX: usize = 400;
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    open_to_others(dir.path());
    let mut mariadb = MariaDb::start(&dir.path().join("mariadb"), &[]);
    let database = Database::create_on(&mariadb.url());
    let data_dir = dir.path().join("node");
    std::fs::create_dir(&data_dir).unwrap();
    let limit = format!("limits.stream_entries_max={ENTRIES_MAX}");
    let settings = settings(&redis, &database, 1);
    let mut arguments = vec!["--shards", "1", "--set", &limit];
    settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
    let gateway = Gateway::start(&data_dir, &arguments);
    let (mut flood, mut other) = (gateway.client(FLOOD, 1, Some(Seq(0))), gateway.client(OTHER, 1, Some(Seq(0))));
    send(&mut flood, FRIEND, "before");
    mariadb.stop();
    // A ledger that was made a moment ago asks the database whether a message is a repeat; then Redis knows all names.
    send(&mut flood, FRIEND, "without the database");
    let mut taken = 0;
    let refused = loop {
        let requests: Vec<RequestId> =
            (0..10).map(|_| flood.send(FRIEND, flood.new_client_msg_id(), b"flood").unwrap()).collect();
        let (more, refused) = answers(&mut flood, &requests);
        taken += more.len();
        if refused > 0 {
            break refused;
        }
        assert!(taken < ENTRIES_MAX, "it is never refused");
        pause(Duration::from_millis(1));
    };
    assert!(taken < ENTRIES_MAX / 2, "{taken} taken, {refused} refused");
    for number in 0..40 {
        send(&mut other, FRIEND, &format!("{number}"));
    }
}

/// Sends so many ephemeral messages at once, without waiting for an answer.
fn typing(client: &mut Connection, to: impl Iterator<Item = Conversation>) -> Vec<RequestId> {
    to.map(|to| client.send_ephemeral(to, client.new_client_msg_id(), b"typing").unwrap()).collect()
}

/// How many of them went out; the others were refused for now.
fn went_out(client: &mut Connection, requests: &[RequestId]) -> usize {
    let went_out = |request: &&RequestId| match client.answer(**request, PATIENCE).unwrap() {
        Event::Sent { .. } => true,
        Event::Refused { code: ErrorCode::RetryLater, retry_after_ms, .. } if retry_after_ms > 0 => false,
        other => panic!("{other:?}"),
    };
    requests.iter().filter(went_out).count()
}

#[test]
fn what_one_account_types_to_users_of_another_shard_leaves_room_in_the_lane_for_another() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::spawn(dir.path(), Gateway::command(dir.path(), &["--shards", "2"]).envs(UNLIMITED));
    let mut floods = [1, 2, 3, 4].map(|device| gateway.client(FLOOD, device, Some(Seq(0))));
    let mut other = gateway.client(OTHER, 1, Some(Seq(0)));
    // Some of these live on either shard.
    let recipients = |count: u64| (0..count).map(|at| Conversation::User(UserId(100 + at % 16)));
    let flood = floods.each_mut().map(|session| typing(session, recipients(1_000)));
    let others = typing(&mut other, recipients(16));
    assert_eq!(went_out(&mut other, &others), 16);
    // The share is the account's: one of its sessions may take all of it. Each request is answered.
    let of_all = std::iter::zip(&mut floods, &flood).map(|(session, requests)| went_out(session, requests));
    assert!(of_all.sum::<usize>() > 0);
}

#[test]
fn what_one_account_types_to_a_group_that_its_shard_does_not_know_yet_leaves_room_for_another() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "2"]);
    let mut flood = gateway.client(FLOOD, 1, Some(Seq(0)));
    let group = Conversation::Group(create(&mut flood, &[UserId(OTHER)]));
    gateway.kill();
    // No shard knows who is in it.
    let gateway = Gateway::spawn(dir.path(), Gateway::command(dir.path(), &["--shards", "2"]).envs(UNLIMITED));
    let mut floods = [1, 2].map(|device| gateway.client(FLOOD, device, Some(Seq(0))));
    let mut other = gateway.client(OTHER, 1, Some(Seq(0)));
    let flood = floods.each_mut().map(|session| typing(session, (0..1_000).map(|_| group)));
    let others = typing(&mut other, std::iter::once(group));
    assert_eq!(went_out(&mut other, &others), 1);
    // The share is the account's: one of its sessions may take all of it. Each request is answered.
    let of_all = std::iter::zip(&mut floods, &flood).map(|(session, requests)| went_out(session, requests));
    assert!(of_all.sum::<usize>() > 0);
}
