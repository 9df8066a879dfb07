//! One run: clients, network, gateway, time and trouble, in an order that the seed decides.
//!
//! What always holds: after each step the model has heard everything that any client was told, and the first
//! contradiction ends the run. A crash drops the whole process; the next one starts through the real recovery
//! on what the disk and the database kept, and all inboxes are audited before anybody is served.

use std::collections::{BTreeMap, BTreeSet};

use ringway::auth::mint_hs256;
use ringway::clock::Now;
use ringway::contract::ids::ShardId;
use ringway_wire::ids::{DeviceId, UserId};

use crate::check::audit;
use crate::client::{Client, State};
use crate::disk::{DiskFaults, SimDisk};
use crate::events::Events;
use crate::gateway::{Durable, Gateway};
use crate::model::{Checked, Model, Violation, violated};
use crate::mutation::Mutation;
use crate::network::{Connection, Pipe, Place};
use crate::plan::{Plan, SECRET};
use crate::random::Random;
use crate::store::Database;

/// When a run begins, Unix milliseconds.
const START_UNIX_MS: u64 = 1_760_000_000_000;
/// How often the gateway's clocks tick.
const TICK_MS: u64 = 20;
/// Tries to start before the run gives up.
const STARTS_MAX: usize = 20;

/// How a process ends before its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Crash {
    /// SIGKILL: what was written stays in the page cache.
    Kill,
    /// The machine goes dark: only what was synced is sure to stay.
    PowerLoss,
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
    /// (shard, slot, generation) to the connection that lives there.
    pub by_conn: BTreeMap<(u16, u32, u32), usize>,
    /// Connections whose outboxes wait to be written.
    pub writing: BTreeSet<usize>,
    pub gateway: Gateway,
    pub durable: Durable,
    pub crashes: usize,
    connections_count: usize,
    ticked_at_ms: u64,
    pub events: Events,
    /// How often what was reached, over all processes of this run.
    pub reached: BTreeMap<&'static str, u64>,
}

/// Who has to have everything before the world is settled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Whom {
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

impl World {
    /// A gateway on an empty disk, and clients that are not connected.
    pub(crate) fn new(seed: u64, steps: usize, mutation: Mutation) -> Result<World, Violation> {
        let random = Random::new(seed);
        let plan = Plan { table_seed: seed, ..Plan::new(&random, steps, mutation) };
        let durable = Durable { disk: SimDisk::new(random.clone()), database: Database::new(random.clone()) };
        durable.disk.set_faults(DiskFaults { lies: mutation == Mutation::LyingDisk, ..DiskFaults::default() });
        durable.database.set_forgetful(mutation == Mutation::ForgetfulStore);
        let now = Now { mono_ms: 0, unix_ms: START_UNIX_MS };
        let events = Events::new();
        let gateway = Gateway::start(now, &durable, &plan, &random, &events).map_err(Violation)?;
        let users: Vec<UserId> = (1..=plan.users).map(UserId).collect();
        let device = |user: UserId, device: u64| {
            let token = mint_hs256(SECRET, user, Some(DeviceId(device)), START_UNIX_MS / 1000 + 10_000_000);
            Client::new(user, DeviceId(device), token)
        };
        let devices = plan.devices;
        let clients = users.iter().flat_map(|user| (1..=devices).map(|d| device(*user, d))).collect();
        Ok(World {
            plan,
            random,
            now,
            model: Model::default(),
            clients,
            users,
            connections: BTreeMap::new(),
            by_conn: BTreeMap::new(),
            writing: BTreeSet::new(),
            gateway,
            durable,
            crashes: 0,
            connections_count: 0,
            ticked_at_ms: 0,
            events,
            reached: BTreeMap::new(),
        })
    }

    /// The whole run.
    pub(crate) fn run(&mut self) -> Checked {
        self.set_faults();
        for _ in 0..self.plan.steps {
            self.step()?;
        }
        self.settle_and_audit()?;
        self.crash(if self.random.chance(1, 2) { Crash::Kill } else { Crash::PowerLoss })?;
        self.settle_and_audit()?;
        self.gateway.tally(&mut self.reached);
        Ok(())
    }

