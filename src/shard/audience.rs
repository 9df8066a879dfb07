//! Per group, who of its members is online here: a message to the group looks nobody up.
//!
//! Owned by the shard. An audience is made when a group's message first comes by, follows the roster when a
//! message carries another version (only the difference is touched), and follows logins and logouts through its
//! members' memberships. What always holds: an audience's entries are exactly the sessions of its roster's
//! members on this shard, by member and then newest session first. Above `AUDIENCE_MEMBERSHIPS_MAX` memberships
//! the longest unused audiences go (second chance), and are made again when needed.

use std::sync::Arc;

use super::directory::{Directory, SessionsOf};
use super::index::Index;
use super::session::{NIL, Session};
use super::slab::Slab;
use crate::contract::ids::ShardId;
use crate::contract::internal::{self, OrCount, Place};
use crate::contract::keyed::TableKey;
use crate::contract::message::Roster;
use ringway_wire::ids::GroupId;

/// One online member's session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// The member's index in the roster.
    pub(super) member: u32,
    /// The session's slot.
    pub(super) session: u32,
}

/// Who of a group is online here.
#[derive(Debug, Default)]
pub(super) struct Audience {
    group: GroupId,
    /// `None`: the slot is not in use.
    roster: Option<Arc<Roster>>,
    pub(super) entries: Vec<Entry>,
    used_lately: bool,
}

/// A user is a member of an audience's group; 8 bytes, in a list per user.
#[derive(Debug, Default)]
struct Membership {
    audience: u32,
    next: u32,
}

/// All audiences of a shard.
#[derive(Debug)]
pub(super) struct Audiences {
    shard: ShardId,
    index: Index,
    audiences: Slab<Audience>,
    memberships: Slab<Membership>,
    memberships_max: usize,
    /// Where the search for the longest unused goes on.
    hand: u32,
}

impl Audiences {
    pub(super) fn new(shard: ShardId, memberships_max: usize, key: TableKey) -> Self {
        Audiences {
            shard,
            index: Index::new(key),
            audiences: Slab::new(),
            memberships: Slab::new(),
            memberships_max,
            hand: 0,
        }
    }

    /// Memberships remembered.
    pub(super) fn memberships_count(&self) -> usize {
        self.memberships.taken()
    }

    /// The version of the group's audience, if there is one.
    pub(super) fn roster(&self, group: GroupId) -> Option<&Arc<Roster>> {
        self.find(group).and_then(|slot| self.audiences.at(slot)).and_then(|audience| audience.roster.as_ref())
    }

    fn find(&self, group: GroupId) -> Option<u32> {
        self.index.find(group.0, |slot| self.audiences.at(slot).map_or(0, |audience| audience.group.0))
    }

    /// The audience of exactly this roster, made or changed if it must be.
    pub(super) fn of(
        &mut self,
        roster: &Arc<Roster>,
        directory: &mut Directory,
        sessions: &Slab<Session>,
    ) -> &mut Audience {
        let slot = match self.find(roster.group) {
            Some(slot) => slot,
            None => self.insert(roster.group),
        };
        let current = self.audiences.at(slot).and_then(|audience| audience.roster.as_ref());
        if current.is_none_or(|current| current.version != roster.version) {
            self.change(slot, roster, directory, sessions);
        }
        if let Some(audience) = self.audiences.at_mut(slot).or_count(Place::Audience) {
            audience.used_lately = true;
        }
        while self.memberships.taken() > self.memberships_max && self.evict_another(slot, directory) {}
        // The slot was just found or made; a slab's slots are never taken away.
        self.audiences.reached(slot)
    }

    fn insert(&mut self, group: GroupId) -> u32 {
        let slot = self.audiences.take();
        let audience = self.audiences.reached(slot);
        *audience = Audience { group, ..Audience::default() };
        let audiences = &self.audiences;
        self.index.insert(group.0, slot, |slot| audiences.at(slot).map_or(0, |audience| audience.group.0));
        slot
    }

