//! What the shell knows of each connection, 12 bytes in a slab that grows by chunks.
//!
//! Owned by the shell of one shard. What always holds: a seat's index is its connection's slot in the core, and a
//! look-up with an old generation finds nothing.

#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;

use crate::contract::ids::ConnId;
use crate::net::budget::Budget;
use crate::net::ring::Watch;

/// Seats per chunk: growing copies none of the others.
const CHUNK_SEATS: usize = 1_024;

/// One connection, as the shell sees it.
#[derive(Debug)]
pub struct Seat {
    /// The socket.
    pub socket: OwnedFd,
    generation: u32,
    /// Where it is in its life.
    pub phase: Phase,
    /// Who writes its outbox.
    pub writer: Writer,
    /// On whose time it has its turns.
    pub budget: Budget,
    /// Bits of [`Watch`], and `READY`.
    flags: u8,
}

/// It is listed as ready.
const READY: u8 = 128;

/// Where a connection is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Read, write.
    Open,
    /// The last frame is out and our side is shut; what the peer still sends is thrown away, until it closes or
    /// its time is up. (Closing with bytes unread would reset the connection, and the peer might lose the last
    /// frame.)
    Lingering,
    /// To be closed at its next turn.
    Cut,
}

/// Who writes an outbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writer {
    /// The pump, with all the others.
    Pump,
    /// The socket is full: the connection's turn, when it is writable again.
    Turn,
}

impl Seat {
    /// A seat for an open connection.
    pub fn new(socket: OwnedFd, conn: ConnId, budget: Budget) -> Self {
        let (generation, phase, writer) = (conn.generation, Phase::Open, Writer::Pump);
        Seat { socket, generation, phase, writer, budget, flags: 0 }
    }

    /// Whether the ring watches the socket for it.
    pub fn is_watched(&self, watch: Watch) -> bool {
        self.flags & watch.bit() != 0
    }

    /// The ring does from now on.
    pub fn watched(&mut self, watch: Watch) {
        self.flags |= watch.bit();
    }

    /// The ring did, and the event has come.
    pub fn watch_ended(&mut self, watch: Watch) {
        self.flags &= !watch.bit();
    }

    /// What the ring watches it for.
    pub fn watches(&self) -> u8 {
        self.flags & !READY
    }

    /// Is to be listed as ready; false: it is already.
    pub fn enlist(&mut self) -> bool {
        let listed = self.flags & READY != 0;
        self.flags |= READY;
        !listed
    }

    /// Is not listed any more.
    pub fn delist(&mut self) {
        self.flags &= !READY;
    }
}

/// The seats of a shard.
#[derive(Debug, Default)]
pub struct Seats {
    chunks: Vec<Box<[Option<Seat>]>>,
    taken: usize,
}

impl Seats {
    /// How many are taken.
    pub fn len(&self) -> usize {
        self.taken
    }

    /// None is taken.
    pub fn is_empty(&self) -> bool {
        self.taken == 0
    }

    /// Takes the seat of a connection, which nobody has.
    pub fn take(&mut self, conn: ConnId, seat: Seat) {
        let (chunk, at) = place(conn);
        while self.chunks.len() <= chunk {
            self.chunks.push((0..CHUNK_SEATS).map(|_| None).collect());
        }
        if let Some(place) = self.chunks.get_mut(chunk).and_then(|chunk| chunk.get_mut(at)) {
            let before = place.replace(seat);
            debug_assert!(before.is_none(), "a slot is freed before it is used again");
            self.taken += usize::from(before.is_none());
        }
    }

    /// The connection's seat, if it still has it.
    pub fn seat(&mut self, conn: ConnId) -> Option<&mut Seat> {
        let (chunk, at) = place(conn);
        let seat = self.chunks.get_mut(chunk)?.get_mut(at)?.as_mut()?;
        (seat.generation == conn.generation).then_some(seat)
    }

    /// Frees the connection's seat, if it still has it.
    pub fn leave(&mut self, conn: ConnId) -> Option<Seat> {
        self.seat(conn)?;
        let (chunk, at) = place(conn);
        let seat = self.chunks.get_mut(chunk)?.get_mut(at)?.take();
        self.taken -= usize::from(seat.is_some());
        seat
    }
}

fn place(conn: ConnId) -> (usize, usize) {
    let slot = conn.slot as usize;
    (slot / CHUNK_SEATS, slot % CHUNK_SEATS)
}

const _: () = assert!(size_of::<Option<Seat>>() <= 12, "one per connection: keep it small");
