//! Budgets: a shard's task queues, the part of its time that each may have when all want some, and what each took.
//!
//! Owned by the shard's thread. What always holds: accepting and logging in, what logged-in clients ask (heartbeats
//! above all), and what is delivered to them run in queues of their own, so that a flood of one kind takes its own
//! share and delays the others by no more than a slice (`limits.turn_ms`).
//!
//! The executor divides the time by shares, and the loop says itself when a slice is over. glommio's own way
//! is a timer of its ring that is set and cancelled on each turn: five system calls where none is needed.

use std::time::Duration;

use glommio::{Latency, Shares, TaskQueueHandle};

use crate::contract::report::{BUDGETS, Spent};

/// What a budget is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Budget {
    /// New connections, until they have logged in: little, so that half a million who come at once wait for each
    /// other and not those who are in for them.
    Accept,
    /// What logged-in clients say, and the answers that need nobody else: heartbeats, acks, sends.
    Sessions,
    /// What the ledger and other shards have for them, and the writing of it.
    Delivery,
    /// Polling, time-outs and the report: the loop, in the executor's own queue.
    Timers,
}

const ALL: [Budget; BUDGETS] = [Budget::Accept, Budget::Sessions, Budget::Delivery, Budget::Timers];

impl Budget {
    /// Those with a task of their own beside the loop, in the order of the enum.
    pub(crate) const WORK: [Budget; 3] = [Budget::Accept, Budget::Sessions, Budget::Delivery];

    /// Its name, as a metric's label.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Budget::Accept => "accept",
            Budget::Sessions => "sessions",
            Budget::Delivery => "delivery",
            Budget::Timers => "timers",
        }
    }

    fn shares(self) -> usize {
        match self {
            Budget::Accept => 100,
            Budget::Sessions => 400,
            Budget::Delivery | Budget::Timers => 1_000,
        }
    }
}

/// A shard's task queues.
pub(crate) struct Budgets {
    queues: [TaskQueueHandle; BUDGETS],
    spent: [Spent; BUDGETS],
    slice_ns: u64,
    /// Sleep that the executor will count as time of its own queue.
    slept_ns: u64,
}

impl Budgets {
    /// Makes the queues. Call it from the executor's own queue. `slice`: how long one may let the others wait.
    pub(crate) fn new(slice: Duration) -> Budgets {
        let executor = glommio::executor();
        let queues = ALL.map(|budget| match budget {
            Budget::Timers => executor.current_task_queue(),
            _ => executor.create_task_queue(Shares::Static(budget.shares()), Latency::NotImportant, budget.name()),
        });
        let spent = ALL.map(|budget| Spent { name: budget.name(), shares: budget.shares() as u64, ..Spent::default() });
        Budgets { queues, spent, slice_ns: slice.as_nanos() as u64, slept_ns: 0 }
    }

    /// How long a task may go on when others want to.
    pub(crate) fn slice_ns(&self) -> u64 {
        self.slice_ns
    }

    /// The shard slept for so long, in the executor's own queue.
    pub(crate) fn slept(&mut self, ns: u64) {
        self.slept_ns += ns;
    }

    /// The queue of a budget.
    pub(crate) fn queue(&self, budget: Budget) -> TaskQueueHandle {
        self.queues[budget as usize]
    }

    /// What each has taken so far.
    pub(crate) fn spent(&mut self) -> [Spent; BUDGETS] {
        for (spent, queue) in self.spent.iter_mut().zip(self.queues) {
            // The executor counts from the last time it was asked. It knows its own queues.
            if let Ok(stats) = glommio::executor().task_queue_stats(queue) {
                let mut busy_ns = stats.runtime().as_nanos() as u64;
                if spent.name == Budget::Timers.name() {
                    // What it has not counted yet it counts the next time.
                    let slept_ns = self.slept_ns.min(busy_ns);
                    self.slept_ns -= slept_ns;
                    busy_ns -= slept_ns;
                }
                spent.busy_ns += busy_ns;
                spent.turns += stats.queue_selected();
            }
        }
        self.spent
    }
}

#[cfg(test)]
mod tests;
