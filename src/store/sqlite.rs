//! The embedded store: one SQLite file, written and read by the store's thread alone.
//!
//! What always holds: rows, messages, changes of groups and the position that covers them are committed together,
//! so the position never lies about what the tables hold. Commits do not wait for the disk (`synchronous=NORMAL`
//! with a write-ahead log): the journal keeps what a power loss could take back, until [`Store::secure`] has
//! synced. One connection reads and writes: both happen on one thread, and they share one page cache.
//! Other processes may read the file meanwhile.

mod cursors;
mod expiry;
mod fault;
mod find;
mod insert;
mod inspect;
mod paced_writes;
mod trace;
mod wal;

use std::ffi::c_int;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{CachedStatement, Connection, OptionalExtension, TransactionBehavior, params};

use super::messages::Messages;
use super::names::Written;
use super::page::Assembly;
use super::schema::{self, SchemaError};
use super::yielding::yield_to_deliveries;
use super::{NamesFound, PageWanted, Store, StoreError, Transaction, pages_in_turn, snapshot_alone};
use crate::contract::cause::Cause;
use crate::contract::chain::Chain;
use crate::contract::message::Message;
use crate::contract::position::{AppliedPosition, StreamDigest};
use crate::contract::store::{CursorRow, Lookup, MessageHead, NewestRow, Page, StorePosition, Stored, StoredGroup};
use crate::limits::{SQLITE_TRANSACTION_ROWS_BESIDE_READERS, SQLITE_TRANSACTION_ROWS_MAX};
use fault::{Inconsistent, failed};
use find::find;
use insert::{RowBatch, insert_messages, insert_rows, write_group};
use ringway_wire::ids::{ClientMsgId, Conversation, DeviceId, GroupId, MsgId, RosterVersion, Seq, UserId};
use ringway_wire::schema::{ConversationKind, Role};
use wal::{LOG_BYTES, note_log_pages};

/// The one journal whose position the file keeps; the table has room for more.
const NODE: i64 = 0;

/// Settings of the connection.
///
/// - `wal_autocheckpoint`: off, because a sync that fails in it is not reported; `apply` sees to the log's size.
/// - `cache_size`: 64 MiB of pages: the newest leaf of 16,000 inboxes.
/// - `mmap_size`: reads of settled pages cost no copy; an address range, not memory.
/// - `busy_timeout`: another process holds the write lock; after 250 ms the transaction is tried again later,
///   because reads wait meanwhile.
/// - `journal_size_limit`: an emptied log keeps its blocks and is written over from its beginning; giving them back
///   would cost discards and new allocations, which the ledger's `fdatasync` waits behind. 256 MiB are the most it
///   keeps, after a reader in another process has held the emptying up.
const SETTINGS: &str = "
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
PRAGMA wal_autocheckpoint = 0;
PRAGMA cache_size = -65536;
PRAGMA mmap_size = 1073741824;
PRAGMA temp_store = MEMORY;
PRAGMA busy_timeout = 250;
PRAGMA journal_size_limit = 268435456;
";

/// Before there are tables: a transaction writes at least one page for every user with a new row, about 1 KB of
/// rows at most, and the log and the file are written in whole pages.
const PAGE: &str = "PRAGMA page_size = 1024;";

/// No other process has the file open at the same time.
const ALONE: &str = "PRAGMA locking_mode = EXCLUSIVE;";

/// Operations of SQLite's machine between two looks whether deliveries are in hand: some 50 rows, as many microseconds.
const STEP_OPERATIONS: c_int = 1_000;

/// Every statement of this file stays prepared.
const STATEMENTS_MAX: usize = 32;

/// A store in one file.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
    path: PathBuf,
    batch: RowBatch,
    at: StorePosition,
    secured: AppliedPosition,
    page_bytes: u64,
    /// The log's size at which it is to be emptied.
    log_bytes_next: u64,
    /// A sync failed. The kernel may have dropped what was to be written, and a second sync would report success;
    /// so nothing counts as secured any more, and the journal keeps it.
    sync_failed: bool,
}

/// Who may open the file beside this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sharers {
    Others,
    Nobody,
}

