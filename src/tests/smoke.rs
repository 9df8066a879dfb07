//! The real binary, started, talked to and stopped: the shortest way through everything.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use ringway::ids::{Conversation, DeviceId, UserId};
use ringway::load::client::{Client, Said};
use ringway::wire::generated::ringway::wire::CloseReason;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

struct Gateway {
    child: Child,
    dir: TempDir,
}

impl Gateway {
    fn start(args: &[&str]) -> Gateway {
        let dir = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = serve(dir.path(), args).stderr(log).spawn().unwrap();
        let gateway = Gateway { child, dir };
        gateway.address("listen");
        gateway
    }

    /// Waits until the gateway says where it listens.
    fn address(&self, name: &str) -> SocketAddr {
        let file = self.dir.path().join(name);
        for _ in 0..2_000 {
            if let Ok(text) = std::fs::read_to_string(&file) {
                return text.trim().parse().unwrap();
            }
            pause();
        }
        panic!("the gateway did not publish {}", file.display());
    }

    fn token(&self, user: u64) -> String {
        let output = ringway(&["token", "--user", &user.to_string(), "--data-dir", path(self.dir.path())]);
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn login(&self, user: u64) -> Client {
        let mut client = Client::connect(self.address("listen"), PATIENCE).unwrap();
        let info = client.login(&self.token(user), DeviceId(1), None, PATIENCE).unwrap();
        assert_eq!(info.user, UserId(user));
        client
    }

    fn get(&self, target: &str) -> String {
        let mut stream = TcpStream::connect(self.address("admin")).unwrap();
        write!(stream, "GET {target} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// SIGTERM; returns the exit code.
    fn stop(&mut self) -> Option<i32> {
        self.terminate();
        self.child.wait().unwrap().code()
    }

    fn terminate(&self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn serve(data_dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    let ports = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    command.arg("serve").args(ports).args(["--data-dir", path(data_dir)]).args(args).stdin(Stdio::null());
    command
}

fn ringway(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringway")).args(args).output().unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "between two looks at a file that another process writes")]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

fn body_of(client: &mut Client) -> String {
    loop {
        match client.next(PATIENCE).unwrap().expect("a row in time") {
            Said::Row(row) => return String::from_utf8(row.body).unwrap(),
            Said::GroupChanged { .. } => {}
            other => panic!("expected a row, heard {other:?}"),
        }
    }
}

fn send(client: &mut Client, to: Conversation, body: &str) {
    let id = client.new_client_msg_id();
    let request = client.send(to, id, body.as_bytes(), false).unwrap();
    match client.answer(request, PATIENCE).unwrap() {
        Said::Sent { repeat, .. } => assert!(!repeat),
        other => panic!("expected SendOk, heard {other:?}"),
    }
}

fn users_talk_and_a_stop_is_clean(shards: &str) {
    let mut gateway = Gateway::start(&["--shards", shards, "--set", "drain.spread_s=3"]);
    // With two shards these users live on both.
    let mut clients: Vec<(u64, Client)> = (1..=6).map(|user| (user, gateway.login(user))).collect();
    let users: Vec<UserId> = clients.iter().map(|(user, _)| UserId(*user)).collect();
    let homes: std::collections::HashSet<_> = users.iter().map(|u| u.home(shards.parse().unwrap())).collect();
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

    assert!(gateway.get("/healthz").starts_with("HTTP/1.1 200"));
    assert!(gateway.get("/readyz").starts_with("HTTP/1.1 200"));

    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    for (user, client) in &mut clients {
        match client.next(PATIENCE).unwrap() {
            Some(Said::Closing { reason, reconnect, reconnect_after_ms, .. }) => {
                assert_eq!((reason, reconnect), (CloseReason::Draining, true));
                assert!(reconnect_after_ms <= 3_000, "{reconnect_after_ms}");
            }
            other => panic!("user {user}: expected Closing, heard {other:?}"),
        }
    }
    let verified = ringway(&["journal", "verify", path(gateway.dir.path())]);
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
fn what_was_acknowledged_is_there_after_a_restart() {
    let mut gateway = Gateway::start(&["--shards", "2"]);
    let mut sender = gateway.login(1);
    send(&mut sender, Conversation::User(UserId(2)), "before");
    gateway.child.kill().unwrap();
    gateway.child.wait().unwrap();
    // The killed one left it; what it listened on may still be closing.
    std::fs::remove_file(gateway.dir.path().join("listen")).unwrap();
    gateway.child = serve(gateway.dir.path(), &["--shards", "1"]).stderr(Stdio::null()).spawn().unwrap();
    let mut recipient = gateway.login(2);
    assert_eq!(body_of(&mut recipient), "before");
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
}

#[test]
fn a_killed_gateway_can_be_started_again_on_its_port_at_once() {
    let mut gateway = Gateway::start(&["--shards", "2"]);
    let clients: Vec<Client> = (1..20).map(|user| gateway.login(user)).collect();
    let listen = gateway.address("listen").to_string();
    gateway.child.kill().unwrap();
    gateway.child.wait().unwrap();
    std::fs::remove_file(gateway.dir.path().join("listen")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.args(["serve", "--listen", &listen, "--admin", "127.0.0.1:0", "--data-dir", path(gateway.dir.path())]);
    gateway.child = command.stderr(Stdio::null()).spawn().unwrap();
    assert_eq!(gateway.address("listen").to_string(), listen);
    gateway.login(1);
    drop(clients);
}

#[test]
fn a_stop_that_takes_too_long_gives_up_and_says_what_was_left() {
    // A client that does not close its side is given a second to: more than the whole stop may take here.
    let mut gateway = Gateway::start(&["--shards", "1", "--set", "drain.timeout_s=0"]);
    let client = gateway.login(1);
    assert_eq!(gateway.stop(), Some(1));
    let log = gateway.log();
    assert!(log.contains("drain.timeout_s is over") && log.contains("shard-0"), "{log}");
    drop(client);
}

#[test]
fn a_second_signal_ends_the_stop_at_once() {
    let mut gateway = Gateway::start(&["--shards", "1"]);
    let client = gateway.login(1);
    gateway.terminate();
    // Not before the first has been heard: two that are pending count as one.
    while gateway.get("/readyz").starts_with("HTTP/1.1 200") {
        pause();
    }
    assert!(gateway.get("/readyz").contains("draining"));
    assert_eq!(gateway.stop(), Some(1));
    assert!(gateway.log().contains("a second signal"), "{}", gateway.log());
    drop(client);
}

#[test]
fn metrics_count_what_happened() {
    let gateway = Gateway::start(&["--shards", "1"]);
    let mut sender = gateway.login(1);
    send(&mut sender, Conversation::User(UserId(1)), "to myself");
    let counted = |text: &str| {
        ["ringway_logins_total{shard=\"0\"} 1", "ringway_ledger_messages_total 1", "ringway_store_rows_total 1"]
            .iter()
            .all(|line| text.lines().any(|l| l == *line))
    };
    // Counters come once a second.
    let mut text = String::new();
    for _ in 0..1_000 {
        text = gateway.get("/metrics");
        if counted(&text) {
            return;
        }
        pause();
    }
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#') && !line.ends_with(" 0")).collect();
    panic!("not counted: {lines:#?}");
}

#[test]
fn what_cannot_start_says_why_and_exits_with_an_error() {
    let gateway = Gateway::start(&["--shards", "1"]);
    let check = |command: &mut Command, expected: &str| {
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{error}");
        assert!(error.contains(expected), "expected {expected:?} in {error}");
    };
    check(&mut serve(gateway.dir.path(), &[]), "another gateway already runs on the data directory");
    let other = tempfile::tempdir().unwrap();
    let taken = gateway.address("listen").to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    check(command.args(["serve", "--listen", &taken, "--data-dir", path(other.path())]), "is in use");
    let admin = gateway.address("admin").to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    let args = ["serve", "--listen", "127.0.0.1:0", "--admin", &admin, "--data-dir", path(other.path())];
    check(command.args(args), "set --admin");
    check(&mut serve(other.path(), &["--set", "listn=1"]), "did you mean `listen`?");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    check(command.args(["serve", "--listen", "0.0.0.0:0", "--data-dir", path(other.path())]), "set auth.hs256_secret");
    std::fs::write(other.path().join("file"), "").unwrap();
    check(&mut serve(&other.path().join("file"), &[]), "cannot be written");
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
