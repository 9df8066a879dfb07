//! Heartbeats over real sockets: a login that asks for a longer one is not closed for being silent.

use ringway_client::Event;
use ringway_wire::frame::Encoder;
use ringway_wire::ids::DeviceId;
use ringway_wire::request::Login;
use ringway_wire::schema::CloseReason;

use crate::connection::Connection;
use crate::gateway::{Gateway, PATIENCE, token};

#[test]
fn a_silent_client_that_asked_for_a_longer_heartbeat_outlives_one_that_did_not() {
    let dir = tempfile::tempdir().unwrap();
    let gateway =
        Gateway::start(dir.path(), &["--set", "session.heartbeat_s=1", "--set", "session.heartbeat_max_s=600"]);
    let mut patient = Connection::connect(gateway.addr(), PATIENCE).unwrap();
    let login = Login { token: &token(1, 1), device: DeviceId(1), cursor: None, heartbeat_ms: 3_600_000 };
    patient.send_raw(Encoder::new().login_as(1, &login)).unwrap();
    let Some(Event::LoggedIn(info)) = patient.next(PATIENCE).unwrap() else { panic!("no LoginOk") };
    assert_eq!(info.heartbeat_ms, 600_000, "an hour was asked for, ten minutes are the most");

    let mut usual = gateway.client(2, 1, None);
    assert_eq!(usual.session().unwrap().heartbeat_ms, 1_000);
    let Some(Event::Closing { reason, .. }) = usual.next(PATIENCE).unwrap() else { panic!("no Closing") };
    assert_eq!(reason, CloseReason::HeartbeatTimeout);
    patient.send_raw(Encoder::new().ping(2)).unwrap();
    assert!(matches!(patient.next(PATIENCE).unwrap(), Some(Event::Pong { .. })));
}
