//! A host as the doctor sees it: everything that was read, once, before anything is judged.
//!
//! [`live`] is the machine this process runs on; tests have recorded ones, read through the same [`Host::read`]. What
//! always holds: reading changes nothing on the host, and what could not be read is kept as that, never as a value.

pub(crate) mod cgroup;
pub(crate) mod live;
#[cfg(test)]
pub(crate) mod recorded;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use crate::doctor::host::cgroup::Cgroups;
use crate::doctor::kernel::KernelVersion;
use crate::doctor::uring::Uring;
use crate::doctor::values::{Kind, Values};

/// What reading one thing gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Reading {
    /// Its text, without blanks around it.
    Value(String),
    /// There is no such thing here.
    Absent,
    /// It is there and cannot be read, for this reason.
    Unreadable(String),
}

impl Reading {
    /// The text, if there is one.
    pub(crate) fn value(&self) -> Option<&str> {
        match self {
            Reading::Value(text) => Some(text),
            Reading::Absent | Reading::Unreadable(_) => None,
        }
    }
}

/// Where a host is read from.
pub(crate) trait Machine {
    /// A sysctl by its dotted name.
    fn sysctl(&self, name: &str) -> Reading;
    /// A file by its path.
    fn file(&self, path: &str) -> Reading;
    /// The names in a directory below /sys, sorted; none if there is no such directory.
    fn names(&self, directory: &str) -> Vec<String>;
    /// What no file tells: whether a ring can be made.
    fn uring(&self) -> Uring;
    /// What no file tells: the data directory's disk.
    fn disk(&self, data_dir: &Path) -> DiskSpace;
}

/// A limit of this process; `u64::MAX` is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ProcessLimit {
    /// What holds now.
    pub(crate) soft: u64,
    /// What the process may raise it to by itself, as `serve` does.
    pub(crate) hard: u64,
}

/// Memory of the machine, bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Memory {
    /// All there is.
    pub(crate) total: u64,
    /// What can be had without swapping.
    pub(crate) available: u64,
}

/// The data directory's file system, as the kernel tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DiskSpace {
    /// The directory, or the nearest one above it that exists, without links.
    pub(crate) directory: String,
    /// Bytes that this user may still write, or why they are not known.
    pub(crate) free_bytes: Result<u64, String>,
}

/// Everything that was read of a host.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// `kernel.osrelease`.
    pub(crate) release: Reading,
    /// Open files.
    pub(crate) descriptors: Option<ProcessLimit>,
    /// Locked memory.
    pub(crate) memlock: Option<ProcessLimit>,
    /// What started it says so.
    pub(crate) is_container: bool,
    /// `CAP_IPC_LOCK`: locked memory is not counted.
    pub(crate) locks_uncounted: bool,
    /// `None`: /proc/meminfo does not tell.
    pub(crate) memory: Option<Memory>,
    /// What the process's own cgroups allow it.
    pub(crate) cgroups: Cgroups,
    /// The CPUs this process may run on.
    pub(crate) cpus: Vec<usize>,
    /// What the kernel reads the time from.
    pub(crate) clock_source: Reading,
    /// What it could read it from.
    pub(crate) clock_sources: Reading,
    /// What io_uring answered.
    pub(crate) uring: Uring,
    /// Where the data is to be.
    pub(crate) disk: DiskSpace,
    /// The type of that file system: ext4, tmpfs, ...
    pub(crate) file_system: Option<String>,
    /// Every sysctl that a rule or a check names.
    pub(crate) sysctls: BTreeMap<String, Reading>,
    /// Every file below /sys that a rule names, by the rule's key: path and what it holds.
    pub(crate) sysfs: BTreeMap<String, Vec<(String, Reading)>>,
    /// A NIC's packets are spread over several CPUs.
    pub(crate) packets_spread: bool,
    /// The tuning scripts keep the gateway's port out of the table of tracked connections.
    pub(crate) port_untracked: bool,
}

