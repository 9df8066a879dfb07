//! The io_uring probe: makes a ring as a shard would, asks which operations it knows, enters it once, and lets go of it.
//!
//! On the calling thread, without waiting. What always holds: it leaves nothing open and changes nothing, and it makes
//! every one of the three calls that a shard makes, because a filter may allow one and refuse another. It leaves out why
//! a kernel refuses: `checks` tells from the call, the error, the kernel's version and `kernel.io_uring_disabled`.

#[cfg(test)]
mod tests;

use std::io;

use io_uring::{IoUring, Probe, cqueue, squeue};

use crate::limits::{RING_EVENTS, RING_SUBMISSIONS};

/// The operations glommio 0.9 insists on (it ends the process without them), with their numbers in the kernel's
/// `io_uring.h`.
pub(crate) const OPERATIONS: [(u8, &str); 23] = [
    (0, "NOP"),
    (1, "READV"),
    (2, "WRITEV"),
    (3, "FSYNC"),
    (4, "READ_FIXED"),
    (5, "WRITE_FIXED"),
    (6, "POLL_ADD"),
    (7, "POLL_REMOVE"),
    (9, "SENDMSG"),
    (10, "RECVMSG"),
    (11, "TIMEOUT"),
    (12, "TIMEOUT_REMOVE"),
    (13, "ACCEPT"),
    (15, "LINK_TIMEOUT"),
    (16, "CONNECT"),
    (17, "FALLOCATE"),
    (18, "OPENAT"),
    (19, "CLOSE"),
    (21, "STATX"),
    (22, "READ"),
    (23, "WRITE"),
    (26, "SEND"),
    (27, "RECV"),
];

/// One of io_uring's three system calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RingCall {
    /// Makes a ring.
    Setup,
    /// Asks it what it knows, and gives it buffers.
    Register,
    /// Hands it work, and waits for it.
    Enter,
}

impl RingCall {
    /// As manuals and filters call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            RingCall::Setup => "io_uring_setup",
            RingCall::Register => "io_uring_register",
            RingCall::Enter => "io_uring_enter",
        }
    }
}

/// What the kernel answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Uring {
    /// A ring was made and entered.
    Works {
        /// Those of [`OPERATIONS`] that the kernel does not know.
        missing: Vec<String>,
    },
    /// One of the calls was refused.
    Refused {
        /// The first that was.
        call: RingCall,
        /// The kernel's error.
        errno: i32,
    },
    /// A ring was made, but it does not say what it knows: older than Linux 5.6.
    Mute {
        /// The kernel's error.
        errno: i32,
    },
}

/// Asks the kernel this process runs on.
pub(crate) fn probe() -> Uring {
    let refused = |call, error: &io::Error| Uring::Refused { call, errno: errno(error) };
    // Of the depth of a shard's: on kernels that count rings as locked memory a small one would prove nothing.
    let ring =
        match IoUring::<squeue::Entry, cqueue::Entry>::builder().setup_cqsize(RING_EVENTS).build(RING_SUBMISSIONS) {
            Ok(ring) => ring,
            Err(error) => return refused(RingCall::Setup, &error),
        };
    let mut known = Probe::new();
    match ring.submitter().register_probe(&mut known) {
        Ok(()) => {}
        Err(error) if errno(&error) == libc::EINVAL => return Uring::Mute { errno: libc::EINVAL },
        Err(error) => return refused(RingCall::Register, &error),
    }
    // With nothing in it, it comes back at once.
    if let Err(error) = ring.submitter().submit() {
        return refused(RingCall::Enter, &error);
    }
    let missing = OPERATIONS.iter().filter(|(number, _)| !known.is_supported(*number));
    Uring::Works { missing: missing.map(|(_, name)| (*name).to_owned()).collect() }
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}
