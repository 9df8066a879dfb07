//! Latencies: histograms of them, and the quantiles that reports show.
//!
//! What always holds: all histograms have the same bounds, so any can be added to any.

use hdrhistogram::Histogram;
use serde::Serialize;

const SLOWEST_NS: u64 = 120_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// A histogram for latencies in nanoseconds, up to two minutes, three digits.
#[expect(clippy::expect_used, reason = "the bounds are constants that the library accepts")]
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, SLOWEST_NS, SIGNIFICANT_DIGITS).expect("1 < slowest, at most five digits")
}

/// Quantiles in microseconds.
#[derive(Clone, Copy, PartialEq, Default, Serialize, Debug)]
pub struct Quantiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Quantiles {
    /// Of latencies in nanoseconds; all zero if there are none.
    pub fn of(latency: &Histogram<u64>) -> Quantiles {
        let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
        Quantiles { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: latency.max() as f64 / 1e3 }
    }
}
