//! What bad input gets: a clear answer, and nothing lost for anybody else.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use ringway::auth::mint_hs256;
use ringway_client::Event;
use ringway_wire::frame::{Encoder, FrameError, read_client};
use ringway_wire::ids::{ClientMsgId, Conversation, DeviceId, GroupId, Seq, UserId};
use ringway_wire::limits::{BODY_BYTES_MAX, CLIENT_FRAME_BYTES_MAX};
use ringway_wire::schema::{CloseReason, ErrorCode};

use crate::connection::{Connection, ConnectionError};
use crate::gateway::{Gateway, PATIENCE, SECRET, pause, token};
use ringway_wire::request::Durability;

/// Sends `bytes` on a fresh connection and expects to be closed for `reason`; somebody else does not notice.
fn closed_for(gateway: &Gateway, bytes: &[u8], reason: CloseReason) {
    let mut client = Connection::connect(gateway.addr(), PATIENCE).unwrap();
    client.send_raw(bytes).unwrap();
    expect_closing(&mut client, reason);
    works(gateway);
}

fn expect_closing(client: &mut Connection, expected: CloseReason) {
    match client.next(PATIENCE).unwrap() {
        Some(Event::Closing { reason, message, .. }) => {
            assert_eq!(reason, expected, "{message}");
            assert!(!message.is_empty());
        }
        other => panic!("expected Closing {expected:?}, got {other:?}"),
    }
    assert!(
        matches!(client.next(PATIENCE), Err(ConnectionError::Closed | ConnectionError::Io(_))),
        "the socket is closed"
    );
}

/// The gateway still carries messages.
fn works(gateway: &Gateway) {
    let mut client = gateway.client(900, 1, None);
    let request = client.send(Conversation::User(UserId(901)), client.new_client_msg_id(), b"still here").unwrap();
    assert!(matches!(client.answer(request, PATIENCE).unwrap(), Event::Sent { .. }));
}

fn refused_for(client: &mut Connection, to: Conversation, id: ClientMsgId, body: &[u8], expected: ErrorCode) {
    let request = client.send(to, id, body).unwrap();
    match client.answer(request, PATIENCE).unwrap() {
        Event::Refused { code, message, .. } => {
            assert_eq!(code, expected, "{message}");
            assert!(!message.is_empty());
        }
        other => panic!("expected {expected:?}, got {other:?}"),
    }
}

#[test]
fn bytes_that_are_no_frame_close_the_connection_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &[]);
    let login = Encoder::new().login(1, &token(1, 1), DeviceId(1), None).to_vec();

    let too_large = (CLIENT_FRAME_BYTES_MAX as u32 + 1).to_le_bytes();
    closed_for(&gateway, &too_large, CloseReason::FrameTooLarge);

    let mut random = fastrand::Rng::with_seed(7);
    let mut garbage = 64u32.to_le_bytes().to_vec();
    garbage.extend((0..64).map(|_| random.u8(..)));
    closed_for(&gateway, &garbage, CloseReason::BadFrame);

    // A frame cut short whose prefix says so: complete on the wire, incomplete inside.
    let mut cut = login[..login.len() / 2].to_vec();
    let length = cut.len() as u32 - 4;
    cut[..4].copy_from_slice(&length.to_le_bytes());
    closed_for(&gateway, &cut, CloseReason::BadFrame);

    closed_for(&gateway, &unknown_request(), CloseReason::UnknownRequest);

    let send = Encoder::new()
        .send(1, Conversation::User(UserId(2)), ClientMsgId([0; 16]), b"hello", Durability::Durable)
        .to_vec();
    closed_for(&gateway, &send, CloseReason::NotLoggedIn);

    // Half a frame and then nothing, the socket closed: no answer is due, and nobody minds.
    let mut stream = TcpStream::connect(gateway.addr()).unwrap();
    stream.write_all(&login[..10]).unwrap();
    drop(stream);
    works(&gateway);
}

/// A frame whose request has a type that no version of the protocol knows.
fn unknown_request() -> Vec<u8> {
    let ping = Encoder::new().ping(1).to_vec();
    (4..ping.len())
        .map(|at| {
            let mut frame = ping.clone();
            frame[at] = 0x63;
            frame
        })
        .find(|frame| matches!(read_client(frame), Err(FrameError::UnknownRequest(_))))
        .expect("one byte of the frame is its type")
}

#[test]
fn tokens_that_do_not_hold_are_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &[]);
    let login = |token: &str| Encoder::new().login(1, token, DeviceId(1), None).to_vec();

    let expired = mint_hs256(SECRET.as_bytes(), UserId(1), None, 1_000_000_000);
    closed_for(&gateway, &login(&expired), CloseReason::TokenExpired);
    let forged = mint_hs256(b"another secret that is long enough", UserId(1), None, 99_000_000_000);
    closed_for(&gateway, &login(&forged), CloseReason::TokenInvalid);
    closed_for(&gateway, &login("not a token"), CloseReason::TokenInvalid);
    let other_device = token(1, 2);
    closed_for(&gateway, &login(&other_device), CloseReason::TokenInvalid);
    let ahead = Encoder::new().login(1, &token(1, 1), DeviceId(1), Some(Seq(5))).to_vec();
    closed_for(&gateway, &ahead, CloseReason::SeqAhead);
}

