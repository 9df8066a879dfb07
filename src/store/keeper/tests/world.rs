//! What a ledger would have written, on a disk in memory, and a store that can be told to fail.

use super::*;
use crate::store::MessageHead;

/// A store that can be told to fail, and to take its time.
pub(in crate::store::keeper) struct Flaky {
    pub(in crate::store::keeper) inner: Rc<RefCell<SqliteStore>>,
    /// What a cluster's database keeps of each position: SQLite does not.
    pub(in crate::store::keeper) digests: HashMap<AppliedPosition, StreamDigest>,
    pub(in crate::store::keeper) away: bool,
    pub(in crate::store::keeper) writes_fail: bool,
    /// The next transaction is committed, and then an error is reported.
    pub(in crate::store::keeper) lose_answer: bool,
    /// How often a transaction is looked at before it has landed, and how many of these times before it is committed.
    pub(in crate::store::keeper) slowness: (u32, u32),
    pub(in crate::store::keeper) reads: u64,
    /// What others do with the database right after the next page is read.
    pub(in crate::store::keeper) after_page: Option<Box<dyn FnOnce()>>,
}

/// A transaction on its way into a slow store.
pub(in crate::store::keeper) struct Slow {
    pub(super) inner: Rc<RefCell<SqliteStore>>,
    pub(super) transaction: Option<Transaction>,
    pub(super) left: u32,
    pub(super) commits_at: u32,
    pub(super) outcome: Result<Written, StoreError>,
}

impl Future for Slow {
    type Output = Result<Written, StoreError>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if self.left <= self.commits_at
            && let Some(transaction) = self.transaction.take()
        {
            let committed = block_on(self.inner.borrow_mut().apply(transaction));
            if self.outcome.is_ok() {
                self.outcome = committed;
            }
        }
        if self.left == 0 {
            return Poll::Ready(std::mem::replace(&mut self.outcome, Ok(Written::default())));
        }
        self.left -= 1;
        Poll::Pending
    }
}

pub(super) fn lost() -> StoreError {
    let source = Box::new(std::io::Error::other("told to fail"));
    StoreError::Unavailable { what: "a test", cause: Cause::Connection, source }
}

impl Flaky {
    /// One that does as it should.
    pub(in crate::store::keeper) fn new(inner: SqliteStore) -> Flaky {
        Flaky {
            inner: Rc::new(RefCell::new(inner)),
            digests: HashMap::new(),
            away: false,
            writes_fail: false,
            lose_answer: false,
            slowness: (0, 0),
            reads: 0,
            after_page: None,
        }
    }

    pub(super) fn read(&mut self) -> Result<RefMut<'_, SqliteStore>, StoreError> {
        self.reads += 1;
        if self.away { Err(lost()) } else { Ok(self.inner.borrow_mut()) }
    }
}

impl Store for Flaky {
    type Encoded = Transaction;
    type Writing = Slow;

    fn transaction_rows_max(&self) -> usize {
        self.inner.borrow().transaction_rows_max()
    }
    fn transaction_rows_beside_readers(&self) -> usize {
        self.inner.borrow().transaction_rows_beside_readers()
    }
    fn encode(&self, transaction: Transaction) -> Transaction {
        transaction
    }
    fn apply(&mut self, transaction: Transaction) -> Slow {
        let inner = Rc::clone(&self.inner);
        let (left, commits_at) = self.slowness;
        let fails = self.away || self.writes_fail;
        if !fails {
            self.digests.insert(transaction.applied, transaction.digest);
        }
        let answer_lost = !fails && std::mem::take(&mut self.lose_answer);
        Slow {
            inner,
            transaction: (!fails).then_some(transaction),
            left,
            commits_at,
            outcome: if fails || answer_lost { Err(lost()) } else { Ok(Written::default()) },
        }
    }
    async fn position(&mut self) -> Result<StorePosition, StoreError> {
        let at = block_on(self.read()?.position())?;
        Ok(StorePosition { digest: self.digests.get(&at.applied).copied().unwrap_or_default(), ..at })
    }
    async fn newest_rows(&mut self, visit: &mut dyn FnMut(NewestRow)) -> Result<(), StoreError> {
        block_on(self.read()?.newest_rows(visit))
    }
    async fn groups(&mut self, visit: &mut dyn FnMut(StoredGroup)) -> Result<(), StoreError> {
        block_on(self.read()?.groups(visit))
    }
    async fn snapshot(&mut self, visit: &mut dyn FnMut(Stored)) -> Result<StorePosition, StoreError> {
        snapshot_alone(self, visit).await
    }

