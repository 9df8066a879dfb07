//! The faults: what is done to the cluster, and what puts it right again.
//!
//! What always holds: every fault that has begun is ended before the run is judged.

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::command::run;
use crate::error::Failure;
use crate::history::Harm;
use crate::lab::{Lab, NODES, gateway_host};
use crate::network::{CLIENTS, Direction, Host};
use crate::plan::RedisKind;
use crate::process::Process;

/// Whom a gateway is cut off from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Peer {
    Redis,
    MariaDb,
    Clients,
    /// Redis and MariaDB.
    Servers,
}

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// A gateway is killed, and started again.
    GatewayKilled(usize),
    /// A gateway stands still, for longer than its leases.
    GatewayStopped(usize),
    /// A gateway is cut off.
    GatewayCut(usize, Peer, Direction),
    /// A gateway is cut off from Redis for longer than Redis keeps names, which is this.
    GatewayCutBeyondNames(usize, Duration),
    /// A gateway stands still for so long.
    GatewayStoppedBeyondNames(usize, Duration),
    /// What a gateway sends comes late.
    GatewaySlow(usize),
    /// A gateway's disk is full.
    GatewayDiskFull(usize),
    /// A gateway's clock is put forward or back, by so many seconds.
    GatewayClock(usize, i64),
    /// A Redis is killed, and started again.
    RedisKilled(usize),
    /// A Redis stands still, for longer than leases.
    RedisStopped(usize),
    /// `FLUSHALL`.
    RedisEmptied(usize),
    /// `SCRIPT FLUSH`.
    RedisScriptsFlushed(usize),
    /// `CONFIG SET maxmemory`, to less than it has.
    RedisFull(usize),
    /// MariaDB is killed, and started again.
    MariaDbKilled,
    /// MariaDB stands still.
    MariaDbStopped,
    /// MariaDB dies, and a replica that lacks the last seconds takes its place.
    MariaDbFailedOver,
}

/// Where Redis keeps names for no longer than this, being away for longer is a fault like the others.
const NAMES_SHORT: Duration = Duration::from_secs(60);
/// How many kinds there are that every run has.
const KINDS: usize = 14;
/// By how much a clock is put forward or back, seconds: over a minute a gateway does not number, below ten nobody is told.
const CLOCK_STEPS_S: [i64; 5] = [3, 20, 50, 90, 400];

impl Fault {
    /// One of each kind, in an order and with particulars that chance gives.
    pub(crate) fn deck(names: Duration, random: &mut fastrand::Rng) -> Vec<Fault> {
        let mut kinds: Vec<usize> = (0..KINDS).collect();
        random.shuffle(&mut kinds);
        let mut deck: Vec<Fault> = kinds.into_iter().map(|kind| Fault::of_kind(kind, random)).collect();
        if names <= NAMES_SHORT {
            deck.push(Fault::GatewayCutBeyondNames(random.usize(..NODES), names));
            deck.push(Fault::GatewayStoppedBeyondNames(random.usize(..NODES), names));
            random.shuffle(&mut deck);
        }
        deck
    }

    /// What a run of `time` has once, beside those: a gateway that is cut off for longer than Redis keeps names, if it has
    /// time for that and for the others.
    pub(crate) fn of_long_runs(time: Duration, names: Duration, random: &mut fastrand::Rng) -> Vec<Fault> {
        match names > NAMES_SHORT && time >= names * 8 / 3 {
            true => vec![Fault::GatewayCutBeyondNames(random.usize(..NODES), names)],
            false => Vec::new(),
        }
    }

    fn of_kind(kind: usize, random: &mut fastrand::Rng) -> Fault {
        let at = random.usize(..NODES);
        let peers = [Peer::Redis, Peer::MariaDb, Peer::Clients, Peer::Servers];
        let directions = [Direction::Both, Direction::In, Direction::Out];
        let (peer, direction) = (random.usize(..peers.len()), random.usize(..directions.len()));
        match kind {
            0 => Fault::GatewayKilled(at),
            1 => Fault::GatewayStopped(at),
            2 => Fault::GatewayCut(
                at,
                peers.get(peer).copied().unwrap_or(Peer::Redis),
                directions.get(direction).copied().unwrap_or(Direction::Both),
            ),
            3 => Fault::GatewaySlow(at),
            4 => Fault::GatewayDiskFull(at),
            5 => Fault::RedisKilled(at),
            6 => Fault::RedisStopped(at),
            7 => Fault::RedisEmptied(at),
            8 => Fault::RedisScriptsFlushed(at),
            9 => Fault::RedisFull(at),
            10 => Fault::MariaDbKilled,
            11 => Fault::MariaDbStopped,
            12 => {
                let step_s = random.choice(CLOCK_STEPS_S).unwrap_or_default();
                Fault::GatewayClock(at, if random.bool() { step_s } else { -step_s })
            }
            _ => Fault::MariaDbFailedOver,
        }
    }

