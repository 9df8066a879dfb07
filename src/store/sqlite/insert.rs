//! A transaction's messages, rows and changes of groups, written into the file's tables.
//!
//! On the store's thread, inside a transaction. What always holds: what one of these writes is complete, or the
//! transaction is rolled back.

use rusqlite::{Connection, OptionalExtension, params};

use super::{bits, stored};
use crate::store::names::{NameTaken, substitute};
use crate::store::{GroupWrite, InboxRow, StoredBody};
use ringway_wire::ids::{ClientMsgId, Conversation, MsgId};
use ringway_wire::schema::ConversationKind;

const INSERT_ROW: &str = "INSERT INTO inbox (user_id, seq, msg_id) VALUES (?,?,?)";

/// Rows of one insert.
#[derive(Debug)]
pub(super) struct RowBatch {
    rows: usize,
    /// [`INSERT_ROW`] with so many rows.
    insert: String,
}

impl RowBatch {
    pub(super) fn new(rows: usize) -> Self {
        let insert = format!("{INSERT_ROW}{}", ",(?,?,?)".repeat(rows.saturating_sub(1)));
        RowBatch { rows, insert }
    }
}

/// Returns those whose names were taken.
pub(super) fn insert_messages(
    writing: &Connection,
    messages: &[StoredBody],
) -> Result<Vec<NameTaken>, rusqlite::Error> {
    let mut names_taken = Vec::new();
    let mut statement = writing.prepare_cached(
        "INSERT INTO messages (msg_id, sender, conversation_kind, conversation_id, client_msg_id, sent_at, digest,
                               sender_seq, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    let mut insert = |message: &StoredBody, name: ClientMsgId| {
        let (kind, id) = match message.to {
            Conversation::User(user) => (ConversationKind::User, user.0),
            Conversation::Group(group) => (ConversationKind::Group, group.0),
        };
        statement.execute(params![
            stored(message.msg_id.0),
            stored(message.sender.0),
            kind.0,
            stored(id),
            &name.0[..],
            stored(message.msg_id.sent_at_ms()),
            stored(message.digest),
            stored(message.sender_seq.0),
            &message.body[..],
        ])
    };
    for message in messages {
        match insert(message, message.client_msg_id) {
            Ok(_) => {}
            // The statement alone is undone.
            Err(error) if violates_unique_index(&error) => {
                let taken = set_name_aside(writing, message)?;
                insert(message, substitute(message.msg_id))?;
                names_taken.push(taken);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(names_taken)
}

/// The only one is that of names; a number given twice violates the primary key, which has a code of its own.
fn violates_unique_index(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|failure| failure.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE)
}

fn set_name_aside(writing: &Connection, message: &StoredBody) -> Result<NameTaken, rusqlite::Error> {
    let StoredBody { msg_id, sender, client_msg_id, .. } = *message;
    let first = writing
        .prepare_cached("SELECT msg_id FROM messages WHERE sender = ?1 AND client_msg_id = ?2")?
        .query_row(params![stored(sender.0), &client_msg_id.0[..]], |row| Ok(MsgId(bits(row.get(0)?))))?;
    writing
        .prepare_cached(
            "INSERT INTO names_taken (msg_id, sender, client_msg_id, first_msg_id) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![stored(msg_id.0), stored(sender.0), &client_msg_id.0[..], stored(first.0)])?;
    Ok(NameTaken { msg_id, sender, client_msg_id, first })
}

/// Whole batches in one statement each, what is left over row by row (a statement of its own for each size would
/// have to be prepared for each size).
pub(super) fn insert_rows(writing: &Connection, batch: &RowBatch, rows: &[InboxRow]) -> Result<(), rusqlite::Error> {
    let batches = rows.chunks_exact(batch.rows);
    let rest = batches.remainder();
    if rows.len() >= batch.rows {
        let mut statement = writing.prepare_cached(&batch.insert)?;
        for batch in batches {
            for (at, row) in batch.iter().enumerate() {
                statement.raw_bind_parameter(3 * at + 1, stored(row.user.0))?;
                statement.raw_bind_parameter(3 * at + 2, stored(row.seq.0))?;
                statement.raw_bind_parameter(3 * at + 3, stored(row.msg_id.0))?;
            }
            statement.raw_execute()?;
        }
    }
    let mut statement = writing.prepare_cached(INSERT_ROW)?;
    for row in rest {
        statement.execute(params![stored(row.user.0), stored(row.seq.0), stored(row.msg_id.0)])?;
    }
    Ok(())
}

/// A group whose last member left is deleted: its number is never given out again.
pub(super) fn write_group(writing: &Connection, write: &GroupWrite) -> Result<(), rusqlite::Error> {
    let group = stored(write.group.0);
    let version: Option<u32> = writing
        .prepare_cached("SELECT version FROM chat_groups WHERE group_id = ?1")?
        .query_row([group], |row| row.get(0))
        .optional()?;
    if version.is_some_and(|version| write.version.0 <= version) {
        return Ok(());
    }
    let mut delete = writing.prepare_cached("DELETE FROM group_members WHERE group_id = ?1 AND user_id = ?2")?;
    for user in &write.delete {
        delete.execute(params![group, stored(user.0)])?;
    }
    let mut put =
        writing.prepare_cached("INSERT OR REPLACE INTO group_members (group_id, user_id, role) VALUES (?1, ?2, ?3)")?;
    for (user, role) in &write.put {
        put.execute(params![group, stored(user.0), role.0])?;
    }
    let inhabited: bool = writing
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM group_members WHERE group_id = ?1)")?
        .query_row([group], |row| row.get(0))?;
    if inhabited {
        writing
            .prepare_cached("INSERT OR REPLACE INTO chat_groups (group_id, version) VALUES (?1, ?2)")?
            .execute(params![group, write.version.0])?;
        if let Some(maker) = write.maker {
            writing
                .prepare_cached("INSERT OR REPLACE INTO group_makers (group_id, user_id) VALUES (?1, ?2)")?
                .execute(params![group, stored(maker.0)])?;
        }
    } else {
        writing.prepare_cached("DELETE FROM chat_groups WHERE group_id = ?1")?.execute([group])?;
        writing.prepare_cached("DELETE FROM group_makers WHERE group_id = ?1")?.execute([group])?;
    }
    Ok(())
}
