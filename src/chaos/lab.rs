//! The cluster that is disturbed: three gateways, MariaDB and Redis, each in a namespace of its own.
//!
//! Owned by the driver. What always holds: gateways reach MariaDB at an address that moves with the server that
//! has its place.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;

use crate::command::run;
use crate::error::Failure;
use crate::network::{Host, Network};
use crate::process::Process;

/// Gateways.
pub(crate) const NODES: usize = 3;
/// How long a server may take to answer on a busy machine.
const START_PATIENCE: Duration = Duration::from_secs(90);
/// How long a question to a server may take.
const ASK_PATIENCE: Duration = Duration::from_secs(5);
/// Where clients connect, and where operators look.
const CLIENT_PORT: u16 = 7400;
const ADMIN_PORT: u16 = 7401;
const MARIADB_PORT: u16 = 3306;
pub(crate) const REDIS_PORT: u16 = 6379;
/// The address that gateways know of MariaDB.
const MARIADB: Host = Host(20);
const MARIADB_HOST: Host = Host(21);
const REDIS_HOST: Host = Host(31);
/// What the gateways verify tokens with.
const SECRET: &str = "a secret of the chaos run, 32 bytes or more";

/// What a lab is made of.
pub(crate) struct Plan {
    /// The gateway's binary.
    pub(crate) ringway: PathBuf,
    /// Where everything lies that goes afterwards.
    pub(crate) dir: PathBuf,
    /// Where the logs go.
    pub(crate) report: PathBuf,
}

/// The cluster.
pub(crate) struct Lab {
    pub(crate) network: Network,
    pub(crate) gateways: Vec<Process>,
    pub(crate) mariadb: Process,
    pub(crate) redis: Process,
    /// Where their data are.
    pub(crate) dir: PathBuf,
}

/// Where a gateway is.
pub(crate) fn gateway_host(at: usize) -> Host {
    Host(11 + at as u8)
}

/// Where clients connect to it.
pub(crate) fn gateway_address(at: usize) -> String {
    format!("{}:{CLIENT_PORT}", gateway_host(at).address())
}

/// The database, for the driver too.
pub(crate) fn database_url(name: &str) -> String {
    format!("mysql://ringway:ringway@{}:{MARIADB_PORT}/{name}", MARIADB.address())
}

impl Lab {
    /// Starts all of it, and waits until it is ready.
    pub(crate) async fn start(plan: &Plan) -> Result<Lab, Failure> {
        let mut network = Network::create()?;
        let gateways = (0..NODES).map(gateway_host);
        for host in gateways.chain([MARIADB_HOST, REDIS_HOST]) {
            network.add(host)?;
        }
        network.move_address(MARIADB, MARIADB_HOST)?;
        let mut lab = Lab {
            network,
            gateways: (0..NODES).map(|at| gateway(plan, at)).collect(),
            mariadb: mariadb(plan),
            redis: redis(plan),
            dir: plan.dir.clone(),
        };
        lab.mariadb.start()?;
        lab.redis.start()?;
        lab.wait_for_mariadb().await?;
        sql("mysql", "CREATE DATABASE IF NOT EXISTS ringway").await?;
        lab.wait_for_redis().await?;
        for gateway in &mut lab.gateways {
            gateway.start()?;
        }
        lab.wait_for_gateways().await?;
        Ok(lab)
    }

