//! What a seed decides beforehand: how many shards and users, which bounds, how much goes wrong.
//!
//! Pure. What always holds: bounds are those of the real gateway or tighter, so that they are reached.

use ringway::contract::ids::ShardId;
use ringway::contract::keyed::TableKey;
use ringway::contract::traffic::TrafficLimits;
use ringway::ledger::journal_engine::Settings;
use ringway::limits::OUTBOX_BYTES_MAX;
use ringway::shard::config::ShardConfig;

use crate::fairness::{Allowance, Room};
use crate::mutation::Mutation;
use crate::random::Random;

/// Signs all tokens.
pub(crate) const SECRET: &[u8] = b"a secret that only the simulator knows";

/// A queue of so much room is never full.
pub(crate) const ROOMY: usize = 1 << 16;

/// One run's settings.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub shards: u16,
    pub users: u64,
    pub devices: u64,
    pub steps: usize,
    pub submissions_max: usize,
    pub lane_max: usize,
    pub asks_max: usize,
    pub commits_max: usize,
    pub commit_submissions_max: usize,
    pub outbox_bytes_max: usize,
    pub fanout_part_bytes_max: usize,
    pub socket_bytes: usize,
    pub body_bytes_max: usize,
    /// All bodies may be that large, sockets hold little, and clients stop reading: outboxes reach their caps.
    pub floods: bool,
    /// Most that is changed of groups is that somebody leaves.
    pub leaves: bool,
    pub segment_bytes: u64,
    pub window_entries_max: usize,
    pub tail_messages_max: u64,
    /// Of 10,000 steps so many are each of these.
    pub crashes: u32,
    pub store_outages: u32,
    pub time_jumps: u32,
    pub stalls: u32,
    pub disconnects: u32,
    pub full_disks: u32,
    /// Of 1,000 calls.
    pub store_failing: u32,
    pub writes_failing: u32,
    pub syncs_dying: u32,
    /// One account sends all it can.
    pub is_greedy: bool,
    /// Enough: then nothing may refuse the others.
    pub room: Room,
    /// What one account may send.
    pub allowance: Allowance,
    /// There are peers that keep to nothing.
    pub is_hostile: bool,
    pub mutation: Mutation,
    /// Keys the shards' tables.
    pub table_seed: u64,
}

impl Plan {
    /// Each kind of trouble is in some runs and not in others: together they would hide one another.
    pub(crate) fn new(random: &Random, steps: usize, mutation: Mutation) -> Plan {
        let some = |often: u32, most: u64| if random.chance(often, 10) { random.between(1, most) as u32 } else { 0 };
        let tight = random.chance(1, 3);
        let bound = |least: u64, most: u64| if tight { random.between(least, most) as usize } else { 4096 };
        let large = random.chance(1, 3);
        let floods = large && random.chance(2, 3);
        Plan {
            shards: random.between(1, 4) as u16,
            users: random.between(2, 10),
            devices: random.between(1, 2),
            steps,
            submissions_max: bound(2, 20),
            lane_max: bound(2, 20),
            asks_max: bound(1, 8),
            commits_max: random.between(1, 8) as usize,
            commit_submissions_max: random.between(1, 40) as usize,
            outbox_bytes_max: if floods { OUTBOX_BYTES_MAX / 2 } else { OUTBOX_BYTES_MAX },
            fanout_part_bytes_max: random.between(1, 2048) as usize,
            socket_bytes: if !floods && random.chance(1, 4) {
                1 << 20
            } else {
                random.between(512, 16 * 1024) as usize
            },
            body_bytes_max: if large { 16 * 1024 } else { 200 },
            leaves: false,
            segment_bytes: if large { 2 << 20 } else { 64 << 10 },
            window_entries_max: if random.chance(1, 3) { random.between(1, 60) as usize } else { 1 << 20 },
            tail_messages_max: if random.chance(1, 4) { random.between(20, 400) } else { 1 << 20 },
            crashes: some(8, 60),
            store_outages: some(5, 40),
            time_jumps: some(4, 20),
            stalls: if floods { 100 } else { some(5, 100) },
            floods,
            disconnects: some(7, 150),
            full_disks: some(3, 30),
            store_failing: some(4, 200),
            writes_failing: some(3, 30),
            syncs_dying: some(6, 20),
            is_greedy: false,
            room: Room::Scarce,
            allowance: Allowance::USUAL,
            is_hostile: false,
            mutation,
            table_seed: 0,
        }
    }

    /// The same with an account that sends all it can, which is soon more than it may.
    pub(crate) fn with_greedy(self, allowance: Allowance) -> Plan {
        Plan { is_greedy: true, allowance, ..self }
    }

    /// The same without all that could refuse the others.
    pub(crate) fn with_room(self) -> Plan {
        Plan {
            room: Room::Enough,
            submissions_max: ROOMY,
            lane_max: ROOMY,
            asks_max: ROOMY,
            body_bytes_max: 200,
            floods: false,
            window_entries_max: 1 << 20,
            tail_messages_max: 1 << 20,
            store_outages: 0,
            time_jumps: 0,
            full_disks: 0,
            store_failing: 0,
            writes_failing: 0,
            syncs_dying: 0,
            ..self
        }
    }

    /// What one account may send, unless that is what is broken.
    pub(crate) fn traffic(&self) -> TrafficLimits {
        match self.mutation {
            Mutation::Unlimited => TrafficLimits::UNLIMITED,
            _ => self.allowance.limits(),
        }
    }

    /// The settings of the ledger.
    pub(crate) fn ledger_settings(&self, seed: u64) -> Settings {
        Settings {
            segment_bytes: self.segment_bytes,
            window_entries_max: self.window_entries_max,
            tail_messages_max: self.tail_messages_max,
            traffic: self.traffic(),
            ..Settings::new(self.shards, seed)
        }
    }

    /// The settings of one shard.
    pub(crate) fn shard_config(&self, id: ShardId) -> ShardConfig {
        ShardConfig {
            outbox_bytes_max: self.outbox_bytes_max,
            fanout_part_bytes_max: self.fanout_part_bytes_max,
            traffic: self.traffic(),
            table_key: TableKey::new(self.table_seed),
            ..ShardConfig::new(id, self.shards)
        }
    }
}
