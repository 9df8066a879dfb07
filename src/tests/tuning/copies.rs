//! The scripts on copies of a host: what they set, and that nothing of it stays after a revert.

use std::process::Command;

use ringway::topology::cpus::{CpuPlan, Shards};

use super::host::Host;
use super::{run, script};

#[test]
fn a_revert_leaves_every_byte_as_it_was_however_often_and_for_whatever_was_applied() {
    let host = Host::new(16, 64, 4);
    let before = host.everything();
    host.run("apply.sh", &["--profile", "small"]).with(0);
    host.run("apply.sh", &["--profile", "large", "--persist"]).with(0);
    assert_eq!(host.sysctl("net.netfilter.nf_conntrack_max"), "1065536");
    host.run("apply.sh", &["--profile", "flagship", "--persist", "--shards", "3"]).with(0);
    assert_eq!(host.sysctl("net.netfilter.nf_conntrack_max"), "2065536");
    let ours = host.read("etc/sysctl.d/90-ringway.conf");
    assert!(ours.contains("net.core.somaxconn = 65535\n") && !ours.contains("somebody's own"), "{ours}");

    let reverted = host.run("revert.sh", &[]).with(0);
    reverted.says("net/netfilter/nf_conntrack_max: 2065536 -> 262144");
    reverted.says(", 0 not restored");
    assert!(host.everything() == before, "a revert left something behind:\n{}", reverted.text);
    host.run("revert.sh", &[]).with(0).says("nothing to restore");
}

#[test]
fn a_second_run_changes_nothing() {
    let host = Host::new(16, 64, 4);
    host.run("apply.sh", &["--profile", "large", "--persist"]).with(0);
    let after = host.everything();
    let again = host.run("apply.sh", &["--profile", "large", "--persist"]).with(0);
    again.says("0 changed");
    assert_eq!(again.lines("set "), Vec::<&str>::new());
    assert!(host.everything() == after);
}

#[test]
fn a_dry_run_changes_nothing_and_names_every_change_that_the_real_one_makes() {
    let host = Host::new(16, 64, 4);
    let before = host.everything();
    let dry = host.run("apply.sh", &["--dry-run", "--profile", "large", "--persist"]).with(0);
    assert!(host.everything() == before, "a dry run has changed something");
    let real = host.run("apply.sh", &["--profile", "large", "--persist"]).with(0);
    assert_eq!(dry.lines("would set "), real.lines("set "));
    assert_eq!(dry.lines("would write ").len(), real.lines("wrote ").len());
    assert!(real.lines("set ").len() > 30, "{}", real.text);
    for line in real.lines("set ") {
        let (change, why) = line.split_once(" (").unwrap_or_else(|| panic!("{line}: without a reason"));
        let (name, values) = change.split_once(": ").unwrap();
        let (old, new) = values.split_once(" -> ").unwrap_or_else(|| panic!("{line}: without old and new"));
        assert!(!name.is_empty() && !old.is_empty() && !new.is_empty() && old != new && why.ends_with(')'), "{line}");
    }
    let dry = host.run("revert.sh", &["--dry-run"]).with(0);
    let after = host.everything();
    assert!(after != before);
    let real = host.run("revert.sh", &[]).with(0);
    assert_eq!(dry.lines("would restore ").len(), real.lines("restored ").len());
}

