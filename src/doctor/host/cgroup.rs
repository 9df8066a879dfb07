//! What the process's own cgroups allow it, version 1 and 2, from its own up to the topmost that it can see.
//!
//! What always holds: a limit counts wherever on that way it is set. What lies above a container's own root is not
//! to be seen from inside, and not known.

use crate::doctor::host::{Machine, Mount, Reading, mounts};

/// Limits that were found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Cgroups {
    /// Of memory.
    pub(crate) memory: Vec<MemoryLimit>,
    /// Of CPU time, in thousandths of a CPU: the least.
    pub(crate) cpu_quota_milli: Option<u64>,
}

/// A cgroup's limit of memory, bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct MemoryLimit {
    /// The file that says it.
    pub(crate) file: String,
    /// What it says.
    pub(crate) limit: u64,
    /// What is taken of it and would not be given back when needed.
    pub(crate) used: u64,
}

/// Version 1 says "no limit" with a number near 2^63.
const NO_LIMIT_V1: u64 = 1 << 62;

/// The files of one version.
struct Files {
    limits: &'static [&'static str],
    usage: &'static str,
    /// In `memory.stat`: pages that are given back first.
    reclaimable: &'static str,
}

const V1: Files =
    Files { limits: &["memory.limit_in_bytes"], usage: "memory.usage_in_bytes", reclaimable: "total_inactive_file" };
const V2: Files =
    Files { limits: &["memory.max", "memory.high"], usage: "memory.current", reclaimable: "inactive_file" };

impl Cgroups {
    /// Reads those of this process.
    pub(crate) fn read(machine: &dyn Machine, mountinfo: &str) -> Cgroups {
        Cgroups::read_of(machine, mountinfo, "/proc/self/cgroup")
    }

    /// Reads those of the process whose `cgroup` file this is.
    pub(crate) fn read_of(machine: &dyn Machine, mountinfo: &str, cgroup_file: &str) -> Cgroups {
        let mut found = Cgroups::default();
        let own = machine.file(cgroup_file);
        for line in own.value().unwrap_or_default().lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            let has = |name: &str| controllers.split(',').any(|controller| controller == name);
            if controllers.is_empty() {
                let mount = mounts(mountinfo).find(|mount| mount.kind == "cgroup2");
                for directory in mount.map(|mount| way_up(&mount, path)).unwrap_or_default() {
                    found.add_memory(machine, &directory, &V2);
                    found.add_quota(quota_v2(machine, &directory));
                }
                continue;
            }
            let mount = |name: &str| {
                mounts(mountinfo).find(|m| m.kind == "cgroup" && m.options.split(',').any(|option| option == name))
            };
            if has("memory") {
                for directory in mount("memory").map(|mount| way_up(&mount, path)).unwrap_or_default() {
                    found.add_memory(machine, &directory, &V1);
                }
            }
            if has("cpu") {
                for directory in mount("cpu").map(|mount| way_up(&mount, path)).unwrap_or_default() {
                    found.add_quota(quota_v1(machine, &directory));
                }
            }
        }
        found
    }

    /// The least that any of them leaves, if there is a limit.
    pub(crate) fn memory_left(&self) -> Option<u64> {
        self.memory.iter().map(|memory| memory.limit.saturating_sub(memory.used)).min()
    }

    /// The least limit, if there is one.
    pub(crate) fn memory_limit(&self) -> Option<u64> {
        self.memory.iter().map(|memory| memory.limit).min()
    }

    fn add_memory(&mut self, machine: &dyn Machine, directory: &str, files: &Files) {
        for name in files.limits {
            let file = format!("{directory}/{name}");
            let Some(limit) = number(&machine.file(&file)).filter(|limit| *limit < NO_LIMIT_V1) else { continue };
            let usage = number(&machine.file(&format!("{directory}/{}", files.usage))).unwrap_or(0);
            let stat = machine.file(&format!("{directory}/memory.stat"));
            let reclaimable = stat.value().unwrap_or_default().lines().find_map(|line| {
                let (name, bytes) = line.split_once(' ')?;
                (name == files.reclaimable).then(|| bytes.parse::<u64>().ok())?
            });
            self.memory.push(MemoryLimit { file, limit, used: usage.saturating_sub(reclaimable.unwrap_or(0)) });
        }
    }

    fn add_quota(&mut self, quota: Option<u64>) {
        self.cpu_quota_milli = self.cpu_quota_milli.into_iter().chain(quota).min();
    }
}

fn number(reading: &Reading) -> Option<u64> {
    reading.value()?.parse().ok()
}

fn quota_v2(machine: &dyn Machine, directory: &str) -> Option<u64> {
    let max = machine.file(&format!("{directory}/cpu.max"));
    let (quota, period) = max.value()?.split_once(' ')?;
    milli(quota.parse().ok()?, period.parse().ok()?)
}

fn quota_v1(machine: &dyn Machine, directory: &str) -> Option<u64> {
    // -1, no number here, is no quota.
    let quota = number(&machine.file(&format!("{directory}/cpu.cfs_quota_us")))?;
    milli(quota, number(&machine.file(&format!("{directory}/cpu.cfs_period_us")))?)
}

fn milli(quota: u64, period: u64) -> Option<u64> {
    quota.saturating_mul(1_000).checked_div(period)
}

/// The directories of a cgroup and all above it that `mount` shows.
fn way_up(mount: &Mount<'_>, path: &str) -> Vec<String> {
    // In a container without a cgroup namespace the path is the host's and the mount shows a part of it.
    let inside = match mount.root {
        "/" => path,
        root => path.strip_prefix(root).unwrap_or_default(),
    };
    let top = mount.point.trim_end_matches('/');
    let inside = inside.trim_matches('/');
    if inside.is_empty() || inside.starts_with("..") {
        return vec![top.to_owned()];
    }
    let names: Vec<&str> = inside.split('/').collect();
    let below = (1..=names.len()).rev().map(|depth| format!("{top}/{}", names[..depth].join("/")));
    below.chain([top.to_owned()]).collect()
}
