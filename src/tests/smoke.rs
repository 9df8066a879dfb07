//! The real binary, started, talked to and stopped: the shortest way through everything.

use std::path::Path;
use std::process::{Command, Output};

use ringway::contract::ids::ShardId;
use ringway_client::Event;
use ringway_wire::ids::{Conversation, DeviceId, UserId};
use ringway_wire::schema::CloseReason;

use crate::connection::Connection;
use crate::gateway::{Gateway, PATIENCE};

fn ringway(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringway")).args(args).env_remove("RINGWAY_AUTH_HS256_SECRET").output().unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Logs in with a token that `ringway token` made with the secret in the data directory.
fn login(gateway: &Gateway, data_dir: &Path, user: u64) -> Connection {
    let output = ringway(&["token", "--user", &user.to_string(), "--data-dir", path(data_dir)]);
    assert!(output.status.success());
    let token = String::from_utf8(output.stdout).unwrap();
    let mut client = Connection::connect(gateway.addr(), PATIENCE).unwrap();
    let info = client.login(token.trim(), DeviceId(1), None, PATIENCE).unwrap();
    assert_eq!(info.user, UserId(user));
    client
}

/// SIGTERM; returns the exit code.
fn stop(gateway: &mut Gateway) -> Option<i32> {
    gateway.terminate();
    gateway.wait().code()
}

fn body_of(client: &mut Connection) -> String {
    loop {
        match client.next(PATIENCE).unwrap().expect("a row in time") {
            Event::Row(row) => return String::from_utf8(row.body).unwrap(),
            Event::GroupChanged { .. } => {}
            other => panic!("expected a row, heard {other:?}"),
        }
    }
}

fn send(client: &mut Connection, to: Conversation, body: &str) {
    let id = client.new_client_msg_id();
    let request = client.send(to, id, body.as_bytes()).unwrap();
    match client.answer(request, PATIENCE).unwrap() {
        Event::Sent { repeat, .. } => assert!(!repeat),
        other => panic!("expected SendOk, heard {other:?}"),
    }
}

fn users_talk_and_a_stop_is_clean(shards: &str) {
    let dir = tempfile::tempdir().unwrap();
    // Nobody gave this one a secret: it makes its own.
    let mut command = Gateway::command(dir.path(), &["--shards", shards, "--set", "drain.spread_s=3"]);
    let mut gateway = Gateway::spawn(dir.path(), command.env_remove("RINGWAY_AUTH_HS256_SECRET"));
    // With two shards these users live on both.
    let mut clients: Vec<(u64, Connection)> = (1..=6).map(|user| (user, login(&gateway, dir.path(), user))).collect();
    let users: Vec<UserId> = clients.iter().map(|(user, _)| UserId(*user)).collect();
    let homes: std::collections::HashSet<_> =
        users.iter().map(|u| ShardId::of_user(*u, shards.parse().unwrap())).collect();
    assert_eq!(homes.len().to_string(), shards, "the test's users must live on every shard");

    send(&mut clients[0].1, Conversation::User(UserId(2)), "to one");
    assert_eq!(body_of(&mut clients[1].1), "to one");

    let (group, _) = clients[0].1.group_create(&users, PATIENCE).unwrap();
    for (user, client) in &mut clients {
        send(client, Conversation::Group(group), &format!("from {user}"));
    }
    for (user, client) in &mut clients {
        let expected: Vec<String> = (1..=6).filter(|from| from != user).map(|from| format!("from {from}")).collect();
        let heard: Vec<String> = expected.iter().map(|_| body_of(client)).collect();
        assert_eq!(heard, expected, "user {user}");
    }

    assert!(gateway.admin_page("/healthz").starts_with("HTTP/1.1 200"));
    assert!(gateway.admin_page("/readyz").starts_with("HTTP/1.1 200"));

    assert_eq!(stop(&mut gateway), Some(0), "{}", gateway.log());
    for (user, client) in &mut clients {
        match client.next(PATIENCE).unwrap() {
            Some(Event::Closing { reason, reconnect_after_ms, .. }) => {
                assert_eq!(reason, CloseReason::Draining);
                assert!(reconnect_after_ms.is_some_and(|ms| ms <= 3_000), "{reconnect_after_ms:?}");
            }
            other => panic!("user {user}: expected Closing, heard {other:?}"),
        }
    }
    let verified = ringway(&["journal", "verify", path(dir.path())]);
    let report = String::from_utf8(verified.stdout).unwrap();
    assert!(verified.status.success() && report.contains("every batch is whole"), "{report}");
}

#[test]
fn users_talk_on_one_shard_and_a_stop_is_clean() {
    users_talk_and_a_stop_is_clean("1");
}

#[test]
fn users_talk_across_two_shards_and_a_stop_is_clean() {
    users_talk_and_a_stop_is_clean("2");
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill_and_a_start_with_fewer_shards() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "2"]);
    let mut sender = gateway.client(1, 1, None);
    send(&mut sender, Conversation::User(UserId(2)), "before");
    gateway.kill();
    let mut gateway = Gateway::start(dir.path(), &["--shards", "1"]);
    let mut recipient = gateway.client(2, 1, None);
    assert_eq!(body_of(&mut recipient), "before");
    assert_eq!(stop(&mut gateway), Some(0), "{}", gateway.log());
}

