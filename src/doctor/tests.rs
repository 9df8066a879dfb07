//! The doctor on recorded hosts: which checks are not good, of what severity, and what it comes to.
//!
//! The records lie in `hosts`; what is in them and where they come from says `hosts/README.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::Path;

use crate::doctor::host::Host;
use crate::doctor::host::recorded::Record;
use crate::doctor::report::HostReport;
use crate::doctor::uring::{RingCall, Uring};
use crate::doctor::values::{Compare, Kind, Values};
use crate::doctor::{Finding, Need, ProfileBy, Severity, Verdict, checks};
use crate::limits;

/// What the doctor says of a recorded host, asked for so many connections on 14 shards.
fn examined(name: &str, connections: u64) -> HostReport {
    let values = Values::shipped().unwrap();
    let host = Host::read(&Record::open(name), &values, Path::new("/var/lib/ringway"));
    let need = Need {
        connections,
        shards: 14,
        profile: values.profile_for(connections).unwrap(),
        profile_by: ProfileBy::Connections,
        journal_bytes_max: limits::JOURNAL_BYTES_MAX,
        values: &values,
    };
    HostReport::new(&need, "a test".to_owned(), checks::host(&host, &need).unwrap())
}

/// All that is not good, as `severity id`, the unknown as `unknown id`.
fn complaints(report: &HostReport) -> Vec<String> {
    let complaint = |finding: &Finding| match (finding.verdict, finding.severity) {
        (Verdict::Good, _) => None,
        (Verdict::Unknown, _) => Some(format!("unknown {}", finding.id)),
        (Verdict::Bad, Severity::Fatal) => Some(format!("fatal {}", finding.id)),
        (Verdict::Bad, Severity::Warning) => Some(format!("warning {}", finding.id)),
        (Verdict::Bad, Severity::Hint) => Some(format!("hint {}", finding.id)),
    };
    report.checks.iter().filter_map(complaint).collect()
}

fn check(name: &str, connections: u64, exit_code: u8, expected: &[&str]) -> HostReport {
    let report = examined(name, connections);
    assert_eq!(complaints(&report), expected, "{}", report.page());
    assert_eq!(report.outcome.exit_code(), exit_code, "{}", report.page());
    report
}

fn finding<'a>(report: &'a HostReport, id: &str) -> &'a Finding {
    report.checks.iter().find(|finding| finding.id == id).unwrap()
}

#[test]
fn a_tuned_host_can_keep_what_it_was_tuned_for() {
    let report = check("tuned-large", 500_000, 0, &["hint client_ports"]);
    assert_eq!(finding(&report, "descriptors").current, "500768");
    assert_eq!(finding(&report, "net.ipv4.tcp_mem").current, "769311 1049152 1565536");
}

#[test]
fn what_was_tuned_for_less_cannot_keep_more() {
    check(
        "tuned-large",
        1_000_000,
        2,
        &[
            "fatal descriptors",
            "hint net.ipv4.tcp_max_tw_buckets",
            "hint net.ipv4.tcp_max_orphans",
            "warning net.ipv4.tcp_mem",
            "hint cpus",
            "hint client_ports",
        ],
    );
}

const UNTUNED: [&str; 18] = [
    "warning locked_memory",
    "warning net.core.somaxconn",
    "warning net.ipv4.tcp_max_syn_backlog",
    "warning net.core.netdev_max_backlog",
    "hint net.ipv4.ip_local_port_range",
    "hint net.ipv4.tcp_fin_timeout",
    "hint net.ipv4.tcp_max_tw_buckets",
    "hint net.ipv4.tcp_max_orphans",
    "hint net.ipv4.tcp_keepalive_time",
    "hint net.ipv4.tcp_keepalive_intvl",
    "hint net.ipv4.tcp_keepalive_probes",
    "warning net.ipv4.tcp_mem",
    "hint net.ipv4.tcp_rmem",
    "hint net.ipv4.tcp_wmem",
    "warning /sys/kernel/mm/transparent_hugepage/enabled",
    "warning vm.swappiness",
    "warning clock_source",
    "hint client_ports",
];

#[test]
fn debian_as_installed_has_the_descriptors_for_half_a_million_and_warnings() {
    let report = check("debian", 500_000, 1, &UNTUNED);
    assert_eq!(finding(&report, "descriptors").current, "524288 (now 1024)");
    let mem = finding(&report, "net.ipv4.tcp_mem");
    assert_eq!(mem.fix.as_deref(), Some("sysctl -w net.ipv4.tcp_mem=\"769311 1049152 1565536\""));
    let huge = finding(&report, "/sys/kernel/mm/transparent_hugepage/enabled");
    let fix = "echo madvise | tee /sys/kernel/mm/transparent_hugepage/enabled";
    assert_eq!((huge.current.as_str(), huge.fix.as_deref()), ("always", Some(fix)));
}

