//! Which of a user's sessions may stay: one per device, and no more devices than allowed, on all nodes together.
//!
//! Part of the shard's core. Every node applies the same rule to what it knows of the user, and closes only its own
//! sessions. What always holds: sessions are ordered by when they began, then by node, which is the same on every node,
//! and a login begins later than all that its node knows of; so nodes that know the same agree on who stays, and of two
//! logins that do not know of each other at least one does.

use super::Shard;
use super::directory::SessionsOf;
use super::session::NIL;
use crate::clock::Now;
use crate::contract::device_policy::DevicePolicy;
use ringway_wire::ids::{DeviceId, UserId};
use ringway_wire::schema::CloseReason;

/// A device that is logged in, here or on another node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct DeviceLogin {
    since_ms: u64,
    node: u16,
    device: DeviceId,
    /// Of a session here.
    slot: Option<u32>,
}

impl Shard {
    /// The same device replaces itself; above the number of devices the policy decides. False: the new one goes.
    pub(super) fn make_room_for_device(&mut self, now: Now, slot: u32, user: UserId, device: DeviceId) -> bool {
        let first = self.directory.first_session(user);
        let same = SessionsOf { sessions: &self.sessions, at: first }
            .find(|other| self.sessions.at(*other).is_some_and(|session| session.device == device));
        if let Some(same) = same {
            self.close(now, same, CloseReason::Replaced);
            return true;
        }
        let held = self.devices_of(user);
        // One on another node is closed there, when that node is notified of this login; so is the oldest.
        let is_known = held.iter().any(|held| held.device == device);
        if is_known || held.len() < usize::from(self.config.devices_max.max(1)) {
            return true;
        }
        match self.config.device_policy {
            DevicePolicy::ReplaceOldest => {
                if let Some(oldest) = held.first().and_then(|oldest| oldest.slot) {
                    self.close(now, oldest, CloseReason::DeviceLimit);
                }
                true
            }
            DevicePolicy::RefuseNew => {
                self.close(now, slot, CloseReason::DeviceLimit);
                false
            }
        }
    }

    /// A user has logged in on another node: closes the sessions here that the policy does not allow beside that one.
    pub(super) fn apply_device_policy(&mut self, now: Now, user: UserId) {
        let first = self.directory.first_session(user);
        if first == NIL {
            return;
        }
        let held = self.devices_of(user);
        let ours: Vec<u32> = SessionsOf { sessions: &self.sessions, at: first }.collect();
        for slot in ours {
            if !held.iter().any(|held| held.slot == Some(slot)) {
                self.close(now, slot, CloseReason::Replaced);
            }
        }
        let over = held.len().saturating_sub(usize::from(self.config.devices_max.max(1)));
        let beyond = match self.config.device_policy {
            DevicePolicy::ReplaceOldest => held.get(..over),
            DevicePolicy::RefuseNew => held.get(held.len() - over..),
        };
        for slot in beyond.unwrap_or_default().iter().filter_map(|held| held.slot) {
            self.close(now, slot, CloseReason::DeviceLimit);
        }
    }

    /// A user's devices, the one that logged in first first. One that is logged in on several nodes counts where it
    /// logged in last.
    fn devices_of(&self, user: UserId) -> Vec<DeviceLogin> {
        let node = self.config.node.unwrap_or_default();
        let first = self.directory.first_session(user);
        let mut held: Vec<DeviceLogin> = SessionsOf { sessions: &self.sessions, at: first }
            .filter_map(|slot| {
                let device = self.sessions.at(slot)?.device;
                Some(DeviceLogin { since_ms: self.remote_sessions.since_ms(slot), node, device, slot: Some(slot) })
            })
            .collect();
        // The newest is first in the list; without a cluster that is all there is to go by, and the sort keeps it.
        held.reverse();
        held.extend(self.remote_sessions.of(user).map(|remote| DeviceLogin {
            since_ms: remote.since_ms,
            node: remote.node,
            device: remote.device,
            slot: None,
        }));
        held.sort_by_key(|held| (held.since_ms, held.node));
        let latest = |at: usize, one: &DeviceLogin| !held.iter().skip(at + 1).any(|later| later.device == one.device);
        held.iter().enumerate().filter(|(at, one)| latest(*at, one)).map(|(_, one)| *one).collect()
    }
}
