//! The log line of a closed connection, at `debug`.
//!
//! Written by the shard's thread, which closes connections and not messages: at `info` no close is even listed.
//! What always holds: the reason has the name that it has on the wire and as a metric's label.

use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, RawFd};

use socket2::SockRef;
use tracing::{Level, debug, enabled};

use crate::contract::ids::ShardId;
use crate::shard::effects::Closed;
use ringway_wire::request::reason_name;
use ringway_wire::schema::CloseReason;

/// Whether anybody reads these lines. The level is set once, before shards start.
pub fn are_told() -> bool {
    enabled!(Level::DEBUG)
}

/// A connection was closed; `descriptor` is its socket, if it is still there.
pub fn tell(closed: &Closed, shard: ShardId, descriptor: Option<RawFd>) {
    let peer = descriptor.and_then(peer);
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
pub fn tell_refused(reason: CloseReason, shard: ShardId, descriptor: RawFd) {
    if are_told() {
        debug!(
            shard = shard.0,
            reason = reason_name(reason),
            peer = peer(descriptor).map(tracing::field::display),
            "refused"
        );
    }
}

/// Whose the other end is; a connection that was reset has none any more.
fn peer(descriptor: RawFd) -> Option<SocketAddr> {
    // SAFETY: the caller's socket is open as long as its seat is taken, or the caller owns it; it is only asked.
    let socket = unsafe { BorrowedFd::borrow_raw(descriptor) };
    SockRef::from(&socket).peer_addr().ok()?.as_socket()
}

#[cfg(test)]
mod tests;
