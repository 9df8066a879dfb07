//! Nodes whose Redis, whose stream and whose store are played by a test.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::Now;
use crate::contract::delivery::Delivery;
use crate::contract::ids::{ConnId, Origin, SessionRef, ShardId};
use crate::contract::names_kept::NamesKept;
use crate::contract::policies::Policies;
use crate::contract::position::{AppliedPosition, JournalPosition, StreamDigest};
use crate::contract::progress::Progress;
use crate::contract::snapshot::{SnapshotAnswerer, snapshots};
use crate::contract::store::{NewestRow, StoredGroup};
use crate::contract::store::{StorePosition, Stored};
use crate::contract::traffic::TrafficLimits;
use crate::journal::memory_disk::MemoryDisk;
use crate::journal::record::{ChangeRecord, DirectRecord, GroupRecord, Record};
use crate::ledger::GroupLimits;
use crate::ledger::redis::entry::Entry;
use crate::ledger::redis::link::{Age, Arrival, Extent, Found, Generation, News, RedisEnds, What, link};
use crate::ledger::redis::seed::{self, floor_of};
use crate::ledger::redis::start::RedisStart;
use crate::ledger::redis::{RedisEngine, Settings};
use crate::ledger::{Engine, LedgerError};
use crate::limits::STREAM_UNSTORED_MAX;
use ringway_wire::ids::MSG_ID_EPOCH_MS;
use ringway_wire::ids::{ClientMsgId, GroupId, MsgId, RosterVersion, Seq, UserId};
use ringway_wire::schema::{ErrorCode, GroupChangeKind, Role};

pub(super) const GROUP: GroupId = GroupId(7);
pub(super) const NOW: Now = Now { mono_ms: 1, unix_ms: 1 << 41 };

/// A node, whose Redis and whose store are played by the test.
pub(super) struct Node {
    pub(super) engine: RedisEngine<MemoryDisk>,
    pub(super) redis: RedisEnds,
    pub(super) store: SnapshotAnswerer,
    pub(super) progress: Arc<Progress>,
    /// What its log lies on.
    pub(super) log_disk: MemoryDisk,
    pub(super) now: Now,
    pub(super) shards: u16,
    /// What was delivered: message, user, seq.
    pub(super) delivered: Vec<(u64, u64, u64)>,
    /// Messages that senders were told are repeats.
    pub(super) repeats: Vec<u64>,
    /// Users who were told that they have missed something.
    pub(super) missed: Vec<(u64, u64)>,
    /// What senders were refused with.
    pub(super) refused: Vec<ErrorCode>,
    /// Groups whose changes were answered as made before.
    pub(super) unchanged: Vec<GroupId>,
    /// What it wants of Redis.
    pub(super) wants: Vec<What>,
}

impl Node {
    /// One that found this in the database.
    pub(super) fn start(node: u16, shards: u16, stored: &Database) -> Node {
        let (ledger, redis, _nudges) = link();
        let (asker, store) = snapshots(redis.nudge());
        let progress = Arc::new(Progress::default());
        let mut start = RedisStart::new(Settings {
            shards,
            node,
            segment_bytes: 0,
            buckets: 1,
            names: NamesKept::default(),
            entries_max: STREAM_UNSTORED_MAX,
            groups: GroupLimits::default(),
            traffic: TrafficLimits::default(),
            policies: Policies::default(),
            seed: node.into(),
        });
        stored.each(&mut |stored| start.visit(stored));
        let log_disk = MemoryDisk::new(1);
        let disks = (log_disk.clone(), MemoryDisk::new(2));
        let engine = start.finish(disks, Arc::clone(&progress), (ledger, asker), stored.position()).unwrap();
        let (delivered, repeats, missed) = Default::default();
        let (refused, unchanged, wants) = Default::default();
        let now = NOW;
        Node {
            engine,
            redis,
            store,
            progress,
            log_disk,
            now,
            shards,
            delivered,
            repeats,
            missed,
            refused,
            unchanged,
            wants,
        }
    }

    pub(super) fn receive(&mut self, news: News) -> Result<(), LedgerError> {
        self.redis.notify(news).unwrap();
        self.commit()
    }

