//! WebSocket (RFC 6455) on the gateway's side: the upgrade's HTTP head, then messages.
//!
//! Sans-I/O; each WebSocket connection has one [`Messages`] inside its shard. What always holds: memory is held only
//! for what has arrived of an incomplete message, and never more than twice the frame limit; a client's bytes
//! are unmasked where they lie and copied only if a message is not whole in one read. Left out: subprotocols,
//! extensions (compression), and text messages.

mod upgrade;

use thiserror::Error;

use super::generated::ringway::wire::CloseReason;
use crate::limits::{CLIENT_FRAME_BYTES_MAX, PREFIX_BYTES};

pub use upgrade::{Upgrade, unavailable, upgrade};

/// Payload of a control frame, by RFC 6455.
const CONTROL_BYTES_MAX: usize = 125;
const NORMAL_CLOSURE: u16 = 1000;
const PROTOCOL_ERROR: u16 = 1002;
/// A client's longest header: two bytes, eight of length, four of mask.
const HEADER_BYTES_MAX: usize = 14;

const _: () = assert!(CLIENT_FRAME_BYTES_MAX < 1 << 16, "no frame's prefix may look like a TLS hello or HTTP");

/// Does the connection begin with HTTP? `first` must have four bytes or more to tell (fewer: false), and no frame
/// begins so: read as a prefix, a method is far above the frame limit.
pub fn looks_like_http(first: &[u8]) -> bool {
    const METHODS: [&[u8; 4]; 10] =
        [b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"CONN", b"OPTI", b"TRAC", b"PATC", b"PRI "];
    first.first_chunk::<4>().is_some_and(|start| METHODS.contains(&start))
}

/// Does the connection begin with a TLS handshake record? Needs three bytes to tell, as above.
pub fn looks_like_tls(first: &[u8]) -> bool {
    matches!(first, [0x16, 0x03, 0x01..=0x04, ..])
}

