//! The doctor on the machine that the tests run on, and what `serve` refuses in its words.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::gateway::{Gateway, address};
use crate::redis::Redis;
use crate::services::Database;

/// Runs `ringway` with this limit of open files, its data directory at `data_dir`.
fn run_with_descriptors(descriptors: u64, data_dir: &Path, arguments: &[&str]) -> Output {
    run_with(&format!("--nofile={descriptors}"), data_dir, arguments)
}

/// The same with any limit, as prlimit takes it.
fn run_with(limit: &str, data_dir: &Path, arguments: &[&str]) -> Output {
    Command::new("prlimit")
        .arg(limit)
        .arg(env!("CARGO_BIN_EXE_ringway"))
        .args(arguments)
        .arg("--data-dir")
        .arg(data_dir)
        .env("RINGWAY_AUTH_HS256_SECRET", crate::gateway::SECRET)
        .output()
        .unwrap()
}

/// What the doctor says as JSON, and its exit code.
fn doctor(descriptors: u64, arguments: &[&str]) -> (Value, i32) {
    let dir = tempfile::tempdir().unwrap();
    let arguments = [&["doctor", "--json"], arguments].concat();
    let output = run_with_descriptors(descriptors, dir.path(), &arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    let said = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    (said, output.status.code().unwrap())
}

fn check<'a>(said: &'a Value, id: &str) -> &'a Value {
    let found = said["checks"].as_array().unwrap().iter().find(|check| check["id"] == id);
    found.unwrap_or_else(|| panic!("no check {id} in {said:#}"))
}

#[test]
fn the_doctor_names_descriptors_that_are_too_few_and_exits_with_2() {
    let (said, code) = doctor(1000, &["--connections", "5000"]);
    let descriptors = check(&said, "descriptors");
    assert_eq!((code, &said["outcome"]), (2, &Value::from("cannot_serve")));
    assert_eq!((&descriptors["verdict"], &descriptors["severity"]), (&Value::from("bad"), &Value::from("fatal")));
    assert_eq!(
        (&descriptors["current"], &descriptors["required"]),
        (&Value::from("1000"), &Value::from("at least 5768"))
    );
    assert!(descriptors["fix"].as_str().unwrap().contains("nofile=5768"), "{descriptors}");
}

#[test]
fn the_doctor_finds_nothing_wrong_with_descriptors_that_suffice() {
    let (said, code) = doctor(1000, &["--connections", "100"]);
    let descriptors = check(&said, "descriptors");
    assert_eq!((&descriptors["verdict"], &descriptors["fix"]), (&Value::from("good"), &Value::Null));
    // What is wrong with the rest of this machine is not the test's.
    assert!((0..=2).contains(&code));
    let works = check(&said, "io_uring");
    assert_eq!(works["verdict"], "good", "the tests themselves need it: {works}");
}

#[test]
fn every_check_says_what_a_program_needs() {
    let (said, _) = doctor(1000, &["--profile", "large"]);
    assert_eq!((&said["connections"], &said["profile"]), (&Value::from(500_000), &Value::from("large")));
    let checks = said["checks"].as_array().unwrap();
    assert!(checks.len() > 30, "{}", checks.len());
    for check in checks {
        for key in ["id", "current", "required", "why"] {
            assert!(check[key].as_str().is_some_and(|text| !text.is_empty()), "{key} in {check}");
        }
        assert!(["fatal", "warning", "hint"].contains(&check["severity"].as_str().unwrap()), "{check}");
        match check["verdict"].as_str().unwrap() {
            "good" => assert!(check["fix"].is_null(), "{check}"),
            "bad" | "unknown" => assert!(check["fix"].as_str().is_some_and(|text| !text.is_empty()), "{check}"),
            other => panic!("{other}"),
        }
    }
    let somaxconn = check(&said, "net.core.somaxconn")["current"].as_str().unwrap().to_owned();
    assert_eq!(somaxconn, std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim());
}

#[test]
fn a_configured_number_is_what_the_doctor_asks_for() {
    let (said, _) = doctor(1000, &["--set", "limits.connections_max=7000"]);
    assert_eq!(said["connections"], 7000);
    let (said, _) = doctor(1000, &["--set", "limits.connections_max=7000", "--connections", "80"]);
    assert_eq!(said["connections"], 80);
}

