//! What goes wrong with a MySQL server, split by what is to be done about it.
//!
//! What always holds: whatever an operator can mend while the gateway runs (a stopped server, a full disk, a wrong
//! password) is tried again; only a contradiction in the data, or a schema of another version, is [`StoreError::Broken`].

use std::time::Duration;

use mysql_async::{DriverError, Error, FromRowError, ServerError};

use crate::contract::cause::Cause;
use crate::store::StoreError;

/// Why a statement or a connection failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The driver or the server.
    #[error(transparent)]
    Driver(#[from] Error),
    /// A row is not of the form that the tables should give it.
    #[error("a row of the database has another form than the gateway's tables give it")]
    Row(#[source] FromRowError),
    /// No answer.
    #[error("the database has not answered for {} s", .0.as_secs())]
    Silent(Duration),
    /// There was no connection left to ask on.
    #[error("the connections to the database were lost before this was asked")]
    NotAsked,
    /// Too short even for one message.
    #[error(
        "the database takes statements of {found} bytes, and a message may need {needed}: \
         raise max_allowed_packet there"
    )]
    PacketLimit {
        /// `max_allowed_packet`.
        found: usize,
        /// The least that is enough.
        needed: usize,
    },
    /// The server takes less than it did.
    #[error("the database takes statements of {found} bytes, and {expected} before: they are made again")]
    PacketShrunk {
        /// Now.
        found: usize,
        /// When they were made.
        expected: usize,
    },
    /// A step of retention outside a pass.
    #[error("the lock for deleting old messages was lost: the pass begins anew")]
    NotExpiring,
    /// The task that wrote has gone.
    #[error("the gateway stopped while it wrote")]
    Abandoned,
    /// Another gateway has the lock of this node.
    #[error(
        "another gateway uses this database as node {0}: stop it, or give this one a database of its own \
         (or wait: after a crash the database may take a moment to notice)"
    )]
    Taken(u16),
    /// Somebody else has moved the position.
    #[error(
        "the database is at position {found} of the journal, and this gateway had left it at {expected}: \
         another gateway writes into it, or it was restored"
    )]
    Moved {
        /// What the database says.
        found: u64,
        /// What this gateway knows.
        expected: u64,
    },
    /// Another node of the cluster has moved the position.
    #[error("another node has written up to entry {found} meanwhile, this one knew {expected}")]
    Overtaken {
        /// What the database says.
        found: u64,
        /// What this gateway knows.
        expected: u64,
    },
    /// The tables are of a newer gateway.
    #[error(
        "the database has schema version {found}, this gateway knows versions up to {known}: \
         use a newer gateway, or another database"
    )]
    NewerSchema {
        /// What the database says.
        found: u32,
        /// What this gateway knows.
        known: u32,
    },
    /// The tables are of an older gateway, and not to be changed now.
    #[error(
        "the database has schema version {found}, this gateway expects {known}: start the gateway once, it brings it \
         up to date"
    )]
    OlderSchema {
        /// What the database says; 0: nothing.
        found: u32,
        /// What this gateway knows.
        known: u32,
    },
    /// It was opened to be read.
    #[error("the database was opened for reading only")]
    Watching,
    /// There are tables of these names which no gateway made.
    #[error("the database has a table `{0}` that is not the gateway's: use another database")]
    ForeignTable(String),
    /// Another node holds the migration's lock.
    #[error("another gateway has been changing the schema for {} s", .0.as_secs())]
    SchemaLocked(Duration),
    /// A row of the position's table is gone.
    #[error("the database has lost the row with node {0}'s position: restore it, or start with an empty database")]
    PositionLost(u16),
    /// An inbox row refers to a message that is not there.
    #[error("an inbox row refers to message {0}, which is not there: restore the database, or delete those rows")]
    MessageMissing(ringway_wire::ids::MsgId),
}

/// Whether an error passes by itself or by what an operator does, or is a contradiction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Passing {
    Yes,
    No,
}

impl Fault {
    /// As the store's thread knows it.
    pub(crate) fn into_store(self, what: &'static str) -> StoreError {
        let (cause, passing) = self.judge();
        let source = Box::new(self);
        match passing {
            Passing::Yes => StoreError::Unavailable { what, cause, source },
            Passing::No => StoreError::Broken { what, cause, source },
        }
    }

    /// Whether the connection may be used again. One that has lost its database, or its rights, never gets them back.
    pub(crate) fn spares_connection(&self) -> bool {
        const FOR_GOOD: [Cause; 3] = [Cause::Connection, Cause::NoDatabase, Cause::Denied];
        match self {
            Fault::Driver(Error::Server(error)) => !FOR_GOOD.contains(&cause_of(error)),
            // It answered.
            Fault::MessageMissing(_) => true,
            _ => false,
        }
    }

    /// The connection was found dead, which says nothing about the server: it may have been restarted meanwhile.
    pub(crate) fn is_lost_connection(&self) -> bool {
        self.judge().0 == Cause::Connection
    }

    /// Somebody else holds a lock, for longer than is waited.
    pub(crate) fn is_lock_timeout(&self) -> bool {
        matches!(self, Fault::Driver(Error::Server(error)) if error.code == 1205)
    }

