//! What a session begins with, and a new generation when Redis has lost its data.
//!
//! On the ledger's thread. What always holds: entries of a generation are numbered from its number times 2^40 on, so
//! the database's position tells its generation; before a new one begins, the database's position is moved to its
//! beginning, so that no store writes what the lost stream had, and its groups are those that the database then has; every user's numbers jump by `SEQ_JUMP`.

use super::entry::{seq_bytes, users_bytes};
use super::link::{Generation, What};
use super::reload::Found;
use super::{RedisEngine, Session};
use crate::clock::Now;
use crate::ids::{Seq, UserId};
use crate::journal::Position;
use crate::journal::disk::Disk;
use crate::limits::SEQ_JUMP;

/// Entries of a generation are numbered in so many bits.
const ENTRY_BITS: u32 = 40;
/// Users of one step.
const USERS_PER_STEP: usize = 1_000;
/// Members of one step (a group may have more).
const MEMBERS_PER_STEP: usize = 1_000;

/// The generation that an entry, or a position of the database, belongs to.
pub fn generation_of(entry: u64) -> u64 {
    entry >> ENTRY_BITS
}

/// Where a generation's entries begin: its first is the next one.
pub fn base_of(generation: u64) -> u64 {
    generation << ENTRY_BITS
}

/// What a user's first row of a generation counts from, if nothing is known of the user.
pub fn first_seq_after(generation: u64) -> Seq {
    Seq(generation.saturating_sub(1) * SEQ_JUMP)
}

impl<D: Disk> RedisEngine<D> {
    /// A session begins, or Redis was looked at again.
    pub(super) fn status(
        &mut self,
        now: Now,
        session: u64,
        generation: Option<Generation>,
        count: u64,
        base: u64,
        since_ms: u64,
    ) {
        let known = generation_of(self.seen.max(self.progress.applied().0));
        let lost = match &generation {
            None => true,
            Some(there) if there.number < known => true,
            Some(there) => {
                let same = self.generation.as_ref().filter(|ours| ours.number == there.number);
                let gone_back = generation_of(self.seen) == there.number && count < self.seen;
                gone_back || same.is_some_and(|ours| ours != there)
            }
        };
        self.session = Session::Lost(session);
        if lost {
            let replaces = generation.clone();
            let number = known.max(generation.map_or(0, |there| there.number)) + 1;
            let made = Generation { number, nonce: self.nonce.wrapping_add(now.mono_ms) | 1 };
            if self.making.as_ref().is_none_or(|making| making.number != number) {
                tracing::warn!(
                    generation = number,
                    "Redis does not have the ledger that this node knows: nothing is numbered until it is made anew"
                );
            }
            self.making = Some(made.clone());
            self.order(What::Begin { generation: made, replaces });
            return;
        }
        let Some(there) = generation else { return };
        let found = Found { there, count, base, since_ms };
        if found.there.number > generation_of(self.seen) && found.there.number != self.loaded_for {
            return self.load_groups(session, Some(found));
        }
        self.follow_from(session, found);
    }

    /// Follows the stream, behind what was read of it or from its beginning.
    pub(super) fn follow_from(&mut self, session: u64, found: Found) {
        let Found { there, count, base, since_ms } = found;
        let changed = there.number > generation_of(self.seen) || self.generation.is_none();
        if there.number > generation_of(self.seen) {
            self.seen = base;
        }
        self.generation = Some(there.clone());
        self.since_ms = since_ms;
        self.level_at = count;
        self.session = Session::Following(session);
        if changed {
            self.submit_again(base);
        }
        tracing::info!(
            generation = there.number,
            behind = count - self.seen.min(count),
            "following the cluster's ledger"
        );
        self.order(What::Follow { generation: there, after: self.seen });
    }

    /// The lock is this node's: the database's position is moved first.
    pub(super) fn begun(&mut self) {
        let (Session::Lost(session), Some(making)) = (self.session, &self.making) else { return };
        self.progress.ask_fence(Position(base_of(making.number)));
        self.session = Session::Fencing(session);
    }

    /// Goes on when the database's position has been moved.
    pub(super) fn fence(&mut self, _now: Now) {
        let (Session::Fencing(session), Some(making)) = (self.session, self.making.clone()) else { return };
        let base = base_of(making.number);
        if self.progress.applied().0 < base {
            return;
        }
        self.load_groups(session, None);
    }

    /// Everything this node knows of numbers and groups. Members of a group that nobody else has touched lie side by
    /// side then, as they did when they were first seen.
    pub(super) fn steps(&self) -> Vec<(&'static str, Vec<Vec<u8>>)> {
        let mut steps = Vec::new();
        let mut users: Vec<(UserId, Seq)> = self.sequences.each().collect();
        users.sort_unstable();
        for piece in users.chunks(USERS_PER_STEP) {
            let pair = |(user, seq): &(UserId, Seq)| {
                [user.0.to_be_bytes().to_vec(), seq_bytes(Seq(seq.0 + SEQ_JUMP)).to_vec()]
            };
            steps.push(("users", piece.iter().flat_map(pair).collect()));
        }
        let (mut values, mut members) = (Vec::new(), 0);
        for roster in self.groups.each() {
            let mut users: Vec<UserId> = roster.members().iter().map(|member| member.user).collect();
            users.sort_unstable();
            members += users.len();
            values.push(roster.group.0.to_string().into_bytes());
            values.push(roster.version.0.to_string().into_bytes());
            values.push(users_bytes(&users));
            if members >= MEMBERS_PER_STEP {
                steps.push(("group", std::mem::take(&mut values)));
                members = 0;
            }
        }
        if !values.is_empty() {
            steps.push(("group", values));
        }
        steps
    }

    /// All that this node has submitted, and that is perhaps neither in the database nor in the stream.
    fn submit_again(&mut self, from: u64) {
        self.log.forget_entries();
        let mut open = Vec::new();
        let again = self.log.each_open(&mut |record| open.extend(super::flying::Subject::from_log(&record)));
        for (msg_id, name, subject) in open {
            if self.is_made(&subject) {
                self.log.close(msg_id);
            } else {
                self.flying.add_again(msg_id, name, subject);
            }
        }
        if let Err(error) = again {
            tracing::error!(%error, "this node's log cannot be read: what Redis lost of it is not submitted again");
        }
        self.flying.search_all(from);
        if self.flying.len() > 0 {
            tracing::info!(submissions = self.flying.len(), "looking for what was submitted and may be nowhere");
        }
    }
}
