//! The end of a connection: every one has a reason, which the peer gets where its socket still takes it.
//!
//! Part of the shard's core. What always holds: a closing session is in no directory and no audience; its slot is
//! freed when the shell says that the socket is gone; a peer that does not take its last frame is cut.

use super::Shard;
use super::effects::{Closed, Who};
use super::session::{Flags, NIL, Phase, Session};
use super::wheel::tick_of;
use crate::auth::TokenFault;
use crate::clock::Now;
use crate::contract::ids::ConnId;
use crate::contract::internal::{OrCount, Place};
use crate::contract::lane::{HandedOver, Transport};
use crate::limits::{CLOSING_TIMEOUT_MS, RETRY_AFTER_MS};
use ringway_wire::schema::CloseReason;
use ringway_wire::websocket::{self, WsError, close_status};

/// What the peer is told, and after how many milliseconds it may reconnect; `None`: not by itself.
fn words_of(reason: CloseReason) -> (&'static str, Option<u32>) {
    match reason {
        CloseReason::BadFrame => ("the frame is not valid", None),
        CloseReason::FrameTooLarge => ("the frame is larger than allowed", None),
        CloseReason::UnknownRequest => ("this request type is not known", None),
        CloseReason::NotLoggedIn => ("the first frame must be Login", None),
        CloseReason::LoginTimeout => ("no complete login came in time", Some(1_000)),
        CloseReason::TokenInvalid => ("the token is not accepted", None),
        CloseReason::TokenExpired => ("the token has expired: log in with a new one", None),
        CloseReason::SeqAhead => ("last_seq is above this user's newest: it belongs to another gateway", None),
        CloseReason::HeartbeatTimeout => ("nothing was received for two and a half heartbeat intervals", Some(0)),
        CloseReason::SlowReader => ("nothing could be written for too long", Some(1_000)),
        CloseReason::Replaced => ("the same device logged in again", None),
        CloseReason::DeviceLimit => ("more devices than this gateway allows", None),
        CloseReason::LoggedOut => ("logged out", None),
        CloseReason::Draining => ("the gateway stops", Some(1_000)),
        CloseReason::Overloaded => ("a limit of the gateway is reached", Some(2_000)),
        CloseReason::NotRingway => ("this port speaks the Ringway protocol", None),
        CloseReason::StoreUnavailable => ("the store cannot be read now", Some(2_000)),
        CloseReason::Kicked => ("an operator has ended this session", None),
        CloseReason::Banned => ("this user may not log in", None),
        CloseReason::TokenRevoked => ("the token is revoked: log in with a new one", None),
        _ => ("closed", None),
    }
}

/// What `Closing` says.
#[derive(Clone, Copy, Debug)]
struct LastFrame<'t> {
    /// The request that it answers; 0: none, or the login that is looked up.
    answers: u32,
    reason: CloseReason,
    text: &'t str,
    /// `None`: the client is not to reconnect by itself.
    reconnect_after_ms: Option<u32>,
    /// Of the close frame behind it, over WebSocket.
    status: u16,
}

impl LastFrame<'static> {
    /// With the reason's own words, as the answer to nothing.
    fn of(reason: CloseReason) -> Self {
        let (text, reconnect_after_ms) = words_of(reason);
        LastFrame { answers: 0, reason, text, reconnect_after_ms, status: close_status(reason) }
    }
}

impl Shard {
    /// The bytes of the frame that tells a refused connection why.
    pub fn encode_refusal(&mut self, now: Now, reason: CloseReason) -> &[u8] {
        self.encode_last(now, &LastFrame::of(reason))
    }

    /// The same as an answer to HTTP.
    pub(crate) fn encode_refusal_http(reason: CloseReason) -> Vec<u8> {
        let (text, reconnect_after_ms) = words_of(reason);
        let after_ms = reconnect_after_ms.unwrap_or(RETRY_AFTER_MS).max(1);
        websocket::unavailable(&format!("The connection is refused: {text}."), after_ms.div_ceil(1_000))
    }

    fn encode_last(&mut self, now: Now, last: &LastFrame<'_>) -> &[u8] {
        let LastFrame { answers, reason, text, reconnect_after_ms, .. } = *last;
        self.encoder.closing(answers, reason, text, reconnect_after_ms, now.unix_ms)
    }

    /// The same in the words of a connection that was on its way to its user's shard: behind what waited for it, and
    /// in its transport.
    pub(super) fn encode_refusal_on_the_way(&mut self, now: Now, handed: &HandedOver, reason: CloseReason) -> Vec<u8> {
        let mut bytes = handed.unsent.clone();
        let websocket = handed.transport == Transport::WebSocket;
        let frame = self.encode_last(now, &LastFrame { answers: handed.request_id, ..LastFrame::of(reason) });
        if websocket {
            let mut header = [0; 10];
            let length = websocket::binary_header(frame.len(), &mut header);
            bytes.extend_from_slice(&header[..length]);
        }
        bytes.extend_from_slice(frame);
        if websocket {
            websocket::close(close_status(reason), &mut bytes);
        }
        bytes
    }

