//! One session with Redis: a connection to each master for calls, one for reading each stream, one to hear other nodes,
//! and the heartbeat.
//!
//! On Redis's thread. What always holds: calls are sent in the order of the ledger's orders and replies go back in it,
//! several under way at once; the first failure of any command, on whichever master, ends the session.

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike, KeysInterface};
use fred::types::config::{Config, PerformanceConfig};
use fred::types::{Builder, ConnectHandle, CustomCommand, Value};
use futures_lite::future::poll_once;
use tokio::sync::oneshot;
use tokio::time::{Instant, interval, sleep};

use super::buckets::{Buckets, FIRST, Warns};
use super::calls::{Answer, BucketReplies, Calls, submit, submit_split};
use super::hearing::Hearing;
use super::look::{Losses, RedisNeed, look_through};
use super::masters::Masters;
use super::stream::{Orders, Stream};
use super::{ClusterEnds, tell};
use crate::ledger::redis::entry::Call;
use crate::ledger::redis::link::{Arrival, Compared, Generation, News, Order, What};
use crate::limits::{CALLS_IN_FLIGHT_MAX, HEARTBEAT_MS, LEASE_MS, REDIS_TIMEOUT_MS, STREAM_KEPT, WINDOWS_KEPT};

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
    /// The nodes that are there have another number of buckets.
    OtherBuckets(u64),
}

impl From<fred::error::Error> for Ended {
    fn from(error: fred::error::Error) -> Self {
        Ended::Lost(error.to_string())
    }
}

/// What was begun and is not answered.
pub(super) type UnderWay<T> = Pin<Box<dyn Future<Output = Result<T, Ended>> + Send>>;

/// A session.
pub(super) struct Session {
    number: u64,
    /// Entries of the stream that may be unstored.
    entries_max: u64,
    buckets: Arc<Buckets>,
    /// A connection for each bucket's stream, and, if there are several, one for their order.
    reads: Vec<Client>,
    hearing: Hearing,
    began: Instant,
    stream: Stream,
    under_way: Calls<Answer>,
    /// Answered, and not told before the stream has been read as far as it was then.
    held: Option<BucketReplies>,
    /// Comes when the last submissions have been sent.
    turn: Option<oneshot::Receiver<()>>,
    /// The client's own tasks, which would outlive it.
    tasks: Vec<ConnectHandle>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.tasks.iter().for_each(ConnectHandle::abort);
    }
}

impl Session {
    /// Connects, claims the node's id, and tells the ledger what Redis has.
    pub(super) async fn begin(cluster: &mut ClusterEnds, number: u64) -> Result<Session, Ended> {
        let entries_max = cluster.ledger.entries_max;
        let masters = Masters::find(&cluster.ledger.url, cluster.ledger.buckets, number).await?;
        let warns = if number == 1 { Warns::With(cluster.ledger.losses) } else { Warns::No };
        let (buckets, mut tasks) = Buckets::connect(&masters, entries_max, warns).await?;
        let mut reads = Vec::new();
        let read = connect_reading(&masters, &mut reads, &mut tasks).await;
        let hearing = match read {
            Ok(()) => Hearing::begin(masters.first()?, cluster.ledger.node, buckets.client(FIRST)?.clone()).await,
            Err(ended) => Err(ended),
        };
        let hearing = hearing.inspect_err(|_| tasks.iter().for_each(ConnectHandle::abort))?;
        let (buckets, stream, under_way, began) = (Arc::new(buckets), Stream::Nothing, Calls::new(), Instant::now());
        let (held, turn) = (None, None);
        let mut session =
            Session { number, entries_max, buckets, reads, hearing, began, stream, under_way, held, turn, tasks };
        session.beat(cluster, 0).await?;
        // What the shards told meanwhile is told again, as all they have.
        while cluster.told.try_recv().is_ok() {}
        cluster.nodes.begin();
        let status = Arc::clone(&session.buckets).status(number, None).await?;
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
        loop {
            let has_room = self.under_way.len() < CALLS_IN_FLIGHT_MAX;
            self.hearing.publish(&mut cluster.nodes).await;
            let orders = if cluster.ledger.progress.writes_store() { Orders::AtOnce } else { Orders::Later };
            tokio::select! {
                biased;
                answer = self.under_way.next(), if self.held.is_none() => match answer? {
                    Answer::News(news) => tell(&cluster.ledger.ends, news).await,
                    Answer::Replies(replies) => {
                        self.held = Some(replies);
                        self.tell_held(cluster).await;
                    }
                },
                arrivals = self.stream.next(orders) => {
                    let arrivals: Vec<Arrival> = arrivals?;
                    if !arrivals.is_empty() {
                        tell(&cluster.ledger.ends, News::Entries(arrivals)).await;
                        self.tell_held(cluster).await;
                    }
                }
                _ = beats.tick() => {
                    let read = self.stream.given().map_or(0, |(_, after)| after);
                    self.beat(cluster, read).await?;
                    cluster.report(cluster.nodes.report());
                }
                order = cluster.ledger.ends.orders.recv(), if has_room => match order {
                    None => {
                        self.leave(cluster).await;
                        return Ok(());
                    }
                    Some(Order { session, what }) if session == self.number => self.carry_out(what).await?,
                    // The ledger makes it again.
                    Some(_) => {}
                },
                heard = self.hearing.next(&mut cluster.told) => self.hearing.heed(heard?, &mut cluster.nodes, &mut cluster.told),
            }
        }
    }

