//! What an operator is shown, and how little of the shard's time it takes.

use std::net::SocketAddr;

use super::world::World;
use crate::contract::ids::{ConnId, Origin, SessionRef, ShardId};
use crate::contract::lane::{LaneAnswer, LaneEnvelope};
use crate::contract::look::{ConnectionState, ConnectionsSeen, Look, LookAsked, SessionsSeen, Wanted};
use crate::limits::LOOK_SLOTS_MAX;
use ringway_wire::ids::{Conversation, Seq, UserId};

/// Every connection has an address of its own.
fn address(conn: ConnId) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1_000 + conn.slot as u16))
}

fn asked(world: &mut World, look: Look, peer: impl FnMut(ConnId) -> Option<SocketAddr>) -> LaneAnswer {
    let api = ShardId::of_api(world.shards.len() as u16);
    let origin = Origin::new(SessionRef { shard: api, conn: ConnId::default() }, 3);
    let shard = &mut world.shards[0];
    shard.look(world.now, LookAsked { origin, look }, peer);
    match shard.effects().lanes.pop_front() {
        Some((to, LaneEnvelope::Answer { origin: back, answer })) if (to, back) == (api, origin) => answer,
        other => panic!("{other:?}"),
    }
}

fn sessions(world: &mut World, user: u64) -> SessionsSeen {
    match asked(world, Look::Sessions(UserId(user)), |conn| Some(address(conn))) {
        LaneAnswer::Sessions(seen) => *seen,
        other => panic!("{other:?}"),
    }
}

fn connections(world: &mut World, from: u32, wanted: Wanted, rows_max: usize) -> (ConnectionsSeen, u32) {
    let mut asked_for = 0;
    let peer = |conn| {
        asked_for += 1;
        Some(address(conn))
    };
    match asked(world, Look::Connections { from, wanted, rows_max }, peer) {
        LaneAnswer::Connections(seen) => (seen, asked_for),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_users_sessions_are_shown_with_their_devices_and_what_they_lack() {
    let mut world = World::new(1);
    let devices = [world.login(5, 1, Some(0)), world.login(5, 2, Some(0))];
    let sender = world.login(6, 1, Some(0));
    world.clients[devices[0].0].stalled = true;
    for number in 1..=40 {
        world.send_to(sender, number, Conversation::User(UserId(5)), &[7; 16_000]);
        world.settle();
    }
    world.frame(devices[1], |encoder| encoder.ack(Seq(40)));
    world.settle();
    world.now.mono_ms += 10_000;
    world.now.unix_ms += 10_000;
    let seen = sessions(&mut world, 5);
    let [newer, older] = &seen.here[..] else { panic!("{seen:?}") };
    let (newer_owner, older_owner) = (newer.owner.unwrap(), older.owner.unwrap());
    assert_eq!((newer_owner.user, newer_owner.device.0, newer.state), (UserId(5), 2, ConnectionState::Live));
    assert_eq!((newer_owner.rows_behind, newer_owner.acknowledged.map(|seq| seq.0)), (0, Some(40)));
    assert_eq!((older_owner.device.0, older.state), (1, ConnectionState::Behind));
    assert!((1..40).contains(&older_owner.rows_behind) && older.outbox_bytes > 0, "{older:?}");
    assert_eq!(newer_owner.since_ms, super::world::START.unix_ms);
    let heard_ago = world.now.unix_ms - newer.heard_ms.unwrap();
    assert!((9_900..=10_100).contains(&heard_ago), "{heard_ago}");
    assert_eq!(newer.peer, Some(address(newer.conn)));
    assert_eq!(sessions(&mut world, 7).here, []);
}

#[test]
fn a_question_looks_at_few_places_however_many_connections_there_are_and_pages_have_each_once() {
    let mut world = World::new(1);
    let count = LOOK_SLOTS_MAX * 2 + 100;
    for _ in 0..count {
        world.connect(0);
    }
    let (mut from, mut seen, mut questions) = (0, Vec::new(), 0);
    loop {
        let (page, asked_for) = connections(&mut world, from, Wanted::default(), 200);
        assert!(page.connections.len() <= 200 && asked_for <= 200, "{asked_for}");
        seen.extend(page.connections.iter().map(|seen| seen.conn.slot));
        questions += 1;
        match page.next {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!(seen, (0..count).collect::<Vec<_>>());
    assert_eq!(questions, count.div_ceil(200));
    // What nobody fits is looked for no longer.
    let live = Wanted { state: Some(ConnectionState::Live), ..Wanted::default() };
    let (page, asked_for) = connections(&mut world, 0, live, 200);
    assert_eq!((page.connections.len(), page.next, asked_for), (0, Some(LOOK_SLOTS_MAX), 0));
    let elsewhere = Wanted { address: Some([10, 0, 0, 1].into()), ..Wanted::default() };
    let (page, asked_for) = connections(&mut world, 0, elsewhere, 200);
    assert_eq!((page.connections.len(), page.next, asked_for), (0, Some(LOOK_SLOTS_MAX), LOOK_SLOTS_MAX));
    let (page, _) = connections(&mut world, u32::MAX, Wanted::default(), 1);
    assert_eq!((page.connections.len(), page.next), (0, None));
}
