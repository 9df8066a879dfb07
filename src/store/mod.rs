//! The store: the thread that writes batches to SQLite or MySQL and reads them back.
//!
//! [`Store`] is what a database must do; the thread around it reads the journal, keeps the unapplied tail and
//! answers the shards and the ledger. What always holds: batches are applied in journal order, each together
//! with its end position, so applying again after a crash changes nothing.

pub(crate) mod backoff;
pub(crate) mod batch;
pub(crate) mod check;
#[cfg(test)]
mod contract;
pub(crate) mod cursors;
mod disk_share;
pub(crate) mod in_flight;
pub mod keeper;
pub mod messages;
pub(crate) mod mysql;
pub mod names;
pub(crate) mod page;
pub(crate) mod priority;
pub(crate) mod retention;
pub(crate) mod schema;
pub mod sqlite;
pub(crate) mod tail;
pub(crate) mod trouble;
pub(crate) mod yielding;

use std::future::Future;

use crate::contract::cause::Cause;
use crate::contract::position::{AppliedPosition, StreamDigest};
use crate::contract::store::{CursorRow, Lookup, MessageHead, NewestRow, Page, StoredGroup, StoredMessage};
use crate::contract::store::{StorePosition, Stored};
use messages::Messages;
use names::Written;
use ringway_wire::ids::{ClientMsgId, Conversation, DeviceId, GroupId, MsgId, RosterVersion, Seq, UserId};
use ringway_wire::schema::Role;

/// A database that keeps messages, inbox rows, groups and cursors. Implementations live on the store's thread
/// only. A page or a look-up is awaited there, one at a time; a transaction is on its way beside them ([`Store::Writing`]).
#[expect(async_fn_in_trait, reason = "used through generics on one thread; no Send bound is wanted")]
pub trait Store {
    /// A transaction in the form in which the database is sent it.
    type Encoded;
    /// A transaction on its way into the database. It goes on by itself, whether or not anybody looks at it.
    type Writing: Future<Output = Result<Written, StoreError>> + Unpin;

    /// Rows of one transaction, at most (one message alone may have more).
    fn transaction_rows_max(&self) -> usize;
    /// The same while somebody reads: as few as keep nobody waiting, where reads wait for transactions.
    fn transaction_rows_beside_readers(&self) -> usize;
    /// Makes a transaction ready; it may be applied after others.
    fn encode(&self, transaction: Transaction) -> Self::Encoded;
    /// Writes a transaction's batches and its position into the database, all or nothing. One that ends at or below
    /// the stored position changes nothing; in a cluster it is an error, as it may be of a stream that is lost. One at a time: the next must wait for its end. After an error it may or
    /// may not have been committed: ask [`Store::position`] before going on. A message whose name another one has is
    /// no error: see [`names`].
    fn apply(&mut self, transaction: Self::Encoded) -> Self::Writing;
    /// The position up to which batches were applied, and the highest message id stored.
    async fn position(&mut self) -> Result<StorePosition, StoreError>;
    /// Every user's newest row (a skip scan), handed to `visit`.
    async fn newest_rows(&mut self, visit: &mut dyn FnMut(NewestRow)) -> Result<(), StoreError>;
    /// Every group with its members, handed to `visit`.
    async fn groups(&mut self, visit: &mut dyn FnMut(StoredGroup)) -> Result<(), StoreError>;
    /// Groups and newest rows as they were at one position, handed to `visit`; returns the position.
    async fn snapshot(&mut self, visit: &mut dyn FnMut(Stored)) -> Result<StorePosition, StoreError>;
    /// Which of these groups, of which the database has none, it had once, and everybody has left. Only a cluster asks: the
    /// journal of a gateway by itself has each change once, and such a store knows of none.
    async fn left(&mut self, groups: &[GroupId]) -> Result<Vec<GroupId>, StoreError>;
    /// Makes what was applied survive a power loss; returns the position up to which that holds.
    async fn secure(&mut self) -> Result<AppliedPosition, StoreError>;
    /// Memory of the database's pages that are kept in this process, which has a limit of its own. A database elsewhere
    /// keeps none here.
    fn cache_bytes(&self) -> u64;
    /// Rows of an inbox after `after`, in seq order; `gap_to` if the rows right after it are no longer kept. The
    /// page ends before a hole, and after the row that reaches `bytes_max` bytes of bodies. Messages that are in
    /// `messages` need not be read; those that are read go into it.
    async fn page(
        &mut self,
        user: UserId,
        after: Seq,
        rows_max: usize,
        bytes_max: usize,
        messages: &mut Messages,
    ) -> Result<Page, StoreError>;
    /// Several pages, each as [`Self::page`] reads it; parallel to `wanted`.
    async fn pages(&mut self, wanted: &[PageWanted], messages: &mut Messages) -> Vec<Result<Page, StoreError>>;
    /// What was stored under these names.
    async fn find(&mut self, lookups: &[Lookup]) -> Result<NamesFound, StoreError>;
    /// Messages below this number may have been deleted by retention; zero if none was ever.
    async fn kept_from(&mut self) -> Result<MsgId, StoreError>;
    /// The cursors of devices, all in one question; parallel to `devices`.
    async fn cursors(&mut self, devices: &[(UserId, DeviceId)]) -> Result<Vec<Option<Seq>>, StoreError>;
    /// The message of this number.
    async fn message(&mut self, msg_id: MsgId) -> Result<Option<MessageHead>, StoreError>;
    /// The cursors of all devices of these users, in any order.
    async fn devices(&mut self, users: &[UserId]) -> Result<Vec<CursorRow>, StoreError>;
    /// Keeps cursors; one that is lower than what is kept changes nothing.
    async fn save_cursors(&mut self, cursors: &[CursorRow]) -> Result<(), StoreError>;
}

