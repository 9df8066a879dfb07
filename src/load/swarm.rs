//! Thousands of connections on one thread: reads what is there, cuts it into frames, hands them to a closure.
//!
//! Owned by the load generator's thread. What always holds: one read buffer for all connections; a connection
//! keeps memory only for an incomplete frame or for bytes the socket did not take; a frame above the protocol's
//! limit closes its connection. It knows no session: that is [`super::crowd`].

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, Socket, Type};

use super::client::frame_len;
use crate::clock::Clock;
use crate::limits::SERVER_FRAME_BYTES_MAX;

const BUFFER_BYTES: usize = 512 * 1024;
const EVENTS_MAX: usize = 4_096;
/// Connections per loopback source address: well below the 28,232 ports Linux hands out by default.
const CONNECTIONS_PER_SOURCE: usize = 16_000;
/// A connection that is to fill up soon: the smallest receive buffer the kernel allows is about this.
const SMALL_RECEIVE_BYTES: usize = 4 * 1024;

const _: () = assert!(SERVER_FRAME_BYTES_MAX + 4 < BUFFER_BYTES, "the buffer must hold the largest frame");

/// A connection's name, chosen by who opens it, and its place in the swarm: small numbers, none left out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u32);

/// How much the kernel may keep for a connection that does not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Window {
    /// As the kernel likes.
    Usual,
    /// As little as possible, so that a reader who stops is felt by the gateway soon.
    Small,
}

/// What a connection brought.
#[derive(Debug)]
pub enum Brought<'a> {
    /// One frame, prefix included.
    Frame(&'a [u8]),
    /// The end: the gateway closed it, or the socket failed.
    End,
}

/// Connections, by [`LinkId`].
pub struct Swarm {
    poll: Poll,
    events: Events,
    links: Vec<Option<Link>>,
    buffer: Box<[u8]>,
    clock: Clock,
    opened: usize,
}

struct Link {
    stream: TcpStream,
    /// The front of a frame whose end has not come.
    partial: Vec<u8>,
    /// What the socket has not taken yet.
    unsent: Vec<u8>,
    reading: bool,
}

enum After {
    Open,
    Ended,
}

