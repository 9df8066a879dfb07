#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use super::*;
use crate::contract::delivery::Delivery;
use crate::contract::ids::{Origin, SessionRef, ShardId};
use crate::contract::message::{Incoming, Roster};
use crate::contract::store::{Lookup, LookupAnswer, LookupFound, StoredMessage};
use crate::contract::submission::{ChangeSubmission, GroupChange, MessageSubmission, Submission};
use crate::journal::memory_disk::MemoryDisk;
use crate::journal::record::ChangeRecord;
use crate::journal::segment::SEGMENT_BYTES_MIN;
use crate::ledger::Engine;
use ringway_wire::ids::{Conversation, RosterVersion};
use ringway_wire::request::Adding;
use ringway_wire::schema::{ErrorCode, GroupChangeKind, Role};

const SHARDS: u16 = 3;
const TIME: u64 = 1_800_000_000_000;
const USERS: u64 = 12;

/// What a store would have after applying the journal, written without the ledger's code.
#[derive(Clone, Default)]
struct ModelStore {
    position: StorePosition,
    rows: BTreeMap<(UserId, Seq), MsgId>,
    names: BTreeMap<(UserId, ClientMsgId), StoredMessage>,
    groups: BTreeMap<GroupId, (RosterVersion, BTreeMap<UserId, Role>)>,
}

impl ModelStore {
    fn row(&mut self, user: UserId, seq: Seq, msg_id: MsgId) {
        assert_ne!(seq, Seq(0));
        let before = self.rows.insert((user, seq), msg_id);
        assert_eq!(before, None, "{user:?} {seq:?} was given twice");
        if seq.0 > 1 {
            assert!(self.rows.contains_key(&(user, Seq(seq.0 - 1))), "{user:?} has a hole below {seq:?}");
        }
    }

    fn name(&mut self, sender: UserId, name: ClientMsgId, msg_id: MsgId, seq: Seq, to: Conversation, body: &[u8]) {
        let stored = StoredMessage { msg_id, seq, sent_at_ms: msg_id.sent_at_ms(), digest: digest(to, body) };
        assert_eq!(self.names.insert((sender, name), stored), None, "a name was stored twice");
    }

    fn change(&mut self, change: &ChangeRecord) {
        let (version, members) = self.groups.entry(change.group).or_default();
        assert_eq!(change.version.0, version.0 + 1);
        *version = change.version;
        match change.kind {
            GroupChangeKind::Created | GroupChangeKind::Added => {
                members.extend(change.users.iter().map(|user| (*user, Role::Member)));
                if change.kind == GroupChangeKind::Created {
                    members.insert(change.actor, Role::Owner);
                }
            }
            _ => members.retain(|user, _| !change.users.contains(user)),
        }
        if let Some(owner) = change.new_owner {
            members.insert(owner, Role::Owner);
        }
        if members.is_empty() {
            self.groups.remove(&change.group);
        }
    }

    fn apply(&mut self, disk: &MemoryDisk, to: JournalPosition) {
        let mut messages = Vec::new();
        let mut reader = Reader::new(disk.clone());
        let from = self.position.applied.in_journal();
        let mut at = from;
        while at < to {
            at = reader
                .read(at, to, 500, &mut |_, record| match record {
                    Record::Group(m) => messages.push((
                        m.msg_id,
                        m.sender,
                        m.to(),
                        m.client_msg_id,
                        Some((m.roster_at, m.differences.to_vec())),
                        (Seq(0), Seq(0)),
                        m.body.to_vec(),
                    )),
                    Record::Direct(m) => messages.push((
                        m.msg_id,
                        m.sender,
                        m.to(),
                        m.client_msg_id,
                        None,
                        (m.sender_seq, m.recipient_seq),
                        m.body.to_vec(),
                    )),
                    Record::Change(change) => {
                        self.position.msg_id_max = self.position.msg_id_max.max(change.msg_id);
                        self.change(&change);
                    }
                    Record::Roster(_) | Record::Mark(..) | Record::Withdrawn(_) => {}
                })
                .unwrap();
        }
        for (msg_id, sender, to, name, group, (sender_seq, recipient_seq), body) in messages {
            assert!(msg_id > self.position.msg_id_max || from == JournalPosition(0) || !body.is_empty());
            self.position.msg_id_max = self.position.msg_id_max.max(msg_id);
            let mut own = sender_seq;
            if let Some((roster_at, differences)) = group {
                let Record::Roster(roster) = reader.record_at(roster_at).unwrap() else { panic!("no roster") };
                let record = GroupRecord { differences: &differences, ..EMPTY };
                for (user, seq) in record.rows(&roster).unwrap() {
                    self.row(user, seq, msg_id);
                    if user == sender {
                        own = seq;
                    }
                }
            } else {
                self.row(sender, sender_seq, msg_id);
                if let Conversation::User(user) = to
                    && user != sender
                {
                    self.row(user, recipient_seq, msg_id);
                }
            }
            self.name(sender, name, msg_id, own, to, &body);
        }
        self.position.applied = to.into();
    }

