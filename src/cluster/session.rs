//! One session with Redis: a connection for calls, one for reading the stream, one to hear other nodes, and the heartbeat.
//!
//! On Redis's thread. What always holds: calls are sent in the order of the ledger's orders and replies go back in it,
//! several under way at once; the first failure of any command ends the session.

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike, HashesInterface, KeysInterface, LuaInterface, StreamsInterface};
use fred::types::config::{Config, PerformanceConfig};
use fred::types::{Builder, ConnectHandle, CustomCommand, Value};
use futures_lite::future::poll_once;
use tokio::time::{Instant, interval, sleep};

use super::hearing::Hearing;
use super::look::look_through;
use super::{ClusterEnds, tell};
use crate::doctor::Verdict;
use crate::doctor::checks::redis::{RedisNeed, losses};
use crate::ids::Seq;
use crate::ledger::redis::entry::{VALUES, Values, decimal};
use crate::ledger::redis::link::{Age, Arrival, Compared, Found, Generation, News, Order, Reply, What};
use crate::limits::{
    CALLS_IN_FLIGHT_MAX, CLAIMS_S, HEARTBEAT_MS, LEASE_MS, REDIS_SETTLES_MS, REDIS_TIMEOUT_MS, STREAM_KEPT,
    STREAM_READ_MAX, WINDOWS_KEPT,
};

/// Every key of the ledger begins with it; the braces keep them on one node of a Redis Cluster. It names the form of what
/// is kept, so that another form is not misread.
pub const PREFIX: &str = "{ringway:0}:2:";

const SUBMIT: &str = include_str!("submit.lua");
const SEED: &str = include_str!("seed.lua");
const HEARTBEAT: &str = include_str!("heartbeat.lua");
const STATUS: &str = include_str!("status.lua");
const COMPARE: &str = include_str!("compare.lua");

/// How long one read of the stream waits for an entry.
const READ_BLOCK_MS: u64 = 1_000;
/// Before Redis is looked at again while another node makes a new generation.
const LOOK_AGAIN_MS: u64 = 200;

/// Why a session ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The ledger has ended.
    Done,
    /// The connection, or a command, failed.
    Lost(String),
    /// Redis has another generation than this node follows.
    OtherGeneration,
    /// Another process has the node's id.
    Taken,
}

impl From<fred::error::Error> for Ended {
    fn from(error: fred::error::Error) -> Self {
        Ended::Lost(error.to_string())
    }
}

/// The scripts, as Redis names them.
struct Scripts {
    submit: String,
    seed: String,
    heartbeat: String,
    compare: String,
    status: String,
}

/// What was begun and is not answered.
pub(super) type UnderWay<T> = Pin<Box<dyn Future<Output = Result<T, Ended>> + Send>>;

/// A session.
pub(super) struct Session {
    number: u64,
    /// Entries of the stream that may be unstored.
    entries_max: u64,
    /// What Redis calls its own process.
    run: String,
    calls: Client,
    reads: Client,
    scripts: Scripts,
    hearing: Hearing,
    began: Instant,
    following: Option<(Generation, u64)>,
    under_way: VecDeque<UnderWay<News>>,
    /// The client's own tasks, which would outlive it.
    tasks: [ConnectHandle; 2],
}

impl Drop for Session {
    fn drop(&mut self) {
        self.tasks.iter().for_each(ConnectHandle::abort);
    }
}

