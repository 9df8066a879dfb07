//! The clients, their connections and the gateways that they speak to, one step at a time.
//!
//! Owned by a run. What always holds: after each step the model has heard everything that any client was told, and the
//! first contradiction ends the run; a gateway sees its own clocks and nobody else's.

use std::collections::{BTreeMap, BTreeSet};

use ringway::auth::mint_hs256;
use ringway::clock::Now;
use ringway::contract::ids::ShardId;
use ringway_client::NextStep;
use ringway_client::client_core::Liveliness;
use ringway_wire::ids::{DeviceId, UserId};

use crate::client::Client;
use crate::events::Events;
use crate::gateway::Gateway;
use crate::model::{Checked, Model, SendNo};
use crate::network::{Connection, Owner, Pipe, Place};
use crate::plan::{Plan, ROOMY, SECRET};
use crate::random::Random;

/// When a run begins, Unix milliseconds.
const START_UNIX_MS: u64 = 1_760_000_000_000;
/// How far a device's wall clock is from what is so, at most.
const CLOCK_OFF_MAX_MS: u64 = 3_600_000;
/// No clock is ever further ahead of what the time really is.
const NAMES_AHEAD_MAX_MS: u64 = 7_200_000;
/// How often the gateways' clocks tick.
const TICK_MS: u64 = 20;

/// Whether a gateway goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Runs {
    /// It takes its turns.
    On,
    /// Its process is stopped, or its machine: connections stay, and nobody answers.
    Paused,
    /// There is no process.
    Down,
}

/// Who has to have everything before the world is settled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Whom {
    /// Every client.
    Everybody,
    /// Those that read.
    Readers,
}

impl Whom {
    fn has(self, client: &Client) -> bool {
        self == Whom::Everybody || !client.stalled
    }
}

/// A gateway in the world.
struct Host {
    runs: Runs,
    /// How far its wall clock is from the world's, milliseconds.
    unix_ms: i64,
}

/// Everything.
pub(crate) struct World {
    pub plan: Plan,
    pub random: Random,
    pub now: Now,
    pub model: Model,
    pub clients: Vec<Client>,
    pub users: Vec<UserId>,
    pub connections: BTreeMap<usize, Connection>,
    /// (gateway, shard, slot, generation) to the connection that lives there.
    pub by_conn: BTreeMap<(usize, u16, u32, u32), usize>,
    /// Connections whose outboxes wait to be written.
    pub writing: BTreeSet<usize>,
    /// Shards that read nothing any more: a fault.
    pub stopped: BTreeSet<(usize, usize)>,
    pub gateways: Vec<Gateway>,
    hosts: Vec<Host>,
    connections_count: usize,
    ticked_at_ms: u64,
    pub events: Events,
    /// How often what was reached, over all processes of this run.
    pub reached: BTreeMap<&'static str, u64>,
}

impl World {
    /// Clients that are not connected, and no gateway yet.
    pub(crate) fn new(plan: Plan, random: Random) -> World {
        let users: Vec<UserId> = (1..=plan.users).map(UserId).collect();
        let device = |user: UserId, device: u64| {
            let token = mint_hs256(SECRET, user, Some(DeviceId(device)), START_UNIX_MS / 1000 + 10_000_000);
            let off_ms = random.between(0, 2 * CLOCK_OFF_MAX_MS).cast_signed() - CLOCK_OFF_MAX_MS.cast_signed();
            Client::new(user, DeviceId(device), token, off_ms)
        };
        let devices = plan.devices;
        let clients = users.iter().flat_map(|user| (1..=devices).map(|d| device(*user, d))).collect();
        World {
            plan,
            random,
            now: Now { mono_ms: 0, unix_ms: START_UNIX_MS },
            model: Model::default(),
            clients,
            users,
            connections: BTreeMap::new(),
            by_conn: BTreeMap::new(),
            writing: BTreeSet::new(),
            stopped: BTreeSet::new(),
            gateways: Vec::new(),
            hosts: Vec::new(),
            connections_count: 0,
            ticked_at_ms: 0,
            events: Events::new(),
            reached: BTreeMap::new(),
        }
    }

