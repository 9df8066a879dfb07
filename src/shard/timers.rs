//! What happens when nothing happens: login, heartbeat, token, stalled writes, closing. One timer a connection.
//!
//! Part of the shard's core. What always holds: receiving never touches the wheel; a timer that comes out looks
//! whether its time is really over, and is armed again for the next moment that could matter.

use super::Shard;
use super::reply::READ_ON_IN_FLIGHT;
use super::session::{Flags, Phase};
use super::wheel::{TICK_MS, tick_of};
use crate::clock::Now;
use crate::contract::ids::ConnId;
use crate::contract::internal::{OrCount, Place};
use crate::limits::{CURSORS_SAVED_EVERY_MS, RETRY_EVERY_MS, STALL_LOOKS};
use ringway_wire::schema::CloseReason;

impl Shard {
    /// Call about every 20 ms: time-outs, questions to ask again, cursors once a second, a drain's progress.
    pub fn tick(&mut self, now: Now) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(tick_of(now.mono_ms), &mut due);
        for slot in due.drain(..) {
            self.timer(now, slot);
        }
        self.due = due;
        if now.mono_ms >= self.retry_at_ms {
            self.retry_at_ms = now.mono_ms + RETRY_EVERY_MS;
            self.retry_pages(now);
            self.retry_answers();
            self.retry_cursors();
            self.expire_gathers(now);
        }
        if now.mono_ms >= self.save_cursors_at_ms {
            self.save_cursors_at_ms = now.mono_ms + CURSORS_SAVED_EVERY_MS;
            self.save_cursors();
        }
        self.end_throttles(now);
        self.later_large_replies(now);
        self.drain_on(now);
        self.into_lanes.tick();
        self.to_nodes.tick();
        self.notify_nodes();
    }

    fn timer(&mut self, now: Now, slot: u32) {
        let Some(session) = self.sessions.at(slot).or_count(Place::Sessions) else { return };
        match session.phase {
            Phase::Free => {}
            Phase::Closing => self.cut(slot),
            Phase::Fresh | Phase::AwaitingCursor | Phase::AwaitingPosition | Phase::AwaitingPositionClaimed => {
                // A login that came in time and is not answered is the gateway's fault: what its user has cannot be read.
                let reason = match session.phase {
                    Phase::Fresh => CloseReason::LoginTimeout,
                    _ => CloseReason::StoreUnavailable,
                };
                self.close(now, slot, reason);
            }
            Phase::Live | Phase::Behind => {
                let waited_ms = session.outbox.as_ref().map(|outbox| now.mono_ms.saturating_sub(outbox.progress_ms));
                if waited_ms.is_some_and(|waited_ms| waited_ms >= self.stall_look_ms()) {
                    // Goes on in `look_for_progress`.
                    self.effects.stalls.push(session.conn(slot));
                } else {
                    self.time_out(now, slot);
                }
            }
        }
    }

    /// Between two looks whether a peer takes anything.
    fn stall_look_ms(&self) -> u64 {
        u64::from(self.config.stall_timeout_ms) / STALL_LOOKS
    }

    /// The socket has taken nothing for a while. That its peer acknowledges what the kernel has is progress too: a slow
    /// reader empties a large buffer for long before there is room in it again. A peer that acknowledges nothing is
    /// evicted.
    pub(super) fn look_for_progress(&mut self, now: Now, conn: ConnId, unacknowledged: Option<u64>) {
        let Some(slot) = self.slot_of(conn) else { return };
        let Some(session) = self.sessions.at_mut(slot).filter(|session| session.phase.is_open()) else { return };
        if let Some(outbox) = session.outbox.as_deref_mut() {
            if outbox.has_progressed(unacknowledged) {
                outbox.progress_ms = now.mono_ms;
                if session.flags.has(Flags::PAUSED) {
                    // Its heartbeats are not read now.
                    session.received_tick = tick_of(now.mono_ms);
                }
            } else if now.mono_ms >= outbox.progress_ms + u64::from(self.config.stall_timeout_ms) {
                self.evict(now, slot);
                return;
            }
        }
        self.time_out(now, slot);
    }

    /// Ends a session whose time is over, or arms its timer for the next moment that could matter.
    fn time_out(&mut self, now: Now, slot: u32) {
        let Some(session) = self.sessions.at_mut(slot).or_count(Place::Sessions) else { return };
        let is_throttled = session.flags.has(Flags::THROTTLED);
        if is_throttled || (session.flags.has(Flags::PAUSED) && session.in_flight > READ_ON_IN_FLIGHT) {
            // Its heartbeats are not read until it has been answered, or its time is over.
            session.received_tick = tick_of(now.mono_ms);
        }
        let Some(session) = self.sessions.at(slot).or_count(Place::Sessions) else { return };
        if now.unix_ms / 1000 >= u64::from(session.expires_at_s) {
            self.close(now, slot, CloseReason::TokenExpired);
        } else if tick_of(now.mono_ms) >= self.silent_tick(slot, session.received_tick) {
            self.close(now, slot, CloseReason::HeartbeatTimeout);
        } else {
            self.arm_next(now, slot);
        }
    }

    /// When a session last heard of at `received_tick` has been silent for too long.
    fn silent_tick(&self, slot: u32, received_tick: u32) -> u32 {
        let silence_ms = u64::from(self.heartbeats.of(slot)) * 5 / 2;
        received_tick.saturating_add(tick_of(silence_ms + TICK_MS))
    }

    /// Arms a logged-in session's timer for the next moment that could matter.
    pub(super) fn arm_next(&mut self, now: Now, slot: u32) {
        let Some(session) = self.sessions.at(slot).filter(|session| session.phase.is_open()) else { return };
        let expires_in_ms = (u64::from(session.expires_at_s) * 1000).saturating_sub(now.unix_ms);
        let mut deadline = self
            .silent_tick(slot, session.received_tick)
            .min(tick_of((now.mono_ms + expires_in_ms).saturating_add(TICK_MS)));
        if let Some(outbox) = &session.outbox {
            // The next look, or the moment when it has waited too long.
            let waited_ms = now.mono_ms.saturating_sub(outbox.progress_ms);
            let looks = waited_ms / self.stall_look_ms().max(1);
            deadline = deadline.min(self.stall_tick(outbox.progress_ms, looks + 1));
        }
        self.wheel.arm(slot, deadline);
    }

    /// When an outbox that last moved at `progress_ms` is looked at for the nth time.
    fn stall_tick(&self, progress_ms: u64, nth: u64) -> u32 {
        tick_of(progress_ms + self.stall_look_ms() * nth + TICK_MS)
    }

    /// Bytes wait: makes sure that the timer comes out in time if none of them goes.
    pub(super) fn watch_for_stall(&mut self, slot: u32) {
        let Some(session) = self.sessions.at(slot).filter(|session| session.phase.is_open()) else { return };
        let Some(outbox) = &session.outbox else { return };
        let stall = self.stall_tick(outbox.progress_ms, 1);
        if self.wheel.deadline(slot).is_none_or(|deadline| stall < deadline) {
            self.wheel.arm(slot, stall);
        }
    }
}
