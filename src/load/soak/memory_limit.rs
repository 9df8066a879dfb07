//! The memory limit that the gateway's process is under: how often it was reached, and whether the kernel killed for it.
//!
//! Read from the cgroup's files before and after. What always holds: the files are found while the process lives, so
//! that they can be read when the kernel has killed it.

use std::fs;
use std::path::{Path, PathBuf};

use super::orders::Names;

/// How the report calls a process that the kernel killed at a limit.
pub(crate) const KILLED: &str = "killed at its memory limit";
/// How it calls a limit at which the kernel took pages back.
pub(crate) const REACHED: &str = "memory limit reached";

/// The limits of processes.
#[derive(Clone, Default, Debug)]
pub struct MemoryLimits {
    /// Their cgroups' directories.
    pub directories: Vec<PathBuf>,
}

impl MemoryLimits {
    /// What has happened at them so far.
    pub fn events(&self) -> Names {
        let mut names = Names::new();
        let mut add = |name: &str, count: Option<u64>| {
            *names.entry(name.to_owned()).or_default() += count.unwrap_or(0);
        };
        for directory in &self.directories {
            // Version 2, then version 1.
            add(REACHED, field(directory, "memory.events", "max"));
            add(KILLED, field(directory, "memory.events", "oom_kill"));
            add(REACHED, fs::read_to_string(directory.join("memory.failcnt")).ok().and_then(|n| n.trim().parse().ok()));
            add(KILLED, field(directory, "memory.oom_control", "oom_kill"));
        }
        names
    }
}

/// A number in a file of names and numbers.
fn field(directory: &Path, file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(directory.join(file)).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use super::*;

    #[test]
    fn both_versions_of_cgroups_tell_what_happened() {
        let dir = tempfile::tempdir().unwrap();
        let [v1, v2] = ["v1", "v2"].map(|name| dir.path().join(name));
        fs::create_dir(&v1).unwrap();
        fs::create_dir(&v2).unwrap();
        fs::write(v1.join("memory.failcnt"), "7\n").unwrap();
        fs::write(v1.join("memory.oom_control"), "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n").unwrap();
        fs::write(v2.join("memory.events"), "low 0\nhigh 0\nmax 5\noom 1\noom_kill 1\noom_group_kill 0\n").unwrap();
        let events = MemoryLimits { directories: vec![v1, v2, dir.path().join("gone")] }.events();
        assert_eq!(events, [(REACHED.to_owned(), 12), (KILLED.to_owned(), 3)].into_iter().collect());
    }
}
