//! The cluster's ledger: how many group messages one Redis on one core carries.
//!
//! `cargo bench --bench cluster` starts a Redis of its own (append-only file, synced at every write) on the first CPU, or
//! with `--masters` a Redis Cluster, all of it on that CPU, and as many nodes as `--nodes` says, and sends to groups whose
//! members are scattered over all users. Each message goes the way that it goes in a gateway: from a submission into the
//! node's log on a real disk, by the script into the stream, and from there, numbered, to every recipient's row. The store
//! is played: it says at once that it has written everything. There are no connections. Every row's number is checked
//! against the one before it.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark stops where it fails")]
#![expect(clippy::disallowed_methods, reason = "it has no clock of the gateway's")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Parser;
use crossbeam_channel::Receiver;
use ringway::clock::Clock;
use ringway::cluster::{self, LedgerLink};
use ringway::contract::delivery::Delivery;
use ringway::contract::ids::{LedgerSlot, Origin, ShardId};
use ringway::contract::message::{Incoming, Roster, RosterMember};
use ringway::contract::names_kept::NamesKept;
use ringway::contract::policies::Policies;
use ringway::contract::position::AppliedPosition;
use ringway::contract::progress::Progress;
use ringway::contract::snapshot::{SnapshotAnswerer, snapshots};
use ringway::contract::store::{LookupAnswer, LookupFound, StoredGroup};
use ringway::contract::store::{StorePosition, Stored};
use ringway::contract::submission::{MessageSubmission, Submission};
use ringway::contract::traffic::TrafficLimits;
use ringway::journal::disk::Directory;
use ringway::ledger::redis::link::link;
use ringway::ledger::redis::start::RedisStart;
use ringway::ledger::redis::{RedisEngine, Settings};
use ringway::ledger::{Engine, GroupLimits};
use ringway::limits::{SEGMENT_BYTES, STREAM_UNSTORED_MAX};
use ringway_wire::ids::{ClientMsgId, Conversation, GroupId, RosterVersion, Seq, UserId};
use ringway_wire::limits::CLIENT_MSG_ID_AHEAD_MS;
use ringway_wire::schema::Role;
use tokio::sync::mpsc;

/// What is measured.
#[derive(Parser, Clone, Debug)]
#[command(about = "How many group messages the cluster's ledger carries through one Redis")]
struct Args {
    /// Masters of a Redis Cluster that is started; 1: a Redis by itself.
    #[arg(long, default_value_t = 1)]
    masters: usize,
    /// A Redis that is running; without it one is started on the first CPU. What it has of a ledger is replaced.
    #[arg(long)]
    redis: Option<String>,
    /// Groups.
    #[arg(long, default_value_t = 1_000)]
    groups: usize,
    /// Members of each.
    #[arg(long, default_value_t = 500)]
    members: usize,
    /// Users, of whom the members are taken at random.
    #[arg(long, default_value_t = 500_000)]
    users: u64,
    /// Nodes that submit and follow.
    #[arg(long, default_value_t = 1)]
    nodes: u16,
    /// Messages that a node has on their way.
    #[arg(long, default_value_t = 512)]
    in_flight: u64,
    /// Buckets that the ledger is split into.
    #[arg(long, default_value_t = 1)]
    buckets: usize,
    /// Bytes of a body.
    #[arg(long, default_value_t = 100)]
    body: usize,
    /// For so long.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    /// A name of another benchmark, that cargo hands to all of them.
    #[arg(hide = true)]
    filter: Vec<String>,
}

fn main() {
    let args = Args::parse();
    if !args.filter.is_empty() {
        return;
    }
    let own: Vec<Redis> = match &args.redis {
        Some(_) => Vec::new(),
        None => (0..args.masters).map_while(|_| Redis::start(args.masters)).collect(),
    };
    if args.redis.is_none() && own.len() < args.masters {
        return println!("cluster: redis-server is not installed, or did not start: nothing is measured");
    }
    let urls: Vec<String> = args.redis.iter().cloned().chain(own.iter().map(Redis::url)).collect();
    let url = match urls.as_slice() {
        [url] => url.clone(),
        _ => joined(&own),
    };
    measure(&args, &url, &urls);
}

/// Makes a Redis Cluster of masters; returns its URL.
fn joined(masters: &[Redis]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/services.sh");
    let ports = masters.iter().map(|master| master.port.to_string());
    let joined = Command::new(script).arg("redis-cluster-join").args(ports).status().unwrap();
    assert!(joined.success(), "the masters did not become a cluster");
    format!("redis-cluster://127.0.0.1:{}", masters[0].port)
}

