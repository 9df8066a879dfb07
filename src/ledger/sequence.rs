//! Numbers: message ids from time, and each user's seq.
//!
//! Owned by the ledger's thread. What always holds: a message id is above every one before it, whatever the clock
//! does; a seq is given once, unless the commit that gave it failed and nobody has seen it.

use crate::contract::ids::LedgerSlot;
use crate::ledger::parts::PartedMap;
use crate::limits::{LEDGER_AHEAD_MAX_MS, LEDGER_USERS_MAX};
use ringway_wire::ids::{MSG_ID_EPOCH_MS, MsgId, Seq, UserId};

const TIME_SHIFT: u32 = MsgId::TIME_SHIFT;
const NODE_SHIFT: u32 = 12;
const COUNTER_MAX: u64 = (1 << NODE_SHIFT) - 1;
const NODE_MAX: u16 = (1 << (TIME_SHIFT - NODE_SHIFT)) - 1;

/// Makes message ids.
#[derive(Clone, Copy, Debug)]
pub struct MsgIdSource {
    last: MsgId,
    node: u64,
}

impl MsgIdSource {
    /// A source on a node (its low 10 bits count) that continues above `last`.
    pub fn new(node: u16, last: MsgId) -> Self {
        MsgIdSource { last, node: u64::from(node & NODE_MAX) }
    }

    /// The highest id so far.
    pub(crate) fn last(&self) -> MsgId {
        self.last
    }

    /// No id at or below this one will be made.
    pub(crate) fn raise(&mut self, msg_id: MsgId) {
        self.last = self.last.max(msg_id);
    }

    /// The ledger's time: the clock's, or the last message's if that is later, but not by more than
    /// `LEDGER_AHEAD_MAX_MS`.
    pub(crate) fn time_ms(&self, unix_ms: u64) -> u64 {
        unix_ms.max(self.last.sent_at_ms().min(unix_ms.saturating_add(LEDGER_AHEAD_MAX_MS)))
    }

    /// The next id. When a millisecond's 4,096 are used up it borrows from the next.
    pub fn next(&mut self, unix_ms: u64) -> MsgId {
        let id = |time: u64, counter: u64| (time << TIME_SHIFT) | (self.node << NODE_SHIFT) | counter;
        let time = unix_ms.min(MsgId::TIME_MAX_MS).max(self.last.sent_at_ms()) - MSG_ID_EPOCH_MS;
        let first = id(time, 0);
        let next = if first > self.last.0 {
            first
        } else {
            let same_node = self.last.0 & !COUNTER_MAX == first;
            let counter = (self.last.0 & COUNTER_MAX) + 1;
            if same_node && counter <= COUNTER_MAX { id(time, counter) } else { id(time + 1, 0) }
        };
        self.last = MsgId(next);
        self.last
    }
}

/// Every known user's newest seq, by a dense index that spares the hot path a hash look-up per row.
#[derive(Debug)]
pub(crate) struct Sequences {
    slots: PartedMap<UserId, LedgerSlot>,
    newest: Vec<Seq>,
    /// Rows are numbered above this, whoever's they are.
    floor: Seq,
    users_max: usize,
}

impl Sequences {
    /// Nobody is known. The seed keeps those who choose user ids from choosing collisions.
    pub(crate) fn new(seed: u64) -> Self {
        Sequences { slots: PartedMap::new(seed), newest: Vec::new(), floor: Seq(0), users_max: LEDGER_USERS_MAX }
    }

    /// With room for so many users.
    #[cfg(test)]
    pub(crate) fn with_room(seed: u64, users_max: usize) -> Self {
        Sequences { users_max, ..Sequences::new(seed) }
    }

    /// The highest seq of all users.
    pub(crate) fn highest(&self) -> Seq {
        self.newest.iter().copied().max().unwrap_or_default()
    }

    /// What rows are numbered above.
    pub(crate) fn floor(&self) -> Seq {
        self.floor
    }

    /// From now on rows are numbered above this.
    pub(crate) fn set_floor(&mut self, floor: Seq) {
        self.floor = floor;
    }

    /// How many users are known.
    pub(crate) fn users(&self) -> usize {
        self.newest.len()
    }

    /// The user's slot, if it has one.
    pub(crate) fn slot(&self, user: UserId) -> Option<LedgerSlot> {
        self.slots.get(&user).copied()
    }

    /// The user's slot, a new one if need be; `None` at `LEDGER_USERS_MAX`.
    pub(crate) fn assign(&mut self, user: UserId) -> Option<LedgerSlot> {
        if let Some(slot) = self.slot(user) {
            return Some(slot);
        }
        if self.newest.len() >= self.users_max {
            return None;
        }
        let slot = LedgerSlot(self.newest.len() as u32);
        self.newest.push(Seq(0));
        self.slots.insert(user, slot);
        Some(slot)
    }

    /// The user's newest seq; zero for one who is not known.
    pub(crate) fn newest(&self, user: UserId) -> Seq {
        self.slot(user).map_or(Seq(0), |slot| self.at(slot))
    }

    /// A slot's newest seq.
    pub(crate) fn at(&self, slot: LedgerSlot) -> Seq {
        self.check(slot);
        self.newest[slot.0 as usize]
    }

    /// Numbers one row.
    #[inline]
    pub(crate) fn next(&mut self, slot: LedgerSlot) -> Seq {
        let floor = self.floor;
        let newest = self.of_slot(slot);
        *newest = (*newest).max(floor).next();
        *newest
    }

    /// Takes the newest row's number back: its commit failed.
    pub(crate) fn take_back(&mut self, slot: LedgerSlot) {
        let newest = self.of_slot(slot);
        assert!(newest.0 > 0, "a number is taken back that was never given");
        newest.0 -= 1;
    }

    /// The user has a row of this number: no lower one will be given.
    pub(crate) fn raise(&mut self, slot: LedgerSlot, seq: Seq) {
        let newest = self.of_slot(slot);
        *newest = (*newest).max(seq);
    }

    #[inline]
    fn of_slot(&mut self, slot: LedgerSlot) -> &mut Seq {
        self.check(slot);
        &mut self.newest[slot.0 as usize]
    }

    /// Slots come from [`Self::assign`] alone. What is numbered wrongly is so for ever, on disk and at clients: rather no
    /// ledger. The comparison is the one that bounds the index.
    #[inline]
    fn check(&self, slot: LedgerSlot) {
        assert!((slot.0 as usize) < self.newest.len(), "slot {} was never assigned", slot.0);
    }
}

#[cfg(test)]
mod tests;