    async fn left(&mut self, groups: &[GroupId]) -> Result<Vec<GroupId>, StoreError> {
        block_on(self.inner.borrow_mut().left(groups))
    }

    fn cache_bytes(&self) -> u64 {
        0
    }

    async fn secure(&mut self) -> Result<AppliedPosition, StoreError> {
        block_on(self.read()?.secure())
    }
    async fn page(
        &mut self,
        user: UserId,
        after: Seq,
        rows_max: usize,
        bytes_max: usize,
        messages: &mut Messages,
    ) -> Result<Page, StoreError> {
        let page = block_on(self.read()?.page(user, after, rows_max, bytes_max, messages));
        if let Some(others) = self.after_page.take() {
            others();
        }
        page
    }
    async fn pages(&mut self, wanted: &[PageWanted], messages: &mut Messages) -> Vec<Result<Page, StoreError>> {
        pages_in_turn(self, wanted, messages).await
    }

    async fn find(&mut self, lookups: &[Lookup]) -> Result<NamesFound, StoreError> {
        block_on(self.read()?.find(lookups))
    }
    async fn kept_from(&mut self) -> Result<MsgId, StoreError> {
        block_on(self.read()?.kept_from())
    }
    async fn cursors(&mut self, devices: &[(UserId, DeviceId)]) -> Result<Vec<Option<Seq>>, StoreError> {
        block_on(self.read()?.cursors(devices))
    }
    async fn message(&mut self, msg_id: MsgId) -> Result<Option<MessageHead>, StoreError> {
        block_on(self.read()?.message(msg_id))
    }
    async fn devices(&mut self, users: &[UserId]) -> Result<Vec<CursorRow>, StoreError> {
        block_on(self.read()?.devices(users))
    }
    async fn save_cursors(&mut self, cursors: &[CursorRow]) -> Result<(), StoreError> {
        if self.away || self.writes_fail {
            return Err(lost());
        }
        block_on(self.inner.borrow_mut().save_cursors(cursors))
    }
}

#[derive(Default)]
pub(super) struct Group {
    pub(super) version: u32,
    pub(super) members: BTreeMap<u64, Role>,
    /// Where its roster was written in this segment, with each member's base.
    pub(super) roster: Option<(JournalPosition, RosterRecord)>,
    /// Who made it, or has added to it since.
    pub(super) maker: Option<UserId>,
}

/// What a ledger would have written, kept in the simplest way.
pub(super) struct World {
    pub(super) dir: TempDir,
    pub(super) disk: MemoryDisk,
    pub(super) journal: Journal<MemoryDisk>,
    pub(super) progress: Arc<Progress>,
    pub(super) rng: fastrand::Rng,
    pub(super) next_id: u64,
    pub(super) inboxes: BTreeMap<u64, Vec<(MsgId, Vec<u8>)>>,
    pub(super) names: HashMap<(u64, ClientMsgId), StoredMessage>,
    pub(super) groups: BTreeMap<u64, Group>,
}

pub(super) const USERS: u64 = 12;

impl World {
    pub(super) fn new(seed: u64) -> World {
        let disk = MemoryDisk::new(seed);
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut groups = BTreeMap::new();
        for id in 0..4 {
            groups.insert(1000 + id, Group::default());
        }
        World {
            dir: TempDir::new().unwrap(),
            journal: Journal::create(disk.clone(), JournalPosition(0), rng.u64(..)).unwrap(),
            disk,
            progress: Arc::new(Progress::default()),
            rng,
            next_id: 1,
            inboxes: (0..USERS).map(|user| (user, Vec::new())).collect(),
            names: HashMap::new(),
            groups,
        }
    }

