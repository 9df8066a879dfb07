//! What Redis's clock has said, how far the stream had come by then, and how far this node's clock is from it.
//!
//! Owned by the engine. What always holds: everything that Redis had taken by [`RedisClock::read_s`] has been read; and
//! whatever this node's clock does, names are judged by Redis's alone (`submit.lua`), and nothing is dated further than
//! `CLOCK_SKEW_MAX_MS` from Redis's time, also between what Redis says and while the host's clock is not believed.

use std::collections::VecDeque;

use crate::clock::Now;
use crate::contract::position::StreamPosition;
use crate::limits::{CLOCK_SKEW_MAX_MS, CLOCK_SKEW_WARN_MS, WARN_EVERY_MS};

/// What was heard and has not been read so far: more is not needed, as each replaces those before it.
const WAITING_MAX: usize = 8;

/// The clock.
#[derive(Debug, Default)]
pub(super) struct RedisClock {
    latest_s: u64,
    read_s: u64,
    /// Most entries that the stream was said to have: so far, and in sessions that are over. In one session what was
    /// looked at before a heartbeat may be told behind it.
    had: StreamPosition,
    had_before: StreamPosition,
    /// Entries that there were, and the second.
    waiting: VecDeque<(StreamPosition, u64)>,
    /// The time that Redis said last, and the monotonic time then.
    said: Option<(u64, u64)>,
    skew_ms: i64,
    /// What messages are dated by, which is not always what the host's clock says.
    dated_by: Now,
    warned_ms: Option<u64>,
}

impl RedisClock {
    /// Redis had no more than so many entries at this time of its clock.
    pub(super) fn stood(&mut self, last: StreamPosition, redis_ms: u64) {
        self.latest_s = redis_ms / 1_000;
        self.had = self.had.max(last);
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back((last, redis_ms / 1_000));
        }
    }

    /// Redis has said the time, a moment ago.
    pub(super) fn compare(&mut self, now: Now, redis_ms: u64) {
        self.said = Some((redis_ms, now.mono_ms));
        self.skew_ms = now.unix_ms.cast_signed().wrapping_sub(redis_ms.cast_signed());
        let is_due = self.warned_ms.is_none_or(|before| now.mono_ms.saturating_sub(before) >= WARN_EVERY_MS);
        if self.skew_ms.unsigned_abs() > CLOCK_SKEW_WARN_MS && is_due {
            self.warned_ms = Some(now.mono_ms);
            let numbers = !self.is_astray();
            tracing::warn!(
                ahead_ms = self.skew_ms,
                numbers,
                "this node's clock and Redis's differ: set both by NTP; beyond a minute the node numbers nothing"
            );
        }
    }

    /// Messages are dated by this from now on.
    pub(super) fn date_by(&mut self, believed: Now) {
        self.dated_by = believed;
    }

    /// How far from Redis's time that is.
    fn dates_skew_ms(&self) -> u64 {
        let Some((redis_ms, mono_ms)) = self.said else { return 0 };
        self.dated_by.unix_ms.abs_diff(redis_ms + self.dated_by.mono_ms.saturating_sub(mono_ms))
    }

    /// Another stream is followed: what was heard of the one before says nothing of it.
    pub(super) fn begin(&mut self) {
        self.waiting.clear();
        (self.had, self.had_before) = Default::default();
    }

    /// The session is over: Redis may be started anew before the next one.
    pub(super) fn ended(&mut self) {
        self.had_before = self.had;
    }

    /// The last entry that the stream is known to have had in sessions that are over, read or not; zero: nothing is known.
    pub(super) fn had_before(&self) -> StreamPosition {
        self.had_before
    }

    /// The stream has been read up to this entry.
    pub(super) fn read(&mut self, seen: StreamPosition) {
        while let Some((last, second)) = self.waiting.front().copied()
            && last <= seen
        {
            self.read_s = second;
            self.waiting.pop_front();
        }
    }

    /// All that Redis had by this second of its clock has been read. Zero: nobody knows.
    pub(super) fn read_s(&self) -> u64 {
        self.read_s
    }

    /// The last second that Redis has told; it is later by now.
    pub(super) fn latest_s(&self) -> u64 {
        self.latest_s
    }

    /// How far this node's clock is from Redis's.
    pub(super) fn skew_ms(&self) -> u64 {
        self.skew_ms.unsigned_abs()
    }

    /// Too far to number by it.
    pub(super) fn is_astray(&self) -> bool {
        self.skew_ms().max(self.dates_skew_ms()) > CLOCK_SKEW_MAX_MS
    }
}
