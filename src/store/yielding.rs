//! The store's thread yields to deliveries on a CPU that it shares with others.
//!
//! Shards and ledger say when deliveries are in hand, through their [`StoreYield`]; the store's thread asks before each
//! small step of its work, some tens of microseconds ([`yield_to_deliveries`]). Priorities alone do not do it: the
//! kernel's scheduler (EEVDF, Linux 6.18) often picks a `SCHED_IDLE` thread although a normal one wants to run, and
//! leaves it there until its next tick; with the tick at 250 Hz deliveries waited 2 to 6 ms for the store, one in thirty
//! (tracepoints).
//!
//! What always holds: where the store has a CPU of its own, nobody reads a clock or writes to shared memory for it;
//! where it shares one, it waits for `WAIT_US_MAX` at most before it has `SLICE_US` to itself, so it goes on however
//! long the deliveries last; and it does not wait at all while it claims its share of the CPU (`priority`).

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Clock;

/// A commit is waited for so long, unless it lands before.
const COMMIT_US: u64 = 5_000;
/// What lies between two steps of deliveries at most: from a submission until the ledger has it, from a commit until a
/// shard has it, from 64 sockets written until the next.
const STEP_US: u64 = 500;
/// What the store waits at one step at most.
const WAIT_US_MAX: u64 = 10_000;
/// What it has to itself after that.
const SLICE_US: u64 = 1_000;
/// It looks again so often, whether the deliveries were through earlier.
const NAP: Duration = Duration::from_micros(100);

/// Where shards and ledger say that deliveries are in hand. Decided once at start.
#[derive(Clone, Debug)]
pub(crate) enum StoreYield {
    /// The store has a CPU of its own: there is nothing to say.
    OwnCpu,
    /// The store shares a CPU with a shard.
    SharedCpu(Arc<YieldUntil>),
}

/// Until when the store is to yield, in microseconds of the host's monotonic clock. (One allocation: who reads one reads
/// the other.)
#[derive(Debug, Default)]
pub(crate) struct YieldUntil {
    commit_us: AtomicU64,
    step_us: AtomicU64,
}

impl StoreYield {
    /// For a store that shares a CPU with a shard.
    pub(crate) fn shared_cpu() -> StoreYield {
        StoreYield::SharedCpu(Arc::default())
    }

    /// The ledger begins to commit.
    pub(crate) fn commit_begins(&self) {
        if let StoreYield::SharedCpu(until) = self {
            until.commit_us.store(Clock::of_host().mono_us() + COMMIT_US, Ordering::Relaxed);
        }
    }

    /// The commit has landed, and goes to the shards.
    pub(crate) fn commit_lands(&self) {
        if let StoreYield::SharedCpu(until) = self {
            until.step();
            until.commit_us.store(0, Ordering::Relaxed);
        }
    }

    /// Deliveries, or what becomes some, go from one step to the next.
    pub(crate) fn delivery_step(&self) {
        if let StoreYield::SharedCpu(until) = self {
            until.step();
        }
    }
}

impl YieldUntil {
    fn step(&self) {
        self.step_us.fetch_max(Clock::of_host().mono_us() + STEP_US, Ordering::Relaxed);
    }

    fn us(&self) -> u64 {
        self.commit_us.load(Ordering::Relaxed).max(self.step_us.load(Ordering::Relaxed))
    }
}

/// Whether a thread that has begun to yield does so now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Yielding {
    /// Deliveries come first.
    On,
    /// It takes its share of the CPU.
    Off,
}

/// What the store's thread knows of the others.
struct Yielder {
    until: Arc<YieldUntil>,
    yielding: Yielding,
    slice_until_us: u64,
}

thread_local! {
    /// Of the store's thread: the steps that a database's library takes have no room for it.
    static YIELDER: RefCell<Option<Yielder>> = const { RefCell::new(None) };
}

/// From now on the calling thread yields to these deliveries.
pub(crate) fn begin(until: Arc<YieldUntil>) {
    YIELDER.set(Some(Yielder { until, yielding: Yielding::On, slice_until_us: 0 }));
}

/// Turns the calling thread's yielding on or off. Nothing on a thread that has not begun to yield.
pub(crate) fn set(yielding: Yielding) {
    YIELDER.with_borrow_mut(|yielder| {
        if let Some(yielder) = yielder {
            yielder.yielding = yielding;
        }
    });
}

/// Called before each small step of work that may wait: sleeps while deliveries are in hand. Nothing on a thread that has
/// not begun to yield.
pub(crate) fn yield_to_deliveries() {
    YIELDER.with_borrow_mut(|yielder| {
        if let Some(yielder) = yielder
            && yielder.yielding == Yielding::On
        {
            yielder.wait(&Clock::of_host());
        }
    });
}

impl Yielder {
    fn wait(&mut self, clock: &Clock) {
        let began_us = clock.mono_us();
        if began_us < self.slice_until_us {
            return;
        }
        let mut now_us = began_us;
        while now_us < self.until.us() {
            if now_us - began_us >= WAIT_US_MAX {
                self.slice_until_us = now_us + SLICE_US;
                return;
            }
            nap();
            now_us = clock.mono_us();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the store's thread has no task that could not wait: see store_loop")]
fn nap() {
    std::thread::sleep(NAP);
}

#[cfg(test)]
mod tests;
