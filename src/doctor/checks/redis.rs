//! The Redis that a cluster's ledger lies in.
//!
//! Beside the doctor, a node that starts asks for [`losses`]: what would make an ack worth less than it says. What always
//! holds: the password of the URL is in no finding.

mod server;
#[cfg(test)]
mod tests;

use self::server::Server;
use super::{BYTES_PER_MIB, Subject};
use crate::cluster::look::{Look, Looked, RedisKind, RedisNeed};
use crate::doctor::{Finding, Severity, Verdict};
use crate::limits::REDIS_TIMEOUT_MS;

/// What an entry of the stream takes with a body of 100 bytes, and its claimed name: some 500 bytes. Bodies may be longer.
const ENTRY_BYTES: u64 = 1024;
/// A message waits for one round trip at least; more than that is another building.
const ROUND_TRIP_US_MAX: u64 = 2_000;

/// What there is to say of all masters of the ledger that `looked` found, or did not.
pub(crate) fn findings_of_all(
    looked: &Result<Vec<Looked>, String>,
    url: &str,
    stream_entries_max: u64,
) -> Vec<Finding> {
    let kind = if url.contains("-cluster://") { RedisKind::OfCluster } else { RedisKind::Alone };
    let all = match looked {
        Ok(all) => all,
        Err(error) => return findings(&Err(error.clone()), &RedisNeed { url, stream_entries_max, kind }),
    };
    let buckets: usize = all.iter().map(|looked| looked.buckets).sum();
    let each = all.iter().flat_map(|Looked { url, buckets: its, look }| {
        let stream_entries_max = (stream_entries_max * *its as u64).div_ceil(buckets as u64);
        findings(look, &RedisNeed { url, stream_entries_max, kind })
    });
    each.collect()
}

/// Every check of it, in the order in which it is shown.
pub(crate) fn findings(looked: &Result<Look, String>, need: &RedisNeed<'_>) -> Vec<Finding> {
    let look = match looked {
        Ok(look) => look,
        Err(error) => {
            let subject =
                Subject { id: "redis", severity: Severity::Fatal, why: "the ledger of the cluster lies in it" };
            let fix =
                || format!("redis-cli -u {} ping; then look at cluster.redis_url, and at Redis's log", need.address());
            let required = format!("answers within {REDIS_TIMEOUT_MS} ms");
            return vec![subject.bad(format!("{}: {error}", need.address()), required, fix)];
        }
    };
    let mut findings = vec![version(look, need), role(look, need), slots(look, need)];
    findings.extend(losses(look, need));
    findings.extend([memory(look, need), round_trip(look, need)]);
    findings
}

/// Settings with which Redis loses what it has acknowledged.
pub(crate) fn losses(look: &Look, need: &RedisNeed<'_>) -> Vec<Finding> {
    let acked = "a message is acked when Redis has it, and what it has not on its disk is lost with its power";
    vec![
        setting(look, need, Severity::Warning, "appendonly", "yes", acked),
        setting(look, need, Severity::Warning, "appendfsync", "always", acked),
        eviction(look, need),
    ]
}

/// The same as lines for the log of a node that starts, only what is not as it should be; also that the ledger cannot lie
/// in it at all.
pub(crate) fn losses_said(look: &Look, need: &RedisNeed<'_>) -> Vec<String> {
    let unfit = Some(version(look, need)).filter(Finding::is_fatal);
    let findings: Vec<Finding> = unfit.into_iter().chain(losses(look, need)).collect();
    findings.iter().filter(|finding| finding.verdict != Verdict::Good).map(ToString::to_string).collect()
}

fn setting(
    look: &Look,
    need: &RedisNeed<'_>,
    severity: Severity,
    name: &'static str,
    value: &'static str,
    why: &'static str,
) -> Finding {
    let id = format!("redis.{name}");
    let subject = Subject { id: &id, severity, why };
    match look.settings.get(name) {
        Some(current) => subject
            .seen(current.clone(), value.to_owned(), Verdict::good_if(current == value), || need.sets(name, value)),
        None => subject.unseen(
            "Redis does not tell".to_owned(),
            value.to_owned(),
            format!("ask whoever runs it: redis-cli -u {} config get {name}", need.address()),
        ),
    }
}

/// What Redis does when its memory is full: nothing may go that nobody has deleted.
fn eviction(look: &Look, need: &RedisNeed<'_>) -> Finding {
    let why = "at its limit Redis would delete the ledger itself, and everything in it that is not in MySQL";
    let name = "maxmemory-policy";
    match look.settings.get("maxmemory").map(String::as_str) {
        Some("0") => {
            let subject = Subject { id: "redis.maxmemory-policy", severity: Severity::Fatal, why };
            let policy = look.settings.get(name).cloned().unwrap_or_default();
            subject.good(format!("{policy}, and no maxmemory"), "noeviction".to_owned())
        }
        _ => setting(look, need, Severity::Fatal, name, "noeviction", why),
    }
}

