//! The keeper with a real SQLite file and a journal on a disk in memory, against a naive model of all inboxes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

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
use crate::contract::position::AppliedPosition;
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
use crate::store::{PageWanted, Transaction, pages_in_turn, snapshot_alone};
use ringway_wire::ids::{ClientMsgId, Conversation, DeviceId, GroupId, MsgId, RosterVersion, Seq, UserId};
use ringway_wire::limits::PAGE_BYTES_MAX;
use ringway_wire::schema::{GroupChangeKind, Role};

/// A store that can be told to fail, and to take its time.
struct Flaky {
    inner: Rc<RefCell<SqliteStore>>,
    away: bool,
    writes_fail: bool,
    /// The next transaction is committed, and then an error is reported.
    lose_answer: bool,
    /// How often a transaction is looked at before it has landed, and how many of these times before it is committed.
    slowness: (u32, u32),
    reads: u64,
}

/// A transaction on its way into a slow store.
struct Slow {
    inner: Rc<RefCell<SqliteStore>>,
    transaction: Option<Transaction>,
    left: u32,
    commits_at: u32,
    outcome: Result<Written, StoreError>,
}

impl Future for Slow {
    type Output = Result<Written, StoreError>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if self.left <= self.commits_at
            && let Some(transaction) = self.transaction.take()
        {
            let committed = block_on(self.inner.borrow_mut().apply(transaction));
            if self.outcome.is_ok() {
                self.outcome = committed;
            }
        }
        if self.left == 0 {
            return Poll::Ready(std::mem::replace(&mut self.outcome, Ok(Written::default())));
        }
        self.left -= 1;
        Poll::Pending
    }
}

fn lost() -> StoreError {
    let source = Box::new(std::io::Error::other("told to fail"));
    StoreError::Unavailable { what: "a test", cause: Cause::Connection, source }
}

impl Flaky {
    fn read(&mut self) -> Result<RefMut<'_, SqliteStore>, StoreError> {
        self.reads += 1;
        if self.away { Err(lost()) } else { Ok(self.inner.borrow_mut()) }
    }
}

impl Store for Flaky {
    type Encoded = Transaction;
    type Writing = Slow;

    fn transaction_rows_max(&self) -> usize {
        self.inner.borrow().transaction_rows_max()
    }
    fn encode(&self, transaction: Transaction) -> Transaction {
        transaction
    }
    fn apply(&mut self, transaction: Transaction) -> Slow {
        let inner = Rc::clone(&self.inner);
        let (left, commits_at) = self.slowness;
        let fails = self.away || self.writes_fail;
        let answer_lost = !fails && std::mem::take(&mut self.lose_answer);
        Slow {
            inner,
            transaction: (!fails).then_some(transaction),
            left,
            commits_at,
            outcome: if fails || answer_lost { Err(lost()) } else { Ok(Written::default()) },
        }
    }
    async fn position(&mut self) -> Result<StorePosition, StoreError> {
        block_on(self.read()?.position())
    }
    async fn newest_rows(&mut self, visit: &mut dyn FnMut(NewestRow)) -> Result<(), StoreError> {
        block_on(self.read()?.newest_rows(visit))
    }
    async fn groups(&mut self, visit: &mut dyn FnMut(StoredGroup)) -> Result<(), StoreError> {
        block_on(self.read()?.groups(visit))
    }
    async fn snapshot(&mut self, visit: &mut dyn FnMut(Stored)) -> Result<StorePosition, StoreError> {
        snapshot_alone(self, visit).await
    }

    fn write_back(&mut self) {}

    fn cache_bytes(&self) -> u64 {
        0
    }

    async fn secure(&mut self) -> Result<AppliedPosition, StoreError> {
        block_on(self.read()?.secure())
    }
    async fn page(
        &mut self,
        user: UserId,
        after: Seq,
        rows_max: usize,
        bytes_max: usize,
        messages: &mut Messages,
    ) -> Result<Page, StoreError> {
        block_on(self.read()?.page(user, after, rows_max, bytes_max, messages))
    }
    async fn pages(&mut self, wanted: &[PageWanted], messages: &mut Messages) -> Vec<Result<Page, StoreError>> {
        pages_in_turn(self, wanted, messages).await
    }

    async fn find(&mut self, lookups: &[Lookup]) -> Result<Vec<Option<StoredMessage>>, StoreError> {
        block_on(self.read()?.find(lookups))
    }
    async fn kept_from(&mut self) -> Result<MsgId, StoreError> {
        block_on(self.read()?.kept_from())
    }
    async fn cursors(&mut self, devices: &[(UserId, DeviceId)]) -> Result<Vec<Option<Seq>>, StoreError> {
        block_on(self.read()?.cursors(devices))
    }
    async fn save_cursors(&mut self, cursors: &[CursorRow]) -> Result<(), StoreError> {
        if self.away || self.writes_fail {
            return Err(lost());
        }
        block_on(self.inner.borrow_mut().save_cursors(cursors))
    }
}

