//! What a session begins with, and a new generation when Redis has lost its data.
//!
//! On the ledger's thread. What always holds: entries of a generation are numbered from its number times 2^40 on, so
//! the database's position tells its generation; before a new one begins, the database's position is moved to its
//! beginning, so that no store writes what the lost stream had, and its groups are those that the database then has; the
//! one node that moved the position makes the generation, so that no number stands for two of them;
//! every user's rows are numbered above the generation's floor, which is above all that was ever given out.

use super::RedisEngine;
use super::followed::Goes;
use super::link::{Age, Extent, Found, Generation, What};
use super::session::{Certainty, Making, Reading, Session, Then, Waits};
use crate::clock::Now;
use crate::contract::position::StreamPosition;
use crate::journal::disk::Disk;
use crate::ledger::LedgerError;
use crate::limits::SEQ_JUMP;
use ringway_wire::ids::Seq;

/// Before it nothing was lost.
pub(crate) const FIRST_GENERATION: u64 = 1;

/// The generation that an entry, or a position of the database, belongs to.
pub(crate) fn generation_of(entry: StreamPosition) -> u64 {
    entry.generation()
}

/// Where a generation's entries begin: its first is the next one.
pub(crate) fn base_of(generation: u64) -> StreamPosition {
    StreamPosition::before(generation)
}

/// What all rows of a generation are numbered above, if this is the highest seq of all rows in the database when its
/// position is moved to the generation's beginning.
///
/// It is above all that was given out before, stored or not, whatever the node knows that makes the generation. As long as
/// the database's highest seq does not fall, each floor is at least a jump above the one before; and in the generation
/// before nobody was given more than a jump above both its floor and what of it is stored. Of a database that went back
/// Redis tells more ([`Making::above`]).
pub(crate) fn floor_of(generation: u64, highest: Seq) -> Seq {
    let jumps = if highest == Seq(0) { generation.saturating_sub(1) } else { generation };
    Seq(highest.0 + jumps * SEQ_JUMP)
}

/// A generation in whose place another one is to be made.
#[derive(Debug)]
pub(super) struct Replaced {
    pub(super) generation: Generation,
    /// None of its rows is numbered higher, as far as it is there.
    given_max: Seq,
}

impl Replaced {
    /// With rows above `floor`, up to this entry: an entry has at most one row of each user.
    pub(super) fn up_to(generation: Generation, floor: Seq, last: StreamPosition) -> Replaced {
        let entries = last.0.saturating_sub(base_of(generation.number).0);
        Replaced { generation, given_max: Seq(floor.0.saturating_add(entries)) }
    }

    /// What was found.
    pub(super) fn of(found: &Found) -> Replaced {
        Replaced::up_to(found.there.clone(), found.floor, StreamPosition(found.count))
    }
}

impl<D: Disk> RedisEngine<D> {
    /// A session begins, or Redis was looked at again.
    pub(super) fn status(
        &mut self,
        now: Now,
        number: u64,
        found: Option<Found>,
        highest: u64,
    ) -> Result<(), LedgerError> {
        if let Some(found) = &found {
            self.follower.redis_clock.compare(now, found.now_ms);
        }
        let was_behind = matches!(self.session, Session::Behind { .. });
        let found = match found {
            Some(found) if !self.is_lost(&found, highest) => found,
            found => {
                // Another node may have begun one.
                let why = "Redis does not have the ledger that this node knows";
                self.make_anew_above(now, number, highest, found.as_ref().map(Replaced::of), why);
                return Ok(());
            }
        };
        // Until its snapshot is read one that is behind knows less than others, and answers nobody.
        self.session =
            if was_behind { Session::Behind { number } } else { Session::Lost { number, waits: Waits::Look } };
        if !found.is_confirmed && self.follower.followed.can_confirm(&found.there) {
            // It answers for all that it was told of.
            let read = self.follower.followed.seen().max(self.follower.redis_clock.had_before());
            self.order(What::Confirm { generation: found.there, read: read.0 });
            return Ok(());
        }
        if found.age == Age::Fresh {
            self.order(What::Status);
            return Ok(());
        }
        if !found.is_confirmed && self.has_stored_all_of(&found) {
            let why = "Redis was started while no node was there to tell whether it has all it had";
            self.make_anew(now, number, Replaced::of(&found), why);
            return Ok(());
        }
        if found.there.number > generation_of(self.follower.followed.seen()) || was_behind {
            self.load(number, Then::Follow(found));
            return Ok(());
        }
        self.follow_from(number, found)
    }

    /// What was found is not what this node knows, or may not be gone on with.
    fn is_lost(&self, found: &Found, highest: u64) -> bool {
        let Found { there, count, extent, .. } = found;
        // Another node has begun the next one: it knows of this one what is not there any more.
        let is_over = there.number < self.known_generation() || there.number < highest;
        let seen = self.follower.followed.seen();
        let has_gone_back = generation_of(seen) == there.number && *count < seen.0;
        // What it was told of and has not read others may have.
        let is_less = *count < self.follower.redis_clock.had_before().0;
        let same = self.follower.followed.generation().filter(|ours| ours.number == there.number);
        let is_other = same.is_some_and(|ours| ours != there || is_less);
        *extent == Extent::Part || is_over || has_gone_back || is_other
    }

    /// The highest number of a generation that this node, or the database, has something of.
    fn known_generation(&self) -> u64 {
        generation_of(self.follower.followed.seen().max(self.progress.applied().in_stream()))
    }

    /// Asks for the lock for making the generation behind all that are known.
    pub(super) fn make_anew(&mut self, now: Now, number: u64, replaced: Replaced, why: &str) {
        self.make_anew_above(now, number, 0, Some(replaced), why);
    }

