//! Greedy callers of the API are cut off, and nobody else notices.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::gateway::{Gateway, PATIENCE, UNLIMITED, address, pause};
use crate::http::api;

/// What the gateway's own side of a connection is as long as nobody has ended it (`/proc/net/tcp`).
const ESTABLISHED: &str = "01";

fn admin(dir: &Path) -> SocketAddr {
    address(dir, "admin").unwrap()
}

/// What the gateway's side of this connection is, if it still has one.
fn state(of: &TcpStream) -> Option<String> {
    let [near, far] =
        [of.peer_addr().unwrap().port(), of.local_addr().unwrap().port()].map(|port| format!(":{port:04X}"));
    let all = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut lines = all.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let found = lines.find(|fields| fields[1].ends_with(&near) && fields[2].ends_with(&far))?;
    Some(found[3].to_owned())
}

#[test]
fn who_takes_nothing_of_a_stream_is_cut_off_and_who_has_nothing_to_take_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Gateway::command(dir.path(), &[]);
    let _gateway = Gateway::spawn(dir.path(), command.envs(UNLIMITED));
    let mut http = api(dir.path());
    let text = "x".repeat(15_000);
    let posts: Vec<Value> = (0..200).map(|_| json!({"from": "7", "to": {"user": "8"}, "text": text})).collect();
    for _ in 0..10 {
        assert_eq!(http.send("POST", "/api/v1/messages", &json!(posts)).unwrap().status, 200);
    }
    let open = |query: &str| {
        let mut stream = TcpStream::connect(admin(dir.path())).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET /api/v1/users/8/stream{query} HTTP/1.0\r\n\r\n").unwrap();
        stream
    };
    let (mut stalled, mut quiet) = (open("?after=0"), open(""));
    let deadline = Instant::now() + 4 * PATIENCE;
    while state(&stalled).as_deref() == Some(ESTABLISHED) {
        assert!(Instant::now() < deadline, "who takes nothing is never cut off");
        pause(Duration::from_millis(50));
    }
    let mut taken = Vec::new();
    // What was on its way, and then the end, clean or not.
    stalled.read_to_end(&mut taken).ok();
    assert!(taken.len() < 30_000_000, "all of it was sent: {} bytes", taken.len());
    assert_eq!(state(&quiet).as_deref(), Some(ESTABLISHED), "who waits for rows stays");
    assert_eq!(http_post(&dir, "news"), 200);
    let mut seen = String::new();
    while !seen.contains("\"news\"") {
        let mut piece = [0; 4_096];
        let bytes = quiet.read(&mut piece).unwrap();
        assert!(bytes > 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&piece[..bytes]));
    }
}

fn http_post(dir: &tempfile::TempDir, text: &str) -> u16 {
    let post = json!({"from": "7", "to": {"user": "8"}, "text": text});
    api(dir.path()).send("POST", "/api/v1/messages", &post).unwrap().status
}
