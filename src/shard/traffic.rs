//! What sessions and users have sent lately, and whether they may send more.
//!
//! Part of the shard's core. What always holds: a request is taken of all limits that it counts for, or of none, and
//! then refused with `RETRY_LATER` and the time after which it would be taken; all sessions that a user has on this node
//! are on this shard, so what counts for the user counts for all of them, and is remembered when they end; who sends
//! nothing costs nothing.

use std::hash::BuildHasher;

use super::Shard;
use super::slab::Chunked;
use crate::auth::{AuthKeys, Authenticator};
use crate::clock::Now;
use crate::contract::ids::{Origin, PeerAddress};
use crate::contract::internal::{OrCount, Place};
use crate::contract::keyed::TableKey;
use crate::contract::message::Incoming;
use crate::contract::policies::{Rules, SessionRules};
use crate::contract::traffic::{Limited, TrafficLimit, TrafficLimits};
use crate::rate::{Rate, Spent};
use crate::spending::{FanoutSpending, Recipient, Spending, met};
use ringway_wire::ids::{Conversation, UserId};
use ringway_wire::limits::SERVER_FRAME_BYTES_MAX;
use ringway_wire::schema::{CloseReason, ErrorCode};

/// What a request counts as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Weight {
    /// Messages.
    pub(super) sends: u64,
    /// Bytes that the gateway keeps of it.
    pub(super) bytes: u64,
    /// Whom it is sent to, if it is a message.
    pub(super) to: Option<Conversation>,
}

/// What was sent lately, by whom.
#[derive(Debug)]
pub(super) struct Traffic {
    /// By session: messages, bytes and requests.
    sessions: Chunked<[Spent; 3]>,
    /// By user: messages and bytes.
    users: Spending<2>,
    /// By user and conversation: bytes.
    conversations: Spending<1>,
    conversation_key: TableKey,
    /// By user: those asked for, and logins.
    presence: Spending<1>,
    logins: Spending<1>,
    /// By user: requests refused, and bytes of long replies.
    refusals: Spending<1>,
    replies: Spending<1>,
    /// By address: logins that came in here.
    addresses: Spending<1>,
    /// Of ephemeral messages, which the ledger does not count: by sender, and by groups that live here.
    ephemeral: FanoutSpending,
}

impl Traffic {
    pub(super) fn new(key: TableKey) -> Self {
        let users = Spending::new(key.derived(3));
        Traffic {
            sessions: Chunked::new(),
            users,
            conversations: Spending::new(key.derived(13)),
            conversation_key: key.derived(14),
            presence: Spending::new(key.derived(5)),
            logins: Spending::new(key.derived(6)),
            refusals: Spending::new(key.derived(8)),
            replies: Spending::new(key.derived(9)),
            addresses: Spending::new(key.derived(7)),
            ephemeral: FanoutSpending::new(key.derived(4)),
        }
    }

    /// Requests of the user that were refused.
    pub(super) fn refusals_of(&mut self, user: UserId) -> &mut [Spent; 1] {
        self.refusals.of(user.0)
    }

    /// A session begins in this slot.
    pub(super) fn session_begins(&mut self, slot: u32) {
        if let Some(sent) = self.sessions.at_mut(slot) {
            *sent = Default::default();
        }
    }

    fn take(
        &mut self,
        now_ms: u64,
        limits: &TrafficLimits,
        (slot, user): (u32, UserId),
        weight: Weight,
    ) -> Result<(), Limited> {
        let Weight { sends, bytes, to } = weight;
        let to = to.map(|to| self.conversation_key.hash_one((user, to)));
        let mut of_conversation = to.map(|to| &mut self.conversations.of(to)[0]);
        let conversation = of_conversation
            .as_deref()
            .map(|spent| spent.with(now_ms, &limits.conversation_bytes, bytes))
            .transpose()
            .map_err(met(TrafficLimit::ConversationBytes))?;
        let of_session = self.sessions.reached(slot);
        let of_user = self.users.of(user.0);
        let session = [
            of_session[0].with(now_ms, &limits.session_sends, sends).map_err(met(TrafficLimit::SessionSends))?,
            of_session[1].with(now_ms, &limits.session_bytes, bytes).map_err(met(TrafficLimit::SessionBytes))?,
            of_session[2],
        ];
        *of_user = [
            of_user[0].with(now_ms, &limits.user_sends, sends).map_err(met(TrafficLimit::UserSends))?,
            of_user[1].with(now_ms, &limits.user_bytes, bytes).map_err(met(TrafficLimit::UserBytes))?,
        ];
        *of_session = session;
        if let (Some(spent), Some(after)) = (&mut of_conversation, conversation) {
            **spent = after;
        }
        Ok(())
    }
}

/// Takes so many units of one rate.
fn spend(spent: &mut Spent, now_ms: u64, (rate, limit): (&Rate, TrafficLimit), units: usize) -> Result<(), Limited> {
    *spent = spent.with(now_ms, rate, units as u64).map_err(met(limit))?;
    Ok(())
}

/// Whether a request goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(super) enum Admission {
    /// It may be done now; what it takes is counted.
    Admitted,
    /// It was answered.
    Refused,
}

impl Shard {
    /// What clients may do from now on. Whoever owes more than that lets anybody owe begins anew.
    pub(crate) fn set_rules(&mut self, rules: Rules, keys: Option<&AuthKeys>) {
        if let Some(keys) = keys {
            // What was verified with keys that are not good any more is forgotten; sessions stay.
            self.auth = Authenticator::new(keys);
        }
        self.config.traffic = rules.traffic;
        self.config.policies = rules.policies;
        let SessionRules { heartbeat_ms, heartbeat_max_ms, .. } = rules.sessions;
        (self.config.heartbeat_ms, self.config.heartbeat_max_ms) = (heartbeat_ms, heartbeat_max_ms);
        self.config.login_timeout_ms = rules.sessions.login_timeout_ms;
        self.config.stall_timeout_ms = rules.sessions.stall_timeout_ms;
        self.config.devices_max = rules.sessions.devices_max;
        self.config.device_policy = rules.sessions.device_policy;
        self.heartbeats.follow(&self.config);
    }

