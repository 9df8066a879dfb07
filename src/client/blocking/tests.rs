#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::net::TcpListener;
use std::thread;

use super::*;
use crate::server::{Asked, Peer, closing, error, push, send_ok};
use crate::{CloseReason, ErrorCode};

const SOON: Duration = Duration::from_secs(20);
const NOW: Duration = Duration::from_millis(1);
const TO: Conversation = Conversation::User(UserId(2));

/// A client of a gateway that plays this script.
fn with<T: Send + 'static>(script: impl FnOnce(TcpListener) -> T + Send + 'static) -> (Client, thread::JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let gateway = thread::spawn(move || script(listener));
    (Client::connect(address, "token", DeviceId(1), Some(Seq(10))).unwrap(), gateway)
}

fn next(client: &mut Client) -> Event {
    client.next(SOON).unwrap().unwrap()
}

/// The next event that is no message about the connection.
fn next_of_inbox(client: &mut Client) -> Event {
    loop {
        match next(client) {
            Event::LoggedIn(_) | Event::Disconnected { .. } => {}
            event => return event,
        }
    }
}

#[test]
fn a_lost_connection_is_made_again_and_what_had_no_answer_is_sent_under_its_first_name() {
    let (mut client, gateway) = with(|listener| {
        let (mut peer, _) = Peer::logged_in(&listener, 10);
        let first = peer.asked();
        peer.say(&push(11));
        drop(peer);
        let (mut peer, login) = Peer::logged_in(&listener, 11);
        let again = peer.asked();
        let Asked::Send { id, .. } = again else { panic!("{again:?}") };
        peer.say(&send_ok(id, 12));
        (first, login, again)
    });
    let request = client.send(TO, b"hello").unwrap();
    assert!(matches!(next_of_inbox(&mut client), Event::Row(row) if row.seq == Seq(11)));
    let sent = client.wait_sent(request, SOON).unwrap();
    assert!(matches!(sent, Event::Sent { row: true, seq: Seq(12), .. }));
    assert_eq!(next_of_inbox(&mut client), sent, "it is the inbox's row too");
    let (first, login, again) = gateway.join().unwrap();
    assert_eq!(login, Asked::Login { token: "token".to_owned(), last_seq: Some(Seq(11)) });
    assert_eq!((first, client.cursor(), client.unanswered()), (again, Seq(12), 0));
}

#[test]
fn a_row_is_acknowledged_once_the_caller_comes_back_for_the_next() {
    let (mut client, gateway) = with(|listener| {
        let (mut peer, _) = Peer::logged_in(&listener, 10);
        peer.say(&[push(11), push(12)].concat());
        let asked = peer.asked();
        (asked, peer)
    });
    assert!(matches!(next_of_inbox(&mut client), Event::Row(row) if row.seq == Seq(11)));
    assert!(matches!(next_of_inbox(&mut client), Event::Row(row) if row.seq == Seq(12)));
    assert_eq!(client.next(Duration::from_millis(1_500)).unwrap(), None);
    assert_eq!(gateway.join().unwrap().0, Asked::Ack(Seq(12)));
}

#[test]
fn an_answer_is_found_among_rows_which_stay_for_later() {
    let (mut client, gateway) = with(|listener| {
        let (mut peer, _) = Peer::logged_in(&listener, 10);
        let Asked::Other(id) = peer.asked() else { panic!("no question") };
        peer.say(&push(11));
        peer.say(&error(id, ErrorCode::NotAMember, 0));
        peer
    });
    let refused = client.group_leave(GroupId(9), SOON).unwrap_err();
    assert!(matches!(refused, ClientError::Refused { code: ErrorCode::NotAMember, .. }), "{refused}");
    assert!(matches!(next_of_inbox(&mut client), Event::Row(row) if row.seq == Seq(11)));
    drop(gateway.join());
}

#[test]
fn a_question_dies_with_its_connection() {
    let (mut client, gateway) = with(|listener| {
        let (mut peer, _) = Peer::logged_in(&listener, 10);
        peer.asked();
        listener
    });
    assert!(matches!(client.group_list(SOON).unwrap_err(), ClientError::Lost(Cause::Closed)));
    drop(gateway.join());
}

#[test]
fn an_expired_token_ends_the_session_until_there_is_another() {
    let (mut client, gateway) = with(|listener| {
        let (mut peer, _) = Peer::logged_in(&listener, 10);
        peer.say(&closing(CloseReason::TokenExpired, None));
        drop(peer);
        Peer::logged_in(&listener, 10)
    });
    assert!(matches!(next(&mut client), Event::LoggedIn(_)));
    let ended = client.next(SOON).unwrap_err();
    assert!(matches!(ended, ClientError::Ended(Cause::Closing { reason: CloseReason::TokenExpired, .. })), "{ended}");
    assert!(client.next(NOW).is_err(), "it stays so");
    client.set_token("new");
    assert!(matches!(next(&mut client), Event::LoggedIn(_)));
    let (_peer, login) = gateway.join().unwrap();
    assert_eq!(login, Asked::Login { token: "new".to_owned(), last_seq: Some(Seq(10)) });
}

#[test]
fn a_message_refused_for_now_is_told_and_sent_again() {
    let (mut client, gateway) = with(|listener| {
        let (mut peer, _) = Peer::logged_in(&listener, 10);
        let Asked::Send { id, name } = peer.asked() else { panic!("no message") };
        peer.say(&error(id, ErrorCode::StorageFull, 20));
        let again = peer.asked();
        peer.say(&send_ok(id, 11));
        assert_eq!(again, Asked::Send { id, name });
        peer
    });
    let request = client.send(TO, b"hello").unwrap();
    assert!(matches!(client.wait_sent(request, SOON).unwrap(), Event::Sent { .. }));
    let delayed = next_of_inbox(&mut client);
    assert!(matches!(delayed, Event::Delayed { code: ErrorCode::StorageFull, .. }), "{delayed:?}");
    drop(gateway.join());
}

#[test]
fn a_logout_acknowledges_what_was_handed_out() {
    let (mut client, gateway) = with(|listener| {
        let (mut peer, _) = Peer::logged_in(&listener, 10);
        peer.say(&push(11));
        let ack = peer.asked();
        peer.asked();
        peer.say(&push(12));
        peer.say(&closing(CloseReason::LoggedOut, None));
        ack
    });
    assert!(matches!(next_of_inbox(&mut client), Event::Row(_)));
    let rest = client.logout(SOON);
    assert!(matches!(rest.as_slice(), [Event::Row(row)] if row.seq == Seq(12)), "{rest:?}");
    assert_eq!(gateway.join().unwrap(), Asked::Ack(Seq(11)));
}

#[test]
fn a_first_connection_that_fails_is_an_error_at_once() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let failed = Client::connect(nobody, "token", DeviceId(1), None).unwrap_err();
    assert_eq!(failed, ClientError::Lost(Cause::Io(ErrorKind::ConnectionRefused)));
    assert!(Client::connect("no port in this", "token", DeviceId(1), None).is_err());
}
