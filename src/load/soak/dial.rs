//! Makes connections from many source addresses, without waiting for any.
//!
//! What always holds: a port is chosen when the connection's other end is known, so that each source address has
//! the whole port range for each gateway; what the kernel refuses comes back by its name.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};

/// Source addresses tried for one connection when ports run out.
const SOURCES_TRIED: usize = 2;

/// Where to, and where from.
pub(crate) struct Dialer {
    target: SocketAddr,
    sources: Vec<IpAddr>,
    next: usize,
}

impl Dialer {
    /// `sources` in turn; with none, the kernel chooses.
    pub(crate) fn new(target: SocketAddr, sources: Vec<IpAddr>) -> Dialer {
        Dialer { target, sources, next: 0 }
    }

    /// A connection that is being made. `refused` is called with what the kernel refused, also when another source helped.
    pub(crate) fn dial(&mut self, mut refused: impl FnMut(Errno)) -> Option<TcpStream> {
        for _ in 0..SOURCES_TRIED.min(self.sources.len()).max(1) {
            let source = self.sources.get(self.next % self.sources.len().max(1)).copied();
            self.next = self.next.wrapping_add(1);
            match connect(self.target, source) {
                Ok(stream) => return Some(stream),
                Err(error) => {
                    let errno = Errno::from_i32(error.raw_os_error().unwrap_or(0));
                    refused(errno);
                    if errno != Errno::EADDRNOTAVAIL {
                        return None;
                    }
                }
            }
        }
        None
    }
}

fn connect(target: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let kind = Type::from(libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
    let socket = Socket::new(Domain::for_address(target), kind, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        choose_port_at_connect(&socket)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// Without it `bind` takes a port that no other connection of this source address may have.
fn choose_port_at_connect(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open, and the option's value is one int that lives through the call.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
