//! The thread that talks to Redis, for nodes of a cluster: sessions with it, leases, the ledger's calls, and the nodes'
//! talk with each other.
//!
//! It runs on a tokio runtime of its own, because the client's tasks stand still while their thread blocks. What always
//! holds: the connections of a session are never repaired; when one fails, all go, the ledger is told, and the next
//! session begins with a look at what Redis has. So no call of an old session is ever made in a new one by this side, and
//! what Redis still finds of one in a socket is a repeat or of another generation.
//!
//! The ledger may be split into buckets, over the masters of a Redis Cluster. Only what is in this module knows that: the
//! ledger is given one stream with one numbering, and its submissions say where they belong.
//!
//! ```text
//! session.rs   connections, calls, heartbeats      masters.rs   which Redis has which bucket
//! buckets.rs   what is about all buckets at once   calls.rs     submissions and their replies, by bucket
//! stream.rs    reads streams, sees to their order  order.rs     the streams of several buckets, made one
//! subscription.rs   what nodes say to each other        nodes.rs     who is there; talk.rs: the same as bytes
//! look.rs      what a Redis says about itself      connection.rs   one connection, and why a session ends
//! known.rs     whether it still has what was followed   others_lease.rs  whose lease is in the way
//! ```

mod buckets;
mod calls;
mod connection;
mod known;
pub(crate) mod look;
mod masters;
pub(crate) mod nodes;
mod order;
pub mod others_lease;
mod session;
mod stream;
mod subscription;
pub(crate) mod talk;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use self::buckets::Memory;
use self::connection::Ended;
use self::look::Losses;
use self::nodes::Nodes;
use self::others_lease::{LOOK_MS, OthersLease, Verdict};
use self::session::Session;
use crate::contract::access::AccessNews;
use crate::contract::names_kept::NamesKept;
use crate::contract::nodes::{FromNodes, ToNodes};
use crate::contract::progress::{Progress, StoreWriter};
use crate::contract::report::NodesReport;
use crate::contract::report::Report;
use crate::ledger::redis::link::{News, RedisEnds};
use crate::limits::{REDIS_TIMEOUT_MS, WARN_EVERY_MS};
use crate::topology::mailbox::Slot;

/// The first wait before Redis is tried again; it doubles each time.
const RETRY_FIRST_MS: u64 = 50;
/// The longest.
const RETRY_MAX_MS: u64 = 1_000;
/// A Redis that stays away is said so often.
const WARN_EVERY: Duration = Duration::from_millis(WARN_EVERY_MS);

/// What the thread needs to follow the ledger.
#[derive(Debug)]
pub struct LedgerLink {
    /// To and from the ledger.
    pub ends: RedisEnds,
    /// Where Redis is.
    pub url: String,
    /// Into how many buckets the ledger is split.
    pub buckets: usize,
    /// How long Redis keeps names.
    pub names: NamesKept,
    /// This node's number.
    pub node: u16,
    /// Tells this process from another with the same number.
    pub token: u64,
    /// Entries of the stream that may be unstored.
    pub entries_max: u64,
    /// What a Redis may lose of what it has acknowledged.
    pub losses: Losses,
    /// How far the stores are, and whose turn it is to write.
    pub progress: Arc<Progress>,
}

/// What the thread owns.
#[derive(Debug)]
pub struct ClusterEnds {
    ledger: LedgerLink,
    nodes: Nodes,
    /// From the shards.
    from_shards: mpsc::Receiver<ToNodes>,
    /// To control.
    reports: mpsc::Sender<Report>,
    /// What the last session has found.
    memory: Memory,
}

impl LedgerLink {
    /// With the ends to the shards and to control it is all the thread needs. `process` is another one in every process.
    pub fn with_shards(
        self,
        process: u64,
        shards: Vec<Slot<FromNodes>>,
        from_shards: mpsc::Receiver<ToNodes>,
        access: mpsc::Sender<AccessNews>,
        reports: mpsc::Sender<Report>,
    ) -> ClusterEnds {
        let nodes = Nodes::new(self.node, process, shards).with_access(access);
        ClusterEnds { ledger: self, nodes, from_shards, reports, memory: Memory::Enough }
    }
}

impl ClusterEnds {
    /// Tells control; one that is behind gets the next one.
    fn report(&self, report: NodesReport) {
        drop(self.reports.try_send(Report::Nodes(Box::new(report))));
    }
}

