//! The io_uring probe: makes a ring as a shard would, asks which operations it knows, and lets go of it.
//!
//! On the calling thread, without waiting. What always holds: it leaves nothing open and changes nothing. It leaves
//! out why a kernel refuses: `checks` tells from the error, the kernel's version and `kernel.io_uring_disabled`.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::net::ring::SUBMISSIONS;

/// The operations glommio 0.9 insists on (it ends the process without them), with their numbers in the kernel's
/// `io_uring.h`.
pub const OPERATIONS: [(u8, &str); 23] = [
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

/// What the kernel answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Uring {
    /// A ring was made.
    Works {
        /// Those of [`OPERATIONS`] that the kernel does not know.
        missing: Vec<String>,
    },
    /// No ring could be made.
    Refused {
        /// The kernel's error.
        errno: i32,
    },
    /// A ring was made, but it does not say what it knows: older than Linux 5.6.
    Mute {
        /// The kernel's error.
        errno: i32,
    },
}

/// `struct io_uring_params`, of which only zeroes are given: 30 words of 32 bits.
const PARAMS_WORDS: usize = 30;
/// `IORING_REGISTER_PROBE`.
const REGISTER_PROBE: libc::c_uint = 8;
/// `IO_URING_OP_SUPPORTED`.
const OP_SUPPORTED: u16 = 1;
/// The most operations a probe can be asked for.
const PROBE_OPERATIONS_MAX: usize = 256;

/// `struct io_uring_probe_op`.
#[repr(C)]
#[derive(Clone, Copy)]
struct ProbeOperation {
    number: u8,
    reserved: u8,
    flags: u16,
    reserved2: u32,
}

/// `struct io_uring_probe`, with room for every operation.
#[repr(C)]
struct Probe {
    last: u8,
    operations_count: u8,
    reserved: u16,
    reserved2: [u32; 3],
    operations: [ProbeOperation; PROBE_OPERATIONS_MAX],
}

const _: () = assert!(size_of::<Probe>() == 16 + 8 * PROBE_OPERATIONS_MAX, "the kernel's layout");

/// Asks the kernel this process runs on.
pub fn probe() -> Uring {
    let ring = match ring() {
        Ok(ring) => ring,
        Err(error) => return Uring::Refused { errno: error.raw_os_error().unwrap_or(0) },
    };
    let none = ProbeOperation { number: 0, reserved: 0, flags: 0, reserved2: 0 };
    let mut probe = Probe {
        last: 0,
        operations_count: 0,
        reserved: 0,
        reserved2: [0; 3],
        operations: [none; PROBE_OPERATIONS_MAX],
    };
    // SAFETY: the ring is open; `probe` has the kernel's layout with room for as many operations as are asked for,
    // is all zeroes as the kernel wants it, and lives through the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring.as_raw_fd(),
            REGISTER_PROBE,
            &raw mut probe,
            PROBE_OPERATIONS_MAX as libc::c_uint,
        )
    };
    if answer < 0 {
        return Uring::Mute { errno: io::Error::last_os_error().raw_os_error().unwrap_or(0) };
    }
    let known = &probe.operations[..usize::from(probe.operations_count)];
    let supported = |number: u8| known.iter().any(|op| op.number == number && op.flags & OP_SUPPORTED != 0);
    let missing = OPERATIONS.iter().filter(|(number, _)| !supported(*number)).map(|(_, name)| (*name).to_owned());
    Uring::Works { missing: missing.collect() }
}

/// A ring of the depth of a shard's: on kernels that count rings as locked memory a small one would prove nothing.
fn ring() -> io::Result<OwnedFd> {
    let mut params = [0u32; PARAMS_WORDS];
    // SAFETY: `params` has the size of the kernel's struct, zeroes ask for nothing special, and it lives through
    // the call.
    let answer = unsafe { libc::syscall(libc::SYS_io_uring_setup, SUBMISSIONS, params.as_mut_ptr()) };
    match i32::try_from(answer) {
        // SAFETY: a descriptor just made, owned by nobody else.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}
