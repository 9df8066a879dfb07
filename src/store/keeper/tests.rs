//! The keeper with a real SQLite file and a journal on a disk in memory, against a naive model of all inboxes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

pub(super) mod world;

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_lite::future::block_on;
use tempfile::TempDir;

use super::*;
use crate::contract::cause::Cause;
use crate::contract::digest::digest;
use crate::contract::ids::{Origin, SessionRef};
use crate::contract::position::{AppliedPosition, StreamDigest};
use crate::contract::store::{
    CursorRow, Lookup, LookupFound, NewestRow, Page, PagePurpose, StoredGroup, StoredMessage,
};
use crate::contract::store::{StorePosition, Stored};
use crate::journal::batch::Batch;
use crate::journal::memory_disk::MemoryDisk;
use crate::journal::record::{ChangeRecord, DirectRecord, GroupRecord, Record, RosterRecord, RosterRecordMember};
use crate::journal::segment::Journal;
use crate::journal::varint;
use crate::limits::{BATCH_ROWS, STORE_RETRY_FIRST_MS, STORE_RETRY_MAX_MS};
use crate::store::sqlite::SqliteStore;
use crate::store::{NamesFound, PageWanted, Transaction, pages_in_turn, snapshot_alone};
use ringway_wire::ids::{ClientMsgId, Conversation, DeviceId, GroupId, MsgId, RosterVersion, Seq, UserId};
use ringway_wire::limits::PAGE_BYTES_MAX;
use ringway_wire::schema::{GroupChangeKind, Role};
use world::{Flaky, USERS, World};

fn at(mono_ms: u64) -> Now {
    Now { mono_ms, unix_ms: 0 }
}

fn ask(user: u64, after: u64, rows_max: u16) -> StoreAsk {
    let (session, purpose) = (SessionRef::default(), PagePurpose::CatchUp);
    StoreAsk::Page { session, purpose, user: UserId(user), after: Seq(after), rows_max }
}

/// The page, or `None` if it is unavailable.
fn read(keeper: &mut Keeper<Flaky, MemoryDisk>, user: u64, after: u64, rows_max: u16) -> Option<Page> {
    match block_on(keeper.ask(ask(user, after, rows_max))) {
        Some((_, StoreAnswer::Page { page, .. })) => Some(page),
        Some((_, StoreAnswer::Unavailable { .. })) => None,
        other => panic!("{other:?}"),
    }
}

fn rows(page: &Page) -> Vec<(u64, MsgId, Vec<u8>)> {
    page.rows.iter().map(|(seq, message)| (seq.0, message.msg_id, message.push.body().to_vec())).collect()
}

fn check_page(world: &mut World, keeper: &mut Keeper<Flaky, MemoryDisk>) {
    let user = world.rng.u64(0..USERS);
    let after = world.rng.u64(0..=world.inboxes[&user].len() as u64);
    let rows_max = world.rng.u16(1..20);
    let page = read(keeper, user, after, rows_max).expect("the store is there");
    assert_eq!(rows(&page), world.expected(user, after, usize::from(rows_max)), "user {user} after {after}");
    assert_eq!(page.gap_to, None);
}

fn check_lookup(world: &mut World, keeper: &mut Keeper<Flaky, MemoryDisk>) {
    let known: Vec<_> = world.names.keys().copied().collect();
    let (sender, client_msg_id) = match world.rng.choice(&known) {
        Some(known) if world.rng.u8(..) < 200 => *known,
        _ => (world.rng.u64(0..USERS), world.name()),
    };
    let answer = block_on(keeper.lookup(Lookup { sender: UserId(sender), client_msg_id, generation: 0 }));
    let expected = world.names.get(&(sender, client_msg_id));
    assert_eq!(answer.found, expected.map_or(LookupFound::Nothing, |stored| LookupFound::Stored(*stored)));
}

/// Turns until all is applied.
fn settle(keeper: &mut Keeper<Flaky, MemoryDisk>, mut now_ms: u64) -> u64 {
    for _ in 0..10_000 {
        now_ms += 1_000;
        match block_on(keeper.turn(at(now_ms))) {
            Turn::Idle if keeper.is_settled() => return now_ms,
            Turn::RetryAt(retry_ms) => now_ms = retry_ms,
            _ => {}
        }
    }
    panic!("it never settles");
}

