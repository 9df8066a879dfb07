//! The threads and what connects them: each is started with its ends of the channels.
//!
//! On the main thread, at start. What always holds: when [`Running::start_all`] has returned, nobody but the threads has
//! an end by which another thread would know that there is more to come: each ends when those before it have.

use std::error::Error;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use socket2::Socket;
use tokio::sync::{mpsc, oneshot, watch};

use super::parts::{AnyKeeper, LedgerEngine, Persistence};
use super::{ServeError, settings};
use crate::api::access::AccessAsk;
use crate::api::dispatch::DispatcherEnds;
use crate::api::keys::Keys;
use crate::auth::AuthKeys;
use crate::clock::Clock;
use crate::cluster::{self, ClusterEnds, LedgerLink};
use crate::config::Config;
use crate::contract::access::{AccessNews, AccessOrder};
use crate::contract::ids::ShardId;
use crate::contract::keyed::unguessable;
use crate::contract::nodes::ToNodes;
use crate::contract::policies::{Rules, StoreRules};
use crate::contract::report::Report;
use crate::contract::store::LookupAnswer;
use crate::contract::store_counters::StoreCounters;
use crate::control::access::AccessEnds;
use crate::control::access::list::AccessList;
use crate::control::settings::SettingsShown;
use crate::control::webhooks::endpoints::Endpoint;
use crate::control::webhooks::{JournalSource, WebhookEnds};
use crate::control::{self, ControlEnds, HttpEnds, HttpSockets, Population, ReloadSignal, Stage, StopSignal};
use crate::limits::TO_NODES_MAX;
use crate::net::outlets::Channels;
use crate::net::shard::{self, ShardEnds};
use crate::store::priority::Priority;
use crate::topology::cpus::CpuPlan;
use crate::topology::ledger::LedgerLoop;
use crate::topology::mailbox::{self, Mailbox, Order, Slot, Slots};
use crate::topology::store::{StoreInbox, StoreSender};
use crate::topology::store_loop::{Stopped, StoreEnds, StoreLoop};
use crate::topology::submissions::{SubmissionInbox, SubmissionSenders};
use crate::topology::{self, Ended};

/// Threads beside the shards whose ends may wait to be noticed.
const OTHER_THREADS_MAX: usize = 8;
/// What other nodes say of who may log in, and waits: they are asked again for what is more.
const ACCESS_NEWS_MAX: usize = 64;
/// What the API asks about who may log in, and waits: above it its callers are told to come again.
const ACCESS_ASKS_MAX: usize = 64;
/// Signals that may wait.
const STOPS_MAX: usize = 4;
/// Changes of the settings that may wait; signals that come above that say nothing that is not said.
const RELOADS_MAX: usize = 8;

/// Everything that runs, as the main thread holds it.
pub(super) struct Running {
    /// Given to each thread, to report its end.
    end: Sender<Ended>,
    /// Reports of threads that end.
    pub(super) ended: Receiver<Ended>,
    /// The names of those that have not.
    pub(super) threads: Vec<String>,
    /// Orders to each shard.
    pub(super) orders: Vec<Slot<Order>>,
    /// Wakes the store, to let it see that nobody can ask it any more.
    pub(super) store_wake: Arc<tokio::sync::Notify>,
    /// Somebody wants the process to stop.
    pub(super) stops: Receiver<StopSignal>,
    /// Somebody wants the settings to be read again.
    pub(super) reloads: Receiver<ReloadSignal>,
    /// What clients may do, to the ledger.
    pub(super) ledger_rules: Sender<Rules>,
    /// The same channel's other end: what the ledger has not taken is replaced.
    pub(super) ledger_rules_untaken: Receiver<Rules>,
    /// The same of the store.
    pub(super) store_rules: Sender<StoreRules>,
    pub(super) store_rules_untaken: Receiver<StoreRules>,
    /// How far the gateway is, for control.
    pub(super) stage: watch::Sender<Stage>,
    /// Who would be concerned by a stop, as control knows.
    pub(super) population: watch::Receiver<Population>,
    /// Gives the API its ends of the channels.
    dispatcher: Option<oneshot::Sender<DispatcherEnds>>,
    /// From the API, to the thread that ends sessions, once it is started.
    access_asks: Option<mpsc::Receiver<AccessAsk>>,
    /// Tells those who tell endpoints where the journal is.
    journal: Option<oneshot::Sender<JournalSource>>,
    /// The endpoints that are told what happens.
    pub(super) endpoints: watch::Sender<Vec<Endpoint>>,
}

