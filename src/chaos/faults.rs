//! The faults: what is done to the cluster, and what puts it right again.
//!
//! What always holds: every fault that has begun is ended before the run is judged.

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::command::run;
use crate::error::Failure;
use crate::history::Harm;
use crate::lab::{Lab, NODES, gateway_host, redis_command};
use crate::network::{CLIENTS, Direction, Host};

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
    /// What a gateway sends comes late.
    GatewaySlow(usize),
    /// A gateway's disk is full.
    GatewayDiskFull(usize),
    /// Redis is killed, and started again.
    RedisKilled,
    /// Redis stands still, for longer than leases.
    RedisStopped,
    /// `FLUSHALL`.
    RedisEmptied,
    /// `SCRIPT FLUSH`.
    RedisScriptsFlushed,
    /// `CONFIG SET maxmemory`, to less than it has.
    RedisFull,
    /// MariaDB is killed, and started again.
    MariaDbKilled,
    /// MariaDB stands still.
    MariaDbStopped,
}

/// How many kinds there are.
const KINDS: usize = 12;

impl Fault {
    /// One of each kind, in an order and with particulars that chance gives.
    pub(crate) fn deck(random: &mut fastrand::Rng) -> Vec<Fault> {
        let mut kinds: Vec<usize> = (0..KINDS).collect();
        random.shuffle(&mut kinds);
        kinds.into_iter().map(|kind| Fault::of_kind(kind, random)).collect()
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
            5 => Fault::RedisKilled,
            6 => Fault::RedisStopped,
            7 => Fault::RedisEmptied,
            8 => Fault::RedisScriptsFlushed,
            9 => Fault::RedisFull,
            10 => Fault::MariaDbKilled,
            _ => Fault::MariaDbStopped,
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
            Fault::GatewaySlow(_) => "a gateway's line slow".to_owned(),
            Fault::GatewayDiskFull(_) => "a gateway's disk full".to_owned(),
            Fault::RedisKilled => "Redis killed".to_owned(),
            Fault::RedisStopped => "Redis stopped".to_owned(),
            Fault::RedisEmptied => "Redis emptied".to_owned(),
            Fault::RedisScriptsFlushed => "Redis's scripts flushed".to_owned(),
            Fault::RedisFull => "Redis without memory".to_owned(),
            Fault::MariaDbKilled => "MariaDB killed".to_owned(),
            Fault::MariaDbStopped => "MariaDB stopped".to_owned(),
        }
    }

    /// The worst that it may do to the ledger, by the cluster's page.
    pub(crate) fn harm(self) -> Harm {
        match self {
            Fault::RedisEmptied => Harm::RedisLost,
            // Nobody who was there before it was started may be there to confirm what it has.
            Fault::RedisKilled => Harm::MadeAnew,
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

    fn gateway(self) -> Option<usize> {
        match self {
            Fault::GatewayKilled(at)
            | Fault::GatewayStopped(at)
            | Fault::GatewayCut(at, ..)
            | Fault::GatewaySlow(at)
            | Fault::GatewayDiskFull(at) => Some(at),
            _ => None,
        }
    }

    fn is_of_redis(self) -> bool {
        !matches!(self, Fault::MariaDbKilled | Fault::MariaDbStopped)
    }

    /// How long it lasts.
    pub(crate) fn time(self, random: &mut fastrand::Rng) -> Duration {
        let (from_ms, to_ms) = match self {
            Fault::GatewayKilled(_) | Fault::RedisKilled | Fault::MariaDbKilled => (100, 4_000),
            // Leases are five seconds.
            Fault::GatewayStopped(_) | Fault::RedisStopped | Fault::MariaDbStopped => (1_000, 9_000),
            Fault::GatewayCut(..) => (2_000, 12_000),
            Fault::GatewaySlow(_) => (2_000, 8_000),
            Fault::GatewayDiskFull(_) | Fault::RedisFull => (1_000, 6_000),
            Fault::RedisEmptied | Fault::RedisScriptsFlushed => (0, 500),
        };
        Duration::from_millis(random.u64(from_ms..to_ms))
    }

    /// Does it; says what else is to be known of it.
    pub(crate) fn begin(self, lab: &mut Lab) -> Result<String, Failure> {
        let redis = lab.redis.host;
        match self {
            Fault::GatewayKilled(at) => with_gateway(lab, at, |gateway| gateway.kill()),
            Fault::GatewayStopped(at) => with_gateway(lab, at, |gateway| gateway.signal(Signal::SIGSTOP)),
            Fault::GatewayCut(at, peer, direction) => {
                let mut others = Vec::new();
                if matches!(peer, Peer::Redis | Peer::Servers) {
                    others.extend(lab.redis_hosts());
                }
                if matches!(peer, Peer::MariaDb | Peer::Servers) {
                    others.extend(lab.mariadb_hosts());
                }
                if peer == Peer::Clients {
                    others.push(Host(CLIENTS));
                }
                lab.network.cut(gateway_host(at), &others, direction)?;
            }
            Fault::GatewaySlow(at) => return lab.network.slow_down(gateway_host(at)).map(|how| gateway_is(at, how)),
            Fault::GatewayDiskFull(at) => fill(lab, at),
            Fault::RedisKilled => lab.redis.kill(),
            Fault::RedisStopped => lab.redis.signal(Signal::SIGSTOP),
            Fault::RedisEmptied => drop(redis_command(redis, &["FLUSHALL"])?),
            Fault::RedisScriptsFlushed => drop(redis_command(redis, &["SCRIPT", "FLUSH"])?),
            Fault::RedisFull => drop(redis_command(redis, &["CONFIG", "SET", "maxmemory", "1mb"])?),
            Fault::MariaDbKilled => lab.mariadb.kill(),
            Fault::MariaDbStopped => lab.mariadb.signal(Signal::SIGSTOP),
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
            Fault::GatewayStopped(at) => with_gateway(lab, at, |gateway| gateway.signal(Signal::SIGCONT)),
            Fault::GatewayCut(at, ..) => lab.network.mend(gateway_host(at))?,
            Fault::GatewaySlow(at) => lab.network.speed_up(gateway_host(at))?,
            Fault::GatewayDiskFull(at) => drop(std::fs::remove_file(filler(lab, at))),
            Fault::RedisKilled => {
                lab.redis.start()?;
                lab.wait_for_redis().await?;
            }
            Fault::RedisStopped => lab.redis.signal(Signal::SIGCONT),
            Fault::RedisFull => drop(redis_command(lab.redis.host, &["CONFIG", "SET", "maxmemory", "0"])?),
            Fault::MariaDbKilled => {
                lab.mariadb.start()?;
                lab.wait_for_mariadb().await?;
            }
            Fault::MariaDbStopped => lab.mariadb.signal(Signal::SIGCONT),
            Fault::RedisEmptied | Fault::RedisScriptsFlushed => {}
        }
        Ok(())
    }
}

fn gateway_is(at: usize, how: &str) -> String {
    format!("gateway {}{}{how}", at + 1, if how.is_empty() { "" } else { ", " })
}

fn with_gateway(lab: &mut Lab, at: usize, act: impl FnOnce(&mut crate::process::Process)) {
    if let Some(gateway) = lab.gateways.get_mut(at) {
        act(gateway);
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
