//! Why a run could not be carried out. What it found is no error: that is the verdict.

use std::io;
use std::path::{Path, PathBuf};

/// Why a run could not be carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A file or directory.
    #[error("{path}: {error}")]
    Io {
        /// Which one.
        path: PathBuf,
        /// What is wrong.
        error: io::Error,
    },
    /// A program of the host's.
    #[error("`{command}` failed: {said}")]
    Command {
        /// Its command line.
        command: String,
        /// What it said.
        said: String,
    },
    /// A server did not come up.
    #[error("{name} did not answer within {patience_s} s; the end of its log:\n{log}")]
    Start {
        /// Which one.
        name: String,
        /// How long it was waited for.
        patience_s: u64,
        /// What it said.
        log: String,
    },
    /// The history could not be written or read.
    #[error("the history: {0}")]
    History(String),
    /// The database could not be read when all was over.
    #[error("the database: {0}")]
    Database(#[from] mysql_async::Error),
    /// The process of the clients has ended, or does not go on.
    #[error("the clients: {0}")]
    Clients(String),
    /// What was asked for cannot be done.
    #[error("{0}")]
    Usage(String),
}

impl Failure {
    /// About a file.
    pub(crate) fn io(path: &Path, error: io::Error) -> Failure {
        Failure::Io { path: path.to_owned(), error }
    }
}