#[derive(Default)]
struct Group {
    version: u32,
    members: BTreeMap<u64, Role>,
    /// Where its roster was written in this segment, with each member's base.
    roster: Option<(JournalPosition, RosterRecord)>,
}

/// What a ledger would have written, kept in the simplest way.
struct World {
    dir: TempDir,
    disk: MemoryDisk,
    journal: Journal<MemoryDisk>,
    progress: Arc<Progress>,
    rng: fastrand::Rng,
    next_id: u64,
    inboxes: BTreeMap<u64, Vec<(MsgId, Vec<u8>)>>,
    names: HashMap<(u64, ClientMsgId), StoredMessage>,
    groups: BTreeMap<u64, Group>,
}

const USERS: u64 = 12;

impl World {
    fn new(seed: u64) -> World {
        let disk = MemoryDisk::new(seed);
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut groups = BTreeMap::new();
        for id in 0..4 {
            groups.insert(1000 + id, Group::default());
        }
        World {
            dir: TempDir::new().unwrap(),
            journal: Journal::create(disk.clone(), JournalPosition(0), rng.u64(..)).unwrap(),
            disk,
            progress: Arc::new(Progress::default()),
            rng,
            next_id: 1,
            inboxes: (0..USERS).map(|user| (user, Vec::new())).collect(),
            names: HashMap::new(),
            groups,
        }
    }

    fn keeper(&self) -> Keeper<Flaky, MemoryDisk> {
        let inner = SqliteStore::open(&self.dir.path().join("store.sqlite"), BATCH_ROWS).unwrap();
        let store = Flaky {
            inner: Rc::new(RefCell::new(inner)),
            away: false,
            writes_fail: false,
            lose_answer: false,
            slowness: (0, 0),
            reads: 0,
        };
        Keeper::new(store, self.disk.clone(), Arc::clone(&self.progress), 1)
    }

    fn id(&mut self) -> MsgId {
        self.next_id += 1;
        MsgId(self.next_id << 20)
    }

    fn number(&mut self, user: u64, msg_id: MsgId, body: &[u8]) -> Seq {
        let inbox = self.inboxes.entry(user).or_default();
        inbox.push((msg_id, body.to_vec()));
        Seq(inbox.len() as u64)
    }

    fn body(&mut self) -> Vec<u8> {
        let length = if self.rng.u8(..) < 8 { 16 * 1024 } else { self.rng.usize(1..40) };
        vec![self.rng.u8(..); length]
    }

    fn name(&mut self) -> ClientMsgId {
        ClientMsgId::from_parts(1_800_000_000_000, self.rng.u128(..))
    }

    fn remember(&mut self, sender: u64, name: ClientMsgId, msg_id: MsgId, seq: Seq, to: Conversation, body: &[u8]) {
        let stored = StoredMessage { msg_id, seq, sent_at_ms: msg_id.sent_at_ms(), digest: digest(to, body) };
        self.names.insert((sender, name), stored);
    }

    fn add_direct(&mut self, batch: &mut Batch) {
        let (sender, to) = (self.rng.u64(0..USERS), self.rng.u64(0..USERS));
        let (msg_id, body, client_msg_id) = (self.id(), self.body(), self.name());
        let sender_seq = self.number(sender, msg_id, &body);
        let recipient_seq = if to == sender { sender_seq } else { self.number(to, msg_id, &body) };
        let record = DirectRecord {
            msg_id,
            sender: UserId(sender),
            to: UserId(to),
            client_msg_id,
            sender_seq,
            recipient_seq,
            body: &body,
        };
        batch.push(&Record::Direct(record));
        self.remember(sender, client_msg_id, msg_id, sender_seq, Conversation::User(UserId(to)), &body);
    }

