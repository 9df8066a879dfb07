//! A client that means harm: what it can choose must not stop the others.

use std::time::{Duration, Instant};

use ringway_client::{Event, RequestId};
use ringway_wire::frame::Encoder;
use ringway_wire::ids::{Conversation, GroupId, Seq, UserId};
use ringway_wire::limits::GROUP_MEMBERS_MAX;
use ringway_wire::schema::ErrorCode;

use crate::colliding::colliding_ids;
use crate::connection::{Connection, ConnectionError};
use crate::gateway::{Gateway, PATIENCE, UNLIMITED};
use crate::http::api;
use crate::outage::metric;

/// Groups of the largest size: 100,000 members in all.
const GROUPS: usize = 20;
/// Where ids collide nothing may be cut off before it is measured.
const COLLIDING_PATIENCE: Duration = Duration::from_secs(300);
/// What is below is the machine's noise.
const GRAIN: Duration = Duration::from_millis(500);

#[test]
fn large_replies_asked_for_all_at_once_come_one_by_one_and_end_no_session() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Gateway::command(dir.path(), &["--shards", "2"]);
    let gateway = Gateway::spawn(dir.path(), command.envs(UNLIMITED));
    let mut client = gateway.client(1, 1, None);
    let mut encoder = Encoder::new();
    // Nearly as many groups as a user may be in: their list is 100 KB long.
    const GROUPS: u32 = 1_900;
    for wave in 0..2 {
        let mut frames = Vec::new();
        for at in 0..GROUPS / 2 {
            frames.extend_from_slice(encoder.group_create(wave * GROUPS + at + 1_000_000, &[]));
        }
        client.send_raw(&frames).unwrap();
        let mut made = 0;
        while made < GROUPS / 2 {
            match client.next(PATIENCE).unwrap() {
                Some(Event::GroupOk { .. }) => made += 1,
                Some(Event::GroupChanged { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    // 57 bytes ask for each; 10 MB come.
    const ASKED: u32 = 100;
    let mut frames = Vec::new();
    for request in 0..ASKED {
        frames.extend_from_slice(encoder.group_list_request(2_000_000 + request));
        frames.extend_from_slice(encoder.ping(3_000_000 + request));
    }
    client.send_raw(&frames).unwrap();
    let (mut lists, mut pongs) = (0, 0);
    while lists + pongs < 2 * ASKED {
        match client.next(PATIENCE).unwrap() {
            Some(Event::GroupList { request, groups }) => {
                assert_eq!((request, groups.len()), (RequestId(2_000_000 + lists), GROUPS as usize));
                lists += 1;
            }
            Some(Event::Pong { request, .. }) => {
                assert_eq!(request, RequestId(3_000_000 + pongs));
                pongs += 1;
            }
            Some(Event::GroupChanged { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn who_sends_to_thousands_without_end_is_told_to_wait_and_owes_no_more_rows_than_an_account_may() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(dir.path(), &["--shards", "2", "--set", "limits.user_rows=5000/s, burst 100000"]);
    let (mut hostile, mut ann, mut bob) =
        (gateway.client(666, 1, None), gateway.client(1, 1, None), gateway.client(2, 1, None));
    let invented: Vec<UserId> = (0..GROUP_MEMBERS_MAX as u64 - 1).map(|at| UserId(1_000_000 + at)).collect();
    let (group, _) = hostile.group_create(&invented, PATIENCE).unwrap();
    const SENDS: usize = 500;
    let began = Instant::now();
    // Once one is answered its shard knows the group, and nothing is refused because it waits for that.
    let name = hostile.new_client_msg_id();
    let first = hostile.send(Conversation::Group(group), name, b"first").unwrap();
    assert!(matches!(hostile.answer(first, PATIENCE).unwrap(), Event::Sent { .. }));
    let mut sent = Vec::new();
    for _ in 1..SENDS {
        let name = hostile.new_client_msg_id();
        sent.push(hostile.send(Conversation::Group(group), name, &[b'x'; 100]).unwrap());
    }
    let (mut taken, mut refused) = (1, 0);
    for request in sent {
        match hostile.answer(request, PATIENCE).unwrap() {
            Event::Sent { .. } => taken += 1,
            Event::Refused { code: ErrorCode::RetryLater, retry_after_ms, .. } => {
                assert!((1..=1_000).contains(&retry_after_ms), "5,000 rows are earned in a second: {retry_after_ms}");
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    // A message a second is earned, and 20 are there from the start.
    let earned = began.elapsed().as_secs() as usize + 1;
    assert!((20..=20 + earned).contains(&taken), "{taken} of {SENDS} were taken, {earned} were earned");
    assert_eq!(taken + refused, SENDS);
    let rows = (taken * GROUP_MEMBERS_MAX) as u64;
    gateway.wait_until("the refusals are counted", |gateway| {
        metric(gateway, "ringway_limited_total{limit=\"user_rows\"}") == Some(refused as u64)
    });
    assert_eq!(metric(&gateway, "ringway_ledger_rows_total"), Some(rows));

    // Nobody else meets a limit.
    for _ in 0..100 {
        let name = ann.new_client_msg_id();
        let sent = ann.send(Conversation::User(UserId(2)), name, b"hello").unwrap();
        assert!(matches!(ann.answer(sent, PATIENCE).unwrap(), Event::Sent { .. }));
        match bob.next(PATIENCE).unwrap() {
            Some(Event::Row(row)) => assert_eq!(row.body, b"hello"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_stop_leaves_what_the_store_is_owed_to_the_journal_and_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let shortly = ["--shards", "1", "--set", "drain.timeout_s=10"];
    let mut gateway = Gateway::spawn(dir.path(), Gateway::command(dir.path(), &shortly).envs(UNLIMITED));
    let mut sender = gateway.client(1, 1, None);
    let members: Vec<UserId> = (2..=GROUP_MEMBERS_MAX as u64).map(UserId).collect();
    let (group, _) = sender.group_create(&members, PATIENCE).unwrap();
    // Three million rows: far more than any store writes in half of the time that the stop has.
    const MESSAGES: usize = 600;
    let mut sent = Vec::new();
    for _ in 0..MESSAGES {
        let name = sender.new_client_msg_id();
        sent.push(sender.send(Conversation::Group(group), name, b"owed").unwrap());
    }
    for request in sent {
        assert!(matches!(sender.answer(request, PATIENCE).unwrap(), Event::Sent { .. }));
    }
    gateway.terminate();
    assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.log());
    assert!(gateway.log().contains("the journal has the rest"), "{}", gateway.log());
    drop(gateway);

    // Whoever comes after the next start has all of it, wherever it lies.
    let gateway = Gateway::start(dir.path(), &["--shards", "1"]);
    let mut member = gateway.client(4_000, 1, Some(Seq(0)));
    for expected in 1..=MESSAGES as u64 {
        match member.next(PATIENCE).unwrap() {
            Some(Event::Row(row)) => assert_eq!((row.seq, &row.body[..]), (Seq(expected), &b"owed"[..])),
            other => panic!("row {expected}: {other:?}"),
        }
    }
}

/// What creating a group came to.
fn creating(client: &mut Connection, members: &[UserId]) -> Result<GroupId, (ErrorCode, u32)> {
    match client.group_create(members, PATIENCE) {
        Ok((group, _)) => Ok(group),
        Err(ConnectionError::Refused { code, retry_after_ms, .. }) => Err((code, retry_after_ms)),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn groups_made_and_left_behind_count_against_their_maker_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    // Four groups of the largest size, at 150 bytes a member and 500 a group.
    let arguments = ["--shards", "2", "--set", "limits.user_groups_bytes_max=3004000"];
    let gateway = Gateway::start(dir.path(), &arguments);
    let mut hostile = gateway.client(666, 1, None);
    let invented = |round: u64| -> Vec<UserId> {
        (1..GROUP_MEMBERS_MAX as u64).map(|at| UserId((round + 1) * 1_000_000 + at)).collect()
    };
    for round in 0..4 {
        let group = creating(&mut hostile, &invented(round)).unwrap();
        hostile.group_leave(group, PATIENCE).unwrap();
    }
    assert!(hostile.group_list(PATIENCE).unwrap().is_empty());
    assert_eq!(creating(&mut hostile, &invented(5)), Err((ErrorCode::TooManyGroups, 0)));
    let mut ann = gateway.client(1, 1, None);
    creating(&mut ann, &[UserId(2), UserId(3)]).unwrap();
    gateway.kill();

    // From the journal, and then from the store.
    for _ in 0..2 {
        let mut gateway = Gateway::start(dir.path(), &arguments);
        let mut hostile = gateway.client(666, 1, None);
        assert_eq!(creating(&mut hostile, &invented(6)), Err((ErrorCode::TooManyGroups, 0)));
        creating(&mut hostile, &[UserId(1)]).unwrap();
        let mut ann = gateway.client(1, 1, None);
        creating(&mut ann, &invented(7)).unwrap();
        gateway.terminate();
        assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.log());
    }
}

#[test]
fn groups_that_somebody_has_left_behind_are_found_and_collected_and_nobody_elses() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "2"]);
    let (mut hostile, mut ann) = (gateway.client(666, 1, None), gateway.client(1, 1, None));
    let of_ann = creating(&mut ann, &[UserId(666), UserId(2)]).unwrap();
    const LEFT: u64 = 130;
    for round in 0..LEFT {
        let invented: Vec<UserId> = (0..20).map(|at| UserId((round + 1) * 1_000_000 + at)).collect();
        let group = creating(&mut hostile, &invented).unwrap();
        hostile.group_leave(group, PATIENCE).unwrap();
    }
    let with_ann = creating(&mut hostile, &[UserId(1)]).unwrap();
    hostile.group_leave(with_ann, PATIENCE).unwrap();
    assert_eq!(hostile.group_list(PATIENCE).unwrap().len(), 1, "Ann's");
    let mut http = api(dir.path());
    const MADE: &str = "/api/v1/users/666/groups/made";
    let made = http.get(MADE).unwrap();
    assert_eq!(made.json["groups"].as_array().map(Vec::len), Some(LEFT as usize + 1), "{made:?}");
    assert_eq!(made.json["groups"][0]["members_count"], 20);
    let mut calls = Vec::new();
    while calls.last().is_none_or(|left| *left > 0) {
        let collected = http.send_raw("DELETE", MADE, "", b"").unwrap();
        assert_eq!(collected.status, 200, "{collected:?}");
        calls.push(collected.json["left"].as_u64().unwrap());
    }
    assert_eq!(calls, [LEFT + 1 - 100, 0]);
    // Ann has hers, and has been told that she is out of the other one.
    assert_eq!(ann.group_list(PATIENCE).unwrap(), [of_ann]);
    gateway.kill();
    let _gateway = Gateway::start(dir.path(), &["--shards", "2"]);
    let mut http = api(dir.path());
    assert_eq!(http.get(MADE).unwrap().json["groups"].as_array().map(Vec::len), Some(0));
    let made = http.get("/api/v1/users/1/groups/made").unwrap();
    assert_eq!(made.json["groups"][0]["group"], of_ann.0.to_string());
}

#[test]
fn who_makes_groups_without_end_is_told_to_wait_and_nobody_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let limits = ["limits.user_groups_made=1/s, burst 50", "limits.user_members_added=100/s, burst 6000"];
    let mut gateway = Gateway::start(dir.path(), &["--shards", "2", "--set", limits[0], "--set", limits[1]]);
    let (mut hostile, mut ann) = (gateway.client(666, 1, None), gateway.client(1, 1, None));
    let began = Instant::now();
    let (mut made, mut refused) = (0, 0);
    while refused < 20 {
        match creating(&mut hostile, &[]) {
            Ok(group) => {
                hostile.group_leave(group, PATIENCE).unwrap();
                made += 1;
            }
            Err((ErrorCode::RetryLater, 1..=1_000)) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    let earned = began.elapsed().as_secs() as usize + 1;
    assert!((50..=50 + earned).contains(&made), "{made} groups were made, {earned} were earned");
    assert_eq!(creating(&mut ann, &[UserId(666)]).map(drop), Ok(()));

    let group = ann.group_create(&[], PATIENCE).unwrap().0;
    let invented: Vec<UserId> = (1..GROUP_MEMBERS_MAX as u64).map(|at| UserId(1_000_000 + at)).collect();
    ann.group_add(group, &invented, PATIENCE).unwrap();
    match creating(&mut ann, &invented) {
        Err((ErrorCode::RetryLater, wait_ms)) => assert!((20_000..=40_020).contains(&wait_ms), "{wait_ms}"),
        other => panic!("{other:?}"),
    }
    for (limit, times) in [("user_groups_made", 20), ("user_members_added", 1)] {
        let name = format!("ringway_limited_total{{limit=\"{limit}\"}}");
        gateway.wait_until("the refusals are counted", |gateway| metric(gateway, &name) == Some(times));
    }
}

/// Somebody makes groups of these members, each as large as may be, and sends a message to each; behind each, Ann's message
/// to Bob. How long these took in all, each from its sending until Bob had it.
fn beside_groups_of(
    members: &[UserId],
    maker: &mut Connection,
    ann: &mut Connection,
    bob: &mut Connection,
) -> Duration {
    let (mut pending, mut took) = (Vec::new(), Duration::ZERO);
    for (number, members) in members.chunks(GROUP_MEMBERS_MAX - 1).enumerate() {
        let (group, _) = maker.group_create(members, PATIENCE).unwrap();
        // With a message to the group the shards take up its members. Nobody waits for the answer.
        let name = maker.new_client_msg_id();
        pending.push(maker.send(Conversation::Group(group), name, b"to many").unwrap());
        // The next group is made meanwhile, in a frame of its own request id.
        let again = RequestId(1_000_000 + number as u32);
        maker.send_raw(Encoder::new().group_create(again.0, members)).unwrap();
        pending.push(again);

        let began = Instant::now();
        let name = ann.new_client_msg_id();
        let sent = ann.send(Conversation::User(UserId(2)), name, b"hello").unwrap();
        assert!(matches!(ann.answer(sent, COLLIDING_PATIENCE).unwrap(), Event::Sent { .. }));
        match bob.next(COLLIDING_PATIENCE).unwrap() {
            Some(Event::Row(row)) => assert_eq!(row.body, b"hello"),
            other => panic!("{other:?}"),
        }
        took += began.elapsed();
    }
    for request in pending {
        maker.answer(request, COLLIDING_PATIENCE).unwrap();
    }
    took
}

#[test]
fn members_chosen_to_collide_do_not_hold_up_the_messages_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &[]);
    let (mut ann, mut bob) = (gateway.client(1, 1, None), gateway.client(2, 1, None));
    let count = GROUPS * (GROUP_MEMBERS_MAX - 1);
    let mut random = fastrand::Rng::with_seed(7);
    let any: Vec<UserId> = (0..count).map(|_| UserId(random.u64(1_000..))).collect();
    let beside_any = beside_groups_of(&any, &mut gateway.client(665, 1, None), &mut ann, &mut bob);
    let colliding: Vec<UserId> = colliding_ids(count as u64).into_iter().map(UserId).collect();
    let beside_colliding = beside_groups_of(&colliding, &mut gateway.client(666, 1, None), &mut ann, &mut bob);
    eprintln!("beside any members {beside_any:?}, beside colliding ones {beside_colliding:?}");
    assert!(beside_colliding <= beside_any * 5 + GRAIN, "{beside_colliding:?}, beside any members {beside_any:?}");
}
