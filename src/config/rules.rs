//! What of the configuration may change while the gateway runs, as shards, ledger and store take it.

use super::{Config, Session};
use crate::contract::policies::{Rules, SessionRules, StoreRules};

impl Config {
    /// What of the store's settings may change while the gateway runs.
    pub(crate) fn store_rules(&self) -> StoreRules {
        StoreRules { linger_ms: self.store.linger_ms.into(), retention_days: self.store.retention_days }
    }

    /// What else of it may.
    pub fn rules(&self) -> Rules {
        let Session { heartbeat_s, heartbeat_max_s, login_timeout_s, stall_timeout_s, devices_max, device_policy } =
            self.session;
        let sessions = SessionRules {
            heartbeat_ms: heartbeat_s * 1000,
            heartbeat_max_ms: heartbeat_max_s * 1000,
            login_timeout_ms: login_timeout_s * 1000,
            stall_timeout_ms: stall_timeout_s * 1000,
            devices_max,
            device_policy,
        };
        Rules { traffic: self.limits.traffic, policies: self.policies, sessions }
    }
}
