//! Which of a user's sessions may stay: one per device, and no more devices than allowed, on all nodes together.
//!
//! Part of the shard's core. Every node applies the same rule to what it knows of the user, and closes only its own
//! sessions. What always holds: a login that is refused closes no session that stands; sessions are ordered by when they began, then by node, which is the same on every node,
//! and a login begins later than all that its node knows of; so nodes that know the same agree on who stays, and of two
//! logins that do not know of each other at least one does.

use super::Shard;
use super::directory::SessionsOf;
use super::session::NIL;
use crate::clock::Now;
use crate::contract::device_policy::DevicePolicy;
use crate::contract::internal::{OrCount, Place};
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

/// What a login may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Go on.
    Accepted,
    /// It was closed.
    Refused,
}

impl Shard {
    /// Before a login is looked up: no session that stands makes room yet, for the login may still be refused. Those of
    /// the user that are looked up too are as many as devices may be; of one device the newest alone.
    pub(super) fn begin_login(
        &mut self,
        now: Now,
        slot: u32,
        request_id: u32,
        user: UserId,
        device: DeviceId,
    ) -> Verdict {
        let devices_max = usize::from(self.config.devices_max.max(1));
        let first = self.directory.first_session(user);
        let awaiting = |other: &u32| self.sessions.at(*other).is_some_and(|session| session.phase.is_awaiting());
        let pending: Vec<u32> = SessionsOf { sessions: &self.sessions, at: first }.filter(awaiting).collect();
        let is_same = |other: &u32| self.sessions.at(*other).is_some_and(|session| session.device == device);
        if let Some(same) = pending.iter().copied().find(is_same) {
            self.close(now, same, CloseReason::Replaced);
        } else if pending.len() >= devices_max
            && let Some(oldest) = pending.last().copied()
        {
            self.close(now, oldest, CloseReason::DeviceLimit);
        }
        let held = self.devices_of(user);
        if self.config.device_policy == DevicePolicy::RefuseNew && is_over(&held, device, devices_max) {
            self.close_answering(now, slot, request_id, CloseReason::DeviceLimit);
            return Verdict::Refused;
        }
        Verdict::Accepted
    }

    /// A login is accepted: its device's older session is replaced; above the number of devices the policy decides.
    pub(super) fn take_place(&mut self, now: Now, slot: u32, user: UserId, device: DeviceId) -> Verdict {
        let first = self.directory.first_session(user);
        let of_device: Vec<u32> = SessionsOf { sessions: &self.sessions, at: first }
            .filter(|other| self.sessions.at(*other).is_some_and(|session| session.device == device))
            .collect();
        // The newest is first; what is behind this one began before it.
        let at = of_device.iter().position(|other| *other == slot).or_count(Place::Directory).unwrap_or_default();
        let (newer, older) = of_device.split_at(at);
        if newer.iter().any(|newer| self.sessions.at(*newer).is_some_and(|session| session.phase.is_open())) {
            self.close(now, slot, CloseReason::Replaced);
            return Verdict::Refused;
        }
        for older in older.iter().filter(|older| **older != slot) {
            self.close(now, *older, CloseReason::Replaced);
        }
        let held = self.devices_of(user);
        // One on another node is closed there, when that node is notified of this login; so is the oldest.
        if !is_over(&held, device, usize::from(self.config.devices_max.max(1))) {
            return Verdict::Accepted;
        }
        match self.config.device_policy {
            DevicePolicy::ReplaceOldest => {
                if let Some(oldest) = held.first().and_then(|oldest| oldest.slot) {
                    self.close(now, oldest, CloseReason::DeviceLimit);
                }
                Verdict::Accepted
            }
            DevicePolicy::RefuseNew => {
                self.close(now, slot, CloseReason::DeviceLimit);
                Verdict::Refused
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
        let stands = |slot: &u32| self.sessions.at(*slot).is_some_and(|session| session.phase.is_open());
        let ours: Vec<u32> = SessionsOf { sessions: &self.sessions, at: first }.filter(stands).collect();
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

    /// A user's devices that are logged in, the one that logged in first first. One that is so on several nodes counts
    /// where it logged in last.
    fn devices_of(&self, user: UserId) -> Vec<DeviceLogin> {
        let node = self.config.node.unwrap_or_default();
        // Without a cluster the list's order is all that counts, however the clock is set.
        let since_ms = |slot| self.config.node.map_or(0, |_| self.remote_sessions.since_ms(slot));
        let first = self.directory.first_session(user);
        let mut held: Vec<DeviceLogin> = SessionsOf { sessions: &self.sessions, at: first }
            .filter_map(|slot| {
                let device = self.sessions.at(slot).filter(|session| session.phase.is_open())?.device;
                Some(DeviceLogin { since_ms: since_ms(slot), node, device, slot: Some(slot) })
            })
            .collect();
        // The newest is first in the list; the sort keeps what is equal.
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

/// One more device is one too many.
fn is_over(held: &[DeviceLogin], device: DeviceId, devices_max: usize) -> bool {
    !held.iter().any(|held| held.device == device) && held.len() >= devices_max
}
