//! What crosses between a shard and the thread that talks to the cluster's other nodes.
//!
//! Part of the closed set in [`super`]. What always holds: a shard tells what happened to its sessions in the order in
//! which it happened, and is told of other nodes' in the order in which those told it.

use std::sync::Arc;

use crate::contract::message::Message;
use ringway_wire::ids::{DeviceId, UserId};

/// A session, as nodes tell each other of it. A node has at most one of a user's device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionNews {
    /// The session's user.
    pub user: UserId,
    /// On which device.
    pub device: DeviceId,
    /// When it began, Unix milliseconds, and later than every session of this user that its node knew of then; `None`:
    /// it has ended.
    pub since_ms: Option<u64>,
}

/// What a shard tells of its sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Telling {
    /// It has just happened.
    News(SessionNews),
    /// It is as it was: for nodes that have missed it.
    Again(SessionNews),
    /// With this, all of [`FromNodes::TellAll`] of this number is told.
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

/// From a shard.
#[derive(Debug)]
pub enum ToNodes {
    /// In the order in which it happened. Refused: kept and told later.
    Sessions(Vec<Telling>),
    /// More has happened than is kept: everything has to be told again. Refused: said again later.
    Incomplete,
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
    /// Tell all sessions, then [`Telling::Through`] with this number. Refused: said again later.
    TellAll(u32),
    /// An ephemeral message from another node, to the shard of its group or of its recipient. Refused: lost; counted.
    Ephemeral(Arc<Message>),
}