    /// Any request of a session here that is answered: refused if the session may not ask so much now.
    pub(super) fn admit_asking(&mut self, now: Now, slot: u32, request_id: u32) -> Admission {
        let limit = (&self.config.traffic.session_requests, TrafficLimit::SessionRequests);
        let [.., asked] = self.traffic.sessions.reached(slot);
        let taken = spend(asked, now.mono_ms, limit, 1);
        self.admit_or_refuse(now, slot, request_id, taken)
    }

    /// Of a request that is not in flight yet.
    fn admit_or_refuse(&mut self, now: Now, slot: u32, request_id: u32, taken: Result<(), Limited>) -> Admission {
        let Err(limited) = taken else { return Admission::Admitted };
        self.counts.limited.count(limited.limit);
        self.refuse(now, slot, request_id, ErrorCode::RetryLater, limited.retry_after_ms);
        Admission::Refused
    }

    /// Whether the user may be sent one more long reply now. The error: after so many milliseconds.
    pub(super) fn may_be_answered(&mut self, now: Now, user: UserId) -> Result<(), u32> {
        let [sent] = self.traffic.replies.of(user.0);
        let taken = sent.with(now.mono_ms, &self.config.traffic.user_bytes_out, SERVER_FRAME_BYTES_MAX as u64);
        taken.map(|_| ()).inspect_err(|_| self.counts.limited.count(TrafficLimit::UserBytesOut))
    }

    /// The user was sent a long reply of so many bytes.
    pub(super) fn count_answered(&mut self, now: Now, user: UserId, bytes: usize) {
        let [sent] = self.traffic.replies.of(user.0);
        *sent = sent.with_all(now.mono_ms, &self.config.traffic.user_bytes_out, bytes as u64);
    }

    /// Whether so many users are online: refused if the session's user may not ask for so many now.
    pub(super) fn admit_presence(&mut self, now: Now, slot: u32, request_id: u32, users: usize) -> Admission {
        let user = self.sessions.at(slot).and_then(|session| self.directory.at(session.user));
        let Some(user) = user.map(|user| user.id).or_count(Place::Directory) else { return Admission::Admitted };
        let limit = (&self.config.traffic.user_presence, TrafficLimit::UserPresence);
        let [asked] = self.traffic.presence.of(user.0);
        let taken = spend(asked, now.mono_ms, limit, users);
        self.admit_or_refuse(now, slot, request_id, taken)
    }

    /// A login from this address, whosever it is: refused by closing the connection.
    pub(super) fn admit_login_from(&mut self, now: Now, slot: u32, request_id: u32, from: PeerAddress) -> Admission {
        let limit = (&self.config.traffic.address_logins, TrafficLimit::AddressLogins);
        let [logins] = self.traffic.addresses.of(from.0);
        let taken = spend(logins, now.mono_ms, limit, 1);
        self.admit_login(now, slot, request_id, taken, "too many logins come from this address")
    }

    /// A login of this user: the same.
    pub(super) fn admit_login_of(&mut self, now: Now, slot: u32, request_id: u32, user: UserId) -> Admission {
        let limit = (&self.config.traffic.user_logins, TrafficLimit::UserLogins);
        let [logins] = self.traffic.logins.of(user.0);
        let taken = spend(logins, now.mono_ms, limit, 1);
        self.admit_login(now, slot, request_id, taken, "this user logs in too often")
    }

    fn admit_login(
        &mut self,
        now: Now,
        slot: u32,
        request_id: u32,
        taken: Result<(), Limited>,
        text: &str,
    ) -> Admission {
        let Err(Limited { limit, retry_after_ms }) = taken else { return Admission::Admitted };
        self.counts.limited.count(limit);
        self.close_answering_for(now, slot, request_id, CloseReason::Overloaded, text, retry_after_ms);
        Admission::Refused
    }

    /// A request of a session here, in flight: refused if its session or its user may not send so much now.
    pub(super) fn admit_request(&mut self, now: Now, origin: Origin, user: UserId, weight: Weight) -> Admission {
        let who = (origin.session.conn.slot, user);
        match self.traffic.take(now.mono_ms, &self.config.traffic, who, weight) {
            Ok(()) => Admission::Admitted,
            Err(limited) => self.refuse_limited(now, origin, limited),
        }
    }

    /// An ephemeral message to so many recipients, of a session wherever it is.
    pub(super) fn admit_ephemeral(&mut self, now: Now, incoming: &Incoming, recipients: usize) -> Admission {
        // Who has a key is trusted.
        if incoming.origin.is_api(self.config.shards) {
            return Admission::Admitted;
        }
        let from_to = (incoming.sender, incoming.to);
        match self.traffic.ephemeral.take(now.mono_ms, &self.config.traffic, from_to, recipients, Recipient::Known) {
            Ok(()) => Admission::Admitted,
            Err(limited) => self.refuse_limited(now, incoming.origin, limited),
        }
    }

    fn refuse_limited(&mut self, now: Now, origin: Origin, limited: Limited) -> Admission {
        self.counts.limited.count(limited.limit);
        self.refuse_anywhere(now, origin, ErrorCode::RetryLater, limited.retry_after_ms);
        Admission::Refused
    }
}
