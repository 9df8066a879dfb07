//! Many connections on one thread: reads what is there, cuts it into frames, hands them to a closure.
//!
//! Owned by the load generator's thread. What always holds: one read buffer for all connections; a connection
//! takes 16 bytes here, and more only for an incomplete frame or for bytes the socket did not take; a frame above
//! the protocol's limit closes its connection. It knows no session: that is [`super::crowd`], or
//! [`super::soak::clients`] for half a million of them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::errno::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::clock::Clock;
use ringway_wire::deframer::Deframer;
use ringway_wire::limits::SERVER_FRAME_BYTES_MAX;

const BUFFER_BYTES: usize = 512 * 1024;
const EVENTS_MAX: usize = 4_096;
/// Connections per loopback source address: well below the 28,232 ports Linux hands out by default.
const CONNECTIONS_PER_SOURCE: usize = 16_000;
/// A connection that is to fill up soon: the smallest receive buffer the kernel allows is about this.
const SMALL_RECEIVE_BYTES: usize = 4 * 1024;

/// A connection's name, chosen by who opens it, and its place in the swarm: small numbers, none left out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct LinkId(pub u32);

/// How much the kernel may keep for a connection that does not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Window {
    /// As the kernel likes.
    Usual,
    /// As little as possible, so that a reader who stops is felt by the gateway soon.
    Small,
}

/// What a connection brought.
#[derive(Debug)]
pub(crate) enum Brought<'a> {
    /// One frame, prefix included.
    Frame(&'a [u8]),
    /// The end: the gateway closed it, or (with the error) the socket failed.
    End(Option<Errno>),
}

/// Connections, by [`LinkId`].
pub(crate) struct Swarm {
    poll: Poll,
    events: Events,
    links: Vec<Option<Link>>,
    buffer: Box<[u8]>,
    clock: Clock,
    opened: usize,
    polled_ns: u64,
}

struct Link {
    stream: TcpStream,
    reading: bool,
    /// Few connections have something waiting at any moment.
    waiting: Option<Box<Waiting>>,
}

const _: () = assert!(size_of::<Option<Link>>() <= 16, "there may be a million of them");

#[derive(Default)]
struct Waiting {
    /// Has the front of a frame whose end has not come.
    deframer: Deframer,
    /// What the socket has not taken yet.
    unsent: Vec<u8>,
    /// What a write failed with; the read that follows reports it.
    failed: Option<Errno>,
}

enum After {
    Open,
    Ended(Option<Errno>),
}

