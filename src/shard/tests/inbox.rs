//! The inbox as a session sees it: in order, without holes, whatever happens in between.

use std::collections::VecDeque;

use super::closing;
use super::world::{Client, Got, World};
use crate::contract::delivery::Delivery;
use crate::contract::ids::{Origin, ShardId};
use crate::contract::store::{StoreAnswer, StoreAsk};
use crate::limits::{PAGES_IN_FLIGHT_MAX, STORE_SILENT_MS, STORE_UNREADABLE_MS, SYNCS_IN_FLIGHT_MAX};
use ringway_wire::ids::{Conversation, Seq, UserId};
use ringway_wire::request::Durability;
use ringway_wire::schema::{CloseReason, ErrorCode};

const TO_5: Conversation = Conversation::User(UserId(5));

fn send_many(world: &mut World, sender: Client, count: usize, body: &[u8]) {
    for request in 0..count {
        world.send_to(sender, request as u32, TO_5, body);
    }
    world.settle();
}

#[test]
fn a_live_session_gets_each_row_once_and_in_order() {
    let mut world = World::new(2);
    let sender = world.login(1, 1, Some(0));
    let client = world.login(5, 1, Some(0));
    send_many(&mut world, sender, 100, b"hello");
    assert_eq!(world.seqs(client), (1..=100).collect::<Vec<_>>());
    let oks: Vec<_> = world.got(sender).into_iter().filter(|got| matches!(got, Got::SendOk { .. })).collect();
    assert_eq!(oks.len(), 100);
    assert_eq!(oks[99], Got::SendOk { request: 99, seq: 100, repeat: false });
}

#[test]
fn the_senders_other_device_gets_the_row_that_send_ok_is_on_the_sending_one() {
    let mut world = World::new(2);
    let sending = world.login(1, 1, Some(0));
    let other = world.login(1, 2, Some(0));
    world.send_to(sending, 9, TO_5, b"hello");
    world.settle();
    assert_eq!(world.got(sending).last(), Some(&Got::SendOk { request: 9, seq: 1, repeat: false }));
    assert_eq!(world.got(other).last(), Some(&Got::Push { seq: 1, sender: 1, body: b"hello".to_vec() }));
    // The answer was the row: the next one comes as a push, without catching up.
    let origin = Origin::default();
    let next = world.ledger.direct_message(UserId(2), UserId(1), b"next", origin);
    world.deliver(next);
    world.settle();
    assert_eq!(world.seqs(sending), [2]);
    assert_eq!(world.shards.iter().map(|shard| shard.counters().fell_behind_total).sum::<u64>(), 0);
}

#[test]
fn a_message_to_oneself_has_one_row() {
    let mut world = World::new(1);
    let sending = world.login(5, 1, Some(0));
    let other = world.login(5, 2, Some(0));
    world.send_to(sending, 9, TO_5, b"note");
    world.settle();
    assert_eq!(world.seqs(sending), [0; 0]);
    assert_eq!(world.seqs(other), [1]);
}

#[test]
fn a_returning_session_reads_pages_and_then_live_rows_without_a_hole() {
    let mut world = World::new(1);
    let sender = world.login(1, 1, Some(0));
    send_many(&mut world, sender, 1_000, b"before");
    world.hold_answers = true;
    let client = world.login(5, 1, Some(10));
    send_many(&mut world, sender, 20, b"meanwhile");
    assert_eq!(world.seqs(client), [0; 0], "a live push never overtakes catching up");
    world.hold_answers = false;
    world.settle();
    send_many(&mut world, sender, 5, b"after");
    assert_eq!(world.seqs(client), (11..=1_025).collect::<Vec<_>>());
    assert_eq!(world.shards[0].counters().sessions_behind, 0);
}

