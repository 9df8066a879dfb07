#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use ringway_wire::ids::{Conversation, UserId};
use ringway_wire::request::Durability;
use ringway_wire::schema::ErrorCode;

use crate::shard::tests::world::{Got, Room, World};

#[test]
fn what_no_outlet_has_room_for_is_answered_in_the_same_call() {
    let mut world = World::new(2);
    let alice = world.login(world.user_on(0, 0), 1, None);
    world.got(alice);
    world.room = Room::Full;
    // To the ledger, and over a lane to the group's shard.
    world.send_to(alice, 7, Conversation::User(UserId(world.user_on(0, 1))), b"one");
    let group = world.group_on(1);
    let (name, to) = (world.name(), Conversation::Group(group));
    world.frame(alice, |encoder| encoder.send(8, to, name, b"two", Durability::Ephemeral));
    world.settle();
    let refused = [Got::Error(7, ErrorCode::RetryLater), Got::Error(8, ErrorCode::RetryLater)];
    assert_eq!(world.got(alice), refused);
    assert!(world.held_submissions.is_empty() && world.shards.iter_mut().all(|shard| shard.effects().is_empty()));
}

#[test]
fn a_connection_that_its_shard_has_no_room_for_is_refused_and_not_lost() {
    let mut world = World::new(2);
    world.room = Room::Full;
    let user = world.user_on(1, 0);
    let client = world.connect(0);
    world.login_frame(client, user, 1, None);
    world.settle();
    assert!(!world.is_open(client));
    let got = world.got(client);
    assert!(matches!(got.last(), Some(Got::Closing { .. })), "{got:?}");
    assert_eq!(world.shards[0].counters().connections + world.shards[1].counters().connections, 0);
}
