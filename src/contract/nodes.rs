//! What crosses between a shard and the thread that talks to the cluster's other nodes.
//!
//! Part of the closed set in [`super`]. What always holds: a shard's notices of its sessions leave in
//! the order of the events, and those of other nodes arrive in the order in which each node sent them.

use std::sync::Arc;

use crate::contract::access::AccessOrder;
use crate::contract::message::Message;
use ringway_wire::ids::{DeviceId, UserId};

/// A session, as nodes notify each other of it. A node has at most one of a user's device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionNews {
    /// The session's user.
    pub(crate) user: UserId,
    /// On which device.
    pub(crate) device: DeviceId,
    /// When it began, Unix milliseconds, and later than every session of this user that its node knew of then; `None`:
    /// it has ended.
    pub(crate) since_ms: Option<u64>,
}

/// A shard's notice to other nodes of one of its sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionNotice {
    /// It has just happened.
    Changed(SessionNews),
    /// It is as it was: for nodes that have missed it.
    Repeated(SessionNews),
    /// The last notice that [`FromNodes::NotifyAll`] of this number asked for.
    Through(u32),
}

/// Which nodes a message goes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Every other node.
    All,
    /// The nodes listed.
    Nodes(Vec<u16>),
}

/// From a shard, or from the thread that hears operators.
#[derive(Debug)]
pub enum ToNodes {
    /// In the order in which it happened. Refused: kept and sent later.
    Sessions(Vec<SessionNotice>),
    /// More notices were due than are kept: all sessions are due again. Refused: repeated later.
    Incomplete,
    /// What an operator has done about who may log in. Refused: told when the nodes are spoken to again.
    Access(Vec<AccessOrder>),
    /// An ephemeral message for sessions of other nodes. Refused: lost for those, as ephemeral messages may be; counted.
    Ephemeral {
        /// Who may have recipients.
        reach: Reach,
        /// The message.
        message: Arc<Message>,
    },
}

/// To a shard.
#[derive(Debug)]
pub enum FromNodes {
    /// Sessions of another node's, of users who live on the receiving shard. Refused: the nodes are asked to tell
    /// everything again.
    Sessions {
        /// Whose sessions.
        node: u16,
        /// When it was heard; see `Forget`.
        stamp: u32,
        /// In order.
        news: Vec<SessionNews>,
    },
    /// What was heard of this node under an earlier stamp has ended. Refused: as above.
    Forget {
        /// Which node.
        node: u16,
        /// The first stamp that counts.
        below: u32,
    },
    /// Send notices of all sessions, then [`SessionNotice::Through`] with this number. Refused: said again later.
    NotifyAll(u32),
    /// An ephemeral message from another node, to the shard of its group or of its recipient. Refused: lost; counted.
    Ephemeral(Arc<Message>),
}
