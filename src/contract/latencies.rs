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
}
