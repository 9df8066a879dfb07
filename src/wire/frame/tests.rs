#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;
use crate::ids::RosterVersion;

#[test]
fn what_the_encoder_makes_is_read_back() {
    let mut encoder = Encoder::new();
    let (id, request) = read_client(encoder.login(7, "token", DeviceId(3), Some(Seq(0)))).unwrap();
    assert!(
        matches!(request, Request::Login { token: "token", device: DeviceId(3), last_seq: Some(Seq(0)) }) && id == 7
    );
    let reply = read_server(encoder.group_ok(9, GroupId(1), RosterVersion(2))).unwrap();
    assert!(matches!(reply, (9, Reply::GroupOk { group: GroupId(1), version: 2 })));
}