    /// Walks the old and the new members side by side: those in both keep their entries, under their new index.
    fn change(&mut self, slot: u32, roster: &Arc<Roster>, directory: &mut Directory, sessions: &Slab<Session>) {
        let audience = self.audiences.reached(slot);
        let old_roster = audience.roster.replace(Arc::clone(roster));
        let old_entries = std::mem::take(&mut audience.entries);
        let mut old_entries = old_entries.iter().peekable();
        let mut entries = Vec::new();
        let old_range = old_roster.as_ref().map_or(0..0, |old| old.range(self.shard));
        let mut old = old_range.peekable();
        let old_user = |at: usize| old_roster.as_ref().and_then(|r| r.members().get(at)).map(|m| m.user);
        for at in roster.range(self.shard) {
            let Some(user) = roster.members().get(at).map(|member| member.user).or_count(Place::Audience) else {
                continue;
            };
            while let Some(gone) = old.next_if(|at| old_user(*at).is_some_and(|old| old < user)) {
                while old_entries.next_if(|entry| entry.member as usize == gone).is_some() {}
                if let Some(gone) = old_user(gone) {
                    unlink(slot, directory.find(gone), directory, &mut self.memberships);
                }
            }
            match old.next_if(|at| old_user(*at) == Some(user)) {
                Some(kept) => {
                    while let Some(entry) = old_entries.next_if(|entry| entry.member as usize == kept) {
                        entries.push(Entry { member: at as u32, session: entry.session });
                    }
                }
                None => {
                    let user_slot = directory.ensure(user);
                    let Some(entry) = directory.at_mut(user_slot).or_count(Place::Audience) else { continue };
                    let membership = self.memberships.take();
                    *self.memberships.reached(membership) = Membership { audience: slot, next: entry.first_membership };
                    entry.first_membership = membership;
                    entry.memberships_count += 1;
                    let online = SessionsOf { sessions, at: entry.first_session };
                    entries.extend(online.map(|session| Entry { member: at as u32, session }));
                }
            }
        }
        for gone in old.filter_map(old_user) {
            unlink(slot, directory.find(gone), directory, &mut self.memberships);
        }
        self.audiences.reached(slot).entries = entries;
    }

    /// Second chance: the hand passes those used since it last came by. Never takes `keep`.
    fn evict_another(&mut self, keep: u32, directory: &mut Directory) -> bool {
        for _ in 0..2 * self.audiences.high() {
            let at = self.hand;
            self.hand = (self.hand + 1) % self.audiences.high().max(1);
            let Some(audience) = self.audiences.at_mut(at).or_count(Place::Audience) else { continue };
            if at == keep || audience.roster.is_none() || std::mem::take(&mut audience.used_lately) {
                continue;
            }
            self.evict(at, directory);
            return true;
        }
        false
    }

    /// The group's audience is made again when it is needed: its roster may come again as another one.
    pub(super) fn forget(&mut self, group: GroupId, directory: &mut Directory) {
        if let Some(slot) = self.find(group) {
            self.evict(slot, directory);
        }
    }

    fn evict(&mut self, slot: u32, directory: &mut Directory) {
        let audience = self.audiences.reached(slot);
        let Some(roster) = audience.roster.take().or_count(Place::Audience) else { return };
        audience.entries = Vec::new();
        for member in roster.members().get(roster.range(self.shard)).or_count(Place::Audience).unwrap_or_default() {
            unlink(slot, directory.find(member.user), directory, &mut self.memberships);
        }
        let audiences = &self.audiences;
        self.index.remove(roster.group.0, |slot| audiences.at(slot).map_or(0, |audience| audience.group.0));
        self.audiences.give_back(slot);
    }

    /// A session was put in front of its user's list.
    pub(super) fn joined(&mut self, user: u32, session: u32, directory: &Directory) {
        self.each_of(user, directory, |audience, member| {
            let at = audience.entries.partition_point(|entry| entry.member < member);
            audience.entries.insert(at, Entry { member, session });
        });
    }

    /// A session leaves its user's list.
    pub(super) fn left(&mut self, user: u32, session: u32, directory: &Directory) {
        self.each_of(user, directory, |audience, member| {
            let start = audience.entries.partition_point(|entry| entry.member < member);
            let of_member = audience.entries.iter().skip(start).take_while(|entry| entry.member == member);
            if let Some(at) = of_member.clone().position(|entry| entry.session == session).or_count(Place::Audience) {
                audience.entries.remove(start + at);
            }
        });
    }

    fn each_of(&mut self, user: u32, directory: &Directory, mut visit: impl FnMut(&mut Audience, u32)) {
        let Some(user) = directory.at(user).or_count(Place::Audience) else { return };
        let mut at = user.first_membership;
        while let Some(membership) = self.memberships.at(at).filter(|_| at != NIL) {
            at = membership.next;
            let Some(audience) = self.audiences.at_mut(membership.audience).or_count(Place::Audience) else { continue };
            let member = audience.roster.as_ref().and_then(|roster| roster.position(user.id));
            if let Some(member) = member.or_count(Place::Audience) {
                visit(audience, member as u32);
            }
        }
    }
}

/// Takes the user's membership in an audience out of its list.
fn unlink(audience: u32, user: Option<u32>, directory: &mut Directory, memberships: &mut Slab<Membership>) {
    let Some(user_slot) = user.or_count(Place::Audience) else { return };
    let Some(user) = directory.at_mut(user_slot).or_count(Place::Audience) else { return };
    let mut before = NIL;
    let mut at = user.first_membership;
    let mut is_found = false;
    while let Some(membership) = memberships.at(at) {
        let next = membership.next;
        if membership.audience == audience {
            match memberships.at_mut(before) {
                Some(previous) => previous.next = next,
                None => user.first_membership = next,
            }
            user.memberships_count -= 1;
            memberships.give_back(at);
            is_found = true;
            break;
        }
        before = at;
        at = next;
    }
    if !is_found {
        internal::count(Place::Audience);
    }
    directory.release(user_slot);
}
