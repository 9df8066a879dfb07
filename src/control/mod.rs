//! Control: one unpinned thread on tokio that answers operators and backends, and passes on signals.
//!
//! What always holds: for health and metrics it asks nobody. Shards, ledger and store hand it their counters once a second
//! through bounded channels, and if it is slow they lose nothing but a report. [`snapshot`] is what they said last and what
//! it comes to, [`http`] the admin server, [`metrics`] the text it serves, [`operate`] the API's calls about the gateway as a
//! whole, [`broadcasts`] those for messages to many,
//! [`dashboard`] what operators look at, [`systemd`] what systemd is told. Beside it,
//! [`access`] (a thread of its own) hears who may not log in, and the API (`crate::api`) asks the other threads, none of
//! which waits for it.

pub(crate) mod access;
mod broadcasts;
mod dashboard;
pub(crate) mod http;
mod internal_errors;
pub(crate) mod metrics;
mod operate;
pub(crate) mod settings;
pub(crate) mod snapshot;
pub(crate) mod store_lag;
pub(crate) mod systemd;
pub(crate) mod webhooks;

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::api::access::AccessAsk;
use crate::api::audit::Audit;
use crate::api::dispatch::{Dispatcher, DispatcherEnds, Serving};
use crate::api::keys::Keys;
use crate::api::stream::Followers;
use crate::api::{self, Api};
use crate::clock::Clock;
use crate::config::addresses::MetricsReaders;
use crate::contract::chain::Chain;
use crate::contract::report::Report;
use crate::contract::store_counters::StoreCounters;
use crate::control::broadcasts::{BroadcastCalls, Broadcasts};
use crate::control::dashboard::{Dashboard, DashboardCalls};
use crate::control::internal_errors::InternalErrorsLog;
use crate::control::operate::Operator;
use crate::control::settings::{SettingsCalls, SettingsShown, SettingsWish};
pub(crate) use crate::control::snapshot::{Population, Room, Snapshot, Stage};
use crate::control::systemd::{Environment, Watchdog};
use crate::control::webhooks::{WebhookCalls, WebhookEnds, Webhooks};

/// Reports that may wait for control, per kind.
pub(crate) const REPORTS_MAX: usize = 1_024;

/// What control is given.
pub(crate) struct ControlEnds {
    /// The process's time.
    pub(crate) clock: Clock,
    /// From the shards and the ledger.
    pub(crate) reports: mpsc::Receiver<Report>,
    /// From the store.
    pub(crate) store_reports: mpsc::Receiver<StoreCounters>,
    /// From the main thread.
    pub(crate) stage: watch::Receiver<Stage>,
    /// To the main thread.
    pub(crate) population: watch::Sender<Population>,
    /// How many shards should report.
    pub(crate) shards: u16,
    /// SIGTERM and SIGINT, to the main thread.
    pub(crate) stops: crossbeam_channel::Sender<StopSignal>,
    /// SIGHUP, to the main thread.
    pub(crate) reloads: crossbeam_channel::Sender<ReloadSignal>,
    /// What is served over HTTP.
    pub(crate) http: HttpEnds,
}

/// What listens for HTTP.
pub(crate) struct HttpSockets {
    /// Health and metrics; the API, if it has no address of its own.
    pub(crate) admin: TcpListener,
    /// The API alone.
    pub(crate) api: Option<TcpListener>,
    /// The API, for the gateway's user; `None`: the socket could not be made.
    pub(crate) owner: Option<UnixListener>,
}

/// What is served over HTTP, and to whom.
pub(crate) struct HttpEnds {
    /// Already listening.
    pub(crate) sockets: HttpSockets,
    /// Where the journal is, to tell how much room its disk has.
    pub(crate) data_dir: PathBuf,
    /// How many connections there is room for.
    pub(crate) room: Room,
    /// Who may call the API.
    pub(crate) keys: Keys,
    /// To the thread that ends sessions.
    pub(crate) access: mpsc::Sender<AccessAsk>,
    /// This node's number.
    pub(crate) node: u16,
    /// The API's ends of the channels between threads, once there are some.
    pub(crate) dispatcher: oneshot::Receiver<DispatcherEnds>,
    /// Whom to tell what happens; `None`: nobody was configured.
    pub(crate) webhooks: Option<WebhookEnds>,
    /// What is in force, as the main thread says.
    pub(crate) settings: watch::Receiver<Arc<SettingsShown>>,
    /// Who may read the metrics.
    pub(crate) metrics: MetricsReaders,
}

