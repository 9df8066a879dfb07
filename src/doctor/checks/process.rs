//! What this process may take: descriptors, locked memory, ports.

use super::io_uring::RINGS_NOT_LOCKED;
use super::{BYTES_PER_MIB, Subject};
use crate::doctor::host::{Host, ProcessLimit};
use crate::doctor::values::{Compare, Rule};
use crate::doctor::{Finding, Need, Severity, Verdict};
use crate::limits::{EXECUTOR_IO_MEMORY_BYTES, EXECUTOR_RING_DEPTH, RING_EVENTS, RING_SUBMISSIONS};

/// The check of open files.
pub(crate) const DESCRIPTORS: &str = "descriptors";
/// glommio 0.9 makes no executor below this limit.
const EXECUTOR_MEMLOCK_BYTES: u64 = 512 * 1024;
/// An executor's rings: one that wakes, one that polls, one for what is urgent.
const EXECUTOR_RINGS: u64 = 3;
const EXECUTOR_RINGS_BYTES: u64 = EXECUTOR_RINGS
    * (ring_bytes(EXECUTOR_RING_DEPTH as u64, 2 * EXECUTOR_RING_DEPTH as u64) + EXECUTOR_IO_MEMORY_BYTES as u64);
const SOCKET_RING_BYTES: u64 = ring_bytes(RING_SUBMISSIONS as u64, RING_EVENTS as u64);
const PORTS: &str = "net.ipv4.ip_local_port_range";

/// Open files: `serve` raises the soft limit itself, so that the hard one counts.
pub(super) fn descriptors(host: &Host, need: &Need<'_>, rule: &Rule) -> Finding {
    let subject = Subject::of(DESCRIPTORS, rule);
    let required = match &rule.compare {
        Compare::Min(amount) | Compare::Max(amount) => amount.for_connections(need.connections),
        Compare::OneOf(_) | Compare::Release(_) => need.connections,
    };
    let wanted = format!("at least {required}");
    let Some(limit) = host.descriptors else {
        return subject.unseen("not told by /proc/self/limits".to_owned(), wanted, "ulimit -Hn".to_owned());
    };
    subject
        .seen(shown(limit), wanted, Verdict::good_if(limit.hard >= required), || raise(host, need, "nofile", required))
}

/// Locked memory: below what the executors insist on nothing runs, below the rule's value buffers are not registered.
pub(super) fn memlock(host: &Host, need: &Need<'_>, rule: &Rule) -> Finding {
    let wanted = match &rule.compare {
        Compare::Min(amount) | Compare::Max(amount) => amount.for_connections(need.connections),
        Compare::OneOf(_) | Compare::Release(_) => EXECUTOR_MEMLOCK_BYTES,
    };
    let floor = floor(host, need);
    let required = |bytes| format!("at least {bytes}");
    let Some(limit) = host.memlock else {
        let reason = "not told by /proc/self/limits".to_owned();
        return Subject::of("locked_memory", rule).unseen(reason, required(wanted), "ulimit -Hl".to_owned());
    };
    let fix = || raise(host, need, "memlock", wanted);
    match limit.hard < floor {
        true => Subject { severity: Severity::Fatal, ..Subject::of("locked_memory", rule) }.bad(
            shown(limit),
            required(floor),
            fix,
        ),
        false => Subject::of("locked_memory", rule).seen(
            shown(limit),
            required(wanted),
            Verdict::good_if(limit.hard >= wanted),
            fix,
        ),
    }
}

/// What the executors cannot start without.
fn floor(host: &Host, need: &Need<'_>) -> u64 {
    let rings_locked = !host.locks_uncounted && host.kernel().is_some_and(|version| version < RINGS_NOT_LOCKED);
    let shard = EXECUTOR_RINGS_BYTES + SOCKET_RING_BYTES;
    match rings_locked {
        true => EXECUTOR_MEMLOCK_BYTES.max(shard * need.shards as u64),
        false => EXECUTOR_MEMLOCK_BYTES,
    }
}

/// What raises a hard limit, which no process can do by itself.
fn raise(host: &Host, need: &Need<'_>, name: &str, value: u64) -> String {
    match host.is_container {
        true => format!("start the container with --ulimit {name}={value}"),
        false => format!(
            "{} --persist, then log in again or restart the service; at once, as root: prlimit --{name}={value} ringway \
             serve",
            need.tuning()
        ),
    }
}

fn shown(limit: ProcessLimit) -> String {
    let number = |value| if value == u64::MAX { "unlimited".to_owned() } else { format!("{value}") };
    match limit.soft == limit.hard {
        true => number(limit.hard),
        false => format!("{} (now {})", number(limit.hard), number(limit.soft)),
    }
}

/// Clients behind one address, such as load on this host: each takes a port of it.
pub(super) fn client_ports(host: &Host, need: &Need<'_>) -> Finding {
    let subject = Subject {
        id: "client_ports",
        severity: Severity::Hint,
        why: "clients that come from one address, such as load on this host, take a port of it each",
    };
    let required = format!("{} for load from here", need.connections);
    let reading = host.sysctl(PORTS);
    let range = reading.value().and_then(|text| {
        let mut numbers = text.split_whitespace().map(str::parse::<u64>);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    });
    let Some(ports) = range.and_then(|(first, last)| (last + 1).checked_sub(first)).filter(|ports| *ports > 0) else {
        return subject.unseen("not to be seen".to_owned(), required, format!("sysctl {PORTS}"));
    };
    let addresses = need.connections.div_ceil(ports);
    subject.seen(format!("{ports} from one address"), required, Verdict::good_if(addresses == 1), || {
        format!("nothing for clients from everywhere; for load from here: {addresses} source addresses")
    })
}

const _: () = assert!(EXECUTOR_IO_MEMORY_BYTES as u64 <= BYTES_PER_MIB, "as little as glommio takes");

/// Pages of one ring on kernels that count them as locked: an entry takes 64 bytes, a completion 16, an entry's place in
/// the queue 4, in two blocks each rounded up to a power of two.
const fn ring_bytes(entries: u64, completions: u64) -> u64 {
    (entries * 64).next_power_of_two() + (completions * 16 + entries * 4 + 4_096).next_power_of_two()
}
