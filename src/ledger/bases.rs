//! Where each group's members stood when its roster was journaled, so that a message's rows are small differences.
//!
//! Owned by the journal engine. What always holds: a base is in the segment being written, at the position kept
//! with it; a new segment has none.

use std::collections::HashMap;
use std::iter;

use crate::contract::keyed::TableKey;
use crate::contract::message::{Roster, RosterMember};
use crate::contract::position::JournalPosition;
use crate::journal::batch::Batch;
use crate::journal::record::{Record, RosterRecord, RosterRecordMember};
use crate::journal::varint;
use ringway_wire::ids::{GroupId, RosterVersion, Seq};

/// The bases of one segment.
#[derive(Debug)]
pub(crate) struct Bases {
    of_group: HashMap<GroupId, Base, TableKey>,
    /// Used again for each message.
    differences: Vec<u8>,
}

#[derive(Debug)]
struct Base {
    version: RosterVersion,
    at: JournalPosition,
    seqs: Box<[Seq]>,
    /// Bytes that a newer base would save, if it cost nothing.
    budget: usize,
}

impl Bases {
    /// None yet.
    pub(crate) fn new(seed: u64) -> Self {
        Bases { of_group: HashMap::with_hasher(TableKey::new(seed)), differences: Vec::new() }
    }

    /// A new segment begins.
    pub(crate) fn clear(&mut self) {
        self.of_group.clear();
    }

    /// What was journaled at or above a position was rolled back.
    pub(crate) fn take_back(&mut self, from: JournalPosition) {
        self.of_group.retain(|_, base| base.at < from);
    }

    /// The differences that stand for `seqs` (parallel to the roster's members) and the position of the roster
    /// record they count from. Adds that record to the batch when there is none for this version, or when the
    /// differences have by now cost as much in second bytes as a new record does.
    pub(crate) fn differences(
        &mut self,
        roster: &Roster,
        seqs: &[Seq],
        batch: &mut Batch,
        batch_at: JournalPosition,
    ) -> (JournalPosition, &[u8]) {
        let base = self.of_group.get_mut(&roster.group);
        if let Some(base) = base.filter(|base| base.version == roster.version && base.seqs.len() == seqs.len()) {
            write(&mut self.differences, seqs, &base.seqs);
            if let Some(budget) = base.budget.checked_sub(self.differences.len() - seqs.len()) {
                base.budget = budget;
                return (base.at, &self.differences);
            }
        }
        let before = |seq: &Seq| Seq(seq.0.saturating_sub(1));
        let member = |(member, seq): (&RosterMember, &Seq)| RosterRecordMember {
            user: member.user,
            role: member.role,
            base: before(seq),
        };
        let members = iter::zip(roster.members(), seqs).map(member).collect();
        let record = RosterRecord { group: roster.group, version: roster.version, members };
        let length = batch.len();
        let at = JournalPosition(batch_at.0 + batch.push(&Record::Roster(record)));
        let bases: Box<[Seq]> = seqs.iter().map(before).collect();
        write(&mut self.differences, seqs, &bases);
        let base = Base { version: roster.version, at, seqs: bases, budget: batch.len() - length };
        self.of_group.insert(roster.group, base);
        (at, &self.differences)
    }
}

/// Writes the differences; nearly always each is one byte, and then no byte is looked at twice.
fn write(out: &mut Vec<u8>, seqs: &[Seq], bases: &[Seq]) {
    out.clear();
    let mut bits = 0;
    out.extend(iter::zip(seqs, bases).map(|(seq, base)| {
        let difference = seq.0.wrapping_sub(base.0);
        bits |= difference;
        difference as u8
    }));
    if bits >= 0x80 {
        out.clear();
        iter::zip(seqs, bases).for_each(|(seq, base)| varint::put(out, seq.0.wrapping_sub(base.0)));
    }
}
