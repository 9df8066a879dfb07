//! A connection's turn: reads into the shard's buffer, and writes when the socket was full.
//!
//! Runs on its shard's thread, when the ring says that something has come or the core wants something. What always
//! holds: the core is told exactly once that a connection is gone, unless it was handed over; after a turn either the
//! ring watches the socket, or the connection is in its run queue, or nothing is to be read until the core says so.

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::clock::Now;
use crate::contract::ids::ConnId;
use crate::net::connections::{Phase, Writer};
use crate::net::outlets::ShardOutlets;
use crate::net::outlets::write::{Wrote, write_replies, write_socket};
use crate::net::ring::Watch;
use crate::net::run_queue::Line;
use crate::shard::Shard;

/// Times the buffer is read full before others have their turn, if that takes no longer than `TURN_NS`.
const READS_PER_TURN_MAX: usize = 16;
/// After so long others have theirs: a buffer may hold hundreds of short requests.
const TURN_NS: u64 = 250_000;

/// How a turn ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TurnEnd {
    /// The ring or the core will bring about the next.
    Wait,
    /// There is more to read, but others first.
    Again,
    /// Close it.
    Close,
}

/// Lets a connection have its turn.
pub(crate) fn turn(core: &mut Shard, outlets: &mut ShardOutlets, now: Now, conn: ConnId) -> TurnEnd {
    let mut emptied = false;
    let until_ns = outlets.clock.mono_ns() + TURN_NS;
    for read in 0..READS_PER_TURN_MAX {
        let Some(connection) = outlets.connections.get(conn) else { return TurnEnd::Wait };
        let phase = connection.phase;
        if phase == Phase::Cut {
            return if connection.is_watched_at_all() { TurnEnd::Wait } else { TurnEnd::Close };
        }
        let is_writable = connection.writer == Writer::Turn && !connection.is_watched(Watch::Writable);
        if phase == Phase::Open && is_writable && write(core, outlets, now, conn) == Wrote::Broken {
            return TurnEnd::Close;
        }
        if phase == Phase::Open && !core.wants_read(conn) {
            return TurnEnd::Wait;
        }
        let Some(connection) = outlets.connections.get(conn) else { return TurnEnd::Wait };
        // Nothing has come since the ring was told to watch, or it would have said so.
        if connection.is_watched(Watch::Readable) {
            return TurnEnd::Wait;
        }
        if emptied {
            outlets.watch(conn, Watch::Readable);
            return TurnEnd::Wait;
        }
        if read > 0 && outlets.clock.mono_ns() >= until_ns {
            return TurnEnd::Again;
        }
        let bytes = match recv(&connection.socket, &mut outlets.read_buffer[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => return TurnEnd::Close,
            Ok((bytes, _)) => bytes,
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => {
                outlets.watch(conn, Watch::Readable);
                return TurnEnd::Wait;
            }
            Err(_) => return TurnEnd::Close,
        };
        emptied = bytes < outlets.read_buffer.len();
        outlets.counters.reads += 1;
        if phase == Phase::Open {
            take_in(core, outlets, now, conn, bytes);
        }
    }
    TurnEnd::Again
}

/// Hands what was read to the core, and writes what it answers at once.
fn take_in(core: &mut Shard, outlets: &mut ShardOutlets, now: Now, conn: ConnId, bytes: usize) {
    core.receive(now, conn, &mut outlets.read_buffer[..bytes]);
    write_replies(core, outlets, now, conn);
    if let Some(connection) = outlets.connections.get(conn)
        && connection.line == Line::Login
        && core.is_registered(conn)
    {
        connection.line = Line::Session;
    }
}

/// Writes until the outbox is empty or the socket is full again; then the ring watches it.
fn write(core: &mut Shard, outlets: &mut ShardOutlets, now: Now, conn: ConnId) -> Wrote {
    let wrote = write_socket(core, outlets, now, conn);
    match wrote {
        Wrote::All => {
            if let Some(connection) = outlets.connections.get(conn) {
                connection.writer = Writer::Flush;
            }
        }
        Wrote::Full => outlets.watch(conn, Watch::Writable),
        Wrote::Broken => {}
    }
    wrote
}
