//! A Redis of a test's own, or a Redis Cluster, which it may stop, kill and empty.
//!
//! Owned by the test that started it. What always holds: one that is dropped leaves no process behind.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::gateway::{PATIENCE, pause, signal};
use crate::services::{script, script_path};

/// Masters of a cluster. Of the ledger's first three buckets each has one, as their slots lie.
pub(crate) const MASTERS: usize = 3;

/// A running Redis Cluster without replicas, every master of which keeps what it acknowledges.
pub(crate) struct RedisCluster {
    pub masters: Vec<Redis>,
}

impl RedisCluster {
    /// Starts one, and waits until its masters know each other.
    pub(crate) fn start() -> RedisCluster {
        let masters: Vec<Redis> = (0..MASTERS).map(|_| Redis::start_as(Kind::OfCluster)).collect();
        let ports: Vec<String> = masters.iter().map(|master| master.port.to_string()).collect();
        let arguments: Vec<&str> =
            std::iter::once("redis-cluster-join").chain(ports.iter().map(String::as_str)).collect();
        script(&arguments);
        RedisCluster { masters }
    }

    /// For `cluster.redis_url`.
    pub(crate) fn url(&self) -> String {
        let [first, others @ ..] = self.masters.as_slice() else { panic!("it has masters") };
        let others: Vec<String> = others.iter().map(|other| format!("node=127.0.0.1:{}", other.port)).collect();
        format!("redis-cluster://127.0.0.1:{}?{}", first.port, others.join("&"))
    }

    /// The master that a bucket of the ledger lies on.
    pub(crate) fn master_of(&self, bucket: usize) -> usize {
        let key = format!("{{ringway:{bucket}}}:3:state");
        let has = |master: &Redis| !master.command(&["EXISTS", &key]).unwrap().starts_with("-MOVED");
        self.masters.iter().position(has).expect("a master has the bucket")
    }
}

impl RedisCluster {
    /// Moves the slot of a bucket with its keys to another master, as an operator would.
    pub(crate) fn move_bucket(&self, bucket: usize, to: usize) {
        let key = format!("{{ringway:{bucket}}}:3:state");
        let (source, target) = (&self.masters[self.master_of(bucket)], &self.masters[to]);
        let id = |master: &Redis| word(&master.command(&["CLUSTER", "MYID"]).unwrap());
        let (source_id, target_id) = (id(source), id(target));
        let slot = source.command(&["CLUSTER", "KEYSLOT", &key]).unwrap().trim_matches([':', '\r', '\n']).to_owned();
        let ok = |answer: String| assert!(answer.starts_with("+OK"), "{answer}");
        ok(target.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source_id]).unwrap());
        ok(source.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target_id]).unwrap());
        loop {
            let keys = source.command(&["CLUSTER", "GETKEYSINSLOT", &slot, "1"]).unwrap();
            if keys.starts_with("*0") {
                break;
            }
            let key = keys.lines().nth(2).unwrap();
            let migrated =
                source.command(&["MIGRATE", "127.0.0.1", &target.port.to_string(), key, "0", "5000"]).unwrap();
            // It may have gone by itself meanwhile.
            assert!(migrated.starts_with("+OK") || migrated.starts_with("+NOKEY"), "{migrated}");
        }
        for master in [target, source] {
            ok(master.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &target_id]).unwrap());
        }
    }
}

/// What a bulk string says.
fn word(answer: &str) -> String {
    answer.lines().nth(1).unwrap_or_default().to_owned()
}

/// What a cluster's ledger lies in.
pub(crate) trait Ledger {
    /// What gateways are told of it: keys and values.
    fn settings(&self) -> Vec<String>;

    /// Its masters.
    fn masters(&self) -> &[Redis];

    /// The same, to kill one.
    fn masters_mut(&mut self) -> &mut [Redis];
}

impl Ledger for Redis {
    fn settings(&self) -> Vec<String> {
        vec![format!("cluster.redis_url={}", self.url())]
    }

    fn masters(&self) -> &[Redis] {
        std::slice::from_ref(self)
    }

    fn masters_mut(&mut self) -> &mut [Redis] {
        std::slice::from_mut(self)
    }
}

/// One of so many buckets, in a Redis Cluster.
pub(crate) struct Split {
    pub cluster: RedisCluster,
    pub buckets: usize,
}

