//! The bytes between a device and the gateway: late, in pieces, and as much as the sockets' buffers hold.
//!
//! Owned by the world. What always holds: each direction is a FIFO; what one side wrote before it went away may
//! or may not still reach the other. Left out: descriptors; a handed-over connection keeps its bytes.

use std::collections::VecDeque;

use ringway::contract::ids::{ConnId, ShardId};

use crate::random::Random;

/// One direction.
#[derive(Debug)]
pub(crate) struct Pipe {
    bytes: VecDeque<u8>,
    capacity: usize,
}

impl Pipe {
    /// An empty one that holds `capacity` bytes.
    pub(crate) fn new(capacity: usize) -> Self {
        Pipe { bytes: VecDeque::new(), capacity }
    }

    /// Takes as much as fits, or less, as a socket does; returns how much.
    pub(crate) fn write(&mut self, bytes: &[u8], random: &Random) -> usize {
        let room = self.capacity.saturating_sub(self.bytes.len()).min(bytes.len());
        let taken = if random.chance(1, 8) { random.below(room + 1) } else { room };
        self.bytes.extend(&bytes[..taken]);
        taken
    }

    /// Takes all of it: what a client wants to send waits in the client if not here.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// Some of what is there, in order; at most `max` bytes.
    pub(crate) fn read(&mut self, max: usize, random: &Random) -> Vec<u8> {
        let there = self.bytes.len().min(max);
        let count = match random.below(4) {
            0 if there > 0 => 1 + random.below(there),
            1 => there.min(1 + random.below(16)),
            _ => there,
        };
        self.bytes.drain(..count).collect()
    }

    /// All that is there.
    pub(crate) fn read_all(&mut self) -> Vec<u8> {
        self.bytes.drain(..).collect()
    }

    /// Nothing is on its way.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Only some front of what is on its way arrives.
    pub(crate) fn cut(&mut self, random: &Random) {
        self.bytes.truncate(random.below(self.bytes.len() + 1));
    }
}

/// Whose a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Owner {
    /// An index into the world's clients.
    Client(usize),
    /// Somebody's who keeps to nothing.
    Hostile,
}

/// Where the gateway has a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// In the backlog of this shard's listening socket.
    Backlog(ShardId),
    /// Accepted or adopted there.
    On(ShardId, ConnId),
    /// On a lane between two shards.
    Travelling,
    /// The gateway has closed it.
    Closed,
}

/// A connection between a client and the gateway.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Whose.
    pub owner: Owner,
    /// To which gateway; an index into the world's.
    pub node: usize,
    /// Where the gateway has it.
    pub place: Place,
    /// The client still has it.
    pub is_open: bool,
    /// From the client.
    pub up: Pipe,
    /// To the client.
    pub down: Pipe,
}
