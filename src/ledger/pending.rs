//! Messages that wait until the store has said whether it knows their names, and those that wait behind them.
//!
//! Owned by the ledger's thread; both engines use it. What always holds: what a sender sends waits behind whatever of
//! that sender waits already, and leaves in the order in which it came; a name is asked for once at a time, however
//! often it is sent meanwhile; one sender has at most `LOOKUPS_PENDING_SENDER_MAX` waiting, so that nobody takes the
//! room of all.

use std::collections::{HashMap, VecDeque};

use crate::contract::keyed::TableKey;
use crate::contract::store::{Lookup, LookupFound};
use crate::contract::submission::MessageSubmission;
use crate::ledger::dedup::Name;
use crate::limits::{LOOKUPS_PENDING_MAX, LOOKUPS_PENDING_SENDER_MAX};
use ringway_wire::ids::UserId;

/// The waiting.
#[derive(Debug)]
pub struct Pending {
    /// Of each sender, in order; no sender has none.
    senders: HashMap<UserId, VecDeque<Waiting>, TableKey>,
    waiting_count: usize,
    to_ask: Vec<Lookup>,
}

#[derive(Debug)]
struct Waiting {
    submission: MessageSubmission,
    until: Until,
    /// See [`Released::known_s`].
    known_s: u64,
}

/// What a message waits for, beside those before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Until {
    /// The store's answer.
    Answer,
    /// Nothing more: this is the answer; `None`: it was not asked for.
    Turn(Option<LookupFound>),
}

/// Where a message stands among those of its sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// It has come just now: behind all that waits.
    Last,
    /// Its turn has come: whatever waits, waits behind it.
    First,
}

/// Why a message waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// The store has to be asked for its name.
    Lookup {
        /// See [`Released::known_s`].
        known_s: u64,
    },
    /// Others of its sender wait.
    Behind,
}

/// How a message was parked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parked {
    /// The store will be asked.
    First,
    /// The store has been asked already, or need not be.
    WithAnother,
}

/// A message whose turn has come.
#[derive(Debug)]
pub struct Released {
    /// It.
    pub submission: MessageSubmission,
    /// What the store answered; `None`: it was not asked.
    pub found: Option<LookupFound>,
    /// In a cluster: everything that Redis had by this second of its clock was searched by that answer.
    pub known_s: u64,
}

impl Pending {
    /// Nobody waits.
    pub fn new(seed: u64) -> Self {
        Pending { senders: HashMap::with_hasher(TableKey::new(seed)), waiting_count: 0, to_ask: Vec::new() }
    }

    /// Something of this sender waits.
    pub fn waits_for(&self, sender: UserId) -> bool {
        self.senders.contains_key(&sender)
    }

    /// Lets a message wait; hands it back when too many do.
    pub fn park(&mut self, submission: MessageSubmission, wait: Wait) -> Result<Parked, MessageSubmission> {
        let name = Name::of(&submission.incoming);
        let waiting = self.senders.entry(name.sender).or_default();
        if self.waiting_count >= LOOKUPS_PENDING_MAX || waiting.len() >= LOOKUPS_PENDING_SENDER_MAX {
            if waiting.is_empty() {
                self.senders.remove(&name.sender);
            }
            return Err(submission);
        }
        self.waiting_count += 1;
        let asked = waiting.iter().find(|other| other.until == Until::Answer && other.name() == name);
        let (until, known_s, parked) = match (wait, asked.map(|asked| asked.known_s)) {
            (Wait::Behind, _) => (Until::Turn(None), 0, Parked::WithAnother),
            (Wait::Lookup { .. }, Some(known_s)) => (Until::Answer, known_s, Parked::WithAnother),
            (Wait::Lookup { known_s }, None) => (Until::Answer, known_s, Parked::First),
        };
        waiting.push_back(Waiting { submission, until, known_s });
        if parked == Parked::First {
            self.ask(name);
        }
        Ok(parked)
    }

    /// Puts a message back whose turn had come: the store has to be asked for it after all.
    pub fn park_first(&mut self, submission: MessageSubmission, known_s: u64) {
        let name = Name::of(&submission.incoming);
        self.waiting_count += 1;
        let waiting = self.senders.entry(name.sender).or_default();
        waiting.push_front(Waiting { submission, until: Until::Answer, known_s });
        self.ask(name);
    }

    /// The store has answered.
    pub fn answered(&mut self, lookup: &Lookup, found: LookupFound) {
        let name = Name { sender: lookup.sender, client_msg_id: lookup.client_msg_id };
        // Nobody: what waited was refused meanwhile.
        for waiting in self.senders.get_mut(&name.sender).into_iter().flatten() {
            if waiting.until == Until::Answer && waiting.name() == name {
                waiting.until = Until::Turn(Some(found));
            }
        }
    }

    /// The sender's next message, if its turn has come.
    pub fn next(&mut self, sender: UserId) -> Option<Released> {
        let waiting = self.senders.get_mut(&sender)?;
        let Until::Turn(found) = waiting.front()?.until else { return None };
        let Waiting { submission, known_s, .. } = waiting.pop_front()?;
        if waiting.is_empty() {
            self.senders.remove(&sender);
        }
        self.waiting_count -= 1;
        Some(Released { submission, found, known_s })
    }

    /// All that waits of this sender, in order: what came before it was refused, and would come behind it.
    pub fn refuse(&mut self, sender: UserId) -> impl Iterator<Item = MessageSubmission> + use<> {
        let refused = self.senders.remove(&sender).unwrap_or_default();
        self.waiting_count -= refused.len();
        refused.into_iter().map(|waiting| waiting.submission)
    }

    /// Moves what is to be asked to `out`.
    pub fn take_lookups(&mut self, out: &mut Vec<Lookup>) {
        out.append(&mut self.to_ask);
    }

    fn ask(&mut self, name: Name) {
        self.to_ask.push(Lookup { sender: name.sender, client_msg_id: name.client_msg_id, generation: 0 });
    }
}

impl Waiting {
    fn name(&self) -> Name {
        Name::of(&self.submission.incoming)
    }
}