/// Runs until the ledger has ended.
pub async fn run(mut cluster: ClusterEnds) {
    let mut wait_ms = RETRY_FIRST_MS;
    let mut others_lease = OthersLease::default();
    let mut warned: Option<Instant> = None;
    let mut rng = fastrand::Rng::with_seed(cluster.ledger.token);
    for number in 1.. {
        let limit = Duration::from_millis(REDIS_TIMEOUT_MS);
        let ended = match timeout(limit, Session::begin(&mut cluster, number)).await {
            Ok(Ok(session)) => {
                (wait_ms, others_lease) = (RETRY_FIRST_MS, OthersLease::default());
                let ended = session.run(&mut cluster).await;
                match ended {
                    Ended::Done => {}
                    Ended::OtherGeneration => notify(&cluster.ledger.ends, News::OtherGeneration).await,
                    _ => notify(&cluster.ledger.ends, News::Disconnected).await,
                }
                cluster.report(NodesReport { nodes: 0, others: Vec::new(), ..cluster.nodes.report() });
                ended
            }
            Ok(Err(ended)) => ended,
            Err(_) => Ended::Lost("it did not answer in time".to_owned()),
        };
        cluster.memory = if matches!(ended, Ended::NoMemory) { Memory::Short } else { Memory::Enough };
        if let Some(why) = ended.stands_still() {
            notify(&cluster.ledger.ends, News::NoSession(why)).await;
        }
        match ended {
            Ended::Done => return,
            Ended::Taken { .. } | Ended::OtherBuckets(_) | Ended::OtherNames(_) => {
                cluster.ledger.progress.set_store_writer(StoreWriter::NotThisNode);
                if others_lease.is_new() {
                    warn_of_lease(&cluster.ledger, &ended);
                }
                let renewed = if let Ended::Taken { renewed } = ended { Some(renewed) } else { None };
                if others_lease.meet(renewed) == Verdict::Lives {
                    return end(&cluster.ledger, &ended).await;
                }
                sleep(Duration::from_millis(LOOK_MS)).await;
                continue;
            }
            Ended::OtherGeneration => {}
            Ended::NoScripts => tracing::info!("Redis has forgotten its scripts: they are loaded again"),
            Ended::Lost(_) | Ended::ReadOnly(_) | Ended::NoMemory => {
                if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                    warned = Some(Instant::now());
                    warn(&ended);
                }
            }
        }
        sleep(Duration::from_millis(wait_ms - rng.u64(..=wait_ms / 2))).await;
        wait_ms = (wait_ms * 2).min(RETRY_MAX_MS);
        if cluster.ledger.ends.orders.is_closed() {
            return;
        }
    }
}

/// Says why there is no session.
fn warn(ended: &Ended) {
    match ended {
        Ended::NoMemory => {
            tracing::warn!("Redis has no memory left: nothing is numbered until the database has what can be cut off")
        }
        Ended::ReadOnly(error) => tracing::warn!(
            error,
            "Redis takes no writes: nothing is numbered until it does; is cluster.redis_url a replica, or its disk full?"
        ),
        Ended::Lost(error) => {
            tracing::warn!(error, "Redis is away: nothing is numbered until it is back; trying again");
        }
        Ended::Done | Ended::OtherGeneration | Ended::NoScripts => {}
        Ended::Taken { .. } | Ended::OtherBuckets(_) | Ended::OtherNames(_) => {}
    }
}

/// Says whose lease is in the way.
fn warn_of_lease(ledger: &LedgerLink, ended: &Ended) {
    match ended {
        Ended::OtherBuckets(theirs) => tracing::warn!(
            theirs,
            ours = ledger.buckets,
            "the other gateways have another number of buckets; waiting for their leases to end"
        ),
        Ended::OtherNames(theirs_s) => tracing::warn!(
            theirs_s,
            ours_s = ledger.names.seconds(),
            "the other gateways have another limits.names_s; waiting for their leases to end"
        ),
        _ => tracing::warn!(node = ledger.node, "another gateway has this node's id; waiting for its lease to end"),
    }
}

/// Another process lives. The ledger ends with that error, and the process with it: if
/// this thread ended it might be heard of first, and would be all that the operator is told.
async fn end(ledger: &LedgerLink, ended: &Ended) {
    let news = match ended {
        Ended::OtherBuckets(theirs) => News::Buckets { theirs: *theirs, ours: ledger.buckets as u64 },
        Ended::OtherNames(theirs_s) => News::Names { theirs_s: *theirs_s, ours_s: ledger.names.seconds() },
        _ => News::Taken,
    };
    notify(&ledger.ends, news).await;
    std::future::pending().await
}

/// Tells the ledger, waiting for room.
async fn notify(ends: &RedisEnds, mut news: News) {
    while let Err(refused) = ends.notify(news) {
        news = refused;
        sleep(Duration::from_millis(1)).await;
    }
}
