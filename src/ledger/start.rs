//! Builds the journal engine at start: what the store knows, then what the journal has beyond it.
//!
//! Runs once, before the ledger's thread loops. What always holds: when it ends, every user's seq, every group and
//! every message id are at least what they were when anybody was last told of one, and the window's horizon is
//! no earlier than what was replayed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::clock::Now;
use crate::contract::digest::digest;
use crate::contract::ids::LedgerSlot;
use crate::contract::keyed::TableKey;
use crate::contract::position::JournalPosition;
use crate::contract::progress::Progress;
use crate::contract::store::StorePosition;
use crate::contract::store::{NewestRow, StoredGroup};
use crate::journal::JournalError;
use crate::journal::disk::Disk;
use crate::journal::reader::Reader;
use crate::journal::record::{GroupRecord, Record, RosterRecord};
use crate::journal::recovery::{Recovered, TornTail, recover};
use crate::journal::room::Room;
use crate::journal::segment::{Journal, SEGMENT_HEADER_BYTES, list_segments, segment_name};
use crate::ledger::admission::Admission;
use crate::ledger::answers::Answers;
use crate::ledger::bases::Bases;
use crate::ledger::dedup::{Known, Name, Window, floor_behind};
use crate::ledger::groups::{Groups, OutOfOrder};
use crate::ledger::journal_engine::shares::Shares;
use crate::ledger::journal_engine::{Commit, JournalEngine, Settings};
use crate::ledger::ledger_clock::LedgerClock;
use crate::ledger::sequence::{MsgIdSource, Sequences};
use crate::limits::{LEDGER_USERS_MAX, WINDOW_MS};
use crate::spending::FanoutSpending;
use ringway_wire::ids::{ClientMsgId, GroupId, MsgId, Seq, UserId};

/// Why the ledger cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal cannot be read, or the disk has no room for a new segment.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal begins behind what the store has: what lies between is nowhere.
    #[error(
        "the store has everything up to position {applied} of the journal, but the journal begins only at {first}: \
         put the missing segments back, or the store that belongs to this journal"
    )]
    Behind {
        /// What the store has.
        applied: u64,
        /// Where the journal begins.
        first: u64,
    },
    /// The journal's changes do not follow from the store's groups.
    #[error("the journal and the store do not belong together: {0}")]
    Groups(#[from] OutOfOrder),
    /// A group message's rows cannot be told, though its batch is whole.
    #[error("the message at position {0} of the journal refers to a roster that does not fit it")]
    Roster(u64),
    /// More users than the ledger has room for.
    #[error("the store and the journal have more users than the limit of {0}")]
    Users(usize),
}

/// What a start found, for the log.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Started {
    /// Users with at least one row or group.
    pub(crate) users: usize,
    /// Groups.
    pub(crate) groups: usize,
    /// Messages in the journal that the store did not have.
    pub(crate) messages_replayed: u64,
    /// From when on repeats are known without asking the store, Unix milliseconds.
    pub(crate) horizon_ms: u64,
    /// What was thrown away.
    pub(crate) torn: Option<TornTail>,
    /// Segments removed because the store is ahead of all they have.
    pub(crate) segments_dropped: usize,
}

/// Gathers what the store knows; [`Start::finish`] adds the journal.
#[derive(Debug)]
pub struct Start {
    settings: Settings,
    store: StorePosition,
    sequences: Sequences,
    groups: Groups,
    users_over: bool,
}

impl Start {
    /// Before the store's rows and groups are visited.
    pub fn new(settings: Settings, store: StorePosition) -> Self {
        let sequences = Sequences::new(settings.seed);
        let groups = Groups::new(settings.seed ^ 1, settings.shards, settings.groups);
        Start { settings, store, sequences, groups, users_over: false }
    }

    /// A user's newest row in the store.
    pub fn newest_row(&mut self, row: NewestRow) {
        match self.sequences.assign(row.user) {
            Some(slot) => self.sequences.raise(slot, row.seq),
            None => self.users_over = true,
        }
    }

    /// A group in the store.
    pub fn group(&mut self, group: &StoredGroup) {
        self.users_over |= self.groups.load(group, &mut self.sequences).is_none();
    }