/// What is known before any thread runs.
pub(super) struct Plan<'a> {
    /// What was configured.
    pub(crate) config: &'a Config,
    /// Which thread runs where.
    pub(crate) cpus: CpuPlan,
    /// The process's time.
    pub(crate) clock: Clock,
    /// Verifies tokens.
    pub(crate) auth: AuthKeys,
    /// Connections of the whole gateway.
    pub(crate) connections_max: usize,
}

impl Plan<'_> {
    /// How many shards there are.
    pub(super) fn shards(&self) -> u16 {
        self.cpus.shards.len() as u16
    }
}

/// Ends of the channels to control, for those that report.
pub(super) struct ReportTo {
    reports: mpsc::Sender<Report>,
    store_reports: mpsc::Sender<StoreCounters>,
}

/// The sending ends of the channels between threads.
struct Senders {
    shards: Vec<Slots>,
    api: Slots,
    store: StoreSender,
    submissions: SubmissionSenders,
    nodes: Option<mpsc::Sender<ToNodes>>,
    reports: mpsc::Sender<Report>,
}

/// The receiving ends.
struct Receivers {
    mailboxes: Vec<Mailbox>,
    api: Mailbox,
    store: StoreInbox,
    submissions: SubmissionInbox,
    found: Receiver<LookupAnswer>,
}

impl Running {
    /// Starts control, which answers from the beginning. It ends when everything else has, or with the process: nobody
    /// waits for it.
    pub(super) fn start_control(
        plan: &Plan<'_>,
        sockets: HttpSockets,
        room: control::Room,
        keys: Keys,
        endpoints: Vec<Endpoint>,
        settings: watch::Receiver<Arc<SettingsShown>>,
    ) -> Result<(Running, ReportTo), ServeError> {
        let (end, ended) = bounded(plan.cpus.shards.len() + OTHER_THREADS_MAX);
        let (stop, stops) = bounded(STOPS_MAX);
        let (reload, reloads) = bounded(RELOADS_MAX);
        let (ledger_rules, ledger_rules_untaken) = bounded(1);
        let (store_rules, store_rules_untaken) = bounded(1);
        let (reports, receive_reports) = mpsc::channel(control::REPORTS_MAX);
        let (store_reports, receive_store_reports) = mpsc::channel(control::REPORTS_MAX);
        let (stage, receive_stage) = watch::channel(Stage::Starting);
        let (population, receive_population) = watch::channel(Population::default());
        let (dispatcher, receive_dispatcher) = oneshot::channel();
        let (access, access_asks) = mpsc::channel(ACCESS_ASKS_MAX);
        let node = plan.config.cluster.node_id;
        let data_dir = plan.config.data_dir.clone();
        let (endpoints, receive_endpoints) = watch::channel(endpoints);
        let (journal, receive_journal) = oneshot::channel();
        // Clients are told to come back spread over so long.
        let return_ms = u64::from(plan.config.drain.spread_s) * 1_000;
        let webhooks = WebhookEnds { endpoints: receive_endpoints, journal: receive_journal, return_ms };
        let webhooks = plan.config.webhooks.endpoints_file.as_ref().map(|_| webhooks);
        let metrics = plan.config.api.metrics;
        let control = ControlEnds {
            clock: plan.clock,
            reports: receive_reports,
            store_reports: receive_store_reports,
            stage: receive_stage,
            population,
            shards: plan.shards(),
            stops: stop,
            reloads: reload,
            http: HttpEnds {
                sockets,
                data_dir,
                room,
                keys,
                access,
                node,
                dispatcher: receive_dispatcher,
                webhooks,
                settings,
                metrics,
            },
        };
        spawn("control", None, &end, move || control::run(control))?;
        let store_wake = Arc::default();
        let running = Running {
            end,
            ended,
            threads: Vec::new(),
            orders: Vec::new(),
            store_wake,
            stops,
            reloads,
            ledger_rules,
            ledger_rules_untaken,
            store_rules,
            store_rules_untaken,
            stage,
            population: receive_population,
            dispatcher: Some(dispatcher),
            access_asks: Some(access_asks),
            journal: Some(journal),
            endpoints,
        };
        Ok((running, ReportTo { reports, store_reports }))
    }

