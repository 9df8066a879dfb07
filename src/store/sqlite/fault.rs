//! What goes wrong with the file, split by what is to be done about it.

use rusqlite::ErrorCode;
use rusqlite::ffi::SQLITE_IOERR_SHMSIZE;

use crate::contract::cause::Cause;
use crate::store::StoreError;
use ringway_wire::ids::MsgId;

/// What the file holds and should not.
#[derive(Debug, thiserror::Error)]
pub(super) enum Inconsistent {
    #[error("an inbox row refers to message {0}, which is not there: restore the file, or delete those rows")]
    MessageMissing(MsgId),
    #[error("a sync failed before: look at the disk, then start the gateway again; the journal is kept until then")]
    SyncFailed,
}

/// Splits SQLite's errors by what is to be done: what passes by itself or by making room is tried again;
/// corruption and violated constraints need somebody who looks.
pub(super) fn failed(what: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError {
    move |error| {
        // There is no room for the index that processes share.
        let is_full = error.sqlite_error().is_some_and(|error| error.extended_code == SQLITE_IOERR_SHMSIZE);
        let code = if is_full { Some(ErrorCode::DiskFull) } else { error.sqlite_error_code() };
        let cause = code.map_or(Cause::Other, |code| match code {
            ErrorCode::DiskFull => Cause::Full,
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => Cause::Lock,
            ErrorCode::ReadOnly => Cause::ReadOnly,
            ErrorCode::PermissionDenied => Cause::Denied,
            ErrorCode::CannotOpen => Cause::NoDatabase,
            ErrorCode::ConstraintViolation => Cause::Constraint,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Cause::Damage,
            _ => Cause::Other,
        });
        let passing = match cause {
            Cause::Full | Cause::Lock | Cause::ReadOnly | Cause::Denied | Cause::NoDatabase => true,
            Cause::Other => matches!(
                code,
                Some(ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory | ErrorCode::OperationInterrupted)
            ),
            _ => false,
        };
        let source = Box::new(error);
        if passing {
            StoreError::Unavailable { what, cause, source }
        } else {
            StoreError::Broken { what, cause, source }
        }
    }
}
