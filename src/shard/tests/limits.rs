//! Every limit refuses clearly, counts, and lets go again.

use super::closing;
use super::world::{Client, Got, World};
use crate::contract::ids::PeerAddress;
use crate::contract::lane::{HandedOver, Transport};
use crate::contract::memory::Pressure;
use crate::contract::store::StoreAsk;
use crate::contract::traffic::TrafficLimits;
use crate::limits::{
    GREEDY_SESSION_BYTES_MIN, OUTBOX_BYTES_MAX, OUTBOX_REPLY_RESERVE_BYTES, PAGES_IN_FLIGHT_MAX, SYNCS_IN_FLIGHT_MAX,
};
use crate::shard::NotAdopted;
use ringway_wire::frame::Encoder;
use ringway_wire::ids::{Conversation, DeviceId, Seq, UserId};
use ringway_wire::limits::SESSION_IN_FLIGHT_MAX;
use ringway_wire::request::Durability;
use ringway_wire::schema::{CloseReason, ErrorCode};

#[test]
fn connections_above_the_limit_are_refused_with_a_reason() {
    let mut world = World::with(1, |config| config.connections_max = 1);
    let now = world.now;
    let only = world.login(1, 1, Some(0));
    assert_eq!(world.shards[0].accept(now, PeerAddress(1)), Err(CloseReason::Overloaded));
    assert_eq!(world.shards[0].counters().shed.connections, 1);
    assert!(world.shards[0].encode_refusal(now, CloseReason::Overloaded).len() > 8);
    world.hang_up(only);
    assert!(world.shards[0].accept(now, PeerAddress(1)).is_ok());
}

#[test]
fn a_connection_that_cannot_be_adopted_is_told_so_in_its_own_transport() {
    let mut world = World::with(1, |config| config.connections_max = 1);
    world.login(1, 1, Some(0));
    let now = world.now;
    let text = "a limit of the gateway is reached";
    let frame = Encoder::new().closing(9, CloseReason::Overloaded, text, Some(2_000), now.unix_ms).to_vec();
    let handed = |transport, unsent: &[u8]| HandedOver {
        request_id: 9,
        user: UserId(7),
        device: DeviceId(1),
        expires_at_s: 9_999_999_999,
        issued_at_s: 0,
        token: None,
        cursor: Some(Seq(0)),
        heartbeat_ms: 0,
        transport,
        unread: Vec::new(),
        unsent: unsent.to_vec(),
    };
    let tcp = NotAdopted { reason: CloseReason::Overloaded, bytes: frame.clone() };
    assert_eq!(world.shards[0].adopt(now, handed(Transport::Tcp, b"")), Err(tcp));

    // Behind the upgrade that still waits: a binary message with the frame, then a close frame.
    let upgraded = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
    let Err(refused) = world.shards[0].adopt(now, handed(Transport::WebSocket, upgraded)) else { panic!() };
    let message = refused.bytes.strip_prefix(upgraded).unwrap();
    assert_eq!(message[..2], [0x82, frame.len() as u8]);
    assert_eq!(message[2..2 + frame.len()], frame);
    assert_eq!(message[2 + frame.len()], 0x88);
    assert_eq!(world.shards[0].handover_failed(now, &handed(Transport::Tcp, b"")), frame);
    assert_eq!(world.shards[0].counters().closes_total[usize::from(CloseReason::Overloaded.0)], 3);
}

#[test]
fn a_session_with_too_many_open_requests_is_not_read_from_until_half_are_answered_and_does_not_count_as_silent() {
    let mut world = World::with(1, |config| config.heartbeat_ms = 1_000);
    let client = world.login(5, 1, Some(0));
    world.got(client);
    let (_, conn) = world.conn(client);
    let max = u32::from(SESSION_IN_FLIGHT_MAX);
    world.hold_ledger = true;
    for request in 0..max + 3 {
        world.send_to(client, request, Conversation::User(UserId(6)), b"x");
    }
    world.frame(client, |encoder| encoder.ping(max + 3));
    world.settle();
    assert_eq!(world.got(client), [], "nothing is answered, neither is anything refused");
    assert_eq!(world.held_submissions.len(), max as usize);
    assert!(!world.shards[0].wants_read(conn));
    assert_eq!(world.shards[0].counters().shed.in_flight, 1);
    world.pass(10_000);
    assert!(world.is_open(client), "its heartbeats are not read");
    let answer_some = |world: &mut World, count: u32| {
        for _ in 0..count {
            let submission = world.held_submissions.pop_front().unwrap();
            let deliveries = world.ledger.submit(submission);
            world.deliver(deliveries);
        }
        world.settle();
    };
    answer_some(&mut world, max / 2 - 1);
    assert!(!world.shards[0].wants_read(conn));
    answer_some(&mut world, 1);
    assert!(world.shards[0].wants_read(conn));
    assert!(matches!(world.got(client).last(), Some(Got::Pong(_))), "what came behind was read");
    world.hold_ledger = false;
    world.settle();
    assert_eq!(world.got(client).len() as u32, max / 2 + 3);
}

