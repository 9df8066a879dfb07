//! The ledger of one machine: numbers in memory, one journal on disk.
//!
//! Owned by the ledger's thread. What always holds: what is staged is numbered, in the window and in the batch,
//! and seen by later submissions of the same commit, but by nobody else until the batch is synced; if the batch
//! cannot be written, numbers, window and groups are as if it had never been staged.

mod commit;
mod numbering;
pub(super) mod shares;

use std::collections::VecDeque;
use std::sync::Arc;

use self::shares::Shares;
use crate::clock::Now;
use crate::contract::delivery::{Delivery, GroupAnnouncement};
use crate::contract::ids::ShardId;
use crate::contract::policies::{Policies, Rules};
use crate::contract::position::JournalPosition;
use crate::contract::progress::Progress;
use crate::contract::report::LedgerCounters;
use crate::contract::store::{Lookup, LookupAnswer};
use crate::contract::submission::{ChangeSubmission, MessageSubmission, Submission};
use crate::contract::traffic::TrafficLimits;
use crate::journal::JournalError;
use crate::journal::batch::Batch;
use crate::journal::disk::Disk;
use crate::journal::record::Record;
use crate::journal::room::Room;
use crate::journal::segment::Journal;
use crate::ledger::admission::{Admission, Turn, named_at};
use crate::ledger::answers::{Answers, Refusal};
use crate::ledger::bases::Bases;
use crate::ledger::dedup::{Name, Seen, Window};
use crate::ledger::groups::{GroupLimits, Groups, Plan};
use crate::ledger::ledger_clock::LedgerClock;
use crate::ledger::pending::{Place, Wait};
use crate::ledger::pending_delivery::PendingDelivery;
use crate::ledger::sequence::{MsgIdSource, Sequences};
use crate::ledger::{Engine, LedgerError};
use crate::limits::{
    COMMIT_BYTES_BEHIND, COMMIT_BYTES_MAX, COMMIT_BYTES_PER_ROW, COMMIT_MESSAGES_MAX, COMMIT_ROWS_BEHIND,
    COMMIT_ROWS_MAX, JOURNAL_BATCH_BYTES_MAX, JOURNAL_BYTES_MAX, RELEASED_ROWS_MAX, SEGMENT_BYTES, TAIL_MESSAGES_MAX,
    WINDOW_ENTRIES_MAX,
};
use crate::spending::FanoutSpending;
use ringway_wire::ids::{GroupId, MsgId, UserId};
use ringway_wire::schema::GroupChangeKind;

/// The largest record, a roster, and the message behind it, fit in what a batch keeps free.
const RECORD_RESERVE_BYTES: usize = 1 << 20;

/// What an operator or a test decides.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How many shards there are.
    pub shards: u16,
    /// This node's number, 0 to 1023, part of each message id.
    pub node: u16,
    /// Size of a segment; at least the largest batch fits.
    pub segment_bytes: u64,
    /// Cap of the journal's unapplied part.
    pub journal_bytes_max: u64,
    /// Cap of the unapplied messages.
    pub tail_messages_max: u64,
    /// Entries of the de-duplication window.
    pub window_entries_max: usize,
    /// Sizes of groups.
    pub groups: GroupLimits,
    /// What one account may send.
    pub traffic: TrafficLimits,
    /// What clients are let do.
    pub policies: Policies,
    /// What salts and hashes are made from; not to be guessed from outside.
    pub seed: u64,
}

impl Settings {
    /// The defaults in `limits.rs`.
    pub fn new(shards: u16, seed: u64) -> Self {
        Settings {
            shards,
            node: 0,
            segment_bytes: SEGMENT_BYTES,
            journal_bytes_max: JOURNAL_BYTES_MAX,
            tail_messages_max: TAIL_MESSAGES_MAX as u64,
            window_entries_max: WINDOW_ENTRIES_MAX,
            groups: GroupLimits::default(),
            traffic: TrafficLimits::default(),
            policies: Policies::default(),
            seed,
        }
    }
}