impl Session {
    /// Connects, claims the node's id, and tells the ledger what Redis has.
    pub(super) async fn begin(cluster: &mut ClusterEnds, number: u64) -> Result<Session, Ended> {
        let (url, entries_max) = (cluster.ledger.url.clone(), cluster.ledger.entries_max);
        let (calls, calling) = connect(&url).await?;
        let (reads, reading) = connect(&url).await?;
        let tasks = [calling, reading];
        if number == 1 {
            tell_of_durability(&calls, &RedisNeed { url: &url, stream_entries_max: entries_max }).await;
        }
        let run = run_of(&calls).await;
        let scripts = Scripts {
            submit: calls.script_load(SUBMIT).await?,
            seed: calls.script_load(SEED).await?,
            heartbeat: calls.script_load(HEARTBEAT).await?,
            compare: calls.script_load(COMPARE).await?,
            status: calls.script_load(STATUS).await?,
        };
        let (under_way, began) = (VecDeque::new(), Instant::now());
        let hearing = Hearing::begin(&url, cluster.ledger.node, calls.clone()).await?;
        let mut session = Session {
            number,
            entries_max,
            run,
            calls,
            reads,
            scripts,
            hearing,
            began,
            following: None,
            under_way,
            tasks,
        };
        session.beat(cluster, 0).await?;
        // What the shards told meanwhile is told again, as all they have.
        while cluster.told.try_recv().is_ok() {}
        cluster.nodes.begin();
        let status = session.status().await?;
        tell(&cluster.ledger.ends, status).await;
        Ok(session)
    }

    /// Runs until something fails or the ledger has ended.
    pub(super) async fn run(mut self, cluster: &mut ClusterEnds) -> Ended {
        match self.serve(cluster).await {
            Ok(()) => Ended::Done,
            Err(ended) => ended,
        }
    }

    async fn serve(&mut self, cluster: &mut ClusterEnds) -> Result<(), Ended> {
        let mut beats = interval(Duration::from_millis(HEARTBEAT_MS));
        let mut reading: Option<Reading> = None;
        loop {
            if reading.is_none()
                && let Some((generation, after)) = &self.following
            {
                reading = Some(self.read(generation, *after));
            }
            let has_room = self.under_way.len() < CALLS_IN_FLIGHT_MAX;
            self.hearing.publish(&mut cluster.nodes).await;
            tokio::select! {
                biased;
                news = front(&mut self.under_way) => {
                    self.under_way.pop_front();
                    tell(&cluster.ledger.ends, news?).await;
                }
                read = wait(&mut reading) => {
                    reading = None;
                    let arrivals = read?;
                    if let (Some(last), Some((_, after))) = (arrivals.last(), &mut self.following) {
                        *after = last.count;
                        tell(&cluster.ledger.ends, News::Entries(arrivals)).await;
                    }
                }
                _ = beats.tick() => {
                    let read = self.following.as_ref().map_or(0, |(_, after)| *after);
                    self.beat(cluster, read).await?;
                    cluster.report(cluster.nodes.report());
                }
                order = cluster.ledger.ends.orders.recv(), if has_room => match order {
                    None => {
                        self.leave(cluster).await;
                        return Ok(());
                    }
                    Some(Order { session, what }) if session == self.number => self.carry_out(what).await,
                    // The ledger makes it again.
                    Some(_) => {}
                },
                heard = self.hearing.next(&mut cluster.told) => self.hearing.heed(heard?, &mut cluster.nodes, &mut cluster.told),
            }
        }
    }

    /// Begins what the ledger wants; its news come in the order of orders.
    async fn carry_out(&mut self, what: What) {
        let begun: UnderWay<News> = match what {
            What::Follow { generation, after } => {
                self.following = Some((generation, after));
                return;
            }
            What::Submit { generation, calls } => {
                let (client, script) = (self.calls.clone(), self.scripts.submit.clone());
                let entries_max = self.entries_max;
                Box::pin(async move { submit(&client, script, &generation, entries_max, calls).await })
            }
            What::Count => {
                let client = self.calls.clone();
                Box::pin(async move { count(&client).await })
            }
            What::Begin { generation, replaces, node } => {
                let (client, script) = (self.calls.clone(), self.scripts.seed.clone());
                Box::pin(async move { begin(&client, script, &generation, replaces.as_ref(), node).await })
            }
            What::Seed { generation, base, floor, groups } => {
                let (client, script) = (self.calls.clone(), self.scripts.seed.clone());
                let status = self.status();
                Box::pin(async move {
                    seed(&client, script, &generation, (base, floor), groups).await?;
                    status.await
                })
            }
            What::Compare { generation, window, digest } => {
                let (client, script) = (self.calls.clone(), self.scripts.compare.clone());
                Box::pin(async move { compare(&client, script, &generation, window, digest).await })
            }
            What::Vouch { generation, read } => self.status_vouching(Some((&generation, read))),
            What::Status => {
                let status = self.status();
                Box::pin(async move {
                    sleep(Duration::from_millis(LOOK_AGAIN_MS)).await;
                    status.await
                })
            }
        };
        self.under_way.push_back(sent(begun).await);
    }

