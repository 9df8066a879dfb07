//! What goes wrong in a cluster, each as often as the plan says.
//!
//! What always holds: a process that ends keeps what its disks keep, and starts again; what has stood still goes on.

use std::collections::VecDeque;

use ringway_wire::ids::MsgId;

use super::Cluster;
use super::node::Process;
use super::redis::Data;
use super::session::Ask;
use crate::ledger::Ledger;
use crate::model::Checked;
use crate::world::Runs;

/// What a process loses with its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Loss {
    /// What was written stays in the page cache.
    Nothing,
    /// The machine goes dark: only what was synced is sure to stay.
    Unsynced,
}

/// What was sent on a connection that is gone, and is executed at this time or later, the world's milliseconds.
pub(super) struct Late {
    pub(super) from_ms: u64,
    pub(super) asks: VecDeque<Ask>,
}

/// Longest that a process is gone, stands still, or Redis does: longer than leases last.
const GONE_MS: u64 = 12_000;
/// Commands come late enough for names that are kept for less to be forgotten.
const NAMES_SHORT_MS: u64 = 120_000;
/// Entries for which a Redis has room that is short of memory to the end.
const ENTRIES_AT_LEAST: usize = 40;
/// What is younger is not deleted: more than devices' clocks are apart.
const KEPT_MS: u64 = 9_000_000;
/// How long a start that was refused waits.
const START_AGAIN_MS: u64 = 300;

impl Cluster {
    pub(super) fn trouble(&mut self) -> Checked {
        let random = self.world.random.clone();
        let happens = |of_10_000: u32| random.chance(of_10_000, 10_000);
        let at = random.below(self.nodes.len());
        self.go_on();
        if happens(self.plan.breaks) {
            self.break_session(at);
        }
        if happens(self.world.plan.disconnects) {
            self.world.drop_connection(random.below(self.world.clients.len()));
        }
        if happens(self.plan.kills) && self.world.runs(at) != Runs::Down {
            self.end_process(at, if random.chance(1, 2) { Loss::Nothing } else { Loss::Unsynced })?;
        }
        if happens(self.plan.pauses) && self.world.runs(at) == Runs::On {
            self.pause(at);
        }
        if happens(self.plan.cuts) {
            let for_ms = random.between(1_000, if random.chance(1, 3) { 2_000_000 } else { 20_000 });
            self.world.note(format!("node {} is cut off from Redis for {for_ms} ms", self.nodes[at].id));
            self.count("cut off");
            self.nodes[at].cut_until_ms = self.world.now.mono_ms + for_ms;
            self.break_session(at);
        }
        self.absence()?;
        self.blackout()?;
        self.takeover();
        if self.plan.retentions > 0 && happens(self.plan.retentions) {
            self.delete_old()?;
        }
        if happens(self.plan.restores) {
            self.back_up_or_restore(at)?;
        }
        if happens(self.plan.copies) && self.nodes.len() == self.plan.nodes && self.world.runs(at) == Runs::On {
            self.copy_directory(at);
        }
        self.trouble_of_redis();
        self.trouble_of_database();
        if happens(self.plan.clocks) {
            self.shift_clock(at);
        }
        if happens(self.plan.skips) {
            let ms = random.between(30_000, 3_600_000);
            self.world.note(format!("nothing happens for {ms} ms"));
            self.world.pass_time(ms)?;
        }
        if happens(self.plan.stalls) {
            self.stalled_until_ms = self.world.now.mono_ms + random.between(10, GONE_MS / 2);
            self.world.note("Redis stalls".to_owned());
            self.count("Redis stalled");
        }
        Ok(())
    }

