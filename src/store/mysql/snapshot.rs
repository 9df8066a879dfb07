//! Everything that the ledger begins from, as it was at one moment: the position, groups, and users' newest rows.
//!
//! On the store's thread. What always holds: all that [`read`] hands out was committed with the position that it returns
//! or before, and nothing of it later, whoever writes meanwhile.

use super::Sharing;
use super::connection::{Connection, Patience};
use super::fault::Fault;
use crate::contract::position::{AppliedPosition, StreamDigest};
use crate::contract::store::{NewestRow, StoredGroup};
use crate::contract::store::{StorePosition, Stored};
use ringway_wire::ids::{GroupId, MsgId, RosterVersion, Seq, UserId};
use ringway_wire::schema::Role;

/// Groups of one statement.
const GROUPS_ASKED_AT_ONCE: usize = 1_000;

/// Reads it in one transaction. After an error the connection is not to be used again.
pub(super) async fn read(
    connection: &mut Connection,
    sharing: Sharing,
    visit: &mut dyn FnMut(Stored),
) -> Result<StorePosition, Fault> {
    // For the next transaction only.
    connection.run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", Patience::Read).await?;
    connection.run("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY", Patience::Read).await?;
    let at = position(connection, sharing).await?;
    groups(connection, &mut |group| visit(Stored::Group(group))).await?;
    newest_rows(connection, &mut |row| visit(Stored::Newest(row))).await?;
    connection.run("COMMIT", Patience::Read).await?;
    Ok(at)
}

/// The position up to which batches were applied, with what the entries are up to it, and the highest message id stored.
pub(super) async fn position(connection: &mut Connection, sharing: Sharing) -> Result<StorePosition, Fault> {
    let found = connection.first::<(u64, u64, u64)>(ask_position(sharing), Patience::Read).await?;
    found.map(position_of).ok_or(Fault::PositionLost(sharing.node()))
}

/// Asks for it; answered by what [`position_of`] reads.
pub(super) fn ask_position(sharing: Sharing) -> String {
    format!(
        "SELECT p.position, p.msg_id_max, COALESCE(d.digest, 0) FROM ledger_position p \
         LEFT JOIN stream_digest d ON d.node = p.node AND d.position = p.position WHERE p.node = {}",
        sharing.node()
    )
}

/// The answer.
pub(super) fn position_of((applied, msg_id_max, digest): (u64, u64, u64)) -> StorePosition {
    StorePosition { applied: AppliedPosition(applied), msg_id_max: MsgId(msg_id_max), digest: StreamDigest(digest) }
}

/// Every user's newest row. The server jumps from user to user by itself (a loose index scan).
pub(super) async fn newest_rows(connection: &mut Connection, visit: &mut dyn FnMut(NewestRow)) -> Result<(), Fault> {
    let statement = "SELECT user_id, MAX(seq) FROM inbox GROUP BY user_id";
    let mut row = |(user, seq)| visit(NewestRow { user: UserId(user), seq: Seq(seq) });
    connection.visit::<(u64, u64)>(statement, &mut row).await
}

/// Every group with its members.
pub(super) async fn groups(connection: &mut Connection, visit: &mut dyn FnMut(StoredGroup)) -> Result<(), Fault> {
    let statement = "SELECT g.group_id, g.version, m.user_id, m.role, k.user_id \
         FROM chat_groups g JOIN group_members m ON m.group_id = g.group_id \
         LEFT JOIN group_makers k ON k.group_id = g.group_id ORDER BY g.group_id";
    let mut reading: Option<StoredGroup> = None;
    let mut row = |(group, version, user, role, maker): (u64, u32, u64, u8, Option<u64>)| {
        let (group, member) = (GroupId(group), (UserId(user), Role(role)));
        match &mut reading {
            Some(same) if same.group == group => same.members.push(member),
            other => {
                let (version, maker) = (RosterVersion(version), maker.map(UserId));
                let next = StoredGroup { group, version, members: vec![member], maker };
                if let Some(complete) = other.replace(next) {
                    visit(complete);
                }
            }
        }
    };
    connection.visit::<(u64, u32, u64, u8, Option<u64>)>(statement, &mut row).await?;
    reading.into_iter().for_each(visit);
    Ok(())
}

/// Which of these groups everybody has left.
pub(super) async fn left(connection: &mut Connection, groups: &[GroupId]) -> Result<Vec<GroupId>, Fault> {
    let mut left = Vec::new();
    for some in groups.chunks(GROUPS_ASKED_AT_ONCE) {
        let list = some.iter().map(|group| group.0.to_string()).collect::<Vec<_>>().join(", ");
        let statement = format!("SELECT group_id FROM groups_left WHERE group_id IN ({list})");
        connection.visit::<u64>(&statement, &mut |group| left.push(GroupId(group))).await?;
    }
    Ok(left)
}

#[cfg(test)]
mod tests;