#[test]
fn a_page_that_is_ahead_of_the_deliveries_sends_no_row_twice() {
    let mut world = World::new(1);
    let early = world.ledger.direct_message(UserId(1), UserId(5), b"one", Origin::default());
    let client = world.connect(0);
    world.login_frame(client, 5, 1, Some(0));
    // The ledger answers the login with newest = 1; a second row becomes durable, and the store sees it first.
    world.deliver(early);
    world.hold_answers = true;
    world.settle();
    let late = world.ledger.direct_message(UserId(1), UserId(5), b"two", Origin::default());
    world.held_answers.clear();
    world.hold_answers = false;
    let (shard, conn) = world.conn(client);
    let session = crate::contract::ids::SessionRef { shard, conn };
    let ask = crate::contract::store::StoreAsk::Page {
        session,
        purpose: crate::contract::store::PagePurpose::CatchUp,
        user: UserId(5),
        after: Seq(0),
        rows_max: 256,
    };
    let answer = world.ledger.ask(ask).unwrap();
    world.shards[0].stored(world.now, answer);
    world.deliver(late);
    world.settle();
    assert_eq!(world.seqs(client), [1, 2]);
    let third = world.ledger.direct_message(UserId(1), UserId(5), b"three", Origin::default());
    world.deliver(third);
    world.settle();
    assert_eq!(world.seqs(client), [3]);
}

#[test]
fn a_session_that_is_told_of_a_row_out_of_turn_catches_up_instead_of_skipping() {
    let mut world = World::new(1);
    let client = world.login(5, 1, Some(0));
    let first = world.ledger.direct_message(UserId(1), UserId(5), b"lost on the way", Origin::default());
    drop(first);
    let second = world.ledger.direct_message(UserId(1), UserId(5), b"arrives", Origin::default());
    world.deliver(second);
    world.settle();
    world.pass(200);
    assert_eq!(world.seqs(client), [1, 2]);
}

#[test]
fn sessions_whose_rows_are_in_the_store_and_were_never_delivered_read_them_there() {
    let mut world = World::new(1);
    let clients = [world.login(5, 1, Some(0)), world.login(5, 2, Some(0)), world.login(1, 1, Some(0))];
    drop(world.ledger.direct_message(UserId(1), UserId(5), b"on another node", Origin::default()));
    let newest = [(UserId(5), Seq(1)), (UserId(77), Seq(9))].into();
    world.deliver(vec![(ShardId(0), Delivery::Missed { newest })]);
    world.settle();
    world.pass(200);
    assert_eq!([world.seqs(clients[0]), world.seqs(clients[1])], [[1], [1]]);
    assert_eq!(world.seqs(clients[2]), [0; 0], "nobody has said that this user has missed anything");
    // What comes next goes straight out.
    let next = world.ledger.direct_message(UserId(9), UserId(5), b"here", Origin::default());
    world.deliver(next);
    world.settle();
    assert_eq!(world.seqs(clients[0]), [2]);
    assert_eq!(world.shards[0].counters().fell_behind_total, 2);
}

#[test]
fn what_is_no_longer_kept_is_announced_with_a_gap() {
    let mut world = World::new(1);
    let sender = world.login(1, 1, Some(0));
    send_many(&mut world, sender, 10, b"hello");
    world.ledger.kept_after.insert(UserId(5), Seq(6));
    let client = world.login(5, 1, Some(2));
    let got = world.got(client);
    assert_eq!(got[..2], [Got::LoginOk { last: 10, from: 2 }, Got::Gap(3, 6)]);
    assert_eq!(got.len(), 6);
    assert_eq!(world.shards[0].counters().gaps_total, 1);
    assert_eq!(world.shards[0].counters().sessions_behind, 0);
}