#[test]
fn what_is_set_is_base_and_so_much_for_each_connection_and_what_is_better_stays() {
    let host = Host::new(16, 64, 4);
    host.write("proc/sys/net/ipv4/tcp_rmem", "2048\t131072\t6291456\n");
    host.write("proc/sys/net/ipv4/tcp_max_orphans", "4000000\n");
    host.write("proc/sys/vm/swappiness", "1\n");
    host.run("apply.sh", &["--profile", "large", "--connections", "700000"]).with(0);
    for (name, expected) in [
        ("net.core.somaxconn", "65535"),
        ("net.ipv4.ip_local_port_range", "10240 65535"),
        // 32,768 + 1 a connection is below what was there; the other two are 49,152 + 2 and 65,536 + 3.
        ("net.ipv4.tcp_mem", "766491 1449152 2165536"),
        ("net.ipv4.tcp_rmem", "2048 32768 1048576"),
        ("net.ipv4.tcp_wmem", "4096 16384 1048576"),
        ("net.ipv4.tcp_max_orphans", "4000000"),
        ("net.ipv4.tcp_max_tw_buckets", "765536"),
        ("net.ipv4.tcp_tw_reuse", "2"),
        ("net.ipv4.tcp_syncookies", "1"),
        ("net.netfilter.nf_conntrack_max", "1465536"),
        ("fs.nr_open", "1048576"),
        ("fs.file-max", "9223372036854775807"),
        ("vm.swappiness", "1"),
        ("kernel.io_uring_disabled", "0"),
    ] {
        assert_eq!(host.sysctl(name), expected, "{name}");
    }
    let transparent = "sys/kernel/mm/transparent_hugepage";
    assert_eq!(host.read(&format!("{transparent}/enabled")), "always [madvise] never");
    assert_eq!(host.read(&format!("{transparent}/defrag")), "always defer defer+madvise [madvise] never");
    assert_eq!(host.read("sys/devices/system/cpu/cpu15/cpufreq/scaling_governor"), "performance");
}

#[test]
fn packets_come_to_the_shards_cpus_and_never_to_those_of_ledger_and_store() {
    let host = Host::new(16, 64, 4);
    host.run("apply.sh", &["--profile", "large"]).with(0).says("shards on CPU 0 1 2 3 4 5 6 7 8 9 10 11 12 13,");
    for queue in 0..4 {
        assert_eq!(host.read(&format!("proc/irq/{}/smp_affinity_list", 41 + queue)), queue.to_string());
    }
    assert_eq!(host.read("proc/irq/40/smp_affinity_list"), "0-15", "no queue's interrupt");
    assert_eq!(host.read("proc/irq/99/smp_affinity_list"), "0", "another device's interrupt");
    // Every fourth CPU below 14, from the queue's number on.
    for (queue, mask) in ["1111", "2222", "444", "888"].iter().enumerate() {
        assert_eq!(host.read(&format!("sys/class/net/eth0/queues/rx-{queue}/rps_cpus")), *mask);
        assert_eq!(host.read(&format!("sys/class/net/eth0/queues/tx-{queue}/xps_cpus")), *mask);
        // 32,768 and 500,000 flows, as a power of two over four queues.
        assert_eq!(host.read(&format!("sys/class/net/eth0/queues/rx-{queue}/rps_flow_cnt")), "262144");
    }

    // More queues than shards, CPUs above the first group of a mask, and a list with a hole.
    let host = Host::new(48, 128, 4);
    host.run("apply.sh", &["--profile", "large", "--cpus", "2,40-42", "--shards", "3"]).with(0);
    for (queue, (cpu, mask)) in
        [("2", "4"), ("40", "100,00000000"), ("41", "200,00000000"), ("2", "4")].iter().enumerate()
    {
        assert_eq!(host.read(&format!("proc/irq/{}/smp_affinity_list", 41 + queue)), *cpu);
        assert_eq!(host.read(&format!("sys/class/net/eth0/queues/tx-{queue}/xps_cpus")), *mask);
        assert_eq!(host.read(&format!("sys/class/net/eth0/queues/rx-{queue}/rps_cpus")), "00,00000000");
    }

    let host = Host::new(4, 16, 2);
    host.run("apply.sh", &["--nic", "none"]).with(0);
    assert_eq!(host.read("proc/irq/41/smp_affinity_list"), "0-3");
    assert_eq!(host.sysctl("net.core.rps_sock_flow_entries"), "0");
}

#[test]
fn the_nics_below_a_bond_or_a_vlan_are_found() {
    let host = Host::new(4, 16, 2);
    host.write("proc/net/route", &host.read("proc/net/route").replace("eth0", "bond0.7"));
    host.write("sys/class/net/bond0.7/lower_bond0/x", "");
    host.write("sys/class/net/bond0/lower_eth0/x", "");
    host.write("sys/class/net/bond0/lower_dummy0/x", "");
    host.run("apply.sh", &[]).with(0);
    assert_eq!(host.read("proc/irq/42/smp_affinity_list"), "1");
}

