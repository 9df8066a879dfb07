//! The end of a shard: intake stops, requests in flight are answered, every connection is told when to come back.
//!
//! Part of the shard's core. What always holds: connections are told a few thousand a tick, so that half a million
//! last frames are never in memory at once; a session with requests in flight is told last, after its answers or
//! after `DRAIN_GRACE_MS`.

use super::Shard;
use super::session::Phase;
use crate::clock::Now;
use crate::contract::internal::{OrCount, Place};
use crate::limits::{DRAIN_AFTER_MS_MIN, DRAIN_CLOSES_PER_TICK_MAX, DRAIN_GRACE_MS};

/// How far a drain has come.
#[derive(Debug)]
pub(super) struct Drain {
    spread_ms: u32,
    /// When requests in flight are waited for no longer.
    grace_until_ms: u64,
    /// The next slot to look at.
    next_slot: u32,
    /// Connections told so far, for the spread.
    notified_count: u64,
}

impl Shard {
    /// Stop intake: new connections are refused, and over the next ticks every connection is told `Draining`, to
    /// reconnect at a time spread over `spread_ms`, and closed when that is written. Done when
    /// `counters().connections` is 0.
    pub(crate) fn drain(&mut self, now: Now, spread_ms: u32) {
        if self.draining.is_none() {
            let grace_until_ms = now.mono_ms + DRAIN_GRACE_MS;
            self.draining = Some(Drain { spread_ms, grace_until_ms, next_slot: 0, notified_count: 0 });
            self.drain_on(now);
        }
    }

    /// The next connections of a drain.
    pub(super) fn drain_on(&mut self, now: Now) {
        let Some(mut drain) = self.draining.take() else { return };
        let mut closes = 0;
        let mut looked_at = 0;
        while closes < DRAIN_CLOSES_PER_TICK_MAX && looked_at < self.sessions.high() {
            let slot = drain.next_slot % self.sessions.high();
            drain.next_slot = slot + 1;
            looked_at += 1;
            let Some(session) = self.sessions.at(slot).or_count(Place::Sessions) else { continue };
            if matches!(session.phase, Phase::Free | Phase::Closing) {
                continue;
            }
            if session.in_flight > 0 && now.mono_ms < drain.grace_until_ms {
                continue;
            }
            // The golden ratio's multiples spread evenly over the range, however many they are.
            let spread = drain.notified_count.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let after_ms = ((u128::from(spread) * u128::from(drain.spread_ms)) >> 64) as u32;
            self.close_draining(now, slot, after_ms.max(DRAIN_AFTER_MS_MIN));
            drain.notified_count += 1;
            closes += 1;
        }
        self.draining = Some(drain);
        self.save_cursors();
    }
}
