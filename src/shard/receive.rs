//! From bytes to requests: how the connection carries frames, where they begin and end, which are allowed now.
//!
//! Part of the shard's core. What always holds: nothing of a frame is looked at before it is verified; the first
//! request is a login; bytes that may not be looked at yet (a login being answered, an outbox over its cap, as many
//! requests open as a session may have, too many refused) are held, at most `HELD_BYTES_MAX` of them.

use super::Shard;
use super::session::{Flags, Intake, Phase};
use super::wheel::tick_of;
use crate::clock::Now;
use crate::contract::ids::ConnId;
use crate::contract::internal::{self, OrCount, Place};
use crate::limits::{HELD_BYTES_MAX, LOGIN_FRAME_BYTES_MAX};
use ringway_wire::deframer::DeframeError;
use ringway_wire::frame::{FrameError, read_client};
use ringway_wire::limits::{CLIENT_FRAME_BYTES_MAX, SESSION_IN_FLIGHT_MAX};
use ringway_wire::request::Request;
use ringway_wire::schema::CloseReason;
use ringway_wire::websocket::{self, Upgrade, WsEvent, looks_like_http, looks_like_tls, upgrade};

/// As many bytes as tell TLS, HTTP and frames apart.
const FIRST_BYTES: usize = 4;

/// Whether the bytes behind a frame may be looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flow {
    /// At once.
    Continue,
    /// Later: keep them.
    Hold,
    /// Never: the connection is closing, or lives on another shard now.
    Gone,
}

impl Shard {
    /// Bytes were read from the connection's socket, in whatever pieces. (A WebSocket message is unmasked in
    /// place.)
    pub fn receive(&mut self, now: Now, conn: ConnId, bytes: &mut [u8]) {
        let Some(slot) = self.slot_of(conn) else { return };
        self.counts.bytes_in_total += bytes.len() as u64;
        let Some(session) = self.sessions.at_mut(slot).or_count(Place::Sessions) else { return };
        if session.phase == Phase::Closing {
            return;
        }
        if session.phase.is_open() {
            session.received_tick = tick_of(now.mono_ms);
        }
        let held_bytes = session.intake.as_ref().map_or(0, |intake| intake.held.len());
        if !session.flags.has(Flags::PAUSED) && held_bytes == 0 {
            self.parse(now, slot, bytes);
            return;
        }
        if held_bytes + bytes.len() > HELD_BYTES_MAX {
            self.close(now, slot, CloseReason::Overloaded);
            return;
        }
        self.change_intake(slot, |intake| intake.held.extend_from_slice(bytes));
        self.parse_held(now, slot);
    }

    /// Takes what was read of a connection and not understood.
    pub(super) fn take_intake(&mut self, slot: u32) -> Option<Box<Intake>> {
        let intake = self.sessions.at_mut(slot)?.intake.take()?;
        self.intake_bytes -= intake.bytes();
        Some(intake)
    }

    /// Puts it back, or nothing if nothing is left of it.
    fn put_intake(&mut self, slot: u32, intake: Box<Intake>) {
        let Some(session) = self.sessions.at_mut(slot).filter(|_| !intake.is_idle()) else { return };
        self.intake_bytes += intake.bytes();
        session.intake = Some(intake);
    }

    /// Adds to it.
    pub(super) fn change_intake(&mut self, slot: u32, change: impl FnOnce(&mut Intake)) {
        let mut intake = self.take_intake(slot).unwrap_or_default();
        change(&mut intake);
        self.put_intake(slot, intake);
    }

    /// Goes on with what was held, unless reading is still paused.
    pub(super) fn parse_held(&mut self, now: Now, slot: u32) {
        let Some(session) = self.sessions.at_mut(slot).or_count(Place::Sessions) else { return };
        if session.flags.has(Flags::PAUSED) || session.phase == Phase::Closing {
            return;
        }
        let Some(mut intake) = self.take_intake(slot) else { return };
        let mut held = std::mem::take(&mut intake.held);
        self.put_intake(slot, intake);
        self.parse(now, slot, &mut held);
    }

