//! Who shares a group with whom, and what that permits.
//!
//! Part of the ledger's groups. What always holds: a question is answered from what is in memory, and costs as many steps as
//! the one of two users has groups who has fewer; to oneself everything is permitted.

use super::Groups;
use crate::contract::message::Incoming;
use crate::contract::policies::Permission;
use crate::ledger::sequence::Sequences;
use ringway_wire::ids::{Conversation, UserId};
use ringway_wire::schema::ErrorCode;

impl Groups {
    /// Whether the user may do what concerns the other.
    pub(crate) fn permits(&self, permission: Permission, user: UserId, other: UserId, sequences: &Sequences) -> bool {
        match permission {
            Permission::Anyone => true,
            Permission::SharedGroup => user == other || self.share(user, other, sequences),
            Permission::Nobody => user == other,
        }
    }

    /// Whether a message may go where it is addressed, as far as that is another user. The error: why not.
    pub(crate) fn check_recipient(
        &self,
        permission: Permission,
        incoming: &Incoming,
        sequences: &Sequences,
    ) -> Result<(), ErrorCode> {
        match incoming.to {
            Conversation::User(to) if !self.permits(permission, incoming.sender, to, sequences) => {
                Err(ErrorCode::NotAllowed)
            }
            _ => Ok(()),
        }
    }

    /// Those of the others whom the user shares a group with, or is.
    pub(crate) fn sharing(&self, user: UserId, others: Vec<UserId>, sequences: &Sequences) -> Vec<UserId> {
        let shares = |other: &UserId| self.permits(Permission::SharedGroup, user, *other, sequences);
        others.into_iter().filter(shares).collect()
    }

    /// Whether there is a group that both are in.
    fn share(&self, one: UserId, other: UserId, sequences: &Sequences) -> bool {
        let (of_one, of_other) = (self.ids_of(one, sequences), self.ids_of(other, sequences));
        let (groups, user) = if of_one.len() <= of_other.len() { (of_one, other) } else { (of_other, one) };
        groups.iter().any(|group| self.roster(*group).is_some_and(|roster| roster.position(user).is_some()))
    }
}
