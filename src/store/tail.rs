//! The unapplied tail: what is durable in the journal and not yet in the store, indexed so that it can be read.
//!
//! Owned by the store's thread. Bodies stay in the journal (the page cache, mostly); in memory there are about
//! 110 bytes a message and 90 bytes a member of each roster that unapplied messages refer to, never a row. A
//! user's rows are found from the rosters the user is in, and each row's seq from its record's differences.
//!
//! What always holds: it covers exactly the records from the applied position to the ingested one, in journal
//! order, which is each user's seq order. A roster that a message refers to may lie below the applied position;
//! it is read from its segment, which exists, because the message is in the same one.

mod index;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::Transaction;
use super::batch::Gathering;
use super::messages::Messages;
use super::page::Assembly;
use crate::contract::digest::digest;
use crate::contract::internal::{OrCount, Place};
use crate::contract::message::Message;
use crate::contract::position::{AppliedPosition, JournalPosition, StreamDigest, StreamPosition};
use crate::contract::store::{Lookup, MessageHead, StoredMessage};
use crate::journal::JournalError;
use crate::journal::disk::Disk;
use crate::journal::reader::Reader;
use crate::journal::record::{DirectRecord, GroupRecord, Record};
use index::{Index, Kind, Number, Source};
use ringway_wire::ids::{Conversation, MsgId, Seq, UserId};

/// Bytes ingested at once.
const INGEST_BYTES: usize = 1 << 20;

/// The unapplied tail of the journal in `D`.
pub(crate) struct Tail<D: Disk> {
    /// Follows the ledger.
    ahead: Reader<D>,
    /// Follows the store.
    behind: Reader<D>,
    /// Goes to single records.
    spot: Reader<D>,
    applied: JournalPosition,
    ingested: JournalPosition,
    counts: Counts,
    index: Index,
}

/// In what the store's position counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Counts {
    /// Bytes of this journal.
    Bytes,
    /// Entries of the stream that the journal is a copy of; marks in it say where each ends.
    Entries,
}

impl<D: Disk> Tail<D> {
    /// The tail behind an applied position; nothing is ingested yet.
    pub(crate) fn new(disk: D, applied: JournalPosition) -> Self {
        Tail {
            ahead: Reader::new(disk.clone()),
            behind: Reader::new(disk.clone()),
            spot: Reader::new(disk),
            applied,
            ingested: applied,
            counts: Counts::Bytes,
            index: Index::default(),
        }
    }

    /// The tail of a copy of a cluster's stream, from where its first segment begins.
    pub(crate) fn of_stream(disk: D, first: JournalPosition) -> Self {
        Tail { counts: Counts::Entries, ..Tail::new(disk, first) }
    }

    /// Of a stream: the entries behind this one that lie before others that are here, and are not here themselves. What a
    /// generation had in the end nobody knows here.
    pub(crate) fn missing_behind(&self, entry: StreamPosition) -> Vec<RangeInclusive<u64>> {
        let (mut last, mut missing) = (entry, Vec::new());
        for mark in &self.index.marks {
            let here = StreamPosition(mark.count);
            let before = last.max(StreamPosition::before(here.generation()));
            if here > before.next() {
                missing.push(before.next().0..=here.0 - 1);
            }
            last = last.max(here);
        }
        missing
    }

    /// Of a stream: what the entries are up to this one, if it is here.
    pub(crate) fn digest_of(&self, entry: StreamPosition) -> Option<StreamDigest> {
        let marks = &self.index.marks;
        let mark = marks.get(marks.partition_point(|mark| mark.count < entry.0))?;
        (mark.count == entry.0).then_some(mark.digest)
    }

    /// Of a stream: no entry is here.
    pub(crate) fn has_no_entry(&self) -> bool {
        self.index.marks.is_empty()
    }

    /// Everything below is in the store, and no longer here.
    pub(crate) fn applied(&self) -> JournalPosition {
        self.applied
    }

    /// Everything below that is not in the store is here.
    pub(crate) fn ingested(&self) -> JournalPosition {
        self.ingested
    }

