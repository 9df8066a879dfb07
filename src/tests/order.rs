//! The order of system calls: no `SendOk` and no Push leaves before the `fdatasync` that covers it.
//!
//! A killed process does not lose what the kernel holds, so killing cannot show this; strace can. It needs strace
//! (scripts/setup.sh installs it) and fails without it.

use std::collections::BTreeMap;

use nix::sys::signal::Signal;
use ringway_client::Event;
use ringway_wire::ids::{Conversation, Seq, UserId};

use crate::gateway::{Gateway, PATIENCE, signal};

const MESSAGES: usize = 40;

#[test]
fn no_ack_and_no_push_leaves_before_the_fdatasync_that_covers_it() {
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    let calls = "trace=fdatasync,fsync,pwrite64,pwritev,sendto,sendmsg,writev";
    let options = ["-f", "-s", "4096", "-e", calls, "-o", trace.to_str().unwrap()];
    let mut command = Gateway::command_under("strace", &options, dir.path(), &["--shards", "1"]);
    let mut gateway = Gateway::spawn(dir.path(), &mut command);

    let mut sender = gateway.client(1, 1, Some(Seq(0)));
    let mut other = gateway.client(2, 1, Some(Seq(0)));
    let (group, _) = sender.group_create(&[UserId(2)], PATIENCE).unwrap();
    for at in 0..MESSAGES {
        let to = if at % 2 == 0 { Conversation::Group(group) } else { Conversation::User(UserId(2)) };
        let request = sender.send(to, sender.new_client_msg_id(), marker(at).as_bytes()).unwrap();
        // One at a time, so that the next reply on this socket is this message's SendOk.
        assert!(matches!(sender.answer(request, PATIENCE).unwrap(), Event::Sent { .. }));
        loop {
            match other.next(PATIENCE).unwrap().expect("the row arrives") {
                Event::Row(row) => {
                    assert_eq!(row.body, marker(at).as_bytes());
                    break;
                }
                Event::GroupChanged { .. } => {}
                said => panic!("{said:?}"),
            }
        }
    }
    drop((sender, other));
    // strace passes the signal on to the gateway by detaching; end the gateway itself.
    let children = gateway.children();
    assert_eq!(children.len(), 1);
    signal(children[0], Signal::SIGTERM).unwrap();
    assert!(gateway.wait().success());
    check(&std::fs::read_to_string(&trace).unwrap());
}

fn marker(at: usize) -> String {
    format!("<message number {at:04}>")
}

/// One system call that has ended, in the order of ending; `unfinished` ones are joined with their end.
struct Call {
    name: String,
    fd: u32,
    text: String,
}

fn check(trace: &str) {
    let calls = parse(trace);
    // The store writes the same bytes to its own files later; the first to have them is the journal.
    let journal = calls.iter().find(|call| is_write(call) && call.text.contains(&marker(0))).expect("it is written").fd;
    for at in 0..MESSAGES {
        let marker = marker(at);
        let position = |from: usize, wanted: &dyn Fn(&Call) -> bool| {
            calls.iter().skip(from).position(wanted).map(|found| from + found)
        };
        let written = position(0, &|call| call.fd == journal && is_write(call) && call.text.contains(&marker))
            .expect("the message is written to the journal");
        let synced = position(written, &|call| is_sync(call, journal)).expect("the journal is synced");
        let pushed = position(0, &|call| is_send(call) && call.text.contains(&marker)).expect("the message is pushed");
        assert!(synced < pushed, "message {at} was pushed (call {pushed}) before it was durable (call {synced})");
    }
    // Each message makes exactly one more sync and one more reply to the sender before the next is sent, so
    // the n-th SendOk stands after the n-th marked sync: between two marked writes there are both.
    let mut sends_since_write: Option<usize> = None;
    let mut synced = false;
    for call in &calls {
        if call.fd == journal && is_write(call) && call.text.contains("<message number") {
            sends_since_write = Some(0);
            synced = false;
        } else if is_sync(call, journal) && sends_since_write.is_some() {
            synced = true;
        } else if is_send(call)
            && let Some(sends) = sends_since_write.as_mut()
        {
            assert!(synced, "something was sent between a message's write and its fdatasync: {}", call.text);
            *sends += 1;
        }
    }
}

fn is_write(call: &Call) -> bool {
    call.name.starts_with("pwrite")
}

fn is_sync(call: &Call, fd: u32) -> bool {
    call.name == "fdatasync" && call.fd == fd && call.text.ends_with("= 0")
}

fn is_send(call: &Call) -> bool {
    matches!(call.name.as_str(), "sendto" | "sendmsg" | "writev")
}

fn parse(trace: &str) -> Vec<Call> {
    let mut begun: BTreeMap<&str, String> = BTreeMap::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let whole = if let Some(start) = rest.strip_suffix("<unfinished ...>") {
            // A send counts from its beginning, everything else from its end.
            if ["sendto", "sendmsg", "writev"].iter().any(|name| start.starts_with(name)) {
                calls.extend(call(start));
            }
            begun.insert(thread, start.to_owned());
            continue;
        } else if let Some((_, end)) = rest.split_once("resumed>") {
            let Some(start) = begun.remove(thread) else { continue };
            if ["sendto", "sendmsg", "writev"].iter().any(|name| start.starts_with(name)) {
                continue;
            }
            format!("{start}{end}")
        } else {
            rest.to_owned()
        };
        calls.extend(call(&whole));
    }
    calls
}

fn call(text: &str) -> Option<Call> {
    let (name, arguments) = text.split_once('(')?;
    let fd = arguments.split([',', ')']).next()?.trim().parse().ok()?;
    Some(Call { name: name.to_owned(), fd, text: text.trim_end().to_owned() })
}
