//! Peers that are refused: told why, and given a moment to read it.
//!
//! Owned by the shell of one shard. What always holds: a refused peer's socket is kept a little, so that what it has
//! sent meanwhile does not reset the connection before it has read why; few are kept, and none when descriptors are
//! short.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::resource::{Resource, getrlimit};
use rustix::net::{RecvFlags, Shutdown, recv, send, shutdown};

use crate::clock::Now;
use crate::limits::DESCRIPTORS_FREE_ALWAYS;
use crate::net::closes;
use crate::net::outlets::ShardOutlets;
use crate::net::outlets::write::{LINGER_MS, SEND_FLAGS};
use ringway_wire::schema::CloseReason;

/// Sockets that are kept; above it the oldest is closed.
const KEPT_MAX: usize = 64;

/// Sockets of refused peers, with the time at which they are closed.
#[derive(Debug)]
pub struct Refused {
    kept: VecDeque<(u64, OwnedFd)>,
    /// How many descriptors the process might have when that was looked at last.
    descriptors_max: u64,
}

impl Default for Refused {
    fn default() -> Refused {
        Refused { kept: VecDeque::new(), descriptors_max: descriptors_max() }
    }
}

impl Refused {
    /// Looks how many descriptors the process may have now. Before connections are let in, for all that come together
    /// may be more than there is room for, long before the next tick.
    pub(in crate::net) fn look_at_limit(&mut self) {
        self.descriptors_max = descriptors_max();
    }

    /// Whether so many more descriptors can be opened after this one. The kernel gives out the lowest number that is
    /// free, so a number near the limit says that nearly all below it are taken, whoever has them.
    pub(in crate::net) fn leaves_free(&self, socket: &OwnedFd, count: u64) -> bool {
        u64::try_from(socket.as_raw_fd()).is_ok_and(|number| number < self.descriptors_max.saturating_sub(count))
    }
}

impl ShardOutlets {
    /// Tells a peer why it is refused, in these bytes, and shuts our side.
    pub(in crate::net) fn refuse_peer(&mut self, now: Now, socket: OwnedFd, reason: CloseReason, last: &[u8]) {
        closes::log_refused(reason, self.shard, &socket);
        // A fresh socket takes a small frame; one that does not is broken.
        send(&socket, last, SEND_FLAGS).ok();
        shutdown(&socket, Shutdown::Write).ok();
        if !self.refused.leaves_free(&socket, DESCRIPTORS_FREE_ALWAYS) {
            return self.discard_unread(&socket);
        }
        if self.refused.kept.len() >= KEPT_MAX
            && let Some((_, oldest)) = self.refused.kept.pop_front()
        {
            self.discard_unread(&oldest);
        }
        self.refused.kept.push_back((now.mono_ms + LINGER_MS, socket));
    }

    /// A tick: closes those whose time is up.
    pub(in crate::net) fn close_refused(&mut self, now: Now) {
        while self.refused.kept.front().is_some_and(|(until, _)| *until <= now.mono_ms)
            && let Some((_, socket)) = self.refused.kept.pop_front()
        {
            self.discard_unread(&socket);
        }
    }

    /// Throws away what a socket has received before it is closed: with that unread, closing would reset the connection.
    fn discard_unread(&mut self, socket: &OwnedFd) {
        // Whether there was anything does not matter.
        recv(socket, &mut self.read_buffer[..], RecvFlags::DONTWAIT).ok();
    }
}

/// How many descriptors the process may have now: an operator may change that while it runs.
fn descriptors_max() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}
