//! The dashboard: a page at `/`, and the figures that it shows, as server-sent events.
//!
//! On control's thread, beside the API. What always holds: figures are taken once a second from what the threads have reported,
//! however many look, and nobody is asked for them; the last hour of them is kept and no more; the page is bundled, loads nothing
//! from elsewhere and runs no script that is not its own (its Content-Security-Policy says so); whatever else it shows and does are
//! calls of the API, with the key that is typed into it.

mod sample;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::sample::History;
use super::http::Facts;
use crate::api::keys::{Keys, Scope};
use crate::api::openapi::ReadProblems;
use crate::api::page::part;
use crate::api::problem::Problem;
use crate::limits::{DASHBOARD_SAMPLE_MS, DASHBOARD_VIEWERS_MAX};

const PAGE: &str = include_str!("dashboard/page.html");
const STYLE: &str = include_str!("dashboard/page.css");
const ICON: &str = include_str!("dashboard/icon.svg");
const SCRIPTS: [(&str, &str); 4] = [
    ("/dashboard/page.js", include_str!("dashboard/page.js")),
    ("/dashboard/overview.js", include_str!("dashboard/overview.js")),
    ("/dashboard/chart.js", include_str!("dashboard/chart.js")),
    ("/dashboard/parts.js", include_str!("dashboard/parts.js")),
];

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Said first: when a client that was cut off comes back.
const HELLO: &str = "retry: 1000\n\n";

/// What is looked at, for all who look.
#[derive(Clone, Debug)]
pub(crate) struct Dashboard {
    /// Somebody wants the last hour.
    hours: mpsc::Sender<oneshot::Sender<Bytes>>,
    /// The last second, as an event.
    seconds: watch::Receiver<Bytes>,
    /// Room for more who look.
    viewers: Arc<Semaphore>,
}

impl Dashboard {
    /// Starts the task that takes the figures. It ends when nobody can look any more.
    pub(crate) fn start(facts: Facts, node: u16) -> Dashboard {
        let (hours, receive_hours) = mpsc::channel(DASHBOARD_VIEWERS_MAX);
        let (publish, seconds) = watch::channel(Bytes::new());
        tokio::spawn(take(facts, node, receive_hours, publish));
        Dashboard { hours, seconds, viewers: Arc::new(Semaphore::new(DASHBOARD_VIEWERS_MAX)) }
    }
}

/// Takes figures once a second.
async fn take(
    facts: Facts,
    node: u16,
    mut hours: mpsc::Receiver<oneshot::Sender<Bytes>>,
    publish: watch::Sender<Bytes>,
) {
    let mut history = History::new(node);
    let mut second = interval(Duration::from_millis(DASHBOARD_SAMPLE_MS));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = second.tick() => {
                let sample = history.take(&facts);
                publish.send_replace(event("sample", &sample));
            }
            hour = hours.recv() => match hour {
                Some(answer) => drop(answer.send(event("history", &history))),
                None => return,
            },
        }
    }
}

fn event(name: &str, data: &impl serde::Serialize) -> Bytes {
    // Strings and numbers, without a line's end: nothing that JSON has not.
    let data = serde_json::to_string(data).unwrap_or_default();
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

/// What the calls need.
#[derive(Clone)]
pub(crate) struct DashboardCalls {
    /// Who may look.
    pub(crate) keys: Arc<Keys>,
    /// What there is to see.
    pub(crate) dashboard: Dashboard,
}

/// The call.
pub(crate) fn routes(calls: DashboardCalls) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(stream)).with_state(calls)
}

/// The page and its parts.
pub(crate) fn pages() -> Router {
    let mut pages = Router::new()
        .route("/", get(|| async { part("text/html; charset=utf-8", PAGE, POLICY) }))
        .route("/dashboard/page.css", get(|| async { part("text/css; charset=utf-8", STYLE, POLICY) }))
        .route("/dashboard/icon.svg", get(|| async { part("image/svg+xml", ICON, POLICY) }));
    for (path, script) in SCRIPTS {
        pages = pages.route(path, get(move || async move { part("text/javascript; charset=utf-8", script, POLICY) }));
    }
    pages
}

/// The figures of this node, once a second, as server-sent events.
///
/// First an event `history` with those of the last hour, then an event `sample` each second.
#[utoipa::path(get, path = "/dashboard/stream", operation_id = "stream_figures", tag = "gateway",
    responses((status = 200, description = "Events, without an end.", body = String, content_type = "text/event-stream"),
        ReadProblems))]
async fn stream(State(calls): State<DashboardCalls>, headers: HeaderMap) -> Result<Response, Problem> {
    calls.keys.allow(&headers, Scope::Read)?;
    let Dashboard { hours, seconds, viewers } = calls.dashboard;
    let place = viewers.try_acquire_owned().map_err(|_| Problem::too_many())?;
    let (answer, hour) = oneshot::channel();
    hours.try_send(answer).map_err(|_| Problem::too_many())?;
    let hour = hour.await.map_err(|_| Problem::not_serving())?;
    let first = Bytes::from([HELLO.as_bytes(), &hour].concat());
    let viewer = Viewer { first: Some(first), seconds, _place: place };
    let body = Body::from_stream(futures_lite::stream::unfold(viewer, Viewer::next));
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, body).into_response())
}

/// One who looks; who is slow misses seconds.
struct Viewer {
    first: Option<Bytes>,
    seconds: watch::Receiver<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl Viewer {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Viewer)> {
        if let Some(first) = self.first.take() {
            return Some((Ok(first), self));
        }
        self.seconds.changed().await.ok()?;
        let second = self.seconds.borrow_and_update().clone();
        Some((Ok(second), self))
    }
}