#[test]
fn debian_as_installed_has_not_the_descriptors_for_a_million() {
    let report = examined("debian", 1_000_000);
    assert_eq!(report.outcome.exit_code(), 2);
    let fatal: Vec<&Finding> = report.checks.iter().filter(|finding| finding.is_fatal()).collect();
    let [descriptors] = fatal.as_slice() else { panic!("{fatal:#?}") };
    assert_eq!((descriptors.id.as_str(), descriptors.required.as_str()), ("descriptors", "at least 1000768"));
    let fix = descriptors.fix.as_deref().unwrap();
    assert!(fix.starts_with("tuning/apply.sh --profile flagship --persist"), "{fix}");
}

/// The rules' checks of a host on which every command was run that the doctor has named.
#[test]
fn doing_what_the_doctor_says_makes_a_sysctl_good() {
    let values = Values::shipped().unwrap();
    let mut host = Host::read(&Record::open("debian"), &values, Path::new("/var/lib/ringway"));
    let before = examined("debian", 500_000);
    let mut done = 0;
    for finding in before.checks.iter().filter(|finding| finding.verdict == Verdict::Bad) {
        let command = finding.fix.as_deref().and_then(|fix| fix.strip_prefix("sysctl -w "));
        let Some((name, value)) = command.and_then(|command| command.split_once('=')) else { continue };
        let value = value.trim_matches('"').to_owned();
        host.sysctls.insert(name.to_owned(), crate::doctor::host::Reading::Value(value)).expect(name);
        done += 1;
    }
    assert_eq!(done, 14, "{}", before.page());
    let need = Need {
        connections: 500_000,
        shards: 14,
        profile: values.profile("large").unwrap(),
        profile_by: ProfileBy::Operator,
        journal_bytes_max: limits::JOURNAL_BYTES_MAX,
        values: &values,
    };
    let after = HostReport::new(&need, "a test".to_owned(), checks::host(&host, &need).unwrap());
    let left = [
        "warning locked_memory",
        "warning /sys/kernel/mm/transparent_hugepage/enabled",
        "warning clock_source",
        "hint client_ports",
    ];
    assert_eq!(complaints(&after), left);
}

#[test]
fn a_container_is_asked_for_its_limits_and_what_it_hides_is_not_called_good() {
    let report = check(
        "container",
        500_000,
        2,
        &[
            "fatal descriptors",
            "unknown fs.nr_open",
            "warning net.core.somaxconn",
            "unknown net.core.netdev_max_backlog",
            "unknown net.ipv4.tcp_max_orphans",
            "unknown net.ipv4.tcp_mem",
            "warning cpu_quota",
            "warning file_system",
            "hint client_ports",
        ],
    );
    assert_eq!(finding(&report, "descriptors").fix.as_deref(), Some("start the container with --ulimit nofile=500768"));
    assert_eq!(finding(&report, "fs.nr_open").current, "not readable: Permission denied (os error 13)");
    assert_eq!(finding(&report, "net.ipv4.tcp_mem").current, "not shown here, as in a container");
    assert_eq!(finding(&report, "cpu_quota").current, "3.50 CPUs");
    // For what it can keep, all that is left are warnings and what it hides.
    assert_eq!(examined("container", 10_000).outcome.exit_code(), 1);
}

#[test]
fn a_cgroups_limit_counts_though_the_machine_has_more() {
    let report =
        check("small-cgroup", 500_000, 2, &["warning memory.total", "fatal memory.available", "hint client_ports"]);
    let memory = finding(&report, "memory.available");
    assert_eq!(memory.current, "922 MiB (cgroup limit 1024 MiB)");
    let fix = memory.fix.as_deref().unwrap();
    assert!(fix.contains("/sys/fs/cgroup/system.slice/ringway.service/memory.max by 1770 MiB"), "{fix}");
    assert!(fix.ends_with("--set limits.connections_max=154867"), "{fix}");
    check("small-cgroup", 154_867, 1, &["warning memory.total", "hint client_ports"]);
    assert_eq!(examined("small-cgroup", 154_868).outcome.exit_code(), 2, "not one more");
}

