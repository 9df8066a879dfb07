//! The listening sockets and the task that accepts from one.
//!
//! Sockets are bound on the main thread, so that errors come before anything starts, and listened on by the
//! shards. What always holds: running out of descriptors neither spins nor silences the gateway: the shell refuses
//! peers while there are still some left to do it with; where the kernel has none, or no memory, the task waits a
//! little; all of it is counted.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::time::Duration;

use glommio::GlommioError;
use glommio::net::TcpListener;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::limits::TURN_ITEMS_MAX;
use crate::net::shell::Door;

/// Connections the kernel keeps for a shard that has not accepted them yet (it caps this at
/// `net.core.somaxconn`).
const BACKLOG: i32 = 65_535;
/// The kernel closes a killed gateway's sockets a little after its process is gone, when its rings are: an address
/// in use is tried again this often, for a second and a half.
const IN_USE_TRIES: u32 = 30;
const IN_USE_PAUSE: Duration = Duration::from_millis(50);
/// How long to wait when descriptors or memory have run out.
const BACK_OFF: Duration = Duration::from_millis(10);

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
    /// The kernel refuses for another reason.
    #[error("cannot listen on {address} (--{key})")]
    Refused {
        /// The address.
        address: SocketAddr,
        /// The key that sets it.
        key: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Binds one socket per shard to `address`, all to the same port; returns them with the real address.
pub fn bind(address: SocketAddr, shards: usize) -> Result<(Vec<Socket>, SocketAddr), ListenError> {
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
pub fn named(address: SocketAddr, key: &'static str, source: io::Error) -> ListenError {
    match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { address, key },
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
pub struct Listener(TcpListener);

impl Listener {
    /// Starts to listen. Must be called inside the shard's executor.
    pub fn listen(socket: Socket) -> io::Result<Listener> {
        socket.listen(BACKLOG)?;
        // Accepted sockets inherit it.
        socket.set_tcp_nodelay(true)?;
        // SAFETY: the descriptor is open and listening, and given away here. It stays in blocking mode: glommio
        // asks without blocking itself, and its ring would not wait on a descriptor that is not.
        Ok(Listener(unsafe { TcpListener::from_raw_fd(socket.into_raw_fd()) }))
    }

    /// Accepts until it is cancelled.
    pub async fn accept(self, door: Door) {
        loop {
            for _ in 0..TURN_ITEMS_MAX {
                match self.0.accept().await {
                    Ok(stream) => door.borrow_mut().accept(&door, stream),
                    Err(error) => self.refused_by_kernel(&door, &error).await,
                }
            }
            glommio::yield_if_needed().await;
        }
    }

    async fn refused_by_kernel(&self, door: &Door, error: &GlommioError<()>) {
        let code = match error {
            GlommioError::IoError(error) => error.raw_os_error(),
            _ => None,
        };
        match code {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                door.borrow_mut().counters.descriptors_out += 1;
            }
            // The peer was faster than we: nothing is wrong.
            Some(libc::ECONNABORTED | libc::EINTR | libc::EPROTO | libc::EPERM) => return,
            _ => tracing::warn!(%error, "a connection could not be accepted"),
        }
        glommio::timer::sleep(BACK_OFF).await;
    }
}
