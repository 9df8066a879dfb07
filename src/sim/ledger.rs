//! What kind of ledger a run has, and what may have become of what it knew.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use ringway_wire::ids::{MsgId, UserId};

/// What orders and numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Ledger {
    /// One gateway's journal: messages are numbered in the order in which they are stored.
    #[default]
    Journal,
    /// Redis: each node numbers messages by its own clock, and the stream orders them.
    Redis,
    /// The same, whose ledger may be made anew though nothing was lost, as nobody was there to tell: rows are numbered a
    /// generation higher from then on.
    RemadeRedis,
    /// Redis, which may lose what it has: rows are given other numbers, a generation above the ones before, and changes
    /// of groups may be lost.
    ForgetfulRedis,
}

/// Whether what one was shown is what all are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Truth {
    /// It is.
    #[default]
    One,
    /// A replica that lacked the newest entries has given others the same numbers, and some had been shown them.
    Parted,
}

/// What retention has deleted.
#[derive(Default, Debug)]
pub(crate) struct Deleted {
    pub messages: BTreeSet<MsgId>,
    /// Messages of which some rows are gone, or all.
    pub thinned: BTreeSet<MsgId>,
    /// Of each inbox the rows up to this one.
    pub rows_to: BTreeMap<UserId, u64>,
}
