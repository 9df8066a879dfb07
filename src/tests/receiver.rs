//! A backend's endpoint for webhooks, for the tests: keeps what it receives, and answers as the test says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

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
    scheme: &'static str,
}

impl Receiver {
    /// `reply`: what the request of this number is answered with, from 0.
    pub(crate) fn start(reply: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Receiver {
        Receiver::listen(None, reply)
    }

    /// With TLS, and a certificate that `ca.pem`, put into `dir`, has signed.
    pub(crate) fn start_tls(dir: &Path, reply: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Receiver {
        Receiver::listen(Some(certified(dir)), reply)
    }

    fn listen(tls: Option<Arc<ServerConfig>>, reply: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Receiver {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (all, connections) = (Mutex::default(), AtomicUsize::new(0));
        let shared = Arc::new(Shared { all, connections, reply: Box::new(reply) });
        let of_threads = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&of_threads);
                shared.connections.fetch_add(1, Ordering::Relaxed);
                let (stream, tls) = (stream.unwrap(), tls.clone());
                std::thread::spawn(move || match tls {
                    Some(tls) => serve(&shared, StreamOwned::new(ServerConnection::new(tls).unwrap(), stream)),
                    None => serve(&shared, stream),
                });
            }
        });
        Receiver { shared, port, scheme }
    }

    /// Where it is.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://127.0.0.1:{}{path}", self.scheme, self.port)
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

/// An authority in `ca.pem`, and a server at 127.0.0.1 that it has signed.
fn certified(dir: &Path) -> Arc<ServerConfig> {
    std::fs::write(dir.join("leaf.ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for arguments in [
        format!("req -x509 {key} -days 2 -subj /CN=authority -keyout ca.key -out ca.pem"),
        format!("req {key} -subj /CN=endpoint -keyout leaf.key -out leaf.csr"),
        "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile leaf.ext -out leaf.pem"
            .to_owned(),
    ] {
        let made = Command::new("openssl").args(arguments.split(' ')).current_dir(dir).output().unwrap();
        assert!(made.status.success(), "{made:?}");
    }
    let chain = vec![CertificateDer::from_pem_file(dir.join("leaf.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(dir.join("leaf.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    Arc::new(config.with_single_cert(chain, key).unwrap())
}

/// One connection: an end of it, whoever ends it, is no failure.
fn serve(shared: &Shared, stream: impl Read + Write) -> Option<()> {
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