#[test]
fn a_slow_reader_is_capped_and_gets_everything_when_it_reads_again() {
    let mut world = World::with(1, |config| config.stall_timeout_ms = 3_600_000);
    let sender = world.login(1, 1, Some(0));
    let client = world.login(5, 1, Some(0));
    let cap = crate::limits::OUTBOX_BYTES_MAX;
    world.clients[client.0].stalled = true;
    send_many(&mut world, sender, 1_000, &[b'x'; 1_000]);
    assert!(world.waiting(client) <= cap, "{} bytes wait", world.waiting(client));
    assert!(world.waiting(client) > cap / 2, "it was live until the cap");
    assert_eq!(world.shards[0].counters().fell_behind_total, 1);
    assert_eq!(world.got(sender).len(), 1_001, "the sender waits for nobody");
    // It takes a little now and then, and more comes meanwhile.
    for _ in 0..50 {
        world.clients[client.0].takes = 7_777;
        let (shard, conn) = world.conn(client);
        world.write(shard, conn);
        send_many(&mut world, sender, 3, &[b'y'; 500]);
        assert!(world.waiting(client) <= cap);
    }
    world.unstall(client);
    assert_eq!(world.seqs(client), (1..=1_150).collect::<Vec<_>>());
    assert_eq!(world.shards[0].counters().sessions_behind, 0);
    assert_eq!(world.shards[0].counters().outbox_bytes, 0);
}

#[test]
fn large_bodies_go_out_by_reference_and_whole() {
    let mut world = World::new(1);
    let sender = world.login(1, 1, Some(0));
    let client = world.login(5, 1, Some(0));
    world.clients[client.0].stalled = true;
    let bodies: Vec<Vec<u8>> = [1, 1_000, 1_024, 1_025, 5_000, 16_384, 3].iter().map(|len| vec![b'z'; *len]).collect();
    for (request, body) in bodies.iter().enumerate() {
        world.send_to(sender, request as u32, TO_5, body);
    }
    world.settle();
    world.unstall(client);
    let got: Vec<Vec<u8>> = world
        .got(client)
        .into_iter()
        .filter_map(|got| if let Got::Push { body, .. } = got { Some(body) } else { None })
        .collect();
    assert_eq!(got, bodies);
}

#[test]
fn a_slow_reader_whose_peer_acknowledges_what_the_kernel_has_is_not_stalled() {
    let mut world = World::with(1, |config| config.stall_timeout_ms = 2_000);
    let sender = world.login(1, 1, Some(0));
    let client = world.login(5, 1, Some(0));
    world.clients[client.0].stalled = true;
    world.send_to(sender, 1, Conversation::User(UserId(5)), b"waits");
    world.settle();
    // The socket takes nothing for ten seconds, and the peer reads what the kernel had before.
    for left in (0..10).rev() {
        world.unacknowledged = Some(1_000_000 + left * 5_000);
        world.pass(1_000);
        assert!(world.is_open(client), "{left}");
    }
    // It stops reading.
    world.pass(2_600);
    assert!(!world.is_open(client));
}

#[test]
fn a_stalled_connection_is_evicted_after_the_stall_timeout_and_its_memory_is_freed() {
    let mut world = World::with(1, |config| config.stall_timeout_ms = 2_000);
    let sender = world.login(1, 1, Some(0));
    let client = world.login(5, 1, Some(0));
    world.got(client);
    world.clients[client.0].stalled = true;
    send_many(&mut world, sender, 100, &[b'x'; 1_000]);
    // Progress, however small, keeps it.
    for _ in 0..3 {
        world.pass(1_500);
        world.clients[client.0].takes = 10;
        let (shard, conn) = world.conn(client);
        world.write(shard, conn);
    }
    assert!(world.is_open(client));
    world.pass(2_200);
    assert!(!world.is_open(client));
    let counters = world.shards[0].counters();
    use ringway_wire::schema::CloseReason;
    assert_eq!(counters.closes_total[usize::from(CloseReason::SlowReader.0)], 1);
    assert_eq!((counters.outbox_bytes, counters.connections), (0, 1));
}

#[test]
fn send_ok_of_a_session_that_catches_up_comes_at_once_and_its_row_in_its_place() {
    let mut world = World::new(1);
    let sender = world.login(1, 1, Some(0));
    send_many(&mut world, sender, 10, b"before");
    world.hold_answers = true;
    let client = world.login(5, 1, Some(0));
    world.send_to(client, 77, Conversation::User(UserId(1)), b"mine");
    world.settle();
    let got = world.got(client);
    assert_eq!(got[1..], [Got::SendOk { request: 77, seq: 11, repeat: false }]);
    world.hold_answers = false;
    world.settle();
    assert_eq!(world.seqs(client), (1..=11).collect::<Vec<_>>());
}

