//! The listening sockets, and how one is accepted from.
//!
//! Sockets are bound on the main thread, so that errors come before anything starts, and listened on by the
//! shards. What always holds: running out of descriptors neither spins nor silences the gateway: the loop refuses
//! peers while there are still some left to do it with; where the kernel has none, or no memory, nobody is let in for a
//! little while; all of it is counted.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::clock::Now;
use crate::contract::ids::PeerAddress;
use crate::limits::UNSENT_BYTES_MAX;
use crate::net::ring::SocketRing;
use crate::net::taken;

/// Connections the kernel keeps for a shard that has not accepted them yet (it caps this at
/// `net.core.somaxconn`).
const BACKLOG: i32 = 65_535;
/// The kernel closes a killed gateway's sockets a little after its process is gone, when its rings are: an address
/// in use is tried again this often, for a second and a half.
const IN_USE_TRIES: u32 = 30;
const IN_USE_PAUSE: Duration = Duration::from_millis(50);
/// How long to wait when descriptors or memory have run out.
const BACK_OFF_MS: u64 = 10;

/// Why nobody can listen there.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else does.
    #[error("{address} is in use: stop what listens there, or set --{key}")]
    InUse {
        /// The address.
        address: SocketAddr,
        /// The key that sets it.
        key: &'static str,
    },
    /// Nobody listens there, and the kernel has given the port to somebody who connects to somewhere else.
    #[error(
        "{address} is taken by an outgoing connection of this host, to {peer}: the kernel gave it the port from \
         net.ipv4.ip_local_port_range. Wait until that ends, or set --{key}; to keep the port free: \
         sysctl -w net.ipv4.ip_local_reserved_ports={}", .address.port()
    )]
    Outgoing {
        /// The address.
        address: SocketAddr,
        /// The key that sets it.
        key: &'static str,
        /// The connection's other end.
        peer: SocketAddr,
    },
    /// The kernel refuses for another reason.
    #[error("cannot listen on {address} (--{key})")]
    Refused {
        /// The address.
        address: SocketAddr,
        /// The key that sets it.
        key: &'static str,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

/// Binds one socket per shard to `address`, all to the same port; returns them with the real address.
pub(crate) fn bind(address: SocketAddr, shards: usize) -> Result<(Vec<Socket>, SocketAddr), ListenError> {
    let failed = |source: io::Error| named(address, "listen", source);
    // With SO_REUSEPORT a second gateway could share the port unnoticed, so ask once without.
    let mut tries = 0;
    while let Err(error) = socket(address, Sharing::Alone) {
        if error.kind() != io::ErrorKind::AddrInUse || tries == IN_USE_TRIES {
            return Err(failed(error));
        }
        tries += 1;
        // There is nothing to receive: it waits.
        crossbeam_channel::after(IN_USE_PAUSE).recv().ok();
    }
    let first = socket(address, Sharing::Shards).map_err(failed)?;
    let real = first.local_addr().map_err(failed)?.as_socket().unwrap_or(address);
    let mut sockets = vec![first];
    for _ in 1..shards {
        sockets.push(socket(real, Sharing::Shards).map_err(failed)?);
    }
    Ok((sockets, real))
}

/// The error for an address that cannot be listened on.
pub(crate) fn named(address: SocketAddr, key: &'static str, source: io::Error) -> ListenError {
    match source.kind() {
        io::ErrorKind::AddrInUse => match taken::by_outgoing(address) {
            Some(peer) => ListenError::Outgoing { address, key, peer },
            None => ListenError::InUse { address, key },
        },
        _ => ListenError::Refused { address, key, source },
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Alone,
    Shards,
}

fn socket(address: SocketAddr, sharing: Sharing) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if sharing == Sharing::Shards {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

/// What a shard accepts from.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Nobody waits, and the ring watches it.
    Watched,
    /// Somebody may wait.
    Waiting,
    /// Nobody can be let in before this time.
    BackOff { until_ms: u64 },
}

/// What came of accepting.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// A connection, and whom it comes from.
    Socket(OwnedFd, PeerAddress),
    /// Nobody waits: have the ring watch it.
    Nobody,
    /// The ring watches it, or it is not time yet.
    NotNow,
    /// No descriptor or no memory is left; it is not time for a while.
    OutOfDescriptors,
}

impl Listener {
    /// Starts to listen.
    pub(crate) fn listen(socket: Socket) -> io::Result<Listener> {
        socket.listen(BACKLOG)?;
        // Accepted sockets inherit it.
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
        socket.set_nonblocking(true)?;
        Ok(Listener { socket, state: State::Waiting })
    }

    /// Somebody may wait.
    pub(crate) fn notify(&mut self) {
        self.state = State::Waiting;
    }

    /// Whether somebody may wait.
    pub(crate) fn is_waiting(&self) -> bool {
        self.state == State::Waiting
    }

    /// Whether it was put off, and it is time again.
    pub(crate) fn is_due(&self, now: Now) -> bool {
        matches!(self.state, State::BackOff { until_ms } if until_ms <= now.mono_ms)
    }

    /// Nobody waits: has the ring watch it.
    pub(crate) fn watch(&self, ring: &mut SocketRing) {
        ring.watch_listener(self.socket.as_raw_fd());
    }

    /// Accepts one that waits.
    pub(crate) fn accept(&mut self, now: Now) -> Accepted {
        if self.state != State::Waiting {
            return Accepted::NotNow;
        }
        loop {
            let error = match acceptfrom_with(&self.socket, SocketFlags::CLOEXEC) {
                Ok((socket, peer)) => {
                    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                    let from = peer.map_or_else(PeerAddress::default, |peer| PeerAddress::of(peer.ip()));
                    return Accepted::Socket(socket, from);
                }
                Err(error) => error,
            };
            match error {
                Errno::AGAIN => {
                    self.state = State::Watched;
                    return Accepted::Nobody;
                }
                // The peer was faster than we: nothing is wrong.
                Errno::CONNABORTED | Errno::INTR | Errno::PROTO | Errno::PERM => continue,
                Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => {}
                _ => tracing::warn!(%error, "a connection could not be accepted"),
            }
            self.state = State::BackOff { until_ms: now.mono_ms + BACK_OFF_MS };
            return Accepted::OutOfDescriptors;
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The ring may watch it, and would keep it open; an error means that nobody can connect anyway.
        drop(self.socket.shutdown(Shutdown::Both));
    }
}
