//! Nodes that are away for long: one for longer than Redis keeps names, or all of them while Redis is put back.
//!
//! What always holds: what a node had sent before it was cut off, or stood still, may be executed when it is back; clients
//! that it had go elsewhere meanwhile, and send there what it has not answered.

use super::Cluster;
use super::trouble::{Late, Loss};
use crate::model::Checked;
use crate::world::Runs;

/// Steps in which the others go on before much time passes.
const STEPS_MAX: u64 = 700;
/// So many steps before all nodes end Redis is dumped.
const DUMPED_BEFORE: u64 = 150;

/// A node that is away.
pub(super) struct Absence {
    at: usize,
    steps_left: u64,
    /// What it had sent, and what is executed when it is back.
    unexecuted: Vec<Late>,
}

impl Cluster {
    /// A node goes away, or is back.
    pub(super) fn absence(&mut self) -> Checked {
        let random = self.world.random.clone();
        match &mut self.absent {
            Some(Absence { steps_left: steps_left @ 1.., .. }) => *steps_left -= 1,
            Some(_) => return self.return_of_absent(),
            None if random.chance(self.plan.absences, 10_000) => self.begin_absence(random.below(self.nodes.len()))?,
            None => {}
        }
        Ok(())
    }

    fn begin_absence(&mut self, at: usize) -> Checked {
        if self.world.runs(at) != Runs::On {
            return Ok(());
        }
        let random = self.world.random.clone();
        let (is_cut, before) = (random.chance(1, 2), self.late.len());
        self.absent = Some(Absence { at, steps_left: 0, unexecuted: Vec::new() });
        if is_cut {
            self.nodes[at].cut_until_ms = u64::MAX;
            self.break_session(at);
        } else {
            self.nodes[at].goes_on_at_ms = u64::MAX;
            self.world.set_runs(at, Runs::Paused);
        }
        let unexecuted = self.late.split_off(before);
        self.absent = Some(Absence { at, steps_left: random.between(100, STEPS_MAX), unexecuted });
        let what = if is_cut { "is cut off from Redis" } else { "stands still" };
        self.world.note(format!("node {} {what} for longer than names are kept", self.nodes[at].id));
        self.count("away for long");
        self.world.drop_some_connections_of(at);
        Ok(())
    }

    fn return_of_absent(&mut self) -> Checked {
        let Some(Absence { at, unexecuted, .. }) = self.absent.take() else { return Ok(()) };
        let names_ms = self.plan.names.seconds() * 1_000;
        let (from_ms, to_ms) = (names_ms + 5_000, names_ms * 5 / 3);
        self.world.pass_time(self.world.random.between(from_ms, to_ms))?;
        self.world.note(format!("node {} is back", self.nodes[at].id));
        self.late.extend(unexecuted);
        self.nodes[at].cut_until_ms = 0;
        if self.world.runs(at) == Runs::Paused {
            self.nodes[at].goes_on_at_ms = 0;
        }
        Ok(())
    }

    /// First the database goes away, then Redis is dumped, and then all nodes end; before one of them starts, Redis is put
    /// back to that. What was delivered since the dump nobody knows but the nodes' logs.
    pub(super) fn blackout(&mut self) -> Checked {
        let random = self.world.random.clone();
        match &mut self.blackout_in {
            Some(steps @ 1..) => {
                *steps -= 1;
                if *steps == DUMPED_BEFORE {
                    self.recent_dump = self.redis.data.clone();
                }
            }
            Some(_) => {
                self.blackout_in = None;
                self.end_all()?;
                self.database.come_back();
            }
            None if random.chance(self.plan.blackouts, 10_000) => {
                self.database.go_away();
                self.blackout_in = Some(DUMPED_BEFORE + random.between(10, 300));
            }
            None => {}
        }
        Ok(())
    }

    fn end_all(&mut self) -> Checked {
        self.world.note("all nodes end, and Redis is put back".to_owned());
        self.count("all nodes ended and Redis put back");
        for at in 0..self.nodes.len() {
            if self.world.runs(at) != Runs::Down {
                self.end_process(at, Loss::Nothing)?;
            }
        }
        self.redis.data = self.recent_dump.clone();
        self.restart_redis("from an old dump");
        Ok(())
    }
}