#[test]
fn who_sends_and_never_reads_is_not_read_from_and_its_memory_stays_bounded() {
    let mut world = World::with(1, |config| config.traffic = TrafficLimits::UNLIMITED);
    let client = world.login(5, 1, Some(0));
    world.clients[client.0].stalled = true;
    let ping = Encoder::new().ping(1).to_vec();
    let many: Vec<u8> = ping.iter().copied().cycle().take(ping.len() * 2_000).collect();
    for _ in 0..20 {
        world.send_bytes(client, &many);
        world.settle();
    }
    let (_, conn) = world.conn(client);
    assert!(!world.shards[0].wants_read(conn));
    assert!(world.waiting(client) <= OUTBOX_BYTES_MAX + OUTBOX_REPLY_RESERVE_BYTES);
    world.unstall(client);
    assert!(world.shards[0].wants_read(conn), "reading goes on");
    let pongs = world.got(client).len() - 1;
    assert_eq!(pongs, 40_000, "every request is answered, and none was lost while reading was paused");
}

#[test]
fn pages_are_asked_for_by_at_most_so_many_sessions_at_once_and_all_get_theirs() {
    let mut world = World::new(1);
    let sender = world.login(1, 1, Some(0));
    let users: Vec<u64> = (100..100 + 3 * PAGES_IN_FLIGHT_MAX as u64).collect();
    for user in &users {
        world.send_to(sender, 1, Conversation::User(UserId(*user)), b"x");
    }
    world.settle();
    world.hold_store = true;
    let clients: Vec<_> = users.iter().map(|user| world.login(*user, 1, Some(0))).collect();
    assert_eq!(world.held_asks.len(), PAGES_IN_FLIGHT_MAX);
    assert!(world.held_asks.iter().all(|(_, ask)| matches!(ask, StoreAsk::Page { .. })));
    // Sessions that go while they wait take nobody's turn.
    for client in &clients[..PAGES_IN_FLIGHT_MAX + 10] {
        world.hang_up(*client);
    }
    world.hold_store = false;
    world.settle();
    for client in &clients[PAGES_IN_FLIGHT_MAX + 10..] {
        assert_eq!(world.seqs(*client), [1]);
    }
}

#[test]
fn who_reads_history_does_not_hold_up_those_who_catch_up() {
    let mut world = World::new(1);
    let sender = world.login(1, 1, Some(0));
    let readers: Vec<u64> = (100..100 + 2 * PAGES_IN_FLIGHT_MAX as u64).collect();
    for user in readers.iter().chain(&[5]) {
        world.send_to(sender, 1, Conversation::User(UserId(*user)), b"x");
    }
    world.settle();
    let clients: Vec<_> = readers.iter().map(|user| world.login(*user, 1, Some(1))).collect();
    world.hold_store = true;
    for client in &clients {
        for request in 0..4 {
            world.frame(*client, |encoder| encoder.sync(request, Seq(0), 0));
        }
    }
    world.settle();
    let syncs = |world: &World| world.held_asks.len();
    assert_eq!(syncs(&world), SYNCS_IN_FLIGHT_MAX, "the other pages are for those who catch up");
    let behind = world.login(5, 1, Some(0));
    assert_eq!(syncs(&world), SYNCS_IN_FLIGHT_MAX + 1, "it is asked for at once");
    world.hold_store = false;
    world.settle();
    assert_eq!(world.seqs(behind), [1]);
    for client in &clients {
        let pages = world.got(*client).iter().filter(|got| matches!(got, Got::Page { .. })).count();
        assert_eq!(pages, 4, "and they get theirs");
    }
}

