//! The host's clock as far as the ledger believes it.
//!
//! Owned by the ledger's thread; both engines use it. Messages are dated by it, and what is dated once stays so: a single
//! reading an hour ahead would date all messages of that hour. What always holds: a reading that is ahead of the time that
//! has passed since the last one counts only when it is still so `CLOCK_JUMP_LASTS_MS` later (a host that was suspended);
//! one that no message id can hold never counts; and one that goes back counts at once, as ids rise all the same.

use crate::clock::Now;
use crate::limits::{CLOCK_JUMP_LASTS_MS, CLOCK_JUMP_MS};
use ringway_wire::ids::{MSG_ID_EPOCH_MS, MsgId};

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LedgerClock {
    /// The last reading that was believed.
    believed: Option<Now>,
    /// Since when readings have been ahead of that, monotonic milliseconds.
    unverified_since_ms: Option<u64>,
}

impl LedgerClock {
    /// Both clocks, as far as they are believed.
    pub(crate) fn read(&mut self, now: Now) -> Now {
        let expected_ms = match self.believed {
            Some(before) => before.unix_ms + now.mono_ms.saturating_sub(before.mono_ms),
            None => now.unix_ms.min(MsgId::TIME_MAX_MS),
        };
        let is_ahead = now.unix_ms > expected_ms.saturating_add(CLOCK_JUMP_MS) || now.unix_ms > MsgId::TIME_MAX_MS;
        if !is_ahead {
            return self.believe(now);
        }
        let since_ms = *self.unverified_since_ms.get_or_insert(now.mono_ms);
        let lasts = now.mono_ms.saturating_sub(since_ms) >= CLOCK_JUMP_LASTS_MS;
        if lasts && now.unix_ms <= MsgId::TIME_MAX_MS {
            tracing::warn!(ahead_ms = now.unix_ms - expected_ms, "the host's clock was put ahead");
            return self.believe(now);
        }
        // Without one that was believed nothing is known of the time: ids go on from the last one.
        let unix_ms = self.believed.map_or(MSG_ID_EPOCH_MS, |_| expected_ms);
        Now { unix_ms, ..now }
    }

    /// What the host's clock says is not believed for now.
    pub(crate) fn is_unverified(&self) -> bool {
        self.unverified_since_ms.is_some()
    }

    fn believe(&mut self, now: Now) -> Now {
        *self = LedgerClock { believed: Some(now), unverified_since_ms: None };
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: u64 = 1_800_000_000_000;
    const HOUR: u64 = 3_600_000;

    fn check(readings: &[(u64, u64)], expected: &[u64]) {
        let mut clock = LedgerClock::default();
        let believed = |(mono_ms, unix_ms): &(u64, u64)| {
            clock.read(Now { mono_ms: *mono_ms, unix_ms: TIME.wrapping_add(*unix_ms) }).unix_ms - TIME
        };
        assert_eq!(readings.iter().map(believed).collect::<Vec<u64>>(), expected, "{readings:?}");
    }

    #[test]
    fn a_reading_that_is_ahead_counts_when_it_lasts() {
        check(&[(0, 0), (10, HOUR), (20, 20)], &[0, 10, 20]);
        check(&[(0, 0), (10, HOUR), (20, 20), (6_000, HOUR), (6_010, 6_010)], &[0, 10, 20, 6_000, 6_010]);
        let lasts = 10 + CLOCK_JUMP_LASTS_MS;
        check(&[(0, 0), (10, HOUR), (lasts - 1, HOUR), (lasts, HOUR)], &[0, 10, lasts - 1, HOUR]);
        // What is little, and what is passed, counts at once.
        let (little, passed) = (CLOCK_JUMP_MS, HOUR + CLOCK_JUMP_MS);
        check(&[(0, 0), (0, little), (HOUR, passed)], &[0, little, passed]);
    }

    #[test]
    fn a_reading_that_goes_back_counts_at_once() {
        check(&[(0, HOUR), (10, 10), (20, 20)], &[HOUR, 10, 20]);
    }

    #[test]
    fn a_reading_that_no_message_id_can_hold_never_counts() {
        let far = MsgId::TIME_MAX_MS + 1;
        let mut clock = LedgerClock::default();
        for mono_ms in [0, CLOCK_JUMP_LASTS_MS, 10 * CLOCK_JUMP_LASTS_MS] {
            assert_eq!(clock.read(Now { mono_ms, unix_ms: far }).unix_ms, MSG_ID_EPOCH_MS);
        }
        assert_eq!(clock.read(Now { mono_ms: HOUR, unix_ms: TIME }).unix_ms, TIME);
        assert_eq!(clock.read(Now { mono_ms: HOUR + 1, unix_ms: u64::MAX }).unix_ms, TIME + 1);
    }
}
