//! What a shard's core wants done: the shell drains it after each event, or at least once a turn.
//!
//! Owned by the core, emptied by the shell. What always holds: entries of one queue are in the order they were
//! decided, and what the shell cannot pass on (a full mailbox) it hands back through `Shard::refused_*`.

use std::collections::VecDeque;

use crate::auth::TokenFault;
use crate::contract::ids::{ConnId, ShardId};
use crate::contract::lane::{HandedOver, LaneEnvelope};
use crate::contract::nodes::ToNodes;
use crate::contract::store::StoreAsk;
use crate::contract::submission::Submission;
use ringway_wire::ids::{DeviceId, UserId};
use ringway_wire::schema::CloseReason;

/// The effects of events, until the shell has taken them.
#[derive(Debug, Default)]
pub struct Effects {
    /// To the ledger.
    pub submissions: VecDeque<Submission>,
    /// To other shards' cores, never to the own one.
    pub(crate) lanes: VecDeque<(ShardId, LaneEnvelope)>,
    /// To the store.
    pub(crate) asks: VecDeque<StoreAsk>,
    /// To the cluster's other nodes; nothing without a cluster.
    pub(crate) to_nodes: VecDeque<ToNodes>,
    /// Connections whose outboxes have something to write, each listed once until `Shard::written` (or
    /// `disconnected`) is called for it. Call `written` with 0 when the socket took nothing.
    pub dirty: Vec<ConnId>,
    /// Connections to close at once, without writing: they did not read, or did not take their last frame in
    /// time. The shell closes the socket and calls `disconnected`.
    pub(crate) cuts: Vec<ConnId>,
    /// Connections whose user lives on another shard. The shell duplicates the descriptor and sends it along;
    /// the old `ConnId` is already free, `disconnected` need not be called for it.
    pub(crate) handovers: Vec<(ConnId, ShardId, HandedOver)>,
    /// Connections whose sockets have taken nothing for a while: how much has the kernel taken for each that its peer has
    /// not acknowledged? Call `Shard::look_for_progress`.
    pub(crate) stalls: Vec<ConnId>,
    /// Connections that had `wants_read` false and may be read again.
    pub(crate) resumed: Vec<ConnId>,
    /// Connections that were closed, if `ShardConfig::lists_closes`: for the log.
    pub(crate) closed: Vec<Closed>,
}

/// The end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Closed {
    /// Which; its socket may still be open, for the last frame.
    pub(crate) conn: ConnId,
    /// The reason that its peer was told.
    pub(crate) reason: CloseReason,
    /// Who it was, if it had logged in.
    pub(crate) who: Option<Who>,
    /// What is wrong with its token, if it is that: the peer is not told.
    pub(crate) fault: Option<TokenFault>,
}

/// Who a session is, for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Who {
    /// The session's number, as `LoginOk` says it.
    pub(crate) session: u64,
    /// Whose it is.
    pub(crate) user: UserId,
    /// On which device.
    pub(crate) device: DeviceId,
}

impl Effects {
    /// Nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.submissions.is_empty()
            && self.lanes.is_empty()
            && self.asks.is_empty()
            && self.to_nodes.is_empty()
            && self.dirty.is_empty()
            && self.cuts.is_empty()
            && self.handovers.is_empty()
            && self.stalls.is_empty()
            && self.resumed.is_empty()
            && self.closed.is_empty()
    }
}
