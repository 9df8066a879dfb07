//! What the store has not yet, by who sent it: nobody has more than a share, however far the store is behind.
//!
//! On the ledger's thread; both engines use it, each with its own positions. What always holds: while little is unstored
//! nothing is counted by sender; from then on every message counts against its sender until the store has it.

use std::collections::{HashMap, VecDeque};

use crate::contract::internal::{OrCount, Place};
use crate::contract::keyed::TableKey;
use crate::contract::traffic::{Limited, TrafficLimit};
use crate::ledger::answers::Refusal;
use crate::limits::STORAGE_FULL_RETRY_MS;
use ringway_wire::ids::UserId;

/// Below this part of each limit nothing is counted by sender.
const COUNTED_FROM: u64 = 8;
/// What is counted is given back in stretches of so many bytes.
const STRETCH_BYTES: u64 = 1 << 20;
/// Most weight of a stretch, and so most senders of one.
const STRETCH_WEIGHT: u64 = 4_096;

/// How much of something.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Load {
    /// Of the journal.
    pub(crate) bytes: u64,
    /// Of the tail, in messages: a member of a roster counts as one.
    pub(crate) weight: u64,
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

    /// Too little to count of what there may be.
    fn is_little(self, max: Load) -> bool {
        self.bytes <= max.bytes / COUNTED_FROM && self.weight <= max.weight / COUNTED_FROM
    }
}

/// A part of what is unstored.
#[derive(Debug)]
struct Stretch<P> {
    end: P,
    whole: Load,
    by_sender: HashMap<UserId, Load, TableKey>,
}

/// What is unstored. `P` is a place in the ledger's order.
#[derive(Debug)]
pub(crate) struct Unstored<P> {
    key: TableKey,
    by_sender: HashMap<UserId, Load, TableKey>,
    /// The oldest first.
    stretches: VecDeque<Stretch<P>>,
    counts: bool,
}

impl<P: Copy + Ord> Unstored<P> {
    /// Nothing is.
    pub(crate) fn new(key: TableKey) -> Self {
        Unstored { key, by_sender: HashMap::with_hasher(key), stretches: VecDeque::new(), counts: false }
    }

    /// So much is unstored of all, and so much may be; the store has all up to `stored`.
    pub(crate) fn look(&mut self, all: Load, max: Load, stored: P) {
        if !all.is_little(max) {
            self.counts = true;
            self.stored(stored);
        } else if self.counts {
            self.forget();
        }
    }

    /// Nothing is unstored any more, or so little that it does not count.
    pub(crate) fn forget(&mut self) {
        self.stretches.clear();
        self.by_sender.clear();
        self.counts = false;
    }

    /// What is sent now counts.
    pub(crate) fn counts(&self) -> bool {
        self.counts
    }

    /// Whether the sender may have more of what is unstored, of which he may have so much per cent.
    pub(crate) fn check(&self, sender: UserId, max: Load, percent: u32) -> Result<(), Refusal> {
        if !self.counts || percent >= 100 {
            return Ok(());
        }
        let share = |max: u64| (max / 100).saturating_mul(percent.into()).max(1);
        let load = self.by_sender.get(&sender).copied().unwrap_or_default();
        if load.bytes >= share(max.bytes) || load.weight >= share(max.weight) {
            let (limit, retry_after_ms) = (TrafficLimit::UserUnstored, STORAGE_FULL_RETRY_MS);
            return Err(Refusal::Limited(Limited { limit, retry_after_ms }));
        }
        Ok(())
    }

    /// A message of this sender's, up to there, is unstored.
    pub(crate) fn count(&mut self, sender: UserId, end: P, load: Load) {
        let is_full =
            |stretch: &Stretch<P>| stretch.whole.bytes >= STRETCH_BYTES || stretch.whole.weight >= STRETCH_WEIGHT;
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

    /// The store has all up to there.
    fn stored(&mut self, to: P) {
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
}