#[test]
fn the_doctor_does_not_call_good_what_it_was_not_asked_properly() {
    let dir = tempfile::tempdir().unwrap();
    let output = run_with_descriptors(1000, dir.path(), &["doctor", "--profile", "gigantic"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("gigantic") && said.contains("small, standard, large, flagship"), "{said}");
}

#[test]
fn serve_refuses_a_configured_number_that_it_cannot_keep_in_the_doctors_words() {
    let dir = tempfile::tempdir().unwrap();
    let configured = ["--set", "limits.connections_max=5000"];
    let serve = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let refused = run_with_descriptors(1000, dir.path(), &[&serve, configured.as_slice()].concat());
    assert_eq!(refused.status.code(), Some(1));
    let refused = String::from_utf8(refused.stderr).unwrap();
    let sentence = refused.lines().find(|line| line.contains("descriptors: ")).unwrap_or_else(|| panic!("{refused}"));
    assert!(sentence.contains("1000, must be at least 5768") && sentence.contains("To do: "), "{sentence}");
    assert!(refused.contains("limits.connections_max, from command line"), "{refused}");
    assert_eq!(address(dir.path(), "listen"), None);
    assert!(!dir.path().join("secret").exists(), "it was refused before anything was made");

    let page = run_with_descriptors(1000, dir.path(), &["doctor", "--connections", "5000"]);
    let page = String::from_utf8(page.stdout).unwrap();
    // The doctor breaks its lines, and has what to do on a line of its own.
    let joined = page.split_whitespace().collect::<Vec<_>>().join(" ");
    let (problem, fix) = sentence.trim().split_once(". To do: ").unwrap();
    assert!(joined.contains(&format!("{problem} To do: {fix}")), "expected the same sentence in:\n{page}");
}

#[test]
fn too_little_locked_memory_for_a_shard_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let refused = run_with("--memlock=65536", dir.path(), &serve);
    assert_eq!(refused.status.code(), Some(1));
    let refused = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.contains("locked_memory: 65536, must be at least 524288"), "{refused}");
}

#[test]
fn the_default_number_is_reduced_to_what_the_host_keeps_and_said_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Gateway::command_under("prlimit", &["--nofile=2000"], dir.path(), &["--shards", "1"]);
    let gateway = Gateway::spawn(dir.path(), &mut command);
    let log = gateway.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("room for 1232 connections, as ")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    let said: Value = serde_json::from_str(lines[0]).unwrap();
    assert_eq!(said["connections_max"], 2000 - 768, "{said}");
    let message = said["message"].as_str().unwrap();
    assert!(message.contains("descriptors allow here (2000") && !message.contains("1000768"), "{said}");
}

#[test]
fn a_redis_that_may_lose_the_ledger_is_named_by_the_doctor_and_by_a_node_that_starts_in_the_same_words() {
    let redis = Redis::start();
    let wrong = [("appendfsync", "everysec"), ("maxmemory", "100mb"), ("maxmemory-policy", "allkeys-lru")];
    for (name, value) in wrong {
        assert!(redis.command(&["CONFIG", "SET", name, value]).unwrap().starts_with("+OK"));
    }
    let (said, code) = doctor(1000, &["--connections", "100", "--redis", &redis.url()]);
    let verdict =
        |id: &str| (check(&said, id)["verdict"].as_str().unwrap(), check(&said, id)["severity"].as_str().unwrap());
    assert_eq!((code, verdict("redis.maxmemory-policy")), (2, ("bad", "fatal")));
    assert_eq!(verdict("redis.appendfsync"), ("bad", "warning"));
    assert_eq!(verdict("redis.memory"), ("bad", "warning"));
    for id in ["redis", "redis.role", "redis.cluster", "redis.appendonly"] {
        assert_eq!(verdict(id).0, "good", "{id}: {said:#}");
    }
    assert!(check(&said, "redis.round_trip")["current"].as_str().unwrap().ends_with(" µs"));

    // A node that starts says the same of what it would lose.
    let (dir, database) = (tempfile::tempdir().unwrap(), Database::create());
    let mut node = crate::cluster::node(dir.path(), &redis, &database, 1);
    node.wait_until("it has looked at Redis", |node| {
        node.log().contains("MAY LOSE WHAT IT HAS ACKNOWLEDGED: redis.maxmemory-policy")
    });
    for id in ["redis.maxmemory-policy", "redis.appendfsync"] {
        let fix = check(&said, id)["fix"].as_str().unwrap();
        assert!(node.log().contains(fix), "{fix}\n{}", node.log());
    }
    drop(node);

    // What was to be done helps.
    for id in ["redis.maxmemory-policy", "redis.appendfsync", "redis.memory"] {
        let fix = check(&said, id)["fix"].as_str().unwrap();
        // There is no file to rewrite: this one was started without.
        let set = fix.split(" && ").next().unwrap();
        assert!(Command::new("sh").args(["-c", set]).status().unwrap().success(), "{set}");
    }
    let (said, _) = doctor(1000, &["--connections", "100", "--redis", &redis.url()]);
    let bad = said["checks"].as_array().unwrap().iter().filter(|check| check["verdict"] == "bad");
    let bad: Vec<&str> = bad.filter_map(|check| check["id"].as_str()).filter(|id| id.starts_with("redis")).collect();
    // How quick a round trip is on a busy machine is not the test's.
    assert!(bad.iter().all(|id| *id == "redis.round_trip"), "{bad:?}");

    let url = redis.url();
    drop(redis);
    let (said, code) = doctor(1000, &["--connections", "100", "--redis", &url]);
    assert_eq!((code, &check(&said, "redis")["severity"]), (2, &Value::from("fatal")));
}