    fn start(&self, disk: &MemoryDisk, progress: &Arc<Progress>, now: Now, seed: u64) -> JournalEngine<MemoryDisk> {
        // Small segments, so that there are many.
        let settings = Settings { segment_bytes: SEGMENT_BYTES_MIN + 8192, ..Settings::new(SHARDS, seed) };
        let mut start = Start::new(settings, self.position);
        let mut newest = BTreeMap::new();
        self.rows.keys().for_each(|(user, seq)| {
            newest.insert(*user, *seq);
        });
        newest.into_iter().for_each(|(user, seq)| start.newest_row(NewestRow { user, seq }));
        for (group, (version, members)) in &self.groups {
            let members = members.iter().map(|(user, role)| (*user, *role)).collect();
            start.group(&StoredGroup { group: *group, version: *version, members, maker: None });
        }
        start.finish(disk.clone(), progress.clone(), now).unwrap().0
    }
}

fn origin(user: u64, request_id: u32) -> Origin {
    Origin::new(SessionRef { shard: ShardId::of_user(UserId(user), SHARDS), ..SessionRef::default() }, request_id)
}

/// A message somebody sent and may send again.
#[derive(Clone)]
struct Sent {
    sender: u64,
    to: Conversation,
    name: ClientMsgId,
    body: Vec<u8>,
    acked: Option<(MsgId, Seq)>,
}

struct World {
    rng: fastrand::Rng,
    disk: MemoryDisk,
    progress: Arc<Progress>,
    store: ModelStore,
    engine: JournalEngine<MemoryDisk>,
    rosters: BTreeMap<GroupId, Arc<Roster>>,
    sent: Vec<Sent>,
    delivered: BTreeMap<(UserId, Seq), MsgId>,
    highest: BTreeMap<UserId, Seq>,
    now: Now,
}

impl World {
    fn new(seed: u64) -> World {
        let disk = MemoryDisk::new(seed);
        let progress = Arc::new(Progress::default());
        let now = Now { mono_ms: 0, unix_ms: TIME };
        let store = ModelStore::default();
        let engine = store.start(&disk, &progress, now, seed);
        World {
            rng: fastrand::Rng::with_seed(seed),
            disk,
            progress,
            store,
            engine,
            rosters: BTreeMap::new(),
            sent: Vec::new(),
            delivered: BTreeMap::new(),
            highest: BTreeMap::new(),
            now,
        }
    }

    fn submit(&mut self, index: usize) {
        let sent = self.sent[index].clone();
        let origin = origin(sent.sender, index as u32);
        if let Conversation::Group(group) = sent.to
            && !self.rosters.contains_key(&group)
        {
            return;
        }
        let incoming = Incoming::new(origin, UserId(sent.sender), sent.to, sent.name, &sent.body);
        let submission = MessageSubmission { incoming };
        self.engine.submit(self.now, Submission::Message(submission));
    }

    fn act(&mut self) {
        let user = self.rng.u64(1..=USERS);
        let some = |rng: &mut fastrand::Rng| -> Vec<UserId> {
            (0..rng.usize(..4)).map(|_| UserId(rng.u64(1..=USERS))).collect()
        };
        let group = self.rng.choice(self.rosters.keys().copied().collect::<Vec<_>>());
        match (self.rng.u8(..20), group) {
            (0, _) => {
                let change = GroupChange::Create(some(&mut self.rng));
                self.change(user, change);
            }
            (1, Some(group)) => {
                let change = GroupChange::Add(group, some(&mut self.rng));
                self.change(user, change);
            }
            (2, Some(group)) => {
                let change = GroupChange::Remove(group, some(&mut self.rng));
                self.change(user, change);
            }
            (3, Some(group)) => self.change(user, GroupChange::Leave(group)),
            (4..8, _) if !self.sent.is_empty() => {
                let index = self.rng.usize(..self.sent.len());
                self.submit(index);
            }
            (choice, group) => {
                let to = match group {
                    Some(group) if choice < 16 => Conversation::Group(group),
                    _ => Conversation::User(UserId(self.rng.u64(1..=USERS))),
                };
                let name = ClientMsgId::from_parts(self.now.unix_ms, self.rng.u128(..));
                let body = vec![choice; self.rng.usize(1..300)];
                self.sent.push(Sent { sender: user, to, name, body, acked: None });
                self.submit(self.sent.len() - 1);
            }
        }
    }

    fn change(&mut self, actor: u64, change: GroupChange) {
        let submission =
            ChangeSubmission { origin: origin(actor, u32::MAX), actor: UserId(actor), change, adding: Adding::All };
        self.engine.submit(self.now, Submission::Change(submission));
    }