    fn note(&self, event: String) {
        self.events.note(event);
    }

    fn set_faults(&mut self) {
        let faults = DiskFaults {
            full: false,
            writes_failing: self.plan.writes_failing,
            dying: self.plan.syncs_dying,
            syncs_failing: self.plan.syncs_dying / 4,
            lies: self.plan.mutation == Mutation::LyingDisk,
        };
        self.durable.disk.set_faults(faults);
        self.durable.database.set_failing(self.plan.store_failing);
    }

    fn clear_faults(&mut self) {
        let lies = self.plan.mutation == Mutation::LyingDisk;
        self.durable.disk.set_faults(DiskFaults { lies, ..DiskFaults::default() });
        self.durable.database.set_failing(0);
        self.durable.database.set_away(false);
    }

    fn step(&mut self) -> Checked {
        self.pass_time(self.random.between(0, 2))?;
        self.trouble()?;
        match self.random.below(100) {
            0..45 => self.network_step()?,
            45..60 => self.shard_step(self.random.below(self.gateway.shards.len()))?,
            60..70 => self.gateway.ledger_turn(self.now)?,
            70..80 => self.gateway.store_turn(self.now),
            _ => {
                let at = self.random.below(self.clients.len());
                self.client_step(at)?;
            }
        }
        if self.durable.disk.is_dead() {
            let crash = if self.random.chance(1, 2) { Crash::Kill } else { Crash::PowerLoss };
            self.crash(crash)?;
        }
        self.check_store()
    }

    fn check_store(&self) -> Checked {
        match self.durable.database.contradiction() {
            Some(text) => Err(Violation(text)),
            None => Ok(()),
        }
    }

    /// Time goes on, and ticks.
    pub(crate) fn pass_time(&mut self, ms: u64) -> Checked {
        self.now.mono_ms += ms;
        self.now.unix_ms += ms;
        if self.now.mono_ms < self.ticked_at_ms + TICK_MS {
            return Ok(());
        }
        self.ticked_at_ms = self.now.mono_ms;
        for shard in 0..self.gateway.shards.len() {
            self.gateway.shards[shard].tick(self.now);
            self.settle(shard)?;
        }
        self.check_outboxes()
    }

    fn trouble(&mut self) -> Checked {
        let happens = |of_10_000: u32| self.random.chance(of_10_000, 10_000);
        let (crash, outage, jump) =
            (happens(self.plan.crashes), happens(self.plan.store_outages), happens(self.plan.time_jumps));
        let (full, stall, disconnect) =
            (happens(self.plan.full_disks), happens(self.plan.stalls), happens(self.plan.disconnects));
        if crash {
            self.crash(if self.random.chance(1, 2) { Crash::Kill } else { Crash::PowerLoss })?;
        }
        if outage {
            let away = !self.durable.database.is_away();
            self.note(format!("the store is away: {away}"));
            self.durable.database.set_away(away);
        }
        if full {
            let faults = self.durable.disk.faults();
            self.note(format!("the disk is full: {}", !faults.full));
            self.durable.disk.set_faults(DiskFaults { full: !faults.full, ..faults });
        }
        if stall {
            let at = self.random.below(self.clients.len());
            self.clients[at].stalled = !self.clients[at].stalled;
            self.note(format!("client {at} is stalled: {}", self.clients[at].stalled));
        }
        if disconnect {
            let at = self.random.below(self.clients.len());
            self.drop_connection(at);
        }
        if jump {
            self.jump()?;
        }
        Ok(())
    }

    /// The clock jumps: forward by seconds or past the window, or (only the wall clock) back.
    fn jump(&mut self) -> Checked {
        match self.random.below(3) {
            0 => self.pass_time(self.random.between(1_000, 20_000))?,
            1 => self.pass_time(self.random.between(600_000, 700_000))?,
            _ => self.now.unix_ms -= self.random.between(1, 30_000),
        }
        self.note(format!("the clock jumped to {:?}", self.now));
        Ok(())
    }

