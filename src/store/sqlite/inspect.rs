//! Reading the embedded store to compare it: of a file that is not written to, and not made.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::{SqliteStore, bits, conversation, failed, stored};
use crate::contract::cause::Cause;
use crate::store::check::Inspect;
use crate::store::schema::{self, SchemaError};
use crate::store::{StoreError, StoredBody};
use ringway_wire::ids::{ClientMsgId, MsgId, Seq, UserId};

impl SqliteStore {
    /// Opens a file that is there, only to read it; a gateway may be writing it meanwhile.
    pub(crate) fn open_for_reading(path: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(failed("opening the store's file"))?;
        schema::expect(&connection).map_err(|error| match error {
            SchemaError::Database(error) => failed("reading the store's schema version")(error),
            other => StoreError::Broken {
                what: "its schema does not fit this version",
                cause: Cause::Schema,
                source: Box::new(other),
            },
        })?;
        Self::over(connection, path, 1)
    }
}

impl Inspect for SqliteStore {
    async fn rows(&mut self, user: UserId, from: Seq, to: Seq) -> Result<Vec<(Seq, MsgId)>, StoreError> {
        let read = || -> Result<Vec<(Seq, MsgId)>, rusqlite::Error> {
            let mut statement = self.connection.prepare_cached(
                "SELECT seq, msg_id FROM inbox WHERE user_id = ?1 AND seq >= ?2 AND seq <= ?3 ORDER BY seq",
            )?;
            let range = params![stored(user.0), stored(from.0), stored(to.0)];
            let rows = statement.query_map(range, |row| Ok((Seq(bits(row.get(0)?)), MsgId(bits(row.get(1)?)))))?;
            rows.collect()
        };
        read().map_err(failed("reading rows"))
    }

    async fn bodies(&mut self, ids: &[MsgId]) -> Result<Vec<StoredBody>, StoreError> {
        let read = || -> Result<Vec<StoredBody>, rusqlite::Error> {
            let mut statement = self.connection.prepare_cached(
                "SELECT sender, conversation_kind, conversation_id, client_msg_id, sender_seq, digest, body
                 FROM messages WHERE msg_id = ?1",
            )?;
            let mut bodies = Vec::with_capacity(ids.len());
            for msg_id in ids {
                let found = statement.query_row([stored(msg_id.0)], |row| {
                    Ok(StoredBody {
                        msg_id: *msg_id,
                        sender: UserId(bits(row.get(0)?)),
                        to: conversation(row.get(1)?, bits(row.get(2)?)),
                        client_msg_id: ClientMsgId(row.get(3)?),
                        sender_seq: Seq(bits(row.get(4)?)),
                        digest: bits(row.get(5)?),
                        body: row.get_ref(6)?.as_blob()?.into(),
                    })
                });
                bodies.extend(found.optional()?);
            }
            Ok(bodies)
        };
        read().map_err(failed("reading messages"))
    }
}
