//! Sessions on other nodes: presence, device policies, ephemeral messages; what other nodes are told.

use std::sync::Arc;

use super::closing;
use super::world::{Client, Got, World};
use crate::contract::device_policy::DevicePolicy;
use crate::contract::ids::ShardId;
use crate::contract::message::Message;
use crate::contract::nodes::{FromNodes, Reach, SessionNews, SessionNotice, ToNodes};
use crate::contract::traffic::TrafficLimits;
use crate::limits::{SESSION_NEWS_MAX, SESSION_NEWS_PER_TICK_MAX};
use ringway_wire::ids::{ClientMsgId, Conversation, DeviceId, GroupId, MsgId, UserId};
use ringway_wire::push::PushFrame;
use ringway_wire::request::Durability;
use ringway_wire::schema::CloseReason;

/// Shards of node 1.
fn node(shards: u16, devices_max: u16, policy: DevicePolicy) -> World {
    World::with(shards, |config| {
        config.node = Some(1);
        config.devices_max = devices_max;
        config.device_policy = policy;
        config.traffic = TrafficLimits::UNLIMITED;
    })
}

fn news(user: u64, device: u64, since_ms: Option<u64>) -> SessionNews {
    SessionNews { user: UserId(user), device: DeviceId(device), since_ms }
}

/// Another node says something of this user.
fn apply_news(world: &mut World, node: u16, stamp: u32, news: SessionNews) {
    let home = ShardId::of_user(news.user, world.shards.len() as u16);
    let envelope = FromNodes::Sessions { node, stamp, news: vec![news] };
    world.shards[usize::from(home.0)].receive_from_nodes(world.now, envelope);
    world.settle();
}

fn online(world: &mut World, client: Client, users: &[u64]) -> Vec<u64> {
    let users: Vec<UserId> = users.iter().copied().map(UserId).collect();
    world.got(client);
    world.frame(client, |encoder| encoder.presence_request(9, &users));
    world.settle();
    match world.got(client).pop() {
        Some(Got::Online(users)) => users,
        other => panic!("expected who is online, got {other:?}"),
    }
}

/// What the shards tell other nodes in the next tick.
fn session_notices(world: &mut World) -> Vec<SessionNotice> {
    world.to_nodes.clear();
    world.pass(20);
    let mut notices = Vec::new();
    for envelope in std::mem::take(&mut world.to_nodes) {
        match envelope {
            ToNodes::Sessions(batch) => notices.extend(batch),
            other => panic!("expected sessions, got {other:?}"),
        }
    }
    notices
}

#[test]
fn presence_tells_of_sessions_on_other_nodes_until_they_end_or_their_node_is_forgotten() {
    let mut world = node(2, 8, DevicePolicy::ReplaceOldest);
    let asker = world.login(1, 1, Some(0));
    let users: Vec<u64> = (2..40).collect();
    assert!(online(&mut world, asker, &users).is_empty());
    for user in &users {
        apply_news(&mut world, 2, 7, news(*user, 1, Some(5)));
        apply_news(&mut world, 3, 8, news(*user, 2, Some(6)));
    }
    assert_eq!(online(&mut world, asker, &users), users);
    // One session of two ends.
    apply_news(&mut world, 2, 7, news(2, 1, None));
    assert_eq!(online(&mut world, asker, &[2]), [2]);
    apply_news(&mut world, 3, 8, news(2, 2, None));
    assert!(online(&mut world, asker, &[2]).is_empty());
    // One node is gone, then the other; one user was told again under a later stamp.
    apply_news(&mut world, 3, 9, news(3, 2, Some(6)));
    for (gone, below, left) in [(2, 8, &users[1..]), (3, 9, &users[1..2])] {
        for shard in &mut world.shards {
            shard.receive_from_nodes(world.now, FromNodes::Forget { node: gone, below });
        }
        assert_eq!(online(&mut world, asker, &users), left, "at once");
        world.pass(20);
        let known: u64 = world.shards.iter().map(|shard| shard.counters().remote_sessions).sum();
        assert_eq!(known, if gone == 2 { left.len() as u64 } else { 1 }, "and swept away");
    }
}

#[test]
fn a_later_login_of_the_device_on_another_node_replaces_the_session_and_an_earlier_one_does_not() {
    let mut world = node(1, 8, DevicePolicy::ReplaceOldest);
    let client = world.login(1, 5, Some(0));
    let began = world.now.unix_ms;
    apply_news(&mut world, 2, 1, news(1, 5, Some(began - 1)));
    apply_news(&mut world, 2, 1, news(1, 6, Some(began + 9)));
    assert!(world.is_open(client), "an earlier login, and one of another device");
    world.got(client);
    apply_news(&mut world, 3, 2, news(1, 5, Some(began + 1)));
    assert_eq!(closing(&world.got(client)), Some(CloseReason::Replaced));
}