    /// Its kind, for people.
    pub(crate) fn name(self) -> String {
        match self {
            Fault::GatewayKilled(_) => "a gateway killed".to_owned(),
            Fault::GatewayStopped(_) => "a gateway stopped".to_owned(),
            Fault::GatewayCut(_, peer, direction) => {
                let peer = match peer {
                    Peer::Redis => "Redis",
                    Peer::MariaDb => "MariaDB",
                    Peer::Clients => "its clients",
                    Peer::Servers => "Redis and MariaDB",
                };
                format!("a gateway cut off from {peer}, {direction}")
            }
            Fault::GatewayCutBeyondNames(..) => "a gateway cut off from Redis for longer than names".to_owned(),
            Fault::GatewayStoppedBeyondNames(..) => "a gateway stopped for longer than names".to_owned(),
            Fault::GatewaySlow(_) => "a gateway's line slow".to_owned(),
            Fault::GatewayDiskFull(_) => "a gateway's disk full".to_owned(),
            Fault::GatewayClock(_, step_s) if step_s < 0 => "a gateway's clock put back".to_owned(),
            Fault::GatewayClock(..) => "a gateway's clock put forward".to_owned(),
            Fault::RedisKilled(_) => "a Redis killed".to_owned(),
            Fault::RedisStopped(_) => "a Redis stopped".to_owned(),
            Fault::RedisEmptied(_) => "a Redis emptied".to_owned(),
            Fault::RedisScriptsFlushed(_) => "a Redis's scripts flushed".to_owned(),
            Fault::RedisFull(_) => "a Redis without memory".to_owned(),
            Fault::MariaDbKilled => "MariaDB killed".to_owned(),
            Fault::MariaDbStopped => "MariaDB stopped".to_owned(),
            Fault::MariaDbFailedOver => "MariaDB failed over to a replica without the tail".to_owned(),
        }
    }

    /// The worst that it may do to the ledger, by the cluster's page.
    pub(crate) fn harm(self, kind: RedisKind) -> Harm {
        match self {
            Fault::RedisEmptied(_) => Harm::RedisLost,
            // A replica that lacks the tail may be promoted.
            Fault::RedisKilled(_) | Fault::RedisStopped(_) if kind == RedisKind::Sentinel => Harm::RedisLost,
            // Nobody who was there before it was started may be there to confirm what it has.
            Fault::RedisKilled(_) => Harm::MadeAnew,
            _ => Harm::None,
        }
    }

    /// Faults of one victim exclude each other.
    pub(crate) fn may_meet(self, other: Fault) -> bool {
        match (self.gateway(), other.gateway()) {
            (Some(one), Some(two)) => one != two,
            (None, None) => self.is_of_redis() != other.is_of_redis(),
            _ => true,
        }
    }

    /// Whether a gateway may hear nothing of Redis for longer than its leases, though its process goes on.
    pub(crate) fn keeps_from_redis(self, gateway: usize) -> bool {
        match self {
            Fault::GatewayStopped(at)
            | Fault::GatewayCut(at, Peer::Redis | Peer::Servers, _)
            | Fault::GatewayCutBeyondNames(at, _)
            | Fault::GatewayStoppedBeyondNames(at, _)
            | Fault::GatewaySlow(at) => at == gateway,
            Fault::RedisKilled(_) | Fault::RedisStopped(_) => true,
            _ => false,
        }
    }

    fn gateway(self) -> Option<usize> {
        match self {
            Fault::GatewayKilled(at)
            | Fault::GatewayStopped(at)
            | Fault::GatewayCut(at, ..)
            | Fault::GatewayCutBeyondNames(at, _)
            | Fault::GatewayStoppedBeyondNames(at, _)
            | Fault::GatewaySlow(at)
            | Fault::GatewayDiskFull(at)
            | Fault::GatewayClock(at, _) => Some(at),
            _ => None,
        }
    }

    fn is_of_redis(self) -> bool {
        !matches!(self, Fault::MariaDbKilled | Fault::MariaDbStopped | Fault::MariaDbFailedOver)
    }

    /// How long it lasts.
    pub(crate) fn time(self, random: &mut fastrand::Rng) -> Duration {
        let (from_ms, to_ms) = match self {
            Fault::GatewayKilled(_) | Fault::RedisKilled(_) | Fault::MariaDbKilled => (100, 4_000),
            // Leases are five seconds.
            Fault::GatewayStopped(_) | Fault::RedisStopped(_) | Fault::MariaDbStopped => (1_000, 9_000),
            Fault::GatewayCut(..) => (2_000, 12_000),
            Fault::GatewayCutBeyondNames(_, names) | Fault::GatewayStoppedBeyondNames(_, names) => {
                let names_ms = names.as_millis() as u64;
                (names_ms + names_ms / 45, names_ms + names_ms / 10)
            }
            Fault::GatewaySlow(_) | Fault::GatewayClock(..) => (2_000, 8_000),
            Fault::GatewayDiskFull(_) | Fault::RedisFull(_) => (1_000, 6_000),
            Fault::MariaDbFailedOver => (500, 5_000),
            Fault::RedisEmptied(_) | Fault::RedisScriptsFlushed(_) => (0, 500),
        };
        Duration::from_millis(random.u64(from_ms..to_ms))
    }