/// Which server it is, and whether the ledger can lie in it.
fn version(look: &Look, need: &RedisNeed<'_>) -> Finding {
    let subject = Subject { id: "redis", severity: Severity::Fatal, why: "the ledger's scripts need its commands" };
    let required = "Redis 6.2, Valkey 7.2, or newer".to_owned();
    let Some((server, version)) = Server::of(look) else {
        let fix = format!("redis-cli -u {} info server", need.address());
        return subject.unseen("Redis does not tell its version".to_owned(), required, fix);
    };
    let current = format!("{} {version}", server.name());
    let Some(wanted) = server.version_min() else {
        let why = "the ledger's scripts find their keys by themselves, which it refuses, and what it acknowledges is in \
                   no log that is synced";
        let subject = Subject { why, ..subject };
        return subject.bad(current, required, || {
            format!(
                "run Redis 7 or Valkey in its place, and name that in cluster.redis_url instead of {}",
                need.address()
            )
        });
    };
    let mut numbers = version.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => {
            subject.seen(current, required, Verdict::good_if((major, minor) >= wanted), || {
                format!("run {} {}.{} or newer at {}", server.name(), wanted.0, wanted.1, need.address())
            })
        }
        _ => {
            let fix = format!("redis-cli -u {} info server", need.address());
            subject.unseen(current, required, fix)
        }
    }
}

fn role(look: &Look, need: &RedisNeed<'_>) -> Finding {
    let why = "a replica takes no writes, and what a node reads there may be older than what it was told";
    let subject = Subject { id: "redis.role", severity: Severity::Fatal, why };
    let required = "master".to_owned();
    match look.info.get("role") {
        Some(role) => subject.seen(role.clone(), required, Verdict::good_if(role == "master"), || {
            let of = |name: &str| look.info.get(name).map(String::as_str).unwrap_or("?").to_owned();
            format!("cluster.redis_url = \"redis://{}:{}\"", of("master_host"), of("master_port"))
        }),
        None => {
            let fix = format!("redis-cli -u {} role", need.address());
            subject.unseen("Redis does not tell".to_owned(), required, fix)
        }
    }
}

/// A bucket's keys carry one hash tag and so lie on one node of a Redis Cluster, which is found only if it is named as one.
fn slots(look: &Look, need: &RedisNeed<'_>) -> Finding {
    let why = "the ledger lies on the one node that has its slot; a gateway goes to no other one than it is told";
    let subject = Subject { id: "redis.cluster", severity: Severity::Warning, why };
    let required = match need.kind {
        RedisKind::Alone => "one Redis by itself".to_owned(),
        RedisKind::OfCluster => "a node of a Redis Cluster".to_owned(),
    };
    match look.info.get("cluster_enabled").map(String::as_str) {
        Some("1") => subject.seen(
            "a node of a Redis Cluster".to_owned(),
            required,
            Verdict::good_if(need.kind == RedisKind::OfCluster),
            || format!("cluster.redis_url = \"{}\"", need.address().replace("redis://", "redis-cluster://")),
        ),
        Some(_) => subject.good("one by itself".to_owned(), required),
        None => {
            let fix = format!("redis-cli -u {} info cluster", need.address());
            subject.unseen("Redis does not tell".to_owned(), required, fix)
        }
    }
}

/// Room for a stream that nothing is stored of.
fn memory(look: &Look, need: &RedisNeed<'_>) -> Finding {
    let why = "while MySQL is away the stream grows to its limit; Redis takes nothing more once it has no memory";
    let subject = Subject { id: "redis.memory", severity: Severity::Warning, why };
    let wanted = need.stream_entries_max * ENTRY_BYTES;
    let required = format!("at least {} MiB free", wanted.div_ceil(BYTES_PER_MIB));
    let number = |name: &str| look.info.get(name).and_then(|text| text.parse::<u64>().ok());
    let limits = [number("maxmemory").filter(|bytes| *bytes > 0), number("total_system_memory")];
    let (Some(limit), Some(used)) = (limits.into_iter().flatten().min(), number("used_memory")) else {
        let fix = format!("redis-cli -u {} info memory", need.address());
        return subject.unseen("Redis does not tell".to_owned(), required, fix);
    };
    let free = limit.saturating_sub(used);
    let current = format!("{} MiB of {} MiB free", free / BYTES_PER_MIB, limit / BYTES_PER_MIB);
    subject.seen(current, required, Verdict::good_if(free >= wanted), || match number("maxmemory") {
        Some(bytes) if bytes > 0 => need.sets("maxmemory", &(used + wanted + wanted / 8).to_string()),
        _ => format!("a machine with more memory, or a lower limits.stream_entries_max ({})", need.stream_entries_max),
    })
}

fn round_trip(look: &Look, need: &RedisNeed<'_>) -> Finding {
    let why = "every message waits for a round trip at least, and for another one to its recipients";
    let subject = Subject { id: "redis.round_trip", severity: Severity::Hint, why };
    let required = format!("at most {ROUND_TRIP_US_MAX} µs");
    let fix = || format!("redis-cli -u {} --latency; run Redis near to the gateways", need.address());
    match look.round_trip_us {
        Some(us) => subject.seen(format!("{us} µs"), required, Verdict::good_if(us <= ROUND_TRIP_US_MAX), fix),
        None => subject.unseen("not answered".to_owned(), required, fix()),
    }
}
