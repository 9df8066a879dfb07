//! Why a bench could not be carried out. A bench that was carried out and found losses is not an error: its
//! report says so.

use std::path::PathBuf;

use thiserror::Error;

use super::contract::StoreError;
use ringway_client::{ClientError, SessionError};
use ringway_wire::ids::UserId;
use ringway_wire::schema::{CloseReason, ErrorCode};

/// What stopped a bench or a chat.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A socket, a file or a process failed.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The gateway we started ended or never became ready.
    #[error("the gateway did not start; its log {log} ends with:\n{tail}")]
    NotReady {
        /// Where its log is.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// The gateway closed a session it should have kept.
    #[error("the gateway closed the session of user {user}: {reason:?} ({message})")]
    Closed {
        /// The user whose session it was.
        user: u64,
        /// As the schema names it; it decides what a client may do next.
        reason: CloseReason,
        /// What the gateway adds, for people to read.
        message: String,
    },
    /// A chat was given another user's token.
    #[error("the token is for user {token}, --user asks for user {asked}: give one of the two")]
    OtherUser {
        /// Whom `--user` names.
        asked: UserId,
        /// Whom the token names.
        token: UserId,
    },
    /// A request was refused for good.
    #[error("the gateway refused a request: {code:?}: {message}")]
    Refused {
        /// As the schema names it; it says whether asking again can help.
        code: ErrorCode,
        /// What the gateway adds, for people to read.
        message: String,
    },
    /// The gateway sent what does not fit the session.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A sender's connection ended.
    #[error("the gateway closed a sender's connection while its messages were on their way")]
    SenderEnded,
    /// Logins were not answered.
    #[error("{missing} of {asked} logins were not answered within {seconds} s")]
    LoginTimeout {
        /// How many are missing.
        missing: usize,
        /// How many were sent.
        asked: usize,
        /// How long we waited.
        seconds: u64,
    },
    /// The protocol's slow path.
    #[error("{what}")]
    Client {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: ClientError,
    },
    /// The gateway's store.
    #[error("the rows that are stored cannot be counted")]
    Store(#[from] StoreError),
    /// Options that do not go together.
    #[error("{0}")]
    Options(&'static str),
    /// The report could not be written as JSON.
    #[error("the report cannot be written")]
    Json(#[from] serde_json::Error),
}

impl LoadError {
    /// For `map_err`: says what was being done.
    pub fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> LoadError {
        move |source| LoadError::Io { what, source }
    }

    /// For `map_err`: says what was being done.
    pub fn client(what: &'static str) -> impl FnOnce(ClientError) -> LoadError {
        move |source| LoadError::Client { what, source }
    }
}
