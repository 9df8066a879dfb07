//! What the gateway's program hands the load generator: how rows are read where they are stored, and facts about the
//! gateway and its host that only the gateway's own code knows.
//!
//! No logic. What always holds: nothing here names a database, a file format or a module of the gateway.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringway_wire::ids::{MsgId, Seq, UserId};
use thiserror::Error;

/// Why a store's rows cannot be read.
#[derive(Debug, Error)]
pub enum StoreError {
    /// What `--store` says names no store.
    #[error("--store names no store")]
    Url(#[source] Box<dyn Error + Send + Sync>),
    /// `--store` names a file that only the gateway knows.
    #[error("--store sqlite: needs the file's path with --connect: sqlite:PATH")]
    NoFile,
    /// The store is there and cannot be read.
    #[error("the store cannot be read")]
    Read(#[source] Box<dyn Error + Send + Sync>),
}

/// The stores that a gateway can have.
pub trait Stores {
    /// Refuses what names no store; reads and connects nothing.
    fn check(&self, url: &str) -> Result<(), StoreError>;
    /// Opens the store with this `store.url`, for reading; without one, the file `own_file`, which is also what
    /// `sqlite:` alone means.
    fn open(&self, url: Option<&str>, own_file: Option<&Path>) -> Result<Box<dyn StoredRows>, StoreError>;
}

/// The inbox rows and messages of one store. Every call blocks.
pub trait StoredRows {
    /// The user's newest row; 0: none.
    fn newest(&self, user: UserId) -> Result<Seq, StoreError>;
    /// Whether a message is there.
    fn has_message(&self, msg_id: MsgId) -> Result<bool, StoreError>;
    /// Shows `each` of the user's rows after `after`, in the order of their numbers.
    fn rows_after(&self, user: UserId, after: Seq, each: &mut dyn FnMut(Seq, MsgId)) -> Result<(), StoreError>;
}

/// What a soak asks of the gateway's program.
#[derive(Clone, Copy, Debug)]
pub struct SoakFacts {
    /// How long the gateway remembers each message, to know its repeats.
    pub names_kept: Duration,
    /// The directories of the memory limits that processes are under, each process's own first.
    pub memory_limit_dirs: fn(pids: &[u32]) -> Vec<PathBuf>,
}