impl Split {
    pub(crate) fn start(buckets: usize) -> Split {
        Split { cluster: RedisCluster::start(), buckets }
    }
}

impl Ledger for Split {
    fn settings(&self) -> Vec<String> {
        vec![format!("cluster.redis_url={}", self.cluster.url()), format!("cluster.buckets={}", self.buckets)]
    }

    fn masters(&self) -> &[Redis] {
        &self.cluster.masters
    }

    fn masters_mut(&mut self) -> &mut [Redis] {
        &mut self.cluster.masters
    }
}

/// One of so many buckets, in one Redis.
pub(crate) struct SplitAlone {
    pub redis: Redis,
    pub buckets: usize,
}

impl Ledger for SplitAlone {
    fn settings(&self) -> Vec<String> {
        vec![format!("cluster.redis_url={}", self.redis.url()), format!("cluster.buckets={}", self.buckets)]
    }

    fn masters(&self) -> &[Redis] {
        std::slice::from_ref(&self.redis)
    }

    fn masters_mut(&mut self) -> &mut [Redis] {
        std::slice::from_mut(&mut self.redis)
    }
}

/// How a Redis is started.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Alone,
    OfCluster,
}

/// A running Redis that keeps what it acknowledges.
pub(crate) struct Redis {
    child: Child,
    kind: Kind,
    port: u16,
    dir: tempfile::TempDir,
}

impl Redis {
    /// Starts one on a free port and waits until it answers.
    pub(crate) fn start() -> Redis {
        Redis::start_as(Kind::Alone)
    }

    fn start_as(kind: Kind) -> Redis {
        let port = free_port(kind);
        let dir = tempfile::tempdir().unwrap();
        let redis = Redis { child: spawn(kind, port, dir.path()), kind, port, dir };
        redis.wait();
        redis
    }

    /// Where it listens, on this machine.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// For `cluster.redis_url`.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// SIGKILL; it stays away until [`Self::start_again`].
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// After a kill: the same data on the same port.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(self.kind, self.port, self.dir.path());
        self.wait();
    }

    /// A copy of its data as they are now.
    pub(crate) fn copy(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_files(self.dir.path(), copy.path());
        copy
    }

    /// After a kill: puts the data of a copy in place of its own.
    pub(crate) fn put_back(&self, copy: &tempfile::TempDir) {
        for entry in std::fs::read_dir(self.dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                std::fs::remove_dir_all(path).unwrap();
            }
        }
        copy_files(copy.path(), self.dir.path());
    }

    /// SIGSTOP or SIGCONT.
    pub(crate) fn signal(&self, which: Signal) {
        signal(self.child.id(), which).unwrap();
    }

    /// Empties it.
    pub(crate) fn flush(&self) {
        assert!(self.command(&["FLUSHALL"]).unwrap().starts_with("+OK"));
    }

    /// One command; returns the first line of what it answers, or what is wrong.
    pub(crate) fn command(&self, words: &[&str]) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        stream.write_all(request.as_bytes())?;
        let mut answer = vec![0; 4096];
        let read = stream.read(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
    }

    fn wait(&self) {
        for _ in 0..PATIENCE.as_millis() / 10 {
            if self.command(&["PING"]).is_ok_and(|answer| answer.starts_with("+PONG")) {
                return;
            }
            pause(Duration::from_millis(10));
        }
        panic!("Redis does not answer on port {}", self.port);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_files(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// The masters of a cluster talk to each other on a port 10,000 above the clients'.
fn free_port(kind: Kind) -> u16 {
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        match kind {
            Kind::Alone => return port,
            Kind::OfCluster => {
                let port = 20_000 + port % 20_000;
                if [port, port + 10_000].iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()) {
                    return port;
                }
            }
        }
    }
}

fn spawn(kind: Kind, port: u16, dir: &Path) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("redis.log")).unwrap();
    let what = match kind {
        Kind::Alone => "redis",
        Kind::OfCluster => "redis-cluster",
    };
    Command::new(script_path())
        .arg(what)
        .arg(dir)
        .arg(port.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::from(log.try_clone().unwrap()))
        .stderr(Stdio::from(log))
        .spawn()
        .unwrap()
}
