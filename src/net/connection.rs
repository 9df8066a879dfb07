//! One task per connection: reads into the shard's buffer, and writes when the socket was full.
//!
//! Runs on its shard's thread. The future is written by hand: it holds the stream once, the door and the id, and
//! nothing else, since every connection pays for it. What always holds: the door is open within one turn only;
//! the core hears exactly once that a connection is gone, unless it was handed over.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_lite::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;

use crate::ids::ConnId;
use crate::net::budget::Budget;
use crate::net::seat::{Phase, Writer};
use crate::net::shell::{Door, Shell, Wrote};

/// Times the buffer is read full before others run.
const READS_PER_TURN_MAX: usize = 4;

/// A connection's task.
pub struct Connection {
    /// `None`: it has gone on to another task.
    stream: Option<TcpStream>,
    shell: Door,
    conn: ConnId,
}

impl Connection {
    /// The task of a connection that has its seat.
    pub fn new(stream: TcpStream, shell: &Door, conn: ConnId) -> Self {
        Connection { stream: Some(stream), shell: Rc::clone(shell), conn }
    }
}

impl Future for Connection {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let mut shell = this.shell.borrow_mut();
        let Some(seat) = shell.seats.seat(this.conn) else { return Poll::Ready(()) };
        if seat.waker.is_none() {
            seat.waker = Some(cx.waker().clone());
        }
        let Some(stream) = &mut this.stream else { return Poll::Ready(()) };
        match turn(&mut shell, cx, stream, this.conn) {
            Turn::Wait => Poll::Pending,
            Turn::Again => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Turn::LoggedIn => {
                if let Some(stream) = this.stream.take() {
                    shell.move_to_sessions(&this.shell, stream, this.conn);
                }
                Poll::Ready(())
            }
            Turn::End => {
                shell.leave(this.conn);
                Poll::Ready(())
            }
        }
    }
}

/// How a turn ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    /// The socket or the shell will wake the task.
    Wait,
    /// There is more to read, but others first.
    Again,
    /// It has logged in: a task among the sessions goes on with it.
    LoggedIn,
    /// Close it.
    End,
}

fn turn(shell: &mut Shell, cx: &mut Context<'_>, stream: &mut TcpStream, conn: ConnId) -> Turn {
    for _ in 0..READS_PER_TURN_MAX {
        let Some(seat) = shell.seats.seat(conn) else { return Turn::End };
        let (phase, budget) = (seat.phase, seat.budget);
        match (phase, seat.writer) {
            (Phase::Cut, _) => return Turn::End,
            (Phase::Open, Writer::Task) if write(shell, cx, stream, conn).is_err() => return Turn::End,
            _ => {}
        }
        if phase == Phase::Open && !shell.core.wants_read(conn) {
            return Turn::Wait;
        }
        let bytes = match Pin::new(&mut *stream).poll_read(cx, &mut shell.read_buffer) {
            Poll::Pending => return Turn::Wait,
            Poll::Ready(Ok(0)) => return Turn::End,
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => continue,
            Poll::Ready(Err(_)) => return Turn::End,
            Poll::Ready(Ok(bytes)) => bytes,
        };
        shell.counters.reads += 1;
        if phase == Phase::Open {
            let now = shell.clock.now();
            if let Some(read) = shell.read_buffer.get_mut(..bytes) {
                shell.core.receive(now, conn, read);
            }
            shell.write_replies(now, conn);
            shell.route();
            if budget == Budget::Accept && shell.core.is_registered(conn) {
                return Turn::LoggedIn;
            }
        }
    }
    Turn::Again
}

/// Writes until the outbox is empty or the socket is full again; then the ring wakes the task when it is not.
fn write(shell: &mut Shell, cx: &mut Context<'_>, stream: &mut TcpStream, conn: ConnId) -> io::Result<()> {
    let now = shell.clock.now();
    loop {
        match shell.write_socket(now, conn) {
            Wrote::All => break,
            Wrote::Broken => return Err(io::ErrorKind::BrokenPipe.into()),
            Wrote::Full => {}
        }
        // The stream tries once more itself, and if the socket is still full has the ring watch it.
        let mut slice = [IoSlice::new(&[])];
        let Some(outbox) = shell.core.outbox(conn) else { break };
        outbox.slices(&mut slice);
        match Pin::new(&mut *stream).poll_write(cx, &slice[0]) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Ok(bytes)) => shell.wrote(now, conn, bytes),
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Poll::Ready(Err(error)) => return Err(error),
        }
    }
    if let Some(seat) = shell.seats.seat(conn) {
        seat.writer = Writer::Pump;
    }
    shell.route();
    Ok(())
}

const _: () = assert!(size_of::<Connection>() <= 176, "every connection pays for it");