    fn network_step(&mut self) -> Checked {
        let open: Vec<usize> = self.connections.keys().copied().collect();
        let Some(&at) = self.random.pick(&open) else { return Ok(()) };
        if self.random.chance(1, 2) {
            return self.connection_step(at, self.random.below(3));
        }
        (0..3).try_for_each(|which| self.connection_step(at, which))
    }

    fn connection_step(&mut self, at: usize, which: usize) -> Checked {
        match which {
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
        let client = connection.client;
        if !connection.is_open {
            if connection.place == Place::Closed {
                self.connections.remove(&at);
            }
            return Ok(());
        }
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
            let reason = self.clients[client].closing;
            self.clients[client].disconnected();
            self.clients[client].connect_at_ms = self.now.mono_ms + self.random.between(0, 200);
            self.note(format!("client {client} lost its connection ({reason:?})"));
        }
        Ok(())
    }

    /// The client goes away without a word.
    pub(crate) fn drop_connection(&mut self, client: usize) {
        let Some((&at, _)) = self.connections.iter().find(|(_, c)| c.client == client && c.is_open) else { return };
        self.note(format!("client {client} drops its connection"));
        if let Some(connection) = self.connections.get_mut(&at) {
            connection.is_open = false;
            connection.up.cut(&self.random);
        }
        self.clients[client].disconnected();
        self.clients[client].connect_at_ms = self.now.mono_ms + self.random.between(0, 500);
    }

    /// The client connects to whichever shard accepts.
    pub(crate) fn connect(&mut self, client: usize) {
        let shard = ShardId(self.random.below(self.gateway.shards.len()) as u16);
        let last_seq = self.random.chance(9, 10).then_some(self.clients[client].cursor);
        let login = self.clients[client].login(&self.model, self.now, last_seq);
        let mut up = Pipe::new(usize::MAX);
        up.push(&login);
        let down = Pipe::new(self.plan.socket_bytes);
        let connection = Connection { client, place: Place::Backlog(shard), is_open: true, up, down };
        self.connections_count += 1;
        self.connections.insert(self.connections_count, connection);
        self.note(format!("client {client} connects to {shard:?} from {last_seq:?}"));
    }

    /// Bytes from a client into its connection.
    pub(crate) fn transmit(&mut self, client: usize, bytes: &[u8]) {
        self.clients[client].sent_at_ms = self.now.mono_ms;
        if let Some(connection) = self.connections.values_mut().find(|c| c.client == client && c.is_open) {
            connection.up.push(bytes);
        }
    }

    fn shard_step(&mut self, shard: usize) -> Checked {
        for _ in 0..1 + self.random.below(8) {
            let arrived = self.gateway.shard_turn(self.now, shard);
            self.settle(shard)?;
            if let Some((connection, handed)) = arrived {
                self.adopt(shard, connection, handed)?;
            }
        }
        Ok(())
    }

    /// The process ends now, and the next one starts.
    pub(crate) fn crash(&mut self, crash: Crash) -> Checked {
        self.crashes += 1;
        self.note(format!("{crash:?} at {} ms", self.now.mono_ms));
        // What had left the process may still arrive, and counts as seen.
        for (_, mut connection) in std::mem::take(&mut self.connections) {
            if connection.is_open {
                connection.down.cut(&self.random);
                let bytes = connection.down.read_all();
                self.clients[connection.client].receive(&mut self.model, self.now, &bytes)?;
                self.clients[connection.client].disconnected();
                self.clients[connection.client].connect_at_ms = self.now.mono_ms + self.random.between(0, 300);
            }
        }
        self.by_conn.clear();
        self.writing.clear();
        self.gateway.tally(&mut self.reached);
        if crash == Crash::PowerLoss {
            self.durable.disk.lose_power();
            self.durable.database.lose_power();
        }
        self.start()?;
        self.audit()
    }

