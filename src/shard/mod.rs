//! The shard's core: an event in, effects out. No socket, no clock, no file, no await.

pub mod config;
pub mod counters;
pub mod effects;
pub mod event;
pub mod outbox;

use self::config::ShardConfig;
use self::counters::ShardCounters;
use self::effects::Effects;
use self::event::{Delivery, HandedOver, LaneEnvelope, StoreAnswer, StoreAsk, Submission};
use self::outbox::Outbox;
use crate::auth::Authenticator;
use crate::clock::Now;
use crate::ids::{ConnId, ShardId};
use crate::wire::generated::ringway::wire::CloseReason;

/// One shard: its connections, its users' sessions, its groups. Not `Send` by use: one thread owns it.
pub struct Shard {}

/// What the shell does with a connection after a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AfterWrite {
    /// Nothing waits any more.
    Drained,
    /// More waits: write again when the socket is writable.
    More,
    /// The last frame is out: close the socket, then call `disconnected`.
    CloseNow,
}

#[expect(unused_variables, clippy::todo, reason = "signatures first")]
impl Shard {
    /// A shard without connections.
    pub fn new(config: ShardConfig, auth: Authenticator) -> Shard {
        todo!()
    }

    /// A socket was accepted. An error: send `encode_refusal`'s bytes if they fit the socket, and close it.
    pub fn accept(&mut self, now: Now) -> Result<ConnId, CloseReason> {
        todo!()
    }

    /// A connection comes from another shard: its login goes on here, then its unread bytes. An error as in
    /// [`Self::accept`].
    pub fn adopt(&mut self, now: Now, handed: HandedOver) -> Result<ConnId, CloseReason> {
        todo!()
    }

    /// The bytes of the frame that tells a refused connection why.
    pub fn encode_refusal(&mut self, now: Now, reason: CloseReason) -> &[u8] {
        todo!()
    }

    /// Bytes were read from the connection's socket, in whatever pieces. (A WebSocket message is unmasked in place.)
    pub fn receive(&mut self, now: Now, conn: ConnId, bytes: &mut [u8]) {
        todo!()
    }

    /// The socket is gone: the peer closed it, or the shell did. The slot is freed here and only here (but for
    /// connections handed over). Without meaning for a connection that is gone already.
    pub fn disconnected(&mut self, now: Now, conn: ConnId) {
        todo!()
    }

    /// The ledger hands out, in its order.
    pub fn deliver(&mut self, now: Now, delivery: Delivery) {
        todo!()
    }

    /// Another shard's core asks or answers.
    pub fn lane(&mut self, now: Now, envelope: LaneEnvelope) {
        todo!()
    }

    /// The store answers.
    pub fn stored(&mut self, now: Now, answer: StoreAnswer) {
        todo!()
    }

    /// Call about every 20 ms: time-outs, questions to ask again, cursors once a second, a drain's progress.
    pub fn tick(&mut self, now: Now) {
        todo!()
    }

    /// Stop intake: new connections are refused, and over the next ticks every connection is told `Draining`,
    /// to reconnect at a time spread over `spread_ms`, and closed when that is written.
    pub fn drain(&mut self, now: Now, spread_ms: u32) {
        todo!()
    }

    /// The ledger's mailbox was full.
    pub fn refused_submission(&mut self, now: Now, submission: Submission) {
        todo!()
    }

    /// The lane to `shard` was full.
    pub fn refused_lane(&mut self, now: Now, shard: ShardId, envelope: LaneEnvelope) {
        todo!()
    }

    /// The store's mailbox was full.
    pub fn refused_ask(&mut self, now: Now, ask: StoreAsk) {
        todo!()
    }

    /// What is to be done; drain it.
    pub fn effects(&mut self) -> &mut Effects {
        todo!()
    }

    /// Whether to read from the connection's socket now. False: it does not read its replies, its login is
    /// being looked up, or it is being closed. When it becomes true again it is listed in `Effects::resumed`.
    pub fn wants_read(&self, conn: ConnId) -> bool {
        todo!()
    }

    /// What waits for the connection; `None`: nothing.
    pub fn outbox(&mut self, conn: ConnId) -> Option<&mut Outbox> {
        todo!()
    }

    /// So many bytes of the connection's outbox were written; 0 when the socket took none.
    pub fn written(&mut self, now: Now, conn: ConnId, bytes: usize) -> AfterWrite {
        todo!()
    }

    /// Plain integers as of now.
    pub fn counters(&self) -> ShardCounters {
        todo!()
    }
}
