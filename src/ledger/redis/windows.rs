//! Digests of the rows that this node has numbered, so that nodes that number otherwise are found out.
//!
//! Owned by the engine. What always holds: a window is `WINDOW_ENTRIES` entries of the stream, the same ones on every
//! node; only one whose entries were all followed by this node has a digest; and the digest is the same on every node
//! that gave each user the same numbers, whatever its shards, its version and the order of its members.

use std::collections::VecDeque;

use crate::contract::ids::mixed;
use crate::contract::position::StreamPosition;
use crate::limits::{WINDOW_ENTRIES, WINDOWS_KEPT};
use ringway_wire::ids::{MsgId, Seq, UserId};

/// What was numbered so far in the window, and windows that are to be compared.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    /// Of the window that is being followed; `None`: not from its first entry.
    digest: Option<u64>,
    /// Window and digest.
    done: VecDeque<(u64, u64)>,
}

/// The rows of one entry, in any order.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct EntryRows(u64);

impl EntryRows {
    /// Adds a row (or of a change of a group: a user and what it is there).
    #[inline]
    pub(crate) fn add(&mut self, user: UserId, seq: Seq) {
        self.0 = self.0.wrapping_add(mixed(user.0 ^ mixed(seq.0)));
    }
}

impl Windows {
    /// The next entry was followed.
    pub(crate) fn take(&mut self, at: StreamPosition, msg_id: MsgId, rows: EntryRows) {
        let (window, place) = ((at.0 - 1) / WINDOW_ENTRIES, (at.0 - 1) % WINDOW_ENTRIES);
        if place == 0 {
            self.digest = Some(window);
        }
        let Some(digest) = &mut self.digest else { return };
        *digest = mixed(*digest ^ mixed(msg_id.0 ^ mixed(rows.0)));
        if place + 1 == WINDOW_ENTRIES {
            self.done.extend(self.digest.take().map(|digest| (window, digest)));
            if self.done.len() as u64 > WINDOWS_KEPT {
                self.done.pop_front();
            }
        }
    }

    /// Entries are left out, or another stream begins.
    pub(crate) fn interrupted(&mut self) {
        *self = Windows::default();
    }

    /// The next window that is to be compared.
    pub(crate) fn front(&self) -> Option<(u64, u64)> {
        self.done.front().copied()
    }

    /// It is being compared.
    pub(crate) fn pop_front(&mut self) {
        self.done.pop_front();
    }
}
