#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;

fn rule(columns: &str) -> Result<Rule, String> {
    let text = format!("# a comment\n\nprofile | small | 4 | 16 | 50000 | a test\n{columns}\n");
    Values::parse(&text).map(|values| values.rules[0].clone()).map_err(|error| error.to_string())
}

fn refused(columns: &str, expected: &str) {
    let error = rule(columns).expect_err(columns);
    assert!(error.contains("line 4:") && error.contains(expected), "{columns}: expected {expected:?} in {error:?}");
}

#[test]
fn every_line_of_the_shipped_file_is_understood() {
    let values = Values::shipped().unwrap();
    let names: Vec<&str> = values.profiles.iter().map(|profile| profile.name.as_str()).collect();
    assert_eq!(names, ["small", "standard", "large", "flagship"]);
    let lines = SHIPPED.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).count();
    assert_eq!(values.rules.len() + values.profiles.len(), lines);
    for key in ["nofile", "memlock"] {
        values.amount(Kind::Rlimit, key).unwrap();
    }
    for key in ["total", "available"] {
        values.amount(Kind::Memory, key).unwrap();
    }
    assert!(values.rules.iter().any(|rule| matches!(rule.compare, Compare::Release(_))));
}

#[test]
fn a_rule_is_read_column_by_column() {
    let read = rule("sysctl | net.ipv4.tcp_mem:2 | min | 49152 | 2 | warning | two pages each").unwrap();
    assert_eq!((read.kind, read.key.as_str(), read.field), (Kind::Sysctl, "net.ipv4.tcp_mem", Some(2)));
    assert_eq!(read.compare, Compare::Min(Amount { base: 49_152, per_connection: 2 }));
    assert_eq!((read.severity, read.why.as_str()), (Severity::Warning, "two pages each"));
    let Compare::Min(amount) = read.compare else { panic!("min") };
    assert_eq!(amount.for_connections(500_000), 1_049_152);
    let read = rule("sysfs | /sys/kernel/x | one-of | madvise never | - | hint | why").unwrap();
    assert_eq!(read.compare, Compare::OneOf(vec!["madvise".to_owned(), "never".to_owned()]));
}

#[test]
fn a_line_that_is_wrong_is_refused_by_its_number() {
    refused("sysctl | a.b | min | 1 | 1 | fatal", "7 columns");
    refused("sysctl | a.b | min | 1 | 1 | fatal | x | y", "7 columns");
    refused("sysctls | a.b | min | 1 | 1 | fatal | x", "profile, kernel, memory");
    refused("sysctl | ab | min | 1 | 1 | fatal | x", "a key of its kind");
    refused("sysctl | a/../b.c | min | 1 | 1 | fatal | x", "a key of its kind");
    refused("sysctl | a.b:0 | min | 1 | 1 | fatal | x", "`:1` to `:9`");
    refused("sysctl | a.b | above | 1 | 1 | fatal | x", "min, max or one-of");
    refused("sysctl | a.b | min | +1 | 1 | fatal | x", "a whole number");
    refused("sysctl | a.b | min | 1 | 9007199254740992 | fatal | x", "a whole number");
    refused("sysctl | a.b | min |  | 1 | fatal | x", "a whole number");
    refused("sysctl | a.b | min | 1 | 1 | deadly | x", "fatal, warning or hint");
    refused("sysctl | a.b | min | 1 | 1 | fatal |", "why");
    refused("sysfs | /sys/a | one-of | x | 1 | hint | x", "- as per_connection");
    refused("sysfs | /proc/a | one-of | x | - | hint | x", "a key of its kind");
    refused("kernel | release | max | 5.8 | - | fatal | x", "min");
    refused("kernel | release | min | five | - | fatal | x", "a kernel's version");
    refused("rlimit | nproc | min | 1 | - | fatal | x", "a key of its kind");
    refused("profile | small | 4 | 16 | 60000 | again", "each profile once");
    refused("profile | tiny | 4 | 16 | 50000 | less", "rising order");
    refused("profile | big | 4 | 16 | 60000", "6 columns");
    let twice = "sysctl | a.b | min | 1 | - | hint | x\nsysctl | a.b | min | 1 | - | hint | x";
    assert!(rule(twice).unwrap_err().contains("line 5: expected each key once"));
}

#[test]
fn a_number_of_connections_has_the_smallest_profile_that_is_for_it() {
    let values = Values::shipped().unwrap();
    let name = |connections| values.profile_for(connections).unwrap().name.clone();
    assert_eq!((name(1), name(50_000), name(50_001)), ("small".into(), "small".into(), "standard".into()));
    assert_eq!(
        (name(500_000), name(1_000_000), name(5_000_000)),
        ("large".into(), "flagship".into(), "flagship".into())
    );
}

#[test]
fn a_file_without_profiles_is_refused() {
    assert_eq!(Values::parse("# nothing\n").unwrap_err(), ValuesError::Missing("profile"));
}
