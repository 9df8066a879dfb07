//! A shard's core with what its effects go to, and the one way to the core.
//!
//! Owned by the loop of one shard. What always holds: whatever the core is told, it is told through
//! [`Shell::with_core`], which passes on what the core wants passed on before anything else happens.

use crate::clock::Now;
use crate::contract::ids::ConnId;
use crate::contract::shard_counters::ShardCounters;
use crate::net::connection::{self, TurnEnd};
use crate::net::outlets::ShardOutlets;
use crate::shard::Shard;

/// The core and its outlets.
pub(crate) struct Shell {
    core: Shard,
    /// What its effects go to.
    pub(crate) outlets: ShardOutlets,
}

impl Shell {
    /// Of a core without connections.
    pub(crate) fn new(core: Shard, outlets: ShardOutlets) -> Self {
        Shell { core, outlets }
    }

    /// Tells the core something, and passes on what the core wants passed on.
    pub(crate) fn with_core<R>(&mut self, call: impl FnOnce(&mut Shard, &mut ShardOutlets, Now) -> R) -> R {
        let now = self.outlets.clock.now();
        let result = call(&mut self.core, &mut self.outlets, now);
        self.core.route(now, &mut self.outlets);
        result
    }

    /// Ephemeral messages wait in the core for their recipients.
    pub(crate) fn has_ephemerals(&self) -> bool {
        self.core.has_ephemerals()
    }

    /// The core's plain counters.
    pub(crate) fn counters(&self) -> ShardCounters {
        self.core.counters()
    }

    /// Lets a connection that was taken from its run queue have its turn. Nothing for one that has gone.
    pub(crate) fn take_turn(&mut self, conn: ConnId) {
        let Some(connection) = self.outlets.connections.get(conn) else { return };
        connection.dequeued();
        match self.with_core(|core, outlets, now| connection::turn(core, outlets, now, conn)) {
            TurnEnd::Wait => {}
            TurnEnd::Again => self.outlets.enqueue(conn),
            TurnEnd::Close => self.close(conn),
        }
    }

    /// The connection's socket is closed, and the core told so, unless the ring watches the socket still.
    fn close(&mut self, conn: ConnId) {
        match self.outlets.connections.get(conn) {
            Some(connection) if connection.is_watched_at_all() => self.outlets.end(conn),
            Some(_) => {
                self.with_core(|core, _, now| core.disconnected(now, conn));
                self.outlets.connections.remove(conn);
            }
            // Handed over meanwhile.
            None => {}
        }
    }
}
