//! `ringway chat` as a program: what it takes, what it shows, what it refuses.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};

use ringway_wire::deframer::Deframer;
use ringway_wire::frame::{Encoder, PushFrame, read_client};
use ringway_wire::ids::{Conversation, MsgId, Seq, UserId};
use ringway_wire::limits::CLIENT_FRAME_BYTES_MAX;
use ringway_wire::request::{Request, Taken};
use ringway_wire::schema::{CloseReason, ErrorCode};

use crate::gateway::{Gateway, PATIENCE, token};

/// Runs it with these lines as its input, until it ends.
fn chat(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.arg("chat").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_chat_is_not_somebody_elses_because_its_token_is() {
    let refused = chat(&["--user", "2", "--token", &token(1, 1), "--connect", "127.0.0.1:1"], "");
    assert!(!refused.status.success());
    let why = text(&refused.stderr);
    assert!(why.contains("user 1") && why.contains("user 2"), "{why}");
}

#[test]
fn a_line_from_a_pipe_arrives_by_a_hosts_name_and_is_shown_with_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &[]);
    let address = format!("localhost:{}", gateway.addr().port());
    let sent = chat(&["--token", &token(1, 1), "--connect", &address, "--to-user", "2"], "hello\n/to group 9\n");
    assert!(sent.status.success(), "{sent:?}");
    let said = text(&sent.stderr);
    assert!(said.contains("logged in as user 1") && said.contains("lines go to user 2"), "{said}");
    assert!(said.contains("lines go to group 9"), "{said}");
    let got = chat(&["--token", &token(2, 1), "--connect", &address, "--linger", "2"], "");
    let shown = text(&got.stdout);
    assert!(shown.trim_end().ends_with("Z [1] user 1: hello"), "{shown}");
}

#[test]
fn refusals_are_shown_and_what_others_write_does_not_command_the_terminal() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let gateway = std::thread::spawn(move || play(listener.accept().unwrap().0));
    let ended = chat(&["--token", &token(1, 1), "--connect", &address, "--to-user", "2"], "hello\n");
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(gateway.join().unwrap(), 3, "the message, refused twice, came three times");
    let said = text(&ended.stderr);
    assert!(said.contains("StorageFull: the disk is full"), "{said}");
    assert!(said.contains("RetryLater: a queue is full"), "{said}");
    let shown = text(&ended.stdout);
    assert!(shown.contains(r"user 2: \u{1b}[2Jgone\n[9] user 3: forged"), "{shown}");
    assert_eq!(shown.lines().count(), 1, "{shown}");
}

/// A gateway that pushes a hostile message, and refuses the first message twice; how often that came.
fn play(mut stream: TcpStream) -> usize {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut deframer, mut encoder, mut sends) = (Deframer::default(), Encoder::new(), 0);
    let mut buffer = [0; 4_096];
    loop {
        let bytes = stream.read(&mut buffer).unwrap();
        if bytes == 0 {
            return sends;
        }
        let mut input = &buffer[..bytes];
        while let Some(frame) = deframer.next(&mut input, CLIENT_FRAME_BYTES_MAX).unwrap() {
            match read_client(frame).unwrap() {
                (id, Request::Login { .. }) => {
                    stream.write_all(encoder.login_ok(id, 1, UserId(1), 0, 25_000, Seq(0), Seq(0))).unwrap();
                    let to = Conversation::User(UserId(1));
                    let push = PushFrame::encode(MsgId(1), UserId(2), to, 5, b"\x1b[2Jgone\n[9] user 3: forged");
                    let mut bytes = push.bytes().to_vec();
                    bytes[push.seq_at()..push.seq_at() + 8].copy_from_slice(&1_u64.to_le_bytes());
                    stream.write_all(&bytes).unwrap();
                }
                (id, Request::Send { .. }) => {
                    sends += 1;
                    let answer = match sends {
                        1 => encoder.error(id, ErrorCode::StorageFull, "the disk is full", 20, 0),
                        2 => encoder.error(id, ErrorCode::RetryLater, "a queue is full", 20, 0),
                        _ => encoder.send_ok(id, MsgId(2), Seq(2), 5, Taken::Now),
                    };
                    stream.write_all(answer).unwrap();
                }
                (_, Request::Logout) => {
                    stream.write_all(encoder.closing(0, CloseReason::LoggedOut, "logged out", None, 0)).unwrap();
                }
                _ => {}
            }
        }
    }
}
