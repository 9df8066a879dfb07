//! Reads the time for everything that decides by it.
//!
//! Every thread may read it; the core (`shard/`, `ledger/`, the store's keeper) never does: it is handed a [`Now`] with each
//! event. Tasks of the threads that talk over the network (control, cluster) wait by tokio's clock, which is theirs alone.
//! What always holds: `Now::mono_ms` never goes back; `Now::unix_ms` may.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::time::ClockId;

/// One reading of both clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Milliseconds since the process started; never goes back.
    pub mono_ms: u64,
    /// Milliseconds since the Unix epoch; may jump.
    pub unix_ms: u64,
}

/// Reads the clocks. Cheap to copy; one per thread.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start_ns: u64,
}

impl Clock {
    /// A clock whose monotonic time starts now.
    pub fn start() -> Self {
        Clock { start_ns: monotonic_ns() }
    }

    /// A clock whose monotonic time is the host's: a time of one process can be compared with one of another.
    pub(crate) fn of_host() -> Self {
        Clock { start_ns: 0 }
    }

    /// Both clocks, in milliseconds.
    #[expect(clippy::disallowed_methods, reason = "the clock is where time is read")]
    pub fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono_ms: self.mono_ns() / 1_000_000, unix_ms: unix.as_millis() as u64 }
    }

    /// Nanoseconds since this clock was started, for latencies finer than a microsecond.
    pub fn mono_ns(&self) -> u64 {
        monotonic_ns().saturating_sub(self.start_ns)
    }

    /// Microseconds since the process started, for latencies.
    pub(crate) fn mono_us(&self) -> u64 {
        self.mono_ns() / 1_000
    }
}

/// What `Instant` reads too, as a number.
fn monotonic_ns() -> u64 {
    // Linux has this clock always.
    ClockId::CLOCK_MONOTONIC.now().map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}
