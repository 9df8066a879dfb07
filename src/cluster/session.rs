//! One session with Redis: a connection to each master for calls, one for reading each stream, one to hear other nodes,
//! and the heartbeat.
//!
//! On Redis's thread. What always holds: calls are sent in the order of the ledger's orders and replies go back in it,
//! with several calls in flight at once; the first failure of any command, on whichever master, ends the session.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::types::{ConnectHandle, Value};
use tokio::sync::oneshot;
use tokio::time::{Instant, interval, sleep};

use super::buckets::{Buckets, FIRST, Memory, Warns};
use super::calls::{Answer, BucketReplies, Calls, submit, submit_split};
use super::connection::{Awaited, Ended, connect};
use super::known::has_other_entries;
use super::masters::Masters;
use super::nodes::Leaseless;
use super::stream::{Orders, Stream};
use super::subscription::Subscription;
use super::{ClusterEnds, LedgerLink, notify};
use crate::contract::internal::{OrCount, Place};
use crate::contract::position::StreamPosition;
use crate::contract::progress::StoreWriter;
use crate::contract::report::StandsStill;
use crate::ledger::redis::entry::Call;
use crate::ledger::redis::link::{Arrival, Compared, Generation, News, Order, Reply, What, Writer};
use crate::ledger::redis::seed::generation_of;
use crate::limits::{CALLS_IN_FLIGHT_MAX, HEARTBEAT_MS, LEASE_MS, WINDOWS_KEPT};

/// Before Redis is looked at again while another node makes a new generation.
const LOOK_AGAIN_MS: u64 = 200;

/// A session.
pub(super) struct Session {
    number: u64,
    /// Entries of the stream that may be unstored.
    entries_max: u64,
    buckets: Arc<Buckets>,
    /// A connection for each bucket's stream, and, if there are several, one for their order.
    reads: Vec<Client>,
    subscription: Subscription,
    /// Under which number it claims the node's id: a later session's is higher.
    claim: String,
    began: Instant,
    stream: Stream,
    in_flight: Calls<Answer>,
    /// Answered, and not told before the stream has been read as far as it was then.
    held: Option<BucketReplies>,
    memory: Memory,
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
        let (buckets, mut tasks) = Buckets::connect(&masters, cluster.ledger.names, entries_max, warns).await?;
        let mut reads = Vec::new();
        let read = connect_reading(&masters, &mut reads, &mut tasks).await;
        let subscription = match read {
            Ok(()) => Subscription::begin(masters.first()?, cluster.ledger.node, buckets.client(FIRST)?.clone()).await,
            Err(ended) => Err(ended),
        };
        let subscription = subscription.inspect_err(|_| tasks.iter().for_each(ConnectHandle::abort))?;
        let (buckets, stream, in_flight, began) = (Arc::new(buckets), Stream::Nothing, Calls::new(), Instant::now());
        let (held, turn, memory) = (None, None, cluster.memory);
        let mut session = Session {
            number,
            entries_max,
            buckets,
            reads,
            subscription,
            claim: String::new(),
            began,
            stream,
            in_flight,
            held,
            memory,
            turn,
            tasks,
        };
        session.claim(&cluster.ledger).await?;
        session.beat(cluster, 0).await?;
        // What the shards said meanwhile is said again, as all they have.
        while cluster.from_shards.try_recv().is_ok() {}
        cluster.nodes.begin();
        let status = Arc::clone(&session.buckets).status(number, None).await?;
        notify(&cluster.ledger.ends, status).await;
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
            let has_room = self.in_flight.len() < CALLS_IN_FLIGHT_MAX;
            self.subscription.publish(&mut cluster.nodes).await;
            let orders = if cluster.ledger.progress.writes_store() { Orders::AtOnce } else { Orders::Later };
            tokio::select! {
                biased;
                answer = self.in_flight.next(), if self.held.is_none() => match self.noticed(answer?) {
                    Answer::News(news) => notify(&cluster.ledger.ends, news).await,
                    Answer::Replies(replies) => {
                        self.held = Some(replies);
                        self.reports_held()?;
                        self.notify_held(cluster).await;
                    }
                },
                arrivals = self.stream.next(orders) => {
                    let arrivals: Vec<Arrival> = arrivals?;
                    if arrivals.is_empty() && let Some(to) = self.stream.cut_to() {
                        notify(&cluster.ledger.ends, News::Cut(to)).await;
                    }
                    if !arrivals.is_empty() {
                        notify(&cluster.ledger.ends, News::Entries(arrivals)).await;
                        self.notify_held(cluster).await;
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
                received = self.subscription.next(&mut cluster.from_shards) => self.subscription.apply(received?, &mut cluster.nodes, &mut cluster.from_shards),
            }
        }
    }

