//! A backend's endpoint for webhooks, for the tests: keeps what it receives, and answers as the test says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::gateway::{PATIENCE, pause};

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// When its last byte came.
    pub(crate) at: Instant,
    /// Its path.
    pub(crate) path: String,
    /// Names in small letters.
    pub(crate) headers: Vec<(String, String)>,
    /// As it came.
    pub(crate) body: String,
    /// The body.
    pub(crate) json: Value,
}

impl Received {
    /// The header of this name.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str()).unwrap_or_default()
    }
}

/// An answer.
#[derive(Clone)]
pub(crate) struct Reply {
    /// `None`: the connection is closed instead.
    status: Option<u16>,
    header: String,
    after: Duration,
}

impl Reply {
    /// 200.
    pub(crate) fn ok() -> Reply {
        Reply::status(200)
    }

    /// Another one.
    pub(crate) fn status(status: u16) -> Reply {
        Reply { status: Some(status), header: String::new(), after: Duration::ZERO }
    }

    /// None.
    pub(crate) fn hang_up() -> Reply {
        Reply { status: None, ..Reply::ok() }
    }

    /// With a header.
    pub(crate) fn with(self, header: &str) -> Reply {
        Reply { header: format!("{header}\r\n"), ..self }
    }

    /// Later.
    pub(crate) fn after(self, after: Duration) -> Reply {
        Reply { after, ..self }
    }
}

/// What its threads have in common.
struct Shared {
    all: Mutex<Vec<Received>>,
    connections: AtomicUsize,
    reply: Box<dyn Fn(usize) -> Reply + Send + Sync>,
}

/// Listens until the test ends.
pub(crate) struct Receiver {
    shared: Arc<Shared>,
    port: u16,
}

impl Receiver {
    /// `reply`: what the request of this number is answered with, from 0.
    pub(crate) fn start(reply: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (all, connections) = (Mutex::default(), AtomicUsize::new(0));
        let shared = Arc::new(Shared { all, connections, reply: Box::new(reply) });
        let of_threads = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&of_threads);
                shared.connections.fetch_add(1, Ordering::Relaxed);
                std::thread::spawn(move || serve(&shared, stream.unwrap()));
            }
        });
        Receiver { shared, port }
    }

    /// Where it is.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Connections that there have been.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// What has come so far.
    pub(crate) fn all(&self) -> Vec<Received> {
        self.shared.all.lock().unwrap().clone()
    }

    /// Waits until what has come is as it should be.
    pub(crate) fn until(&self, what: &str, is_so: impl Fn(&[Received]) -> bool) -> Vec<Received> {
        let deadline = Instant::now() + 4 * PATIENCE;
        loop {
            let all = self.all();
            if is_so(&all) {
                return all;
            }
            let last = all.last();
            assert!(
                Instant::now() < deadline,
                "waited in vain until {what}: {} requests, the last {last:?}",
                all.len()
            );
            pause(Duration::from_millis(10));
        }
    }
}

/// One connection: an end of it, whoever ends it, is no failure.
fn serve(shared: &Shared, stream: TcpStream) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let path = line.split(' ').nth(1)?.to_owned();
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let length = headers.iter().find(|(name, _)| name == "content-length")?.1.parse().ok()?;
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        let body = String::from_utf8(body).ok()?;
        let json = serde_json::from_str(&body).ok()?;
        let mut all = shared.all.lock().unwrap();
        let number = all.len();
        all.push(Received { at: Instant::now(), path, headers, body, json });
        drop(all);
        let Reply { status, header, after } = (shared.reply)(number);
        pause(after);
        let answer = format!("HTTP/1.1 {} x\r\n{header}Content-Length: 2\r\n\r\n{{}}", status?);
        stream.get_mut().write_all(answer.as_bytes()).ok()?;
    }
}
