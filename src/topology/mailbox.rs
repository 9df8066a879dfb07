//! What a shard receives from, and the sending ends that other threads hold.
//!
//! A mailbox is several bounded channels and one waker: what comes from the ledger, from each other shard, from
//! the store, from control and from a cluster's other nodes. What always holds: whoever sends wakes once after a batch, never per envelope,
//! and a shard that is awake costs its senders no system call. No envelope is lost here: a full channel hands
//! it back to the sender.

#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::Waker;

use atomic_waker::AtomicWaker;
use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};

use crate::auth::AuthKeys;
use crate::contract::access::AccessOrder;
use crate::contract::delivery::Delivery;
use crate::contract::ids::ShardId;
use crate::contract::lane::{HandedOver, LaneEnvelope};
use crate::contract::look::LookAsked;
use crate::contract::memory::Pressure;
use crate::contract::nodes::FromNodes;
use crate::contract::policies::Rules;
use crate::contract::report::Depths;
use crate::contract::store::StoreAnswer;
use crate::limits;

/// Orders from control that may wait for one shard.
const ORDERS_MAX: usize = 64;
/// Envelopes in all lanes to one shard, whatever the number of shards: a slot is about 140 bytes.
const LANES_ENVELOPES_MAX: usize = 8 * limits::LANE_ENVELOPES_MAX;
/// Envelopes in a lane from the API to a shard, or back.
const API_LANE_ENVELOPES_MAX: usize = 1_024;
/// Envelopes a lane has room for at the least.
const LANE_ENVELOPES_MIN: usize = 1_024;

/// What crosses a lane.
#[derive(Debug)]
pub(crate) enum Crossing {
    /// Between the cores.
    Envelope(LaneEnvelope),
    /// A connection moves to its user's shard. Refused: it is closed, and the client connects again.
    Connection(Box<Handover>),
    /// From the API to a shard. Refused: its caller is told to come again.
    Look(Box<LookAsked>),
}

/// A connection on its way.
#[derive(Debug)]
pub(crate) struct Handover {
    /// The socket.
    pub(crate) descriptor: OwnedFd,
    /// Its session.
    pub(crate) session: HandedOver,
}

/// What control tells a shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// Stop accepting, tell the clients, end when the last connection is gone.
    Drain,
    /// Stop accepting, and tell the clients one after another to go to another node; then comes [`Order::Drain`].
    Disperse,
    /// An operator says who may log in.
    Access(AccessOrder),
    /// What clients may do from now on, and, if they have changed, the keys that tokens are good with.
    Rules(Box<Rules>, Option<Box<AuthKeys>>),
    /// So short of memory is the process.
    Memory(Pressure),
}

/// The receiving side, on its shard.
#[derive(Debug)]
pub(crate) struct Mailbox {
    deliveries: Receiver<Vec<Delivery>>,
    lanes: Vec<Receiver<Crossing>>,
    answers: Receiver<StoreAnswer>,
    orders: Receiver<Order>,
    nodes: Receiver<FromNodes>,
    waker: Arc<AtomicWaker>,
}

/// A sending end of one kind, with the waker of the thread that receives.
#[derive(Debug)]
pub struct Slot<T> {
    sender: Sender<T>,
    waker: Arc<AtomicWaker>,
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Slot { sender: self.sender.clone(), waker: Arc::clone(&self.waker) }
    }
}

impl<T> Slot<T> {
    /// Puts it in without waking anybody; a full or abandoned mailbox hands it back.
    pub(crate) fn put(&self, envelope: T) -> Result<(), T> {
        self.sender.try_send(envelope).map_err(TrySendError::into_inner)
    }

    /// The same, but what nobody will ever receive is dropped: only a full mailbox hands it back.
    pub(crate) fn put_if_received(&self, envelope: T) -> Result<(), T> {
        match self.sender.try_send(envelope) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
            Err(TrySendError::Full(envelope)) => Err(envelope),
        }
    }

    /// Puts it in, waiting for room. For threads that may block; hands it back if nobody receives any more.
    pub(crate) fn put_waiting(&self, envelope: T) -> Result<(), T> {
        self.sender.send(envelope).map_err(|refused| refused.0)
    }

    /// Whether nothing waits in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.sender.is_empty()
    }

    /// Wakes the receiver. A system call if it sleeps, an atomic read if not.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }
}

