//! Cursors in the embedded store.
//!
//! What always holds: one never goes back; a user has at most `USER_CURSORS_MAX`, and a new one above that takes the place of
//! the one that is furthest behind.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{bits, stored};
use crate::contract::store::CursorRow;
use crate::limits::USER_CURSORS_MAX;
use ringway_wire::ids::{DeviceId, Seq, UserId};

/// Those of devices, as far as they have one.
pub(super) fn read(
    connection: &Connection,
    devices: &[(UserId, DeviceId)],
) -> Result<Vec<Option<Seq>>, rusqlite::Error> {
    let mut statement = connection.prepare_cached("SELECT seq FROM cursors WHERE user_id = ?1 AND device_id = ?2")?;
    let seq = |row: &rusqlite::Row<'_>| Ok(Seq(bits(row.get(0)?)));
    let mut found = devices
        .iter()
        .map(|(user, device)| statement.query_row(params![stored(user.0), stored(device.0)], seq).optional());
    found.by_ref().collect()
}

/// Keeps them.
pub(super) fn save(connection: &mut Connection, cursors: &[CursorRow]) -> Result<(), rusqlite::Error> {
    let writing = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    {
        let mut update =
            writing.prepare_cached("UPDATE cursors SET seq = max(seq, ?3) WHERE user_id = ?1 AND device_id = ?2")?;
        let mut insert = writing.prepare_cached("INSERT INTO cursors (user_id, device_id, seq) VALUES (?1, ?2, ?3)")?;
        let mut make_room = writing.prepare_cached(
            "DELETE FROM cursors WHERE user_id = ?1 AND device_id IN
             (SELECT device_id FROM cursors WHERE user_id = ?1 ORDER BY seq DESC, device_id LIMIT -1 OFFSET ?2)",
        )?;
        for row in cursors {
            let (user, device, seq) = (stored(row.user.0), stored(row.device.0), stored(row.seq.0));
            if update.execute(params![user, device, seq])? == 0 {
                make_room.execute(params![user, USER_CURSORS_MAX as i64 - 1])?;
                insert.execute(params![user, device, seq])?;
            }
        }
    }
    writing.commit()
}