impl SqliteStore {
    /// Opens the file, or makes it with its tables. On a full disk, where there is no room for the index that processes
    /// share, it is opened for this process alone: what is stored can be read, and written when there is room again.
    pub fn open(path: &Path, batch_rows: usize) -> Result<Self, StoreError> {
        match Self::open_as(path, batch_rows, Sharers::Others) {
            Err(StoreError::Unavailable { cause: Cause::Full, .. }) => {
                let store = Self::open_as(path, batch_rows, Sharers::Nobody)?;
                tracing::warn!(
                    file = %path.display(),
                    "the disk is full: the store is read, and written when there is room; until the next start no other \
                     process can look at it (`ringway store check`)"
                );
                Ok(store)
            }
            opened => opened,
        }
    }

    fn open_as(path: &Path, batch_rows: usize, sharers: Sharers) -> Result<Self, StoreError> {
        const OPENING: &str = "opening the store's file";
        if !paced_writes::begin() {
            tracing::warn!("this SQLite cannot be made to write in small steps: commits wait while it writes");
        }
        let mut connection = Connection::open(path).map_err(failed(OPENING))?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        if sharers == Sharers::Nobody {
            // Before the first access: its index is then in memory.
            connection.execute_batch(ALONE).map_err(failed(OPENING))?;
        }
        connection.execute_batch(PAGE).map_err(failed(OPENING))?;
        schema::prepare(&mut connection).map_err(|error| match error {
            SchemaError::Database(error) => failed("making the store's tables")(error),
            other => StoreError::Broken {
                what: "its schema does not fit this version",
                cause: Cause::Schema,
                source: Box::new(other),
            },
        })?;
        connection.execute_batch(SETTINGS).map_err(failed(OPENING))?;
        let mut store = Self::over(connection, path, batch_rows)?;
        store.read_position()?;
        // What a run before this one left in the log may never have been synced.
        store.sync()?;
        Ok(store)
    }

    fn over(connection: Connection, path: &Path, batch_rows: usize) -> Result<Self, StoreError> {
        let page_bytes: u64 = connection
            .pragma_query_value(None, "page_size", |row| row.get::<_, i64>(0))
            .map(bits)
            .map_err(failed("reading the size of the file's pages"))?;
        connection.wal_hook(Some(note_log_pages));
        connection.progress_handler(
            STEP_OPERATIONS,
            Some(|| {
                yield_to_deliveries();
                false
            }),
        );
        Ok(SqliteStore {
            connection,
            path: path.to_owned(),
            batch: RowBatch::new(batch_rows),
            at: StorePosition::default(),
            secured: AppliedPosition(0),
            page_bytes,
            log_bytes_next: LOG_BYTES,
            sync_failed: false,
        })
    }

    fn read_position(&mut self) -> Result<StorePosition, StoreError> {
        let found = self
            .connection
            .prepare_cached("SELECT position, msg_id_max FROM ledger_position WHERE node = ?1")
            .and_then(|mut statement| {
                statement
                    .query_row([NODE], |row| {
                        Ok(StorePosition {
                            applied: AppliedPosition(bits(row.get(0)?)),
                            msg_id_max: MsgId(bits(row.get(1)?)),
                            digest: StreamDigest::default(),
                        })
                    })
                    .optional()
            })
            .map_err(failed("reading the applied position"))?;
        self.at = found.unwrap_or_default();
        Ok(self.at)
    }

    fn write(&mut self, transaction: &Transaction) -> Result<Written, rusqlite::Error> {
        let msg_id_max = self.at.msg_id_max.max(transaction.msg_id_max);
        let at = StorePosition { applied: transaction.applied, msg_id_max, digest: StreamDigest::default() };
        let writing = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let names_taken = insert_messages(&writing, &transaction.messages)?;
        insert_rows(&writing, &self.batch, &transaction.rows)?;
        for group in &transaction.groups {
            write_group(&writing, group)?;
        }
        writing
            .prepare_cached("INSERT OR REPLACE INTO ledger_position (node, position, msg_id_max) VALUES (?1, ?2, ?3)")?
            .execute(params![NODE, stored(at.applied.0), stored(at.msg_id_max.0)])?;
        writing.commit()?;
        self.at = at;
        Ok(Written { names_taken })
    }

    fn apply_now(&mut self, transaction: &Transaction) -> Result<Written, StoreError> {
        if transaction.applied <= self.at.applied {
            return Ok(Written::default());
        }
        let written = self.write(transaction).map_err(failed("writing batches"))?;
        if self.log_bytes() >= self.log_bytes_next && !self.sync_failed {
            // The transaction is in: what fails here is no reason to write it again.
            if let Err(error) = self.empty_log() {
                self.log_bytes_next = self.log_bytes() + LOG_BYTES;
                tracing::warn!(error = %Chain(&error), "the store's log could not be emptied");
            }
        }
        Ok(written)
    }
}

