//! What a browser is given of a page that is part of the binary.
//!
//! Pure. What always holds: nothing of it is cached unasked, guessed at or named to another site, and the page may load what
//! its policy says and nothing else.

use axum::http::header;
use axum::response::{IntoResponse, Response};

/// A part of a page, of this media type, under this content security policy.
pub(crate) fn part(kind: &'static str, text: &'static str, policy: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}
