#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::net::TcpListener;
use std::thread;

use super::*;
use crate::server::{Asked, Peer, push, send_ok};

const TO: Conversation = Conversation::User(UserId(2));

fn run<T>(test: impl Future<Output = T>) -> T {
    ::tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

#[test]
fn a_lost_connection_is_made_again_and_what_had_no_answer_is_sent_under_its_first_name() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let gateway = thread::spawn(move || {
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
    run(async {
        let mut client = Client::connect(address, "token", DeviceId(1), Some(Seq(10))).await.unwrap();
        let request = client.send(TO, b"hello").unwrap();
        let sent = client.wait_sent(request).await.unwrap();
        assert!(matches!(sent, Event::Sent { row: true, seq: Seq(12), .. }));
        let mut rows = Vec::new();
        while rows.last() != Some(&Seq(12)) {
            rows.extend(client.next().await.unwrap().stored());
        }
        assert_eq!(rows, [Seq(11), Seq(12)]);
    });
    let (first, login, again) = gateway.join().unwrap();
    assert_eq!(login, Asked::Login { token: "token".to_owned(), last_seq: Some(Seq(11)) });
    assert_eq!(first, again);
}

#[test]
fn a_wait_that_is_given_up_loses_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let gateway = thread::spawn(move || {
        let (mut peer, _) = Peer::logged_in(&listener, 10);
        let Asked::Send { id, .. } = peer.asked() else { panic!("no message") };
        peer.say(&send_ok(id, 11));
        peer
    });
    run(async {
        let mut client = Client::connect(address, "token", DeviceId(1), Some(Seq(10))).await.unwrap();
        assert!(matches!(client.next().await.unwrap(), Event::LoggedIn(_)));
        assert!(timeout(Duration::ZERO, client.next()).await.is_err());
        client.send(TO, b"hello").unwrap();
        while let Err(_elapsed) = timeout(Duration::from_millis(1), client.next()).await {}
        assert_eq!(client.cursor(), Seq(11));
    });
    drop(gateway.join());
}
