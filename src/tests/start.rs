//! What a start refuses, in words that say what to do; and a full disk, which a running gateway survives.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use ringway_client::Event;
use ringway_wire::ids::{Conversation, Seq, UserId};
use ringway_wire::schema::ErrorCode;

use crate::connection::Connection;
use crate::gateway::{Gateway, PATIENCE, UNLIMITED, address, signal};

/// Runs `serve`, which must refuse, and returns what it said.
fn refusal(data_dir: &Path, arguments: &[&str]) -> String {
    refusal_on("127.0.0.1:0", "127.0.0.1:0", data_dir, arguments)
}

fn refusal_on(listen: &str, admin: &str, data_dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_ringway"))
        .args(["serve", "--listen", listen, "--admin", admin, "--data-dir"])
        .arg(data_dir)
        .args(arguments)
        .env("RINGWAY_AUTH_HS256_SECRET", crate::gateway::SECRET)
        .output()
        .unwrap();
    assert!(!output.status.success(), "this must not start");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.to_lowercase().contains(&word.to_lowercase()), "expected {word:?} in:\n{text}");
    }
}

#[test]
fn a_second_gateway_on_the_same_data_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &[]);
    says(
        &refusal(dir.path(), &[]),
        &["another gateway already runs on the data directory", dir.path().to_str().unwrap()],
    );
    drop(gateway.client(1, 1, None));
}

#[test]
fn a_port_in_use_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    says(&refusal_on(&addr, "127.0.0.1:0", dir.path(), &[]), &["in use", &addr]);
    says(&refusal_on("127.0.0.1:0", &addr, dir.path(), &[]), &["in use", &addr, "set --admin"]);
}

#[test]
fn a_data_directory_that_cannot_be_written_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a-file");
    std::fs::write(&file, "not a directory").unwrap();
    let data_dir = file.join("data");
    says(&refusal(&data_dir, &[]), &["cannot be written", data_dir.to_str().unwrap()]);
}

#[test]
fn an_address_that_others_can_reach_needs_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ringway"))
        .args(["serve", "--listen", "0.0.0.0:0", "--admin", "127.0.0.1:0", "--data-dir"])
        .arg(dir.path())
        .env_remove("RINGWAY_AUTH_HS256_SECRET")
        .output()
        .unwrap();
    assert!(!output.status.success());
    says(
        &String::from_utf8_lossy(&output.stderr),
        &["set auth.hs256_secret", "auth.public_key_file", "auth.jwks_file"],
    );
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_known_one() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("ringway.toml");
    std::fs::write(&config, "[session]\nheartbeat_seconds = 3\n").unwrap();
    let said = refusal(dir.path(), &["--config", config.to_str().unwrap()]);
    says(&said, &["heartbeat_seconds", "did you mean `session.heartbeat_s`?"]);
    says(&refusal(dir.path(), &["--set", "listn=1"]), &["did you mean `listen`?"]);
}

#[test]
fn a_corrupt_journal_is_refused_with_file_and_offset_and_a_torn_tail_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &[]);
    let mut client = gateway.client(1, 1, None);
    for at in 0..20 {
        let body = format!("message {at} that stays on disk");
        let id = client.new_client_msg_id();
        let request = client.send(Conversation::User(UserId(2)), id, body.as_bytes()).unwrap();
        assert!(matches!(client.answer(request, PATIENCE).unwrap(), Event::Sent { .. }));
    }
    gateway.kill();
    let segment = first_segment(dir.path());
    let mut bytes = Vec::new();
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open(&segment).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    let offset_of = |text: &str| bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap() as u64;

    // The last message's batch is torn: as if it had never been synced. That is no reason to refuse.
    flip(&mut file, offset_of("message 19 that"));
    let gateway = Gateway::start(dir.path(), &[]);
    drop(gateway.client(1, 1, None));
    gateway.kill();

    // A batch with valid ones behind it is another thing: those were acked.
    flip(&mut file, offset_of("message 5 that"));
    let said = refusal(dir.path(), &[]);
    says(&said, &[segment.file_name().unwrap().to_str().unwrap(), "at byte"]);
    let verify =
        Command::new(env!("CARGO_BIN_EXE_ringway")).args(["journal", "verify"]).arg(dir.path()).output().unwrap();
    assert!(!verify.status.success(), "verify finds it too");
}

fn flip(file: &mut std::fs::File, offset: u64) {
    let mut byte = [0];
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(&[byte[0] ^ 0xff]).unwrap();
}

