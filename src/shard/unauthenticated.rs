//! Connections that have not logged in yet: how many, of which address, the oldest first.
//!
//! Part of the shard's core. Their places are their own: none of them takes a session's, and where their number or
//! that of one address is at its limit, the oldest of them goes for the next. So whoever logs in at once is let in,
//! however many others say nothing. What always holds: exactly the connections in `Phase::Fresh` are listed, in the order
//! in which they came; where each stands is kept in fields of its own slot that a session uses later, so that they cost
//! nothing beside it but an entry per address.

use std::collections::HashMap;

use super::Shard;
use super::session::{NIL, Phase, Session};
use super::slab::Slab;
use super::wheel::tick_of;
use crate::clock::Now;
use crate::contract::ids::PeerAddress;
use crate::contract::internal::{OrCount, Place};
use crate::contract::keyed::TableKey;
use crate::limits::UNAUTHENTICATED_SPARED_MS;
use ringway_wire::ids::{DeviceId, Seq};
use ringway_wire::schema::CloseReason;

/// Of those who make room when descriptors are short, one in so many goes at once: their sockets are closed only when
/// their last frames are out.
const MAKING_ROOM_DIVISOR: usize = 8;

/// Where a connection stands.
#[derive(Clone, Copy, Debug)]
struct Standing {
    /// The one that came before it, and the one that came after it.
    all: Neighbours,
    /// The same among those of its address.
    of_address: Neighbours,
    address: PeerAddress,
}

/// `NIL` at the ends.
#[derive(Clone, Copy, Debug)]
struct Neighbours {
    older: u32,
    newer: u32,
}

impl Neighbours {
    fn packed(self) -> u64 {
        u64::from(self.older) << 32 | u64::from(self.newer)
    }

    fn unpacked(packed: u64) -> Self {
        Neighbours { older: (packed >> 32) as u32, newer: packed as u32 }
    }
}

/// The ends of a list, and how many are in it.
#[derive(Clone, Copy, Debug)]
struct Line {
    oldest: u32,
    newest: u32,
    count: u32,
}

impl Default for Line {
    fn default() -> Self {
        Line { oldest: NIL, newest: NIL, count: 0 }
    }
}

/// Those who have not logged in.
#[derive(Debug)]
pub(super) struct Unauthenticated {
    all: Line,
    by_address: HashMap<PeerAddress, Line, TableKey>,
}

impl Session {
    fn standing(&self) -> Standing {
        Standing {
            all: Neighbours::unpacked(self.cursor.0),
            of_address: Neighbours::unpacked(self.newest.0),
            address: PeerAddress(self.device.0),
        }
    }

    fn stand(&mut self, standing: Standing) {
        self.cursor = Seq(standing.all.packed());
        self.newest = Seq(standing.of_address.packed());
        self.device = DeviceId(standing.address.0);
    }
}

impl Shard {
    /// Where a connection that has not logged in comes from.
    pub(super) fn address_of(&self, slot: u32) -> Option<PeerAddress> {
        let session = self.sessions.at(slot).filter(|session| session.phase == Phase::Fresh)?;
        Some(session.standing().address)
    }
}

/// Which of the two lists.
#[derive(Clone, Copy)]
enum Among {
    All,
    OfAddress,
}

impl Among {
    fn of(self, standing: &mut Standing) -> &mut Neighbours {
        match self {
            Among::All => &mut standing.all,
            Among::OfAddress => &mut standing.of_address,
        }
    }
}

impl Line {
    fn append(&mut self, slot: u32, among: Among, sessions: &mut Slab<Session>) {
        let before = std::mem::replace(&mut self.newest, slot);
        self.count += 1;
        if before == NIL {
            self.oldest = slot;
        } else {
            change(before, among, sessions, |neighbours| neighbours.newer = slot);
        }
        change(slot, among, sessions, |neighbours| *neighbours = Neighbours { older: before, newer: NIL });
    }

