//! What a Redis Cluster says of its slots.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::*;

fn server(host: &str, port: u16) -> Server {
    Server::new(host, port)
}

/// A range as it is answered: its slots, the master, a replica.
fn range(first: i64, last: i64, host: Option<&str>, port: i64) -> Value {
    let host = host.map_or(Value::Null, |host| Value::String(host.into()));
    let master = Value::Array(vec![host, Value::Integer(port), Value::String("id".into())]);
    let replica = Value::Array(vec![Value::String("192.0.2.9".into()), Value::Integer(1), Value::String("id".into())]);
    Value::Array(vec![Value::Integer(first), Value::Integer(last), master, replica])
}

#[test]
fn each_bucket_lies_on_the_master_that_has_its_slot_and_a_master_is_connected_to_once() {
    let asked = server("192.0.2.1", 7000);
    let config = Config::from_url("redis-cluster://user:secret@192.0.2.1:7000").unwrap();
    let ranges = [range(0, 5460, Some(""), 7000), range(5461, 10922, None, 7001), range(10923, 16383, Some("b"), 7002)];
    let slots: Vec<Slots> = ranges.into_iter().map(|range| range_of(range, &asked).unwrap()).collect();
    let masters = Masters::new(&config, &slots, 5).unwrap();
    let urls: Vec<&str> = masters.each().iter().map(|master| master.url.as_str()).collect();
    // One that does not know its own address is where it was asked.
    assert_eq!(urls, ["redis://user@192.0.2.1:7001", "redis://user@b:7002", "redis://user@192.0.2.1:7000"]);
    assert_eq!(masters.places(), [0, 1, 2, 2, 0]);
    assert_eq!(masters.each().iter().map(|master| master.buckets).collect::<Vec<_>>(), [2, 1, 2]);
    for master in masters.each() {
        assert!(!master.config.server.is_clustered(), "a connection follows nothing elsewhere");
        assert_eq!(master.config.password.as_deref(), Some("secret"));
    }
    // Somebody's slots are nowhere.
    let missing = Masters::new(&config, &slots[..2], 5);
    assert!(matches!(missing, Err(Ended::Lost(error)) if error.contains("slot 12359")));
}

#[test]
fn what_makes_no_sense_is_no_range() {
    let asked = server("192.0.2.1", 7000);
    for range in [
        Value::Null,
        Value::Array(vec![]),
        Value::Array(vec![Value::Integer(0), Value::Integer(5)]),
        Value::Array(vec![Value::Integer(0), Value::Integer(70_000), Value::Array(vec![])]),
        range(-1, 5, Some("a"), 1),
        range(0, 5, Some("a"), 70_000),
    ] {
        assert_eq!(range_of(range.clone(), &asked), None, "{range:?}");
    }
}