    /// Inbox rows that are here.
    pub(crate) fn rows(&self) -> usize {
        self.index.rows
    }

    /// How much memory it takes, in messages of about 100 bytes: a member of a roster counts as one.
    pub(crate) fn weight(&self) -> u64 {
        (self.index.entries.len() + self.index.memberships_in_use()) as u64
    }

    /// Indexes the records up to `to`, which is at most the durable position.
    pub(crate) fn ingest(&mut self, to: JournalPosition) -> Result<(), JournalError> {
        self.spot.settle(to);
        while self.ingested < to {
            let mut failed = None;
            let (index, spot) = (&mut self.index, &mut self.spot);
            let reached = self.ahead.read(self.ingested, to, INGEST_BYTES, &mut |at, record| {
                if failed.is_none()
                    && let Err(error) = index.take(at, record, spot)
                {
                    failed = Some((at, error));
                }
            })?;
            if let Some((at, error)) = failed {
                self.ingested = at;
                return Err(error);
            }
            self.ingested = reached;
        }
        Ok(())
    }

    /// The next transaction: records from `from` on (the applied position, or where a transaction before it ends), cut
    /// between two of them before there are more than `rows_max` rows or `bytes_max` bytes (one record alone may have
    /// more). `None`: there are none. Asked again before [`Self::advance`], it may have more.
    pub(crate) fn transaction(
        &mut self,
        from: JournalPosition,
        rows_max: usize,
        bytes_max: u64,
    ) -> Result<Option<Transaction>, JournalError> {
        let mut cut = self.ingested;
        let mut rows = 0;
        let first = self.index.entries.partition_point(|entry| entry.at < from);
        for (taken, entry) in self.index.entries.iter().skip(first).enumerate() {
            rows += self.index.rows_count(entry);
            if taken > 0 && (rows > rows_max || entry.at.0 - from.0 > bytes_max) {
                cut = entry.at;
                break;
            }
        }
        let (mut applied, mut digest) = (AppliedPosition::from(cut), StreamDigest::default());
        if self.counts == Counts::Entries {
            debug_assert!(from == self.applied, "a stream's transactions are made one after another");
            let marks = &self.index.marks;
            let after = marks.partition_point(|mark| mark.end <= cut);
            let within = after.checked_sub(1).and_then(|last| marks.get(last)).filter(|mark| mark.end > self.applied);
            // One stretch between two marks may have more than fits.
            let Some(mark) = within.or_else(|| marks.iter().find(|mark| mark.end > self.applied)) else {
                return Ok(None);
            };
            cut = mark.end;
            (applied, digest) = (AppliedPosition(mark.count), mark.digest);
        }
        if cut <= from {
            return Ok(None);
        }
        let mut gathering = Gathering::default();
        let mut failed = None;
        let index = &self.index;
        self.behind.read(from, cut, usize::MAX, &mut |at, record| {
            if failed.is_some() {
                return;
            }
            let added = match &record {
                Record::Roster(_) | Record::Mark(..) | Record::Withdrawn(_) => Ok(()),
                Record::Group(group) => match index.roster(group.roster_at) {
                    Some(roster) => {
                        gathering.group(group, roster).map_err(|_| corrupt(at, "its rows do not fit its roster"))
                    }
                    None => Err(corrupt(at, "its roster is not where it says")),
                },
                Record::Direct(direct) => {
                    gathering.direct(direct);
                    Ok(())
                }
                Record::Change(change) => {
                    gathering.change(change);
                    Ok(())
                }
            };
            failed = added.err();
        })?;
        match failed {
            Some(error) => Err(error),
            None => Ok(Some(gathering.finish(applied, digest))),
        }
    }

