//! The storm's clients on their sockets: what came for them, and how late the load was to read it.
//!
//! Owned by the load generator's thread. What always holds: client `n` is the swarm's link `n`; a row is taken only
//! if it is the client's next.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::messages::Messages;
use crate::args::StormArgs;
use crate::clock::Clock;
use crate::error::LoadError;
use crate::soak::assignment::{Assignment, Counts};
use crate::soak::clients::Clients;
use crate::soak::dial::Dialer;
use crate::soak::orders::Totals;
use crate::swarm::{Brought, Swarm};
use crate::target::Target;
use ringway_client::Incoming;
use ringway_wire::request::Reply;

/// Users of one run lie together, away from those of other benches; each run has its own, with empty inboxes.
const USERS_PER_RUN_BITS: u32 = 24;
/// On loopback connections come from so many addresses, 127.0.0.2 and up: each has a port range of its own.
const SOURCES: u8 = 4;

/// How the load itself did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Effort {
    /// Time in which something was done, nanoseconds.
    pub busy_ns: u64,
    /// The longest time in which nothing could be read, nanoseconds.
    pub lag_ns_max: u64,
}

/// The clients.
pub(crate) struct Crowd {
    /// Who is logged in, who comes back when.
    pub clients: Clients,
    /// What they say.
    pub messages: Messages,
    /// What was counted.
    pub totals: Totals,
    /// Since it was last reset.
    pub effort: Effort,
    /// The load's time.
    pub clock: Clock,
    swarm: Swarm,
    connections: u32,
    polled_ns: u64,
}

impl Crowd {
    /// Nobody is connected; logins ask for this heartbeat.
    pub(crate) fn new(target: &Target, args: &StormArgs, heartbeat_ms: u32) -> Result<Crowd, LoadError> {
        let clock = target.clock;
        let run = fastrand::u32(..);
        let first_user = (u64::from(run) << USERS_PER_RUN_BITS) + 1;
        let counts = Counts { first_user, connections: args.connections, processes: 1, groups: 0, members: 0 };
        let assignment = Assignment::new(counts, 0);
        let on_loopback = target.addr.ip().is_loopback() && target.addr.is_ipv4();
        let sources = (2..2 + SOURCES).filter(|_| on_loopback).map(|last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)));
        let dialer = Dialer::new(target.addr, sources.collect());
        let mut swarm = Swarm::new(clock).map_err(LoadError::io("epoll is not available"))?;
        swarm.reserve(args.connections as usize);
        Ok(Crowd {
            clients: Clients::new(assignment, dialer, target.secret.clone(), Some(heartbeat_ms), clock),
            messages: Messages::new(assignment, run, args.body, clock),
            totals: Totals::default(),
            effort: Effort::default(),
            clock,
            swarm,
            connections: args.connections,
            polled_ns: clock.mono_ns(),
        })
    }

    /// All connections end at once; each client comes back at a time of its own within `jitter`.
    pub(crate) fn drop_everybody(&mut self, jitter: Duration) {
        let most_ms = (jitter.as_millis() as u32).max(1);
        for client in 0..self.connections {
            self.clients.break_off(client, fastrand::u32(..most_ms), &mut self.swarm);
        }
        self.messages.nobody_is_live();
        // That was no lateness: there was nobody to read from.
        self.polled_ns = self.clock.mono_ns();
    }

    /// Does what is due, waits until something happens (at most `wait`), and reads all of it.
    pub(crate) fn turn(&mut self, wait: Duration) -> Result<(), LoadError> {
        let Crowd { clients, messages, totals, swarm, .. } = self;
        clients.turn(swarm, totals);
        messages.turn(clients, swarm);
        let before_ns = self.clock.mono_ns();
        let busy_ns = before_ns.saturating_sub(self.polled_ns);
        swarm
            .turn(wait, &mut |link, brought, at_ns| receive(clients, messages, totals, link.0, brought, at_ns))
            .map_err(LoadError::io("waiting for the sockets failed"))?;
        self.polled_ns = swarm.polled_ns();
        self.effort.busy_ns += busy_ns;
        self.effort.lag_ns_max = self.effort.lag_ns_max.max(busy_ns);
        Ok(())
    }
}

fn receive(
    clients: &mut Clients,
    messages: &mut Messages,
    totals: &mut Totals,
    client: u32,
    brought: Brought<'_>,
    at_ns: u64,
) {
    let frame = match brought {
        Brought::Frame(frame) => frame,
        Brought::End(errno) => {
            messages.is_gone(client);
            return clients.ended(client, errno, totals);
        }
    };
    let Some(incoming) = clients.receive(client, frame, at_ns, totals) else { return };
    match incoming {
        Incoming::LoggedIn(_) => messages.is_live(client),
        Incoming::Row(push) => messages.arrived(client, &push, at_ns),
        Incoming::Sent(sent) => messages.acked(client, sent.request, at_ns),
        Incoming::Refused(refusal) => messages.refused(client, refusal.request, refusal.code),
        Incoming::Closing(_) => messages.is_gone(client),
        Incoming::Other { reply: Reply::Pong { .. }, .. } => {}
        // Nobody asked for anything else.
        Incoming::Gap { .. } | Incoming::Other { .. } => totals.corrupt += 1,
        // They are counted.
        Incoming::Repeated(_) | Incoming::Ephemeral(_) => {}
    }
}