#[test]
fn presence_of_many_asked_for_at_once_comes_as_it_is_read_and_ends_no_session() {
    const ASKED: u32 = 400;
    let mut world = World::new(2);
    let client = world.login(world.user_on(0, 0), 1, Some(0));
    world.got(client);
    world.clients[client.0].stalled = true;
    let users: Vec<UserId> = (0..256).map(|n| UserId(world.user_on(1, n))).collect();
    for user in &users {
        world.login(user.0, 1, Some(0));
    }
    // The replies are 800 KB, more than an outbox and what replies may have beside it.
    let mut encoder = Encoder::new();
    let frames: Vec<u8> = (0..ASKED).flat_map(|request| encoder.presence_request(request, &users).to_vec()).collect();
    world.send_bytes(client, &frames);
    world.settle();
    assert!(world.is_open(client));
    world.unstall(client);
    world.settle();
    let (online, refused): (Vec<Got>, Vec<Got>) =
        world.got(client).into_iter().partition(|got| matches!(got, Got::Online(_)));
    assert_eq!(online.len() + refused.len(), ASKED as usize);
    assert!(online.len() >= 50 && online.iter().all(|got| *got == online[0]), "{}", online.len());
    assert!(refused.iter().all(|got| matches!(got, Got::Error(_, ErrorCode::RetryLater))), "{refused:?}");
}

#[test]
fn at_the_shards_cap_sessions_stop_being_live_and_lose_nothing() {
    let mut world = World::with(1, |config| {
        config.outbox_shard_bytes_max = 1_000_000;
        config.stall_timeout_ms = 3_600_000;
    });
    let sender = world.login(1, 1, Some(0));
    let clients: Vec<_> = (10..30).map(|user| world.login(user, 1, Some(0))).collect();
    for client in &clients {
        world.clients[client.0].stalled = true;
    }
    for _ in 0..200 {
        for user in 10..30 {
            world.send_to(sender, 1, Conversation::User(UserId(user)), &[b'x'; 900]);
        }
        world.settle();
    }
    let counters = world.shards[0].counters();
    assert!(counters.outbox_bytes <= 1_000_000 + 1_000_000 / 8, "{}", counters.outbox_bytes);
    assert!(counters.sessions_behind > 0);
    assert_eq!(world.got(sender).len(), 4_001);
    for client in &clients {
        world.unstall(*client);
    }
    world.pass(1_000);
    for client in &clients {
        assert_eq!(world.seqs(*client), (1..=200).collect::<Vec<_>>());
    }
}

#[test]
fn a_peer_that_does_not_take_its_last_frame_is_cut() {
    let mut world = World::new(1);
    let client = world.login(5, 1, Some(0));
    world.clients[client.0].stalled = true;
    world.frame(client, |encoder| encoder.logout(1));
    world.pass(4_000);
    assert!(world.is_open(client));
    world.pass(1_200);
    assert!(!world.is_open(client));
    assert_eq!(world.shards[0].counters().outbox_bytes, 0);
}

#[test]
fn a_drain_answers_what_is_in_flight_then_tells_everybody_when_to_come_back() {
    let mut world = World::new(1);
    let clients: Vec<_> = (10..30).map(|user| world.login(user, 1, Some(0))).collect();
    let fresh = world.connect(0);
    world.hold_ledger = true;
    world.send_to(clients[0], 1, Conversation::User(UserId(6)), b"x");
    world.settle();
    let now = world.now;
    world.shards[0].drain(now, 10_000);
    assert_eq!(world.shards[0].accept(now, PeerAddress(1)), Err(CloseReason::Draining));
    world.settle();
    let mut after = Vec::new();
    for client in &clients[1..] {
        let Some(Got::Closing { reason: CloseReason::Draining, reconnect: Some(ms) }) = world.got(*client).pop() else {
            panic!("everybody is told");
        };
        after.push(ms);
    }
    assert_eq!(closing(&world.got(fresh)), Some(CloseReason::Draining));
    after.sort_unstable();
    assert!(after[0] < 2_000 && after[18] > 8_000 && after[18] < 10_000, "spread: {after:?}");
    assert!(world.is_open(clients[0]), "its send is not answered yet");
    world.hold_ledger = false;
    world.settle();
    world.pass(40);
    let got = world.got(clients[0]);
    assert_eq!(got[1], Got::SendOk { request: 1, seq: 1, repeat: false });
    assert_eq!(closing(&got), Some(CloseReason::Draining));
    assert_eq!(world.shards[0].counters().connections, 0);
}

#[test]
fn a_drain_does_not_wait_for_ever_for_answers() {
    let mut world = World::new(1);
    let client = world.login(5, 1, Some(0));
    world.hold_ledger = true;
    world.send_to(client, 1, Conversation::User(UserId(6)), b"x");
    world.settle();
    let now = world.now;
    world.shards[0].drain(now, 0);
    world.pass(900);
    assert!(world.is_open(client));
    world.pass(200);
    assert_eq!(closing(&world.got(client)), Some(CloseReason::Draining));
}