    /// The same, where some bucket has, or was to have, a generation of this number.
    fn make_anew_above(&mut self, now: Now, number: u64, highest: u64, replaced: Option<Replaced>, why: &str) {
        let (replaces, given_max) = match replaced {
            Some(Replaced { generation, given_max }) => (Some(generation), given_max),
            None => Default::default(),
        };
        let there = replaces.as_ref().map_or(0, |there| there.number);
        let next = self.known_generation().max(highest).max(there) + 1;
        let generation = Generation { number: next, nonce: self.nonce.wrapping_add(now.mono_ms) | 1 };
        if self.making_told != next {
            tracing::warn!(generation = next, "{why}: nothing is numbered until it is made anew");
            self.making_told = next;
        }
        let above = given_max.max(self.follower.sequences.highest());
        let making = Making { generation: generation.clone(), above };
        self.session = Session::Lost { number, waits: Waits::Lock(making) };
        self.order(What::Begin { generation, replaces, node: self.settings.node });
    }

    /// What was waited for is not there, or not any more: Redis is looked at again.
    pub(super) fn look_again(&mut self, number: u64) {
        self.session = Session::Lost { number, waits: Waits::Look };
        self.order(What::Status);
    }

    /// Redis was started when no node was there: it may have less than it had. What it has is stored, as nothing else may
    /// be. Then Redis is looked at once more, as a node that was there may have come back meanwhile; if none has, a new
    /// generation is made, whose numbers are above all that was ever given out, and what this node has submitted and is not
    /// stored is submitted again.
    pub(super) fn settle_unverified(&mut self) {
        let Session::Following { number, reading } = &self.session else { return };
        let Reading { certainty, caught_up_at, .. } = *reading;
        if certainty == Certainty::Unverified
            && self.follower.followed.seen() >= caught_up_at
            && self.progress.stored() >= caught_up_at
        {
            self.look_again(*number);
        }
    }

    /// The database was moved past the generation that is followed: by a node that found Redis without it, though it is
    /// there again, or because the next one is there and this node does not know it yet. What is numbered in it can never
    /// be stored. Redis is looked at again, and what was submitted goes into the next one.
    ///
    /// Or the database has other entries under the numbers of those that are followed: a replica that lacked them has taken
    /// Redis's place, and no node that knew them was there to say so. What lies behind them cannot be stored either.
    pub(super) fn leave_unstorable(&mut self, now: Now) {
        let Session::Following { number, reading } = &self.session else { return };
        let (number, generation) = (*number, reading.generation.number);
        if generation_of(self.progress.applied().in_stream()) > generation {
            self.look_again(number);
        } else if generation_of(self.progress.diverged()) == generation {
            let replaced = self.replaced(reading, reading.caught_up_at);
            let why = "the database has other entries under the numbers that this node has followed";
            self.make_anew(now, number, replaced, why);
        }
    }

    /// This node has followed all that Redis has, and the database has it.
    fn has_stored_all_of(&self, found: &Found) -> bool {
        let all = StreamPosition(found.count);
        let is_followed = self.follower.followed.generation() == Some(&found.there);
        is_followed && self.follower.followed.seen() >= all && self.progress.stored() >= all
    }

    /// Follows the stream, behind what was read of it or is in the snapshot of the database.
    pub(super) fn follow_from(&mut self, number: u64, found: Found) -> Result<(), LedgerError> {
        let is_first = self.follower.followed.generation().is_none();
        if is_first && !self.follower.knows_left() && !self.submitter.unknown_groups(&self.follower).is_empty() {
            // Begun from a snapshot that does not say what became of them, and nothing was read since.
            self.load(number, Then::Follow(found));
            return Ok(());
        }
        let (reading, seen) = (Reading::of(&found), self.follower.followed.seen());
        let Found { there, count, floor, now_ms, .. } = found;
        if self.progress.fence_asked() > base_of(there.number) {
            // What the database was to be moved past is here again.
            self.progress.take_back_fence();
        }
        let goes = self.follower.followed.follow(&reading);
        self.follower.sequences.set_floor(floor);
        self.session = Session::Following { number, reading };
        if goes == Goes::Anew {
            self.follower.redis_clock.begin();
            if !is_first {
                self.submitter.reopen(now_ms);
            }
            self.submitter.submit_again(seen, &self.follower, &mut self.answers);
        }
        self.follower.stood(StreamPosition(count), now_ms);
        tracing::info!(
            generation = there.number,
            behind = count.saturating_sub(seen.0),
            "following the cluster's ledger"
        );
        self.order(What::Follow { generation: there, after: seen.0, known: self.follower.followed.recent() });
        Ok(())
    }

    /// The lock is this node's: the database's position is moved first.
    pub(super) fn begun(&mut self) {
        let Session::Lost { number, waits: Waits::Lock(making) } = &self.session else { return };
        self.progress.ask_fence(base_of(making.generation.number));
        self.session = Session::Fencing { number: *number, making: making.clone() };
    }

    /// Goes on when the database's position has been moved. If another node has moved it there, the generation is that
    /// node's to make, and perhaps it was made, given out and lost: this one takes the next number.
    pub(super) fn fence(&mut self) {
        let Session::Fencing { number, making } = &self.session else { return };
        let (number, making) = (*number, making.clone());
        let base = base_of(making.generation.number);
        if self.progress.applied().in_stream() < base {
            return;
        }
        match self.progress.fenced() == base {
            true => self.load(number, Then::Make(making)),
            false => self.look_again(number),
        }
    }
}
