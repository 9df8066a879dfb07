//! Ephemeral messages to groups: handed out in parts, in turns, in order, answered when they are out, and bounded.

use super::world::{Client, Got, World};
use crate::contract::delivery::Delivery;
use crate::contract::ids::ShardId;
use crate::contract::lane::{Answers, LaneEnvelope};
use crate::contract::nodes::ToNodes;
use crate::limits::{EPHEMERALS_ACCOUNT_MAX, EPHEMERALS_GROUP_MAX, LANE_ACCOUNT_MAX, TO_NODES_ACCOUNT_MAX};
use ringway_wire::frame::Encoder;
use ringway_wire::ids::{ClientMsgId, Conversation, GroupId, UserId};
use ringway_wire::limits::SESSION_IN_FLIGHT_MAX;
use ringway_wire::request::Durability;
use ringway_wire::schema::ErrorCode;

const PART_BYTES: usize = 16 * 1024;

/// So many users from 10 on, all online on the one shard and all in the group; the parts of a fan-out are small.
fn crowd(members: u64, group: GroupId) -> (World, Vec<Client>) {
    let mut world = World::with(1, |config| config.fanout_part_bytes_max = PART_BYTES);
    let users: Vec<u64> = (10..10 + members).collect();
    world.ledger.set_members(group, &users);
    let clients: Vec<Client> = users.iter().map(|user| world.login(*user, 1, Some(0))).collect();
    // Its roster is here from now on.
    frames(&mut world, clients[0], group, 0..1, b"first");
    world.settle();
    clients.iter().for_each(|client| drop(world.got(*client)));
    world.hold_ephemerals = true;
    (world, clients)
}

/// Sends these requests in one piece, the body of each the request's number behind `body`.
fn frames(world: &mut World, client: Client, group: GroupId, requests: std::ops::Range<u32>, body: &[u8]) {
    let mut encoder = Encoder::new();
    let mut bytes = Vec::new();
    for request in requests {
        let body = [body, &request.to_le_bytes()].concat();
        let to = Conversation::Group(group);
        bytes.extend_from_slice(encoder.send(request, to, ClientMsgId::default(), &body, Durability::Ephemeral));
    }
    world.send_bytes(client, &bytes);
}

/// The numbers of the requests whose messages came.
fn numbers(got: &[Got]) -> Vec<u32> {
    let number = |got: &Got| match got {
        Got::Push { seq: 0, body, .. } => Some(u32::from_le_bytes(*body.last_chunk().unwrap())),
        _ => None,
    };
    got.iter().filter_map(number).collect()
}

#[test]
fn a_flood_of_ephemeral_messages_is_handed_out_in_parts_and_not_where_it_is_read() {
    let group = GroupId(1_000);
    let (mut world, clients) = crowd(200, group);
    frames(&mut world, clients[0], group, 1..51, &[b'f'; 1_000]);
    let waiting = |world: &World| world.shards[0].counters().outbox_bytes as usize;
    assert_eq!(waiting(&world), 0, "nobody was given anything while the flood was read");
    assert_eq!(world.shards[0].counters().ephemerals, 50);
    let mut parts = 0;
    loop {
        let before = waiting(&world);
        if world.shards[0].deliver_ephemerals(world.now).is_none() {
            break;
        }
        // The part, and the rest of a run of the member with whom it ends, and the chunks of the outboxes.
        let given = waiting(&world) - before;
        assert!(given < PART_BYTES + 128 * 1024, "{given} bytes in one part");
        parts += 1;
        world.settle();
    }
    assert!(parts > 100, "{parts} parts");
    let all: Vec<u32> = (1..51).collect();
    for client in &clients[1..] {
        assert_eq!(numbers(&world.got(*client)), all);
    }
    assert!(numbers(&world.got(clients[0])).is_empty(), "not to the sending session");
}

#[test]
fn a_group_message_waits_for_one_part_of_another_groups_flood_and_not_for_all_of_it() {
    let (flooded, quiet) = (GroupId(1_000), GroupId(2_000));
    let (mut world, clients) = crowd(200, flooded);
    world.ledger.set_members(quiet, &[16, 17]);
    frames(&mut world, clients[0], flooded, 1..51, &[b'f'; 1_000]);
    frames(&mut world, clients[6], quiet, 1..2, b"typing");
    world.settle();
    world.shards[0].deliver_ephemerals(world.now).unwrap();
    world.shards[0].deliver_ephemerals(world.now).unwrap();
    world.settle();
    assert!(
        world.got(clients[7]).iter().any(|got| matches!(got, Got::Push { body, .. } if body.starts_with(b"typing")))
    );
    assert!(world.shards[0].has_ephemerals());
}

