//! From a token to a session: verify, hand over or register, learn the cursor and the user's newest row, go live.
//!
//! Part of the shard's core. What always holds: the session is registered before the ledger is asked, and the
//! answer comes in order with deliveries, so every row above the answer reaches the session; nothing is sent
//! before `LoginOk`; no other session makes room, and no other node hears of it, before it is accepted.

use super::Shard;
use super::devices::Verdict;
use super::receive::Flow;
use super::session::{Flags, Phase};
use super::traffic::Admission;
use super::wheel::tick_of;
use crate::auth::{AuthError, Claims};
use crate::clock::Now;
use crate::contract::access::TokenId;
use crate::contract::ids::{ConnId, Origin, ShardId};
use crate::contract::internal::{OrCount, Place};
use crate::contract::lane::{HandedOver, Transport};
use crate::contract::look::UserEventKind;
use crate::contract::memory::Pressure;
use crate::contract::store::StoreAsk;
use crate::contract::submission::Submission;
use crate::limits::MEMORY_RETRY_MS;
use ringway_wire::ids::{DeviceId, Seq, UserId};
use ringway_wire::request::Login;
use ringway_wire::schema::{CloseReason, ErrorCode};
use ringway_wire::websocket::Messages;

/// What a verified login says.
struct Verified {
    request_id: u32,
    user: UserId,
    device: DeviceId,
    expires_at_s: u64,
    issued_at_s: u64,
    token: Option<TokenId>,
    cursor: Option<Seq>,
    /// As asked for.
    heartbeat_ms: u32,
}

/// Why a connection that was handed over cannot stay, and what its peer is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotAdopted {
    /// The reason that its peer is told.
    pub(crate) reason: CloseReason,
    /// The last frame, in the connection's transport.
    pub(crate) bytes: Vec<u8>,
}

impl Shard {
    /// The first request of a connection.
    pub(super) fn login(&mut self, now: Now, slot: u32, request_id: u32, asked: &Login<'_>, rest: &[u8]) -> Flow {
        let &Login { token, device, cursor, heartbeat_ms } = asked;
        if self.pressure >= Pressure::NoLogins {
            self.counts.shed.memory_logins += 1;
            let (reason, text) = (CloseReason::Overloaded, "the gateway is short of memory");
            self.close_answering_for(now, slot, request_id, reason, text, MEMORY_RETRY_MS);
            return Flow::Gone;
        }
        if let Some(from) = self.address_of(slot)
            && self.admit_login_from(now, slot, request_id, from) == Admission::Refused
        {
            return Flow::Gone;
        }
        match self.auth.verify(token, now.unix_ms / 1000) {
            Ok(claims) if claims.device.is_none_or(|claimed| claimed == device) => {
                let Claims { user, expires_at_s, issued_at_s, token, .. } = claims;
                let login =
                    Verified { request_id, user, device, expires_at_s, issued_at_s, token, cursor, heartbeat_ms };
                if ShardId::of_user(user, self.config.shards) != self.config.id {
                    self.hand_over(slot, &login, rest);
                    return Flow::Gone;
                }
                // The places may have been taken since it was accepted.
                if let Err(reason) = self.has_room_for_session() {
                    self.close_answering(now, slot, request_id, reason);
                    return Flow::Gone;
                }
                self.register(now, slot, &login);
                return Flow::Continue;
            }
            Ok(claims) => {
                self.note_refused_login(now, slot, claims.user, device, CloseReason::TokenInvalid);
                let text = "the token is for another device";
                self.close_answering_with(now, slot, request_id, CloseReason::TokenInvalid, text);
            }
            Err(error @ AuthError::Invalid(fault)) => {
                self.close_answering_with(now, slot, request_id, CloseReason::TokenInvalid, &error.to_string());
                self.explain_close(slot, fault);
            }
            Err(AuthError::Expired) => {
                if let Some(user) = self.auth.user_of(token) {
                    self.note_refused_login(now, slot, user, device, CloseReason::TokenExpired);
                }
                self.close_answering(now, slot, request_id, CloseReason::TokenExpired);
            }
        }
        Flow::Gone
    }

