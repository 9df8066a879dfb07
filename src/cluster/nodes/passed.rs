//! What each account has of the ephemeral messages that other nodes have said and a shard has not taken.
//!
//! Owned by Redis's thread, one beside each shard's mailbox. An account may be on many nodes, each of which lets it say its
//! share. What always holds: of what waits for a shard at most half is one account's, so that there is room for the others'
//! and for news of sessions; while a shard takes all that comes, nobody meets this. Its hash is keyed.

use std::collections::HashMap;

use crate::contract::keyed::TableKey;
use crate::limits::{FROM_NODES_ACCOUNT_MAX, FROM_NODES_MAX};
use ringway_wire::ids::UserId;

/// Since nothing waited, or since as many were put as may wait: all that was put before has been taken then.
#[derive(Debug)]
pub(super) struct Passed {
    of: HashMap<UserId, usize, TableKey>,
    put: usize,
}

impl Passed {
    /// Nothing waits.
    pub(super) fn new(key: TableKey) -> Self {
        Passed { of: HashMap::with_hasher(key), put: 0 }
    }

    /// One more of this account's is to be put. False: it has its share. `is_empty`: nothing waits for the shard now.
    pub(super) fn take(&mut self, sender: UserId, is_empty: bool) -> bool {
        if is_empty || self.put >= FROM_NODES_MAX {
            self.of.clear();
            self.put = 0;
        }
        let count = self.of.entry(sender).or_default();
        let has_room = *count < FROM_NODES_ACCOUNT_MAX;
        *count += usize::from(has_room);
        self.put += usize::from(has_room);
        has_room
    }
}