#[test]
fn the_servers_that_the_doctor_finds_are_named_with_their_versions() {
    let (redis, database) = (Redis::start(), Database::create());
    let store = format!("store.url={}", database.url());
    let (said, _) = doctor(1000, &["--connections", "100", "--redis", &redis.url(), "--set", &store]);
    let current = |id: &str| check(&said, id)["current"].as_str().unwrap().to_owned();
    let info = redis.command(&["INFO", "server"]).unwrap();
    let line = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
    let expected = match line("valkey_version:") {
        Some(version) => format!("Valkey {version}"),
        None => format!("Redis {}", line("redis_version:").unwrap()),
    };
    assert_eq!(current("redis"), expected);
    let version = &database.rows::<String>("SELECT VERSION()")[0];
    let name = if version.contains("MariaDB") { "MariaDB" } else { "MySQL" };
    assert_eq!(current("mysql"), format!("{name} {}", version.split('-').next().unwrap()));
    assert_eq!(check(&said, "mysql.read_only")["verdict"], "good");
}

/// Runs `ringway` where the kernel refuses one system call. The filter goes with the thread, and its child inherits it.
fn run_without(call: i64, data_dir: &Path, arguments: &[&str]) -> Output {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
    let run = || {
        let refused = SeccompAction::Errno(nix::errno::Errno::EPERM as u32);
        let arch = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new([(call, Vec::new())].into(), SeccompAction::Allow, refused, arch).unwrap();
        apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
        command.args(arguments).arg("--data-dir").arg(data_dir);
        command.env("RINGWAY_AUTH_HS256_SECRET", crate::gateway::SECRET).output().unwrap()
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap())
}

#[test]
fn io_uring_that_a_filter_refuses_is_named_with_what_helps_and_aborts_nothing() {
    let calls = [
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("io_uring_register", libc::SYS_io_uring_register),
        ("io_uring_enter", libc::SYS_io_uring_enter),
    ];
    for (name, call) in calls {
        let dir = tempfile::tempdir().unwrap();
        let serve = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        let refused = run_without(call, dir.path(), &serve);
        let said = String::from_utf8(refused.stderr).unwrap() + &String::from_utf8(refused.stdout).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{name}: {said}");
        for words in [&format!("{name} is refused with EPERM"), "seccomp", "tuning/seccomp.json"] {
            assert!(said.contains(words), "{name}: expected {words:?} in {said}");
        }
        // Neither is in the way.
        for words in ["1000000", "descriptors", "newer kernel", "panicked"] {
            assert!(!said.contains(words), "{name}: {words:?} in {said}");
        }
        let examined = run_without(call, dir.path(), &["doctor", "--connections", "10", "--json"]);
        assert_eq!(examined.status.code(), Some(2), "{name}");
        let said: Value = serde_json::from_slice(&examined.stdout).unwrap();
        assert_eq!(check(&said, "io_uring")["current"], format!("{name} is refused with EPERM"));
    }
}

#[test]
fn a_gateway_makes_no_call_that_the_shipped_profile_refuses() {
    let text = include_str!("../../tuning/seccomp.json");
    let profile: Value = serde_json::from_str(text).unwrap();
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let rules = profile["syscalls"].as_array().unwrap();
    // Those that need a capability do not count: the gateway needs none.
    let rules = rules.iter().filter(|rule| rule["includes"]["caps"].is_null());
    let allowed: std::collections::HashSet<&str> =
        rules.flat_map(|rule| rule["names"].as_array().unwrap()).map(|name| name.as_str().unwrap()).collect();
    for dangerous in ["mount", "bpf", "ptrace", "init_module", "keyctl", "add_key", "userfaultfd", "kexec_load"] {
        assert!(!allowed.contains(dangerous), "{dangerous}");
    }

    let dir = tempfile::tempdir().unwrap();
    let calls = dir.path().join("calls");
    let options = ["-f", "-c", "-S", "name", "-U", "name", "-o", calls.to_str().unwrap()];
    let mut command = Gateway::command_under("strace", &options, dir.path(), &["--shards", "2"]);
    let mut gateway = Gateway::spawn(dir.path(), &mut command);
    drop(gateway.client(1, 1, None));
    drop(gateway.client(2, 1, None));
    assert!(gateway.admin_page("/metrics").contains("ringway_logins_total"));
    for child in gateway.children() {
        crate::gateway::signal(child, nix::sys::signal::Signal::SIGTERM).unwrap();
    }
    gateway.wait();
    let made = std::fs::read_to_string(&calls).unwrap();
    let made: Vec<&str> = made
        .lines()
        .map(str::trim)
        .filter(|line| line.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        .collect();
    assert!(made.contains(&"io_uring_enter") && made.len() > 30, "{made:?}");
    for call in made.iter().filter(|call| !["syscall", "total", ""].contains(*call)) {
        assert!(allowed.contains(call), "{call} is refused");
    }
}
