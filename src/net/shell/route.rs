//! What the core wants passed on: to the ledger, to other shards, to the store, to the cluster's nodes, and to its own
//! connections.
//!
//! Part of the shell, on its shard's thread. What always holds: each receiver is woken once for a batch; what a
//! receiver has no room for goes back to the core, which knows what to tell whoever waits for it.

use std::os::fd::AsRawFd;

use tokio::sync::mpsc::error::TrySendError;

use super::Shell;
use crate::clock::Now;
use crate::contract::ids::ShardId;
use crate::contract::submission::Submission;
use crate::net::closes;
use crate::topology::mailbox::{Crossing, Handover};
use ringway_wire::schema::CloseReason;

impl Shell {
    /// Passes on what the core wants passed on, with one wake-up per receiver, and tells the pump if there is
    /// something to write.
    pub fn route(&mut self) {
        let now = self.clock.now();
        self.tell_closes();
        self.route_submissions(now);
        self.route_handovers();
        self.route_lanes(now);
        self.route_asks(now);
        self.route_to_nodes();
        while let Some(conn) = self.core.effects().resumed.pop() {
            self.ready(conn);
        }
        while let Some(conn) = self.core.effects().cuts.pop() {
            self.cut(conn);
        }
        if !self.core.effects().dirty.is_empty() {
            self.wake_pump();
        }
    }

    /// Writes down what was closed, if anybody reads it: nothing is listed otherwise.
    pub(super) fn tell_closes(&mut self) {
        let shard = self.core.id();
        for closed in self.core.effects().closed.drain(..) {
            let descriptor = self.seats.seat(closed.conn).map(|seat| seat.socket.as_raw_fd());
            closes::tell(&closed, shard, descriptor);
        }
    }

    fn route_submissions(&mut self, now: Now) {
        if self.core.effects().submissions.is_empty() {
            return;
        }
        let mut hurry = false;
        while let Some(submission) = self.core.effects().submissions.pop_front() {
            hurry |= !matches!(submission, Submission::Position { .. });
            if let Err(refused) = self.outlets.submissions.submit(submission) {
                self.core.refused_submission(now, refused);
            }
        }
        self.asked = true;
        if hurry {
            self.delivery_step();
            self.wake_ledger();
        }
    }

    /// Wakes the ledger if it was asked anything. Those who log in wait for each other, and this is called once for all
    /// who had their turns: to wake another thread costs more than everything else that a login takes of the ledger.
    pub fn wake_ledger(&mut self) {
        if std::mem::take(&mut self.asked) {
            self.outlets.submissions.wake();
        }
    }

    /// Deliveries go on to their next step.
    pub fn delivery_step(&self) {
        self.outlets.store.store_yield().delivery_step();
    }

    fn route_lanes(&mut self, now: Now) {
        let mut woken: Option<ShardId> = None;
        while let Some((to, envelope)) = self.core.effects().lanes.pop_front() {
            let lane = self.outlets.lanes.get(usize::from(to.0)).and_then(Option::as_ref);
            let Some(lane) = lane else {
                debug_assert!(false, "the core sends to itself or to no shard");
                self.core.refused_lane(now, to, envelope);
                continue;
            };
            match lane.put(Crossing::Envelope(envelope)) {
                // Runs of envelopes to one shard wake it once; it is awake after the first wake-up anyway.
                Ok(()) if woken == Some(to) => {}
                Ok(()) => {
                    if let Some(before) = woken.replace(to) {
                        self.wake_lane(before);
                    }
                }
                Err(Crossing::Envelope(refused)) => {
                    lane.wake();
                    self.core.refused_lane(now, to, refused);
                }
                Err(Crossing::Connection(_)) => {}
            }
        }
        if let Some(last) = woken {
            self.wake_lane(last);
        }
    }

    fn wake_lane(&self, to: ShardId) {
        if let Some(lane) = self.outlets.lanes.get(usize::from(to.0)).and_then(Option::as_ref) {
            lane.wake();
        }
    }

    fn route_asks(&mut self, now: Now) {
        let mut asked = false;
        while let Some(ask) = self.core.effects().asks.pop_front() {
            match self.outlets.store.ask(ask) {
                Ok(()) => asked = true,
                Err(refused) => self.core.refused_ask(now, refused),
            }
        }
        if asked {
            self.outlets.store.wake();
        }
    }

    fn route_to_nodes(&mut self) {
        let mut refused = Vec::new();
        while let Some(told) = self.core.effects().to_nodes.pop_front() {
            let Some(door) = &self.outlets.nodes else { continue };
            if let Err(TrySendError::Full(told) | TrySendError::Closed(told)) = door.try_send(told) {
                refused.push(told);
            }
        }
        // What the core keeps of it goes to the front of what it keeps, so the last is given back first.
        refused.into_iter().rev().for_each(|told| self.core.refused_to_nodes(told));
    }

    /// Sockets whose users live elsewhere go to those shards. Where that fails the peer is refused.
    fn route_handovers(&mut self) {
        while let Some((conn, to, session)) = self.core.effects().handovers.pop() {
            // The core has freed the connection. (The ring does not watch one that has just been read.)
            let Some(seat) = self.seats.leave(conn) else { continue };
            let handover = Box::new(Handover { descriptor: seat.socket, session });
            let lane = self.outlets.lanes.get(usize::from(to.0)).and_then(Option::as_ref);
            let refused = match lane {
                Some(lane) => {
                    let sent = lane.put(Crossing::Connection(handover));
                    lane.wake();
                    match sent {
                        Err(Crossing::Connection(refused)) => refused,
                        _ => continue,
                    }
                }
                None => handover,
            };
            self.counters.handovers_refused += 1;
            let bytes = self.core.handover_failed(self.clock.now(), &refused.session);
            self.refuse_with(refused.descriptor, CloseReason::Overloaded, &bytes);
        }
    }
}