#[test]
fn a_send_ok_that_is_the_next_row_is_not_sent_again_by_catching_up() {
    let mut world = World::new(1);
    let name = world.name();
    let sender = world.login(1, 1, Some(0));
    world.frame(sender, |encoder| encoder.send(3, TO_5, name, b"hello", Durability::Durable));
    world.hang_up(sender);
    // It comes back without having seen the answer, and asks again: seq 1 is its next row.
    world.hold_answers = true;
    let again = world.login(1, 1, Some(0));
    world.frame(again, |encoder| encoder.send(4, TO_5, name, b"hello", Durability::Durable));
    world.settle();
    assert_eq!(world.got(again)[1..], [Got::SendOk { request: 4, seq: 1, repeat: true }]);
    world.hold_answers = false;
    world.settle();
    assert_eq!(world.got(again), []);
    assert_eq!(world.shards[0].counters().sessions_behind, 0);
}

#[test]
fn while_the_store_is_away_a_session_stays_and_catches_up_later() {
    let mut world = World::new(1);
    let sender = world.login(1, 1, Some(0));
    send_many(&mut world, sender, 10, b"before");
    world.hold_store = true;
    let client = world.login(5, 1, Some(0));
    for _ in 0..5 {
        let (shard, ask) = world.held_asks.pop_front().expect("it asks again");
        world.shards[usize::from(shard.0)].refused_ask(world.now, ask);
        assert!(world.held_asks.is_empty());
        world.pass(200);
    }
    world.hold_store = false;
    world.settle();
    assert_eq!(world.seqs(client), (1..=10).collect::<Vec<_>>());
}

/// The store answers all that is asked of it that it cannot be read.
fn refuse_to_read(world: &mut World) {
    for (shard, ask) in std::mem::take(&mut world.held_asks) {
        let StoreAsk::Page { session, purpose, .. } = ask else { panic!("only pages are asked for") };
        let answer = StoreAnswer::Unavailable { session, purpose: Some(purpose) };
        world.shards[usize::from(shard.0)].stored(world.now, answer);
    }
    world.settle();
}

#[test]
fn a_session_whose_rows_cannot_be_read_for_long_is_told_so_and_a_store_that_is_only_busy_is_waited_for() {
    let mut world = World::new(1);
    let sender = world.login(1, 1, Some(0));
    send_many(&mut world, sender, 10, b"before");
    world.hold_store = true;
    let (unlucky, patient) = (world.login(5, 1, Some(0)), world.login(5, 2, Some(0)));
    // One of the two finds no room in the store's mailbox, again and again, and nobody says that its rows cannot be read.
    let is_patient = |world: &World, ask: &StoreAsk| {
        let (_, conn) = world.conn(patient);
        matches!(ask, StoreAsk::Page { session, .. } if session.conn == conn)
    };
    let mut waited_ms = 0;
    while world.is_open(unlucky) {
        let asks = std::mem::take(&mut world.held_asks);
        let (busy, unreadable): (VecDeque<_>, _) = asks.into_iter().partition(|(_, ask)| is_patient(&world, ask));
        world.held_asks = unreadable;
        refuse_to_read(&mut world);
        busy.into_iter().for_each(|(_, ask)| world.shards[0].refused_ask(world.now, ask));
        world.pass(100);
        waited_ms += 100;
        assert!(waited_ms < 2 * STORE_UNREADABLE_MS, "it is never told");
    }
    assert!(waited_ms >= STORE_UNREADABLE_MS, "a short outage is waited for: {waited_ms} ms");
    assert_eq!(closing(&world.got(unlucky)), Some(CloseReason::StoreUnavailable));
    assert!(world.is_open(patient));
    // The next outage is another one.
    world.hold_store = false;
    world.pass(200);
    assert_eq!(world.seqs(patient), (1..=10).collect::<Vec<_>>());
    assert_eq!(world.shards[0].counters().sessions_behind, 0);
}

