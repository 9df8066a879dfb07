//! What the next commit hands out, in order, and what is counted of it.
//!
//! Owned by an engine; both have one. What always holds: nothing in here has been seen by anybody; and a refusal is counted
//! where it is made, whoever made it.

use crate::contract::delivery::Delivery;
use crate::contract::digest::digest;
use crate::contract::ids::Origin;
use crate::contract::message::Incoming;
use crate::contract::report::LedgerCounters;
use crate::contract::traffic::Limited;
use crate::ledger::dedup::Known;
use crate::ledger::groups::NotPlanned;
use crate::ledger::pending_delivery::PendingDelivery;
use crate::limits::{LEDGER_RETRY_MS, STORAGE_FULL_RETRY_MS};
use ringway_wire::ids::{GroupId, RosterVersion};
use ringway_wire::schema::ErrorCode;

/// Why something is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// For good.
    Code(ErrorCode),
    /// There is no room for it now.
    StorageFull,
    /// It may be taken in a moment.
    RetryLater,
    /// Its sender, or its group, may not have more now.
    Limited(Limited),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    deliveries: Vec<PendingDelivery>,
    /// What was counted since the start.
    pub(crate) counters: LedgerCounters,
}

impl Answers {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.deliveries.len()
    }

    /// One more.
    pub(crate) fn push(&mut self, delivery: PendingDelivery) {
        self.deliveries.push(delivery);
    }

    /// One more, as it is.
    pub(crate) fn stage(&mut self, delivery: Delivery) {
        self.push(PendingDelivery::Delivery(delivery));
    }

    /// Refuses what this session asked for. Nobody is told nothing.
    pub(crate) fn refuse(&mut self, origin: Origin, refusal: Refusal) {
        if origin == Origin::NOBODY {
            return;
        }
        let (code, retry_after_ms) = match refusal {
            Refusal::Code(code) => (code, 0),
            Refusal::StorageFull => (ErrorCode::StorageFull, STORAGE_FULL_RETRY_MS),
            Refusal::RetryLater => (ErrorCode::RetryLater, LEDGER_RETRY_MS),
            Refusal::Limited(Limited { limit, retry_after_ms }) => {
                self.counters.limited.count(limit);
                (ErrorCode::RetryLater, retry_after_ms)
            }
        };
        self.counters.storage_full += u64::from(code == ErrorCode::StorageFull);
        self.counters.retry_later += u64::from(code == ErrorCode::RetryLater);
        self.stage(Delivery::Refused { origin, code, retry_after_ms });
    }

    /// Refuses a change that this session asked for, and says because of whom.
    pub(crate) fn not_planned(&mut self, origin: Origin, NotPlanned { code, users }: NotPlanned) {
        match code {
            ErrorCode::StorageFull => self.refuse(origin, Refusal::StorageFull),
            _ if users.is_empty() => self.refuse(origin, Refusal::Code(code)),
            _ if origin == Origin::NOBODY => {}
            _ => self.stage(Delivery::NotAdded { origin, code, users }),
        }
    }

    /// Answers what was sent before. If that is in this commit, the answer waits for it like all the others.
    pub(crate) fn repeat(&mut self, incoming: &Incoming, known: Known) {
        let origin = incoming.origin;
        if digest(incoming.to, incoming.body()) != known.digest {
            return self.refuse(origin, Refusal::Code(ErrorCode::ClientMsgIdReused));
        }
        self.counters.repeats += 1;
        let Known { msg_id, seq, .. } = known;
        self.stage(Delivery::Repeat { origin, msg_id, seq, sent_at_ms: msg_id.sent_at_ms() });
    }

    /// The group is as this session asked for it. Nobody is told nothing.
    pub(crate) fn unchanged(&mut self, origin: Origin, group: GroupId, version: RosterVersion) {
        if origin != Origin::NOBODY {
            self.stage(Delivery::Unchanged { origin, group, version });
        }
    }

    /// All of them; room for as many is kept.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = PendingDelivery> + '_ {
        self.deliveries.drain(..)
    }

    /// All of them, to be looked at before they are handed out.
    pub(crate) fn take(&mut self) -> Vec<PendingDelivery> {
        std::mem::take(&mut self.deliveries)
    }
}
