//! Several gateways as one cluster: production shards, ledgers and stores over models of Redis, of its connections and of
//! the database, in an order that the seed decides.
//!
//! What always holds: after the run all is well for a while, and then nothing is stuck: every message is settled, every
//! node numbers, the database has the whole stream, and every client has its inbox; all nodes have the same, and it is
//! what the model knows.

mod absence;
pub(crate) mod answers;
mod copies;
mod link;
pub(crate) mod mutation;
mod node;
mod plan;
pub(crate) mod redis;
mod session;
mod takeover;
mod trouble;

use self::absence::Absence;
use self::copies::TAKEN;
use self::mutation::Mutation;
use self::node::{Node, Process};
use self::plan::ClusterPlan;
use self::redis::{Data, Redis};
use self::session::execute;
use self::takeover::Takeover;
use self::trouble::{Late, Loss};
use crate::check::audit;
use crate::disk::SimDisk;
use crate::fairness::Fairness;
use crate::ledger::Ledger;
use crate::model::{Checked, Violation, violated};
use crate::random::Random;
use crate::store::Database;
use crate::world::{Runs, Whom, World};

/// How long a client waits for the answer to its login, and to anything else, while there is trouble.
const LOGIN_PATIENCE_MS: u64 = 10_000;
const ANSWER_PATIENCE_MS: u64 = 30_000;
/// Rounds of a world without trouble, 10 ms each, before something is stuck.
const SETTLES_ROUNDS: usize = 10_000;

/// Makes another source of chance of a seed.
const OTHER: u64 = 0xB0A7;

/// Rounds in which nothing more happens, before it is believed that nothing will.
const SETTLED_ROUNDS: usize = 100;

/// The run.
pub(crate) struct Cluster {
    pub world: World,
    plan: ClusterPlan,
    mutation: Mutation,
    nodes: Vec<Node>,
    redis: Redis,
    /// What it had some time ago.
    dump: Data,
    /// What it had a moment ago.
    recent_dump: Data,
    absent: Option<Absence>,
    takeover: Option<Takeover>,
    /// Steps until all nodes end.
    blackout_in: Option<u64>,
    /// Steps in which two processes have numbered as one node.
    twin_steps: usize,
    starts_of_redis: u64,
    database: Database,
    /// What was sent on connections that are gone, and is not executed yet.
    late: Vec<Late>,
    /// Until then Redis executes nothing, the world's milliseconds.
    stalled_until_ms: u64,
    pub crashes: usize,
}

impl Cluster {
    /// Nodes on empty disks, an empty Redis, an empty database.
    pub(crate) fn new(seed: u64, steps: usize, mutation: Mutation) -> Result<Cluster, Violation> {
        let random = Random::new(seed);
        let gateways = ClusterPlan::of_gateways(&random, seed, steps, mutation);
        let plan = ClusterPlan::new(&random, &Random::new(seed ^ OTHER), &gateways).for_planted(mutation);
        let mut world = World::new(gateways, random.clone());
        world.model.fairness = Fairness::begin(world.plan.room, world.plan.allowance, world.now.mono_ms);
        world.model.ledger = if plan.losses > 0 { Ledger::ForgetfulRedis } else { Ledger::Redis };
        let mut redis = Redis::new("run 1");
        redis.bent = mutation.of_redis();
        let database = Database::new(random.clone());
        if let Mutation::Database(untrue) = mutation {
            database.set_untrue(untrue);
        }
        let mut nodes = Vec::new();
        for id in 1..=plan.nodes as u16 {
            let (log, copy) = (SimDisk::new(random.clone()), SimDisk::new(random.clone()));
            let process = Process::start(&world, &plan, (id, mutation), (&log, &copy), &database).map_err(Violation)?;
            let (node, gateway) = Node::new(id, (log, copy), process);
            world.add(gateway);
            nodes.push(node);
        }
        for _ in 1..plan.nodes {
            world.model.fairness.another();
        }
        let late = Vec::new();
        let (dump, recent_dump, starts_of_redis) = (Data::default(), Data::default(), 1);
        Ok(Cluster {
            world,
            plan,
            mutation,
            nodes,
            redis,
            dump,
            recent_dump,
            absent: None,
            takeover: None,
            blackout_in: None,
            twin_steps: 0,
            starts_of_redis,
            database,
            late,
            stalled_until_ms: 0,
            crashes: 0,
        })
    }

