//! WebSocket as RFC 6455 and RFC 9112 say it, and nothing else: what a lax server would let by is refused in its words.

use std::io::{Read, Write};
use std::net::TcpStream;

use ringway_wire::frame::Encoder;
use ringway_wire::ids::DeviceId;

use crate::gateway::{Gateway, PATIENCE, token};

const HEAD: &str = "GET /chat HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

fn connect(gateway: &Gateway) -> TcpStream {
    let stream = TcpStream::connect_timeout(&gateway.addr(), PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads an HTTP head.
fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&head)));
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn upgraded(gateway: &Gateway) -> TcpStream {
    let mut stream = connect(gateway);
    stream.write_all(HEAD.as_bytes()).unwrap();
    assert!(head(&mut stream).starts_with("HTTP/1.1 101 "));
    stream
}

/// A client's frame, masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

/// The opcode and the payload of the gateway's next frame.
fn next(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut header = [0; 2];
    stream.read_exact(&mut header).unwrap();
    let length = match header[1] {
        126 => {
            let mut long = [0; 2];
            stream.read_exact(&mut long).unwrap();
            usize::from(u16::from_be_bytes(long))
        }
        short => usize::from(short),
    };
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).unwrap();
    (header[0] & 0x0f, payload)
}

/// The status with which the gateway closes, in answer to these bytes.
fn status(gateway: &Gateway, bytes: &[u8]) -> u16 {
    let mut stream = upgraded(gateway);
    stream.write_all(bytes).unwrap();
    loop {
        let (opcode, payload) = next(&mut stream);
        if opcode == 0x8 {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).unwrap();
            assert!(rest.is_empty(), "nothing follows a close frame");
            return u16::from_be_bytes([payload[0], payload[1]]);
        }
    }
}

#[test]
fn a_close_frame_is_answered_with_the_code_that_the_rfc_demands() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "1"]);
    let close = |code: u16, reason: &[u8]| frame(0x88, &[&code.to_be_bytes()[..], reason].concat());
    for (bytes, expected) in [
        (frame(0x88, b""), 1000),
        (close(1000, b"bye"), 1000),
        (close(1001, b""), 1001),
        (close(3000, b""), 3000),
        (close(4999, "é".as_bytes()), 4999),
        // Half a code; codes that nobody may send; a reason that is no UTF-8.
        (frame(0x88, &[3]), 1002),
        (close(0, b""), 1002),
        (close(999, b""), 1002),
        (close(1004, b""), 1002),
        (close(1005, b""), 1002),
        (close(1006, b""), 1002),
        (close(1015, b""), 1002),
        (close(2999, b""), 1002),
        (close(5000, b""), 1002),
        (close(1000, &[0xff]), 1007),
        (close(1000, &[0xc3]), 1007),
    ] {
        assert_eq!(status(&gateway, &bytes), expected, "{bytes:02x?}");
    }
}

#[test]
fn frames_that_break_the_rfc_end_with_the_code_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "1"]);
    let long = |first: u8, length: u64| {
        let mut frame = vec![first, 0xff];
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(&[0; 4]);
        frame
    };
    for (bytes, expected) in [
        // Lengths that fit a shorter form, and one above what 63 bits say.
        (vec![0x82, 0xfe, 0, 125, 0, 0, 0, 0], 1002),
        (long(0x82, 125), 1002),
        (long(0x82, 65_535), 1002),
        (long(0x82, 1 << 63), 1002),
        (long(0x82, 65_536), 1009),
        (frame(0x81, b"text"), 1003),
        (frame(0xc2, b""), 1002),
        (frame(0x83, b""), 1002),
        (frame(0x80, b""), 1002),
        (vec![0x82, 0x01, 0], 1002),
        (vec![0x89, 0xfe, 0, 126, 0, 0, 0, 0], 1002),
    ] {
        assert_eq!(status(&gateway, &bytes), expected, "{bytes:02x?}");
    }
}

#[test]
fn an_upgrade_that_a_proxy_might_read_otherwise_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "1"]);
    let with = |line: &str| HEAD.replace("Host: gateway\r\n", &format!("Host: gateway\r\n{line}\r\n"));
    for request in [
        HEAD.replace("Host: gateway\r\n", ""),
        with("Host: another"),
        HEAD.replace("Host: gateway", "Host: a b"),
        HEAD.replace("Host: gateway", "Host: a, b"),
        with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        with("Sec-WebSocket-Version: 13"),
        with("Upgrade: websocket"),
        with("Content-Length: 0"),
        with("Content-Length: 4"),
        with("Transfer-Encoding: chunked"),
        HEAD.replace("\r\nHost", "\nHost"),
        HEAD.replace("\r\n\r\n", "\n\n"),
        HEAD.replace("Host: gateway", "Host: gateway\rX: y"),
        HEAD.replace("Upgrade: websocket", "Upgrade : websocket"),
        with(" folded"),
        HEAD.replace("GET /chat", "GET chat"),
        HEAD.replace("GET /chat", "GET *"),
        HEAD.replace("GET /chat", "GET  /chat"),
    ] {
        let mut stream = connect(&gateway);
        stream.write_all(request.as_bytes()).unwrap();
        let head = head(&mut stream);
        assert!(head.starts_with("HTTP/1.1 400 "), "{request:?} gets {head:?}");
        assert!(head.contains("Connection: close\r\n"), "{head:?}");
    }
    // What browsers and proxies send passes.
    for request in [
        HEAD.to_owned(),
        HEAD.replace("Connection: Upgrade", "Connection: keep-alive, Upgrade"),
        with("Origin: https://chat.example"),
        HEAD.replace("Host: gateway", "Host: [2001:db8::1]:7400"),
    ] {
        let mut stream = connect(&gateway);
        stream.write_all(request.as_bytes()).unwrap();
        assert!(head(&mut stream).starts_with("HTTP/1.1 101 "), "{request:?}");
    }
}

#[test]
fn a_full_gateway_answers_a_websocket_client_in_http() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "1", "--set", "limits.connections_max=1"]);
    let _only = gateway.client(1, 1, None);
    let mut stream = connect(&gateway);
    stream.write_all(HEAD.as_bytes()).unwrap();
    let head = head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 503 "), "{head:?}");
    let after = head.lines().find_map(|line| line.strip_prefix("Retry-After: ")).expect("when to come again");
    assert!(after.parse::<u32>().unwrap() > 0);
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.contains("limit"), "{text}");

    // Somebody who speaks frames is told in a frame.
    let mut frames = crate::frames::Frames::connect(gateway.addr());
    frames.send(Encoder::new().login(1, &token(2, 1), DeviceId(1), None));
    frames.next(|_, reply| assert!(matches!(reply, ringway_wire::request::Reply::Closing { .. }), "{reply:?}"));
}
