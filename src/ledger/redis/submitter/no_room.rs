//! Why nothing new finds room now, for operators.
//!
//! Owned by the engine. What always holds: a reason counts for a while after it was met last, so that it outlasts the
//! pauses of those who were refused, and ends with what it is about; and a disk that is full for an hour is a line of the log
//! a minute, not a line a submission.

use std::error::Error;

use crate::clock::Now;
use crate::contract::chain::Chain;
use crate::contract::report::StandsStill;
use crate::limits::JOURNAL_FULL_SAID_MS;

/// For so long after it was met a reason counts; what lasts is met once a second.
const COUNTS_MS: u64 = 5_000;

/// The reason.
#[derive(Debug, Default)]
pub(super) struct NoRoom {
    /// When it was met last, monotonic milliseconds.
    met: Option<(u64, StandsStill)>,
    /// When the log was last told of this node's disk, monotonic milliseconds.
    disk_said_ms: Option<u64>,
}

impl NoRoom {
    /// Something found no room, or would not.
    pub(super) fn meet(&mut self, now: Now, why: StandsStill) {
        self.met = Some((now.mono_ms, why));
    }

    /// This node's disk did not take what was submitted.
    pub(super) fn meet_full_disk(&mut self, now: Now, error: &dyn Error) {
        self.meet(now, StandsStill::LogFull);
        if self.is_disk_to_be_said(now) {
            tracing::error!(
                error = %Chain(error),
                "this node's disk takes nothing: messages are refused with STORAGE_FULL, and it is tried again"
            );
        }
    }

    fn is_disk_to_be_said(&mut self, now: Now) -> bool {
        let is_due =
            self.disk_said_ms.is_none_or(|said_ms| now.mono_ms.saturating_sub(said_ms) >= JOURNAL_FULL_SAID_MS);
        if is_due {
            self.disk_said_ms = Some(now.mono_ms);
        }
        is_due
    }

    /// Forgets what was not met for a while.
    pub(super) fn pass(&mut self, now: Now) {
        self.met.take_if(|(at, _)| now.mono_ms.saturating_sub(*at) >= COUNTS_MS);
    }

    pub(super) fn why(&self) -> Option<StandsStill> {
        self.met.map(|(_, why)| why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_stays_full_is_not_said_for_every_submission() {
        let mut no_room = NoRoom::default();
        let said =
            (0..600_000).step_by(3).filter(|mono_ms| no_room.is_disk_to_be_said(Now { mono_ms: *mono_ms, unix_ms: 0 }));
        assert_eq!(said.count(), 10, "once a minute");
    }
}
