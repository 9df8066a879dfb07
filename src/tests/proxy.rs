//! A way to a server that can be cut as a network cuts it: nothing goes through any more, and nobody is told.
//!
//! Owned by the test that made it; its threads end with it. What always holds: while it is cut, connections that were
//! there stay there, new ones come to be as far as the kernel makes them, and not a byte passes on any; what was sent
//! meanwhile passes when it is not cut any more.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use crate::gateway::pause;

const OPEN: u8 = 0;
const CUT: u8 = 1;
const ENDED: u8 = 2;

/// How often a thread that waits for bytes looks whether the way is still there.
const LOOK: Duration = Duration::from_millis(20);

/// The way.
pub(crate) struct Proxy {
    addr: SocketAddr,
    state: Arc<AtomicU8>,
    accepts: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A way to this server on this machine, not cut.
    pub(crate) fn to(port: u16) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(AtomicU8::new(OPEN));
        let accepts = spawn({
            let state = Arc::clone(&state);
            move || accept(&listener, port, &state)
        });
        Proxy { addr, state, accepts: Some(accepts) }
    }

    /// The same to the server that a URL names; returns the URL of the way as well.
    pub(crate) fn to_url(url: &str) -> (Proxy, String) {
        let (before, path) = url.rsplit_once('/').expect("a URL with a path");
        let (before, port) = before.rsplit_once(':').expect("a URL with a port");
        let proxy = Proxy::to(port.parse().unwrap());
        let url = format!("{before}:{}/{path}", proxy.port());
        (proxy, url)
    }

    /// Where it begins, on this machine.
    pub(crate) fn port(&self) -> u16 {
        self.addr.port()
    }

    pub(crate) fn cut(&self) {
        self.state.store(CUT, Ordering::SeqCst);
    }

    pub(crate) fn mend(&self) {
        self.state.store(OPEN, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.store(ENDED, Ordering::SeqCst);
        self.accepts.take().unwrap().join().unwrap();
    }
}

fn accept(listener: &TcpListener, port: u16, state: &Arc<AtomicU8>) {
    let mut passing = Vec::new();
    while state.load(Ordering::SeqCst) != ENDED {
        let accepted = (state.load(Ordering::SeqCst) == OPEN).then(|| listener.accept());
        let Some(Ok((client, _))) = accepted else {
            pause(LOOK);
            continue;
        };
        // A server that is not there is told by the end of the connection.
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { continue };
        for (from, to) in [(&client, &server), (&server, &client)] {
            let (from, to, state) = (from.try_clone().unwrap(), to.try_clone().unwrap(), Arc::clone(state));
            passing.push(spawn(move || pass(from, to, &state)));
        }
    }
    passing.into_iter().for_each(|thread| thread.join().unwrap());
}

fn pass(mut from: TcpStream, mut to: TcpStream, state: &AtomicU8) {
    // Accepted from a listener that does not wait.
    from.set_nonblocking(false).unwrap();
    from.set_read_timeout(Some(LOOK)).unwrap();
    to.set_nodelay(true).unwrap();
    let mut bytes = vec![0; 64 * 1024];
    while state.load(Ordering::SeqCst) != ENDED {
        let read = match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => break,
        };
        while state.load(Ordering::SeqCst) == CUT {
            pause(LOOK);
        }
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    // The end passes as well.
    while state.load(Ordering::SeqCst) == CUT {
        pause(LOOK);
    }
    for stream in [from, to] {
        stream.shutdown(std::net::Shutdown::Both).ok();
    }
}
