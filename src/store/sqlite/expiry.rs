//! Retention in the embedded store.
//!
//! What always holds: each step is a transaction of its own, short enough for inserts and readers between two steps.

use std::future::ready;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{SqliteStore, bits, failed, stored};
use crate::limits::{RETENTION_ROWS, RETENTION_USERS};
use crate::store::retention::{Done, Expire, Expiring, MessagesExpired, RowsExpired, Step, Walk};
use ringway_wire::ids::{MsgId, UserId};

impl Expire for SqliteStore {
    fn expire(&mut self, step: Step) -> Expiring {
        let done = match step {
            Step::Begin { cutoff } => {
                self.step(|writing| begin(writing, cutoff)).map_err(failed("beginning to delete old messages"))
            }
            Step::Rows { cutoff, walk } => {
                let rows = self.step(|writing| expire_rows(writing, cutoff, walk));
                rows.map(Done::Rows).map_err(failed("deleting old rows"))
            }
            Step::Messages { cutoff, after } => {
                let messages = self.step(|writing| expire_messages(writing, cutoff, after));
                messages.map(Done::Messages).map_err(failed("deleting old messages"))
            }
            Step::End => Ok(Done::Ended),
        };
        Box::pin(ready(done))
    }
}

impl SqliteStore {
    fn step<T>(&mut self, work: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>) -> Result<T, rusqlite::Error> {
        let writing = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = work(&writing)?;
        writing.commit()?;
        Ok(done)
    }
}

fn begin(writing: &Connection, cutoff: MsgId) -> Result<Done, rusqlite::Error> {
    let stored_max: Option<i64> =
        writing.query_row("SELECT max(msg_id_max) FROM ledger_position", [], |row| row.get(0))?;
    // What is not applied yet has higher numbers than what is.
    let cutoff = cutoff.min(MsgId(stored_max.map_or(0, bits)));
    if cutoff == MsgId(0) {
        return Ok(Done::NothingToDo);
    }
    writing.execute(
        "INSERT INTO retention (id, kept_from) VALUES (1, ?1)
         ON CONFLICT (id) DO UPDATE SET kept_from = max(kept_from, excluded.kept_from)",
        [stored(cutoff.0)],
    )?;
    writing.execute("DELETE FROM retained_messages", [])?;
    Ok(Done::Begun(cutoff))
}

fn expire_rows(writing: &Connection, cutoff: MsgId, mut walk: Walk) -> Result<RowsExpired, rusqlite::Error> {
    let mut rows = 0;
    for _ in 0..RETENTION_USERS {
        let Some(user) = next_user(writing, walk)? else {
            walk = Walk::End;
            break;
        };
        let wanted = RETENTION_ROWS - rows;
        let deleted = expire_inbox(writing, user, cutoff, wanted)?;
        rows += deleted;
        if deleted == wanted {
            // The same user may have more.
            break;
        }
        walk = Walk::After(UserId(bits(user)));
    }
    Ok(RowsExpired { rows: rows as u64, walk })
}

fn expire_messages(writing: &Connection, cutoff: MsgId, after: MsgId) -> Result<MessagesExpired, rusqlite::Error> {
    let last: Option<i64> = writing
        .prepare_cached(
            "SELECT max(msg_id) FROM
             (SELECT msg_id FROM messages WHERE msg_id > ?1 AND msg_id < ?2 ORDER BY msg_id LIMIT ?3)",
        )?
        .query_row(params![stored(after.0), stored(cutoff.0), RETENTION_ROWS as i64], |row| row.get(0))?;
    let Some(last) = last else { return Ok(MessagesExpired { messages: 0, through: None }) };
    let deleted = writing
        .prepare_cached(
            "DELETE FROM messages WHERE msg_id > ?1 AND msg_id <= ?2
             AND msg_id NOT IN (SELECT msg_id FROM retained_messages)",
        )?
        .execute([stored(after.0), last])?;
    Ok(MessagesExpired { messages: deleted as u64, through: Some(MsgId(bits(last))) })
}

fn next_user(writing: &Connection, walk: Walk) -> Result<Option<i64>, rusqlite::Error> {
    let first = "SELECT user_id FROM inbox ORDER BY user_id LIMIT 1";
    let next = "SELECT user_id FROM inbox WHERE user_id > ?1 ORDER BY user_id LIMIT 1";
    match walk {
        Walk::Begin => writing.prepare_cached(first)?.query_row([], |row| row.get(0)).optional(),
        Walk::After(user) => writing.prepare_cached(next)?.query_row([stored(user.0)], |row| row.get(0)).optional(),
        Walk::End => Ok(None),
    }
}

/// Deletes at most so many of a user's old rows, oldest first, but never the newest; notes its message, if it is old.
fn expire_inbox(writing: &Connection, user: i64, cutoff: MsgId, rows_max: usize) -> Result<usize, rusqlite::Error> {
    let (newest, newest_message): (i64, i64) = writing
        .prepare_cached("SELECT seq, msg_id FROM inbox WHERE user_id = ?1 ORDER BY seq DESC LIMIT 1")?
        .query_row([user], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if newest_message < stored(cutoff.0) {
        writing
            .prepare_cached("INSERT OR IGNORE INTO retained_messages (msg_id) VALUES (?1)")?
            .execute([newest_message])?;
    }
    let mut oldest =
        writing.prepare_cached("SELECT seq, msg_id FROM inbox WHERE user_id = ?1 ORDER BY seq LIMIT ?2")?;
    let mut rows = oldest.query(params![user, rows_max as i64])?;
    let mut last = None;
    while let Some(row) = rows.next()? {
        let (seq, msg_id): (i64, i64) = (row.get(0)?, row.get(1)?);
        if seq >= newest || msg_id >= stored(cutoff.0) {
            break;
        }
        last = Some(seq);
    }
    let Some(last) = last else { return Ok(0) };
    writing.prepare_cached("DELETE FROM inbox WHERE user_id = ?1 AND seq <= ?2")?.execute([user, last])
}
