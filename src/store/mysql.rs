//! The store in a MySQL or MariaDB database.
//!
//! What always holds: rows, messages, changes of groups and the position that covers them are committed together,
//! under a lock on the position's row, and only if the position is where this gateway left it; so whatever becomes
//! of a connection in the middle of a commit, nothing is written twice, and two gateways on one database are found
//! out instead of mixing their numbers. Every wait for the server is bounded.
//!
//! It runs on the store's tokio runtime and must be dropped there. One connection writes, others read.

pub mod connection;
pub mod fault;
pub mod insert;
pub mod schema;

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use mysql_async::Opts;

use super::messages::Messages;
use super::page::Assembly;
use super::{Store, StoreError, StorePosition, Transaction};
use crate::ids::{ClientMsgId, Conversation, DeviceId, GroupId, MsgId, RosterVersion, Seq, UserId};
use crate::journal::Position;
use crate::message::Message;
use crate::shard::event::{CursorRow, Lookup, NewestRow, Page, StoredGroup, StoredMessage};
use crate::wire::generated::ringway::wire::{ConversationKind, Role};
use connection::{Connection, Patience, Readers, options};
use fault::Fault;
use insert::{Encoded, EncodedGroup, cursors, encode, put_hex};

/// The journal whose position is kept under this number, when one gateway has the database to itself.
const NODE: u16 = 0;
/// The stream whose position is kept under this number, when the nodes of a cluster share the database. No node has it.
const CLUSTER: u16 = 1024;

/// Who else writes into the database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// Nobody.
    Alone,
    /// The other nodes of a cluster, one at a time: whoever finds the position moved looks again.
    Cluster,
}

impl Sharing {
    fn node(self) -> u16 {
        match self {
            Sharing::Alone => NODE,
            Sharing::Cluster => CLUSTER,
        }
    }
}
/// Bodies read in one query of a page.
const PAGE_BODIES: usize = 64;

/// A store in a database.
#[derive(Debug)]
pub struct MySqlStore {
    opts: Opts,
    sharing: Sharing,
    batch_rows: usize,
    /// It holds the node's lock as long as it lives.
    writer: Option<Connection>,
    readers: Readers,
    at: StorePosition,
}

impl MySqlStore {
    /// Connects, brings the tables up to date, and takes the node's lock.
    pub async fn open(url: &Opts, batch_rows: usize, sharing: Sharing) -> Result<Self, StoreError> {
        let opts = options(url);
        let readers = Readers::new(opts.clone());
        let at = StorePosition::default();
        let mut store = MySqlStore { readers, opts, sharing, batch_rows, writer: None, at };
        let begin = async {
            let mut connection = Connection::open(&store.opts).await?;
            schema::prepare(connection.driver()).await?;
            connection.bounds(batch_rows)?;
            if !connection.is_durable_at_commit() {
                tracing::warn!(
                    "the database runs with innodb_flush_log_at_trx_commit other than 1: a power loss there may take \
                     messages that the journal has given up already; set it to 1"
                );
            }
            store.readers.give_back(connection);
            store.writer = Some(open_writer(&store.opts, store.sharing).await?);
            store.read_position().await
        };
        begin.await.map_err(|fault: Fault| fault.into_store("opening the database"))?;
        Ok(store)
    }

    /// The position, asked on the writing connection: it answers after whatever it was told before.
    async fn read_position(&mut self) -> Result<StorePosition, Fault> {
        let mut writer = self.take_writer().await?;
        let node = self.sharing.node();
        let statement = format!("SELECT position, msg_id_max FROM ledger_position WHERE node = {node}");
        let found = writer.first::<(u64, u64)>(statement, Patience::Read).await?;
        self.writer = Some(writer);
        let (applied, msg_id_max) = found.ok_or(Fault::PositionLost(node))?;
        self.at = StorePosition { applied: Position(applied), msg_id_max: MsgId(msg_id_max) };
        Ok(self.at)
    }

    async fn take_writer(&mut self) -> Result<Connection, Fault> {
        match self.writer.take() {
            Some(writer) => Ok(writer),
            None => open_writer(&self.opts, self.sharing).await,
        }
    }