    /// The store has everything below `applied` (that of a transaction, or the store's own): it is dropped here.
    pub(crate) fn advance(&mut self, applied: AppliedPosition) {
        let to = match self.counts {
            Counts::Bytes => applied.in_journal(),
            Counts::Entries => {
                let marks = &self.index.marks;
                let after = marks.partition_point(|mark| mark.count <= applied.0);
                match after.checked_sub(1).and_then(|last| marks.get(last)) {
                    Some(mark) => mark.end,
                    None => return,
                }
            }
        };
        self.index.drop_below(to);
        self.applied = self.applied.max(to);
        self.ingested = self.ingested.max(to);
        for reader in [&mut self.ahead, &mut self.behind, &mut self.spot] {
            reader.forget(to);
        }
    }

    /// Whether all of the user's rows after `after` are here, so that the database need not be read.
    pub(crate) fn covers(&mut self, user: UserId, after: Seq) -> Result<bool, JournalError> {
        let Some((source, number)) =
            self.index.sources(user).into_iter().filter_map(|s| Some((s, s.number(0)?))).min_by_key(|(_, n)| *n)
        else {
            return Ok(false);
        };
        let lowest = seq_of(&self.index, &mut self.spot, source, 0, number)?;
        Ok(lowest.0 <= after.0.saturating_add(1))
    }

    /// Adds the user's rows that follow what the page has, while it wants them.
    pub(crate) fn fill(
        &mut self,
        user: UserId,
        assembly: &mut Assembly,
        messages: &mut Messages,
    ) -> Result<(), JournalError> {
        let after = assembly.last();
        let (index, spot) = (&self.index, &mut self.spot);
        let sources = index.sources(user);
        // The next entry of each source; entries are numbered in journal order, which is the user's seq order.
        let mut next = BinaryHeap::with_capacity(sources.len());
        for (which, source) in sources.iter().enumerate() {
            let place = first_after(index, spot, *source, after)?;
            next.extend(source.number(place).map(|number| Reverse((number, which, place))));
        }
        while let Some(Reverse((number, which, place))) = next.pop() {
            let Some(source) = sources.get(which).copied().or_count(Place::Tail) else { break };
            if assembly.is_full() {
                break;
            }
            let Some((seq, message)) = row(index, spot, source, place, number, assembly, messages)? else { break };
            assembly.push(seq, message);
            next.extend(source.number(place + 1).map(|number| Reverse((number, which, place + 1))));
        }
        Ok(())
    }

    /// The message of this number, if it is here, and where.
    pub(crate) fn message(&mut self, msg_id: MsgId) -> Result<Option<(MessageHead, JournalPosition)>, JournalError> {
        let Some(entry) = self.index.message(msg_id) else { return Ok(None) };
        let at = entry.at;
        let (sender, to, client_msg_id, body) = match self.spot.record_at(at)? {
            Record::Direct(record) => (record.sender, record.to(), record.client_msg_id, record.body),
            Record::Group(record) => (record.sender, record.to(), record.client_msg_id, record.body),
            Record::Roster(_) | Record::Change(_) | Record::Mark(..) | Record::Withdrawn(_) => {
                return Err(corrupt(at, "a message was expected here"));
            }
        };
        let body_bytes = body.len() as u64;
        let lookup = Lookup { sender, client_msg_id, generation: 0 };
        let sender_seq = self.find(&lookup)?.filter(|found| found.msg_id == msg_id).map(|found| found.seq);
        let sender_seq = sender_seq.unwrap_or_default();
        Ok(Some((MessageHead { sender, to, client_msg_id, sender_seq, body_bytes }, at)))
    }

    /// The message that was sent under this name, if it is here.
    pub(crate) fn find(&mut self, lookup: &Lookup) -> Result<Option<StoredMessage>, JournalError> {
        let Some(entry) = self.index.named(lookup) else { return Ok(None) };
        let at = entry.at;
        let stored = |msg_id: MsgId, seq, to: Conversation, body: &[u8]| StoredMessage {
            msg_id,
            seq,
            sent_at_ms: msg_id.sent_at_ms(),
            digest: digest(to, body),
        };
        match self.spot.record_at(at)? {
            Record::Direct(record) => Ok(Some(stored(record.msg_id, record.sender_seq, record.to(), record.body))),
            Record::Group(record) => {
                let seq = self.index.roster(record.roster_at).and_then(|roster| {
                    let member = roster.members.iter().position(|member| member.user == record.sender)?;
                    record.seq_at(roster, member)
                });
                let seq = seq.ok_or_else(|| corrupt(at, "its sender has no row"))?;
                Ok(Some(stored(record.msg_id, seq, record.to(), record.body)))
            }
            Record::Roster(_) | Record::Change(_) | Record::Mark(..) | Record::Withdrawn(_) => {
                Err(corrupt(at, "a message was expected here"))
            }
        }
    }
}

