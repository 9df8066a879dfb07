//! Bytes that wait for one connection, in chunks that a shard's connections share through a pool.
//!
//! Owned by the connection's session on its shard. What always holds: the bytes come out in the order they went
//! in, whatever the sizes of the partial writes; a connection with nothing to write has no outbox and no
//! memory; chunks never grow, so nothing is copied twice. Caps are kept by the session, not here.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use crate::contract::internal::{OrCount, Place};
use crate::contract::message::Message;
use ringway_wire::frame::PushFrame;
use ringway_wire::ids::Seq;

/// Bytes of one chunk: a screenful of pushes, or a seventeenth of the largest body.
pub(crate) const CHUNK_BYTES: usize = 4 * 1024;
/// Empty chunks a shard keeps for the next outbox: 16 MiB.
const CHUNKS_POOLED_MAX: usize = 4_096;
/// Places in a kept outbox's lists, so that a burst does not make them grow anew each time.
const CHUNKS_POOLED_WITH_OUTBOX: usize = 16;
/// Empty outboxes a shard keeps, each with its first chunk.
const OUTBOXES_POOLED_MAX: usize = 4_096;

/// What waits to be written to one connection.
#[derive(Debug)]
pub struct Outbox {
    /// Chunks before `last`, each written up to its end.
    full: VecDeque<Vec<u8>>,
    /// The chunk that bytes are appended to.
    last: Vec<u8>,
    /// How much of the first chunk (`full`'s front, or `last`) has gone out.
    read_at: usize,
    /// Bodies kept by reference, each between the inline bytes before and after it.
    tails: VecDeque<Tail>,
    /// How much of the first tail has gone out.
    tail_read: usize,
    /// Inline bytes ever appended, and ever gone out: a tail's place is a number of the first kind.
    inline_in: u64,
    inline_out: u64,
    /// Bytes that wait.
    len: usize,
    /// When bytes last went out, or the first came in, in monotonic milliseconds: an outbox that stands still
    /// too long is its connection's end.
    pub(super) progress_ms: u64,
    /// Bytes that the socket has taken since the outbox was opened.
    taken: u64,
    /// Of these, as many as the peer had acknowledged at the last look; below zero while it acknowledges earlier ones.
    acknowledged: Option<i64>,
}

/// Bytes kept by reference.
#[derive(Debug)]
struct Tail {
    /// They come after so many inline bytes.
    after: u64,
    shared: Shared,
}

#[derive(Debug)]
enum Shared {
    /// The end of a message's push, from its body on.
    Body(Arc<Message>),
    /// A whole frame that many sessions get.
    Frame(Arc<[u8]>),
}

impl Tail {
    fn bytes(&self) -> &[u8] {
        match &self.shared {
            Shared::Body(message) => {
                let push = &message.push;
                push.bytes().get(push.body_at()..).or_count(Place::Fanout).unwrap_or_default()
            }
            Shared::Frame(frame) => frame,
        }
    }
}

impl Outbox {
    fn new() -> Self {
        Outbox {
            full: VecDeque::new(),
            last: Vec::with_capacity(CHUNK_BYTES),
            read_at: 0,
            tails: VecDeque::new(),
            tail_read: 0,
            inline_in: 0,
            inline_out: 0,
            len: 0,
            progress_ms: 0,
            taken: 0,
            acknowledged: None,
        }
    }

    /// The kernel has so many bytes that the peer has not acknowledged. Returns whether it has acknowledged any since the
    /// last look.
    pub(super) fn has_progressed(&mut self, unacknowledged: Option<u64>) -> bool {
        let unacknowledged = unacknowledged.and_then(|bytes| i64::try_from(bytes).ok());
        let acknowledged = unacknowledged.map(|bytes| self.taken as i64 - bytes);
        let before = self.acknowledged;
        self.acknowledged = acknowledged.or(before);
        matches!((before, acknowledged), (Some(before), Some(now)) if now > before)
    }

