#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::{self, Read, Write};

use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::{Message, WebSocket};

use super::upgrade::HTTP_HEADERS_MAX;
use super::*;
use crate::limits::HTTP_HEAD_BYTES_MAX;

/// The gateway's side of a connection in memory: it echoes binary messages.
struct Echo {
    /// How many bytes the gateway sees at a time.
    chunk: usize,
    head: Vec<u8>,
    messages: Option<Messages>,
    replies: Vec<u8>,
    seen: Vec<String>,
}

impl Echo {
    fn connect(chunk: usize) -> WebSocket<Echo> {
        let echo = Echo { chunk, head: Vec::new(), messages: None, replies: Vec::new(), seen: Vec::new() };
        tungstenite::client("ws://gateway/", echo).expect("the upgrade is accepted").0
    }

    fn receive(&mut self, mut bytes: &mut [u8]) {
        let Some(messages) = &mut self.messages else {
            self.head.extend_from_slice(bytes);
            if let Upgrade::Accept { head_bytes, response } = upgrade(&self.head) {
                assert_eq!(head_bytes, self.head.len());
                self.messages = Some(Messages::default());
                self.replies.extend_from_slice(&response);
            }
            return;
        };
        while let Some(event) = messages.next(&mut bytes).unwrap() {
            match event {
                WsEvent::Frame(payload) => {
                    let mut header = [0; 10];
                    let len = binary_header(payload.len(), &mut header);
                    self.replies.extend_from_slice(&header[..len]);
                    self.replies.extend_from_slice(payload);
                    self.seen.push(format!("frame {}", payload.len()));
                }
                WsEvent::Ping(payload) => {
                    pong(payload, &mut self.replies);
                    self.seen.push(format!("ping {}", payload.len()));
                }
                WsEvent::Pong => self.seen.push("pong".into()),
                WsEvent::Close { status } => {
                    close(status, &mut self.replies);
                    self.seen.push("close".into());
                }
            }
        }
        assert!(bytes.is_empty(), "what is given is used up");
    }
}

