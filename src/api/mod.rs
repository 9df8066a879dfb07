//! The HTTP API: what a backend drives the gateway with, under `/api/v1`.
//!
//! On control's thread. What always holds: a request asks shards, ledger and store only through their mailboxes, by the
//! one [`dispatch`], and none of them waits for the API; what is answered as stored is durable; each call that changes
//! something is a line of the log with the name of the key that it came with.
//!
//! - [`dispatch`]: asks the other threads, and knows which answer belongs to which request.
//! - [`keys`]: who may call, and what.
//! - [`problem`]: what a caller is told that cannot have what it wants.
//! - [`ids`]: numbers of 64 bits as JSON has them.
//! - [`messages`], [`groups`], [`users`]: what can be called.

pub(crate) mod dispatch;
mod groups;
mod ids;
pub(crate) mod keys;
mod messages;
mod problem;
mod users;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::api::dispatch::Dispatcher;
use crate::api::keys::Keys;
use crate::api::problem::Problem;
use crate::clock::Clock;
use crate::limits::API_BODY_BYTES_MAX;

/// What every call needs.
#[derive(Clone)]
pub(crate) struct Api {
    /// Asks the other threads.
    pub(crate) dispatcher: Dispatcher,
    /// Who may call what.
    pub(crate) keys: Arc<Keys>,
    /// The process's time.
    pub(crate) clock: Clock,
}

/// The calls there are.
pub(crate) fn routes(api: Api) -> Router {
    let calls = Router::new()
        .route("/messages", post(messages::post))
        .route("/groups", post(groups::create))
        .route("/groups/{group}", get(groups::read))
        .route("/groups/{group}/members", post(groups::add).delete(groups::remove))
        .route("/users/{user}/groups", get(users::groups))
        .route("/users/{user}/inbox", get(users::inbox))
        .route("/presence", post(users::presence))
        .fallback(unknown)
        .method_not_allowed_fallback(not_so)
        .layer(DefaultBodyLimit::max(API_BODY_BYTES_MAX))
        .with_state(api);
    Router::new().nest("/api/v1", calls)
}

async fn unknown() -> Response {
    Problem::unknown_path().into_response()
}

async fn not_so() -> Response {
    Problem::method().into_response()
}
