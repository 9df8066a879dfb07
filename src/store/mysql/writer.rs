//! Writing: one transaction at a time, in a task of its own on the store's runtime.
//!
//! What always holds: a transaction is committed only on top of the position that this gateway knows, under the
//! lock of the position's row; and the writing connection holds the node's lock as long as it lives, so no second
//! gateway writes meanwhile, and what an old connection of this one had begun is over before a new one begins.

use mysql_async::Opts;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Sharing;
use super::connection::{Connection, Patience};
use super::fault::Fault;
use super::insert::{Encoded, EncodedGroup};
use super::{schema, snapshot, taken};
use crate::contract::position::AppliedPosition;
use crate::contract::store::StorePosition;
use crate::limits::{GROUPS_FORGOTTEN_MAX, GROUPS_LEFT_KEPT_MS};
use crate::store::StoreError;
use crate::store::names::Written;
use ringway_wire::ids::MsgId;

/// The name that the connection has which writes for a cluster.
const WRITER: &str = "CONCAT('ringway.writer.', LEFT(SHA2(DATABASE(), 256), 40))";

/// What writes.
#[derive(Debug)]
pub(crate) struct Writer {
    opts: Opts,
    sharing: Sharing,
    state: State,
    /// The transaction on its way, which gives the state back.
    task: Option<JoinHandle<State>>,
}

/// What a transaction leaves behind.
#[derive(Debug)]
struct State {
    /// It holds the node's lock.
    connection: Option<Connection>,
    /// What is known to be committed.
    at: StorePosition,
}

/// The end of a transaction on its way.
pub(crate) type Ending = oneshot::Receiver<Result<Written, StoreError>>;

impl Writer {
    /// Nothing is connected yet.
    pub(crate) fn new(opts: Opts, sharing: Sharing) -> Self {
        Writer { opts, sharing, state: State { connection: None, at: StorePosition::default() }, task: None }
    }

    /// Begins a transaction; one before it has ended, or is waited for first.
    pub(crate) fn begin(&mut self, encoded: Encoded) -> Ending {
        let (tell, ending) = oneshot::channel();
        let before = self.task.take();
        let at = self.state.at;
        let mut state = std::mem::replace(&mut self.state, State { connection: None, at });
        let (opts, sharing) = (self.opts.clone(), self.sharing);
        self.task = Some(tokio::spawn(async move {
            if let Some(before) = before
                && let Ok(left) = before.await
            {
                state = left;
            }
            let outcome = state.write(&opts, sharing, &encoded).await;
            // Nobody waits any more: the gateway is stopping.
            tell.send(outcome.map_err(|fault| fault.into_store("writing batches"))).ok();
            state
        }));
        ending
    }

    /// The position, asked on the writing connection once it is idle.
    pub(crate) async fn position(&mut self) -> Result<StorePosition, Fault> {
        self.reclaim().await;
        let mut asked = self.state.read_position(&self.opts, self.sharing).await;
        if asked.as_ref().is_err_and(Fault::is_lost_connection) {
            // It may have been lost long ago, while nothing was written.
            asked = self.state.read_position(&self.opts, self.sharing).await;
        }
        asked
    }

    /// Everything below is known to be committed.
    pub(crate) async fn committed(&mut self) -> AppliedPosition {
        if self.task.as_ref().is_some_and(JoinHandle::is_finished) {
            self.reclaim().await;
        }
        self.state.at.applied
    }

    /// Who else writes.
    pub(crate) fn sharing(&self) -> Sharing {
        self.sharing
    }

    /// The writing connection, if it is idle and alive.
    pub(crate) fn connection(&self) -> Option<&Connection> {
        self.state.connection.as_ref()
    }

    /// Gives an idle writing connection up: the next one may be told other settings.
    pub(crate) fn forget_connection(&mut self) {
        self.state.connection = None;
    }