    fn trouble_of_redis(&mut self) {
        let random = self.world.random.clone();
        let happens = |of_10_000: u32| random.chance(of_10_000, 10_000);
        if self.plan.losses > 0 && random.chance(1, 300) {
            self.dump = self.redis.data.clone();
        }
        if happens(self.plan.restarts) {
            self.restart_redis("with all it had");
        }
        if happens(self.plan.losses) {
            match random.below(3) {
                0 => {
                    self.world.note("FLUSHALL".to_owned());
                    self.redis.data = Data::default();
                }
                1 => {
                    self.redis.data = self.dump.clone();
                    self.restart_redis("from an old dump");
                }
                // A replica is another process, which has been there all the time.
                _ => {
                    self.redis.data = self.dump.clone();
                    self.restart_redis("as a replica that lacks something");
                }
            }
            self.count("Redis lost something");
        }
        if happens(self.plan.memory_short) {
            let has_little = self.redis.entries_max < usize::MAX;
            self.redis.entries_max = if has_little { usize::MAX } else { random.below(60) };
            self.world.note(format!("Redis has room for {} entries", self.redis.entries_max));
            self.count("memory short");
        }
    }

    /// Until a node that was there before has said that Redis has all it had, there has to be one that can: else the first
    /// that is there makes the ledger anew, though nothing was lost.
    pub(super) fn note_who_confirms(&mut self) {
        if self.world.model.ledger != Ledger::Redis || self.redis.is_confirmed() {
            return;
        }
        let now_ms = self.world.now.mono_ms;
        let confirms = |at: &usize| {
            let node = &self.nodes[*at];
            node.has_numbered && self.world.runs(*at) == Runs::On && now_ms >= node.cut_until_ms
        };
        if !(0..self.nodes.len()).any(|at| confirms(&at)) {
            self.world.note("nobody is there to tell what Redis had".to_owned());
            self.count("nobody to tell what Redis had");
            self.world.model.ledger = Ledger::RemadeRedis;
        }
    }

    /// Redis is another process from now on; whoever was connected is not.
    pub(super) fn restart_redis(&mut self, what: &str) {
        self.world.note(format!("Redis is started {what}, at {} ms", self.world.now.mono_ms));
        self.count("Redis restarted");
        for at in 0..self.nodes.len() {
            self.break_session(at);
        }
        self.late.clear();
        self.starts_of_redis += 1;
        self.redis.run = format!("run {}", self.starts_of_redis);
    }

    fn trouble_of_database(&mut self) {
        let random = self.world.random.clone();
        let happens = |of_10_000: u32| random.chance(of_10_000, 10_000);
        self.database.set_failing(self.plan.database_failing);
        if happens(self.plan.database_away) {
            self.database.go_or_come();
            self.world.note(format!("the database is away: {}", self.database.is_away()));
            self.count("database away");
        }
        if happens(self.plan.database_back) {
            let lost = self.database.go_back();
            self.world.note(format!("the database loses {lost} transactions"));
            self.count("database put back");
        }
    }

    /// So much time passes that retention deletes all there is, but for what came just before.
    fn delete_old(&mut self) -> Checked {
        let passes_ms = KEPT_MS + self.world.random.between(3_600_000, 7_200_000);
        self.world.pass_time(passes_ms)?;
        let kept_from = MsgId::first_at(self.world.now.unix_ms - KEPT_MS);
        let deleted = self.database.delete_before(kept_from);
        self.world.note(format!("{passes_ms} ms later {} messages are deleted", deleted.messages.len()));
        self.world.model.deleted = deleted;
        self.count("old messages deleted");
        Ok(())
    }

    /// A process that ends or stands still may have a transaction open.
    fn leave_transaction(&mut self, at: usize) {
        let left = self.plan.transactions_left;
        if left > 0 && self.world.random.chance(left, 10) {
            self.database.leave_locked(self.nodes[at].process);
            self.count("transactions left open");
        }
    }

    /// A little, or so far that the node must not number.
    fn shift_clock(&mut self, at: usize) {
        let ms = if self.world.random.chance(1, 2) { 3_000 } else { 400_000 };
        let ms = self.world.random.between(0, 2 * ms).cast_signed() - ms.cast_signed();
        self.world.note(format!("the clock of node {} is put {ms} ms from what it was", self.nodes[at].id));
        self.count("clock shifted");
        self.world.shift_clock(at, ms);
    }

    /// A node's connections are gone; what it had sent may be executed, at once, later, or not.
    pub(super) fn break_session(&mut self, at: usize) {
        let Some(session) = self.nodes[at].link.session() else { return };
        session.broken = true;
        let unexecuted = session.take_unexecuted();
        self.leave_behind(unexecuted);
        self.world.note(format!("the session of node {} breaks", self.nodes[at].id));
        self.count("sessions broken");
    }

