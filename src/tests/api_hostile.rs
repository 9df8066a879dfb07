//! Hostile and greedy callers of the API: each gets its own answer or is cut off, and nobody else notices.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::gateway::{Gateway, PATIENCE, UNLIMITED, address, pause};
use crate::http::api;

/// Connections that do nothing.
const IDLE: usize = 10_000;
/// What the gateway's own side of a connection is as long as nobody has ended it (`/proc/net/tcp`).
const ESTABLISHED: &str = "01";

fn admin(dir: &Path) -> SocketAddr {
    address(dir, "admin").unwrap()
}

/// Sends bytes, and reads until the other end has nothing more to say.
fn said_to(admin: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may be refused before all of it was taken.
    stream.write_all(bytes).ok();
    let mut answer = Vec::new();
    let mut piece = [0; 4_096];
    while let Ok(bytes) = stream.read(&mut piece) {
        if bytes == 0 {
            break;
        }
        answer.extend_from_slice(&piece[..bytes]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn ten_thousand_connections_that_do_nothing_keep_nobody_out_and_cost_nothing() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &[]);
    let admin = admin(dir.path());
    let before = gateway.memory_bytes();
    let mut idle = Vec::new();
    for count in 0..IDLE {
        let mut stream = TcpStream::connect(admin).unwrap();
        // Half of them begin something.
        if count % 2 == 0 {
            stream.write_all(b"POST /api/v1/messages HTTP/1.1\r\nContent-Length: 4000000\r\n").ok();
        }
        idle.push(stream);
        if count % 500 == 0 {
            // Who comes and says something is not the one that has been silent the longest.
            assert_eq!(api(dir.path()).get("/api/v1/stats").unwrap().status, 200);
        }
        if count % 50 == 0 {
            let health = said_to(admin, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            assert!(health.starts_with("HTTP/1.1 200"), "{count}: {health:?}");
        }
    }
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count();
    assert!(descriptors < 1_000, "{descriptors} descriptors are open for {IDLE} connections");
    let grown = gateway.memory_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "the gateway grew by {grown} bytes");
    let mut http = api(dir.path());
    let post = json!({"from": "7", "to": {"user": "8"}, "text": "x"});
    assert_eq!(http.send("POST", "/api/v1/messages", &post).unwrap().status, 200);
    drop(idle);
}

#[test]
fn tricks_with_paths_are_problems_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let _gateway = Gateway::start(dir.path(), &[]);
    let mut http = api(dir.path());
    for (path, status, code) in [
        ("/api/v1//stats", 404, "UnknownPath"),
        ("/api/v1/stats/", 404, "UnknownPath"),
        ("/api/v1/stats;x=1", 404, "UnknownPath"),
        ("/api/v1/STATS", 404, "UnknownPath"),
        ("/api/v1/../healthz", 404, "UnknownPath"),
        ("/api/v1/%2e%2e/healthz", 404, "UnknownPath"),
        ("/api/v1/users/7/../8", 404, "UnknownPath"),
        ("/api/v1/users/7%2Finbox", 400, "BadRequest"),
        ("/api/v1/users/%2e%2e%2fhealthz", 400, "BadRequest"),
        ("/api/v1/users/7%00", 400, "BadRequest"),
        ("/api/v1/users/%F0%9F%98%80", 400, "BadRequest"),
        ("/api/v1/users/18446744073709551616", 400, "BadRequest"),
        ("/api/v1/groups/0x10", 400, "BadRequest"),
        ("/api/v1/groups/%31%32", 404, "UnknownGroup"),
        ("/api/v1/broadcasts/..%2f..%2fsecret", 404, "UnknownBroadcast"),
        ("/api/v1/connections?limit=100000000", 400, "BadRequest"),
        ("/api/v1/connections?limit=1&limit=2", 400, "BadRequest"),
        ("/api/v1/connections?cursor=%00", 400, "BadRequest"),
    ] {
        let answer = http.send_raw("GET", path, "", b"").unwrap();
        assert_eq!((answer.status, answer.code()), (status, code), "{path}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{path}");
    }
    let unknown = http.send("POST", "/api/v1/webhooks/..%2f..%2fsecret/resume", &json!({})).unwrap();
    assert_eq!((unknown.status, unknown.code()), (404, "UnknownWebhook"));
    assert_eq!(http.send_raw("BREW", "/api/v1/stats", "", b"").unwrap().code(), "MethodNotAllowed");
}

#[test]
fn tricks_with_headers_end_their_connection_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let _gateway = Gateway::start(dir.path(), &[]);
    let admin = admin(dir.path());
    let mut http = api(dir.path());
    let post = json!({"from": "7", "to": {"user": "8"}, "text": "x"}).to_string();
    let many: String = (0..5_000).map(|at| format!("X-{at}: y\r\n")).collect();
    let long = format!("X: {}\r\n", "y".repeat(1 << 20));
    let path = format!("/api/v1/{}", "x".repeat(1 << 20));
    let smuggled = format!("{post}GET /api/v1/stats HTTP/1.1\r\n\r\n");
    let request = |headers: &str, body: &str| {
        format!(
            "POST /api/v1/messages HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n{headers}\r\n{body}"
        )
    };
    for (what, bytes) in [
        ("many headers", request(&many, "")),
        ("a long header", request(&long, "")),
        ("a long path", format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")),
        ("two lengths", request("Content-Length: 5\r\nContent-Length: 6\r\n", &post)),
        ("a length that is none", request("Content-Length: -1\r\n", &post)),
        ("a length beyond 64 bits", request("Content-Length: 99999999999999999999999\r\n", &post)),
        ("a chunk beyond 64 bits", request("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\nx\r\n")),
        ("a header without a name", request(": x\r\n", &post)),
        ("a header with a space in its name", request("Content-Length : 3\r\n", &post)),
        ("a line's end alone in a header", request("X: a\nb: c\0\r\n", &post)),
        ("no HTTP", "\u{16}\u{3}\u{1}\r\n\r\n".to_owned()),
        ("HTTP of another time", "GET /api/v1/stats HTTP/9.9\r\n\r\n".to_owned()),
    ] {
        let answer = said_to(admin, bytes.as_bytes());
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
        assert!(refused && answer.matches("HTTP/1.1").count() <= 1, "{what}: {answer:?}");
        assert_eq!(http.get("/api/v1/stats").unwrap().status, 200, "after {what}");
    }
    // Where a length and chunks are both said, a proxy may have seen another end than we do.
    let both = format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", smuggled.len());
    let answer = said_to(admin, request(&both, &smuggled).as_bytes());
    assert!(answer.matches("HTTP/1.1 200").count() == 0, "{answer:?}");
    for key in ["Bearer", "Bearer ", "Basic eDp5", "Bearer \u{e9}", "bearer x, Bearer y"] {
        let answer = said_to(admin, request(&format!("Authorization: {key}\r\nContent-Length: 0\r\n"), "").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 4"), "{key}: {answer:?}");
    }
    let inbox = http.get("/api/v1/users/8/inbox").unwrap();
    assert_eq!(inbox.json["rows"], json!([]), "nothing of it was stored");
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