    /// One gateway more.
    pub(crate) fn add(&mut self, gateway: Gateway) {
        self.gateways.push(gateway);
        self.hosts.push(Host { runs: Runs::On, unix_ms: 0 });
    }

    /// What a gateway's clocks say.
    pub(crate) fn now_at(&self, node: usize) -> Now {
        Now { unix_ms: self.now.unix_ms.saturating_add_signed(self.hosts[node].unix_ms), ..self.now }
    }

    /// A gateway's wall clock is put forward, or back.
    pub(crate) fn shift_clock(&mut self, node: usize, ms: i64) {
        self.hosts[node].unix_ms += ms;
    }

    /// All wall clocks are right again.
    pub(crate) fn set_clocks_right(&mut self) {
        self.hosts.iter_mut().for_each(|host| host.unix_ms = 0);
    }

    /// Whether a gateway goes on.
    pub(crate) fn runs(&self, node: usize) -> Runs {
        self.hosts[node].runs
    }

    /// From now on it does, or does not.
    pub(crate) fn set_runs(&mut self, node: usize, runs: Runs) {
        self.hosts[node].runs = runs;
    }

    pub(crate) fn note(&self, event: String) {
        self.events.note(event);
    }

    /// Time goes on, and ticks.
    pub(crate) fn pass_time(&mut self, ms: u64) -> Checked {
        self.now.mono_ms += ms;
        self.now.unix_ms += ms;
        self.model.now_ms = self.now.unix_ms;
        if self.now.mono_ms < self.ticked_at_ms + TICK_MS {
            return Ok(());
        }
        self.ticked_at_ms = self.now.mono_ms;
        for node in 0..self.gateways.len() {
            if self.runs(node) != Runs::On {
                continue;
            }
            for shard in 0..self.gateways[node].shards.len() {
                let now = self.now_at(node);
                self.gateways[node].shards[shard].tick(now);
                self.settle(node, shard)?;
            }
        }
        self.check_outboxes()
    }

    pub(crate) fn network_step(&mut self) -> Checked {
        let open: Vec<usize> = self.connections.keys().copied().collect();
        let Some(&at) = self.random.pick(&open) else { return Ok(()) };
        if self.random.chance(1, 2) {
            return self.connection_step(at, self.random.below(3));
        }
        (0..3).try_for_each(|which| self.connection_step(at, which))
    }

    pub(crate) fn connection_step(&mut self, at: usize, which: usize) -> Checked {
        let runs = self.connections.get(&at).is_some_and(|connection| self.runs(connection.node) == Runs::On);
        match which {
            0 | 1 if !runs => Ok(()),
            0 => {
                self.accept(at)?;
                self.read(at)
            }
            1 if self.writing.contains(&at) => self.write(at),
            _ => self.client_reads(at),
        }
    }

    /// A client reads what has come, or learns that the gateway has closed.
    fn client_reads(&mut self, at: usize) -> Checked {
        let Some(connection) = self.connections.get_mut(&at) else { return Ok(()) };
        if !connection.is_open {
            if connection.place == Place::Closed {
                self.connections.remove(&at);
            }
            return Ok(());
        }
        let Owner::Client(client) = connection.owner else {
            // Who is hostile reads now and then, and does not care what it is.
            if self.random.chance(1, 4) {
                connection.down.read_all();
            }
            connection.is_open &= connection.place != Place::Closed;
            return Ok(());
        };
        if self.clients[client].stalled {
            return Ok(());
        }
        let bytes = connection.down.read(64 * 1024, &self.random);
        let ended = connection.place == Place::Closed && connection.down.is_empty();
        if !bytes.is_empty() {
            let bytes = self.plan.mutation.reorder(bytes, &self.random);
            self.clients[client].receive(&mut self.model, self.now, &bytes)?;
        }
        if ended {
            self.connections.remove(&at);
            let reason = self.clients[client].check.closing;
            self.note(format!("client {client} lost its connection ({reason:?})"));
            self.disconnected(client, 200);
        }
        Ok(())
    }

