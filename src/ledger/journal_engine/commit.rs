//! The end of a commit: written and synced, or taken back without a trace.
//!
//! On the ledger's thread. What always holds: what could not be written was seen by nobody, and numbers, window, groups
//! and bases are as if it had never been taken.

use super::JournalEngine;
use crate::clock::Now;
use crate::contract::delivery::Delivery;
use crate::contract::internal::{OrCount, Place};
use crate::journal::disk::Disk;
use crate::ledger::LedgerError;
use crate::ledger::dedup::Name;
use crate::ledger::pending_delivery::PendingDelivery;
use crate::limits::WINDOW_SEGMENTS_MAX;
use ringway_wire::ids::{Conversation, UserId};
use ringway_wire::schema::ErrorCode;

impl<D: Disk> JournalEngine<D> {
    /// Writes and syncs the batch. `false`: it could not be written, and no trace of it is left on disk.
    pub(super) fn write(&mut self, now: Now) -> Result<bool, LedgerError> {
        if self.commit.batch.is_empty() {
            return Ok(true);
        }
        let bytes = self.commit.batch.len() as u64;
        if let Err(error) = self.journal.append(&mut self.commit.batch) {
            self.room.refused(now.mono_ms, &error);
            // If this fails too, it is done before anything else is written.
            self.journal.rollback().ok();
            return Ok(false);
        }
        let durable = self.journal.sync().map_err(LedgerError::Sync)?;
        self.shares.committed(durable, self.commit.weight);
        self.progress.advance_durable(durable);
        self.room.is_there();
        self.grown = true;
        self.answers.counters.commits += 1;
        self.answers.counters.bytes += bytes;
        self.answers.counters.messages += self.commit.messages as u64;
        self.answers.counters.rows += self.commit.rows as u64;
        Ok(true)
    }

    /// Makes numbers, window, groups and bases what they were before the commit.
    pub(super) fn take_back(&mut self, staged: &[PendingDelivery]) {
        for item in staged.iter().rev() {
            if let Some(message) = item.message() {
                self.window.take_back(&Name { sender: message.sender, client_msg_id: message.client_msg_id });
            }
            match item {
                PendingDelivery::Delivery(Delivery::Group { roster, .. }) => {
                    roster.members().iter().for_each(|member| self.sequences.take_back(member.slot));
                }
                PendingDelivery::Delivery(Delivery::Direct { message, .. }) => {
                    self.take_back_row(message.sender);
                    if let Conversation::User(to) = message.to
                        && to != message.sender
                    {
                        self.take_back_row(to);
                    }
                }
                _ => {}
            }
        }
        self.groups.take_back();
        if let Some(at) = self.commit.at {
            self.bases.take_back(at);
        }
    }

    pub(super) fn take_back_row(&mut self, user: UserId) {
        if let Some(slot) = self.sequences.slot(user).or_count(Place::Ledger) {
            self.sequences.take_back(slot);
        }
    }

    pub(super) fn instead(&mut self, item: PendingDelivery) -> PendingDelivery {
        let answer = item.failed(self.commit.before, self.commit.changes, &self.sequences, &self.groups);
        let full = matches!(answer, PendingDelivery::Delivery(Delivery::Refused { code: ErrorCode::StorageFull, .. }));
        self.answers.counters.storage_full += u64::from(full);
        answer
    }

    /// Removes segments that neither the store, nor who reads behind it, nor, where that is cheap, the window's next
    /// rebuilding needs.
    pub(super) fn retire(&mut self) {
        let needed_from = self.progress.needed_from();
        let mut below = None;
        while let Some((next, began_ms)) = self.segments.get(1).copied()
            && next <= needed_from
            && (began_ms < self.window.horizon_ms() || self.segments.len() > WINDOW_SEGMENTS_MAX)
        {
            self.segments.pop_front();
            below = Some(next);
        }
        if let Some(below) = below
            && let Err(error) = self.journal.retire(below)
        {
            tracing::warn!(%error, "a segment that is no longer needed stays on disk until the next one goes");
        }
    }
}