    /// Bytes that may be looked at now.
    fn parse(&mut self, now: Now, slot: u32, bytes: &mut [u8]) {
        let Some(session) = self.sessions.at_mut(slot).or_count(Place::Sessions) else { return };
        let bytes = if session.flags.has(Flags::TRANSPORT_KNOWN) {
            bytes
        } else {
            match self.first_bytes(now, slot, bytes) {
                Some(skip) => bytes.get_mut(skip..).unwrap_or_default(),
                None => return,
            }
        };
        let mut boxed = self.take_intake(slot);
        let mut fresh = Intake::default();
        let intake = boxed.as_deref_mut().unwrap_or(&mut fresh);
        let flow = if intake.messages.is_some() {
            self.websocket_frames(now, slot, intake, bytes)
        } else {
            self.tcp_frames(now, slot, intake, bytes)
        };
        if flow == Flow::Gone {
            return;
        }
        match boxed {
            Some(boxed) => self.put_intake(slot, boxed),
            None if fresh.is_idle() => {}
            None => self.put_intake(slot, Box::new(fresh)),
        }
        if self.intake_bytes > self.config.intake_shard_bytes_max
            && self.sessions.at(slot).is_some_and(|session| session.intake.is_some())
        {
            self.counts.shed.intake += 1;
            self.close(now, slot, CloseReason::Overloaded);
        }
    }

    /// How does this connection carry frames? Returns how many bytes told it; `None`: not known yet, or closed.
    fn first_bytes(&mut self, now: Now, slot: u32, bytes: &[u8]) -> Option<usize> {
        let session = self.sessions.at_mut(slot)?;
        if bytes.len() < FIRST_BYTES {
            self.change_intake(slot, |intake| intake.held = bytes.to_vec());
            return None;
        }
        if looks_like_tls(bytes) {
            self.close_saying(now, slot, CloseReason::NotRingway, "this port speaks Ringway without TLS");
            return None;
        }
        if !looks_like_http(bytes) {
            session.flags.set(Flags::TRANSPORT_KNOWN);
            return Some(0);
        }
        match upgrade(bytes) {
            Upgrade::NeedMore => {
                self.change_intake(slot, |intake| intake.held = bytes.to_vec());
                None
            }
            Upgrade::Refuse { response } => {
                self.close_with_bytes(now, slot, CloseReason::NotRingway, &response);
                None
            }
            Upgrade::Accept { head_bytes, response } => {
                self.outgoing.raw(session, slot, &response, now.mono_ms, &mut self.effects.dirty);
                session.flags.set(Flags::TRANSPORT_KNOWN | Flags::WEBSOCKET);
                self.change_intake(slot, |intake| intake.messages = Some(websocket::Messages::default()));
                Some(head_bytes)
            }
        }
    }

    fn tcp_frames(&mut self, now: Now, slot: u32, intake: &mut Intake, bytes: &[u8]) -> Flow {
        let is_fresh = self.sessions.at(slot).is_some_and(|session| session.phase == Phase::Fresh);
        let limit = if is_fresh { LOGIN_FRAME_BYTES_MAX } else { CLIENT_FRAME_BYTES_MAX };
        let mut rest = bytes;
        loop {
            match intake.deframer.next(&mut rest, limit) {
                Ok(None) => return Flow::Continue,
                Ok(Some(frame)) => match self.frame(now, slot, frame, rest) {
                    Flow::Continue => {}
                    Flow::Hold => {
                        intake.held = rest.to_vec();
                        // Gives back the memory of a frame that was handed out.
                        let nothing = intake.deframer.next(&mut &[][..], limit);
                        debug_assert!(matches!(nothing, Ok(None)));
                        return Flow::Hold;
                    }
                    Flow::Gone => return Flow::Gone,
                },
                Err(error @ DeframeError::TooLarge { .. }) => {
                    self.close_saying(now, slot, CloseReason::FrameTooLarge, &error.to_string());
                    return Flow::Gone;
                }
            }
        }
    }