/// The sending ends of one shard's mailbox.
#[derive(Debug)]
pub(crate) struct Slots {
    /// For the ledger: one `Vec` per commit.
    pub(crate) deliveries: Slot<Vec<Delivery>>,
    /// For each other shard, by its id, and the API behind the last; the shard's own is `None`.
    pub(crate) lanes: Vec<Option<Slot<Crossing>>>,
    /// For the store.
    pub(crate) answers: Slot<StoreAnswer>,
    /// For control.
    pub(crate) orders: Slot<Order>,
    /// For the thread that talks to other nodes.
    pub(crate) nodes: Slot<FromNodes>,
}

/// Makes the mailbox of shard `id` of `shards`, or the API's, if `id` is [`ShardId::of_api`].
pub(crate) fn mailbox(id: ShardId, shards: u16) -> (Mailbox, Slots) {
    assert!(id.0 <= shards, "{id:?} is neither one of {shards} shards nor the API");
    let waker = Arc::new(AtomicWaker::new());
    let (deliveries, receive_deliveries) = slot(limits::COMMITS_IN_FLIGHT_MAX, &waker);
    let (answers, receive_answers) = slot(limits::STORE_ANSWERS_MAX, &waker);
    let (orders, receive_orders) = slot(ORDERS_MAX, &waker);
    let (nodes, receive_nodes) = slot(limits::FROM_NODES_MAX, &waker);
    let mut lanes = Vec::new();
    let mut receive_lanes = Vec::new();
    let api = ShardId::of_api(shards);
    for from in (0..=shards).map(ShardId) {
        if from == id {
            lanes.push(None);
            continue;
        }
        let envelopes_max = if from == api || id == api { API_LANE_ENVELOPES_MAX } else { lane_envelopes_max(shards) };
        let (lane, receive) = slot(envelopes_max, &waker);
        lanes.push(Some(lane));
        receive_lanes.push(receive);
    }
    let mailbox = Mailbox {
        deliveries: receive_deliveries,
        lanes: receive_lanes,
        answers: receive_answers,
        orders: receive_orders,
        nodes: receive_nodes,
        waker,
    };
    (mailbox, Slots { deliveries, lanes, answers, orders, nodes })
}

/// With many shards each lane holds less, so that all of them stay affordable.
fn lane_envelopes_max(shards: u16) -> usize {
    (LANES_ENVELOPES_MAX / usize::from(shards.max(1))).clamp(LANE_ENVELOPES_MIN, limits::LANE_ENVELOPES_MAX)
}

fn slot<T>(capacity: usize, waker: &Arc<AtomicWaker>) -> (Slot<T>, Receiver<T>) {
    let (sender, receiver) = bounded(capacity);
    (Slot { sender, waker: Arc::clone(waker) }, receiver)
}

/// One thing out of the mailbox.
#[derive(Debug)]
pub(crate) enum Mail {
    /// From the ledger: one commit.
    Deliveries(Vec<Delivery>),
    /// From another shard.
    Crossing(Crossing),
    /// From the store.
    Answer(StoreAnswer),
    /// From control.
    Order(Order),
    /// From the cluster's other nodes.
    Nodes(FromNodes),
}

impl Mailbox {
    /// The next thing, round robin over the kinds: `turn` is the caller's counter.
    pub(crate) fn next(&self, turn: &mut usize) -> Option<Mail> {
        let kinds = 4 + self.lanes.len();
        for _ in 0..kinds {
            let kind = *turn % kinds;
            *turn = turn.wrapping_add(1);
            let mail = match kind {
                0 => received(self.deliveries.try_recv()).map(Mail::Deliveries),
                1 => received(self.answers.try_recv()).map(Mail::Answer),
                2 => received(self.orders.try_recv()).map(Mail::Order),
                3 => received(self.nodes.try_recv()).map(Mail::Nodes),
                lane => self.lanes.get(lane - 4).and_then(|lane| received(lane.try_recv())).map(Mail::Crossing),
            };
            if mail.is_some() {
                return mail;
            }
        }
        None
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
            && self.answers.is_empty()
            && self.orders.is_empty()
            && self.nodes.is_empty()
            && self.lanes.iter().all(Receiver::is_empty)
    }

    /// Asks to be woken by the next batch. Look once more afterwards: what came just before wakes nobody.
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// How many wait, by kind, for metrics.
    pub(crate) fn depths(&self) -> Depths {
        Depths {
            commits: self.deliveries.len() as u64,
            lanes: self.lanes.iter().map(|lane| lane.len() as u64).sum(),
            answers: self.answers.len() as u64,
        }
    }
}

/// A channel whose senders are gone is one from which nothing comes: threads end in order at a drain.
fn received<T>(result: Result<T, TryRecvError>) -> Option<T> {
    result.ok()
}
