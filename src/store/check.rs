//! `ringway store check`: whether the store has what the journal says, message by message and row by row.
//!
//! Reads only, on the main thread, of a gateway that is stopped or runs. What always holds: memory stays bounded by a
//! segment of the journal, the groups, and a number for each user in the journal; and whatever differs is counted,
//! though only the first few are named.

use std::collections::BTreeMap;

use super::names::substitute;
use super::{GroupWrite, InboxRow, Store, StoreError, StoredBody, Transaction};
use crate::contract::position::{AppliedPosition, JournalPosition};
use crate::journal::JournalError;
use crate::journal::disk::Disk;
use crate::journal::recovery::verify;
use crate::journal::segment::{SEGMENT_BYTES_MIN, list_segments};
use crate::limits::TRANSACTION_BYTES_MAX;
use crate::store::tail::Tail;
use ringway_wire::ids::{GroupId, MsgId, RosterVersion, Seq, UserId};
use ringway_wire::schema::Role;

/// Rows compared at once.
const ROWS: usize = 50_000;
/// Messages compared at once.
const BODIES: usize = 64;
/// Differences that are named.
const NAMED_MAX: usize = 20;

/// A database whose rows can be compared.
pub(crate) trait Inspect: Store {
    /// A user's rows from `from` to `to`, both included, in order.
    async fn rows(&mut self, user: UserId, from: Seq, to: Seq) -> Result<Vec<(Seq, MsgId)>, StoreError>;
    /// The messages with these numbers that are there, in any order.
    async fn bodies(&mut self, ids: &[MsgId]) -> Result<Vec<StoredBody>, StoreError>;
}

/// Why nothing could be compared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no journal.
    #[error("there is no journal to compare the store with")]
    NoJournal,
}

/// What was compared, and what differs.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Findings {
    /// Where the journal begins, and where it ends.
    pub(crate) journal: (JournalPosition, JournalPosition),
    /// Up to where the store says it has it.
    pub(crate) applied: AppliedPosition,
    /// Messages that both have.
    pub(crate) messages: u64,
    /// Rows that both have.
    pub(crate) rows: u64,
    /// Messages that both have, the store under a substitute because their names were taken.
    pub(crate) names_taken: u64,
    /// Messages that retention has deleted from the store.
    pub(crate) expired: u64,
    /// Messages of the journal that the store is still to get.
    pub(crate) waiting_messages: u64,
    /// And their rows.
    pub(crate) waiting_rows: u64,
    /// The first differences.
    pub(crate) differences: Vec<String>,
    /// All of them.
    pub(crate) differences_count: u64,
}

impl Findings {
    /// Nothing differs.
    pub(crate) fn are_none(&self) -> bool {
        self.differences_count == 0
    }

    fn differs(&mut self, what: String) {
        self.differences_count += 1;
        if self.differences.len() < NAMED_MAX {
            self.differences.push(what);
        }
    }
}

/// Compares the journal in `disk` with the store.
pub(crate) async fn check<S: Inspect, D: Disk>(store: &mut S, disk: &D) -> Result<Findings, CheckError> {
    // Before the journal is read: what a running gateway applies meanwhile is in both.
    let applied = store.position().await?.applied;
    let journal = verify(disk, SEGMENT_BYTES_MIN)?.journal;
    if journal.segments == 0 {
        return Err(CheckError::NoJournal);
    }
    let mut findings = Findings { journal: (journal.first, journal.end), applied, ..Findings::default() };
    let upto = applied.in_journal();
    if upto < journal.first {
        findings.differs(format!(
            "the journal begins at position {}, and the store has only what lies below {}: what lies between is nowhere",
            journal.first.0, applied.0
        ));
    }
    if upto > journal.end {
        findings.differs(format!(
            "the store is at position {} of a journal, and this one ends at {}: they do not belong together, or the \
             journal's end was lost",
            applied.0, journal.end.0
        ));
    }
    let kept_from = store.kept_from().await?;
    let mut check = Check {
        store,
        findings,
        kept_from,
        newest: BTreeMap::new(),
        groups: BTreeMap::new(),
        written: BTreeMap::new(),
    };
    check.journal(disk, journal.first, journal.end, upto).await?;
    check.newest().await?;
    check.groups().await?;
    Ok(check.findings)
}

/// As it is stored if its name was taken.
fn renamed(message: &StoredBody) -> StoredBody {
    StoredBody { client_msg_id: substitute(message.msg_id), ..message.clone() }
}

struct Check<'a, S> {
    store: &'a mut S,
    findings: Findings,
    kept_from: MsgId,
    /// The last row of each user that the store should have, as far as the journal says.
    newest: BTreeMap<UserId, Seq>,
    /// The store's.
    groups: BTreeMap<GroupId, (RosterVersion, BTreeMap<UserId, Role>)>,
    /// The last change of each group that the store should have.
    written: BTreeMap<GroupId, GroupWrite>,
}

