//! A copy of a host for the tuning scripts: a directory that stands for `/`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use super::{Said, run, script};

/// A copy of a host, gone with the test.
pub(super) struct Host {
    dir: tempfile::TempDir,
}

/// What the kernel has in a copy: name and value.
const SYSCTLS: &[(&str, &str)] = &[
    ("fs/nr_open", "1048576"),
    ("fs/file-max", "9223372036854775807"),
    ("kernel/io_uring_disabled", "2"),
    ("net/core/somaxconn", "4096"),
    ("net/core/netdev_max_backlog", "1000"),
    ("net/core/rps_sock_flow_entries", "0"),
    ("net/ipv4/tcp_max_syn_backlog", "4096"),
    ("net/ipv4/tcp_syncookies", "0"),
    ("net/ipv4/ip_local_port_range", "32768\t60999"),
    ("net/ipv4/tcp_fin_timeout", "60"),
    ("net/ipv4/tcp_tw_reuse", "2"),
    ("net/ipv4/tcp_timestamps", "1"),
    ("net/ipv4/tcp_max_tw_buckets", "262144"),
    ("net/ipv4/tcp_max_orphans", "262144"),
    ("net/ipv4/tcp_keepalive_time", "7200"),
    ("net/ipv4/tcp_keepalive_intvl", "75"),
    ("net/ipv4/tcp_keepalive_probes", "9"),
    ("net/ipv4/tcp_mem", "766491\t1021990\t1532982"),
    ("net/ipv4/tcp_rmem", "4096\t131072\t6291456"),
    ("net/ipv4/tcp_wmem", "4096\t16384\t4194304"),
    ("net/netfilter/nf_conntrack_max", "262144"),
    ("net/netfilter/nf_conntrack_buckets", "262144"),
    ("vm/swappiness", "60"),
];

impl Host {
    /// So many CPUs, GiB, and queues of its NIC, on which the default route goes out.
    pub(super) fn new(cpus: usize, gib: u64, queues: usize) -> Host {
        let host = Host { dir: tempfile::tempdir().unwrap() };
        for (name, value) in SYSCTLS {
            host.write(&format!("proc/sys/{name}"), &format!("{value}\n"));
        }
        host.write("proc/sys/kernel/random/boot_id", "first\n");
        // A little less than is sold, as everywhere.
        host.write("proc/meminfo", &format!("MemTotal:       {} kB\nMemFree:  1 kB\n", gib * 1024 * 1024 * 97 / 100));
        host.write("proc/self/status", &format!("Name:\tsh\nCpus_allowed_list:\t0-{}\n", cpus - 1));
        host.write("proc/net/route", ROUTE);
        let transparent = "sys/kernel/mm/transparent_hugepage";
        host.write(&format!("{transparent}/enabled"), "[always] madvise never\n");
        host.write(&format!("{transparent}/defrag"), "[always] defer defer+madvise madvise never\n");
        for cpu in 0..cpus {
            host.write(&format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"), "powersave\n");
        }
        host.write("etc/sysctl.conf", "# nothing\n");
        host.write("etc/sysctl.d/90-ringway.conf", "# somebody's own, by the same name\nvm.swappiness = 60");
        std::fs::create_dir_all(host.path("etc/systemd/system")).unwrap();
        host.nic(cpus, queues);
        host
    }

    fn nic(&self, cpus: usize, queues: usize) {
        let mut interrupts = "           CPU0       CPU1\n".to_owned();
        let mut irq = |number: usize, name: &str| {
            interrupts += &format!(" {number}:   12   34   PCI-MSIX-0000:01:00.0   {number}-edge      {name}\n");
            self.write(&format!("sys/class/net/eth0/device/msi_irqs/{number}"), "msix\n");
            self.write(&format!("proc/irq/{number}/smp_affinity_list"), &format!("0-{}\n", cpus - 1));
        };
        irq(40, "mlx5_async0@pci:0000:01:00.0");
        for queue in 0..queues {
            irq(41 + queue, &format!("mlx5_comp{queue}@pci:0000:01:00.0"));
            let rx = format!("sys/class/net/eth0/queues/rx-{queue}");
            self.write(&format!("{rx}/rps_cpus"), "00,00000000\n");
            self.write(&format!("{rx}/rps_flow_cnt"), "0\n");
            self.write(&format!("sys/class/net/eth0/queues/tx-{queue}/xps_cpus"), "00,00000000\n");
        }
        // Of a disk: nobody's business here.
        interrupts += " 99:   12   34   PCI-MSIX-0000:02:00.0   0-edge      nvme0q1\n";
        self.write("proc/irq/99/smp_affinity_list", "0\n");
        self.write("proc/interrupts", &interrupts);
    }

    /// A path in the copy.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub(super) fn write(&self, path: &str, content: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(super) fn remove(&self, path: &str) {
        std::fs::remove_file(self.path(path)).unwrap();
    }

    /// A file's content, without the last line's end.
    pub(super) fn read(&self, path: &str) -> String {
        let content = std::fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        content.trim_end_matches('\n').to_owned()
    }

    /// A kernel setting, blanks for tabs.
    pub(super) fn sysctl(&self, name: &str) -> String {
        self.read(&format!("proc/sys/{}", name.replace('.', "/"))).replace('\t', " ")
    }

    /// Every file, directory and link with what is in it.
    pub(super) fn everything(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut dirs = vec![self.dir.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                let kind = path.symlink_metadata().unwrap();
                let content = if kind.is_symlink() {
                    std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
                } else if kind.is_dir() {
                    dirs.push(path.clone());
                    b"a directory".to_vec()
                } else {
                    std::fs::read(&path).unwrap()
                };
                found.insert(path, content);
            }
        }
        found
    }

    /// The script on this copy.
    pub(super) fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(script(name));
        command.arg("--root").arg(self.dir.path()).args(arguments);
        command
    }

    /// What it said.
    pub(super) fn run(&self, name: &str, arguments: &[&str]) -> Said {
        run(&mut self.command(name, arguments))
    }
}

const ROUTE: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
";