    /// Does it; says what else is to be known of it.
    pub(crate) async fn begin(self, lab: &mut Lab) -> Result<String, Failure> {
        match self {
            Fault::GatewayKilled(at) => with(lab.gateways.get_mut(at), Process::kill),
            Fault::GatewayStopped(at) | Fault::GatewayStoppedBeyondNames(at, _) => {
                with(lab.gateways.get_mut(at), |gateway| gateway.signal(Signal::SIGSTOP));
            }
            Fault::GatewayCut(at, peer, direction) => lab.network.cut(gateway_host(at), &peer.hosts(lab), direction)?,
            Fault::GatewayCutBeyondNames(at, _) => {
                lab.network.cut(gateway_host(at), &Peer::Redis.hosts(lab), Direction::Both)?;
            }
            Fault::GatewaySlow(at) => return lab.network.slow_down(gateway_host(at)).map(|how| gateway_is(at, how)),
            Fault::GatewayDiskFull(at) => fill(lab, at),
            Fault::GatewayClock(at, step_s) => {
                lab.clocks.put(at, step_s)?;
                return Ok(gateway_is(at, &format!("by {step_s} s")));
            }
            Fault::RedisKilled(at) => with(lab.redis.server(at), Process::kill),
            Fault::RedisStopped(at) => with(lab.redis.server(at), |redis| redis.signal(Signal::SIGSTOP)),
            Fault::RedisEmptied(at) => lab.redis.command(at, &["FLUSHALL"])?,
            Fault::RedisScriptsFlushed(at) => lab.redis.command(at, &["SCRIPT", "FLUSH"])?,
            Fault::RedisFull(at) => lab.redis.command(at, &["CONFIG", "SET", "maxmemory", "1mb"])?,
            Fault::MariaDbKilled => with(lab.mariadb.primary(), Process::kill),
            Fault::MariaDbStopped => with(lab.mariadb.primary(), |mariadb| mariadb.signal(Signal::SIGSTOP)),
            Fault::MariaDbFailedOver => return lab.mariadb.hold_replica_back().await,
        }
        Ok(self.gateway().map(|at| gateway_is(at, "")).unwrap_or_default())
    }

    /// Puts it right again.
    pub(crate) async fn end(self, lab: &mut Lab) -> Result<(), Failure> {
        match self {
            Fault::GatewayKilled(at) => {
                if let Some(gateway) = lab.gateways.get_mut(at) {
                    gateway.start()?;
                }
            }
            Fault::GatewayStopped(at) | Fault::GatewayStoppedBeyondNames(at, _) => {
                with(lab.gateways.get_mut(at), |gateway| gateway.signal(Signal::SIGCONT));
            }
            Fault::GatewayCut(at, ..) | Fault::GatewayCutBeyondNames(at, _) => lab.network.mend(gateway_host(at))?,
            Fault::GatewaySlow(at) => lab.network.speed_up(gateway_host(at))?,
            Fault::GatewayDiskFull(at) => drop(std::fs::remove_file(filler(lab, at))),
            Fault::GatewayClock(at, _) => lab.clocks.put(at, 0)?,
            Fault::RedisKilled(at) => lab.redis.start_server(at).await?,
            Fault::RedisStopped(at) => with(lab.redis.server(at), |redis| redis.signal(Signal::SIGCONT)),
            Fault::RedisFull(_) => lab.redis.command_all(&["CONFIG", "SET", "maxmemory", "0"]),
            Fault::MariaDbKilled => lab.mariadb.start_primary().await?,
            Fault::MariaDbStopped => with(lab.mariadb.primary(), |mariadb| mariadb.signal(Signal::SIGCONT)),
            Fault::MariaDbFailedOver => lab.mariadb.fail_over(&lab.network).await?,
            Fault::RedisEmptied(_) | Fault::RedisScriptsFlushed(_) => {}
        }
        Ok(())
    }
}

impl Peer {
    fn hosts(self, lab: &Lab) -> Vec<Host> {
        let (redis, mariadb) = (lab.redis.hosts(), lab.mariadb.hosts());
        match self {
            Peer::Redis => redis,
            Peer::MariaDb => mariadb,
            Peer::Servers => [redis, mariadb].concat(),
            Peer::Clients => vec![Host(CLIENTS)],
        }
    }
}

fn gateway_is(at: usize, how: &str) -> String {
    format!("gateway {}{}{how}", at + 1, if how.is_empty() { "" } else { ", " })
}

fn with(process: Option<&mut Process>, act: impl FnOnce(&mut Process)) {
    if let Some(process) = process {
        act(process);
    }
}

fn filler(lab: &Lab, at: usize) -> PathBuf {
    lab.dir.join(format!("gateway-{}", at + 1)).join("filler")
}

/// Takes all room of a gateway's disk.
fn fill(lab: &Lab, at: usize) {
    let to = format!("of={}", filler(lab, at).display());
    // It ends with an error, when there is no room left.
    drop(run(&["dd", "if=/dev/zero", &to, "bs=64k", "status=none"]));
}
