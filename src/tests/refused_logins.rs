//! A login that is refused changes nothing for the sessions that stand, and its refusal carries its request's id.

use ringway::auth::mint_hs256;
use ringway_client::Event;
use ringway_wire::frame::Encoder;
use ringway_wire::ids::{DeviceId, Seq, UserId};
use ringway_wire::request::Reply;
use ringway_wire::schema::CloseReason;

use crate::connection::{Connection, ConnectionError};
use crate::frames::Frames;
use crate::gateway::{Gateway, PATIENCE, SECRET, token};

/// A row that no user here has.
const AHEAD: Option<Seq> = Some(Seq(1_000));

fn answers(client: &mut Connection) {
    let request = client.ping().unwrap();
    match client.answer(request, PATIENCE) {
        Ok(Event::Pong { .. }) => {}
        other => panic!("the session does not stand: {other:?}"),
    }
}

fn refused(gateway: &Gateway, user: u64, device: u64, last_seq: Option<Seq>) -> CloseReason {
    let mut client = Connection::connect(gateway.addr(), PATIENCE).unwrap();
    match client.login(&token(user, device), DeviceId(device), last_seq, PATIENCE) {
        Err(ConnectionError::Closing { reason, .. }) => reason,
        other => panic!("the login is not refused: {other:?}"),
    }
}

#[test]
fn a_login_that_is_refused_does_not_replace_the_devices_live_session() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "2"]);
    let mut live = gateway.client(7, 1, None);
    assert_eq!(refused(&gateway, 7, 1, AHEAD), CloseReason::SeqAhead);
    answers(&mut live);
    // One that is accepted does.
    let mut next = gateway.client(7, 1, None);
    assert!(matches!(live.next(PATIENCE).unwrap(), Some(Event::Closing { reason: CloseReason::Replaced, .. })));
    answers(&mut next);
}

#[test]
fn a_login_that_is_refused_does_not_throw_out_the_oldest_device() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "1", "--set", "session.devices_max=2"]);
    let (mut oldest, mut other) = (gateway.client(7, 1, None), gateway.client(7, 2, None));
    for device in 3..6 {
        assert_eq!(refused(&gateway, 7, device, AHEAD), CloseReason::SeqAhead);
    }
    answers(&mut oldest);
    answers(&mut other);
    let mut third = gateway.client(7, 3, None);
    assert!(matches!(oldest.next(PATIENCE).unwrap(), Some(Event::Closing { reason: CloseReason::DeviceLimit, .. })));
    answers(&mut other);
    answers(&mut third);
}

/// Sends a frame on a fresh connection; the request id and the reason of the `Closing` that comes.
fn closed(gateway: &Gateway, before: &[u8], frame: &[u8]) -> (u32, CloseReason) {
    let mut frames = Frames::connect(gateway.addr());
    frames.send(before);
    frames.send(frame);
    loop {
        let closing = frames.next(|id, reply| match reply {
            Reply::Closing { reason, .. } => Some((id, reason)),
            _ => None,
        });
        if let Some(closing) = closing {
            return closing;
        }
    }
}

#[test]
fn the_closing_that_answers_login_or_logout_carries_the_requests_id() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(
        dir.path(),
        &["--shards", "2", "--set", "session.devices_max=1", "--set", "session.device_policy=refuse-new"],
    );
    let mut encoder = Encoder::new();
    let expired = mint_hs256(SECRET.as_bytes(), UserId(7), None, 1_000_000_000);
    let held = gateway.client(9, 1, None);
    for (token, device, cursor, reason) in [
        ("no token".to_owned(), 1, None, CloseReason::TokenInvalid),
        (token(7, 2), 1, None, CloseReason::TokenInvalid),
        (expired, 1, None, CloseReason::TokenExpired),
        (token(7, 1), 1, AHEAD, CloseReason::SeqAhead),
        (token(8, 1), 1, AHEAD, CloseReason::SeqAhead),
        (token(9, 2), 2, None, CloseReason::DeviceLimit),
    ] {
        let login = encoder.login(77, &token, DeviceId(device), cursor).to_vec();
        assert_eq!(closed(&gateway, &[], &login), (77, reason));
    }
    drop(held);
    let login = encoder.login(1, &token(7, 1), DeviceId(1), None).to_vec();
    assert_eq!(closed(&gateway, &login, encoder.logout(78)), (78, CloseReason::LoggedOut));
}

#[test]
fn a_gateway_that_is_short_of_memory_lets_nobody_in_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(dir.path(), &["--shards", "1", "--set", "limits.memory_bytes_max=1048576"]);
    let shows = |gateway: &mut Gateway, line: &str| gateway.admin_page("/metrics").contains(line);
    gateway.wait_until("it notices", |gateway| shows(gateway, "ringway_memory_pressure{shard=\"0\"} 2\n"));
    assert!(gateway.log().contains("memory is at its limit"), "{}", gateway.log());
    assert_eq!(refused(&gateway, 7, 1, None), CloseReason::Overloaded);
    gateway.wait_until("it is counted", |gateway| shows(gateway, "what=\"memory_logins\"} 1\n"));
}