#[test]
fn the_cpu_plan_is_the_gateways_own() {
    for (cpus, shards, plan) in [(1, "auto", Shards::Auto), (2, "auto", Shards::Auto), (3, "auto", Shards::Auto)]
        .into_iter()
        .chain([(4, "auto", Shards::Auto), (16, "auto", Shards::Auto), (8, "2", Shards::Count(2))])
        .chain([(2, "5", Shards::Count(5)), (6, "6", Shards::Count(6))])
    {
        let list: Vec<usize> = (0..cpus).collect();
        let mut expected = CpuPlan::over(&list, plan).shards;
        expected.sort_unstable();
        expected.dedup();
        let words = |cpus: &[usize]| cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
        let others = list[expected.len()..].to_vec();
        let others = if others.is_empty() { "the same".to_owned() } else { words(&others) };
        let said = Host::new(cpus, 16, 1).run("apply.sh", &["--dry-run", "--shards", shards]).with(0);
        said.says(&format!("shards on CPU {}, ledger and store on {others}\n", words(&expected)));
    }
}

#[test]
fn the_profiles_in_the_readme_are_those_of_the_values() {
    let readme = std::fs::read_to_string(script("README.md")).unwrap();
    let values = std::fs::read_to_string(script("values.conf")).unwrap();
    let mut profiles = 0;
    for line in values.lines().filter(|line| line.starts_with("profile")) {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let number = columns[4];
        let grouped = format!("{},{}", &number[..number.len() - 3], &number[number.len() - 3..]);
        let grouped = if number.len() > 6 { grouped.replacen("1000", "1,000", 1) } else { grouped };
        let row = readme.lines().find(|row| row.starts_with(&format!("| {} |", columns[1]))).unwrap();
        assert!(row.contains(&format!("{} cores, {} GB", columns[2], columns[3])), "{row}");
        assert!(row.contains(&format!("| {grouped} |")), "{row}: {grouped}");
        profiles += 1;
    }
    assert_eq!(profiles, 4);
}

#[test]
fn without_a_profile_it_is_the_largest_that_the_host_has_room_for() {
    for (cpus, gib, expected) in
        [(2, 4, "small"), (4, 16, "small"), (8, 32, "standard"), (16, 32, "standard"), (64, 256, "flagship")]
    {
        let host = Host::new(cpus, gib, 1);
        let said = host.run("apply.sh", &["--dry-run"]).with(0);
        said.says(&format!("profile {expected},"));
        assert_eq!(said.text.contains("the profile is made for"), cpus == 2, "{}", said.text);
    }
}

#[test]
fn what_a_host_does_not_have_is_named_and_counted_and_stops_nothing() {
    let host = Host::new(8, 32, 2);
    for name in ["kernel/io_uring_disabled", "net/netfilter/nf_conntrack_max", "net/netfilter/nf_conntrack_buckets"] {
        host.remove(&format!("proc/sys/{name}"));
    }
    for dir in ["sys/devices", "sys/class", "etc/systemd", "sys/kernel"] {
        std::fs::remove_dir_all(host.path(dir)).unwrap();
    }
    let before = host.everything();
    let said = host.run("apply.sh", &["--persist", "--nic", "eth7"]).with(0);
    let absent = said.lines("not here ");
    for name in
        ["kernel.io_uring_disabled", "nf_conntrack_max", "scaling_governor", "transparent_hugepage", "eth7", "systemd"]
    {
        assert!(absent.iter().any(|line| line.contains(name)), "{name} in:\n{}", said.text);
    }
    said.says(&format!("{} not on this host, 0 refused", absent.len()));
    assert_eq!(host.sysctl("net.core.somaxconn"), "65535");
    host.run("revert.sh", &[]).with(0);
    assert!(host.everything() == before);
}

