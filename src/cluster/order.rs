//! From the streams of several buckets, and the order that lies in the first of them, to the one stream of the ledger.
//!
//! Pure: on Redis's thread, which reads and calls. An order entry says that the next so many entries of a bucket are
//! the next ones of the ledger. What always holds: whatever comes first, entries are handed out in the order's order,
//! each with the number that it has on every node; what is read and not ordered, or ordered and not read, waits, at most
//! `MERGE_ENTRIES_MAX` of each bucket and as many of the order; where something was cut off, the numbers show it.

use std::collections::VecDeque;

use crate::contract::internal::{self, OrCount};
use crate::ledger::redis::link::Arrival;
use crate::limits::{MERGE_ENTRIES_MAX, ORDER_RUNS_MAX, STREAM_READ_MAX};

/// How far each bucket is at an entry of the ledger.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// The entry.
    pub(crate) entry: u64,
    /// Each bucket's last one.
    pub(crate) buckets: Vec<u64>,
}

impl Place {
    /// From what a script replied: the entry, then each bucket's.
    pub(super) fn parse(text: &str, buckets: usize) -> Option<Place> {
        let numbers: Option<Vec<u64>> = text.split(' ').map(|word| word.parse().ok()).collect();
        let (entry, each) = numbers.as_ref()?.split_first()?;
        (each.len() == buckets).then(|| Place { entry: *entry, buckets: each.to_vec() })
    }
}

/// An entry of the order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct OrderEntry {
    /// Whose entries are next.
    bucket: usize,
    /// The last of them.
    to: u64,
    /// All buckets, and the ledger, before it.
    before: Place,
}

impl OrderEntry {
    /// As `order.lua` wrote it; `end`: its number.
    pub(super) fn parse(end: u64, text: &[u8], buckets: usize) -> Option<OrderEntry> {
        let text = std::str::from_utf8(text).ok()?;
        let (bucket, rest) = text.split_once(' ')?;
        let bucket: usize = bucket.parse().ok()?;
        let Place { entry: to, buckets } = Place::parse(rest, buckets)?;
        let length = to.checked_sub(*buckets.get(bucket)?)?;
        Some(OrderEntry { bucket, to, before: Place { entry: end.checked_sub(length)?, buckets } })
    }

    /// Which entry of which bucket an entry of the ledger is, if it is one of these.
    pub(super) fn find(&self, entry: u64) -> Option<(usize, u64)> {
        let is_its = entry > self.before.entry && entry <= self.end();
        is_its.then(|| (self.bucket, self.to - (self.end() - entry)))
    }

    fn end(&self) -> u64 {
        // One that names another bucket than there is was not parsed.
        self.before.entry + self.to - self.before.buckets[self.bucket]
    }
}

/// Entries of a bucket that stand one behind the other in the ledger as well.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// The last of them, in the bucket.
    to: u64,
    /// The same one in the ledger.
    entry: u64,
    length: u64,
}

/// One bucket's stream.
#[derive(Debug, Default)]
struct Bucket {
    /// Read and not handed out.
    waiting: VecDeque<Arrival>,
    /// The last that was handed out.
    given: u64,
    /// The last that was read.
    read: u64,
    /// The last that is known to be ordered.
    ordered: u64,
    runs: VecDeque<Run>,
}

/// The streams on their way to be one.
#[derive(Debug)]
pub(super) struct Merge {
    buckets: Vec<Bucket>,
    /// Order entries that were read and not carried out.
    orders: VecDeque<OrderEntry>,
    /// The last entry that was handed out.
    given: u64,
    /// The last that the order entries read say something of.
    order_read: u64,
}

impl Merge {
    /// Goes on behind a place.
    pub(super) fn begin(at: Place) -> Merge {
        let bucket = |at: u64| Bucket { given: at, read: at, ordered: at, ..Bucket::default() };
        let buckets = at.buckets.into_iter().map(bucket).collect();
        Merge { buckets, orders: VecDeque::new(), given: at.entry, order_read: at.entry }
    }

    /// The last entry that was handed out.
    pub(super) fn given(&self) -> u64 {
        self.given
    }

    /// Behind which entry a bucket is to be read on; `None`: enough of it waits.
    pub(super) fn wants(&self, bucket: usize) -> Option<u64> {
        let bucket = self.buckets.get(bucket)?;
        (bucket.waiting.len() + STREAM_READ_MAX <= MERGE_ENTRIES_MAX).then_some(bucket.read)
    }