    fn remove(&mut self, neighbours: Neighbours, among: Among, sessions: &mut Slab<Session>) {
        let Neighbours { older, newer } = neighbours;
        self.count = self.count.checked_sub(1).or_count(Place::Sessions).unwrap_or_default();
        match older {
            NIL => self.oldest = newer,
            _ => change(older, among, sessions, |neighbours| neighbours.newer = newer),
        }
        match newer {
            NIL => self.newest = older,
            _ => change(newer, among, sessions, |neighbours| neighbours.older = older),
        }
    }
}

fn change(slot: u32, among: Among, sessions: &mut Slab<Session>, to: impl FnOnce(&mut Neighbours)) {
    let Some(session) = sessions.at_mut(slot).or_count(Place::Sessions) else { return };
    let mut standing = session.standing();
    to(among.of(&mut standing));
    session.stand(standing);
}

impl Unauthenticated {
    pub(super) fn new(key: TableKey) -> Self {
        Unauthenticated { all: Line::default(), by_address: HashMap::with_hasher(key) }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.all.count as usize
    }

    fn of(&self, address: PeerAddress) -> Line {
        self.by_address.get(&address).copied().unwrap_or_default()
    }

    /// The newest comes.
    pub(super) fn append(&mut self, slot: u32, address: PeerAddress, sessions: &mut Slab<Session>) {
        let nobody = Neighbours { older: NIL, newer: NIL };
        sessions.reached(slot).stand(Standing { all: nobody, of_address: nobody, address });
        self.all.append(slot, Among::All, sessions);
        self.by_address.entry(address).or_default().append(slot, Among::OfAddress, sessions);
    }

    /// One logs in, or goes.
    pub(super) fn remove(&mut self, slot: u32, sessions: &mut Slab<Session>) {
        let Some(session) = sessions.at_mut(slot).or_count(Place::Sessions) else { return };
        let standing = session.standing();
        (session.cursor, session.newest, session.device) = (Seq(0), Seq(0), DeviceId(0));
        self.all.remove(standing.all, Among::All, sessions);
        let Some(line) = self.by_address.get_mut(&standing.address).or_count(Place::Sessions) else { return };
        line.remove(standing.of_address, Among::OfAddress, sessions);
        if line.count == 0 {
            self.by_address.remove(&standing.address);
        }
    }
}

impl Shard {
    /// One more comes from this address: where that is one too many, the oldest goes. An error: there is nobody left to
    /// go, because all that are no sessions are being closed.
    pub(super) fn make_room_for_newcomer(&mut self, now: Now, from: PeerAddress) -> Result<(), CloseReason> {
        let of_address = self.unauthenticated.of(from);
        if of_address.count as usize >= self.config.unauthenticated_per_address_max.max(1) {
            self.counts.shed.connections_per_address += 1;
            self.close(now, of_address.oldest, CloseReason::Overloaded);
        } else if self.unauthenticated.count() >= self.config.unauthenticated_max.max(1) {
            self.counts.shed.connections_unauthenticated += 1;
            self.close(now, self.unauthenticated.all.oldest, CloseReason::Overloaded);
        }
        if self.closing_count() >= self.config.connections_max.max(self.config.unauthenticated_max) {
            self.counts.shed.connections_unauthenticated += 1;
            return Err(CloseReason::Overloaded);
        }
        Ok(())
    }

    /// Connections that are being closed.
    fn closing_count(&self) -> usize {
        self.sessions.taken().saturating_sub(self.directory.sessions_count + self.unauthenticated.count())
    }

    /// Descriptors are short: some of those go who have not logged in for a while, if there are any and nobody goes
    /// already. Their sockets are closed a little later. Returns how many go.
    pub(crate) fn make_room_for_descriptors(&mut self, now: Now) -> usize {
        if self.closing_count() > 0 {
            return self.closing_count();
        }
        let spared = tick_of(now.mono_ms.saturating_sub(UNAUTHENTICATED_SPARED_MS));
        for _ in 0..self.unauthenticated.count().div_ceil(MAKING_ROOM_DIVISOR) {
            let oldest = self.unauthenticated.all.oldest;
            let Some(session) = self.sessions.at(oldest).or_count(Place::Sessions) else { break };
            if session.received_tick >= spared {
                break;
            }
            self.counts.shed.connections_unauthenticated += 1;
            self.close(now, oldest, CloseReason::Overloaded);
        }
        self.closing_count()
    }
}