    /// Bytes that wait to be written.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Nothing waits. The core takes such an outbox away from its connection at once.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is next to write, in order, into the front of `out`; returns how many slices were filled. More may
    /// wait than fits.
    pub fn slices<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        let mut place = self.inline_out;
        let mut tails = self.tails.iter().peekable();
        let mut tail_read = self.tail_read;
        let mut read_at = self.read_at;
        for chunk in self.full.iter().chain(std::iter::once(&self.last)) {
            let mut inline = chunk.get(read_at..).or_count(Place::Fanout).unwrap_or_default();
            read_at = 0;
            loop {
                if let Some(tail) = tails.next_if(|tail| tail.after == place) {
                    let Some(slot) = out.get_mut(filled) else { return filled };
                    *slot = IoSlice::new(tail.bytes().get(tail_read..).or_count(Place::Fanout).unwrap_or_default());
                    tail_read = 0;
                    filled += 1;
                    continue;
                }
                if inline.is_empty() {
                    break;
                }
                let before_tail = tails.peek().map_or(usize::MAX, |tail| (tail.after - place) as usize);
                let (now, later) = inline.split_at(inline.len().min(before_tail));
                let Some(slot) = out.get_mut(filled) else { return filled };
                *slot = IoSlice::new(now);
                filled += 1;
                place += now.len() as u64;
                inline = later;
            }
        }
        filled
    }

    /// Copies all that waits, for a hand-over and for tests.
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut slices = vec![IoSlice::new(&[]); self.full.len() + 1 + 2 * self.tails.len()];
        let filled = self.slices(&mut slices);
        slices.iter().take(filled).flat_map(|slice| slice.iter().copied()).collect()
    }

    /// Appends bytes.
    pub(super) fn append(&mut self, mut bytes: &[u8], pool: &mut OutboxPool) {
        self.len += bytes.len();
        self.inline_in += bytes.len() as u64;
        loop {
            let room = CHUNK_BYTES - self.last.len();
            if bytes.len() <= room {
                self.last.extend_from_slice(bytes);
                return;
            }
            let (now, later) = bytes.split_at(room);
            self.last.extend_from_slice(now);
            self.full.push_back(std::mem::replace(&mut self.last, pool.chunk()));
            bytes = later;
        }
    }

    /// Appends a push with the recipient's `seq`, its body copied.
    #[inline]
    pub(super) fn append_push(&mut self, push: &PushFrame, seq: Seq, pool: &mut OutboxPool) {
        let bytes = push.bytes();
        let at = self.last.len();
        if bytes.len() > CHUNK_BYTES - at {
            self.append_push_split(bytes, push.seq_at(), seq, pool);
            return;
        }
        self.last.extend_from_slice(bytes);
        let place = self.last.get_mut(at + push.seq_at()..).and_then(|rest| rest.first_chunk_mut::<8>());
        if let Some(place) = place.or_count(Place::Fanout) {
            *place = seq.0.to_le_bytes();
        }
        self.len += bytes.len();
        self.inline_in += bytes.len() as u64;
    }

    /// The same, over the border between two chunks.
    #[cold]
    fn append_push_split(&mut self, bytes: &[u8], seq_at: usize, seq: Seq, pool: &mut OutboxPool) {
        let (head, rest) = bytes.split_at(seq_at.min(bytes.len()));
        self.append(head, pool);
        self.append(&seq.0.to_le_bytes(), pool);
        self.append(rest.get(8..).or_count(Place::Fanout).unwrap_or_default(), pool);
    }

    /// Appends a push with the recipient's `seq`, its body kept by reference.
    pub(super) fn append_shared(&mut self, message: &Arc<Message>, seq: Seq, pool: &mut OutboxPool) {
        let push = &message.push;
        let head = push.bytes().get(..push.body_at()).or_count(Place::Fanout).unwrap_or_default();
        self.append_push_split(head, push.seq_at(), seq, pool);
        self.append_tail(Shared::Body(Arc::clone(message)));
    }

    /// Appends a frame, kept by reference.
    pub(super) fn append_shared_frame(&mut self, frame: &Arc<[u8]>) {
        self.append_tail(Shared::Frame(Arc::clone(frame)));
    }

    fn append_tail(&mut self, shared: Shared) {
        let tail = Tail { after: self.inline_in, shared };
        self.len += tail.bytes().len();
        self.tails.push_back(tail);
    }

    /// Takes away what was written; returns how much that was (never more than waited).
    pub(super) fn consume(&mut self, written: usize, pool: &mut OutboxPool) -> usize {
        let written = written.min(self.len);
        let mut left = written;
        while left > 0 {
            let before_tail = match self.tails.front() {
                Some(tail) if tail.after == self.inline_out => {
                    let rest = tail.bytes().len() - self.tail_read;
                    let take = rest.min(left);
                    self.tail_read += take;
                    left -= take;
                    if take == rest {
                        self.tails.pop_front();
                        self.tail_read = 0;
                    }
                    continue;
                }
                Some(tail) => (tail.after - self.inline_out) as usize,
                None => usize::MAX,
            };
            let first = self.full.front().map_or(self.last.len(), Vec::len);
            let take = left.min(before_tail).min(first - self.read_at);
            self.read_at += take;
            self.inline_out += take as u64;
            left -= take;
            if self.read_at == first {
                self.read_at = 0;
                match self.full.pop_front() {
                    Some(chunk) => pool.keep_chunk(chunk),
                    None => self.last.clear(),
                }
            }
        }
        self.len -= written;
        self.taken += written as u64;
        written
    }
}

/// Chunks and outboxes for reuse, one pool per shard, bounded.
#[derive(Debug, Default)]
pub(super) struct OutboxPool {
    chunks: Vec<Vec<u8>>,
    #[expect(clippy::vec_box, reason = "boxes go back and forth between the pool and sessions as they are")]
    outboxes: Vec<Box<Outbox>>,
}

impl OutboxPool {
    fn chunk(&mut self) -> Vec<u8> {
        self.chunks.pop().unwrap_or_else(|| Vec::with_capacity(CHUNK_BYTES))
    }

    fn keep_chunk(&mut self, mut chunk: Vec<u8>) {
        if self.chunks.len() < CHUNKS_POOLED_MAX {
            chunk.clear();
            self.chunks.push(chunk);
        }
    }

    /// An empty outbox.
    #[inline]
    pub(super) fn open(&mut self, now_ms: u64) -> Box<Outbox> {
        let mut outbox = self.outboxes.pop().unwrap_or_else(|| Box::new(Outbox::new()));
        outbox.progress_ms = now_ms;
        (outbox.taken, outbox.acknowledged) = (0, None);
        outbox
    }

    /// Takes an outbox back, with whatever is in it.
    pub(super) fn close(&mut self, mut outbox: Box<Outbox>) {
        let all = outbox.len;
        outbox.consume(all, self);
        if self.outboxes.len() < OUTBOXES_POOLED_MAX {
            outbox.inline_in = 0;
            outbox.inline_out = 0;
            outbox.full.shrink_to(CHUNKS_POOLED_WITH_OUTBOX);
            outbox.tails.shrink_to(CHUNKS_POOLED_WITH_OUTBOX);
            self.outboxes.push(outbox);
        }
    }
}

#[cfg(test)]
mod tests;
