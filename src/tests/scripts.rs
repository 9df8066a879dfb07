//! The scripts that Redis runs for a cluster, one at a time, on a real Redis: what takes hours or a crowd elsewhere.

use std::time::Duration;

use crate::gateway::{PATIENCE, pause};
use crate::redis::Redis;

const SUBMIT: &str = include_str!("../cluster/submit.lua");
const COMPARE: &str = include_str!("../cluster/compare.lua");
const LEAVE: &str = include_str!("../cluster/leave.lua");
pub(crate) const HEARTBEAT: &str =
    concat!(include_str!("../cluster/order_at.lua"), include_str!("../cluster/heartbeat.lua"));

pub(crate) const ROOT: &str = "{ringway:0}:3:";
const GENERATION: &str = "1.000000000000000a";
pub(crate) const BASE: u64 = 1 << 40;

/// A Redis with an empty ledger.
fn ledger() -> Redis {
    let redis = Redis::start();
    let (state, base) = (format!("{ROOT}state"), BASE.to_string());
    let fields = ["generation", GENERATION, "count", &base, "stored", &base];
    let mut set = vec!["HSET", &state];
    set.extend(fields);
    redis.command(&set).unwrap();
    redis
}

pub(crate) fn eval(redis: &Redis, script: &str, arguments: &[&str]) -> String {
    let mut command = vec!["EVAL", script, "1", ROOT];
    command.extend(arguments);
    redis.command(&command).unwrap()
}

fn seconds(redis: &Redis) -> u64 {
    let time = redis.command(&["TIME"]).unwrap();
    time.lines().nth(2).unwrap().parse().unwrap()
}

/// Submits a message under a name that nobody used before a second, or the store would have it.
fn submit(redis: &Redis, name: &str, since_s: u64, body: &str) -> String {
    let since = since_s.to_string();
    let common = [GENERATION, "1000", "900", "60"];
    let arguments = [&common[..], &["D", "", "", name, "7", "0123456789abcdef", &since, body]].concat();
    eval(redis, SUBMIT, &arguments)
}

/// The reply to the only submission.
fn reply(answer: &str) -> &str {
    answer.lines().nth(2).unwrap()
}

#[test]
fn redis_does_not_rely_on_a_name_that_it_may_have_forgotten() {
    let redis = ledger();
    let now = seconds(&redis);
    assert_eq!(reply(&submit(&redis, "a", now, "one")), "A");
    // It still has the name, however old that is.
    assert!(reply(&submit(&redis, "a", now - 10_000, "one")).starts_with('R'));
    // It has forgotten it.
    redis.command(&["DEL", &format!("{ROOT}{GENERATION}:c:7")]).unwrap();
    assert_eq!(reply(&submit(&redis, "a", now - 850, "one")), "O");
    assert_eq!(reply(&submit(&redis, "b", now - 800, "two")), "A");
    let length = redis.command(&["XLEN", &format!("{ROOT}{GENERATION}:stream")]).unwrap();
    assert_eq!(length.trim(), ":2");
}

#[test]
fn a_node_that_numbers_otherwise_than_most_is_told_so_though_it_told_first() {
    let redis = ledger();
    let heartbeat = |window: &str, digest: &str, node: &str, writes: &str| {
        let answer = eval(&redis, COMPARE, &[GENERATION, window, digest, "1024", node, writes]);
        answer.lines().last().unwrap().to_owned()
    };
    assert_eq!(heartbeat("100", "bad", "1", ""), "OK", "nobody knows better");
    assert_eq!(heartbeat("100", "aaa", "2", ""), "OK", "one against one, and neither writes");
    assert_eq!(heartbeat("100", "aaa", "3", ""), "OK");
    // With its next window it hears of the one before.
    assert_eq!(heartbeat("101", "bbb", "1", ""), "OTHER");
    // One against one: the database has what the writer has.
    assert_eq!(heartbeat("200", "bad", "1", ""), "OK");
    assert_eq!(heartbeat("200", "aaa", "2", "!"), "OK");
    assert_eq!(heartbeat("200", "bad", "1", ""), "OTHER");
    assert_eq!(heartbeat("201", "ccc", "2", "!"), "OK");
}

