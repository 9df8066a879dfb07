//! The client crate against a real gateway: its example, and its clients over a stop of the gateway.

use std::process::Command;
use std::time::Duration;

use ringway_client::{Conversation, DeviceId, Event, Seq, UserId, blocking, tokio as asynchronous};

use crate::gateway::{Gateway, PATIENCE, token};

#[allow(unreachable_pub, reason = "a program of its own elsewhere")]
#[path = "../client/examples/hello.rs"]
mod hello;

/// The example's `main`, in a process of its own: [`the_readmes_program_says_hello`] runs it.
#[test]
#[ignore = "it is the program that another test runs"]
fn main_of_hello() {
    hello::main().unwrap();
}

#[test]
fn the_readmes_program_says_hello() {
    let readme = include_str!("../client/README.md");
    let program = include_str!("../client/examples/hello.rs");
    assert!(readme.contains(&format!("```rust\n{program}```")), "the README shows another program");
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &[]);
    let said = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "example::main_of_hello", "--ignored", "--nocapture"])
        .env("RINGWAY", gateway.addr().to_string())
        .env("TOKEN", token(1, 1))
        .output()
        .unwrap();
    assert!(said.status.success(), "{said:?}");
    let mut two = gateway.client(2, 1, Some(Seq(0)));
    assert!(matches!(two.next(PATIENCE).unwrap(), Some(Event::Row(row)) if row.body == b"hello"));
    // What others say is printed.
    let mut client = blocking::Client::connect(gateway.addr().to_string(), token(3, 1), DeviceId(1), None).unwrap();
    let greeting = client.send(Conversation::User(UserId(1)), b"hello yourself").unwrap();
    client.wait_sent(greeting, PATIENCE).unwrap();
    let said = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "example::main_of_hello", "--ignored", "--nocapture"])
        .env("RINGWAY", gateway.addr().to_string())
        .env("TOKEN", token(1, 1))
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&said.stdout);
    assert!(printed.contains("from user 3: hello yourself"), "{printed}");
}

/// What a reader of user 2's inbox has seen of `count` messages: their bodies, in the order of their rows.
fn read(client: &mut blocking::Client, count: usize) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    while bodies.len() < count {
        match client.next(PATIENCE).unwrap().expect("a message in time") {
            Event::Row(row) => bodies.push(row.body),
            Event::LoggedIn(_) | Event::Disconnected { .. } => {}
            other => panic!("nobody asked for {other:?}"),
        }
    }
    bodies
}

#[test]
fn both_clients_come_back_after_a_kill_and_nothing_is_lost_or_stored_twice() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &[]);
    let address = gateway.addr().to_string();
    let mut reader = blocking::Client::connect(address.clone(), token(2, 1), DeviceId(1), Some(Seq(0))).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bodies: Vec<Vec<u8>> = (0..200).map(|n| format!("message {n}").into_bytes()).collect();
    runtime.block_on(async {
        let mut writer =
            asynchronous::Client::connect(address.clone(), token(1, 1), DeviceId(1), Some(Seq(0))).await.unwrap();
        for body in &bodies[..100] {
            writer.send(Conversation::User(UserId(2)), body).unwrap();
        }
        assert!(matches!(writer.next().await.unwrap(), Event::LoggedIn(_)));
        assert!(matches!(writer.next().await.unwrap(), Event::Sent { .. }));
        // Most of them have no answer yet.
        gateway.kill();
        for body in &bodies[100..] {
            writer.send(Conversation::User(UserId(2)), body).unwrap();
        }
        let _gateway = Gateway::spawn(dir.path(), &mut Gateway::command_on(&address, dir.path(), &[]));
        while writer.unanswered() > 0 {
            tokio::time::timeout(PATIENCE, writer.next()).await.expect("an answer in time").unwrap();
        }
        assert_eq!(writer.cursor(), Seq(200), "each is one row of its sender's too");
        assert_eq!(read(&mut reader, bodies.len()), bodies);
        assert_eq!(reader.next(Duration::from_millis(100)).unwrap(), None);
    });
}