#[test]
fn requests_that_cannot_be_granted_are_answered_and_the_session_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "2"]);
    let mut owner = gateway.client(1, 1, None);
    let (group, _) = owner.group_create(&[UserId(2)], PATIENCE).unwrap();
    let mut stranger = gateway.client(3, 1, None);
    let peer = Conversation::User(UserId(4));

    let id = stranger.new_client_msg_id();
    refused_for(&mut stranger, Conversation::Group(GroupId(12345)), id, b"x", ErrorCode::UnknownGroup);
    refused_for(&mut stranger, Conversation::Group(group), id, b"x", ErrorCode::NotAMember);
    refused_for(&mut stranger, peer, id, &vec![b'x'; BODY_BYTES_MAX + 1], ErrorCode::BodyTooLarge);
    refused_for(&mut stranger, peer, ClientMsgId([1; 16]), b"x", ErrorCode::ClientMsgIdInvalid);
    let ahead = ClientMsgId::from_parts(stranger.server_now_ms() + 60_000, 1);
    refused_for(&mut stranger, peer, ahead, b"x", ErrorCode::ClientMsgIdAhead);
    assert!(matches!(
        stranger.group_add(group, &[UserId(3)], PATIENCE),
        Err(ConnectionError::Refused { code: ErrorCode::NotAMember | ErrorCode::NotAllowed, .. })
    ));
    let too_many: Vec<UserId> = (10..5_011).map(UserId).collect();
    assert!(matches!(
        owner.group_create(&too_many, PATIENCE),
        Err(ConnectionError::Refused { code: ErrorCode::TooManyMembers, .. } | ConnectionError::Closing { .. })
    ));
    let mut owner = gateway.client(1, 2, None);
    let most: Vec<UserId> = (10..5_009).map(UserId).collect();
    let (large, _) = owner.group_create(&most, PATIENCE).unwrap();
    assert!(matches!(
        owner.group_add(large, &[UserId(9_000)], PATIENCE),
        Err(ConnectionError::Refused { code: ErrorCode::TooManyMembers, .. })
    ));

    // The largest body is carried; the same name with another body is not.
    let request = stranger.send(peer, id, &vec![b'y'; BODY_BYTES_MAX]).unwrap();
    let Event::Sent { msg_id, repeat: false, .. } = stranger.answer(request, PATIENCE).unwrap() else { panic!() };
    refused_for(&mut stranger, peer, id, b"another", ErrorCode::ClientMsgIdReused);
    refused_for(
        &mut stranger,
        Conversation::User(UserId(5)),
        id,
        &vec![b'y'; BODY_BYTES_MAX],
        ErrorCode::ClientMsgIdReused,
    );
    let request = stranger.send(peer, id, &vec![b'y'; BODY_BYTES_MAX]).unwrap();
    match stranger.answer(request, PATIENCE).unwrap() {
        Event::Sent { msg_id: again, repeat: true, .. } => assert_eq!(again, msg_id),
        other => panic!("{other:?}"),
    }
}

/// The frame as a client makes it that puts a length in front of an unprefixed buffer: all eight-byte fields lie four
/// bytes off.
fn misaligned(frame: &[u8]) -> Vec<u8> {
    let number = |at: usize| u32::from_le_bytes(*frame[at..].first_chunk().unwrap());
    let mut shifted = (number(0) + 4).to_le_bytes().to_vec();
    shifted.extend_from_slice(&(number(4) + 4).to_le_bytes());
    shifted.extend_from_slice(&[0; 4]);
    shifted.extend_from_slice(&frame[8..]);
    shifted
}

#[test]
fn a_misaligned_frame_is_refused_whatever_it_asks() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "1"]);
    let mut encoder = Encoder::new();
    let name = ClientMsgId::from_parts(1_800_000_000_000, 1);
    for frame in [
        encoder.send(9, Conversation::User(UserId(2)), name, b"hello", Durability::Durable).to_vec(),
        encoder.ack(Seq(1)).to_vec(),
        encoder.presence_request(9, &[UserId(2)]).to_vec(),
    ] {
        assert!(read_client(&frame).is_ok() && read_client(&misaligned(&frame)).is_err());
        let mut client = gateway.client(1, 1, None);
        client.send_raw(&misaligned(&frame)).unwrap();
        expect_closing(&mut client, CloseReason::BadFrame);
    }
    // Where only the cursor lies so, and the token does not.
    let login = encoder.login(1, &token(1, 0), DeviceId(0), Some(Seq(5))).to_vec();
    closed_for(&gateway, &misaligned(&login), CloseReason::BadFrame);
}

