//! Where a core's effects go: each to the outlet it is for, and what an outlet has no room for back to the core.
//!
//! Run by whoever owns the shard after each batch of events: the real shell, the simulator, the unit tests. What always
//! holds: entries of one kind leave in the order they were decided; a refusal is answered by the core at once, and what
//! it answers leaves in the same call; after [`Shard::route`] no effect is left.

use super::Shard;
use super::effects::Closed;
use crate::clock::Now;
use crate::contract::ids::{ConnId, ShardId};
use crate::contract::lane::{HandedOver, LaneEnvelope};
use crate::contract::nodes::ToNodes;
use crate::contract::store::StoreAsk;
use crate::contract::submission::Submission;
use ringway_wire::schema::CloseReason;

/// What a shard's effects go to. None of these waits: an outlet without room hands back.
pub trait Outlets {
    /// A connection that its new shard did not take, as the outlets hold it.
    type Peer;

    /// To the ledger.
    fn submit(&mut self, submission: Submission) -> Result<(), Submission>;

    /// To another shard's core, never the own one.
    fn cross(&mut self, to: ShardId, envelope: LaneEnvelope) -> Result<(), LaneEnvelope>;

    /// To the store.
    fn ask(&mut self, ask: StoreAsk) -> Result<(), StoreAsk>;

    /// To the cluster's other nodes. Never called without a cluster.
    fn notify_nodes(&mut self, envelope: ToNodes) -> Result<(), ToNodes>;

    /// A connection goes to the shard of its user; the core has freed it.
    fn hand_over(&mut self, conn: ConnId, to: ShardId, session: HandedOver) -> Result<(), (Self::Peer, HandedOver)>;

    /// A connection that was not taken gets these last bytes, and is closed.
    fn refuse(&mut self, now: Now, peer: Self::Peer, reason: CloseReason, last: &[u8]);

    /// Bytes that the kernel has taken for the connection and its peer has not acknowledged; `None`: nobody can say.
    fn unacknowledged(&mut self, conn: ConnId) -> Option<u64>;

    /// A connection was closed, for the log; its socket may still be open.
    fn closed(&mut self, closed: &Closed);

    /// The connection may be read again.
    fn resume(&mut self, conn: ConnId);

    /// The connection is to be closed at once, without writing; then `Shard::disconnected` is to be called.
    fn cut(&mut self, conn: ConnId);

    /// Takes the connections whose outboxes are to be written; each is listed once until `Shard::written` is called.
    fn write(&mut self, dirty: &mut Vec<ConnId>);

    /// That was all: whoever was sent something is to be woken, once.
    fn wake(&mut self);
}

impl Shard {
    /// Passes on everything the core wants passed on.
    pub fn route<O: Outlets>(&mut self, now: Now, outlets: &mut O) {
        if self.large.has_answered() {
            self.next_large_replies(now);
        }
        if !self.answered_enough.is_empty() {
            self.read_on(now);
        }
        if self.effects.is_empty() {
            return;
        }
        for conn in std::mem::take(&mut self.effects.stalls) {
            let unacknowledged = outlets.unacknowledged(conn);
            self.look_for_progress(now, conn, unacknowledged);
        }
        // First what may be refused: a refusal has effects of the kinds below it.
        while let Some(submission) = self.effects.submissions.pop_front() {
            if let Err(refused) = outlets.submit(submission) {
                self.refused_submission(now, refused);
            }
        }
        while let Some((to, envelope)) = self.effects.lanes.pop_front() {
            debug_assert_ne!(to, self.id(), "no lane leads to the own shard");
            if let Err(refused) = outlets.cross(to, envelope) {
                self.refused_lane(now, to, refused);
            }
        }
        while let Some(ask) = self.effects.asks.pop_front() {
            if let Err(refused) = outlets.ask(ask) {
                self.refused_ask(now, refused);
            }
        }
        self.route_to_nodes(outlets);
        // While the sockets are known by these connections.
        self.effects.closed.drain(..).for_each(|closed| outlets.closed(&closed));
        while let Some((conn, to, session)) = self.effects.handovers.pop() {
            if let Err((peer, session)) = outlets.hand_over(conn, to, session) {
                let last = self.handover_failed(now, &session);
                outlets.refuse(now, peer, CloseReason::Overloaded, &last);
            }
        }
        self.effects.resumed.drain(..).for_each(|conn| outlets.resume(conn));
        self.effects.cuts.drain(..).for_each(|conn| outlets.cut(conn));
        if !self.effects.dirty.is_empty() {
            outlets.write(&mut self.effects.dirty);
        }
        outlets.wake();
        debug_assert!(self.effects.is_empty(), "an effect was left: {:?}", self.effects);
    }

    fn route_to_nodes<O: Outlets>(&mut self, outlets: &mut O) {
        let mut refused = Vec::new();
        while let Some(envelope) = self.effects.to_nodes.pop_front() {
            if let Err(envelope) = outlets.notify_nodes(envelope) {
                refused.push(envelope);
            }
        }
        // What the core keeps of it goes to the front of what it keeps, so the last is given back first.
        refused.into_iter().rev().for_each(|envelope| self.refused_to_nodes(envelope));
    }
}

#[cfg(test)]
mod tests;
