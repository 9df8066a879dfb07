//! What the store's thread counts, for metrics.
//!
//! Plain integers that the thread copies out; they count since the process started unless they say otherwise.

use crate::contract::cause::Cause;
use crate::contract::internal::InternalErrors;
use crate::contract::latencies::Latencies;

/// See each field.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct StoreCounters {
    /// Inbox rows applied.
    pub rows: u64,
    /// Messages applied.
    pub(crate) messages: u64,
    /// Messages applied whose names other messages have.
    pub(crate) names_taken: u64,
    /// Changes of groups applied.
    pub(crate) group_changes: u64,
    /// Transactions committed.
    pub(crate) transactions: u64,
    /// How long they took, gathering included.
    pub(crate) applying: Latencies,
    /// Refusals of the database, in the order of `Cause::ALL`.
    pub(crate) refusals: [u64; Cause::COUNT],
    /// Attempts to write that failed and were or will be repeated.
    pub(crate) retries: u64,
    /// Pages answered with rows, or with none because there are none.
    pub(crate) pages: u64,
    /// Rows in those pages.
    pub(crate) page_rows: u64,
    /// Pages and cursors that could not be read.
    pub(crate) reads_refused: u64,
    /// Messages looked up for the ledger.
    pub(crate) lookups: u64,
    /// Cursors written.
    pub(crate) cursors: u64,
    /// Cursors thrown away because too many waited for a store that was away; devices receive some rows again.
    pub(crate) cursors_dropped: u64,
    /// Rows deleted because they were older than `store.retention_days`.
    pub(crate) rows_expired: u64,
    /// Messages deleted for that.
    pub(crate) messages_expired: u64,
    /// Passes over all inboxes for that.
    pub(crate) expiries: u64,
    /// How often the database was found put back to an earlier state.
    pub(crate) put_back: u64,
    /// Entries of a cluster's stream that it has lost with that, and this node does not have.
    pub(crate) entries_lost: u64,
    /// How often what was applied was secured.
    pub(crate) secures: u64,
    /// Now: 1 while the database does not take writes.
    pub(crate) unavailable: u64,
    /// Now: 1 while journal and database contradict each other.
    pub(crate) broken: u64,
    /// Now: everything below this position is in the database.
    pub(crate) applied: u64,
    /// Now: everything below this position is durable in the journal.
    pub(crate) durable: u64,
    /// Now: everything below this position is in the database and survives a power loss.
    pub(crate) secured: u64,
    /// Now: the database's pages that are kept in memory, 64 MiB at most.
    pub(crate) cache_bytes: u64,
    /// Now: the tail's weight, about 100 bytes each.
    pub(crate) tail_weight: u64,
    /// Of its thread.
    pub(crate) internal: InternalErrors,
}

impl StoreCounters {
    /// Counts a refusal.
    pub(crate) fn refuse(&mut self, cause: Cause) {
        if let Some(count) = self.refusals.get_mut(cause as usize) {
            *count += 1;
        }
    }
}