    pub(super) fn commit(&mut self) -> Result<(), LedgerError> {
        let mut out: Vec<Vec<Delivery>> = (0..self.shards).map(|_| Vec::new()).collect();
        self.engine.commit(self.now, &mut out)?;
        self.engine.submitter.check();
        for (shard, delivery) in out.into_iter().enumerate().flat_map(|(at, all)| all.into_iter().map(move |d| (at, d)))
        {
            match delivery {
                Delivery::Group { message, roster, seqs, .. } => {
                    let range = roster.range(ShardId(shard as u16));
                    let rows = std::iter::zip(roster.members(), seqs.iter()).skip(range.start).take(range.len());
                    self.delivered.extend(rows.map(|(member, seq)| (message.msg_id.0, member.user.0, seq.0)));
                }
                Delivery::Direct { message, sender_seq, .. } => {
                    self.delivered.push((message.msg_id.0, message.sender.0, sender_seq.0));
                }
                Delivery::Missed { newest } if shard == 0 => {
                    self.missed.extend(newest.iter().map(|(user, seq)| (user.0, seq.0)));
                }
                Delivery::Repeat { msg_id, .. } => self.repeats.push(msg_id.0),
                Delivery::Refused { code, .. } => self.refused.push(code),
                Delivery::Unchanged { group, .. } => self.unchanged.push(group),
                _ => {}
            }
        }
        while let Ok(order) = self.redis.orders.try_recv() {
            self.wants.push(order.what);
        }
        Ok(())
    }

    pub(super) fn follow(&mut self, stream: &Stream, from: u64) -> Result<(), LedgerError> {
        self.delivered.clear();
        for entries in stream.entries.chunks(100) {
            let arrivals = entries.iter().filter(|(count, _)| *count > from);
            let arrivals = arrivals.map(|(count, entry)| Arrival { count: *count, entry: entry.clone() });
            self.receive(News::Entries(arrivals.collect()))?;
        }
        self.delivered.sort_unstable();
        self.delivered.dedup();
        Ok(())
    }

    /// Answers its question for a snapshot.
    pub(super) fn answer(&mut self, stored: &Database) -> Result<(), LedgerError> {
        let mut ask = self.store.next().unwrap();
        ask.begin();
        stored.each(&mut |stored| ask.visit(stored));
        let (at, gone) = (stored.position(), ask.gone());
        let left = if stored.were_left { gone.clone() } else { Vec::new() };
        self.store.answer(ask.finish(at, gone, left));
        self.commit()
    }
}

/// The entry before a generation's first one.
pub(super) fn base_of(generation: u64) -> u64 {
    seed::base_of(generation).0
}

/// What is stored.
#[derive(Clone, Default)]
pub(super) struct Database {
    pub(super) at: u64,
    /// What the stream's entries are up to there.
    pub(super) digest: StreamDigest,
    /// When its newest message was numbered, Unix milliseconds; zero: it has none.
    pub(super) newest_ms: u64,
    pub(super) newest: BTreeMap<u64, u64>,
    pub(super) members: Vec<u64>,
    pub(super) version: u32,
    /// Groups that it does not have were there, and everybody has left them.
    pub(super) were_left: bool,
}

impl Database {
    fn position(&self) -> StorePosition {
        let msg_id_max = MsgId(self.newest_ms.saturating_sub(MSG_ID_EPOCH_MS) << 22);
        StorePosition { applied: AppliedPosition(self.at), msg_id_max, digest: self.digest }
    }

    pub(super) fn each(&self, visit: &mut dyn FnMut(Stored)) {
        let members = self.members.iter().map(|user| (UserId(*user), Role::Member)).collect();
        let version = RosterVersion(self.version);
        if self.version > 0 {
            visit(Stored::Group(StoredGroup { group: GROUP, version, members, maker: None }));
        }
        for (user, seq) in &self.newest {
            visit(Stored::Newest(NewestRow { user: UserId(*user), seq: Seq(*seq) }));
        }
    }

    /// Writes what was delivered of the entries up to one.
    pub(super) fn write(&mut self, delivered: &[(u64, u64, u64)], to: u64) {
        for (msg_id, user, seq) in delivered {
            if *msg_id <= to {
                let newest = self.newest.entry(*user).or_default();
                *newest = (*newest).max(*seq);
            }
        }
        self.at = to;
    }
}

/// A stream; messages have their entry's number.
pub(super) struct Stream {
    pub(super) found: Found,
    pub(super) entries: Vec<(u64, Vec<u8>)>,
    pub(super) version: u32,
}

