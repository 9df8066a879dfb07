//! What waits to be taken by the ledger, in turns by who sent it: deficit round robin over rows and bytes.
//!
//! Owned by the ledger's thread. What always holds: what one user sends keeps its order; who has little waiting is taken
//! soon, whatever others have waiting; somebody is taken as long as anything waits. A message's rows are known only when it
//! is numbered, so it is charged afterwards: whoever has taken more than a turn's share stands back for as many turns as
//! that was. (Shreedhar and Varghese, "Efficient Fair Queuing using Deficit Round Robin", 1995; charged afterwards as in
//! surplus round robin.) A place costs no allocation once as many have waited before.

use std::collections::{HashMap, VecDeque};

use crate::contract::ids::ShardId;
use crate::contract::internal::{OrCount, Place};
use crate::contract::keyed::TableKey;
use crate::contract::submission::Submission;
use crate::limits::COMMIT_BYTES_PER_ROW;
use ringway_wire::ids::UserId;

/// See the module.
#[derive(Debug)]
pub struct FairQueue {
    /// Where in `waiting` each has its place.
    places: HashMap<Option<UserId>, usize, TableKey>,
    waiting: Vec<Waiting>,
    /// Of these, places that nobody has.
    free: Vec<usize>,
    /// Places that somebody has, whose turn is next first.
    turns: VecDeque<usize>,
    items: Vec<Item>,
    /// The first item that holds nothing, as a list.
    free_item: Option<usize>,
    len: usize,
    /// What each may take in a turn.
    turn_rows: i64,
    /// Who was taken from last.
    taken: Option<usize>,
}

/// What one sender has waiting.
#[derive(Debug)]
struct Waiting {
    /// `None`: a shard asks for itself.
    sender: Option<UserId>,
    first: Option<usize>,
    last: usize,
    /// What it may still take in this turn, rows; negative: what it has taken too much.
    balance: i64,
}

#[derive(Debug)]
struct Item {
    /// Which shard has sent it.
    shard: ShardId,
    submission: Option<Submission>,
    next: Option<usize>,
}

impl FairQueue {
    /// Nothing waits; each will have turns of so many rows (at least one).
    pub fn new(key: TableKey, turn_rows: usize) -> Self {
        FairQueue {
            places: HashMap::with_hasher(key),
            waiting: Vec::new(),
            free: Vec::new(),
            turns: VecDeque::new(),
            items: Vec::new(),
            free_item: None,
            len: 0,
            turn_rows: turn_rows.max(1) as i64,
            taken: None,
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts one behind all that its sender has waiting. How many may wait is for the caller to say.
    pub fn push(&mut self, shard: ShardId, submission: Submission) {
        let sender = submission.sender();
        let item = self.item(shard, submission);
        self.len += 1;
        if let Some(place) = self.places.get(&sender).copied()
            && let Some(waiting) = self.waiting.get_mut(place)
        {
            let last = std::mem::replace(&mut waiting.last, item);
            match waiting.first {
                Some(_) => self.items[last].next = Some(item),
                None => waiting.first = Some(item),
            }
            return;
        }
        let waiting = Waiting { sender, first: Some(item), last: item, balance: self.turn_rows };
        let place = match self.free.pop() {
            Some(place) => {
                self.waiting[place] = waiting;
                place
            }
            None => {
                self.waiting.push(waiting);
                self.waiting.len() - 1
            }
        };
        self.places.insert(sender, place);
        self.turns.push_back(place);
    }

    /// The next one, by turns, and which shard has sent it.
    pub fn pop(&mut self) -> Option<(ShardId, Submission)> {
        self.forget_taken();
        loop {
            let place = *self.turns.front()?;
            let waiting = self.waiting.get_mut(place).or_count(Place::Ledger)?;
            if waiting.balance <= 0 {
                waiting.balance += self.turn_rows;
                self.turns.rotate_left(1);
                continue;
            }
            let at = waiting.first.or_count(Place::Ledger)?;
            let item = self.items.get_mut(at).or_count(Place::Ledger)?;
            waiting.first = item.next.take();
            item.next = self.free_item.replace(at);
            let (shard, submission) = (item.shard, item.submission.take().or_count(Place::Ledger)?);
            waiting.balance -= (1 + submission.bytes() / COMMIT_BYTES_PER_ROW) as i64;
            self.len -= 1;
            self.taken = Some(place);
            return Some((shard, submission));
        }
    }

    /// What was taken last has made so many rows.
    pub fn charge(&mut self, rows: usize) {
        if let Some(waiting) = self.taken.and_then(|place| self.waiting.get_mut(place)) {
            waiting.balance -= rows as i64;
        }
    }

    /// So many rows of this sender's were made of what he had been taken from before. Who has nothing more waiting owes nothing.
    pub fn charge_sender(&mut self, sender: UserId, rows: usize) {
        let place = self.places.get(&Some(sender)).copied();
        if let Some(waiting) = place.and_then(|place| self.waiting.get_mut(place)) {
            waiting.balance -= rows as i64;
        }
    }

    /// Whoever was taken from last and has nothing more waiting owes nothing: what comes of it later stands behind others.
    fn forget_taken(&mut self) {
        if let Some(place) = self.taken.take()
            && let Some(waiting) = self.waiting.get(place)
            && waiting.first.is_none()
        {
            self.places.remove(&waiting.sender);
            self.free.push(place);
            // Nobody else had a turn since.
            let first = self.turns.pop_front();
            debug_assert_eq!(first, Some(place), "who was taken from last stands first");
        }
    }

    fn item(&mut self, shard: ShardId, submission: Submission) -> usize {
        let item = Item { shard, submission: Some(submission), next: None };
        match self.free_item {
            Some(at) => {
                self.free_item = std::mem::replace(&mut self.items[at], item).next;
                at
            }
            None => {
                self.items.push(item);
                self.items.len() - 1
            }
        }
    }
}

#[cfg(test)]
mod tests;
