//! How long something takes: counts in fixed buckets, as Prometheus' histograms have them.
//!
//! Plain integers of the thread that counts, which copies them out once a second. What always holds: recording allocates
//! nothing and takes a few nanoseconds; every duration is in one bucket; counts only grow.

/// The upper ends of the buckets, microseconds; what is longer than the last is in one more.
pub(crate) const BOUNDS_US: [u64; 17] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];
const BUCKETS: usize = BOUNDS_US.len() + 1;

/// Durations, counted since the process started.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Latencies {
    counts: [u64; BUCKETS],
    sum_us: u64,
}

impl Latencies {
    /// One more, microseconds.
    pub(crate) fn record(&mut self, us: u64) {
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        // One more bucket than bounds: it is always there.
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// Each bound in microseconds, with how many durations were at most that long.
    pub(crate) fn up_to(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut up_to = 0;
        std::iter::zip(BOUNDS_US, self.counts).map(move |(bound_us, count)| {
            up_to += count;
            (bound_us, up_to)
        })
    }

    /// These and others.
    pub(crate) fn with(mut self, others: &Latencies) -> Latencies {
        std::iter::zip(&mut self.counts, others.counts).for_each(|(count, more)| *count += more);
        self.sum_us = self.sum_us.saturating_add(others.sum_us);
        self
    }

    /// Those that came since an earlier look.
    pub(crate) fn since(&self, earlier: &Latencies) -> Latencies {
        let mut since = *self;
        std::iter::zip(&mut since.counts, earlier.counts)
            .for_each(|(count, before)| *count = count.saturating_sub(before));
        since.sum_us = self.sum_us.saturating_sub(earlier.sum_us);
        since
    }

    /// What this part of them lasted no longer than, microseconds: within its bucket in proportion, as Prometheus reckons, and at
    /// most the last bound. `None`: there are none.
    pub(crate) fn quantile_us(&self, part: f64) -> Option<f64> {
        let wanted = self.count() as f64 * part;
        let (mut below, mut lower_us) = (0, 0);
        for (upper_us, up_to) in self.up_to() {
            let inside = up_to - below;
            if inside > 0 && up_to as f64 >= wanted {
                let share = (wanted - below as f64) / inside as f64;
                return Some(lower_us as f64 + (upper_us - lower_us) as f64 * share);
            }
            (below, lower_us) = (up_to, upper_us);
        }
        (self.count() > 0).then_some(lower_us as f64)
    }

    /// How many.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All together, microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_bucket_that_ends_with_it_and_in_all_longer_ones() {
        let mut latencies = Latencies::default();
        for us in [0, 50, 51, 1_000, 10_000_000, 10_000_001, u64::MAX] {
            latencies.record(us);
        }
        let up_to = |bound_us| latencies.up_to().find(|(bound, _)| *bound == bound_us).map(|(_, count)| count);
        assert_eq!([50, 100, 500, 1_000, 5_000_000, 10_000_000].map(up_to), [2, 3, 3, 4, 4, 5].map(Some));
        assert_eq!((latencies.count(), latencies.sum_us()), (7, u64::MAX));
    }

    #[test]
    fn a_quantile_lies_in_the_bucket_that_reaches_it_and_there_is_none_of_nothing() {
        let (mut earlier, mut latencies) = (Latencies::default(), Latencies::default());
        assert_eq!(latencies.quantile_us(0.5), None);
        for _ in 0..100 {
            latencies.record(80);
        }
        assert_eq!([0.5, 1.0].map(|part| latencies.quantile_us(part)), [Some(75.0), Some(100.0)]);
        earlier = earlier.with(&latencies);
        latencies.record(u64::MAX);
        assert_eq!(latencies.since(&earlier).count(), 1);
        assert_eq!(latencies.since(&earlier).quantile_us(0.5), Some(10_000_000.0));
    }
}