#[test]
fn a_login_is_later_than_all_that_its_node_knows_of_whatever_the_clocks_say() {
    let mut world = node(1, 8, DevicePolicy::ReplaceOldest);
    let ahead = world.now.unix_ms + 60_000;
    apply_news(&mut world, 2, 1, news(1, 5, Some(ahead)));
    let client = world.login(1, 5, Some(0));
    assert_eq!(session_notices(&mut world), [SessionNotice::Changed(news(1, 5, Some(ahead + 1)))]);
    // It is told again before it has heard of the login.
    apply_news(&mut world, 2, 1, news(1, 5, Some(ahead)));
    assert!(world.is_open(client));
}

#[test]
fn of_two_logins_at_the_same_moment_the_node_with_the_higher_number_keeps_its() {
    let mut world = node(1, 8, DevicePolicy::ReplaceOldest);
    let client = world.login(1, 5, Some(0));
    let began = world.now.unix_ms;
    apply_news(&mut world, 0, 1, news(1, 5, Some(began)));
    assert!(world.is_open(client));
    apply_news(&mut world, 2, 1, news(1, 5, Some(began)));
    assert_eq!(closing(&world.got(client)), Some(CloseReason::Replaced));
}

#[test]
fn the_oldest_device_goes_on_whichever_node_it_is() {
    let mut world = node(1, 2, DevicePolicy::ReplaceOldest);
    let began = world.now.unix_ms;
    let oldest = world.login(1, 5, Some(0));
    world.pass(20);
    let second = world.login(1, 6, Some(0));
    apply_news(&mut world, 2, 1, news(1, 7, Some(began + 1_000)));
    assert_eq!(closing(&world.got(oldest)), Some(CloseReason::DeviceLimit));
    assert!(world.is_open(second));
    // The oldest is there: a login here closes nobody here, the other node closes its own.
    apply_news(&mut world, 2, 1, news(1, 7, None));
    apply_news(&mut world, 2, 1, news(1, 4, Some(began - 1_000)));
    assert!(world.is_open(second), "two devices, as allowed");
    let third = world.login(1, 8, Some(0));
    assert!(world.is_open(second) && world.is_open(third));
    apply_news(&mut world, 2, 1, news(1, 4, None));
    assert!(world.is_open(second) && world.is_open(third));
}

#[test]
fn a_new_device_is_refused_where_the_policy_says_so_if_the_others_are_on_other_nodes() {
    let mut world = node(1, 2, DevicePolicy::RefuseNew);
    let began = world.now.unix_ms;
    apply_news(&mut world, 2, 1, news(1, 1, Some(began - 5)));
    apply_news(&mut world, 3, 2, news(1, 2, Some(began - 4)));
    let refused = world.login(1, 3, Some(0));
    assert_eq!(closing(&world.got(refused)), Some(CloseReason::DeviceLimit));
    // One of the two devices moves here.
    let moved = world.login(1, 2, Some(0));
    assert!(world.is_open(moved));
    // Two nodes let one in at the same time: the later of them is closed on its node.
    apply_news(&mut world, 2, 1, news(1, 1, None));
    apply_news(&mut world, 3, 2, news(1, 2, None));
    let second = world.login(1, 4, Some(0));
    apply_news(&mut world, 2, 1, news(1, 9, Some(began - 1)));
    assert_eq!(closing(&world.got(second)), Some(CloseReason::DeviceLimit));
    assert!(world.is_open(moved));
}

#[test]
fn nodes_are_told_what_happens_in_its_order_and_everything_when_they_ask() {
    let mut world = node(1, 8, DevicePolicy::ReplaceOldest);
    let began = world.now.unix_ms;
    let first = world.login(1, 5, Some(0));
    let again = world.login(1, 5, Some(0));
    let logged_in = SessionNotice::Changed(news(1, 5, Some(began)));
    assert_eq!(session_notices(&mut world), [logged_in, SessionNotice::Changed(news(1, 5, None)), logged_in]);
    assert!(!world.is_open(first));
    let other = world.login(2, 6, Some(0));
    world.shards[0].receive_from_nodes(world.now, FromNodes::NotifyAll(4));
    world.hang_up(again);
    let later = began + 20;
    assert_eq!(
        session_notices(&mut world),
        [
            SessionNotice::Changed(news(2, 6, Some(later))),
            SessionNotice::Changed(news(1, 5, None)),
            SessionNotice::Repeated(news(2, 6, Some(later))),
            SessionNotice::Through(4),
        ]
    );
    assert!(world.is_open(other));
    assert_eq!(session_notices(&mut world), [], "once");
}

