//! A store in memory that is slow, goes away, and keeps what a database would keep.
//!
//! Owned by the world; what is behind it outlives crashes. What always holds: a process kill keeps every
//! applied transaction whole; a power loss keeps the secured ones and then some of the later ones, oldest
//! first, each whole. A failed apply may have been applied all the same, as when the connection is lost in the
//! moment of the commit. A row that contradicts one already stored is remembered as a violation.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use ringway::contract::cause::Cause;
use ringway::contract::position::AppliedPosition;
use ringway::contract::store::{
    CursorRow, Lookup, MessageHead, NewestRow, Page, StorePosition, Stored, StoredGroup, StoredMessage,
};
use ringway::store::messages::Messages;
use ringway::store::names::Written;
use ringway::store::{
    NamesFound, PageWanted, Store, StoreError, StoredBody, Transaction, pages_in_turn, snapshot_alone,
};
use ringway_wire::ids::MSG_ID_EPOCH_MS;
use ringway_wire::ids::{DeviceId, GroupId, MsgId, Seq, UserId};
use ringway_wire::schema::Role;

use crate::ledger::Deleted;
use crate::random::Random;
use crate::tables::{Change, Tables};

/// As much as SQLite takes.
const TRANSACTION_ROWS_MAX: usize = 50_000;

/// For how long a database waits for a connection that has a transaction open and says nothing.
const TRANSACTION_IDLE_MS: u64 = 10_000;

/// Most that a cluster's database goes back.
const TRANSACTIONS_LOST_MAX: usize = 30;

/// What no database may do: the simulator must notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Untrue {
    /// It went back, and says that it has what it had.
    HidesThatItWentBack,
    /// A transaction now and then is committed without its rows.
    LosesRows,
    /// It has no message under any name that it is asked for.
    FindsNothing,
    /// It does not know which message it has got last.
    ForgetsNewestMessage,
    /// It does not say from where on it has everything, when it has deleted what is old.
    ForgetsRetention,
    /// It does not know which groups everybody has left.
    ForgetsWhoHasLeft,
    /// What a process that is gone has locked stays locked.
    KeepsLocks,
}

/// The database's files: they stay when the process goes.
#[derive(Clone)]
pub(crate) struct Database {
    inner: Rc<RefCell<Inner>>,
}

struct Inner {
    current: Tables,
    /// What a power loss cannot take.
    secured: Tables,
    /// What was applied since, oldest first.
    unsecured: Vec<Change>,
    random: Random,
    away: bool,
    /// So many of 1,000 calls fail.
    failing: u32,
    /// A power loss takes secured transactions too. No database may do this: the simulator must notice.
    forgetful: bool,
    untrue: Option<Untrue>,
    /// The highest position that it ever had.
    highest: StorePosition,
    contradiction: Option<String>,
    /// Who has a transaction open, and until when that is not ended.
    lock: Option<(u64, u64)>,
    now_ms: u64,
}

impl Database {
    /// An empty one, always there.
    pub(crate) fn new(random: Random) -> Self {
        let inner = Inner {
            current: Tables::default(),
            secured: Tables::default(),
            unsecured: Vec::new(),
            random,
            away: false,
            failing: 0,
            forgetful: false,
            untrue: None,
            highest: StorePosition::default(),
            contradiction: None,
            lock: None,
            now_ms: 0,
        };
        Database { inner: Rc::new(RefCell::new(inner)) }
    }

    /// From now on it answers nothing.
    pub(crate) fn go_away(&self) {
        self.inner.borrow_mut().away = true;
    }

    /// It answers again.
    pub(crate) fn come_back(&self) {
        self.inner.borrow_mut().away = false;
    }

    /// It goes away, or comes back.
    pub(crate) fn go_or_come(&self) {
        match self.is_away() {
            true => self.come_back(),
            false => self.go_away(),
        }
    }

    /// Whether it is away.
    pub(crate) fn is_away(&self) -> bool {
        self.inner.borrow().away
    }

    /// From now on so many of 1,000 calls fail.
    pub(crate) fn set_failing(&self, failing: u32) {
        self.inner.borrow_mut().failing = failing;
    }

    /// From now on it forgets what it secured.
    pub(crate) fn become_forgetful(&self) {
        self.inner.borrow_mut().forgetful = true;
    }

    /// From now on it does this.
    pub(crate) fn set_untrue(&self, untrue: Untrue) {
        self.inner.borrow_mut().untrue = Some(untrue);
    }

