//! The tables of the embedded store, and the check that a file is one this version can use.
//!
//! Used by the store's thread when it opens the file. What always holds: a file of a newer version is refused
//! before anything is written to it.
//!
//! Ids are u64, SQLite's integers are i64: they are stored bit for bit. Ids from 2^63 on are therefore negative
//! in the file and sort before the others; nothing here depends on the order of ids, only on their equality
//! and on the order being a total one (the skip scan over users). Message and group ids have 63 bits, and a seq
//! counts from 1, so for these the stored order is the true one.

use rusqlite::Connection;

/// The version of the last of `STEPS`, kept in the file's `user_version`; 0 is an empty file.
pub(crate) const VERSION: i64 = STEPS.len() as i64;

/// What each version adds to the one before.
const STEPS: [&str; 4] = [TABLES, RETENTION, NAMES, MAKERS];

/// Version 1.
///
/// - `messages`: each message once. `sender_seq` is the sender's own row: what a repeat is answered with, without
///   an index from messages to rows, and also when retention has deleted the row. `digest` tells a repeat from
///   another message under the same name.
/// - `inbox`: one line a row, kept in the primary key's own tree (no rowid), about 27 bytes.
/// - `ledger_position`: up to where the journal of a node was applied, and the highest number it has given out
///   (changes of groups take numbers too, so `max(messages.msg_id)` would be too low).
const TABLES: &str = "
CREATE TABLE messages (
  msg_id            INTEGER PRIMARY KEY,
  sender            INTEGER NOT NULL,
  conversation_kind INTEGER NOT NULL,
  conversation_id   INTEGER NOT NULL,
  client_msg_id     BLOB    NOT NULL,
  sent_at           INTEGER NOT NULL,
  digest            INTEGER NOT NULL,
  sender_seq        INTEGER NOT NULL,
  body              BLOB    NOT NULL
) STRICT;
CREATE UNIQUE INDEX messages_name ON messages (sender, client_msg_id);
CREATE TABLE inbox (
  user_id INTEGER NOT NULL,
  seq     INTEGER NOT NULL,
  msg_id  INTEGER NOT NULL,
  PRIMARY KEY (user_id, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE chat_groups (
  group_id INTEGER PRIMARY KEY,
  version  INTEGER NOT NULL
) STRICT;
CREATE TABLE group_members (
  group_id INTEGER NOT NULL,
  user_id  INTEGER NOT NULL,
  role     INTEGER NOT NULL,
  PRIMARY KEY (group_id, user_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE cursors (
  user_id   INTEGER NOT NULL,
  device_id INTEGER NOT NULL,
  seq       INTEGER NOT NULL,
  PRIMARY KEY (user_id, device_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE ledger_position (
  node       INTEGER PRIMARY KEY,
  position   INTEGER NOT NULL,
  msg_id_max INTEGER NOT NULL
) STRICT;
";

/// Version 2.
///
/// - `retention`: one line. `kept_from`: messages below this number may have been deleted.
/// - `retained_messages`: during a pass of retention, the old messages that somebody's newest row refers to.
const RETENTION: &str = "
CREATE TABLE retention (
  id        INTEGER PRIMARY KEY CHECK (id = 1),
  kept_from INTEGER NOT NULL
) STRICT;
CREATE TABLE retained_messages (
  msg_id INTEGER PRIMARY KEY
) STRICT;
";

/// Version 3.
///
/// - `names_taken`: messages that came with a name that another message of their sender had, and that one. `messages`
///   has them under a substitute: see `store::names`.
const NAMES: &str = "
CREATE TABLE names_taken (
  msg_id        INTEGER PRIMARY KEY,
  sender        INTEGER NOT NULL,
  client_msg_id BLOB    NOT NULL,
  first_msg_id  INTEGER NOT NULL
) STRICT;
";

/// Version 4.
///
/// - `group_makers`: whom a group counts against, whether still a member or not; of groups of older versions it is not
///   known.
const MAKERS: &str = "
CREATE TABLE group_makers (
  group_id INTEGER PRIMARY KEY,
  user_id  INTEGER NOT NULL
) STRICT;
";

/// Why the tables could not be made ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SchemaError {
    /// The file was written by a newer version of the gateway.
    #[error(
        "the file has schema version {found}, this gateway knows versions up to {VERSION}: use a newer gateway, or another data directory"
    )]
    Newer {
        /// What the file says.
        found: i64,
    },
    /// The file was written by an older version, and is not to be changed now.
    #[error(
        "the file has schema version {found}, this gateway expects {VERSION}: start the gateway once, it brings it up to date"
    )]
    Older {
        /// What the file says.
        found: i64,
    },
    /// The file has tables, but none that this gateway made.
    #[error("the file is an SQLite database of something else: use another data directory")]
    Foreign,
    /// SQLite refused.
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
}

/// Makes the tables in an empty file, brings an older one up to date, and refuses a file this version does not know.
pub(crate) fn prepare(connection: &mut Connection) -> Result<(), SchemaError> {
    let found = version(connection)?;
    if found > VERSION {
        return Err(SchemaError::Newer { found });
    }
    if found == 0 {
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables != 0 {
            return Err(SchemaError::Foreign);
        }
    }
    let missing = STEPS.get(usize::try_from(found).unwrap_or(0)..).unwrap_or_default();
    if missing.is_empty() {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    for step in missing {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()?;
    Ok(())
}

/// Refuses a file of another version than this one's.
pub(crate) fn expect(connection: &Connection) -> Result<(), SchemaError> {
    match version(connection)? {
        VERSION => Ok(()),
        found if found > VERSION => Err(SchemaError::Newer { found }),
        found => Err(SchemaError::Older { found }),
    }
}

fn version(connection: &Connection) -> Result<i64, rusqlite::Error> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}
