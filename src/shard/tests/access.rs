//! Kicked, banned, their tokens revoked: whose sessions end, and who may come back with what.

use super::closing;
use super::world::{Client, SECRET, World};
use crate::auth::{Minter, token_id};
use crate::contract::access::{AccessFact, AccessOrder, RevokedToken, Standing};
use crate::contract::ids::ShardId;
use ringway_wire::ids::{DeviceId, UserId};
use ringway_wire::schema::CloseReason;

fn state(world: &mut World, order: AccessOrder) {
    let home = ShardId::of_user(order.user(), world.shards.len() as u16);
    world.shards[usize::from(home.0)].apply_access(world.now, order);
    world.settle();
}

fn fact(user: u64, standing: Standing, since_ms: u64) -> AccessOrder {
    AccessOrder::Fact(AccessFact { standing, since_ms, ..AccessFact::none(UserId(user)) })
}

/// The end of the client, if it was closed: why, and that it is not to come back by itself.
fn end(world: &mut World, client: Client) -> Option<CloseReason> {
    let got = world.got(client);
    if let Some(super::world::Got::Closing { reconnect, .. }) = got.last() {
        assert_eq!(*reconnect, None, "not by itself");
        assert!(!world.is_open(client));
    }
    closing(&got)
}

#[test]
fn who_is_banned_is_out_at_once_on_every_device_and_does_not_come_in_until_allowed_again() {
    let mut world = World::new(2);
    let (banned, other) = (world.user_on(1, 0), world.user_on(1, 1));
    let devices = [world.login(banned, 1, Some(0)), world.login(banned, 2, Some(0))];
    let beside = world.login(other, 1, Some(0));
    state(&mut world, fact(banned, Standing::Banned, 10));
    for device in devices {
        assert_eq!(end(&mut world, device), Some(CloseReason::Banned));
    }
    assert!(world.is_open(beside));
    // Over another shard, too.
    let again = world.connect(0);
    world.login_frame(again, banned, 1, Some(0));
    world.settle();
    assert_eq!(end(&mut world, again), Some(CloseReason::Banned));
    // What was stated before changes nothing.
    state(&mut world, fact(banned, Standing::Allowed, 9));
    let again = world.login(banned, 1, Some(0));
    assert_eq!(end(&mut world, again), Some(CloseReason::Banned));
    state(&mut world, fact(banned, Standing::Allowed, 11));
    let again = world.login(banned, 1, Some(0));
    assert_eq!(end(&mut world, again), None);
    assert!(world.is_open(again));
}

#[test]
fn a_login_that_is_not_answered_yet_ends_with_a_ban_too() {
    let mut world = World::new(1);
    world.hold_ledger = true;
    let client = world.login(5, 1, Some(0));
    state(&mut world, fact(5, Standing::Banned, 10));
    assert_eq!(end(&mut world, client), Some(CloseReason::Banned));
    world.hold_ledger = false;
    world.settle();
    assert_eq!(world.shards[0].counters().sessions, 0);
}

#[test]
fn who_is_kicked_may_come_back() {
    let mut world = World::new(1);
    let client = world.login(5, 1, Some(0));
    state(&mut world, AccessOrder::Kick(UserId(5)));
    assert_eq!(end(&mut world, client), Some(CloseReason::Kicked));
    let again = world.login(5, 1, Some(0));
    assert!(world.is_open(again));
}

#[test]
fn revoked_are_the_tokens_of_before_and_those_that_do_not_say_when_they_were_issued() {
    let mut world = World::new(1);
    let now_s = world.now.unix_ms / 1000;
    let client = world.login(5, 1, Some(0));
    let revoked = AccessFact { tokens_from_s: now_s, ..AccessFact::none(UserId(5)) };
    state(&mut world, AccessOrder::Fact(revoked));
    assert_eq!(end(&mut world, client), Some(CloseReason::TokenRevoked));
    // Told again, it ends nobody's session.
    for (issued_at_s, expected) in [
        (None, Some(CloseReason::TokenRevoked)),
        (Some(now_s - 1), Some(CloseReason::TokenRevoked)),
        (Some(now_s), None),
    ] {
        let token = world.token_issued(5, issued_at_s);
        let client = world.connect(0);
        world.frame(client, |encoder| encoder.login(1, &token, DeviceId(1), None));
        world.settle();
        assert_eq!(end(&mut world, client), expected, "issued at {issued_at_s:?}");
        if expected.is_none() {
            state(&mut world, AccessOrder::Fact(revoked));
            assert!(world.is_open(client));
        }
    }
}