/// The engine.
#[derive(Debug)]
pub struct JournalEngine<D: Disk> {
    pub(super) settings: Settings,
    pub(super) clock: LedgerClock,
    pub(super) journal: Journal<D>,
    pub(super) progress: Arc<Progress>,
    pub(super) ids: MsgIdSource,
    pub(super) sequences: Sequences,
    pub(super) groups: Groups,
    pub(super) window: Window,
    /// A moment is the highest message id of then.
    pub(super) waiting: Admission<MsgId>,
    /// [`Engine::take_released`].
    pub(super) released: Vec<(UserId, usize)>,
    pub(super) bases: Bases,
    /// What senders and groups have had lately. What a commit that failed was charged for is not given back.
    pub(super) spending: FanoutSpending,
    pub(super) shares: Shares,
    /// Segments on disk: where each starts, and the ledger's time by then, Unix milliseconds.
    pub(super) segments: VecDeque<(JournalPosition, u64)>,
    pub(super) answers: Answers,
    pub(super) room: Room,
    /// The journal has grown since [`Engine::grew`] was asked.
    pub(super) grown: bool,
    pub(super) commit: Commit,
}

/// The commit being filled.
#[derive(Debug)]
pub(super) struct Commit {
    batch: Batch,
    /// Where the batch will begin; `None` until the first record.
    at: Option<JournalPosition>,
    /// There is no room on disk; found out once per commit.
    blocked: bool,
    messages: usize,
    rows: usize,
    changes: usize,
    /// Rows of what had waited for the store, and bytes that count as rows.
    released: usize,
    /// What the store's tail will weigh more.
    weight: u64,
    /// The highest message id before it.
    before: MsgId,
    size: CommitSize,
}

/// From when on a commit is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct CommitSize {
    rows: usize,
    bytes: usize,
}

impl CommitSize {
    /// Nothing was left waiting by the one before: whatever comes at once is committed at once.
    const FIRST: CommitSize = CommitSize { rows: COMMIT_ROWS_MAX, bytes: COMMIT_BYTES_MAX };
    /// The one before was full.
    const BEHIND: CommitSize = CommitSize { rows: COMMIT_ROWS_BEHIND, bytes: COMMIT_BYTES_BEHIND };
}

impl Commit {
    pub(super) fn new(before: MsgId) -> Self {
        let batch = Batch::new();
        let size = CommitSize::FIRST;
        let (messages, rows, changes, released, weight) = (0, 0, 0, 0, 0);
        Commit { batch, at: None, blocked: false, messages, rows, changes, released, weight, before, size }
    }

    fn begin_again(&mut self, before: MsgId, size: CommitSize) {
        self.size = size;
        self.batch.clear();
        self.at = None;
        self.blocked = false;
        (self.messages, self.rows, self.changes, self.released, self.weight) = (0, 0, 0, 0, 0);
        self.before = before;
    }
}

impl<D: Disk> Engine for JournalEngine<D> {
    fn submit(&mut self, now: Now, submission: Submission) {
        let now = self.clock.read(now);
        match submission {
            Submission::Message(submission) => self.send(now, submission, Place::Last),
            Submission::Change(change) => {
                let origin = change.origin;
                if let Err(refusal) = self.change(now, change) {
                    self.answers.refuse(origin, refusal);
                }
            }
            Submission::Position { origin, user } => {
                let newest = self.sequences.newest(user);
                self.answers.push(PendingDelivery::Position { origin, user, newest, given: newest });
            }
            Submission::Groups { origin, user } => {
                let groups = self.groups.of_user(user, &self.sequences);
                self.answers.push(PendingDelivery::Groups { origin, user, groups });
            }
            Submission::Made { origin, user } => {
                let groups = self.groups.made_by(user);
                self.answers.stage(Delivery::Groups { origin, groups });
            }
            Submission::Sharing { origin, user, users } => {
                let users = self.groups.sharing(user, users, &self.sequences);
                self.answers.stage(Delivery::Sharing { origin, users });
            }
            Submission::Ephemeral(incoming) => {
                let origin = incoming.origin;
                match self.check_recipient(&incoming) {
                    Ok(()) => self.answers.stage(Delivery::Permitted { origin, incoming: Box::new(incoming) }),
                    Err(refusal) => self.answers.refuse(origin, refusal),
                }
            }
            Submission::Roster { shard, group } => {
                debug_assert_eq!(
                    shard,
                    ShardId::of_group(group, self.settings.shards),
                    "only a group's home asks for its roster"
                );
                let roster = self.groups.roster(group).cloned();
                self.answers.stage(Delivery::Roster { group, roster });
            }
        }
    }

