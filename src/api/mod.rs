//! The HTTP API: what a backend drives the gateway with, under `/api/v1`.
//!
//! On control's thread. What always holds: a request asks shards, ledger and store only through their mailboxes, by the
//! one [`dispatch`], and none of them waits for the API; what is answered as stored is durable; each call that changes
//! something is a line of the log with the name of the key that it came with.
//!
//! - [`dispatch`]: asks the other threads, and knows which answer belongs to which request.
//! - [`keys`]: who may call, and what.
//! - [`audit`]: what was changed, by whom.
//! - [`problem`]: what a caller is told that cannot have what it wants.
//! - [`ids`]: numbers of 64 bits as JSON has them.
//! - [`messages`], [`groups`], [`made`], [`users`], [`sessions`], [`access`], [`connections`], [`events`],
//!   [`trace`], [`stream`]: what can be called.
//! - [`openapi`]: says so to programs, [`docs`] to people; [`page`]: what a browser is given of a page.

pub(crate) mod access;
pub(crate) mod audit;
mod connections;
pub(crate) mod dispatch;
mod docs;
mod events;
mod groups;
pub(crate) mod ids;
pub(crate) mod keys;
mod made;
pub(crate) mod messages;
pub(crate) mod openapi;
pub(crate) mod page;
pub(crate) mod problem;
pub(crate) mod sessions;
pub(crate) mod stream;
pub(crate) mod trace;
mod users;

use std::future::ready;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::mpsc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::access::AccessAsk;
use crate::api::audit::Audit;
use crate::api::dispatch::Dispatcher;
use crate::api::keys::Keys;
use crate::api::problem::Problem;
use crate::api::stream::Followers;
use crate::api::trace::WebhooksSeen;
use crate::clock::Clock;
use crate::limits::API_BODY_BYTES_MAX;

/// What every call needs.
#[derive(Clone)]
pub(crate) struct Api {
    /// Asks the other threads.
    pub(crate) dispatcher: Dispatcher,
    /// Who may call what.
    pub(crate) keys: Arc<Keys>,
    /// Keeps what was changed.
    pub(crate) audit: Audit,
    /// Tells streams of new rows.
    pub(crate) followers: Followers,
    /// Tells how far webhooks are.
    pub(crate) webhooks: WebhooksSeen,
    /// Ends sessions, and revokes tokens.
    pub(crate) access: mpsc::Sender<AccessAsk>,
    /// The process's time.
    pub(crate) clock: Clock,
    /// This node's number.
    pub(crate) node: u16,
}

/// The calls there are; `others` are those about the gateway as a whole.
pub(crate) fn routes(api: Api, others: OpenApiRouter) -> Router {
    let (calls, document) = OpenApiRouter::with_openapi(openapi::empty())
        .routes(routes!(messages::post))
        .routes(routes!(groups::create))
        .routes(routes!(groups::read, groups::delete))
        .routes(routes!(groups::add, groups::remove, groups::replace))
        .routes(routes!(sessions::read))
        .routes(routes!(sessions::end))
        .routes(routes!(access::revoke))
        .routes(routes!(events::list))
        .routes(routes!(trace::follow))
        .routes(routes!(users::groups))
        .routes(routes!(made::list, made::delete))
        .routes(routes!(users::inbox))
        .routes(routes!(stream::open))
        .routes(routes!(users::presence))
        .routes(routes!(connections::list))
        .with_state(api)
        .merge(others)
        .split_for_parts();
    // Strings and numbers: nothing that JSON has not.
    let document = Bytes::from(document.to_json().unwrap_or_default());
    let calls = calls
        .route("/openapi.json", get(move || ready(openapi::answer(&document))))
        .fallback(unknown)
        .method_not_allowed_fallback(not_so)
        .layer(DefaultBodyLimit::max(API_BODY_BYTES_MAX));
    Router::new().nest("/api/v1", calls).merge(docs::routes())
}

async fn unknown() -> Response {
    Problem::unknown_path().into_response()
}

async fn not_so() -> Response {
    Problem::method().into_response()
}
