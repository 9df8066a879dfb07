//! How much of something may be taken in a time: so much a second on average, so much at once (GCRA, the generic cell
//! rate algorithm of ITU-T I.371, in its form of "virtual scheduling").
//!
//! Plain values, owned by whoever limits. What is kept of one who takes is one moment: when all that was taken will have
//! been earned again. What always holds: within any `t` seconds no more is granted than `burst` and `t` times `per_s`
//! (and a thousandth of that, for rounding, up to 64 million a second); who takes no faster than `per_s`, and no more
//! ahead of it than `burst`, is never refused; who is refused is told when the same would be granted; a rate may be
//! replaced at any time, and whoever owes more than the new one lets anybody owe begins anew.

/// A nanosecond has so many parts. A moment of 64 bits then lies up to nine years after the process's start.
const PARTS_PER_NS: u64 = 64;
const PARTS_PER_MS: u64 = 1_000_000 * PARTS_PER_NS;
const PARTS_PER_S: u64 = 1_000 * PARTS_PER_MS;

/// So many units a second, and so many at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    per_s: u32,
    burst: u32,
    /// What earning one unit takes, in parts of a nanosecond; rounded down, in favour of who takes.
    unit_parts: u64,
}

impl Rate {
    /// Nothing is refused.
    pub(crate) const UNLIMITED: Rate = Rate { per_s: 0, burst: 0, unit_parts: 0 };

    /// `per_s` units a second on average, and `burst` at once; if one of them is 0, nothing is refused.
    pub const fn new(per_s: u32, burst: u32) -> Rate {
        if per_s == 0 || burst == 0 {
            return Rate::UNLIMITED;
        }
        Rate { per_s, burst, unit_parts: PARTS_PER_S / per_s as u64 }
    }

    /// What earning so many units takes.
    #[inline]
    fn parts(&self, units: u64) -> u64 {
        self.unit_parts.saturating_mul(units)
    }
}

/// What somebody has taken of a rate: the moment at which all of it will have been earned again, parts of a nanosecond
/// since the process started. A moment that has passed: nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(crate) struct Spent(u64);

impl Spent {
    /// What it comes to with so many units more, at `now_ms`, monotonic milliseconds. The error: they are not granted,
    /// and would be after so many milliseconds (at least one); more than a burst never is.
    #[inline]
    pub(crate) fn with(self, now_ms: u64, rate: &Rate, units: u64) -> Result<Spent, u32> {
        if rate.per_s == 0 {
            return Ok(self);
        }
        let now = now_ms.saturating_mul(PARTS_PER_MS);
        let latest = now.saturating_add(rate.parts(rate.burst.into()));
        let owed_until = if self.0 <= latest { self.0.max(now) } else { now };
        let after = owed_until.saturating_add(rate.parts(units));
        if after <= latest {
            return Ok(Spent(after));
        }
        let wait_ms = (after - latest).div_ceil(PARTS_PER_MS);
        Err(u32::try_from(wait_ms).unwrap_or(u32::MAX))
    }

    /// What it comes to with so many units more that were taken unasked; what is above a burst is forgiven.
    #[must_use]
    pub(crate) fn with_all(self, now_ms: u64, rate: &Rate, units: u64) -> Spent {
        let now = now_ms.saturating_mul(PARTS_PER_MS);
        let latest = now.saturating_add(rate.parts(rate.burst.into()));
        self.with(now_ms, rate, units).unwrap_or(Spent(latest))
    }
}

#[cfg(test)]
mod tests;
