//! The shell's part of the world: what the gateway does with its sockets, one step at a time.
//!
//! What always holds: it calls the core as the real shell does (a connection is freed once; a hand-over keeps
//! its bytes; what the socket does not take stays in the outbox), and after every step each outbox is within
//! its cap (I5).

use std::io::IoSlice;

use ringway::contract::ids::{ConnId, PeerAddress, ShardId};
use ringway::contract::lane::HandedOver;
use ringway::limits::OUTBOX_REPLY_RESERVE_BYTES;
use ringway::shard::AfterWrite;

use crate::model::{Checked, violated};
use crate::mutation::Mutation;
use crate::network::{Connection, Owner, Place};
use crate::world::World;

/// Most that is read from a socket at once.
const READ_BYTES: usize = 16 * 1024;

impl World {
    /// The gateway accepts a connection that waits.
    pub(crate) fn accept(&mut self, at: usize) -> Checked {
        let Some(&Connection { place: Place::Backlog(shard), node, .. }) = self.connections.get(&at) else {
            return Ok(());
        };
        let now = self.now_at(node);
        let index = usize::from(shard.0);
        match self.gateways[node].shards[index].accept(now, PeerAddress::default()) {
            Ok(conn) => self.place(at, shard, conn),
            Err(reason) => {
                let bytes = self.gateways[node].shards[index].encode_refusal(now, reason).to_vec();
                if let Some(connection) = self.connections.get_mut(&at) {
                    connection.down.push(&bytes);
                    connection.place = Place::Closed;
                }
            }
        }
        self.settle(node, index)
    }

    /// A handed-over connection arrives.
    pub(crate) fn adopt(&mut self, node: usize, index: usize, at: usize, handed: HandedOver) -> Checked {
        let (shard, now) = (ShardId(index as u16), self.now_at(node));
        match self.gateways[node].shards[index].adopt(now, handed) {
            Ok(conn) => self.place(at, shard, conn),
            Err(_) => {
                if let Some(connection) = self.connections.get_mut(&at) {
                    connection.place = Place::Closed;
                }
            }
        }
        self.settle(node, index)
    }

    fn place(&mut self, at: usize, shard: ShardId, conn: ConnId) {
        if let Some(connection) = self.connections.get_mut(&at) {
            connection.place = Place::On(shard, conn);
            self.by_conn.insert((connection.node, shard.0, conn.slot, conn.generation), at);
        }
    }

    /// The gateway reads what has come, or learns that the client is gone.
    pub(crate) fn read(&mut self, at: usize) -> Checked {
        let Some(connection) = self.connections.get_mut(&at) else { return Ok(()) };
        let Place::On(shard, conn) = connection.place else { return Ok(()) };
        let (node, index) = (connection.node, usize::from(shard.0));
        if !self.gateways[node].shards[index].wants_read(conn) || self.stopped.contains(&(node, index)) {
            return Ok(());
        }
        let mut bytes = connection.up.read(READ_BYTES, &self.random);
        if !bytes.is_empty() {
            let now = self.now_at(node);
            self.gateways[node].shards[index].receive(now, conn, &mut bytes);
        } else if !connection.is_open {
            self.close(at);
        }
        self.settle(node, index)
    }

    /// The gateway writes as much of an outbox as the socket takes.
    pub(crate) fn write(&mut self, at: usize) -> Checked {
        let Some(connection) = self.connections.get_mut(&at) else { return Ok(()) };
        let Place::On(shard, conn) = connection.place else { return Ok(()) };
        let (node, index) = (connection.node, usize::from(shard.0));
        if !connection.is_open {
            self.close(at);
            return self.settle(node, index);
        }
        let mut written = 0;
        if let Some(outbox) = self.gateways[node].shards[index].outbox(conn) {
            let mut slices = [IoSlice::new(&[]); 16];
            let count = outbox.slices(&mut slices);
            for slice in &slices[..count] {
                let taken = connection.down.write(slice, &self.random);
                written += taken;
                if taken < slice.len() {
                    break;
                }
            }
        }
        let now = self.now_at(node);
        match self.gateways[node].shards[index].written(now, conn, written) {
            AfterWrite::Drained => drop(self.writing.remove(&at)),
            AfterWrite::More => drop(self.writing.insert(at)),
            AfterWrite::CloseNow => self.close(at),
        }
        self.settle(node, index)
    }

    /// The gateway's end of the socket is closed.
    fn close(&mut self, at: usize) {
        let Some(connection) = self.connections.get_mut(&at) else { return };
        if let Place::On(shard, conn) = connection.place {
            connection.place = Place::Closed;
            let node = connection.node;
            if self.plan.mutation == Mutation::StopsAtHostile && connection.owner == Owner::Hostile {
                self.stopped.insert((node, usize::from(shard.0)));
            }
            self.writing.remove(&at);
            self.by_conn.remove(&(node, shard.0, conn.slot, conn.generation));
            let now = self.now_at(node);
            self.gateways[node].shards[usize::from(shard.0)].disconnected(now, conn);
        }
    }

    /// Takes a shard's effects after an event.
    pub(crate) fn settle(&mut self, node: usize, index: usize) -> Checked {
        let (shard, now) = (index as u16, self.now_at(node));
        loop {
            let work = self.gateways[node].route(now, index);
            let nothing = work.dirty.is_empty() && work.cuts.is_empty();
            for conn in work.dirty {
                let Some(&at) = self.by_conn.get(&(node, shard, conn.slot, conn.generation)) else { continue };
                self.writing.insert(at);
                self.check_outbox(node, index, conn)?;
            }
            for (conn, to, handed) in work.handovers {
                let Some(at) = self.by_conn.remove(&(node, shard, conn.slot, conn.generation)) else {
                    return violated!("shard {shard} hands over {conn:?}, which it does not have");
                };
                self.writing.remove(&at);
                if let Some(connection) = self.connections.get_mut(&at) {
                    connection.place = Place::Travelling;
                }
                self.gateways[node].hand_over(index, to, at, handed);
            }
            for (conn, last) in work.refused {
                let Some(at) = self.by_conn.remove(&(node, shard, conn.slot, conn.generation)) else {
                    return violated!("shard {shard} hands over {conn:?}, which it does not have");
                };
                self.writing.remove(&at);
                if let Some(connection) = self.connections.get_mut(&at) {
                    connection.down.push(&last);
                    connection.place = Place::Closed;
                }
            }
            for conn in work.cuts {
                if let Some(&at) = self.by_conn.get(&(node, shard, conn.slot, conn.generation)) {
                    self.close(at);
                }
            }
            if nothing {
                return Ok(());
            }
        }
    }

    fn check_outbox(&mut self, node: usize, index: usize, conn: ConnId) -> Checked {
        let len = self.gateways[node].shards[index].outbox(conn).map_or(0, |outbox| outbox.len());
        let cap = match self.plan.mutation {
            Mutation::NoOutbox => 0,
            _ => self.plan.outbox_bytes_max + OUTBOX_REPLY_RESERVE_BYTES,
        };
        if len > cap {
            return violated!("I5: an outbox holds {len} bytes, its cap is {cap}");
        }
        Ok(())
    }

    /// All outboxes, whether something changed or not.
    pub(crate) fn check_outboxes(&mut self) -> Checked {
        let conns: Vec<(usize, u16, u32, u32)> = self.by_conn.keys().copied().collect();
        for (node, shard, slot, generation) in conns {
            self.check_outbox(node, usize::from(shard), ConnId { slot, generation })?;
        }
        Ok(())
    }
}