    /// Notices that Redis has no memory left: until the session ends, all that nobody needs goes at once.
    fn noticed(&mut self, answer: Answer) -> Answer {
        let is_refused = match &answer {
            Answer::News(News::Replies { replies, .. }) => replies.contains(&Reply::NoMemory),
            Answer::News(_) => false,
            Answer::Replies(replies) => replies.contains(&Reply::NoMemory),
        };
        if is_refused {
            self.memory_is_short();
        }
        answer
    }

    fn memory_is_short(&mut self) {
        if self.memory == Memory::Enough {
            tracing::warn!(
                "Redis has no memory left: senders get STORAGE_FULL, and what the database has is cut off at once"
            );
            self.memory = Memory::Short;
        }
    }

    /// Tells what was held back, if what it stands behind has been told.
    async fn notify_held(&mut self, cluster: &ClusterEnds) {
        if let (Some(held), Some(merge)) = (&self.held, self.stream.merge())
            && let Some(news) = held.news(merge)
        {
            self.held = None;
            notify(&cluster.ledger.ends, news).await;
        }
    }

    /// What is held back stands behind what is read of the stream: without one it can never be told, and the next session
    /// begins with all that has no reply.
    fn reports_held(&self) -> Result<(), Ended> {
        if self.held.is_some() && self.stream.merge().is_none() { Err(Ended::OtherGeneration) } else { Ok(()) }
    }