/// [`Store::snapshot`] of a database that nobody else writes into meanwhile.
pub async fn snapshot_alone<S: Store>(
    store: &mut S,
    visit: &mut dyn FnMut(Stored),
) -> Result<StorePosition, StoreError> {
    let at = store.position().await?;
    store.groups(&mut |group| visit(Stored::Group(group))).await?;
    store.newest_rows(&mut |row| visit(Stored::Newest(row))).await?;
    Ok(at)
}

/// [`Store::pages`] of a database that reads one after another.
pub async fn pages_in_turn<S: Store>(
    store: &mut S,
    wanted: &[PageWanted],
    messages: &mut Messages,
) -> Vec<Result<Page, StoreError>> {
    let mut pages = Vec::with_capacity(wanted.len());
    for PageWanted { user, after, rows_max, bytes_max } in wanted {
        pages.push(store.page(*user, *after, *rows_max, *bytes_max, messages).await);
    }
    pages
}

/// A page that is to be read: see [`Store::page`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageWanted {
    /// Whose inbox.
    pub(crate) user: UserId,
    /// Rows after this one.
    pub(crate) after: Seq,
    /// At most so many.
    pub(crate) rows_max: usize,
    /// No more once their bodies have so many bytes.
    pub(crate) bytes_max: usize,
}

/// What a database has under names, all as it was at one position.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct NamesFound {
    /// Up to here the database that was asked has everything.
    pub at: AppliedPosition,
    /// Parallel to what was looked up.
    pub messages: Vec<Option<StoredMessage>>,
}

/// Several batches that go into the database together, in journal order.
#[derive(Debug, Default)]
pub struct Transaction {
    /// Messages, each once.
    pub messages: Vec<StoredBody>,
    /// Rows by (user, seq), so that neighbours go into the same page of the table; written `BATCH_ROWS` per
    /// statement.
    pub rows: Vec<InboxRow>,
    /// Changes of groups.
    pub groups: Vec<GroupWrite>,
    /// Everything below is in this transaction or in one before.
    pub applied: AppliedPosition,
    /// In a cluster: what the stream's entries are, up to there.
    pub digest: StreamDigest,
    /// The highest number in this transaction, changes of groups included; zero if it has none.
    pub msg_id_max: MsgId,
}

/// A message as the `messages` table has it; its time is in its number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredBody {
    /// The number that the ledger gave it, unique in the cluster and for ever.
    pub msg_id: MsgId,
    /// Who sent it.
    pub sender: UserId,
    /// Where it was addressed.
    pub to: Conversation,
    /// The sender's name for it.
    pub client_msg_id: ClientMsgId,
    /// The sender's own row, kept here so that a repeat is answered from one look-up, even when retention has
    /// deleted the row.
    pub sender_seq: Seq,
    /// [`crate::contract::digest::digest`] of its conversation and body.
    pub digest: u64,
    /// What was said.
    pub body: Box<[u8]>,
}

/// One inbox entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct InboxRow {
    /// The user whose inbox it is in.
    pub user: UserId,
    /// Its number in that inbox, from 1.
    pub seq: Seq,
    /// Which message.
    pub msg_id: MsgId,
}

/// What a change does to the tables `chat_groups`, `group_members` and `group_makers`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupWrite {
    /// Which group.
    pub group: GroupId,
    /// The version after it; a write at or below the stored version changes nothing.
    pub version: RosterVersion,
    /// Members to insert or whose role changes.
    pub put: Vec<(UserId, Role)>,
    /// Members to delete.
    pub delete: Vec<UserId>,
    /// Whom the group counts against from now on; `None`: as before.
    pub maker: Option<UserId>,
}

/// Why the database did not do it, by what the caller does about it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Tried again by itself, with backoff: a lost connection, a lock, a full disk.
    #[error("the store is not available now and is tried again: {what}")]
    Unavailable {
        /// What was being done.
        what: &'static str,
        /// Why it failed, as a metric counts it.
        cause: Cause,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Only an operator can mend it: a wrong schema version, a corrupt file.
    #[error("the store cannot be used: {what}")]
    Broken {
        /// What was found, and what to do.
        what: &'static str,
        /// Why it failed, as a metric counts it.
        cause: Cause,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// Why it failed, as a metric counts it.
    pub(crate) fn cause(&self) -> Cause {
        match self {
            StoreError::Unavailable { cause, .. } | StoreError::Broken { cause, .. } => *cause,
        }
    }

    /// Whether a start should wait for it. What was configured wrongly is better said at once.
    pub(crate) fn passes_by_itself(&self) -> bool {
        let configured = [Cause::Denied, Cause::NoDatabase, Cause::Schema, Cause::Packet];
        matches!(self, StoreError::Unavailable { cause, .. } if !configured.contains(cause))
    }
}
