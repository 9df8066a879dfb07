//! Memory: what there is, and what is left of it for this process.

use super::Subject;
use crate::doctor::host::Host;
use crate::doctor::values::{Amount, Compare, Rule};
use crate::doctor::{Finding, Need, Verdict};

/// The check of what is left.
pub(crate) const AVAILABLE: &str = "memory.available";
/// Memory is shown in these.
pub(crate) const BYTES_PER_MIB: u64 = 1 << 20;

/// How many connections `have` is enough for: none if it is not even enough for the base.
pub(crate) fn affordable(have: u64, amount: Amount) -> u64 {
    have.saturating_sub(amount.base).checked_div(amount.per_connection).unwrap_or(u64::MAX)
}

/// What the machine, or the cgroup, has at all.
pub(super) fn total(host: &Host, need: &Need<'_>, rule: &Rule) -> Finding {
    enough(Subject::of("memory.total", rule), host.memory_total(), host, need, rule)
}

/// What is left of it.
pub(super) fn available(host: &Host, need: &Need<'_>, rule: &Rule) -> Finding {
    enough(Subject::of(AVAILABLE, rule), host.memory_available(), host, need, rule)
}

fn enough(subject: Subject<'_>, have: Option<u64>, host: &Host, need: &Need<'_>, rule: &Rule) -> Finding {
    let amount = match rule.compare {
        Compare::Min(amount) | Compare::Max(amount) => amount,
        Compare::OneOf(_) | Compare::Release(_) => Amount { base: 0, per_connection: 0 },
    };
    let bytes = amount.for_connections(need.connections);
    let required = format!("at least {} MiB", bytes.div_ceil(BYTES_PER_MIB));
    let Some(have) = have else {
        return subject.unseen("not told by /proc/meminfo".to_owned(), required, "free -m".to_owned());
    };
    // A cgroup below the machine's size is what to change.
    let cgroup = host.cgroups.memory.iter().min_by_key(|memory| memory.limit.saturating_sub(memory.used));
    let cgroup = cgroup.filter(|memory| host.memory.is_none_or(|machine| memory.limit < machine.total));
    let current = format!("{} MiB", have / BYTES_PER_MIB);
    let current = match cgroup {
        Some(memory) => format!("{current} (cgroup limit {} MiB)", memory.limit / BYTES_PER_MIB),
        None => current,
    };
    subject.seen(current, required, Verdict::good_if(have >= bytes), || {
        let more = match cgroup {
            Some(memory) => format!(
                "raise the limit in {} by {} MiB (systemd: MemoryMax=, docker run --memory)",
                memory.file,
                (bytes - have).div_ceil(BYTES_PER_MIB)
            ),
            None => "a host with more memory".to_owned(),
        };
        match affordable(have, amount) {
            0 => more,
            fewer => format!("{more}, or --set limits.connections_max={fewer}"),
        }
    })
}