    pub(super) fn keeper(&self) -> Keeper<Flaky, MemoryDisk> {
        let inner = SqliteStore::open(&self.dir.path().join("store.sqlite"), BATCH_ROWS).unwrap();
        let store = Flaky::new(inner);
        Keeper::new(store, self.disk.clone(), Arc::clone(&self.progress), 1)
    }

    pub(super) fn id(&mut self) -> MsgId {
        self.next_id += 1;
        MsgId(self.next_id << 20)
    }

    pub(super) fn number(&mut self, user: u64, msg_id: MsgId, body: &[u8]) -> Seq {
        let inbox = self.inboxes.entry(user).or_default();
        inbox.push((msg_id, body.to_vec()));
        Seq(inbox.len() as u64)
    }

    pub(super) fn body(&mut self) -> Vec<u8> {
        let length = if self.rng.u8(..) < 8 { 16 * 1024 } else { self.rng.usize(1..40) };
        vec![self.rng.u8(..); length]
    }

    pub(super) fn name(&mut self) -> ClientMsgId {
        ClientMsgId::from_parts(1_800_000_000_000, self.rng.u128(..))
    }

    pub(super) fn remember(
        &mut self,
        sender: u64,
        name: ClientMsgId,
        msg_id: MsgId,
        seq: Seq,
        to: Conversation,
        body: &[u8],
    ) {
        let stored = StoredMessage { msg_id, seq, sent_at_ms: msg_id.sent_at_ms(), digest: digest(to, body) };
        self.names.insert((sender, name), stored);
    }

    pub(super) fn add_direct(&mut self, batch: &mut Batch) {
        let (sender, to) = (self.rng.u64(0..USERS), self.rng.u64(0..USERS));
        let (msg_id, body, client_msg_id) = (self.id(), self.body(), self.name());
        let sender_seq = self.number(sender, msg_id, &body);
        let recipient_seq = if to == sender { sender_seq } else { self.number(to, msg_id, &body) };
        let record = DirectRecord {
            msg_id,
            sender: UserId(sender),
            to: UserId(to),
            client_msg_id,
            sender_seq,
            recipient_seq,
            body: &body,
        };
        batch.push(&Record::Direct(record));
        self.remember(sender, client_msg_id, msg_id, sender_seq, Conversation::User(UserId(to)), &body);
    }

    pub(super) fn add_group(&mut self, batch: &mut Batch, begin: JournalPosition) {
        let id = 1000 + self.rng.u64(0..4);
        let mut group = self.groups.remove(&id).unwrap();
        if group.members.is_empty() || self.rng.u8(..) < 30 {
            self.change(&mut group, id, batch);
        }
        if group.members.is_empty() {
            self.groups.insert(id, group);
            return;
        }
        if group.roster.is_none() || self.rng.u8(..) < 10 {
            let members = group.members.iter().map(|(user, role)| RosterRecordMember {
                user: UserId(*user),
                role: *role,
                base: Seq(self.inboxes[user].len() as u64),
            });
            let record =
                RosterRecord { group: GroupId(id), version: RosterVersion(group.version), members: members.collect() };
            let at = JournalPosition(begin.0 + batch.push(&Record::Roster(record.clone())));
            group.roster = Some((at, record));
        }
        let (roster_at, roster) = group.roster.as_ref().unwrap();
        let sender = *self.rng.choice(group.members.keys()).unwrap();
        let (msg_id, body, client_msg_id) = (self.id(), self.body(), self.name());
        let (mut differences, mut sender_seq) = (Vec::new(), Seq(0));
        for member in &roster.members {
            let seq = self.number(member.user.0, msg_id, &body);
            varint::put(&mut differences, seq.0 - member.base.0);
            if member.user.0 == sender {
                sender_seq = seq;
            }
        }
        batch.push(&Record::Group(GroupRecord {
            msg_id,
            sender: UserId(sender),
            group: GroupId(id),
            client_msg_id,
            roster_at: *roster_at,
            differences: &differences,
            body: &body,
        }));
        self.remember(sender, client_msg_id, msg_id, sender_seq, Conversation::Group(GroupId(id)), &body);
        self.groups.insert(id, group);
    }

