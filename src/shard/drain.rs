//! The end of a shard: intake stops, requests in flight are answered, every connection is told when to come back.
//!
//! Part of the shard's core. There are two ways: all connections are told at once, and come back at times that are spread; or,
//! where another node takes them, they are told one after another, spread over the same time, to come back at once, and each is
//! served until then. What always holds: connections are told a few thousand a tick, so that half a million
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
    /// Since when they are told one after another, and how many there were; `None`: all are told.
    in_turn: Option<InTurn>,
}

/// Connections that are told one after another.
#[derive(Debug)]
struct InTurn {
    began_ms: u64,
    connections: u64,
}

impl Drain {
    /// How many may be told now.
    fn due(&self, now: Now) -> usize {
        let Some(InTurn { began_ms, connections }) = self.in_turn else { return usize::MAX };
        let elapsed_ms = now.mono_ms.saturating_sub(began_ms);
        if elapsed_ms >= u64::from(self.spread_ms) {
            return usize::MAX;
        }
        let by_now = u128::from(connections) * u128::from(elapsed_ms) / u128::from(self.spread_ms);
        (by_now as u64).saturating_sub(self.notified_count) as usize
    }
}

impl Shard {
    /// Stop intake: new connections are refused, and over the next ticks every connection is told `Draining`, to
    /// reconnect at a time spread over `spread_ms`, and closed when that is written. Done when
    /// `counters().connections` is 0.
    pub(crate) fn drain(&mut self, now: Now, spread_ms: u32) {
        if self.draining.as_ref().is_none_or(|drain| drain.in_turn.is_some()) {
            self.begin_drain(now, spread_ms, None);
        }
    }

    /// Stop intake, and tell the connections one after another over `spread_ms` to come back at once: another node takes
    /// them. Each is served until its turn. [`Self::drain`] ends it.
    pub(crate) fn disperse(&mut self, now: Now, spread_ms: u32) {
        if self.draining.is_none() {
            let connections = self.counters().connections;
            self.begin_drain(now, spread_ms, Some(InTurn { began_ms: now.mono_ms, connections }));
        }
    }

    fn begin_drain(&mut self, now: Now, spread_ms: u32, in_turn: Option<InTurn>) {
        let grace_until_ms = now.mono_ms + DRAIN_GRACE_MS;
        self.draining = Some(Drain { spread_ms, grace_until_ms, next_slot: 0, notified_count: 0, in_turn });
        self.drain_on(now);
    }

    /// The next connections of a drain.
    pub(super) fn drain_on(&mut self, now: Now) {
        let Some(mut drain) = self.draining.take() else { return };
        let mut closes = 0;
        let mut looked_at = 0;
        let closes_max = drain.due(now).min(DRAIN_CLOSES_PER_TICK_MAX);
        while closes < closes_max && looked_at < self.sessions.high() {
            let slot = drain.next_slot % self.sessions.high();
            drain.next_slot = slot + 1;
            looked_at += 1;
            let Some(session) = self.sessions.at(slot).or_count(Place::Sessions) else { continue };
            if matches!(session.phase, Phase::Free | Phase::Closing) {
                continue;
            }
            // Where they are told in turn, there is another one, and later: those who always ask have the last turn.
            let waits = drain.in_turn.is_some() || now.mono_ms < drain.grace_until_ms;
            if session.in_flight > 0 && waits {
                continue;
            }
            // The golden ratio's multiples spread evenly over the range, however many they are.
            let spread = drain.notified_count.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let after_ms = ((u128::from(spread) * u128::from(drain.spread_ms)) >> 64) as u32;
            let after_ms = if drain.in_turn.is_some() { 0 } else { after_ms.max(DRAIN_AFTER_MS_MIN) };
            self.close_draining(now, slot, after_ms);
            drain.notified_count += 1;
            closes += 1;
        }
        self.draining = Some(drain);
        self.save_cursors();
    }
}
