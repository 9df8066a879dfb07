//! The metronome: a thread that wakes every shard at a fixed pace, from outside.
//!
//! A shard cannot rely on its own timers. When glommio 0.9 finds its preemption timer expired before it has run a
//! single task (the kernel gave the CPU to somebody else for that millisecond), it takes this for having nothing
//! to run, and sleeps with tasks that are ready; if a timer made them ready, none is left to end that sleep.
//! Measured on a busy machine: once in some 5,000 sleeps. A wake-up from another thread always ends it.
//!
//! What always holds: a shard whose thread gets the CPU runs what is ready at most [`BEAT`] later; and a shard
//! that does not run is not woken without end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Waker;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

/// The pace, which is also that of the core's time-outs.
pub const BEAT: Duration = Duration::from_millis(20);
/// Beats a shard may leave unheard before it is woken no more: each holds a reference to a task, of which glommio
/// has 32,767.
const UNHEARD_MAX: u32 = 1_000;

/// What a shard gives the metronome when it starts.
#[derive(Clone, Debug)]
pub struct Ear {
    /// Wakes the task that listens.
    pub waker: Waker,
    /// Beats since that task has run.
    pub unheard: Arc<AtomicU32>,
}

/// Beats until the other end of `stop` is dropped.
pub fn run(ears: &[Ear], stop: &Receiver<()>) {
    while stop.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
        for ear in ears {
            if ear.unheard.load(Ordering::Relaxed) < UNHEARD_MAX {
                ear.unheard.fetch_add(1, Ordering::Relaxed);
                ear.waker.wake_by_ref();
            }
        }
    }
}
