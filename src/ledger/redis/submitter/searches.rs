//! What is searched for in the store before Redis is called with it.
//!
//! Owned by what is in flight. What always holds: a submission is either to be asked for or being asked for, and once; the store
//! is asked for so many names at once, the oldest first; one that could not answer is left alone for a while, twice as long
//! each time; and of each sender it is known at once whether anything of it is searched for, as all that it sends meanwhile
//! waits behind that.

use std::collections::{BTreeMap, HashMap};

use crate::contract::internal::{OrCount, Place};
use crate::contract::keyed::TableKey;
use crate::contract::position::StreamPosition;
use crate::contract::store::Lookup;
use crate::ledger::dedup::Name;
use crate::limits::{SEARCH_RETRY_MAX_MS, STORE_RETRY_FIRST_MS};
use ringway_wire::ids::{MsgId, UserId};

/// Names that are asked for at once.
const ASKED_AT_ONCE: usize = 256;

/// What is searched for under one name.
#[derive(Debug, Default)]
pub(super) struct Searched {
    pub(super) submissions: Vec<MsgId>,
    /// The store was asked when all that Redis had by this second had been read.
    pub(super) known_s: u64,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Searches {
    /// To be asked for. A change has no name.
    waiting: BTreeMap<MsgId, Option<Name>>,
    asked: HashMap<Name, Searched, TableKey>,
    /// Of each sender how many; none has none.
    senders: HashMap<UserId, usize, TableKey>,
    /// It is all that there was when the generation ended.
    is_all: bool,
    /// The store must be here before it is asked: until then its tail has entries of a stream that is lost.
    from: StreamPosition,
    pause: Pause,
}

/// How long the store is left alone after it could not answer, monotonic milliseconds.
#[derive(Debug, Default)]
struct Pause {
    /// Nothing is asked for before this.
    until_ms: u64,
    /// The last time as the engine knows it.
    now_ms: u64,
    /// The last pause; zero: the store has answered since.
    last_ms: u64,
}

impl Pause {
    fn is_on(&self) -> bool {
        self.now_ms < self.until_ms
    }

    /// The store could not answer. What it was asked before the pause began makes that no longer.
    fn begin(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        if !self.is_on() {
            self.last_ms = (self.last_ms * 2).clamp(STORE_RETRY_FIRST_MS, SEARCH_RETRY_MAX_MS);
            self.until_ms = self.now_ms + self.last_ms;
        }
    }

    fn end(&mut self) {
        (self.until_ms, self.last_ms) = (0, 0);
    }
}

/// Why something is asked for again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Again {
    /// The store could not answer, at this monotonic time in milliseconds: not at once.
    Unavailable(u64),
    /// The answer was out of date: at once.
    OutOfDate,
}

impl Searches {
    /// Something is.
    fn any(&self) -> bool {
        !self.waiting.is_empty() || !self.asked.is_empty()
    }

    /// Something of all that the lost generation may have had is.
    pub(super) fn is_of_all(&self) -> bool {
        self.is_all && self.any()
    }

    /// Something of this sender is.
    pub(super) fn any_of(&self, sender: UserId) -> bool {
        self.senders.contains_key(&sender)
    }

    /// This is.
    #[cfg(test)]
    pub(super) fn has(&self, msg_id: MsgId, name: Option<&Name>) -> bool {
        self.waiting.contains_key(&msg_id) || self.is_asked(msg_id, name)
    }

    fn is_asked(&self, msg_id: MsgId, name: Option<&Name>) -> bool {
        name.and_then(|name| self.asked.get(name)).is_some_and(|searched| searched.submissions.contains(&msg_id))
    }

    /// One more is searched for next, beside what there is.
    pub(super) fn begin_one(&mut self) {
        self.is_all &= self.any();
    }

    /// All that there is is searched for next, as soon as the store is at this entry.
    pub(super) fn begin_all(&mut self, from: StreamPosition) {
        self.from = from;
        self.is_all = true;
    }

    /// Searches for this.
    pub(super) fn add(&mut self, msg_id: MsgId, name: Option<Name>) {
        if self.is_asked(msg_id, name.as_ref()) || self.waiting.insert(msg_id, name).is_some() {
            return;
        }
        if let Some(name) = name {
            *self.senders.entry(name.sender).or_default() += 1;
        }
    }

    /// It is to be asked for again.
    pub(super) fn put_back(&mut self, msg_id: MsgId, name: Name, again: Again) {
        if let Again::Unavailable(now_ms) = again {
            self.pause.begin(now_ms);
        }
        self.add(msg_id, Some(name));
    }

    /// The store can answer.
    pub(super) fn is_answered(&mut self) {
        self.pause.end();
    }

    /// Time passes, monotonic milliseconds.
    pub(super) fn pass(&mut self, now_ms: u64) {
        self.pause.now_ms = now_ms;
    }

    /// It is searched for no more.
    pub(super) fn remove(&mut self, msg_id: MsgId, name: Option<&Name>) {
        if let Some(name) = self.waiting.remove(&msg_id) {
            return self.ends(name.as_ref(), 1);
        }
        let Some(name) = name else { return };
        let Some(searched) = self.asked.get_mut(name) else { return };
        let before = searched.submissions.len();
        searched.submissions.retain(|other| *other != msg_id);
        let gone = before - searched.submissions.len();
        if searched.submissions.is_empty() {
            self.asked.remove(name);
        }
        self.ends(Some(name), gone);
    }

    fn ends(&mut self, name: Option<&Name>, count: usize) {
        // A change has no name; and the store also answers what others have asked for.
        let Some(sender) = name.filter(|_| count > 0).map(|name| name.sender) else { return };
        if let Some(left) = self.senders.get_mut(&sender).or_count(Place::InFlight) {
            *left = left.checked_sub(count).or_count(Place::InFlight).unwrap_or_default();
            if *left == 0 {
                self.senders.remove(&sender);
            }
        }
    }

    /// The store has answered: what was asked for under this name.
    pub(super) fn take_answered(&mut self, name: &Name) -> Searched {
        let searched = self.asked.remove(name).unwrap_or_default();
        self.ends(Some(name), searched.submissions.len());
        searched
    }

    /// Moves what the store, at this entry, is to be asked for now to `out`; a look-up knows of all that Redis had by
    /// `known_s`. Returns the changes among what is searched for: they have no name, and are told by their version.
    pub(super) fn take_lookups(&mut self, applied: StreamPosition, known_s: u64, out: &mut Vec<Lookup>) -> Vec<MsgId> {
        let mut unnamed = Vec::new();
        if applied < self.from || self.pause.is_on() {
            return unnamed;
        }
        while self.asked.len() < ASKED_AT_ONCE
            && let Some((msg_id, name)) = self.waiting.pop_first()
        {
            let Some(name) = name else {
                unnamed.push(msg_id);
                continue;
            };
            let searched = self.asked.entry(name).or_default();
            searched.submissions.push(msg_id);
            // One of a former process may have the same name as another that took its place.
            if searched.submissions.len() == 1 {
                searched.known_s = known_s;
                out.push(Lookup { sender: name.sender, client_msg_id: name.client_msg_id, generation: 0 });
            }
        }
        unnamed
    }
}
