//! What the database has of users and groups: asked by a cluster's ledger when a stream begins that it has not followed,
//! answered by the store.
//!
//! Two bounded channels between the ledger's thread and the store's. What always holds: a snapshot is of one moment,
//! everything up to its position is in it and nothing behind; an answer counts only for the last question.

use std::collections::HashMap;

use crate::contract::keyed::TableKey;
use crate::contract::store::{NewestRow, StorePosition, Stored, StoredGroup};
use crossbeam_channel::{Receiver, Sender, bounded};
use ringway_wire::ids::{GroupId, RosterVersion};

/// Questions that wait, and answers: the last one counts.
const WAITING_MAX: usize = 4;
/// Marks a version that was visited. No group is changed so often.
const SEEN: u32 = 1 << 31;

/// What does the database have, and which groups are other ones there?
#[derive(Debug)]
pub struct SnapshotAsk {
    /// Tells its answer from those to other questions.
    number: u64,
    /// What the ledger has, or would make; version zero: whatever the database has is to be told.
    versions: HashMap<GroupId, RosterVersion, TableKey>,
    changed: Vec<StoredGroup>,
    rows: Vec<NewestRow>,
}

/// The answer to a [`SnapshotAsk`].
#[derive(Debug)]
pub struct Snapshot {
    number: u64,
    /// The database's position: all entries up to it are in this, and none behind.
    pub(crate) at: StorePosition,
    /// Groups at other versions, or not known to the ledger.
    pub(crate) changed: Vec<StoredGroup>,
    /// Groups that are not there.
    pub(crate) gone: Vec<GroupId>,
    /// Those of them that were there, and that everybody has left. It may also have been so a moment later.
    pub(crate) left: Vec<GroupId>,
    /// Every user's newest row (16 bytes each).
    pub(crate) rows: Vec<NewestRow>,
}

impl SnapshotAsk {
    /// Reads from the beginning, perhaps not for the first time.
    pub fn begin(&mut self) {
        self.changed.clear();
        self.rows.clear();
        self.versions.values_mut().for_each(|version| version.0 &= !SEEN);
    }

    /// Something the database has.
    pub fn visit(&mut self, stored: Stored) {
        match stored {
            Stored::Newest(row) => self.rows.push(row),
            Stored::Group(group) => {
                let known = self.versions.get_mut(&group.group);
                let is_other = known.as_ref().is_none_or(|version| **version != group.version);
                if let Some(version) = known {
                    // What is not seen in the end is gone.
                    version.0 |= SEEN;
                }
                if is_other {
                    self.changed.push(group);
                }
            }
        }
    }

    /// Those of the ledger's groups that were not visited, when all have been.
    pub fn gone(&self) -> Vec<GroupId> {
        let unseen = self.versions.iter().filter(|(_, version)| version.0 & SEEN == 0);
        unseen.map(|(group, _)| *group).collect()
    }

    /// All have been visited; `left`: of those that are [`Self::gone`].
    pub fn finish(self, at: StorePosition, gone: Vec<GroupId>, left: Vec<GroupId>) -> Snapshot {
        Snapshot { number: self.number, at, changed: self.changed, gone, left, rows: self.rows }
    }
}

/// The ledger's ends.
#[derive(Debug)]
pub struct SnapshotAsker {
    asks: Sender<SnapshotAsk>,
    answers: Receiver<Snapshot>,
    /// Of the last question.
    number: u64,
    /// There was room for it.
    is_asked: bool,
}

/// The store's ends.
#[derive(Debug)]
pub struct SnapshotAnswerer {
    asks: Receiver<SnapshotAsk>,
    answers: Sender<Snapshot>,
    nudge: Sender<()>,
}

/// Makes both; `nudge` wakes the ledger's loop.
pub fn snapshots(nudge: Sender<()>) -> (SnapshotAsker, SnapshotAnswerer) {
    let (asks, receive_asks) = bounded(WAITING_MAX);
    let (answers, receive_answers) = bounded(WAITING_MAX);
    let asker = SnapshotAsker { asks, answers: receive_answers, number: 0, is_asked: false };
    (asker, SnapshotAnswerer { asks: receive_asks, answers, nudge })
}

impl SnapshotAsker {
    /// What is asked next is another question.
    pub(crate) fn begin(&mut self) {
        self.is_asked = false;
    }

    /// Asks, if it was not asked yet and there is room. `versions`: what the ledger has, at version zero what is to be
    /// told whatever the database has.
    pub(crate) fn ask(&mut self, versions: impl FnOnce() -> HashMap<GroupId, RosterVersion, TableKey>) {
        if self.is_asked || self.asks.is_full() {
            return;
        }
        self.number += 1;
        let ask = SnapshotAsk { number: self.number, versions: versions(), changed: Vec::new(), rows: Vec::new() };
        self.is_asked = self.asks.try_send(ask).is_ok();
    }

    /// The answer to the last question, if it has come.
    pub(crate) fn answer(&self) -> Option<Snapshot> {
        self.answers.try_iter().find(|snapshot| snapshot.number == self.number)
    }
}

impl SnapshotAnswerer {
    /// The last question, if one waits.
    pub fn next(&self) -> Option<SnapshotAsk> {
        self.asks.try_iter().last()
    }

    /// Answers it.
    pub fn answer(&self, snapshot: Snapshot) {
        // If the ledger has ended nobody waits; it takes answers faster than it asks.
        self.answers.try_send(snapshot).ok();
        self.nudge.try_send(()).ok();
    }
}
