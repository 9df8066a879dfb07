//! The load generator's only reader of time.
//!
//! What always holds: `mono_ns` never goes back; `unix_ms` may.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::time::ClockId;

/// Reads the clocks. Cheap to copy; one per thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start_ns: u64,
}

impl Clock {
    /// A clock whose monotonic time starts now.
    pub(crate) fn start() -> Self {
        Clock { start_ns: monotonic_ns() }
    }

    /// A clock whose monotonic time is the host's: a time of one process can be compared with one of another.
    pub(crate) fn of_host() -> Self {
        Clock { start_ns: 0 }
    }

    /// Nanoseconds since this clock was started.
    pub(crate) fn mono_ns(&self) -> u64 {
        monotonic_ns().saturating_sub(self.start_ns)
    }

    /// Milliseconds since the Unix epoch.
    #[expect(clippy::disallowed_methods, reason = "the clock is where time is read")]
    pub(crate) fn unix_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
    }
}

/// What `Instant` reads too, as a number.
fn monotonic_ns() -> u64 {
    // Linux has this clock always.
    ClockId::CLOCK_MONOTONIC.now().map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}
