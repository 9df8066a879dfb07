//! How long messages take until they are written to their recipients' sockets.
//!
//! Owned by the loop of one shard. What always holds: a message is measured once on each shard that has it, when all
//! outboxes that it was put into have been written; what comes from other nodes is not measured. Per message, not per
//! recipient: a vector's push and a bucket's count.

use std::collections::VecDeque;

use crate::contract::delivery::Delivery;
use crate::contract::ids::{Origin, ShardId};
use crate::contract::report::ShellCounters;

/// The messages of a commit, until they are written.
#[derive(Debug, Default)]
pub(crate) struct Unwritten {
    /// Of the commit being handed in, one for each delivery that is left of it.
    coming: VecDeque<Option<Origin>>,
    /// Put into outboxes since these were last written.
    handed_in: Vec<Origin>,
}

impl Unwritten {
    /// A commit has come.
    pub(crate) fn begin(&mut self, commit: &[Delivery]) {
        self.coming.clear();
        self.coming.extend(commit.iter().map(|delivery| delivery.sent_by().filter(|origin| origin.is_timed())));
    }

    /// The core has taken all of it but so many deliveries.
    pub(crate) fn taken_but(&mut self, left: usize) {
        let taken = self.coming.len().saturating_sub(left);
        self.handed_in.extend(self.coming.drain(..taken).flatten());
    }

    /// No message waits to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.handed_in.is_empty()
    }

    /// Every outbox has been written.
    pub(crate) fn written(&mut self, now_us: u64, shard: ShardId, counters: &mut ShellCounters) {
        for origin in self.handed_in.drain(..) {
            let Some(waited_us) = origin.waited_us(now_us) else { continue };
            counters.deliveries.record(waited_us);
            if origin.session.shard == shard {
                counters.acks.record(waited_us);
            }
        }
    }
}

#[cfg(test)]
mod tests;
