//! How often each session has to say something: the gateway's interval, or a longer one that its login asked for.
//!
//! Part of the shard's core; four bytes a connection slot, beside the sessions, since only a login and a timer look at
//! them. What always holds: no session's interval is shorter than the configured one, nor longer than what clients may
//! ask for.

use super::config::ShardConfig;
use super::slab::Chunked;

/// The intervals, by the sessions' slots.
#[derive(Debug)]
pub(super) struct Heartbeats {
    by_slot: Chunked<u32>,
    default_ms: u32,
    max_ms: u32,
}

impl Heartbeats {
    pub(super) fn new(config: &ShardConfig) -> Self {
        let default_ms = config.heartbeat_ms;
        Heartbeats { by_slot: Chunked::new(), default_ms, max_ms: config.heartbeat_max_ms.max(default_ms) }
    }

    /// From now on logins agree on what is configured; what was agreed before holds.
    pub(super) fn follow(&mut self, config: &ShardConfig) {
        self.default_ms = config.heartbeat_ms;
        self.max_ms = config.heartbeat_max_ms.max(self.default_ms);
    }

    /// A login asks for an interval; 0: for none.
    pub(super) fn agree(&mut self, slot: u32, asked_ms: u32) {
        *self.by_slot.reached(slot) = asked_ms.clamp(self.default_ms, self.max_ms);
    }

    /// What holds for a session that has logged in.
    pub(super) fn of(&self, slot: u32) -> u32 {
        self.by_slot.at(slot).copied().unwrap_or(self.default_ms)
    }
}
