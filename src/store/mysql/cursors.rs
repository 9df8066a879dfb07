//! Cursors in MySQL.
//!
//! On a connection for reading, outside the transactions of rows. What always holds: one never goes back; a user has at most
//! `USER_CURSORS_MAX` for long: those that are furthest behind go, of some users each time cursors are kept, so that it
//! costs little and everybody's turn comes.

use super::connection::{Connection, Patience};
use super::fault::Fault;
use super::insert::{Bounds, cursors};
use crate::contract::store::CursorRow;
use crate::limits::USER_CURSORS_MAX;

/// Users that are looked at each time; the first of them is chosen at random.
const USERS_LOOKED_AT_MAX: usize = 256;
/// Cursors of one user that go at a time.
const GONE_AT_ONCE_MAX: usize = 1_000;

/// Keeps them.
pub(super) async fn save(connection: &mut Connection, rows: &[CursorRow], bounds: Bounds) -> Result<(), Fault> {
    for statement in cursors(rows, bounds) {
        connection.run(statement, Patience::Write).await?;
    }
    make_room(connection, rows).await
}

async fn make_room(connection: &mut Connection, rows: &[CursorRow]) -> Result<(), Fault> {
    if rows.is_empty() {
        return Ok(());
    }
    let from = fastrand::usize(..rows.len());
    let looked_at = rows.iter().cycle().skip(from).take(rows.len().min(USERS_LOOKED_AT_MAX));
    let users: Vec<String> = looked_at.map(|row| row.user.0.to_string()).collect();
    let crowded = format!(
        "SELECT user_id FROM cursors WHERE user_id IN ({}) GROUP BY user_id HAVING COUNT(*) > {USER_CURSORS_MAX}",
        users.join(",")
    );
    for (user,) in connection.rows::<(u64,)>(crowded, Patience::Read).await? {
        let behind = format!(
            "SELECT device_id FROM cursors WHERE user_id = {user} ORDER BY seq DESC, device_id \
             LIMIT {GONE_AT_ONCE_MAX} OFFSET {USER_CURSORS_MAX}"
        );
        let behind: Vec<String> =
            connection.rows::<(u64,)>(behind, Patience::Read).await?.iter().map(|(id,)| id.to_string()).collect();
        if !behind.is_empty() {
            let devices = behind.join(",");
            let gone = format!("DELETE FROM cursors WHERE user_id = {user} AND device_id IN ({devices})");
            connection.run(gone, Patience::Write).await?;
        }
    }
    Ok(())
}