#[test]
fn a_redis_without_memory_takes_heartbeats_and_cuts_off_what_is_stored() {
    let redis = ledger();
    let now = seconds(&redis);
    let body = "x".repeat(10_000);
    for name in 0..1_000 {
        assert_eq!(reply(&submit(&redis, &name.to_string(), now, &body)), "A");
    }
    let set = |bytes: &str| redis.command(&["CONFIG", "SET", "maxmemory", bytes]).unwrap();
    set("5mb");
    let refused = submit(&redis, "more", now, &body);
    assert!(refused.contains("OOM command not allowed"), "{refused}");
    // The database has all but ten of them.
    let stored = (BASE + 990).to_string();
    let beat = ["1", "token", "5000", &stored, &stored, "0", "1", "=", "1", "900"];
    let answer = eval(&redis, HEARTBEAT, &beat);
    assert!(answer.contains("OK"), "{answer}");
    // Whether there was memory stands behind how many entries there are, before the nodes.
    let has_memory = |answer: &str| {
        let words: Vec<&str> = answer.lines().filter(|line| !line.starts_with(['*', '$', ':'])).collect();
        words[words.len() - 2] == "1"
    };
    assert!(!has_memory(&answer), "{answer}");
    let again = eval(&redis, HEARTBEAT, &beat);
    assert!(has_memory(&again), "{again}");
    let length = redis.command(&["XLEN", &format!("{ROOT}{GENERATION}:stream")]).unwrap();
    assert_eq!(length.trim(), ":10");
    assert_eq!(reply(&submit(&redis, "more", now, &body)), "A");
}

/// A node's heartbeat in one of its sessions, with a lease of so many milliseconds; the first word of what it says.
fn beat(redis: &Redis, token: &str, lease_ms: &str, session: &str) -> String {
    let base = BASE.to_string();
    let answer = eval(redis, HEARTBEAT, &["1", token, lease_ms, &base, &base, "0", "1", "~", session, "900"]);
    answer.lines().nth(2).unwrap().to_owned()
}

/// Whether there is such a key.
fn exists(redis: &Redis, key: &str) -> bool {
    redis.command(&["EXISTS", &format!("{ROOT}{key}")]).unwrap().trim() == ":1"
}

fn wait_until_gone(redis: &Redis, key: &str) {
    for _ in 0..PATIENCE.as_millis() / 10 {
        if !exists(redis, key) {
            return;
        }
        pause(Duration::from_millis(10));
    }
    panic!("{key} stays");
}

#[test]
fn a_process_that_has_had_a_successor_gets_no_lease_any_more_whatever_comes_late() {
    let redis = ledger();
    assert_eq!(beat(&redis, "dead", "100", "10"), "OK");
    wait_until_gone(&redis, "node:1");
    assert_eq!(beat(&redis, "alive", "100", "20"), "OK");
    wait_until_gone(&redis, "node:1");
    wait_until_gone(&redis, "writer");
    assert_eq!(beat(&redis, "dead", "100000", "10"), "TAKEN");
    assert!(!exists(&redis, "node:1"), "it has no lease");
    assert!(!exists(&redis, "writer"), "and its store does not write");
    assert_eq!(beat(&redis, "alive", "100000", "20"), "OK");
    // Nor does it renew what it has not.
    assert_eq!(beat(&redis, "dead", "100000", "10"), "TAKEN");
}

#[test]
fn each_session_of_a_node_has_a_higher_number_also_when_the_clock_goes_back_and_without_memory() {
    let redis = ledger();
    let number = || {
        let base = BASE.to_string();
        let answer = eval(&redis, HEARTBEAT, &["1", "token", "5000", &base, &base, "0", "1", "~", "", "900"]);
        let words: Vec<&str> = answer.lines().collect();
        assert_eq!(words[2], "SESSION", "{answer}");
        words[4].parse::<u64>().unwrap()
    };
    let first = number();
    let second = number();
    assert!(second > first);
    assert!(!exists(&redis, "node:1"), "who asks has no lease yet");
    // In microseconds of a clock that was far ahead.
    let ahead = (second + 1_000_000_000_000).to_string();
    assert_eq!(beat(&redis, "token", "100000", &ahead), "OK");
    assert!(number() > ahead.parse().unwrap());
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    let before = number();
    assert!(number() > before);
}

#[test]
fn who_stops_late_gives_back_its_own_lease_alone() {
    let redis = ledger();
    assert_eq!(beat(&redis, "alive", "100000", "20"), "OK");
    assert!(eval(&redis, LEAVE, &["1", "dead"]).contains("OK"));
    assert!(exists(&redis, "node:1") && exists(&redis, "writer"), "they are another's");
    assert!(eval(&redis, LEAVE, &["1", "alive"]).contains("OK"));
    assert!(!exists(&redis, "node:1") && !exists(&redis, "writer"));
}