#[test]
fn a_session_whose_page_is_never_answered_is_told_so_and_one_that_waits_for_its_turn_behind_it_as_well() {
    let mut world = World::new(1);
    let sender = world.login(1, 1, Some(0));
    // More than may ask at once; the store takes the questions and says nothing.
    let users = 100..100 + PAGES_IN_FLIGHT_MAX as u64 + 3;
    for user in users.clone() {
        world.send_to(sender, user as u32, Conversation::User(UserId(user)), b"before");
    }
    world.pass(200);
    world.hold_store = true;
    let clients: Vec<Client> = users.map(|user| world.login(user, 1, Some(0))).collect();
    let live = world.login(1, 2, None);
    let mut waited_ms = 0;
    while world.is_open(clients[0]) {
        let pages = world.held_asks.iter().filter(|(_, ask)| matches!(ask, StoreAsk::Page { .. }));
        assert_eq!(pages.count(), PAGES_IN_FLIGHT_MAX);
        world.pass(100);
        waited_ms += 100;
        assert!(waited_ms < 2 * STORE_SILENT_MS, "they are never told");
    }
    assert!(waited_ms >= STORE_SILENT_MS, "a slow store is waited for: {waited_ms} ms");
    for client in &clients {
        assert_eq!(closing(&world.got(*client)), Some(CloseReason::StoreUnavailable));
    }
    assert!(world.is_open(live) && world.is_open(sender));
    // When it answers at last, nobody waits for that any more, and whoever comes again is given all.
    world.hold_store = false;
    world.settle();
    let again = world.login(100, 1, Some(0));
    world.settle();
    assert_eq!(world.seqs(again), [1]);
    assert_eq!(world.shards[0].counters().sessions_behind, 0);
}

#[test]
fn history_that_the_store_never_gives_is_to_be_asked_for_again_also_by_those_who_wait_for_their_turn() {
    let mut world = World::new(1);
    let sender = world.login(1, 1, Some(0));
    // More than may ask at once, and one that has asked twice.
    let users = 100..100 + SYNCS_IN_FLIGHT_MAX as u64 + 3;
    for (request, user) in users.clone().flat_map(|user| [user; 3]).enumerate() {
        world.send_to(sender, request as u32, Conversation::User(UserId(user)), b"hello");
    }
    world.settle();
    let clients: Vec<Client> = users.map(|user| world.login(user, 1, Some(3))).collect();
    world.hold_store = true;
    for client in &clients {
        world.got(*client);
        world.frame(*client, |encoder| encoder.sync(7, Seq(0), 5));
    }
    world.frame(clients[0], |encoder| encoder.sync(8, Seq(0), 5));
    let mut waited_ms = 0;
    let told = loop {
        let told = world.got(clients[0]);
        if !told.is_empty() {
            break told;
        }
        world.pass(100);
        waited_ms += 100;
        assert!(waited_ms < 2 * STORE_SILENT_MS, "nobody is told");
    };
    // Time is told by ticks, one a second.
    assert!(waited_ms + 1_000 >= STORE_SILENT_MS, "a slow store is waited for: {waited_ms} ms");
    assert_eq!(told, [Got::Error(7, ErrorCode::RetryLater)]);
    for client in &clients[1..] {
        assert_eq!(world.got(*client), [Got::Error(7, ErrorCode::RetryLater)], "once");
        assert!(world.is_open(*client));
    }
    // A request that has the same number is another one, and what comes at last is no answer to it.
    world.frame(clients[1], |encoder| encoder.sync(7, Seq(2), 5));
    world.hold_store = false;
    world.settle();
    let page = |request, seqs| Got::Page { request, seqs, through: 3, end: true, gap_to: 0 };
    assert_eq!(world.got(clients[1]), [page(7, vec![3])]);
    assert_eq!(world.got(clients[0]), [page(8, vec![1, 2, 3])], "its second request had its own time");
    assert!(clients[2..].iter().all(|client| world.got(*client).is_empty()));
}
