//! Whether a database agrees with itself: for a cluster, whose stream no node has as a whole to compare it with.
//!
//! On the main thread, beside gateways that run. What always holds: it reads a few thousand rows at a time, each part in
//! a statement of its own, so that nobody waits for it; and it changes nothing unless it is told to repair.

use super::MySqlStore;
use super::connection::{Connection, Patience};
use super::fault::Fault;
use super::pages::read_kept_from;
use super::snapshot;
use crate::store::StoreError;

/// Users looked at together.
const USERS: usize = 1_000;
/// Messages looked at together.
const MESSAGES: usize = 5_000;
/// Differences that are named.
const NAMED_MAX: usize = 20;

/// What to do about rows that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Repair {
    /// Nothing: they are named.
    Nothing,
    /// Inbox rows whose message is not there are deleted, so that the pages around them can be read again; whoever
    /// reads there is told of a gap.
    DeleteRows,
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Integrity {
    /// The stream's entries up to this one are in it.
    pub(crate) applied: u64,
    /// Inbox rows that were looked at.
    pub(crate) rows: u64,
    /// Messages that were looked at.
    pub(crate) messages: u64,
    /// Messages that are stored under a substitute because their names were taken.
    pub(crate) names_taken: u64,
    /// Inboxes with numbers left out: some are left out on purpose when Redis has lost data.
    pub(crate) inboxes_with_gaps: u64,
    /// Rows that were deleted.
    pub(crate) repaired: u64,
    /// The first contradictions.
    pub(crate) contradictions: Vec<String>,
    /// All of them.
    pub(crate) contradictions_count: u64,
}

impl Integrity {
    fn contradicts(&mut self, count: u64, named: impl Iterator<Item = String>) {
        self.contradictions_count += count;
        let room = NAMED_MAX.saturating_sub(self.contradictions.len());
        self.contradictions.extend(named.take(room));
    }
}

impl MySqlStore {
    /// Looks at everything.
    pub(crate) async fn integrity(&mut self, repair: Repair) -> Result<Integrity, StoreError> {
        let look = async {
            let mut connection = self.readers.take().await?;
            let at = snapshot::position(&mut connection, self.writer.sharing()).await?;
            let mut found = Integrity { applied: at.applied.0, ..Integrity::default() };
            let taken = "SELECT COUNT(*) FROM names_taken";
            found.names_taken = connection.first::<u64>(taken, Patience::Write).await?.unwrap_or(0);
            inboxes(&mut connection, repair, &mut found).await?;
            messages(&mut connection, &mut found).await?;
            groups(&mut connection, &mut found).await?;
            self.readers.give_back(connection);
            Ok(found)
        };
        look.await.map_err(|fault: Fault| fault.into_store("looking at the database's tables"))
    }
}

/// Each row has its message.
async fn inboxes(connection: &mut Connection, repair: Repair, found: &mut Integrity) -> Result<(), Fault> {
    let mut range = String::new();
    loop {
        let users = format!("SELECT DISTINCT user_id FROM inbox {range} ORDER BY user_id LIMIT {USERS}");
        let users = connection.rows::<u64>(users, Patience::Write).await?;
        let (Some(first), Some(last)) = (users.first(), users.last()) else { return Ok(()) };
        let part = format!("user_id BETWEEN {first} AND {last}");
        let counts = format!("SELECT COUNT(*), MAX(seq) - MIN(seq) + 1 FROM inbox WHERE {part} GROUP BY user_id");
        for (rows, numbers) in connection.rows::<(u64, u64)>(counts, Patience::Write).await? {
            found.rows += rows;
            found.inboxes_with_gaps += u64::from(rows != numbers);
        }
        // Read after the rows: what retention deletes meanwhile lies below.
        let orphans = format!(
            "SELECT i.user_id, i.seq, i.msg_id FROM inbox i LEFT JOIN messages m ON m.msg_id = i.msg_id \
             WHERE i.{part} AND m.msg_id IS NULL ORDER BY i.user_id, i.seq"
        );
        let orphans = connection.rows::<(u64, u64, u64)>(orphans, Patience::Write).await?;
        let kept_from = read_kept_from(connection).await?.0;
        let orphans: Vec<_> = orphans.into_iter().filter(|(_, _, msg_id)| *msg_id >= kept_from).collect();
        found.contradicts(
            orphans.len() as u64,
            orphans.iter().map(|(user, seq, msg_id)| {
                format!("row {seq} of user {user} refers to message {msg_id}, which is not there")
            }),
        );
        if repair == Repair::DeleteRows {
            for (user, seq, msg_id) in &orphans {
                let delete = format!("DELETE FROM inbox WHERE user_id = {user} AND seq = {seq} AND msg_id = {msg_id}");
                connection.run(delete, Patience::Write).await?;
                found.repaired += 1;
            }
        }
        range = format!("WHERE user_id > {last}");
    }
}

/// Each message is its sender's row, unless retention has deleted that.
async fn messages(connection: &mut Connection, found: &mut Integrity) -> Result<(), Fault> {
    let mut after = 0;
    loop {
        let ids = format!("SELECT msg_id FROM messages WHERE msg_id > {after} ORDER BY msg_id LIMIT {MESSAGES}");
        let ids = connection.rows::<u64>(ids, Patience::Write).await?;
        let Some(last) = ids.last().copied() else { return Ok(()) };
        found.messages += ids.len() as u64;
        let others = format!(
            "SELECT m.msg_id, m.sender, m.sender_seq, i.msg_id FROM messages m \
             JOIN inbox i ON i.user_id = m.sender AND i.seq = m.sender_seq \
             WHERE m.msg_id > {after} AND m.msg_id <= {last} AND i.msg_id <> m.msg_id ORDER BY m.msg_id"
        );
        let others = connection.rows::<(u64, u64, u64, u64)>(others, Patience::Write).await?;
        found.contradicts(
            others.len() as u64,
            others.iter().map(|(msg_id, sender, seq, other)| {
                format!("message {msg_id} is row {seq} of its sender {sender}, and that row is message {other}")
            }),
        );
        after = last;
    }
}

/// Groups and members belong together.
async fn groups(connection: &mut Connection, found: &mut Integrity) -> Result<(), Fault> {
    let lost = "SELECT DISTINCT m.group_id FROM group_members m LEFT JOIN chat_groups g ON g.group_id = m.group_id \
                WHERE g.group_id IS NULL";
    let lost = connection.rows::<u64>(lost, Patience::Write).await?;
    let empty = "SELECT g.group_id FROM chat_groups g LEFT JOIN group_members m ON m.group_id = g.group_id \
                 WHERE m.group_id IS NULL";
    let empty = connection.rows::<u64>(empty, Patience::Write).await?;
    found.contradicts(lost.len() as u64, lost.iter().map(|group| format!("group {group} has members and no version")));
    found.contradicts(empty.len() as u64, empty.iter().map(|group| format!("group {group} has no members")));
    Ok(())
}

#[cfg(test)]
mod tests;