    /// The user lives on another shard: its connection goes there, with all that was read and not written.
    fn hand_over(&mut self, slot: u32, login: &Verified, rest: &[u8]) {
        let Some(session) = self.sessions.at_mut(slot).or_count(Place::Sessions) else { return };
        let conn = session.conn(slot);
        let transport = if session.flags.has(Flags::WEBSOCKET) { Transport::WebSocket } else { Transport::Tcp };
        let handed = HandedOver {
            request_id: login.request_id,
            user: login.user,
            device: login.device,
            expires_at_s: login.expires_at_s,
            issued_at_s: login.issued_at_s,
            token: login.token,
            cursor: login.cursor,
            heartbeat_ms: login.heartbeat_ms,
            transport,
            unread: rest.to_vec(),
            unsent: session.outbox.as_ref().map(|outbox| outbox.to_vec()).unwrap_or_default(),
        };
        self.effects.handovers.push((conn, ShardId::of_user(login.user, self.config.shards), handed));
        self.counts.handed_over_total += 1;
        self.unauthenticated.remove(slot, &mut self.sessions);
        self.free(slot);
    }

    /// A connection comes from another shard: its login goes on here, then its unread bytes. An error: send its
    /// bytes if the socket takes them, and close it.
    pub fn adopt(&mut self, now: Now, handed: HandedOver) -> Result<ConnId, NotAdopted> {
        if let Err(reason) = self.admit() {
            return Err(NotAdopted { reason, bytes: self.encode_refusal_on_the_way(now, &handed, reason) });
        }
        let slot = self.open_slot(now, Phase::AwaitingCursor);
        self.counts.adopted_total += 1;
        let session = self.sessions.reached(slot);
        let conn = session.conn(slot);
        session.flags.set(Flags::TRANSPORT_KNOWN);
        let mut messages = None;
        if handed.transport == Transport::WebSocket {
            session.flags.set(Flags::WEBSOCKET);
            messages = Some(Messages::default());
        }
        self.outgoing.raw(session, slot, &handed.unsent, now.mono_ms, &mut self.effects.dirty);
        if messages.is_some() || !handed.unread.is_empty() {
            self.change_intake(slot, |intake| {
                intake.messages = messages;
                intake.held = handed.unread;
            });
        }
        let HandedOver { request_id, user, device, expires_at_s, issued_at_s, token, cursor, heartbeat_ms, .. } =
            handed;
        let login = Verified { request_id, user, device, expires_at_s, issued_at_s, token, cursor, heartbeat_ms };
        self.register(now, slot, &login);
        Ok(conn)
    }

    /// Makes the connection one of its user's sessions, and asks what it needs to know.
    fn register(&mut self, now: Now, slot: u32, login: &Verified) {
        if let Err(reason) = self.access.may_log_in(login.user, login.issued_at_s, login.token) {
            self.note_refused_login(now, slot, login.user, login.device, reason);
            return self.close_answering(now, slot, login.request_id, reason);
        }
        if self.admit_login_of(now, slot, login.request_id, login.user) == Admission::Refused {
            self.note_refused_login(now, slot, login.user, login.device, CloseReason::Overloaded);
            return;
        }
        if self.begin_login(now, slot, login.request_id, login.user, login.device) == Verdict::Refused {
            self.note_refused_login(now, slot, login.user, login.device, CloseReason::DeviceLimit);
            return;
        }
        if self.sessions.at(slot).is_some_and(|session| session.phase == Phase::Fresh) {
            self.unauthenticated.remove(slot, &mut self.sessions);
        }
        let user = self.directory.ensure(login.user);
        self.directory.join(user, slot, &mut self.sessions);
        self.audiences.joined(user, slot, &self.directory);
        self.heartbeats.agree(slot, login.heartbeat_ms);
        self.traffic.session_begins(slot);
        self.access.session_begins(slot, login.token);
        let Some(session) = self.sessions.at_mut(slot).or_count(Place::Sessions) else { return };
        session.device = login.device;
        session.expires_at_s = login.expires_at_s.try_into().unwrap_or(u32::MAX);
        session.newest = Seq(0);
        session.login_is(login.request_id);
        session.flags.set(Flags::PAUSED);
        self.note_of_session(now, slot, UserEventKind::Connected);
        let Some(session) = self.sessions.at_mut(slot).or_count(Place::Sessions) else { return };
        let origin = Origin::new(self.config.session_ref(session.conn(slot)), login.request_id);
        match login.cursor {
            Some(seq) => {
                session.cursor = seq;
                session.phase = Phase::AwaitingPositionClaimed;
                self.effects.submissions.push_back(Submission::Position { origin, user: login.user });
            }
            None => {
                session.phase = Phase::AwaitingCursor;
                let (user, device) = (login.user, login.device);
                self.effects.asks.push_back(StoreAsk::Cursor { origin, user, device });
            }
        }
    }

