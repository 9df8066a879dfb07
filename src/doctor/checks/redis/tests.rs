#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::*;
use crate::doctor::Verdict;

const URL: &str = "redis://gateway:secret@192.0.2.9:6379/0";

/// What a Redis 7 on a machine of 16 GiB answers that is as it should be; the lines that the checks read.
const INFO: &str = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n\r\n# Memory\r\nused_memory:1048576\r\n\
                    total_system_memory:17179869184\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n\r\n\
                    # Replication\r\nrole:master\r\nconnected_slaves:0\r\n\r\n# Cluster\r\ncluster_enabled:0\r\n";
const SETTINGS: [(&str, &str); 4] =
    [("appendonly", "yes"), ("appendfsync", "always"), ("maxmemory", "0"), ("maxmemory-policy", "noeviction")];

/// That Redis, with other settings, and with lines of `INFO` in place of those of the same name.
fn recorded(settings: &[(&str, &str)], info: &str) -> Look {
    let mut look = Look { round_trip_us: Some(120), ..Look::default() };
    look.take_info(INFO);
    look.take_info(info);
    let words: Vec<String> =
        SETTINGS.iter().chain(settings).flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()]).collect();
    look.take_settings(&words);
    look
}

fn findings_of(look: Look) -> Vec<Finding> {
    findings(&Ok(look), &RedisNeed { url: URL, stream_entries_max: 1 << 20, kind: RedisKind::Alone })
}

/// What is not good: which, how bad, and what to do.
fn complaints(findings: &[Finding]) -> Vec<(&str, Severity, &str)> {
    let bad = findings.iter().filter(|finding| finding.verdict == Verdict::Bad);
    bad.map(|finding| (finding.id.as_str(), finding.severity, finding.fix.as_deref().unwrap())).collect()
}

fn check(settings: &[(&str, &str)], info: &str, expected: &[(&str, Severity, &str)]) {
    let findings = findings_of(recorded(settings, info));
    assert_eq!(complaints(&findings), expected);
    for finding in &findings {
        assert!(!format!("{finding:?}").contains("secret"), "{finding}");
    }
}

const CLI: &str = "redis-cli -u redis://gateway@192.0.2.9:6379/0";

#[test]
fn a_redis_that_keeps_what_it_acknowledges_is_good() {
    check(&[], "", &[]);
}

#[test]
fn one_that_syncs_once_a_second_or_never_is_named_with_the_command_that_sets_it() {
    let fsync = format!("{CLI} config set appendfsync always && {CLI} config rewrite");
    let only = format!("{CLI} config set appendonly yes && {CLI} config rewrite");
    check(&[("appendfsync", "everysec")], "", &[("redis.appendfsync", Severity::Warning, &fsync)]);
    check(
        &[("appendonly", "no"), ("appendfsync", "no")],
        "",
        &[("redis.appendonly", Severity::Warning, &only), ("redis.appendfsync", Severity::Warning, &fsync)],
    );
}

#[test]
fn one_that_would_evict_the_ledger_is_fatal_and_one_without_a_limit_evicts_nothing() {
    let policy = format!("{CLI} config set maxmemory-policy noeviction && {CLI} config rewrite");
    let limit = [("maxmemory", "8589934592"), ("maxmemory-policy", "allkeys-lru")];
    check(&limit, "", &[("redis.maxmemory-policy", Severity::Fatal, &policy)]);
    check(&[("maxmemory-policy", "allkeys-lru")], "", &[]);
    check(&[("maxmemory", "8589934592")], "", &[]);
}

#[test]
fn memory_for_a_stream_that_is_not_stored_is_what_the_limit_leaves() {
    let more = format!("{CLI} config set maxmemory 1209008128 && {CLI} config rewrite");
    check(&[], "maxmemory:104857600\r\n", &[("redis.memory", Severity::Warning, &more)]);
    let machine = "a machine with more memory, or a lower limits.stream_entries_max (1048576)";
    check(&[], "total_system_memory:536870912\r\n", &[("redis.memory", Severity::Warning, machine)]);
}

#[test]
fn a_replica_a_node_of_a_redis_cluster_and_an_old_version_are_named() {
    let replica = "role:slave\r\nmaster_host:192.0.2.8\r\nmaster_port:6380\r\n";
    let primary = "cluster.redis_url = \"redis://192.0.2.8:6380\"";
    check(&[], replica, &[("redis.role", Severity::Fatal, primary)]);
    let cluster = "cluster.redis_url = \"redis-cluster://gateway@192.0.2.9:6379/0\"";
    check(&[], "cluster_enabled:1\r\n", &[("redis.cluster", Severity::Warning, cluster)]);
    let newer = "run Redis 6.2 or newer at redis://gateway@192.0.2.9:6379/0";
    check(&[], "redis_version:6.0.16\r\n", &[("redis", Severity::Fatal, newer)]);
    check(&[], "redis_version:6.2.0\r\n", &[]);
}