#[test]
fn ephemeral_messages_count_among_the_requests_in_flight_until_they_are_handed_out() {
    let group = GroupId(1_000);
    let (mut world, clients) = crowd(20, group);
    let max = u32::from(SESSION_IN_FLIGHT_MAX);
    frames(&mut world, clients[0], group, 1..max + 2, b"f");
    world.settle();
    assert_eq!(world.shards[0].counters().ephemerals, u64::from(max), "the last one is not read yet");
    assert_eq!(world.got(clients[0]), []);
    world.hold_ephemerals = false;
    world.settle();
    let answered = world.got(clients[0]);
    assert_eq!(answered.len(), max as usize + 1);
    assert!(answered.iter().all(|got| matches!(got, Got::SendOk { seq: 0, .. })));
}

#[test]
fn what_waits_for_a_group_is_bounded_and_who_sends_more_is_told_to_come_again() {
    let group = GroupId(1_000);
    let (mut world, clients) = crowd(5, group);
    let each = (EPHEMERALS_GROUP_MAX / 4) as u32;
    for client in &clients {
        frames(&mut world, *client, group, 1..each + 1, b"f");
    }
    world.settle();
    assert_eq!(world.shards[0].counters().ephemerals, u64::from(4 * each));
    assert_eq!(world.shards[0].counters().shed.ephemeral, u64::from(each));
    let refused = world.got(clients[4]);
    assert_eq!(refused.len(), each as usize);
    assert!(refused.iter().all(|got| matches!(got, Got::Error(_, ErrorCode::RetryLater))));
    world.hold_ephemerals = false;
    world.settle();
    assert_eq!(world.shards[0].counters().ephemerals, 0);
    assert_eq!(numbers(&world.got(clients[4])).len(), 4 * each as usize);
}

#[test]
fn one_member_of_many_devices_takes_no_other_members_room() {
    let group = GroupId(1_000);
    let (mut world, clients) = crowd(3, group);
    let flooding: Vec<Client> = (2..8).map(|device| world.login(10, device, Some(0))).collect();
    let each = u32::from(SESSION_IN_FLIGHT_MAX);
    flooding.iter().for_each(|client| frames(&mut world, *client, group, 1..each + 1, b"f"));
    frames(&mut world, clients[1], group, 1..2, b"typing");
    world.settle();
    assert_eq!(world.got(clients[1]), [], "it waits, and is not refused");
    assert_eq!(world.shards[0].counters().ephemerals, EPHEMERALS_ACCOUNT_MAX as u64 + 1);
    world.hold_ephemerals = false;
    world.settle();
    assert!(world.got(clients[1]).contains(&Got::SendOk { request: 1, seq: 0, repeat: false }));
    // And once more: nothing is owed of what has gone out.
    frames(&mut world, flooding[0], group, 1..each + 1, b"f");
    world.settle();
    let refused = |got: &Got| matches!(got, Got::Error(..));
    assert_eq!(world.got(flooding[0]).iter().filter(|got| refused(got)).count(), 0);
}

#[test]
fn members_who_come_and_go_between_two_parts_neither_miss_nor_repeat_what_the_others_get() {
    let group = GroupId(1_000);
    let (mut world, clients) = crowd(60, group);
    frames(&mut world, clients[0], group, 1..21, &[b'f'; 1_000]);
    world.shards[0].deliver_ephemerals(world.now).unwrap();
    world.settle();
    assert_eq!(numbers(&world.got(clients[1])).len(), 20);
    // The sender leaves, and one whose turn is to come; another comes in front of everybody.
    let late = world.login(5, 1, Some(0));
    let users: Vec<u64> = std::iter::once(5).chain(11..70).filter(|user| *user != 30).collect();
    let newer = world.ledger.set_members(group, &users);
    let deliveries = world.ledger.group_message(&newer, UserId(11), b"durable", Default::default());
    assert!(matches!(deliveries[0].1, Delivery::Group { .. }));
    world.deliver(deliveries);
    world.hold_ephemerals = false;
    world.settle();
    for user in (12..70).filter(|user| *user != 30) {
        assert_eq!(numbers(&world.got(clients[user - 10])), (1..21).collect::<Vec<_>>(), "user {user}");
    }
    assert!(numbers(&world.got(clients[1])).is_empty(), "again");
    assert!(numbers(&world.got(clients[20])).is_empty());
    assert!(numbers(&world.got(late)).is_empty());
}

