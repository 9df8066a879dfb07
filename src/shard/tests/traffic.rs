//! What one account may send: told when to go on, never silent, and nobody else's concern.

use super::world::{Client, Got, World};
use crate::contract::policies::{Policies, Rules, SessionRules};
use crate::contract::traffic::{TrafficLimit, TrafficLimits};
use crate::limits::THROTTLED_MS_MAX;
use crate::rate::Rate;
use ringway_wire::deframer::Deframer;
use ringway_wire::frame::read_server;
use ringway_wire::ids::{Conversation, GroupId, Seq, UserId};
use ringway_wire::limits::{SERVER_FRAME_BYTES_MAX, SESSION_IN_FLIGHT_MAX};
use ringway_wire::request::{Durability, Reply};
use ringway_wire::schema::{CloseReason, ErrorCode};

const PEER: Conversation = Conversation::User(UserId(900));

fn world(shards: u16, traffic: TrafficLimits) -> World {
    World::with(shards, move |config| config.traffic = traffic)
}

/// How many of so many messages were taken; the others were refused with `RETRY_LATER`.
fn taken(world: &mut World, client: Client, messages: u32, body: &[u8]) -> usize {
    for request in 0..messages {
        world.send_to(client, request, PEER, body);
    }
    world.settle();
    let got = world.got(client);
    let refused = got.iter().filter(|got| matches!(got, Got::Error(_, ErrorCode::RetryLater))).count();
    let taken = got.iter().filter(|got| matches!(got, Got::SendOk { .. })).count();
    assert_eq!(taken + refused, messages as usize, "each gets one answer: {got:?}");
    taken
}

/// When the last refusal that a client got says to send again.
fn retry_after_ms(world: &World, client: Client) -> Option<u32> {
    let (mut deframer, mut input) = (Deframer::default(), &world.clients[client.0].raw[..]);
    let mut last = None;
    while let Some(frame) = deframer.next(&mut input, 1 << 20).unwrap() {
        if let Ok((_, Reply::Error { retry_after_ms, .. })) = read_server(frame) {
            last = Some(retry_after_ms);
        }
    }
    last
}

fn limited(world: &World, limit: TrafficLimit) -> u64 {
    world.shards.iter().map(|shard| shard.counters().limited.of(limit)).sum()
}

fn set_traffic(world: &mut World, traffic: TrafficLimits) {
    let sessions = SessionRules::UNCHANGED;
    world.shards[0].set_rules(Rules { traffic, policies: Policies::default(), sessions }, None);
}

#[test]
fn a_session_that_sends_more_than_it_may_is_told_when_and_is_taken_then() {
    let traffic = TrafficLimits { session_sends: Rate::new(10, 5), ..TrafficLimits::UNLIMITED };
    let mut world = world(1, traffic);
    let client = world.login(1, 1, Some(0));
    world.got(client);
    assert_eq!(taken(&mut world, client, 8, b"x"), 5);
    assert_eq!(retry_after_ms(&world, client), Some(100));
    assert_eq!(limited(&world, TrafficLimit::SessionSends), 3);
    world.pass(80);
    assert_eq!(taken(&mut world, client, 1, b"x"), 0);
    assert_eq!(retry_after_ms(&world, client), Some(20));
    world.pass(20);
    assert_eq!(taken(&mut world, client, 1, b"x"), 1);
    // Another session of the same user has its own.
    let other = world.login(1, 2, Some(0));
    world.got(other);
    assert_eq!(taken(&mut world, other, 8, b"x"), 5);
}

