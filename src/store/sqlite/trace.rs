//! One message, and the cursors of all devices of some users, in the embedded store.
//!
//! What always holds: each is found by a key; nothing is scanned.

use rusqlite::{Connection, OptionalExtension, params};

use super::{bits, conversation, stored};
use crate::contract::store::{CursorRow, MessageHead};
use ringway_wire::ids::{ClientMsgId, DeviceId, MsgId, Seq, UserId};

/// The message of this number.
pub(super) fn message(connection: &Connection, msg_id: MsgId) -> Result<Option<MessageHead>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT sender, conversation_kind, conversation_id, client_msg_id, sender_seq, length(body)
         FROM messages WHERE msg_id = ?1",
    )?;
    let head = |row: &rusqlite::Row<'_>| {
        Ok(MessageHead {
            sender: UserId(bits(row.get(0)?)),
            to: conversation(row.get(1)?, bits(row.get(2)?)),
            client_msg_id: ClientMsgId(row.get(3)?),
            sender_seq: Seq(bits(row.get(4)?)),
            body_bytes: bits(row.get(5)?),
        })
    };
    statement.query_row(params![stored(msg_id.0)], head).optional()
}

/// The cursors of these users, all devices.
pub(super) fn devices(connection: &Connection, users: &[UserId]) -> Result<Vec<CursorRow>, rusqlite::Error> {
    let mut statement = connection.prepare_cached("SELECT device_id, seq FROM cursors WHERE user_id = ?1")?;
    let mut found = Vec::new();
    for user in users {
        let row = |row: &rusqlite::Row<'_>| {
            Ok(CursorRow { user: *user, device: DeviceId(bits(row.get(0)?)), seq: Seq(bits(row.get(1)?)) })
        };
        for row in statement.query_map(params![stored(user.0)], row)? {
            found.push(row?);
        }
    }
    Ok(found)
}
