//! That a soak finds what goes wrong: between it and the gateway sits somebody who swallows one push, doubles another
//! and harms a third.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::spawn;

use ringway_wire::frame::read_server;
use ringway_wire::request::Reply;

use crate::gateway::Gateway;
use crate::soak::Soak;

/// What is done to a push.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deed {
    Swallow,
    Double,
    Harm,
}

/// Passes everything on in both directions, and does `deed` to one push.
fn meddler(gateway: SocketAddr, deed: Deed) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let pushes = Arc::new(AtomicU32::new(0));
    spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(gateway).unwrap();
            let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            spawn(move || {
                drop(std::io::copy(&mut from, &mut to));
                drop(to.shutdown(Shutdown::Both));
            });
            let pushes = Arc::clone(&pushes);
            spawn(move || pass_on(server, client, deed, &pushes));
        }
    });
    address
}

/// From the gateway to a client, frame by frame.
fn pass_on(mut from: TcpStream, mut to: TcpStream, deed: Deed, pushes: &AtomicU32) {
    const VICTIM: u32 = 20;
    let mut prefix = [0; 4];
    while from.read_exact(&mut prefix).is_ok() {
        let mut frame = prefix.to_vec();
        frame.resize(4 + u32::from_le_bytes(prefix) as usize, 0);
        if from.read_exact(&mut frame[4..]).is_err() {
            break;
        }
        let is_push = matches!(read_server(&frame), Ok((_, Reply::Push(_))));
        let chosen = is_push && pushes.fetch_add(1, Ordering::Relaxed) == VICTIM;
        let passed = match deed {
            Deed::Swallow if chosen => Ok(()),
            Deed::Double if chosen => to.write_all(&frame).and_then(|()| to.write_all(&frame)),
            Deed::Harm if chosen => {
                // The body is at the end, before at most three bytes of padding.
                let at = frame.len() - 8;
                frame[at] ^= 1;
                to.write_all(&frame)
            }
            _ => to.write_all(&frame),
        };
        if passed.is_err() {
            break;
        }
    }
    drop(to.shutdown(Shutdown::Both));
}

/// What the soak says of (lost, duplicated, out of order, corrupt).
fn found(deed: Deed) -> [u64; 4] {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "1"]);
    let target = meddler(gateway.addr(), deed);
    let line =
        format!("--target {target} --connections 40 --processes 2 --for 3s --groups 2x20 --rate 20/s --churn 0%");
    let soaked = Soak::run(dir.path(), &line);
    assert_eq!(soaked.code, 1, "{soaked}");
    // A busy machine sends fewer messages than were asked for.
    assert!(soaked.number("/deliveries/due") > 50, "{soaked}");
    ["/deliveries/lost", "/totals/duplicated", "/totals/out_of_order", "/totals/corrupt"]
        .map(|path| soaked.number(path))
}

#[test]
fn a_push_that_never_comes_is_a_loss() {
    // The client's next row shows it by its number, and the sender's next message by its.
    let [lost, duplicated, out_of_order, corrupt] = found(Deed::Swallow);
    assert_eq!([lost, duplicated, corrupt], [1, 0, 0]);
    assert!((1..=2).contains(&out_of_order), "{out_of_order}");
}

#[test]
fn a_push_that_comes_twice_is_found() {
    assert_eq!(found(Deed::Double), [0, 1, 0, 0]);
}

#[test]
fn a_push_that_was_harmed_is_found_and_was_not_delivered() {
    let [lost, duplicated, _, corrupt] = found(Deed::Harm);
    assert_eq!([lost, duplicated, corrupt], [1, 0, 1]);
}