/// Somebody wants other settings.
#[derive(Debug)]
pub(crate) enum ReloadSignal {
    /// Those that are written by now.
    Files,
    /// Those that the API was given.
    Wish(SettingsWish),
}

/// Somebody wants the process to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StopSignal;

/// Runs until the process ends: the last thing a stopping process answers is why it is not ready.
pub(crate) fn run(ends: ControlEnds) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(ends))
}

async fn serve(ends: ControlEnds) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let ControlEnds { clock, mut reports, mut store_reports, mut stage, population, shards, stops, reloads, http } =
        ends;
    let mut stop = StopSignals::new()?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut other = OtherSignals::new()?;
    let mut snapshot = Snapshot { shards: vec![None; usize::from(shards)], ..Snapshot::default() };
    let (publish, published) = watch::channel(Arc::new(snapshot.clone()));
    let (serving, receive_serving) = watch::channel(Serving::Yes);
    let calls = Calls {
        shards,
        serving: receive_serving,
        snapshot: published,
        stage: stage.clone(),
        stops: stops.clone(),
        reloads: reloads.clone(),
        clock,
    };
    let servers = calls.serve(http)?;
    let mut watchdog = Watchdog::new(&Environment::of_process(), std::process::id()).unwrap_or_else(|error| {
        tracing::warn!(error = %Chain(&error), "systemd's watchdog gets no pings");
        None
    });
    let mut internal_errors = InternalErrorsLog::default();
    loop {
        let report = tokio::select! {
            Some(report) = reports.recv() => report,
            Some(counters) = store_reports.recv() => Report::Store(Box::new(counters)),
            () = stop.received() => {
                pass_on(&stops);
                continue;
            }
            _ = hangup.recv() => {
                // One that waits already is as good as two.
                reloads.try_send(ReloadSignal::Files).ok();
                continue;
            }
            name = other.received() => {
                tracing::info!(signal = name, "this signal does nothing here");
                continue;
            }
            () = Watchdog::due(&mut watchdog) => {
                let silent = snapshot.silent(*stage.borrow(), clock.now().mono_ms);
                if let Some(watchdog) = &mut watchdog {
                    watchdog.ping_unless(&silent);
                }
                continue;
            }
            changed = stage.changed() => match changed {
                Ok(()) => {
                    if *stage.borrow() == Stage::Draining {
                        serving.send_replace(Serving::Over);
                    }
                    if *stage.borrow() == Stage::Serving {
                        snapshot.serving_since_ms = clock.now().mono_ms;
                        publish.send_replace(Arc::new(snapshot.clone()));
                    }
                    continue;
                }
                // The main thread is through, and ends the process.
                Err(_) => break,
            },
        };
        let now_ms = clock.now().mono_ms;
        snapshot.take(now_ms, report);
        population.send_replace(snapshot.population());
        internal_errors.note(now_ms, &snapshot.internal_errors());
        publish.send_replace(Arc::new(snapshot.clone()));
    }
    servers.iter().for_each(JoinHandle::abort);
    Ok(())
}

/// What calls over HTTP are answered from.
struct Calls {
    shards: u16,
    serving: watch::Receiver<Serving>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    stage: watch::Receiver<Stage>,
    stops: crossbeam_channel::Sender<StopSignal>,
    reloads: crossbeam_channel::Sender<ReloadSignal>,
    clock: Clock,
}