    fn websocket_frames(&mut self, now: Now, slot: u32, intake: &mut Intake, bytes: &mut [u8]) -> Flow {
        let Intake { messages, held, .. } = intake;
        let Some(messages) = messages.as_mut().or_count(Place::Sessions) else { return Flow::Gone };
        let mut rest = bytes;
        loop {
            let flow = match messages.next(&mut rest) {
                Ok(None) => return Flow::Continue,
                Ok(Some(WsEvent::Frame(frame))) => self.frame(now, slot, frame, rest),
                Ok(Some(WsEvent::Ping(payload))) => self.websocket_pong(now, slot, payload),
                Ok(Some(WsEvent::Pong)) => Flow::Continue,
                Ok(Some(WsEvent::Close { status })) => {
                    let mut answer = Vec::new();
                    websocket::close(status, &mut answer);
                    self.close_with_bytes(now, slot, CloseReason::PeerClosed, &answer);
                    Flow::Gone
                }
                Err(error) => {
                    self.close_websocket(now, slot, error);
                    Flow::Gone
                }
            };
            match flow {
                Flow::Continue => {}
                Flow::Hold => {
                    *held = rest.to_vec();
                    return Flow::Hold;
                }
                Flow::Gone => return Flow::Gone,
            }
        }
    }

    fn websocket_pong(&mut self, now: Now, slot: u32, payload: &[u8]) -> Flow {
        let mut pong = Vec::new();
        websocket::pong(payload, &mut pong);
        let Some(session) = self.sessions.at_mut(slot).or_count(Place::Sessions) else { return Flow::Gone };
        if !self.outgoing.has_reserve(session, pong.len()) {
            self.evict(now, slot);
            return Flow::Gone;
        }
        self.outgoing.raw(session, slot, &pong, now.mono_ms, &mut self.effects.dirty);
        self.flow_of(slot)
    }

    /// One whole frame; `rest` is what lies behind it.
    fn frame(&mut self, now: Now, slot: u32, frame: &[u8], rest: &[u8]) -> Flow {
        let Some(session) = self.sessions.at(slot).or_count(Place::Sessions) else { return Flow::Gone };
        let phase = session.phase;
        let (request_id, request) = match read_client(frame) {
            Ok(read) => read,
            Err(error) => {
                let reason = match error {
                    FrameError::Malformed => CloseReason::BadFrame,
                    FrameError::UnknownRequest(_) => CloseReason::UnknownRequest,
                };
                self.close_saying(now, slot, reason, &error.to_string());
                return Flow::Gone;
            }
        };
        self.counts.frames_in_total += 1;
        match (phase, request) {
            (Phase::Fresh, Request::Login(login)) => {
                let flow = self.login(now, slot, request_id, &login, rest);
                return if flow == Flow::Gone { flow } else { self.flow_of(slot) };
            }
            (Phase::Fresh, _) => {
                self.close(now, slot, CloseReason::NotLoggedIn);
                return Flow::Gone;
            }
            (Phase::Live | Phase::Behind, request) => self.request(now, slot, request_id, request),
            // Bytes are held while a login is answered, and ignored when closing.
            (
                Phase::AwaitingCursor
                | Phase::AwaitingPosition
                | Phase::AwaitingPositionClaimed
                | Phase::Closing
                | Phase::Free,
                _,
            ) => {
                internal::count(Place::Sessions);
            }
        }
        self.flow_of(slot)
    }

    /// Whether this connection's next bytes may be looked at; pauses reading when it does not read its replies, or has asked
    /// as much as may be unanswered, or was refused too often.
    fn flow_of(&mut self, slot: u32) -> Flow {
        let Some(session) = self.sessions.at_mut(slot).or_count(Place::Sessions) else { return Flow::Gone };
        if !session.phase.is_open() && !session.phase.is_awaiting() && session.phase != Phase::Fresh {
            return Flow::Gone;
        }
        let asks_too_much = session.in_flight >= SESSION_IN_FLIGHT_MAX;
        if asks_too_much {
            self.counts.shed.in_flight += 1;
        }
        let is_throttled = session.flags.has(Flags::THROTTLED);
        if asks_too_much || is_throttled || session.phase.is_awaiting() || self.outgoing.is_over_cap(session) {
            session.flags.set(Flags::PAUSED);
            return Flow::Hold;
        }
        Flow::Continue
    }
}
