//! The only reader of time in this crate, for its transports: the core is handed a [`Now`].
//!
//! What always holds: `Now::mono_ms` never goes back; `Now::unix_ms` may.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::Now;

/// Reads the clocks; its monotonic time begins when it is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the clock is where time is read")]
    pub(crate) fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// Both clocks.
    #[expect(clippy::disallowed_methods, reason = "the clock is where time is read")]
    pub(crate) fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono_ms: self.start.elapsed().as_millis() as u64, unix_ms: unix.as_millis() as u64 }
    }

    /// How long until a monotonic time: a little more, so that it has come when this is over.
    pub(crate) fn until(&self, mono_ms: u64) -> Duration {
        Duration::from_millis(mono_ms + 1).saturating_sub(self.start.elapsed())
    }
}