    /// What was sent over a connection that is gone: some of it is executed all the same, now and then much later.
    pub(super) fn leave_behind(&mut self, mut unexecuted: Vec<Ask>) {
        let random = &self.world.random;
        unexecuted.truncate(random.below(unexecuted.len() + 1));
        if random.chance(self.plan.executed_later, 10) {
            let names_ms = self.plan.names.seconds() * 1_000;
            let hold_ms = match random.below(6) {
                0 => random.between(0, GONE_MS),
                1 if names_ms < NAMES_SHORT_MS => random.between(0, 2 * names_ms),
                _ => 0,
            };
            self.late.push(Late { from_ms: self.world.now.mono_ms + hold_ms, asks: unexecuted.into() });
        }
    }

    /// A process ends now, and starts again later.
    pub(super) fn end_process(&mut self, at: usize, loss: Loss) -> Checked {
        self.break_session(at);
        self.world.note(format!("node {} ends, and loses {loss:?}", self.nodes[at].id));
        self.crashes += 1;
        self.world.drop_connections_of(at)?;
        self.world.gateways[at].tally(&mut self.world.reached);
        self.leave_transaction(at);
        let node = &mut self.nodes[at];
        if loss == Loss::Unsynced {
            node.log.lose_power();
            node.copy.lose_power();
        }
        node.has_numbered = false;
        node.goes_on_at_ms = self.world.now.mono_ms + self.world.random.between(0, GONE_MS);
        self.world.set_runs(at, Runs::Down);
        Ok(())
    }

    /// A process stands still, and with its machine perhaps its clock.
    fn pause(&mut self, at: usize) {
        let for_ms = self.world.random.between(50, GONE_MS);
        self.world.note(format!("node {} stands still for {for_ms} ms", self.nodes[at].id));
        self.count("paused");
        self.leave_transaction(at);
        self.nodes[at].goes_on_at_ms = self.world.now.mono_ms + for_ms;
        self.world.set_runs(at, Runs::Paused);
    }

    /// What is to go on by now does.
    pub(super) fn go_on(&mut self) {
        for at in 0..self.nodes.len() {
            if self.world.now.mono_ms < self.nodes[at].goes_on_at_ms {
                continue;
            }
            match self.world.runs(at) {
                Runs::On => {}
                Runs::Paused => self.world.set_runs(at, Runs::On),
                Runs::Down => self.start(at),
            }
        }
    }

    fn start(&mut self, at: usize) {
        let node = &self.nodes[at];
        node.log.revive();
        let disks = (&node.log, &node.copy);
        match Process::start(&self.world, &self.plan, (node.id, self.mutation), disks, &self.database) {
            Ok(Process { gateway, link, progress, began_at, process }) => {
                self.world.note(format!("node {} starts", node.id));
                self.world.gateways[at] = gateway;
                self.world.model.fairness.another();
                (self.nodes[at].link, self.nodes[at].progress) = (link, progress);
                (self.nodes[at].began_at, self.nodes[at].process) = (began_at, process);
                self.world.set_runs(at, Runs::On);
            }
            Err(error) => {
                self.world.note(format!("node {} cannot start: {error}", node.id));
                self.nodes[at].goes_on_at_ms = self.world.now.mono_ms + START_AGAIN_MS;
            }
        }
    }

    /// From now on all is well.
    pub(super) fn end_trouble(&mut self) {
        self.stalled_until_ms = 0;
        (self.absent, self.takeover, self.blackout_in) = (None, None, None);
        if self.redis.entries_max < usize::MAX {
            // It stays as it is, and what is cut off has to do.
            self.redis.entries_max = self.redis.entries_max.max(ENTRIES_AT_LEAST);
        }
        self.database.come_back();
        self.database.set_failing(0);
        self.world.set_clocks_right();
        self.world.hurry_clients();
        self.world.drop_hostile();
        self.world.make_room_for_asks();
        for node in self.nodes.iter_mut().filter(|node| !node.is_over) {
            (node.goes_on_at_ms, node.cut_until_ms) = (0, 0);
        }
        self.go_on();
    }
}