    /// The power goes: the secured transactions stay, and some of those after them.
    pub(crate) fn lose_power(&self) {
        let mut inner = self.inner.borrow_mut();
        if inner.forgetful {
            inner.secured = Tables::default();
        }
        let kept = inner.random.below(inner.unsecured.len() + 1);
        inner.unsecured.truncate(kept);
        let mut tables = inner.secured.clone();
        for change in &inner.unsecured {
            tables.change(change);
        }
        inner.current = tables;
    }

    /// A replica takes over that lacks some of the newest transactions, or a backup is put back: returns how many are lost.
    pub(crate) fn go_back(&self) -> usize {
        let mut inner = self.inner.borrow_mut();
        let before = inner.unsecured.len();
        let kept = inner.random.below(before + 1);
        inner.unsecured.truncate(kept);
        let mut tables = inner.secured.clone();
        inner.unsecured.iter().for_each(|change| drop(tables.change(change)));
        inner.current = tables;
        before - kept
    }

    /// Retention deletes what is older than this number. Returns what it has deleted so far.
    pub(crate) fn delete_before(&self, kept_from: MsgId) -> Deleted {
        let mut inner = self.inner.borrow_mut();
        let change = Change::Deleted(kept_from);
        inner.current.change(&change);
        inner.unsecured.push(change);
        let Tables { inbox, deleted, thinned, .. } = &inner.current;
        let mut first = BTreeMap::new();
        first.extend(inbox.keys().rev().map(|(user, seq)| (*user, seq.0)));
        let rows_to = first.into_iter().map(|(user, seq)| (user, seq - 1)).collect();
        Deleted { messages: deleted.clone(), thinned: thinned.clone(), rows_to }
    }

    /// It is so late, milliseconds.
    pub(crate) fn pass(&self, now_ms: u64) {
        let inner = &mut *self.inner.borrow_mut();
        inner.now_ms = now_ms;
        inner.lock.take_if(|(_, until_ms)| now_ms >= *until_ms);
    }

    /// A process is gone, or stands still, with a transaction open: others wait until the database ends it.
    pub(crate) fn leave_locked(&self, process: u64) {
        let inner = &mut *self.inner.borrow_mut();
        let for_ms = if inner.untrue == Some(Untrue::KeepsLocks) { 8 * 3_600_000 } else { TRANSACTION_IDLE_MS };
        inner.lock = Some((process, inner.now_ms + for_ms));
    }

    /// Up to where it has everything.
    pub(crate) fn applied(&self) -> u64 {
        self.inner.borrow().current.position.applied.0
    }

    /// What was applied that contradicts what was applied before.
    pub(crate) fn contradiction(&self) -> Option<String> {
        self.inner.borrow().contradiction.clone()
    }
}

/// Who else writes into the database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sharing {
    /// Nobody.
    Alone,
    /// Other nodes: what is written is written on top of the position that this one knows, or not at all.
    Cluster,
}

/// The store as the process sees it; a new one after each restart.
pub(crate) struct SimStore {
    database: Database,
    sharing: Sharing,
    /// Tells it from other processes.
    process: u64,
    /// Where the database was when it was last asked, or written to.
    at: StorePosition,
}

impl SimStore {
    /// Opens the database.
    pub(crate) fn new(database: Database, sharing: Sharing) -> Self {
        SimStore { database, sharing, process: 0, at: StorePosition::default() }
    }

    /// That of this process.
    pub(crate) fn of_process(self, process: u64) -> SimStore {
        SimStore { process, ..self }
    }

    /// Another node has written, or writes, or has moved the database past this.
    fn overtaken(&self, applied: AppliedPosition) -> Option<StoreError> {
        let inner = self.database.inner.borrow();
        let found = match inner.untrue {
            Some(Untrue::HidesThatItWentBack) => inner.highest,
            _ => inner.current.position,
        };
        let is_locked = inner.lock.is_some_and(|(process, _)| process != self.process);
        let is_moved = (found.applied, found.digest) != (self.at.applied, self.at.digest) || applied <= found.applied;
        (self.sharing == Sharing::Cluster && (is_moved || is_locked)).then(|| StoreError::Unavailable {
            what: "applying",
            cause: Cause::Lock,
            source: "another node has written".into(),
        })
    }