impl<S: Inspect> Check<'_, S> {
    /// Goes through the journal, a segment at a time, cut at the applied position.
    async fn journal<D: Disk>(
        &mut self,
        disk: &D,
        first: JournalPosition,
        end: JournalPosition,
        applied: JournalPosition,
    ) -> Result<(), CheckError> {
        let mut cuts: Vec<JournalPosition> = list_segments(disk)?.into_iter().chain([applied, end]).collect();
        cuts.retain(|cut| *cut > first && *cut <= end);
        cuts.sort_unstable();
        cuts.dedup();
        let mut tail = Tail::new(disk.clone(), first);
        for cut in cuts {
            tail.ingest(cut)?;
            while let Some(transaction) = tail.transaction(tail.applied(), ROWS, TRANSACTION_BYTES_MAX)? {
                let through = transaction.applied;
                match cut <= applied {
                    true => self.stored(transaction).await?,
                    false => self.waiting(&transaction).await?,
                }
                tail.advance(through);
            }
        }
        Ok(())
    }

    /// A part of the journal that the store says it has.
    async fn stored(&mut self, transaction: Transaction) -> Result<(), CheckError> {
        for messages in transaction.messages.chunks(BODIES) {
            let ids: Vec<MsgId> = messages.iter().map(|message| message.msg_id).collect();
            let found: BTreeMap<MsgId, StoredBody> =
                self.store.bodies(&ids).await?.into_iter().map(|body| (body.msg_id, body)).collect();
            for message in messages {
                match found.get(&message.msg_id) {
                    Some(found) if found == message => self.findings.messages += 1,
                    Some(found) if *found == renamed(message) => self.findings.names_taken += 1,
                    Some(_) => self.findings.differs(format!("message {} is another in the store", message.msg_id)),
                    None if message.msg_id < self.kept_from => self.findings.expired += 1,
                    None => self.findings.differs(format!("message {} is missing in the store", message.msg_id)),
                }
            }
        }
        for rows in transaction.rows.chunk_by(|a, b| a.user == b.user) {
            self.rows(rows).await?;
        }
        for write in transaction.groups {
            self.written.insert(write.group, write);
        }
        Ok(())
    }

    /// Rows of one user that follow one another.
    async fn rows(&mut self, rows: &[InboxRow]) -> Result<(), CheckError> {
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(()) };
        self.newest.insert(last.user, last.seq);
        let found = self.store.rows(first.user, first.seq, last.seq).await?;
        let mut found = found.into_iter().peekable();
        for row in rows {
            while let Some((seq, msg_id)) = found.next_if(|(seq, _)| *seq < row.seq) {
                self.extra(row.user, seq, msg_id);
            }
            match found.next_if(|(seq, _)| *seq == row.seq) {
                Some((_, msg_id)) if msg_id == row.msg_id => self.findings.rows += 1,
                Some((_, msg_id)) => self.findings.differs(format!(
                    "row {} of user {} is message {msg_id} in the store and {} in the journal",
                    row.seq, row.user, row.msg_id
                )),
                None if row.msg_id < self.kept_from => {}
                None => self.findings.differs(format!(
                    "row {} of user {} (message {}) is missing in the store",
                    row.seq, row.user, row.msg_id
                )),
            }
        }
        for (seq, msg_id) in found {
            self.extra(first.user, seq, msg_id);
        }
        Ok(())
    }

    fn extra(&mut self, user: UserId, seq: Seq, msg_id: MsgId) {
        self.findings
            .differs(format!("row {seq} of user {user} (message {msg_id}) is in the store, not in the journal"));
    }

    /// Nobody has rows behind those of the journal.
    async fn newest(&mut self) -> Result<(), CheckError> {
        let mut ahead = Vec::new();
        let newest = &self.newest;
        self.store
            .newest_rows(&mut |row| {
                if let Some(last) = newest.get(&row.user).filter(|last| row.seq > **last) {
                    ahead.push((row, *last));
                }
            })
            .await?;
        // They are right if a gateway runs that has applied more since.
        if self.store.position().await?.applied == self.findings.applied {
            for (row, last) in ahead {
                self.findings.differs(format!(
                    "user {} has rows up to {} in the store, and up to {last} in the journal",
                    row.user, row.seq
                ));
            }
        }
        Ok(())
    }

    /// A part of the journal that the store is still to get.
    async fn waiting(&mut self, transaction: &Transaction) -> Result<(), CheckError> {
        self.findings.waiting_messages += transaction.messages.len() as u64;
        self.findings.waiting_rows += transaction.rows.len() as u64;
        let mut there = Vec::new();
        for messages in transaction.messages.chunks(BODIES) {
            let ids: Vec<MsgId> = messages.iter().map(|message| message.msg_id).collect();
            there.extend(self.store.bodies(&ids).await?.into_iter().map(|found| found.msg_id));
        }
        // If a gateway runs it may have applied them since the position was read. It is read again behind them, since it
        // becomes visible together with them: read before them it could still be the old one.
        if self.store.position().await?.applied > self.findings.applied {
            return Ok(());
        }
        for msg_id in there {
            self.findings
                .differs(format!("message {msg_id} is in the store, though by its position it is still to get it"));
        }
        Ok(())
    }

    /// Each group as its last change left it, as far as the change says.
    async fn groups(&mut self) -> Result<(), CheckError> {
        let groups = &mut self.groups;
        self.store
            .groups(&mut |group| {
                groups.insert(group.group, (group.version, group.members.into_iter().collect()));
            })
            .await?;
        for (group, write) in &self.written {
            let Some((version, members)) = self.groups.get(group) else {
                // The last member's leaving deletes it.
                if write.delete.is_empty() {
                    self.findings.differs(format!("group {group} is missing in the store"));
                }
                continue;
            };
            if *version < write.version {
                self.findings.differs(format!(
                    "group {group} has version {} in the store and {} in the journal",
                    version.0, write.version.0
                ));
            }
            // A later version is of changes that were applied since the position was read.
            if *version != write.version {
                continue;
            }
            let wrong = write.put.iter().filter(|(user, role)| members.get(user) != Some(role)).map(|(user, _)| user);
            let put = |user: &&UserId| !write.put.iter().any(|(member, _)| member == *user);
            let left = write.delete.iter().filter(put).filter(|user| members.contains_key(user));
            for user in wrong.chain(left) {
                self.findings.differs(format!("user {user} of group {group} is not in the store as in the journal"));
            }
        }
        Ok(())
    }
}
