//! What the store's thread counts, for metrics.
//!
//! Plain integers that the thread copies out; they count since the process started unless they say otherwise.

use crate::contract::cause::Cause;
use crate::contract::internal::InternalErrors;

/// See each field.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct StoreCounters {
    /// Inbox rows applied.
    pub rows: u64,
    /// Messages applied.
    pub messages: u64,
    /// Messages applied whose names other messages have.
    pub names_taken: u64,
    /// Changes of groups applied.
    pub group_changes: u64,
    /// Transactions committed.
    pub transactions: u64,
    /// Microseconds spent applying (gathering included).
    pub apply_us: u64,
    /// Refusals of the database, in the order of `Cause::ALL`.
    pub refusals: [u64; Cause::COUNT],
    /// Attempts to write that failed and were or will be repeated.
    pub retries: u64,
    /// Pages answered with rows, or with none because there are none.
    pub pages: u64,
    /// Rows in those pages.
    pub page_rows: u64,
    /// Pages and cursors that could not be read.
    pub reads_refused: u64,
    /// Messages looked up for the ledger.
    pub lookups: u64,
    /// Cursors written.
    pub cursors: u64,
    /// Cursors thrown away because too many waited for a store that was away; devices receive some rows again.
    pub cursors_dropped: u64,
    /// Rows deleted because they were older than `store.retention_days`.
    pub rows_expired: u64,
    /// Messages deleted for that.
    pub messages_expired: u64,
    /// Passes over all inboxes for that.
    pub expiries: u64,
    /// How often the database was found put back to an earlier state.
    pub put_back: u64,
    /// Entries of a cluster's stream that it has lost with that, and this node does not have.
    pub entries_lost: u64,
    /// How often what was applied was secured.
    pub secures: u64,
    /// Now: 1 while the database does not take writes.
    pub unavailable: u64,
    /// Now: 1 while journal and database contradict each other.
    pub broken: u64,
    /// Now: everything below this position is in the database.
    pub applied: u64,
    /// Now: everything below this position is durable in the journal.
    pub durable: u64,
    /// Now: everything below this position is in the database and survives a power loss.
    pub secured: u64,
    /// Now: the database's pages that are kept in memory, 64 MiB at most.
    pub cache_bytes: u64,
    /// Now: the tail's weight, about 100 bytes each.
    pub tail_weight: u64,
    /// Of its thread.
    pub internal: InternalErrors,
}

impl StoreCounters {
    /// Counts a refusal.
    pub fn refuse(&mut self, cause: Cause) {
        if let Some(count) = self.refusals.get_mut(cause as usize) {
            *count += 1;
        }
    }
}
