//! Submissions that wait until the store has said whether it knows their names.
//!
//! Owned by the ledger's thread. What always holds: a name is asked for once at a time, however often it is sent
//! meanwhile; all who sent it wait in one entry, in their order.

use std::collections::HashMap;

use crate::contract::keyed::TableKey;
use crate::contract::store::Lookup;
use crate::contract::submission::MessageSubmission;
use crate::ledger::dedup::Name;
use crate::limits::LOOKUPS_PENDING_MAX;

/// The waiting.
#[derive(Debug)]
pub struct Pending {
    waiting: HashMap<Name, Vec<MessageSubmission>, TableKey>,
    waiting_count: usize,
    to_ask: Vec<Lookup>,
}

impl Pending {
    /// Nobody waits.
    pub fn new(seed: u64) -> Self {
        Pending { waiting: HashMap::with_hasher(TableKey::new(seed)), waiting_count: 0, to_ask: Vec::new() }
    }

    /// Somebody waits for this name already.
    pub fn waits_for(&self, name: &Name) -> bool {
        self.waiting.contains_key(name)
    }

    /// Lets a message wait; hands it back when too many do.
    pub fn park(&mut self, name: Name, submission: MessageSubmission) -> Result<Parked, MessageSubmission> {
        if self.waiting_count >= LOOKUPS_PENDING_MAX {
            return Err(submission);
        }
        self.waiting_count += 1;
        let waiting = self.waiting.entry(name).or_default();
        waiting.push(submission);
        if waiting.len() > 1 {
            return Ok(Parked::WithAnother);
        }
        self.to_ask.push(Lookup { sender: name.sender, client_msg_id: name.client_msg_id, generation: 0 });
        Ok(Parked::First)
    }

    /// Who waited for this name, in order.
    pub fn release(&mut self, name: &Name) -> Vec<MessageSubmission> {
        let released = self.waiting.remove(name).unwrap_or_default();
        self.waiting_count -= released.len();
        released
    }

    /// Moves what is to be asked to `out`.
    pub fn take_lookups(&mut self, out: &mut Vec<Lookup>) {
        out.append(&mut self.to_ask);
    }
}

/// How a message was parked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parked {
    /// The store will be asked.
    First,
    /// The store has been asked already.
    WithAnother,
}