    /// The whole run.
    pub(crate) fn run(&mut self) -> Checked {
        for _ in 0..self.world.plan.steps {
            self.step()?;
        }
        self.settle_and_audit()?;
        for gateway in &self.world.gateways {
            gateway.tally(&mut self.world.reached);
        }
        self.world.count_refusals();
        Ok(())
    }

    fn step(&mut self) -> Checked {
        let random = self.world.random.clone();
        self.world.pass_time(if random.chance(1, 100) { random.between(10, 800) } else { random.between(0, 6) })?;
        self.trouble()?;
        match random.below(100) {
            0..30 => self.world.network_step()?,
            30..84 => self.node_step(random.below(self.nodes.len()))?,
            84..90 => {
                self.redis_step();
                self.execute(random.below(self.nodes.len()));
            }
            _ if self.world.plan.is_hostile && random.chance(1, 4) => self.world.hostile_step(),
            _ => {
                let at = random.below(self.world.clients.len());
                self.impatience(at);
                self.world.client_step(at)?;
            }
        }
        self.note_who_confirms();
        self.check_twins()?;
        self.check_database()
    }

    /// A node's threads each have their turn, or some of them.
    fn node_step(&mut self, at: usize) -> Checked {
        if self.world.runs(at) != Runs::On {
            return Ok(());
        }
        let random = self.world.random.clone();
        if random.chance(1, 2) {
            let shards = self.world.gateways[at].shards.len();
            self.world.shard_step(at, random.below(shards))?;
        }
        if random.chance(1, 2) {
            self.ledger_turn(at)?;
        }
        if random.chance(1, 3) {
            self.store_turn(at);
        }
        if random.chance(1, 2) {
            self.link_turn(at);
        }
        if random.chance(1, 2) {
            self.execute(at);
        }
        Ok(())
    }

    fn store_turn(&mut self, at: usize) {
        let now = self.world.now_at(at);
        self.world.gateways[at].store_turn(now);
        if self.mutation == Mutation::WritesBehindAnyEntry {
            self.nodes[at].overlook_other_entries();
        }
    }

    fn link_turn(&mut self, at: usize) {
        let now_ms = self.world.now_at(at).mono_ms;
        let is_cut = self.world.now.mono_ms < self.nodes[at].cut_until_ms;
        let unix_ms = self.world.now_at(at).unix_ms;
        self.nodes[at].link.set_clock(unix_ms);
        self.nodes[at].link.turn(now_ms, Some(&self.redis).filter(|_| !is_cut));
        let left_behind = self.nodes[at].link.take_left_behind();
        if !left_behind.is_empty() {
            self.leave_behind(left_behind);
        }
    }

    fn ledger_turn(&mut self, at: usize) -> Checked {
        let now = self.world.now_at(at);
        self.world.gateways[at].ledger_turn(now)?;
        self.nodes[at].has_numbered |= self.world.gateways[at].numbers();
        self.world.model.is_reloaded |= self.world.gateways[at].is_reloaded;
        match self.world.gateways[at].ended.take() {
            // The stream was cut behind what it had read of it.
            Some(error)
                if error.contains("stood still for too long")
                    && self.nodes[at].progress.followed() > self.nodes[at].began_at =>
            {
                self.count("fell behind the stream");
                self.end_process(at, Loss::Nothing)
            }
            Some(error) if error.contains(TAKEN) && self.has_twin(at) => self.end_for_good(at),
            Some(error) => violated!("node {} ends: {error}", self.nodes[at].id),
            None => Ok(()),
        }
    }

