//! Sessions that are refused again and again are not read from for a while, so that a refusal does not cost more than what
//! it refuses.
//!
//! Part of the shard's core. A client that keeps to what a refusal says is never slowed down; one that goes on waits as long
//! as its refusals have taken from others: its requests stay in its own socket, and nothing is done for them. What always
//! holds: that begins when its user has been refused more often than `user_refusals` allows, and ends after
//! `THROTTLED_MS_MAX` at the latest; the session is sent everything meanwhile, and does not count as silent.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::Shard;
use super::session::Flags;
use crate::clock::Now;
use crate::contract::ids::ConnId;
use crate::contract::internal::{OrCount, Place};
use crate::contract::keyed::TableKey;
use crate::contract::traffic::TrafficLimit;
use crate::limits::THROTTLED_MS_MAX;

/// The sessions that are not read from because of their refusals.
#[derive(Debug)]
pub(super) struct Throttled {
    /// Until when, monotonic milliseconds, by slot.
    until_ms: HashMap<u32, (ConnId, u64), TableKey>,
    /// When to look at each: a moment that may have been put off since, and the slot and generation.
    looks: BinaryHeap<Reverse<(u64, u32, u32)>>,
}

impl Throttled {
    pub(super) fn new(key: TableKey) -> Self {
        Throttled { until_ms: HashMap::with_hasher(key), looks: BinaryHeap::new() }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.until_ms.len()
    }

    /// This one, for so much longer, and at least until then.
    fn put_off(&mut self, now_ms: u64, conn: ConnId, more_ms: u64, at_least_ms: u64) {
        let known = self.until_ms.get(&conn.slot).filter(|(known, _)| *known == conn).map(|(_, until_ms)| *until_ms);
        let until_ms = (known.unwrap_or(now_ms) + more_ms).max(now_ms + at_least_ms).min(now_ms + THROTTLED_MS_MAX);
        self.until_ms.insert(conn.slot, (conn, until_ms.max(known.unwrap_or_default())));
        if known.is_none() {
            self.looks.push(Reverse((until_ms, conn.slot, conn.generation)));
        }
    }

    /// One whose time is over.
    fn next_over(&mut self, now_ms: u64) -> Option<ConnId> {
        while let Some(Reverse((look_ms, slot, generation))) = self.looks.peek().copied()
            && look_ms <= now_ms
        {
            self.looks.pop();
            let conn = ConnId { slot, generation };
            match self.until_ms.get(&slot) {
                Some((known, until_ms)) if *known == conn && *until_ms > now_ms => {
                    self.looks.push(Reverse((*until_ms, slot, generation)));
                }
                Some((known, _)) if *known == conn => {
                    self.until_ms.remove(&slot);
                    return Some(conn);
                }
                // A later session has the slot.
                _ => {}
            }
        }
        None
    }
}

impl Shard {
    /// A request of the session was refused: if its user is refused too often, it is not read from for a while.
    pub(super) fn count_refusal(&mut self, now: Now, slot: u32, retry_after_ms: u32) {
        let Some(session) = self.sessions.at_mut(slot).filter(|session| session.phase.is_open()) else { return };
        let Some(user) = self.directory.at(session.user).map(|user| user.id).or_count(Place::Directory) else { return };
        let [refused] = self.traffic.refusals_of(user);
        match refused.with(now.mono_ms, &self.config.traffic.user_refusals, 1) {
            Ok(after) => *refused = after,
            Err(over_ms) => {
                self.counts.limited.count(TrafficLimit::UserRefusals);
                session.flags.set(Flags::THROTTLED | Flags::PAUSED);
                let conn = session.conn(slot);
                self.throttled.put_off(now.mono_ms, conn, over_ms.into(), retry_after_ms.into());
            }
        }
    }

    /// Those are read from again whose time is over.
    pub(super) fn end_throttles(&mut self, now: Now) {
        while let Some(conn) = self.throttled.next_over(now.mono_ms) {
            let Some(slot) = self.slot_of(conn) else { continue };
            if let Some(session) = self.sessions.at_mut(slot) {
                session.flags.clear(Flags::THROTTLED);
            }
            self.resume(now, slot);
        }
    }
}
