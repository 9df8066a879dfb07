//! What the store's thread receives from: questions of the shards, look-ups of the ledger, and one wake-up.
//!
//! The sending ends belong to the shards and the ledger, the inbox to the store's thread (its loop is `store_loop`). What
//! always holds: a full inbox hands the question back at once, and whoever asks wakes the store once after a batch of questions.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tokio::sync::Notify;

use crate::contract::store::{Lookup, LookupAnswer, StoreAnswer, StoreAsk};
use crate::limits;
use crate::store::yielding::StoreYield;
use crate::topology::mailbox::Slot;

/// The sending end, one per shard and one for the ledger.
#[derive(Clone, Debug)]
pub(crate) struct StoreSender {
    asks: Sender<StoreAsk>,
    lookups: Sender<Lookup>,
    wake: Arc<Notify>,
    grew: Arc<Notify>,
    yields: StoreYield,
}

impl StoreSender {
    /// A shard's question; a full inbox hands it back.
    pub(crate) fn ask(&self, ask: StoreAsk) -> Result<(), StoreAsk> {
        self.asks.try_send(ask).map_err(TrySendError::into_inner)
    }

    /// The ledger's question; a full inbox hands it back.
    pub(crate) fn look_up(&self, lookup: Lookup) -> Result<(), Lookup> {
        self.lookups.try_send(lookup).map_err(TrySendError::into_inner)
    }

    /// Wakes the store: it has been asked something.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Tells the store that the journal has grown: it wakes if it had nothing to do, and looks a little later.
    pub(crate) fn grew(&self) {
        self.grew.notify_one();
    }

    /// Where to say that deliveries are in hand, so that the store yields on a CPU that it shares.
    pub(crate) fn store_yield(&self) -> &StoreYield {
        &self.yields
    }

    /// How many questions wait.
    pub(crate) fn len(&self) -> usize {
        self.asks.len()
    }
}

/// The receiving end, and where answers go.
#[derive(Debug)]
pub(crate) struct StoreInbox {
    /// From the shards.
    pub(crate) asks: Receiver<StoreAsk>,
    /// From the ledger.
    pub(crate) lookups: Receiver<Lookup>,
    /// Notified after each batch of questions, and when the store is to end.
    pub(crate) wake: Arc<Notify>,
    /// Notified when the journal has grown.
    pub(crate) grew: Arc<Notify>,
    /// What shards and ledger say of deliveries in hand.
    pub(crate) yields: StoreYield,
    /// To each shard, by its id. A full one means that the answer waits for room.
    pub(crate) answers: Vec<Slot<StoreAnswer>>,
    /// To the ledger. A full one means that the answer waits for room.
    pub(crate) found: Sender<LookupAnswer>,
}

/// Makes the store's inbox, a sending end, and the ledger's end for answers. `yields`: whether the store yields to
/// deliveries.
pub(crate) fn inbox(
    answers: Vec<Slot<StoreAnswer>>,
    yields: StoreYield,
) -> (StoreInbox, StoreSender, Receiver<LookupAnswer>) {
    let (asks, receive_asks) = bounded(limits::STORE_ASKS_MAX);
    let (lookups, receive_lookups) = bounded(limits::LOOKUPS_PENDING_MAX);
    let (found, receive_found) = bounded(limits::LOOKUPS_PENDING_MAX);
    let wake = Arc::new(Notify::new());
    let grew = Arc::new(Notify::new());
    let inbox = StoreInbox {
        asks: receive_asks,
        lookups: receive_lookups,
        wake: Arc::clone(&wake),
        grew: Arc::clone(&grew),
        yields: yields.clone(),
        answers,
        found,
    };
    (inbox, StoreSender { asks, lookups, wake, grew, yields }, receive_found)
}
