//! A connection's turn: reads into the shard's buffer, and writes when the socket was full.
//!
//! Runs on its shard's thread, when the ring says that something has come or the core wants something. What always
//! holds: the core hears exactly once that a connection is gone, unless it was handed over; after a turn either the
//! ring watches the socket, or the connection is listed as ready, or nothing is to be read until the core says so.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use crate::contract::ids::ConnId;
use crate::net::budget::Budget;
use crate::net::ring::Watch;
use crate::net::seat::{Phase, Writer};
use crate::net::shell::{Shell, Wrote};

/// Times the buffer is read full before others have their turn.
const READS_PER_TURN_MAX: usize = 4;

/// How a turn ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    /// The ring or the core will make it ready.
    Wait,
    /// There is more to read, but others first.
    Again,
    /// Close it.
    End,
}

/// Lets a connection that is ready have its turn. Nothing for one that has gone.
pub fn turn(shell: &mut Shell, conn: ConnId) {
    match take_turn(shell, conn) {
        Turn::Wait => {}
        Turn::Again => shell.ready(conn),
        Turn::End => shell.leave(conn),
    }
}

fn take_turn(shell: &mut Shell, conn: ConnId) -> Turn {
    let mut emptied = false;
    for _ in 0..READS_PER_TURN_MAX {
        let Some(seat) = shell.seats.seat(conn) else { return Turn::Wait };
        let (phase, socket) = (seat.phase, seat.socket.as_raw_fd());
        match (phase, seat.writer) {
            (Phase::Cut, _) => return Turn::End,
            (Phase::Open, Writer::Turn) if !seat.is_watched(Watch::Writable) && write(shell, conn).is_err() => {
                return Turn::End;
            }
            _ => {}
        }
        if phase == Phase::Open && !shell.core.wants_read(conn) {
            return Turn::Wait;
        }
        // Nothing has come since the ring was told to watch, or it would have said so.
        if shell.seats.seat(conn).is_none_or(|seat| seat.is_watched(Watch::Readable)) {
            return Turn::Wait;
        }
        if emptied {
            shell.watch(conn, Watch::Readable);
            return Turn::Wait;
        }
        let bytes = match receive(socket, &mut shell.read_buffer) {
            Ok(0) => return Turn::End,
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                shell.watch(conn, Watch::Readable);
                return Turn::Wait;
            }
            Err(_) => return Turn::End,
        };
        emptied = bytes < shell.read_buffer.len();
        shell.counters.reads += 1;
        if phase == Phase::Open {
            take_in(shell, conn, bytes);
        }
    }
    Turn::Again
}

/// Hands what was read to the core, and passes on what comes of it.
fn take_in(shell: &mut Shell, conn: ConnId, bytes: usize) {
    let now = shell.clock.now();
    if let Some(read) = shell.read_buffer.get_mut(..bytes) {
        shell.core.receive(now, conn, read);
    }
    shell.write_replies(now, conn);
    shell.route();
    if let Some(seat) = shell.seats.seat(conn)
        && seat.budget == Budget::Accept
        && shell.core.is_registered(conn)
    {
        seat.budget = Budget::Sessions;
    }
}

/// Writes until the outbox is empty or the socket is full again; then the ring watches it.
fn write(shell: &mut Shell, conn: ConnId) -> io::Result<()> {
    let now = shell.clock.now();
    match shell.write_socket(now, conn) {
        Wrote::All => {
            if let Some(seat) = shell.seats.seat(conn) {
                seat.writer = Writer::Pump;
            }
        }
        Wrote::Full => shell.watch(conn, Watch::Writable),
        Wrote::Broken => return Err(io::ErrorKind::BrokenPipe.into()),
    }
    shell.route();
    Ok(())
}

/// Reads what is there.
fn receive(socket: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is writable for its length; the descriptor is open as long as its seat is taken.
    let received = unsafe { libc::recv(socket, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}