#[test]
fn a_users_sessions_share_what_the_user_may_send_and_a_new_session_brings_no_more() {
    let traffic = TrafficLimits { user_sends: Rate::new(10, 5), ..TrafficLimits::UNLIMITED };
    let mut world = world(2, traffic);
    let phone = world.login(1, 1, Some(0));
    let tablet = world.login(1, 2, Some(0));
    let another = world.login(2, 1, Some(0));
    for client in [phone, tablet, another] {
        world.got(client);
    }
    assert_eq!(taken(&mut world, phone, 3, b"x"), 3);
    world.got(tablet);
    assert_eq!(taken(&mut world, tablet, 3, b"x"), 2);
    assert_eq!(limited(&world, TrafficLimit::UserSends), 1);
    for client in [phone, tablet] {
        world.hang_up(client);
    }
    let again = world.login(1, 1, Some(0));
    world.got(again);
    assert_eq!(taken(&mut world, again, 1, b"x"), 0);
    assert_eq!(taken(&mut world, another, 5, b"x"), 5);
}

#[test]
fn bytes_count_in_messages_and_in_changes_of_groups_and_what_is_refused_costs_nothing() {
    let traffic = TrafficLimits {
        session_bytes: Rate::new(1_000, 1_000),
        user_sends: Rate::new(1, 4),
        ..TrafficLimits::UNLIMITED
    };
    let mut world = world(1, traffic);
    let client = world.login(1, 1, Some(0));
    world.got(client);
    assert_eq!(taken(&mut world, client, 2, &[b'x'; 400]), 2);
    // 200 bytes are left: a message of more is refused, and has not counted as one of the user's four.
    assert_eq!(taken(&mut world, client, 5, &[b'x'; 300]), 0);
    assert_eq!(limited(&world, TrafficLimit::SessionBytes), 5);
    let members: Vec<UserId> = (10..35).map(UserId).collect();
    world.frame(client, |encoder| encoder.group_create(1, &members));
    world.settle();
    assert!(world.got(client).iter().any(|got| matches!(got, Got::GroupOk { .. })), "200 bytes of ids");
    world.frame(client, |encoder| encoder.group_create(2, &members[..1]));
    world.settle();
    assert_eq!(world.got(client), [Got::Error(2, ErrorCode::RetryLater)]);
    world.pass(1_000);
    assert_eq!(taken(&mut world, client, 3, b"x"), 3, "two of four, and one more in a second");
    assert_eq!(limited(&world, TrafficLimit::UserSends), 0);
}

#[test]
fn a_refused_request_is_in_flight_no_more() {
    let traffic = TrafficLimits { session_sends: Rate::new(1, 1), ..TrafficLimits::UNLIMITED };
    let mut world = world(1, traffic);
    let client = world.login(1, 1, Some(0));
    world.got(client);
    assert_eq!(taken(&mut world, client, 3 * u32::from(SESSION_IN_FLIGHT_MAX), b"x"), 1);
    assert_eq!(world.shards[0].counters().shed.in_flight, 0);
}

#[test]
fn ephemeral_messages_count_for_their_sender_and_their_group_where_the_group_lives() {
    let traffic = TrafficLimits {
        user_rows: Rate::new(1_000, 5_000),
        group_rows: Rate::new(100, 40),
        group_sends: Rate::new(1_000, 1_000),
        ..TrafficLimits::UNLIMITED
    };
    let mut world = world(2, traffic);
    let group = world.group_on(0);
    let (near, far) = (world.user_on(0, 0), world.user_on(1, 0));
    let members: Vec<u64> = [near, far].into_iter().chain(10_000..10_018).collect();
    world.ledger.set_members(group, &members);
    let clients = [near, far].map(|user| world.login(user, 1, Some(0)));
    for client in clients {
        world.got(client);
    }
    let typing = |world: &mut World, client, request| {
        let name = world.name();
        let to = Conversation::Group(group);
        world.frame(client, |encoder| encoder.send(request, to, name, b"typing", Durability::Ephemeral));
        world.settle();
        world.got(client)
    };
    assert!(matches!(typing(&mut world, clients[0], 1)[..], [Got::SendOk { .. }]));
    assert!(typing(&mut world, clients[1], 2).iter().any(|got| matches!(got, Got::SendOk { .. })));
    for client in clients {
        let got = typing(&mut world, client, 3);
        assert!(got.contains(&Got::Error(3, ErrorCode::RetryLater)), "{got:?}");
        assert_eq!(retry_after_ms(&world, client), Some(200), "20 members, 100 a second");
    }
    assert_eq!(limited(&world, TrafficLimit::GroupRows), 2);
    world.pass(200);
    assert!(matches!(typing(&mut world, clients[0], 4)[..], [Got::SendOk { .. }]));
}

