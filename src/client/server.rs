//! Frames as a gateway makes them, for this crate's tests.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use ringway_wire::deframer::Deframer;
use ringway_wire::frame::{Encoder, PushFrame, read_client};
use ringway_wire::limits::CLIENT_FRAME_BYTES_MAX;
use ringway_wire::request::{Request, Taken};

use crate::{ClientMsgId, CloseReason, Conversation, ErrorCode, MsgId, Now, Seq, UserId};

/// The gateway's clock when ours shows 0: a year ahead of nothing.
pub(crate) const SERVER_MS: u64 = 1_700_000_000_000;

pub(crate) fn at(mono_ms: u64) -> Now {
    Now { mono_ms, unix_ms: mono_ms }
}

pub(crate) fn login_ok(from: u64, heartbeat_ms: u32) -> Vec<u8> {
    Encoder::new().login_ok(1, 7, UserId(1), SERVER_MS, heartbeat_ms, Seq(from), Seq(from)).to_vec()
}

pub(crate) fn push(seq: u64) -> Vec<u8> {
    let push = PushFrame::encode(MsgId(100 + seq), UserId(7), Conversation::User(UserId(1)), 5, b"hello");
    let mut bytes = push.bytes().to_vec();
    bytes[push.seq_at()..push.seq_at() + 8].copy_from_slice(&seq.to_le_bytes());
    bytes
}

pub(crate) fn send_ok(request: u32, seq: u64) -> Vec<u8> {
    Encoder::new().send_ok(request, MsgId(900 + seq), Seq(seq), 5, Taken::Now).to_vec()
}

pub(crate) fn gap(from: u64, to: u64) -> Vec<u8> {
    Encoder::new().gap(Seq(from), Seq(to)).to_vec()
}

pub(crate) fn error(request: u32, code: ErrorCode, retry_after_ms: u32) -> Vec<u8> {
    Encoder::new().error(request, code, "no", retry_after_ms, SERVER_MS).to_vec()
}

pub(crate) fn closing(reason: CloseReason, reconnect_after_ms: Option<u32>) -> Vec<u8> {
    Encoder::new().closing(0, reason, "bye", reconnect_after_ms, SERVER_MS).to_vec()
}

pub(crate) fn pong(request: u32, server_time_ms: u64) -> Vec<u8> {
    Encoder::new().pong(request, server_time_ms).to_vec()
}

/// What a scripted gateway was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    Login { token: String, last_seq: Option<Seq> },
    Send { id: u32, name: ClientMsgId },
    Ack(Seq),
    Other(u32),
}

/// The gateway's end of one connection, played by a test's thread.
pub(crate) struct Peer {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Peer {
    pub(crate) fn accept(listener: &TcpListener) -> Peer {
        Peer { stream: listener.accept().unwrap().0, bytes: Vec::new() }
    }

    /// Accepts a connection and answers its login.
    pub(crate) fn logged_in(listener: &TcpListener, from: u64) -> (Peer, Asked) {
        let mut peer = Peer::accept(listener);
        let login = peer.asked();
        peer.say(&login_ok(from, 60_000));
        (peer, login)
    }

    pub(crate) fn say(&mut self, frame: &[u8]) {
        self.stream.write_all(frame).unwrap();
    }

    /// The next request, but for pings.
    pub(crate) fn asked(&mut self) -> Asked {
        let mut buffer = [0; 4_096];
        loop {
            let mut rest = self.bytes.as_slice();
            let mut deframer = Deframer::default();
            let asked = deframer.next(&mut rest, CLIENT_FRAME_BYTES_MAX).unwrap().map(|frame| {
                match read_client(frame).unwrap() {
                    (_, Request::Login(login)) => {
                        Asked::Login { token: login.token.to_owned(), last_seq: login.cursor }
                    }
                    (id, Request::Send { client_msg_id, .. }) => Asked::Send { id, name: client_msg_id },
                    (_, Request::Ack { seq }) => Asked::Ack(seq),
                    (id, _) => Asked::Other(id),
                }
            });
            if let Some(asked) = asked {
                self.bytes = rest.to_vec();
                return asked;
            }
            match self.stream.read(&mut buffer).unwrap() {
                0 => panic!("the client has gone"),
                bytes => self.bytes.extend_from_slice(&buffer[..bytes]),
            }
        }
    }
}