    /// A client has no connection any more. It comes back when its core says, or sooner, within so many milliseconds: whoever
    /// has the device in his hand sees that it is offline.
    fn disconnected(&mut self, client: usize, sooner_ms: u64) {
        let step = self.clients[client].disconnected(self.now, self.random.bits() as u64);
        let sooner_ms = self.now.mono_ms + self.random.between(0, sooner_ms);
        self.clients[client].connect_at_ms = match step {
            NextStep::Reconnect { at_ms } if self.random.chance(1, 8) => at_ms,
            _ => sooner_ms,
        };
    }

    /// The client goes away without a word.
    pub(crate) fn drop_connection(&mut self, client: usize) {
        let Some((&at, _)) = self.connections.iter().find(|(_, c)| c.owner == Owner::Client(client) && c.is_open)
        else {
            return;
        };
        self.note(format!("client {client} drops its connection"));
        if let Some(connection) = self.connections.get_mut(&at) {
            connection.is_open = false;
            connection.up.cut(&self.random);
        }
        self.disconnected(client, 500);
    }

    /// Half of the clients that a gateway has go away without a word.
    pub(crate) fn drop_some_connections_of(&mut self, node: usize) {
        let of_node = self.connections.values().filter(|connection| connection.node == node);
        for owner in of_node.map(|connection| connection.owner).collect::<Vec<_>>() {
            if let Owner::Client(client) = owner
                && self.random.chance(1, 2)
            {
                self.drop_connection(client);
            }
        }
    }

    /// The client connects to whichever shard accepts, now and then as a program that has been started anew.
    fn connect(&mut self, at: usize) -> Checked {
        let up: Vec<usize> = (0..self.gateways.len()).filter(|node| self.runs(*node) != Runs::Down).collect();
        let Some(&node) = self.random.pick(&up) else { return Ok(()) };
        let shard = ShardId(self.random.below(self.gateways[node].shards.len()) as u16);
        let client = &mut self.clients[at];
        if self.random.chance(1, 8) {
            let had = client.check.had;
            let has = match self.random.below(4) {
                0 => Some(self.random.between(0, had)),
                1 => Some(had),
                _ => None,
            };
            self.events.note(format!("client {at} is started anew, from {has:?}"));
            client.restart(&self.model, self.now, has);
        }
        client.connected(self.now);
        let down = Pipe::new(self.plan.socket_bytes);
        let (up, place) = (Pipe::new(usize::MAX), Place::Backlog(shard));
        self.insert(Connection { owner: Owner::Client(at), node, place, is_open: true, up, down });
        self.note(format!("client {at} connects to gateway {node} {shard:?}"));
        self.transmit(at)
    }

    pub(crate) fn insert(&mut self, connection: Connection) {
        self.connections_count += 1;
        self.connections.insert(self.connections_count, connection);
    }

    /// Adds how often a limit of what one account may send was met.
    pub(crate) fn count_refusals(&mut self) {
        *self.reached.entry("sent too much").or_default() += self.model.fairness.refused_count;
    }

    /// Whoever is hostile goes away.
    pub(crate) fn drop_hostile(&mut self) {
        let theirs = self.connections.values_mut().filter(|connection| connection.owner == Owner::Hostile);
        theirs.for_each(|connection| connection.is_open = false);
    }

    /// No store refuses a question any more because too many wait: a name that it is not asked for has its client ask again,
    /// later each time.
    pub(crate) fn make_room_for_asks(&mut self) {
        self.plan.asks_max = ROOMY;
        self.gateways.iter_mut().for_each(Gateway::make_room_for_asks);
    }

