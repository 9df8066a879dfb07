//! What the shell knows of each connection, 32 bytes in a slab that grows by chunks.
//!
//! Owned by the shell of one shard. What always holds: a seat's index is its connection's slot in the core, and a
//! look-up with an old generation finds nothing.

#[cfg(test)]
mod tests;

use std::os::fd::RawFd;
use std::task::Waker;

use crate::ids::ConnId;
use crate::net::budget::Budget;

/// Seats per chunk: growing copies none of the others.
const CHUNK_SEATS: usize = 1_024;

/// One connection, as the shell sees it.
#[derive(Debug)]
pub struct Seat {
    /// Wakes the connection's task; `None` before its first turn.
    pub waker: Option<Waker>,
    /// The socket, owned by the task's stream.
    pub descriptor: RawFd,
    generation: u32,
    /// Where it is in its life.
    pub phase: Phase,
    /// Who writes its outbox.
    pub writer: Writer,
    /// On whose time its task runs.
    pub budget: Budget,
}

/// Where a connection is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Read, write.
    Open,
    /// The last frame is out and our side is shut; what the peer still sends is thrown away, until it closes or
    /// its time is up. (Closing with bytes unread would reset the connection, and the peer might lose the last
    /// frame.)
    Lingering,
    /// To be closed by its task at once.
    Cut,
}

/// Who writes an outbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writer {
    /// The pump, with all the others.
    Pump,
    /// The socket is full: the connection's task, when it is writable again.
    Task,
}

impl Seat {
    /// A seat for an open connection.
    pub fn new(descriptor: RawFd, conn: ConnId, budget: Budget) -> Self {
        let (generation, phase, writer) = (conn.generation, Phase::Open, Writer::Pump);
        Seat { waker: None, descriptor, generation, phase, writer, budget }
    }

    /// Lets the connection's task run.
    pub fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
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

    /// Takes the seat of a connection. The one that was left there, if its task has not ended yet, loses it.
    pub fn take(&mut self, conn: ConnId, seat: Seat) {
        let (chunk, at) = place(conn);
        while self.chunks.len() <= chunk {
            self.chunks.push((0..CHUNK_SEATS).map(|_| None).collect());
        }
        if let Some(place) = self.chunks.get_mut(chunk).and_then(|chunk| chunk.get_mut(at))
            && place.replace(seat).is_none()
        {
            self.taken += 1;
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

const _: () = assert!(size_of::<Option<Seat>>() <= 32, "one per connection: keep it small");