#[test]
fn limits_can_be_replaced_while_sessions_send() {
    let mut world = world(1, TrafficLimits { user_sends: Rate::new(1, 3), ..TrafficLimits::UNLIMITED });
    let client = world.login(1, 1, Some(0));
    world.got(client);
    assert_eq!(taken(&mut world, client, 4, b"x"), 3);
    set_traffic(&mut world, TrafficLimits::UNLIMITED);
    assert_eq!(taken(&mut world, client, 40, b"x"), 40);
    set_traffic(&mut world, TrafficLimits { user_sends: Rate::new(1_000, 20), ..TrafficLimits::UNLIMITED });
    assert_eq!(taken(&mut world, client, 40, b"x"), 20);
}

#[test]
fn by_default_a_session_may_send_a_hundred_messages_at_once_again_and_again() {
    let mut world = World::new(1);
    let client = world.login(1, 1, Some(0));
    world.got(client);
    for _ in 0..50 {
        assert_eq!(taken(&mut world, client, 100, &[b'x'; 100]), 100);
        world.pass(20);
    }
}

#[test]
fn requests_of_a_session_are_limited_whatever_is_asked_and_an_ack_is_none() {
    let traffic = TrafficLimits { session_requests: Rate::new(10, 5), ..TrafficLimits::UNLIMITED };
    let mut world = world(1, traffic);
    let (client, other) = (world.login(1, 1, Some(0)), world.login(2, 1, Some(0)));
    world.got(client);
    world.got(other);
    for request in 1..=3 {
        world.frame(client, |encoder| encoder.ping(request));
        world.frame(client, |encoder| encoder.group_list_request(100 + request));
        world.frame(client, |encoder| encoder.ack(Seq(0)));
    }
    world.settle();
    let refused: Vec<u32> = world
        .got(client)
        .iter()
        .filter_map(|got| if let Got::Error(request, ErrorCode::RetryLater) = got { Some(*request) } else { None })
        .collect();
    assert_eq!(refused, [103]);
    assert_eq!(limited(&world, TrafficLimit::SessionRequests), 1);
    assert_eq!(taken(&mut world, other, 5, b"x"), 5);
    world.pass(100);
    assert_eq!(taken(&mut world, client, 2, b"x"), 1);
}

#[test]
fn presence_is_counted_by_those_asked_for_and_by_user() {
    let traffic = TrafficLimits { user_presence: Rate::new(100, 300), ..TrafficLimits::UNLIMITED };
    let mut world = world(2, traffic);
    let (phone, tablet, other) = (world.login(1, 1, Some(0)), world.login(1, 2, Some(0)), world.login(2, 1, Some(0)));
    let users: Vec<UserId> = (100..300).map(UserId).collect();
    let asked = |world: &mut World, client, request| {
        world.got(client);
        world.frame(client, |encoder| encoder.presence_request(request, &users));
        world.settle();
        !world.got(client).contains(&Got::Error(request, ErrorCode::RetryLater))
    };
    assert!(asked(&mut world, phone, 1));
    assert!(!asked(&mut world, tablet, 2));
    assert_eq!(retry_after_ms(&world, tablet), Some(1_000));
    assert!(asked(&mut world, other, 3));
    world.pass(1_000);
    assert!(asked(&mut world, tablet, 4));
    assert_eq!(limited(&world, TrafficLimit::UserPresence), 1);
}