    fn start(&mut self) -> Checked {
        for attempt in 0..STARTS_MAX {
            self.durable.disk.revive();
            if attempt > STARTS_MAX / 2 {
                self.clear_faults();
            }
            match Gateway::start(self.now, &self.durable, &self.plan, &self.random, &self.events) {
                Ok(gateway) => {
                    self.gateway = gateway;
                    return Ok(());
                }
                Err(error) => self.note(format!("the start is refused: {error}")),
            }
            if self.durable.disk.is_dead() && self.random.chance(1, 2) {
                self.durable.disk.lose_power();
                self.durable.database.lose_power();
            }
        }
        violated!("I1: the gateway does not start any more: {:?}", self.events.last().last())
    }

    /// All inboxes and groups as they are now, against all that is known.
    pub(crate) fn audit(&mut self) -> Checked {
        let faults = self.durable.disk.faults();
        let away = self.durable.database.is_away();
        self.clear_faults();
        let inboxes = self.gateway.inboxes(&self.users)?;
        let rosters = self.gateway.rosters(self.now, &self.users);
        self.durable.disk.set_faults(faults);
        self.durable.database.set_failing(self.plan.store_failing);
        self.durable.database.set_away(away);
        for (group, (version, members)) in rosters {
            let known = self.model.newest_version(group);
            if version < known {
                return violated!("I1: version {known} of {group} was announced, and the ledger has {version}");
            }
            self.model.members(group, version, members)?;
        }
        audit(&mut self.model, &inboxes)?;
        self.note(format!("audited {} rows", inboxes.values().map(Vec::len).sum::<usize>()));
        Ok(())
    }

    /// No more trouble: everybody who is not stalled gets everything, then the stalled ones too, then all
    /// inboxes are audited.
    fn settle_and_audit(&mut self) -> Checked {
        self.clear_faults();
        self.run_until_settled(Whom::Readers)?;
        self.clients.iter_mut().for_each(|client| client.stalled = false);
        self.run_until_settled(Whom::Everybody)?;
        self.audit()?;
        self.set_faults();
        Ok(())
    }

    fn run_until_settled(&mut self, whom: Whom) -> Checked {
        for _ in 0..20_000 {
            if self.is_settled(whom) {
                return Ok(());
            }
            self.pass_time(5)?;
            for at in self.connections.keys().copied().collect::<Vec<_>>() {
                for which in 0..3 {
                    self.connection_step(at, which)?;
                }
            }
            for shard in 0..self.gateway.shards.len() {
                self.shard_step(shard)?;
            }
            self.gateway.ledger_turn(self.now)?;
            self.gateway.store_turn(self.now);
            for at in 0..self.clients.len() {
                self.client_upkeep(at);
            }
        }
        violated!("I3/I5: the world does not settle:\n{}", self.unsettled(whom))
    }

    fn is_settled(&self, whom: Whom) -> bool {
        let settled = |c: &Client| c.caught_up_to(self.model.newest_row(c.user)) && c.is_idle();
        self.gateway.is_quiet() && self.clients.iter().all(|c| !whom.has(c) || settled(c))
    }

    fn unsettled(&self, whom: Whom) -> String {
        let mut text = format!("the gateway: {}\n", self.gateway.waiting());
        for (at, client) in self.clients.iter().enumerate() {
            let newest = self.model.newest_row(client.user);
            if whom.has(client) && !(client.caught_up_to(newest) && client.is_idle()) {
                text += &format!(
                    "client {at}, user {} {:?}: row {} of {newest}, waits for {}\n",
                    client.user,
                    client.state,
                    client.cursor,
                    client.waiting()
                );
            }
        }
        text
    }

    /// What a client does even when nothing else happens: connect, send again, show that it is there.
    pub(crate) fn client_upkeep(&mut self, at: usize) {
        let client = &mut self.clients[at];
        match client.state {
            State::Offline if self.now.mono_ms >= client.connect_at_ms => self.connect(at),
            State::Online if client.in_flight() < 8 => {
                if let Some(&number) = client.unanswered.first() {
                    let bytes = client.send(&mut self.model, number);
                    self.note(format!("client {at} sends {number:?} again"));
                    self.transmit(at, &bytes);
                } else if self.now.mono_ms > client.sent_at_ms + 20_000 {
                    let bytes = client.other(2, &[]);
                    self.transmit(at, &bytes);
                }
            }
            _ => {}
        }
    }
}
