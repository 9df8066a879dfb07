//! Who has a port that nobody listens on: a connection of this host to somewhere else, to which the kernel gave it.
//!
//! Asked on the main thread when an address cannot be bound. What always holds: what cannot be read or understood is
//! no answer.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The kernel's lists of sockets.
const LISTS: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
/// The number of a state in them: the connection stands.
const ESTABLISHED: &str = "01";
/// Somebody listens.
const LISTENS: &str = "0A";

/// The other end of the connection that has this address, if nobody listens there.
pub(super) fn by_outgoing(address: SocketAddr) -> Option<SocketAddr> {
    let texts: Vec<String> = LISTS.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    outgoing(&texts.concat(), address)
}

fn outgoing(text: &str, address: SocketAddr) -> Option<SocketAddr> {
    // One that stands says more than what is left of one that has ended.
    let (mut standing, mut ended) = (None, None);
    for line in text.lines() {
        let mut columns = line.split_whitespace().skip(1);
        let (Some(local), Some(remote), Some(state)) = (columns.next(), columns.next(), columns.next()) else {
            continue;
        };
        let (Some(local), Some(remote)) = (socket_address(local), socket_address(remote)) else { continue };
        if !overlap(local, address) {
            continue;
        }
        match state {
            LISTENS => return None,
            ESTABLISHED => standing = standing.or(Some(remote)),
            _ => ended = ended.or(Some(remote)),
        }
    }
    standing.or(ended)
}

/// Whether one address cannot be bound because of the other.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (ip, other_ip) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() == other.port() && (ip == other_ip || ip.is_unspecified() || other_ip.is_unspecified())
}

/// `0100007F:1CE8`: words of 32 bits, each as the machine has it in memory, and the port.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |at: usize| Some(u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(at)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip.to_canonical(), u16::from_str_radix(port, 16).ok()?))
}