    /// Starts all others; returns when every shard listens.
    pub(super) fn start_all(
        &mut self,
        plan: &Plan<'_>,
        persistence: Persistence,
        sockets: Vec<Socket>,
        (access, admin_socket): (AccessList, Option<UnixListener>),
        report_to: ReportTo,
    ) -> Result<(), ServeError> {
        let Persistence { engine, nudges, redis, keeper, runtime, source } = persistence;
        if let Some(journal) = self.journal.take() {
            // Nobody is told anything.
            journal.send(source).ok();
        }
        let (mut senders, receivers) = channels(plan, report_to.reports);
        self.orders = senders.shards.iter().map(|slots| slots.orders.clone()).collect();
        self.store_wake = Arc::clone(&receivers.store.wake);
        let ledger = LedgerLoop {
            engine,
            rules: self.ledger_rules_untaken.clone(),
            clock: plan.clock,
            submissions: receivers.submissions,
            found: receivers.found,
            nudges,
            shards: senders.shards.iter().map(|slots| slots.deliveries.clone()).collect(),
            api: senders.api.deliveries.clone(),
            store: senders.store.clone(),
            reports: senders.reports.clone(),
        };
        self.start_ledger(plan, ledger)?;
        let news = match redis {
            Some(link) => Some(self.start_cluster(link, &mut senders)?),
            None => None,
        };
        let stated: Vec<AccessOrder> = access.orders().collect();
        let nodes = senders.nodes.clone().zip(news);
        self.start_access(plan, access, admin_socket, nodes)?;
        let ends = StoreEnds {
            clock: plan.clock,
            inbox: receivers.store,
            report: report_to.store_reports,
            rules: plan.config.store_rules(),
            new_rules: self.store_rules_untaken.clone(),
            stop_ms: settings::store_stop_ms(plan.config.drain.timeout_s),
        };
        self.start_store(plan, keeper, runtime, ends)?;
        if let Some(dispatcher) = self.dispatcher.take() {
            // Control that has ended has no API any more.
            dispatcher.send(senders.of_api(receivers.api)).ok();
        }
        let listening = self.start_shards(plan, receivers.mailboxes, sockets, &stated, senders)?;
        self.await_listening(&listening, plan.cpus.shards.len())
    }

    fn start_ledger(&mut self, plan: &Plan<'_>, ledger: LedgerLoop<LedgerEngine>) -> Result<(), ServeError> {
        self.start("ledger", plan.cpus.ledger, move || ledger.run().map(drop).map_err(Into::into))
    }

    /// The thread that hears operators. Nobody waits for its end.
    fn start_access(
        &mut self,
        plan: &Plan<'_>,
        list: AccessList,
        socket: Option<UnixListener>,
        nodes: Option<(mpsc::Sender<ToNodes>, mpsc::Receiver<AccessNews>)>,
    ) -> Result<(), ServeError> {
        let (shards, stage) = (self.orders.clone(), self.stage.subscribe());
        // Asked by nobody, if control has been told of no receiver.
        let asks = self.access_asks.take().unwrap_or_else(|| mpsc::channel(1).1);
        let ends = AccessEnds { list, clock: plan.clock, socket, shards, nodes, asks, stage };
        spawn("access", None, &self.end, move || control::access::run(ends))
    }

    /// The thread that talks to Redis. Returns what it has for the one that keeps who may log in.
    fn start_cluster(
        &mut self,
        link: LedgerLink,
        senders: &mut Senders,
    ) -> Result<mpsc::Receiver<AccessNews>, ServeError> {
        let (access, news) = mpsc::channel(ACCESS_NEWS_MAX);
        let (to_nodes, receive_to_nodes) = mpsc::channel(TO_NODES_MAX);
        senders.nodes = Some(to_nodes);
        let shards = senders.shards.iter().map(|slots| slots.nodes.clone()).collect();
        let ends = link.with_shards(unguessable(), shards, receive_to_nodes, access, senders.reports.clone());
        self.start("redis", None, move || run_cluster(ends))?;
        Ok(news)
    }

    fn start_store(
        &mut self,
        plan: &Plan<'_>,
        keeper: AnyKeeper,
        runtime: tokio::runtime::Runtime,
        ends: StoreEnds,
    ) -> Result<(), ServeError> {
        self.start("store", plan.cpus.store, move || {
            let priority = Priority::of_thread(&ends.inbox.yields);
            let stopped = match keeper {
                AnyKeeper::Sqlite(keeper) => runtime.block_on(StoreLoop::new(*keeper, ends, priority).run()),
                AnyKeeper::MySql(keeper) => runtime.block_on(StoreLoop::new(*keeper, ends, priority).run()),
            };
            if stopped == Stopped::Unsettled {
                tracing::warn!("the store is behind; the journal has the rest, and the next start stores it");
            }
            Ok(())
        })
    }