impl Write for Echo {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut bytes = bytes.to_vec();
        for chunk in bytes.chunks_mut(self.chunk) {
            self.receive(chunk);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Echo {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = out.len().min(self.replies.len());
        if len == 0 && self.seen.last().is_some_and(|seen| seen == "close") {
            return Ok(0);
        }
        if len == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        out[..len].copy_from_slice(&self.replies[..len]);
        self.replies.drain(..len);
        Ok(len)
    }
}

#[test]
fn messages_of_every_size_survive_every_way_of_being_cut() {
    for chunk in [1, 2, 3, 5, 7, 13, 100, 4096, usize::MAX] {
        let mut client = Echo::connect(chunk);
        for len in [0, 1, 2, 7, 8, 9, 125, 126, 127, 1000, 16_384, MESSAGE_BYTES_MAX] {
            let payload: Vec<u8> = (0..=255u8).cycle().skip(len % 251).take(len).collect();
            client.send(Message::Binary(payload.clone().into())).unwrap();
            assert_eq!(client.read().unwrap(), Message::Binary(payload.into()), "{len} bytes in pieces of {chunk}");
        }
        let messages = client.get_mut().messages.as_mut().unwrap();
        assert_eq!(messages.next(&mut [].as_mut_slice()), Ok(None));
        assert_eq!(messages.held_bytes(), 0, "nothing is kept of a message that was handed out");
    }
}

#[test]
fn fragments_are_joined_with_control_frames_between_them() {
    for chunk in [1, 3, 6, 10, usize::MAX] {
        let mut client = Echo::connect(chunk);
        let piece = |bytes: &'static [u8], code, fin| Message::Frame(Frame::message(bytes, OpCode::Data(code), fin));
        client.send(piece(b"one ", Data::Binary, false)).unwrap();
        client.send(Message::Ping(b"are you there".as_slice().into())).unwrap();
        client.send(piece(b"", Data::Continue, false)).unwrap();
        client.send(piece(b"two ", Data::Continue, false)).unwrap();
        client.send(Message::Pong(vec![].into())).unwrap();
        client.send(piece(b"three", Data::Continue, true)).unwrap();
        client.send(Message::Binary(b"next".as_slice().into())).unwrap();
        assert_eq!(client.read().unwrap(), Message::Pong(b"are you there".as_slice().into()));
        assert_eq!(client.read().unwrap(), Message::Binary(b"one two three".as_slice().into()));
        assert_eq!(client.read().unwrap(), Message::Binary(b"next".as_slice().into()));
        assert_eq!(client.get_ref().seen, ["ping 13", "pong", "frame 13", "frame 4"]);
    }
}

#[test]
fn a_closing_client_is_answered() {
    let mut client = Echo::connect(1);
    client.close(None).unwrap();
    assert!(matches!(client.read(), Ok(Message::Close(Some(frame))) if u16::from(frame.code) == 1000));
    assert!(matches!(client.read(), Err(tungstenite::Error::ConnectionClosed)));
    assert_eq!(client.get_ref().seen, ["close"]);
}

#[test]
fn a_large_message_to_the_client_is_understood() {
    let mut client = Echo::connect(usize::MAX);
    for len in [125, 126, 65_535, 65_536, 200_000] {
        let payload = vec![7; len];
        let mut header = [0; 10];
        let header_len = binary_header(len, &mut header);
        client.get_mut().replies.extend_from_slice(&header[..header_len]);
        client.get_mut().replies.extend_from_slice(&payload);
        assert_eq!(client.read().unwrap(), Message::Binary(payload.into()));
    }
}

/// Feeds bytes whole and one by one: both must end in the same error.
fn check_error(bytes: &[u8], expected: WsError) {
    for chunk in [1, bytes.len()] {
        let mut messages = Messages::default();
        let mut bytes = bytes.to_vec();
        let mut outcome = Ok(());
        for mut piece in bytes.chunks_mut(chunk) {
            outcome = loop {
                match messages.next(&mut piece) {
                    Ok(None) => break Ok(()),
                    Ok(Some(_)) => {}
                    Err(error) => break Err(error),
                }
            };
            if outcome.is_err() {
                break;
            }
        }
        assert_eq!(outcome, Err(expected), "in pieces of {chunk}");
    }
}

#[test]
fn what_rfc_6455_forbids_is_an_error() {
    use WsError::{Protocol, Text};
    check_error(&[0x82, 0x01, 0, 0, 0, 0], Protocol("a client's frames must be masked"));
    check_error(&[0xc2, 0x81, 0, 0, 0, 0, 0], Protocol("a reserved bit is set, and no extension was agreed on"));
    check_error(&[0x80, 0x81, 0, 0, 0, 0, 0], Protocol("a continuation without a message"));
    check_error(&[0x02, 0x80, 0, 0, 0, 0, 0x82, 0x80, 0, 0, 0, 0], Protocol("a new message inside a fragmented one"));
    check_error(&[0x83, 0x80, 0, 0, 0, 0], Protocol("an opcode that is not defined"));
    check_error(&[0x09, 0x80, 0, 0, 0, 0], Protocol("a control frame is fragmented or longer than 125 bytes"));
    check_error(&[0x89, 0xfe, 0, 126, 0, 0, 0, 0], Protocol("a control frame is fragmented or longer than 125 bytes"));
    check_error(&[0x81, 0x80, 0, 0, 0, 0], Text);
    let not_shortest = Protocol("a length is not in the shortest form that holds it");
    check_error(&[0x82, 0xfe, 0, 125, 0, 0, 0, 0], not_shortest);
    check_error(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0], not_shortest);
    check_error(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], not_shortest);
}