#[test]
fn the_shard_with_most_of_the_members_answers_and_so_does_a_lane_to_it_that_is_full() {
    let mut world = World::new(2);
    let group = world.group_on(0);
    let sender = world.user_on(0, 0);
    let there: Vec<u64> = (0..3).map(|n| world.user_on(1, n)).collect();
    let users: Vec<u64> = std::iter::once(sender).chain(there.clone()).collect();
    world.ledger.set_members(group, &users);
    let client = world.login(sender, 1, Some(0));
    let other = world.login(there[0], 1, Some(0));
    frames(&mut world, client, group, 1..2, b"first");
    world.settle();
    drop(world.got(client));
    drop(world.got(other));

    world.hold_ephemerals = true;
    frames(&mut world, client, group, 2..3, b"typing");
    world.settle();
    assert!(world.shards[0].deliver_ephemerals(world.now).is_some());
    world.settle();
    assert_eq!(world.got(client), [], "its own shard has one member, the other three");
    world.hold_ephemerals = false;
    world.settle();
    assert_eq!(world.got(client), [Got::SendOk { request: 2, seq: 0, repeat: false }]);
    assert_eq!(numbers(&world.got(other)), [2]);

    frames(&mut world, client, group, 3..4, b"typing");
    let (to, envelope) = world.shards[0].effects().lanes.pop_front().unwrap();
    assert!(matches!(envelope, LaneEnvelope::Ephemeral { answers: Answers::Here, .. }));
    world.shards[0].refused_lane(world.now, to, envelope);
    world.settle();
    assert_eq!(world.got(client), [Got::Error(3, ErrorCode::RetryLater)]);
}

/// So many ephemeral messages to a user, in one piece.
fn to_user(world: &mut World, client: Client, to: u64, count: u32) {
    let mut encoder = Encoder::new();
    let mut bytes = Vec::new();
    for request in 1..=count {
        let to = Conversation::User(UserId(to));
        bytes.extend_from_slice(encoder.send(request, to, ClientMsgId::default(), b"f", Durability::Ephemeral));
    }
    world.send_bytes(client, &bytes);
}

/// How many were answered, and how many refused for now.
fn answered(world: &mut World, client: Client) -> (usize, usize) {
    let got = world.got(client);
    let count = |is: fn(&Got) -> bool| got.iter().filter(|got| is(got)).count();
    let refused = |got: &Got| matches!(got, Got::Error(_, ErrorCode::RetryLater, ..));
    (count(|got| matches!(got, Got::SendOk { .. })), count(refused))
}

#[test]
fn who_floods_another_shard_has_a_share_of_the_lane_from_tick_to_tick_and_others_go_on() {
    let mut world = World::new(2);
    let (flood, other, there) = (world.user_on(0, 0), world.user_on(0, 1), world.user_on(1, 0));
    let group = (1..).map(GroupId).find(|group| ShardId::of_group(*group, 2) == ShardId(1)).unwrap();
    world.ledger.set_members(group, &[flood, other, there]);
    let (flooding, beside) = (world.login(flood, 1, Some(0)), world.login(other, 1, Some(0)));
    // The group's roster is there from now on.
    frames(&mut world, beside, group, 1..2, b"first");
    world.settle();
    world.got(beside);
    for (round, to_group) in [false, true, false].into_iter().enumerate() {
        let more = LANE_ACCOUNT_MAX as u32 + 100;
        match to_group {
            true => frames(&mut world, flooding, group, 1..more + 1, b"f"),
            false => to_user(&mut world, flooding, there, more),
        }
        to_user(&mut world, beside, there, 1);
        world.settle();
        assert_eq!(answered(&mut world, flooding), (LANE_ACCOUNT_MAX, 100), "round {round}");
        assert_eq!(answered(&mut world, beside), (1, 0), "round {round}");
        world.pass(100);
    }
}

#[test]
fn who_floods_other_nodes_has_a_share_of_what_waits_for_them_from_tick_to_tick() {
    let mut world = World::with(1, |config| config.node = Some(1));
    let group = GroupId(1_000);
    world.ledger.set_members(group, &[5, 6]);
    let (flooding, beside) = (world.login(5, 1, Some(0)), world.login(6, 1, Some(0)));
    let of = |told: &[ToNodes], user: u64| {
        let is_his =
            |told: &&ToNodes| matches!(told, ToNodes::Ephemeral { message, .. } if message.sender == UserId(user));
        told.iter().filter(is_his).count()
    };
    for round in 1..=2 {
        frames(&mut world, flooding, group, 1..TO_NODES_ACCOUNT_MAX as u32 + 101, b"f");
        frames(&mut world, beside, group, 1..2, b"f");
        world.settle();
        assert_eq!(of(&world.to_nodes, 5), round * TO_NODES_ACCOUNT_MAX);
        assert_eq!(of(&world.to_nodes, 6), round);
        world.pass(100);
    }
}
