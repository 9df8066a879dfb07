//! The rules of `tuning/values.conf` about sysctls and files below /sys.
//!
//! Rules about the numbers of one sysctl are one finding, since one command sets them all.

use super::Subject;
use crate::doctor::host::{Host, Reading};
use crate::doctor::values::{Compare, Kind, Rule};
use crate::doctor::{Finding, Need, Verdict};

/// Older kernels do not have it, and do not switch io_uring off.
const SWITCH: &str = "kernel.io_uring_disabled";

/// One finding for each key, in the file's order.
pub(super) fn findings(host: &Host, need: &Need<'_>) -> Vec<Finding> {
    let mut keys: Vec<Vec<&Rule>> = Vec::new();
    for rule in &need.values.rules {
        if matches!(rule.kind, Kind::Kernel | Kind::Memory | Kind::Rlimit) {
            continue;
        }
        match keys.iter_mut().find(|rules| rules.iter().any(|other| (other.kind, &other.key) == (rule.kind, &rule.key)))
        {
            Some(rules) => rules.push(rule),
            None => keys.push(vec![rule]),
        }
    }
    keys.iter().filter_map(|rules| of_key(host, need, rules)).collect()
}

fn of_key(host: &Host, need: &Need<'_>, rules: &[&Rule]) -> Option<Finding> {
    let first = rules.first()?;
    Some(match first.kind {
        Kind::Sysfs => sysfs(host, need, first),
        _ => sysctl(host, need, first, rules),
    })
}

fn sysctl(host: &Host, need: &Need<'_>, first: &Rule, rules: &[&Rule]) -> Finding {
    let key = first.key.as_str();
    let connections = need.connections;
    let required = rules.iter().map(|rule| wanted(rule, connections)).collect::<Vec<_>>().join(", ");
    let subject = Subject::of(key, first);
    let does_not_count = |current: &str| subject.good(current.to_owned(), required.clone());
    match host.sysctl(key) {
        Reading::Value(_) if first.kind == Kind::Nic && !host.packets_spread => {
            does_not_count("no NIC's packets are spread over CPUs")
        }
        Reading::Value(_) if first.kind == Kind::Conntrack && host.port_untracked => {
            does_not_count("the gateway's port is not tracked")
        }
        Reading::Value(text) => {
            let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            let mut worst: Option<&Rule> = None;
            for rule in rules {
                let Some(word) = words.get_mut(rule.field.map_or(0, |field| field - 1)) else {
                    return subject.unseen(text.clone(), required, format!("sysctl {key}"));
                };
                match is_good(rule, word, connections) {
                    None => return subject.unseen(text.clone(), required, format!("sysctl {key}")),
                    Some(true) => {}
                    Some(false) => {
                        *word = target(rule, connections);
                        worst = worst.filter(|worst| worst.severity >= rule.severity).or(Some(rule));
                    }
                }
            }
            let fix = || match words.len() {
                1 => format!("sysctl -w {key}={}", words.concat()),
                _ => format!("sysctl -w {key}=\"{}\"", words.join(" ")),
            };
            let current = text.split_whitespace().collect::<Vec<_>>().join(" ");
            Subject::of(key, worst.unwrap_or(first)).seen(current, required, Verdict::good_if(worst.is_none()), fix)
        }
        Reading::Absent if key == SWITCH => does_not_count("not there: this kernel does not switch it off"),
        Reading::Absent if first.kind == Kind::Conntrack => does_not_count("connections are not tracked"),
        Reading::Absent if first.kind == Kind::Nic => does_not_count("not there"),
        Reading::Absent => subject.unseen(
            "not shown here, as in a container".to_owned(),
            required,
            format!("look on the host itself: sysctl {key}"),
        ),
        Reading::Unreadable(error) => subject.unseen(
            format!("not readable: {error}"),
            required,
            format!("look as root, on the host itself: sysctl {key}"),
        ),
    }
}

fn sysfs(host: &Host, need: &Need<'_>, rule: &Rule) -> Finding {
    let key = rule.key.as_str();
    let subject = Subject::of(key, rule);
    let required = wanted(rule, need.connections);
    let files = host.sysfs.get(key).map(Vec::as_slice).unwrap_or_default();
    let mut current = "not there".to_owned();
    for (path, reading) in files {
        let seen = reading.value().map(|text| chosen(text).to_owned());
        let good = seen.as_ref().and_then(|text| is_good(rule, text, need.connections));
        let look = || format!("look as root, on the host itself: cat {path}");
        match (seen, good) {
            (Some(text), Some(true)) => current = text,
            (Some(text), Some(false)) => {
                let fix = || format!("echo {} | tee {key}", target(rule, need.connections));
                return subject.bad(text, required, fix);
            }
            (Some(text), None) => return subject.unseen(text, required, look()),
            (None, _) => return subject.unseen("not readable".to_owned(), required, look()),
        }
    }
    // Without the file there is nothing to set: no frequency scaling, no huge pages.
    subject.good(current, required)
}

/// The word in brackets of a file that offers its choices; else all of it.
fn chosen(text: &str) -> &str {
    text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or(text, |(word, _)| word)
}

/// Whether a value is good; `None` if it is not of the kind that the rule compares.
fn is_good(rule: &Rule, value: &str, connections: u64) -> Option<bool> {
    match &rule.compare {
        Compare::Min(amount) => value.parse().ok().map(|value: u64| value >= amount.for_connections(connections)),
        Compare::Max(amount) => value.parse().ok().map(|value: u64| value <= amount.for_connections(connections)),
        Compare::OneOf(words) => Some(words.iter().any(|word| word == value)),
        Compare::Release(_) => None,
    }
}

/// What the scripts would set.
fn target(rule: &Rule, connections: u64) -> String {
    match &rule.compare {
        Compare::Min(amount) | Compare::Max(amount) => amount.for_connections(connections).to_string(),
        Compare::OneOf(words) => words.first().cloned().unwrap_or_default(),
        Compare::Release(version) => version.to_string(),
    }
}

fn wanted(rule: &Rule, connections: u64) -> String {
    match &rule.compare {
        Compare::Min(amount) => format!("at least {}", amount.for_connections(connections)),
        Compare::Max(amount) => format!("at most {}", amount.for_connections(connections)),
        Compare::OneOf(words) => words.join(" or "),
        Compare::Release(version) => format!("at least {version}"),
    }
}
