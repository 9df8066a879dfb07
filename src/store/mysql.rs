//! The store in a MySQL or MariaDB database.
//!
//! What always holds: rows, messages, changes of groups and the position that covers them are committed together,
//! under a lock on the position's row, and only if the position is where this gateway left it; so whatever becomes
//! of a connection in the middle of a commit, nothing is written twice, and two gateways on one database are found
//! out instead of mixing their numbers. Every wait for the server is bounded.
//!
//! It runs on the store's tokio runtime and must be dropped there. One connection writes, others read.

pub(crate) mod connection;
mod cursors;
mod expiry;
pub(crate) mod fault;
pub(crate) mod insert;
mod inspect;
pub(crate) mod integrity;
pub(crate) mod look;
mod pages;
pub(crate) mod schema;
mod snapshot;
mod taken;
pub(crate) mod writer;

use std::collections::HashMap;
use std::pin::Pin;
use std::task::{Context, Poll};

use mysql_async::Opts;

use super::messages::Messages;
use super::names::Written;
use super::{NamesFound, PageWanted, Store, StoreError, Transaction};
use crate::contract::position::AppliedPosition;
use crate::contract::store::{CursorRow, Lookup, MessageHead, NewestRow, Page, StoredGroup, StoredMessage};
use crate::contract::store::{StorePosition, Stored};
use crate::limits::MYSQL_TRANSACTION_ROWS_MAX;
use connection::{Connection, Patience, Readers, options};
use expiry::Expirer;
use fault::Fault;
use insert::{Bounds, Encoded, encode, put_hex};
use pages::read_kept_from;
use ringway_wire::ids::{ClientMsgId, Conversation, DeviceId, GroupId, MsgId, Seq, UserId};
use ringway_wire::schema::ConversationKind;
use writer::{Ending, Writer};

/// The journal whose position is kept under this number, when one gateway has the database to itself.
const NODE: u16 = 0;
/// The stream whose position is kept under this number, when the nodes of a cluster share the database. No node has it.
const CLUSTER: u16 = 1024;

/// Who else writes into the database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sharing {
    /// Nobody.
    Alone,
    /// The other nodes of a cluster, one at a time: whoever finds the position moved looks again.
    Cluster,
    /// A gateway on its own, perhaps; this one only reads.
    Watching,
    /// The nodes of a cluster, perhaps; this one only reads.
    WatchingCluster,
}

impl Sharing {
    fn node(self) -> u16 {
        match self {
            Sharing::Alone | Sharing::Watching => NODE,
            Sharing::Cluster | Sharing::WatchingCluster => CLUSTER,
        }
    }

    /// Whether this one writes batches.
    fn writes(self) -> bool {
        match self {
            Sharing::Alone | Sharing::Cluster => true,
            Sharing::Watching | Sharing::WatchingCluster => false,
        }
    }
}

const READING_PAGES: &str = "reading pages of inboxes";

/// How a database is used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Use {
    /// Rows of one insert.
    pub(crate) batch_rows: usize,
    /// Connections: one writes, the others read. While old messages are deleted there is one more.
    pub(crate) pool_size: usize,
    /// Who else writes.
    pub(crate) sharing: Sharing,
}

/// A store in a database.
#[derive(Debug)]
pub(crate) struct MySqlStore {
    writer: Writer,
    readers: Readers,
    expirer: Expirer,
    batch_rows: usize,
    /// How long statements may be, as the last connection that was looked at said.
    bounds: Bounds,
}

