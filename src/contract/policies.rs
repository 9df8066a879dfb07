//! What an operator lets clients do, and may change while the gateway runs.

use crate::contract::device_policy::DevicePolicy;
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
    /// How sessions are kept.
    pub(crate) sessions: SessionRules,
}

/// How sessions are kept. What a session was told at its login holds as long as it lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionRules {
    /// Clients say something at least this often.
    pub(crate) heartbeat_ms: u32,
    /// The longest interval that a login may ask for instead.
    pub(crate) heartbeat_max_ms: u32,
    /// From accept to a complete login.
    pub(crate) login_timeout_ms: u32,
    /// A connection for which bytes wait and none goes out for so long is closed.
    pub(crate) stall_timeout_ms: u32,
    /// Sessions one user may have at once.
    pub(crate) devices_max: u16,
    /// What happens above that.
    pub(crate) device_policy: DevicePolicy,
}

/// What of the store's settings may change while the gateway runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StoreRules {
    /// How long rows may wait for others to be written with them.
    pub(crate) linger_ms: u64,
    /// How many days messages are kept; 0: for ever.
    pub(crate) retention_days: u32,
}

#[cfg(test)]
impl SessionRules {
    /// As a shard has them where nobody has said otherwise.
    pub(crate) const UNCHANGED: SessionRules = SessionRules {
        heartbeat_ms: 25_000,
        heartbeat_max_ms: 300_000,
        login_timeout_ms: 10_000,
        stall_timeout_ms: 30_000,
        devices_max: 8,
        device_policy: DevicePolicy::ReplaceOldest,
    };
}
