//! How fast a bench sends.

use std::time::Duration;

/// How fast messages are sent.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Pace {
    /// All at once: so many per stream.
    Burst(u64),
    /// So many per stream, so many a second over all streams. Latency counts from when a message was due.
    Rate(u64, f64),
    /// For so long, with so many in flight over all streams.
    Flood(Duration, u64),
}

impl Pace {
    /// In one word.
    pub fn name(&self) -> &'static str {
        match self {
            Pace::Burst(_) => "burst",
            Pace::Rate(..) => "rate",
            Pace::Flood(..) => "flood",
        }
    }
}