impl Stream {
    pub(super) fn begin(generation: u64, floor: Seq, version: u32) -> Stream {
        let there = Generation { number: generation, nonce: generation };
        let found = Found {
            there,
            count: base_of(generation),
            floor,
            since_ms: 0,
            now_ms: NOW.unix_ms,
            age: Age::Settled,
            is_confirmed: true,
            extent: Extent::Whole,
        };
        Stream { found, entries: Vec::new(), version }
    }

    pub(super) fn with_count(mut self, count: u64) -> Stream {
        self.found.count += count;
        self
    }

    pub(super) fn status(&self) -> News {
        News::Status { session: 1, found: Some(self.found.clone()), highest: self.found.there.number }
    }

    pub(super) fn push(&mut self, version: u32, record: impl FnOnce(MsgId) -> Record<'static>) {
        self.found.count += 1;
        let entry = Entry { node: 999, version: RosterVersion(version), record: record(MsgId(self.found.count)) };
        self.entries.push((self.found.count, entry.encode()));
    }

    pub(super) fn group(&mut self) {
        let roster_at = JournalPosition(0);
        let client_msg_id = ClientMsgId([0; 16]);
        self.push(self.version, |msg_id| {
            let (sender, group) = (UserId(1), GROUP);
            Record::Group(GroupRecord {
                msg_id,
                sender,
                group,
                client_msg_id,
                roster_at,
                differences: &[],
                body: b"all",
            })
        });
    }

    pub(super) fn direct(&mut self, sender: u64, to: u64) {
        let (sender_seq, recipient_seq) = Default::default();
        let (sender, to, client_msg_id) = (UserId(sender), UserId(to), ClientMsgId([0; 16]));
        self.push(0, |msg_id| {
            Record::Direct(DirectRecord { msg_id, sender, to, client_msg_id, sender_seq, recipient_seq, body: b"one" })
        });
    }

    pub(super) fn change(&mut self, kind: GroupChangeKind, users: &[u64]) {
        self.version += 1;
        let (version, users) = (RosterVersion(self.version), users.iter().map(|user| UserId(*user)).collect());
        self.push(0, |msg_id| {
            let (group, actor, new_owner) = (GROUP, UserId(1), None);
            Record::Change(ChangeRecord { msg_id, group, version, kind, actor, users, new_owner })
        });
    }

    /// Messages to a group that changes, and between users.
    pub(super) fn mix(&mut self, messages: u64) {
        for index in 0..messages {
            match index % 10 {
                3 => self.direct(index % 7 + 1, index % 13 + 1),
                6 if index % 20 == 6 => self.change(GroupChangeKind::Added, &[1_000 + index]),
                6 => self.change(GroupChangeKind::Removed, &[1_000 + index - 10]),
                _ => self.group(),
            }
        }
    }
}

/// A session of the node.
pub(super) fn origin() -> Origin {
    Origin::new(SessionRef { shard: ShardId(0), conn: ConnId::default() }, 1)
}

/// Two nodes that have followed a stream, of which the database has only the beginning, and the database.
pub(super) fn after_a_loss() -> (Stream, Node, Node, Database) {
    let mut lost = Stream::begin(1, Seq(0), 1);
    (0..20).for_each(|_| lost.group());
    let mut database = Database { at: base_of(1), members: (1..=5).collect(), version: 1, ..Database::default() };
    let mut nodes = [1, 2].map(|node| Node::start(node, node, &database));
    // The second has read less of it, and heard of no more.
    for (node, read) in std::iter::zip(&mut nodes, [20, 12]) {
        let mut told = lost.found.clone();
        told.count = base_of(1) + read as u64;
        node.receive(News::Status { session: 1, found: Some(told), highest: 1 }).unwrap();
        let entries = lost.entries[..read].iter();
        let arrivals = entries.map(|(count, entry)| Arrival { count: *count, entry: entry.clone() });
        node.receive(News::Entries(arrivals.collect())).unwrap();
        node.receive(News::Disconnected).unwrap();
    }
    database.write(&nodes[0].delivered, base_of(1) + 8);
    let next = Stream::begin(2, floor_of(2, Seq(8)), 1);
    database.at = base_of(2);
    let [one, two] = nodes;
    (next, one, two, database)
}
