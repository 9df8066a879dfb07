//! One gateway by itself: its run, its trouble, its crashes.
//!
//! What always holds: a crash drops the whole process; the next one starts through the real recovery on what the disk
//! and the database kept, and all inboxes are audited before anybody is served.

use crate::check::audit;
use crate::disk::{DiskFaults, SimDisk};
use crate::fairness::{Allowance, Fairness};
use crate::gateway::{Durable, Gateway};
use crate::model::{Checked, Violation, violated};
use crate::mutation::Mutation;
use crate::plan::Plan;
use crate::random::Random;
use crate::store::Database;
use crate::world::{Whom, World};

/// Tries to start before the run gives up.
const STARTS_MAX: usize = 20;

/// Of four seeds those from this one on have hostile peers, and this one an account that sends all it can.
const HOSTILE: u64 = 2;
const GREEDY: u64 = 3;
/// More than an honest client sends in a run, and less than a greedy one.
const GREEDY_MEETS: Allowance = Allowance { at_once: 200, per_s: 10 };
/// Rounds of a world without trouble, 5 ms each, before something is stuck.
const SETTLES_ROUNDS: usize = 20_000;

/// How a process ends before its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Crash {
    /// SIGKILL: what was written stays in the page cache.
    Kill,
    /// The machine goes dark: only what was synced is sure to stay.
    PowerLoss,
}

/// The run.
pub(crate) struct Alone {
    pub world: World,
    durable: Durable,
    pub crashes: usize,
}

impl Alone {
    /// A gateway on an empty disk, and clients that are not connected.
    pub(crate) fn new(seed: u64, steps: usize, mutation: Mutation) -> Result<Alone, Violation> {
        let random = Random::new(seed);
        let plan = Plan { table_seed: seed, ..Plan::new(&random, steps, mutation) };
        let plan = if seed % 4 == GREEDY { plan.with_room().with_greedy(GREEDY_MEETS) } else { plan };
        let plan = Plan { is_hostile: seed % 4 >= HOSTILE, ..plan };
        let durable = Durable { disk: SimDisk::new(random.clone()), database: Database::new(random.clone()) };
        durable.disk.set_faults(DiskFaults { lies: mutation == Mutation::LyingDisk, ..DiskFaults::default() });
        if mutation == Mutation::ForgetfulStore {
            durable.database.become_forgetful();
        }
        let mut world = World::new(plan, random);
        world.model.fairness = Fairness::begin(world.plan.room, world.plan.allowance, world.now.mono_ms);
        let gateway = Gateway::start(world.now, &durable, &world.plan, &world.random, &world.events);
        world.add(gateway.map_err(Violation)?);
        Ok(Alone { world, durable, crashes: 0 })
    }

    /// The whole run.
    pub(crate) fn run(&mut self) -> Checked {
        self.set_faults();
        for _ in 0..self.world.plan.steps {
            self.step()?;
        }
        self.settle_and_audit()?;
        self.crash(if self.world.random.chance(1, 2) { Crash::Kill } else { Crash::PowerLoss })?;
        self.settle_and_audit()?;
        self.world.gateways[0].tally(&mut self.world.reached);
        self.world.count_refusals();
        Ok(())
    }

    fn set_faults(&mut self) {
        let faults = DiskFaults {
            full: false,
            writes_failing: self.world.plan.writes_failing,
            dying: self.world.plan.syncs_dying,
            syncs_failing: self.world.plan.syncs_dying / 4,
            lies: self.world.plan.mutation == Mutation::LyingDisk,
        };
        self.durable.disk.set_faults(faults);
        self.durable.database.set_failing(self.world.plan.store_failing);
    }

    fn clear_faults(&mut self) {
        let lies = self.world.plan.mutation == Mutation::LyingDisk;
        self.durable.disk.set_faults(DiskFaults { lies, ..DiskFaults::default() });
        self.durable.database.set_failing(0);
        self.durable.database.come_back();
    }

