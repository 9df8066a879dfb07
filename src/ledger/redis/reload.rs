//! A snapshot of the database, read when a stream begins that this node has not followed, or is cut off behind the last one.
//!
//! On the ledger's thread; the store answers ([`crate::contract::snapshot`]). A change of a group may be read by some
//! nodes and lost with Redis; what the database has when it is moved past the lost stream is what all nodes begin the
//! next one with, and changes that it does not have are made again by whoever submitted them. What always holds: a node
//! follows a new stream only from a snapshot of the database on, behind the entry that the snapshot ends with; and one
//! that has read nothing of a stream since its snapshot may take another.

use std::collections::HashMap;

use super::in_flight::Subject;
use super::link::{Found, What};
use super::seed::{base_of, floor_of, generation_of};
use super::{RedisEngine, Session};
use crate::contract::delivery::Delivery;
use crate::contract::keyed::TableKey;
use crate::contract::snapshot::Snapshot;
use crate::contract::store::NewestRow;
use crate::journal::disk::Disk;
use crate::ledger::LedgerError;
use crate::ledger::pending_delivery::PendingDelivery;
use crate::limits::CLOCK_SKEW_MAX_MS;
use ringway_wire::ids::{RosterVersion, Seq, UserId};
use ringway_wire::schema::GroupChangeKind;

impl<D: Disk> RedisEngine<D> {
    /// Asks for a snapshot; what was found of Redis is gone on with afterwards, or a new generation is made.
    pub(super) fn load(&mut self, session: u64, then: Option<Found>) {
        self.found = then;
        self.session = Session::Loading(session);
        self.asker.begin();
        self.ask_for_snapshot();
    }

    /// The stream begins at `next` and not behind what this node has. Between a node's snapshot and its lease others may cut
    /// off what it has not read: as long as it has read nothing, it begins from another one, which has all that is cut off. Its
    /// lease says what it has read, so nothing more is cut off meanwhile. One that has read some of the stream ends.
    pub(super) fn fell_behind(&mut self, next: u64) -> Result<(), LedgerError> {
        if !self.recent.is_empty() {
            return Err(LedgerError::Behind { seen: self.seen, next });
        }
        // Else what was read before that was seen still comes.
        if let Session::Following(session) = self.session {
            tracing::info!(
                seen = self.seen,
                next,
                "the stream was cut off behind the database's snapshot: another is read"
            );
            self.session = Session::Behind(session);
            self.order(What::Status);
        }
        Ok(())
    }

    /// A snapshot is to be read, or is, because the stream is cut off behind the one that this node has: it knows less than
    /// others.
    pub(super) fn reads_another_snapshot(&self) -> bool {
        let is_same = |found: &Found| self.generation.as_ref() == Some(&found.there);
        match self.session {
            Session::Behind(_) => true,
            Session::Loading(_) => self.found.as_ref().is_some_and(is_same),
            _ => false,
        }
    }

    fn ask_for_snapshot(&mut self) {
        self.asker.ask(|| {
            let mut versions = HashMap::with_hasher(TableKey::new(self.settings.seed ^ 6));
            versions.extend(self.groups.each().map(|roster| (roster.group, roster.version)));
            // What the database may not have: another change may have made the same version.
            versions.extend(self.changed_at.keys().map(|group| (*group, RosterVersion(0))));
            versions
        });
    }

    /// Takes the answer, if it has come.
    pub(super) fn loaded(&mut self) -> Result<(), LedgerError> {
        let Session::Loading(session) = self.session else { return Ok(()) };
        self.ask_for_snapshot();
        let Some(snapshot) = self.asker.answer() else { return Ok(()) };
        let at = snapshot.at.applied.0;
        match (self.found.take(), self.making.clone()) {
            (Some(found), _) if generation_of(at) == found.there.number => {
                let is_new = generation_of(self.seen) != found.there.number;
                if is_new {
                    self.check_floor(found.floor)?;
                }
                self.take_snapshot(snapshot);
                if !is_new {
                    // What is not settled may be in what was cut off: it is looked for in the database as that is now.
                    self.submit_again(self.seen);
                }
                if found.count >= at {
                    return self.follow_from(session, found);
                }
                // It was looked at before the database was; or it has less than the database.
                self.session = Session::Lost(session);
                self.order(What::Status);
            }
            (None, Some(making)) if at == base_of(making.number) => {
                let highest = snapshot.rows.iter().map(|row| row.seq).max().unwrap_or_default();
                let (base, floor) = (at, floor_of(making.number, highest));
                self.check_floor(floor)?;
                self.take_snapshot(snapshot);
                self.session = Session::Seeding(session);
                self.order(What::Seed { generation: making, base, floor, groups: self.group_versions() });
            }
            // Meanwhile another node has made one.
            (found, making) => {
                debug_assert!(found.is_some() || making.is_some(), "a snapshot is asked for to go on with something");
                self.session = Session::Lost(session);
                self.order(What::Status);
            }
        }
        Ok(())
    }

    /// At a generation's beginning every user's number is the floor. So what nodes have been told of the lost stream,
    /// some more than others, makes no difference, as long as it lies below.
    fn check_floor(&self, floor: Seq) -> Result<(), LedgerError> {
        let highest = self.sequences.highest();
        if highest > floor {
            return Err(LedgerError::Floor { floor, highest });
        }
        Ok(())
    }

    fn take_snapshot(&mut self, snapshot: Snapshot) {
        let Snapshot { at, changed, gone, rows, .. } = snapshot;
        if self.generation.is_some() && changed.len() + gone.len() > 0 {
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
            let roster = self.groups.roster(group).cloned();
            self.deliveries.push(PendingDelivery::Delivery(Delivery::Reloaded { group, roster }));
        }
        self.copy.forget_rosters();
        self.changed_at.clear();
        // Where its own submissions stood in the lost stream says no more whether they are stored.
        self.log.forget_entries();
        self.senders.clear();
        self.recent.clear();
        self.windows.interrupted();
        self.missed(rows);
        self.stored_ms = at.msg_id_max.sent_at_ms();
        self.seen = at.applied.in_stream().0;
        self.progress.report_followed(at.applied.in_stream());
    }

    /// Rows that are in the database and that this node has not delivered: those who are online read them from there.
    fn missed(&mut self, rows: Vec<NewestRow>) {
        let mut missed: Vec<(UserId, Seq)> = Vec::new();
        for NewestRow { user, seq } in rows {
            let Some(slot) = self.sequences.assign(user) else { continue };
            if seq > self.sequences.at(slot) {
                self.sequences.raise(slot, seq);
                missed.push((user, seq));
            }
        }
        if self.generation.is_some() && !missed.is_empty() {
            self.deliveries.push(PendingDelivery::Delivery(Delivery::Missed { newest: missed.into() }));
        }
    }

    /// Changes that the database has now need not be made again.
    pub(super) fn is_made(&self, subject: &Subject) -> bool {
        let Subject::OldChange(record) = subject else { return false };
        self.groups.roster(record.group).is_some_and(|roster| roster.version >= record.version)
    }

    /// Created long before the newest message that the database has, which has no such group: it was stored, and everybody
    /// has left since. (What is lost with Redis is younger, as far as clocks are apart.)
    pub(super) fn is_over(&self, subject: &Subject) -> bool {
        let Subject::OldChange(record) = subject else { return false };
        record.kind == GroupChangeKind::Created
            && self.groups.roster(record.group).is_none()
            && record.msg_id.sent_at_ms() + CLOCK_SKEW_MAX_MS < self.stored_ms
    }
}