    /// Recovers and replays the journal in `disk` and begins a new segment. `progress` is set to where the
    /// journal and the store are.
    pub fn finish<D: Disk>(
        self,
        disk: D,
        progress: Arc<Progress>,
        now: Now,
    ) -> Result<(JournalEngine<D>, Started), StartError> {
        let Start { settings, store, sequences, groups, users_over } = self;
        if users_over {
            return Err(StartError::Users(LEDGER_USERS_MAX));
        }
        let recovered = recover(&disk, settings.segment_bytes)?;
        if recovered.segments > 0 && store.applied.in_journal() < recovered.first {
            return Err(StartError::Behind { applied: store.applied.0, first: recovered.first.0 });
        }
        let (begin, dropped) = beginning(&disk, &recovered, store.applied.in_journal())?;
        let mut clock = LedgerClock::default();
        let now = clock.read(now);
        let mut replay = Replay::new(&settings, store, sequences, groups, now);
        if dropped == 0 && recovered.segments > 0 {
            replay.run(disk.clone(), &recovered)?;
        }
        let window = replay.window(&settings, &recovered, dropped, now);
        let journal = Journal::with_segments_of(settings.segment_bytes, disk, begin, settings.seed)?;
        // What comes next stands behind all that the store and the journal have, in place and in number.
        assert!(journal.tail() >= store.applied.in_journal() && journal.tail() > recovered.end);
        assert!(replay.ids.last() >= store.msg_id_max, "a message id is given twice");
        progress.advance_durable(journal.tail());
        progress.advance_applied(store.applied);
        let mut segments: VecDeque<(JournalPosition, u64)> = replay.segments.into();
        segments.push_back((begin, replay.ids.time_ms(now.unix_ms)));
        let started = Started {
            users: replay.sequences.users(),
            groups: replay.groups.len(),
            messages_replayed: replay.messages,
            horizon_ms: window.horizon_ms(),
            torn: recovered.torn,
            segments_dropped: dropped,
        };
        replay.groups.keep();
        let room = Room::new(Arc::clone(&progress));
        let engine = JournalEngine {
            settings,
            clock,
            journal,
            progress,
            ids: replay.ids,
            sequences: replay.sequences,
            groups: replay.groups,
            window,
            waiting: Admission::new(settings.seed ^ 2),
            released: Vec::new(),
            bases: Bases::new(settings.seed ^ 3),
            shares: Shares::new(TableKey::new(settings.seed ^ 5)),
            spending: FanoutSpending::new(TableKey::new(settings.seed ^ 4)),
            segments,
            answers: Answers::default(),
            room,
            // What was there before the start may not be in the store.
            grown: true,
            commit: Commit::new(replay.ids.last()),
        };
        Ok((engine, started))
    }
}

/// Where the new segment starts. When the store is ahead of the whole journal (somebody moved it away or put an
/// old one back), what is left of it is in the store already, and goes: positions must have no holes.
fn beginning<D: Disk>(
    disk: &D,
    recovered: &Recovered,
    applied: JournalPosition,
) -> Result<(JournalPosition, usize), JournalError> {
    if applied.0 <= recovered.end.0 + SEGMENT_HEADER_BYTES {
        return Ok((recovered.end, 0));
    }
    let starts = list_segments(disk)?;
    for start in &starts {
        disk.remove(&segment_name(*start)).map_err(|source| JournalError::Io {
            what: "removing a segment that the store is ahead of",
            file: segment_name(*start),
            source,
        })?;
    }
    Ok((applied, starts.len()))
}

/// What grows while the journal is read.
struct Replay {
    applied: JournalPosition,
    ids: MsgIdSource,
    sequences: Sequences,
    groups: Groups,
    known: Vec<(Name, Known)>,
    /// No window will reach back beyond this.
    known_from_ms: u64,
    /// Where the window's floor is for what lies before that.
    floor_ms: u64,
    segments: Vec<(JournalPosition, u64)>,
    rosters: HashMap<JournalPosition, ReplayedRoster>,
    messages: u64,
    first_ms: Option<u64>,
    failed: Option<StartError>,
    store_ms: Option<u64>,
}

/// A roster of the segment being read.
struct ReplayedRoster {
    record: RosterRecord,
    slots: Vec<LedgerSlot>,
    index: HashMap<UserId, usize>,
    /// The last message's differences: each row of it is above those of the messages before.
    last: Vec<u8>,
}

impl Replay {
    fn new(settings: &Settings, store: StorePosition, sequences: Sequences, groups: Groups, now: Now) -> Self {
        let store_ms = (store.msg_id_max != MsgId(0)).then(|| store.msg_id_max.sent_at_ms());
        Replay {
            applied: store.applied.in_journal(),
            ids: MsgIdSource::new(settings.node, store.msg_id_max),
            sequences,
            groups,
            known: Vec::new(),
            known_from_ms: now.unix_ms.saturating_sub(WINDOW_MS),
            floor_ms: 0,
            segments: Vec::new(),
            rosters: HashMap::new(),
            messages: 0,
            first_ms: None,
            failed: None,
            store_ms,
        }
    }

    fn run<D: Disk>(&mut self, disk: D, recovered: &Recovered) -> Result<(), StartError> {
        let starts: Vec<JournalPosition> =
            list_segments(&disk)?.into_iter().filter(|start| *start < recovered.end).collect();
        let mut reader = Reader::new(disk);
        for (index, start) in starts.iter().enumerate() {
            let end = starts.get(index + 1).copied().unwrap_or(recovered.end);
            let began_ms = self.ids.last().sent_at_ms();
            let mut at = *start;
            while at < end && self.failed.is_none() {
                at = reader.read(at, end, usize::MAX, &mut |position, record| self.record(position, record))?;
            }
            self.finish_segment()?;
            let first_ms = if index == 0 { self.first_ms.unwrap_or(began_ms) } else { began_ms };
            self.segments.push((*start, first_ms));
        }
        Ok(())
    }

