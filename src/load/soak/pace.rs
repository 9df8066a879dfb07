//! So many a second: what is due, and when it was.
//!
//! What always holds: what was not done in time stays due until it is skipped, so a pace is kept on average.

/// A pace that is kept from a start on.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Pace {
    per_s: f64,
    start_ns: u64,
    done: u64,
}

impl Pace {
    /// From now on so many a second; 0: none.
    pub(crate) fn start(&mut self, per_s: f64, now_ns: u64) {
        *self = Pace { per_s, start_ns: now_ns, done: 0 };
    }

    /// How many a second.
    pub(crate) fn per_s(&self) -> f64 {
        self.per_s
    }

    /// How many are due now.
    pub(crate) fn due(&self, now_ns: u64) -> u64 {
        let total = now_ns.saturating_sub(self.start_ns) as f64 / 1e9 * self.per_s;
        (total as u64).saturating_sub(self.done)
    }

    /// When the next one is, or was, due.
    pub(crate) fn next_ns(&self) -> u64 {
        if self.per_s <= 0.0 {
            return u64::MAX;
        }
        self.start_ns + ((self.done + 1) as f64 * 1e9 / self.per_s) as u64
    }

    /// One is done.
    pub(crate) fn done(&mut self) {
        self.done += 1;
    }

    /// Nothing of what is due is done; returns how many that is.
    pub(crate) fn skip_to(&mut self, now_ns: u64) -> u64 {
        let skipped = self.due(now_ns);
        self.done += skipped;
        skipped
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use super::*;

    #[test]
    fn a_pace_is_kept_on_average_and_what_is_skipped_is_not_made_up_for() {
        let mut pace = Pace::default();
        assert_eq!((pace.due(5), pace.next_ns()), (0, u64::MAX));
        pace.start(4.0, 1_000);
        assert_eq!((pace.due(1_000), pace.next_ns()), (0, 250_001_000));
        assert_eq!(pace.due(1_000_001_000), 4);
        pace.done();
        assert_eq!((pace.due(1_000_001_000), pace.next_ns()), (3, 500_001_000));
        assert_eq!(pace.skip_to(1_000_001_000), 3);
        assert_eq!(pace.due(1_000_001_000), 0);
        assert_eq!(pace.due(1_250_001_000), 1);
    }
}
