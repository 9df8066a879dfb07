//! The CPU plan: which thread is pinned where.
//!
//! Made once at start on the main thread. What always holds: no thread runs on a CPU outside the configured list,
//! and shards come first.

#[cfg(test)]
mod tests;

use std::io;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::store::yielding::StoreYield;

const CALLING_THREAD: Pid = Pid::from_raw(0);

/// How many shards to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shards {
    /// As the CPUs suggest.
    Auto,
    /// So many.
    Count(u16),
}

/// Where the threads run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CpuPlan {
    /// One entry per shard.
    pub shards: Vec<usize>,
    /// The ledger's own CPU, if there are enough.
    pub(crate) ledger: Option<usize>,
    /// The store's; the ledger's if there is only one left.
    pub(crate) store: Option<usize>,
    /// Everything the process may use.
    pub(crate) all: Vec<usize>,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    /// The process may not run there.
    #[error("`cpus` names CPU {cpu}, but this process may only use {allowed:?}")]
    NotAllowed {
        /// The CPU named.
        cpu: usize,
        /// Those it may use.
        allowed: Vec<usize>,
    },
    /// The kernel would not say or do it.
    #[error("the CPUs this process may use cannot be read or set")]
    Affinity(#[source] io::Error),
}

impl CpuPlan {
    /// The plan on this machine, over these CPUs or all that the process may use.
    pub(crate) fn new(cpus: Option<&[usize]>, shards: Shards) -> Result<CpuPlan, CpuError> {
        let set = sched_getaffinity(CALLING_THREAD).map_err(|error| CpuError::Affinity(error.into()))?;
        let allowed: Vec<usize> = (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu) == Ok(true)).collect();
        let cpus = cpus.unwrap_or(&allowed);
        match cpus.iter().find(|cpu| !allowed.contains(cpu)) {
            Some(cpu) => Err(CpuError::NotAllowed { cpu: *cpu, allowed }),
            None => Ok(CpuPlan::over(cpus, shards)),
        }
    }

    /// The plan over these CPUs (at least one).
    pub fn over(cpus: &[usize], shards: Shards) -> CpuPlan {
        let count = match shards {
            Shards::Count(count) => usize::from(count),
            // Ledger and store want a CPU each once a shard or two have theirs.
            Shards::Auto => match cpus.len() {
                0..=2 => 1,
                3 => 2,
                more => more - 2,
            },
        };
        let shards: Vec<usize> = cpus.iter().copied().cycle().take(count).collect();
        let ledger = cpus.get(count).copied();
        let store = cpus.get(count + 1).copied().or(ledger);
        CpuPlan { shards, ledger, store, all: cpus.to_vec() }
    }

    /// Whether the store yields to deliveries: where it shares a CPU with a shard.
    pub(crate) fn store_yield(&self) -> StoreYield {
        match self.store {
            Some(cpu) if !self.shards.contains(&cpu) => StoreYield::OwnCpu,
            _ => StoreYield::shared_cpu(),
        }
    }

    /// Keeps the calling thread, and all threads it starts from now on, on the plan's CPUs.
    pub(crate) fn confine(&self) -> Result<(), CpuError> {
        keep_on(&self.all).map_err(CpuError::Affinity)
    }
}

/// Keeps the calling thread on these CPUs.
pub(crate) fn keep_on(cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    cpus.iter().try_for_each(|cpu| set.set(*cpu))?;
    Ok(sched_setaffinity(CALLING_THREAD, &set)?)
}
