//! How far the store is behind the journal, in seconds.
//!
//! Made of what the store reports once a second. What always holds: the lag is never more than the true one, and at most
//! the time between two marks less; there are at most [`MARKS_MAX`] of them, however long the database is away.

use std::collections::VecDeque;

/// Where the journal was when; above it every second mark goes, so that they stand twice as far apart.
const MARKS_MAX: usize = 256;
/// The store reports so often.
const REPORTED_MS: u64 = 1_000;

/// See the module.
#[derive(Clone, Default, Debug)]
pub(crate) struct StoreLag {
    /// When (monotonic milliseconds) the journal was durable up to where; what the store has is dropped.
    marks: VecDeque<(u64, u64)>,
    /// How far apart they stand, milliseconds.
    spacing_ms: u64,
}

impl StoreLag {
    /// The store has said how far it and the journal are.
    pub(crate) fn note(&mut self, now_ms: u64, applied: u64, durable: u64) {
        while self.marks.front().is_some_and(|(_, durable)| *durable <= applied) {
            self.marks.pop_front();
        }
        if self.marks.is_empty() {
            self.spacing_ms = 0;
        }
        let is_new = |(at_ms, last): &(u64, u64)| *last < durable && now_ms.saturating_sub(*at_ms) >= self.spacing_ms;
        if durable <= applied || !self.marks.back().is_none_or(is_new) {
            return;
        }
        if self.marks.len() == MARKS_MAX {
            let mut at = 0;
            self.spacing_ms = (self.spacing_ms * 2).max(2 * REPORTED_MS);
            self.marks.retain(|_| {
                at += 1;
                at % 2 == 1
            });
        }
        self.marks.push_back((now_ms, durable));
    }

    /// How long the oldest of what the database lacks has been durable, milliseconds; 0: it lacks nothing.
    pub(crate) fn ms(&self, now_ms: u64) -> u64 {
        self.marks.front().map_or(0, |(at_ms, _)| now_ms.saturating_sub(*at_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_is_the_age_of_the_oldest_that_the_store_lacks() {
        let mut lag = StoreLag::default();
        lag.note(1_000, 0, 0);
        assert_eq!(lag.ms(5_000), 0);
        lag.note(2_000, 0, 100);
        lag.note(3_000, 0, 200);
        lag.note(4_000, 0, 200);
        assert_eq!(lag.ms(4_000), 2_000);
        lag.note(5_000, 100, 250);
        assert_eq!(lag.ms(5_000), 2_000, "what came at 3,000 is the oldest now");
        lag.note(6_000, 250, 250);
        assert_eq!(lag.ms(6_000), 0);
    }

    #[test]
    fn a_database_that_is_away_for_days_costs_a_few_marks_and_the_lag_stays_what_it_is() {
        let mut lag = StoreLag::default();
        (1..200_000).for_each(|second| lag.note(second * 1_000, 0, second));
        assert!(lag.marks.len() <= MARKS_MAX);
        assert_eq!(lag.ms(200_000_000), 199_999_000);
        // A hundred thousand of them written: the lag is that of the next mark, at most 2,000 s later.
        lag.note(200_000_000, 100_000, 200_000);
        assert!((98_000_000..=100_000_000).contains(&lag.ms(200_000_000)), "{}", lag.ms(200_000_000));
    }
}
