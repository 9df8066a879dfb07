//! CPUs and the clock.

use super::Subject;
use crate::doctor::host::{CLOCK_SOURCE, Host};
use crate::doctor::{Finding, Need, ProfileBy, Severity, Verdict};

/// Reading these takes a system call or a bus, about a microsecond each.
const SLOW_CLOCKS: [&str; 5] = ["hpet", "acpi_pm", "pit", "jiffies", "refined-jiffies"];
/// Those that are read without a system call, best first.
const FAST_CLOCKS: [&str; 4] = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"];

/// CPUs against the profile's.
pub(super) fn count(host: &Host, need: &Need<'_>) -> Finding {
    let subject = Subject {
        id: "cpus",
        // Somebody who names a profile says that the host is one of its kind.
        severity: if need.profile_by == ProfileBy::Operator { Severity::Warning } else { Severity::Hint },
        why: "shards, ledger and store want a CPU each",
    };
    let required = format!("{}, as profile {} has", need.profile.cpus, need.profile.name);
    if host.cpus.is_empty() {
        return subject.unseen("not told by /proc/self/status".to_owned(), required, "nproc".to_owned());
    }
    subject.seen(host.cpus.len().to_string(), required, Verdict::good_if(host.cpus.len() >= need.profile.cpus), || {
        "more CPUs (in a container: --cpuset-cpus), or a smaller profile".to_owned()
    })
}

/// A quota of CPU time below the CPUs there are.
pub(super) fn quota(host: &Host) -> Finding {
    let subject = Subject {
        id: "cpu_quota",
        severity: Severity::Warning,
        why: "whoever has used up a quota stands still until the next tenth of a second, with every connection",
    };
    let cpus = host.cpus.len().max(1) as u64;
    let current = match host.cgroups.cpu_quota_milli {
        Some(milli) => format!("{}.{:02} CPUs", milli / 1_000, milli % 1_000 / 10),
        None => "none".to_owned(),
    };
    let good = host.cgroups.cpu_quota_milli.is_none_or(|milli| milli >= cpus * 1_000);
    subject.seen(current, format!("none, or {cpus} CPUs"), Verdict::good_if(good), || {
        "give it CPUs instead of time: AllowedCPUs= for CPUQuota= (systemd), --cpuset-cpus for --cpus (docker)"
            .to_owned()
    })
}

/// What reads the time.
pub(super) fn clock_source(host: &Host) -> Finding {
    let subject = Subject {
        id: "clock_source",
        severity: Severity::Warning,
        why: "shards read the time at every turn, and a slow clock takes a system call each time",
    };
    let required = "one that is read without a system call".to_owned();
    match host.clock_source.value() {
        None => subject.unseen("not to be seen".to_owned(), required, format!("cat {CLOCK_SOURCE}")),
        Some(clock) => {
            subject.seen(clock.to_owned(), required, Verdict::good_if(!SLOW_CLOCKS.contains(&clock)), || {
                let there = host.clock_sources.value().unwrap_or_default();
                match FAST_CLOCKS.iter().find(|fast| there.split_whitespace().any(|clock| clock == **fast)) {
                    Some(fast) => format!("echo {fast} | tee {CLOCK_SOURCE}"),
                    None => {
                        "the kernel has found the CPUs' counters unfit: see `dmesg | grep -i clocksource`".to_owned()
                    }
                }
            })
        }
    }
}
