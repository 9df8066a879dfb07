//! Which CPUs the gateway and the load run on, so that one's work is not counted as the other's.
//!
//! What always holds: on a machine with one CPU nothing is pinned and nothing spins.

use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::error::LoadError;

/// The plan.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Cpus {
    /// The gateway's, as its `--cpus` takes them; `None`: all.
    pub gateway: Option<String>,
    /// The load's; empty: not pinned.
    pub load: Vec<usize>,
}

impl Cpus {
    /// What was asked for; else the first CPU of those allowed for the gateway and the second for the load.
    pub(crate) fn plan(gateway: Option<&str>, load: Option<&str>, allowed: &[usize]) -> Result<Cpus, LoadError> {
        let (first, second) = (allowed.first(), allowed.get(1));
        let apart = first.zip(second);
        let gateway = gateway.map(str::to_owned).or_else(|| apart.map(|(first, _)| first.to_string()));
        let load = match load {
            Some(list) => parse(list).ok_or(LoadError::Options("--load-cpus takes numbers, such as 1 or 1,3-4"))?,
            None => apart.map(|(_, second)| *second).into_iter().collect(),
        };
        let load = if load.iter().all(|cpu| allowed.contains(cpu)) { load } else { Vec::new() };
        let gateway = gateway.filter(|list| parse(list).is_some_and(|g| g.iter().all(|cpu| allowed.contains(cpu))));
        Ok(Cpus { gateway, load })
    }

    /// Pins this thread to the load's CPUs. Start the gateway before: a child inherits the pinning.
    pub(crate) fn pin_load(&self) {
        let mut set = CpuSet::new();
        let placed = self.load.iter().filter(|cpu| set.set(**cpu).is_ok()).count();
        if placed > 0 {
            // A refusal (a container's rules) leaves the load unpinned, which the figures survive.
            sched_setaffinity(Pid::from_raw(0), &set).ok();
        }
    }

    /// How long to sleep at most while deliveries are due: not at all with a CPU of our own, where waking up
    /// would be measured as the gateway's latency.
    pub(crate) fn patience(&self) -> Duration {
        let ours = self
            .gateway
            .as_deref()
            .and_then(parse)
            .is_some_and(|gateway| !self.load.is_empty() && self.load.iter().all(|cpu| !gateway.contains(cpu)));
        if ours { Duration::ZERO } else { Duration::from_millis(1) }
    }
}

/// Has the calling thread go before all others on its CPUs, and those it starts from now on as they are. For one that
/// sleeps most of the time. False: the kernel does not let it (CAP_SYS_NICE).
pub(crate) fn go_first() -> bool {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: the struct lives through the call; 0 is the calling thread.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameters) == 0 }
}

/// The CPUs this process may use.
pub(crate) fn allowed() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else { return Vec::new() };
    (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect()
}

fn parse(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (usize, usize) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        if from > to || to >= CpuSet::count() {
            return None;
        }
        cpus.extend(from..=to);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use super::*;

    #[test]
    fn gateway_and_load_are_put_apart_where_there_are_two_cpus() {
        let cpus = Cpus::plan(None, None, &[4, 6]).unwrap();
        assert_eq!(cpus, Cpus { gateway: Some("4".into()), load: vec![6] });
        assert_eq!(cpus.patience(), Duration::ZERO);
    }

    #[test]
    fn nothing_is_pinned_and_nothing_spins_on_one_cpu() {
        let cpus = Cpus::plan(Some("0"), Some("1"), &[0]).unwrap();
        assert_eq!(cpus, Cpus { gateway: Some("0".into()), load: vec![] });
        assert!(cpus.patience() > Duration::ZERO);
        assert_eq!(Cpus::plan(None, None, &[0]).unwrap(), Cpus::default());
    }

    #[test]
    fn a_list_that_is_none_is_refused() {
        assert_eq!(parse("0,2-3"), Some(vec![0, 2, 3]));
        assert!(Cpus::plan(None, Some("one"), &[0, 1]).is_err());
        assert!(Cpus::plan(None, Some("3-1"), &[0, 1]).is_err());
    }
}
