//! What each account has handed on to other shards and nodes since the last tick, of what nobody waits for at its sender.
//!
//! Part of the shard's core. An ephemeral message is answered when it is in a lane, so its sender's requests in flight do not
//! bound what is in there, and nobody tells when it was taken out. What always holds: between two ticks an account has at
//! most a share of a lane, and of what waits for the thread that talks to other nodes; so one of them alone fills neither
//! while the other end goes on. Its hash is keyed, and at each tick it is empty again.

use std::collections::HashMap;

use crate::contract::keyed::TableKey;
use ringway_wire::ids::UserId;

/// Of one kind of queue.
#[derive(Debug)]
pub(super) struct Passing {
    max: u32,
    since_tick: HashMap<UserId, u32, TableKey>,
}

impl Passing {
    /// Each account may hand on so many from one tick to the next.
    pub(super) fn new(max: usize, key: TableKey) -> Self {
        Passing { max: u32::try_from(max).unwrap_or(u32::MAX), since_tick: HashMap::with_hasher(key) }
    }

    /// One more of this account's. False: it has had its share.
    pub(super) fn take(&mut self, user: UserId) -> bool {
        let count = self.since_tick.entry(user).or_default();
        let has_room = *count < self.max;
        *count += u32::from(has_room);
        has_room
    }

    /// A tick: everybody has a share again.
    pub(super) fn tick(&mut self) {
        self.since_tick.clear();
    }
}
