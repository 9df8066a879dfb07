#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::Path;

use super::*;
use crate::config::typed::Typed;
use crate::doctor::host::recorded::Record;

/// What `serve` with these settings does on a recorded host.
fn started(name: &str, settings: &[&str]) -> Result<Kept, String> {
    let mut typed = Typed::defaults();
    for setting in settings {
        typed.set_pair(setting).unwrap();
    }
    let config = Config::new(&typed).unwrap();
    let values = Values::shipped().unwrap();
    let host = Host::read(&Record::open(name), &values, Path::new("/var/lib/ringway"));
    on(&host, &values, &config, 14).map_err(|unfit| unfit.to_string())
}

fn refused(name: &str, settings: &[&str], words: &[&str]) {
    let said = started(name, settings).expect_err("this must not start");
    for word in words {
        assert!(said.contains(word), "expected {word:?} in {said}");
    }
}

#[test]
fn a_configured_number_is_kept_where_the_host_has_what_it_takes() {
    let kept = started("tuned-large", &["limits.connections_max=500000"]).unwrap();
    assert_eq!(kept, Kept { connections: 500_000, reduced_by: None, warnings: Vec::new() });
}

#[test]
fn a_configured_number_that_descriptors_forbid_is_refused() {
    refused(
        "container",
        &["limits.connections_max=50000"],
        &[
            "cannot keep 50000 connections (limits.connections_max, from command line)",
            "descriptors: 20000, must be at least 50768",
            "To do: start the container with --ulimit nofile=50768",
        ],
    );
    assert_eq!(started("container", &["limits.connections_max=19000"]).unwrap().connections, 19_000);
}

#[test]
fn a_configured_number_that_memory_forbids_is_refused() {
    refused(
        "small-cgroup",
        &["limits.connections_max=500000"],
        &["memory.available: 922 MiB (cgroup limit 1024 MiB), must be at least 2692 MiB", "memory.max by 1770 MiB"],
    );
}

#[test]
fn the_default_is_what_descriptors_and_memory_allow() {
    let kept = started("container", &[]).unwrap();
    assert_eq!(kept.connections, 20_000 - 768);
    assert_eq!(kept.reduced_by.unwrap().id, checks::DESCRIPTORS);
    let kept = started("small-cgroup", &[]).unwrap();
    assert_eq!(kept.connections, ((1024 - 102) * 1024 * 1024 - 134_217_728) / 5_376);
    assert_eq!(kept.reduced_by.unwrap().id, checks::MEMORY_AVAILABLE);
}

#[test]
fn what_a_refusal_offers_instead_is_kept() {
    let said = started("small-cgroup", &["limits.connections_max=500000"]).unwrap_err();
    let offer = said.rsplit("--set ").next().unwrap().trim();
    assert_eq!(offer, "limits.connections_max=154867");
    assert_eq!(started("small-cgroup", &[offer]).unwrap().connections, 154_867);
    let said = started("tiny-cgroup", &["limits.connections_max=1000"]).unwrap_err();
    assert!(said.contains("by 70 MiB") && !said.contains("--set"), "there is no number to offer: {said}");
}

#[test]
fn the_default_starts_also_where_there_is_little() {
    let kept = started("tiny-cgroup", &[]).unwrap();
    assert_eq!(kept.connections, 32 * 1024 * 1024 / 5_376);
}

#[test]
fn without_io_uring_nothing_starts_however_few_connections() {
    let refusal = ["io_uring: io_uring_setup is refused with EPERM", "sysctl -w kernel.io_uring_disabled=0"];
    refused("io-uring-off", &[], &refusal);
    refused("old-kernel", &["limits.connections_max=1"], &["kernel: 5.4.0", "boot Linux 5.11 or newer"]);
}

#[test]
fn what_no_number_of_connections_would_cure_does_not_speak_of_connections_or_of_what_is_not_in_the_way() {
    // Neither its io_uring nor its few descriptors let it keep what was asked for.
    let said = started("filtered-container", &["limits.connections_max=50000"]).expect_err("this must not start");
    assert!(said.contains("io_uring_setup is refused") && said.contains("seccomp=tuning/seccomp.json"), "{said}");
    for word in ["50000", "1000000", "descriptors"] {
        assert!(!said.contains(word), "{word} is not in the way: {said}");
    }
}

#[test]
fn a_default_that_is_reduced_demands_nothing_that_nobody_asked_for() {
    let said = started("container", &[]).unwrap().reduction().unwrap();
    assert!(said.contains("room for 19232 connections") && said.contains("descriptors"), "{said}");
    for word in ["1000768", "1000000", "must be", "To do"] {
        assert!(!said.contains(word), "{said}");
    }
    assert_eq!(started("container", &["limits.connections_max=19000"]).unwrap().reduction(), None);
}
