//! Orders to the thread that talks to Redis, and its news.
//!
//! Owned by the engine. The channel may be full of submissions, of this session or of one that has ended. What always holds:
//! an order that a state waits for is given as soon as there is room, and nothing made behind it goes before it; what can
//! be made again is not kept; and what is not given when its session ends is not given any more.

use std::collections::VecDeque;

use super::link::{LedgerEnds, News, Order};

/// Both ends, and what found no room.
#[derive(Debug)]
pub(super) struct Orders {
    ends: LedgerEnds,
    /// A state waits for its answer before it makes the next, so these are a few.
    owed: VecDeque<Order>,
}

impl Orders {
    /// Nothing is owed.
    pub(super) fn new(ends: LedgerEnds) -> Orders {
        Orders { ends, owed: VecDeque::new() }
    }

    /// Gives an order that a state waits for: now, or as soon as there is room.
    pub(super) fn give(&mut self, order: Order) {
        self.owed.push_back(order);
        self.give_owed();
    }

    /// Gives an order that can be made again later. False: there is no room for it now.
    pub(super) fn offer(&mut self, order: Order) -> bool {
        self.give_owed();
        self.owed.is_empty() && self.ends.order(order).is_ok()
    }

    /// Gives what found no room before.
    pub(super) fn give_owed(&mut self) {
        while let Some(order) = self.owed.pop_front() {
            if let Err(order) = self.ends.order(order) {
                return self.owed.push_front(order);
            }
        }
    }

    /// The session is over: nobody waits for an answer.
    pub(super) fn lost(&mut self) {
        self.owed.clear();
    }

    /// The next news, if there are any.
    pub(super) fn news(&self) -> Option<News> {
        self.ends.news()
    }

    /// More news wait.
    pub(super) fn has_news(&self) -> bool {
        self.ends.has_news()
    }
}