#[test]
fn a_message_over_the_limit_is_refused_from_its_header() {
    let limit = MESSAGE_BYTES_MAX as u64;
    let mut frame = vec![0x82, 0xff];
    frame.extend_from_slice(&(u64::MAX / 2).to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    check_error(&frame, WsError::TooLarge { announced: u64::MAX / 2, limit });
    // Two fragments, each allowed, together too large.
    let mut frame = vec![0x02, 0xfe, 0x80, 0x00, 0, 0, 0, 0];
    frame.extend_from_slice(&[1; 0x8000]);
    frame.extend_from_slice(&[0x80, 0xfe, 0x80, 0x00, 0, 0, 0, 0]);
    check_error(&frame, WsError::TooLarge { announced: 0x10000, limit });
}

#[test]
fn an_announced_message_takes_no_memory_before_it_comes() {
    let mut messages = Messages::default();
    let mut bytes = vec![0x82, 0xfe, 0xc0, 0x00, 0, 0, 0, 0, 1, 2, 3];
    assert_eq!(messages.next(&mut bytes.as_mut_slice()), Ok(None));
    assert!(messages.held_bytes() < 64, "{} bytes held", messages.held_bytes());
}

#[test]
fn garbage_is_an_error_or_ignored_and_never_a_panic() {
    let mut random = fastrand::Rng::with_seed(0x5eed);
    for _ in 0..20_000 {
        let mut messages = Messages::default();
        for _ in 0..random.usize(1..4) {
            let mut bytes: Vec<u8> = (0..random.usize(0..300)).map(|_| random.u8(..)).collect();
            if let [first, second, ..] = bytes.as_mut_slice() {
                // Most of the time a header that may be right, so that what follows it is reached.
                if random.u8(..) < 200 {
                    (*first, *second) = (random.choice([0x82, 0x02, 0x00, 0x80, 0x89]).unwrap(), *second | 0x80);
                }
            }
            let mut input = bytes.as_mut_slice();
            while let Ok(Some(_)) = messages.next(&mut input) {}
        }
        assert!(messages.held_bytes() <= 2 * MESSAGE_BYTES_MAX);
    }
}

const HEAD: &str = "GET /any HTTP/1.1\r\nHost: gateway\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

#[test]
fn an_upgrade_is_answered_as_the_rfc_says() {
    for end in 0..HEAD.len() {
        assert_eq!(upgrade(&HEAD.as_bytes()[..end]), Upgrade::NeedMore, "{end} bytes");
    }
    let Upgrade::Accept { head_bytes, response } = upgrade(format!("{HEAD}behind").as_bytes()) else {
        panic!("not accepted")
    };
    assert_eq!(head_bytes, HEAD.len());
    let response = String::from_utf8(response).unwrap();
    // The key and the answer of RFC 6455, section 1.3.
    assert!(response.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{response}");
}

fn check_refused(head: &str, status: &str) {
    let Upgrade::Refuse { response } = upgrade(head.as_bytes()) else { panic!("not refused: {head}") };
    let response = String::from_utf8(response).unwrap();
    assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
    let (_, text) = response.split_once("\r\n\r\n").unwrap();
    assert!(text.contains("Ringway"), "{text}");
    assert!(response.contains(&format!("Content-Length: {}\r\n", text.len())), "{response}");
}

#[test]
fn http_that_is_no_upgrade_gets_a_readable_answer() {
    check_refused("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "400");
    check_refused("GET / HTTP/1.0\r\n\r\n", "400");
    check_refused("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", "400");
    check_refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400");
    check_refused("GET \0 nonsense\r\n\r\n", "400");
    check_refused(&HEAD.replace("Version: 13", "Version: 8"), "426");
    check_refused(&HEAD.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), "400");
    check_refused(&HEAD.replace("dGhlIHNhbXBsZSBub25jZQ==", "not base64!"), "400");
    check_refused(&HEAD.replace("keep-alive, Upgrade", "keep-alive"), "400");
    check_refused(&HEAD.replace("Upgrade: WebSocket", "Upgrade: h2c"), "400");
    check_refused(&format!("GET /{} HTTP/1.1\r\n", "x".repeat(HTTP_HEAD_BYTES_MAX)), "431");
    check_refused(&format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HTTP_HEADERS_MAX + 1)), "431");
}

#[test]
fn no_frame_looks_like_http_or_tls() {
    for method in ["GET ", "HEAD", "POST", "PUT /", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "PRI *"] {
        assert!(looks_like_http(method.as_bytes()), "{method}");
        let prefix = u32::from_le_bytes(*method.as_bytes().first_chunk().unwrap());
        assert!(prefix as usize > CLIENT_FRAME_BYTES_MAX);
    }
    assert!(looks_like_tls(&[0x16, 3, 1, 2, 0, 1]));
    for len in 0..=CLIENT_FRAME_BYTES_MAX as u32 {
        let prefix = len.to_le_bytes();
        assert!(!looks_like_http(&prefix) && !looks_like_tls(&prefix), "{len}");
    }
    for short in [&b""[..], b"G", b"GET", &[0x16], &[0x16, 3]] {
        assert!(!looks_like_http(short) && !looks_like_tls(short), "too short to tell");
    }
}

#[test]
fn every_reason_has_a_status_that_may_be_sent() {
    for reason in 0..=CloseReason::ENUM_MAX {
        let mut frame = Vec::new();
        close(close_status(CloseReason(reason)), &mut frame);
        let [0x88, 2, high, low] = frame[..] else { panic!("{frame:?}") };
        let status = CloseCode::from(u16::from_be_bytes([high, low]));
        assert!(status.is_allowed(), "{reason}: {status}");
    }
}
