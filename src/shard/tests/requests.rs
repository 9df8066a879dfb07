//! Small requests: what each is answered.

use super::world::{Got, World};
use crate::contract::delivery::Delivery;
use crate::contract::ids::ShardId;
use crate::contract::lane::LaneEnvelope;
use crate::contract::policies::{Permission, Policies};
use crate::contract::submission::{ChangeSubmission, Submission};
use crate::shard::AfterWrite;
use ringway_wire::ids::{ClientMsgId, Conversation, DeviceId, GroupId, Seq, UserId};
use ringway_wire::limits::{BODY_BYTES_MAX, GROUP_MEMBERS_MAX, PRESENCE_USERS_MAX};
use ringway_wire::request::Durability;
use ringway_wire::schema::ErrorCode;

#[test]
fn presence_is_gathered_from_all_shards_and_answered_in_the_order_asked() {
    let mut world = World::new(3);
    let users: Vec<u64> = (0..3).flat_map(|shard| [world.user_on(shard, 0), world.user_on(shard, 1)]).collect();
    let asker = world.login(users[0], 1, Some(0));
    for user in [users[1], users[2], users[5]] {
        world.login(user, 1, Some(0));
    }
    world.got(asker);
    let asked: Vec<UserId> =
        [users[5], users[4], users[2], users[3], users[1], users[0]].into_iter().map(UserId).collect();
    world.frame(asker, |encoder| encoder.presence_request(4, &asked));
    world.settle();
    assert_eq!(world.got(asker), [Got::Online(vec![users[5], users[2], users[1], users[0]])]);
}

#[test]
fn a_presence_question_that_a_shard_does_not_answer_is_given_up() {
    let mut world = World::new(2);
    let user = world.user_on(0, 0);
    let asker = world.login(user, 1, Some(0));
    world.got(asker);
    let asked = [UserId(world.user_on(1, 0))];
    world.frame(asker, |encoder| encoder.presence_request(4, &asked));
    let (to, envelope) = world.shards[0].effects().lanes.pop_front().unwrap();
    assert!(matches!((to, &envelope), (ShardId(1), LaneEnvelope::Presence { .. })));
    world.pass(2_500);
    assert_eq!(world.got(asker), [Got::Error(4, ErrorCode::RetryLater)]);
    world.frame(asker, |encoder| encoder.presence_request(5, &asked));
    let (to, envelope) = world.shards[0].effects().lanes.pop_front().unwrap();
    world.shards[0].refused_lane(world.now, to, envelope);
    world.settle();
    assert_eq!(world.got(asker), [Got::Error(5, ErrorCode::RetryLater)]);
}

#[test]
fn sync_reads_history_without_moving_the_session() {
    let mut world = World::new(1);
    let sender = world.login(1, 1, Some(0));
    let client = world.login(5, 1, Some(0));
    for request in 0..10 {
        world.send_to(sender, request, Conversation::User(UserId(5)), b"hello");
    }
    world.settle();
    world.got(client);
    world.ledger.kept_after.insert(UserId(5), Seq(2));
    world.frame(client, |encoder| encoder.sync(7, Seq(0), 4));
    world.frame(client, |encoder| encoder.sync(8, Seq(6), 0));
    world.frame(client, |encoder| encoder.sync(9, Seq(10), 5));
    world.frame(client, |encoder| encoder.sync(10, Seq(11), 5));
    world.settle();
    let mut got = world.got(client);
    got.sort_by_key(|got| match got {
        Got::Page { request, .. } | Got::Error(request, _) => *request,
        _ => 0,
    });
    assert_eq!(
        got,
        [
            Got::Page { request: 7, seqs: vec![3, 4, 5, 6], through: 6, end: false, gap_to: 2 },
            Got::Page { request: 8, seqs: vec![7, 8, 9, 10], through: 10, end: true, gap_to: 0 },
            Got::Page { request: 9, seqs: vec![], through: 10, end: true, gap_to: 0 },
            Got::Error(10, ErrorCode::SeqAhead),
        ]
    );
    world.send_to(sender, 11, Conversation::User(UserId(5)), b"next");
    world.settle();
    assert_eq!(world.seqs(client), [11]);
}

#[test]
fn acknowledgements_coalesce_and_reach_the_store_within_a_second() {
    let mut world = World::new(1);
    let sender = world.login(1, 1, Some(0));
    let client = world.login(5, 3, Some(0));
    for request in 0..10 {
        world.send_to(sender, request, Conversation::User(UserId(5)), b"hello");
    }
    world.settle();
    world.got(client);
    for seq in [3, 9, 7] {
        world.frame(client, |encoder| encoder.ack(Seq(seq)));
    }
    world.frame(client, |encoder| encoder.ack(Seq(11)));
    world.pass(1_100);
    assert_eq!(world.got(client), [Got::Error(0, ErrorCode::SeqAhead)]);
    assert_eq!(world.ledger.cursors[&(UserId(5), DeviceId(3))], Seq(9));
}

