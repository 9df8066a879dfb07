//! The cluster that is disturbed: three gateways, MariaDB and Redis, each process in a namespace of its own.
//!
//! Owned by the driver. What always holds: all of it runs and is ready when [`Lab::start`] has returned.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;

use crate::clocks::Clocks;
use crate::command::run;
use crate::error::Failure;
use crate::mariadb::MariaDb;
use crate::network::{Host, Network};
use crate::plan::{ASK_PATIENCE, Plan, START_PATIENCE};
use crate::process::{Process, did_not_start, words};
use crate::redis::Redis;

/// Gateways.
pub(crate) const NODES: usize = 3;
/// Where clients connect, and where operators look.
const CLIENT_PORT: u16 = 7400;
const ADMIN_PORT: u16 = 7401;
/// What the gateways verify tokens with.
const SECRET: &str = "a secret of the chaos run, 32 bytes or more";

/// The cluster.
pub(crate) struct Lab {
    pub(crate) network: Network,
    pub(crate) gateways: Vec<Process>,
    pub(crate) clocks: Clocks,
    pub(crate) mariadb: MariaDb,
    pub(crate) redis: Redis,
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

impl Lab {
    /// Starts all of it, and waits until it is ready.
    pub(crate) async fn start(plan: &Plan) -> Result<Lab, Failure> {
        let mut network = Network::create()?;
        for at in 0..NODES {
            network.add(gateway_host(at))?;
        }
        let clocks = Clocks::new(&plan.dir, NODES)?;
        let mut lab = Lab {
            network,
            gateways: (0..NODES).map(|at| clocks.given_to(at, gateway(plan, at))).collect(),
            clocks,
            mariadb: MariaDb::new(plan),
            redis: Redis::new(plan, plan.redis),
            dir: plan.dir.clone(),
        };
        lab.mariadb.start(&mut lab.network).await?;
        lab.redis.start(&mut lab.network).await?;
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

    /// A gateway's `/readyz`: its words, if it is not ready.
    pub(crate) fn not_ready(&self, at: usize) -> Option<String> {
        match page(at, "/readyz") {
            Ok(text) if text.starts_with("HTTP/1.1 200") => None,
            Ok(text) => Some(text.lines().last().unwrap_or_default().to_owned()),
            Err(error) => Some(error.to_string()),
        }
    }
}

fn gateway(plan: &Plan, at: usize) -> Process {
    let (name, host) = (format!("gateway-{}", at + 1), gateway_host(at));
    let (address, data) = (host.address(), plan.dir.join(&name));
    let binary = plan.ringway.display().to_string();
    let (listen, admin) = (format!("{address}:{CLIENT_PORT}"), format!("{address}:{ADMIN_PORT}"));
    let data = data.display().to_string();
    let (redis_url, buckets) = Redis::settings(plan.redis);
    let line = [&binary, "serve", "--listen", &listen, "--admin", &admin, "--data-dir", &data, "--shards", "1"];
    Process::new(&name, host, plan.report.join(format!("{name}.log")), words(line))
        .with("RINGWAY_AUTH_HS256_SECRET", SECRET)
        .with("RINGWAY_STORE_URL", MariaDb::url("ringway"))
        .with("RINGWAY_CLUSTER_REDIS_URL", redis_url)
        .with("RINGWAY_CLUSTER_BUCKETS", buckets.to_string())
        .with("RINGWAY_CLUSTER_NODE_ID", (at + 1).to_string())
        .with("RINGWAY_LIMITS_NAMES_S", plan.names.as_secs().to_string())
        .with("RINGWAY_LIMITS_CONNECTIONS_MAX", "2000")
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