    /// Renews what is leased, and tells Redis how far this node and the database are.
    async fn beat(&mut self, cluster: &mut ClusterEnds, read: u64) -> Result<(), Ended> {
        let ClusterEnds { ledger, nodes, .. } = cluster;
        let generation = self.following.as_ref().map(|(generation, _)| generation.text()).unwrap_or_default();
        let stored = ledger.progress.applied().0;
        let read = if generation.is_empty() { stored } else { read };
        let values: Vec<Value> = vec![
            ledger.node.to_string().into(),
            format!("{:016x}", ledger.token).into(),
            LEASE_MS.to_string().into(),
            generation.clone().into(),
            read.to_string().into(),
            stored.to_string().into(),
            STREAM_KEPT.to_string().into(),
        ];
        let reply: Vec<Value> = self.calls.evalsha(self.scripts.heartbeat.clone(), PREFIX, values).await?;
        let mut reply = reply.into_iter();
        if reply.next().and_then(|word| word.into_string()).as_deref() != Some("OK") {
            return Err(Ended::Taken);
        }
        let writes = reply.next().and_then(|flag| flag.as_i64()) == Some(1);
        if writes != ledger.progress.writes_store() {
            tracing::info!(writes, "the right to write the cluster's store has changed hands");
            ledger.progress.let_store_write(writes);
        }
        let there = reply.next().and_then(|text| text.into_string()).unwrap_or_default();
        let alive: BTreeSet<u16> = reply.filter_map(|node| node.into_string()?.parse().ok()).collect();
        nodes.alive(&alive, self.began.elapsed() >= Duration::from_millis(LEASE_MS));
        if !generation.is_empty() && there != generation {
            return Err(Ended::OtherGeneration);
        }
        Ok(())
    }

    /// Gives back what is leased, so that nobody waits for it to end. If Redis does not take it, it ends by itself.
    async fn leave(&self, cluster: &ClusterEnds) {
        let mut keys = vec![format!("{PREFIX}node:{}", cluster.ledger.node)];
        if cluster.ledger.progress.writes_store() {
            keys.push(format!("{PREFIX}writer"));
        }
        self.calls.del::<(), _>(keys).await.ok();
        self.hearing.say_last(cluster.nodes.bye()).await;
    }

    fn status(&self) -> UnderWay<News> {
        self.status_vouching(None)
    }

    fn status_vouching(&self, vouches: Option<(&Generation, u64)>) -> UnderWay<News> {
        let (client, script, number) = (self.calls.clone(), self.scripts.status.clone(), self.number);
        let (generation, read) = vouches.map_or_else(Default::default, |(ours, read)| (ours.text(), read));
        let values = [self.run.clone(), REDIS_SETTLES_MS.to_string(), generation, read.to_string()];
        Box::pin(async move { status(&client, script, values, number).await })
    }

    /// Waits for entries behind one.
    fn read(&self, generation: &Generation, after: u64) -> Reading {
        let client = self.reads.clone();
        let stream = format!("{PREFIX}{}:stream", generation.text());
        let id = format!("{}-{after}", generation.number);
        Box::pin(async move {
            let read: Value = client.xread(Some(STREAM_READ_MAX as u64), Some(READ_BLOCK_MS), stream, id).await?;
            arrivals(read).ok_or_else(|| Ended::Lost("the stream has something else than entries".to_owned()))
        })
    }
}

type Reading = Pin<Box<dyn Future<Output = Result<Vec<Arrival>, Ended>> + Send>>;

/// Sends what was begun: the first poll does, so that what is begun later is sent later.
pub(super) async fn sent<T: Send + 'static>(mut begun: UnderWay<T>) -> UnderWay<T> {
    match poll_once(&mut begun).await {
        Some(answer) => Box::pin(async move { answer }),
        None => begun,
    }
}

