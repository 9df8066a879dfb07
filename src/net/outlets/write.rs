//! Outboxes into sockets, each with as few system calls as it takes.
//!
//! On the shard's thread, called with the core in hand. What always holds: nothing here waits for a socket: what one
//! does not take is left to its connection's turn, when the ring says that it takes more.

use std::collections::VecDeque;
use std::io::IoSlice;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, Shutdown, send, sendmsg, shutdown};

use crate::clock::Now;
use crate::contract::ids::ConnId;
use crate::net::connections::{Phase, Writer};
use crate::net::outlets::ShardOutlets;
use crate::net::ring::Watch;
use crate::shard::{AfterWrite, Shard};

/// Slices of an outbox written with one system call: 64 chunks, or 32 bodies and what lies between.
const WRITE_SLICES_MAX: usize = 64;
/// How long a closed connection's peer may take to close its side.
pub(crate) const LINGER_MS: u64 = 1_000;
/// Neither waits nor has the process signalled.
pub(crate) const SEND_FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// How far a write went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wrote {
    /// Nothing waits any more.
    All,
    /// The socket takes no more now.
    Full,
    /// The socket takes nothing ever again.
    Broken,
}

/// Closed connections whose peers may still close first, by the time that ends.
pub(crate) type Lingering = VecDeque<(u64, ConnId)>;

/// Writes at once what a connection that was just read has been answered. If that waited for the deliveries' task, a
/// heartbeat of everybody at once would be an outbox each.
pub(crate) fn write_replies(core: &mut Shard, outlets: &mut ShardOutlets, now: Now, conn: ConnId) {
    let dirty = &mut core.effects().dirty;
    if dirty.last() == Some(&conn) {
        dirty.pop();
        write(core, outlets, now, conn);
    }
}

/// Writes a dirty outbox, unless that is left to the connection's turn, as what the socket does not take is.
pub(crate) fn write(core: &mut Shard, outlets: &mut ShardOutlets, now: Now, conn: ConnId) {
    match outlets.connections.get(conn) {
        Some(connection) if connection.phase == Phase::Open && connection.writer == Writer::Flush => {}
        _ => return,
    }
    match write_socket(core, outlets, now, conn) {
        Wrote::All => {}
        Wrote::Full => {
            outlets.counters.sockets_full += 1;
            outlets.left_to_turn(conn);
        }
        // Reset by the peer, most likely: reading would say so too.
        Wrote::Broken => outlets.end(conn),
    }
}

/// Writes a connection's outbox as far as its socket takes it.
pub(crate) fn write_socket(core: &mut Shard, outlets: &mut ShardOutlets, now: Now, conn: ConnId) -> Wrote {
    let Some(connection) = outlets.connections.get(conn) else { return Wrote::Broken };
    loop {
        let Some(outbox) = core.outbox(conn) else { return Wrote::All };
        let mut slices = [IoSlice::new(&[]); WRITE_SLICES_MAX];
        let filled = outbox.slices(&mut slices);
        let slices = &slices[..filled];
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        let written = match slices {
            [one] => send(&connection.socket, one, SEND_FLAGS),
            _ => sendmsg(&connection.socket, slices, &mut SendAncillaryBuffer::default(), SEND_FLAGS),
        };
        outlets.counters.sends += 1;
        let taken = written.unwrap_or(0);
        match (core.written(now, conn, taken), written) {
            (AfterWrite::Drained, Ok(_)) => return Wrote::All,
            (AfterWrite::CloseNow, Ok(_)) => {
                outlets.linger(now, conn);
                return Wrote::All;
            }
            (AfterWrite::More, Ok(_)) if taken == offered => {}
            (AfterWrite::More, Ok(_)) | (_, Err(Errno::AGAIN)) => return Wrote::Full,
            (_, Err(Errno::INTR)) => {}
            (_, Err(_)) => return Wrote::Broken,
        }
    }
}

impl ShardOutlets {
    /// The socket is full: the connection's turn goes on with its outbox, when there is room again.
    fn left_to_turn(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.get(conn) {
            connection.writer = Writer::Turn;
            self.watch(conn, Watch::Writable);
        }
    }

    /// The last frame is out: shuts our side, and gives the peer some time to close its own.
    fn linger(&mut self, now: Now, conn: ConnId) {
        if let Some(connection) = self.connections.get(conn) {
            // That the peer has closed already is all that can go wrong.
            shutdown(&connection.socket, Shutdown::Write).ok();
            connection.phase = Phase::Lingering;
            self.enqueue(conn);
            let linger_ms = if self.are_descriptors_short(now) { 0 } else { LINGER_MS };
            self.lingering.push_back((now.mono_ms + linger_ms, conn));
        }
    }
}
