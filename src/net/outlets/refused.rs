//! Peers that are refused: told why, and given a moment to read it.
//!
//! Owned by the shell of one shard. What always holds: a peer that speaks HTTP is told in HTTP; a refused peer's socket is kept a little, so that what it has
//! sent meanwhile does not reset the connection before it has read why; few are kept, and none when descriptors are
//! short.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::resource::{Resource, getrlimit};
use rustix::net::{RecvFlags, Shutdown, recv, send, shutdown};

use crate::clock::Now;
use crate::limits::{DESCRIPTORS_FREE_ALWAYS, DESCRIPTORS_FREE_OF_CLIENTS};
use crate::net::closes;
use crate::net::outlets::ShardOutlets;
use crate::net::outlets::write::{LINGER_MS, SEND_FLAGS};
use crate::shard::Shard;
use ringway_wire::schema::CloseReason;
use ringway_wire::websocket::looks_like_http;

/// Sockets that are kept; above it the oldest is closed.
const KEPT_MAX: usize = 64;
/// As many bytes as tell HTTP and frames apart.
const FIRST_BYTES: usize = 4;

/// Sockets of refused peers.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The oldest first.
    kept: VecDeque<Kept>,
    /// How many descriptors the process might have when that was looked at last.
    descriptors_max: u64,
    /// Until when descriptors count as short.
    short_until_ms: u64,
}

/// A refused peer's socket.
#[derive(Debug)]
struct Kept {
    /// When it is closed.
    until_ms: u64,
    socket: OwnedFd,
    /// What it has not been told yet, because it has not shown how it speaks.
    unanswered: Option<CloseReason>,
}

/// In which words a peer is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Speech {
    Frames,
    Http,
    /// It has not said enough.
    Unknown,
}

impl Default for Refused {
    fn default() -> Refused {
        Refused { kept: VecDeque::new(), descriptors_max: descriptors_max(), short_until_ms: 0 }
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
    /// Whether there is a descriptor for somebody who has just come. Where there are few, those go who came before and have
    /// not logged in, and the newcomer has what is kept for hand-overs meanwhile.
    pub(in crate::net) fn has_descriptor_for_newcomer(&mut self, core: &mut Shard, now: Now, socket: &OwnedFd) -> bool {
        if self.refused.leaves_free(socket, DESCRIPTORS_FREE_OF_CLIENTS) {
            return true;
        }
        self.refused.short_until_ms = now.mono_ms + LINGER_MS;
        core.make_room_for_descriptors(now) > 0 && self.refused.leaves_free(socket, DESCRIPTORS_FREE_ALWAYS)
    }

    /// Descriptors were short a moment ago: no socket is kept for politeness.
    pub(in crate::net) fn are_descriptors_short(&self, now: Now) -> bool {
        now.mono_ms < self.refused.short_until_ms
    }

    /// Tells a peer why it is refused, in these bytes, and shuts our side.
    pub(in crate::net) fn refuse_peer(&mut self, now: Now, socket: OwnedFd, reason: CloseReason, last: &[u8]) {
        closes::log_refused(reason, self.shard, &socket);
        send_last(&socket, last);
        self.keep(now, socket, None);
    }

    /// Answers a peer that has just come with why it is refused, in HTTP if that is what it speaks: as soon as it shows, or when
    /// it has shown nothing for a while.
    pub(in crate::net) fn refuse_newcomer(&mut self, core: &mut Shard, now: Now, socket: OwnedFd, reason: CloseReason) {
        closes::log_refused(reason, self.shard, &socket);
        let speech = speech(&socket);
        if speech == Speech::Unknown && self.refused.leaves_free(&socket, DESCRIPTORS_FREE_ALWAYS) {
            self.keep(now, socket, Some(reason));
        } else {
            answer_newcomer(core, now, &socket, reason, speech);
            self.keep(now, socket, None);
        }
        while self.refused.kept.len() > KEPT_MAX {
            self.let_oldest_go(core, now);
        }
    }

    /// Keeps a socket a little, where there are descriptors for it. More than `KEPT_MAX` are there until the next tick at
    /// most.
    fn keep(&mut self, now: Now, socket: OwnedFd, unanswered: Option<CloseReason>) {
        if self.refused.leaves_free(&socket, DESCRIPTORS_FREE_ALWAYS) {
            self.refused.kept.push_back(Kept { until_ms: now.mono_ms + LINGER_MS, socket, unanswered });
        } else {
            self.discard_unread(&socket);
        }
    }

    /// A tick: answers those that have shown how they speak, and closes those whose time is up.
    pub(in crate::net) fn answer_refused(&mut self, core: &mut Shard, now: Now) {
        for kept in &mut self.refused.kept {
            let Some(reason) = kept.unanswered else { continue };
            let speech = speech(&kept.socket);
            if speech != Speech::Unknown {
                answer_newcomer(core, now, &kept.socket, reason, speech);
                kept.unanswered = None;
            }
        }
        while self.refused.kept.front().is_some_and(|kept| kept.until_ms <= now.mono_ms)
            || self.refused.kept.len() > KEPT_MAX
        {
            self.let_oldest_go(core, now);
        }
    }

    fn let_oldest_go(&mut self, core: &mut Shard, now: Now) {
        let Some(Kept { socket, unanswered, .. }) = self.refused.kept.pop_front() else { return };
        if let Some(reason) = unanswered {
            answer_newcomer(core, now, &socket, reason, speech(&socket));
        }
        self.discard_unread(&socket);
    }

    /// Throws away what a socket has received before it is closed: with that unread, closing would reset the connection.
    fn discard_unread(&mut self, socket: &OwnedFd) {
        // Whether there was anything does not matter.
        recv(socket, &mut self.read_buffer[..], RecvFlags::DONTWAIT).ok();
    }
}

/// A fresh socket takes a small frame; one that does not is broken.
fn send_last(socket: &OwnedFd, last: &[u8]) {
    send(socket, last, SEND_FLAGS).ok();
    shutdown(socket, Shutdown::Write).ok();
}

fn answer_newcomer(core: &mut Shard, now: Now, socket: &OwnedFd, reason: CloseReason, speech: Speech) {
    match speech {
        Speech::Http => send_last(socket, &Shard::encode_refusal_http(reason)),
        Speech::Frames | Speech::Unknown => send_last(socket, core.encode_refusal(now, reason)),
    }
}

/// How a peer speaks, by what it has sent.
fn speech(socket: &OwnedFd) -> Speech {
    let mut first = [0; FIRST_BYTES];
    match recv(socket, &mut first[..], RecvFlags::DONTWAIT | RecvFlags::PEEK) {
        Ok((FIRST_BYTES, _)) if looks_like_http(&first) => Speech::Http,
        Ok((FIRST_BYTES, _)) => Speech::Frames,
        _ => Speech::Unknown,
    }
}

/// How many descriptors the process may have now: an operator may change that while it runs.
fn descriptors_max() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}
