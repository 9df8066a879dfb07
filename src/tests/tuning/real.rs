//! The scripts for real, on a kernel's own settings: in a network namespace, which has a set of its own, with all that
//! belongs to the whole machine mounted read-only. That is also what a container is like.

use std::path::Path;
use std::process::Command;

use super::{Said, run, script};

/// What is not the namespace's own may be read, and nothing else.
const SHELTER: &str = "
for dir in /proc/sys/fs /proc/sys/vm /proc/sys/kernel /proc/irq; do
    mount --bind $dir $dir && mount -o remount,bind,ro $dir
done
# The namespace's own view of the NICs, and of them alone.
mount -t sysfs ringway-test /sys
for dir in /sys/kernel/mm /sys/devices/system; do
    mount --bind $dir $dir && mount -o remount,bind,ro $dir
done
ip link set lo up
settings() {
    for file in $(find /proc/sys/net -type f | grep -v -e _count -e stable_secret -e flush -e seed) \
        $(find /sys/class/net/*/queues/ -name '[rx]ps_*'); do
        echo \"$file $(cat $file 2>/dev/null | tr '\\t' ' ')\"
    done | sort
}
PATH=$PATH:/usr/sbin:/sbin
";

/// Runs a script of `sh -eu` in the shelter; `$tuning` is where the tuning scripts are, `$own` an empty directory.
fn sheltered(commands: &str) -> Said {
    let own = tempfile::tempdir().unwrap();
    let mut command = Command::new("timeout");
    // With its own process numbers nothing that it started outlives it.
    command.args(["--kill-after=5", "120", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child=KILL"]);
    if !am_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let tuning = script("");
    let text = format!("{SHELTER}\nstate=$own/state\n{commands}");
    command.args(["sh", "-euc", &text]).env("tuning", &tuning).env("own", own.path()).current_dir(own.path());
    run(&mut command)
}

fn am_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The value of a setting of this machine itself.
fn machine(path: &str) -> Option<String> {
    std::fs::read_to_string(Path::new("/proc/sys").join(path)).ok()
}

#[test]
fn a_kernel_takes_what_is_set_and_has_its_own_again_after_the_revert() {
    let whole = ["fs/nr_open", "fs/file-max", "vm/swappiness", "net/core/somaxconn", "net/ipv4/tcp_rmem"];
    let before = whole.map(machine);
    let said = sheltered(
        "
        echo 128 >/proc/sys/net/core/somaxconn
        echo 70 >/proc/sys/net/ipv4/tcp_fin_timeout
        echo 0 >/proc/sys/net/ipv4/tcp_tw_reuse
        settings >$own/before
        $tuning/apply.sh --profile large --state $state
        for name in core/somaxconn ipv4/tcp_fin_timeout ipv4/tcp_tw_reuse ipv4/ip_local_port_range ipv4/tcp_rmem; do
            echo now $name $(cat /proc/sys/net/$name)
        done
        $tuning/apply.sh --profile flagship --state $state >/dev/null
        $tuning/revert.sh --state $state
        settings >$own/after
        diff $own/before $own/after
        ls $own
        ",
    )
    .with(0);
    let now = said.lines("now ");
    assert_eq!(
        now,
        [
            "core/somaxconn 65535",
            "ipv4/tcp_fin_timeout 15",
            "ipv4/tcp_tw_reuse 1",
            "ipv4/ip_local_port_range 10240 65535",
            "ipv4/tcp_rmem 4096 32768 1048576",
        ],
        "{}",
        said.text
    );
    assert!(
        said.lines("set ").iter().any(|line| line.starts_with("net.core.somaxconn: 128 -> 65535 (")),
        "{}",
        said.text
    );
    assert!(!said.text.contains("\nstate"), "the record is gone:\n{}", said.text);
    assert_eq!(whole.map(machine), before, "the machine's own settings");
}

#[test]
fn what_may_not_be_set_is_named_and_counted_and_stops_nothing() {
    // A machine that is tuned already refuses nothing, so one setting of it is shown as it is not.
    let said = sheltered(
        "
        echo 60 >$own/swappiness
        mount --bind $own/swappiness /proc/sys/vm/swappiness
        mount -o remount,bind,ro /proc/sys/vm/swappiness
        $tuning/apply.sh --profile small --state $state
        $tuning/revert.sh --state $state
        ",
    )
    .with(0);
    let refused = said.lines("refused ");
    assert!(refused.iter().any(|line| line.starts_with("vm.swappiness: 60, wanted 10: ")), "{}", said.text);
    said.says(&format!(", {} refused by it", refused.len()));
    assert!(said.lines("set ").iter().any(|line| line.starts_with("net.core.somaxconn")), "{}", said.text);
    said.says(", 0 not restored");
}

#[test]
fn a_nics_queues_are_as_many_as_the_shards_and_each_has_its_cpu() {
    let said = sheltered(
        "
        ip link add veth0 numtxqueues 4 numrxqueues 4 type veth peer name veth1 numtxqueues 4 numrxqueues 4
        ip link set veth0 up && ip link set veth1 up
        ethtool -L veth0 rx 4 tx 4 2>/dev/null || true
        # A setting of a queue that goes, which is for the machine's own root alone.
        (echo 2 >/sys/class/net/veth0/queues/tx-3/xps_cpus) 2>/dev/null || true
        settings >$own/before
        $tuning/apply.sh --nic veth0 --cpus 0,1 --shards 2 --state $state
        for file in rx-0/rps_cpus rx-1/rps_cpus rx-0/rps_flow_cnt tx-0/xps_cpus tx-1/xps_cpus; do
            echo now $file $(cat /sys/class/net/veth0/queues/$file)
        done
        ls /sys/class/net/veth0/queues | sed 's/^/there /'
        $tuning/apply.sh --nic veth0 --cpus 0,1 --shards 2 --state $state | sed -n '/changed/s/^/again /p'
        $tuning/revert.sh --state $state
        settings >$own/after
        diff $own/before $own/after
        ",
    )
    .with(0);
    for kind in ["rx", "tx"] {
        let change = format!("veth0's {kind} queues: 4 -> 2 (");
        assert!(said.lines("set ").iter().any(|line| line.starts_with(&change)), "{}", said.text);
    }
    assert_eq!(said.lines("there "), ["rx-0", "rx-1", "tx-0", "tx-1"], "{}", said.text);
    let steered =
        ["rx-0/rps_cpus 0", "rx-1/rps_cpus 0", "rx-0/rps_flow_cnt 65536", "tx-0/xps_cpus 1", "tx-1/xps_cpus 2"];
    if am_root() {
        assert_eq!(said.lines("now "), steered, "{}", said.text);
        assert!(said.lines("again in all ").iter().all(|line| line.starts_with("0 changed")), "{}", said.text);
    } else {
        // These are for the machine's own root alone.
        let refusal = "/sys/class/net/veth0/queues/tx-1/xps_cpus: 0, wanted 2";
        assert!(said.lines("refused ").iter().any(|line| line.starts_with(refusal)), "{}", said.text);
    }
}

#[test]
fn bypassed_connections_are_not_tracked() {
    // Tracking is on as soon as a rule asks for a connection's state.
    let said = sheltered(
        "
        if ! nft add table inet tracking 2>/dev/null || ! nft -f - <<RULES
table inet tracking { chain in { type filter hook input priority 0; ct state new counter; }; }
RULES
        then
            echo this kernel has no nft
            $tuning/apply.sh --conntrack bypass --state $state
            exit 0
        fi
        tracked() { cat /proc/sys/net/netfilter/nf_conntrack_count; }
        # Somebody who hangs up at once; a closed connection stays in the table for two minutes.
        for port in 7400 7500; do busybox nc -ll -p $port -e true & done
        listening() { awk '$4 == \"0A\"' /proc/net/tcp /proc/net/tcp6 | grep -c -e :1CE8 -e :1D4C; }
        while [ $(listening) -lt 2 ]; do busybox usleep 10000; done
        try() { busybox nc 127.0.0.1 $1 </dev/null; }
        try 7400; echo before $(tracked)
        $tuning/apply.sh --conntrack bypass --state $state
        try 7400; try 7400; echo bypassed $(tracked)
        try 7500; echo another $(tracked)
        $tuning/apply.sh --conntrack bypass --state $state | sed -n '/changed/s/^/again /p'
        $tuning/revert.sh --state $state
        try 7400; echo reverted $(tracked)
        nft list tables | sed 's/^/left /'
        ",
    )
    .with(0);
    if said.text.contains("this kernel has no nft") {
        assert!(!said.lines("set ").iter().any(|line| line.starts_with("nft table")), "{}", said.text);
        return;
    }
    assert_eq!(said.lines("before "), ["1"], "{}", said.text);
    assert_eq!(said.lines("bypassed "), ["1"]);
    assert_eq!(said.lines("another "), ["2"]);
    assert!(said.lines("again in all ").iter().all(|line| line.starts_with("0 changed")), "{}", said.text);
    assert_eq!(said.lines("reverted "), ["3"]);
    assert_eq!(said.lines("left "), ["table inet tracking"]);
}