    async fn wait_for_gateways(&mut self) -> Result<(), Failure> {
        for at in 0..NODES {
            let mut polls = START_PATIENCE.as_millis() / 100;
            while self.not_ready(at).is_some() {
                let Some(gateway) = self.gateways.get_mut(at) else { break };
                polls = polls.saturating_sub(1);
                if gateway.ended().is_some() || polls == 0 {
                    return Err(did_not_start(gateway));
                }
                sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    /// Where MariaDB is, by all addresses.
    pub(crate) fn mariadb_hosts(&self) -> Vec<Host> {
        vec![MARIADB, MARIADB_HOST]
    }

    /// Where Redis is.
    pub(crate) fn redis_hosts(&self) -> Vec<Host> {
        vec![REDIS_HOST]
    }

    pub(crate) async fn wait_for_mariadb(&self) -> Result<(), Failure> {
        for _ in 0..START_PATIENCE.as_millis() / 100 {
            if sql("mysql", "SELECT 1").await.is_ok() {
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
        Err(did_not_start(&self.mariadb))
    }

    pub(crate) async fn wait_for_redis(&self) -> Result<(), Failure> {
        for _ in 0..START_PATIENCE.as_millis() / 100 {
            if redis_command(self.redis.host, &["PING"]).is_ok_and(|answer| answer.contains("PONG")) {
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
        Err(did_not_start(&self.redis))
    }

    /// A gateway's `/readyz`: its words, if it is not ready.
    pub(crate) fn not_ready(&self, at: usize) -> Option<String> {
        match page(at, "/readyz") {
            Ok(text) if text.starts_with("HTTP/1.1 200") => None,
            Ok(text) => Some(text.lines().last().unwrap_or_default().to_owned()),
            Err(error) => Some(error.to_string()),
        }
    }
}

fn did_not_start(process: &Process) -> Failure {
    let patience_s = START_PATIENCE.as_secs();
    Failure::Start { name: process.name.clone(), patience_s, log: process.log_end() }
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

fn gateway(plan: &Plan, at: usize) -> Process {
    let (name, host) = (format!("gateway-{}", at + 1), gateway_host(at));
    let (address, data) = (host.address(), plan.dir.join(&name));
    let binary = plan.ringway.display().to_string();
    let (listen, admin) = (format!("{address}:{CLIENT_PORT}"), format!("{address}:{ADMIN_PORT}"));
    let data = data.display().to_string();
    let line = [&binary, "serve", "--listen", &listen, "--admin", &admin, "--data-dir", &data, "--shards", "1"];
    Process::new(&name, host, plan.report.join(format!("{name}.log")), words(line))
        .with("RINGWAY_AUTH_HS256_SECRET", SECRET)
        .with("RINGWAY_STORE_URL", database_url("ringway"))
        .with("RINGWAY_CLUSTER_REDIS_URL", format!("redis://{}:{REDIS_PORT}", REDIS_HOST.address()))
        .with("RINGWAY_CLUSTER_NODE_ID", (at + 1).to_string())
        .with("RINGWAY_LIMITS_CONNECTIONS_MAX", "2000")
}

fn mariadb(plan: &Plan) -> Process {
    let dir = plan.dir.join("mariadb");
    let (port, socket) = (MARIADB_PORT.to_string(), format!("--socket={}/s", dir.display()));
    let dir = dir.display().to_string();
    let line = ["scripts/services.sh", "mariadb", &dir, &port, "--bind-address=0.0.0.0", &socket];
    Process::new("mariadb", MARIADB_HOST, plan.report.join("mariadb.log"), words(line))
}

fn redis(plan: &Plan) -> Process {
    let (dir, port) = (plan.dir.join("redis").display().to_string(), REDIS_PORT.to_string());
    let line = ["scripts/services.sh", "redis", &dir, &port, "--bind", "0.0.0.0", "--protected-mode", "no"];
    Process::new("redis", REDIS_HOST, plan.report.join("redis.log"), words(line))
}

/// Tokens of so many users, a line each, in a file.
pub(crate) fn make_tokens(plan: &Plan, users: u64, path: &Path) -> Result<(), Failure> {
    let binary = plan.ringway.display().to_string();
    let secret = format!("auth.hs256_secret={SECRET}");
    let mut tokens = String::new();
    for user in 1..=users {
        let user = user.to_string();
        let printed = run(&[&binary, "token", "--set", &secret, "--user", &user, "--ttl", "7d"])?;
        tokens.push_str(printed.lines().last().unwrap_or_default());
        tokens.push('\n');
    }
    fs::write(path, tokens).map_err(|error| Failure::io(path, error))
}

/// One command to a Redis.
pub(crate) fn redis_command(host: Host, words: &[&str]) -> Result<String, Failure> {
    let (address, port) = (host.address(), REDIS_PORT.to_string());
    let patience = ASK_PATIENCE.as_secs().to_string();
    run(&[&["timeout", &patience, "redis-cli", "-h", &address, "-p", &port], words].concat())
}

/// One statement to the database.
pub(crate) async fn sql(database: &str, statement: &str) -> Result<(), Failure> {
    use mysql_async::prelude::Queryable;
    let asked = async {
        let mut conn = mysql_async::Conn::from_url(database_url(database)).await?;
        conn.query_drop(statement).await?;
        conn.disconnect().await
    };
    match tokio::time::timeout(ASK_PATIENCE, asked).await {
        Ok(done) => Ok(done?),
        Err(_elapsed) => Err(Failure::Database(std::io::Error::from(std::io::ErrorKind::TimedOut).into())),
    }
}

/// A page of a gateway's admin server, status line first.
pub(crate) fn page(at: usize, path: &str) -> std::io::Result<String> {
    let address = format!("{}:{ADMIN_PORT}", gateway_host(at).address());
    let address: SocketAddr = address.parse().map_err(std::io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&address, ASK_PATIENCE)?;
    stream.set_read_timeout(Some(ASK_PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: chaos\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