#[test]
fn refused_cursors_are_kept_and_sent_again() {
    let mut world = World::new(1);
    let sender = world.login(1, 1, Some(0));
    world.send_to(sender, 1, Conversation::User(UserId(5)), b"hello");
    world.settle();
    world.hold_store = true;
    world.frame(sender, |encoder| encoder.ack(Seq(1)));
    world.pass(1_100);
    let (_, ask) = world.held_asks.pop_front().expect("the cursors");
    world.shards[0].refused_ask(world.now, ask);
    world.hold_store = false;
    world.pass(1_100);
    assert_eq!(world.ledger.cursors[&(UserId(1), DeviceId(1))], Seq(1));
}

#[test]
fn what_is_out_of_range_is_answered_and_the_connection_stays() {
    let mut world = World::new(1);
    let client = world.login(5, 1, Some(0));
    world.got(client);
    let name = world.name();
    let to = Conversation::User(UserId(1));
    let mut check = |code, encode: &mut dyn FnMut(&mut ringway_wire::frame::Encoder) -> Vec<u8>| {
        let bytes = encode(&mut ringway_wire::frame::Encoder::new());
        world.send_bytes(client, &bytes);
        world.settle();
        assert_eq!(world.got(client), [Got::Error(3, code)]);
        assert!(world.is_open(client));
    };
    check(ErrorCode::BodyTooLarge, &mut |e| {
        e.send(3, to, name, &[0; BODY_BYTES_MAX + 1], Durability::Durable).to_vec()
    });
    check(ErrorCode::BadRequest, &mut |e| e.send(3, to, name, b"", Durability::Durable).to_vec());
    check(ErrorCode::ClientMsgIdInvalid, &mut |e| {
        e.send(3, to, ClientMsgId([1; 16]), b"x", Durability::Durable).to_vec()
    });
    check(ErrorCode::AlreadyLoggedIn, &mut |e| e.login(3, "token", DeviceId(1), None).to_vec());
    let many: Vec<UserId> = (0..=GROUP_MEMBERS_MAX as u64).map(UserId).collect();
    check(ErrorCode::TooManyMembers, &mut |e| e.group_create(3, &many).to_vec());
    check(ErrorCode::BadRequest, &mut |e| e.group_add(3, ringway_wire::ids::GroupId(1), &[]).to_vec());
    let many = &many[..=PRESENCE_USERS_MAX];
    check(ErrorCode::BadRequest, &mut |e| e.presence_request(3, many).to_vec());
    let group = ringway_wire::ids::GroupId(4);
    check(ErrorCode::UnknownGroup, &mut |e| e.group_leave(3, group).to_vec());
}

#[test]
fn large_changes_of_groups_are_in_the_ledger_one_at_a_time_and_keep_their_order() {
    let mut world = World::new(1);
    let client = world.login(5, 1, Some(0));
    world.got(client);
    world.hold_ledger = true;
    let many: Vec<UserId> = (100..1_100).map(UserId).collect();
    let group = GroupId(77);
    world.frame(client, |encoder| encoder.group_create(1, &many));
    world.frame(client, |encoder| encoder.group_add(2, group, &many));
    world.frame(client, |encoder| encoder.group_remove(3, group, &many[..1]));
    // These ask for nothing that is large.
    world.frame(client, |encoder| encoder.ping(4));
    world.settle();
    assert_eq!(world.held_submissions.len(), 1, "{:?}", world.held_submissions);
    assert_eq!(world.got(client), [Got::Pong(4)]);
    let mut asked = Vec::new();
    while let Some(submission) = world.held_submissions.pop_front() {
        let Submission::Change(ChangeSubmission { origin, .. }) = &submission else { panic!("{submission:?}") };
        asked.push(origin.request_id);
        let refused = Delivery::Refused { origin: *origin, code: ErrorCode::NotAllowed, retry_after_ms: 0 };
        world.deliver(vec![(ShardId(0), refused)]);
        world.settle();
    }
    assert_eq!(asked, [1, 2, 3]);
    // Small ones do not wait for each other.
    for request in 5..15 {
        world.frame(client, |encoder| encoder.group_create(request, &many[..10]));
    }
    world.settle();
    assert_eq!(world.held_submissions.len(), 10);
}