    fn reach(&self, what: &'static str) -> Result<(), StoreError> {
        let inner = self.database.inner.borrow();
        if inner.away || inner.random.chance(inner.failing, 1000) {
            return Err(StoreError::Unavailable {
                what,
                cause: Cause::Connection,
                source: "the simulated store is away".into(),
            });
        }
        Ok(())
    }

    fn commit(&mut self, mut change: Change, what: &'static str) -> Result<(), StoreError> {
        let reached = self.reach(what);
        let mut inner = self.database.inner.borrow_mut();
        // One failure in four happens after the commit: it is applied, and nobody was told.
        if reached.is_ok() || inner.random.chance(1, 4) {
            if inner.untrue == Some(Untrue::LosesRows)
                && inner.random.chance(1, 20)
                && let Change::Applied { rows, .. } = &mut change
            {
                rows.clear();
            }
            let contradiction = inner.current.change(&change);
            inner.contradiction = inner.contradiction.take().or(contradiction);
            if inner.current.position.applied > inner.highest.applied {
                inner.highest = inner.current.position;
            }
            inner.unsecured.push(change);
        }
        reached
    }
}

impl Store for SimStore {
    type Encoded = Transaction;
    type Writing = std::future::Ready<Result<Written, StoreError>>;

    fn transaction_rows_max(&self) -> usize {
        TRANSACTION_ROWS_MAX
    }

    fn transaction_rows_beside_readers(&self) -> usize {
        TRANSACTION_ROWS_MAX / 4
    }

    fn encode(&self, transaction: Transaction) -> Transaction {
        transaction
    }

    fn apply(&mut self, transaction: Transaction) -> Self::Writing {
        let Transaction { messages, rows, groups, applied, digest, msg_id_max } = transaction;
        if let Some(overtaken) = self.overtaken(applied) {
            return std::future::ready(Err(overtaken));
        }
        let at = StorePosition { applied, msg_id_max, digest };
        let committed = self.commit(Change::Applied { messages, rows, groups, at }, "applying");
        if committed.is_ok() && applied > self.at.applied {
            self.at = at;
        }
        std::future::ready(committed.map(|()| Written::default()))
    }

    async fn position(&mut self) -> Result<StorePosition, StoreError> {
        self.reach("reading the position")?;
        let inner = self.database.inner.borrow();
        let position = match inner.untrue {
            Some(Untrue::HidesThatItWentBack) => inner.highest,
            Some(Untrue::ForgetsNewestMessage) => StorePosition { msg_id_max: MsgId(0), ..inner.current.position },
            _ => inner.current.position,
        };
        self.at = position;
        Ok(position)
    }

    async fn newest_rows(&mut self, visit: &mut dyn FnMut(NewestRow)) -> Result<(), StoreError> {
        self.reach("reading the newest rows")?;
        let inner = self.database.inner.borrow();
        let mut newest: BTreeMap<UserId, Seq> = BTreeMap::new();
        for (user, seq) in inner.current.inbox.keys() {
            newest.insert(*user, *seq);
        }
        newest.into_iter().for_each(|(user, seq)| visit(NewestRow { user, seq }));
        Ok(())
    }

    async fn groups(&mut self, visit: &mut dyn FnMut(StoredGroup)) -> Result<(), StoreError> {
        self.reach("reading the groups")?;
        let Tables { groups, makers, .. } = &self.database.inner.borrow().current;
        for (group, (version, members)) in groups {
            let members = members.iter().map(|(user, role)| (*user, Role(*role))).collect();
            visit(StoredGroup { group: *group, version: *version, members, maker: makers.get(group).copied() });
        }
        Ok(())
    }

    async fn snapshot(&mut self, visit: &mut dyn FnMut(Stored)) -> Result<StorePosition, StoreError> {
        // Read on another connection than is written on.
        let at = self.at;
        let read = snapshot_alone(self, visit).await;
        self.at = at;
        read
    }

    async fn left(&mut self, groups: &[GroupId]) -> Result<Vec<GroupId>, StoreError> {
        self.reach("reading which groups were left")?;
        let inner = self.database.inner.borrow();
        let knows = inner.untrue != Some(Untrue::ForgetsWhoHasLeft);
        Ok(groups.iter().copied().filter(|group| knows && inner.current.left.contains(group)).collect())
    }

    fn cache_bytes(&self) -> u64 {
        0
    }