    pub(super) fn change(&mut self, group: &mut Group, id: u64, batch: &mut Batch) {
        let user = self.rng.u64(0..USERS);
        let (kind, users, new_owner) = if group.members.is_empty() {
            let users: Vec<u64> = (0..USERS).filter(|other| *other != user && self.rng.bool()).collect();
            group.members = users.iter().map(|user| (*user, Role::Member)).collect();
            group.members.insert(user, Role::Owner);
            (GroupChangeKind::Created, users, None)
        } else if let Some(role) = group.members.remove(&user) {
            let next = group.members.iter_mut().next().filter(|_| role == Role::Owner);
            let new_owner = next.map(|(user, role)| {
                *role = Role::Owner;
                *user
            });
            (GroupChangeKind::Left, vec![user], new_owner)
        } else {
            group.members.insert(user, Role::Member);
            (GroupChangeKind::Added, vec![user], None)
        };
        let actor = match kind {
            GroupChangeKind::Added => *group.members.iter().find(|(_, role)| **role == Role::Owner).unwrap().0,
            _ => user,
        };
        if kind != GroupChangeKind::Left {
            group.maker = Some(UserId(actor));
        }
        group.version += 1;
        group.roster = None;
        batch.push(&Record::Change(ChangeRecord {
            msg_id: self.id(),
            group: GroupId(id),
            version: RosterVersion(group.version),
            kind,
            actor: UserId(actor),
            users: users.into_iter().map(UserId).collect(),
            new_owner: new_owner.map(UserId),
        }));
    }

    /// One commit of a few records, durable.
    pub(super) fn commit(&mut self) {
        let begin = self.journal.prepare().unwrap();
        let mut batch = Batch::new();
        for _ in 0..self.rng.usize(1..6) {
            if self.rng.bool() {
                self.add_direct(&mut batch);
            } else {
                self.add_group(&mut batch, begin);
            }
        }
        if !batch.is_empty() {
            self.journal.append(&mut batch).unwrap();
            self.progress.advance_durable(self.journal.sync().unwrap());
        }
    }

    /// The ledger starts again: a new segment, in which no roster has been written.
    pub(super) fn begin_segment(&mut self) {
        let start = self.journal.tail();
        self.journal = Journal::create(self.disk.clone(), start, self.rng.u64(..)).unwrap();
        for group in self.groups.values_mut() {
            group.roster = None;
        }
        self.progress.advance_durable(self.journal.tail());
    }

    pub(super) fn expected(&self, user: u64, after: u64, rows_max: usize) -> Vec<(u64, MsgId, Vec<u8>)> {
        let mut bytes = 0;
        let mut rows = Vec::new();
        for (place, (msg_id, body)) in self.inboxes[&user].iter().enumerate().skip(after as usize).take(rows_max) {
            rows.push((place as u64 + 1, *msg_id, body.clone()));
            bytes += body.len();
            if bytes >= PAGE_BYTES_MAX {
                break;
            }
        }
        rows
    }

    pub(super) fn expected_groups(&self) -> Vec<StoredGroup> {
        let inhabited = self.groups.iter().filter(|(_, group)| !group.members.is_empty());
        inhabited
            .map(|(id, group)| StoredGroup {
                group: GroupId(*id),
                version: RosterVersion(group.version),
                members: group.members.iter().map(|(user, role)| (UserId(*user), *role)).collect(),
                maker: group.maker,
            })
            .collect()
    }
}
