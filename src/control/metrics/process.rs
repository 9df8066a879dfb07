//! What the kernel says of this process, under the names that Prometheus' client libraries give it.
//!
//! Read when somebody asks. What always holds: what cannot be read is left out; nothing here lists the process's
//! descriptors, which may be a million.

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};

/// Of this process, as far as it is known.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub(super) struct Process {
    /// CPU time, user and system, seconds.
    pub(super) cpu_s: Option<f64>,
    /// Memory in RAM, bytes.
    pub(super) resident_bytes: Option<u64>,
    /// Address space, bytes.
    pub(super) virtual_bytes: Option<u64>,
    /// Threads.
    pub(super) threads: Option<u64>,
    /// Open descriptors; Linux says it since 6.2.
    pub(super) descriptors: Option<u64>,
    /// How many it may open.
    pub(super) descriptors_max: Option<u64>,
}

/// As of now.
pub(super) fn read() -> Process {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok();
    Process {
        cpu_s: usage.map(|usage| {
            let us = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e6 + time.tv_usec() as f64;
            (us(usage.user_time()) + us(usage.system_time())) / 1e6
        }),
        descriptors: fs::metadata("/proc/self/fd").ok().map(|directory| directory.size()).filter(|size| *size > 0),
        descriptors_max: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
        ..of_status(&fs::read_to_string("/proc/self/status").unwrap_or_default())
    }
}

/// What proc_pid_status(5) has of it.
fn of_status(status: &str) -> Process {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    Process {
        resident_bytes: field("VmRSS").map(|kib| kib * 1024),
        virtual_bytes: field("VmSize").map(|kib| kib * 1024),
        threads: field("Threads"),
        ..Process::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_threads_are_found_by_their_names_and_what_is_not_there_is_not_known() {
        let process = of_status("Name:\tVmRSS: 9\nVmSize:\t   8 kB\nVmRSS:\t  3 kB\nThreads:\t6\n");
        assert_eq!(process.threads, Some(6));
        assert_eq!((process.virtual_bytes, process.resident_bytes), (Some(8_192), Some(3_072)));
        assert_eq!(of_status(""), Process::default());
    }

    #[test]
    fn this_process_has_memory_threads_and_descriptors() {
        let process = read();
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 1 << 20), "{process:?}");
        assert!(process.threads >= Some(1) && process.cpu_s.is_some_and(|seconds| seconds >= 0.0), "{process:?}");
        assert!(process.descriptors_max >= process.descriptors, "{process:?}");
    }
}
