//! The journal: the ledger's append-only log on disk, in segments.
//!
//! Written by the ledger's thread, read by the store's thread (and by both at start). What always holds:
//! nothing below `Progress::durable` changes; what lies above it may be torn, and recovery throws it away.

pub mod batch;
pub(crate) mod cli;
pub mod disk;
pub mod memory_disk;
pub(crate) mod reader;
pub mod record;
pub(crate) mod recovery;
pub(crate) mod room;
pub mod segment;
pub(crate) mod varint;

use std::io;

/// Why the journal could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk did not do it. Nothing is known to be wrong with what is on it.
    #[error("the journal's {file}: {what} failed: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Which file; empty: the directory.
        file: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// There is no room for the next segment, which is allocated as a whole.
    #[error(
        "the journal's {file}: its disk has no room for a segment of {} MiB: {source}. Make room there, or set \
         data_dir to a larger disk",
        bytes.div_ceil(1 << 20)
    )]
    NoRoom {
        /// Which file.
        file: String,
        /// What it would take.
        bytes: u64,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// What is on the disk is not what was written. Nothing is changed; an operator decides.
    #[error(
        "the journal is corrupt: {file} at byte {offset} (position {position}): {what}. Keep a copy of the \
         directory; `ringway journal verify` shows what can be read. Restore the file from a copy of the disk, \
         or move the journal away to start without it: then acknowledged messages that were not yet in the \
         store are lost"
    )]
    Corrupt {
        /// Which file.
        file: String,
        /// Where in it.
        offset: u64,
        /// The same as a position in the journal.
        position: u64,
        /// What was found there.
        what: &'static str,
    },
    /// The journal does not reach back to a position that is needed: its segment was removed.
    #[error(
        "the journal has nothing at position {wanted}, it begins at {first}: segments were removed that are still needed"
    )]
    Missing {
        /// What was to be read.
        wanted: u64,
        /// Where the journal begins.
        first: u64,
    },
    /// Another version wrote it.
    #[error("the journal's {file} has format {version}, this version of Ringway reads format {expected}")]
    Version {
        /// Which file.
        file: String,
        /// What it says.
        version: u32,
        /// What is understood.
        expected: u32,
    },
}