/// Sysctls that checks look at and no rule names.
const OTHER_SYSCTLS: [&str; 3] = ["fs.file-nr", "kernel.io_uring_disabled", "net.ipv4.ip_local_port_range"];
/// Where the kernel says what it reads the time from.
pub(crate) const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
const CLOCK_SOURCES: &str = "/sys/devices/system/clocksource/clocksource0/available_clocksource";
const NICS: &str = "/sys/class/net";
/// Made by docker and podman in what they start.
const CONTAINER_MARKS: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];
/// What `tuning/apply.sh` has changed, with what was there.
const TUNING_RECORD: &str = "/var/lib/ringway-tuning/record";
/// `CAP_IPC_LOCK`'s bit.
const CAP_IPC_LOCK: u32 = 14;

impl Host {
    /// Reads all that `values` and the checks ask for.
    pub(crate) fn read(machine: &dyn Machine, values: &Values, data_dir: &Path) -> Host {
        let status = machine.file("/proc/self/status");
        let limits = machine.file("/proc/self/limits");
        let mounts = machine.file("/proc/self/mountinfo");
        let disk = machine.disk(data_dir);
        let named = values.rules.iter().filter(|r| matches!(r.kind, Kind::Sysctl | Kind::Conntrack | Kind::Nic));
        let sysctls = named.map(|rule| rule.key.as_str()).chain(OTHER_SYSCTLS);
        let sysfs = values.rules.iter().filter(|rule| rule.kind == Kind::Sysfs);
        Host {
            release: machine.sysctl("kernel.osrelease"),
            descriptors: limits.value().and_then(|text| process_limit(text, "Max open files")),
            memlock: limits.value().and_then(|text| process_limit(text, "Max locked memory")),
            is_container: CONTAINER_MARKS.iter().any(|mark| machine.file(mark) != Reading::Absent),
            locks_uncounted: status.value().is_some_and(|text| has_capability(text, CAP_IPC_LOCK)),
            memory: machine.file("/proc/meminfo").value().and_then(memory),
            cgroups: Cgroups::read(machine, mounts.value().unwrap_or_default()),
            cpus: status.value().and_then(|text| field(text, "Cpus_allowed_list")).map(cpu_list).unwrap_or_default(),
            clock_source: machine.file(CLOCK_SOURCE),
            clock_sources: machine.file(CLOCK_SOURCES),
            uring: machine.uring(),
            file_system: mounts.value().and_then(|text| file_system(text, &disk.directory)),
            disk,
            sysctls: sysctls.map(|name| (name.to_owned(), machine.sysctl(name))).collect(),
            sysfs: sysfs.map(|rule| (rule.key.clone(), files(machine, &rule.key))).collect(),
            packets_spread: packets_spread(machine),
            port_untracked: port_untracked(machine),
        }
    }

    /// The kernel's version, if it tells one.
    pub(crate) fn kernel(&self) -> Option<KernelVersion> {
        self.release.value().and_then(KernelVersion::parse)
    }

    /// A sysctl that was read.
    pub(crate) fn sysctl(&self, name: &str) -> Reading {
        self.sysctls.get(name).cloned().unwrap_or(Reading::Absent)
    }

    /// The bytes that this process can still get: the machine's, or what its cgroups leave it.
    pub(crate) fn memory_available(&self) -> Option<u64> {
        let machine = self.memory.map(|memory| memory.available);
        machine.into_iter().chain(self.cgroups.memory_left()).min()
    }

    /// The bytes there are for this process at all.
    pub(crate) fn memory_total(&self) -> Option<u64> {
        let machine = self.memory.map(|memory| memory.total);
        machine.into_iter().chain(self.cgroups.memory_limit()).min()
    }
}

/// The rest of the line `name:` of a text such as /proc/self/status.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