#[test]
fn a_killed_gateway_can_be_started_again_on_its_port_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "2"]);
    let clients: Vec<Connection> = (1..20).map(|user| gateway.client(user, 1, None)).collect();
    let listen = gateway.addr();
    gateway.kill();
    let mut again = Gateway::command_on(&listen.to_string(), dir.path(), &[]);
    let gateway = Gateway::spawn(dir.path(), &mut again);
    assert_eq!(gateway.addr(), listen);
    gateway.client(1, 1, None);
    drop(clients);
}

#[test]
fn a_signal_that_other_programs_read_their_settings_at_does_not_kill() {
    use nix::sys::signal::Signal::{SIGHUP, SIGUSR1, SIGUSR2};
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(dir.path(), &["--shards", "1"]);
    for signal in [SIGHUP, SIGUSR1, SIGUSR2] {
        crate::gateway::signal(gateway.pid(), signal).unwrap();
        gateway.wait_until("it says what the signal does", |gateway| {
            assert!(!gateway.has_ended(), "{signal} has killed it");
            gateway.log().contains(signal.as_str())
        });
    }
    drop(gateway.client(1, 1, None));
    assert_eq!(stop(&mut gateway), Some(0), "{}", gateway.log());
}

#[test]
fn limits_are_read_again_while_the_gateway_runs_and_what_cannot_be_used_changes_nothing() {
    use nix::sys::signal::Signal::SIGHUP;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ringway.toml");
    let write = |rate: &str| std::fs::write(&file, format!("[limits]\nuser_sends = \"{rate}\"\n")).unwrap();
    write("off");
    let mut gateway = Gateway::start(dir.path(), &["--shards", "2", "--config", file.to_str().unwrap()]);
    let mut client = gateway.client(1, 1, None);
    let taken = |client: &mut Connection| {
        let mut taken = 0;
        for _ in 0..10 {
            let name = client.new_client_msg_id();
            let sent = client.send(Conversation::User(UserId(2)), name, b"hello").unwrap();
            taken += usize::from(matches!(client.answer(sent, PATIENCE).unwrap(), Event::Sent { .. }));
        }
        taken
    };
    assert_eq!(taken(&mut client), 10);
    // Also while the ledger has nothing to do.
    for _ in 0..3 {
        let before = gateway.log().matches("say now").count();
        crate::gateway::signal(gateway.pid(), SIGHUP).unwrap();
        gateway.wait_until("the limits are read again", |gateway| gateway.log().matches("say now").count() > before);
    }
    for (rate, said, expected) in
        [("1/s, burst 0", "cannot be used", 10), ("1/s, burst 3", "as the settings say now", 3), ("off", "say now", 10)]
    {
        write(rate);
        let before = gateway.log().matches(said).count();
        crate::gateway::signal(gateway.pid(), SIGHUP).unwrap();
        gateway.wait_until("the limits are read again", |gateway| gateway.log().matches(said).count() > before);
        if expected == 3 {
            // A shard takes its orders before long, and then refuses.
            gateway.wait_until("the new limit holds", |_| taken(&mut client) < 10);
        } else {
            gateway.wait_until("no limit holds", |_| taken(&mut client) == 10);
        }
    }
    assert_eq!(stop(&mut gateway), Some(0), "{}", gateway.log());
}

