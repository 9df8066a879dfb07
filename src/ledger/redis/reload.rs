//! The groups as the database has them, asked for when the stream that this node followed is lost.
//!
//! Between the ledger's thread, which asks, and the store's, which reads. A change of a group may be read by some nodes
//! and lost with Redis; what the database has when it is moved past the lost stream is what all nodes begin the next
//! one with, and changes that it does not have are made again by whoever submitted them. What always holds: a node
//! follows a new stream only after its groups are the database's; an answer counts only for the last question.

use std::collections::HashMap;

use crossbeam_channel::{Receiver, Sender, bounded};
use foldhash::fast::FixedState;

use super::flying::Subject;
use super::link::{Generation, What};
use super::{RedisEngine, Session};
use crate::ids::{GroupId, RosterVersion};
use crate::journal::Position;
use crate::journal::disk::Disk;
use crate::ledger::staged::Staged;
use crate::shard::event::{Delivery, StoredGroup};

/// Questions that wait, and answers: the last one counts.
const WAITING_MAX: usize = 4;

/// Which groups are other ones in the database?
#[derive(Debug)]
pub struct GroupsAsk {
    number: u64,
    /// What the ledger has; version zero: whatever the database has is to be told.
    versions: HashMap<GroupId, RosterVersion, FixedState>,
    changed: Vec<StoredGroup>,
}

/// These.
#[derive(Debug)]
pub struct GroupsFound {
    number: u64,
    /// The database's position after reading: no change behind it was seen.
    at: Position,
    /// At other versions, or not known to the ledger.
    changed: Vec<StoredGroup>,
    /// Not there.
    gone: Vec<GroupId>,
}

impl GroupsAsk {
    /// Reads from the beginning, perhaps not for the first time.
    pub fn begin(&mut self) {
        self.changed.clear();
        self.versions.values_mut().for_each(|version| version.0 &= !SEEN);
    }

    /// A group of the database.
    pub fn visit(&mut self, group: StoredGroup) {
        if self.versions.get(&group.group) != Some(&group.version) {
            self.changed.push(group);
        } else if let Some(version) = self.versions.get_mut(&group.group) {
            // Seen: what is left at the end is gone.
            version.0 |= SEEN;
        }
    }

    /// All have been visited.
    pub fn finish(mut self, at: Position) -> GroupsFound {
        for group in &self.changed {
            self.versions.remove(&group.group);
        }
        let unseen = self.versions.iter().filter(|(_, version)| version.0 & SEEN == 0);
        let gone = unseen.map(|(group, _)| *group).collect();
        GroupsFound { number: self.number, at, changed: self.changed, gone }
    }
}

/// No group is changed so often.
const SEEN: u32 = 1 << 31;

/// The ledger's ends.
#[derive(Debug)]
pub struct Asker {
    asks: Sender<GroupsAsk>,
    found: Receiver<GroupsFound>,
    /// Of the last question.
    number: u64,
    /// There was room for it.
    is_asked: bool,
}

/// The store's ends.
#[derive(Debug)]
pub struct Answerer {
    asks: Receiver<GroupsAsk>,
    found: Sender<GroupsFound>,
    nudge: Sender<()>,
}

/// Makes both; `nudge` wakes the ledger's loop.
pub fn reloading(nudge: Sender<()>) -> (Asker, Answerer) {
    let (asks, receive_asks) = bounded(WAITING_MAX);
    let (found, receive_found) = bounded(WAITING_MAX);
    (Asker { asks, found: receive_found, number: 0, is_asked: false }, Answerer { asks: receive_asks, found, nudge })
}

impl Answerer {
    /// The last question, if one waits.
    pub fn next(&self) -> Option<GroupsAsk> {
        self.asks.try_iter().last()
    }

    /// Answers it.
    pub fn answer(&self, found: GroupsFound) {
        // If the ledger has ended nobody waits; it takes answers faster than it asks.
        self.found.try_send(found).ok();
        self.nudge.try_send(()).ok();
    }
}

/// What a session found of Redis, kept while the groups are read.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) there: Generation,
    pub(super) count: u64,
    pub(super) base: u64,
    pub(super) since_ms: u64,
}

impl<D: Disk> RedisEngine<D> {
    /// Asks for the groups; what was found of Redis is gone on with afterwards, or a new generation is made.
    pub(super) fn load_groups(&mut self, session: u64, then: Option<Found>) {
        self.found = then;
        self.session = Session::Loading(session);
        self.asker.is_asked = false;
        self.ask_for_groups();
    }

    fn ask_for_groups(&mut self) {
        if self.asker.is_asked || self.asker.asks.is_full() {
            return;
        }
        self.asker.number += 1;
        let mut versions = HashMap::with_hasher(FixedState::with_seed(self.settings.seed ^ 6));
        versions.extend(self.groups.each().map(|roster| (roster.group, roster.version)));
        // What the database may not have: another change may have made the same version.
        versions.extend(self.changed_at.keys().map(|group| (*group, RosterVersion(0))));
        let ask = GroupsAsk { number: self.asker.number, versions, changed: Vec::new() };
        self.asker.is_asked = self.asker.asks.try_send(ask).is_ok();
    }

    /// Takes the answer, if it has come.
    pub(super) fn groups_found(&mut self) {
        let Session::Loading(session) = self.session else { return };
        self.ask_for_groups();
        let number = self.asker.number;
        let Some(found) = self.asker.found.try_iter().find(|found| found.number == number) else { return };
        self.take_groups(found);
        match (self.found.take(), self.making.clone()) {
            (Some(found), _) => {
                self.loaded_for = found.there.number;
                self.follow_from(session, found);
            }
            (None, Some(making)) => {
                self.loaded_for = making.number;
                let base = super::seed::base_of(making.number);
                let steps = self.steps();
                self.session = Session::Seeding(session);
                self.order(What::Seed { generation: making, base, steps });
            }
            (None, None) => {}
        }
    }

    fn take_groups(&mut self, found: GroupsFound) {
        let GroupsFound { at, changed, gone, .. } = found;
        if changed.len() + gone.len() > 0 {
            tracing::warn!(
                groups = changed.len() + gone.len(),
                "groups are taken from the database: it has others than the lost ledger had"
            );
        }
        for stored in &changed {
            self.groups.replace(stored, &mut self.sequences);
        }
        gone.iter().for_each(|group| self.groups.remove(*group));
        for group in changed.iter().map(|stored| stored.group).chain(gone) {
            self.places.remove(&group);
            let roster = self.groups.roster(group).cloned();
            self.staged.push(Staged::Delivery(Delivery::Reloaded { group, roster }));
        }
        self.copy.forget_rosters();
        self.changed_at.clear();
        self.groups_at = at.0;
    }

    /// Changes that the database has now need not be made again.
    pub(super) fn is_made(&self, subject: &Subject) -> bool {
        let Subject::OldChange(record) = subject else { return false };
        self.groups.roster(record.group).is_some_and(|roster| roster.version >= record.version)
    }
}