/// What a client did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WsEvent<'a> {
    /// One binary message, unmasked: one size-prefixed frame, if the client keeps the protocol.
    Frame(&'a [u8]),
    /// To be answered with [`pong`].
    Ping(&'a [u8]),
    /// An answer to nothing we asked; it shows that the client lives.
    Pong,
    /// The client closes: answer with [`close`], then close.
    Close {
        /// What the answer says: the client's own status, or what is wrong with it.
        status: u16,
    },
}

/// Why a connection cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Error, Debug)]
pub enum WsError {
    /// RFC 6455 was not kept.
    #[error("the WebSocket frame is not valid: {0}")]
    Protocol(&'static str),
    /// A text message.
    #[error("a text message came; frames travel in binary messages")]
    Text,
    /// A message above `CLIENT_FRAME_BYTES_MAX` and its prefix.
    #[error("a message of at least {announced} bytes was announced, at most {limit} are allowed")]
    TooLarge {
        /// The message so far and the announced piece.
        announced: u64,
        /// What is allowed.
        limit: u64,
    },
}

impl WsError {
    /// The status that tells the client.
    pub fn status(self) -> u16 {
        match self {
            WsError::Protocol(_) => PROTOCOL_ERROR,
            WsError::Text => 1003,
            WsError::TooLarge { .. } => 1009,
        }
    }
}

/// Cuts a client's bytes into messages. One per WebSocket connection.
#[derive(Debug, Default)]
pub struct Messages {
    /// The start of a frame's header.
    header: [u8; HEADER_BYTES_MAX],
    header_len: u8,
    /// The frame whose payload is arriving.
    current: Option<Header>,
    /// A binary message has begun and its last fragment has not.
    fragmented: bool,
    /// What has arrived of an incomplete binary message, unmasked.
    message: Vec<u8>,
    /// What has arrived of an incomplete control frame, unmasked: one may come between two fragments.
    control: Vec<u8>,
    /// What to give back at the next call, because the last one lent it out.
    lent: Lent,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Lent {
    #[default]
    Nothing,
    Message,
    Control,
}

/// A frame's header, checked.
#[derive(Clone, Copy, Debug)]
struct Header {
    kind: Kind,
    fin: bool,
    mask: [u8; 4],
    len: usize,
    /// How much of the payload has been taken.
    done: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// A binary message's first frame or a continuation.
    Data,
    Ping,
    Pong,
    Close,
}

impl Messages {
    /// Takes bytes off the front of `input` and returns what the client did next. A message that lies whole in
    /// `input` is unmasked and borrowed there, else it is gathered here. `Ok(None)`: `input` is used up. Call until
    /// then. After an error the stream cannot be read any more.
    pub fn next<'a, 'i: 'a>(&'a mut self, input: &mut &'i mut [u8]) -> Result<Option<WsEvent<'a>>, WsError> {
        match std::mem::take(&mut self.lent) {
            Lent::Nothing => {}
            Lent::Message => self.message = Vec::new(),
            Lent::Control => self.control = Vec::new(),
        }
        loop {
            let mut header = match self.current {
                Some(header) => header,
                None => {
                    if !self.read_header(input) {
                        return Ok(None);
                    }
                    self.parse_header()?
                }
            };
            let piece = take(input, header.len - header.done);
            unmask(piece, header.mask, header.done);
            let whole_here = piece.len() == header.len;
            header.done += piece.len();
            self.current = (header.done < header.len).then_some(header);
            if header.kind == Kind::Data {
                if whole_here && header.fin && !self.fragmented {
                    return Ok(Some(WsEvent::Frame(piece)));
                }
                self.message.extend_from_slice(piece);
                if self.current.is_some() {
                    return Ok(None);
                }
                self.fragmented = !header.fin;
                if header.fin {
                    self.lent = Lent::Message;
                    return Ok(Some(WsEvent::Frame(&self.message)));
                }
            } else {
                self.control.extend_from_slice(piece);
                if self.current.is_some() {
                    return Ok(None);
                }
                self.lent = Lent::Control;
                return Ok(Some(match header.kind {
                    Kind::Ping => WsEvent::Ping(&self.control),
                    Kind::Pong => WsEvent::Pong,
                    Kind::Data | Kind::Close => WsEvent::Close { status: answer_to_close(&self.control) },
                }));
            }
        }
    }

    /// Bytes of memory held for an incomplete message.
    pub fn held_bytes(&self) -> usize {
        self.message.capacity() + self.control.capacity()
    }

    /// Gathers a header; true: it is complete, or wrong already.
    fn read_header(&mut self, input: &mut &mut [u8]) -> bool {
        loop {
            let have = usize::from(self.header_len);
            let wanted = if have < 2 { 2 } else { header_bytes(self.header[1]) };
            // One that is not masked is wrong already.
            if have == wanted || (have >= 2 && self.header[1] & MASKED == 0) {
                return true;
            }
            let piece = take(input, wanted - have);
            if piece.is_empty() {
                return false;
            }
            self.header[have..have + piece.len()].copy_from_slice(piece);
            self.header_len += piece.len() as u8;
        }
    }

    /// Checks a complete header against RFC 6455 and our limits, and makes room for the next.
    fn parse_header(&mut self) -> Result<Header, WsError> {
        let (bytes, have) = (self.header, usize::from(self.header_len));
        self.header_len = 0;
        if bytes[0] & 0x70 != 0 {
            return Err(WsError::Protocol("a reserved bit is set, and no extension was agreed on"));
        }
        if bytes[1] & MASKED == 0 {
            return Err(WsError::Protocol("a client's frames must be masked"));
        }
        let fin = bytes[0] & 0x80 != 0;
        let kind = match (bytes[0] & 0x0f, self.fragmented) {
            (0x0, true) | (0x2, false) => Kind::Data,
            (0x0, false) => return Err(WsError::Protocol("a continuation without a message")),
            (0x1, _) => return Err(WsError::Text),
            (0x2, true) => return Err(WsError::Protocol("a new message inside a fragmented one")),
            (0x8, _) => Kind::Close,
            (0x9, _) => Kind::Ping,
            (0xa, _) => Kind::Pong,
            _ => return Err(WsError::Protocol("an opcode that is not defined")),
        };
        let mut long = [0; 8];
        let len = match have - 6 {
            0 => u64::from(bytes[1] & 0x7f),
            len_bytes => {
                long[8 - len_bytes..].copy_from_slice(&bytes[2..2 + len_bytes]);
                u64::from_be_bytes(long)
            }
        };
        if len > i64::MAX as u64 || (have > 6 && len <= LONGEST_SHORTER[usize::from(have > 8)]) {
            return Err(WsError::Protocol("a length is not in the shortest form that holds it"));
        }
        if kind != Kind::Data && (!fin || len > CONTROL_BYTES_MAX as u64) {
            return Err(WsError::Protocol("a control frame is fragmented or longer than 125 bytes"));
        }
        let (announced, limit) = (len.saturating_add(self.message.len() as u64), MESSAGE_BYTES_MAX as u64);
        if kind == Kind::Data && announced > limit {
            return Err(WsError::TooLarge { announced, limit });
        }
        let mut mask = [0; 4];
        mask.copy_from_slice(&bytes[have - 4..have]);
        // Not above the limit, so it fits.
        Ok(Header { kind, fin, mask, len: len as usize, done: 0 })
    }
}

/// The largest message: a frame at its limit with its prefix.
const MESSAGE_BYTES_MAX: usize = PREFIX_BYTES + CLIENT_FRAME_BYTES_MAX;

/// Of a header's second byte: the payload is masked.
const MASKED: u8 = 0x80;
/// The longest payloads whose length needs less than two, and less than eight bytes.
const LONGEST_SHORTER: [u64; 2] = [125, 0xffff];

/// How long a masked frame's header is, by its second byte.
fn header_bytes(second: u8) -> usize {
    match second & 0x7f {
        126 => 8,
        127 => 14,
        _ => 6,
    }
}

/// XORs a piece of a payload that starts `done` bytes into it.
fn unmask(piece: &mut [u8], mask: [u8; 4], done: usize) {
    let m = |i: usize| mask[(done + i) % 4];
    let key = u64::from_ne_bytes([m(0), m(1), m(2), m(3), m(0), m(1), m(2), m(3)]);
    let mut words = piece.chunks_exact_mut(8);
    for word in &mut words {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        word.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ key).to_ne_bytes());
    }
    for (i, byte) in words.into_remainder().iter_mut().enumerate() {
        *byte ^= m(i);
    }
}

/// Takes up to `at_most` bytes off the front of `input`.
fn take<'i>(input: &mut &'i mut [u8], at_most: usize) -> &'i mut [u8] {
    let (piece, rest) = {
        let at = input.len().min(at_most);
        std::mem::take(input).split_at_mut(at)
    };
    *input = rest;
    piece
}

