//! Kill and freeze the nodes of a cluster, its Redis or one of its masters, and its MariaDB, at random and two at a time, while users talk:
//! nothing acked is lost, nothing comes twice, no number is given twice, and in the end all of it is in the database.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::sys::signal::Signal;
use ringway_wire::ids::UserId;
use tempfile::TempDir;

use crate::cluster::{create, node, wait_for_rows};
use crate::gateway::{Gateway, pause, signal};
use crate::history::{check, make_groups, start_users};
use crate::outage::{check_database, open_to_others};
use crate::redis::{Ledger, Redis, Split};
use crate::services::{Database, MariaDb};
use crate::traffic::{Orders, User};

const NODES: usize = 3;
const ROUNDS: usize = 18;

/// What happens to a cluster.
#[derive(Clone, Copy, Debug)]
enum Blow {
    /// A node is killed and started again.
    NodeKilled(usize),
    /// A node stands still for a while.
    NodeFrozen(usize),
    /// A Redis, of several masters one.
    RedisKilled,
    RedisFrozen,
    DatabaseKilled,
    DatabaseFrozen,
    /// While the database stands still a node is killed: what it was writing is anybody's guess.
    NodeKilledBesideDatabase(usize),
    /// Both at once, and all masters: nothing is left of anybody's connections.
    RedisAndDatabaseKilled,
}

impl Blow {
    /// Each kind at least once, and every node goes down, so that every user loses its connection; then at random.
    fn of_round(round: usize, random: &mut fastrand::Rng) -> Blow {
        let at = random.usize(..NODES);
        match if round < 10 { round } else { random.usize(2..10) } {
            node @ 0..NODES => Blow::NodeKilled(if round < NODES { node } else { at }),
            3 => Blow::NodeFrozen(at),
            4 => Blow::RedisKilled,
            5 => Blow::RedisFrozen,
            6 => Blow::DatabaseKilled,
            7 => Blow::DatabaseFrozen,
            8 => Blow::NodeKilledBesideDatabase(at),
            _ => Blow::RedisAndDatabaseKilled,
        }
    }
}

/// Three nodes, and servers of their own.
struct Cluster<L: Ledger> {
    // Dropped in this order: a database is deleted while its server is there.
    nodes: Vec<Gateway>,
    database: Database,
    mariadb: MariaDb,
    ledger: L,
    dirs: Vec<TempDir>,
    _data: TempDir,
}

impl<L: Ledger> Cluster<L> {
    fn start(ledger: L) -> Cluster<L> {
        let data = tempfile::tempdir().unwrap();
        open_to_others(data.path());
        let mariadb = MariaDb::start(&data.path().join("mariadb"), &[]);
        let database = Database::create_on(&mariadb.url());
        let dirs: Vec<TempDir> = (0..NODES).map(|_| tempfile::tempdir().unwrap()).collect();
        let mut cluster = Cluster { nodes: Vec::new(), database, mariadb, ledger, dirs, _data: data };
        cluster.nodes = (0..NODES).map(|at| cluster.start_node(at)).collect();
        cluster
    }

    fn start_node(&self, at: usize) -> Gateway {
        node(self.dirs[at].path(), &self.ledger, &self.database, at as u16 + 1)
    }

    fn restart_node(&mut self, at: usize) {
        let node = self.start_node(at);
        self.nodes.insert(at, node);
    }

    fn suffer(&mut self, blow: Blow, random: &mut fastrand::Rng) {
        let at_random = random.usize(..self.ledger.masters().len());
        let mut a_while = |ms_max| pause(Duration::from_millis(random.u64(..ms_max)));
        match blow {
            Blow::NodeKilled(at) => {
                self.nodes.remove(at).kill();
                self.restart_node(at);
            }
            Blow::NodeFrozen(at) => {
                signal(self.nodes[at].pid(), Signal::SIGSTOP).unwrap();
                a_while(3_000);
                signal(self.nodes[at].pid(), Signal::SIGCONT).unwrap();
            }
            Blow::RedisKilled => {
                self.ledger.masters_mut()[at_random].kill();
                a_while(500);
                self.ledger.masters_mut()[at_random].start_again();
            }
            Blow::RedisFrozen => {
                self.ledger.masters()[at_random].signal(Signal::SIGSTOP);
                a_while(2_000);
                self.ledger.masters()[at_random].signal(Signal::SIGCONT);
            }
            Blow::DatabaseKilled => {
                self.mariadb.kill();
                a_while(2_000);
                self.mariadb.resume();
            }
            Blow::DatabaseFrozen => {
                self.mariadb.signal(Signal::SIGSTOP);
                a_while(4_000);
                self.mariadb.signal(Signal::SIGCONT);
            }
            Blow::NodeKilledBesideDatabase(at) => {
                self.mariadb.signal(Signal::SIGSTOP);
                a_while(1_000);
                self.nodes.remove(at).kill();
                a_while(1_000);
                self.mariadb.signal(Signal::SIGCONT);
                self.restart_node(at);
            }
            Blow::RedisAndDatabaseKilled => {
                self.ledger.masters_mut().iter_mut().for_each(Redis::kill);
                self.mariadb.kill();
                a_while(500);
                self.ledger.masters_mut().iter_mut().for_each(Redis::start_again);
                self.mariadb.resume();
            }
        }
    }
}

#[test]
fn nothing_acked_is_lost_when_gateways_redis_and_mariadb_are_killed_and_stopped_at_random() {
    nothing_acked_is_lost(Redis::start());
}

#[test]
fn nothing_acked_is_lost_when_gateways_masters_of_a_redis_cluster_and_mariadb_are_killed_and_stopped_at_random() {
    nothing_acked_is_lost(Split::start(3));
}

fn nothing_acked_is_lost(ledger: impl Ledger) {
    let mut cluster = Cluster::start(ledger);
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    // The first change waits for the ledger to be there.
    create(&mut cluster.nodes[0].client(100, 1, None), &[UserId(101)]);
    let groups = make_groups(&cluster.nodes[0]);
    let orders = Arc::new(Orders::default());
    let paths: Vec<&Path> = cluster.dirs.iter().map(|dir| dir.path()).collect();
    let users = start_users(&paths, &groups, &orders, seed);
    for round in 0..ROUNDS {
        let before = orders.acked.load(Ordering::Relaxed);
        let acked = |_: &mut Gateway| orders.acked.load(Ordering::Relaxed) > before + 20;
        cluster.nodes[0].wait_until("somebody is acked again", acked);
        pause(Duration::from_millis(random.u64(..200)));
        let blow = Blow::of_round(round, &mut random);
        println!("round {round}, {before} acked: {blow:?}");
        cluster.suffer(blow, &mut random);
    }
    orders.quiet.store(true, Ordering::Relaxed);
    cluster.nodes[0].wait_until("everything is acked", |_| orders.unacked.load(Ordering::Relaxed) == 0);
    // A login is answered when its node has followed all that was numbered before it, and has delivered that.
    for node in &cluster.nodes {
        drop(node.returning_client(100, 2, None));
    }
    orders.done.store(true, Ordering::Relaxed);
    let users: Vec<User> = users.into_iter().map(|user| user.join().unwrap()).collect();
    for user in &users {
        assert!(user.reconnects > 0, "user {} never lost its connection", user.id);
    }
    for node in &cluster.nodes {
        check(node, &users, &groups);
    }
    wait_for_rows(&cluster.database, users.iter().map(|user| user.rows.len() as u64).sum());
    check_database(&cluster.database, &users);
    for node in &mut cluster.nodes {
        node.terminate();
        assert!(node.wait().success(), "{}", node.log());
    }
}
