//! How much of the disk the store's thread takes while it writes.
//!
//! The journal's `fdatasync` waits for whatever the disk has been given before. What 64 MiB of the store's did to it when
//! they came in one go: 130 to 350 ms. So what the store writes goes to the disk in steps of [`STEP_BYTES`], each waited
//! for, and after a step the store leaves the disk alone for as long as the step took. What always holds: nobody who
//! reads waits for such a pause, nor does a gateway that stops.
//!
//! Used by the store's thread for itself.

use std::cell::Cell;
use std::time::Duration;

/// What a commit of the ledger may find ahead of it on the disk: a millisecond of one that writes 250 MB a second.
pub(super) const STEP_BYTES: u64 = 256 << 10;
/// A pause is at most so long: a disk that is slow because of others is not used less and less.
const PAUSE_US_MAX: u64 = 20_000;

/// How much of the time the store may keep the disk busy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DiskShare {
    /// As long as it does, it pauses.
    Half,
    /// It does not pause.
    Whole,
}

thread_local! {
    static SHARE: Cell<DiskShare> = const { Cell::new(DiskShare::Half) };
}

/// From now on the calling thread takes so much.
pub(super) fn set(share: DiskShare) {
    SHARE.set(share);
}

/// Leaves the disk to others after it was kept busy for so long.
pub(super) fn leave_after(busy_us: u64) {
    if SHARE.get() == DiskShare::Half {
        pause(Duration::from_micros(busy_us.min(PAUSE_US_MAX)));
    }
}

#[expect(clippy::disallowed_methods, reason = "the store's thread has no task that could not wait: see store_loop")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