    async fn reclaim(&mut self) {
        if let Some(task) = self.task.take()
            && let Ok(left) = task.await
        {
            self.state = left;
        }
    }
}

impl State {
    async fn read_position(&mut self, opts: &Opts, sharing: Sharing) -> Result<StorePosition, Fault> {
        let mut connection = self.take(opts, sharing).await?;
        self.at = snapshot::position(&mut connection, sharing).await?;
        self.connection = Some(connection);
        Ok(self.at)
    }

    async fn take(&mut self, opts: &Opts, sharing: Sharing) -> Result<Connection, Fault> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => open(opts, sharing).await,
        }
    }

    async fn write(&mut self, opts: &Opts, sharing: Sharing, encoded: &Encoded) -> Result<Written, Fault> {
        if !sharing.writes() {
            return Err(Fault::Watching);
        }
        if encoded.applied <= self.at.applied {
            return match sharing == Sharing::Cluster {
                // What lies below may be of a stream that is lost: nobody has written it.
                true => Err(Fault::Overtaken { found: self.at.applied.0, expected: encoded.applied.0 }),
                false => Ok(Written::default()),
            };
        }
        let mut connection = self.take(opts, sharing).await?;
        let mut begun = connection.run("START TRANSACTION", Patience::Write).await;
        if begun.as_ref().is_err_and(Fault::is_lost_connection) {
            // It was lost while it was idle: nothing was begun on it.
            connection = open(opts, sharing).await?;
            begun = connection.run("START TRANSACTION", Patience::Write).await;
        }
        let written = match begun {
            Ok(()) => write(&mut connection, encoded, self.at, sharing).await,
            Err(fault) => Err(fault),
        };
        match written {
            Ok((at, written)) => {
                self.at = at;
                self.connection = Some(connection);
                Ok(written)
            }
            Err(fault) => {
                // Unless it can be rolled back, the connection goes, and what it had begun with it.
                if fault.spares_connection() && connection.run("ROLLBACK", Patience::Read).await.is_ok() {
                    self.connection = Some(connection);
                }
                Err(fault)
            }
        }
    }
}

/// A connection with a row for the position; and with the node's lock, if nobody else may write.
async fn open(opts: &Opts, sharing: Sharing) -> Result<Connection, Fault> {
    let mut connection = Connection::open(opts).await?;
    if sharing.writes() && !connection.limit_silence_in_transactions().await? && sharing == Sharing::Cluster {
        // Alone, the node's lock would go in every pause; and nobody waits for what is locked.
        connection.limit_silence().await?;
    }
    // A newer gateway may have changed the tables, or an older state of them was restored, while there was none.
    schema::expect(connection.driver()).await?;
    let node = sharing.node();
    if sharing == Sharing::Alone {
        let lock = format!("SELECT GET_LOCK(CONCAT('ringway.node.{node}.', LEFT(SHA2(DATABASE(), 256), 40)), 1)");
        if connection.first::<Option<u8>>(lock, Patience::Read).await?.flatten() != Some(1) {
            return Err(Fault::Taken(node));
        }
    }
    let row = format!("SELECT COUNT(*) FROM ledger_position WHERE node = {node}");
    if sharing.writes() && connection.first::<u64>(row, Patience::Read).await? == Some(0) {
        // What was numbered before there was a cluster counts too; alone there is nothing else.
        let row = format!(
            "INSERT IGNORE INTO ledger_position (node, position, msg_id_max) \
             SELECT {node}, 0, COALESCE(MAX(msg_id_max), 0) FROM ledger_position"
        );
        connection.run(row, Patience::Write).await?;
    }
    Ok(connection)
}

