//! Heartbeats: what a login may ask for, what holds then, and when silence ends a session.

use super::closing;
use super::world::{Client, World};
use ringway_wire::frame::read_server;
use ringway_wire::ids::{DeviceId, Seq};
use ringway_wire::request::{Login, Reply};
use ringway_wire::schema::CloseReason;

/// Logs in and asks for an interval; the client, and what it is told.
fn asking(world: &mut World, user: u64, heartbeat_ms: u32) -> (Client, u32) {
    let client = world.connect(0);
    let token = world.token(user, None);
    let login = Login { token: &token, device: DeviceId(1), cursor: Some(Seq(0)), heartbeat_ms };
    world.frame(client, |encoder| encoder.login_as(1, &login));
    world.settle();
    match read_server(&world.clients[client.0].raw) {
        Ok((1, Reply::LoginOk { heartbeat_ms, .. })) => (client, heartbeat_ms),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_login_is_told_what_it_asked_for_within_the_limits() {
    let mut world = World::with(1, |config| (config.heartbeat_ms, config.heartbeat_max_ms) = (1_000, 4_000));
    for (user, asked, holds) in [(1, 0, 1_000), (2, 500, 1_000), (3, 3_000, 3_000), (4, u32::MAX, 4_000)] {
        assert_eq!(asking(&mut world, user, asked).1, holds, "asked for {asked}");
    }
    // A limit below the usual interval allows nothing else.
    let mut world = World::with(1, |config| (config.heartbeat_ms, config.heartbeat_max_ms) = (5_000, 4_000));
    assert_eq!(asking(&mut world, 1, 4_500).1, 5_000);
}

#[test]
fn a_session_that_asked_for_a_longer_heartbeat_outlives_the_usual_silence_and_not_its_own() {
    let mut world = World::with(1, |config| (config.heartbeat_ms, config.heartbeat_max_ms) = (1_000, 60_000));
    let (patient, _) = asking(&mut world, 5, 3_000);
    let (usual, _) = asking(&mut world, 6, 0);
    world.pass(2_700);
    assert_eq!(closing(&world.got(usual)), Some(CloseReason::HeartbeatTimeout));
    world.pass(4_600);
    assert!(world.is_open(patient), "7.3 s are not two and a half intervals of three seconds");
    world.pass(400);
    assert_eq!(closing(&world.got(patient)), Some(CloseReason::HeartbeatTimeout));
    // Who takes the slot next has not asked for anything.
    let (next, holds) = asking(&mut world, 7, 0);
    assert_eq!((world.conn(next).1.slot, holds), (0, 1_000));
}

#[test]
fn a_heartbeat_that_was_asked_for_holds_on_the_users_own_shard_too() {
    let mut world = World::with(2, |config| (config.heartbeat_ms, config.heartbeat_max_ms) = (1_000, 60_000));
    let user = world.user_on(1, 0);
    assert_eq!(asking(&mut world, user, 3_000).1, 3_000);
    assert_eq!(world.shards[1].counters().sessions, 1);
}