impl Swarm {
    /// No connections yet; times are `clock`'s.
    pub(crate) fn new(clock: Clock) -> io::Result<Swarm> {
        Ok(Swarm {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_MAX),
            links: Vec::new(),
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            clock,
            opened: 0,
            polled_ns: 0,
        })
    }

    /// The clock that stamps what arrives.
    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// Opens a connection under a name of the caller's; one that had the name before is closed.
    pub(crate) fn open(&mut self, link: LinkId, addr: SocketAddr, window: Window) -> io::Result<()> {
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
        self.adopt(link, socket.into())?;
        self.opened += 1;
        Ok(())
    }

    /// Takes a socket that does not block, connected or connecting; what is sent before it is connected waits.
    pub(crate) fn adopt(&mut self, link: LinkId, stream: TcpStream) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut SourceFd(&stream.as_raw_fd()), Token(link.0 as usize), interest)?;
        if self.links.len() <= link.0 as usize {
            self.links.resize_with(link.0 as usize + 1, || None);
        }
        if let Some(place) = self.links.get_mut(link.0 as usize) {
            *place = Some(Link { stream, reading: true, waiting: None });
        }
        Ok(())
    }

    /// Makes room for so many connections at once.
    pub(crate) fn reserve(&mut self, links: usize) {
        self.links.reserve_exact(links.saturating_sub(self.links.len()));
    }

    /// Closes a connection; nothing more comes from it.
    pub(crate) fn close(&mut self, link: LinkId) {
        if let Some(place) = self.links.get_mut(link.0 as usize) {
            *place = None;
        }
    }

    /// Closes a connection as if the client's host had gone: no goodbye, and no port left waiting.
    pub(crate) fn reset(&mut self, link: LinkId) {
        if let Some(Some(open)) = self.links.get(link.0 as usize) {
            // Refused: then it is an ordinary close.
            SockRef::from(&open.stream).set_linger(Some(Duration::ZERO)).ok();
        }
        self.close(link);
    }

    /// When the last turn's wait was over, in the clock's nanoseconds.
    pub(crate) fn polled_ns(&self) -> u64 {
        self.polled_ns
    }

    /// Whether the connection is open, and not paused.
    pub(crate) fn is_reading(&self, link: LinkId) -> bool {
        self.links.get(link.0 as usize).is_some_and(|open| open.as_ref().is_some_and(|open| open.reading))
    }

    /// Sends bytes, or keeps them until the socket takes them. On a closed connection they are lost.
    pub(crate) fn send(&mut self, link: LinkId, bytes: &[u8]) {
        let Some(Some(open)) = self.links.get_mut(link.0 as usize) else { return };
        if let Some(waiting) = open.waiting.as_mut().filter(|w| !w.unsent.is_empty()) {
            waiting.unsent.extend_from_slice(bytes);
            return;
        }
        let (taken, failed) = open.write_some(bytes);
        if taken < bytes.len() {
            let waiting = open.waiting.get_or_insert_default();
            waiting.unsent.extend_from_slice(&bytes[taken..]);
            waiting.failed = failed;
        }
    }

    /// Stops reading: what comes stays in the kernel, then at the gateway.
    pub(crate) fn pause(&mut self, link: LinkId) {
        if let Some(Some(open)) = self.links.get_mut(link.0 as usize) {
            open.reading = false;
        }
    }

    /// Reads again, what has waited first.
    pub(crate) fn resume(&mut self, link: LinkId, take: &mut impl FnMut(LinkId, Brought<'_>, u64)) {
        if let Some(Some(open)) = self.links.get_mut(link.0 as usize) {
            open.reading = true;
        }
        self.read(link, take);
    }

    /// Waits until something happens (at most `wait`; zero: not at all) and handles all of it. `take` gets each
    /// frame with the time at which its read returned, in nanoseconds.
    pub(crate) fn turn(&mut self, wait: Duration, take: &mut impl FnMut(LinkId, Brought<'_>, u64)) -> io::Result<()> {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let polled = self.poll.poll(&mut events, Some(wait));
        self.polled_ns = self.clock.mono_ns();
        if polled.is_ok() {
            for event in &events {
                let link = LinkId(event.token().0 as u32);
                if event.is_writable() {
                    self.flush(link);
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.read(link, take);
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
        let Some(mut waiting) = open.waiting.take() else { return };
        // What it failed with first says why; a second try would only say that it has.
        if !waiting.unsent.is_empty() && waiting.failed.is_none() {
            let (taken, failed) = open.write_some(&waiting.unsent);
            waiting.unsent.drain(..taken);
            waiting.failed = failed;
        }
        open.waiting = waiting.or_nothing();
    }

    fn read(&mut self, link: LinkId, take: &mut impl FnMut(LinkId, Brought<'_>, u64)) {
        let Some(Some(open)) = self.links.get_mut(link.0 as usize) else { return };
        if !open.reading {
            return;
        }
        if let After::Ended(errno) = read_all(open, &mut self.buffer, self.clock, &mut |brought, at_ns| {
            take(link, brought, at_ns);
        }) {
            self.close(link);
            take(link, Brought::End(errno), self.clock.mono_ns());
        }
    }
}

impl Waiting {
    fn or_nothing(self: Box<Waiting>) -> Option<Box<Waiting>> {
        (self.deframer.held_bytes() > 0 || !self.unsent.is_empty() || self.failed.is_some()).then_some(self)
    }
}

impl Link {
    /// Keeps the front of a frame for the next read.
    fn keep(&mut self, deframer: Deframer) {
        if deframer.held_bytes() == 0 && self.waiting.is_none() {
            return;
        }
        let mut waiting = self.waiting.take().unwrap_or_default();
        waiting.deframer = deframer;
        self.waiting = waiting.or_nothing();
    }

    /// How much the socket took, and what it failed with.
    fn write_some(&mut self, bytes: &[u8]) -> (usize, Option<Errno>) {
        let mut taken = 0;
        while taken < bytes.len() {
            match self.stream.write(&bytes[taken..]) {
                Ok(0) => break,
                Ok(n) => taken += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return (taken, e.raw_os_error().map(Errno::from_i32)),
            }
        }
        (taken, None)
    }
}

/// Reads until the socket has no more. A read that does not fill the buffer emptied the socket: epoll's edge
/// comes again with the next byte.
fn read_all(open: &mut Link, buffer: &mut [u8], clock: Clock, take: &mut impl FnMut(Brought<'_>, u64)) -> After {
    loop {
        let read = match open.stream.read(buffer) {
            Ok(0) => return After::Ended(open.waiting.as_ref().and_then(|waiting| waiting.failed)),
            Ok(read) => read,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return After::Open,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return After::Ended(e.raw_os_error().map(Errno::from_i32)),
        };
        let at_ns = clock.mono_ns();
        let mut input = buffer.get(..read).unwrap_or_default();
        let mut deframer =
            open.waiting.as_mut().map(|waiting| std::mem::take(&mut waiting.deframer)).unwrap_or_default();
        loop {
            match deframer.next(&mut input, SERVER_FRAME_BYTES_MAX) {
                Ok(Some(frame)) => take(Brought::Frame(frame), at_ns),
                Ok(None) => break,
                Err(_) => return After::Ended(None),
            }
        }
        open.keep(deframer);
        if read < buffer.len() {
            return After::Open;
        }
    }
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
