//! The log line of a closed connection, at `debug`.
//!
//! Written by the shard's thread, which closes connections and not messages: at `info` no close is even listed.
//! What always holds: the reason has the name that it has on the wire and as a metric's label.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use socket2::SockRef;
use tracing::{Level, debug, enabled};

use crate::contract::ids::ShardId;
use crate::shard::effects::Closed;
use ringway_wire::request::reason_name;
use ringway_wire::schema::CloseReason;

/// Whether anybody reads these lines. The level is set once, before shards start.
pub(crate) fn are_logged() -> bool {
    enabled!(Level::DEBUG)
}

/// A connection was closed; `socket` is its own, if it is still there.
pub(crate) fn log(closed: &Closed, shard: ShardId, socket: Option<&OwnedFd>) {
    let peer = socket.and_then(peer);
    let (reason, who) = (reason_name(closed.reason), closed.who);
    debug!(
        shard = shard.0,
        reason,
        session = who.map(|who| who.session),
        user = who.map(|who| who.user.0),
        device = who.map(|who| who.device.0),
        peer = peer.map(tracing::field::display),
        because = closed.fault.map(tracing::field::display),
        "closed"
    );
}

/// A peer was refused before it was a connection.
pub(crate) fn log_refused(reason: CloseReason, shard: ShardId, socket: &OwnedFd) {
    if are_logged() {
        debug!(
            shard = shard.0,
            reason = reason_name(reason),
            peer = peer(socket).map(tracing::field::display),
            "refused"
        );
    }
}

/// Whose the other end is; a connection that was reset has none any more.
pub(crate) fn peer(socket: &OwnedFd) -> Option<SocketAddr> {
    let peer = SockRef::from(socket).peer_addr().ok()?.as_socket()?;
    // An IPv4 address, also where the listener takes both kinds.
    Some(SocketAddr::new(peer.ip().to_canonical(), peer.port()))
}

#[cfg(test)]
mod tests;