    fn add_group(&mut self, batch: &mut Batch, begin: JournalPosition) {
        let id = 1000 + self.rng.u64(0..4);
        let mut group = self.groups.remove(&id).unwrap();
        if group.members.is_empty() || self.rng.u8(..) < 30 {
            self.change(&mut group, id, batch);
        }
        if group.members.is_empty() {
            self.groups.insert(id, group);
            return;
        }
        if group.roster.is_none() || self.rng.u8(..) < 10 {
            let members = group.members.iter().map(|(user, role)| RosterRecordMember {
                user: UserId(*user),
                role: *role,
                base: Seq(self.inboxes[user].len() as u64),
            });
            let record =
                RosterRecord { group: GroupId(id), version: RosterVersion(group.version), members: members.collect() };
            let at = JournalPosition(begin.0 + batch.push(&Record::Roster(record.clone())));
            group.roster = Some((at, record));
        }
        let (roster_at, roster) = group.roster.as_ref().unwrap();
        let sender = *self.rng.choice(group.members.keys()).unwrap();
        let (msg_id, body, client_msg_id) = (self.id(), self.body(), self.name());
        let (mut differences, mut sender_seq) = (Vec::new(), Seq(0));
        for member in &roster.members {
            let seq = self.number(member.user.0, msg_id, &body);
            varint::put(&mut differences, seq.0 - member.base.0);
            if member.user.0 == sender {
                sender_seq = seq;
            }
        }
        batch.push(&Record::Group(GroupRecord {
            msg_id,
            sender: UserId(sender),
            group: GroupId(id),
            client_msg_id,
            roster_at: *roster_at,
            differences: &differences,
            body: &body,
        }));
        self.remember(sender, client_msg_id, msg_id, sender_seq, Conversation::Group(GroupId(id)), &body);
        self.groups.insert(id, group);
    }

    fn change(&mut self, group: &mut Group, id: u64, batch: &mut Batch) {
        let user = self.rng.u64(0..USERS);
        let (kind, users, new_owner) = if group.members.is_empty() {
            let users: Vec<u64> = (0..USERS).filter(|other| *other != user && self.rng.bool()).collect();
            group.members = users.iter().map(|user| (*user, Role::Member)).collect();
            group.members.insert(user, Role::Owner);
            (GroupChangeKind::Created, users, None)
        } else if let Some(role) = group.members.remove(&user) {
            let next = group.members.iter_mut().next().filter(|_| role == Role::Owner);
            let new_owner = next.map(|(user, role)| {
                *role = Role::Owner;
                *user
            });
            (GroupChangeKind::Left, vec![user], new_owner)
        } else {
            group.members.insert(user, Role::Member);
            (GroupChangeKind::Added, vec![user], None)
        };
        let actor = match kind {
            GroupChangeKind::Added => *group.members.iter().find(|(_, role)| **role == Role::Owner).unwrap().0,
            _ => user,
        };
        group.version += 1;
        group.roster = None;
        batch.push(&Record::Change(ChangeRecord {
            msg_id: self.id(),
            group: GroupId(id),
            version: RosterVersion(group.version),
            kind,
            actor: UserId(actor),
            users: users.into_iter().map(UserId).collect(),
            new_owner: new_owner.map(UserId),
        }));
    }

    /// One commit of a few records, durable.
    fn commit(&mut self) {
        let begin = self.journal.prepare().unwrap();
        let mut batch = Batch::new();
        for _ in 0..self.rng.usize(1..6) {
            if self.rng.bool() {
                self.add_direct(&mut batch);
            } else {
                self.add_group(&mut batch, begin);
            }
        }
        if !batch.is_empty() {
            self.journal.append(&mut batch).unwrap();
            self.progress.advance_durable(self.journal.sync().unwrap());
        }
    }

    /// The ledger starts again: a new segment, in which no roster has been written.
    fn begin_segment(&mut self) {
        let start = self.journal.tail();
        self.journal = Journal::create(self.disk.clone(), start, self.rng.u64(..)).unwrap();
        for group in self.groups.values_mut() {
            group.roster = None;
        }
        self.progress.advance_durable(self.journal.tail());
    }

    fn expected(&self, user: u64, after: u64, rows_max: usize) -> Vec<(u64, MsgId, Vec<u8>)> {
        let mut bytes = 0;
        let mut rows = Vec::new();
        for (place, (msg_id, body)) in self.inboxes[&user].iter().enumerate().skip(after as usize).take(rows_max) {
            rows.push((place as u64 + 1, *msg_id, body.clone()));
            bytes += body.len();
            if bytes >= PAGE_BYTES_MAX {
                break;
            }
        }
        rows
    }

    fn expected_groups(&self) -> Vec<StoredGroup> {
        let inhabited = self.groups.iter().filter(|(_, group)| !group.members.is_empty());
        inhabited
            .map(|(id, group)| StoredGroup {
                group: GroupId(*id),
                version: RosterVersion(group.version),
                members: group.members.iter().map(|(user, role)| (UserId(*user), *role)).collect(),
            })
            .collect()
    }
}

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
    keeper.rows_max = 7;
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
                keeper.rows_max = world.rng.usize(1..30);
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
        keeper.rows_max = 3;
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
