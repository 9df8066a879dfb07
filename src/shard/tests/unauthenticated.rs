//! Those who have not logged in have places of their own, and the oldest of them goes first.

use super::closing;
use super::world::{Client, Got, World};
use crate::contract::ids::PeerAddress;
use ringway_wire::schema::CloseReason;

fn open(world: &World, clients: &[Client]) -> Vec<bool> {
    clients.iter().map(|client| world.is_open(*client)).collect()
}

#[test]
fn the_oldest_that_has_not_logged_in_goes_for_the_next() {
    let mut world = World::with(1, |config| config.unauthenticated_max = 3);
    let clients: Vec<Client> = (0..5).map(|at| world.connect_from(0, PeerAddress(at))).collect();
    world.settle();
    assert_eq!(open(&world, &clients), [false, false, true, true, true]);
    assert_eq!(closing(&world.got(clients[0])), Some(CloseReason::Overloaded));
    assert_eq!(world.shards[0].counters().shed.connections_unauthenticated, 2);
    assert_eq!(world.shards[0].counters().connections_unauthenticated, 3);
    // Who logs in, or leaves, makes room; from the middle, from the front and from the end.
    world.login_frame(clients[3], 1, 1, Some(0));
    world.settle();
    assert_eq!(world.got(clients[3]), [Got::LoginOk { last: 0, from: 0 }]);
    world.hang_up(clients[2]);
    world.hang_up(clients[4]);
    assert_eq!(world.shards[0].counters().connections_unauthenticated, 0);
    let more: Vec<Client> = (0..3).map(|_| world.connect(0)).collect();
    world.settle();
    assert_eq!(open(&world, &more), [true; 3]);
}

#[test]
fn an_address_at_its_limit_costs_its_own_oldest_and_nobody_elses() {
    let mut world = World::with(1, |config| config.unauthenticated_per_address_max = 2);
    let (one, other) = (PeerAddress(1), PeerAddress(2));
    let first = world.connect_from(0, other);
    let crowd: Vec<Client> = (0..10).map(|_| world.connect_from(0, one)).collect();
    let second = world.connect_from(0, other);
    world.settle();
    assert_eq!(open(&world, &[first, second]), [true; 2]);
    assert_eq!(open(&world, &crowd).iter().filter(|open| **open).count(), 2);
    assert_eq!(open(&world, &crowd[8..]), [true; 2]);
    assert_eq!(world.shards[0].counters().shed.connections_per_address, 8);
    // A session counts for no address.
    for (at, client) in [crowd[8], crowd[9]].into_iter().enumerate() {
        world.login_frame(client, 10 + at as u64, 1, Some(0));
    }
    world.settle();
    let more: Vec<Client> = (0..2).map(|_| world.connect_from(0, one)).collect();
    world.settle();
    assert_eq!(open(&world, &[crowd[8], crowd[9], more[0], more[1]]), [true; 4]);
}

#[test]
fn who_says_nothing_takes_no_sessions_place() {
    let mut world = World::with(1, |config| config.connections_max = 2);
    let silent: Vec<Client> = (0..50).map(|_| world.connect(0)).collect();
    for user in 1..=2 {
        let client = world.login(user, 1, Some(0));
        assert_eq!(world.got(client), [Got::LoginOk { last: 0, from: 0 }]);
    }
    let now = world.now;
    assert_eq!(world.shards[0].accept(now, PeerAddress(1)), Err(CloseReason::Overloaded));
    // Nor does one who logs in late.
    world.login_frame(silent[7], 3, 1, Some(0));
    world.settle();
    assert_eq!(closing(&world.got(silent[7])), Some(CloseReason::Overloaded));
    assert_eq!(world.shards[0].counters().shed.connections, 2);
    assert_eq!(world.shards[0].counters().sessions, 2);
}

#[test]
fn where_descriptors_are_short_those_go_who_have_said_nothing_for_a_while() {
    let mut world = World::new(1);
    let old: Vec<Client> = (0..16).map(|_| world.connect(0)).collect();
    let now = world.now;
    assert_eq!(world.shards[0].make_room_for_descriptors(now), 0, "they have only just come");
    world.pass(2_000);
    let fresh: Vec<Client> = (0..16).map(|_| world.connect(0)).collect();
    let now = world.now;
    assert_eq!(world.shards[0].make_room_for_descriptors(now), 4, "an eighth of all");
    assert_eq!(world.shards[0].make_room_for_descriptors(now), 4, "they are on their way");
    for _ in 0..20 {
        world.settle();
        world.shards[0].make_room_for_descriptors(now);
    }
    assert!(open(&world, &old).iter().all(|open| !open) && open(&world, &fresh).iter().all(|open| *open));
    assert_eq!(closing(&world.got(old[0])), Some(CloseReason::Overloaded));
}