    /// There is no such connection.
    pub(crate) fn is_unknown_thread(&self) -> bool {
        matches!(self, Fault::Driver(Error::Server(error)) if error.code == 1094)
    }

    /// A row is there already.
    pub(crate) fn is_duplicate(&self) -> bool {
        matches!(self, Fault::Driver(Error::Server(error)) if matches!(error.code, 1062 | 1586))
    }

    fn judge(&self) -> (Cause, Passing) {
        match self {
            Fault::Driver(Error::Server(error)) => {
                let cause = cause_of(error);
                let contradiction = matches!(cause, Cause::Constraint | Cause::Damage);
                (cause, if contradiction { Passing::No } else { Passing::Yes })
            }
            Fault::Driver(Error::Driver(DriverError::ConnectionClosed | DriverError::PoolDisconnected)) => {
                (Cause::Connection, Passing::Yes)
            }
            Fault::Driver(Error::Io(_)) => (Cause::Connection, Passing::Yes),
            Fault::Driver(_) => (Cause::Other, Passing::Yes),
            Fault::Silent(_) => (Cause::Timeout, Passing::Yes),
            Fault::Abandoned | Fault::NotExpiring | Fault::NotAsked => (Cause::Connection, Passing::Yes),
            Fault::PacketLimit { .. } | Fault::PacketShrunk { .. } => (Cause::Packet, Passing::Yes),
            Fault::SchemaLocked(_) => (Cause::Lock, Passing::Yes),
            Fault::Taken(_) => (Cause::Taken, Passing::Yes),
            Fault::Moved { .. } => (Cause::Taken, Passing::No),
            Fault::Overtaken { .. } => (Cause::Lock, Passing::Yes),
            Fault::Row(_) | Fault::NewerSchema { .. } | Fault::OlderSchema { .. } | Fault::ForeignTable(_) => {
                (Cause::Schema, Passing::No)
            }
            Fault::Watching => (Cause::Other, Passing::No),
            Fault::PositionLost(_) | Fault::MessageMissing(_) => (Cause::Damage, Passing::No),
        }
    }
}

/// The server's error numbers (they are the same in MySQL and MariaDB for all that is named here).
fn cause_of(error: &ServerError) -> Cause {
    match error.code {
        // Too many connections, shutdown in progress, query interrupted, killed, silent for too long.
        1040 | 1053 | 1203 | 1317 | 1927 | 3169 | 4031 => Cause::Connection,
        // Access denied: to the database, for the user, to a table, a column, a privilege, by the plugin.
        1044 | 1045 | 1142 | 1143 | 1227 | 1370 | 1698 => Cause::Denied,
        1046 | 1049 => Cause::NoDatabase,
        // No such table or column.
        1054 | 1146 => Cause::Schema,
        // Run with --read-only, or a read-only transaction.
        1290 | 1792 | 1836 => Cause::ReadOnly,
        // Disk full, table full, no space for a temporary file or for the log.
        1021 | 1114 | 1041 | 3019 => Cause::Full,
        // A file cannot be written: most of all, its disk is full.
        3 | 1026 if error.message.contains("28") || error.message.contains("No space") => Cause::Full,
        1030 | 1180 if error.message.contains("28") || error.message.contains("No space") => Cause::Full,
        1153 => Cause::Packet,
        1205 | 1213 | 3572 => Cause::Lock,
        // Duplicate, out of range, too long, null.
        1022 | 1048 | 1062 | 1264 | 1366 | 1406 | 1586 => Cause::Constraint,
        // Crashed table, corrupt index, corrupt page.
        126 | 127 | 1034 | 1194 | 1195 | 1712 | 1877 => Cause::Damage,
        _ => Cause::Other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use super::*;

    /// The code has this cause; whether it is tried again.
    fn is_tried_again(code: u16, message: &str, cause: Cause) -> bool {
        let error = ServerError { code, message: message.to_owned(), state: "HY000".to_owned() };
        let error = Fault::from(Error::Server(error)).into_store("a test");
        assert_eq!(error.cause(), cause, "{code}");
        matches!(error, StoreError::Unavailable { .. })
    }

    #[test]
    fn what_an_operator_can_mend_is_tried_again_and_a_contradiction_is_not() {
        assert!(is_tried_again(1045, "Access denied for user", Cause::Denied));
        assert!(is_tried_again(1049, "Unknown database 'x'", Cause::NoDatabase));
        assert!(is_tried_again(1146, "Table 'x.inbox' doesn't exist", Cause::Schema));
        assert!(is_tried_again(1290, "running with the --read-only option", Cause::ReadOnly));
        assert!(is_tried_again(1114, "The table 'inbox' is full", Cause::Full));
        assert!(is_tried_again(1030, "Got error 28 \"No space left on device\" from storage engine", Cause::Full));
        assert!(is_tried_again(1030, "Got error 168 from storage engine", Cause::Other));
        assert!(is_tried_again(1213, "Deadlock found", Cause::Lock));
        assert!(is_tried_again(1205, "Lock wait timeout exceeded", Cause::Lock));
        assert!(!is_tried_again(1062, "Duplicate entry '1-2' for key 'PRIMARY'", Cause::Constraint));
        assert!(!is_tried_again(1194, "Table is marked as crashed", Cause::Damage));
    }
}