#[test]
fn what_is_refused_is_told_later_and_when_too_much_happens_everything_is_told_again() {
    let mut world = node(1, 8, DevicePolicy::ReplaceOldest);
    let client = world.login(1, 5, Some(0));
    world.login(2, 5, Some(0));
    let first = session_notices(&mut world);
    assert_eq!(first.len(), 2);
    world.hang_up(client);
    world.shards[0].refused_to_nodes(ToNodes::Sessions(first.clone()));
    let all: Vec<SessionNotice> = first.into_iter().chain([SessionNotice::Changed(news(1, 5, None))]).collect();
    assert_eq!(session_notices(&mut world), all);

    // Nobody takes anything, and a device logs in again and again: two pieces of news each time.
    let logins = SESSION_NEWS_MAX / 2 + 1;
    for _ in 0..logins {
        let client = world.login(3, 5, Some(0));
        world.hang_up(client);
    }
    world.to_nodes.clear();
    world.pass(20);
    assert!(matches!(world.to_nodes[..], [ToNodes::Incomplete]), "{} envelopes", world.to_nodes.len());
    world.shards[0].refused_to_nodes(ToNodes::Incomplete);
    world.to_nodes.clear();
    world.pass(20);
    assert!(matches!(world.to_nodes[..], [ToNodes::Incomplete]));
    world.shards[0].receive_from_nodes(world.now, FromNodes::NotifyAll(1));
    let notices = session_notices(&mut world);
    assert!(notices.len() <= SESSION_NEWS_PER_TICK_MAX);
    let again: Vec<&SessionNotice> =
        notices.iter().filter(|notice| matches!(notice, SessionNotice::Repeated(_))).collect();
    assert_eq!(again.len(), 1, "only the second user is left: {notices:?}");
}

fn ephemeral(to: Conversation) -> Arc<Message> {
    let (msg_id, sender, sent_at_ms) = (MsgId(77), UserId(900), 5);
    let push = PushFrame::encode(msg_id, sender, to, sent_at_ms, b"typing");
    Arc::new(Message { msg_id, sender, to, client_msg_id: ClientMsgId::default(), sent_at_ms, push })
}

#[test]
fn an_ephemeral_message_goes_to_the_nodes_where_its_recipient_is_and_comes_from_there() {
    let mut world = node(2, 8, DevicePolicy::ReplaceOldest);
    let (sender, recipient) = (world.user_on(0, 0), world.user_on(1, 0));
    let client = world.login(sender, 1, Some(0));
    let to = Conversation::User(UserId(recipient));
    let name = world.name();
    world.pass(20);
    world.to_nodes.clear();
    world.frame(client, |encoder| encoder.send(5, to, name, b"typing", Durability::Ephemeral));
    world.settle();
    assert!(world.to_nodes.is_empty(), "the recipient is nowhere else");
    apply_news(&mut world, 4, 1, news(recipient, 1, Some(5)));
    apply_news(&mut world, 3, 2, news(recipient, 2, Some(5)));
    apply_news(&mut world, 4, 1, news(recipient, 3, Some(5)));
    world.frame(client, |encoder| encoder.send(6, to, name, b"typing", Durability::Ephemeral));
    world.settle();
    let [ToNodes::Ephemeral { reach, message }] = &world.to_nodes[..] else { panic!("{:?}", world.to_nodes) };
    assert_eq!((reach, message.to), (&Reach::Nodes(vec![3, 4]), to));
    // What comes from another node stays here.
    world.to_nodes.clear();
    let there = world.login(recipient, 9, Some(0));
    world.got(there);
    world.shards[1].receive_from_nodes(world.now, FromNodes::Ephemeral(ephemeral(to)));
    world.settle();
    assert_eq!(world.got(there), [Got::Push { seq: 0, sender: 900, body: b"typing".to_vec() }]);
    assert!(!world.to_nodes.iter().any(|envelope| matches!(envelope, ToNodes::Ephemeral { .. })));
}

#[test]
fn an_ephemeral_message_of_another_node_to_a_group_reaches_the_members_here() {
    let mut world = node(2, 8, DevicePolicy::ReplaceOldest);
    let (one, two) = (world.user_on(0, 0), world.user_on(1, 0));
    let group = world.group_on(0);
    world.ledger.set_members(group, &[one, two, 900]);
    let clients = [world.login(one, 1, Some(0)), world.login(two, 1, Some(0))];
    clients.iter().for_each(|client| drop(world.got(*client)));
    let home = usize::from(ShardId::of_group(group, 2).0);
    // Its roster is not here yet: it is asked for.
    world.shards[home].receive_from_nodes(world.now, FromNodes::Ephemeral(ephemeral(Conversation::Group(group))));
    world.settle();
    for client in clients {
        assert_eq!(world.got(client), [Got::Push { seq: 0, sender: 900, body: b"typing".to_vec() }]);
    }
    // Of no group: dropped, and counted.
    let unknown = GroupId(world.group_on(0).0 + (1 << 40));
    let home = usize::from(ShardId::of_group(unknown, 2).0);
    world.shards[home].receive_from_nodes(world.now, FromNodes::Ephemeral(ephemeral(Conversation::Group(unknown))));
    world.settle();
    assert_eq!(world.shards[home].counters().shed.ephemeral, 1);
}
