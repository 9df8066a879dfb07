//! A replica that lacks the newest entries takes Redis's place, and the one node that reaches it has not read them either:
//! it goes on with others under the same numbers.
//!
//! What always holds: that node knew nothing of what the replica lacks, and those that know it do not reach Redis until it
//! has gone on for a while.

use super::Cluster;
use super::redis::Data;
use crate::ledger::Truth;
use crate::world::Runs;

/// Steps in which the others go on before the replica takes over.
const STEPS_MIN: u64 = 60;
const STEPS_MAX: u64 = 250;
/// For how long the others do not reach it: longer than it is left alone.
const CUT_MIN_MS: u64 = 2_500;
const CUT_MAX_MS: u64 = 7_000;

/// A takeover that is to come.
pub(super) struct Takeover {
    /// The node that has not read what the replica lacks.
    at: usize,
    steps_left: u64,
    /// What the replica has.
    replica: Data,
}

impl Cluster {
    /// One begins, or happens.
    pub(super) fn takeover(&mut self) {
        match &mut self.takeover {
            Some(Takeover { steps_left: steps_left @ 1.., .. }) => *steps_left -= 1,
            Some(_) => self.replica_takes_over(),
            None if self.plan.takeovers > 0 && self.world.random.chance(self.plan.takeovers, 10_000) => {
                self.begin_takeover();
            }
            None => {}
        }
    }

    fn begin_takeover(&mut self) {
        let at = self.world.random.below(self.nodes.len());
        let is_well = |at: usize| self.world.runs(at) == Runs::On && self.world.gateways[at].numbers();
        if self.absent.is_some() || !(0..self.nodes.len()).all(is_well) {
            return;
        }
        self.world
            .note(format!("node {} does not reach Redis, and what comes now a replica will lack", self.nodes[at].id));
        self.nodes[at].cut_until_ms = u64::MAX;
        self.break_session(at);
        let steps_left = self.world.random.between(STEPS_MIN, STEPS_MAX);
        self.takeover = Some(Takeover { at, steps_left, replica: self.redis.data.clone() });
    }

    fn replica_takes_over(&mut self) {
        let Some(Takeover { at, replica, .. }) = self.takeover.take() else { return };
        self.redis.data = replica;
        self.restart_redis("as a replica that lacks the newest entries");
        self.count("a replica took over with others under its numbers");
        // What some were shown before, others are shown otherwise.
        self.world.model.truth = Truth::Parted;
        let until_ms = self.world.now.mono_ms + self.world.random.between(CUT_MIN_MS, CUT_MAX_MS);
        for (other, node) in self.nodes.iter_mut().enumerate() {
            node.cut_until_ms = if other == at { 0 } else { node.cut_until_ms.max(until_ms) };
        }
    }
}
