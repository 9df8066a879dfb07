//! Everything a shard has for its connections to write, and the caps on it.
//!
//! Owned by the shard; the fan-out borrows it beside the sessions. What always holds: rows go only where both
//! caps leave room; replies have a reserve above them; a connection is listed as dirty once until its outbox has
//! drained.

use std::sync::Arc;

use super::config::ShardConfig;
use super::outbox::{CHUNK_BYTES, Outbox, OutboxPool};
use super::session::{Flags, Session};
use crate::contract::ids::ConnId;
use crate::contract::message::Message;
use crate::limits::{OUTBOX_INLINE_BODY_BYTES_MAX, OUTBOX_REPLY_RESERVE_BYTES};
use ringway_wire::ids::Seq;
use ringway_wire::websocket::binary_header;

/// Longest header of a WebSocket message.
const WEBSOCKET_HEADER_BYTES_MAX: usize = 10;
/// The part of the shard's cap that replies may use above it.
const SHARD_RESERVE_DIVISOR: usize = 8;

/// The outboxes' common part.
#[derive(Debug)]
pub(super) struct Outgoing {
    pool: OutboxPool,
    /// Bytes in all outboxes, and a chunk for each outbox.
    pub(super) waiting_bytes: usize,
    connection_bytes_max: usize,
    shard_bytes_max: usize,
}

impl Outgoing {
    pub(super) fn new(config: &ShardConfig) -> Self {
        Outgoing {
            pool: OutboxPool::default(),
            waiting_bytes: 0,
            connection_bytes_max: config.outbox_bytes_max,
            shard_bytes_max: config.outbox_shard_bytes_max,
        }
    }

    /// A row of so many bytes may be appended.
    #[inline]
    pub(super) fn has_room(&self, session: &Session, bytes: usize) -> bool {
        session.outbox_len() + bytes + WEBSOCKET_HEADER_BYTES_MAX <= self.connection_bytes_max
            && self.shard_has_room(bytes)
    }

    /// The shard's cap leaves room for so many bytes.
    #[inline]
    pub(super) fn shard_has_room(&self, bytes: usize) -> bool {
        self.waiting_bytes + bytes + CHUNK_BYTES <= self.shard_bytes_max
    }

    /// A reply of so many bytes may be appended: it may use the reserves.
    pub(super) fn has_reserve(&self, session: &Session, bytes: usize) -> bool {
        let shard_max = self.shard_bytes_max + self.shard_bytes_max / SHARD_RESERVE_DIVISOR;
        session.outbox_len() + bytes + WEBSOCKET_HEADER_BYTES_MAX
            <= self.connection_bytes_max + OUTBOX_REPLY_RESERVE_BYTES
            && self.waiting_bytes + bytes + CHUNK_BYTES <= shard_max
    }

    /// More waits for the connection than its cap: it should not be read from.
    pub(super) fn is_over_cap(&self, session: &Session) -> bool {
        session.outbox_len() > self.connection_bytes_max
    }

    /// The outbox. Whoever appends to it adds what it grew by to `waiting_bytes`, and marks the connection dirty.
    #[inline]
    fn open<'s>(&mut self, session: &'s mut Session, now_ms: u64) -> &'s mut Outbox {
        if session.outbox.is_none() {
            self.waiting_bytes += CHUNK_BYTES;
        }
        session.outbox.get_or_insert_with(|| self.pool.open(now_ms))
    }

    /// Appends a message's push with the recipient's `seq`.
    #[inline]
    pub(super) fn push(
        &mut self,
        session: &mut Session,
        slot: u32,
        message: &Arc<Message>,
        seq: Seq,
        now_ms: u64,
        dirty: &mut Vec<ConnId>,
    ) {
        let websocket = session.flags.has(Flags::WEBSOCKET);
        let outbox = self.open(session, now_ms);
        let before = outbox.len();
        let frame_bytes = message.push.bytes().len();
        if websocket {
            Self::websocket_header(&mut self.pool, outbox, frame_bytes);
        }
        if frame_bytes - message.push.body_at() <= OUTBOX_INLINE_BODY_BYTES_MAX {
            outbox.append_push(&message.push, seq, &mut self.pool);
        } else {
            outbox.append_shared(message, seq, &mut self.pool);
        }
        self.waiting_bytes += outbox.len() - before;
        mark_dirty(session, slot, dirty);
    }

    /// Appends a frame.
    pub(super) fn frame(
        &mut self,
        session: &mut Session,
        slot: u32,
        frame: &[u8],
        now_ms: u64,
        dirty: &mut Vec<ConnId>,
    ) {
        let websocket = session.flags.has(Flags::WEBSOCKET);
        let outbox = self.open(session, now_ms);
        let before = outbox.len();
        if websocket {
            Self::websocket_header(&mut self.pool, outbox, frame.len());
        }
        outbox.append(frame, &mut self.pool);
        self.waiting_bytes += outbox.len() - before;
        mark_dirty(session, slot, dirty);
    }

    /// Appends a frame that many sessions get: a large one is kept once for all of them.
    pub(super) fn shared_frame(
        &mut self,
        session: &mut Session,
        slot: u32,
        frame: &Arc<[u8]>,
        now_ms: u64,
        dirty: &mut Vec<ConnId>,
    ) {
        if frame.len() <= OUTBOX_INLINE_BODY_BYTES_MAX {
            return self.frame(session, slot, frame, now_ms, dirty);
        }
        let websocket = session.flags.has(Flags::WEBSOCKET);
        let outbox = self.open(session, now_ms);
        let before = outbox.len();
        if websocket {
            Self::websocket_header(&mut self.pool, outbox, frame.len());
        }
        outbox.append_shared_frame(frame);
        self.waiting_bytes += outbox.len() - before;
        mark_dirty(session, slot, dirty);
    }

    /// Appends bytes as they are.
    pub(super) fn raw(&mut self, session: &mut Session, slot: u32, bytes: &[u8], now_ms: u64, dirty: &mut Vec<ConnId>) {
        if bytes.is_empty() {
            return;
        }
        let outbox = self.open(session, now_ms);
        outbox.append(bytes, &mut self.pool);
        self.waiting_bytes += bytes.len();
        mark_dirty(session, slot, dirty);
    }

    fn websocket_header(pool: &mut OutboxPool, outbox: &mut Outbox, frame_bytes: usize) {
        let mut header = [0u8; WEBSOCKET_HEADER_BYTES_MAX];
        let len = binary_header(frame_bytes, &mut header);
        outbox.append(&header[..len], pool);
    }

    /// Takes away what was written; gives the outbox back when it is empty.
    pub(super) fn consume(&mut self, session: &mut Session, written: usize, now_ms: u64) {
        let Some(outbox) = session.outbox.as_deref_mut() else { return };
        let written = outbox.consume(written, &mut self.pool);
        self.waiting_bytes -= written;
        if written > 0 {
            outbox.progress_ms = now_ms;
        }
        if outbox.is_empty() {
            self.discard(session);
        }
    }

    /// Drops all that waits for a connection.
    pub(super) fn discard(&mut self, session: &mut Session) {
        if let Some(outbox) = session.outbox.take() {
            self.waiting_bytes -= outbox.len() + CHUNK_BYTES;
            self.pool.close(outbox);
        }
        session.flags.clear(Flags::DIRTY);
    }
}

/// Lists the connection as dirty, if it is not yet.
#[inline]
fn mark_dirty(session: &mut Session, slot: u32, dirty: &mut Vec<ConnId>) {
    if !session.flags.has(Flags::DIRTY) {
        session.flags.set(Flags::DIRTY);
        dirty.push(session.conn(slot));
    }
}