    async fn secure(&mut self) -> Result<AppliedPosition, StoreError> {
        self.reach("securing")?;
        let inner = &mut *self.database.inner.borrow_mut();
        let kept = match self.sharing {
            Sharing::Alone => 0,
            Sharing::Cluster => TRANSACTIONS_LOST_MAX,
        };
        let secured = inner.unsecured.len().saturating_sub(kept);
        for change in inner.unsecured.drain(..secured) {
            inner.secured.change(&change);
        }
        Ok(match self.sharing {
            Sharing::Alone => inner.secured.position.applied,
            Sharing::Cluster => inner.current.position.applied,
        })
    }

    async fn page(
        &mut self,
        user: UserId,
        after: Seq,
        rows_max: usize,
        bytes_max: usize,
        messages: &mut Messages,
    ) -> Result<Page, StoreError> {
        self.reach("reading a page")?;
        let tables = &self.database.inner.borrow().current;
        let mut page = Page::default();
        let mut bytes = 0;
        let mut next = after.next();
        for ((_, seq), msg_id) in tables.inbox.range((user, next)..=(user, Seq(u64::MAX))) {
            let Some(stored) = tables.messages.get(msg_id) else { break };
            let is_first = page.rows.is_empty();
            if page.rows.len() >= rows_max || bytes >= bytes_max || (*seq != next && !is_first) {
                break;
            }
            if *seq != next {
                page.gap_to = Some(Seq(seq.0 - 1));
            }
            next = seq.next();
            bytes += stored.body.len();
            let message = messages.keep(*msg_id, stored.sender, stored.to, stored.client_msg_id, &stored.body);
            page.rows.push((*seq, message));
        }
        Ok(page)
    }

    async fn pages(&mut self, wanted: &[PageWanted], messages: &mut Messages) -> Vec<Result<Page, StoreError>> {
        pages_in_turn(self, wanted, messages).await
    }

    async fn find(&mut self, lookups: &[Lookup]) -> Result<NamesFound, StoreError> {
        self.reach("looking up")?;
        let inner = self.database.inner.borrow();
        let (tables, finds) = (&inner.current, inner.untrue != Some(Untrue::FindsNothing));
        let at = match inner.untrue {
            Some(Untrue::HidesThatItWentBack) => inner.highest.applied,
            _ => tables.position.applied,
        };
        let found = |lookup: &Lookup| {
            let msg_id = *tables.names.get(&(lookup.sender, lookup.client_msg_id))?;
            let StoredBody { sender_seq: seq, digest, .. } = *tables.messages.get(&msg_id)?;
            let sent_at_ms = MSG_ID_EPOCH_MS + (msg_id.0 >> 22);
            Some(StoredMessage { msg_id, seq, sent_at_ms, digest })
        };
        let messages = lookups.iter().map(|lookup| found(lookup).filter(|_| finds)).collect();
        Ok(NamesFound { at, messages })
    }

    async fn kept_from(&mut self) -> Result<MsgId, StoreError> {
        let inner = self.database.inner.borrow();
        Ok(match inner.untrue {
            Some(Untrue::ForgetsRetention) => MsgId(0),
            _ => inner.current.kept_from,
        })
    }

    async fn cursors(&mut self, devices: &[(UserId, DeviceId)]) -> Result<Vec<Option<Seq>>, StoreError> {
        self.reach("reading cursors")?;
        let inner = self.database.inner.borrow();
        Ok(devices.iter().map(|device| inner.current.cursors.get(device).copied()).collect())
    }

    async fn message(&mut self, msg_id: MsgId) -> Result<Option<MessageHead>, StoreError> {
        self.reach("reading a message")?;
        let inner = self.database.inner.borrow();
        Ok(inner.current.messages.get(&msg_id).map(|stored| MessageHead {
            sender: stored.sender,
            to: stored.to,
            client_msg_id: stored.client_msg_id,
            sender_seq: stored.sender_seq,
            body_bytes: stored.body.len() as u64,
        }))
    }

    async fn devices(&mut self, users: &[UserId]) -> Result<Vec<CursorRow>, StoreError> {
        self.reach("reading the cursors of users")?;
        let inner = self.database.inner.borrow();
        let of_users = inner.current.cursors.iter().filter(|((user, _), _)| users.contains(user));
        Ok(of_users.map(|((user, device), seq)| CursorRow { user: *user, device: *device, seq: *seq }).collect())
    }

    async fn save_cursors(&mut self, cursors: &[CursorRow]) -> Result<(), StoreError> {
        self.commit(Change::Cursors(cursors.to_vec()), "saving cursors")
    }
}
