//! Who may not log in: what operators state of users who live here, and the end of the sessions that it concerns.
//!
//! Part of the shard's core. The facts are kept by the thread that hears the operators (`control/access.rs`) and by every
//! node; a shard has those of its own users in memory, 40 bytes each. What always holds: a login is compared with the facts
//! on its user's shard, where they are applied too, so none slips through between; whom a new fact concerns is closed at
//! once, whether the login is answered yet or not.

use std::collections::HashMap;

use super::Shard;
use super::directory::SessionsOf;
use crate::clock::Now;
use crate::contract::access::{AccessFact, AccessOrder, Standing};
use crate::contract::keyed::TableKey;
use crate::limits::CLOCK_SKEW_WARN_MS;
use ringway_wire::ids::{DeviceId, UserId};
use ringway_wire::schema::CloseReason;

/// The facts, by user.
#[derive(Debug)]
pub(super) struct Access {
    facts: HashMap<UserId, AccessFact, TableKey>,
}

impl Access {
    pub(super) fn new(key: TableKey) -> Self {
        Access { facts: HashMap::with_hasher(key) }
    }

    /// May a user log in with a token of this Unix second?
    pub(super) fn may_log_in(&self, user: UserId, issued_at_s: u64) -> Result<(), CloseReason> {
        match self.facts.get(&user) {
            Some(AccessFact { standing: Standing::Banned, .. }) => Err(CloseReason::Banned),
            Some(fact) if issued_at_s < fact.tokens_from_s => Err(CloseReason::TokenRevoked),
            _ => Ok(()),
        }
    }

    /// Keeps a fact. Returns why the sessions that the user has cannot stay.
    fn keep(&mut self, fact: AccessFact) -> Option<CloseReason> {
        let kept = self.facts.entry(fact.user).or_insert_with(|| AccessFact::none(fact.user));
        let before = *kept;
        *kept = before.with(fact);
        if kept.standing == Standing::Banned && before.standing != Standing::Banned {
            Some(CloseReason::Banned)
        } else if kept.tokens_from_s > before.tokens_from_s {
            Some(CloseReason::TokenRevoked)
        } else {
            None
        }
    }
}

impl Shard {
    /// An operator has stated something of a user who lives here, or ends that user's sessions.
    pub(crate) fn apply_access(&mut self, now: Now, order: AccessOrder) {
        match order {
            AccessOrder::Fact(fact) => {
                if let Some(reason) = self.access.keep(fact) {
                    self.close_sessions_of(now, fact.user, reason);
                }
            }
            AccessOrder::Kick(user) => self.close_sessions_of(now, user, CloseReason::Kicked),
            AccessOrder::KickOfThen(user, at_ms) => self.close_sessions_of_then(now, user, None, at_ms),
            AccessOrder::KickDevice(user, device, at_ms) => {
                self.close_sessions_of_then(now, user, Some(device), at_ms);
            }
        }
    }

    /// Those of a user, or of one device, that had begun by then.
    fn close_sessions_of_then(&mut self, now: Now, user: UserId, device: Option<DeviceId>, at_ms: u64) {
        // The other node's clock may be behind.
        let since_max = at_ms.saturating_add(CLOCK_SKEW_WARN_MS);
        let at = self.directory.first_session(user);
        let is_meant = |slot: &u32| {
            let session = self.sessions.at(*slot).filter(|session| session.phase.is_open());
            session.is_some_and(|session| device.is_none_or(|device| device == session.device))
        };
        let began_before = |slot: &u32| self.remote_sessions.since_ms(*slot) <= since_max;
        let all = SessionsOf { sessions: &self.sessions, at };
        let slots: Vec<u32> = all.filter(is_meant).filter(began_before).collect();
        for slot in slots {
            self.close(now, slot, CloseReason::Kicked);
        }
    }

    fn close_sessions_of(&mut self, now: Now, user: UserId, reason: CloseReason) {
        let at = self.directory.first_session(user);
        let slots: Vec<u32> = SessionsOf { sessions: &self.sessions, at }.collect();
        for slot in slots {
            self.close(now, slot, reason);
        }
    }
}