#[test]
fn logins_are_limited_by_user_and_the_one_that_is_refused_closes_no_session_that_stands() {
    let traffic = TrafficLimits { user_logins: Rate::new(1, 2), ..TrafficLimits::UNLIMITED };
    let mut world = world(2, traffic);
    let (first, second) = (world.login(1, 1, Some(0)), world.login(1, 2, Some(0)));
    let third = world.login(1, 1, Some(0));
    let closing = world.got(third);
    let Some(Got::Closing { reason: CloseReason::Overloaded, reconnect: Some(after_ms) }) = closing.last() else {
        panic!("{closing:?}")
    };
    assert!((1..=1_000).contains(after_ms), "{after_ms}");
    let other = world.login(2, 1, Some(0));
    for client in [first, second, other] {
        world.got(client);
        assert_eq!(taken(&mut world, client, 1, b"x"), 1);
    }
    assert_eq!(limited(&world, TrafficLimit::UserLogins), 1);
    world.pass(1_000);
    let again = world.login(1, 1, Some(0));
    world.got(again);
    assert_eq!(taken(&mut world, again, 1, b"x"), 1);
}

#[test]
fn who_is_refused_without_end_is_not_read_from_for_a_while_and_is_answered_all_the_same() {
    let traffic =
        TrafficLimits { session_sends: Rate::new(1, 1), user_refusals: Rate::new(10, 5), ..TrafficLimits::UNLIMITED };
    let mut world = world(1, traffic);
    let (client, other) = (world.login(1, 1, Some(0)), world.login(2, 1, Some(0)));
    world.got(client);
    let pile = |world: &mut World, requests: std::ops::Range<u32>| {
        for request in requests {
            world.send_to(client, request, PEER, b"x");
        }
        world.settle();
    };
    pile(&mut world, 0..50);
    let (shard, conn) = world.conn(client);
    assert!(!world.shards[usize::from(shard.0)].wants_read(conn), "it was refused too often");
    assert_eq!(
        world.got(client).len(),
        7,
        "one was taken, five and one more refused, and nothing was done for the rest"
    );
    assert_eq!(limited(&world, TrafficLimit::UserRefusals), 1);
    assert_eq!(world.shards[0].counters().sessions_throttled, 1);
    // It waits as long as the refusal says, then goes on at the rate of refusals.
    world.pass(900);
    assert_eq!(world.got(client), []);
    // Others do not wait, and what is sent to it comes.
    world.send_to(other, 1, Conversation::User(UserId(1)), b"hello");
    world.settle();
    assert!(world.got(other).iter().any(|got| matches!(got, Got::SendOk { .. })));
    assert!(matches!(world.got(client)[..], [Got::Push { .. }]));
    let mut answered = 7;
    // For less than a heartbeat.
    for _ in 0..40 {
        world.pass(1_000);
        answered += world.got(client).len();
    }
    assert_eq!(answered, 50, "each gets its answer");
    assert!(world.is_open(client) && world.shards[0].wants_read(conn), "it is no silent one");
    assert_eq!(world.shards[0].counters().sessions_throttled, 0);
}

#[test]
fn no_refusal_however_late_it_asks_to_come_again_keeps_a_session_unread_for_long() {
    let traffic = TrafficLimits { user_refusals: Rate::new(1, 1), ..TrafficLimits::UNLIMITED };
    let mut world = world(1, traffic);
    let client = world.login(1, 1, Some(0));
    world.got(client);
    // Refused in the ledger, all at once: none of them was read when the first was refused.
    for request in 0..100 {
        world.frame(client, |encoder| encoder.group_leave(request, GroupId(77)));
    }
    world.settle();
    assert_eq!(world.got(client).len(), 100);
    let (_, conn) = world.conn(client);
    world.pass(THROTTLED_MS_MAX - 100);
    assert!(!world.shards[0].wants_read(conn));
    world.pass(200);
    assert!(world.shards[0].wants_read(conn));
}