impl Calls {
    /// Serves them on every address, until the servers are aborted.
    fn serve(self, http: HttpEnds) -> std::io::Result<Vec<JoinHandle<()>>> {
        let Calls { shards, serving, snapshot, stage, stops, reloads, clock } = self;
        let dispatcher = Dispatcher::start(shards, http.dispatcher, serving);
        let followers = Followers::start(dispatcher.clone());
        let webhooks = match http.webhooks {
            Some(ends) => Webhooks::start(ends, http.data_dir.clone(), dispatcher.clone(), stage.clone(), clock)?,
            None => Webhooks::none(),
        };
        let (room, data_dir) = (Arc::new(http.room), http.data_dir.into());
        let facts = http::Facts { snapshot, stage, clock, room, data_dir, webhooks };
        let audit = Audit::start(&facts.data_dir, clock);
        let broadcasts = Broadcasts::start(facts.data_dir.to_path_buf(), dispatcher.clone());
        let dashboard = Dashboard::start(facts.clone(), http.node);
        let routes = |keys: Arc<Keys>| {
            let api = Api {
                dispatcher: dispatcher.clone(),
                keys: Arc::clone(&keys),
                followers: followers.clone(),
                webhooks: webhooks::seen(&facts.webhooks),
                audit: audit.clone(),
                access: http.access.clone(),
                clock,
                node: http.node,
            };
            let (facts, audit, stops) = (facts.clone(), audit.clone(), stops.clone());
            let of_broadcasts =
                BroadcastCalls { keys: Arc::clone(&keys), audit: audit.clone(), clock, broadcasts: broadcasts.clone() };
            let of_webhooks =
                WebhookCalls { keys: Arc::clone(&keys), audit: audit.clone(), webhooks: facts.webhooks.clone() };
            let of_dashboard = DashboardCalls { keys: Arc::clone(&keys), dashboard: dashboard.clone() };
            let (shown, wishes) = (http.settings.clone(), reloads.clone());
            let of_settings = SettingsCalls { keys: Arc::clone(&keys), audit: audit.clone(), shown, wishes };
            let settings = http.settings.clone();
            let operator = Operator { facts, keys, audit, stops, node: http.node, settings };
            let others = operate::routes(operator)
                .merge(broadcasts::routes(of_broadcasts))
                .merge(dashboard::routes(of_dashboard));
            api::routes(api, others.merge(webhooks::routes(of_webhooks)).merge(settings::routes(of_settings)))
        };
        let mut servers = Vec::new();
        if let Some(socket) = http.sockets.owner {
            let listener = tokio::net::UnixListener::from_std(socket)?;
            servers.push(tokio::spawn(http::serve_owner(listener, routes(Arc::new(Keys::Owner)))));
        }
        let keys = Arc::new(http.keys);
        let readers = (http.metrics == MetricsReaders::KeyHolders).then(|| Arc::clone(&keys));
        let (pages, calls) = (http::pages(facts.clone(), readers), routes(keys).merge(dashboard::pages()));
        let admin = tokio::net::TcpListener::from_std(http.sockets.admin)?;
        match http.sockets.api {
            Some(api) => {
                let api = tokio::net::TcpListener::from_std(api)?;
                servers.push(tokio::spawn(http::serve(api, calls)));
                servers.push(tokio::spawn(http::serve(admin, pages)));
            }
            None => servers.push(tokio::spawn(http::serve(admin, pages.merge(calls)))),
        }
        Ok(servers)
    }
}

/// Somebody wants the process to stop.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new() -> std::io::Result<StopSignals> {
        Ok(StopSignals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one of them.
    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Signals that other programs take for "say something": they would end the process if nobody took them.
struct OtherSignals {
    user1: Signal,
    user2: Signal,
}

impl OtherSignals {
    fn new() -> std::io::Result<OtherSignals> {
        Ok(OtherSignals { user1: signal(SignalKind::user_defined1())?, user2: signal(SignalKind::user_defined2())? })
    }

    /// Waits for one of them, and says its name.
    async fn received(&mut self) -> &'static str {
        tokio::select! {
            _ = self.user1.recv() => "SIGUSR1",
            _ = self.user2.recv() => "SIGUSR2",
        }
    }
}

fn pass_on(stops: &crossbeam_channel::Sender<StopSignal>) {
    if stops.try_send(StopSignal).is_err() {
        tracing::warn!("too many signals: the process is already stopping");
    }
}

#[cfg(test)]
mod tests;