    /// A connection could not be sent to its user's shard. Write these bytes to its socket, if it takes them, and
    /// close it.
    pub(crate) fn handover_failed(&mut self, now: Now, handed: &HandedOver) -> Vec<u8> {
        self.count_close(CloseReason::Overloaded);
        self.encode_refusal_on_the_way(now, handed, CloseReason::Overloaded)
    }

    /// A peer was accepted only to be told that there are too few descriptors left: send `encode_refusal`'s bytes.
    pub(crate) fn refused_for_descriptors(&mut self) {
        self.counts.shed.descriptors += 1;
        self.count_close(CloseReason::Overloaded);
    }

    /// Closes with the reason's own words.
    pub(super) fn close(&mut self, now: Now, slot: u32, reason: CloseReason) {
        self.close_with(now, slot, LastFrame::of(reason));
    }

    /// The gateway stops: the peer may come back after so many milliseconds.
    pub(super) fn close_draining(&mut self, now: Now, slot: u32, after_ms: u32) {
        let last = LastFrame { reconnect_after_ms: Some(after_ms), ..LastFrame::of(CloseReason::Draining) };
        self.close_with(now, slot, last);
    }

    /// Closes with better words.
    pub(super) fn close_saying(&mut self, now: Now, slot: u32, reason: CloseReason, text: &str) {
        self.close_with(now, slot, LastFrame { text, ..LastFrame::of(reason) });
    }

    /// Closes as the answer to a request.
    pub(super) fn close_answering(&mut self, now: Now, slot: u32, request_id: u32, reason: CloseReason) {
        self.close_with(now, slot, LastFrame { answers: request_id, ..LastFrame::of(reason) });
    }

    /// The same with better words.
    pub(super) fn close_answering_with(
        &mut self,
        now: Now,
        slot: u32,
        request_id: u32,
        reason: CloseReason,
        text: &str,
    ) {
        self.close_with(now, slot, LastFrame { answers: request_id, text, ..LastFrame::of(reason) });
    }

    /// The same, and the peer may come back after so many milliseconds.
    pub(super) fn close_answering_for(
        &mut self,
        now: Now,
        slot: u32,
        request_id: u32,
        reason: CloseReason,
        text: &str,
        after_ms: u32,
    ) {
        let reconnect_after_ms = Some(after_ms);
        self.close_with(
            now,
            slot,
            LastFrame { answers: request_id, text, reconnect_after_ms, ..LastFrame::of(reason) },
        );
    }

    /// What was wrong with the token of the connection that was just closed, for the log alone.
    pub(super) fn explain_close(&mut self, slot: u32, fault: TokenFault) {
        if let Some(closed) = self.effects.closed.last_mut().filter(|closed| closed.conn.slot == slot) {
            closed.fault = Some(fault);
        }
    }

    /// Sends Closing behind what waits already, and closes when that is out.
    fn close_with(&mut self, now: Now, slot: u32, mut last: LastFrame<'_>) {
        if last.answers == 0 {
            last.answers = self.sessions.at(slot).map_or(0, Session::login_request);
        }
        if !self.begin_closing(now, slot, last.reason) {
            return;
        }
        let Some(session) = self.sessions.at_mut(slot).or_count(Place::Sessions) else { return };
        let LastFrame { answers, reason, text, reconnect_after_ms, status } = last;
        let frame = self.encoder.closing(answers, reason, text, reconnect_after_ms, now.unix_ms);
        self.outgoing.frame(session, slot, frame, now.mono_ms, &mut self.effects.dirty);
        if session.flags.has(Flags::WEBSOCKET) {
            let mut bytes = Vec::new();
            websocket::close(status, &mut bytes);
            self.outgoing.raw(session, slot, &bytes, now.mono_ms, &mut self.effects.dirty);
        }
    }

    /// What came over a WebSocket breaks its rules.
    pub(super) fn close_websocket(&mut self, now: Now, slot: u32, error: WsError) {
        let reason = match error {
            WsError::TooLarge { .. } => CloseReason::FrameTooLarge,
            WsError::Protocol(_) | WsError::Text => CloseReason::BadFrame,
        };
        let text = error.to_string();
        self.close_with(now, slot, LastFrame { text: &text, status: error.status(), ..LastFrame::of(reason) });
    }

    /// The same with bytes instead of a frame: an HTTP response, or a WebSocket's close frame.
    pub(super) fn close_with_bytes(&mut self, now: Now, slot: u32, reason: CloseReason, bytes: &[u8]) {
        if !self.begin_closing(now, slot, reason) {
            return;
        }
        let Some(session) = self.sessions.at_mut(slot).or_count(Place::Sessions) else { return };
        self.outgoing.raw(session, slot, bytes, now.mono_ms, &mut self.effects.dirty);
        self.cut_if_silent(slot);
    }

