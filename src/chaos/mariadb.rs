//! MariaDB: a primary and an asynchronous replica, and the address that belongs to the primary.
//!
//! Owned by the lab. What always holds: gateways know the address alone; a primary that was replaced loses what it has,
//! and begins again as an empty replica.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::{FromRow, Queryable};
use tokio::time::{sleep, timeout};

use crate::error::Failure;
use crate::network::{Host, Network};
use crate::plan::{ASK_PATIENCE, Plan, START_PATIENCE};
use crate::process::{Process, did_not_start, words};

const PORT: u16 = 3306;
/// The address that gateways know.
const ADDRESS: Host = Host(20);
/// The first server's; the other one follows.
const FIRST: u8 = 21;
const SERVERS: usize = 2;
/// How long a replica that is to be promoted may take to have all there is, seconds.
const CATCH_UP_S: u64 = 20;

/// The servers.
pub(crate) struct MariaDb {
    servers: Vec<Process>,
    plan: Plan,
    primary: usize,
    /// The next number of a server: one that begins again must not take its own former rows for what it has.
    next_id: u32,
    replica: Replica,
}

/// What is known of the replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Replica {
    Follows,
    /// It had all there was, and has been held back since.
    HeldBack,
}

impl MariaDb {
    /// Not started yet.
    pub(crate) fn new(plan: &Plan) -> MariaDb {
        let servers: Vec<Process> = (0..SERVERS).map(|at| server(plan, at, at as u32 + 1)).collect();
        let next_id = SERVERS as u32 + 1;
        MariaDb { servers, plan: plan.clone(), primary: 0, next_id, replica: Replica::Follows }
    }

    /// Where the servers are, by all addresses.
    pub(crate) fn hosts(&self) -> Vec<Host> {
        self.servers.iter().map(|server| server.host).chain([ADDRESS]).collect()
    }

    /// A database, as the gateways know it.
    pub(crate) fn url(name: &str) -> String {
        url(ADDRESS, name)
    }

    /// Starts both, with an empty database on the primary.
    pub(crate) async fn start(&mut self, network: &mut Network) -> Result<(), Failure> {
        for server in &self.servers {
            network.add(server.host)?;
        }
        network.move_address(ADDRESS, host(self.primary))?;
        self.start_server(self.primary).await?;
        execute(host(self.primary), "CREATE DATABASE IF NOT EXISTS ringway").await?;
        self.start_replica().await
    }

    /// The one that has the address.
    pub(crate) fn primary(&mut self) -> Option<&mut Process> {
        self.servers.get_mut(self.primary)
    }

    /// Starts the primary again, and waits until it answers.
    pub(crate) async fn start_primary(&mut self) -> Result<(), Failure> {
        self.start_server(self.primary).await
    }

    /// From now on the replica lacks what the primary gets; says what is to be known of it.
    pub(crate) async fn hold_replica_back(&mut self) -> Result<String, Failure> {
        let position: Option<String> = ask(host(self.primary), "SELECT @@gtid_binlog_pos").await?;
        let position = position.unwrap_or_default();
        let replica = host(self.replica());
        let wait = format!("SELECT MASTER_GTID_WAIT('{position}', {CATCH_UP_S})");
        if ask::<i64>(replica, &wait).await? != Some(0) {
            return Ok("left out, since the replica does not catch up".to_owned());
        }
        execute(replica, "STOP SLAVE").await?;
        self.replica = Replica::HeldBack;
        Ok("from now on the replica lacks the tail".to_owned())
    }

    /// The primary dies, the replica takes its place, and the address.
    pub(crate) async fn fail_over(&mut self, network: &Network) -> Result<(), Failure> {
        if self.replica == Replica::Follows {
            return Ok(());
        }
        self.replica = Replica::Follows;
        let old = self.primary;
        let again = server(&self.plan, old, self.next_id);
        self.next_id += 1;
        if let Some(place) = self.servers.get_mut(old) {
            // Whose process is killed.
            *place = again;
        }
        self.primary = self.replica();
        execute(host(self.primary), "RESET SLAVE ALL").await?;
        network.move_address(ADDRESS, host(self.primary))?;
        let dir = data_dir(&self.plan, old);
        fs::remove_dir_all(&dir).map_err(|error| Failure::io(&dir, error))?;
        self.start_replica().await
    }

    fn replica(&self) -> usize {
        SERVERS - 1 - self.primary
    }

    async fn start_replica(&mut self) -> Result<(), Failure> {
        let replica = self.replica();
        self.start_server(replica).await?;
        let primary = host(self.primary).address();
        let source = format!(
            "CHANGE MASTER TO MASTER_HOST='{primary}', MASTER_PORT={PORT}, MASTER_USER='ringway', \
             MASTER_PASSWORD='ringway', MASTER_CONNECT_RETRY=1, MASTER_USE_GTID=slave_pos"
        );
        execute(host(replica), &source).await?;
        execute(host(replica), "START SLAVE").await
    }

    async fn start_server(&mut self, at: usize) -> Result<(), Failure> {
        let Some(server) = self.servers.get_mut(at) else { return Ok(()) };
        server.start()?;
        for _ in 0..START_PATIENCE.as_millis() / 100 {
            if execute(server.host, "DO 1").await.is_ok() {
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
        Err(did_not_start(server))
    }
}

fn host(at: usize) -> Host {
    Host(FIRST + at as u8)
}

fn url(host: Host, name: &str) -> String {
    format!("mysql://ringway:ringway@{}:{PORT}/{name}", host.address())
}

fn data_dir(plan: &Plan, at: usize) -> PathBuf {
    plan.dir.join(format!("mariadb-{}", at + 1))
}

fn server(plan: &Plan, at: usize, id: u32) -> Process {
    let name = format!("mariadb-{}", at + 1);
    let (dir, port) = (data_dir(plan, at).display().to_string(), PORT.to_string());
    let (socket, id) = (format!("--socket={dir}/s"), format!("--server-id={id}"));
    let line = ["scripts/services.sh", "mariadb", &dir, &port, "--bind-address=0.0.0.0", &socket, &id];
    let replication = ["--log-bin=log", "--binlog-format=ROW", "--log-slave-updates", "--sync-binlog=1"];
    let words = [words(line), words(replication)].concat();
    Process::new(&name, host(at), plan.report.join(format!("{name}.log")), words)
}

/// A statement for a server.
async fn execute(host: Host, statement: &str) -> Result<(), Failure> {
    ask::<mysql_async::Row>(host, statement).await.map(drop)
}

/// The first row that a statement gives.
async fn ask<T: FromRow + Send + 'static>(host: Host, statement: &str) -> Result<Option<T>, Failure> {
    let asked = async {
        let mut conn = Conn::from_url(url(host, "mysql")).await?;
        let row = conn.query_first(statement).await?;
        conn.disconnect().await?;
        Ok(row)
    };
    let patience = ASK_PATIENCE + Duration::from_secs(CATCH_UP_S);
    match timeout(patience, asked).await {
        Ok(done) => done.map_err(Failure::Database),
        Err(_elapsed) => Err(Failure::Database(std::io::Error::from(std::io::ErrorKind::TimedOut).into())),
    }
}
