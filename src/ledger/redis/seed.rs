//! What a session begins with, and a new generation when Redis has lost its data.
//!
//! On the ledger's thread. What always holds: entries of a generation are numbered from its number times 2^40 on, so
//! the database's position tells its generation; before a new one begins, the database's position is moved to its
//! beginning, so that no store writes what the lost stream had, and its groups are those that the database then has; the
//! one node that moved the position makes the generation, so that no number stands for two of them;
//! every user's rows are numbered above the generation's floor, which is above all that was ever given out.

use super::entry::decimal;
use super::link::{Age, Extent, Found, Generation, What};
use super::taking::Refusal;
use super::{NOBODY, RedisEngine, Session};
use crate::clock::Now;
use crate::contract::position::StreamPosition;
use crate::journal::disk::Disk;
use crate::ledger::LedgerError;
use crate::limits::SEQ_JUMP;
use ringway_wire::ids::Seq;

/// Entries of a generation are numbered in so many bits.
const ENTRY_BITS: u32 = 40;
/// Groups of one step.
const GROUPS_PER_STEP: usize = 1_000;

/// The generation that an entry, or a position of the database, belongs to.
pub(crate) fn generation_of(entry: u64) -> u64 {
    entry >> ENTRY_BITS
}

/// Where a generation's entries begin: its first is the next one.
pub(crate) fn base_of(generation: u64) -> u64 {
    generation << ENTRY_BITS
}

/// What all rows of a generation are numbered above, if this is the highest seq of all rows in the database when its
/// position is moved to the generation's beginning.
///
/// It is above all that was given out before, stored or not, whatever the node knows that makes the generation. The
/// database's highest seq never falls, so each floor is at least a jump above the one before; and in the generation
/// before nobody was given more than a jump above both its floor and what of it is stored.
pub(crate) fn floor_of(generation: u64, highest: Seq) -> Seq {
    let jumps = if highest == Seq(0) { generation.saturating_sub(1) } else { generation };
    Seq(highest.0 + jumps * SEQ_JUMP)
}

impl<D: Disk> RedisEngine<D> {
    /// A session begins, or Redis was looked at again.
    pub(super) fn status(
        &mut self,
        now: Now,
        session: u64,
        found: Option<Found>,
        highest: u64,
    ) -> Result<(), LedgerError> {
        let known = generation_of(self.seen.max(self.progress.applied().0));
        let lost = match &found {
            None | Some(Found { extent: Extent::Part, .. }) => true,
            Some(Found { there, .. }) if there.number < known => true,
            // Another node has begun the next one: it knows of this one what is not there any more.
            Some(Found { there, .. }) if there.number < highest => true,
            Some(Found { there, count, .. }) => {
                let same = self.generation.as_ref().filter(|ours| ours.number == there.number);
                let gone_back = generation_of(self.seen) == there.number && *count < self.seen;
                gone_back || same.is_some_and(|ours| ours != there)
            }
        };
        let is_behind = matches!(self.session, Session::Behind(_));
        self.session = Session::Lost(session);
        self.highest = highest;
        if let Some(found) = &found {
            self.redis_clock.compare(now, found.now_ms);
        }
        let generation = found.as_ref().map(|found| found.there.clone());
        if lost {
            self.make_anew(now, generation, "Redis does not have the ledger that this node knows");
            return Ok(());
        }
        let Some(found) = found else { return Ok(()) };
        if is_behind {
            // Until its snapshot is read it knows less than others, and answers nobody.
            self.session = Session::Behind(session);
        }
        let followed = self.generation.as_ref() == Some(&found.there) && !self.is_unverified;
        if followed && !found.is_confirmed {
            self.order(What::Confirm { generation: found.there, read: self.seen });
            return Ok(());
        }
        if found.age == Age::Fresh {
            self.order(What::Status);
            return Ok(());
        }
        if found.there.number > generation_of(self.seen) || is_behind {
            self.load(session, Some(found));
            return Ok(());
        }
        self.follow_from(session, found)
    }