    /// With nothing to write, no write will say that it is time to close.
    fn cut_if_silent(&mut self, slot: u32) {
        if self.sessions.at(slot).is_some_and(|session| session.outbox.is_none()) {
            self.cut(slot);
        }
    }

    /// The peer does not read: its memory is freed at once, and nothing more is written.
    pub(super) fn evict(&mut self, now: Now, slot: u32) {
        self.drop_session(now, slot, CloseReason::SlowReader);
    }

    /// The same for another reason.
    pub(super) fn drop_session(&mut self, now: Now, slot: u32, reason: CloseReason) {
        if !self.begin_closing(now, slot, reason) {
            return;
        }
        if let Some(session) = self.sessions.at_mut(slot).or_count(Place::Sessions) {
            self.outgoing.discard(session);
        }
        self.cut(slot);
    }

    /// Lists the connection among those the shell closes at once.
    pub(super) fn cut(&mut self, slot: u32) {
        let Some(session) = self.sessions.at_mut(slot).or_count(Place::Sessions) else { return };
        if !session.flags.has(Flags::CUT) {
            session.flags.set(Flags::CUT);
            self.effects.cuts.push(session.conn(slot));
        }
    }

    /// Takes the session out of everything; false: it was closing already.
    fn begin_closing(&mut self, now: Now, slot: u32, reason: CloseReason) -> bool {
        if self.sessions.at(slot).is_none_or(|session| matches!(session.phase, Phase::Free | Phase::Closing)) {
            return false;
        }
        self.count_close(reason);
        self.list_close(slot, reason);
        self.note_close(now, slot, reason);
        self.deregister(slot);
        self.large.forget(slot);
        let Some(session) = self.sessions.at_mut(slot).or_count(Place::Sessions) else { return false };
        session.phase = Phase::Closing;
        session.received_tick = tick_of(now.mono_ms);
        session.flags.set(Flags::PAUSED);
        self.wheel.arm(slot, tick_of(now.mono_ms + CLOSING_TIMEOUT_MS));
        drop(self.take_intake(slot));
        true
    }

    pub(super) fn count_close(&mut self, reason: CloseReason) {
        if let Some(count) = self.counts.closes_total.get_mut(usize::from(reason.0)) {
            *count += 1;
        }
    }

    /// Lists a close for the log, if there is one. Call it before the session leaves its user.
    fn list_close(&mut self, slot: u32, reason: CloseReason) {
        if !self.config.lists_closes {
            return;
        }
        let Some(session) = self.sessions.at(slot).or_count(Place::Sessions) else { return };
        let who = self.directory.at(session.user).map(|user| Who {
            session: session.number(self.config.id, slot),
            user: user.id,
            device: session.device,
        });
        self.effects.closed.push(Closed { conn: session.conn(slot), reason, who, fault: None });
    }

    /// Leaves directory and audiences, if it was registered.
    fn deregister(&mut self, slot: u32) {
        let Some(session) = self.sessions.at(slot).or_count(Place::Sessions) else { return };
        let user = session.user;
        if session.phase == Phase::Behind {
            self.behind -= 1;
            self.forget_pages(slot);
        }
        if self.sessions.at(slot).is_some_and(|session| session.phase == Phase::Fresh) {
            self.unauthenticated.remove(slot, &mut self.sessions);
        }
        if user == NIL {
            return;
        }
        self.session_ends(slot);
        self.audiences.left(user, slot, &self.directory);
        self.directory.leave(slot, &mut self.sessions);
        self.directory.release(user);
    }

    /// The socket is gone: the peer closed it, or the shell did. The slot is freed here and only here (but for
    /// connections handed over). Without meaning for a connection that is gone already.
    pub fn disconnected(&mut self, now: Now, conn: ConnId) {
        let Some(slot) = self.slot_of(conn) else { return };
        if self.sessions.at(slot).is_some_and(|session| session.phase != Phase::Closing) {
            self.count_close(CloseReason::PeerClosed);
            self.list_close(slot, CloseReason::PeerClosed);
            self.note_close(now, slot, CloseReason::PeerClosed);
            self.deregister(slot);
        }
        self.free(slot);
    }

    /// Gives the slot back, with everything it holds. The generation stays, for the next one.
    pub(super) fn free(&mut self, slot: u32) {
        self.large.forget(slot);
        self.access.session_is_over(slot);
        drop(self.take_intake(slot));
        let Some(session) = self.sessions.at_mut(slot).or_count(Place::Sessions) else { return };
        self.outgoing.discard(session);
        session.phase = Phase::Free;
        self.wheel.cancel(slot);
        self.sessions.give_back(slot);
    }
}