impl Store for SqliteStore {
    type Encoded = Transaction;
    /// It blocks, and is over when it returns.
    type Writing = std::future::Ready<Result<Written, StoreError>>;

    fn transaction_rows_max(&self) -> usize {
        SQLITE_TRANSACTION_ROWS_MAX
    }

    fn transaction_rows_beside_readers(&self) -> usize {
        SQLITE_TRANSACTION_ROWS_BESIDE_READERS
    }

    fn encode(&self, transaction: Transaction) -> Transaction {
        transaction
    }

    fn apply(&mut self, transaction: Transaction) -> Self::Writing {
        std::future::ready(self.apply_now(&transaction))
    }

    async fn position(&mut self) -> Result<StorePosition, StoreError> {
        self.read_position()
    }

    /// One seek a user: from the highest user id down, each time the last row of the next lower user.
    async fn newest_rows(&mut self, visit: &mut dyn FnMut(NewestRow)) -> Result<(), StoreError> {
        let mut scan = || -> Result<(), rusqlite::Error> {
            let mut first = self
                .connection
                .prepare_cached("SELECT user_id, seq FROM inbox ORDER BY user_id DESC, seq DESC LIMIT 1")?;
            let mut below = self.connection.prepare_cached(
                "SELECT user_id, seq FROM inbox WHERE user_id < ?1 ORDER BY user_id DESC, seq DESC LIMIT 1",
            )?;
            let pair = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
            let mut found = first.query_row([], pair).optional()?;
            while let Some((user, seq)) = found {
                visit(NewestRow { user: UserId(bits(user)), seq: Seq(bits(seq)) });
                found = below.query_row([user], pair).optional()?;
            }
            Ok(())
        };
        scan().map_err(failed("reading every user's newest row"))
    }

    async fn groups(&mut self, visit: &mut dyn FnMut(StoredGroup)) -> Result<(), StoreError> {
        let mut scan = || -> Result<(), rusqlite::Error> {
            let mut statement = self.connection.prepare_cached(
                "SELECT g.group_id, g.version, m.user_id, m.role, k.user_id
                 FROM chat_groups g LEFT JOIN group_makers k ON k.group_id = g.group_id
                 JOIN group_members m ON m.group_id = g.group_id ORDER BY g.group_id",
            )?;
            let mut rows = statement.query([])?;
            let mut reading: Option<StoredGroup> = None;
            while let Some(row) = rows.next()? {
                let group = GroupId(bits(row.get(0)?));
                let member = (UserId(bits(row.get(2)?)), Role(row.get(3)?));
                match &mut reading {
                    Some(same) if same.group == group => same.members.push(member),
                    other => {
                        let version = RosterVersion(row.get(1)?);
                        let maker = row.get::<_, Option<i64>>(4)?.map(|maker| UserId(bits(maker)));
                        let next = StoredGroup { group, version, members: vec![member], maker };
                        if let Some(complete) = other.replace(next) {
                            visit(complete);
                        }
                    }
                }
            }
            if let Some(complete) = reading {
                visit(complete);
            }
            Ok(())
        };
        scan().map_err(failed("reading the groups"))
    }

    async fn snapshot(&mut self, visit: &mut dyn FnMut(Stored)) -> Result<StorePosition, StoreError> {
        snapshot_alone(self, visit).await
    }

    async fn left(&mut self, _: &[GroupId]) -> Result<Vec<GroupId>, StoreError> {
        Ok(Vec::new())
    }

    async fn secure(&mut self) -> Result<AppliedPosition, StoreError> {
        self.sync()
    }

    fn cache_bytes(&self) -> u64 {
        let (mut now, mut highest) = (0, 0);
        // SAFETY: the connection is open while it is borrowed, and both numbers are written before the call returns.
        let answer = unsafe {
            rusqlite::ffi::sqlite3_db_status(
                self.connection.handle(),
                rusqlite::ffi::SQLITE_DBSTATUS_CACHE_USED,
                &raw mut now,
                &raw mut highest,
                0,
            )
        };
        if answer == rusqlite::ffi::SQLITE_OK { u64::try_from(now).unwrap_or(0) } else { 0 }
    }

