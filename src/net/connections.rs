//! The table of connections: what the shell knows of each, 12 bytes in a slab that grows by chunks.
//!
//! Owned by the shell of one shard. What always holds: a connection's place in the table is its slot in the core; a
//! look-up with an old generation finds nothing; and a socket stays in the table while the ring watches it, so that its
//! descriptor means the same to both.

#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;

use crate::contract::ids::ConnId;
use crate::net::ring::Watch;
use crate::net::run_queue::Line;

/// Slots per chunk: growing copies none of the others.
const CHUNK_SLOTS: usize = 1_024;

/// One connection, as the shell sees it.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The socket.
    pub(crate) socket: OwnedFd,
    generation: u32,
    /// Where it is in its life.
    pub(crate) phase: Phase,
    /// Who writes its outbox.
    pub(crate) writer: Writer,
    /// In which queue it waits for its turns.
    pub(crate) line: Line,
    /// Bits of [`Watch`], and `QUEUED`.
    flags: u8,
}

/// It is in its run queue.
const QUEUED: u8 = 128;

/// Where a connection is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Read, write.
    Open,
    /// The last frame is out and our side is shut; what the peer still sends is thrown away, until it closes or
    /// its time is up. (Closing with bytes unread would reset the connection, and the peer might lose the last
    /// frame.)
    Lingering,
    /// To be closed, once the ring watches its socket no more.
    Cut,
}

/// Who writes an outbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Writer {
    /// The deliveries' task, with all the others.
    Flush,
    /// The socket is full: the connection's turn, when it is writable again.
    Turn,
}

impl Connection {
    /// An open one.
    pub(crate) fn new(socket: OwnedFd, conn: ConnId, line: Line) -> Self {
        let (generation, phase, writer) = (conn.generation, Phase::Open, Writer::Flush);
        Connection { socket, generation, phase, writer, line, flags: 0 }
    }

    /// Whether the ring watches the socket for it.
    pub(crate) fn is_watched(&self, watch: Watch) -> bool {
        self.flags & watch.bit() != 0
    }

    /// Whether the ring watches the socket for anything.
    pub(crate) fn is_watched_at_all(&self) -> bool {
        self.flags & !QUEUED != 0
    }

    /// The ring does from now on.
    pub(crate) fn watched(&mut self, watch: Watch) {
        self.flags |= watch.bit();
    }

    /// The ring did, and the event has come.
    pub(crate) fn watch_ended(&mut self, watch: Watch) {
        debug_assert!(self.is_watched(watch), "an event that nobody waited for");
        self.flags &= !watch.bit();
    }

    /// Takes a place in its run queue; false: it has one.
    #[must_use]
    pub(crate) fn enqueue(&mut self) -> bool {
        let queued = self.flags & QUEUED != 0;
        self.flags |= QUEUED;
        !queued
    }

    /// Is in no run queue any more.
    pub(crate) fn dequeued(&mut self) {
        self.flags &= !QUEUED;
    }
}

/// The connections of a shard, by slot.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    chunks: Vec<Box<[Option<Connection>]>>,
    count: usize,
}

impl Connections {
    /// There is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds one, in a slot that the core has just taken.
    pub(crate) fn insert(&mut self, conn: ConnId, connection: Connection) {
        let (chunk, at) = place(conn);
        while self.chunks.len() <= chunk {
            self.chunks.push((0..CHUNK_SLOTS).map(|_| None).collect());
        }
        let before = self.chunks[chunk][at].replace(connection);
        debug_assert!(before.is_none(), "the core has given a slot to two connections");
        self.count += usize::from(before.is_none());
    }

    /// The connection, if it is still there.
    pub(crate) fn get(&mut self, conn: ConnId) -> Option<&mut Connection> {
        let (chunk, at) = place(conn);
        let connection = self.chunks.get_mut(chunk)?.get_mut(at)?.as_mut()?;
        (connection.generation == conn.generation).then_some(connection)
    }

    /// Takes the connection out, if it is still there.
    pub(crate) fn remove(&mut self, conn: ConnId) -> Option<Connection> {
        self.get(conn)?;
        let (chunk, at) = place(conn);
        let connection = self.chunks[chunk][at].take();
        self.count -= usize::from(connection.is_some());
        connection
    }
}

fn place(conn: ConnId) -> (usize, usize) {
    let slot = conn.slot as usize;
    (slot / CHUNK_SLOTS, slot % CHUNK_SLOTS)
}

const _: () = assert!(size_of::<Option<Connection>>() <= 12, "one per connection: keep it small");