#[test]
fn an_idle_session_owns_no_memory_besides_its_records() {
    let mut world = World::new(1);
    let sender = world.login(1, 1, Some(0));
    let client = world.login(5, 1, None);
    for request in 0..10 {
        world.send_to(sender, request, Conversation::User(UserId(5)), &[b'x'; 3_000]);
    }
    world.frame(client, |encoder| encoder.ack(Seq(3)));
    let ping = Encoder::new().ping(1).to_vec();
    world.send_bytes(client, &ping[..3]);
    world.send_bytes(client, &ping[3..]);
    world.settle();
    let (_, conn) = world.conn(client);
    assert!(world.shards[0].is_bare(conn));
    world.send_bytes(client, &ping[..3]);
    assert!(!world.shards[0].is_bare(conn), "the start of a frame is kept");
}

#[test]
fn incomplete_frames_may_hold_only_so_much_memory_altogether() {
    let mut world = World::with(1, |config| config.intake_shard_bytes_max = 100_000);
    let send = Encoder::new()
        .send(
            1,
            Conversation::User(UserId(5)),
            ringway_wire::ids::ClientMsgId::default(),
            &[0; 16_000],
            Durability::Ephemeral,
        )
        .to_vec();
    let clients: Vec<_> = (1..=10).map(|user| world.login(user, 1, Some(0))).collect();
    for client in &clients {
        world.send_bytes(*client, &send[..15_000]);
        world.settle();
        assert!(world.shards[0].counters().intake_bytes <= 100_000);
    }
    assert!(world.is_open(clients[5]));
    assert_eq!(closing(&world.got(clients[9])), Some(CloseReason::Overloaded));
    assert!(world.shards[0].counters().shed.intake > 0);
    for client in &clients {
        world.hang_up(*client);
    }
    assert_eq!(world.shards[0].counters().intake_bytes, 0);
}

#[test]
fn nobody_who_has_not_logged_in_may_announce_a_large_frame() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.send_bytes(client, &20_000u32.to_le_bytes());
    world.settle();
    assert_eq!(closing(&world.got(client)), Some(CloseReason::FrameTooLarge));
}

#[test]
fn a_connection_that_is_not_read_from_but_takes_bytes_lives() {
    let mut world = World::with(1, |config| {
        config.heartbeat_ms = 1_000;
        config.outbox_bytes_max = 128 * 1024;
    });
    let client = world.login(5, 1, Some(0));
    world.clients[client.0].stalled = true;
    let ping = Encoder::new().ping(1).to_vec();
    world.send_bytes(client, &ping.repeat(4_000));
    world.settle();
    let (shard, conn) = world.conn(client);
    assert!(!world.shards[0].wants_read(conn));
    for _ in 0..5 {
        world.pass(2_000);
        world.clients[client.0].takes = 10;
        world.write(shard, conn);
    }
    assert!(world.is_open(client));
    // Two and a half heartbeats without a byte taken, and the time for a last frame that is not taken either.
    world.pass(2_600 + 5_200);
    assert!(!world.is_open(client));
}

#[test]
fn when_memory_is_short_nobody_is_let_in_and_then_those_sessions_end_for_which_most_is_held() {
    let mut world = World::new(1);
    let group = world.group_on(0);
    let users: Vec<u64> = (1..=3).collect();
    world.ledger.set_members(group, &users);
    let clients: Vec<Client> = users.iter().map(|user| world.login(*user, 1, Some(0))).collect();
    // The second does not read.
    world.clients[clients[1].0].stalled = true;
    for request in 0..20 {
        world.send_to(clients[0], request, Conversation::Group(group), &[7; 10_000]);
        world.settle();
    }
    assert!(world.waiting(clients[1]) > GREEDY_SESSION_BYTES_MIN);
    let shut_out = |world: &mut World| {
        let late = world.login(9, 1, Some(0));
        closing(&world.got(late)) == Some(CloseReason::Overloaded)
    };
    let now = world.now;
    world.shards[0].set_pressure(now, Pressure::NoLogins);
    world.settle();
    assert!(shut_out(&mut world));
    assert!(clients.iter().all(|client| world.is_open(*client)), "nobody who is in has to go");
    world.shards[0].set_pressure(now, Pressure::CloseGreediest);
    world.settle();
    assert!(shut_out(&mut world));
    let open: Vec<bool> = clients.iter().map(|client| world.is_open(*client)).collect();
    assert_eq!(open, [true, false, true]);
    let counters = world.shards[0].counters();
    assert_eq!((counters.shed.memory_logins, counters.shed.memory_sessions, counters.memory_pressure), (2, 1, 2));
    world.shards[0].set_pressure(now, Pressure::None);
    assert!(!shut_out(&mut world));
}
