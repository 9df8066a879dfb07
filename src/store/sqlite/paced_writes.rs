//! SQLite writes in small steps: before each page deliveries pass, and after some the disk is waited for.
//!
//! Copying the log into the file is 60,000 pages in one call of the library, and a commit a thousand; between two
//! pages the store's thread may sleep ([`yield_to_deliveries`]). The sync at the end would give the disk all of them at
//! once, and the ledger's `fdatasync` would wait behind them: so they are written to the disk as they come
//! ([`disk_share`]). It is SQLite's own system call that is replaced here, in the whole process; other threads than the
//! store's write hardly anything with it.
//!
//! What always holds: at most a step's bytes of a file wait to be written to the disk; a failure of the disk that was
//! reported here, and so is not reported to the sync that follows, counts as one of that sync ([`has_failed`]).

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::mem;
use std::ops::Range;
use std::ptr;
use std::sync::OnceLock;

use rusqlite::ffi::{SQLITE_OK, sqlite3_vfs_find};

use crate::clock::Clock;
use crate::store::disk_share::{self, STEP_BYTES};
use crate::store::yielding::yield_to_deliveries;

/// What SQLite calls it.
const NAME: &CStr = c"pwrite64";
/// The disk takes whole blocks of the file system, however little of one has changed.
const BLOCK_BYTES: i64 = 4096;

type Write = unsafe extern "C" fn(c_int, *const c_void, usize, i64) -> isize;

static REPLACED: OnceLock<bool> = OnceLock::new();

thread_local! {
    static UNWRITTEN: RefCell<Unwritten> = const { RefCell::new(Unwritten::NOTHING) };
    static FAILED: Cell<bool> = const { Cell::new(false) };
}

/// Sees to it that SQLite writes with [`write()`], from the first file on. `false`: this SQLite has another system call.
pub(super) fn begin() -> bool {
    *REPLACED.get_or_init(replace)
}

/// The disk has failed to take something that this thread wrote.
pub(super) fn has_failed() -> bool {
    FAILED.get()
}

fn replace() -> bool {
    // SAFETY: null asks for the default, which lives for ever; null comes back where there is none.
    let Some(files) = (unsafe { sqlite3_vfs_find(ptr::null()).as_mut() }) else { return false };
    let Some(set) = files.xSetSystemCall else { return false };
    // SAFETY: SQLite keeps all its system calls as functions of this type, and calls each as what it is.
    let write = unsafe { mem::transmute::<Write, unsafe extern "C" fn()>(write) };
    // SAFETY: the file system is SQLite's own, and the name is one that it copies nothing of.
    unsafe { set(files, NAME.as_ptr(), Some(write)) == SQLITE_OK }
}

/// As `pwrite64`.
unsafe extern "C" fn write(file: c_int, from: *const c_void, bytes: usize, at: i64) -> isize {
    yield_to_deliveries();
    // SAFETY: SQLite's own arguments, given on to the call they are for.
    let written = unsafe { libc::pwrite64(file, from, bytes, at) };
    let step = UNWRITTEN.with_borrow_mut(|unwritten| unwritten.add(file, at, written as i64));
    match step {
        Some(step) if write_to_disk(&step).is_err() => {
            FAILED.set(true);
            // SAFETY: the calling thread's own.
            unsafe { *libc::__errno_location() = libc::EIO };
            -1
        }
        _ => written,
    }
}

/// Writes a part of a file to the disk and waits for it. A failure is reported once: the sync that counts may not see it.
fn write_to_disk(Step { file, range }: &Step) -> io::Result<()> {
    const FLAGS: u32 =
        libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    let clock = Clock::of_host();
    let began_us = clock.mono_us();
    // SAFETY: a plain system call on a descriptor that SQLite has open.
    let result = unsafe { libc::sync_file_range(*file, range.start, range.end - range.start, FLAGS) };
    let error = io::Error::last_os_error();
    disk_share::leave_after(clock.mono_us() - began_us);
    match error.raw_os_error() {
        Some(libc::EIO | libc::ENOSPC | libc::EDQUOT) if result != 0 => Err(error),
        // A file that cannot do it is written when it is synced.
        _ => Ok(()),
    }
}