    /// Begins what the ledger wants; its news come in the order of orders.
    async fn carry_out(&mut self, what: What) -> Result<(), Ended> {
        let (buckets, number) = (Arc::clone(&self.buckets), self.number);
        let begun: Awaited<Answer> = match what {
            What::Follow { generation, after, known } => {
                if has_other_entries(&self.buckets, &generation, &known).await? {
                    self.stream = Stream::Nothing;
                    news(async { Ok(News::OtherEntries) })
                } else {
                    self.stream = Stream::follow(&self.buckets, &self.reads, generation, after).await?;
                    match self.stream.given() {
                        Some((_, given)) if given > after => news(async move { Ok(News::Cut(given)) }),
                        _ => return Ok(()),
                    }
                }
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
            What::Compare { generation, window, digest, node, writer } => {
                news(async move { compare(&buckets, &generation, (window, digest), (node, writer)).await })
            }
            What::Confirm { generation, read } => {
                news(async move { buckets.status(number, Some((generation, read))).await })
            }
            What::Status => {
                // The ledger follows nothing, and learns what there is to be followed.
                self.stream = Stream::Nothing;
                self.reports_held()?;
                news(async move {
                    sleep(Duration::from_millis(LOOK_AGAIN_MS)).await;
                    buckets.status(number, None).await
                })
            }
        };
        self.in_flight.push(begun).await;
        Ok(())
    }

    fn submit(&mut self, generation: Generation, calls: Vec<Call>) -> Awaited<Answer> {
        let (buckets, entries_max) = (Arc::clone(&self.buckets), self.entries_max);
        if buckets.count() == 1 {
            return Box::pin(submit(buckets, generation, entries_max, calls));
        }
        let (next, turn) = oneshot::channel();
        let turn = self.turn.replace(turn);
        Box::pin(submit_split(buckets, generation, entries_max, calls, (turn, next)))
    }

    /// Learns which of the node's sessions this is.
    async fn claim(&mut self, ledger: &LedgerLink) -> Result<(), Ended> {
        let values = self.heartbeat(ledger, 0, 0);
        let reply: Vec<String> = self.buckets.call(FIRST, &self.buckets.scripts.heartbeat, values).await?;
        match reply.as_slice() {
            [word, number] if word == "SESSION" => self.claim.clone_from(number),
            _ => return Err(Ended::Lost("Redis does not say which of this node's sessions this is".to_owned())),
        }
        Ok(())
    }

    /// What a heartbeat says.
    fn heartbeat(&self, ledger: &LedgerLink, read: u64, stored: u64) -> Vec<Value> {
        vec![
            ledger.node.to_string().into(),
            format!("{:016x}", ledger.token).into(),
            LEASE_MS.to_string().into(),
            read.to_string().into(),
            stored.to_string().into(),
            self.memory.kept().to_string().into(),
            self.buckets.count().to_string().into(),
            self.memory.cuts().into(),
            self.claim.clone().into(),
            ledger.names.seconds().to_string().into(),
        ]
    }

    /// Renews what is leased, and tells Redis how far this node and the database are.
    async fn beat(&mut self, cluster: &mut ClusterEnds, read: u64) -> Result<(), Ended> {
        let ClusterEnds { ledger, nodes, .. } = cluster;
        let generation = self.stream.given().map(|(generation, _)| generation.text()).unwrap_or_default();
        let stored = ledger.progress.stored();
        // The database may be further than the snapshot from which the ledger is to follow the stream.
        let read = if generation.is_empty() { ledger.progress.followed().0 } else { read };
        let values = self.heartbeat(ledger, read, stored.0);
        let reply: Vec<Value> = self.buckets.call(FIRST, &self.buckets.scripts.heartbeat, values).await?;
        let mut reply = reply.into_iter();
        match reply.next().and_then(|word| word.into_string()).as_deref() {
            Some("OK") => {}
            word => {
                let number = reply.next().and_then(|count| count.into_string()?.parse().ok()).unwrap_or_default();
                return Err(match word {
                    Some("BUCKETS") => Ended::OtherBuckets(number),
                    Some("NAMES") => Ended::OtherNames(number),
                    _ => Ended::Taken { renewed: number },
                });
            }
        }
        let writes = reply.next().and_then(|flag| flag.as_i64()) == Some(1);
        if writes != ledger.progress.writes_store() {
            tracing::info!(writes, "the right to write the cluster's store has changed hands");
            ledger.progress.set_store_writer(StoreWriter::of(writes));
        }
        let mut text = || reply.next().and_then(|text| text.into_string()).unwrap_or_default();
        let (there, stored_of_each, cut_of_each) = (text(), text(), text());
        let (redis_ms, count, has_memory) = (text().parse().ok(), text().parse().ok(), text() == "1");
        let alive: BTreeSet<u16> = reply.filter_map(|node| node.into_string()?.parse().ok()).collect();
        let others = match self.began.elapsed() >= Duration::from_millis(LEASE_MS) {
            true => Leaseless::Gone,
            false => Leaseless::Perhaps,
        };
        nodes.alive(&alive, others);
        if !generation.is_empty() && there != generation {
            return Err(Ended::OtherGeneration);
        }
        if !stored_of_each.is_empty() {
            match self.buckets.trim(&there, &stored_of_each, &cut_of_each, self.memory).await {
                // Nothing is followed yet: what each bucket has, and what is to be done about it, the look at all of them says.
                Err(Ended::OtherGeneration) if generation.is_empty() => {}
                trimmed => trimmed?,
            }
        }
        if !has_memory {
            self.memory_is_short();
            notify(&ledger.ends, News::NoRoom(StandsStill::NoMemory)).await;
        } else if count.map(StreamPosition).is_some_and(|last| {
            generation_of(last) == generation_of(stored) && last.0.saturating_sub(stored.0) >= self.entries_max
        }) {
            notify(&ledger.ends, News::NoRoom(StandsStill::Full)).await;
        }
        if let Some(count) = count.filter(|_| !generation.is_empty()) {
            self.stream.has(count);
        }
        if let (Some(redis_ms), Some(count)) = (redis_ms, count) {
            notify(&ledger.ends, News::Clock { generation: there, count, redis_ms }).await;
        }
        Ok(())
    }

    /// Gives back what is leased, so that nobody waits for it to end. If Redis does not take it, it ends by itself.
    async fn leave(&self, cluster: &ClusterEnds) {
        let ledger = &cluster.ledger;
        let values: Vec<Value> = vec![ledger.node.to_string().into(), format!("{:016x}", ledger.token).into()];
        self.buckets.call::<String>(FIRST, &self.buckets.scripts.leave, values).await.ok();
        self.subscription.say_last(cluster.nodes.bye()).await;
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
        let Some(master) = masters.each().get(*at).or_count(Place::Cluster) else { continue };
        let (client, task) = connect(&master.config).await?;
        reads.push(client);
        tasks.push(task);
    }
    Ok(())
}

/// Something whose answer can be told as it is.
fn news(begun: impl Future<Output = Result<News, Ended>> + Send + 'static) -> Awaited<Answer> {
    Box::pin(async move { begun.await.map(Answer::News) })
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

async fn compare(
    buckets: &Buckets,
    generation: &Generation,
    (window, digest): (u64, u64),
    (node, writer): (u16, Writer),
) -> Result<News, Ended> {
    let values: Vec<Value> = vec![
        generation.text().into(),
        window.to_string().into(),
        format!("{digest:016x}").into(),
        WINDOWS_KEPT.to_string().into(),
        node.to_string().into(),
        if writer == Writer::This { "!" } else { "" }.into(),
    ];
    let reply: String = buckets.call(FIRST, &buckets.scripts.compare, values).await?;
    match &*reply {
        "OK" => Ok(News::Compared { window, outcome: Compared::Same }),
        "OTHER" => Ok(News::Compared { window, outcome: Compared::Other }),
        _ => Err(Ended::OtherGeneration),
    }
}