#[test]
fn what_nobody_may_do_is_refused_and_the_rest_is_not() {
    type Adjust = fn(&mut Policies);
    let cases: [(Adjust, &[u32]); 5] = [
        (|_| {}, &[]),
        (|policies| policies.direct_messages = Permission::Nobody, &[1]),
        (|policies| policies.group_creation = Permission::Nobody, &[3, 4, 8]),
        (|policies| policies.adding_members = Permission::Nobody, &[4, 5, 8, 9]),
        (|policies| policies.presence = Permission::Nobody, &[6]),
    ];
    for (adjust, expected) in cases {
        let mut world = World::with(1, |config| adjust(&mut config.policies));
        let client = world.login(5, 1, Some(0));
        let group = world.group_on(0);
        world.ledger.set_members(group, &[5, 6]);
        world.got(client);
        world.hold_ledger = true;
        let others = [UserId(6)];
        world.send_to(client, 1, Conversation::User(UserId(6)), b"to another");
        world.send_to(client, 2, Conversation::User(UserId(5)), b"to oneself");
        world.frame(client, |encoder| encoder.group_create(3, &[]));
        world.frame(client, |encoder| encoder.group_create(4, &others));
        world.frame(client, |encoder| encoder.group_add(5, group, &others));
        world.frame(client, |encoder| encoder.presence_request(6, &others));
        world.frame(client, |encoder| encoder.group_remove(7, group, &others));
        world.frame(client, |encoder| encoder.group_create_best_effort(8, &others));
        world.frame(client, |encoder| encoder.group_add_best_effort(9, group, &others));
        world.settle();
        let refused = |got: Got| match got {
            Got::Error(request, ErrorCode::NotAllowed) => Some(request),
            Got::Online(_) => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(world.got(client).into_iter().filter_map(refused).collect::<Vec<_>>(), expected);
        let submitted = 8 - expected.iter().filter(|request| **request != 6).count();
        assert_eq!(world.held_submissions.len(), submitted, "the others go on");
    }
}

#[test]
fn among_those_who_share_a_group_presence_is_told_and_ephemeral_messages_come_and_among_others_not() {
    let mut world = World::with(2, |config| {
        config.policies.presence = Permission::SharedGroup;
        config.policies.direct_messages = Permission::SharedGroup;
    });
    let group = world.group_on(0);
    world.ledger.set_members(group, &[5, 6]);
    let clients: Vec<_> = [5, 6, 7].into_iter().map(|user| world.login(user, 1, Some(0))).collect();
    for client in &clients {
        world.got(*client);
    }
    world.frame(clients[0], |encoder| encoder.presence_request(1, &[UserId(7), UserId(6), UserId(5)]));
    world.settle();
    assert_eq!(world.got(clients[0]), [Got::Online(vec![6, 5])]);
    let typing = |world: &mut World, client, request, to| {
        let (to, name) = (Conversation::User(UserId(to)), ClientMsgId::default());
        world.frame(client, |encoder| encoder.send(request, to, name, b"typing", Durability::Ephemeral));
        world.settle();
    };
    typing(&mut world, clients[0], 2, 6);
    assert!(matches!(world.got(clients[0])[..], [Got::SendOk { .. }]));
    assert!(matches!(world.got(clients[1])[..], [Got::Push { seq: 0, .. }]));
    typing(&mut world, clients[2], 3, 6);
    assert_eq!(world.got(clients[2]), [Got::Error(3, ErrorCode::NotAllowed)]);
    typing(&mut world, clients[2], 4, 7);
    assert!(matches!(world.got(clients[2])[..], [Got::SendOk { .. }]), "to oneself one may");
    assert_eq!(world.got(clients[1]), []);
    // A ledger that has no room for the question is told of like any other.
    world.hold_ledger = true;
    typing(&mut world, clients[0], 5, 6);
    world.refuse_next_submission(ShardId::of_user(UserId(5), 2).0);
    world.settle();
    assert_eq!(world.got(clients[0]), [Got::Error(5, ErrorCode::RetryLater)]);
}

#[test]
fn a_reader_however_fast_gets_one_long_reply_after_the_other_and_not_all_in_one_turn() {
    let mut world = World::new(1);
    let client = world.login(5, 1, Some(0));
    let group = world.group_on(0);
    world.ledger.set_members(group, &(1..=5_000).collect::<Vec<_>>());
    world.got(client);
    world.clients[client.0].stalled = true;
    for request in 0..100 {
        world.frame(client, |encoder| encoder.group_info_request(request, group));
    }
    world.settle();
    let (_, conn) = world.conn(client);
    for _ in 0..10 {
        let waits = world.waiting(client);
        assert!(waits > 0);
        let now = world.now;
        assert_eq!(world.shards[0].written(now, conn, waits), AfterWrite::Drained, "others have their turns now");
        world.settle();
    }
}
