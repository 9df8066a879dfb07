//! An inbox as server-sent events: nothing missing, nothing twice, whatever comes between.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use serde_json::{Value, json};

use crate::gateway::{Gateway, PATIENCE, UNLIMITED, address};
use crate::http::Http;

/// As many streams as may be open.
const STREAMS_MAX: usize = 32;

/// A stream that is open.
struct Events(BufReader<TcpStream>);

impl Events {
    /// Asks as HTTP/1.0, so that the events come as they are. The status, and the stream.
    fn open(admin: SocketAddr, query: &str, headers: &str) -> (u16, Events) {
        let mut stream = TcpStream::connect(admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET /api/v1/users/8/stream{query} HTTP/1.0\r\n{headers}\r\n").unwrap();
        let mut events = Events(BufReader::new(stream));
        let status = events.line().split(' ').nth(1).unwrap().parse().unwrap();
        while !events.line().is_empty() {}
        (status, events)
    }

    /// The next line; empty at the end, too.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The id and the text of the next row; `None`: the stream has ended.
    fn row(&mut self) -> Option<(u64, String)> {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            let Some(id) = line.trim_end().strip_prefix("id: ") else { continue };
            let id: u64 = id.parse().unwrap();
            assert_eq!(self.line(), "event: message");
            let data = self.line();
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(data["seq"], json!(id.to_string()));
            return Some((id, data["text"].as_str().unwrap().to_owned()));
        }
    }

    fn expect(&mut self, ids: std::ops::RangeInclusive<u64>) {
        for id in ids {
            assert_eq!(self.row(), Some((id, format!("text {id}"))));
        }
    }
}

fn admin(dir: &Path) -> SocketAddr {
    address(dir, "admin").unwrap()
}

/// Rows with these numbers, in as few calls as it takes.
fn post(dir: &Path, ids: std::ops::RangeInclusive<u64>, text: impl Fn(u64) -> String) {
    let mut http = Http::connect(admin(dir), None).unwrap();
    let posts: Vec<Value> = ids.map(|id| json!({"from": "7", "to": {"user": "8"}, "text": text(id)})).collect();
    for posts in posts.chunks(200) {
        assert_eq!(http.send("POST", "/api/v1/messages", &json!(posts)).unwrap().status, 200);
    }
}

fn text(id: u64) -> String {
    format!("text {id}")
}

#[test]
fn a_stream_has_every_row_once_live_and_over_a_reconnect_and_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(dir.path(), &["--set", "drain.spread_s=0"]);
    post(dir.path(), 1..=600, text);
    let (status, mut events) = Events::open(admin(dir.path()), "?after=0", "");
    assert_eq!(status, 200);
    events.expect(1..=600);
    let (_, mut from_now) = Events::open(admin(dir.path()), "", "");
    let (_, mut from_the_middle) = Events::open(admin(dir.path()), "?after=590", "");
    for id in 601..=620 {
        post(dir.path(), id..=id, text);
        events.expect(id..=id);
    }
    from_now.expect(601..=620);
    from_the_middle.expect(591..=620);
    drop(events);
    post(dir.path(), 621..=640, text);
    // What the last event says goes before what the address says.
    let (_, mut events) = Events::open(admin(dir.path()), "?after=3", "Last-Event-ID: 620\r\n");
    events.expect(621..=640);

    gateway.terminate();
    assert_eq!(events.row(), None, "nothing more was sent");
    assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.log());
    let _gateway = Gateway::start(dir.path(), &[]);
    post(dir.path(), 641..=650, text);
    let (_, mut events) = Events::open(admin(dir.path()), "", "Last-Event-ID: 640\r\n");
    events.expect(641..=650);
}

#[test]
fn who_reads_slowly_keeps_nobody_else_waiting_and_misses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Gateway::command(dir.path(), &[]);
    let gateway = Gateway::spawn(dir.path(), command.envs(UNLIMITED));
    let long = |id: u64| format!("{id} {}", "x".repeat(15_000));
    post(dir.path(), 1..=2_000, long);
    let before = gateway.memory_bytes();
    let mut slow: Vec<Events> = (0..8).map(|_| Events::open(admin(dir.path()), "?after=0", "").1).collect();
    let (_, mut quick) = Events::open(admin(dir.path()), "?after=2000", "");
    post(dir.path(), 2_001..=2_001, text);
    quick.expect(2_001..=2_001);
    assert!(gateway.admin_page("/healthz").starts_with("HTTP/1.1 200"));
    let more = gateway.memory_bytes().saturating_sub(before);
    assert!(more < 64 << 20, "eight readers of 30 MB each take {more} bytes");
    let events = slow.last_mut().unwrap();
    for id in 1..=2_000 {
        assert_eq!(events.row(), Some((id, long(id))));
    }
    events.expect(2_001..=2_001);
}

#[test]
fn there_are_so_many_streams_and_the_next_is_told_to_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(dir.path(), &[]);
    let open: Vec<Events> = (0..STREAMS_MAX)
        .map(|_| {
            let (status, events) = Events::open(admin(dir.path()), "", "");
            assert_eq!(status, 200);
            events
        })
        .collect();
    let (status, mut refused) = Events::open(admin(dir.path()), "", "");
    let mut body = String::new();
    refused.0.read_to_string(&mut body).unwrap();
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("RetryLater"), "{body}");
    assert!(gateway.admin_page("/healthz").starts_with("HTTP/1.1 200"));
    drop(open);
    gateway.wait_until("a place is free again", |_| Events::open(admin(dir.path()), "", "").0 == 200);
    for (query, headers) in
        [("?after=x", ""), ("?since=1", ""), ("", "Last-Event-ID: x\r\n"), ("", "Last-Event-ID: -1\r\n")]
    {
        assert_eq!(Events::open(admin(dir.path()), query, headers).0, 400, "{query} {headers}");
    }
}
