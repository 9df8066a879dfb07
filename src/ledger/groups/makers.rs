//! Whose groups they are: each counts against one user, whatever that user leaves.
//!
//! Owned by the ledger's thread, part of [`super::Groups`]. What always holds: a group counts against the user who made
//! it, or who has added members to it since; what a user has of groups is the sum over those that count against him, and
//! falls only when they lose members, end or come to count against another.

use std::collections::HashMap;

use crate::contract::internal::{OrCount, Place};
use crate::contract::keyed::TableKey;
use crate::limits::{GROUP_BYTES, MEMBERSHIP_BYTES};
use ringway_wire::ids::UserId;

/// What somebody has made of groups.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Made {
    /// Groups that count against the user.
    pub(crate) groups: usize,
    /// Members of all of them.
    pub(crate) memberships: usize,
}

impl Made {
    /// One group with so many members.
    pub(super) fn group(members: usize) -> Made {
        Made { groups: 1, memberships: members }
    }

    /// So many members more of a group that counts already.
    pub(super) fn members(members: usize) -> Made {
        Made { groups: 0, memberships: members }
    }

    /// With this in addition.
    pub(super) fn and(self, more: Made) -> Made {
        Made { groups: self.groups + more.groups, memberships: self.memberships + more.memberships }
    }

    /// What it takes of the ledger's memory, about.
    pub(crate) fn bytes(self) -> u64 {
        self.groups as u64 * GROUP_BYTES + self.memberships as u64 * MEMBERSHIP_BYTES
    }
}

/// Everybody who has made anything that there still is.
#[derive(Debug)]
pub(super) struct Makers(HashMap<UserId, Made, TableKey>);

impl Makers {
    pub(super) fn new(key: TableKey) -> Self {
        Makers(HashMap::with_hasher(key))
    }

    /// What this user has made.
    pub(super) fn made(&self, user: UserId) -> Made {
        self.0.get(&user).copied().unwrap_or_default()
    }

    /// A group of so many members counts against this user from now on.
    pub(super) fn count(&mut self, user: UserId, members: usize) {
        let made = self.0.entry(user).or_default();
        *made = made.and(Made::group(members));
    }

    /// It does no longer.
    pub(super) fn forget(&mut self, user: UserId, members: usize) {
        let Some(made) = self.0.get_mut(&user).or_count(Place::Ledger) else { return };
        made.groups = made.groups.checked_sub(1).or_count(Place::Ledger).unwrap_or_default();
        made.memberships = made.memberships.checked_sub(members).or_count(Place::Ledger).unwrap_or_default();
        if *made == Made::default() {
            self.0.remove(&user);
        }
    }
}