    fn step(&mut self) -> Checked {
        self.world.pass_time(self.world.random.between(0, 2))?;
        self.trouble()?;
        match self.world.random.below(100) {
            0..45 => self.world.network_step()?,
            45..60 => self.world.shard_step(0, self.world.random.below(self.world.gateways[0].shards.len()))?,
            60..70 => self.world.gateways[0].ledger_turn(self.world.now)?,
            70..80 => self.world.gateways[0].store_turn(self.world.now),
            _ if self.world.plan.is_hostile && self.world.random.chance(1, 4) => self.world.hostile_step(),
            _ => {
                let at = self.world.random.below(self.world.clients.len());
                self.world.client_step(at)?;
            }
        }
        if self.durable.disk.is_dead() {
            let crash = if self.world.random.chance(1, 2) { Crash::Kill } else { Crash::PowerLoss };
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

    fn trouble(&mut self) -> Checked {
        let happens = |of_10_000: u32| self.world.random.chance(of_10_000, 10_000);
        let (crash, outage, jump) = (
            happens(self.world.plan.crashes),
            happens(self.world.plan.store_outages),
            happens(self.world.plan.time_jumps),
        );
        let (full, stall, disconnect) = (
            happens(self.world.plan.full_disks),
            happens(self.world.plan.stalls),
            happens(self.world.plan.disconnects),
        );
        if crash {
            self.crash(if self.world.random.chance(1, 2) { Crash::Kill } else { Crash::PowerLoss })?;
        }
        if outage {
            self.durable.database.go_or_come();
            self.world.note(format!("the store is away: {}", self.durable.database.is_away()));
        }
        if full {
            let faults = self.durable.disk.faults();
            self.world.note(format!("the disk is full: {}", !faults.full));
            self.durable.disk.set_faults(DiskFaults { full: !faults.full, ..faults });
        }
        if stall {
            let at = self.world.random.below(self.world.clients.len());
            self.world.clients[at].stalled = !self.world.clients[at].stalled;
            self.world.note(format!("client {at} is stalled: {}", self.world.clients[at].stalled));
        }
        if disconnect {
            let at = self.world.random.below(self.world.clients.len());
            self.world.drop_connection(at);
        }
        if jump {
            self.jump()?;
        }
        Ok(())
    }

    /// The clock jumps: forward by seconds or past the window, or (only the wall clock) back.
    fn jump(&mut self) -> Checked {
        match self.world.random.below(3) {
            0 => self.world.pass_time(self.world.random.between(1_000, 20_000))?,
            1 => self.world.pass_time(self.world.random.between(600_000, 700_000))?,
            _ => self.world.now.unix_ms -= self.world.random.between(1, 30_000),
        }
        self.world.note(format!("the clock jumped to {:?}", self.world.now));
        Ok(())
    }

    /// The process ends now, and the next one starts.
    pub(crate) fn crash(&mut self, crash: Crash) -> Checked {
        self.crashes += 1;
        self.world.note(format!("{crash:?} at {} ms", self.world.now.mono_ms));
        self.world.drop_connections_of(0)?;
        self.world.gateways[0].tally(&mut self.world.reached);
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
            match Gateway::start(
                self.world.now,
                &self.durable,
                &self.world.plan,
                &self.world.random,
                &self.world.events,
            ) {
                Ok(gateway) => {
                    self.world.gateways[0] = gateway;
                    let Plan { room, allowance, .. } = self.world.plan;
                    self.world.count_refusals();
                    self.world.model.fairness = Fairness::begin(room, allowance, self.world.now.mono_ms);
                    return Ok(());
                }
                Err(error) => self.world.note(format!("the start is refused: {error}")),
            }
            if self.durable.disk.is_dead() && self.world.random.chance(1, 2) {
                self.durable.disk.lose_power();
                self.durable.database.lose_power();
            }
        }
        violated!("I1: the gateway does not start any more: {:?}", self.world.events.last().last())
    }

    /// All inboxes and groups as they are now, against all that is known.
    pub(crate) fn audit(&mut self) -> Checked {
        let faults = self.durable.disk.faults();
        let away = self.durable.database.is_away();
        self.clear_faults();
        let inboxes = self.world.gateways[0].inboxes(&self.world.users)?;
        let rosters = self.world.gateways[0].rosters(self.world.now, &self.world.users);
        self.durable.disk.set_faults(faults);
        self.durable.database.set_failing(self.world.plan.store_failing);
        if away {
            self.durable.database.go_away();
        }
        for (group, (version, members)) in rosters {
            let known = self.world.model.newest_version(group);
            if version < known {
                return violated!("I1: version {known} of {group} was announced, and the ledger has {version}");
            }
            self.world.model.members(group, version, members)?;
        }
        audit(&mut self.world.model, &inboxes)?;
        self.world.note(format!("audited {} rows", inboxes.values().map(Vec::len).sum::<usize>()));
        Ok(())
    }

    /// No more trouble: everybody who is not stalled gets everything, then the stalled ones too, then all
    /// inboxes are audited.
    fn settle_and_audit(&mut self) -> Checked {
        self.clear_faults();
        self.world.hurry_clients();
        self.world.drop_hostile();
        self.run_until_settled(Whom::Readers)?;
        self.world.clients.iter_mut().for_each(|client| client.stalled = false);
        self.run_until_settled(Whom::Everybody)?;
        self.audit()?;
        self.set_faults();
        Ok(())
    }

    fn run_until_settled(&mut self, whom: Whom) -> Checked {
        for round in 0..SETTLES_ROUNDS {
            if self.is_settled(whom) {
                return Ok(());
            }
            if round == SETTLES_ROUNDS / 2 {
                self.world.reach_all_names()?;
            }
            self.world.pass_time(5)?;
            for at in self.world.connections.keys().copied().collect::<Vec<_>>() {
                for which in 0..3 {
                    self.world.connection_step(at, which)?;
                }
            }
            for shard in 0..self.world.gateways[0].shards.len() {
                self.world.shard_step(0, shard)?;
            }
            self.world.gateways[0].ledger_turn(self.world.now)?;
            self.world.gateways[0].store_turn(self.world.now);
            for at in 0..self.world.clients.len() {
                self.world.client_upkeep(at)?;
            }
        }
        violated!("I3/I5: the world does not settle:\n{}", self.unsettled(whom))
    }

    fn is_settled(&self, whom: Whom) -> bool {
        self.world.gateways[0].is_quiet() && self.world.clients_have_all(whom)
    }

    fn unsettled(&self, whom: Whom) -> String {
        format!("the gateway: {}\n{}", self.world.gateways[0].waiting(), self.world.who_lacks(whom))
    }
}