    /// Asks for the lock for making the next generation.
    pub(super) fn make_anew(&mut self, now: Now, replaces: Option<Generation>, why: &str) {
        let known = generation_of(self.seen.max(self.progress.applied().0));
        let number = known.max(self.highest).max(replaces.as_ref().map_or(0, |there| there.number)) + 1;
        let made = Generation { number, nonce: self.nonce.wrapping_add(now.mono_ms) | 1 };
        if self.making.as_ref().is_none_or(|making| making.number != number) {
            tracing::warn!(generation = number, "{why}: nothing is numbered until it is made anew");
        }
        self.making = Some(made.clone());
        self.order(What::Begin { generation: made, replaces, node: self.settings.node });
    }

    /// Redis was started when no node was there: it may have less than it had. What it has is stored, as nothing else may
    /// be; then a new generation is made, whose numbers are above all that was ever given out, and what this node has
    /// submitted and is not stored is submitted again.
    pub(super) fn settle_unverified(&mut self, now: Now) {
        let Session::Following(session) = self.session else { return };
        if self.is_unverified && self.is_caught_up() && self.progress.applied().0 >= self.caught_up_at {
            self.session = Session::Lost(session);
            let why = "Redis was started while no node was there to tell whether it has all it had";
            self.make_anew(now, self.generation.clone(), why);
        }
    }

    /// Follows the stream, behind what was read of it or is in the snapshot of the database.
    pub(super) fn follow_from(&mut self, session: u64, found: Found) -> Result<(), LedgerError> {
        let Found { there, count, floor, since_ms, now_ms, is_confirmed, .. } = found;
        let changed = self.generation.as_ref() != Some(&there);
        self.is_unverified = !is_confirmed;
        self.sequences.set_floor(floor);
        self.generation = Some(there.clone());
        self.since_ms = since_ms;
        self.caught_up_at = count;
        self.session = Session::Following(session);
        if changed {
            self.caught_up_since_ms = None;
            self.redis_clock.begin();
            self.submit_again(self.seen);
        }
        self.redis_clock.stood(count, now_ms);
        self.redis_clock.read(self.seen);
        tracing::info!(
            generation = there.number,
            behind = count - self.seen.min(count),
            "following the cluster's ledger"
        );
        self.order(What::Follow { generation: there, after: self.seen, known: self.recent.known(self.seen) });
        Ok(())
    }

    /// The lock is this node's: the database's position is moved first.
    pub(super) fn begun(&mut self) {
        let (Session::Lost(session), Some(making)) = (self.session, &self.making) else { return };
        self.progress.ask_fence(StreamPosition(base_of(making.number)));
        self.session = Session::Fencing(session);
    }

    /// Goes on when the database's position has been moved. If another node has moved it there, the generation is that
    /// node's to make, and perhaps it was made, given out and lost: this one takes the next number.
    pub(super) fn fence(&mut self) {
        let (Session::Fencing(session), Some(making)) = (self.session, self.making.clone()) else { return };
        let base = base_of(making.number);
        if self.progress.applied().0 < base {
            return;
        }
        if self.progress.fenced().0 != base {
            self.session = Session::Lost(session);
            self.order(What::Status);
            return;
        }
        self.load(session, None);
    }

    /// Every group with its version, in steps.
    pub(super) fn group_versions(&self) -> Vec<Vec<Vec<u8>>> {
        let pairs: Vec<[Vec<u8>; 2]> =
            self.groups.each().map(|roster| [decimal(roster.group.0), decimal(roster.version.0.into())]).collect();
        pairs.chunks(GROUPS_PER_STEP).map(<[_]>::concat).collect()
    }

    /// All that this node has submitted, and that is perhaps neither in the database nor in the stream.
    pub(super) fn submit_again(&mut self, from: u64) {
        let mut open = Vec::new();
        let again = self.log.each_open(&mut |record| open.extend(super::in_flight::Subject::from_log(&record)));
        for (msg_id, name, subject) in open {
            if self.is_over(&subject) {
                self.log.withdraw(msg_id);
                let origin = self.in_flight.remove(msg_id).map_or(NOBODY, |subject| subject.origin());
                self.refuse(origin, Refusal::RetryLater);
            } else if self.is_made(&subject) {
                self.log.withdraw(msg_id);
            } else {
                self.in_flight.add_again(msg_id, name, subject);
            }
        }
        if let Err(error) = again {
            tracing::error!(%error, "this node's log cannot be read: what Redis lost of it is not submitted again");
        }
        self.in_flight.search_all(from);
        if self.in_flight.len() > 0 {
            tracing::info!(submissions = self.in_flight.len(), "looking for what was submitted and may be nowhere");
        }
    }
}