/// What of a file may not be on its way to the disk yet.
#[derive(Debug)]
struct Unwritten {
    file: c_int,
    range: Range<i64>,
    /// The block that was written last.
    block: i64,
    bytes: u64,
}

/// What is to be written to the disk.
#[derive(PartialEq, Eq, Debug)]
struct Step {
    file: c_int,
    range: Range<i64>,
}

impl Unwritten {
    const NOTHING: Unwritten = Unwritten { file: -1, range: 0..0, block: -1, bytes: 0 };

    /// So many bytes (negative: none, it failed) were written there; returns what is to be written to the disk now.
    fn add(&mut self, file: c_int, at: i64, bytes: i64) -> Option<Step> {
        if bytes <= 0 {
            return None;
        }
        let mut of_another = None;
        if self.bytes == 0 || self.file != file {
            let before = mem::replace(self, Unwritten { file, range: at..at, ..Unwritten::NOTHING });
            of_another = (before.bytes > 0).then_some(Step { file: before.file, range: before.range });
        }
        self.range = self.range.start.min(at)..self.range.end.max(at + bytes);
        let (first, last) = (at / BLOCK_BYTES, (at + bytes - 1) / BLOCK_BYTES);
        let blocks = last - first + i64::from(first != self.block);
        self.block = last;
        self.bytes += (blocks * BLOCK_BYTES).cast_unsigned();
        if self.bytes < STEP_BYTES || of_another.is_some() {
            return of_another;
        }
        let range = mem::replace(self, Unwritten::NOTHING).range;
        Some(Step { file, range })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use super::*;

    /// Blocks that were written, and those of them that the steps have taken to the disk.
    fn taken(writes: impl Iterator<Item = (c_int, i64, i64)>) -> (usize, usize) {
        let (mut unwritten, mut all, mut dirty) = (Unwritten::NOTHING, 0, Vec::new());
        for (file, at, bytes) in writes {
            for block in at / BLOCK_BYTES..=(at + bytes - 1) / BLOCK_BYTES {
                if !dirty.contains(&(file, block)) {
                    dirty.push((file, block));
                    all += 1;
                }
            }
            if let Some(step) = unwritten.add(file, at, bytes) {
                let blocks = step.range.start / BLOCK_BYTES..(step.range.end - 1) / BLOCK_BYTES + 1;
                dirty.retain(|(of, block)| *of != step.file || !blocks.contains(block));
            }
            assert!(dirty.len() as u64 * BLOCK_BYTES as u64 <= 2 * STEP_BYTES, "{} blocks wait", dirty.len());
        }
        (all, all - dirty.len())
    }

    #[test]
    fn a_log_that_grows_goes_to_the_disk_as_it_does() {
        let (all, taken) = taken((0..4_000).map(|frame| (3, frame * 1_048, 1_048)));
        assert!(taken >= all - STEP_BYTES as usize / 4_096, "{taken} of {all}");
    }

    #[test]
    fn pages_here_and_there_count_as_the_blocks_that_they_are_in() {
        let (all, taken) = taken((0..1_000).map(|page| (3, page * 9 * 1_024, 1_024)));
        assert_eq!(all, 1_000);
        assert!(taken >= all - STEP_BYTES as usize / 4_096, "{taken} of {all}");
    }

    #[test]
    fn of_two_files_in_turn_no_more_waits() {
        taken(
            (0..400)
                .flat_map(|turn| (0..30).map(move |page| (turn as c_int % 2, (turn / 2 * 30 + page) * 1_024, 1_024))),
        );
    }

    #[test]
    fn a_write_that_failed_adds_nothing() {
        let mut unwritten = Unwritten::NOTHING;
        (0..10_000).for_each(|_| assert_eq!(unwritten.add(3, 0, -1), None));
        assert_eq!(unwritten.bytes, 0);
    }
}