impl Swarm {
    /// No connections yet; times are `clock`'s.
    pub fn new(clock: Clock) -> io::Result<Swarm> {
        Ok(Swarm {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_MAX),
            links: Vec::new(),
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            clock,
            opened: 0,
        })
    }

    /// The clock that stamps what arrives.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Opens a connection under a name of the caller's; one that had the name before is closed.
    pub fn open(&mut self, link: LinkId, addr: SocketAddr, window: Window) -> io::Result<()> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        if window == Window::Small {
            socket.set_recv_buffer_size(SMALL_RECEIVE_BYTES)?;
        }
        if let Some(source) = source(addr, self.opened / CONNECTIONS_PER_SOURCE) {
            socket.bind(&source.into())?;
        }
        socket.connect(&addr.into())?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(socket.into());
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(link.0 as usize), interest)?;
        if self.links.len() <= link.0 as usize {
            self.links.resize_with(link.0 as usize + 1, || None);
        }
        if let Some(place) = self.links.get_mut(link.0 as usize) {
            *place = Some(Link { stream, partial: Vec::new(), unsent: Vec::new(), reading: true });
            self.opened += 1;
        }
        Ok(())
    }

    /// Closes a connection; nothing more is heard from it.
    pub fn close(&mut self, link: LinkId) {
        if let Some(place) = self.links.get_mut(link.0 as usize) {
            *place = None;
        }
    }

    /// Whether the connection is open.
    pub fn is_open(&self, link: LinkId) -> bool {
        self.links.get(link.0 as usize).is_some_and(Option::is_some)
    }

    /// Sends bytes, or keeps them until the socket takes them. On a closed connection they are lost.
    pub fn send(&mut self, link: LinkId, bytes: &[u8]) {
        let Some(Some(open)) = self.links.get_mut(link.0 as usize) else { return };
        if !open.unsent.is_empty() {
            open.unsent.extend_from_slice(bytes);
            return;
        }
        // An error shows itself again at the next read, which ends the connection.
        let taken = write_some(&mut open.stream, bytes);
        open.unsent.extend_from_slice(&bytes[taken..]);
    }

    /// Stops reading: what comes stays in the kernel, then at the gateway.
    pub fn pause(&mut self, link: LinkId) {
        if let Some(Some(open)) = self.links.get_mut(link.0 as usize) {
            open.reading = false;
        }
    }

    /// Reads again, what has waited first.
    pub fn resume(&mut self, link: LinkId, hear: &mut impl FnMut(LinkId, Brought<'_>, u64)) {
        if let Some(Some(open)) = self.links.get_mut(link.0 as usize) {
            open.reading = true;
        }
        self.read(link, hear);
    }

    /// Waits until something happens (at most `wait`; zero: not at all) and handles all of it. `hear` gets each
    /// frame with the time at which its read returned, in nanoseconds.
    pub fn turn(&mut self, wait: Duration, hear: &mut impl FnMut(LinkId, Brought<'_>, u64)) -> io::Result<()> {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let polled = self.poll.poll(&mut events, Some(wait));
        if polled.is_ok() {
            for event in &events {
                let link = LinkId(event.token().0 as u32);
                if event.is_writable() {
                    self.flush(link);
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.read(link, hear);
                }
            }
        }
        self.events = events;
        match polled {
            Err(e) if e.kind() != ErrorKind::Interrupted => Err(e),
            _ => Ok(()),
        }
    }

    fn flush(&mut self, link: LinkId) {
        let Some(Some(open)) = self.links.get_mut(link.0 as usize) else { return };
        if !open.unsent.is_empty() {
            let taken = write_some(&mut open.stream, &open.unsent);
            open.unsent.drain(..taken);
        }
    }

    fn read(&mut self, link: LinkId, hear: &mut impl FnMut(LinkId, Brought<'_>, u64)) {
        let Some(Some(open)) = self.links.get_mut(link.0 as usize) else { return };
        if !open.reading {
            return;
        }
        if let After::Ended = read_all(open, &mut self.buffer, self.clock, &mut |brought, at_ns| {
            hear(link, brought, at_ns);
        }) {
            self.close(link);
            hear(link, Brought::End, self.clock.mono_ns());
        }
    }
}

/// Reads until the socket has no more. A read that does not fill the buffer emptied the socket: epoll's edge
/// comes again with the next byte.
fn read_all(open: &mut Link, buffer: &mut [u8], clock: Clock, hear: &mut impl FnMut(Brought<'_>, u64)) -> After {
    loop {
        let kept = open.partial.len();
        buffer[..kept].copy_from_slice(&open.partial);
        let read = match open.stream.read(&mut buffer[kept..]) {
            Ok(0) => return After::Ended,
            Ok(read) => read,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return After::Open,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return After::Ended,
        };
        let at_ns = clock.mono_ns();
        let filled = kept + read;
        let mut rest = &buffer[..filled];
        while let Some(len) = frame_len(rest) {
            if len - 4 > SERVER_FRAME_BYTES_MAX {
                return After::Ended;
            }
            let Some((frame, after)) = rest.split_at_checked(len) else { break };
            hear(Brought::Frame(frame), at_ns);
            rest = after;
        }
        open.partial.clear();
        open.partial.extend_from_slice(rest);
        if filled < buffer.len() {
            return After::Open;
        }
    }
}

fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> usize {
    let mut taken = 0;
    while taken < bytes.len() {
        match stream.write(&bytes[taken..]) {
            Ok(0) => break,
            Ok(n) => taken += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    taken
}

/// On loopback every `CONNECTIONS_PER_SOURCE` connections come from an address of their own, 127.0.0.2 and up.
fn source(to: SocketAddr, block: usize) -> Option<SocketAddr> {
    let SocketAddr::V4(v4) = to else { return None };
    if !v4.ip().is_loopback() {
        return None;
    }
    let last = u8::try_from(block + 2).ok()?;
    Some(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, last), 0)))
}