#[test]
fn a_journal_that_was_zeroed_or_cut_off_by_hand_is_said_to_miss_something() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(dir.path(), &["--shards", "1"]);
    let mut client = gateway.client(1, 1, None);
    for _ in 0..10 {
        send(&mut client, Conversation::User(UserId(2)), &"long enough ".repeat(20));
    }
    drop(client);
    assert_eq!(stop(&mut gateway), Some(0), "{}", gateway.log());
    let verify = || {
        let output = ringway(&["journal", "verify", path(dir.path())]);
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    assert_eq!(verify().0, Some(0), "{}", verify().1);

    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().path();
    let segment = std::fs::read_dir(dir.path().join("journal")).unwrap().map(name).max().unwrap();
    let whole = std::fs::read(&segment).unwrap();
    let mut zeroed = whole.clone();
    zeroed[100..].fill(0);
    std::fs::write(&segment, &zeroed).unwrap();
    let (code, said) = verify();
    assert!(code == Some(1) && said.contains("its last batches are missing"), "{code:?} {said}");
    std::fs::write(&segment, &whole[..4096]).unwrap();
    let (code, said) = verify();
    assert!(code == Some(1) && said.contains("is missing"), "{code:?} {said}");
    let mut refused = Gateway::command(dir.path(), &["--shards", "1"]);
    assert!(!refused.status().unwrap().success(), "it does not start on a journal that is cut off");
    std::fs::write(&segment, &whole).unwrap();
    assert_eq!(verify().0, Some(0), "{}", verify().1);
}

#[test]
fn a_stop_that_takes_too_long_gives_up_and_says_what_was_left() {
    // A client that does not close its side is given a second to: more than the whole stop may take here.
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(dir.path(), &["--shards", "1", "--set", "drain.timeout_s=0"]);
    let client = gateway.client(1, 1, None);
    assert_eq!(stop(&mut gateway), Some(1));
    let log = gateway.log();
    assert!(log.contains("drain.timeout_s is over") && log.contains("shard-0"), "{log}");
    drop(client);
}

#[test]
fn a_second_signal_ends_the_stop_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(dir.path(), &["--shards", "1"]);
    let client = gateway.client(1, 1, None);
    gateway.terminate();
    // Not before the first has been heard: two that are pending count as one.
    // Said and asked once: the stop goes on meanwhile.
    gateway.wait_until("it is no longer ready, since it drains", |gateway| {
        let page = gateway.admin_page("/readyz");
        !page.starts_with("HTTP/1.1 200") && page.contains("draining")
    });
    assert_eq!(stop(&mut gateway), Some(1));
    assert!(gateway.log().contains("a second signal"), "{}", gateway.log());
    drop(client);
}

#[test]
fn metrics_count_what_happened() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(dir.path(), &["--shards", "1"]);
    let mut sender = gateway.client(1, 1, None);
    send(&mut sender, Conversation::User(UserId(1)), "to myself");
    let counted = |text: &str| {
        ["ringway_logins_total{shard=\"0\"} 1", "ringway_ledger_messages_total 1", "ringway_store_rows_total 1"]
            .iter()
            .all(|line| text.lines().any(|l| l == *line))
    };
    // Counters come once a second.
    gateway.wait_until("all is counted", |gateway| counted(&gateway.admin_page("/metrics")));
}

#[test]
fn the_configuration_in_force_is_printed_without_starting() {
    let output = Command::new(env!("CARGO_BIN_EXE_ringway"))
        .args(["serve", "--print-config", "--shards", "3"])
        .env("RINGWAY_AUTH_HS256_SECRET", "0123456789abcdef0123456789abcdef")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(text.contains("shards = \"3\"  # command line"), "{text}");
    assert!(!text.contains("0123456789abcdef"), "{text}");
}