    async fn write(&mut self, transaction: &Transaction) -> Result<(), Fault> {
        let mut writer = self.take_writer().await?;
        let encoded = encode(transaction, writer.bounds(self.batch_rows)?);
        match write(&mut writer, &encoded, self.at, self.sharing).await {
            Ok(at) => {
                self.at = at;
                self.writer = Some(writer);
                Ok(())
            }
            Err(fault) => {
                // Unless it can be rolled back, the connection goes, and what it had begun with it.
                if fault.spares_connection() && writer.run("ROLLBACK", Patience::Read).await.is_ok() {
                    self.writer = Some(writer);
                }
                Err(fault)
            }
        }
    }

    /// Reads on a connection; one that was idle and is found dead is replaced once.
    async fn read<T>(
        &mut self,
        what: &'static str,
        read: impl AsyncFn(&mut Connection) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let mut attempt = async || {
            let mut connection = self.readers.take().await?;
            let mut answer = read(&mut connection).await;
            if answer.as_ref().is_err_and(Fault::is_lost_connection) {
                connection = self.readers.take_fresh().await?;
                answer = read(&mut connection).await;
            }
            if answer.as_ref().map_or_else(Fault::spares_connection, |_| true) {
                self.readers.give_back(connection);
            }
            answer
        };
        attempt().await.map_err(|fault: Fault| fault.into_store(what))
    }
}

/// A connection with the node's lock, and a row for its position.
async fn open_writer(opts: &Opts, sharing: Sharing) -> Result<Connection, Fault> {
    let mut writer = Connection::open(opts).await?;
    if sharing == Sharing::Cluster {
        // What was numbered before there was a cluster counts too.
        let row = format!(
            "INSERT IGNORE INTO ledger_position (node, position, msg_id_max) \
             SELECT {CLUSTER}, 0, COALESCE(MAX(msg_id_max), 0) FROM ledger_position"
        );
        writer.run(row, Patience::Write).await?;
        return Ok(writer);
    }
    let lock = format!("SELECT GET_LOCK(CONCAT('ringway.node.{NODE}.', LEFT(SHA1(DATABASE()), 40)), 1)");
    if writer.first::<Option<u8>>(lock, Patience::Read).await?.flatten() != Some(1) {
        return Err(Fault::Taken(NODE));
    }
    let row = format!("INSERT IGNORE INTO ledger_position (node, position, msg_id_max) VALUES ({NODE}, 0, 0)");
    writer.run(row, Patience::Write).await?;
    Ok(writer)
}

/// Writes a transaction on top of `at`; returns the position after it.
async fn write(
    writer: &mut Connection,
    encoded: &Encoded,
    at: StorePosition,
    sharing: Sharing,
) -> Result<StorePosition, Fault> {
    let node = sharing.node();
    writer.run("START TRANSACTION", Patience::Write).await?;
    let lock = format!("SELECT position, msg_id_max FROM ledger_position WHERE node = {node} FOR UPDATE");
    let found = writer.first::<(u64, u64)>(lock, Patience::Write).await?;
    let (position, msg_id_max) = found.ok_or(Fault::PositionLost(node))?;
    if position != at.applied.0 && sharing == Sharing::Cluster {
        return Err(Fault::Overtaken { found: position, expected: at.applied.0 });
    }
    if position != at.applied.0 {
        return Err(Fault::Moved { found: position, expected: at.applied.0 });
    }
    for statement in &encoded.inserts {
        writer.run(statement.as_slice(), Patience::Write).await?;
    }
    write_groups(writer, &encoded.groups).await?;
    let msg_id_max = MsgId(msg_id_max).max(encoded.msg_id_max);
    let applied = encoded.applied;
    let update = format!(
        "UPDATE ledger_position SET position = {}, msg_id_max = {} WHERE node = {node}",
        applied.0, msg_id_max.0
    );
    writer.run(update, Patience::Write).await?;
    writer.run("COMMIT", Patience::Write).await?;
    Ok(StorePosition { applied, msg_id_max })
}

