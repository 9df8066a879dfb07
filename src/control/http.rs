//! The admin server: `/healthz`, `/readyz`, `/metrics`, and the API.
//!
//! On control's thread. What always holds: at most `ADMIN_REQUESTS_MAX` connections are open at once, none is silent for
//! longer than `SILENCE_MAX` (it sends nothing, and takes nothing), and one more ends the one that has been silent the longest: nobody who holds them open keeps
//! others out.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::serve::Listener;
use nix::sys::statvfs::statvfs;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, Sleep};

use crate::api::keys::{Keys, Scope};
use crate::api::problem::Problem;
use crate::clock::Clock;
use crate::control::metrics;
use crate::control::snapshot::{Readiness, Room, Snapshot, Stage};
use crate::control::webhooks::Webhooks;
use crate::limits::ADMIN_REQUESTS_MAX;

/// Where the API is served to the gateway's user, without a key, in the data directory.
pub(crate) const API_SOCKET: &str = "api.sock";
/// How long a connection may bring nothing and take nothing: longer than any answer takes.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What the answers are made from.
#[derive(Clone)]
pub(crate) struct Facts {
    /// The latest reports.
    pub(crate) snapshot: watch::Receiver<Arc<Snapshot>>,
    /// Where the gateway is in its life.
    pub(crate) stage: watch::Receiver<Stage>,
    /// The process's time.
    pub(crate) clock: Clock,
    /// How many connections there is room for.
    pub(crate) room: Arc<Room>,
    /// Where the journal is.
    pub(crate) data_dir: Arc<Path>,
    /// Who is told what happens.
    pub(crate) webhooks: Webhooks,
}

impl Facts {
    /// Whether clients should be sent here.
    pub(crate) fn readiness(&self) -> Readiness {
        let stage = *self.stage.borrow();
        let now_ms = self.clock.now().mono_ms;
        self.snapshot.borrow().readiness(stage, now_ms)
    }

    /// Bytes that may still be written to the journal's disk.
    pub(crate) fn journal_disk_free_bytes(&self) -> Option<u64> {
        // Before the first start there is no journal yet.
        let journal = self.data_dir.join("journal");
        let stat = statvfs(&journal).or_else(|_| statvfs(&*self.data_dir)).ok()?;
        Some(stat.blocks_available() * stat.fragment_size())
    }
}

/// Health and metrics, and whose keys open the metrics; `None`: they are open.
pub(crate) fn pages(facts: Facts, readers: Option<Arc<Keys>>) -> axum::Router {
    let metrics = get(|State(facts): State<Facts>, headers: HeaderMap| async move {
        if let Some(keys) = &readers {
            keys.allow(&headers, Scope::Read)?;
        }
        Ok::<_, Problem>(metrics_text(&facts))
    });
    axum::Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", metrics)
        .with_state(facts)
}

/// Serves until it is aborted.
pub(crate) async fn serve(listener: TcpListener, routes: axum::Router) {
    let listener = Bounded { listener, admitted: Vec::new(), since: Instant::now() };
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!(%error, "an HTTP server has ended");
    }
}

/// Serves the API to whoever may open the socket, until it is aborted.
pub(crate) async fn serve_owner(listener: UnixListener, calls: axum::Router) {
    if let Err(error) = axum::serve(listener, calls).await {
        tracing::error!(%error, "the API's socket has ended");
    }
}

async fn readyz(State(facts): State<Facts>) -> impl IntoResponse {
    match facts.readiness() {
        Readiness::Ready => (StatusCode::OK, "ready\n".to_owned()),
        Readiness::Degraded(what) => (StatusCode::OK, format!("ready, degraded: {what}\n")),
        Readiness::NotReady(reasons) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", reasons.join("; ")))
        }
    }
}

/// Whether the process works, or had better be started again: a thread that stands still, and nothing that a new start
/// would not mend.
async fn healthz(State(facts): State<Facts>) -> impl IntoResponse {
    let silent = facts.snapshot.borrow().silent(*facts.stage.borrow(), facts.clock.now().mono_ms);
    match silent.is_empty() {
        true => (StatusCode::OK, "ok\n".to_owned()),
        false => (StatusCode::SERVICE_UNAVAILABLE, format!("not well: {}\n", silent.join("; "))),
    }
}

fn metrics_text(facts: &Facts) -> impl IntoResponse + use<> {
    let snapshot = Arc::clone(&facts.snapshot.borrow());
    let mut text = metrics::text(
        &snapshot,
        &facts.readiness(),
        &facts.room,
        facts.journal_disk_free_bytes(),
        facts.clock.now().mono_ms,
    );
    text.push_str(&metrics::webhooks::text(&facts.webhooks.shown()));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

/// A listener that has room for one more always, because the oldest goes.
struct Bounded {
    listener: TcpListener,
    admitted: Vec<Ending>,
    since: Instant,
}

/// Ends a connection when it is dropped.
struct Ending {
    end: oneshot::Sender<()>,
    last_byte: Arc<LastByte>,
}

/// When a connection last brought or took something: milliseconds since the first of all connections came.
#[derive(Default)]
struct LastByte(AtomicU64);

impl Listener for Bounded {
    type Io = Admitted;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Admitted, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.admitted.retain(|one| !one.end.is_closed());
                    if self.admitted.len() >= ADMIN_REQUESTS_MAX {
                        let last_byte =
                            |at: &usize| self.admitted.get(*at).map(|one| one.last_byte.0.load(Ordering::Relaxed));
                        if let Some(at) = (0..self.admitted.len()).min_by_key(last_byte) {
                            self.admitted.swap_remove(at);
                        }
                    }
                    let since = self.since;
                    let last_byte = Arc::new(LastByte(AtomicU64::new(since.elapsed().as_millis() as u64)));
                    let (end, ended) = oneshot::channel();
                    self.admitted.push(Ending { end, last_byte: Arc::clone(&last_byte) });
                    let until = Box::pin(tokio::time::sleep(SILENCE_MAX));
                    return (Admitted { stream, until, ended, last_byte, since }, peer);
                }
                // Out of descriptors, most likely: the shards say so too.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends in time.
struct Admitted {
    stream: TcpStream,
    until: Pin<Box<Sleep>>,
    ended: oneshot::Receiver<()>,
    last_byte: Arc<LastByte>,
    since: Instant,
}

impl Admitted {
    /// It has brought or taken something: its time begins again.
    fn is_heard(&mut self) {
        self.until.as_mut().reset(Instant::now() + SILENCE_MAX);
        self.last_byte.0.store(self.since.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Its time is over, or another needs its place.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> bool {
        self.until.as_mut().poll(cx).is_ready() || Pin::new(&mut self.ended).poll(cx).is_ready()
    }
}

impl AsyncRead for Admitted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.poll_over(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.is_heard();
        }
        read
    }
}

impl AsyncWrite for Admitted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.poll_over(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let wrote = Pin::new(&mut self.stream).poll_write(cx, buf);
        if matches!(wrote, Poll::Ready(Ok(bytes)) if bytes > 0) {
            self.is_heard();
        }
        wrote
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
