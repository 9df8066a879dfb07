//! The threads and what connects them: which CPUs they get, their mailboxes and lanes, their start.
//!
//! Used by the main thread at start; the ends it hands out belong to one thread each. What always holds: every
//! channel is bounded by a constant of `limits.rs`, every envelope has one sending thread, one receiving thread
//! and one waker, and a thread that ends is reported to the main thread, whatever made it end.

pub mod cpus;
pub(crate) mod ledger;
pub(crate) mod mailbox;
pub(crate) mod store;
pub(crate) mod store_loop;
pub(crate) mod submissions;

use std::error::Error;
use std::io;
use std::thread::{self, JoinHandle};

use crossbeam_channel::Sender;

use crate::contract::internal::InternalErrors;

/// A thread came to its end.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its name.
    pub(crate) thread: String,
    /// How it went.
    pub(crate) outcome: Result<(), Box<dyn Error + Send + Sync>>,
}

/// Starts a thread of this name, pinned to `cpu` if there is one. Its end is reported to `ended`.
pub(crate) fn spawn(
    name: String,
    cpu: Option<usize>,
    ended: Sender<Ended>,
    run: impl FnOnce() -> Result<(), Box<dyn Error + Send + Sync>> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.clone()).spawn(move || {
        if let Some(cpu) = cpu
            && let Err(error) = cpus::keep_on(&[cpu])
        {
            tracing::warn!(cpu, thread = name, %error, "could not be pinned; it runs where the kernel puts it");
        }
        let outcome = run();
        let errors = InternalErrors::of_this_thread();
        if errors.total() > 0 {
            tracing::error!(thread = name, ?errors, "internal error: met by a thread that has ended");
        }
        // Only a main thread that is gone does not hear it, and then the process is.
        drop(ended.send(Ended { thread: name, outcome }));
    })
}
