//! The tables in a MySQL database, and the steps that bring an older one up to date.
//!
//! Used when the store connects at start. What always holds: a database of a newer version, or one with tables of
//! the same names that no gateway made, is refused before anything is written to it; and of several gateways that
//! start at once, one makes the steps while the others wait. MySQL commits each statement that changes a schema
//! by itself, so every step may be repeated after a crash in the middle of it.
//!
//! Ids are u64 and so are the columns: their order is the true one. All bytes are binary, so no character set or
//! collation means anything here.

use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::fault::Fault;
#[cfg(doc)]
use crate::limits::GROUPS_LEFT_KEPT_MS;

/// The version of the last of `STEPS`; an empty database has version 0.
pub(crate) const VERSION: u32 = STEPS.len() as u32;

/// How long another gateway's steps are waited for.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// What each version adds to the one before. Tables and columns are those of the embedded store (`store::schema`), and
/// what only a cluster asks for.
const STEPS: [&[&str]; 6] = [TABLES, RETENTION, NAMES_TAKEN, MAKERS, LEFT, DIGEST];

const TABLES: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS messages (
       msg_id            BIGINT UNSIGNED  NOT NULL PRIMARY KEY,
       sender            BIGINT UNSIGNED  NOT NULL,
       conversation_kind TINYINT UNSIGNED NOT NULL,
       conversation_id   BIGINT UNSIGNED  NOT NULL,
       client_msg_id     BINARY(16)       NOT NULL,
       sent_at           BIGINT UNSIGNED  NOT NULL,
       digest            BIGINT UNSIGNED  NOT NULL,
       sender_seq        BIGINT UNSIGNED  NOT NULL,
       body              BLOB             NOT NULL,
       UNIQUE KEY messages_name (sender, client_msg_id)
     ) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET=binary",
    "CREATE TABLE IF NOT EXISTS inbox (
       user_id BIGINT UNSIGNED NOT NULL,
       seq     BIGINT UNSIGNED NOT NULL,
       msg_id  BIGINT UNSIGNED NOT NULL,
       PRIMARY KEY (user_id, seq)
     ) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET=binary",
    "CREATE TABLE IF NOT EXISTS chat_groups (
       group_id BIGINT UNSIGNED NOT NULL PRIMARY KEY,
       version  INT UNSIGNED    NOT NULL
     ) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET=binary",
    "CREATE TABLE IF NOT EXISTS group_members (
       group_id BIGINT UNSIGNED  NOT NULL,
       user_id  BIGINT UNSIGNED  NOT NULL,
       role     TINYINT UNSIGNED NOT NULL,
       PRIMARY KEY (group_id, user_id)
     ) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET=binary",
    "CREATE TABLE IF NOT EXISTS cursors (
       user_id   BIGINT UNSIGNED NOT NULL,
       device_id BIGINT UNSIGNED NOT NULL,
       seq       BIGINT UNSIGNED NOT NULL,
       PRIMARY KEY (user_id, device_id)
     ) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET=binary",
    "CREATE TABLE IF NOT EXISTS ledger_position (
       node       SMALLINT UNSIGNED NOT NULL PRIMARY KEY,
       position   BIGINT UNSIGNED   NOT NULL,
       msg_id_max BIGINT UNSIGNED   NOT NULL
     ) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET=binary",
];

const RETENTION: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS retention (
       id        TINYINT UNSIGNED NOT NULL PRIMARY KEY,
       kept_from BIGINT UNSIGNED  NOT NULL
     ) ENGINE=InnoDB",
    "CREATE TABLE IF NOT EXISTS retained_messages (
       msg_id BIGINT UNSIGNED NOT NULL PRIMARY KEY
     ) ENGINE=InnoDB",
];

const NAMES_TAKEN: &[&str] = &["CREATE TABLE IF NOT EXISTS names_taken (
       msg_id        BIGINT UNSIGNED NOT NULL PRIMARY KEY,
       sender        BIGINT UNSIGNED NOT NULL,
       client_msg_id BINARY(16)      NOT NULL,
       first_msg_id  BIGINT UNSIGNED NOT NULL
     ) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET=binary"];

const MAKERS: &[&str] = &["CREATE TABLE IF NOT EXISTS group_makers (
       group_id BIGINT UNSIGNED NOT NULL PRIMARY KEY,
       user_id  BIGINT UNSIGNED NOT NULL
     ) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET=binary"];