    /// What a client's core wants to be sent goes into its connection.
    pub(crate) fn transmit(&mut self, at: usize) -> Checked {
        let bytes = self.clients[at].take_output();
        let Some(connection) = self.connections.values_mut().find(|c| c.owner == Owner::Client(at) && c.is_open) else {
            return Ok(());
        };
        connection.up.push(&bytes);
        self.clients[at].check.sent(&mut self.model, self.now.mono_ms, &bytes)
    }

    pub(crate) fn shard_step(&mut self, node: usize, shard: usize) -> Checked {
        for _ in 0..1 + self.random.below(8) {
            let now = self.now_at(node);
            let arrived = self.gateways[node].shard_turn(now, shard);
            self.settle(node, shard)?;
            if let Some((connection, handed)) = arrived {
                self.adopt(node, shard, connection, handed)?;
            }
        }
        Ok(())
    }

    /// What a client does even when nothing else happens: connect, send again, show that it is there.
    pub(crate) fn client_upkeep(&mut self, at: usize) -> Checked {
        let client = &mut self.clients[at];
        if client.is_offline() {
            return if self.now.mono_ms >= client.connect_at_ms { self.connect(at) } else { Ok(()) };
        }
        if client.stalled {
            return Ok(());
        }
        if client.tick(self.now, &self.random) == Liveliness::GiveUp {
            self.drop_connection(at);
        }
        self.transmit(at)
    }

    /// So much time passes that all clocks have reached what was ever believed to be the time: under names of then there may
    /// be messages, which are sent again until a gateway can tell.
    pub(crate) fn reach_all_names(&mut self) -> Checked {
        self.note("so much time passes that no name lies ahead".to_owned());
        self.pass_time(NAMES_AHEAD_MAX_MS)
    }

    /// Messages that clients have sent and keep, as nobody has answered them.
    pub(crate) fn unanswered(&self) -> usize {
        self.clients.iter().map(Client::unanswered).sum()
    }

    /// Whoever is offline comes back now.
    pub(crate) fn hurry_clients(&mut self) {
        self.clients.iter_mut().for_each(|client| client.connect_at_ms = 0);
    }

    /// The connections of a gateway whose process has ended. What had left it may still arrive, and counts as seen.
    pub(crate) fn drop_connections_of(&mut self, node: usize) -> Checked {
        for (at, mut connection) in std::mem::take(&mut self.connections) {
            if connection.node != node {
                self.connections.insert(at, connection);
            } else if let Owner::Client(client) = connection.owner
                && connection.is_open
            {
                connection.down.cut(&self.random);
                let bytes = connection.down.read_all();
                self.clients[client].receive(&mut self.model, self.now, &bytes)?;
                self.disconnected(client, 300);
            }
        }
        let connections = &self.connections;
        self.by_conn.retain(|(of, ..), _| *of != node);
        self.writing.retain(|at| connections.contains_key(at));
        Ok(())
    }

    /// A message that was acked before, was sent again, and has no answer.
    pub(crate) fn owed(&self) -> Option<SendNo> {
        self.clients.iter().flat_map(Client::unanswered_sends).find(|number| self.model.is_owed(*number))
    }

    /// Clients have all rows that anybody has seen of their inboxes, and all answers.
    pub(crate) fn clients_have_all(&self, whom: Whom) -> bool {
        self.clients.iter().all(|client| !whom.has(client) || self.has_all(client))
    }

    fn has_all(&self, client: &Client) -> bool {
        client.caught_up_to(self.model.newest_row(client.user)) && client.is_idle()
    }

    /// Who does not, and what they wait for, to be printed.
    pub(crate) fn who_lacks(&self, whom: Whom) -> String {
        let mut text = String::new();
        for (at, client) in self.clients.iter().enumerate() {
            if whom.has(client) && !self.has_all(client) {
                text += &format!(
                    "client {at}, user {}, live: {}: row {} of {}, waits for {}\n",
                    client.user,
                    client.is_live(),
                    client.check.cursor,
                    self.model.newest_row(client.user),
                    client.waiting()
                );
            }
        }
        text
    }
}
