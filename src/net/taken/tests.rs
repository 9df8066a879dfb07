#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::net::{TcpListener, TcpStream};

use socket2::{Domain, Socket, Type};

use super::*;
use crate::net::listener::{ListenError, bind};

const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

fn check(lines: &str, address: &str, expected: Option<&str>) {
    let found = outgoing(&format!("{HEAD}{lines}"), address.parse().unwrap());
    assert_eq!(found, expected.map(|peer| peer.parse().unwrap()), "{address} in {lines}");
}

#[test]
#[cfg(target_endian = "little")]
fn a_connection_has_a_port_only_where_nobody_listens() {
    let connection = "   1: 0100007F:1CE8 0200007F:01BB 01 00000000:00000000 00:00000000 00000000     0        0 1\n";
    let listener = "   0: 0100007F:1CE8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1\n";
    check(connection, "127.0.0.1:7400", Some("127.0.0.2:443"));
    check(connection, "0.0.0.0:7400", Some("127.0.0.2:443"));
    check(connection, "127.0.0.1:7401", None);
    check(connection, "127.0.0.3:7400", None);
    check(&format!("{connection}{listener}"), "127.0.0.1:7400", None);
    check("", "127.0.0.1:7400", None);
    check("   1: 0100007F 0200007F:01BB 01\n   2: 01007F:1CE8 x 01\n", "127.0.0.1:7400", None);
    let ended = "   2: 0100007F:1CE8 0300007F:01BB 06 00000000:00000000 03:00000A00 00000000     0        0 0\n";
    check(&format!("{ended}{connection}"), "127.0.0.1:7400", Some("127.0.0.2:443"));
    check(ended, "127.0.0.1:7400", Some("127.0.0.3:443"));
    let mapped = "   1: 0000000000000000FFFF00000100007F:1CE8 0000000000000000FFFF00000200007F:01BB 01 0 0\n";
    check(mapped, "127.0.0.1:7400", Some("127.0.0.2:443"));
}

#[test]
fn a_port_that_an_outgoing_connection_has_is_not_said_to_be_listened_on() {
    // Addresses that no other test has connections from: a port may have several, to several peers.
    let far = TcpListener::bind("127.83.19.7:0").unwrap();
    let near = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    near.bind(&SocketAddr::from(([127, 83, 19, 8], 0)).into()).unwrap();
    near.connect(&far.local_addr().unwrap().into()).unwrap();
    let near = TcpStream::from(near);
    let error = bind(near.local_addr().unwrap(), 1).unwrap_err();
    let said = error.to_string();
    assert!(matches!(error, ListenError::Outgoing { .. }), "{said}");
    for words in ["outgoing connection", &far.local_addr().unwrap().to_string(), "--listen", "ip_local_reserved_ports"]
    {
        assert!(said.contains(words), "{said}");
    }
    let error = bind(far.local_addr().unwrap(), 1).unwrap_err();
    assert!(matches!(error, ListenError::InUse { .. }), "{error}");
}