#[test]
fn a_kick_that_is_heard_of_late_ends_the_sessions_of_then_and_none_that_began_since() {
    let mut world = World::with(1, |config| config.node = Some(1));
    let before = world.login(5, 1, Some(0));
    let kicked_ms = world.now.unix_ms;
    world.pass(60_000);
    world.frame(before, |encoder| encoder.ping(1));
    let since = world.login(5, 2, Some(0));
    let beside = world.login(6, 1, Some(0));
    for _ in 0..2 {
        state(&mut world, AccessOrder::KickOfThen(UserId(5), kicked_ms));
    }
    assert_eq!(end(&mut world, before), Some(CloseReason::Kicked));
    assert!(world.is_open(since) && world.is_open(beside));
}

#[test]
fn of_one_device_only_the_session_is_ended_that_had_begun_by_then() {
    let mut world = World::with(1, |config| config.node = Some(1));
    let devices = [world.login(5, 1, Some(0)), world.login(5, 2, Some(0))];
    let kicked_ms = world.now.unix_ms;
    let order = AccessOrder::KickDevice(UserId(5), DeviceId(2), kicked_ms);
    state(&mut world, order);
    assert_eq!(end(&mut world, devices[0]), None);
    assert_eq!(end(&mut world, devices[1]), Some(CloseReason::Kicked));
    world.now.unix_ms += crate::limits::CLOCK_SKEW_WARN_MS + 1;
    let again = world.login(5, 2, Some(0));
    // Told again by a node that was not heard.
    state(&mut world, order);
    assert_eq!(end(&mut world, again), None);
}

#[test]
fn a_revoked_token_ends_the_sessions_that_began_with_it_and_begins_no_other() {
    let mut world = World::new(2);
    let user = world.user_on(1, 0);
    let expires_at_s = world.now.unix_ms / 1_000 + 3_600;
    let token = |user: u64, jti: &str| Minter::hs256(SECRET).mint_named(UserId(user), jti, expires_at_s);
    let log_in = |world: &mut World, shard, token: &str, device| {
        let client = world.connect(shard);
        world.frame(client, |encoder| encoder.login(1, token, DeviceId(device), None));
        world.settle();
        client
    };
    let stolen = token(user, "stolen");
    // At home, and over another shard.
    let with_it = [log_in(&mut world, 1, &stolen, 1), log_in(&mut world, 0, &stolen, 2)];
    let beside = [log_in(&mut world, 1, &token(user, "good"), 3), world.login(user, 4, Some(0))];
    let other = world.user_on(1, 1);
    let namesake = log_in(&mut world, 1, &token(other, "stolen"), 1);
    let revoked = RevokedToken { user: UserId(user), token: token_id("stolen"), until_s: expires_at_s };
    state(&mut world, AccessOrder::Token(revoked));
    for client in with_it {
        assert_eq!(end(&mut world, client), Some(CloseReason::TokenRevoked));
    }
    assert!(beside.iter().chain([&namesake]).all(|client| world.is_open(*client)));
    for shard in 0..2 {
        let again = log_in(&mut world, shard, &stolen, 1);
        assert_eq!(end(&mut world, again), Some(CloseReason::TokenRevoked));
    }
    let good = log_in(&mut world, 0, &token(user, "good"), 5);
    assert_eq!(end(&mut world, good), None);
    // A session in a slot of one of before is not taken for it.
    state(&mut world, AccessOrder::Token(revoked));
    assert!(world.is_open(good) && world.is_open(beside[0]) && world.is_open(beside[1]));
}

#[test]
fn revoked_tokens_are_forgotten_when_they_have_expired() {
    let mut world = World::new(1);
    let now_s = world.now.unix_ms / 1_000;
    for round in 0..20 {
        for number in 0..1_000u64 {
            let token = token_id(&format!("{round} {number}"));
            state(
                &mut world,
                AccessOrder::Token(RevokedToken { user: UserId(number), token, until_s: now_s + 10 + round }),
            );
        }
        world.now.unix_ms += 11_000;
    }
    assert!(world.shards[0].access.revoked_count() <= 2_048, "{}", world.shards[0].access.revoked_count());
}
