//! What is shown of an endpoint: over the API and in the metrics.

use serde::Serialize;
use utoipa::ToSchema;

use crate::contract::latencies::Latencies;

/// An endpoint, as it is now.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, ToSchema)]
pub(crate) struct Webhook {
    /// Its name.
    pub(crate) webhook: String,
    /// Where it is.
    pub(crate) url: String,
    /// What it is told.
    pub(crate) events: Vec<&'static str>,
    /// `telling`; `retrying`: the last request failed; `off`: it has answered 410; `standby`: another node tells it.
    pub(crate) state: &'static str,
    /// Journal that it was not told of yet, bytes; what is not due counts.
    pub(crate) behind_bytes: u64,
    /// Requests that it has taken.
    pub(crate) requests_total: u64,
    /// Events in them.
    pub(crate) events_total: u64,
    /// Requests that failed.
    pub(crate) failures_total: u64,
    /// Journal that was gone before it was told of it, bytes.
    pub(crate) skipped_bytes_total: u64,
    /// Why the last request that failed did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_failure: Option<String>,
    /// When that was, Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_failure_ms: Option<u64>,
    /// When it is tried again, Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_try_ms: Option<u64>,
    /// How long requests took, those that failed too; in the metrics alone.
    #[serde(skip)]
    #[schema(ignore)]
    pub(crate) requests: Latencies,
}