    /// What was applied long ago and is in no segment any more; and what the tail would say.
    fn answer_lookups(&mut self) {
        let mut lookups = Vec::new();
        self.engine.take_lookups(&mut lookups);
        for lookup in lookups {
            let mut whole = self.store.clone();
            whole.apply(&self.disk, self.progress.durable());
            let Lookup { sender, client_msg_id, .. } = lookup;
            let found = whole.names.get(&(sender, client_msg_id));
            let found = found.map_or(LookupFound::Nothing, |stored| LookupFound::Stored(*stored));
            self.engine.found(self.now, LookupAnswer { lookup, found });
        }
    }

    fn see(&mut self, user: UserId, seq: Seq, msg_id: MsgId) {
        let before = self.delivered.insert((user, seq), msg_id);
        assert!(before.is_none_or(|before| before == msg_id), "{user:?} {seq:?} was given twice");
    }

    fn ack(&mut self, index: u32, msg_id: MsgId, seq: Seq) {
        let sent = &mut self.sent[index as usize];
        let first = *sent.acked.get_or_insert((msg_id, seq));
        assert_eq!(first, (msg_id, seq), "a repeat got another number");
    }

    /// One commit; `false`: the process is to stop.
    fn commit(&mut self) -> bool {
        let mut out: Vec<Vec<Delivery>> = (0..SHARDS).map(|_| Vec::new()).collect();
        if self.engine.commit(self.now, &mut out).is_err() {
            assert!(out.iter().all(Vec::is_empty), "nothing is handed out of a commit that was not synced");
            return false;
        }
        for (shard, deliveries) in out.into_iter().enumerate() {
            let shard = ShardId(shard as u16);
            let mut highest: BTreeMap<UserId, Seq> = BTreeMap::new();
            for delivery in deliveries {
                match delivery {
                    Delivery::Group { message, roster, seqs, origin } => {
                        for at in roster.range(shard) {
                            let user = roster.members()[at].user;
                            self.see(user, seqs[at], message.msg_id);
                            assert!(highest.insert(user, seqs[at]).is_none_or(|before| before < seqs[at]));
                            let before = self.highest.insert(user, seqs[at]);
                            assert!(before.is_none_or(|before| before < seqs[at]), "out of order");
                        }
                        let at = roster.position(message.sender).unwrap();
                        self.ack(origin.request_id, message.msg_id, seqs[at]);
                    }
                    Delivery::Direct { message, sender_seq, recipient_seq, origin } => {
                        let Conversation::User(to) = message.to else { panic!() };
                        self.see(message.sender, sender_seq, message.msg_id);
                        self.see(to, recipient_seq, message.msg_id);
                        self.ack(origin.request_id, message.msg_id, sender_seq);
                    }
                    Delivery::Repeat { origin, msg_id, seq, .. } => self.ack(origin.request_id, msg_id, seq),
                    Delivery::Changed { roster, .. } => {
                        if roster.members().is_empty() {
                            self.rosters.remove(&roster.group);
                        } else {
                            self.rosters.insert(roster.group, roster);
                        }
                    }
                    Delivery::Refused { code, .. } => assert_ne!(code, ErrorCode::ClientMsgIdReused),
                    _ => {}
                }
            }
        }
        true
    }

    fn restart(&mut self, seed: u64) {
        self.progress = Arc::new(Progress::default());
        self.engine = self.store.start(&self.disk, &self.progress, self.now, seed);
        self.check_all_that_was_acked_is_there();
        self.rosters.retain(|group, _| self.engine.roster(*group).is_some());
        let rosters: Vec<_> = self.rosters.keys().filter_map(|group| self.engine.roster(*group)).cloned().collect();
        self.rosters = rosters.into_iter().map(|roster| (roster.group, roster)).collect();
    }

    fn check_all_that_was_acked_is_there(&self) {
        let mut whole = self.store.clone();
        whole.apply(&self.disk, self.progress.durable());
        for ((user, seq), msg_id) in &self.delivered {
            assert_eq!(whole.rows.get(&(*user, *seq)), Some(msg_id), "{user:?} {seq:?} is lost");
        }
        for (group, (version, members)) in &whole.groups {
            let roster = self.engine.roster(*group).unwrap();
            assert_eq!(roster.version, *version);
            let roster: BTreeMap<_, _> = roster.members().iter().map(|m| (m.user, m.role)).collect();
            assert_eq!(&roster, members);
        }
    }
}