fn random_history(seed: u64) {
    let mut world = World::new(seed);
    let mut keeper = world.keeper();
    let mut now_ms = 0;
    keeper.rows.set(7);
    for _ in 0..400 {
        now_ms += world.rng.u64(0..400);
        match world.rng.u8(0..100) {
            0..30 => world.commit(),
            30..50 => {
                keeper.store.slowness = (world.rng.u32(0..4), world.rng.u32(0..4));
                block_on(keeper.turn(at(now_ms)));
            }
            50..75 => check_page(&mut world, &mut keeper),
            75..90 => check_lookup(&mut world, &mut keeper),
            90..94 => keeper.store.lose_answer = true,
            94..96 => keeper.store.writes_fail = !keeper.store.writes_fail,
            96..98 => world.begin_segment(),
            _ => {
                drop(keeper);
                keeper = world.keeper();
                keeper.rows.set(world.rng.usize(1..30));
            }
        }
    }
    keeper.store.writes_fail = false;
    settle(&mut keeper, now_ms);
    assert_eq!(keeper.counters().tail_weight, 0);
    for (user, inbox) in &world.inboxes {
        let page = read(&mut keeper, *user, 0, 256).unwrap();
        assert_eq!(rows(&page), world.expected(*user, 0, 256), "{} rows of user {user}", inbox.len());
    }
    let mut groups = Vec::new();
    block_on(keeper.store.groups(&mut |group| groups.push(group))).unwrap();
    assert_eq!(groups, world.expected_groups());
    let position = block_on(keeper.store.position()).unwrap();
    assert_eq!(position.msg_id_max, if world.names.is_empty() { MsgId(0) } else { MsgId(world.next_id << 20) });
}

#[test]
fn pages_and_lookups_are_complete_at_every_applied_position() {
    for seed in 0..16 {
        random_history(seed);
    }
}

#[test]
fn while_the_database_is_away_what_is_in_the_tail_can_be_read_and_the_rest_is_refused() {
    let mut world = World::new(1);
    let mut keeper = world.keeper();
    for _ in 0..10 {
        world.commit();
    }
    let now_ms = settle(&mut keeper, 0);
    let applied: HashMap<u64, u64> = world.inboxes.iter().map(|(user, inbox)| (*user, inbox.len() as u64)).collect();
    keeper.store.away = true;
    for _ in 0..10 {
        world.commit();
    }
    let (mut newer, mut older) = (0, 0);
    for (user, inbox) in &world.inboxes {
        let after = applied[user];
        if inbox.len() as u64 > after {
            newer += 1;
            let page = read(&mut keeper, *user, after, 256).expect("its rows are in the tail");
            assert_eq!(rows(&page), world.expected(*user, after, 256));
        }
        if after > 0 {
            older += 1;
            assert!(read(&mut keeper, *user, after - 1, 256).is_none(), "a row of it is in the database alone");
        }
    }
    assert!(newer > 3 && older > 3, "the history must have both");
    assert!(matches!(block_on(keeper.turn(at(now_ms + 1))), Turn::RetryAt(_)));
    keeper.store.away = false;
    settle(&mut keeper, now_ms + 60_000);
    for user in 0..USERS {
        assert_eq!(rows(&read(&mut keeper, user, 0, 256).unwrap()), world.expected(user, 0, 256));
    }
}

#[test]
fn a_database_that_is_away_is_asked_once_and_then_only_in_turns() {
    let mut world = World::new(2);
    let mut keeper = world.keeper();
    world.commit();
    let now_ms = settle(&mut keeper, 0);
    keeper.store.away = true;
    assert!(read(&mut keeper, 1, 0, 10).is_none());
    let reads = keeper.store.reads;
    for _ in 0..5 {
        assert!(read(&mut keeper, 1, 0, 10).is_none());
    }
    assert_eq!(keeper.store.reads, reads);
    keeper.store.away = false;
    block_on(keeper.turn(at(now_ms + 1)));
    assert!(read(&mut keeper, 1, 0, 10).is_some());
}

#[test]
fn the_next_transaction_is_made_ready_while_one_is_on_its_way_and_thrown_away_if_that_fails() {
    for fails in [false, true] {
        let mut world = World::new(4);
        let mut keeper = world.keeper();
        keeper.rows.set(3);
        for _ in 0..20 {
            world.commit();
        }
        keeper.store.slowness = (2, 0);
        keeper.store.lose_answer = fails;
        assert_eq!(block_on(keeper.turn(at(1))), Turn::Writing);
        assert_eq!(block_on(keeper.turn(at(2))), Turn::Writing);
        assert!(keeper.in_flight.has_next(), "there is more than enough for another");
        let ended = block_on(keeper.turn(at(3)));
        assert_eq!(matches!(ended, Turn::RetryAt(_)), fails, "{ended:?}");
        assert_eq!(keeper.in_flight.has_next(), !fails);
        settle(&mut keeper, 4);
        for user in 0..USERS {
            assert_eq!(rows(&read(&mut keeper, user, 0, 256).unwrap()), world.expected(user, 0, 256));
        }
    }
}