    async fn page(
        &mut self,
        user: UserId,
        after: Seq,
        rows_max: usize,
        bytes_max: usize,
        messages: &mut Messages,
    ) -> Result<Page, StoreError> {
        const READING: &str = "reading a page of an inbox";
        let mut assembly = Assembly::new(after, rows_max, bytes_max);
        let kept_from = || read_kept_from(&self.connection);
        let mut fill = || -> Result<Option<MsgId>, rusqlite::Error> {
            let mut page = self.connection.prepare_cached(
                "SELECT seq, msg_id FROM inbox WHERE user_id = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
            )?;
            let mut bodies = self.connection.prepare_cached(
                "SELECT sender, conversation_kind, conversation_id, client_msg_id, body
                 FROM messages WHERE msg_id = ?1",
            )?;
            let after = i64::try_from(after.0).unwrap_or(i64::MAX);
            let mut rows = page.query(params![stored(user.0), after, i64::try_from(rows_max).unwrap_or(i64::MAX)])?;
            while let Some(row) = rows.next()? {
                let (seq, msg_id) = (Seq(bits(row.get(0)?)), MsgId(bits(row.get(1)?)));
                if !assembly.wants(seq) {
                    break;
                }
                let message = match messages.find(msg_id) {
                    Some(message) => Arc::clone(message),
                    None => match read_message(&mut bodies, msg_id, messages)? {
                        Some(message) => message,
                        None if msg_id >= kept_from()? => return Ok(Some(msg_id)),
                        None if assembly.skip(seq) => continue,
                        None => break,
                    },
                };
                assembly.push(seq, message);
            }
            Ok(None)
        };
        match fill().map_err(failed(READING))? {
            None => Ok(assembly.finish()),
            Some(msg_id) => Err(StoreError::Broken {
                what: READING,
                cause: Cause::Damage,
                source: Box::new(Inconsistent::MessageMissing(msg_id)),
            }),
        }
    }

    async fn pages(&mut self, wanted: &[PageWanted], messages: &mut Messages) -> Vec<Result<Page, StoreError>> {
        pages_in_turn(self, wanted, messages).await
    }

    async fn find(&mut self, lookups: &[Lookup]) -> Result<NamesFound, StoreError> {
        find(&self.connection, lookups).map_err(failed("looking messages up"))
    }

    async fn kept_from(&mut self) -> Result<MsgId, StoreError> {
        read_kept_from(&self.connection).map_err(failed("reading from where on messages are kept"))
    }

    async fn cursors(&mut self, devices: &[(UserId, DeviceId)]) -> Result<Vec<Option<Seq>>, StoreError> {
        cursors::read(&self.connection, devices).map_err(failed("reading cursors"))
    }

    async fn message(&mut self, msg_id: MsgId) -> Result<Option<MessageHead>, StoreError> {
        trace::message(&self.connection, msg_id).map_err(failed("reading a message"))
    }

    async fn devices(&mut self, users: &[UserId]) -> Result<Vec<CursorRow>, StoreError> {
        trace::devices(&self.connection, users).map_err(failed("reading the cursors of users"))
    }

    async fn save_cursors(&mut self, rows: &[CursorRow]) -> Result<(), StoreError> {
        cursors::save(&mut self.connection, rows).map_err(failed("keeping cursors"))
    }
}

fn read_kept_from(connection: &Connection) -> Result<MsgId, rusqlite::Error> {
    let mut statement = connection.prepare_cached("SELECT kept_from FROM retention WHERE id = 1")?;
    let found = statement.query_row([], |row| row.get(0)).optional()?;
    Ok(MsgId(found.map_or(0, bits)))
}

fn read_message(
    bodies: &mut CachedStatement<'_>,
    msg_id: MsgId,
    messages: &mut Messages,
) -> Result<Option<Arc<Message>>, rusqlite::Error> {
    bodies
        .query_row([stored(msg_id.0)], |row| {
            let to = conversation(row.get(1)?, bits(row.get(2)?));
            let sender = UserId(bits(row.get(0)?));
            let body = row.get_ref(4)?.as_blob()?;
            Ok(messages.keep(msg_id, sender, to, ClientMsgId(row.get(3)?), body))
        })
        .optional()
}

/// Where a message is addressed, as the table has it.
fn conversation(kind: u8, id: u64) -> Conversation {
    match ConversationKind(kind) {
        ConversationKind::Group => Conversation::Group(GroupId(id)),
        _ => Conversation::User(UserId(id)),
    }
}

/// As SQLite keeps a u64 (schema.rs says what that means for order).
fn stored(value: u64) -> i64 {
    value.cast_signed()
}

fn bits(value: i64) -> u64 {
    value.cast_unsigned()
}

#[cfg(test)]
mod tests;
