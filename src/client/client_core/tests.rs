#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use ringway_wire::frame::read_client;
use ringway_wire::limits::CLIENT_FRAME_BYTES_MAX;
use ringway_wire::request::{Login, Request};

use super::*;
use crate::server::{SERVER_MS, at, closing, error, login_ok, push, send_ok};
use crate::{CloseReason, ErrorCode};

const TO: Conversation = Conversation::User(UserId(2));

/// What a gateway understands of all that is to be written, one line a frame.
fn written(core: &mut ClientCore) -> Vec<String> {
    let bytes = core.output().to_vec();
    core.written(bytes.len());
    let (mut deframer, mut rest, mut lines) = (Deframer::default(), bytes.as_slice(), Vec::new());
    while let Some(frame) = deframer.next(&mut rest, CLIENT_FRAME_BYTES_MAX).unwrap() {
        lines.push(match read_client(frame).unwrap() {
            (id, Request::Login(Login { token, device, cursor, heartbeat_ms: 0 })) => {
                format!("{id} login {token} {device} {cursor:?}")
            }
            (id, Request::Send { client_msg_id, body, ephemeral, .. }) => {
                format!("{id} send {client_msg_id:?} {} {ephemeral}", String::from_utf8_lossy(body))
            }
            (_, Request::Ack { seq }) => format!("ack {seq}"),
            (id, other) => format!("{id} {other:?}"),
        });
    }
    lines
}

fn receive(core: &mut ClientCore, now_ms: u64, frames: &[Vec<u8>]) {
    let bytes = frames.concat();
    let mut input = bytes.as_slice();
    while core.receive(at(now_ms), &mut input).unwrap().is_some() {}
}

fn live() -> ClientCore {
    let mut core = ClientCore::new(Device::new(DeviceId(3), Some(Seq(10))));
    core.connected(at(0), "token");
    assert_eq!(written(&mut core), ["1 login token 3 Some(Seq(10))"]);
    receive(&mut core, 0, &[login_ok(10, 25_000)]);
    core
}

fn tick(core: &mut ClientCore, now_ms: u64) -> Vec<String> {
    assert_eq!(core.tick(at(now_ms), || 9), Liveliness::Alive);
    written(core)
}

#[test]
fn a_message_is_sent_again_on_the_next_connection_under_its_first_name_until_it_is_answered() {
    let mut core = live();
    let request = core.send(at(0), TO, b"hello", 5).unwrap();
    let first = written(&mut core);
    assert!(matches!(core.ended(at(10), 0), NextStep::Reconnect { .. }));
    core.connected(at(1_000), "other");
    assert_eq!(written(&mut core), ["3 login other 3 Some(Seq(10))"]);
    assert_eq!(tick(&mut core, 1_000), [""; 0], "not before the login is answered");
    receive(&mut core, 1_000, &[login_ok(10, 25_000)]);
    assert_eq!(core.next_due_ms(at(1_000)), Some(0));
    assert_eq!(tick(&mut core, 1_000), first);
    receive(&mut core, 1_000, &[send_ok(request.0, 11)]);
    assert_eq!((core.unanswered().keeps(request), core.session().cursor()), (false, Seq(11)));
    core.ended(at(2_000), 0);
    core.connected(at(3_000), "token");
    receive(&mut core, 3_000, &[login_ok(11, 25_000)]);
    written(&mut core);
    assert_eq!(tick(&mut core, 3_000), [""; 0]);
}

#[test]
fn every_login_asks_for_the_heartbeat_that_is_wanted_and_what_was_agreed_is_kept() {
    let mut core = ClientCore::new(Device { id: DeviceId(3), last_seq: None, heartbeat_ms: 120_000 });
    for connection in 0..2 {
        core.connected(at(0), "token");
        let login = written(&mut core).concat();
        assert!(login.contains("heartbeat_ms: 120000"), "connection {connection}: {login}");
        receive(&mut core, 0, &[login_ok(0, 60_000)]);
        assert_eq!(core.session().heartbeat_ms(), 60_000);
        core.ended(at(0), 0);
    }
}

#[test]
fn what_is_sent_without_a_session_leaves_with_the_next_one() {
    let mut core = ClientCore::new(Device::new(DeviceId(3), None));
    core.send(at(0), TO, b"early", 5).unwrap();
    assert_eq!(core.output(), b"");
    core.connected(at(0), "token");
    receive(&mut core, 0, &[login_ok(0, 25_000)]);
    written(&mut core);
    assert_eq!(tick(&mut core, 0).len(), 1);
}

