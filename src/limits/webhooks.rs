//! The bounds of webhooks.
//!
//! Constants only.

/// Journal that is kept for endpoints, stored or not: 16 segments, and what the next start reads more.
pub(crate) const WEBHOOKS_JOURNAL_BYTES: u64 = 1 << 30;
/// Endpoints.
pub(crate) const WEBHOOK_ENDPOINTS_MAX: usize = 16;
/// Secrets of one endpoint: the old one and the new one while they change, and some to spare.
pub(crate) const WEBHOOK_SECRETS_MAX: usize = 4;
/// The shortest and the longest key in a secret (Standard Webhooks: 24 to 64 bytes).
pub(crate) const WEBHOOK_SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Events of one request.
pub(crate) const WEBHOOK_EVENTS_MAX: usize = 500;
/// Bytes of them from which on a request is full; with the last event it may have some 25 KB more.
pub(crate) const WEBHOOK_BYTES_FULL: usize = 1 << 20;
/// How long an event waits for others to be sent with it.
pub(crate) const WEBHOOK_LINGER_MS: u64 = 100;
/// How long a message waits for its recipient to come online, where the endpoint does not say, seconds.
pub(crate) const WEBHOOK_GRACE_S: u64 = 5;
/// The longest that may be said.
pub(crate) const WEBHOOK_GRACE_S_MAX: u64 = 3_600;
/// How often it is looked whether the journal has grown.
pub(crate) const WEBHOOK_LOOK_MS: u64 = 50;
/// Bytes of the journal that are read at once, and held as long as they are not due.
pub(crate) const WEBHOOK_READ_BYTES: usize = 64 * 1024;
/// How long an endpoint may take to answer.
pub(crate) const WEBHOOK_ANSWER_MS: u64 = 15_000;
/// Bytes of an answer that are read, so that the connection can be used again; whoever says more is asked over another.
pub(crate) const WEBHOOK_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How long to wait after the first failure, the second, and so on, seconds; the last stays.
pub(crate) const WEBHOOK_RETRIES_S: [u64; 8] = [1, 2, 5, 10, 30, 60, 120, 300];
/// The longest that an endpoint's `Retry-After` is followed, seconds.
pub(crate) const WEBHOOK_RETRY_AFTER_S_MAX: u64 = 3_600;
/// What may be asked of an endpoint and waits.
pub(crate) const WEBHOOK_ORDERS_MAX: usize = 8;