    /// Takes the senders: what is left of them would keep the threads waiting for us.
    fn start_shards(
        &mut self,
        plan: &Plan<'_>,
        mailboxes: Vec<Mailbox>,
        sockets: Vec<Socket>,
        stated: &[AccessOrder],
        senders: Senders,
    ) -> Result<Receiver<ShardId>, ServeError> {
        let config = plan.config;
        let shards = plan.cpus.shards.len();
        assert_eq!(
            (mailboxes.len(), sockets.len()),
            (shards, shards),
            "each shard has a mailbox, a listener and a CPU"
        );
        let (listening, receive_listening) = bounded(shards);
        let ends = mailboxes.into_iter().zip(sockets).zip(&plan.cpus.shards).enumerate();
        for (id, ((mailbox, socket), cpu)) in ends {
            let shard = ShardId(id as u16);
            let ends = ShardEnds {
                config: settings::shard_config(config, shard, plan.shards(), plan.connections_max),
                auth: plan.auth.clone(),
                access: stated_of(shard, plan.shards(), stated),
                clock: plan.clock,
                socket,
                mailbox,
                channels: senders.of_shard(id),
                turn: Duration::from_millis(config.limits.turn_ms.into()),
                reports: senders.reports.clone(),
                spread_ms: config.drain.spread_s * 1000,
                listening: listening.clone(),
            };
            self.start(&format!("shard-{id}"), Some(*cpu), move || shard::run(ends))?;
        }
        Ok(receive_listening)
    }

    fn start(
        &mut self,
        name: &str,
        cpu: Option<usize>,
        run: impl FnOnce() -> Result<(), Box<dyn Error + Send + Sync>> + Send + 'static,
    ) -> Result<(), ServeError> {
        spawn(name, cpu, &self.end, run)?;
        self.threads.push(name.to_owned());
        Ok(())
    }
}

impl Senders {
    /// Those of one shard.
    fn of_shard(&self, id: usize) -> Channels {
        Channels {
            submissions: self.submissions.of_shard(ShardId(id as u16)),
            lanes: self.shards.iter().chain([&self.api]).map(|slots| slots.lanes.get(id).cloned().flatten()).collect(),
            store: self.store.clone(),
            nodes: self.nodes.clone(),
        }
    }

    /// The API's, which asks as one more shard.
    fn of_api(&self, mailbox: Mailbox) -> DispatcherEnds {
        let api = ShardId::of_api(self.shards.len() as u16);
        let lane = |slots: &Slots| slots.lanes.get(usize::from(api.0)).cloned().flatten();
        let lanes: Vec<_> = self.shards.iter().filter_map(lane).collect();
        assert_eq!(lanes.len(), self.shards.len(), "the API has a lane to each shard, found by the shard's id");
        DispatcherEnds { mailbox, submissions: self.submissions.of_shard(api), lanes, store: self.store.clone() }
    }
}

/// What is stated of a shard's users.
fn stated_of(shard: ShardId, shards: u16, stated: &[AccessOrder]) -> Vec<AccessOrder> {
    stated.iter().filter(|order| ShardId::of_user(order.user(), shards) == shard).copied().collect()
}

/// Makes the channels between shards, ledger and store.
fn channels(plan: &Plan<'_>, reports: mpsc::Sender<Report>) -> (Senders, Receivers) {
    let count = plan.shards();
    let (mailboxes, shards): (Vec<_>, Vec<_>) = (0..count).map(|id| mailbox::mailbox(ShardId(id), count)).unzip();
    let (api_mailbox, api) = mailbox::mailbox(ShardId::of_api(count), count);
    let answers = shards.iter().chain([&api]).map(|slots: &Slots| slots.answers.clone()).collect();
    let (store_inbox, store, found) = topology::store::inbox(answers, plan.cpus.store_yield());
    let (submission_inbox, submissions) = topology::submissions::inbox(count + 1);
    let senders = Senders { shards, api, store, submissions, nodes: None, reports };
    (senders, Receivers { mailboxes, api: api_mailbox, store: store_inbox, submissions: submission_inbox, found })
}

fn run_cluster(ends: ClusterEnds) -> Result<(), Box<dyn Error + Send + Sync>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(cluster::run(ends));
    Ok(())
}

fn spawn(
    name: &str,
    cpu: Option<usize>,
    end: &Sender<Ended>,
    run: impl FnOnce() -> Result<(), Box<dyn Error + Send + Sync>> + Send + 'static,
) -> Result<(), ServeError> {
    // Whoever waits for the thread waits for its report, which also says how it went.
    topology::spawn(name.to_owned(), cpu, end.clone(), run).map(drop).map_err(ServeError::Thread)
}
