//! A snapshot of the database, read when a stream begins that this node has not followed, or is cut off behind the last one.
//!
//! On the ledger's thread; the store answers ([`crate::contract::snapshot`]). A change of a group may be read by some
//! nodes and lost with Redis; what the database has when it is moved past the lost stream is what all nodes begin the
//! next one with, and changes that it does not have are made again by whoever submitted them. What always holds: a node
//! follows a new stream only from a snapshot of the database on, behind the entry that the snapshot ends with; and one
//! that has read nothing of a stream since its snapshot may take another, and no other may.

use super::RedisEngine;
use super::link::{Found, What};
use super::seed::{Replaced, base_of, floor_of, generation_of};
use super::session::{Making, Reading, Session, Then};
use crate::clock::Now;
use crate::contract::internal::{self, Place};
use crate::contract::position::StreamPosition;
use crate::contract::snapshot::Snapshot;
use crate::journal::disk::Disk;
use crate::ledger::LedgerError;
use crate::limits::DATABASE_BEHIND_MS;
use ringway_wire::ids::RosterVersion;

/// For how long the database has stood behind all from which this node could follow the stream.
#[derive(Debug, Default)]
pub(super) struct Standing(Option<(StreamPosition, u64)>);

impl Standing {
    /// It stands at this entry, at this monotonic time in milliseconds. Returns for how long it has, as far as was seen.
    fn meet(&mut self, at: StreamPosition, mono_ms: u64) -> u64 {
        let (_, since_ms) = self.0.take_if(|(before, _)| *before == at).unwrap_or((at, mono_ms));
        self.0 = Some((at, since_ms));
        mono_ms.saturating_sub(since_ms)
    }
}

/// Why the ledger is made anew though Redis has it.
const LOST_BY_THE_DATABASE: &str = "the database has lost what Redis does not have any more";

impl<D: Disk> RedisEngine<D> {
    /// Asks for a snapshot.
    pub(super) fn load(&mut self, number: u64, then: Then) {
        self.session = Session::Loading { number, then };
        self.asker.begin();
        self.ask_for_snapshot();
    }

    /// The stream begins at `next` and not behind what this node has. Between a node's snapshot and its lease others may cut
    /// off what it has not read: as long as it has read nothing, it begins from another one, which has all that is cut off. Its
    /// lease says what it has read, so nothing more is cut off meanwhile. One that has read some of the stream ends.
    pub(super) fn fell_behind(&mut self, now: Now, next: StreamPosition) -> Result<(), LedgerError> {
        let seen = self.follower.followed.seen();
        if self.follower.followed.has_entries() {
            return Err(LedgerError::Behind { seen: seen.0, next: next.0 });
        }
        // Else what was read before that was seen still comes.
        if let Session::Following { number, reading } = &self.session {
            let (number, replaced) = (*number, self.replaced(reading, next));
            if self.is_given_up(now, seen) {
                self.make_anew(now, number, replaced, LOST_BY_THE_DATABASE);
                return Ok(());
            }
            tracing::info!(
                seen = seen.0,
                next = next.0,
                "the stream was cut off behind the database's snapshot: another is read"
            );
            self.session = Session::Behind { number };
            self.order(What::Status);
        }
        Ok(())
    }

    /// What is read, if another generation is to be made in its place. `last`: an entry that it has had.
    pub(super) fn replaced(&self, reading: &Reading, last: StreamPosition) -> Replaced {
        let Reading { generation, caught_up_at, .. } = reading;
        let last = last.max(*caught_up_at).max(self.follower.followed.seen());
        Replaced::up_to(generation.clone(), self.follower.sequences.floor(), last)
    }

