//! The gateway as a whole: starts every thread in order, waits, stops them in order.
//!
//! Runs on the main thread. What always holds: what can go wrong before a client is served does so before the
//! first address is published; a thread that ends without having been told to ends the process with an error;
//! and a stop ends with exit code 0 only if everything acknowledged is durable and every thread has said so.

mod parts;
mod rlimits;
mod stop;

use std::error::Error;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::sync::{mpsc, watch};

use crate::auth::{AuthKey, AuthKeyError};
use crate::clock::Clock;
use crate::cluster::{self, ClusterEnds};
use crate::config::{Auth, Config};
use crate::contract::ids::ShardId;
use crate::contract::keyed::unguessable;
use crate::control::systemd::{Environment, Notices};
use crate::control::{self, ControlEnds, REPORTS_MAX, Room, Stage, StopSignal};
use crate::datadir::{DataDir, DataDirError, SecretOrigin};
use crate::doctor::start::{self, UnfitHost};
use crate::limits::TO_NODES_MAX;
use crate::log::Chain;
use crate::net::closes;
use crate::net::listener::{self, ListenError};
use crate::net::outlets::Channels;
use crate::net::shard::{self, ShardEnds};
use crate::serve::parts::{AnyKeeper, Persistence};
use crate::shard::config::{DevicePolicy, ShardConfig};
use crate::store::priority::Priority;
use crate::token::{self, KeyError};
use crate::topology::cpus::{CpuError, CpuPlan};
use crate::topology::ledger::LedgerLoop;
use crate::topology::mailbox::{self, Order, Slot};
use crate::topology::store_loop::{Stopped, StoreEnds, StoreLoop};
use crate::topology::{self, Ended};