/// One row, if the page wants it.
fn row<D: Disk>(
    index: &Index,
    spot: &mut Reader<D>,
    source: Source<'_>,
    place: usize,
    number: Number,
    assembly: &Assembly,
    messages: &mut Messages,
) -> Result<Option<(Seq, Arc<Message>)>, JournalError> {
    let entry =
        index.entry(number).ok_or_else(|| corrupt(JournalPosition(0), "an entry is gone that is referred to"))?;
    if let (Source::Direct(rows), Kind::Direct { msg_id, .. }) = (source, &entry.kind)
        && let Some((_, seq)) = rows.get(place).copied()
        && let Some(message) = messages.find(*msg_id)
    {
        return Ok(assembly.wants(seq).then(|| (seq, Arc::clone(message))));
    }
    match (source, spot.record_at(entry.at)?) {
        (Source::Direct(rows), Record::Direct(record)) => {
            let seq = rows.get(place).map_or(Seq(0), |(_, seq)| *seq);
            Ok(assembly.wants(seq).then(|| (seq, direct_message(&record, messages))))
        }
        (Source::Group { snapshot, member }, Record::Group(record)) => {
            let seq = record
                .seq_at(&snapshot.record, member)
                .ok_or_else(|| corrupt(entry.at, "its rows do not fit its roster"))?;
            Ok(assembly.wants(seq).then(|| (seq, group_message(&record, messages))))
        }
        _ => Err(corrupt(entry.at, "another record was expected here")),
    }
}

fn direct_message(record: &DirectRecord<'_>, messages: &mut Messages) -> Arc<Message> {
    messages.keep(record.msg_id, record.sender, record.to(), record.client_msg_id, record.body)
}

fn group_message(record: &GroupRecord<'_>, messages: &mut Messages) -> Arc<Message> {
    messages.keep(record.msg_id, record.sender, record.to(), record.client_msg_id, record.body)
}

/// The seq of a source's entry.
fn seq_of<D: Disk>(
    index: &Index,
    spot: &mut Reader<D>,
    source: Source<'_>,
    place: usize,
    number: Number,
) -> Result<Seq, JournalError> {
    let entry =
        index.entry(number).ok_or_else(|| corrupt(JournalPosition(0), "an entry is gone that is referred to"))?;
    match source {
        Source::Direct(rows) => Ok(rows.get(place).map_or(Seq(0), |(_, seq)| *seq)),
        Source::Group { snapshot, member } => match spot.record_at(entry.at)? {
            Record::Group(record) => record
                .seq_at(&snapshot.record, member)
                .ok_or_else(|| corrupt(entry.at, "its rows do not fit its roster")),
            _ => Err(corrupt(entry.at, "another record was expected here")),
        },
    }
}

/// The place of a source's first entry with a seq above `after`, by bisection.
fn first_after<D: Disk>(
    index: &Index,
    spot: &mut Reader<D>,
    source: Source<'_>,
    after: Seq,
) -> Result<usize, JournalError> {
    let (mut low, mut high) = (0, source.len());
    while low < high {
        let middle = low + (high - low) / 2;
        let Some(number) = source.number(middle).or_count(Place::Tail) else { break };
        if seq_of(index, spot, source, middle, number)? > after {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(low)
}

/// What the journal holds does not fit what it said before.
fn corrupt(at: JournalPosition, what: &'static str) -> JournalError {
    JournalError::Corrupt { file: "(the segment that holds the position)".to_owned(), offset: 0, position: at.0, what }
}
