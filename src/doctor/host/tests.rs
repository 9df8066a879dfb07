#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;
use crate::doctor::host::cgroup::MemoryLimit;

/// A host that has these files and nothing else.
struct Files<'a>(&'a [(&'a str, &'a str)]);

impl Machine for Files<'_> {
    fn sysctl(&self, name: &str) -> Reading {
        self.file(&format!("/proc/sys/{}", name.replace('.', "/")))
    }

    fn file(&self, path: &str) -> Reading {
        let found = self.0.iter().find(|(name, _)| *name == path);
        found.map_or(Reading::Absent, |(_, text)| Reading::Value((*text).trim().to_owned()))
    }

    fn names(&self, directory: &str) -> Vec<String> {
        let below = |path: &str| Some(path.strip_prefix(directory)?.strip_prefix('/')?.split('/').next()?.to_owned());
        let mut names: Vec<String> = self.0.iter().filter_map(|(path, _)| below(path)).collect();
        names.dedup();
        names
    }

    fn uring(&self) -> Uring {
        Uring::Works { missing: Vec::new() }
    }

    fn disk(&self, data_dir: &Path) -> DiskSpace {
        DiskSpace { directory: data_dir.display().to_string(), free_bytes: Ok(0) }
    }
}

#[test]
fn kernels_are_compared_by_number_and_not_by_letter() {
    let parse = |release| KernelVersion::parse(release).unwrap();
    assert!(parse("5.10.0-30-amd64") > parse("5.8"));
    assert!(parse("6.1.0-18-cloud-amd64") > parse("5.15.0"));
    assert!(parse("4.19.0") < parse("5.8"));
    assert_eq!(parse("6.18.44-fc-v669").to_string(), "6.18");
    assert_eq!(parse("5.8-rc1"), parse("5.8"));
    for nothing in ["", "six", "6", "x.1", "6."] {
        assert_eq!(KernelVersion::parse(nothing), None, "{nothing:?}");
    }
}

#[test]
fn limits_of_the_process_are_read_with_their_words() {
    let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                Max open files            1024                 524288               files     \n\
                Max locked memory         8388608              unlimited            bytes     ";
    assert_eq!(process_limit(text, "Max open files"), Some(ProcessLimit { soft: 1024, hard: 524_288 }));
    assert_eq!(process_limit(text, "Max locked memory"), Some(ProcessLimit { soft: 8_388_608, hard: u64::MAX }));
    assert_eq!(process_limit(text, "Max files"), None);
    assert_eq!(process_limit("Max open files   many  few", "Max open files"), None);
}

#[test]
fn a_list_of_cpus_is_read() {
    assert_eq!(cpu_list("0,2-4"), [0, 2, 3, 4]);
    assert_eq!(cpu_list("7"), [7]);
    assert!(cpu_list("").is_empty());
    assert!(cpu_list("none").is_empty());
}

#[test]
fn the_file_system_is_that_of_the_nearest_mount() {
    let mountinfo = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                     30 22 0:25 / /var/lib rw - xfs /dev/vdb rw\n\
                     31 22 0:26 / /var/library rw - tmpfs tmpfs rw\n\
                     32 30 0:27 / /var/lib/ringway rw shared:9 master:2 - nfs4 server:/ rw";
    let of = |directory| file_system(mountinfo, directory).unwrap();
    assert_eq!(of("/home/ringway"), "ext4");
    assert_eq!(of("/var/lib/other"), "xfs");
    assert_eq!(of("/var/lib/ringway/data"), "nfs4");
    assert_eq!(file_system("", "/"), None);
}

