//! Whether the journal takes what it is given: said in the log, and told to the store's thread and to control.
//!
//! Owned by whoever writes the journal. What always holds: a disk that is full for an hour is a line a minute, not a
//! line a commit; and that it is full is no longer told as soon as something was written again.

use std::error::Error;
use std::sync::Arc;

use crate::contract::chain::Chain;
use crate::contract::progress::Progress;
use crate::limits::{JOURNAL_FULL_SAID_MS, JOURNAL_ROOM_LOOK_MS};

/// See the module.
#[derive(Debug)]
pub(crate) struct Room {
    progress: Arc<Progress>,
    /// Since when nothing could be written.
    none_since_ms: Option<u64>,
    /// When it was last said, whether or not there was room since: at the limit there is some now and then.
    said_ms: Option<u64>,
    /// It was said, and not yet that there is room again.
    is_said: bool,
    looked_ms: u64,
}

impl Room {
    /// There is room.
    pub(crate) fn new(progress: Arc<Progress>) -> Self {
        Room { progress, none_since_ms: None, said_ms: None, is_said: false, looked_ms: 0 }
    }

    /// The disk did not take it.
    pub(crate) fn refused(&mut self, now_ms: u64, error: &dyn Error) {
        if self.ends(now_ms) {
            tracing::error!(
                error = %Chain(error),
                "the journal's disk takes nothing: messages are refused with STORAGE_FULL, and it is tried again"
            );
        }
    }

    /// The store is behind by as much as is allowed.
    pub(crate) fn at_limit(&mut self, now_ms: u64) {
        if self.ends(now_ms) {
            tracing::error!(
                "the journal has as much as it may that the store has not (limits.journal_bytes_max, or the messages \
                 that are kept in memory): messages are refused with STORAGE_FULL until the store has caught up"
            );
        }
    }

    /// Something was written, or could be.
    pub(crate) fn is_there(&mut self) {
        if self.none_since_ms.take().is_some() {
            self.progress.journal_takes_messages();
            if std::mem::take(&mut self.is_said) {
                tracing::info!("the journal takes messages again");
            }
        }
    }

    /// There is none.
    pub(crate) fn is_none(&self) -> bool {
        self.none_since_ms.is_some()
    }

    /// There was none, and it is time to look again, whether or not anybody sends: who is sent elsewhere because of
    /// this would never find out.
    pub(crate) fn is_due(&mut self, now_ms: u64) -> bool {
        let due = self.is_none() && now_ms.saturating_sub(self.looked_ms) >= JOURNAL_ROOM_LOOK_MS;
        if due {
            self.looked_ms = now_ms;
        }
        due
    }

    /// Returns whether it is to be said.
    fn ends(&mut self, now_ms: u64) -> bool {
        if self.none_since_ms.is_none() {
            self.none_since_ms = Some(now_ms);
            self.looked_ms = now_ms;
            self.progress.journal_refuses_messages();
        }
        let due = self.said_ms.is_none_or(|said_ms| now_ms.saturating_sub(said_ms) >= JOURNAL_FULL_SAID_MS);
        if due {
            (self.said_ms, self.is_said) = (Some(now_ms), true);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_stays_full_is_not_said_at_every_commit() {
        let mut room = Room::new(Arc::default());
        let mut said = 0;
        for now_ms in (0..600_000).step_by(16) {
            said += u32::from(room.ends(now_ms));
            if now_ms % 64 == 0 {
                room.is_there();
            }
        }
        assert_eq!(said, 10, "once a minute, also where there is some room now and then");
    }

    #[test]
    fn the_store_is_told_as_long_as_there_is_no_room() {
        let progress = Arc::new(Progress::default());
        let mut room = Room::new(Arc::clone(&progress));
        room.at_limit(5);
        assert!(progress.journal_is_full());
        assert!(!room.is_due(5 + JOURNAL_ROOM_LOOK_MS - 1));
        assert!(room.is_due(5 + JOURNAL_ROOM_LOOK_MS));
        room.is_there();
        assert!(!progress.journal_is_full() && !room.is_due(100_000));
    }
}