    /// Tells what was held back, if what it stands behind has been told.
    async fn tell_held(&mut self, cluster: &ClusterEnds) {
        if let (Some(held), Some(merge)) = (&self.held, self.stream.merge())
            && let Some(news) = held.news(merge)
        {
            self.held = None;
            tell(&cluster.ledger.ends, news).await;
        }
    }

    /// Begins what the ledger wants; its news come in the order of orders.
    async fn carry_out(&mut self, what: What) -> Result<(), Ended> {
        let (buckets, number) = (Arc::clone(&self.buckets), self.number);
        let begun: UnderWay<Answer> = match what {
            What::Follow { generation, after } => {
                self.stream = Stream::follow(&self.buckets, &self.reads, generation, after).await?;
                return Ok(());
            }
            What::Submit { generation, calls } => self.submit(generation, calls),
            What::Count => news(async move { buckets.entries().await }),
            What::Begin { generation, replaces, node } => {
                news(async move { begin(&buckets, &generation, replaces.as_ref(), node).await })
            }
            What::Seed { generation, base, floor, groups } => news(async move {
                buckets.seed(&generation, (base, floor), groups).await?;
                buckets.status(number, None).await
            }),
            What::Compare { generation, window, digest } => {
                news(async move { compare(&buckets, &generation, window, digest).await })
            }
            What::Vouch { generation, read } => {
                news(async move { buckets.status(number, Some((generation, read))).await })
            }
            What::Status => news(async move {
                sleep(Duration::from_millis(LOOK_AGAIN_MS)).await;
                buckets.status(number, None).await
            }),
        };
        self.under_way.push(begun).await;
        Ok(())
    }

    fn submit(&mut self, generation: Generation, calls: Vec<Call>) -> UnderWay<Answer> {
        let (buckets, entries_max) = (Arc::clone(&self.buckets), self.entries_max);
        if buckets.count() == 1 {
            return Box::pin(submit(buckets, generation, entries_max, calls));
        }
        let (next, turn) = oneshot::channel();
        let turn = self.turn.replace(turn);
        Box::pin(submit_split(buckets, generation, entries_max, calls, (turn, next)))
    }

    /// Renews what is leased, and tells Redis how far this node and the database are.
    async fn beat(&mut self, cluster: &mut ClusterEnds, read: u64) -> Result<(), Ended> {
        let ClusterEnds { ledger, nodes, .. } = cluster;
        let generation = self.stream.given().map(|(generation, _)| generation.text()).unwrap_or_default();
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
            self.buckets.count().to_string().into(),
        ];
        let reply: Vec<Value> = self.buckets.call(FIRST, &self.buckets.scripts.heartbeat, values).await?;
        let mut reply = reply.into_iter();
        match reply.next().and_then(|word| word.into_string()).as_deref() {
            Some("OK") => {}
            Some("BUCKETS") => {
                let theirs = reply.next().and_then(|count| count.into_string()?.parse().ok()).unwrap_or_default();
                return Err(Ended::OtherBuckets(theirs));
            }
            _ => return Err(Ended::Taken),
        }
        let writes = reply.next().and_then(|flag| flag.as_i64()) == Some(1);
        if writes != ledger.progress.writes_store() {
            tracing::info!(writes, "the right to write the cluster's store has changed hands");
            ledger.progress.let_store_write(writes);
        }
        let mut text = || reply.next().and_then(|text| text.into_string()).unwrap_or_default();
        let (there, stored_of_each, cut_of_each) = (text(), text(), text());
        let alive: BTreeSet<u16> = reply.filter_map(|node| node.into_string()?.parse().ok()).collect();
        nodes.alive(&alive, self.began.elapsed() >= Duration::from_millis(LEASE_MS));
        if !generation.is_empty() && there != generation {
            return Err(Ended::OtherGeneration);
        }
        if !stored_of_each.is_empty() {
            self.buckets.trim(&generation, &stored_of_each, &cut_of_each).await?;
        }
        Ok(())
    }

    /// Gives back what is leased, so that nobody waits for it to end. If Redis does not take it, it ends by itself.
    async fn leave(&self, cluster: &ClusterEnds) {
        let root = self.buckets.root(FIRST);
        let mut keys = vec![format!("{root}node:{}", cluster.ledger.node)];
        if cluster.ledger.progress.writes_store() {
            keys.push(format!("{root}writer"));
        }
        if let Ok(client) = self.buckets.client(FIRST) {
            client.del::<(), _>(keys).await.ok();
        }
        self.hearing.say_last(cluster.nodes.bye()).await;
    }
}