fn first_segment(data_dir: &Path) -> PathBuf {
    let mut segments: Vec<PathBuf> =
        std::fs::read_dir(data_dir.join("journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|ext| ext == "seg"));
    segments.sort();
    segments.swap_remove(0)
}

#[test]
fn a_full_disk_refuses_messages_and_recovers_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("journal");
    std::fs::create_dir(&journal).unwrap();
    // The journal on a file system of its own, in a mount namespace that goes with the process.
    let script =
        "mount -t tmpfs -o size=300m ringway-test \"$0\" && head -c 150m /dev/zero > \"$0/ballast\" && exec \"$@\"";
    let options = ["--user", "--map-root-user", "--mount", "sh", "-c", script, journal.to_str().unwrap()];
    let mut command = Gateway::command_under("unshare", &options, dir.path(), &["--shards", "1"]);
    let gateway = Gateway::spawn(dir.path(), command.envs(UNLIMITED));
    assert!(address(dir.path(), "listen").is_some());
    let mut client = gateway.client(1, 1, None);
    let body = vec![b'x'; 16_000];

    let mut sent = 0;
    while send(&mut client, &body) == Sent::Stored {
        sent += 1;
        assert!(sent < 40_000, "300 MiB are never full");
    }
    println!("full after {sent} messages");
    // The session goes on, and so does what needs no disk.
    let request = client.ping().unwrap();
    assert!(matches!(client.answer(request, PATIENCE).unwrap(), Event::Pong { .. }));
    assert_eq!(send(&mut client, &body), Sent::Full);
    let mut gateway = gateway;
    gateway.wait_until("it is not called ready", |gateway| {
        let readyz = gateway.admin_page("/readyz");
        readyz.contains("503") && readyz.contains("STORAGE_FULL")
    });
    let metrics = gateway.admin_page("/metrics");
    assert!(metrics.contains("\nringway_journal_full 1\n"), "{metrics}");
    let free = metrics.lines().find_map(|line| line.strip_prefix("ringway_journal_disk_free_bytes ")).unwrap();
    assert!(free.parse::<u64>().unwrap() < 64 << 20, "{free}");

    let inside = PathBuf::from(format!("/proc/{}/root", gateway.pid())).join(journal.strip_prefix("/").unwrap());
    std::fs::remove_file(inside.join("ballast")).unwrap();
    gateway.wait_until("messages are taken again", |_| send(&mut client, &body) == Sent::Stored);
    let newest = client.session().unwrap().last_seq.0;
    let mut reader = gateway.client(1, 2, None);
    // All that was acked is there, and no number was lost to a refusal.
    let mut after = ringway_wire::ids::Seq(newest);
    let mut rows = 0;
    loop {
        let Event::Page { rows: page, through, end, .. } = reader.sync(after, 256, PATIENCE).unwrap() else { panic!() };
        for row in &page {
            rows += 1;
            assert_eq!(row.seq.0, newest + rows);
        }
        after = through;
        if end {
            break;
        }
    }
    assert_eq!(rows, sent + 1);
}

#[derive(PartialEq, Eq, Debug)]
enum Sent {
    Stored,
    Full,
}

fn send(client: &mut Connection, body: &[u8]) -> Sent {
    let id = client.new_client_msg_id();
    let request = client.send(Conversation::User(UserId(2)), id, body).unwrap();
    match client.answer(request, PATIENCE).unwrap() {
        Event::Sent { .. } => Sent::Stored,
        Event::Refused { code: ErrorCode::StorageFull, retry_after_ms, .. } => {
            assert!(retry_after_ms > 0);
            Sent::Full
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_gateway_that_is_started_on_a_full_disk_serves_what_is_stored_and_stores_more_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    std::fs::create_dir(&store).unwrap();
    // The store on a file system of its own, in a mount namespace that goes with the process, which starts two gateways.
    let script = "mount -t tmpfs -o size=8m ringway-test \"$0\" && \"$@\" && head -c 16m /dev/zero > \"$0/ballast\"; exec \"$@\"";
    let options = ["--user", "--map-root-user", "--mount", "sh", "-c", script, store.to_str().unwrap()];
    let url = format!("store.url=sqlite:{}/store.sqlite", store.display());
    let mut command = Gateway::command_under("unshare", &options, dir.path(), &["--shards", "1", "--set", &url]);
    let mut gateway = Gateway::spawn(dir.path(), &mut command);
    let mut client = gateway.client(1, 1, None);
    assert_eq!(send(&mut client, b"before"), Sent::Stored);
    // The shell and the first gateway: that one stops, cleanly, and leaves neither log nor index.
    let first = gateway.children();
    let [first] = first.as_slice() else { panic!("{first:?}") };
    signal(*first, Signal::SIGTERM).unwrap();
    gateway.wait_until("the first gateway is gone", |gateway| !gateway.children().contains(first));
    gateway.wait_until("the second one listens", |gateway| {
        assert!(!gateway.has_ended(), "{}", gateway.log());
        address(dir.path(), "listen").is_some()
    });
    assert!(gateway.log().contains("the disk is full"), "{}", gateway.log());
    let mut reader = gateway.client(1, 2, Some(Seq(0)));
    match reader.next(PATIENCE).unwrap() {
        Some(Event::Row(row)) => assert_eq!(row.body, b"before"),
        other => panic!("{other:?}"),
    }
    // What comes meanwhile is in the journal, and in the store when there is room.
    assert_eq!(send(&mut reader, b"meanwhile"), Sent::Stored);
    gateway.wait_until("the store cannot be written", |gateway| gateway.admin_page("/readyz").contains("degraded"));
    let inside = PathBuf::from(format!("/proc/{}/root", gateway.pid())).join(store.strip_prefix("/").unwrap());
    std::fs::remove_file(inside.join("ballast")).unwrap();
    gateway.wait_until("everything is stored", |gateway| !gateway.admin_page("/readyz").contains("degraded"));
}
