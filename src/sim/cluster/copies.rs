//! A data directory that was copied: a second process with the id and all that the first one's disk had.
//!
//! What always holds: of the two one has the lease, and the other ends, for good.

use std::io;

use ringway::journal::disk::{Disk, DiskFile};

use super::Cluster;
use super::node::{Node, Process};
use super::trouble::Loss;
use crate::disk::SimDisk;
use crate::model::{Checked, violated};
use crate::random::Random;
use crate::world::Runs;

/// A heartbeat is sent and answered in less.
const TWIN_STEPS_MAX: usize = 600;
/// Somebody else is this node.
pub(super) const TAKEN: &str = "another gateway runs as node";

impl Cluster {
    /// A copy of this node's directory is started beside it.
    pub(super) fn copy_directory(&mut self, at: usize) {
        let random = self.world.random.clone();
        let Ok(log) = copy_of(&self.nodes[at].log, &random) else { return };
        let (id, copy) = (self.nodes[at].id, SimDisk::new(random));
        let started = Process::start(&self.world, &self.plan, (id, self.mutation), (&log, &copy), &self.database);
        let Ok(process) = started else { return };
        self.world.note(format!("the directory of node {id} is copied, and started"));
        self.count("directory copied");
        let (node, gateway) = Node::new(id, (log, copy), process);
        self.world.add(gateway);
        self.world.model.fairness.another();
        self.nodes.push(node);
    }

    /// A node's directory is backed up; or its process ends, and starts on what was backed up: all that was acked since is in
    /// Redis.
    pub(super) fn back_up_or_restore(&mut self, at: usize) -> Checked {
        if self.world.runs(at) == Runs::Down || self.nodes[at].is_over || self.has_twin(at) {
            return Ok(());
        }
        let Some(backup) = self.nodes[at].backup.take() else {
            self.nodes[at].backup = copy_of(&self.nodes[at].log, &self.world.random).ok();
            return Ok(());
        };
        self.end_process(at, Loss::Nothing)?;
        self.world.model.is_put_back = true;
        self.world.note(format!("the directory of node {} is put back", self.nodes[at].id));
        self.count("directory restored");
        self.nodes[at].log = backup;
        Ok(())
    }

    /// Two processes of one node do not number for longer than it takes one of them to hear of the other.
    pub(super) fn check_twins(&mut self) -> Checked {
        let now_ms = self.world.now.mono_ms;
        let hears = |at: usize| self.world.runs(at) == Runs::On && now_ms >= self.nodes[at].cut_until_ms;
        let numbers = |at: usize| hears(at) && self.has_twin(at) && self.world.gateways[at].numbers();
        if now_ms < self.stalled_until_ms {
            return Ok(());
        }
        let is_so = (0..self.nodes.len()).filter(|at| numbers(*at)).count() > 1;
        self.twin_steps = if is_so { self.twin_steps + 1 } else { 0 };
        if self.twin_steps > TWIN_STEPS_MAX {
            return violated!("I2: two processes number as one node");
        }
        Ok(())
    }

    /// Whether another process has this one's id.
    pub(super) fn has_twin(&self, at: usize) -> bool {
        self.nodes.iter().enumerate().any(|(other, node)| other != at && node.id == self.nodes[at].id)
    }

    /// It has ended because its id is another's.
    pub(super) fn end_for_good(&mut self, at: usize) -> Checked {
        self.end_process(at, Loss::Nothing)?;
        self.count("ended beside its copy");
        self.nodes[at].is_over = true;
        self.nodes[at].goes_on_at_ms = u64::MAX;
        Ok(())
    }
}

fn copy_of(disk: &SimDisk, random: &Random) -> io::Result<SimDisk> {
    let to = SimDisk::new(random.clone());
    for name in disk.list()? {
        let file = disk.open(&name)?;
        let bytes = file.size()?;
        let mut buffer = vec![0; usize::try_from(bytes).unwrap_or_default()];
        file.read_at(0, &mut buffer)?;
        let copy = to.create(&name, bytes)?;
        copy.write_at(0, &buffer)?;
        copy.sync()?;
    }
    Ok(to)
}
