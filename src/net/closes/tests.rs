#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_types, reason = "a log's writer is shared with the log")]

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::*;
use crate::contract::ids::ConnId;
use crate::contract::report::Depths;
use crate::contract::report::{ShardReport, ShellCounters};
use crate::contract::shard_counters::{CLOSE_REASONS, ShardCounters};
use crate::control::metrics;
use crate::control::snapshot::{Readiness, Room, Snapshot};
use crate::shard::effects::Who;
use ringway_wire::frame::{Encoder, read_server};
use ringway_wire::ids::{DeviceId, UserId};
use ringway_wire::request::Reply;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is logged at `level` while `act` runs, a JSON object per line.
fn logged(level: Level, act: impl FnOnce()) -> Vec<serde_json::Value> {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_max_level(level)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, act);
    let bytes = lines.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn closed(reason: CloseReason) -> Closed {
    Closed { conn: ConnId::default(), reason, who: None, fault: None }
}

/// The metrics of a shard that has closed one connection for `reason`.
fn metrics_of(reason: CloseReason) -> String {
    let mut core = ShardCounters::default();
    core.closes_total[usize::from(reason.0)] = 1;
    let (shell, depths) = (ShellCounters::default(), Depths::default());
    let report = ShardReport { shard: ShardId(0), core, shell, depths, store_asks: 0, budgets: Default::default() };
    let snapshot = Snapshot { shards: vec![Some((0, Arc::new(report)))], ..Snapshot::default() };
    let room = Room { connections_max: 1, limited_by: String::new() };
    metrics::text(&snapshot, &Readiness::Ready, &room, None, 0)
}

#[test]
fn a_reason_has_one_name_on_the_wire_in_the_log_and_as_a_label() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/wire/README.md")).unwrap();
    let reasons = &page[page.find("## Close reasons").unwrap()..page.find("## Limits").unwrap()];
    let mut encoder = Encoder::new();
    for reason in (0..CLOSE_REASONS as u16).map(CloseReason) {
        // The number that travels, and the name that the protocol's page gives it (0 never travels).
        let frame = encoder.closing(0, reason, "", None, 0).to_vec();
        let Ok((_, Reply::Closing { reason: received, .. })) = read_server(&frame) else { panic!("{reason:?}") };
        assert_eq!(received, reason);
        let number = received.0;
        let row = reasons.lines().find_map(|line| line.strip_prefix(&format!("| {number} | `"))?.split('`').next());
        let name = if number == 0 { "PeerClosed" } else { row.unwrap_or_else(|| panic!("{number} is not listed")) };

        let lines = logged(Level::DEBUG, || log(&closed(reason), ShardId(0), None));
        assert_eq!(lines.len(), 1, "{name}");
        assert_eq!((lines[0]["level"].as_str(), lines[0]["reason"].as_str()), (Some("DEBUG"), Some(name)));
        let label = format!("ringway_closes_total{{shard=\"0\",reason=\"{name}\"}} 1");
        assert!(metrics_of(reason).lines().any(|line| line == label), "{label}");
    }
    assert!(reasons.contains("`PeerClosed` (0)"));
}

#[test]
fn the_line_says_whose_the_connection_was_and_where_it_came_from() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let server = OwnedFd::from(listener.accept().unwrap().0);
    let who = Who { session: 77, user: UserId(7), device: DeviceId(2) };
    let named = Closed { who: Some(who), ..closed(CloseReason::LoggedOut) };
    let lines = logged(Level::DEBUG, || {
        log(&named, ShardId(3), Some(&server));
        log_refused(CloseReason::Overloaded, ShardId(3), &server);
    });
    let peer = client.local_addr().unwrap().to_string();
    let line = &lines[0];
    let numbers = ["shard", "session", "user", "device"].map(|field| line[field].as_u64());
    assert_eq!(numbers, [Some(3), Some(77), Some(7), Some(2)], "{line}");
    assert_eq!((line["message"].as_str(), line["peer"].as_str()), (Some("closed"), Some(peer.as_str())), "{line}");
    let line = &lines[1];
    assert_eq!((line["message"].as_str(), line["reason"].as_str()), (Some("refused"), Some("Overloaded")), "{line}");
    assert_eq!((line["peer"].as_str(), line.get("user")), (Some(peer.as_str()), None), "{line}");
}

#[test]
fn no_close_is_logged_at_info() {
    let mut is_on = None;
    let lines = logged(Level::INFO, || is_on = Some(are_logged()));
    assert_eq!((lines.len(), is_on), (0, Some(false)));
    logged(Level::DEBUG, || is_on = Some(are_logged()));
    assert_eq!(is_on, Some(true));
}
