//! A socket on which a test sends bytes and looks at whole frames: for what the client core does not show.
//!
//! Owned by the test that made it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use ringway_wire::deframer::Deframer;
use ringway_wire::frame::read_server;
use ringway_wire::limits::SERVER_FRAME_BYTES_MAX;
use ringway_wire::request::Reply;

use crate::gateway::PATIENCE;

/// The socket, and what came and was not looked at.
pub(crate) struct Frames {
    pub stream: TcpStream,
    deframer: Deframer,
    unread: Vec<u8>,
}

impl Frames {
    pub(crate) fn connect(addr: SocketAddr) -> Frames {
        Frames::over(TcpStream::connect_timeout(&addr, PATIENCE).unwrap())
    }

    pub(crate) fn over(stream: TcpStream) -> Frames {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Frames { stream, deframer: Deframer::default(), unread: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Reads so many bytes at most, and looks at nothing yet.
    pub(crate) fn read_some(&mut self, bytes_max: usize) {
        let mut buffer = vec![0; bytes_max];
        let bytes = self.stream.read(&mut buffer).unwrap();
        assert!(bytes > 0, "the gateway has closed the connection");
        self.unread.extend_from_slice(&buffer[..bytes]);
    }

    /// Waits for the next frame and shows it: the request id that it answers, and what it says.
    pub(crate) fn next<T>(&mut self, look: impl FnOnce(u32, Reply<'_>) -> T) -> T {
        loop {
            let mut input = self.unread.as_slice();
            let before = input.len();
            let frame = self.deframer.next(&mut input, SERVER_FRAME_BYTES_MAX).unwrap().map(<[u8]>::to_vec);
            let taken = before - input.len();
            self.unread.drain(..taken);
            if let Some(frame) = frame {
                let (id, reply) = read_server(&frame).unwrap();
                return look(id, reply);
            }
            let mut buffer = [0; 16 * 1024];
            let bytes = self.stream.read(&mut buffer).unwrap();
            assert!(bytes > 0, "the gateway has closed the connection");
            self.unread.extend_from_slice(&buffer[..bytes]);
        }
    }
}
