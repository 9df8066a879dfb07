//! What the store has not yet, by who sent it: nobody has more than a share, however far the store is behind.
//!
//! On the ledger's thread. What always holds: the tail's weight is known before the store has seen what adds to it, so it
//! stays below its limit; while little is unstored nothing is counted by sender, and a message costs two comparisons. What a
//! commit that failed was counted for is given back when the journal has passed it.

use std::collections::VecDeque;

use super::JournalEngine;
use crate::contract::keyed::TableKey;
use crate::contract::position::JournalPosition;
use crate::journal::disk::Disk;
use crate::ledger::answers::Refusal;
use crate::ledger::unstored::{Load, Unstored};
use ringway_wire::ids::UserId;

/// What is unstored.
#[derive(Debug)]
pub(in crate::ledger) struct Shares {
    unstored: Unstored<JournalPosition>,
    /// Commits that the store's tail has not taken in: where each ends, and what it weighs there.
    ahead: VecDeque<(JournalPosition, u64)>,
    ahead_weight: u64,
}

impl Shares {
    pub(in crate::ledger) fn new(key: TableKey) -> Self {
        Shares { unstored: Unstored::new(key), ahead: VecDeque::new(), ahead_weight: 0 }
    }

    /// A commit is durable.
    pub(super) fn committed(&mut self, end: JournalPosition, weight: u64) {
        if weight > 0 {
            self.ahead.push_back((end, weight));
            self.ahead_weight += weight;
        }
    }

    /// The tail has taken in all below.
    fn ingested(&mut self, to: JournalPosition) {
        while self.ahead.front().is_some_and(|(end, _)| *end <= to)
            && let Some((_, weight)) = self.ahead.pop_front()
        {
            self.ahead_weight -= weight;
        }
    }
}

impl<D: Disk> JournalEngine<D> {
    /// What the tail weighs, and will when it has all that is journaled or in this commit.
    pub(super) fn unstored_weight(&mut self) -> u64 {
        let ingested = self.progress.ingested().max(self.progress.applied().in_journal());
        self.shares.ingested(ingested);
        // Read after the position, so that nothing is left out.
        self.progress.tail_messages() + self.shares.ahead_weight + self.commit.weight
    }

    /// The journal's bytes that the store has not.
    pub(super) fn unstored_bytes(&self) -> u64 {
        self.journal.tail().0.saturating_sub(self.progress.applied().0) + self.commit.batch.len() as u64
    }

    /// Whether the sender may have more of what is unstored.
    pub(super) fn check_share(&mut self, sender: UserId) -> Result<(), Refusal> {
        let max = Load { bytes: self.settings.journal_bytes_max, weight: self.settings.tail_messages_max };
        let all = Load { bytes: self.unstored_bytes(), weight: self.unstored_weight() };
        let unstored = &mut self.shares.unstored;
        unstored.look(all, max, self.progress.applied().in_journal());
        unstored.check(sender, max, self.settings.traffic.user_unstored_percent)
    }

    /// A message was staged: the batch was so long before, and the tail will have so much more to index.
    pub(super) fn count_share(&mut self, sender: UserId, batch_before: usize, weight: u64) {
        self.commit.weight += weight;
        if self.shares.unstored.counts() {
            debug_assert!(self.commit.batch.len() > batch_before, "a message was staged");
            let bytes = self.commit.batch.len().saturating_sub(batch_before) as u64;
            let end = JournalPosition(self.journal.tail().0 + self.commit.batch.len() as u64);
            self.shares.unstored.count(sender, end, Load { bytes, weight });
        }
    }
}