/// The first of what is under way; for ever, if nothing is.
pub(super) async fn front<T>(under_way: &mut VecDeque<UnderWay<T>>) -> Result<T, Ended> {
    match under_way.front_mut() {
        Some(first) => first.await,
        None => std::future::pending().await,
    }
}

async fn wait(reading: &mut Option<Reading>) -> Result<Vec<Arrival>, Ended> {
    match reading {
        Some(reading) => reading.await,
        None => std::future::pending().await,
    }
}

pub(super) async fn connect(url: &str) -> Result<(Client, ConnectHandle), Ended> {
    connect_hearing(url, PerformanceConfig::default().broadcast_channel_capacity).await
}

/// The same, with room for so many messages of other nodes.
pub(super) async fn connect_hearing(url: &str, messages: usize) -> Result<(Client, ConnectHandle), Ended> {
    let config = Config::from_url(url)?;
    let mut builder = Builder::from_config(config);
    builder.set_performance_config(PerformanceConfig {
        default_command_timeout: Duration::from_millis(REDIS_TIMEOUT_MS),
        broadcast_channel_capacity: messages,
        ..PerformanceConfig::default()
    });
    builder.with_connection_config(|connection| {
        connection.connection_timeout = Duration::from_millis(REDIS_TIMEOUT_MS);
        connection.max_command_attempts = 1;
        connection.reconnect_on_auth_error = false;
        connection.tcp.nodelay = Some(true);
    });
    let client = builder.build()?;
    let task = client.init().await?;
    Ok((client, task))
}

/// Says loudly, in the doctor's words, when Redis may lose what it has acknowledged.
async fn tell_of_durability(client: &Client, need: &RedisNeed<'_>) {
    let Ok(look) = look_through(client).await else { return };
    for finding in losses(&look, need).iter().filter(|finding| finding.verdict != Verdict::Good) {
        tracing::warn!("REDIS MAY LOSE WHAT IT HAS ACKNOWLEDGED: {finding}");
    }
}

/// Another one each time that Redis is started; nothing, if it does not say.
async fn run_of(client: &Client) -> String {
    let command = CustomCommand::new_static("INFO", None, false);
    let answer: Result<String, _> = client.custom(command, vec!["server"]).await;
    let answer = answer.unwrap_or_default();
    answer.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default().to_owned()
}

async fn status(client: &Client, script: String, values: [String; 4], session: u64) -> Result<News, Ended> {
    let values: Vec<String> = client.evalsha(script, PREFIX, values.to_vec()).await?;
    let number = |at: usize| values.get(at).and_then(|text| text.parse().ok()).unwrap_or(0);
    let found = values.first().and_then(|text| Generation::parse(text)).map(|there| Found {
        there,
        count: number(1),
        floor: Seq(number(2)),
        // Redis tells the second in which the generation was made: all names from before its end may be older.
        since_ms: (number(3) + 1) * 1_000,
        age: if number(4) == 0 { Age::Settled } else { Age::Fresh },
        is_vouched_for: number(5) == 1,
    });
    Ok(News::Status { session, found })
}

async fn count(client: &Client) -> Result<News, Ended> {
    let count: Option<u64> = client.hget(format!("{PREFIX}state"), "count").await?;
    count.map(News::Count).ok_or(Ended::OtherGeneration)
}

async fn submit(
    client: &Client,
    script: String,
    generation: &Generation,
    entries_max: u64,
    calls: Vec<Values>,
) -> Result<News, Ended> {
    let mut values: Vec<Value> = Vec::with_capacity(3 + calls.len() * VALUES);
    values.push(generation.text().into());
    values.push(entries_max.to_string().into());
    values.push(CLAIMS_S.to_string().into());
    values.extend(calls.into_iter().flatten().map(|bytes| Value::Bytes(bytes.into())));
    let reply: Value = client.evalsha(script, PREFIX, values).await?;
    let Value::Array(mut replies) = reply else { return Err(Ended::OtherGeneration) };
    let count = replies.pop().and_then(|count| count.as_u64());
    let replies: Option<Vec<Reply>> = replies.into_iter().map(understood).collect();
    match (replies, count) {
        (Some(replies), Some(count)) => Ok(News::Replies { replies, count }),
        _ => Err(Ended::Lost("a call's reply makes no sense".to_owned())),
    }
}