#[test]
fn io_uring_switched_off_is_fatal_and_says_by_what() {
    let report =
        check("io-uring-off", 500_000, 2, &["fatal io_uring", "fatal kernel.io_uring_disabled", "hint client_ports"]);
    let ring = finding(&report, "io_uring");
    assert_eq!(
        (ring.current.as_str(), ring.fix.as_deref()),
        ("io_uring_setup is refused with EPERM", Some("sysctl -w kernel.io_uring_disabled=0"))
    );
}

#[test]
fn an_old_kernel_is_fatal_and_so_is_the_locked_memory_it_counts() {
    let report = check(
        "old-kernel",
        500_000,
        2,
        &["fatal kernel", "fatal io_uring", "fatal locked_memory", "hint client_ports"],
    );
    assert_eq!(finding(&report, "io_uring").current, "the kernel does not say what it knows (EINVAL)");
    // For each of 14 shards three rings of 24 KiB with their buffers, and one of 768 KiB for its sockets.
    assert_eq!(finding(&report, "locked_memory").required, format!("at least {}", 14 * (3 * (24 + 64) + 768) * 1024));
}

#[test]
fn the_refusal_of_io_uring_is_told_apart_by_its_error() {
    let values = Values::shipped().unwrap();
    let mut host = Host::read(&Record::open("tuned-large"), &values, Path::new("/var/lib/ringway"));
    let need = Need {
        connections: 1,
        shards: 1,
        profile: values.profile_for(1).unwrap(),
        profile_by: ProfileBy::Connections,
        journal_bytes_max: limits::JOURNAL_BYTES_MAX,
        values: &values,
    };
    let mut fix = |call, errno| {
        host.uring = Uring::Refused { call, errno };
        let findings = checks::of_the_process(&host, &need).unwrap();
        let found = findings.iter().find(|finding| finding.id == "io_uring").unwrap().clone();
        assert!(found.is_fatal());
        (found.current, found.fix.unwrap())
    };
    let (current, says) = fix(RingCall::Setup, libc::ENOSYS);
    assert!(current.contains("ENOSYS") && says.contains("CONFIG_IO_URING"), "{current}, {says}");
    let (current, says) = fix(RingCall::Setup, libc::EPERM);
    assert!(current.contains("EPERM") && says.contains("seccomp"), "{current}, {says}");
    let (current, says) = fix(RingCall::Setup, libc::ENOMEM);
    assert!(current.contains("ENOMEM") && says.contains("memory.available"), "{current}, {says}");
    for call in [RingCall::Register, RingCall::Enter] {
        for errno in [libc::EPERM, libc::ENOSYS] {
            let (current, says) = fix(call, errno);
            assert!(current.starts_with(call.name()), "{current}");
            assert!(says.contains("--security-opt seccomp=tuning/seccomp.json"), "{says}");
            assert!(says.contains("SystemCallFilter=") && !says.contains("kernel"), "{says}");
        }
    }
}

#[test]
fn every_page_fits_80_columns_but_for_words_that_are_longer_alone() {
    for name in ["debian", "tuned-large", "container", "filtered-container", "old-kernel", "tiny-cgroup"] {
        let page = examined(name, 1_000_000).page();
        for line in page.lines().filter(|line| line.chars().count() > 80) {
            assert_eq!(line.split_whitespace().count(), 1, "{name}: {line}");
        }
    }
}

#[test]
fn what_the_scripts_set_is_what_the_doctor_demands_for_every_profile() {
    let values = Values::shipped().unwrap();
    let fs_limit = values.rules.iter().find(|rule| rule.key == "fs.nr_open").unwrap();
    let Compare::Min(fs_limit) = fs_limit.compare else { panic!("a least value") };
    for profile in &values.profiles {
        let descriptors = values.amount(Kind::Rlimit, "nofile").unwrap().for_connections(profile.connections);
        assert!(descriptors <= fs_limit.for_connections(profile.connections), "no process could be given them");
        // 6 descriptors for each shard's rings and 25 beside, the admin server's, and those that no client gets.
        let own = 6 * profile.cpus as u64 + 25 + limits::ADMIN_REQUESTS_MAX as u64;
        let own = own + limits::DESCRIPTORS_FREE_OF_CLIENTS;
        assert!(descriptors >= profile.connections + own, "{}", profile.name);
        let memory = values.amount(Kind::Memory, "total").unwrap().for_connections(profile.connections);
        assert!(memory <= profile.memory_gib << 30, "{} has not the memory it is for", profile.name);
    }
}