#[test]
fn a_kind_of_conversation_that_is_not_known_is_an_error_for_its_request_alone() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "1"]);
    let mut encoder = Encoder::new();
    let mut client = gateway.client(1, 1, None);
    let name = client.new_client_msg_id();
    let mut frame =
        encoder.send(1_000_009, Conversation::User(UserId(2)), name, b"hello", Durability::Durable).to_vec();
    let other = encoder.send(1_000_009, Conversation::Group(GroupId(2)), name, b"hello", Durability::Durable);
    let kind = (0..frame.len()).find(|at| frame[*at] != other[*at]).expect("one byte says the kind");
    frame[kind] = 9;
    client.send_raw(&frame).unwrap();
    match client.answer(ringway_client::RequestId(1_000_009), PATIENCE).unwrap() {
        Event::Refused { code, message, retry_after_ms, .. } => {
            assert_eq!((code, retry_after_ms), (ErrorCode::BadRequest, 0), "{message}");
            assert!(message.contains("conversation"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    let request = client.ping().unwrap();
    assert!(matches!(client.answer(request, PATIENCE).unwrap(), Event::Pong { .. }));
}

#[test]
fn strangers_on_the_port_are_told_what_this_is() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &[]);

    let mut http = TcpStream::connect(gateway.addr()).unwrap();
    http.set_read_timeout(Some(PATIENCE)).unwrap();
    http.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut text = String::new();
    http.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 4"), "{text}");
    assert!(text.contains("WebSocket"), "{text}");

    // The beginning of a TLS 1.2 ClientHello record.
    let hello = [0x16, 0x03, 0x01, 0x00, 0xc8, 0x01, 0x00, 0x00, 0xc4, 0x03, 0x03];
    closed_for(&gateway, &hello, CloseReason::NotRingway);
}

#[test]
fn those_who_say_nothing_or_too_little_are_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Gateway::command(dir.path(), &[]);
    let gateway = Gateway::spawn(
        dir.path(),
        command.env("RINGWAY_SESSION_LOGIN_TIMEOUT_S", "2").env("RINGWAY_SESSION_HEARTBEAT_S", "1"),
    );

    let mut silent = Connection::connect(gateway.addr(), PATIENCE).unwrap();
    let mut dripping = Connection::connect(gateway.addr(), PATIENCE).unwrap();
    let mut alive = gateway.client(5, 1, None);
    let mut dead = gateway.client(6, 1, None);
    let login = Encoder::new().login(1, &token(1, 1), DeviceId(1), None).to_vec();
    for byte in login.iter().take(4) {
        // The gateway may have closed it by now: that is what is waited for.
        drop(dripping.send_raw(&[*byte]));
        alive.ping().unwrap();
        pause(Duration::from_millis(700));
    }
    expect_closing(&mut silent, CloseReason::LoginTimeout);
    expect_closing(&mut dripping, CloseReason::LoginTimeout);
    expect_closing(&mut dead, CloseReason::HeartbeatTimeout);
    let request = alive.ping().unwrap();
    assert!(matches!(alive.answer(request, PATIENCE).unwrap(), Event::Pong { .. }));
}

#[test]
fn a_client_that_sends_and_never_reads_is_evicted_and_costs_little() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Gateway::command(dir.path(), &[]);
    let gateway = Gateway::spawn(dir.path(), command.env("RINGWAY_SESSION_STALL_TIMEOUT_S", "2"));
    works(&gateway);
    let before = gateway.memory_bytes();

    let mut flood = Vec::new();
    let mut encoder = Encoder::new();
    for request in 0..1_000 {
        flood.extend_from_slice(encoder.ping(request));
    }
    let stream = TcpStream::connect(gateway.addr()).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut client = Connection::over(stream).unwrap();
    client.login(&token(7, 1), DeviceId(1), None, PATIENCE).unwrap();
    let mut sent = 0u64;
    // Replies fill the socket buffers, then the outbox; then the gateway stops reading, our writes stop, and the
    // eviction ends them with an error.
    let error = loop {
        match client.send_raw(&flood) {
            Ok(()) => sent += 1_000,
            Err(error) => break error,
        }
        assert!(sent < 100_000_000, "the gateway reads for ever from somebody who never reads");
    };
    assert!(
        matches!(&error, ConnectionError::Io(error) if error.kind() != std::io::ErrorKind::WouldBlock),
        "the connection is closed, not merely stalled: {error}"
    );
    let grown = gateway.memory_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "the gateway grew by {grown} bytes for one client after {sent} pings");
    works(&gateway);
    let metrics = gateway.admin_page("/metrics");
    assert!(metrics.contains("SlowReader") || metrics.contains("slow_reader"), "{metrics}");
}