/// A Redis of this process's own, on the first CPU.
struct Redis {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Redis {
    /// One of so many that are to be a cluster, or by itself.
    fn start(masters: usize) -> Option<Redis> {
        // Masters talk to each other on a port 10,000 above.
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let port = std::iter::repeat_with(free).find(|port| masters == 1 || *port < 55_000).unwrap();
        let cluster = if masters > 1 { "yes" } else { "no" };
        let dir = tempfile::tempdir_in(base()).unwrap();
        let log = File::create(dir.path().join("redis.log")).unwrap();
        let child = Command::new("taskset")
            .args(["-c", "0", "redis-server", "--bind", "127.0.0.1", "--port", &port.to_string()])
            .args([
                "--cluster-enabled",
                cluster,
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--save",
                "",
                "--dir",
            ])
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(log)
            .spawn()
            .ok()?;
        let redis = Redis { child, port, _dir: dir };
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(10) {
            if info(&redis.url(), "server").is_some() {
                return Some(redis);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Where data lies: on the disk that holds the target directory.
fn base() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// A section of what Redis says about itself.
fn info(url: &str, section: &str) -> Option<String> {
    let address = url.strip_prefix("redis://")?.split('/').next()?;
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(format!("*2\r\n$4\r\nINFO\r\n${}\r\n{section}\r\n", section.len()).as_bytes()).ok()?;
    let mut answer = vec![0; 16 << 10];
    let read = stream.read(&mut answer).ok()?;
    let text = String::from_utf8_lossy(&answer[..read]).into_owned();
    text.starts_with('$').then_some(text)
}

/// Microseconds of CPU that Redis has used.
fn redis_cpu_us(url: &str) -> f64 {
    let text = info(url, "cpu").unwrap();
    let field = |name: &str| -> f64 {
        text.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).expect("INFO cpu has it")
    };
    (field("used_cpu_user:") + field("used_cpu_sys:")) * 1e6
}

/// What all nodes share.
struct Shared {
    groups: Vec<StoredGroup>,
    /// The database's position.
    stored: AtomicU64,
    /// All nodes are there.
    starts: AtomicBool,
    ends: AtomicBool,
}

/// What one node has done so far.
#[derive(Default)]
struct Done {
    acked: AtomicU64,
    followed: AtomicU64,
    rows: AtomicU64,
    refused: AtomicU64,
    looked_up: AtomicU64,
}

/// `masters`: the URL of each, for what it says about itself.
fn measure(args: &Args, url: &str, masters: &[String]) {
    let cpu_us = || masters.iter().map(|url| redis_cpu_us(url)).collect::<Vec<f64>>();
    let (shared, nodes) = start_nodes(args, url);
    // Names of a ledger that was made just now are looked up in the store.
    std::thread::sleep(Duration::from_millis(CLIENT_MSG_ID_AHEAD_MS + 3_000));
    let sum = |count: fn(&Done) -> &AtomicU64| -> u64 {
        nodes.iter().map(|(done, _)| count(done).load(Ordering::Relaxed)).sum()
    };
    let before = (sum(|done| &done.acked), sum(|done| &done.rows), sum(|done| &done.looked_up), cpu_us());
    let own_before = own_cpu_us();
    let began = Instant::now();
    std::thread::sleep(Duration::from_secs(args.seconds));
    let seconds = began.elapsed().as_secs_f64();
    let messages = sum(|done| &done.acked) - before.0;
    // Each node numbers all of them.
    let rows = (sum(|done| &done.rows) - before.1) / u64::from(args.nodes);
    let looked_up = sum(|done| &done.looked_up) - before.2;
    let each_us: Vec<f64> = std::iter::zip(cpu_us(), before.3).map(|(now, before)| now - before).collect();
    let (redis_us, busiest_us) = (each_us.iter().sum::<f64>(), each_us.iter().copied().fold(0.0, f64::max));
    let own_us = (own_cpu_us() - own_before) / messages as f64 / f64::from(args.nodes);
    let refused = sum(|done| &done.refused);
    shared.ends.store(true, Ordering::Relaxed);
    for (_, threads) in nodes {
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
    assert_eq!(looked_up, 0, "the store is asked for names that Redis knows");
    let per_second = messages as f64 / seconds;
    let (redis_message_us, redis_percent) = (redis_us / messages as f64, redis_us / seconds / 1e4);
    if args.json {
        let report = serde_json::json!({
            "scenario": "cluster", "groups": args.groups, "members": args.members, "users": args.users,
            "nodes": args.nodes, "seconds": seconds, "messages": messages, "messages_per_s": per_second,
            "rows_per_s": rows as f64 / seconds, "redis_cpu_us_per_message": redis_message_us,
            "redis_cpu_percent": redis_percent, "refused": refused, "buckets": args.buckets,
            "masters": masters.len(), "busiest_master_us_per_message": busiest_us / messages as f64,
            "node_cpu_us_per_message": own_us,
        });
        return println!("{report}");
    }
    println!(
        "{} groups of {} members at random among {} users, {} node(s), {} messages in flight each, {seconds:.1} s",
        args.groups, args.members, args.users, args.nodes, args.in_flight
    );
    println!("messages per second    {per_second:>12.0}");
    println!("rows per second        {:>12.0}   each numbered by every node, and checked", rows as f64 / seconds);
    println!("Redis CPU per message  {redis_message_us:>12.1} us");
    if masters.len() > 1 {
        let busiest = busiest_us / messages as f64;
        println!("  its busiest master   {busiest:>12.1} us   {} buckets over {} masters", args.buckets, masters.len());
    }
    println!("a node's CPU           {own_us:>12.1} us   for each message, whichever node sent it");
    println!("Redis CPU              {redis_percent:>12.0} %");
    println!("refused                {refused:>12}");
}

/// All nodes, which send as fast as they can from now on.
fn start_nodes(args: &Args, url: &str) -> (Arc<Shared>, Vec<RunningNode>) {
    let mut random = fastrand::Rng::with_seed(1);
    let groups = (1..=args.groups as u64).map(|group| StoredGroup {
        group: GroupId(group),
        version: RosterVersion(1),
        members: scattered(&mut random, args),
        maker: None,
    });
    let shared = Shared {
        groups: groups.collect(),
        stored: AtomicU64::new(0),
        starts: AtomicBool::new(false),
        ends: AtomicBool::new(false),
    };
    let shared = Arc::new(shared);
    let mut nodes = Vec::new();
    for node in 1..=args.nodes {
        let done = Arc::new(Done::default());
        let threads = start_node(args, url, node, &shared, &done);
        nodes.push((done, threads));
        // The first makes the ledger, the others find it.
        wait_for("a node's messages come back", || {
            nodes.iter().all(|(done, _)| done.acked.load(Ordering::Relaxed) > 0)
        });
    }
    shared.starts.store(true, Ordering::Relaxed);
    (shared, nodes)
}

/// What a node has done so far, and its threads.
type RunningNode = (Arc<Done>, [JoinHandle<()>; 2]);

/// CPU time of this process, of all nodes that is, in microseconds; the kernel counts it in hundredths of a second.
fn own_cpu_us() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap());
    ticks.sum::<f64>() * 10_000.0
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn scattered(random: &mut fastrand::Rng, args: &Args) -> Vec<(UserId, Role)> {
    let mut users = std::collections::BTreeSet::new();
    while users.len() < args.members {
        users.insert(random.u64(1..=args.users));
    }
    users.into_iter().map(|user| (UserId(user), Role::Member)).collect()
}

/// Starts a node's ledger and its thread that talks to Redis.
fn start_node(args: &Args, url: &str, node: u16, shared: &Arc<Shared>, done: &Arc<Done>) -> [JoinHandle<()>; 2] {
    let (ledger, ends, nudges) = link();
    let (asker, store) = snapshots(ends.nudge());
    let progress = Arc::new(Progress::default());
    let settings = Settings {
        shards: 1,
        node,
        segment_bytes: SEGMENT_BYTES,
        buckets: args.buckets,
        names: NamesKept::default(),
        entries_max: STREAM_UNSTORED_MAX,
        groups: GroupLimits::default(),
        traffic: TrafficLimits::UNLIMITED,
        policies: Policies::default(),
        seed: node.into(),
    };
    let mut start = RedisStart::new(settings);
    shared.groups.iter().for_each(|group| start.visit(Stored::Group(group.clone())));
    let dir = tempfile::tempdir_in(base()).unwrap();
    let [log, copy] = ["log", "copy"].map(|name| Directory::open(&dir.path().join(name)).unwrap());
    let at = StorePosition::default();
    let engine = start.finish((log, copy), Arc::clone(&progress), (ledger, asker), at).unwrap();
    let (token, entries_max) = (node.into(), STREAM_UNSTORED_MAX);
    let (url, buckets, progress_of_redis) = (url.to_owned(), args.buckets, Arc::clone(&progress));
    let link = LedgerLink {
        ends,
        url,
        buckets,
        names: NamesKept::default(),
        node,
        token,
        losses: |_, _| Vec::new(),
        entries_max,
        progress: progress_of_redis,
    };
    let talks = std::thread::spawn(move || {
        let (_to_nodes, told) = mpsc::channel(1);
        let (reports, _) = mpsc::channel(1);
        let (access, _news) = mpsc::channel(1);
        let ends = link.with_shards(node.into(), Vec::new(), told, access, reports);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(cluster::run(ends));
    });
    let (args, shared, done) = (args.clone(), Arc::clone(shared), Arc::clone(done));
    let runs = std::thread::spawn(move || {
        let member = |(user, role): &(UserId, Role)| RosterMember { user: *user, slot: LedgerSlot(0), role: *role };
        let roster = |group: &StoredGroup| {
            let members = group.members.iter().map(member).collect();
            Arc::new(Roster::new(group.group, group.version, members, 1))
        };
        let rosters = shared.groups.iter().map(roster).collect();
        let newest = vec![Seq(0); args.users as usize + 1];
        let random = fastrand::Rng::with_seed(node.into());
        let body = vec![7; args.body].into();
        Node { engine, store, nudges, progress, shared, done, args, node, rosters, newest, random, body, in_flight: 0 }
            .run();
        drop(dir);
    });
    [talks, runs]
}

/// A node's ledger, with the shards and the store around it played.
struct Node {
    engine: RedisEngine<Directory>,
    store: SnapshotAnswerer,
    nudges: Receiver<()>,
    progress: Arc<Progress>,
    shared: Arc<Shared>,
    done: Arc<Done>,
    args: Args,
    node: u16,
    rosters: Vec<Arc<Roster>>,
    /// Each user's newest row.
    newest: Vec<Seq>,
    random: fastrand::Rng,
    body: Arc<[u8]>,
    in_flight: u64,
}

impl Node {
    fn run(mut self) {
        let clock = Clock::start();
        let mut out = vec![Vec::new()];
        let mut lookups = Vec::new();
        let session = ringway::contract::ids::SessionRef { shard: ShardId(0), ..Origin::NOBODY.session };
        let origin = Origin::new(session, 1);
        while !self.shared.ends.load(Ordering::Relaxed) {
            if !self.engine.has_more() {
                self.nudges.recv_timeout(Duration::from_millis(1)).ok();
            }
            let now = clock.now();
            // Until all nodes are there each sends one message: one that comes later has all that was sent to read first.
            let starts = self.shared.starts.load(Ordering::Relaxed);
            let is_known = self.done.acked.load(Ordering::Relaxed) > 0;
            let in_flight_max = if starts { self.args.in_flight } else { u64::from(!is_known) };
            while self.in_flight < in_flight_max && !self.engine.full() {
                let roster = Arc::clone(&self.rosters[self.random.usize(..self.rosters.len())]);
                let sender = roster.members()[self.random.usize(..self.args.members)].user;
                let client_msg_id = ClientMsgId::from_parts(now.unix_ms, self.random.u128(..));
                let to = Conversation::Group(roster.group);
                let incoming = Incoming::new(origin, sender, to, client_msg_id, &self.body);
                let submission = MessageSubmission { incoming };
                self.engine.submit(now, Submission::Message(submission));
                self.in_flight += 1;
            }
            self.engine.commit(now, &mut out).unwrap();
            for delivery in out[0].drain(..) {
                match delivery {
                    Delivery::Group { roster, seqs, origin, .. } => {
                        Self::check(&mut self.newest, &roster, &seqs);
                        self.done.followed.fetch_add(1, Ordering::Relaxed);
                        self.done.rows.fetch_add(seqs.len() as u64, Ordering::Relaxed);
                        if origin != Origin::NOBODY {
                            self.in_flight -= 1;
                            self.done.acked.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    Delivery::Refused { .. } => {
                        self.in_flight -= 1;
                        self.done.refused.fetch_add(1, Ordering::Relaxed);
                    }
                    Delivery::Reloaded { .. } | Delivery::Missed { .. } => {}
                    other => panic!("node {} did not expect {other:?}", self.node),
                }
            }
            self.engine.take_lookups(&mut lookups);
            self.done.looked_up.fetch_add(lookups.len() as u64, Ordering::Relaxed);
            for lookup in lookups.drain(..) {
                self.engine.found(now, LookupAnswer { lookup, found: LookupFound::Nothing });
            }
            self.play_store();
        }
    }

    /// Each row is the one after its user's last.
    fn check(newest: &mut [Seq], roster: &Roster, seqs: &[Seq]) {
        for (member, seq) in std::iter::zip(roster.members(), seqs) {
            let newest = &mut newest[member.user.0 as usize];
            assert_eq!(newest.next(), *seq, "user {}", member.user.0);
            *newest = *seq;
        }
    }

    fn play_store(&mut self) {
        let fence = self.progress.fence_asked();
        if self.shared.stored.fetch_max(fence.0, Ordering::Relaxed) < fence.0 {
            self.progress.report_fenced(fence);
        }
        let base = self.shared.stored.load(Ordering::Relaxed);
        self.progress.advance_applied(AppliedPosition(base + self.done.followed.load(Ordering::Relaxed)));
        self.progress.advance_secured(self.progress.durable());
        if let Some(mut ask) = self.store.next() {
            ask.begin();
            self.shared.groups.iter().for_each(|group| ask.visit(Stored::Group(group.clone())));
            let at = StorePosition { applied: AppliedPosition(base), ..StorePosition::default() };
            self.store.answer(ask.finish(at, Vec::new(), Vec::new()));
        }
    }
}
