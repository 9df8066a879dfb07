//! How much of a queue each account has.
//!
//! Part of the shard's core: beside each queue that has one limit for all. What always holds: an account has at most its
//! share, so that the limit is met by several together and never by one alone; who has nothing waiting costs nothing. Its
//! hash is keyed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::contract::internal::{Place, count};
use crate::contract::keyed::TableKey;
use ringway_wire::ids::UserId;

/// Items, and bytes of them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Share {
    pub(super) items: usize,
    pub(super) bytes: usize,
}

/// What each account has waiting.
#[derive(Debug)]
pub(super) struct Shares {
    max: Share,
    /// Of what queue, where what goes out of it had not come in.
    place: Place,
    waiting: HashMap<UserId, Share, TableKey>,
}

impl Shares {
    /// Nobody has anything waiting; each may have so much.
    pub(super) fn new(max: Share, place: Place, key: TableKey) -> Self {
        Shares { max, place, waiting: HashMap::with_hasher(key) }
    }

    /// One more item of this account, of so many bytes, may wait.
    pub(super) fn has_room(&self, user: UserId, bytes: usize) -> bool {
        let Share { items, bytes: waiting } = self.waiting.get(&user).copied().unwrap_or_default();
        items < self.max.items && waiting + bytes <= self.max.bytes
    }

    /// One more waits.
    pub(super) fn take(&mut self, user: UserId, bytes: usize) {
        let waiting = self.waiting.entry(user).or_default();
        waiting.items += 1;
        waiting.bytes += bytes;
    }

    /// One of them waits no more.
    pub(super) fn give_back(&mut self, user: UserId, bytes: usize) {
        match self.waiting.entry(user) {
            Entry::Occupied(mut waiting) if waiting.get().items > 1 => {
                let Share { items, bytes: waiting_bytes } = waiting.get_mut();
                *items -= 1;
                *waiting_bytes = waiting_bytes.saturating_sub(bytes);
            }
            Entry::Occupied(waiting) => drop(waiting.remove()),
            Entry::Vacant(_) => count(self.place),
        }
    }
}
