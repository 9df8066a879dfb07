//! A lease of another process that is in the way of this one: whether that process lives, or only its lease is left.
//!
//! Pure; the simulator's nodes decide by it as well. What always holds: a process that lives renews its lease every
//! second, so this one ends soon; of one that is dead at most some heartbeats come late, and its lease ends in the end.

use crate::limits::LEASE_MS;

/// How long a lease is waited for at the least: no lease of a former process, or of other settings, lasts so long unless
/// it is renewed.
const PATIENCE_MS: u64 = LEASE_MS + 2_000;
/// How often it is looked at meanwhile.
pub const LOOK_MS: u64 = 500;
/// A lease that was renewed so often meanwhile is that of a process that lives: a session has one heartbeat under way.
const RENEWED_ENOUGH: u64 = 4;

/// What has been seen of it.
#[derive(Clone, Copy, Default, Debug)]
pub struct OthersLease {
    waited_ms: u64,
    /// How often it was renewed when it was met first.
    renewed_first: Option<u64>,
}

/// What is to be done about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Look again after [`LOOK_MS`].
    Waits,
    /// Another process lives: this one is to end.
    Lives,
}

impl OthersLease {
    /// It is in the way, and has been renewed so often; `None`: that cannot be told.
    pub fn meet(&mut self, renewed: Option<u64>) -> Verdict {
        let is_over = self.waited_ms >= PATIENCE_MS;
        self.waited_ms += LOOK_MS;
        let Some(renewed) = renewed else { return if is_over { Verdict::Lives } else { Verdict::Waits } };
        let first = self.renewed_first.get_or_insert(renewed);
        // It has ended in between, and another one began.
        *first = (*first).min(renewed);
        if is_over && renewed - *first >= RENEWED_ENOUGH { Verdict::Lives } else { Verdict::Waits }
    }

    /// Nothing of it was seen yet.
    pub(crate) fn is_new(&self) -> bool {
        self.waited_ms == 0
    }
}

#[cfg(test)]
mod tests;
