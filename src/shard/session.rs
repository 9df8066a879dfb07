//! A connection and, once it has logged in, its session: one record of a cache line.
//!
//! Owned by the shard, in its slab. What always holds: an idle session owns no other memory (outbox and intake
//! are boxes that exist only while something waits), and its phase alone says what may be done with it.

use std::fmt;

use super::outbox::Outbox;
use crate::contract::ids::{ConnId, ShardId};
use ringway_wire::deframer::Deframer;
use ringway_wire::ids::{DeviceId, Seq};
use ringway_wire::websocket::Messages;

/// No slot.
pub(super) const NIL: u32 = u32::MAX;

/// One connection's state. The slot's generation outlives the connection.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct Session {
    /// Everything up to here has been put into the outbox (or was with the client before). Before login, this, `newest`
    /// and `device` say where the connection stands among those who have not logged in (`unauthenticated.rs`).
    pub(super) cursor: Seq,
    /// The newest row known to exist.
    pub(super) newest: Seq,
    /// What waits to be written.
    pub(super) outbox: Option<Box<Outbox>>,
    /// The user's slot in the directory; `NIL` before login and when closing.
    pub(super) user: u32,
    /// The slot's generation.
    pub(super) generation: u32,
    /// What may be done with it.
    pub(super) phase: Phase,
    /// See [`Flags`].
    pub(super) flags: Flags,
    /// Requests that wait for an answer.
    pub(super) in_flight: u16,
    /// The user's next older session, `NIL` at the end.
    pub(super) next_of_user: u32,
    /// The client's device.
    pub(super) device: DeviceId,
    /// What has been read and not been understood yet.
    pub(super) intake: Option<Box<Intake>>,
    /// When the token expires, Unix seconds.
    pub(super) expires_at_s: u32,
    /// When something was last received (logged in), or when it was accepted or began to close, in wheel ticks. While a
    /// login is looked up, which nobody times by it, the login's request id.
    pub(super) received_tick: u32,
}

const _: () = assert!(size_of::<Session>() == 64, "a session is one cache line");

/// What a connection is waiting for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub(super) enum Phase {
    /// The slot is not in use.
    #[default]
    Free,
    /// Accepted; the first frame must be a login.
    Fresh,
    /// Registered; the store looks up the device's cursor.
    AwaitingCursor,
    /// Registered with the cursor the store had; the ledger looks up the user's newest row.
    AwaitingPosition,
    /// The same, with the cursor the client claims to have.
    AwaitingPositionClaimed,
    /// Logged in, and has everything: the next row goes straight out.
    Live,
    /// Logged in, and reads pages until it has everything.
    Behind,
    /// The last frame is on its way out.
    Closing,
}

impl Phase {
    /// Logged in: frames may be sent to it.
    #[inline]
    pub(super) fn is_open(self) -> bool {
        matches!(self, Phase::Live | Phase::Behind)
    }

    /// Registered, the login not answered yet.
    pub(super) fn is_awaiting(self) -> bool {
        matches!(self, Phase::AwaitingCursor | Phase::AwaitingPosition | Phase::AwaitingPositionClaimed)
    }
}

/// Eight yes-or-no facts about a connection.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Flags(u8);

impl Flags {
    /// Listed in the dirty outboxes, or known by the shell to be blocked.
    pub(super) const DIRTY: u8 = 1;
    /// Reading is not wanted.
    pub(super) const PAUSED: u8 = 2;
    /// A catch-up page was asked for.
    pub(super) const PAGE_ASKED: u8 = 4;
    /// In the queue of those who want a catch-up page, or in the list of those who ask again later.
    pub(super) const PAGE_QUEUED: u8 = 8;
    /// Frames travel in WebSocket messages.
    pub(super) const WEBSOCKET: u8 = 16;
    /// The first bytes have shown how frames travel.
    pub(super) const TRANSPORT_KNOWN: u8 = 32;
    /// Listed among those to cut: nothing is written any more.
    pub(super) const CUT: u8 = 64;
    /// Not read from because of its refusals.
    pub(super) const THROTTLED: u8 = 128;

    #[inline]
    pub(super) fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    #[inline]
    pub(super) fn set(&mut self, flag: u8) {
        self.0 |= flag;
    }

    #[inline]
    pub(super) fn clear(&mut self, flag: u8) {
        self.0 &= !flag;
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08b}", self.0)
    }
}

/// What has been read from a connection and not been understood yet. Only WebSocket connections always have one.
#[derive(Default)]
pub(super) struct Intake {
    /// The start of a frame.
    pub(super) deframer: Deframer,
    /// The WebSocket's state.
    pub(super) messages: Option<Messages>,
    /// Bytes to be looked at when reading goes on, or when there are more of them.
    pub(super) held: Vec<u8>,
}

impl Intake {
    /// Bytes of memory it holds.
    pub(super) fn bytes(&self) -> usize {
        let messages_bytes = self.messages.as_ref().map_or(0, Messages::held_bytes);
        self.deframer.held_bytes() + messages_bytes + self.held.capacity()
    }

    /// Nothing is kept.
    pub(super) fn is_idle(&self) -> bool {
        self.messages.is_none() && self.held.is_empty() && self.deframer.held_bytes() == 0
    }
}

impl fmt::Debug for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake").field("held_bytes", &self.held.len()).finish_non_exhaustive()
    }
}

impl Session {
    /// How this connection is named outside.
    #[inline]
    pub(super) fn conn(&self, slot: u32) -> ConnId {
        ConnId { slot, generation: self.generation }
    }

    /// How it is named to its client and in logs.
    pub(super) fn number(&self, shard: ShardId, slot: u32) -> u64 {
        u64::from(shard.0) << 48 | u64::from(self.generation & 0xFFFF) << 32 | u64::from(slot)
    }

    /// A login is looked up: this request waits for its answer.
    pub(super) fn login_is(&mut self, request_id: u32) {
        self.received_tick = request_id;
    }

    /// The request that `Closing` would answer; 0: none.
    pub(super) fn login_request(&self) -> u32 {
        if self.phase.is_awaiting() { self.received_tick } else { 0 }
    }

    /// Bytes that wait for it.
    #[inline]
    pub(super) fn outbox_len(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.len())
    }
}