    fn found(&mut self, now: Now, answer: LookupAnswer) {
        let now = self.clock.read(now);
        self.waiting.found(&answer.lookup, answer.found);
        self.release(now);
    }

    fn full(&self) -> bool {
        let CommitSize { rows, bytes } = self.commit.size;
        self.answers.len() >= COMMIT_MESSAGES_MAX || self.commit.rows >= rows || self.commit.batch.len() >= bytes
    }

    fn staged_rows(&self) -> usize {
        self.commit.rows
    }

    fn take_released(&mut self, out: &mut Vec<(UserId, usize)>) {
        out.append(&mut self.released);
    }

    fn grew(&mut self) -> bool {
        std::mem::take(&mut self.grown)
    }

    fn commit(&mut self, now: Now, out: &mut [Vec<Delivery>]) -> Result<(), LedgerError> {
        let now = self.clock.read(now);
        self.release(now);
        let next_size = if self.full() { CommitSize::BEHIND } else { CommitSize::FIRST };
        let written = self.write(now)?;
        let shards = self.settings.shards;
        if written {
            self.answers.drain().for_each(|delivery| delivery.hand_out(shards, out));
        } else {
            let staged = self.answers.take();
            self.take_back(&staged);
            staged.into_iter().for_each(|item| self.instead(item).hand_out(shards, out));
        }
        self.groups.keep();
        self.commit.begin_again(self.ids.last(), next_size);
        self.window.advance(self.ids.time_ms(now.unix_ms));
        self.retire();
        if self.room.is_due(now.mono_ms) && !self.is_at_limit() && self.begin_batch(now).is_ok() {
            self.room.is_there();
        }
        Ok(())
    }

    fn take_lookups(&mut self, out: &mut Vec<Lookup>) {
        self.waiting.take_lookups(out);
    }

    fn has_more(&self) -> bool {
        self.waiting.has_turns()
    }

    fn set_rules(&mut self, Rules { traffic, policies, .. }: Rules) {
        (self.settings.traffic, self.settings.policies) = (traffic, policies);
    }

    fn counters(&self) -> LedgerCounters {
        let journal_full = u64::from(self.room.is_none());
        let syncs = self.journal.syncs();
        LedgerCounters { syncs, journal_full, ..self.answers.counters }
    }
}

impl<D: Disk> JournalEngine<D> {
    /// Where the next batch goes.
    pub fn tail(&self) -> JournalPosition {
        self.journal.tail()
    }

    /// From when on (Unix milliseconds) repeats are known without asking the store.
    #[cfg(test)]
    pub(super) fn horizon_ms(&self) -> u64 {
        self.window.horizon_ms()
    }

    /// A group's current roster.
    #[cfg(test)]
    pub(super) fn roster(&self, group: GroupId) -> Option<&Arc<crate::contract::message::Roster>> {
        self.groups.roster(group)
    }

    /// Goes on with what waited, of senders for whom the store has answered, as far as the commit has room for it.
    fn release(&mut self, now: Now) {
        while !self.full() && self.commit.released < RELEASED_ROWS_MAX {
            let (rows, bytes) = (self.commit.rows, self.commit.batch.len());
            let sender = match self.waiting.next(&mut self.answers) {
                None => return,
                Some(Turn::Over) => continue,
                Some(Turn::Unasked(submission)) => {
                    let sender = submission.incoming.sender;
                    self.send(now, submission, Place::First);
                    sender
                }
                // Another asking of the same name may have been numbered since, and even left the window.
                Some(Turn::NotStored(submission, asked)) => {
                    let sender = submission.incoming.sender;
                    match self.window.seen_since(&Name::of(&submission.incoming), asked) {
                        Seen::Before(known) => self.answers.repeat(&submission.incoming, known),
                        Seen::Never => self.number(now, submission),
                        Seen::Perhaps => self.look_up_first(submission),
                    }
                    sender
                }
            };
            let bytes = self.commit.batch.len() - bytes;
            let released = 1 + self.commit.rows - rows + bytes / COMMIT_BYTES_PER_ROW;
            self.commit.released += released;
            self.released.push((sender, released));
        }
    }