/// One for each bucket's stream, and, if there are several, one for their order.
async fn connect_reading(
    masters: &Masters,
    reads: &mut Vec<Client>,
    tasks: &mut Vec<ConnectHandle>,
) -> Result<(), Ended> {
    let orders = if masters.places().len() > 1 { masters.places().first() } else { None };
    for at in masters.places().iter().chain(orders) {
        let Some(master) = masters.each().get(*at) else { continue };
        let (client, task) = connect(&master.config).await?;
        reads.push(client);
        tasks.push(task);
    }
    Ok(())
}

/// Something whose answer can be told as it is.
fn news(begun: impl Future<Output = Result<News, Ended>> + Send + 'static) -> UnderWay<Answer> {
    Box::pin(async move { begun.await.map(Answer::News) })
}

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

pub(super) async fn connect(config: &Config) -> Result<(Client, ConnectHandle), Ended> {
    connect_hearing(config, PerformanceConfig::default().broadcast_channel_capacity).await
}

/// The same, with room for so many messages of other nodes.
pub(super) async fn connect_hearing(config: &Config, messages: usize) -> Result<(Client, ConnectHandle), Ended> {
    let mut builder = Builder::from_config(config.clone());
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

/// Says loudly when Redis may lose what it has acknowledged.
pub(super) async fn warn_of_losses(client: &Client, need: &RedisNeed<'_>, losses: Losses) {
    // A Redis that cannot be asked now is not gone on with, and the next session asks.
    let Ok(look) = look_through(client).await else { return };
    for finding in losses(&look, need) {
        tracing::warn!("REDIS MAY LOSE WHAT IT HAS ACKNOWLEDGED: {finding}");
    }
}

/// Another one each time that Redis is started; nothing, if it does not say.
pub(super) async fn run_of(client: &Client) -> String {
    let command = CustomCommand::new_static("INFO", None, false);
    let answer: Result<String, _> = client.custom(command, vec!["server"]).await;
    let answer = answer.unwrap_or_default();
    answer.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default().to_owned()
}

async fn begin(
    buckets: &Buckets,
    generation: &Generation,
    replaces: Option<&Generation>,
    node: u16,
) -> Result<News, Ended> {
    let replaces = replaces.map(Generation::text).unwrap_or_default();
    let values: Vec<Value> = vec!["begin".into(), generation.text().into(), replaces.into(), node.to_string().into()];
    let reply: String = buckets.call(FIRST, &buckets.scripts.seed, values).await?;
    if reply == "OK" {
        return Ok(News::Begun);
    }
    // Another node is at it: the next session looks again.
    sleep(Duration::from_millis(LOOK_AGAIN_MS)).await;
    Err(Ended::OtherGeneration)
}

async fn compare(buckets: &Buckets, generation: &Generation, window: u64, digest: u64) -> Result<News, Ended> {
    let values: Vec<Value> = vec![
        generation.text().into(),
        window.to_string().into(),
        format!("{digest:016x}").into(),
        WINDOWS_KEPT.to_string().into(),
    ];
    let reply: String = buckets.call(FIRST, &buckets.scripts.compare, values).await?;
    match &*reply {
        "OK" => Ok(News::Compared { window, outcome: Compared::Same }),
        "OTHER" => Ok(News::Compared { window, outcome: Compared::Other }),
        _ => Err(Ended::OtherGeneration),
    }
}

pub(super) fn bytes_of(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Bytes(bytes) => Some(bytes.to_vec()),
        _ => None,
    }
}
