//! One hashed timing wheel for all of a shard's connections: one timer each, armed and cancelled in O(1).
//!
//! Owned by the shard. What always holds: an id is armed at most once; it comes out once, at the first advance
//! that reaches its tick, never before. A timer is 12 bytes in a chunk, no heap node. A deadline further away
//! than one turn of the wheel stays in its slot and is passed over once a turn.

use super::slab::Chunked;

/// Milliseconds of one tick.
pub(crate) const TICK_MS: u64 = 32;
/// Slots: one turn takes 262 s, longer than two and a half heartbeats of the default interval.
const SLOTS: usize = 8_192;
/// Timers handed out by one advance before it leaves the rest to the next one.
const DUE_MAX: usize = 4_096;
/// No neighbour.
const NIL: u32 = u32::MAX;

/// A point in monotonic time, in ticks; 2^32 of them are four years of running.
pub(crate) fn tick_of(mono_ms: u64) -> u32 {
    u32::try_from(mono_ms / TICK_MS).unwrap_or(u32::MAX - 1)
}

/// Timers by id, the connections' slots.
#[derive(Debug)]
pub struct Wheel {
    heads: Vec<u32>,
    timers: Chunked<Timer>,
    now: u32,
}

#[derive(Debug)]
struct Timer {
    prev: u32,
    next: u32,
    /// 0: not armed.
    deadline: u32,
}

impl Default for Timer {
    fn default() -> Self {
        Timer { prev: NIL, next: NIL, deadline: 0 }
    }
}

impl Default for Wheel {
    fn default() -> Self {
        Wheel { heads: vec![NIL; SLOTS], timers: Chunked::new(), now: 0 }
    }
}

impl Wheel {
    /// Arms `id` for `deadline`, or moves it there. A deadline that has passed is due at the next tick.
    pub fn arm(&mut self, id: u32, deadline: u32) {
        self.cancel(id);
        self.timers.reach(id);
        let deadline = deadline.max(self.now + 1);
        let head = &mut self.heads[deadline as usize % SLOTS];
        let next = std::mem::replace(head, id);
        if let Some(timer) = self.timers.at_mut(id) {
            *timer = Timer { prev: NIL, next, deadline };
        }
        if let Some(timer) = self.timers.at_mut(next) {
            timer.prev = id;
        }
    }

    /// Disarms `id`, if it is armed.
    pub fn cancel(&mut self, id: u32) {
        let Some(timer) = self.timers.at_mut(id) else { return };
        if timer.deadline == 0 {
            return;
        }
        let Timer { prev, next, deadline } = std::mem::take(timer);
        match self.timers.at_mut(prev) {
            Some(timer) => timer.next = next,
            None => self.heads[deadline as usize % SLOTS] = next,
        }
        if let Some(timer) = self.timers.at_mut(next) {
            timer.prev = prev;
        }
    }

    /// When `id` is due; `None`: not armed.
    pub(crate) fn deadline(&self, id: u32) -> Option<u32> {
        self.timers.at(id).map(|timer| timer.deadline).filter(|deadline| *deadline != 0)
    }

    /// Moves time on to `to`, disarms the timers that are due and appends them to `due`. Stops early, between
    /// two ticks, when very many are due at once: the next call goes on from there.
    pub fn advance(&mut self, to: u32, due: &mut Vec<u32>) {
        let enough = due.len() + DUE_MAX;
        // Time that stood still for more than a turn visits every slot once, not more.
        let from = self.now.max(to.saturating_sub(SLOTS as u32));
        for tick in from..to {
            let tick = tick + 1;
            let mut id = self.heads[tick as usize % SLOTS];
            while let Some(timer) = self.timers.at(id) {
                let next = timer.next;
                if timer.deadline <= to {
                    self.cancel(id);
                    due.push(id);
                }
                id = next;
            }
            self.now = tick;
            if due.len() >= enough {
                return;
            }
        }
        self.now = self.now.max(to);
    }
}

#[cfg(test)]
mod tests;