#[test]
fn what_was_kept_for_a_session_leaves_before_what_is_sent_when_there_is_one() {
    let mut core = ClientCore::new(Device::new(DeviceId(3), None));
    core.send(at(0), TO, b"first", 5).unwrap();
    core.connected(at(0), "token");
    written(&mut core);
    receive(&mut core, 0, &[login_ok(0, 25_000)]);
    // Before the next tick.
    core.send(at(0), TO, b"second", 6).unwrap();
    core.send_ephemeral(at(0), TO, b"third", 7).unwrap();
    let bodies: Vec<String> = written(&mut core).iter().map(|line| line.rsplit(' ').nth(1).unwrap().into()).collect();
    assert_eq!(bodies, ["first", "second", "third"]);
    assert_eq!(tick(&mut core, 0), [""; 0], "once");
}

#[test]
fn a_message_that_needs_a_new_name_waits_for_the_tick_though_another_is_sent() {
    let mut core = live();
    let request = core.send(at(0), TO, b"first", 5).unwrap();
    written(&mut core);
    receive(&mut core, 0, &[error(request.0, ErrorCode::ClientMsgIdAhead, 0)]);
    core.send(at(0), TO, b"second", 6).unwrap();
    assert_eq!(written(&mut core).len(), 1);
    let renamed = ClientMsgId::from_parts(SERVER_MS, 9);
    assert_eq!(tick(&mut core, 0), [format!("{request} send {renamed:?} first false")]);
}

#[test]
fn an_ephemeral_message_is_not_sent_again() {
    let mut core = live();
    core.send_ephemeral(at(0), TO, b"typing", 5).unwrap();
    assert!(written(&mut core)[0].ends_with("typing true"));
    core.ended(at(0), 0);
    core.connected(at(0), "token");
    receive(&mut core, 0, &[login_ok(10, 25_000)]);
    written(&mut core);
    assert_eq!(tick(&mut core, 0), [""; 0]);
}

#[test]
fn a_refused_message_leaves_again_at_its_time_under_its_name_though_that_lies_in_the_future() {
    let mut core = live();
    let request = core.send(at(0), TO, b"hello", 5).unwrap();
    let first = written(&mut core);
    receive(&mut core, 0, &[error(request.0, ErrorCode::RetryLater, 300)]);
    assert_eq!((core.unanswered().keeps(request), core.next_due_ms(at(0))), (true, Some(300)));
    assert_eq!(tick(&mut core, 299), [""; 0]);
    assert_eq!(tick(&mut core, 300), first);
    receive(&mut core, 400, &[error(request.0, ErrorCode::ClientMsgIdAhead, 0)]);
    assert_eq!(tick(&mut core, 400), [""; 0], "it may be stored: a new name would make two messages of it");
    assert_eq!(tick(&mut core, 2_400), first);
}

#[test]
fn rows_are_acknowledged_only_once_they_are_safe() {
    let mut core = live();
    receive(&mut core, 0, &[push(11), push(12)]);
    assert_eq!(tick(&mut core, 5_000), [""; 0]);
    core.stored(at(5_000), Seq(11));
    assert_eq!(tick(&mut core, 6_000), ["ack 11"]);
    core.stored(at(6_000), Seq(12));
    core.ack_now(at(6_000));
    assert_eq!(written(&mut core), ["ack 12"]);
}

#[test]
fn frames_are_understood_however_they_are_cut_and_the_front_of_one_dies_with_its_connection() {
    let mut core = live();
    let bytes = [push(11), push(12)].concat();
    let mut rows = 0;
    for byte in &bytes {
        rows += usize::from(core.receive(at(0), &mut &[*byte][..]).unwrap().is_some());
    }
    assert_eq!((rows, core.session().cursor()), (2, Seq(12)));
    core.receive(at(0), &mut &push(13)[..20]).unwrap();
    core.ended(at(0), 0);
    core.connected(at(0), "token");
    receive(&mut core, 0, &[login_ok(12, 25_000), push(13)]);
    assert_eq!(core.session().cursor(), Seq(13));
}

#[test]
fn a_body_that_would_be_refused_is_not_taken() {
    let mut core = live();
    assert_eq!(core.send(at(0), TO, b"", 5), Err(SendError::BodyLength(0)));
    let long = vec![0; BODY_BYTES_MAX + 1];
    assert_eq!(core.send_ephemeral(at(0), TO, &long, 5), Err(SendError::BodyLength(BODY_BYTES_MAX + 1)));
    assert!(core.output().is_empty() && core.unanswered().is_empty());
}

#[test]
fn a_frame_above_the_limit_and_a_goodbye_end_the_connection() {
    let mut core = live();
    assert!(matches!(core.receive(at(0), &mut &u32::MAX.to_le_bytes()[..]), Err(CoreError::Deframe(_))));
    let mut core = live();
    receive(&mut core, 0, &[closing(CloseReason::Draining, Some(1_000))]);
    assert_eq!(core.ended(at(500), 0), NextStep::Reconnect { at_ms: 1_500 });
}