/// Writes a transaction that was begun, on top of `at`; returns the position after it.
async fn write(
    connection: &mut Connection,
    encoded: &Encoded,
    at: StorePosition,
    sharing: Sharing,
) -> Result<(StorePosition, Written), Fault> {
    let node = sharing.node();
    if encoded.bytes_max > connection.statement_bytes_max() {
        connection.bounds(1)?;
        return Err(Fault::PacketShrunk { found: connection.statement_bytes_max(), expected: encoded.bytes_max });
    }
    let lock = format!("{} FOR UPDATE", snapshot::ask_position(sharing));
    let found = match connection.first::<(u64, u64, u64)>(lock, Patience::Write).await {
        Err(fault) if sharing == Sharing::Cluster && fault.is_lock_timeout() => {
            end_former_writer(connection).await?;
            // Tried again by itself, when the server has taken back what that one had begun.
            return Err(fault);
        }
        found => found?,
    };
    if sharing == Sharing::Cluster {
        // Inside the lock of the row, so that nobody else writes. While a former writer still has the name, this one
        // cannot be found by it; then the server's own patience ends it.
        connection.take_name(WRITER).await?;
    }
    let found = found.map(snapshot::position_of).ok_or(Fault::PositionLost(node))?;
    if found.applied != at.applied && sharing == Sharing::Alone {
        return Err(Fault::Moved { found: found.applied.0, expected: at.applied.0 });
    }
    // The same number may be that of another entry.
    if (found.applied, found.digest) != (at.applied, at.digest) {
        return Err(Fault::Overtaken { found: found.applied.0, expected: at.applied.0 });
    }
    let mut written = Written::default();
    for insert in &encoded.messages {
        taken::insert_messages(connection, insert, &mut written.names_taken).await?;
    }
    for statement in &encoded.rows {
        connection.run(statement.as_slice(), Patience::Write).await?;
    }
    let (applied, digest) = (encoded.applied, encoded.digest);
    let msg_id_max = found.msg_id_max.max(encoded.msg_id_max);
    write_groups(connection, &encoded.groups).await?;
    if !encoded.groups.is_empty() {
        let before = MsgId::first_at(msg_id_max.sent_at_ms().saturating_sub(GROUPS_LEFT_KEPT_MS));
        let forget = format!("DELETE FROM groups_left WHERE group_id < {} LIMIT {GROUPS_FORGOTTEN_MAX}", before.0);
        connection.run(forget, Patience::Write).await?;
    }
    let update = format!(
        "UPDATE ledger_position SET position = {}, msg_id_max = {} WHERE node = {node}",
        applied.0, msg_id_max.0
    );
    connection.run(update, Patience::Write).await?;
    if sharing == Sharing::Cluster {
        let replace = format!("REPLACE INTO stream_digest VALUES ({node}, {}, {})", applied.0, digest.0);
        connection.run(replace, Patience::Write).await?;
    }
    connection.run("COMMIT", Patience::Write).await?;
    Ok((StorePosition { applied, msg_id_max, digest }, written))
}

/// Another node's gateway holds the lock of the position's row and does not go on: it was stopped, or its host is gone.
/// It is no longer the one that writes, so its connection is ended.
async fn end_former_writer(connection: &mut Connection) -> Result<(), Fault> {
    let ask = format!("SELECT IS_USED_LOCK({WRITER})");
    let Some(thread) = connection.first::<Option<u64>>(ask, Patience::Read).await?.flatten() else { return Ok(()) };
    match connection.run(format!("KILL {thread}"), Patience::Read).await {
        Err(fault) if fault.is_unknown_thread() => return Ok(()),
        ended => ended?,
    }
    tracing::warn!(thread, "the connection of a former writer, which kept the database locked, was ended");
    Ok(())
}

async fn write_groups(connection: &mut Connection, groups: &[EncodedGroup]) -> Result<(), Fault> {
    for group in groups {
        let ask = format!("SELECT version FROM chat_groups WHERE group_id = {}", group.group.0);
        let stored = connection.first::<u32>(ask, Patience::Write).await?;
        if stored.is_some_and(|stored| group.version.0 <= stored) {
            continue;
        }
        for statement in &group.statements {
            connection.run(statement.as_slice(), Patience::Write).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