#[test]
fn the_least_limit_of_a_cgroup_and_those_above_counts_in_version_2() {
    let mountinfo = "30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate";
    let found = Cgroups::read(
        &Files(&[
            ("/proc/self/cgroup", "0::/system.slice/ringway.service"),
            ("/sys/fs/cgroup/system.slice/ringway.service/memory.max", "max"),
            ("/sys/fs/cgroup/system.slice/ringway.service/memory.high", "4000000000"),
            ("/sys/fs/cgroup/system.slice/ringway.service/memory.current", "600000000"),
            (
                "/sys/fs/cgroup/system.slice/ringway.service/memory.stat",
                "anon 1\ninactive_file 100000000\nactive_file 7",
            ),
            ("/sys/fs/cgroup/system.slice/ringway.service/cpu.max", "250000 100000"),
            ("/sys/fs/cgroup/system.slice/memory.max", "3600000000"),
            ("/sys/fs/cgroup/system.slice/memory.current", "0"),
            ("/sys/fs/cgroup/system.slice/cpu.max", "max 100000"),
        ]),
        mountinfo,
    );
    assert_eq!(found.memory_limit(), Some(3_600_000_000));
    assert_eq!(found.memory_left(), Some(3_500_000_000), "what is given back first is not taken");
    assert_eq!(found.cpu_quota_milli, Some(2_500));
}

#[test]
fn version_1_has_a_path_for_each_controller_and_a_number_for_no_limit() {
    let mountinfo = "32 31 0:29 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                     35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
    let found = Cgroups::read(
        &Files(&[
            ("/proc/self/cgroup", "4:memory:/docker/abc/inner\n1:cpu,cpuacct:/docker/abc\n0::/"),
            ("/sys/fs/cgroup/memory/inner/memory.limit_in_bytes", "9223372036854771712"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912"),
            ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "36870912"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000"),
        ]),
        mountinfo,
    );
    let limit = MemoryLimit {
        file: "/sys/fs/cgroup/memory/memory.limit_in_bytes".to_owned(),
        limit: 536_870_912,
        used: 36_870_912,
    };
    assert_eq!(found.memory, [limit]);
    assert_eq!(found.cpu_quota_milli, None);
}

#[test]
fn a_star_stands_for_any_part_of_one_name() {
    let machine = Files(&[
        ("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave"),
        ("/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "performance"),
        ("/sys/devices/system/cpu/cpuidle/current_driver", "none"),
    ]);
    let found = files(&machine, "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor");
    let values: Vec<Option<&str>> = found.iter().map(|(_, reading)| reading.value()).collect();
    assert_eq!(values, [Some("powersave"), Some("performance")]);
    assert!(files(&machine, "/sys/devices/system/node*/x").is_empty());
}

#[test]
fn packets_are_spread_where_a_queue_has_a_mask_with_a_cpu_in_it() {
    let spread = |mask| packets_spread(&Files(&[("/sys/class/net/eth0/queues/rx-0/rps_cpus", mask)]));
    assert!(!spread("00000000,00000000"));
    assert!(spread("00000000,0000000e"));
    assert!(!packets_spread(&Files(&[])));
}

#[test]
fn a_port_is_untracked_if_the_record_of_this_boot_says_so() {
    let untracked = |record| {
        let files = [("/proc/sys/kernel/random/boot_id", "b1"), ("/var/lib/ringway-tuning/record", record)];
        port_untracked(&Files(&files))
    };
    assert!(untracked("boot\tb1\t-\nnft\tringway_notrack\tabsent"));
    assert!(!untracked("boot\tb0\t-\nnft\tringway_notrack\tabsent"), "the firewall has forgotten it");
    assert!(!untracked("boot\tb1\t-\nvalue\t/proc/sys/vm/swappiness\t60"));
    assert!(!untracked(""));
}

#[test]
fn this_machine_is_read() {
    let values = Values::shipped().unwrap();
    let host = Host::read(&live::ThisMachine, &values, Path::new("/tmp/no/such/directory/yet"));
    assert!(host.kernel().is_some() && host.memory.is_some() && !host.cpus.is_empty());
    assert!(host.descriptors.unwrap().hard >= host.descriptors.unwrap().soft);
    assert_eq!(
        host.sysctl("fs.nr_open").value(),
        Some(std::fs::read_to_string("/proc/sys/fs/nr_open").unwrap().trim())
    );
    assert_eq!(host.sysctl("no.such.sysctl"), Reading::Absent);
    assert_eq!(live::ThisMachine.sysctl("no.such.sysctl"), Reading::Absent);
    assert!(host.disk.free_bytes.unwrap() > 0 && host.file_system.is_some());
    assert_eq!(host.uring, Uring::Works { missing: Vec::new() }, "the tests need io_uring");
}