/// Groups that everybody has left, for as long as [`GROUPS_LEFT_KEPT_MS`] says: a node that was away meanwhile tells by it
/// that a creation in its log was stored, and is over.
const LEFT: &[&str] = &["CREATE TABLE IF NOT EXISTS groups_left (
       group_id BIGINT UNSIGNED NOT NULL PRIMARY KEY
     ) ENGINE=InnoDB ROW_FORMAT=DYNAMIC"];

/// What the entries of a cluster's stream are up to the position (`StreamDigest`): a store whose stream has others under
/// these numbers writes nothing on top of it. One of another position says nothing.
const DIGEST: &[&str] = &["CREATE TABLE IF NOT EXISTS stream_digest (
       node     SMALLINT UNSIGNED NOT NULL PRIMARY KEY,
       position BIGINT UNSIGNED   NOT NULL,
       digest   BIGINT UNSIGNED   NOT NULL
     ) ENGINE=InnoDB ROW_FORMAT=DYNAMIC"];

/// Where the version is kept; made first, so that its presence says whose tables the others are.
const VERSION_TABLE: &str = "CREATE TABLE IF NOT EXISTS ringway_schema (
       id      TINYINT UNSIGNED NOT NULL PRIMARY KEY,
       version INT UNSIGNED     NOT NULL
     ) ENGINE=InnoDB";

/// Tables of these names without [`VERSION_TABLE`] are somebody else's.
const NAMES: &str = "'messages', 'inbox', 'chat_groups', 'group_members', 'cursors', 'ledger_position', 'retention'";

/// Brings the database's tables to [`VERSION`].
pub(crate) async fn prepare(conn: &mut Conn) -> Result<(), Fault> {
    if version(conn).await? == Some(VERSION) {
        return Ok(());
    }
    let name = "CONCAT('ringway.schema.', LEFT(SHA2(DATABASE(), 256), 40))";
    let lock = format!("SELECT GET_LOCK({name}, {})", LOCK_TIMEOUT.as_secs());
    if conn.query_first::<Option<u8>, _>(lock).await?.flatten() != Some(1) {
        return Err(Fault::SchemaLocked(LOCK_TIMEOUT));
    }
    let stepped = step(conn).await;
    // If that fails the connection is lost, and the lock with it.
    conn.query_drop(format!("DO RELEASE_LOCK({name})")).await?;
    stepped
}

/// Refuses a database of another version than this one's.
pub(crate) async fn expect(conn: &mut Conn) -> Result<(), Fault> {
    match version(conn).await? {
        Some(VERSION) => Ok(()),
        found => Err(Fault::OlderSchema { found: found.unwrap_or(0), known: VERSION }),
    }
}

/// With the lock: makes the steps that are missing.
async fn step(conn: &mut Conn) -> Result<(), Fault> {
    let found = match version(conn).await? {
        Some(version) => version,
        None => {
            let foreign = format!(
                "SELECT table_name AS name FROM information_schema.tables \
                 WHERE table_schema = DATABASE() AND table_name IN ({NAMES}) LIMIT 1"
            );
            if let Some(table) = conn.query_first::<String, _>(foreign).await? {
                return Err(Fault::ForeignTable(table));
            }
            conn.query_drop(VERSION_TABLE).await?;
            conn.query_drop("INSERT IGNORE INTO ringway_schema (id, version) VALUES (1, 0)").await?;
            0
        }
    };
    for (before, statements) in STEPS.iter().enumerate().skip(found as usize) {
        for statement in *statements {
            conn.query_drop(*statement).await?;
        }
        let after = before + 1;
        conn.query_drop(format!("UPDATE ringway_schema SET version = {after} WHERE id = 1")).await?;
        tracing::info!(version = after, "the database's tables were brought to this schema version");
    }
    Ok(())
}

/// The database's version; `None`: it has no such table.
async fn version(conn: &mut Conn) -> Result<Option<u32>, Fault> {
    const NO_SUCH_TABLE: u16 = 1146;
    let found = match conn.query_first::<u32, _>("SELECT version FROM ringway_schema WHERE id = 1").await {
        Ok(found) => found,
        Err(mysql_async::Error::Server(error)) if error.code == NO_SUCH_TABLE => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // The table without its row was made a moment before a crash.
    match found {
        Some(found) if found > VERSION => Err(Fault::NewerSchema { found, known: VERSION }),
        Some(found) => Ok(Some(found)),
        None => {
            conn.query_drop("INSERT IGNORE INTO ringway_schema (id, version) VALUES (1, 0)").await?;
            Ok(Some(0))
        }
    }
}