#[test]
fn long_replies_wait_when_a_user_has_been_sent_as_much_as_may_be_and_nothing_else_does() {
    const BURST: u32 = 2 * SERVER_FRAME_BYTES_MAX as u32;
    let traffic = TrafficLimits { user_bytes_out: Rate::new(BURST / 10, BURST), ..TrafficLimits::UNLIMITED };
    let mut world = world(2, traffic);
    let (phone, other) = (world.login(1, 1, Some(0)), world.login(2, 1, Some(0)));
    let group = world.group_on(1);
    world.ledger.set_members(group, &(1..=5_000).collect::<Vec<_>>());
    for client in [phone, other] {
        world.got(client);
    }
    let infos = |world: &mut World, client| {
        world.settle();
        world.got(client).iter().filter(|got| matches!(got, Got::Members(_))).count()
    };
    for request in 1..=20 {
        world.frame(phone, |encoder| encoder.group_info_request(request, group));
    }
    world.frame(phone, |encoder| encoder.ping(21));
    world.frame(other, |encoder| encoder.group_info_request(1, group));
    assert_eq!(infos(&mut world, other), 1);
    world.settle();
    let got = world.got(phone);
    let sent = got.iter().filter(|got| matches!(got, Got::Members(_))).count();
    // 80 KB each: what is sent leaves room for the longest reply there is.
    assert_eq!(sent, 2);
    assert!(got.contains(&Got::Pong(21)), "what is short does not wait: {got:?}");
    assert!(limited(&world, TrafficLimit::UserBytesOut) > 0);
    // Another device of the same user has no more; and each reply comes when there is room for it.
    let tablet = world.login(1, 2, Some(0));
    world.got(tablet);
    world.frame(tablet, |encoder| encoder.group_info_request(1, group));
    assert_eq!(infos(&mut world, tablet), 0);
    let (mut of_phone, mut of_tablet) = (sent, 0);
    for second in 1..=70 {
        world.pass(1_000);
        of_phone += infos(&mut world, phone);
        of_tablet += infos(&mut world, tablet);
        let bytes = (of_phone + of_tablet) * 80_000;
        assert!(bytes <= (BURST + second * BURST / 10) as usize, "{bytes} after {second} s");
    }
    assert_eq!((of_phone, of_tablet), (20, 1), "none is lost");
}

#[test]
fn what_one_user_sends_to_another_is_bounded_whatever_he_may_send_to_others() {
    let limits = TrafficLimits { conversation_bytes: Rate::new(1_000, 10_000), ..TrafficLimits::UNLIMITED };
    let mut world = World::with(1, |config| config.traffic = limits);
    let (one, other) = (world.login(1, 1, Some(0)), world.login(2, 1, Some(0)));
    let group = world.group_on(0);
    world.ledger.set_members(group, &[1, 2]);
    let refused = |world: &mut World, client, to| {
        world.got(client);
        (0..15).for_each(|request| world.send_to(client, request, to, &[b'x'; 1_000]));
        world.settle();
        let refused = |got: &Got| matches!(got, Got::Error(_, ErrorCode::RetryLater));
        world.got(client).iter().filter(|got| refused(got)).count()
    };
    assert_eq!(refused(&mut world, one, Conversation::User(UserId(2))), 5);
    assert_eq!(refused(&mut world, one, Conversation::User(UserId(2))), 15);
    assert_eq!(refused(&mut world, one, Conversation::User(UserId(3))), 5, "another conversation");
    assert_eq!(refused(&mut world, one, Conversation::Group(group)), 5, "a group is one, too");
    assert_eq!(refused(&mut world, other, Conversation::Group(group)), 5, "another's share of it");
    assert_eq!(refused(&mut world, other, Conversation::User(UserId(1))), 5, "the other way");
    assert_eq!(limited(&world, TrafficLimit::ConversationBytes), 5 + 15 + 5 + 5 + 5 + 5);
    world.pass(2_000);
    assert_eq!(refused(&mut world, one, Conversation::User(UserId(2))), 13, "and as much later as it is earned");
}
