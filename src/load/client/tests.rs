#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::net::TcpListener;

use super::*;
use ringway_wire::frame::PushFrame;

const SOON: Duration = Duration::from_secs(5);
const NOW: Duration = Duration::from_millis(1);

/// A client, and the gateway's end of its connection.
fn pair() -> (Client, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Client::connect(listener.local_addr().unwrap(), SOON).unwrap();
    let (gateway, _) = listener.accept().unwrap();
    (client, gateway)
}

fn push(seq: u64) -> Vec<u8> {
    let push = PushFrame::encode(MsgId(100 + seq), UserId(7), Conversation::User(UserId(1)), 5, b"hello");
    let mut bytes = push.bytes().to_vec();
    bytes[push.seq_at()..push.seq_at() + 8].copy_from_slice(&seq.to_le_bytes());
    bytes
}

fn login_ok(request: u32, from: u64) -> Vec<u8> {
    Encoder::new().login_ok(request, 1, UserId(1), 1_700_000_000_000, 30_000, Seq(from), Seq(from)).to_vec()
}

/// A client logged in with its cursor at 10.
fn logged_in() -> (Client, TcpStream) {
    let (mut client, mut gateway) = pair();
    gateway.write_all(&login_ok(1, 10)).unwrap();
    let info = client.login("token", DeviceId(1), None, SOON).unwrap();
    assert_eq!((info.user, info.from_seq, client.cursor()), (UserId(1), Seq(10), Seq(10)));
    (client, gateway)
}

#[test]
fn rows_come_once_and_in_order_however_often_they_are_sent() {
    let (mut client, mut gateway) = logged_in();
    for seq in [11, 12, 11, 12, 9, 13] {
        gateway.write_all(&push(seq)).unwrap();
    }
    for due in [11, 12, 13] {
        assert!(matches!(client.next(SOON).unwrap(), Some(Said::Row(row)) if row.seq == Seq(due)));
    }
    assert_eq!(client.next(NOW).unwrap(), None);
    assert_eq!(client.cursor(), Seq(13));
}

#[test]
fn a_row_that_skips_one_is_an_error() {
    let (mut client, mut gateway) = logged_in();
    gateway.write_all(&push(12)).unwrap();
    let error = client.next(SOON).unwrap_err();
    assert!(matches!(error, ClientError::OutOfOrder { expected: Seq(11), got: Seq(12) }), "{error}");
}

#[test]
fn rows_that_are_no_longer_kept_are_passed_over_when_the_gateway_says_so() {
    let (mut client, mut gateway) = logged_in();
    gateway.write_all(Encoder::new().gap(Seq(11), Seq(20))).unwrap();
    gateway.write_all(&push(21)).unwrap();
    assert_eq!(client.next(SOON).unwrap(), Some(Said::Gap { from: Seq(11), to: Seq(20) }));
    assert!(matches!(client.next(SOON).unwrap(), Some(Said::Row(row)) if row.seq == Seq(21)));
}

#[test]
fn a_send_ok_is_the_senders_row_only_in_its_place() {
    let (mut client, mut gateway) = logged_in();
    let mut encoder = Encoder::new();
    gateway.write_all(encoder.send_ok(2, MsgId(1), Seq(12), 5, false)).unwrap();
    gateway.write_all(&push(11)).unwrap();
    gateway.write_all(&push(12)).unwrap();
    gateway.write_all(encoder.send_ok(3, MsgId(2), Seq(13), 5, false)).unwrap();
    assert!(matches!(client.next(SOON).unwrap(), Some(Said::Sent { row: false, request: 2, .. })));
    assert!(matches!(client.next(SOON).unwrap(), Some(Said::Row(row)) if row.seq == Seq(11)));
    assert!(matches!(client.next(SOON).unwrap(), Some(Said::Row(row)) if row.seq == Seq(12)));
    assert!(matches!(client.next(SOON).unwrap(), Some(Said::Sent { row: true, request: 3, .. })));
    assert_eq!(client.cursor(), Seq(13));
}

#[test]
fn frames_are_understood_however_they_are_cut() {
    let (mut client, mut gateway) = logged_in();
    for byte in push(11).iter().chain(&push(12)) {
        gateway.write_all(&[*byte]).unwrap();
        gateway.flush().unwrap();
    }
    assert!(matches!(client.next(SOON).unwrap(), Some(Said::Row(row)) if row.body == b"hello"));
    assert!(matches!(client.next(SOON).unwrap(), Some(Said::Row(row)) if row.seq == Seq(12)));
}

#[test]
fn an_answer_is_found_among_pushes_which_stay_for_later() {
    let (mut client, mut gateway) = logged_in();
    gateway.write_all(&push(11)).unwrap();
    gateway.write_all(Encoder::new().group_ok(2, GroupId(9), ringway_wire::ids::RosterVersion(1))).unwrap();
    assert_eq!(client.group_create(&[UserId(2)], SOON).unwrap(), (GroupId(9), 1));
    assert!(matches!(client.next(SOON).unwrap(), Some(Said::Row(row)) if row.seq == Seq(11)));
}

#[test]
fn a_refusal_and_a_goodbye_are_told_apart() {
    let (mut client, mut gateway) = logged_in();
    let mut encoder = Encoder::new();
    gateway.write_all(encoder.error(2, ErrorCode::NotAMember, "no", 0, 0)).unwrap();
    let refused = client.group_leave(GroupId(9), SOON).unwrap_err();
    assert!(matches!(refused, ClientError::Refused { code: ErrorCode::NotAMember, .. }), "{refused}");
    gateway.write_all(encoder.closing(CloseReason::Draining, "later", Some(250), 0)).unwrap();
    let closing = client.group_leave(GroupId(9), SOON).unwrap_err();
    assert!(matches!(closing, ClientError::Closing { reconnect_after_ms: Some(250), .. }), "{closing}");
    drop(gateway);
    assert!(matches!(client.next(SOON).unwrap_err(), ClientError::Closed));
}

#[test]
fn silence_is_a_time_out_and_nonsense_is_an_error() {
    let (mut client, mut gateway) = logged_in();
    assert!(matches!(client.group_list(NOW).unwrap_err(), ClientError::TimedOut(_)));
    gateway.write_all(&[4, 0, 0, 0, 1, 2, 3, 4]).unwrap();
    assert!(matches!(client.next(SOON).unwrap_err(), ClientError::Frame(_)));
    let (mut client, mut gateway) = logged_in();
    gateway.write_all(&u32::MAX.to_le_bytes()).unwrap();
    assert!(matches!(client.next(SOON).unwrap_err(), ClientError::FrameTooLarge(_)));
}

#[test]
fn message_names_are_made_in_the_servers_time() {
    let (client, _gateway) = logged_in();
    let ms = client.new_client_msg_id().unix_ms().unwrap();
    assert!((1_700_000_000_000..1_700_000_060_000).contains(&ms), "{ms}");
}
