//! Cursors that wait to be saved.
//!
//! Owned by the store's thread. What always holds: a cursor here never goes back, and there are at most
//! `CURSORS_KEPT_MAX`. Losing one means that its device receives some rows again.

use std::collections::HashMap;

use crate::contract::keyed::TableKey;
use crate::contract::store::CursorRow;
use crate::limits::CURSORS_KEPT_MAX;
use ringway_wire::ids::{DeviceId, Seq, UserId};

/// The newest cursor of each device that has one waiting.
#[derive(Debug, Default)]
pub(crate) struct Cursors {
    waiting: HashMap<(UserId, DeviceId), Seq, TableKey>,
}

impl Cursors {
    /// Takes cursors in; returns how many found no room.
    pub(crate) fn merge(&mut self, rows: &[CursorRow]) -> u64 {
        let mut dropped = 0;
        for row in rows {
            let key = (row.user, row.device);
            if let Some(seq) = self.waiting.get_mut(&key) {
                *seq = row.seq.max(*seq);
            } else if self.waiting.len() < CURSORS_KEPT_MAX {
                self.waiting.insert(key, row.seq);
            } else {
                dropped += 1;
            }
        }
        dropped
    }

    /// The device's, if it has one waiting.
    pub(crate) fn find(&self, user: UserId, device: DeviceId) -> Option<Seq> {
        self.waiting.get(&(user, device)).copied()
    }

    /// Those of these users that wait.
    pub(crate) fn of(&self, users: &[UserId]) -> Vec<CursorRow> {
        let mut rows = self.some(usize::MAX);
        rows.retain(|row| users.contains(&row.user));
        rows
    }

    /// Some that wait, to be saved.
    pub(crate) fn some(&self, count_max: usize) -> Vec<CursorRow> {
        let row =
            |((user, device), seq): (&(UserId, DeviceId), &Seq)| CursorRow { user: *user, device: *device, seq: *seq };
        self.waiting.iter().take(count_max).map(row).collect()
    }

    /// These were saved.
    pub(crate) fn saved(&mut self, rows: &[CursorRow]) {
        for row in rows {
            if self.waiting.get(&(row.user, row.device)) == Some(&row.seq) {
                self.waiting.remove(&(row.user, row.device));
            }
        }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// None waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
