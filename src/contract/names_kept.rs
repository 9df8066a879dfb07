//! How long Redis keeps the names of messages, and what follows from it.
//!
//! Pure. What always holds: Redis still knows every name that a node relies on without asking the store, as far as clocks
//! may be apart.

use crate::limits::{CLAIMS_S, CLAIMS_SLACK_S, REDIS_TIMEOUT_MS, WINDOW_MS};

/// The fewest seconds: longer than what is on its way may take.
pub(crate) const NAMES_S_MIN: u64 = 15;

/// So long after it was said a second of Redis's clock is relied on: a call that takes longer ends its session.
const HEARD_AGO_S: u64 = REDIS_TIMEOUT_MS / 1_000;

/// The same on all nodes of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NamesKept {
    seconds: u64,
}

impl Default for NamesKept {
    fn default() -> Self {
        NamesKept { seconds: CLAIMS_S }
    }
}

impl NamesKept {
    /// So many seconds; fewer than tests need, or more than nodes have a use for, are not taken.
    pub fn new(seconds: u64) -> Self {
        NamesKept { seconds: seconds.clamp(NAMES_S_MIN, CLAIMS_S) }
    }

    /// For so long Redis keeps a name at the least.
    pub fn seconds(self) -> u64 {
        self.seconds
    }

    /// Of these the last ones, which it may have forgotten.
    pub fn slack_s(self) -> u64 {
        self.seconds * CLAIMS_SLACK_S / CLAIMS_S
    }

    /// Nodes rely on it for names that are no older than this.
    pub(crate) fn window_ms(self) -> u64 {
        self.seconds * WINDOW_MS / CLAIMS_S
    }

    /// Redis may have forgotten names of this second of its clock when it hears of them. `redis_s`: what it has said last. It
    /// is later by then; and of what is called together Redis would give back the oldest, and take the rest before it.
    pub(crate) fn is_forgotten(self, named_s: u64, redis_s: u64) -> bool {
        named_s + self.seconds <= redis_s + HEARD_AGO_S + self.slack_s()
    }
}

#[cfg(test)]
mod tests;
