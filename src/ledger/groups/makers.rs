//! Whose groups they are: each counts against one user, whatever that user leaves.
//!
//! Owned by the ledger's thread, part of [`super::Groups`]. What always holds: a group counts against the user who made
//! it, or who has added members to it since; what a user has of groups is the sum over those that count against him, and
//! falls only when they lose members, end or come to count against another.

use std::collections::HashMap;

use super::Groups;
use crate::contract::internal::{OrCount, Place};
use crate::contract::keyed::TableKey;
use crate::limits::{GROUP_BYTES, MEMBERSHIP_BYTES};
use ringway_wire::ids::{GroupId, UserId};
use ringway_wire::request::GroupEntry;
use ringway_wire::schema::Role;

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
pub(super) struct Makers(HashMap<UserId, Maker, TableKey>);

#[derive(Debug, Default)]
struct Maker {
    /// In no order; as many as one user may make.
    groups: Vec<GroupId>,
    memberships: usize,
}

impl Makers {
    pub(super) fn new(key: TableKey) -> Self {
        Makers(HashMap::with_hasher(key))
    }

    /// What this user has made.
    pub(super) fn made(&self, user: UserId) -> Made {
        let made = self.0.get(&user);
        made.map_or(Made::default(), |made| Made { groups: made.groups.len(), memberships: made.memberships })
    }

    /// A group of so many members counts against this user from now on.
    pub(super) fn count(&mut self, user: UserId, group: GroupId, members: usize) {
        let maker = self.0.entry(user).or_default();
        maker.groups.push(group);
        maker.memberships += members;
    }

    /// It does no longer.
    pub(super) fn forget(&mut self, user: UserId, group: GroupId, members: usize) {
        let Some(maker) = self.0.get_mut(&user).or_count(Place::Ledger) else { return };
        // The newest are those that change.
        let at = maker.groups.iter().rposition(|made| *made == group).or_count(Place::Ledger);
        at.map(|at| maker.groups.swap_remove(at));
        maker.memberships = maker.memberships.checked_sub(members).or_count(Place::Ledger).unwrap_or_default();
        if maker.groups.is_empty() {
            self.0.remove(&user);
        }
    }
}

impl Groups {
    /// The groups that count against this user, by group id; who is in one no more is shown as a member of it.
    pub(crate) fn made_by(&self, user: UserId) -> Vec<GroupEntry> {
        let groups = self.makers.0.get(&user).map_or(&[][..], |maker| &maker.groups);
        let entry = |group: &GroupId| {
            let roster = self.roster(*group)?;
            let members_count = roster.members().len() as u32;
            let role = roster.role(user).unwrap_or(Role::Member);
            Some(GroupEntry { group: *group, version: roster.version, role, members_count })
        };
        let mut entries: Vec<GroupEntry> = groups.iter().filter_map(entry).collect();
        entries.sort_unstable_by_key(|entry| entry.group);
        entries
    }
}
