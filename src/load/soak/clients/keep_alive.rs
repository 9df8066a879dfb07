//! What clients say without being asked, and what becomes of those whose gateway says nothing.
//!
//! Owned by the clients. What always holds: in one turn only so many say something, so that nobody waits for them.

use super::{Clients, Phase, SAID_PER_TURN_MAX};
use crate::soak::orders::{Totals, count_name};
use crate::swarm::{LinkId, Swarm};
use ringway_client::Due;
use ringway_client::session::{ACK_EVERY_MS, LOGIN_PATIENCE_MS};

impl Clients {
    pub(super) fn give_up_due(&mut self, now_ms: u32, swarm: &mut Swarm, totals: &mut Totals) {
        let now = self.now();
        while let Some((local, dialed_ms)) = self.pending.front().copied() {
            let dialing = self.clients.get_mut(local as usize).filter(|client| client.phase == Phase::Dialing);
            if dialing.is_some() && now_ms.saturating_sub(dialed_ms) < LOGIN_PATIENCE_MS {
                return;
            }
            self.pending.pop_front();
            // A client that has dialed again since is further behind, too.
            if dialing.is_some_and(|client| client.session.due(now) == Some(Due::GiveUp)) {
                swarm.close(LinkId(local));
                count_name(&mut self.ends, "login unanswered");
                self.lost(local, totals);
            }
        }
    }

    /// Every client says something once per heartbeat, at moments spread evenly.
    pub(super) fn ping_due(&mut self, swarm: &mut Swarm, totals: &mut Totals) {
        let now_ns = self.clock.mono_ns();
        let now = self.now_at(now_ns);
        for _ in 0..self.pings.due(now_ns).min(u64::from(SAID_PER_TURN_MAX)) {
            self.pings.done();
            let local = self.ping_next;
            self.ping_next = (local + 1) % self.assignment.share().max(1);
            let Some(client) = self.clients.get_mut(local as usize).filter(|c| c.phase == Phase::Live) else {
                continue;
            };
            match client.session.due(now) {
                Some(Due::GiveUp) => {
                    swarm.reset(LinkId(local));
                    count_name(&mut self.ends, "no sign of life");
                    self.lost(local, totals);
                    continue;
                }
                Some(Due::Ack(seq)) => swarm.send(LinkId(local), self.encoder.ack(seq)),
                Some(Due::Ping) | None => {}
            }
            client.session.pinged(now);
            // The request's number is its time, so that nothing has to be remembered.
            swarm.send(LinkId(local), self.encoder.ping(ping_stamp(now_ns)));
            totals.pings += 1;
        }
    }

    pub(super) fn ack_due(&mut self, now_ms: u32, swarm: &mut Swarm) {
        while self.acks_later.front().is_some_and(|(_, since_ms)| now_ms.saturating_sub(*since_ms) >= ACK_EVERY_MS) {
            self.acks_now.extend(self.acks_later.pop_front().map(|(local, _)| local));
        }
        let now = self.now();
        for _ in 0..SAID_PER_TURN_MAX {
            let Some(local) = self.acks_now.pop_front() else { return };
            if let Some(seq) = self.clients.get_mut(local as usize).and_then(|client| client.session.take_ack(now)) {
                swarm.send(LinkId(local), self.encoder.ack(seq));
            }
        }
    }
}

/// A time as a ping's request id: microseconds, never 0; the client's own way to know how long the pong took.
fn ping_stamp(now_ns: u64) -> u32 {
    ((now_ns / 1_000) as u32).max(1)
}

/// How long ago a pong's ping was sent, nanoseconds.
pub(crate) fn since_ping(stamp: u32, now_ns: u64) -> u64 {
    u64::from(((now_ns / 1_000) as u32).wrapping_sub(stamp)) * 1_000
}
