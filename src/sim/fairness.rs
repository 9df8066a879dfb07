//! Who may be refused: what each account has sent, against what one account may send.
//!
//! Part of the model; it knows what was put on the wire and what was answered, and the limit that the protocol's page tells
//! clients. What always holds in a world in which no queue is ever full: nobody who has not sent more than he may at once is
//! refused for now, nor closed because the gateway is full, whatever others send.

use std::collections::BTreeMap;

use ringway_wire::ids::UserId;
use ringway_wire::schema::ErrorCode;

use crate::model::{Checked, violated};

/// Messages that all sessions of a user may send at once, where nobody has configured otherwise.
const SENDS_AT_ONCE: u64 = 20_000;

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
#[derive(Default, Debug)]
pub(crate) struct Fairness {
    room: Room,
    /// Messages that were put on a wire, so that no more can have been counted.
    asked: BTreeMap<UserId, u64>,
}

impl Fairness {
    /// A process begins.
    pub(crate) fn begin(room: Room) -> Fairness {
        Fairness { room, asked: BTreeMap::new() }
    }

    /// A message was put on a wire.
    pub(crate) fn asked(&mut self, user: UserId) {
        *self.asked.entry(user).or_default() += 1;
    }

    /// One was refused.
    pub(crate) fn refused(&self, user: UserId, code: ErrorCode) -> Checked {
        let asked = self.asked.get(&user).copied().unwrap_or_default();
        let is_for_now = matches!(code, ErrorCode::RetryLater | ErrorCode::StorageFull);
        if self.room == Room::Enough && is_for_now && asked <= SENDS_AT_ONCE {
            return violated!("I5: {user} has sent {asked} messages of {SENDS_AT_ONCE}, and is told {code:?}");
        }
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