    /// A logged-in session gets a newer token; where that one does not count it goes on with the one it has.
    pub(super) fn refresh(&mut self, now: Now, slot: u32, request_id: u32, token: &str) {
        let Some(user) = self.user_of(slot).or_count(Place::Directory) else { return };
        let Some(device) = self.sessions.at(slot).map(|session| session.device).or_count(Place::Sessions) else {
            return;
        };
        let text = match self.auth.verify(token, now.unix_ms / 1000) {
            Ok(claims) if claims.user != user => "the token is another user's".to_owned(),
            Ok(claims) if claims.device.is_some_and(|claimed| claimed != device) => {
                "the token is for another device".to_owned()
            }
            Ok(claims) if self.access.may_log_in(user, claims.issued_at_s, claims.token).is_err() => {
                "the token is revoked".to_owned()
            }
            Ok(claims) => {
                self.access.session_is_over(slot);
                self.access.session_begins(slot, claims.token);
                let Some(session) = self.sessions.at_mut(slot).or_count(Place::Sessions) else { return };
                session.expires_at_s = claims.expires_at_s.try_into().unwrap_or(u32::MAX);
                let expires_at_ms = claims.expires_at_s.saturating_mul(1000);
                self.reply(now, slot, |encoder| encoder.refresh_ok(request_id, expires_at_ms));
                return self.arm_next(now, slot);
            }
            Err(error) => error.to_string(),
        };
        self.refuse_saying(now, slot, request_id, ErrorCode::TokenInvalid, &text, 0);
    }

    /// Asks again where devices stopped for which the store had no room.
    pub(super) fn retry_cursors(&mut self) {
        for origin in std::mem::take(&mut self.cursors_later) {
            let Some(slot) = self.slot_of(origin.session.conn) else { continue };
            let Some(session) = self.sessions.at(slot).filter(|session| session.phase == Phase::AwaitingCursor) else {
                continue;
            };
            let Some(user) = self.directory.at(session.user).map(|user| user.id).or_count(Place::Directory) else {
                continue;
            };
            self.effects.asks.push_back(StoreAsk::Cursor { origin, user, device: session.device });
        }
    }

    /// The store knows where the device stopped.
    pub(super) fn cursor_found(&mut self, origin: Origin, seq: Option<Seq>) {
        let Some(slot) = self.slot_of(origin.session.conn) else { return };
        let Some(session) = self.sessions.at_mut(slot).or_count(Place::Sessions) else { return };
        if session.phase != Phase::AwaitingCursor {
            return;
        }
        let Some(user) = self.directory.at(session.user).map(|user| user.id).or_count(Place::Directory) else { return };
        // What the device acknowledged within the last second may not have reached the store.
        let waiting = self.cursors.waiting(user, session.device);
        session.cursor = seq.max(waiting).unwrap_or_default();
        session.phase = Phase::AwaitingPosition;
        self.effects.submissions.push_back(Submission::Position { origin, user });
    }

    /// The ledger knows the user's newest row, and every delivery up to it came before this.
    pub(super) fn position_found(&mut self, now: Now, origin: Origin, newest: Seq, given: Seq) {
        let Some(slot) = self.slot_of(origin.session.conn) else { return };
        let Some(session) = self.sessions.at_mut(slot).or_count(Place::Sessions) else { return };
        let mut newest = newest.max(session.newest);
        let device = session.device;
        match session.phase {
            Phase::AwaitingPositionClaimed if session.cursor > newest.max(given) => {
                self.close(now, slot, CloseReason::SeqAhead);
                return;
            }
            // It has seen rows that are no more, or of which nobody has told here yet.
            Phase::AwaitingPositionClaimed => newest = newest.max(session.cursor),
            Phase::AwaitingPosition => session.cursor = session.cursor.min(newest),
            _ => return,
        }
        let Some(user) = self.directory.at(session.user).map(|user| user.id).or_count(Place::Directory) else { return };
        if self.take_place(now, slot, user, device) == Verdict::Refused {
            return;
        }
        self.session_begins(now, slot);
        let Some(session) = self.sessions.at_mut(slot).or_count(Place::Sessions) else { return };
        session.newest = newest;
        session.received_tick = tick_of(now.mono_ms);
        let cursor = session.cursor;
        let session_id = session.number(self.config.id, slot);
        session.phase = if cursor == newest { Phase::Live } else { Phase::Behind };
        let is_behind = session.phase == Phase::Behind;
        self.counts.logins_total += 1;
        self.note_of_session(now, slot, UserEventKind::LoggedIn);
        let heartbeat_ms = self.heartbeats.of(slot);
        self.reply(now, slot, |encoder| {
            encoder.login_ok(origin.request_id, session_id, user, now.unix_ms, heartbeat_ms, newest, cursor)
        });
        if is_behind {
            self.behind += 1;
            self.note_of_session(now, slot, UserEventKind::Behind);
            self.want_page(slot);
        }
        self.arm_next(now, slot);
        self.resume(now, slot);
    }
}
