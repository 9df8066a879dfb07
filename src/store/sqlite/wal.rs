//! The embedded store's write-ahead log: emptied when it has grown, and synced when the journal wants to let go. (It is
//! written to the disk a little at a time: `paced_writes`.)
//!
//! What always holds: nothing counts as secured after a sync that failed.

use std::cell::Cell;
use std::ffi::c_int;
use std::fs::File;
use std::path::PathBuf;

use rusqlite::hooks::Wal;

use super::fault::{Inconsistent, failed};
use super::{SqliteStore, paced_writes};
use crate::contract::cause::Cause;
use crate::contract::position::AppliedPosition;
use crate::store::StoreError;

/// A write-ahead log that has grown by so much since it was last emptied is copied into the file: about 62,000 pages.
/// Reads get slower with its size, and copying stops the thread for a moment.
pub(super) const LOG_BYTES: u64 = 64 << 20;

/// In the log each page has a header (SQLite's file format, 4.1).
const LOG_PAGE_HEADER_BYTES: u64 = 24;

thread_local! {
    /// Pages in the log as of the last commit: SQLite tells them to a function that has no other state.
    static LOG_PAGES: Cell<u64> = const { Cell::new(0) };
}

impl SqliteStore {
    /// Makes all that was applied survive a power loss. Emptying the log syncs the log and the file; if a reader in
    /// another process holds that up, syncing the log alone is as good: it is replayed from there.
    pub(super) fn sync(&mut self) -> Result<AppliedPosition, StoreError> {
        if self.secured == self.at.applied {
            return Ok(self.secured);
        }
        if !self.empty_log()?
            && let Err(error) = File::open(self.log_path()).and_then(|log| log.sync_data())
        {
            self.sync_failed = true;
            return Err(StoreError::Broken {
                what: "syncing the store's log",
                cause: Cause::Damage,
                source: Box::new(error),
            });
        }
        self.secured = self.at.applied;
        Ok(self.secured)
    }

    /// Copies the log into the file, synced, and empties it. `false`: a reader in another process needs the log.
    pub(super) fn empty_log(&mut self) -> Result<bool, StoreError> {
        const SYNCING: &str = "syncing the store's file";
        self.sync_failed |= paced_writes::has_failed();
        if self.sync_failed {
            return Err(StoreError::Broken {
                what: SYNCING,
                cause: Cause::Damage,
                source: Box::new(Inconsistent::SyncFailed),
            });
        }
        let busy = self.connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get::<_, i64>(0));
        self.sync_failed |= paced_writes::has_failed();
        let busy = busy.map_err(|error| {
            let extended = error.sqlite_error().map(|failure| failure.extended_code);
            self.sync_failed |=
                matches!(extended, Some(rusqlite::ffi::SQLITE_IOERR_FSYNC | rusqlite::ffi::SQLITE_IOERR_DIR_FSYNC));
            failed(SYNCING)(error)
        })?;
        if busy == 0 {
            LOG_PAGES.set(0);
        }
        self.log_bytes_next = self.log_bytes() + LOG_BYTES;
        Ok(busy == 0)
    }

    /// Bytes in the log since it was last emptied.
    pub(super) fn log_bytes(&self) -> u64 {
        LOG_PAGES.get() * (self.page_bytes + LOG_PAGE_HEADER_BYTES)
    }

    /// The write-ahead log's file. It holds no locks, so opening and closing it disturbs nobody.
    fn log_path(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push("-wal");
        PathBuf::from(name)
    }
}

/// Takes note of the log's size; called by SQLite after each commit, on the committing thread.
pub(super) fn note_log_pages(_: &Wal, pages: c_int) -> rusqlite::Result<()> {
    LOG_PAGES.set(u64::try_from(pages).unwrap_or(0));
    Ok(())
}
