//! Who may be refused, and who may not go on: what each account has sent, against what one account may send.
//!
//! Part of the model; it knows what was put on the wire and what was answered, and the limit that the plan has set or the
//! protocol's page tells clients. What always holds: nobody gets more messages taken than he may send; and in a world in
//! which no queue is ever full, nobody who has not sent more than he may at once is refused for now, nor closed because
//! the gateway is full, whatever others send.

use std::collections::BTreeMap;

use ringway::contract::traffic::TrafficLimits;
use ringway::rate::Rate;
use ringway_wire::ids::UserId;
use ringway_wire::schema::ErrorCode;

use crate::model::{Checked, violated};

/// Messages that all sessions of a user may send to one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Allowance {
    pub at_once: u32,
    pub per_s: u32,
}

impl Allowance {
    /// Where nobody has configured otherwise.
    pub(crate) const USUAL: Allowance = Allowance { at_once: 20_000, per_s: 1_000 };

    /// A gateway's limits with this one.
    pub(crate) fn limits(self) -> TrafficLimits {
        TrafficLimits::default().with_user_sends(Rate::new(self.per_s, self.at_once))
    }
}

/// Whether refusals are judged.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Room {
    /// There may be other reasons than the sender's own.
    #[default]
    Scarce,
    /// For everybody.
    Enough,
}

/// What each account has sent since the gateway's process began, which remembers nothing of what was before.
#[derive(Debug)]
pub(crate) struct Fairness {
    room: Room,
    /// Of one node.
    allowance: Allowance,
    /// Processes that have begun, each of which knows nothing of the others.
    processes: u64,
    began_ms: u64,
    /// Messages that were put on a wire, so that no more can have been counted.
    asked: BTreeMap<UserId, u64>,
    /// Messages that were taken, so that no fewer can have been counted.
    taken: BTreeMap<UserId, u64>,
    /// Refusals of those who had sent all that they may at once.
    pub refused_count: u64,
}

impl Default for Fairness {
    /// Of a world without a gateway.
    fn default() -> Self {
        Fairness::begin(Room::Scarce, Allowance::USUAL, 0)
    }
}

impl Fairness {
    /// A process begins, and what was before does not count.
    pub(crate) fn begin(room: Room, allowance: Allowance, now_ms: u64) -> Fairness {
        let (asked, taken) = (BTreeMap::new(), BTreeMap::new());
        Fairness { room, allowance, processes: 1, began_ms: now_ms, asked, taken, refused_count: 0 }
    }

    /// One more process begins, beside others or after them.
    pub(crate) fn another(&mut self) {
        self.processes += 1;
    }

    /// A message was put on a wire.
    pub(crate) fn asked(&mut self, user: UserId) {
        *self.asked.entry(user).or_default() += 1;
    }

    /// One was taken, or had been before, and that was answered.
    pub(crate) fn taken(&mut self, user: UserId, now_ms: u64) -> Checked {
        let taken = self.taken.entry(user).or_default();
        *taken += 1;
        let (Allowance { at_once, per_s }, ms) = (self.allowance, now_ms - self.began_ms);
        // Of rounding, one.
        let most = self.processes * (u64::from(at_once) + u64::from(per_s) * ms / 1_000 + 1);
        if *taken > most {
            return violated!(
                "I5: {user} gets {taken} messages taken in {ms} ms, and may send {at_once} and {per_s}/s"
            );
        }
        Ok(())
    }

    /// One was refused.
    pub(crate) fn refused(&mut self, user: UserId, code: ErrorCode) -> Checked {
        let asked = self.asked.get(&user).copied().unwrap_or_default();
        let is_for_now = matches!(code, ErrorCode::RetryLater | ErrorCode::StorageFull);
        let at_once = u64::from(self.allowance.at_once);
        if self.room == Room::Enough && is_for_now && asked <= at_once {
            return violated!("I5: {user} has sent {asked} messages of {at_once}, and is told {code:?}");
        }
        self.refused_count += u64::from(is_for_now && asked > at_once);
        Ok(())
    }

    /// Somebody's connection was closed since a limit of the gateway was reached.
    pub(crate) fn overloaded(&self, user: UserId) -> Checked {
        match self.room {
            Room::Enough => violated!("I5: {user} was closed as if the gateway were full"),
            Room::Scarce => Ok(()),
        }
    }
}