#[test]
fn the_next_start_of_the_host_undoes_what_was_not_persisted_and_the_record_knows() {
    let start = |host: &Host, boot: &str| {
        host.write("proc/sys/kernel/random/boot_id", &format!("{boot}\n"));
        // The kernel has its own again, and the interrupts are other devices'.
        host.write("proc/sys/net/core/somaxconn", "8192\n");
        host.write("proc/irq/41/smp_affinity_list", "7\n");
    };
    let host = Host::new(16, 64, 4);
    host.run("apply.sh", &[]).with(0);
    start(&host, "second");
    host.run("apply.sh", &[]).with(0).says("what does not outlive a start is forgotten");
    host.run("revert.sh", &[]).with(0);
    assert_eq!(host.sysctl("net.core.somaxconn"), "8192", "what was there before the first run since the start");

    let host = Host::new(16, 64, 4);
    host.run("apply.sh", &["--persist"]).with(0);
    start(&host, "second");
    let reverted = host.run("revert.sh", &[]).with(0);
    assert_eq!(host.sysctl("net.core.somaxconn"), "4096", "what was there before it was persisted");
    assert_eq!(host.read("proc/irq/41/smp_affinity_list"), "7", "{}", reverted.text);
}

#[test]
fn what_cannot_be_restored_is_named_and_stays_in_the_record() {
    let host = Host::new(4, 16, 1);
    let before = host.everything();
    host.run("apply.sh", &[]).with(0);
    // A file that nobody can write, not even root.
    let swappiness = host.path("proc/sys/vm/swappiness");
    std::fs::remove_file(&swappiness).unwrap();
    std::os::unix::fs::symlink("/proc/uptime", &swappiness).unwrap();
    let said = host.run("revert.sh", &[]).with(1);
    assert_eq!(said.lines("not restored ").len(), 1, "{}", said.text);
    assert_eq!(host.sysctl("net.core.somaxconn"), "4096", "the others are");
    std::fs::remove_file(&swappiness).unwrap();
    host.write("proc/sys/vm/swappiness", "10\n");
    host.run("revert.sh", &[]).with(0).says("1 restored");
    assert!(host.everything() == before);
}

#[test]
fn a_file_that_overrules_ours_is_named() {
    let host = Host::new(4, 16, 1);
    host.write("etc/sysctl.conf", "vm.swappiness = 30\nnet.core.somaxconn=70000\n");
    let said = host.run("apply.sh", &["--persist"]).with(0);
    said.says("/etc/sysctl.conf sets vm.swappiness = 30 and is read after ours");
    assert!(!said.text.contains("sets net.core.somaxconn"), "70,000 is good as well:\n{}", said.text);
    assert_eq!(host.read("etc/sysctl.conf"), "vm.swappiness = 30\nnet.core.somaxconn=70000");
}

#[test]
fn status_needs_no_root_changes_nothing_and_tells_good_from_short() {
    let host = Host::new(16, 64, 4);
    host.write("proc/self/limits", LIMITS);
    let before = host.everything();
    let short = host.run("status.sh", &["--profile", "large"]).with(1);
    short.says("short    net.core.somaxconn: 4096, wanted at least 65535 (warning: ");
    short.says("short    limit of nofile in this session: 1024, wanted at least 500768 (fatal: ");
    short.says("good     net.ipv4.tcp_tw_reuse: 2");
    short.says("apply.sh has changed nothing here");
    assert!(host.everything() == before);

    host.run("apply.sh", &["--profile", "large"]).with(0);
    host.write("proc/self/limits", &LIMITS.replace("1024 ", "600000 ").replace("8388608 ", "unlimited "));
    let good = host.run("status.sh", &["--profile", "large"]).with(0);
    assert_eq!(good.lines("short "), Vec::<&str>::new());
    good.says("/proc/sys/net/core/somaxconn: 4096");
    host.run("status.sh", &["--profile", "flagship"]).with(1);
}

const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units     
Max open files            1024                 1024                 files     
Max locked memory         8388608              8388608              bytes     
";