async fn write_groups(writer: &mut Connection, groups: &[EncodedGroup]) -> Result<(), Fault> {
    for group in groups {
        let id = group.group.0;
        let ask = format!("SELECT version FROM chat_groups WHERE group_id = {id}");
        let stored = writer.first::<u32>(ask, Patience::Write).await?;
        if stored.is_some_and(|stored| group.version.0 <= stored) {
            continue;
        }
        for statement in &group.statements {
            writer.run(statement.as_slice(), Patience::Write).await?;
        }
    }
    Ok(())
}

impl Store for MySqlStore {
    async fn position(&mut self) -> Result<StorePosition, StoreError> {
        let mut found = self.read_position().await;
        if found.as_ref().is_err_and(Fault::is_lost_connection) {
            // It may have been lost long ago, while nothing was written.
            found = self.read_position().await;
        }
        found.map_err(|fault| fault.into_store("reading the applied position"))
    }

    /// The server jumps from user to user by itself (a loose index scan).
    async fn newest_rows(&mut self, visit: &mut dyn FnMut(NewestRow)) -> Result<(), StoreError> {
        let what = "reading every user's newest row";
        let attempt = async {
            let mut connection = self.readers.take().await?;
            let statement = "SELECT user_id, MAX(seq) FROM inbox GROUP BY user_id";
            let mut row = |(user, seq)| visit(NewestRow { user: UserId(user), seq: Seq(seq) });
            connection.visit::<(u64, u64)>(statement, &mut row).await?;
            self.readers.give_back(connection);
            Ok(())
        };
        attempt.await.map_err(|fault: Fault| fault.into_store(what))
    }

    async fn groups(&mut self, visit: &mut dyn FnMut(StoredGroup)) -> Result<(), StoreError> {
        let attempt = async {
            let mut connection = self.readers.take().await?;
            let statement = "SELECT g.group_id, g.version, m.user_id, m.role \
                 FROM chat_groups g JOIN group_members m ON m.group_id = g.group_id ORDER BY g.group_id";
            let mut reading: Option<StoredGroup> = None;
            let mut row = |(group, version, user, role)| {
                let (group, member) = (GroupId(group), (UserId(user), Role(role)));
                match &mut reading {
                    Some(same) if same.group == group => same.members.push(member),
                    other => {
                        let next = StoredGroup { group, version: RosterVersion(version), members: vec![member] };
                        if let Some(complete) = other.replace(next) {
                            visit(complete);
                        }
                    }
                }
            };
            connection.visit::<(u64, u32, u64, u8)>(statement, &mut row).await?;
            if let Some(complete) = reading {
                visit(complete);
            }
            self.readers.give_back(connection);
            Ok(())
        };
        attempt.await.map_err(|fault: Fault| fault.into_store("reading the groups"))
    }

    async fn apply(&mut self, transaction: &Transaction) -> Result<(), StoreError> {
        if transaction.applied <= self.at.applied {
            return Ok(());
        }
        self.write(transaction).await.map_err(|fault| fault.into_store("writing batches"))
    }

    /// A commit is durable there as soon as it is answered.
    async fn secure(&mut self) -> Result<Position, StoreError> {
        Ok(self.at.applied)
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
        let statement = format!(
            "SELECT seq, msg_id FROM inbox WHERE user_id = {} AND seq > {} ORDER BY seq LIMIT {rows_max}",
            user.0, after.0
        );
        let rows =
            self.read(READING, async |c: &mut Connection| c.rows::<(u64, u64)>(&*statement, Patience::Read).await);
        let rows = rows.await?;
        let mut assembly = Assembly::new(after, rows_max, bytes_max);
        for rows in rows.chunks(PAGE_BODIES) {
            // Held here: what is read now makes room for itself, perhaps in place of these.
            let known = rows.iter().filter_map(|(_, id)| Some((MsgId(*id), messages.find(MsgId(*id)).cloned()?)));
            let mut read: HashMap<MsgId, Arc<Message>> = known.collect();
            let missing = rows.iter().map(|(_, id)| MsgId(*id)).filter(|id| !read.contains_key(id));
            let ids: Vec<MsgId> = missing.collect();
            read.extend(self.bodies(&ids, messages).await?);
            for (seq, msg_id) in rows {
                let (seq, msg_id) = (Seq(*seq), MsgId(*msg_id));
                if !assembly.wants(seq) {
                    return Ok(assembly.finish());
                }
                let message = read.remove(&msg_id);
                let missing = || Fault::MessageMissing(msg_id).into_store(READING);
                assembly.push(seq, message.ok_or_else(missing)?);
            }
        }
        Ok(assembly.finish())
    }

