//! Which messages were seen before.
//!
//! Owned by the ledger's thread. What always holds: of every message whose name may have been given at or above the
//! window's horizon the window knows the name; of an older one it may, and where it does not, the answer is that the store
//! must be asked. No guess is ever made. What was let go is judged by the times in the names, which clients give: messages
//! that a clock has dated an hour ahead by mistake do not make the names of that hour unknown.

use std::collections::VecDeque;

use crate::contract::message::Incoming;
use crate::ledger::parts::PartedMap;
use crate::limits::{WINDOW_ENTRIES_MAX, WINDOW_MS};
use ringway_wire::ids::{ClientMsgId, MsgId, Seq, UserId};
use ringway_wire::limits::CLIENT_MSG_ID_AHEAD_MS;
use ringway_wire::schema::ErrorCode;

/// Entries that one call lets go at most, so that a window that grew old at once is no pause.
const EVICTIONS_MAX: usize = 256;

/// By what a message is recognised.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Name {
    /// Who sent it.
    pub sender: UserId,
    /// Under which name.
    pub client_msg_id: ClientMsgId,
}

impl Name {
    /// A message's.
    pub(crate) fn of(incoming: &Incoming) -> Name {
        Name { sender: incoming.sender, client_msg_id: incoming.client_msg_id }
    }
}

/// What is kept of a message for its repeats.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known {
    /// The number that the ledger gave it, unique in the cluster and for ever.
    pub msg_id: MsgId,
    /// The sender's row.
    pub seq: Seq,
    /// [`crate::contract::digest::digest`] of it.
    pub digest: u64,
}

/// What the window says of a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// Certainly never: number it.
    Never,
    /// Perhaps long ago: ask the store.
    Perhaps,
    /// It was, and became this message.
    Before(Known),
}

/// The window.
#[derive(Debug)]
pub struct Window {
    entries: PartedMap<Name, Known>,
    /// By message id; the newest last.
    order: VecDeque<Name>,
    /// The highest that was let go.
    let_go: MsgId,
    /// Names given before this may be of messages that were let go, or never known.
    floor_ms: u64,
    /// The floor, or what is older than `WINDOW_MS`.
    horizon_ms: u64,
    entries_max: usize,
}

impl Window {
    /// An empty window: what is at or above the floor (ledger time, Unix milliseconds) never happened.
    pub fn new(seed: u64, floor_ms: u64) -> Self {
        Window {
            entries: PartedMap::new(seed),
            order: VecDeque::new(),
            let_go: MsgId(0),
            floor_ms,
            horizon_ms: floor_ms,
            entries_max: WINDOW_ENTRIES_MAX,
        }
    }

    /// A window with another limit of entries than `WINDOW_ENTRIES_MAX`.
    pub(crate) fn with_entries_max(mut self, entries_max: usize) -> Self {
        self.entries_max = entries_max.max(1);
        self
    }

    /// From when on (ledger time, Unix milliseconds) every message is known.
    pub(crate) fn horizon_ms(&self) -> u64 {
        self.horizon_ms
    }

    /// How many messages are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// Has this been sent before? `named_ms` is the time in the name. A message is numbered at the earliest
    /// `CLIENT_MSG_ID_AHEAD_MS` before that.
    pub fn seen(&self, name: &Name, named_ms: u64) -> Seen {
        match self.entries.get(name) {
            Some(known) => Seen::Before(*known),
            None if named_ms.saturating_sub(CLIENT_MSG_ID_AHEAD_MS) >= self.horizon_ms => Seen::Never,
            None => Seen::Perhaps,
        }
    }

    /// Has this been sent since this message was the newest, if it had not been sent before?
    pub(crate) fn seen_since(&self, name: &Name, newest: MsgId) -> Seen {
        match self.entries.get(name) {
            Some(known) => Seen::Before(*known),
            None if self.let_go <= newest => Seen::Never,
            None => Seen::Perhaps,
        }
    }

    /// A message was numbered; its id is above all before it.
    pub fn insert(&mut self, name: Name, known: Known) {
        if self.entries.insert(name, known).is_none() {
            self.order.push_back(name);
        }
        while self.order.len() > self.entries_max {
            self.evict();
        }
    }

    /// Forgets the newest entry: its commit failed.
    pub(crate) fn take_back(&mut self, name: &Name) {
        if self.order.back() == Some(name) {
            self.order.pop_back();
            self.entries.remove(name);
        }
    }

    /// It is this time by the ledger. When that goes back, so does the horizon, to what was let go.
    pub(crate) fn pass(&mut self, time_ms: u64) {
        self.horizon_ms = self.floor_ms.max(time_ms.saturating_sub(WINDOW_MS));
    }

    /// Lets go what is older than `WINDOW_MS` by now, the ledger's time.
    pub(crate) fn advance(&mut self, time_ms: u64) {
        self.pass(time_ms);
        for _ in 0..EVICTIONS_MAX {
            let oldest = self.order.front().and_then(|name| self.entries.get(name));
            if oldest.is_none_or(|known| known.msg_id.sent_at_ms() >= self.horizon_ms) {
                break;
            }
            self.evict();
        }
    }

    fn evict(&mut self) {
        let Some(name) = self.order.pop_front() else { return };
        if let Some(known) = self.entries.remove(&name) {
            self.floor_ms = self.floor_ms.max(floor_behind(&name));
            self.horizon_ms = self.horizon_ms.max(self.floor_ms);
            self.let_go = self.let_go.max(known.msg_id);
        }
    }
}

/// A floor at which this name, and all given before it, may have been used.
pub(crate) fn floor_behind(name: &Name) -> u64 {
    let named_ms = name.client_msg_id.unix_ms().unwrap_or_default();
    (named_ms + 1).saturating_sub(CLIENT_MSG_ID_AHEAD_MS)
}

/// The time in a name, if a message may have it now; `time_ms` is the ledger's time.
pub(crate) fn named_ms(client_msg_id: &ClientMsgId, time_ms: u64) -> Result<u64, ErrorCode> {
    match client_msg_id.unix_ms() {
        None => Err(ErrorCode::ClientMsgIdInvalid),
        Some(named) if named > time_ms.saturating_add(CLIENT_MSG_ID_AHEAD_MS) => Err(ErrorCode::ClientMsgIdAhead),
        Some(named) => Ok(named),
    }
}

#[cfg(test)]
mod tests;