/// Why the gateway did not start, or did not stop well.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The CPUs.
    #[error(transparent)]
    Cpus(#[from] CpuError),
    /// What the connections take of the host.
    #[error(transparent)]
    Host(#[from] UnfitHost),
    /// The key that verifies tokens.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The public key is none.
    #[error("auth.eddsa_public_key_file does not hold an Ed25519 public key in PEM")]
    PublicKey(#[source] AuthKeyError),
    /// The addresses.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Store and journal.
    #[error("the data of {0} cannot be used")]
    Data(std::path::PathBuf, #[source] Box<dyn Error + Send + Sync>),
    /// The kernel gives no thread.
    #[error("a thread cannot be started")]
    Thread(#[source] std::io::Error),
    /// A thread has ended that should not have.
    #[error("the thread `{0}` has ended; the gateway cannot go on without it")]
    ThreadEnded(String, #[source] Box<dyn Error + Send + Sync>),
    /// The stop took too long, or was interrupted.
    #[error("stopped before everything was done ({why}); still running: {threads}. {consequence}")]
    StopIncomplete {
        /// What ended it.
        why: &'static str,
        /// The threads that had not ended.
        threads: String,
        /// What that means.
        consequence: &'static str,
    },
}

/// A thread ended with nothing to say.
#[derive(Debug, thiserror::Error)]
#[error("it was not told to, and gave no reason")]
struct NoReason;

/// Everything that runs, as the main thread holds it.
struct Running {
    /// Reports of threads that end.
    ended: Receiver<Ended>,
    /// The names of those that have not.
    threads: Vec<String>,
    /// Orders to each shard.
    orders: Vec<Slot<Order>>,
    /// Wakes the store, to let it see that nobody can ask it any more.
    store_wake: Arc<tokio::sync::Notify>,
    stops: Receiver<StopSignal>,
    stage: watch::Sender<Stage>,
}

/// Runs the gateway until it is told to stop.
pub fn run(config: &Config) -> Result<(), ServeError> {
    let clock = Clock::start();
    keep_files_private();
    let notices = Notices::new(&Environment::of_process()).unwrap_or_else(|error| {
        tracing::warn!(error = %Chain(&error), "systemd is told nothing");
        Notices::none()
    });
    let data_dir = DataDir::lock(&config.data_dir)?;
    for name in ["listen", "admin"] {
        // Left by a crash, it would send clients to a gateway that is not there.
        data_dir.withdraw_address(name);
    }
    let plan = CpuPlan::new(config)?;
    plan.confine()?;
    let shards = plan.shards.len();
    let room = room(config, shards)?;
    let connections_max = usize::try_from(room.connections_max).unwrap_or(usize::MAX);
    let auth = authenticator(config, &data_dir)?;
    let (sockets, listen) = listener::bind(config.listen, shards)?;
    let (admin_listener, admin) = admin_listener(config.admin)?;

    let (ended, receive_ended) = bounded(shards + 8);
    let (stops, receive_stops) = bounded(4);
    let (reports, receive_reports) = mpsc::channel(REPORTS_MAX);
    let (store_reports, receive_store_reports) = mpsc::channel(REPORTS_MAX);
    let (stage, receive_stage) = watch::channel(Stage::Starting);
    let control = ControlEnds {
        admin: admin_listener,
        clock,
        reports: receive_reports,
        store_reports: receive_store_reports,
        stage: receive_stage,
        shards: shards as u16,
        journal_bytes_max: config.limits.journal_bytes_max,
        room,
        stops,
    };
    // It ends when everything else has, or with the process: nobody waits for it.
    spawn("control", None, &ended, move || control::run(control))?;

    let persistence = Persistence::open(config, &clock, shards as u16, &stage, &receive_stops)
        .map_err(|source| ServeError::Data(config.data_dir.clone(), source))?;
    let Some(Persistence { engine, nudges, redis, keeper, runtime }) = persistence else {
        tracing::info!("stopped while waiting for the store: nobody had been served");
        return Ok(());
    };

    let mut mailboxes = Vec::new();
    let mut slots = Vec::new();
    for id in 0..shards as u16 {
        let (mailbox, ends) = mailbox::mailbox(ShardId(id), shards as u16);
        mailboxes.push(mailbox);
        slots.push(ends);
    }
    let answers = slots.iter().map(|slots| slots.answers.clone()).collect();
    let (inbox, door, found) = topology::store::inbox(answers, plan.store_yield());
    let (submission_inbox, submissions) = topology::submissions::inbox();
    let mut running = Running {
        ended: receive_ended,
        threads: Vec::new(),
        orders: slots.iter().map(|slots| slots.orders.clone()).collect(),
        store_wake: Arc::clone(&inbox.wake),
        stops: receive_stops,
        stage,
    };

    let ledger = LedgerLoop {
        engine,
        clock,
        submissions: submission_inbox,
        found,
        nudges,
        shards: slots.iter().map(|slots| slots.deliveries.clone()).collect(),
        store: door.clone(),
        reports: reports.clone(),
    };
    running.start("ledger", plan.ledger, &ended, move || ledger.run().map(drop).map_err(Into::into))?;
    let mut to_nodes = None;
    if let Some(link) = redis {
        let (nodes, told) = mpsc::channel(TO_NODES_MAX);
        to_nodes = Some(nodes);
        let shards = slots.iter().map(|slots| slots.nodes.clone()).collect();
        let redis = link.with_shards(unguessable(), shards, told, reports.clone());
        running.start("redis", None, &ended, move || run_redis(redis))?;
    }
    let ends = StoreEnds {
        clock,
        inbox,
        report: store_reports,
        linger_ms: u64::from(config.store.linger_ms),
        stop_ms: u64::from(config.drain.timeout_s) * 1000,
    };
    let retention_days = config.store.retention_days;
    running.start("store", plan.store, &ended, move || {
        let priority = Priority::of_thread(&ends.inbox.yields);
        let stopped = match keeper {
            AnyKeeper::Sqlite(keeper) => {
                let keeper = keeper.with_retention_days(retention_days);
                runtime.block_on(StoreLoop::new(keeper, ends, priority).run())
            }
            AnyKeeper::MySql(keeper) => {
                let keeper = keeper.with_retention_days(retention_days);
                runtime.block_on(StoreLoop::new(keeper, ends, priority).run())
            }
        };
        if stopped == Stopped::Unsettled {
            tracing::warn!("the store is behind; the journal has the rest, and the next start stores it");
        }
        Ok(())
    })?;

    let (listening, receive_listening) = bounded(shards);
    let ends = mailboxes.into_iter().zip(sockets).zip(&plan.shards).enumerate();
    for (id, ((mailbox, socket), cpu)) in ends {
        let from = ShardId(id as u16);
        let lanes = slots.iter().map(|slots| slots.lanes.get(id).cloned().flatten()).collect();
        let ends = ShardEnds {
            config: shard_config(config, from, shards as u16, connections_max),
            auth: auth.clone(),
            clock,
            socket,
            mailbox,
            channels: Channels {
                submissions: submissions.clone(),
                lanes,
                store: door.clone(),
                nodes: to_nodes.clone(),
            },
            turn: Duration::from_millis(config.limits.turn_ms.into()),
            reports: reports.clone(),
            spread_ms: config.drain.spread_s * 1000,
            listening: listening.clone(),
        };
        running.start(&format!("shard-{id}"), Some(*cpu), &ended, move || shard::run(ends))?;
    }
    // What is left here would keep the threads waiting for us: each knows by its channels when to end.
    drop((slots, submissions, door, to_nodes, reports, listening));

    running.await_listening(&receive_listening, shards)?;
    data_dir.publish_address("admin", admin)?;
    data_dir.publish_address("listen", listen)?;
    running.stage.send_replace(Stage::Serving);
    tracing::info!(%listen, %admin, shards, connections_max, data_dir = %config.data_dir.display(), "serving");
    notices.ready(&format!("serving on {listen}, room for {connections_max} connections"));

    running.await_stop()?;
    notices.stopping("clients are told to come back, then everything is flushed");
    tracing::info!("stopping: clients are told to come back, then everything is flushed");
    data_dir.withdraw_address("listen");
    let stopped = running.stop(config.drain.timeout_s);
    data_dir.withdraw_address("admin");
    stopped
}

impl Running {
    fn start(
        &mut self,
        name: &str,
        cpu: Option<usize>,
        ended: &Sender<Ended>,
        run: impl FnOnce() -> Result<(), Box<dyn Error + Send + Sync>> + Send + 'static,
    ) -> Result<(), ServeError> {
        spawn(name, cpu, ended, run)?;
        self.threads.push(name.to_owned());
        Ok(())
    }
}

fn run_redis(redis: ClusterEnds) -> Result<(), Box<dyn Error + Send + Sync>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(cluster::run(redis));
    Ok(())
}

fn spawn(
    name: &str,
    cpu: Option<usize>,
    ended: &Sender<Ended>,
    run: impl FnOnce() -> Result<(), Box<dyn Error + Send + Sync>> + Send + 'static,
) -> Result<(), ServeError> {
    // Whoever waits for the thread waits for its report, which also says how it went.
    topology::spawn(name.to_owned(), cpu, ended.clone(), run).map(drop).map_err(ServeError::Thread)
}

fn admin_listener(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ListenError> {
    let failed = |source| listener::named(address, "admin", source);
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let real = listener.local_addr().map_err(failed)?;
    Ok((listener, real))
}

fn authenticator(config: &Config, data_dir: &DataDir) -> Result<AuthKey, ServeError> {
    Ok(match &config.auth {
        Auth::Secret(secret) => AuthKey::hs256(secret),
        Auth::SecretFile(path) => AuthKey::hs256(&token::read_secret(path)?),
        Auth::PublicKeyFile(path) => AuthKey::eddsa_pem(&token::read_key_file(path)?).map_err(ServeError::PublicKey)?,
        Auth::Development => {
            let (secret, origin) = data_dir.development_secret()?;
            let file = data_dir.path().join("secret");
            match origin {
                SecretOrigin::Made => tracing::warn!(
                    file = %file.display(),
                    "no key to verify tokens with was configured: made a secret for development; \
                     `ringway token` mints with it; set auth.hs256_secret for anything else"
                ),
                SecretOrigin::Found => tracing::info!(file = %file.display(), "verifying tokens with this secret"),
            }
            AuthKey::hs256(&secret)
        }
    })
}

/// What this process writes, messages above all, is for its user alone.
fn keep_files_private() {
    // SAFETY: it takes a number and cannot fail.
    unsafe { libc::umask(0o077) };
}

/// Connections of the gateway: what is configured and this host can keep.
fn room(config: &Config, shards: usize) -> Result<Room, UnfitHost> {
    rlimits::raise();
    let kept = start::connections(config, shards)?;
    if let Some(reduction) = kept.reduction() {
        tracing::info!(connections_max = kept.connections, "{reduction}");
    }
    for finding in &kept.warnings {
        tracing::warn!("this host will not keep the configured connections: {finding}");
    }
    let limited_by = kept.reduced_by.map_or_else(|| "limits.connections_max".to_owned(), |finding| finding.id);
    Ok(Room { connections_max: kept.connections, limited_by })
}

fn shard_config(config: &Config, id: ShardId, shards: u16, connections_max: usize) -> ShardConfig {
    // Users spread evenly but not exactly: beside its part, each shard has a sixteenth of it in reserve.
    let part = connections_max.div_ceil(usize::from(shards));
    let part = if shards == 1 { part } else { (part + part / 16).min(connections_max) };
    let session = &config.session;
    ShardConfig {
        id,
        shards,
        node: config.cluster.redis_url.is_some().then_some(config.cluster.node_id),
        heartbeat_ms: session.heartbeat_s * 1000,
        heartbeat_max_ms: session.heartbeat_max_s * 1000,
        login_timeout_ms: session.login_timeout_s * 1000,
        devices_max: session.devices_max,
        device_policy: match session.device_policy {
            crate::config::DevicePolicy::ReplaceOldest => DevicePolicy::ReplaceOldest,
            crate::config::DevicePolicy::RefuseNew => DevicePolicy::RefuseNew,
        },
        outbox_bytes_max: config.limits.outbox_bytes_max,
        outbox_shard_bytes_max: config.limits.outbox_bytes_per_shard_max,
        connections_max: part,
        stall_timeout_ms: session.stall_timeout_s * 1000,
        tells_closes: closes::are_logged(),
        ..ShardConfig::new(id, shards)
    }
}
