//! The sender's row of each entry followed lately, with which repeats are answered.
//!
//! Owned by the engine. What always holds: it has the last entries that were followed, one behind the other, at most
//! `SENDER_ROWS_MAX`; older ones are to be had from the store.

use std::collections::VecDeque;

use crate::contract::position::StreamPosition;
use crate::limits::SENDER_ROWS_MAX;
use ringway_wire::ids::Seq;

/// Sender's rows by entry.
#[derive(Debug, Default)]
pub(crate) struct SenderRows {
    /// The number of the entry behind the last one.
    next: StreamPosition,
    seqs: VecDeque<Seq>,
}

impl SenderRows {
    /// The entry was followed; of what is no message the row is zero.
    pub(crate) fn push(&mut self, at: StreamPosition, seq: Seq) {
        if at != self.next {
            self.seqs.clear();
        }
        if self.seqs.len() >= SENDER_ROWS_MAX {
            self.seqs.pop_front();
        }
        self.seqs.push_back(seq);
        self.next = at.next();
    }

    /// Another stream begins.
    pub(crate) fn clear(&mut self) {
        self.seqs.clear();
        self.next = StreamPosition(0);
    }

    /// The sender's row in this entry, if it is still known.
    pub(crate) fn find(&self, at: StreamPosition) -> Option<Seq> {
        let behind = self.next.0.checked_sub(at.0)?;
        let at = self.seqs.len().checked_sub(usize::try_from(behind).ok()?)?;
        self.seqs.get(at).copied()
    }
}