fn understood(reply: Value) -> Option<Reply> {
    let bytes = bytes_of(reply)?;
    match bytes.split_first()? {
        (b'A', _) => Some(Reply::Appended),
        (b'B', _) => Some(Reply::Bounced),
        (b'F', _) => Some(Reply::Full),
        (b'R', claimed) => Some(Reply::Repeat(claimed.to_vec())),
        _ => None,
    }
}

async fn begin(
    client: &Client,
    script: String,
    generation: &Generation,
    replaces: Option<&Generation>,
    node: u16,
) -> Result<News, Ended> {
    let replaces = replaces.map(Generation::text).unwrap_or_default();
    let values: Vec<Value> = vec!["begin".into(), generation.text().into(), replaces.into(), node.to_string().into()];
    let reply: String = client.evalsha(script, PREFIX, values).await?;
    if reply == "OK" {
        return Ok(News::Begun);
    }
    // Another node is at it: the next session looks again.
    sleep(Duration::from_millis(LOOK_AGAIN_MS)).await;
    Err(Ended::OtherGeneration)
}

async fn seed(
    client: &Client,
    script: String,
    generation: &Generation,
    (base, floor): (u64, Seq),
    groups: Vec<Vec<Vec<u8>>>,
) -> Result<(), Ended> {
    let began = Instant::now();
    let last = [("finish", vec![decimal(base), decimal(floor.0)])];
    for (step, values) in groups.into_iter().map(|groups| ("groups", groups)).chain(last) {
        let mut all: Vec<Value> = vec![step.into(), generation.text().into()];
        all.extend(values.into_iter().map(|bytes| Value::Bytes(bytes.into())));
        let reply: String = client.evalsha(script.clone(), PREFIX, all).await?;
        if reply != "OK" {
            return Err(Ended::OtherGeneration);
        }
    }
    let generation = generation.number;
    tracing::info!(generation, ms = began.elapsed().as_millis() as u64, "the cluster's ledger is made anew");
    Ok(())
}

async fn compare(
    client: &Client,
    script: String,
    generation: &Generation,
    window: u64,
    digest: u64,
) -> Result<News, Ended> {
    let values: Vec<Value> = vec![
        generation.text().into(),
        window.to_string().into(),
        format!("{digest:016x}").into(),
        WINDOWS_KEPT.to_string().into(),
    ];
    let reply: String = client.evalsha(script, PREFIX, values).await?;
    match &*reply {
        "OK" => Ok(News::Compared { window, outcome: Compared::Same }),
        "OTHER" => Ok(News::Compared { window, outcome: Compared::Other }),
        _ => Err(Ended::OtherGeneration),
    }
}

/// Entries out of a read: one stream with its entries, each an id and fields.
fn arrivals(read: Value) -> Option<Vec<Arrival>> {
    let streams = match read {
        Value::Null => return Some(Vec::new()),
        Value::Array(streams) => streams,
        _ => return None,
    };
    let mut arrivals = Vec::new();
    for stream in streams {
        let Value::Array(mut pair) = stream else { return None };
        let Value::Array(entries) = pair.pop()? else { return None };
        for entry in entries {
            let Value::Array(mut entry) = entry else { return None };
            let Value::Array(fields) = entry.pop()? else { return None };
            let id = entry.pop()?.into_string()?;
            let count = id.split_once('-')?.1.parse().ok()?;
            let mut fields = fields.into_iter();
            let (_, entry) = (fields.next()?, fields.next()?);
            arrivals.push(Arrival { count, entry: bytes_of(entry)? });
        }
    }
    Some(arrivals)
}

pub(super) fn bytes_of(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Bytes(bytes) => Some(bytes.to_vec()),
        _ => None,
    }
}