/// Writes the header of a binary message of so many bytes; returns the header's length. The gateway's frames are
/// not masked.
pub fn binary_header(payload_len: usize, out: &mut [u8; 10]) -> usize {
    out[0] = 0x82;
    match payload_len {
        0..=125 => {
            out[1] = payload_len as u8;
            2
        }
        126..=0xffff => {
            out[1] = 126;
            out[2..4].copy_from_slice(&(payload_len as u16).to_be_bytes());
            4
        }
        _ => {
            out[1] = 127;
            out[2..].copy_from_slice(&(payload_len as u64).to_be_bytes());
            10
        }
    }
}

/// Appends the answer to a ping.
pub fn pong(payload: &[u8], out: &mut Vec<u8>) {
    let payload = &payload[..payload.len().min(CONTROL_BYTES_MAX)];
    out.extend_from_slice(&[0x8a, payload.len() as u8]);
    out.extend_from_slice(payload);
}

/// Appends a close frame.
pub fn close(status: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x88, 2]);
    out.extend_from_slice(&status.to_be_bytes());
}

/// The status of RFC 6455 (and its registry) that comes nearest to a reason; the Closing frame before it says more.
pub fn close_status(reason: CloseReason) -> u16 {
    match reason {
        CloseReason::PeerClosed | CloseReason::LoggedOut => NORMAL_CLOSURE,
        CloseReason::Draining => 1001,
        CloseReason::BadFrame | CloseReason::UnknownRequest => PROTOCOL_ERROR,
        CloseReason::FrameTooLarge => 1009,
        CloseReason::Overloaded | CloseReason::StoreUnavailable => 1013,
        _ => 1008,
    }
}

/// The status that answers a close frame with this payload: the same, if it is one that may be sent (RFC 6455, 7.4).
fn answer_to_close(payload: &[u8]) -> u16 {
    let Some((status, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { NORMAL_CLOSURE } else { PROTOCOL_ERROR };
    };
    match u16::from_be_bytes(*status) {
        1000..=1003 | 1007..=1014 | 3000..=4999 if std::str::from_utf8(reason).is_err() => 1007,
        status @ (1000..=1003 | 1007..=1014 | 3000..=4999) => status,
        _ => PROTOCOL_ERROR,
    }
}

#[cfg(test)]
mod tests;