    async fn find(&mut self, lookups: &[Lookup]) -> Result<Vec<Option<StoredMessage>>, StoreError> {
        let mut text =
            b"SELECT sender, client_msg_id, msg_id, sender_seq, sent_at, digest FROM messages WHERE ".to_vec();
        for (at, lookup) in lookups.iter().enumerate() {
            if at > 0 {
                text.extend_from_slice(b" OR ");
            }
            text.extend_from_slice(format!("(sender = {} AND client_msg_id = x'", lookup.sender.0).as_bytes());
            put_hex(&mut text, &lookup.client_msg_id.0);
            text.extend_from_slice(b"')");
        }
        type Found = (u64, Vec<u8>, u64, u64, u64, u64);
        let rows = self.read("looking messages up", async |c: &mut Connection| {
            c.rows::<Found>(text.clone(), Patience::Read).await
        });
        let rows = rows.await?.into_iter().filter_map(|(sender, name, msg_id, seq, sent_at_ms, digest)| {
            let name = ClientMsgId(name.try_into().ok()?);
            let stored = StoredMessage { msg_id: MsgId(msg_id), seq: Seq(seq), sent_at_ms, digest };
            Some(((UserId(sender), name), stored))
        });
        let found: HashMap<(UserId, ClientMsgId), StoredMessage> = rows.collect();
        Ok(lookups.iter().map(|lookup| found.get(&(lookup.sender, lookup.client_msg_id)).copied()).collect())
    }

    async fn cursor(&mut self, user: UserId, device: DeviceId) -> Result<Option<Seq>, StoreError> {
        let statement = format!("SELECT seq FROM cursors WHERE user_id = {} AND device_id = {}", user.0, device.0);
        let found =
            self.read("reading a cursor", async |c: &mut Connection| c.first::<u64>(&*statement, Patience::Read).await);
        Ok(found.await?.map(Seq))
    }

    async fn save_cursors(&mut self, rows: &[CursorRow]) -> Result<(), StoreError> {
        let attempt = async {
            let mut writer = self.take_writer().await?;
            for statement in cursors(rows, writer.bounds(self.batch_rows)?) {
                writer.run(statement, Patience::Write).await?;
            }
            self.writer = Some(writer);
            Ok(())
        };
        attempt.await.map_err(|fault: Fault| fault.into_store("keeping cursors"))
    }
}

impl MySqlStore {
    /// Reads messages; all that are found are returned, and kept for the next who asks.
    async fn bodies(
        &mut self,
        ids: &[MsgId],
        messages: &mut Messages,
    ) -> Result<HashMap<MsgId, Arc<Message>>, StoreError> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let mut text = String::from(
            "SELECT msg_id, sender, conversation_kind, conversation_id, client_msg_id, body FROM messages \
             WHERE msg_id IN (",
        );
        for (at, id) in ids.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            // A String takes whatever is written to it.
            write!(text, "{comma}{}", id.0).ok();
        }
        text.push(')');
        type Body = (u64, u64, u8, u64, Vec<u8>, Vec<u8>);
        let rows =
            self.read("reading messages", async |c: &mut Connection| c.rows::<Body>(&*text, Patience::Read).await);
        let rows = rows.await?.into_iter().filter_map(|(msg_id, sender, kind, id, name, body)| {
            let to = match ConversationKind(kind) {
                ConversationKind::Group => Conversation::Group(GroupId(id)),
                _ => Conversation::User(UserId(id)),
            };
            let msg_id = MsgId(msg_id);
            let name = ClientMsgId(name.try_into().ok()?);
            Some((msg_id, messages.keep(msg_id, UserId(sender), to, name, &body)))
        });
        Ok(rows.collect())
    }
}