    /// Redis executes something of a node's session, and lets it read.
    fn execute(&mut self, at: usize) {
        if self.world.now.mono_ms < self.stalled_until_ms {
            return;
        }
        let (redis_ms, node_ms) = (self.redis_ms(), self.world.now_at(at).mono_ms);
        let random = self.world.random.clone();
        let Some(session) = self.nodes[at].link.session() else { return };
        for _ in 0..1 + random.below(3) {
            session.execute_call(&mut self.redis, redis_ms);
        }
        session.execute_read(&mut self.redis, node_ms, &random);
    }

    /// Redis executes something that was left behind by a session.
    fn redis_step(&mut self) {
        let redis_ms = self.redis_ms();
        let at = self.world.random.below(self.late.len().max(1));
        let now_ms = self.world.now.mono_ms;
        let Some(late) = self.late.get_mut(at).filter(|late| now_ms >= late.from_ms) else { return };
        match late.asks.pop_front() {
            Some(ask) => {
                execute(&ask, &mut self.redis, redis_ms);
                self.count("executed late");
            }
            None => drop(self.late.swap_remove(at)),
        }
    }

    fn redis_ms(&self) -> u64 {
        self.world.now.unix_ms
    }

    /// Who waits too long goes elsewhere.
    fn impatience(&mut self, at: usize) {
        let client = &self.world.clients[at];
        let patience_ms = if client.is_live() { ANSWER_PATIENCE_MS } else { LOGIN_PATIENCE_MS };
        let gives_up = client.check.waits_ms(self.world.now.mono_ms) > patience_ms;
        if gives_up {
            self.world.drop_connection(at);
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.world.reached.entry(what).or_default() += 1;
    }

    fn check_database(&self) -> Checked {
        self.database.pass(self.world.now.mono_ms);
        self.database.contradiction().map_or(Ok(()), |text| Err(Violation(text)))
    }

    /// No more trouble.
    fn settle_and_audit(&mut self) -> Checked {
        self.end_trouble();
        // What a node submits again comes a little after it has begun to number.
        for _ in 0..SETTLED_ROUNDS {
            self.run_until("the cluster does not settle", |cluster| cluster.is_settled())?;
            self.round()?;
        }
        self.run_until("the cluster does not settle", |cluster| cluster.is_settled())?;
        self.run_until("a node that stops would wait for its store", |cluster| cluster.may_stop())?;
        self.audit()
    }

    fn run_until(&mut self, what: &str, is_so: impl Fn(&Cluster) -> bool) -> Checked {
        let (mut least, mut round) = (usize::MAX, 0);
        while round < 2 * SETTLES_ROUNDS {
            if is_so(self) {
                return Ok(());
            }
            if round == SETTLES_ROUNDS {
                if let Some(number) = self.world.owed() {
                    return violated!("liveness: {number:?} was acked, and what was sent again has no answer");
                }
                self.world.reach_all_names()?;
            }
            self.round()?;
            round += 1;
            // Whoever has kept many messages is answered one after another: it may take long, as long as it goes on.
            let unanswered = self.world.unanswered();
            if unanswered < least {
                (least, round) = (unanswered, if round > SETTLES_ROUNDS { SETTLES_ROUNDS + 1 } else { 0 });
            }
        }
        violated!("liveness: {what}:\n{}", self.unsettled())
    }

    /// 10 ms in which everybody has a turn.
    fn round(&mut self) -> Checked {
        self.world.pass_time(10)?;
        self.note_who_confirms();
        for at in self.world.connections.keys().copied().collect::<Vec<_>>() {
            for which in 0..3 {
                self.world.connection_step(at, which)?;
            }
        }
        self.go_on();
        for at in 0..self.nodes.len() {
            if self.world.runs(at) != Runs::On {
                continue;
            }
            for shard in 0..self.world.gateways[at].shards.len() {
                self.world.shard_step(at, shard)?;
            }
            self.ledger_turn(at)?;
            self.store_turn(at);
            self.link_turn(at);
            self.execute(at);
        }
        self.redis_step();
        for at in 0..self.world.clients.len() {
            self.world.client_upkeep(at)?;
        }
        self.check_database()
    }

    fn is_settled(&self) -> bool {
        let count = self.redis.count();
        let is_settled = |at: usize| {
            let (node, gateway) = (&self.nodes[at], &self.world.gateways[at]);
            node.is_over
                || self.world.runs(at) == Runs::On
                    && gateway.is_quiet()
                    && gateway.numbers()
                    && Some(node.progress.applied().0) == count
        };
        self.world.clients_have_all(Whom::Everybody)
            && (0..self.nodes.len()).all(is_settled)
            && count == Some(self.database.applied())
    }

    /// Nothing keeps a node that is told to stop.
    fn may_stop(&self) -> bool {
        let may_stop = |at: usize| self.nodes[at].is_over || self.world.gateways[at].may_stop();
        (0..self.nodes.len()).all(may_stop)
    }

    fn unsettled(&self) -> String {
        let mut text = format!("Redis: {:?}, the database: {}\n", self.redis.count(), self.database.applied());
        for (node, gateway) in std::iter::zip(&self.nodes, &self.world.gateways) {
            let (applied, why) = (node.progress.applied().0, gateway.stands_still());
            text += &format!("node {}: applied {applied}, stands still {why}, {}\n", node.id, gateway.waiting());
        }
        text + &self.world.who_lacks(Whom::Everybody)
    }

    /// What every node has, against what all others have, and against all that is known.
    fn audit(&mut self) -> Checked {
        let users = self.world.users.clone();
        let mut first = None;
        for at in (0..self.nodes.len()).filter(|at| !self.nodes[*at].is_over).collect::<Vec<_>>() {
            let inboxes = self.world.gateways[at].inboxes(&users)?;
            let rosters = self.rosters(at)?;
            let Some((its_inboxes, its_rosters)) = &first else {
                first = Some((inboxes, rosters));
                continue;
            };
            if *its_inboxes != inboxes {
                return violated!("nodes 1 and {} have different inboxes", at + 1);
            }
            if *its_rosters != rosters {
                return violated!("nodes 1 and {} have different rosters: {its_rosters:?} and {rosters:?}", at + 1);
            }
        }
        let Some((inboxes, rosters)) = first else { return Ok(()) };
        for (group, (version, members)) in rosters {
            let known = self.world.model.newest_version(group);
            if version < known && self.world.model.ledger != Ledger::ForgetfulRedis {
                return violated!("I1: version {known} of {group} was announced, and the ledger has {version}");
            }
            self.world.model.members(group, version, members)?;
        }
        audit(&mut self.world.model, &inboxes)?;
        self.world.note(format!("audited {} rows", inboxes.values().map(Vec::len).sum::<usize>()));
        Ok(())
    }

    /// A node's rosters, which it tells when it has read as far as Redis is.
    fn rosters(&mut self, at: usize) -> Result<crate::gateway::Rosters, Violation> {
        let users = self.world.users.clone();
        let now = self.world.now_at(at);
        self.world.gateways[at].begin_audit();
        self.world.gateways[at].ask_groups(now, &users);
        let of_groups = |cluster: &Cluster| cluster.world.gateways[at].audited_groups().0;
        self.run_until("a question has no answer", |cluster| of_groups(cluster) == cluster.world.users.len())?;
        self.world.gateways[at].ask_audited_rosters(now);
        self.run_until("a question has no answer", |cluster| cluster.world.gateways[at].audited_groups().1 == 0)?;
        Ok(self.world.gateways[at].end_audit())
    }
}
