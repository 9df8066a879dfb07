//! The users a shard knows: those online, and those in the audience of a group that got a message lately.
//!
//! Owned by the shard. What always holds: a user is here exactly while it has a session or a membership; its
//! sessions form a list through `Session::next_of_user`, the newest first.

use super::index::Index;
use super::session::{NIL, Session};
use super::slab::Slab;
use crate::contract::internal::{self, OrCount, Place};
use crate::contract::keyed::TableKey;
use ringway_wire::ids::UserId;

/// One user, 32 bytes.
#[derive(Debug)]
pub(super) struct User {
    pub(super) id: UserId,
    /// The newest session's slot.
    pub(super) first_session: u32,
    pub(super) sessions_count: u32,
    /// The first of its memberships in audiences.
    pub(super) first_membership: u32,
    pub(super) memberships_count: u32,
}

const _: () = assert!(size_of::<User>() <= 32, "half a million users are 16 MB");

impl Default for User {
    fn default() -> Self {
        User { id: UserId(0), first_session: NIL, sessions_count: 0, first_membership: NIL, memberships_count: 0 }
    }
}

/// Users by id.
#[derive(Debug)]
pub(super) struct Directory {
    users: Slab<User>,
    index: Index,
    /// Users with at least one session.
    pub(super) online_count: usize,
    /// Sessions of all users.
    pub(super) sessions_count: usize,
}

impl Directory {
    pub(super) fn new(key: TableKey) -> Self {
        Directory { users: Slab::new(), index: Index::new(key), online_count: 0, sessions_count: 0 }
    }

    /// The user's slot, if it is known.
    pub(super) fn find(&self, user: UserId) -> Option<u32> {
        self.index.find(user.0, |slot| self.id_of(slot))
    }

    /// The user's slot; it is made if it is not known. Give it a session or a membership, or `release` it.
    pub(super) fn ensure(&mut self, user: UserId) -> u32 {
        if let Some(slot) = self.find(user) {
            return slot;
        }
        let slot = self.users.take();
        if let Some(entry) = self.users.at_mut(slot).or_count(Place::Directory) {
            *entry = User { id: user, ..User::default() };
        }
        let users = &self.users;
        self.index.insert(user.0, slot, |slot| users.at(slot).map_or(0, |user| user.id.0));
        slot
    }

    /// Forgets the user if it has neither sessions nor memberships.
    pub(super) fn release(&mut self, slot: u32) {
        let Some(user) = self.users.at(slot).or_count(Place::Directory) else { return };
        if user.sessions_count > 0 || user.memberships_count > 0 {
            return;
        }
        let users = &self.users;
        self.index.remove(user.id.0, |slot| users.at(slot).map_or(0, |user| user.id.0));
        self.users.give_back(slot);
    }

    #[inline]
    pub(super) fn at(&self, slot: u32) -> Option<&User> {
        self.users.at(slot)
    }

    #[inline]
    pub(super) fn at_mut(&mut self, slot: u32) -> Option<&mut User> {
        self.users.at_mut(slot)
    }

    fn id_of(&self, slot: u32) -> u64 {
        self.users.at(slot).map_or(0, |user| user.id.0)
    }

    /// The user has a session here.
    pub(super) fn is_online(&self, user: UserId) -> bool {
        self.first_session(user) != NIL
    }

    /// The newest session of a user, `NIL` if it is not online.
    pub(super) fn first_session(&self, user: UserId) -> u32 {
        self.find(user).and_then(|slot| self.at(slot)).map_or(NIL, |user| user.first_session)
    }

    /// Puts a session in front of its user's list.
    pub(super) fn join(&mut self, user: u32, session_slot: u32, sessions: &mut Slab<Session>) {
        let Some(entry) = self.users.at_mut(user).or_count(Place::Directory) else { return };
        let Some(session) = sessions.at_mut(session_slot).or_count(Place::Sessions) else { return };
        session.user = user;
        session.next_of_user = std::mem::replace(&mut entry.first_session, session_slot);
        entry.sessions_count += 1;
        self.sessions_count += 1;
        if entry.sessions_count == 1 {
            self.online_count += 1;
        }
    }

    /// Takes a session out of its user's list. The user may be released after that.
    pub(super) fn leave(&mut self, session_slot: u32, sessions: &mut Slab<Session>) {
        let Some(session) = sessions.at_mut(session_slot).or_count(Place::Sessions) else { return };
        let (user, next) = (session.user, session.next_of_user);
        session.user = NIL;
        session.next_of_user = NIL;
        let Some(entry) = self.users.at_mut(user).or_count(Place::Directory) else { return };
        entry.sessions_count -= 1;
        self.sessions_count -= 1;
        if entry.sessions_count == 0 {
            self.online_count -= 1;
        }
        if entry.first_session == session_slot {
            entry.first_session = next;
            return;
        }
        let mut at = entry.first_session;
        while let Some(other) = sessions.at_mut(at) {
            if other.next_of_user == session_slot {
                other.next_of_user = next;
                return;
            }
            at = other.next_of_user;
        }
        internal::count(Place::Directory);
    }
}

/// A user's sessions, newest first.
pub(super) struct SessionsOf<'a> {
    pub(super) sessions: &'a Slab<Session>,
    pub(super) at: u32,
}

impl Iterator for SessionsOf<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let session = self.sessions.at(self.at)?;
        Some(std::mem::replace(&mut self.at, session.next_of_user))
    }
}