#[test]
fn retries_wait_longer_each_time_up_to_a_limit() {
    let mut world = World::new(3);
    let mut keeper = world.keeper();
    world.commit();
    keeper.store.writes_fail = true;
    let mut now_ms = 1;
    let mut waits = Vec::new();
    for _ in 0..12 {
        let Turn::RetryAt(next) = block_on(keeper.turn(at(now_ms))) else { panic!("it must fail") };
        assert_eq!(block_on(keeper.turn(at(next - 1))), Turn::RetryAt(next), "too early, nothing is tried");
        waits.push(next - now_ms);
        now_ms = next;
    }
    assert_eq!(keeper.counters().retries, 12);
    assert!(waits[0] <= STORE_RETRY_FIRST_MS && waits[11] >= STORE_RETRY_MAX_MS / 2, "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= STORE_RETRY_MAX_MS), "{waits:?}");
    assert_eq!(keeper.counters().unavailable, 1);
    keeper.store.writes_fail = false;
    settle(&mut keeper, now_ms);
    assert_eq!(keeper.counters().unavailable, 0);
}

#[test]
fn a_cursor_can_be_read_before_it_is_saved_and_survives_an_outage() {
    let world = World::new(4);
    let mut keeper = world.keeper();
    let cursor = |seq| CursorRow { user: UserId(1), device: DeviceId(9), seq: Seq(seq) };
    let read = |keeper: &mut Keeper<Flaky, MemoryDisk>| {
        let ask = StoreAsk::Cursor { origin: Origin::default(), user: UserId(1), device: DeviceId(9) };
        match block_on(keeper.ask(ask)) {
            Some((_, StoreAnswer::Cursor { seq, .. })) => seq,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(read(&mut keeper), None);
    assert!(block_on(keeper.ask(StoreAsk::SaveCursors(vec![cursor(5)]))).is_none());
    assert_eq!(read(&mut keeper), Some(Seq(5)));
    let now_ms = settle(&mut keeper, 0);
    keeper.store.away = true;
    block_on(keeper.ask(StoreAsk::SaveCursors(vec![cursor(8), cursor(7)])));
    assert_eq!(read(&mut keeper), Some(Seq(8)));
    block_on(keeper.turn(at(now_ms + 2_000)));
    keeper.store.away = false;
    settle(&mut keeper, now_ms + 60_000);
    assert_eq!(read(&mut world.keeper()), Some(Seq(8)));
}

#[test]
fn a_crowd_that_logs_in_at_once_costs_the_database_one_question() {
    let world = World::new(4);
    let mut keeper = world.keeper();
    let cursor = |device, seq| CursorRow { user: UserId(1), device: DeviceId(device), seq: Seq(seq) };
    block_on(keeper.ask(StoreAsk::SaveCursors(vec![cursor(2, 5), cursor(3, 6)])));
    settle(&mut keeper, 0);
    block_on(keeper.ask(StoreAsk::SaveCursors(vec![cursor(3, 7)])));
    let asked = |device| CursorAsked { origin: Origin::default(), user: UserId(1), device: DeviceId(device) };
    let read = |keeper: &mut Keeper<Flaky, MemoryDisk>| {
        let (before, mut answers) = (keeper.store.reads, Vec::new());
        block_on(keeper.cursors(&(1..=100).map(asked).collect::<Vec<_>>(), &mut answers));
        let answers = answers.into_iter().map(|(_, answer)| match answer {
            StoreAnswer::Cursor { seq, .. } => Some(seq.unwrap_or_default().0),
            _ => None,
        });
        (keeper.store.reads - before, answers.collect::<Vec<_>>())
    };
    let (reads, answers) = read(&mut keeper);
    assert_eq!((reads, answers.len()), (1, 100));
    assert_eq!(answers[..4], [Some(0), Some(5), Some(7), Some(0)]);
    // While the database is away who has one waiting is answered all the same.
    keeper.store.away = true;
    let (reads, answers) = read(&mut keeper);
    assert_eq!((reads, answers[2]), (1, Some(7)));
    assert_eq!(answers.iter().filter(|answer| answer.is_none()).count(), 99);
    assert_eq!(read(&mut keeper).0, 0, "it was away a moment ago");
}

#[test]
fn rows_that_retention_deleted_are_announced_also_when_only_the_tail_has_newer_ones() {
    let mut world = World::new(5);
    let mut keeper = world.keeper();
    world.commit();
    world.commit();
    settle(&mut keeper, 0);
    let user = *world.inboxes.iter().max_by_key(|(_, inbox)| inbox.len()).unwrap().0;
    let gone = world.inboxes[&user].len() as u64;
    let path = world.dir.path().join("store.sqlite");
    rusqlite::Connection::open(path).unwrap().execute("DELETE FROM inbox", []).unwrap();
    while world.inboxes[&user].len() as u64 == gone {
        world.commit();
    }
    let page = read(&mut keeper, user, 0, 100).unwrap();
    assert_eq!(page.gap_to, Some(Seq(gone)));
    assert_eq!(rows(&page), world.expected(user, gone, 100));
}

#[test]
fn what_is_applied_is_secured_in_time_and_at_once_when_it_is_much() {
    let mut world = World::new(6);
    let mut keeper = world.keeper();
    world.commit();
    block_on(keeper.turn(at(1)));
    assert_eq!(world.progress.secured(), JournalPosition(0));
    block_on(keeper.turn(at(1 + SECURE_MS)));
    assert_eq!(world.progress.secured(), world.progress.durable());
    let secures = keeper.counters().secures;
    while world.progress.durable().0 - world.progress.secured().0 < SECURE_BYTES + (1 << 20) {
        world.commit();
    }
    while block_on(keeper.turn(at(2 + SECURE_MS))) != Turn::Idle {}
    assert_eq!(keeper.counters().secures, secures + 1);
}
