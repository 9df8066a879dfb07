//! Sockets that are opened and say nothing: they take nobody's place.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use ringway_client::Event;
use ringway_wire::ids::{Conversation, DeviceId, UserId};
use ringway_wire::schema::CloseReason;
use socket2::{Domain, Socket, Type};

use crate::connection::Connection;
use crate::descriptors::{choose_port_at_connect, metric, raise_own_limit, take_own_descriptors};
use crate::gateway::{Gateway, PATIENCE, token};

/// A socket that is connected from 127.0.0.`source` and says nothing.
fn silent(addr: SocketAddr, source: u8) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    choose_port_at_connect(&socket);
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, source), 0)).into()).unwrap();
    socket.connect_timeout(&addr.into(), PATIENCE).unwrap();
    socket.into()
}

fn exchange(gateway: &Gateway, ann: &mut Connection, bob: &mut Connection) {
    let name = ann.new_client_msg_id();
    let request = ann.send(Conversation::User(UserId(2)), name, b"hello").unwrap();
    assert!(matches!(ann.answer(request, PATIENCE).unwrap(), Event::Sent { .. }), "{}", gateway.log());
    assert!(matches!(bob.next(PATIENCE).unwrap(), Some(Event::Row(_))));
}

#[test]
fn silent_sockets_take_no_place_of_those_who_log_in() {
    let dir = tempfile::tempdir().unwrap();
    let settings = ["--shards", "2", "--set", "limits.connections_max=20", "--set", "session.login_timeout_s=600"];
    let gateway = Gateway::start(dir.path(), &settings);
    let _silent: Vec<TcpStream> = (0..300).map(|_| silent(gateway.addr(), 1)).collect();
    // Each of the two shards has a little more than its half.
    let _clients: Vec<Connection> = (1..=10).map(|user| gateway.client(user, 1, None)).collect();
    assert_eq!(metric(&gateway, "ringway_shed_total", "what=\"connections\""), 0);
}

#[test]
fn an_address_at_its_limit_loses_its_oldest_and_others_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let settings =
        ["--shards", "1", "--set", "limits.unauthenticated_per_address_max=10", "--set", "session.login_timeout_s=600"];
    let mut gateway = Gateway::start(dir.path(), &settings);
    let mut other = Connection::over(silent(gateway.addr(), 2)).unwrap();
    let mut crowd: Vec<Connection> = (0..30).map(|_| Connection::over(silent(gateway.addr(), 1)).unwrap()).collect();
    for oldest in &mut crowd[..20] {
        match oldest.next(PATIENCE) {
            Ok(Some(Event::Closing { reason: CloseReason::Overloaded, .. })) => {}
            other => panic!("{other:?}"),
        }
    }
    // Those that came last, and the one from elsewhere, may still log in.
    other.login(&token(50, 1), DeviceId(1), None, PATIENCE).unwrap();
    for (at, client) in crowd[20..].iter_mut().enumerate() {
        client.login(&token(100 + at as u64, 1), DeviceId(1), None, PATIENCE).unwrap();
    }
    gateway.wait_until("the closes are counted", |gateway| {
        metric(gateway, "ringway_shed_total", "what=\"connections_per_address\"") == 20
    });
}

/// Sockets in a table of descriptors of their own.
struct Crowd {
    end: Sender<()>,
    thread: JoinHandle<()>,
}

impl Crowd {
    fn open(addr: SocketAddr, source: u8, count: usize) -> Crowd {
        let (end, ended) = channel::<()>();
        let (opened, all_opened) = channel();
        let thread = std::thread::spawn(move || {
            take_own_descriptors();
            let sockets: Vec<TcpStream> = (0..count).map(|_| silent(addr, source)).collect();
            opened.send(()).unwrap();
            ended.recv().ok();
            drop(sockets);
        });
        all_opened.recv_timeout(PATIENCE * 4).unwrap();
        Crowd { end, thread }
    }
}

#[test]
fn as_many_silent_sockets_as_there_are_descriptors_and_more_keep_no_client_out() {
    const DESCRIPTORS: usize = 12_000;
    const PER_ADDRESS: usize = 8_000;
    raise_own_limit();
    let dir = tempfile::tempdir().unwrap();
    let limit = format!("--nofile={DESCRIPTORS}");
    let settings = ["--shards", "2", "--set", "limits.unauthenticated_per_address_max=20000"];
    let mut command = Gateway::command_under("prlimit", &[&limit], dir.path(), &settings);
    let gateway = Gateway::spawn(dir.path(), command.env("RINGWAY_SESSION_LOGIN_TIMEOUT_S", "600"));
    let (mut ann, mut bob) = (gateway.client(1, 1, None), gateway.client(2, 1, None));
    let mut crowds = Vec::new();
    for source in 2..5 {
        crowds.push(Crowd::open(gateway.addr(), source, PER_ADDRESS));
        exchange(&gateway, &mut ann, &mut bob);
        for user in 0..20 {
            let user = u64::from(source) * 100 + user;
            // At the very limit one may be told to come again in a moment, and does.
            gateway.returning_client(user, 1, None);
        }
    }
    exchange(&gateway, &mut ann, &mut bob);
    for Crowd { end, thread } in crowds {
        drop(end);
        thread.join().unwrap();
    }
}