/// A line of /proc/self/limits.
fn process_limit(text: &str, name: &str) -> Option<ProcessLimit> {
    let mut columns = text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace();
    let mut number = || match columns.next()? {
        "unlimited" => Some(u64::MAX),
        digits => digits.parse().ok(),
    };
    Some(ProcessLimit { soft: number()?, hard: number()? })
}

fn has_capability(status: &str, bit: u32) -> bool {
    let effective = field(status, "CapEff").and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0);
    effective & (1 << bit) != 0
}

fn memory(meminfo: &str) -> Option<Memory> {
    let bytes = |name| field(meminfo, name)?.strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024);
    Some(Memory { total: bytes("MemTotal")?, available: bytes("MemAvailable")? })
}

/// `0,2-3` as numbers; what is no list is none.
fn cpu_list(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.trim().parse::<usize>().ok()?..=to.trim().parse::<usize>().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// A mount of /proc/self/mountinfo.
struct Mount<'a> {
    /// What of the file system is mounted.
    root: &'a str,
    /// Where it is mounted.
    point: &'a str,
    /// ext4, cgroup2, ...
    kind: &'a str,
    /// The file system's own options.
    options: &'a str,
}

fn mounts(mountinfo: &str) -> impl Iterator<Item = Mount<'_>> {
    mountinfo.lines().filter_map(|line| {
        let (place, system) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let mut system = system.split(' ');
        Some(Mount {
            root: place.next()?,
            point: place.next()?,
            kind: system.next()?,
            options: system.nth(1).unwrap_or_default(),
        })
    })
}

/// The type of the file system that holds `directory`: that of the longest mount point above it, of the last one
/// where several are mounted upon each other.
fn file_system(mountinfo: &str, directory: &str) -> Option<String> {
    let above = mounts(mountinfo).filter(|mount| Path::new(directory).starts_with(mount.point));
    above.max_by_key(|mount| mount.point.len()).map(|mount| mount.kind.to_owned())
}

/// The files that a rule's path names, `*` standing for any part of one name each.
fn files(machine: &dyn Machine, pattern: &str) -> Vec<(String, Reading)> {
    let mut paths = vec![String::new()];
    for part in pattern.trim_start_matches('/').split('/') {
        paths = paths.iter().flat_map(|path| step(machine, path, part)).collect();
    }
    let read = |path: String| (path.clone(), machine.file(&path));
    paths.into_iter().map(read).filter(|(_, reading)| *reading != Reading::Absent).collect()
}

fn step(machine: &dyn Machine, directory: &str, part: &str) -> Vec<String> {
    let path = |name: &str| format!("{directory}/{name}");
    match part.split_once('*') {
        None => vec![path(part)],
        Some((before, after)) => {
            let fits = |name: &&String| {
                name.strip_prefix(before).is_some_and(|rest| rest.len() >= after.len() && rest.ends_with(after))
            };
            machine.names(directory).iter().filter(fits).map(|name| path(name)).collect()
        }
    }
}

/// Whether any queue of a NIC hands its packets to chosen CPUs.
fn packets_spread(machine: &dyn Machine) -> bool {
    let masks = files(machine, &format!("{NICS}/*/queues/rx-*/rps_cpus"));
    let chosen = |mask: &str| mask.bytes().any(|digit| digit.is_ascii_hexdigit() && digit != b'0');
    masks.iter().any(|(_, mask)| mask.value().is_some_and(chosen))
}

/// Whether the scripts' record says so of this boot: the firewall's rules themselves are for root to see.
fn port_untracked(machine: &dyn Machine) -> bool {
    let (record, boot) = (machine.file(TUNING_RECORD), machine.sysctl("kernel.random.boot_id"));
    let (Some(record), Some(boot)) = (record.value(), boot.value()) else { return false };
    let has = |kind: &str, key: &str| record.lines().any(|line| line.split('\t').take(2).eq([kind, key]));
    has("boot", boot) && has("nft", "ringway_notrack")
}
