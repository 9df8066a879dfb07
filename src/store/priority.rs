//! How much of a CPU the store's thread claims where it has none of its own.
//!
//! Storing is the bulk of the gateway's work and the only part that may wait: the journal has everything already.
//! Where the store shares a CPU with a shard it therefore runs only when nothing else wants to (`SCHED_IDLE`),
//! and as anybody else while somebody waits for an answer from it, or it has fallen far behind. Measured with
//! everything on one CPU, a burst of 100 messages to 300 members took a quarter less time that way (medians of 21:
//! 14.9 and 10.9 ms). What the kernel's scheduler does not do for it then, `yielding` does.
//!
//! Used by the store's thread for itself. What always holds: a thread that could not come back to normal (without
//! CAP_SYS_NICE or RLIMIT_NICE the kernel does not let it) never leaves it, and only claims less by its niceness.

use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::geteuid;

use super::disk_share::{self, DiskShare};
use super::yielding::{self, StoreYield, Yielding};

/// Unapplied journal bytes above which storing is urgent (some 45,000 messages to 500) ...
const URGENT_BYTES: u64 = 32 << 20;
/// ... and below which it is not any more.
const CALM_BYTES: u64 = 4 << 20;
/// The niceness of a store that cannot come back: a tenth of a CPU that others want.
const NICENESS: i32 = 10;

/// What the thread claims.
#[derive(Debug)]
pub(crate) struct Priority {
    claim: Claim,
    /// Both claims are to be had.
    may_change: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Claim {
    Leftovers,
    Share,
}

/// Whether somebody waits for what the store reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Readers {
    /// It has answered somebody in this round.
    Waited,
    /// Nobody.
    #[default]
    None,
}

impl Priority {
    /// Of the calling thread.
    pub(crate) fn of_thread(store_yield: &StoreYield) -> Self {
        match store_yield {
            StoreYield::OwnCpu => Self::own_cpu(),
            StoreYield::SharedCpu(until) => {
                yielding::begin(Arc::clone(until));
                Self::shared_cpu()
            }
        }
    }

    /// Of a thread with a CPU of its own: as anybody else, always.
    pub(crate) fn own_cpu() -> Self {
        Priority { claim: Claim::Share, may_change: false }
    }

    /// Of the calling thread, which shares its CPU with a shard.
    fn shared_cpu() -> Self {
        let mut priority = Priority { claim: Claim::Share, may_change: may_come_back() };
        if priority.may_change {
            priority.set(Claim::Leftovers);
        } else {
            // No process is named: the calling thread. A refusal leaves it as it was.
            rustix::process::setpriority_process(None, NICENESS).ok();
        }
        priority
    }

    /// Called in every round of the loop: whether it has answered somebody in it, and how many journal bytes are not
    /// applied. One system call when the claim changes, none otherwise.
    pub(crate) fn follow(&mut self, readers: Readers, unapplied_bytes: u64) {
        let behind_bytes = if self.claim == Claim::Share { CALM_BYTES } else { URGENT_BYTES };
        disk_share::set(match readers {
            Readers::Waited => DiskShare::Whole,
            Readers::None => DiskShare::Half,
        });
        let claim =
            if readers == Readers::Waited || unapplied_bytes > behind_bytes { Claim::Share } else { Claim::Leftovers };
        self.set(claim);
    }

    /// Nothing else matters any more.
    pub(crate) fn hurry(&mut self) {
        disk_share::set(DiskShare::Whole);
        self.set(Claim::Share);
    }

    fn set(&mut self, claim: Claim) {
        yielding::set(match claim {
            Claim::Leftovers => Yielding::On,
            Claim::Share => Yielding::Off,
        });
        if !self.may_change || claim == self.claim {
            return;
        }
        let policy = match claim {
            Claim::Leftovers => libc::SCHED_IDLE,
            Claim::Share => libc::SCHED_OTHER,
        };
        let parameters = libc::sched_param { sched_priority: 0 };
        // SAFETY: the struct lives through the call; 0 is the calling thread.
        if unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) } == 0 {
            self.claim = claim;
        }
    }
}

/// Whether the kernel lets the calling thread go from `SCHED_IDLE` to normal again: the superuser always, others
/// if RLIMIT_NICE covers niceness 0 (sched(7)).
fn may_come_back() -> bool {
    /// `RLIMIT_NICE` counts down from niceness 20.
    const NICENESS_0: u64 = 20;
    geteuid().is_root() || getrlimit(Resource::RLIMIT_NICE).is_ok_and(|(soft, _)| soft >= NICENESS_0)
}