impl MySqlStore {
    /// Connects, brings the tables up to date, and takes the node's lock.
    pub(crate) async fn open(url: &Opts, how: Use) -> Result<Self, StoreError> {
        let Use { batch_rows, pool_size, sharing } = how;
        let opts = options(url);
        let begin = async {
            let mut connection = Connection::open(&opts).await?;
            match sharing {
                Sharing::Watching | Sharing::WatchingCluster => schema::expect(connection.driver()).await?,
                Sharing::Alone | Sharing::Cluster => schema::prepare(connection.driver()).await?,
            }
            let bounds = connection.bounds(batch_rows)?;
            if !connection.is_durable_at_commit() {
                tracing::warn!(
                    "the database runs with innodb_flush_log_at_trx_commit other than 1: a power loss there may take \
                     messages that the journal has given up already; set it to 1"
                );
            }
            let mut store = MySqlStore {
                writer: Writer::new(opts.clone(), sharing),
                readers: Readers::new(opts.clone(), pool_size.saturating_sub(1)),
                expirer: Expirer::new(opts.clone()),
                batch_rows,
                bounds,
            };
            store.readers.give_back(connection);
            store.writer.position().await?;
            Ok(store)
        };
        begin.await.map_err(|fault: Fault| fault.into_store("opening the database"))
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

impl Store for MySqlStore {
    type Encoded = Encoded;
    type Writing = Writing;

    fn transaction_rows_max(&self) -> usize {
        MYSQL_TRANSACTION_ROWS_MAX
    }

    /// Others of its connections read meanwhile.
    fn transaction_rows_beside_readers(&self) -> usize {
        MYSQL_TRANSACTION_ROWS_MAX
    }

    fn encode(&self, transaction: Transaction) -> Encoded {
        encode(&transaction, self.bounds)
    }

    fn apply(&mut self, transaction: Encoded) -> Writing {
        Writing(self.writer.begin(transaction))
    }

    async fn position(&mut self) -> Result<StorePosition, StoreError> {
        const READING: &str = "reading the applied position";
        let at = self.writer.position().await.map_err(|fault| fault.into_store(READING))?;
        // The server may have come back with other settings.
        match self.writer.connection().map(|connection| connection.bounds(self.batch_rows)) {
            Some(Ok(bounds)) => self.bounds = bounds,
            Some(Err(fault)) => {
                self.writer.forget_connection();
                return Err(fault.into_store(READING));
            }
            None => {}
        }
        Ok(at)
    }

    async fn newest_rows(&mut self, visit: &mut dyn FnMut(NewestRow)) -> Result<(), StoreError> {
        let attempt = async {
            let mut connection = self.readers.take().await?;
            snapshot::newest_rows(&mut connection, visit).await?;
            self.readers.give_back(connection);
            Ok(())
        };
        attempt.await.map_err(|fault: Fault| fault.into_store("reading every user's newest row"))
    }

    async fn groups(&mut self, visit: &mut dyn FnMut(StoredGroup)) -> Result<(), StoreError> {
        let attempt = async {
            let mut connection = self.readers.take().await?;
            snapshot::groups(&mut connection, visit).await?;
            self.readers.give_back(connection);
            Ok(())
        };
        attempt.await.map_err(|fault: Fault| fault.into_store("reading the groups"))
    }

    async fn snapshot(&mut self, visit: &mut dyn FnMut(Stored)) -> Result<StorePosition, StoreError> {
        let attempt = async {
            // One that is idle may be dead; this is rare enough for one of its own.
            let mut connection = Connection::open(self.readers.opts()).await?;
            let at = snapshot::read(&mut connection, self.writer.sharing(), visit).await?;
            self.readers.give_back(connection);
            Ok(at)
        };
        attempt.await.map_err(|fault: Fault| fault.into_store("reading a snapshot of groups and newest rows"))
    }

    async fn left(&mut self, groups: &[GroupId]) -> Result<Vec<GroupId>, StoreError> {
        let attempt = async {
            let mut connection = self.readers.take().await?;
            let left = snapshot::left(&mut connection, groups).await?;
            self.readers.give_back(connection);
            Ok(left)
        };
        attempt.await.map_err(|fault: Fault| fault.into_store("reading which groups were left"))
    }

    /// What is written there is the server's.
    /// Its pages are the server's.
    fn cache_bytes(&self) -> u64 {
        0
    }

    /// A commit is durable there as soon as it is answered.
    async fn secure(&mut self) -> Result<AppliedPosition, StoreError> {
        Ok(self.writer.committed().await)
    }

    async fn page(
        &mut self,
        user: UserId,
        after: Seq,
        rows_max: usize,
        bytes_max: usize,
        messages: &mut Messages,
    ) -> Result<Page, StoreError> {
        let mut pages = self.pages(&[PageWanted { user, after, rows_max, bytes_max }], messages).await;
        pages.pop().unwrap_or_else(|| Err(Fault::NotAsked.into_store(READING_PAGES)))
    }

    async fn pages(&mut self, wanted: &[PageWanted], messages: &mut Messages) -> Vec<Result<Page, StoreError>> {
        let read = pages::read(&mut self.readers, wanted, messages).await;
        read.into_iter().map(|page| page.map_err(|fault| fault.into_store(READING_PAGES))).collect()
    }

    /// In one statement, which reads one state of the database: a server that lags, or went back, says so itself.
    async fn find(&mut self, lookups: &[Lookup]) -> Result<NamesFound, StoreError> {
        let mut text = format!(
            "SELECT position, x'', position, position, position, position FROM ledger_position WHERE node = {} UNION ALL \
             SELECT sender, client_msg_id, msg_id, sender_seq, sent_at, digest FROM messages WHERE ",
            self.writer.sharing().node()
        )
        .into_bytes();
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
        let (mut at, mut found) = (AppliedPosition(0), HashMap::new());
        for (sender, name, msg_id, seq, sent_at_ms, digest) in rows.await? {
            match name.try_into() {
                Ok(name) => {
                    let stored = StoredMessage { msg_id: MsgId(msg_id), seq: Seq(seq), sent_at_ms, digest };
                    found.insert((UserId(sender), ClientMsgId(name)), stored);
                }
                // The row of the position has none.
                Err(_) => at = AppliedPosition(sender),
            }
        }
        let messages = lookups.iter().map(|lookup| found.get(&(lookup.sender, lookup.client_msg_id)).copied());
        Ok(NamesFound { at, messages: messages.collect() })
    }

    async fn kept_from(&mut self) -> Result<MsgId, StoreError> {
        self.read("reading from where on messages are kept", async |c: &mut Connection| read_kept_from(c).await).await
    }

    async fn cursors(&mut self, devices: &[(UserId, DeviceId)]) -> Result<Vec<Option<Seq>>, StoreError> {
        // Not (user_id, device_id) IN (...), for which not every server uses the index.
        let each: Vec<String> = devices
            .iter()
            .map(|(user, device)| format!("(user_id = {} AND device_id = {})", user.0, device.0))
            .collect();
        if each.is_empty() {
            return Ok(Vec::new());
        }
        let statement = format!("SELECT user_id, device_id, seq FROM cursors WHERE {}", each.join(" OR "));
        let rows = self.read("reading cursors", async |c: &mut Connection| {
            c.rows::<(u64, u64, u64)>(&*statement, Patience::Read).await
        });
        let found: HashMap<(u64, u64), u64> =
            rows.await?.into_iter().map(|(user, device, seq)| ((user, device), seq)).collect();
        Ok(devices.iter().map(|(user, device)| found.get(&(user.0, device.0)).copied().map(Seq)).collect())
    }

    async fn message(&mut self, msg_id: MsgId) -> Result<Option<MessageHead>, StoreError> {
        let statement = format!(
            "SELECT sender, conversation_kind, conversation_id, client_msg_id, sender_seq, length(body) FROM messages \
             WHERE msg_id = {}",
            msg_id.0
        );
        type Head = (u64, u8, u64, Vec<u8>, u64, u64);
        let read = self
            .read("reading a message", async |c: &mut Connection| c.first::<Head>(&*statement, Patience::Read).await);
        Ok(read.await?.and_then(|(sender, kind, id, name, seq, body_bytes)| {
            Some(MessageHead {
                sender: UserId(sender),
                to: conversation(kind, id),
                client_msg_id: ClientMsgId(name.try_into().ok()?),
                sender_seq: Seq(seq),
                body_bytes,
            })
        }))
    }

    async fn devices(&mut self, users: &[UserId]) -> Result<Vec<CursorRow>, StoreError> {
        let each: Vec<String> = users.iter().map(|user| user.0.to_string()).collect();
        if each.is_empty() {
            return Ok(Vec::new());
        }
        let statement = format!("SELECT user_id, device_id, seq FROM cursors WHERE user_id IN ({})", each.join(","));
        let rows = self.read("reading the cursors of users", async |c: &mut Connection| {
            c.rows::<(u64, u64, u64)>(&*statement, Patience::Read).await
        });
        let row = |(user, device, seq)| CursorRow { user: UserId(user), device: DeviceId(device), seq: Seq(seq) };
        Ok(rows.await?.into_iter().map(row).collect())
    }

    async fn save_cursors(&mut self, rows: &[CursorRow]) -> Result<(), StoreError> {
        let bounds = self.bounds;
        self.read("keeping cursors", async |c: &mut Connection| cursors::save(c, rows, bounds).await).await
    }
}

/// A transaction on its way.
#[derive(Debug)]
pub(crate) struct Writing(Ending);

impl Future for Writing {
    type Output = Result<Written, StoreError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The task ends without a word only when its runtime does.
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|told| told.unwrap_or_else(|_| Err(Fault::Abandoned.into_store("writing batches"))))
    }
}

/// Where a message is addressed, as the table has it.
fn conversation(kind: u8, id: u64) -> Conversation {
    match ConversationKind(kind) {
        ConversationKind::Group => Conversation::Group(GroupId(id)),
        _ => Conversation::User(UserId(id)),
    }
}
