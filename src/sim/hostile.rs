//! Peers that keep to nothing: bytes that are no frames, frames with every field at its end, requests about what is not
//! theirs, connections that close in the middle of a frame or are never read.
//!
//! Part of the world. What always holds: they have accounts of their own, which nobody else writes to and which are in no
//! group, so that nothing they ask may change or show anything: whatever did would be found where the others are judged.

use ringway::auth::mint_hs256;
use ringway::contract::ids::ShardId;
use ringway_wire::frame::Encoder;
use ringway_wire::ids::{ClientMsgId, Conversation, DeviceId, GroupId, Seq, UserId};
use ringway_wire::request::Durability;

use crate::network::{Connection, Owner, Pipe, Place};
use crate::plan::SECRET;
use crate::world::{Runs, World};

/// The first of their accounts.
pub(crate) const FIRST_HOSTILE: u64 = 900;
/// Connections they have at once.
const CONNECTIONS_MAX: usize = 4;
/// Much later than the world ends.
const EXPIRES_S: u64 = 4_000_000_000;

impl World {
    /// One of them does something.
    pub(crate) fn hostile_step(&mut self) {
        let open = |c: &Connection| c.owner == Owner::Hostile && c.is_open;
        let theirs: Vec<usize> = self.connections.iter().filter(|(_, c)| open(c)).map(|(at, _)| *at).collect();
        if theirs.len() < CONNECTIONS_MAX && (theirs.is_empty() || self.random.chance(1, 6)) {
            return self.hostile_connects();
        }
        let Some(&at) = self.random.pick(&theirs) else { return };
        let bytes = self.hostile_bytes();
        let Some(connection) = self.connections.get_mut(&at) else { return };
        match self.random.below(12) {
            0 => connection.is_open = false,
            1 => {
                // Closed in the middle of what it says.
                connection.up.push(&bytes);
                connection.up.cut(&self.random);
                connection.is_open = false;
            }
            _ => connection.up.push(&bytes),
        }
    }

    fn hostile_connects(&mut self) {
        let up: Vec<usize> = (0..self.gateways.len()).filter(|node| self.runs(*node) != Runs::Down).collect();
        let Some(&node) = self.random.pick(&up) else { return };
        let shard = ShardId(self.random.below(self.gateways[node].shards.len()) as u16);
        let mut up = Pipe::new(usize::MAX);
        let user = UserId(FIRST_HOSTILE + self.random.between(0, 2));
        let (token, device) = (mint_hs256(SECRET, user, None, EXPIRES_S), DeviceId(self.random.between(0, 3)));
        let mut encoder = Encoder::new();
        match self.random.below(6) {
            0 => {}
            1 => up.push(encoder.login(1, "no token", device, None)),
            2 => up.push(encoder.login(1, &token, device, Some(Seq(u64::MAX)))),
            _ => up.push(encoder.login(1, &token, device, Some(Seq(0)))),
        }
        let (down, place) = (Pipe::new(self.plan.socket_bytes), Place::Backlog(shard));
        self.note(format!("{user}, who is hostile, connects to gateway {node} {shard:?}"));
        self.insert(Connection { owner: Owner::Hostile, node, place, is_open: true, up, down });
    }

    /// Anything.
    fn hostile_bytes(&mut self) -> Vec<u8> {
        let random = self.random.clone();
        let mut bytes = self.hostile_request();
        match random.below(6) {
            0 => (0..random.below(64)).map(|_| random.below(256) as u8).collect(),
            1 => [u32::MAX.to_le_bytes(), [0; 4]].concat(),
            2 => {
                bytes.truncate(random.below(bytes.len()));
                bytes
            }
            _ => bytes,
        }
    }

    /// A frame that can be read, about what is not its sender's, or is nowhere.
    fn hostile_request(&mut self) -> Vec<u8> {
        let random = self.random.clone();
        let ends = [0, 1, u64::MAX - 1, u64::MAX];
        let any = || random.pick(&ends).copied().unwrap_or_default();
        let groups: Vec<GroupId> = self.model.groups.keys().copied().collect();
        let group = random.pick(&groups).copied().filter(|_| random.chance(3, 4)).unwrap_or(GroupId(any()));
        let users = [self.users[0], UserId(FIRST_HOSTILE), UserId(any())];
        let name = ClientMsgId::from_parts(self.now.unix_ms, random.bits());
        let (mut encoder, request) = (Encoder::new(), random.below(4) as u32);
        match random.below(12) {
            0 => encoder.ack(Seq(any())),
            1 => encoder.sync(request, Seq(any()), any() as u32),
            2 => encoder.send(request, Conversation::Group(group), name, b"not theirs", Durability::Durable),
            3 => encoder.send(request, Conversation::Group(group), name, b"not theirs", Durability::Ephemeral),
            4 => encoder.send(request, Conversation::Group(group), ClientMsgId([0xFF; 16]), b"", Durability::Durable),
            5 => encoder.group_add(request, group, &users),
            6 => encoder.group_remove(request, group, &users),
            7 => encoder.group_leave(request, group),
            8 => encoder.group_info_request(request, group),
            9 => encoder.presence_request(request, &[]),
            // What only a gateway says.
            10 => encoder.gap(Seq(any()), Seq(any())),
            _ => encoder.pong(request, any()),
        }
        .to_vec()
    }
}