    /// The database stands at this entry, from which this node cannot follow the stream: it went back. Whoever has what it has
    /// lost writes it again, and then another snapshot will do. If nobody does, and it is this node's turn to write, the
    /// ledger has to be made anew of what the database has.
    fn is_given_up(&mut self, now: Now, at: StreamPosition) -> bool {
        let is_over = self.standing.meet(at, now.mono_ms) >= DATABASE_BEHIND_MS && self.progress.writes_store();
        if is_over {
            tracing::error!(
                entry = at.0,
                "the database was put back to an earlier state, from which Redis does not have the ledger any more, and no \
                 node has what it has lost: those messages are gone, unless a backup has them"
            );
        }
        is_over
    }

    fn ask_for_snapshot(&mut self) {
        let RedisEngine { asker, follower, submitter, .. } = self;
        asker.ask(|| {
            let mut versions = follower.versions();
            // Whether the database had these, and everybody has left, tells whether they are to be made again.
            let unknown = submitter.unknown_groups(follower);
            versions.extend(unknown.into_iter().map(|group| (group, RosterVersion(0))));
            versions
        });
    }

    /// Takes the answer, if it has come.
    pub(super) fn loaded(&mut self, now: Now) -> Result<(), LedgerError> {
        let Session::Loading { number, .. } = self.session else { return Ok(()) };
        self.ask_for_snapshot();
        let Some(snapshot) = self.asker.answer() else { return Ok(()) };
        let Session::Loading { then, .. } = &self.session else { return Ok(()) };
        let at = snapshot.at.applied.in_stream();
        match then.clone() {
            Then::Follow(found) if generation_of(at) == found.there.number => {
                self.begin_behind(number, found, snapshot)
            }
            Then::Make(making) if at == base_of(making.generation.number) => self.seed(number, making, snapshot),
            Then::Follow(found) if generation_of(at) < found.there.number && self.is_given_up(now, at) => {
                self.make_anew(now, number, Replaced::of(&found), LOST_BY_THE_DATABASE);
                Ok(())
            }
            // Meanwhile another node has made one, or the database went back.
            Then::Follow(_) | Then::Make(_) => {
                self.look_again(number);
                Ok(())
            }
        }
    }

    /// Follows what was found, behind the snapshot.
    fn begin_behind(&mut self, number: u64, found: Found, snapshot: Snapshot) -> Result<(), LedgerError> {
        let at = snapshot.at.applied.in_stream();
        let is_new = generation_of(self.follower.followed.seen()) != found.there.number;
        if is_new {
            self.follower.check_floor(found.floor)?;
        } else if self.follower.followed.has_entries() {
            // What was delivered since would be numbered a second time.
            internal::count(Place::Stream);
            self.look_again(number);
            return Ok(());
        }
        self.take_snapshot(snapshot)?;
        if !is_new {
            // What is not settled may be in what was cut off: it is looked for in the database as that is now.
            self.submitter.submit_again(at, &self.follower, &mut self.answers);
        }
        if found.count >= at.0 {
            return self.follow_from(number, found);
        }
        // It was looked at before the database was; or it has less than the database.
        self.look_again(number);
        Ok(())
    }

    /// Gives Redis the generation that begins with the snapshot.
    fn seed(&mut self, number: u64, making: Making, snapshot: Snapshot) -> Result<(), LedgerError> {
        let Making { generation, above } = making;
        let highest = snapshot.rows.iter().map(|row| row.seq).max().unwrap_or_default();
        let (base, floor) = (snapshot.at.applied.0, floor_of(generation.number, highest).max(above));
        self.follower.check_floor(floor)?;
        self.take_snapshot(snapshot)?;
        self.session = Session::Seeding { number };
        self.order(What::Seed { generation, base, floor, groups: self.follower.group_versions() });
        Ok(())
    }

    fn take_snapshot(&mut self, snapshot: Snapshot) -> Result<(), LedgerError> {
        let stored = snapshot.at.msg_id_max;
        self.follower.replace(snapshot, &mut self.answers)?;
        self.submitter.begin_behind(stored);
        self.progress.report_followed(self.follower.followed.seen());
        self.progress.begin_behind(self.follower.followed.seen());
        Ok(())
    }
}
