//! What the store has not yet, by who sent it: nobody has more than a share, however far the store is behind.
//!
//! On the ledger's thread. What always holds: the tail's weight is known before the store has seen what adds to it, so it
//! stays below its limit; while little is unstored nothing is counted by sender, and a message costs two comparisons; from
//! then on every message counts against its sender until the store has it. What a commit that failed was counted for is
//! given back when the journal has passed it.

use std::collections::{HashMap, VecDeque};

use super::JournalEngine;
use crate::contract::internal::{OrCount, Place};
use crate::contract::keyed::TableKey;
use crate::contract::position::JournalPosition;
use crate::contract::traffic::{Limited, TrafficLimit};
use crate::journal::disk::Disk;
use crate::ledger::answers::Refusal;
use crate::limits::STORAGE_FULL_RETRY_MS;
use ringway_wire::ids::UserId;

/// Below this part of each limit nothing is counted by sender.
const COUNTED_FROM: u64 = 8;
/// What is counted is given back in stretches of so many bytes of the journal.
const STRETCH_BYTES: u64 = 1 << 20;
/// Most weight of a stretch, and so most senders of one.
const STRETCH_WEIGHT: u64 = 4_096;

/// What the journal, and the store's tail, have of something.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Load {
    /// Of the journal.
    bytes: u64,
    /// Of the tail, in messages: a member of a roster counts as one.
    weight: u64,
}

impl Load {
    fn add(&mut self, more: Load) {
        self.bytes += more.bytes;
        self.weight += more.weight;
    }

    fn subtract(&mut self, less: Load) {
        self.bytes = self.bytes.checked_sub(less.bytes).or_count(Place::Ledger).unwrap_or_default();
        self.weight = self.weight.checked_sub(less.weight).or_count(Place::Ledger).unwrap_or_default();
    }
}

/// A part of the journal that is unstored.
#[derive(Debug)]
struct Stretch {
    end: JournalPosition,
    whole: Load,
    by_sender: HashMap<UserId, Load, TableKey>,
}

/// What is unstored.
#[derive(Debug)]
pub(in crate::ledger) struct Shares {
    key: TableKey,
    by_sender: HashMap<UserId, Load, TableKey>,
    /// The oldest first.
    stretches: VecDeque<Stretch>,
    counts: bool,
    /// Commits that the store's tail has not taken in: where each ends, and what it weighs there.
    ahead: VecDeque<(JournalPosition, u64)>,
    ahead_weight: u64,
}

impl Shares {
    pub(in crate::ledger) fn new(key: TableKey) -> Self {
        Shares {
            key,
            by_sender: HashMap::with_hasher(key),
            stretches: VecDeque::new(),
            counts: false,
            ahead: VecDeque::new(),
            ahead_weight: 0,
        }
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

    /// The store has all below.
    fn stored(&mut self, to: JournalPosition) {
        while self.stretches.front().is_some_and(|stretch| stretch.end <= to)
            && let Some(stretch) = self.stretches.pop_front()
        {
            for (sender, load) in stretch.by_sender {
                let Some(of_sender) = self.by_sender.get_mut(&sender).or_count(Place::Ledger) else { continue };
                of_sender.subtract(load);
                if *of_sender == Load::default() {
                    self.by_sender.remove(&sender);
                }
            }
        }
    }

    fn count(&mut self, sender: UserId, end: JournalPosition, load: Load) {
        let is_full =
            |stretch: &Stretch| stretch.whole.bytes >= STRETCH_BYTES || stretch.whole.weight >= STRETCH_WEIGHT;
        if self.stretches.back().is_none_or(is_full) {
            let by_sender = HashMap::with_hasher(self.key);
            self.stretches.push_back(Stretch { end, whole: Load::default(), by_sender });
        }
        if let Some(stretch) = self.stretches.back_mut() {
            stretch.end = stretch.end.max(end);
            stretch.whole.add(load);
            stretch.by_sender.entry(sender).or_default().add(load);
            self.by_sender.entry(sender).or_default().add(load);
        }
    }

    fn clear(&mut self) {
        self.stretches.clear();
        self.by_sender.clear();
        self.counts = false;
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
        let (bytes_max, weight_max) = (self.settings.journal_bytes_max, self.settings.tail_messages_max);
        let is_little =
            self.unstored_bytes() <= bytes_max / COUNTED_FROM && self.unstored_weight() <= weight_max / COUNTED_FROM;
        if is_little {
            if self.shares.counts {
                self.shares.clear();
            }
            return Ok(());
        }
        self.shares.counts = true;
        self.shares.stored(self.progress.applied().in_journal());
        let percent = u64::from(self.settings.traffic.user_unstored_percent);
        let share = |max: u64| (max / 100).saturating_mul(percent).max(1);
        let load = self.shares.by_sender.get(&sender).copied().unwrap_or_default();
        if percent < 100 && (load.bytes >= share(bytes_max) || load.weight >= share(weight_max)) {
            let (limit, retry_after_ms) = (TrafficLimit::UserUnstored, STORAGE_FULL_RETRY_MS);
            return Err(Refusal::Limited(Limited { limit, retry_after_ms }));
        }
        Ok(())
    }

    /// A message was staged: the batch was so long before, and the tail will have so much more to index.
    pub(super) fn count_share(&mut self, sender: UserId, batch_before: usize, weight: u64) {
        self.commit.weight += weight;
        if self.shares.counts {
            debug_assert!(self.commit.batch.len() > batch_before, "a message was staged");
            let bytes = self.commit.batch.len().saturating_sub(batch_before) as u64;
            let end = JournalPosition(self.journal.tail().0 + self.commit.batch.len() as u64);
            self.shares.count(sender, end, Load { bytes, weight });
        }
    }
}
