//! What this node and Redis are to each other: the state of a session, and what is known in it.
//!
//! Owned by the engine; `src/cluster/README.md` says of each state what ends it and what a node may do in it. What always
//! holds: what is known in a state goes with it; a state waits for one answer at most; and what is known whatever the
//! session is somewhere else ([`super::followed`]).

use super::link::{Found, Generation};
use crate::contract::position::StreamPosition;
use crate::contract::report::StandsStill;
use ringway_wire::ids::Seq;

/// The state. `number` is the session's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Session {
    /// Nothing is heard of Redis.
    Disconnected {
        /// As far as it was told.
        why: StandsStill,
    },
    /// Redis was looked at, and what it has cannot be followed, or not yet.
    Lost { number: u64, waits: Waits },
    /// The database's position is being moved to behind the lost stream, where this generation begins.
    Fencing { number: u64, making: Making },
    /// The stream is cut off behind the snapshot that this node was to follow it from. Nothing of it was read, Redis is
    /// looked at again, and another snapshot is read next.
    Behind { number: u64 },
    /// A snapshot of the database is read.
    Loading { number: u64, then: Then },
    /// Redis is given the new generation, and looked at when that is done.
    Seeding { number: u64 },
    /// The stream is followed.
    Following { number: u64, reading: Reading },
}

/// What is waited for while nothing can be followed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Waits {
    /// What Redis has when it is looked at again: it was started a moment ago, another node makes the ledger anew, or this
    /// node has just confirmed what Redis has.
    Look,
    /// The lock for making this generation.
    Lock(Making),
}

/// What a snapshot of the database is read for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Then {
    /// To follow what was found.
    Follow(Found),
    /// To make this generation, which begins with it.
    Make(Making),
}

/// A generation that is to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Making {
    pub(super) generation: Generation,
    /// Rows were given out up to this number, as far as Redis and this node know: a database that went back tells of less.
    pub(super) above: Seq,
}

/// What is known of a stream that is followed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Reading {
    pub(super) generation: Generation,
    pub(super) certainty: Certainty,
    /// How far the stream was when it was found.
    pub(super) caught_up_at: StreamPosition,
    /// Names at or above this time, Unix milliseconds, are known to Redis, if anybody used them.
    pub(super) since_ms: u64,
}

/// Whether Redis has all of a stream that it ever had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Certainty {
    /// It was never started since, or a node that was there before has said so.
    Confirmed,
    /// Nobody knows: what it has is stored, and then a new generation is made.
    Unverified,
}

impl Session {
    /// Which session; `None`: there is none.
    pub(super) fn number(&self) -> Option<u64> {
        match self {
            Session::Disconnected { .. } => None,
            Session::Lost { number, .. }
            | Session::Fencing { number, .. }
            | Session::Behind { number }
            | Session::Loading { number, .. }
            | Session::Seeding { number }
            | Session::Following { number, .. } => Some(*number),
        }
    }

    /// The stream that is followed, read to its end or not.
    pub(super) fn reading(&self) -> Option<&Reading> {
        match self {
            Session::Following { reading, .. } => Some(reading),
            Session::Disconnected { .. }
            | Session::Lost { .. }
            | Session::Fencing { .. }
            | Session::Behind { .. }
            | Session::Loading { .. }
            | Session::Seeding { .. } => None,
        }
    }

    /// The stream that is followed, if it has been read as far as it was when the session began. `Err`: why it is not.
    pub(super) fn caught_up(&self, seen: StreamPosition) -> Result<&Reading, StandsStill> {
        match self {
            Session::Disconnected { why } => Err(*why),
            Session::Lost { .. } | Session::Fencing { .. } | Session::Loading { .. } | Session::Seeding { .. } => {
                Err(StandsStill::Rebuilding)
            }
            Session::Behind { .. } => Err(StandsStill::CatchingUp),
            Session::Following { reading, .. } if seen < reading.caught_up_at => Err(StandsStill::CatchingUp),
            Session::Following { reading, .. } => Ok(reading),
        }
    }

    /// A snapshot is to be read, or is, because the stream is cut off behind the one that this node has: it knows less than
    /// others. `followed`: what it has followed.
    pub(super) fn reads_another_snapshot(&self, followed: Option<&Generation>) -> bool {
        match self {
            Session::Behind { .. } => true,
            Session::Loading { then: Then::Follow(found), .. } => followed == Some(&found.there),
            Session::Loading { then: Then::Make(_), .. }
            | Session::Disconnected { .. }
            | Session::Lost { .. }
            | Session::Fencing { .. }
            | Session::Seeding { .. }
            | Session::Following { .. } => false,
        }
    }
}

impl Reading {
    /// What was found is followed.
    pub(super) fn of(found: &Found) -> Reading {
        let certainty = if found.is_confirmed { Certainty::Confirmed } else { Certainty::Unverified };
        let Found { ref there, count, since_ms, .. } = *found;
        Reading { generation: there.clone(), certainty, caught_up_at: StreamPosition(count), since_ms }
    }
}