    /// Numbers a message, or finds out that it is a repeat, or that it has to wait: for the store's answer, or for what
    /// its sender sent before.
    fn send(&mut self, now: Now, submission: MessageSubmission, place: Place) {
        let incoming = &submission.incoming;
        let time_ms = self.ids.time_ms(now.unix_ms);
        self.window.pass(time_ms);
        let named_ms = match named_at(incoming, time_ms, &self.clock) {
            Ok(named_ms) => named_ms,
            Err(refusal) => return self.answers.refuse(incoming.origin, refusal),
        };
        match (self.window.seen(&Name::of(incoming), named_ms), place) {
            (Seen::Before(known), _) => self.answers.repeat(incoming, known),
            (Seen::Never, Place::Last) if self.waiting.waits_for(incoming.sender) => {
                self.waiting.park(submission, Wait::Behind, &mut self.answers);
            }
            (Seen::Never, _) => self.number(now, submission),
            (Seen::Perhaps, Place::Last) => {
                self.waiting.park(submission, Wait::Lookup(self.ids.last()), &mut self.answers);
            }
            (Seen::Perhaps, Place::First) => self.look_up_first(submission),
        }
    }

    fn look_up_first(&mut self, submission: MessageSubmission) {
        self.waiting.park_first(submission, self.ids.last(), &mut self.answers);
    }

    fn change(&mut self, now: Now, submission: ChangeSubmission) -> Result<(), Refusal> {
        let ChangeSubmission { origin, actor, ref change, adding } = submission;
        let permission = self.settings.policies.adding_members.asked_by(origin, self.settings.shards);
        let wish = (change, adding, permission);
        let mut record = match self.groups.plan(actor, wish, &self.sequences) {
            Ok(Plan::Change(record)) => record,
            Ok(Plan::Nothing { group, version }) => {
                self.answers.unchanged(origin, group, version);
                return Ok(());
            }
            Err(not_planned) => {
                self.answers.not_planned(origin, not_planned);
                return Ok(());
            }
        };
        self.make_room(now)?;
        let taken = self.spending.take_change(now.mono_ms, &self.settings.traffic, actor, record.making());
        taken.map_err(Refusal::Limited)?;
        record.msg_id = self.ids.next(now.unix_ms);
        if record.kind == GroupChangeKind::Created {
            record.group = GroupId(record.msg_id.0);
        }
        let applied = self.groups.apply(&record, &mut self.sequences);
        assert!(applied.is_ok(), "a planned change follows from what it was planned on");
        let roster = applied.ok().flatten().ok_or(Refusal::StorageFull)?;
        let (users, left_out) = (record.users.clone(), submission.left_out(&roster));
        let announcement = GroupAnnouncement { kind: record.kind, actor, users, left_out };
        self.commit.batch.push(&Record::Change(record));
        self.commit.changes += 1;
        self.commit.weight += 1;
        self.answers.stage(Delivery::Changed { origin, roster, announcement: Arc::new(announcement) });
        Ok(())
    }

    /// Sees to it that one more record can be staged; returns where the batch begins.
    fn make_room(&mut self, now: Now) -> Result<JournalPosition, Refusal> {
        if self.is_at_limit() {
            self.room.at_limit(now.mono_ms);
            return Err(Refusal::StorageFull);
        }
        if self.commit.blocked {
            return Err(Refusal::StorageFull);
        }
        if self.commit.batch.len() + RECORD_RESERVE_BYTES > JOURNAL_BATCH_BYTES_MAX {
            return Err(Refusal::RetryLater);
        }
        if let Some(at) = self.commit.at {
            return Ok(at);
        }
        match self.begin_batch(now) {
            Ok(at) => {
                self.commit.at = Some(at);
                Ok(at)
            }
            Err(error) => {
                self.room.refused(now.mono_ms, &error);
                self.commit.blocked = true;
                Err(Refusal::StorageFull)
            }
        }
    }

    /// The journal has as much as it may of what the store has not.
    fn is_at_limit(&mut self) -> bool {
        self.unstored_bytes() > self.settings.journal_bytes_max
            || self.unstored_weight() >= self.settings.tail_messages_max
    }

    /// Sees to it that the journal has room for a batch; returns where it begins.
    fn begin_batch(&mut self, now: Now) -> Result<JournalPosition, JournalError> {
        let before = self.journal.segment();
        let at = self.journal.prepare()?;
        if self.journal.segment() != before {
            self.bases.clear();
            self.segments.push_back((self.journal.segment(), self.ids.time_ms(now.unix_ms)));
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests;
