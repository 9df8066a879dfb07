//! `/api/docs`: a page that shows the API's document and tries its calls.
//!
//! Bundled. What always holds: it loads nothing from elsewhere and runs no script that is not its own (its
//! Content-Security-Policy says so); it knows no more than `openapi.json`, which anybody may read, and calls with the key that
//! is typed into it, which it keeps nowhere.

use axum::Router;
use axum::routing::get;

use super::page::part;

const PAGE: &str = include_str!("docs/page.html");
const SCRIPT: &str = include_str!("docs/page.js");
const STYLE: &str = include_str!("docs/page.css");

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// The page and its parts.
pub(super) fn routes() -> Router {
    Router::new()
        .route("/api/docs", get(|| async { part("text/html; charset=utf-8", PAGE, POLICY) }))
        .route("/api/docs/page.js", get(|| async { part("text/javascript; charset=utf-8", SCRIPT, POLICY) }))
        .route("/api/docs/page.css", get(|| async { part("text/css; charset=utf-8", STYLE, POLICY) }))
}