#[test]
fn the_server_that_answers_is_named_and_one_in_which_the_ledger_cannot_lie_is_refused_with_what_to_do() {
    let named = |info: &str| {
        let findings = findings_of(recorded(&[], info));
        (findings[0].current.clone(), findings[0].is_fatal(), findings[0].fix.clone())
    };
    assert_eq!(named(""), ("Redis 7.0.15".to_owned(), false, None));
    let valkey = "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\n";
    assert_eq!(named(valkey), ("Valkey 9.1.2".to_owned(), false, None));
    let keydb = "redis_version:6.3.4\r\nexecutable:/usr/bin/keydb-server\r\n";
    assert_eq!(named(keydb), ("KeyDB 6.3.4".to_owned(), false, None));
    let old = named("redis_version:6.0.18\r\nexecutable:/usr/bin/keydb-server\r\n");
    let newer = "run KeyDB 6.3 or newer at redis://gateway@192.0.2.9:6379/0".to_owned();
    assert_eq!(old, ("KeyDB 6.0.18".to_owned(), true, Some(newer)));
    // It says that it is like a Redis that would do.
    let dragonfly = "redis_version:7.4.0\r\ndragonfly_version:df-v1.34.0\r\n";
    let (current, is_fatal, fix) = named(dragonfly);
    assert_eq!((current.as_str(), is_fatal), ("Dragonfly 1.34.0", true));
    assert!(fix.is_some_and(|fix| fix.contains("run Redis 7 or Valkey in its place")));
    // A node that starts says the same.
    let need = RedisNeed { url: URL, stream_entries_max: 1, kind: RedisKind::Alone };
    let said = losses_said(&recorded(&[], dragonfly), &need);
    assert!(
        said.iter().any(|line| line.contains("Dragonfly 1.34.0, must be Redis 6.2, Valkey 7.2, or newer")),
        "{said:?}"
    );
    assert!(losses_said(&recorded(&[], valkey), &need).is_empty());
}

#[test]
fn a_distant_redis_is_a_hint() {
    let findings = findings_of(Look { round_trip_us: Some(2_500), ..recorded(&[], "") });
    let near = format!("{CLI} --latency; run Redis near to the gateways");
    assert_eq!(complaints(&findings), [("redis.round_trip", Severity::Hint, near.as_str())]);
}

#[test]
fn what_redis_does_not_tell_is_unknown_and_never_good() {
    let findings = findings_of(Look::default());
    assert_eq!(findings.len(), 8);
    for finding in &findings {
        assert_eq!(finding.verdict, Verdict::Unknown, "{finding}");
        assert!(finding.fix.as_ref().is_some_and(|fix| !fix.is_empty()), "{finding}");
    }
}

#[test]
fn a_redis_that_does_not_answer_is_one_fatal_finding() {
    let findings = findings(
        &Err("connection refused".to_owned()),
        &RedisNeed { url: URL, stream_entries_max: 1 << 20, kind: RedisKind::Alone },
    );
    let [finding] = findings.as_slice() else { panic!("{findings:?}") };
    assert!(finding.is_fatal());
    assert_eq!(finding.current, "redis://gateway@192.0.2.9:6379/0: connection refused");
}

#[test]
fn every_master_of_a_redis_cluster_is_looked_at_and_needs_room_for_its_buckets() {
    let masters = [("192.0.2.1", 2), ("192.0.2.2", 1)];
    let looked = masters.map(|(host, buckets)| Looked {
        url: format!("redis://{host}:6379"),
        buckets,
        look: Ok(recorded(&[("appendfsync", "everysec")], "cluster_enabled:1\r\nmaxmemory:536870912\r\n")),
    });
    let url = "redis-cluster://192.0.2.1:6379";
    let findings = findings_of_all(&Ok(looked.into()), url, 3 << 18);
    let complaints = complaints(&findings);
    // Half a million entries of 1 KiB do not fit 511 MiB, and half as many do.
    let ids: Vec<&str> = complaints.iter().map(|(id, ..)| *id).collect();
    assert_eq!(ids, ["redis.appendfsync", "redis.memory", "redis.appendfsync"]);
    assert!(complaints[0].2.contains("192.0.2.1") && complaints[2].2.contains("192.0.2.2"), "{complaints:?}");
    let lost = findings_of_all(&Err("no master of the Redis Cluster has slot 7".to_owned()), url, 1);
    assert!(lost[0].is_fatal() && lost[0].current.contains("slot 7"), "{lost:?}");
}
