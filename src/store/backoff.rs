//! How long to wait after a database has refused: twice as long each time up to a limit, less a random part, so that
//! several gateways do not come back in step.

use crate::limits::{STORE_RETRY_FIRST_MS, STORE_RETRY_MAX_MS};

/// Counts refusals in a row.
#[derive(Debug)]
pub(crate) struct Backoff {
    refusals: u32,
    rng: fastrand::Rng,
}

impl Backoff {
    /// Nothing was refused yet.
    pub(crate) fn new(seed: u64) -> Self {
        Backoff { refusals: 0, rng: fastrand::Rng::with_seed(seed) }
    }

    /// It was refused; returns how long to wait, in milliseconds.
    pub(crate) fn refused(&mut self) -> u64 {
        let wait = (STORE_RETRY_FIRST_MS << self.refusals.min(16)).min(STORE_RETRY_MAX_MS);
        self.refusals += 1;
        wait - self.rng.u64(..=wait / 2)
    }

    /// It was not refused; returns how often it was before.
    pub(crate) fn accepted(&mut self) -> u32 {
        std::mem::take(&mut self.refusals)
    }

    /// How often in a row it was refused.
    pub(crate) fn refusals(&self) -> u32 {
        self.refusals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_limit_are_spread_and_start_anew_after_a_success() {
        let mut backoff = Backoff::new(1);
        for at in 0..20 {
            let whole = (STORE_RETRY_FIRST_MS << at.min(16)).min(STORE_RETRY_MAX_MS);
            let wait = backoff.refused();
            assert!(wait >= whole / 2 && wait <= whole, "{at}: {wait} of {whole}");
        }
        let spread: std::collections::BTreeSet<u64> = (0..20).map(|_| backoff.refused()).collect();
        assert!(spread.len() > 10, "{spread:?}");
        assert_eq!(backoff.accepted(), 40);
        assert!(backoff.refused() <= STORE_RETRY_FIRST_MS);
    }
}
