//! Who may not log in: what operators state of users who live here, and the end of the sessions that it concerns.
//!
//! Part of the shard's core. The facts are kept by the thread that hears the operators (`control/access.rs`) and by every
//! node; a shard has those of its own users in memory, 40 bytes each, and 16 bytes for each session whose token has a name
//! (`jti`). What always holds: a login is compared with the facts
//! on its user's shard, where they are applied too, so none slips through between; whom a new fact concerns is closed at
//! once, whether the login is answered yet or not.

use std::collections::HashMap;

use super::Shard;
use super::directory::SessionsOf;
use crate::clock::Now;
use crate::contract::access::{AccessFact, AccessOrder, RevokedToken, Standing, TokenId};
use crate::contract::keyed::TableKey;
use crate::limits::CLOCK_SKEW_WARN_MS;
use ringway_wire::ids::{DeviceId, UserId};
use ringway_wire::schema::CloseReason;

/// With fewer revoked tokens than these, nobody looks for those that have expired.
const SWEPT_FROM: usize = 1_024;

/// The facts, by user.
#[derive(Debug)]
pub(super) struct Access {
    facts: HashMap<UserId, AccessFact, TableKey>,
    /// Single tokens that do not count, until when (Unix seconds).
    revoked: HashMap<(UserId, TokenId), u64, TableKey>,
    /// At so many of them those are looked for that have expired since.
    sweep_at: usize,
    /// By slot: with which token the session began.
    tokens: HashMap<u32, TokenId, TableKey>,
}

impl Access {
    pub(super) fn new(key: TableKey) -> Self {
        let (facts, revoked) = (HashMap::with_hasher(key), HashMap::with_hasher(key));
        Access { facts, revoked, sweep_at: SWEPT_FROM, tokens: HashMap::with_hasher(key) }
    }

    /// May a user log in with this token of this Unix second?
    pub(super) fn may_log_in(&self, user: UserId, issued_at_s: u64, token: Option<TokenId>) -> Result<(), CloseReason> {
        match self.facts.get(&user) {
            Some(AccessFact { standing: Standing::Banned, .. }) => Err(CloseReason::Banned),
            Some(fact) if issued_at_s < fact.tokens_from_s => Err(CloseReason::TokenRevoked),
            // One that has expired is refused for that before it comes here.
            _ if token.is_some_and(|token| self.revoked.contains_key(&(user, token))) => Err(CloseReason::TokenRevoked),
            _ => Ok(()),
        }
    }

    /// A session begins with this token.
    pub(super) fn session_begins(&mut self, slot: u32, token: Option<TokenId>) {
        if let Some(token) = token {
            self.tokens.insert(slot, token);
        }
    }

    /// The slot is free.
    pub(super) fn session_is_over(&mut self, slot: u32) {
        if !self.tokens.is_empty() {
            self.tokens.remove(&slot);
        }
    }

    /// Keeps that a token does not count.
    fn revoke(&mut self, now: Now, revoked: RevokedToken) {
        let RevokedToken { user, token, until_s } = revoked;
        let kept_s = self.revoked.entry((user, token)).or_default();
        *kept_s = until_s.max(*kept_s);
        if self.revoked.len() >= self.sweep_at {
            self.revoked.retain(|_, until_s| *until_s > now.unix_ms / 1_000);
            self.sweep_at = (self.revoked.len() * 2).max(SWEPT_FROM);
        }
    }

    /// How many single tokens are kept in mind.
    #[cfg(test)]
    pub(super) fn revoked_count(&self) -> usize {
        self.revoked.len()
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
            AccessOrder::Token(revoked) => {
                self.access.revoke(now, revoked);
                self.close_sessions_with(now, revoked.user, revoked.token);
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

    /// Those of a user that began with this token, whether their logins are answered yet or not.
    fn close_sessions_with(&mut self, now: Now, user: UserId, token: TokenId) {
        let at = self.directory.first_session(user);
        let all = SessionsOf { sessions: &self.sessions, at };
        let slots: Vec<u32> = all.filter(|slot| self.access.tokens.get(slot) == Some(&token)).collect();
        for slot in slots {
            self.close(now, slot, CloseReason::TokenRevoked);
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