#[test]
fn wrong_usage_is_code_2_and_no_right_to_is_code_1_and_both_change_nothing() {
    let host = Host::new(4, 16, 1);
    let before = host.everything();
    for (arguments, words) in [
        (&["--profile", "huge"][..], "there is no profile huge; there are: small standard large flagship"),
        (&["--profil", "small"], "it does not know --profil"),
        (&["--connections", "many"], "it wants a whole number"),
        (&["--connections", "1234567890123"], "it wants a smaller number"),
        (&["--connections"], "--connections wants a value"),
        (&["--conntrack", "off"], "it wants size, bypass or leave"),
        (&["--nic", "eth0;reboot"], "the name of an interface"),
        (&["--cpus", "0-3;reboot"], "a list of CPUs"),
        (&["--user", "$(reboot)"], "the name of a user"),
    ] {
        host.run("apply.sh", arguments).with(2).says(words);
    }
    host.run("revert.sh", &["--profile", "small"]).with(2);
    host.run("apply.sh", &["--help"]).with(0).says("Exit codes: 0 done");
    assert!(host.everything() == before);

    // Without a mapping one is nobody, whoever one was.
    let state = host.path("state");
    for name in ["apply.sh", "revert.sh"] {
        let mut command = Command::new("unshare");
        command.arg("--user").arg(script(name)).arg("--state").arg(&state);
        if name == "revert.sh" {
            host.write("state/record", "boot\tfirst\t-\n");
        }
        run(&mut command).with(1).says("it needs root");
    }
}

#[test]
fn two_at_once_are_one_too_many() {
    let host = Host::new(4, 16, 1);
    std::fs::create_dir_all(host.path("var/lib/ringway-tuning/lock")).unwrap();
    let before = host.everything();
    host.run("apply.sh", &[]).with(1).says("another apply.sh or revert.sh is at work");
    assert!(host.everything() == before);
}

#[test]
fn busybox_does_the_same_with_nothing_but_itself() {
    let tools = tempfile::tempdir().unwrap();
    let busybox = run(Command::new("sh").args(["-c", "command -v busybox"])).with(0).text;
    for name in run(Command::new("busybox").arg("--list")).with(0).text.lines() {
        std::os::unix::fs::symlink(busybox.trim(), tools.path().join(name)).unwrap();
    }
    let hosts = [Host::new(48, 64, 5), Host::new(48, 64, 5)];
    let on = |at: usize, name: &str, arguments: &[&str]| {
        let plain = hosts[at].command(name, arguments);
        if at == 0 {
            return run(Command::new("sh").arg(plain.get_program()).args(plain.get_args()));
        }
        let mut command = Command::new(tools.path().join("sh"));
        run(command.arg(plain.get_program()).args(plain.get_args()).env_clear().env("PATH", tools.path()))
    };
    for (name, arguments) in [
        ("apply.sh", &["--dry-run"][..]),
        ("apply.sh", &["--profile", "flagship", "--persist"]),
        ("apply.sh", &["--profile", "flagship", "--persist"]),
        ("status.sh", &["--profile", "flagship"]),
        ("revert.sh", &[]),
    ] {
        let root = |at: usize| hosts[at].path("").to_str().unwrap().trim_end_matches('/').to_owned();
        let (theirs, ours) = (on(0, name, arguments), on(1, name, arguments));
        assert_eq!(theirs.text.replace(&root(0), ""), ours.text.replace(&root(1), ""), "{name} {arguments:?}");
        assert_eq!(theirs.code, ours.code);
        let trees = [0, 1].map(|at| {
            let prefix = hosts[at].path("");
            let own = |(path, content): (std::path::PathBuf, Vec<u8>)| {
                let text = String::from_utf8(content).unwrap().replace(&root(at), "");
                (path.strip_prefix(&prefix).unwrap().to_owned(), text)
            };
            hosts[at].everything().into_iter().map(own).collect::<Vec<_>>()
        });
        assert_eq!(trees[0], trees[1], "after {name} {arguments:?}");
    }
}

#[test]
fn the_scripts_are_clean_to_shellcheck() {
    let dir = script("");
    let mut scripts: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.retain(|path| path.extension().is_some_and(|extension| extension == "sh"));
    assert!(scripts.len() >= 6);
    run(Command::new("shellcheck").arg("-x").args(&scripts).current_dir(dir.parent().unwrap())).with(0);
}
