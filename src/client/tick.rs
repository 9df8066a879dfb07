//! Moments of a session in four bytes, since a crowd has a hundred thousand sessions.
//!
//! Plain values. What always holds: the time between two moments is right while they are less than 49 days apart;
//! a session that is alive sets each of its moments anew far more often.

/// The low bits of a monotonic time in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Tick(u32);

impl Tick {
    /// The moment of this time.
    pub(crate) fn at(mono_ms: u64) -> Tick {
        Tick(mono_ms as u32)
    }

    /// Milliseconds from this moment to `mono_ms`, which is not before it.
    pub(crate) fn age_ms(self, mono_ms: u64) -> u32 {
        (mono_ms as u32).wrapping_sub(self.0)
    }

    /// The time `after_ms` behind this moment, as seen at `now_ms`; `now_ms` itself, if it has passed.
    pub(crate) fn plus(self, after_ms: u32, now_ms: u64) -> u64 {
        now_ms + u64::from(after_ms.saturating_sub(self.age_ms(now_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_between_two_moments_is_right_over_the_end_of_their_range() {
        let before = u64::from(u32::MAX) - 99;
        let tick = Tick::at(before);
        assert_eq!(tick.age_ms(before + 300), 300);
        assert_eq!(tick.plus(1_000, before + 300), before + 1_000);
        assert_eq!(tick.plus(200, before + 300), before + 300);
    }
}
