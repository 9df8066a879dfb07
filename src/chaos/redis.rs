//! Redis, in one of the three ways it is run: alone, as a Redis Cluster, or as a primary with a replica and Sentinel.
//!
//! Owned by the lab. What always holds: gateways know one address of it (of a Redis Cluster: its masters'), and with
//! Sentinel that address follows whom Sentinel names, as a virtual address does.

use std::fs;
use std::time::Duration;

use tokio::time::sleep;

use crate::command::run;
use crate::error::Failure;
use crate::network::{Host, Network};
use crate::plan::{ASK_PATIENCE, Plan, REDIS_MASTERS, RedisKind, START_PATIENCE};
use crate::process::{Process, did_not_start, words};

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// The address that gateways know.
const ADDRESS: Host = Host(30);
/// The first server's; the others follow.
const FIRST: u8 = 31;
const SENTINEL: Host = Host(39);
/// What Sentinel calls the primary.
const PRIMARY: &str = "ringway";

/// The servers.
pub(crate) struct Redis {
    pub(crate) kind: RedisKind,
    servers: Vec<Process>,
    sentinel: Option<Process>,
    /// Which one has the address.
    primary: usize,
}

impl Redis {
    /// Not started yet.
    pub(crate) fn new(plan: &Plan, kind: RedisKind) -> Redis {
        let servers = (0..kind.servers()).map(|at| server(plan, kind, at)).collect();
        let sentinel = (kind == RedisKind::Sentinel).then(|| sentinel(plan));
        Redis { kind, servers, sentinel, primary: 0 }
    }

    /// Where the servers are, by all addresses.
    pub(crate) fn hosts(&self) -> Vec<Host> {
        self.own_hosts().chain([ADDRESS]).collect()
    }

    fn own_hosts(&self) -> impl Iterator<Item = Host> {
        self.servers.iter().map(|server| server.host)
    }

    /// What gateways are told: `cluster.redis_url` and `cluster.buckets`.
    pub(crate) fn settings(kind: RedisKind) -> (String, usize) {
        match kind {
            RedisKind::Alone | RedisKind::Sentinel => (format!("redis://{}:{PORT}", ADDRESS.address()), 1),
            RedisKind::Cluster => {
                let nodes: Vec<String> =
                    (1..REDIS_MASTERS as u8).map(|at| format!("node={}:{PORT}", Host(FIRST + at).address())).collect();
                (format!("redis-cluster://{}:{PORT}?{}", Host(FIRST).address(), nodes.join("&")), REDIS_MASTERS)
            }
        }
    }

    /// Starts all of it, and waits until it is one.
    pub(crate) async fn start(&mut self, network: &mut Network) -> Result<(), Failure> {
        for host in self.own_hosts().chain(self.sentinel.iter().map(|sentinel| sentinel.host)) {
            network.add(host)?;
        }
        network.move_address(ADDRESS, Host(FIRST))?;
        for at in 0..self.servers.len() {
            self.start_server(at).await?;
        }
        match self.kind {
            RedisKind::Alone => {}
            RedisKind::Cluster => self.join().await?,
            RedisKind::Sentinel => {
                command(Host(FIRST + 1), &["REPLICAOF", &Host(FIRST).address(), &PORT.to_string()])?;
                if let Some(sentinel) = &mut self.sentinel {
                    sentinel.start()?;
                }
            }
        }
        Ok(())
    }

    async fn join(&self) -> Result<(), Failure> {
        let nodes: Vec<String> = self.own_hosts().map(|host| format!("{}:{PORT}", host.address())).collect();
        let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
        let options = ["--cluster-replicas", "0", "--cluster-yes"];
        run(&[&["redis-cli", "--cluster", "create"][..], &nodes, &options].concat())?;
        for server in &self.servers {
            let ok = |info: String| info.contains("cluster_state:ok") && info.contains("cluster_size:3");
            wait(server, || command(server.host, &["CLUSTER", "INFO"]).is_ok_and(ok)).await?;
        }
        Ok(())
    }

    /// One of the servers, by any number.
    pub(crate) fn server(&mut self, at: usize) -> Option<&mut Process> {
        let count = self.servers.len().max(1);
        self.servers.get_mut(at % count)
    }

