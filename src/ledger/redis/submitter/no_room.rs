//! Why nothing new finds room now, for operators.
//!
//! Owned by the engine. What always holds: a reason counts for a while after it was met last, so that it outlasts the
//! pauses of those who were refused, and ends with what it is about.

use crate::clock::Now;
use crate::contract::report::StandsStill;

/// For so long after it was met a reason counts; what lasts is met once a second.
const COUNTS_MS: u64 = 5_000;

/// The reason.
#[derive(Debug, Default)]
pub(super) struct NoRoom {
    /// When it was met last, monotonic milliseconds.
    met: Option<(u64, StandsStill)>,
}

impl NoRoom {
    /// Something found no room, or would not.
    pub(super) fn meet(&mut self, now: Now, why: StandsStill) {
        self.met = Some((now.mono_ms, why));
    }

    /// Forgets what was not met for a while.
    pub(super) fn pass(&mut self, now: Now) {
        self.met.take_if(|(at, _)| now.mono_ms.saturating_sub(*at) >= COUNTS_MS);
    }

    pub(super) fn why(&self) -> Option<StandsStill> {
        self.met.map(|(_, why)| why)
    }
}
