//! What is wrong with the database at the moment: said in the log when it begins, changes and lasts; and counted.
//!
//! Owned by the store's core. What always holds: an outage of an hour is a line a minute for each of its causes, not a
//! line an attempt; and every refusal is counted under its cause.

use std::error::Error;

use crate::contract::cause::Cause;
use crate::contract::chain::Chain;
use crate::contract::internal::{OrCount, Place};
use crate::contract::store_counters::StoreCounters;
use crate::limits::STORE_TROUBLE_SAID_MS;

/// Whether trying again is enough.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Severity {
    /// It passes, by itself or when an operator has mended the database.
    Passing,
    /// Journal and database contradict each other: somebody has to decide which is right.
    Contradiction,
}

/// What becomes of messages meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum JournalRoom {
    /// The journal keeps them.
    Keeps,
    /// The journal is full, perhaps with the same disk: they are refused.
    Full,
}

impl JournalRoom {
    fn consequence(self) -> &'static str {
        match self {
            JournalRoom::Keeps => "messages are kept in the journal, up to limits.journal_bytes_max",
            JournalRoom::Full => "the journal is full too, and messages are refused with STORAGE_FULL",
        }
    }
}

/// When each cause was last named in the log, monotonic milliseconds; in the order of `Cause::ALL`.
#[derive(Debug, Default)]
pub(crate) struct Said([Option<u64>; Cause::COUNT]);

impl Said {
    /// It is to be named now: it was not for `STORE_TROUBLE_SAID_MS`.
    pub(crate) fn is_due(&mut self, now_ms: u64, cause: Cause) -> bool {
        let Some(said_ms) = self.0.get_mut(cause as usize).or_count(Place::Store) else { return false };
        let is_due = said_ms.is_none_or(|said_ms| now_ms.saturating_sub(said_ms) >= STORE_TROUBLE_SAID_MS);
        if is_due {
            *said_ms = Some(now_ms);
        }
        is_due
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    /// Since the trouble began.
    said: Said,
}

impl Trouble {
    /// A write was refused.
    pub(crate) fn begins_or_lasts(
        &mut self,
        now_ms: u64,
        journal: JournalRoom,
        (cause, severity): (Cause, Severity),
        error: &dyn Error,
        counters: &mut StoreCounters,
    ) {
        counters.retries += 1;
        counters.unavailable = 1;
        counters.broken = u64::from(severity == Severity::Contradiction);
        counters.refuse(cause);
        if !self.said.is_due(now_ms, cause) {
            return;
        }
        let (cause, error, meanwhile) = (cause.name(), Chain(error), journal.consequence());
        match severity {
            Severity::Passing => tracing::error!(
                cause,
                %error,
                "the journal is not being applied to the store; {meanwhile}; it is tried again"
            ),
            Severity::Contradiction => tracing::error!(
                cause,
                %error,
                "the store refuses what the journal has, and will again: somebody must look at it (`ringway store \
                 check` says what differs); until then {meanwhile}"
            ),
        }
    }

    /// A write went through after so many that did not.
    pub(crate) fn ends(&mut self, failures: u32, counters: &mut StoreCounters) {
        if failures > 0 {
            tracing::info!(failures, "the journal is being applied to the store again");
        }
        self.said = Said::default();
        (counters.unavailable, counters.broken) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_named_once_a_minute_each_cause_by_itself() {
        let mut said = Said::default();
        let named = |at_ms: &u64| said.is_due(*at_ms, Cause::Journal);
        let times: Vec<u64> = (0..3 * STORE_TROUBLE_SAID_MS).step_by(100).filter(named).collect();
        assert_eq!(times, [0, STORE_TROUBLE_SAID_MS, 2 * STORE_TROUBLE_SAID_MS]);
        assert!(said.is_due(1, Cause::Connection));
    }
}