    /// Starts a server, for the first time or again, and waits until it answers.
    pub(crate) async fn start_server(&mut self, at: usize) -> Result<(), Failure> {
        let Some(server) = self.server(at) else { return Ok(()) };
        server.start()?;
        wait(server, || command(server.host, &["PING"]).is_ok_and(|answer| answer.contains("PONG"))).await
    }

    /// One command to a server; with Sentinel to the primary.
    pub(crate) fn command(&self, at: usize, words: &[&str]) -> Result<(), Failure> {
        let at = match self.kind {
            RedisKind::Sentinel => self.primary,
            RedisKind::Alone | RedisKind::Cluster => at % self.servers.len().max(1),
        };
        let Some(server) = self.servers.get(at) else { return Ok(()) };
        command(server.host, words).map(drop)
    }

    /// The same to every server that answers.
    pub(crate) fn command_all(&self, words: &[&str]) {
        // Who does not answer has lost what it was told before anyway.
        self.servers.iter().for_each(|server| drop(command(server.host, words)));
    }

    /// With Sentinel: the address goes to whom Sentinel names; says so if it has moved.
    pub(crate) fn follow(&mut self, network: &Network) -> Result<Option<String>, Failure> {
        if self.kind != RedisKind::Sentinel {
            return Ok(None);
        }
        let (address, port) = (SENTINEL.address(), SENTINEL_PORT.to_string());
        let asked = ["timeout", "5", "redis-cli", "-h", &address, "-p", &port, "SENTINEL", "get-master-addr-by-name"];
        let Ok(answer) = run(&[&asked[..], &[PRIMARY]].concat()) else { return Ok(None) };
        let named = answer.lines().next().unwrap_or_default();
        let Some(at) = self.own_hosts().position(|host| host.address() == named) else { return Ok(None) };
        if at == self.primary {
            return Ok(None);
        }
        self.primary = at;
        network.move_address(ADDRESS, Host(FIRST + at as u8))?;
        Ok(Some(format!("Sentinel has promoted redis-{}", at + 1)))
    }
}

async fn wait(server: &Process, mut done: impl FnMut() -> bool) -> Result<(), Failure> {
    for _ in 0..START_PATIENCE.as_millis() / 100 {
        if done() {
            return Ok(());
        }
        sleep(Duration::from_millis(100)).await;
    }
    Err(did_not_start(server))
}

fn server(plan: &Plan, kind: RedisKind, at: usize) -> Process {
    let name = format!("redis-{}", at + 1);
    let (dir, port) = (plan.dir.join(&name).display().to_string(), PORT.to_string());
    let what = if kind == RedisKind::Cluster { "redis-cluster" } else { "redis" };
    let line = ["scripts/services.sh", what, &dir, &port, "--bind", "0.0.0.0", "--protected-mode", "no"];
    Process::new(&name, Host(FIRST + at as u8), plan.report.join(format!("{name}.log")), words(line))
}

fn sentinel(plan: &Plan) -> Process {
    let file = plan.dir.join("sentinel.conf");
    let settings = format!(
        "port {SENTINEL_PORT}\nbind 0.0.0.0\nprotected-mode no\ndir {}\n\
         sentinel monitor {PRIMARY} {} {PORT} 1\nsentinel down-after-milliseconds {PRIMARY} 2000\n\
         sentinel failover-timeout {PRIMARY} 6000\n",
        plan.dir.display(),
        Host(FIRST).address()
    );
    // A file that cannot be written is one that Sentinel does not find, and says so.
    drop(fs::write(&file, settings));
    let file = file.display().to_string();
    Process::new("sentinel", SENTINEL, plan.report.join("sentinel.log"), words(["redis-server", &file, "--sentinel"]))
}

/// One command to a Redis.
fn command(host: Host, words: &[&str]) -> Result<String, Failure> {
    let (address, port) = (host.address(), PORT.to_string());
    let patience = ASK_PATIENCE.as_secs().to_string();
    run(&[&["timeout", &patience, "redis-cli", "-h", &address, "-p", &port], words].concat())
}
