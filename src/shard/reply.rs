//! Frames for one session: replies, refusals, announcements.
//!
//! Part of the shard's core. What always holds: a reply is sent only to a session that is logged in; one that has
//! no room even in the reserve ends the connection, because its client does not read what it asked for.

use super::Shard;
use super::requests::text;
use super::session::Flags;
use super::wheel::tick_of;
use crate::clock::Now;
use crate::contract::ids::Origin;
use crate::contract::internal::{OrCount, Place, count};
use crate::contract::lane::LaneAnswer;
use ringway_wire::frame::Encoder;
use ringway_wire::ids::Seq;
use ringway_wire::limits::SESSION_IN_FLIGHT_MAX;
use ringway_wire::request::Taken;
use ringway_wire::schema::ErrorCode;

/// A session that has so many requests in flight is read from again: not each time one is answered, since what was read
/// and not looked at is moved then.
pub(super) const READ_ON_IN_FLIGHT: u16 = SESSION_IN_FLIGHT_MAX / 2;

impl Shard {
    /// Sends a reply, in the reserve if it must be.
    pub(super) fn reply(&mut self, now: Now, slot: u32, encode: impl for<'e> FnOnce(&'e mut Encoder) -> &'e [u8]) {
        self.reply_of(now, slot, encode);
    }

    /// The same of one that may be long: it counts for its user.
    pub(super) fn reply_large(
        &mut self,
        now: Now,
        slot: u32,
        encode: impl for<'e> FnOnce(&'e mut Encoder) -> &'e [u8],
    ) {
        let user = self.sessions.at(slot).and_then(|session| self.directory.at(session.user)).map(|user| user.id);
        let bytes = self.reply_of(now, slot, encode);
        if let Some(user) = user {
            self.count_answered(now, user, bytes);
        }
    }

    /// Sends a reply; how long it is.
    fn reply_of(&mut self, now: Now, slot: u32, encode: impl for<'e> FnOnce(&'e mut Encoder) -> &'e [u8]) -> usize {
        let Some(session) = self.sessions.at_mut(slot).filter(|session| session.phase.is_open()) else { return 0 };
        let frame = encode(&mut self.encoder);
        let bytes = frame.len();
        if self.outgoing.has_reserve(session, frame.len()) {
            self.outgoing.frame(session, slot, frame, now.mono_ms, &mut self.effects.dirty);
            if self.outgoing.is_over_cap(session) {
                session.flags.set(Flags::PAUSED);
            }
        } else {
            self.evict(now, slot);
        }
        bytes
    }

    /// Refuses a request, with the code's own words.
    pub(super) fn refuse(&mut self, now: Now, slot: u32, request_id: u32, code: ErrorCode, retry_after_ms: u32) {
        self.refuse_saying(now, slot, request_id, code, text(code), retry_after_ms);
    }

    /// Refuses a request, with better words.
    pub(super) fn refuse_saying(
        &mut self,
        now: Now,
        slot: u32,
        request_id: u32,
        code: ErrorCode,
        text: &str,
        retry_after_ms: u32,
    ) {
        self.reply(now, slot, |encoder| encoder.error(request_id, code, text, retry_after_ms, now.unix_ms));
        self.note_refusal(now, slot, code);
        self.count_refusal(now, slot, retry_after_ms);
    }

    /// Refuses a request that was in flight, of a session here.
    pub(super) fn refuse_origin(&mut self, now: Now, origin: Origin, code: ErrorCode, retry_after_ms: u32) {
        if let Some(slot) = self.settle(origin) {
            self.refuse(now, slot, origin.request_id, code, retry_after_ms);
        }
    }

    /// A request in flight gets its answer: where its session is, if it is still there and logged in.
    pub(super) fn settle(&mut self, origin: Origin) -> Option<u32> {
        if origin.session.shard != self.config.id {
            return None;
        }
        let slot = self.slot_of(origin.session.conn)?;
        let session = self.sessions.at_mut(slot).filter(|session| session.phase.is_open())?;
        session.in_flight = session.in_flight.checked_sub(1).or_count(Place::Sessions).unwrap_or_default();
        if session.in_flight == READ_ON_IN_FLIGHT && session.flags.has(Flags::PAUSED) {
            self.answered_enough.push(origin.session.conn);
        }
        self.large.settled(origin);
        Some(slot)
    }

    /// An answer for a session of this shard.
    pub(super) fn answered(&mut self, now: Now, origin: Origin, answer: LaneAnswer) {
        match answer {
            LaneAnswer::Refused { code, retry_after_ms } => self.refuse_origin(now, origin, code, retry_after_ms),
            LaneAnswer::EphemeralSent { msg_id, sent_at_ms } => {
                self.send_ok(now, origin, msg_id, Seq(0), sent_at_ms, Taken::Now);
            }
            LaneAnswer::Members(roster) => {
                if let Some(slot) = self.settle(origin) {
                    self.reply_large(now, slot, |encoder| {
                        let members = roster.members().iter().map(|member| (member.user, member.role));
                        encoder.group_info(origin.request_id, roster.group, roster.version, members)
                    });
                }
            }
            LaneAnswer::Online(users) => self.gathered(now, origin, &users),
            // The API's.
            LaneAnswer::Sessions(_) | LaneAnswer::Events(_) | LaneAnswer::Connections(_) => count(Place::Mailbox),
        }
    }

    /// Those go on whose requests have been answered so far that more may be read.
    pub(super) fn read_on(&mut self, now: Now) {
        for conn in std::mem::take(&mut self.answered_enough) {
            if let Some(slot) = self.slot_of(conn) {
                self.resume(now, slot);
            }
        }
    }

    /// Reading may go on, if it was paused and nothing forbids it: first what was held, then the socket.
    pub(super) fn resume(&mut self, now: Now, slot: u32) {
        let Some(session) = self.sessions.at_mut(slot).filter(|session| session.phase.is_open()) else { return };
        if !session.flags.has(Flags::PAUSED)
            || session.flags.has(Flags::THROTTLED)
            || self.outgoing.is_over_cap(session)
            || session.in_flight > READ_ON_IN_FLIGHT
        {
            return;
        }
        session.flags.clear(Flags::PAUSED);
        // What it has sent since was not read: that is not its silence.
        session.received_tick = tick_of(now.mono_ms);
        self.parse_held(now, slot);
        if let Some(session) = self.sessions.at(slot)
            && !session.flags.has(Flags::PAUSED)
        {
            self.effects.resumed.push(session.conn(slot));
        }
    }
}
