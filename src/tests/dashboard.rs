//! The dashboard, and the page of the API's calls, in a real browser: Debian's chromium, driven by playwright-core.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringway_client::Event;
use ringway_wire::ids::{Conversation, GroupId};
use ringway_wire::schema::CloseReason;
use serde_json::json;

use crate::connection::Connection;
use crate::gateway::{Gateway, PATIENCE, address, pause};
use crate::http::{Http, created};

const KEY: &str = "a-key-of-the-wall-of-32-or-more-characters";

/// A gateway with a key for everything, and one that may send alone.
fn start(dir: &Path) -> Gateway {
    let keys = dir.join("keys");
    let lines = format!("wall read,operate,send,groups {KEY}\nshop send {}\n", KEY.replace("wall", "shop"));
    std::fs::write(&keys, lines).unwrap();
    std::fs::set_permissions(&keys, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let keys = format!("api.keys_file={}", keys.display());
    Gateway::start(dir, &["--shards", "2", "--set", &keys, "--set", "log.level=warn"])
}

fn connect(dir: &Path, key: &str) -> Http {
    Http::connect(address(dir, "admin").unwrap(), Some(key)).unwrap()
}

#[test]
fn figures_move_a_message_is_followed_and_a_user_kicked_at_two_widths_in_light_and_dark() {
    let modules = concat!(env!("CARGO_MANIFEST_DIR"), "/target/npm/node_modules");
    assert!(Path::new(modules).join("playwright-core").is_dir(), "scripts/setup.sh tests fetches what this test needs");
    let shots = concat!(env!("CARGO_MANIFEST_DIR"), "/target/screenshots");
    std::fs::create_dir_all(shots).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let gateway = start(dir.path());
    let mut http = connect(dir.path(), KEY);
    let over = Arc::new(AtomicBool::new(false));
    let devices = [1, 2].map(|device| keeps(gateway.client(42, device, None), &over));
    let group = created(&mut http, "7", json!(["8", "9", "10"]));
    let post = json!({"from": "7", "to": {"user": "42"}, "text": "hello"});
    let message = http.send("POST", "/api/v1/messages", &post).unwrap().json["msg_id"].as_str().unwrap().to_owned();

    // A group that talks all the time.
    let talks = {
        let (over, mut sender) = (Arc::clone(&over), gateway.client(7, 1, None));
        let to = Conversation::Group(GroupId(group.parse().unwrap()));
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let name = sender.new_client_msg_id();
                let request = sender.send(to, name, b"to all of them").unwrap();
                assert!(matches!(sender.answer(request, PATIENCE).unwrap(), Event::Sent { .. }));
                pause(Duration::from_millis(20));
            }
        })
    };
    let member = keeps(gateway.client(8, 1, None), &over);
    let base = format!("http://{}", address(dir.path(), "admin").unwrap());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tests/browser/dashboard.js");
    let arguments = [script, &base, KEY, "42", &message, &group, shots];
    let looked = Command::new("node").args(arguments).env("NODE_PATH", modules).output().unwrap();
    over.store(true, Ordering::Relaxed);
    talks.join().unwrap();
    assert!(looked.status.success(), "{}", String::from_utf8_lossy(&looked.stderr));
    assert_eq!(member.join().unwrap(), None);
    for device in devices {
        assert_eq!(device.join().unwrap(), Some(CloseReason::Kicked));
    }
}

/// Reads what comes and shows that it lives, until it is over; why its session was closed before.
fn keeps(mut client: Connection, over: &Arc<AtomicBool>) -> JoinHandle<Option<CloseReason>> {
    let over = Arc::clone(over);
    std::thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            client.ping().unwrap();
            let since = Instant::now();
            while since.elapsed() < Duration::from_secs(2) && !over.load(Ordering::Relaxed) {
                match client.next(Duration::from_millis(200)).unwrap() {
                    Some(Event::Row(_) | Event::GroupChanged { .. } | Event::Pong { .. }) | None => {}
                    Some(Event::Closing { reason, .. }) => return Some(reason),
                    Some(other) => panic!("{other:?}"),
                }
            }
        }
        None
    })
}

#[test]
fn the_page_is_open_and_its_figures_are_for_those_with_the_scope_read_up_to_a_number_of_viewers() {
    let dir = tempfile::tempdir().unwrap();
    let _gateway = start(dir.path());
    let admin = address(dir.path(), "admin").unwrap();
    let mut nobody = Http::connect(admin, None).unwrap();
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/dashboard/page.css", "text/css; charset=utf-8"),
        ("/dashboard/page.js", "text/javascript; charset=utf-8"),
        ("/dashboard/overview.js", "text/javascript; charset=utf-8"),
        ("/dashboard/chart.js", "text/javascript; charset=utf-8"),
        ("/dashboard/parts.js", "text/javascript; charset=utf-8"),
        ("/dashboard/icon.svg", "image/svg+xml"),
    ] {
        let answer = nobody.get(path).unwrap();
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)), "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'") && !policy.contains("unsafe"), "{policy}");
    }
    assert_eq!(nobody.get("/api/v1/dashboard/stream").unwrap().status, 401);
    assert_eq!(connect(dir.path(), &KEY.replace("wall", "shop")).get("/api/v1/dashboard/stream").unwrap().status, 403);

    let mut open = Vec::new();
    for _ in 0..16 {
        open.push(stream(dir.path()));
    }
    for stream in &mut open {
        let text = read_until(stream, "event: sample");
        assert!(text.starts_with("HTTP/1.1 200") && text.contains("event: history\ndata: {\"columns\":["), "{text}");
    }
    let refused = connect(dir.path(), KEY).get("/api/v1/dashboard/stream").unwrap();
    assert_eq!((refused.status, refused.code()), (503, "RetryLater"));
    // Who goes makes room.
    open.pop();
    let mut tries = 0;
    while !read_until(&mut stream(dir.path()), "\r\n\r\n").starts_with("HTTP/1.1 200") {
        tries += 1;
        assert!(tries < PATIENCE.as_millis() / 50, "a viewer's place is never free again");
        pause(Duration::from_millis(50));
    }
}

fn stream(dir: &Path) -> std::net::TcpStream {
    use std::io::Write;
    let mut stream = std::net::TcpStream::connect(address(dir, "admin").unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET /api/v1/dashboard/stream HTTP/1.1\r\nHost: wall\r\nAuthorization: Bearer {KEY}\r\n\r\n")
        .unwrap();
    stream
}

fn read_until(stream: &mut std::net::TcpStream, wanted: &str) -> String {
    use std::io::Read;
    let (mut text, mut bytes) = (String::new(), [0; 4_096]);
    while !text.contains(wanted) {
        let read = stream.read(&mut bytes).unwrap();
        assert!(read > 0, "it ends: {text}");
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    text
}
