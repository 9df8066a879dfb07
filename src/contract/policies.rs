//! What an operator lets clients do, and may change while the gateway runs.

use crate::contract::ids::Origin;
use crate::contract::traffic::TrafficLimits;

/// Who may do something over a client's connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Permission {
    /// Whoever has logged in.
    #[default]
    Anyone,
    /// Who shares a group with the one whom it concerns.
    SharedGroup,
    /// Nobody.
    Nobody,
}

impl Permission {
    /// For whoever asks: the API may always.
    pub(crate) fn asked_by(self, origin: Origin, shards: u16) -> Permission {
        if origin.is_api(shards) { Permission::Anyone } else { self }
    }
}

/// Who may do what.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Policies {
    /// Write to another user. To oneself one always may.
    pub(crate) direct_messages: Permission,
    /// Make a group: anyone or nobody.
    pub(crate) group_creation: Permission,
    /// Make others members of a group, of a new one too.
    pub(crate) adding_members: Permission,
    /// Ask who is online.
    pub(crate) presence: Permission,
}

/// What of the settings may change while the gateway runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// What one account may send.
    pub(crate) traffic: TrafficLimits,
    /// What clients are let do.
    pub(crate) policies: Policies,
}