fn live_through(seed: u64) {
    let mut world = World::new(seed);
    for life in 0..6 {
        for _ in 0..world.rng.usize(5..30) {
            for _ in 0..world.rng.usize(..20) {
                world.act();
            }
            world.answer_lookups();
            match world.rng.u8(..20) {
                0 => world.disk.cut_writes(1),
                1 => {
                    world.store.apply(&world.disk, world.progress.durable());
                    world.progress.advance_applied(world.store.position.applied);
                    world.progress.advance_secured(world.store.position.applied.in_journal());
                }
                2 => world.now.unix_ms = world.now.unix_ms.saturating_sub(world.rng.u64(..50)),
                3 => {
                    let ms = world.rng.u64(..WINDOW_MS);
                    world.now = Now { mono_ms: world.now.mono_ms + ms, unix_ms: world.now.unix_ms + ms };
                }
                4 => world.disk.fail_syncs(1),
                _ => world.now.unix_ms += 1,
            }
            if !world.commit() {
                break;
            }
        }
        world.disk.cut_writes(0);
        world.disk.fail_syncs(0);
        if world.rng.bool() {
            world.disk.crash();
        }
        world.restart(seed * 100 + life);
    }
}

#[test]
fn no_seq_is_given_twice_and_nothing_acked_is_lost_whatever_crashes() {
    (0..20).for_each(live_through);
}

fn one_message(disk: &MemoryDisk, store: &ModelStore, now: Now) -> JournalEngine<MemoryDisk> {
    let mut engine = store.start(disk, &Arc::new(Progress::default()), now, 1);
    let (to, name) = (Conversation::User(UserId(2)), ClientMsgId::from_parts(now.unix_ms, 77));
    let incoming = Incoming::new(origin(1, 0), UserId(1), to, name, b"x");
    let submission = MessageSubmission { incoming };
    engine.submit(now, Submission::Message(submission));
    let mut out = vec![Vec::new(), Vec::new(), Vec::new()];
    engine.commit(now, &mut out).unwrap();
    engine
}

#[test]
fn starts_without_traffic_leave_one_segment() {
    let disk = MemoryDisk::new(1);
    let now = Now { mono_ms: 0, unix_ms: TIME };
    let store = ModelStore::default();
    let tail = one_message(&disk, &store, now).tail();
    for seed in 0..10 {
        let engine = store.start(&disk, &Arc::new(Progress::default()), now, seed);
        assert_eq!(engine.tail().0, tail.0 + SEGMENT_HEADER_BYTES);
    }
    assert_eq!(list_segments(&disk).unwrap().len(), 2);
}

#[test]
fn a_store_that_is_behind_the_journals_first_segment_is_refused() {
    let disk = MemoryDisk::new(1);
    let now = Now { mono_ms: 0, unix_ms: TIME };
    let mut store = ModelStore::default();
    let tail = one_message(&disk, &store, now).tail();
    store.apply(&disk, tail);
    one_message(&disk, &store, Now { unix_ms: TIME + 1, ..now });
    disk.remove(&segment_name(JournalPosition(0))).unwrap();
    let settings = Settings { segment_bytes: SEGMENT_BYTES_MIN, ..Settings::new(SHARDS, 1) };
    let start = Start::new(settings, StorePosition::default());
    let refused = start.finish(disk, Arc::new(Progress::default()), now).unwrap_err();
    assert!(matches!(refused, StartError::Behind { applied: 0, .. }), "{refused}");
}

#[test]
fn a_journal_that_was_moved_away_begins_again_where_the_store_is() {
    let disk = MemoryDisk::new(1);
    let now = Now { mono_ms: 0, unix_ms: TIME };
    let mut store = ModelStore::default();
    let tail = one_message(&disk, &store, now).tail();
    store.apply(&disk, tail);
    let empty = MemoryDisk::new(2);
    let engine = store.start(&empty, &Arc::new(Progress::default()), now, 1);
    assert_eq!(engine.tail().0, tail.0 + SEGMENT_HEADER_BYTES);
    // What was sent before is known to the store alone, and has to be looked up there.
    assert!(engine.horizon_ms() > TIME);
    let engine = store.start(&empty, &Arc::new(Progress::default()), now, 1);
    assert_eq!(engine.tail().0, tail.0 + SEGMENT_HEADER_BYTES);
}

#[test]
fn after_segments_are_gone_the_horizon_is_behind_the_first_message_that_is_left() {
    let disk = MemoryDisk::new(1);
    let now = Now { mono_ms: 0, unix_ms: TIME };
    let mut store = ModelStore::default();
    let tail = one_message(&disk, &store, now).tail();
    store.apply(&disk, tail);
    let later = Now { unix_ms: TIME + 1_000, ..now };
    one_message(&disk, &store, later);
    let whole = store.start(&disk, &Arc::new(Progress::default()), later, 1);
    assert!(whole.horizon_ms() < TIME);
    disk.remove(&segment_name(JournalPosition(0))).unwrap();
    let engine = store.start(&disk, &Arc::new(Progress::default()), later, 1);
    assert_eq!(engine.horizon_ms(), TIME + 1_001);
}
