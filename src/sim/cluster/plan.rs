//! What a seed decides of a cluster beforehand: how many nodes there are, and how much goes wrong.
//!
//! Pure. What always holds: each kind of trouble is in some runs and not in others: together they would hide one another.

use ringway::contract::names_kept::NamesKept;

use super::mutation::Mutation;
use super::redis::Bent;
use crate::fairness::Allowance;
use crate::mutation as gateway;
use crate::plan::Plan;
use crate::random::Random;
use crate::store::Untrue;

/// Of eight seeds this one has an account that sends all it can and hostile peers, and this one hostile peers alone.
const GREEDY: u64 = 7;
const HOSTILE: u64 = 0;
/// Less than a greedy account sends here, where clients have fewer turns.
const GREEDY_MEETS: Allowance = Allowance { at_once: 30, per_s: 3 };

/// One run's settings, beside those of each gateway.
#[derive(Clone, Debug)]
pub(crate) struct ClusterPlan {
    pub nodes: usize,
    /// Entries that may be unstored.
    pub entries_max: u64,
    /// How long Redis keeps names.
    pub names: NamesKept,
    /// Entries that stay in the stream though nobody needs them.
    pub kept: u64,
    /// Of 10,000 steps so many are each of these.
    pub breaks: u32,
    pub kills: u32,
    pub pauses: u32,
    pub stalls: u32,
    /// A node does not reach Redis for a while.
    pub cuts: u32,
    pub restarts: u32,
    /// Redis loses some of what it has, or all.
    pub losses: u32,
    pub memory_short: u32,
    pub database_away: u32,
    /// The database loses its newest transactions.
    pub database_back: u32,
    /// A node's clock is put forward or back.
    pub clocks: u32,
    /// Nothing happens for a long time.
    pub skips: u32,
    /// A node is away for longer than Redis keeps names.
    pub absences: u32,
    /// All nodes end, and Redis is put back before one of them starts.
    pub blackouts: u32,
    /// A node's data directory is copied, and the copy started.
    pub copies: u32,
    /// A data directory is backed up, or put back from a backup.
    pub restores: u32,
    /// So much time passes that old messages are deleted.
    pub retentions: u32,
    /// A replica that lacks the newest entries takes over, while those that have read them do not reach Redis.
    pub takeovers: u32,
    /// Of 10 processes that end, or stand still, so many have a transaction open.
    pub transactions_left: u32,
    /// Of 1,000 calls of the database.
    pub database_failing: u32,
    /// Of 10 sessions that break so many leave commands behind that are executed later.
    pub executed_later: u32,
}

impl ClusterPlan {
    /// `other`: decides what was added later, so that the seeds of what was there before stay what they were.
    pub(crate) fn new(random: &Random, other: &Random, gateways: &Plan) -> ClusterPlan {
        let some = |often: u32, most: u64| if random.chance(often, 10) { random.between(1, most) as u32 } else { 0 };
        let also = |often: u32, most: u64| if other.chance(often, 10) { other.between(1, most) as u32 } else { 0 };
        let losses = some(3, 10);
        let database_back = if losses == 0 { some(2, 15) } else { 0 };
        // What a database has lost may be in the copy of one process alone, which goes with it.
        let may_be_gone = database_back == 0;
        // What Redis has lost may be in the log of a process alone that has ended for good.
        let may_be_copied = losses == 0 && may_be_gone;
        let nodes = random.between(1, 5) as usize;
        let entries_max = if random.chance(1, 4) { random.between(10, 100) } else { 1 << 20 };
        let names = if random.chance(3, 10) { NamesKept::new(random.between(20, 60)) } else { NamesKept::default() };
        let retentions = if may_be_copied { also(3, 10) } else { 0 };
        ClusterPlan {
            nodes,
            entries_max,
            names,
            kept: if database_back > 0 { 1 << 20 } else { random.between(100, 400) },
            breaks: some(7, 60),
            kills: if may_be_gone { some(5, 20) } else { 0 },
            pauses: if may_be_gone { some(4, 15) } else { 0 },
            stalls: some(3, 10),
            cuts: some(4, 15),
            restarts: some(3, 10),
            losses,
            memory_short: some(2, 15),
            database_away: some(4, 20),
            database_back,
            clocks: some(3, 20),
            skips: some(3, 6),
            absences: some(2, 20),
            blackouts: if losses > 0 && may_be_gone { some(4, 10) } else { 0 },
            copies: if may_be_copied { some(3, 30) } else { 0 },
            // Where groups are left a directory that is put back may have their creations.
            restores: match (may_be_copied, gateways.leaves) {
                (false, _) => 0,
                (true, false) => some(3, 40),
                (true, true) => some(3, 40).max(40),
            },
            // Hours in which all names are forgotten would hide what comes of forgetting some.
            retentions: if names == NamesKept::default() { retentions } else { 0 },
            takeovers: if losses > 0 && nodes > 1 { also(4, 80) } else { 0 },
            transactions_left: also(2, 9),
            database_failing: some(3, 100),
            executed_later: some(7, 9),
        }
    }

    /// The same, so that what it takes to meet a planted fault is in every run, and what hides one is in none.
    pub(crate) fn for_planted(self, mutation: Mutation) -> ClusterPlan {
        match mutation {
            Mutation::Redis(Bent::VouchesForForgotten) => {
                ClusterPlan { nodes: self.nodes.max(3), names: NamesKept::new(20), absences: 40, ..self }
            }
            Mutation::WritesBehindAnyEntry => ClusterPlan {
                nodes: self.nodes.max(2),
                losses: self.losses.max(2),
                takeovers: 80,
                kills: 0,
                database_back: 0,
                ..self
            },
            Mutation::Database(Untrue::ForgetsWhoHasLeft) => {
                ClusterPlan { losses: 0, database_back: 0, takeovers: 0, restores: 100, skips: 0, ..self }
            }
            // Each process, and all time that passes, lets everybody send more.
            Mutation::Gateways(gateway::Mutation::Unlimited) => {
                ClusterPlan { nodes: 1, kills: 0, skips: 0, absences: 0, blackouts: 0, copies: 0, restores: 0, ..self }
            }
            _ => self,
        }
    }

    /// The settings of each gateway: what is about one disk and one process is tried without a cluster.
    pub(crate) fn of_gateways(random: &Random, seed: u64, steps: usize, mutation: Mutation) -> Plan {
        let plan = Plan::new(random, steps, mutation.of_gateways());
        let plan = if seed % 8 == GREEDY { plan.with_greedy(GREEDY_MEETS) } else { plan };
        Plan {
            shards: random.between(1, 3) as u16,
            floods: false,
            socket_bytes: plan.socket_bytes.max(4096),
            stalls: 0,
            leaves: random.chance(1, 5) || mutation == Mutation::Database(Untrue::ForgetsWhoHasLeft),
            is_hostile: seed % 8 == GREEDY || seed % 8 == HOSTILE,
            table_seed: seed,
            ..plan
        }
    }
}
