//! What a seed decides of a cluster beforehand: how many nodes there are, and how much goes wrong.
//!
//! Pure. What always holds: each kind of trouble is in some runs and not in others: together they would hide one another.

use crate::plan::Plan;
use crate::random::Random;

/// One run's settings, beside those of each gateway.
#[derive(Clone, Debug)]
pub(crate) struct ClusterPlan {
    pub nodes: usize,
    /// Entries that may be unstored.
    pub entries_max: u64,
    /// Entries that stay in the stream though nobody needs them.
    pub kept: u64,
    /// Of 10,000 steps so many are each of these.
    pub breaks: u32,
    pub kills: u32,
    pub pauses: u32,
    pub stalls: u32,
    /// Of 10 sessions that break so many leave commands behind that are executed later.
    pub executed_later: u32,
}

impl ClusterPlan {
    pub(crate) fn new(random: &Random) -> ClusterPlan {
        let some = |often: u32, most: u64| if random.chance(often, 10) { random.between(1, most) as u32 } else { 0 };
        ClusterPlan {
            nodes: random.between(1, 4) as usize,
            entries_max: 1 << 20,
            kept: random.between(100, 400),
            breaks: some(7, 60),
            kills: some(5, 20),
            pauses: some(4, 15),
            stalls: some(3, 10),
            executed_later: some(7, 9),
        }
    }

    /// The settings of each gateway: what is about one disk and one process is tried without a cluster.
    pub(crate) fn of_gateways(random: &Random, seed: u64, steps: usize) -> Plan {
        let plan = Plan::new(random, steps, crate::mutation::Mutation::None);
        Plan {
            shards: random.between(1, 3) as u16,
            floods: false,
            socket_bytes: plan.socket_bytes.max(4096),
            stalls: 0,
            table_seed: seed,
            ..plan
        }
    }
}
