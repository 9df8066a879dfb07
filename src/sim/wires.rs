//! Where one shard's effects go: bounded as the plan says.
//!
//! What always holds: a full mailbox hands back what it was given, as in the real gateway.

use std::collections::VecDeque;

use ringway::clock::Now;
use ringway::contract::ids::{ConnId, ShardId};
use ringway::contract::lane::{HandedOver, LaneEnvelope};
use ringway::contract::nodes::ToNodes;
use ringway::contract::store::StoreAsk;
use ringway::contract::submission::Submission;
use ringway::ledger::fair_queue::FairQueue;
use ringway::shard::effects::Closed;
use ringway::shard::route::Outlets;
use ringway_wire::schema::CloseReason;

use crate::gateway::{Lane, Mailbox};
use crate::mutation::Mutation;
use crate::plan::Plan;

/// Submissions that are too many for [`Mutation::CrowdsOut`].
const CROWDED: usize = 10;

/// What a shard wants of its sockets.
#[derive(Default)]
pub(crate) struct SocketWork {
    pub dirty: Vec<ConnId>,
    pub cuts: Vec<ConnId>,
    pub handovers: Vec<(ConnId, ShardId, HandedOver)>,
    /// Connections whose shard has no room for them, with what their peers are told.
    pub refused: Vec<(ConnId, Vec<u8>)>,
}

/// What one shard's effects go to: bounded as the plan says.
pub(crate) struct Wires<'a> {
    pub from: usize,
    pub mail: &'a mut [Mailbox],
    pub submissions: &'a mut FairQueue,
    pub asks: &'a mut VecDeque<StoreAsk>,
    pub plan: &'a Plan,
    pub work: SocketWork,
}

fn put<T>(queue: &mut VecDeque<T>, max: usize, what: T) -> Result<(), T> {
    if queue.len() >= max {
        return Err(what);
    }
    queue.push_back(what);
    Ok(())
}

impl Outlets for Wires<'_> {
    type Peer = ConnId;

    fn submit(&mut self, submission: Submission) -> Result<(), Submission> {
        let max = if self.plan.mutation == Mutation::CrowdsOut { CROWDED } else { self.plan.submissions_max };
        if self.submissions.len() >= max {
            return Err(submission);
        }
        self.submissions.push(ShardId(self.from as u16), submission);
        Ok(())
    }

    fn cross(&mut self, to: ShardId, envelope: LaneEnvelope) -> Result<(), LaneEnvelope> {
        let lane = &mut self.mail[usize::from(to.0)].lanes[self.from];
        put(lane, self.plan.lane_max, Lane::Core(envelope)).map_err(|refused| match refused {
            Lane::Core(envelope) => envelope,
            Lane::Connection(..) => unreachable!("it was an envelope"),
        })
    }

    fn ask(&mut self, ask: StoreAsk) -> Result<(), StoreAsk> {
        put(self.asks, self.plan.asks_max, ask)
    }

    /// There is no cluster here.
    fn notify_nodes(&mut self, envelope: ToNodes) -> Result<(), ToNodes> {
        Err(envelope)
    }

    fn hand_over(&mut self, conn: ConnId, to: ShardId, session: HandedOver) -> Result<(), (ConnId, HandedOver)> {
        if self.mail[usize::from(to.0)].lanes[self.from].len() >= self.plan.lane_max {
            return Err((conn, session));
        }
        self.work.handovers.push((conn, to, session));
        Ok(())
    }

    fn refuse(&mut self, _: Now, conn: ConnId, _: CloseReason, last: &[u8]) {
        self.work.refused.push((conn, last.to_vec()));
    }

    /// What a socket has taken is as good as read.
    fn unacknowledged(&mut self, _: ConnId) -> Option<u64> {
        None
    }

    fn closed(&mut self, _: &Closed) {}

    /// The world looks at every connection anyway.
    fn resume(&mut self, _: ConnId) {}

    fn cut(&mut self, conn: ConnId) {
        self.work.cuts.push(conn);
    }

    fn write(&mut self, dirty: &mut Vec<ConnId>) {
        self.work.dirty.append(dirty);
    }

    fn wake(&mut self) {}
}
