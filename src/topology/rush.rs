//! A rush: deliveries are in hand on a CPU that the store shares with others, and it keeps off until they are through.
//!
//! Shards and ledger say how long theirs may last, through their `StoreDoor`; the store's thread asks before each
//! small step ([`give_way`]), some tens of microseconds of work. Priorities alone do not do it: the kernel's scheduler
//! (EEVDF, Linux 6.18) often picks a `SCHED_IDLE` thread although a normal one wants to run, and leaves it there until
//! its next tick; with the tick at 250 Hz deliveries waited 2 to 6 ms for the store, one in thirty (tracepoints).
//!
//! What always holds: the store waits for `RUSH_US_MAX` at most before it has `TURN_US` to itself, so it goes on
//! under a rush that never ends; and it does not wait at all while it claims its share of the CPU (`priority`).

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Clock;

/// A commit is waited for so long, unless it lands before.
const COMMIT_US: u64 = 5_000;
/// What lies between two steps of deliveries at most: from a submission until the ledger has it, from a commit until a
/// shard has it, from 64 sockets written until the next.
const PASSING_US: u64 = 500;
/// What the store waits at one step at most.
const RUSH_US_MAX: u64 = 10_000;
/// What it has to itself after that.
const TURN_US: u64 = 1_000;
/// It looks again so often, whether the rush has ended early.
const NAP: Duration = Duration::from_micros(100);

/// Until when the store is to keep off, in microseconds of the host's monotonic clock.
#[derive(Clone, Debug, Default)]
pub struct Rush {
    ends: Arc<Ends>,
}

/// Who reads one reads the other.
#[derive(Debug, Default)]
struct Ends {
    commit_us: AtomicU64,
    passing_us: AtomicU64,
}

impl Rush {
    /// The ledger begins to commit.
    pub fn commit_begins(&self) {
        self.ends.commit_us.store(Clock::of_host().mono_us() + COMMIT_US, Ordering::Relaxed);
    }

    /// The commit has landed, and goes to the shards.
    pub fn commit_lands(&self) {
        self.passes();
        self.ends.commit_us.store(0, Ordering::Relaxed);
    }

    /// Deliveries, or what becomes some, go from one step to the next.
    pub fn passes(&self) {
        self.ends.passing_us.fetch_max(Clock::of_host().mono_us() + PASSING_US, Ordering::Relaxed);
    }

    fn until_us(&self) -> u64 {
        self.ends.commit_us.load(Ordering::Relaxed).max(self.ends.passing_us.load(Ordering::Relaxed))
    }
}

/// What the store's thread knows of the others.
struct Courtesy {
    rush: Rush,
    gives_way: bool,
    turn_until_us: u64,
}

thread_local! {
    /// Of the store's thread, for the steps that a database's library takes have no room for it.
    static COURTESY: RefCell<Option<Courtesy>> = const { RefCell::new(None) };
}

/// From now on the calling thread heeds this rush.
pub fn heed(rush: Rush) {
    COURTESY.set(Some(Courtesy { rush, gives_way: true, turn_until_us: 0 }));
}

/// Whether the calling thread gives way at all.
pub fn gives_way(so: bool) {
    COURTESY.with_borrow_mut(|courtesy| {
        if let Some(courtesy) = courtesy {
            courtesy.gives_way = so;
        }
    });
}

/// Called before each small step of work that may wait: sleeps while there is a rush. Nothing on a thread that heeds
/// none.
pub fn give_way() {
    COURTESY.with_borrow_mut(|courtesy| {
        if let Some(courtesy) = courtesy
            && courtesy.gives_way
        {
            courtesy.give_way(&Clock::of_host());
        }
    });
}

impl Courtesy {
    fn give_way(&mut self, clock: &Clock) {
        let began_us = clock.mono_us();
        if began_us < self.turn_until_us {
            return;
        }
        let mut now_us = began_us;
        while now_us < self.rush.until_us() {
            if now_us - began_us >= RUSH_US_MAX {
                self.turn_until_us = now_us + TURN_US;
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
mod tests {
    use super::*;

    fn waited_us(what: impl FnOnce()) -> u64 {
        let began_us = Clock::of_host().mono_us();
        what();
        Clock::of_host().mono_us() - began_us
    }

    /// One that never ends.
    fn endless() -> Rush {
        let rush = Rush::default();
        rush.ends.passing_us.store(u64::MAX, Ordering::Relaxed);
        rush
    }

    #[test]
    fn a_thread_that_heeds_a_rush_sleeps_until_it_is_over() {
        let rush = Rush::default();
        heed(rush.clone());
        rush.commit_begins();
        let until_us = rush.until_us();
        give_way();
        assert!(Clock::of_host().mono_us() >= until_us);
    }

    #[test]
    fn a_commit_that_lands_ends_its_rush() {
        let rush = Rush::default();
        rush.commit_begins();
        let until_us = rush.until_us();
        rush.commit_lands();
        assert!(rush.until_us() < until_us + PASSING_US, "only the passing to the shards is left");
        assert_eq!(rush.ends.commit_us.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_rush_that_never_ends_leaves_it_a_turn() {
        heed(endless());
        let waited = waited_us(give_way);
        assert!((RUSH_US_MAX..10_000_000).contains(&waited), "{waited} us");
        let turn = COURTESY.with_borrow(|courtesy| courtesy.as_ref().map(|courtesy| courtesy.turn_until_us));
        assert!(turn > Some(0), "a turn without waiting follows");
    }

    #[test]
    fn who_claims_a_share_does_not_wait() {
        heed(endless());
        gives_way(false);
        assert!(waited_us(give_way) < RUSH_US_MAX);
    }
}
