//! Messages that wait until the store has said whether it knows their names, and those that wait behind them.
//!
//! Owned by the ledger's thread; both engines use it. What always holds: what a sender sends waits behind whatever of
//! that sender waits already, and leaves in the order in which it came; a name is asked for once at a time, however
//! often it is sent meanwhile; an answer comes with the moment at which it was asked for, as it may wait for its turn
//! until it is out of date; one sender has at most `LOOKUPS_PENDING_SENDER_MAX` waiting, so that nobody takes the room
//! of all.

use std::collections::{HashMap, VecDeque};

use crate::contract::keyed::TableKey;
use crate::contract::store::{Lookup, LookupFound};
use crate::contract::submission::MessageSubmission;
use crate::ledger::dedup::Name;
use crate::limits::{LOOKUPS_PENDING_MAX, LOOKUPS_PENDING_SENDER_MAX};
use ringway_wire::ids::UserId;

/// The waiting. `M` is a moment, by which an engine tells what an answer knows of: all that came before it was asked.
#[derive(Debug)]
pub(crate) struct Pending<M> {
    /// Of each sender, in order; no sender has none.
    senders: HashMap<UserId, VecDeque<Waiting<M>>, TableKey>,
    waiting_count: usize,
    /// Names that the store has been asked for and has not answered, and when it was asked. Who waited for an answer may
    /// be gone when it comes.
    asked: HashMap<Name, M, TableKey>,
    to_ask: Vec<Lookup>,
}

#[derive(Debug)]
struct Waiting<M> {
    submission: MessageSubmission,
    until: Until<M>,
}

/// What a message waits for, beside those before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Until<M> {
    /// The store's answer.
    Answer,
    /// Nothing more; `None`: the store was not asked.
    Turn(Option<Answered<M>>),
}

/// The store's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Answered<M> {
    /// What it found.
    pub(crate) found: LookupFound,
    /// When it was asked.
    pub(crate) asked: M,
}

/// Where a message stands among those of its sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// It has come just now: behind all that waits.
    Last,
    /// Its turn has come: whatever waits, waits behind it.
    First,
}

/// Why a message waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait<M> {
    /// The store has to be asked for its name, at this moment.
    Lookup(M),
    /// Others of its sender wait.
    Behind,
}

/// How a message was parked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Parked {
    /// The store will be asked.
    First,
    /// The store has been asked already, or need not be.
    WithAnother,
}

/// A message whose turn has come.
#[derive(Debug)]
pub(crate) struct Released<M> {
    /// It.
    pub(crate) submission: MessageSubmission,
    /// What the store answered; `None`: it was not asked.
    pub(crate) answered: Option<Answered<M>>,
}

impl<M: Copy> Pending<M> {
    /// Nobody waits.
    pub(crate) fn new(seed: u64) -> Self {
        let (senders, asked) =
            (HashMap::with_hasher(TableKey::new(seed)), HashMap::with_hasher(TableKey::new(seed ^ 1)));
        Pending { senders, waiting_count: 0, asked, to_ask: Vec::new() }
    }

    /// Something of this sender waits.
    pub(crate) fn waits_for(&self, sender: UserId) -> bool {
        self.senders.contains_key(&sender)
    }

    /// Lets a message wait; hands it back when too many do.
    pub(crate) fn park(&mut self, submission: MessageSubmission, wait: Wait<M>) -> Result<Parked, MessageSubmission> {
        let name = Name::of(&submission.incoming);
        let of_sender = self.senders.get(&name.sender).map_or(0, VecDeque::len);
        if self.waiting_count.max(self.asked.len()) >= LOOKUPS_PENDING_MAX || of_sender >= LOOKUPS_PENDING_SENDER_MAX {
            return Err(submission);
        }
        self.waiting_count += 1;
        let (until, parked) = match wait {
            Wait::Behind => (Until::Turn(None), Parked::WithAnother),
            Wait::Lookup(now) => (Until::Answer, self.ask(name, now)),
        };
        self.senders.entry(name.sender).or_default().push_back(Waiting { submission, until });
        Ok(parked)
    }

    /// Puts a message back whose turn had come: the store has to be asked for it after all, or again.
    pub(crate) fn park_first(&mut self, submission: MessageSubmission, now: M) -> Parked {
        let name = Name::of(&submission.incoming);
        self.waiting_count += 1;
        self.senders.entry(name.sender).or_default().push_front(Waiting { submission, until: Until::Answer });
        self.ask(name, now)
    }

    /// The store has answered.
    pub(crate) fn answered(&mut self, lookup: &Lookup, found: LookupFound) {
        let name = Name { sender: lookup.sender, client_msg_id: lookup.client_msg_id };
        let Some(asked) = self.asked.remove(&name) else { return };
        // Nobody: what waited was refused meanwhile.
        for waiting in self.senders.get_mut(&name.sender).into_iter().flatten() {
            if matches!(waiting.until, Until::Answer) && waiting.name() == name {
                waiting.until = Until::Turn(Some(Answered { found, asked }));
            }
        }
    }

    /// The sender's next message, if its turn has come.
    pub(crate) fn next(&mut self, sender: UserId) -> Option<Released<M>> {
        let waiting = self.senders.get_mut(&sender)?;
        let Until::Turn(answered) = waiting.front()?.until else { return None };
        let Waiting { submission, .. } = waiting.pop_front()?;
        if waiting.is_empty() {
            self.senders.remove(&sender);
        }
        self.waiting_count -= 1;
        Some(Released { submission, answered })
    }

    /// All that waits of this sender, in order: what came before it was refused, and would come behind it.
    pub(crate) fn refuse(&mut self, sender: UserId) -> impl Iterator<Item = MessageSubmission> + use<M> {
        let refused = self.senders.remove(&sender).unwrap_or_default();
        self.waiting_count -= refused.len();
        refused.into_iter().map(|waiting| waiting.submission)
    }

    /// Moves what is to be asked to `out`.
    pub(crate) fn take_lookups(&mut self, out: &mut Vec<Lookup>) {
        out.append(&mut self.to_ask);
    }

    /// An answer that is on its way already knows of less: it comes with its own moment.
    fn ask(&mut self, name: Name, now: M) -> Parked {
        if self.asked.contains_key(&name) {
            return Parked::WithAnother;
        }
        self.asked.insert(name, now);
        self.to_ask.push(Lookup { sender: name.sender, client_msg_id: name.client_msg_id, generation: 0 });
        Parked::First
    }
}

impl<M> Waiting<M> {
    fn name(&self) -> Name {
        Name::of(&self.submission.incoming)
    }
}