    /// The same of the order.
    pub(super) fn wants_order(&self) -> Option<u64> {
        (self.orders.len() + STREAM_READ_MAX <= MERGE_ENTRIES_MAX).then_some(self.order_read)
    }

    /// Entries of a bucket were read.
    pub(super) fn read(&mut self, bucket: usize, mut arrivals: Vec<Arrival>) {
        let Some(bucket) = self.buckets.get_mut(bucket).or_count(internal::Place::Cluster) else { return };
        // They were asked for before some of them were passed over.
        arrivals.retain(|arrival| arrival.count > bucket.read);
        if let Some(last) = arrivals.last() {
            bucket.read = last.count;
        }
        bucket.waiting.extend(arrivals);
    }

    /// An order entry was read.
    pub(super) fn ordered(&mut self, entry: OrderEntry) {
        self.order_read = entry.end();
        self.knows_ordered(entry.bucket, entry.to);
        self.orders.push_back(entry);
    }

    /// Entries of a bucket are ordered, though the order entry that says so was perhaps not read.
    pub(super) fn knows_ordered(&mut self, bucket: usize, to: u64) {
        if let Some(bucket) = self.buckets.get_mut(bucket).or_count(internal::Place::Cluster) {
            bucket.ordered = bucket.ordered.max(to);
        }
    }

    /// A bucket is known to be ordered up to this entry.
    pub(super) fn is_ordered(&self, bucket: usize, to: u64) -> bool {
        self.buckets.get(bucket).is_some_and(|bucket| bucket.ordered >= to)
    }

    /// The last entry that was read of a bucket, if it is not known to be ordered.
    pub(super) fn unordered(&self, bucket: usize) -> Option<u64> {
        self.buckets.get(bucket).filter(|bucket| bucket.read > bucket.ordered).map(|bucket| bucket.read)
    }

    /// The next entries of the ledger, as far as they are here, at most so many.
    pub(super) fn take(&mut self, count_max: usize) -> Vec<Arrival> {
        let mut out = Vec::new();
        while out.len() < count_max
            && let Some(order) = self.orders.front()
        {
            if order.before.entry > self.given {
                // The order was cut off: the next number says so.
                self.given = order.before.entry;
                for (bucket, at) in std::iter::zip(&mut self.buckets, &order.before.buckets) {
                    bucket.pass(*at);
                }
            }
            let to = order.to;
            let Some(bucket) = self.buckets.get_mut(order.bucket).or_count(internal::Place::Cluster) else { break };
            let before = bucket.given;
            while bucket.given < to
                && out.len() < count_max
                && let Some(mut arrival) = bucket.waiting.pop_front()
            {
                // One more; or more, where the bucket was cut off.
                self.given += arrival.count - bucket.given;
                bucket.given = arrival.count;
                arrival.count = self.given;
                out.push(arrival);
            }
            bucket.note_run(bucket.given - before, self.given);
            if bucket.given < to {
                break;
            }
            self.orders.pop_front();
        }
        out
    }

    /// Everything of a bucket up to this entry has been handed out.
    pub(super) fn has_given(&self, bucket: usize, to: u64) -> bool {
        self.buckets.get(bucket).is_some_and(|bucket| bucket.given >= to)
    }

    /// Which entry of the ledger an entry of a bucket is, if it was handed out not long ago.
    pub(super) fn entry_of(&self, bucket: usize, at: u64) -> Option<u64> {
        let runs = &self.buckets.get(bucket)?.runs;
        let run = runs.get(runs.partition_point(|run| run.to < at))?;
        let behind = run.to - at;
        (behind < run.length).then(|| run.entry - behind)
    }
}

impl Bucket {
    /// Leaves out entries that the order no longer tells of.
    fn pass(&mut self, to: u64) {
        while self.waiting.front().is_some_and(|arrival| arrival.count <= to) {
            self.waiting.pop_front();
        }
        self.given = self.given.max(to);
        self.read = self.read.max(to);
    }

    fn note_run(&mut self, length: u64, entry: u64) {
        if length == 0 {
            return;
        }
        match self.runs.back_mut() {
            Some(last) if last.entry + length == entry => {
                *last = Run { to: self.given, entry, length: last.length + length };
            }
            _ => self.runs.push_back(Run { to: self.given, entry, length }),
        }
        if self.runs.len() > ORDER_RUNS_MAX {
            self.runs.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
