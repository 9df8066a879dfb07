//! Chaos's only reader of time.
//!
//! What always holds: `us` is the host's monotonic time, so that a time of one process can be compared with one of
//! another.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::time::ClockId;
use ringway_client::Now;

/// Microseconds of the host's monotonic time.
pub(crate) fn us() -> u64 {
    // Linux has this clock always.
    ClockId::CLOCK_MONOTONIC.now().map_or(0, |time| time.tv_sec() as u64 * 1_000_000 + time.tv_nsec() as u64 / 1_000)
}

/// Both clocks, for the client's core.
#[expect(clippy::disallowed_methods, reason = "the clock is where time is read")]
pub(crate) fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { mono_ms: us() / 1_000, unix_ms: unix.as_millis() as u64 }
}
