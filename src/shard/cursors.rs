//! What devices have acknowledged and the store does not have yet.
//!
//! Owned by the shard. What always holds: of one device only the highest is kept; there are never more than
//! `CURSORS_WAITING_MAX` and one refused lot of them; what is lost in a crash is sent again by the next Ack or
//! costs the device rows it has already seen.

use std::collections::BTreeMap;

use super::Shard;
use crate::contract::store::{CursorRow, StoreAsk};
use crate::limits::CURSORS_WAITING_MAX;
use ringway_wire::ids::{DeviceId, Seq, UserId};

/// Cursors to be stored, by user and device.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    waiting: BTreeMap<(UserId, DeviceId), Seq>,
}

impl Cursors {
    /// A device has everything up to `seq`. True: there are so many that they should be sent now.
    pub(super) fn acknowledge(&mut self, user: UserId, device: DeviceId, seq: Seq) -> bool {
        let cursor = self.waiting.entry((user, device)).or_default();
        *cursor = seq.max(*cursor);
        self.waiting.len() >= CURSORS_WAITING_MAX
    }

    /// What a device has acknowledged and the store may not know.
    pub(super) fn waiting(&self, user: UserId, device: DeviceId) -> Option<Seq> {
        self.waiting.get(&(user, device)).copied()
    }

    /// All of them, to be sent.
    pub(super) fn take(&mut self) -> Vec<CursorRow> {
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_iter().map(|((user, device), seq)| CursorRow { user, device, seq }).collect()
    }
}

impl Shard {
    pub(super) fn save_cursors(&mut self) {
        let cursors = self.cursors.take();
        if !cursors.is_empty() {
            self.effects.asks.push_back(StoreAsk::SaveCursors(cursors));
        }
    }

    /// The store had no room: they are kept, merged with newer ones. Above the limit the rest is dropped: its
    /// devices acknowledge again.
    pub(super) fn keep_cursors(&mut self, cursors: Vec<CursorRow>) {
        for CursorRow { user, device, seq } in cursors {
            if self.cursors.waiting.len() >= 2 * CURSORS_WAITING_MAX {
                self.counts.shed.cursors += 1;
                continue;
            }
            self.cursors.acknowledge(user, device, seq);
        }
    }
}