    fn record(&mut self, at: JournalPosition, record: Record<'_>) {
        if let Some(msg_id) = record.msg_id() {
            self.first_ms.get_or_insert(msg_id.sent_at_ms());
            self.ids.raise(msg_id);
        }
        let taken = match record {
            Record::Roster(roster) => self.roster(at, roster),
            Record::Group(message) => self.group(at, &message),
            Record::Direct(message) => {
                let name = Name { sender: message.sender, client_msg_id: message.client_msg_id };
                let digest = digest(message.to(), message.body);
                self.know(name, Known { msg_id: message.msg_id, seq: message.sender_seq, digest });
                self.messages += u64::from(at >= self.applied);
                self.raise(message.sender, message.sender_seq)
                    .and_then(|()| self.raise(message.to, message.recipient_seq))
            }
            Record::Change(change) if at >= self.applied => {
                let roster = self.groups.apply(&change, &mut self.sequences).map_err(StartError::from);
                roster.and_then(|roster| roster.map(drop).ok_or(StartError::Users(LEDGER_USERS_MAX)))
            }
            // Of these the last two are in a cluster's node's files only.
            Record::Change(_) | Record::Mark(..) | Record::Withdrawn(_) => Ok(()),
        };
        if let Err(error) = taken {
            self.failed.get_or_insert(error);
        }
        self.groups.keep();
    }

    fn roster(&mut self, at: JournalPosition, record: RosterRecord) -> Result<(), StartError> {
        let mut slots = Vec::with_capacity(record.members.len());
        let mut index = HashMap::with_capacity(record.members.len());
        for (place, member) in record.members.iter().enumerate() {
            let slot = self.sequences.assign(member.user);
            slots.push(slot.ok_or(StartError::Users(LEDGER_USERS_MAX))?);
            index.insert(member.user, place);
        }
        self.rosters.insert(at, ReplayedRoster { record, slots, index, last: Vec::new() });
        Ok(())
    }

    fn group(&mut self, at: JournalPosition, message: &GroupRecord<'_>) -> Result<(), StartError> {
        let roster = self.rosters.get_mut(&message.roster_at).ok_or(StartError::Roster(at.0))?;
        let place = roster.index.get(&message.sender).copied();
        let seq = place.and_then(|place| message.seq_at(&roster.record, place)).ok_or(StartError::Roster(at.0))?;
        let name = Name { sender: message.sender, client_msg_id: message.client_msg_id };
        let digest = digest(message.to(), message.body);
        roster.last.clear();
        roster.last.extend_from_slice(message.differences);
        self.know(name, Known { msg_id: message.msg_id, seq, digest });
        self.messages += u64::from(at >= self.applied);
        Ok(())
    }

    /// The newest rows of a segment's group messages.
    fn finish_segment(&mut self) -> Result<(), StartError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        for (at, roster) in std::mem::take(&mut self.rosters) {
            if roster.last.is_empty() {
                continue;
            }
            let last = GroupRecord { differences: &roster.last, ..EMPTY };
            let rows = last.rows(&roster.record).map_err(|_| StartError::Roster(at.0))?;
            for (slot, (_, seq)) in roster.slots.iter().zip(rows) {
                self.sequences.raise(*slot, seq);
            }
        }
        Ok(())
    }

    fn know(&mut self, name: Name, known: Known) {
        if known.msg_id.sent_at_ms() >= self.known_from_ms {
            self.known.push((name, known));
        } else {
            self.floor_ms = self.floor_ms.max(floor_behind(&name));
        }
    }

    fn raise(&mut self, user: UserId, seq: Seq) -> Result<(), StartError> {
        let slot = self.sequences.assign(user).ok_or(StartError::Users(LEDGER_USERS_MAX))?;
        self.sequences.raise(slot, seq);
        Ok(())
    }

    /// The window over all that was replayed.
    fn window(&mut self, settings: &Settings, recovered: &Recovered, dropped: usize, now: Now) -> Window {
        let whole = recovered.segments > 0 && recovered.first == JournalPosition(0) && dropped == 0;
        let known_from = match (whole, self.first_ms) {
            (true, _) => 0,
            // Messages of the same millisecond may be in a segment that is gone.
            (false, Some(first_ms)) => first_ms + 1,
            (false, None) => self.store_ms.map_or(0, |store_ms| store_ms + 1),
        };
        let mut window = Window::new(settings.seed ^ 4, known_from.max(self.floor_ms));
        window = window.with_entries_max(settings.window_entries_max);
        for (name, known) in self.known.drain(..) {
            window.insert(name, known);
        }
        window.advance(self.ids.time_ms(now.unix_ms));
        window
    }
}

const EMPTY: GroupRecord<'static> = GroupRecord {
    msg_id: MsgId(0),
    sender: UserId(0),
    group: GroupId(0),
    client_msg_id: ClientMsgId([0; 16]),
    roster_at: JournalPosition(0),
    differences: &[],
    body: &[],
};

#[cfg(test)]
mod tests;
