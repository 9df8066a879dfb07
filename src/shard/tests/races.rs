//! Random mixtures of everything, against the one claim that matters: each session receives its inbox in order,
//! nothing twice, nothing left out.

use super::world::{Client, Got, World};
use ringway_wire::ids::{Conversation, GroupId, UserId};
use ringway_wire::request::Durability;

/// What a client of a user believes it has, over all its connections.
struct Reader {
    user: u64,
    device: u64,
    cursor: u64,
    client: Option<Client>,
}

impl Reader {
    /// Follows the protocol's rules for clients.
    fn take(&mut self, world: &mut World) {
        let Some(client) = self.client else { return };
        for got in world.got(client) {
            match got {
                Got::LoginOk { from, .. } => assert_eq!(from, self.cursor),
                Got::Push { seq: 0, .. } => {}
                Got::Push { seq, .. } => {
                    assert_eq!(seq, self.cursor + 1, "user {} device {}", self.user, self.device);
                    self.cursor = seq;
                }
                Got::SendOk { seq, .. } if seq == self.cursor + 1 => self.cursor = seq,
                _ => {}
            }
        }
        if !world.is_open(client) {
            self.client = None;
        }
    }
}

/// One reader does something, or something befalls all.
fn act(world: &mut World, random: &mut fastrand::Rng, reader: &mut Reader, groups: &[GroupId], step: u32) {
    let shards = groups.len() as u16;
    match (random.u32(0..20), reader.client) {
        (_, None) => {
            let home = random.u16(0..shards);
            let client = world.connect(home);
            world.login_frame(client, reader.user, reader.device, Some(reader.cursor));
            reader.client = Some(client);
        }
        (0..8, Some(client)) => {
            let to = if random.bool() {
                Conversation::Group(groups[random.usize(0..groups.len())])
            } else {
                Conversation::User(UserId(random.u64(1..13)))
            };
            let body = vec![b'b'; random.usize(1..6_000)];
            let name = world.name();
            let durability = if random.u32(0..6) == 0 { Durability::Ephemeral } else { Durability::Durable };
            world.frame(client, |encoder| encoder.send(step, to, name, &body, durability));
        }
        (8, Some(client)) => {
            world.hang_up(client);
            reader.take(world);
            reader.client = None;
        }
        (9..11, Some(client)) => world.clients[client.0].stalled = true,
        (11..14, Some(client)) => {
            world.clients[client.0].takes = random.usize(0..50_000);
            let (shard, conn) = world.conn(client);
            world.write(shard, conn);
        }
        (14, Some(client)) => world.unstall(client),
        (15, _) => world.hold_answers = !world.hold_answers,
        (16, _) => world.hold_ledger = !world.hold_ledger,
        (17, _) => {
            let group = groups[random.usize(0..groups.len())];
            let members: Vec<u64> = (1..=12).filter(|_| random.u32(0..4) > 0).collect();
            world.ledger.set_members(group, &members);
        }
        (18, _) => world.pass(random.u64(0..200)),
        _ => world.settle(),
    }
}

fn run(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let shards = random.u16(1..4);
    let mut world = World::with(shards, |config| {
        config.stall_timeout_ms = 1_000_000;
        config.outbox_bytes_max = 128 * 1024;
        config.outbox_shard_bytes_max = 600 * 1024;
    });
    let groups: Vec<GroupId> = (0..shards).map(|shard| world.group_on(shard)).collect();
    for group in &groups {
        world.ledger.set_members(*group, &(1..=12).collect::<Vec<_>>());
    }
    let mut readers: Vec<Reader> =
        (1..=12).flat_map(|user| (1..=2).map(move |device| Reader { user, device, cursor: 0, client: None })).collect();
    for step in 0..400u32 {
        let at = random.usize(0..readers.len());
        let reader = &mut readers[at];
        act(&mut world, &mut random, reader, &groups, step);
        if random.u32(0..3) > 0 {
            world.settle();
        }
        for reader in &mut readers {
            reader.take(&mut world);
        }
    }
    world.hold_answers = false;
    world.hold_ledger = false;
    world.settle();
    for client in readers.iter().filter_map(|reader| reader.client) {
        world.unstall(client);
    }
    world.pass(1_000);
    for reader in &mut readers {
        if reader.client.is_none() {
            let client = world.connect(0);
            world.login_frame(client, reader.user, reader.device, Some(reader.cursor));
            reader.client = Some(client);
        }
        world.pass(300);
        reader.take(&mut world);
        assert_eq!(reader.cursor, world.ledger.newest(UserId(reader.user)).0, "seed {seed} user {}", reader.user);
    }
    let waiting: u64 = world.shards.iter().map(|shard| shard.counters().outbox_bytes).sum();
    assert_eq!(waiting, 0);
}

#[test]
fn every_session_receives_its_inbox_in_order_nothing_twice_nothing_left_out() {
    for seed in 0..25 {
        run(seed);
    }
}
