//! What an operator sees: a user's sessions, the shard's connections.
//!
//! Part of the shard's core. What always holds: nothing is changed; an answer looks at `LOOK_SLOTS_MAX` places at the most,
//! or at one user's sessions, which are few; the peer's address is not kept here, so whoever has the sockets is asked for it.

use std::net::SocketAddr;

use super::Shard;
use super::directory::SessionsOf;
use super::session::{Flags, Phase, Session};
use super::wheel::TICK_MS;
use crate::clock::Now;
use crate::contract::ids::ConnId;
use crate::contract::lane::{LaneAnswer, LaneEnvelope};
use crate::contract::look::{
    ConnectionSeen, ConnectionState, ConnectionsSeen, Look, LookAsked, Owner, RemoteSeen, SessionsSeen, Wanted,
};
use crate::limits::LOOK_SLOTS_MAX;
use ringway_wire::ids::{Seq, UserId};

impl Shard {
    /// Answers the API. `peer`: the other end of a connection.
    pub(crate) fn look(
        &mut self,
        now: Now,
        LookAsked { origin, look }: LookAsked,
        mut peer: impl FnMut(ConnId) -> Option<SocketAddr>,
    ) {
        let answer = match look {
            Look::Sessions(user) => LaneAnswer::Sessions(Box::new(self.sessions_seen(now, user, &mut peer))),
            Look::Events(user) => LaneAnswer::Events(self.events.of(user)),
            Look::Connections { from, wanted, rows_max } => {
                LaneAnswer::Connections(self.connections_seen(now, from, wanted, rows_max, &mut peer))
            }
        };
        self.effects.lanes.push_back((origin.session.shard, LaneEnvelope::Answer { origin, answer }));
    }

    fn sessions_seen(
        &self,
        now: Now,
        user: UserId,
        peer: &mut impl FnMut(ConnId) -> Option<SocketAddr>,
    ) -> SessionsSeen {
        let slots = SessionsOf { sessions: &self.sessions, at: self.directory.first_session(user) };
        let here = slots.filter_map(|slot| self.seen(now, slot, peer)).collect();
        let elsewhere = self.remote_sessions.of(user).map(|remote| RemoteSeen {
            node: remote.node,
            device: remote.device,
            since_ms: remote.since_ms,
        });
        SessionsSeen { here, elsewhere: elsewhere.collect() }
    }

    fn connections_seen(
        &self,
        now: Now,
        from: u32,
        wanted: Wanted,
        rows_max: usize,
        peer: &mut impl FnMut(ConnId) -> Option<SocketAddr>,
    ) -> ConnectionsSeen {
        let end = from.saturating_add(LOOK_SLOTS_MAX).min(self.sessions.high());
        let mut connections = Vec::new();
        let mut next = from;
        while next < end && connections.len() < rows_max {
            let slot = next;
            next += 1;
            // To ask for the address is a system call: only of those that the rest speaks for.
            let fits = self.sessions.at(slot).is_some_and(|session| is_wanted(session, wanted));
            let Some(seen) = fits.then(|| self.seen(now, slot, peer)).flatten() else { continue };
            if wanted.address.is_none_or(|address| seen.peer.is_some_and(|peer| peer.ip() == address)) {
                connections.push(seen);
            }
        }
        ConnectionsSeen { connections, next: (next < self.sessions.high()).then_some(next) }
    }

    fn seen(&self, now: Now, slot: u32, peer: &mut impl FnMut(ConnId) -> Option<SocketAddr>) -> Option<ConnectionSeen> {
        let session = self.sessions.at(slot)?;
        let state = state_of(session.phase)?;
        let conn = session.conn(slot);
        let owner = self.directory.at(session.user).map(|user| Owner {
            user: user.id,
            device: session.device,
            since_ms: if session.phase.is_open() { self.remote_sessions.since_ms(slot) } else { 0 },
            sent: if session.phase.is_open() { session.cursor } else { Seq(0) },
            rows_behind: rows_behind(session),
            acknowledged: self.cursors.waiting(user.id, session.device),
        });
        // While a login is looked up, the field holds something else.
        let heard_ms = (!session.phase.is_awaiting()).then(|| {
            let ago_ms = now.mono_ms.saturating_sub(u64::from(session.received_tick) * TICK_MS);
            now.unix_ms.saturating_sub(ago_ms)
        });
        Some(ConnectionSeen {
            conn,
            number: session.number(self.config.id, slot),
            state,
            owner,
            heard_ms,
            outbox_bytes: session.outbox_len(),
            in_flight: session.in_flight,
            is_websocket: session.flags.has(Flags::WEBSOCKET),
            peer: peer(conn),
        })
    }
}

fn is_wanted(session: &Session, wanted: Wanted) -> bool {
    let Some(state) = state_of(session.phase) else { return false };
    wanted.state.is_none_or(|it| it == state) && rows_behind(session) >= wanted.behind_min
}

/// Before login the fields say something else.
fn rows_behind(session: &Session) -> u64 {
    if session.phase.is_open() { session.newest.0.saturating_sub(session.cursor.0) } else { 0 }
}

/// `None`: there is no connection.
fn state_of(phase: Phase) -> Option<ConnectionState> {
    match phase {
        Phase::Free => None,
        Phase::Fresh => Some(ConnectionState::Unauthenticated),
        Phase::AwaitingCursor | Phase::AwaitingPosition | Phase::AwaitingPositionClaimed => {
            Some(ConnectionState::LoggingIn)
        }
        Phase::Live => Some(ConnectionState::Live),
        Phase::Behind => Some(ConnectionState::Behind),
        Phase::Closing => Some(ConnectionState::Closing),
    }
}
