//! Control: one unpinned thread on tokio that answers operators and passes on signals.
//!
//! What always holds: it asks nobody. Shards, ledger and store hand it their counters once a second through
//! bounded channels, and if it is slow they lose nothing but a report. [`http`] is the admin server, [`metrics`]
//! the text it serves, [`systemd`] what systemd is told.

pub mod http;
mod internal_errors;
pub mod metrics;
pub mod systemd;

use std::net::TcpListener;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::clock::Clock;
use crate::contract::ids::ShardId;
use crate::contract::internal::InternalErrors;
use crate::contract::report::LedgerReport;
use crate::contract::report::NodesReport;
use crate::contract::report::Report;
use crate::contract::report::ShardReport;
use crate::contract::store_counters::StoreCounters;
use crate::control::internal_errors::InternalErrorsLog;
use crate::control::systemd::{Environment, Watchdog};
use crate::log::Chain;

/// Reports that may wait for control, per kind.
pub const REPORTS_MAX: usize = 1_024;
/// A shard or a ledger that has not reported for so long is not well.
const SILENCE_MS: u64 = 5_000;

/// Where the gateway is in its life; set by the main thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Recovering the journal, starting threads.
    Starting,
    /// The database does not answer, and the newest rows are not known without it.
    WaitingForStore,
    /// Clients are served.
    Serving,
    /// Clients are sent away.
    Draining,
}

/// What control is given.
pub struct ControlEnds {
    /// Already listening.
    pub admin: TcpListener,
    /// The process's time.
    pub clock: Clock,
    /// From the shards and the ledger.
    pub reports: mpsc::Receiver<Report>,
    /// From the store.
    pub store_reports: mpsc::Receiver<StoreCounters>,
    /// From the main thread.
    pub stage: watch::Receiver<Stage>,
    /// How many shards should report.
    pub shards: u16,
    /// The journal's cap, to tell when it is full.
    pub journal_bytes_max: u64,
    /// How many connections there is room for.
    pub room: Room,
    /// SIGTERM and SIGINT, to the main thread.
    pub stops: crossbeam_channel::Sender<StopSignal>,
}

/// How many connections there is room for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Room {
    /// So many.
    pub connections_max: u64,
    /// What keeps them down to that: `limits.connections_max`, or what the host has too little of, as the doctor calls
    /// it.
    pub limited_by: String,
}

/// Somebody wants the process to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StopSignal;

/// The latest reports, replaced as a whole.
#[derive(Clone, Default, Debug)]
pub struct Snapshot {
    /// By shard, with the monotonic millisecond it came.
    pub shards: Vec<Option<(u64, Arc<ShardReport>)>>,
    /// The ledger's.
    pub ledger: Option<LedgerReport>,
    /// The monotonic millisecond it came.
    pub ledger_at_ms: u64,
    /// Since when reports are expected.
    pub serving_since_ms: u64,
    /// The store's.
    pub store: Option<StoreCounters>,
    /// Of the cluster's nodes, if this is one.
    pub nodes: Option<NodesReport>,
}

impl Snapshot {
    fn take(&mut self, now_ms: u64, report: Report) {
        match report {
            Report::Shard(report) => {
                let ShardId(at) = report.shard;
                if let Some(place) = self.shards.get_mut(usize::from(at)) {
                    *place = Some((now_ms, Arc::from(report)));
                }
            }
            Report::Ledger(report) => {
                self.ledger = Some(report);
                self.ledger_at_ms = now_ms;
            }
            Report::Store(counters) => self.store = Some(*counters),
            Report::Nodes(report) => self.nodes = Some(report),
        }
    }

    /// What all threads have counted.
    pub fn internal_errors(&self) -> InternalErrors {
        let shards = self.shards.iter().flatten().map(|(_, report)| &report.core.internal);
        let ledger = self.ledger.iter().map(|report| &report.internal);
        let store = self.store.iter().map(|counters| &counters.internal);
        let nodes = self.nodes.iter().map(|report| &report.internal);
        let of_others = shards.chain(ledger).chain(store).chain(nodes);
        of_others.fold(InternalErrors::of_this_thread(), InternalErrors::with)
    }

    /// Why clients should not be sent here; empty: they should.
    pub fn reasons_not_ready(&self, stage: Stage, now_ms: u64, journal_bytes_max: u64) -> Vec<String> {
        let mut reasons = Vec::new();
        match stage {
            Stage::Starting => reasons.push("starting".to_owned()),
            Stage::WaitingForStore => reasons.push("waiting for the store".to_owned()),
            Stage::Draining => reasons.push("draining".to_owned()),
            Stage::Serving => {}
        }
        reasons.extend(self.silent(stage, now_ms));
        let stands_still = self.ledger.and_then(|report| report.counters.stands_still);
        reasons.extend(stands_still.filter(|_| stage == Stage::Serving).map(|why| why.said().to_owned()));
        if let Some(store) = &self.store {
            let full = self.ledger.is_some_and(|ledger| ledger.counters.journal_full != 0)
                || store.durable.saturating_sub(store.secured) >= journal_bytes_max;
            let kept = if full { "" } else { "; messages are kept in the journal" };
            if store.broken != 0 {
                reasons.push(format!("the store refuses what the journal has (see the log){kept}"));
            } else if store.unavailable != 0 {
                reasons.push(format!("the store takes no writes{kept}"));
            }
            if full {
                reasons.push("the journal is full; messages are refused with STORAGE_FULL".to_owned());
            }
        }
        reasons
    }

    /// Who should have reported and has not: each shard and the ledger does once a second while clients are served.
    /// The store is not asked: a database may be away for hours.
    pub fn silent(&self, stage: Stage, now_ms: u64) -> Vec<String> {
        if stage != Stage::Serving {
            return Vec::new();
        }
        let silent = |at: u64| now_ms.saturating_sub(at.max(self.serving_since_ms)) > SILENCE_MS;
        let heard = self.shards.iter().map(|report| report.as_ref().map_or(0, |(at, _)| *at));
        let shards = heard.enumerate().filter(|(_, at)| silent(*at)).map(|(id, _)| format!("shard {id}"));
        let ledger = silent(self.ledger_at_ms).then(|| "the ledger".to_owned());
        shards.chain(ledger).map(|who| format!("{who} has not reported for {} s", SILENCE_MS / 1000)).collect()
    }
}

/// Runs until the process ends: the last thing a stopping process answers is why it is not ready.
pub fn run(ends: ControlEnds) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(ends))
}

async fn serve(ends: ControlEnds) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let ControlEnds { admin, clock, mut reports, mut store_reports, mut stage, shards, journal_bytes_max, room, stops } =
        ends;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut other = OtherSignals::new()?;
    let mut snapshot = Snapshot { shards: vec![None; usize::from(shards)], ..Snapshot::default() };
    let (publish, published) = watch::channel(Arc::new(snapshot.clone()));
    let server = tokio::spawn(http::serve(
        tokio::net::TcpListener::from_std(admin)?,
        http::Facts { snapshot: published, stage: stage.clone(), clock, journal_bytes_max, room: Arc::new(room) },
    ));
    let mut watchdog = Watchdog::new(&Environment::of_process(), std::process::id()).unwrap_or_else(|error| {
        tracing::warn!(error = %Chain(&error), "systemd's watchdog gets no pings");
        None
    });
    let mut internal_errors = InternalErrorsLog::default();
    loop {
        let report = tokio::select! {
            Some(report) = reports.recv() => report,
            Some(counters) = store_reports.recv() => Report::Store(Box::new(counters)),
            _ = terminate.recv() => {
                pass_on(&stops);
                continue;
            }
            _ = interrupt.recv() => {
                pass_on(&stops);
                continue;
            }
            name = other.received() => {
                tracing::info!(signal = name, "this signal does nothing here: settings are read at a start");
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
        internal_errors.note(now_ms, &snapshot.internal_errors());
        publish.send_replace(Arc::new(snapshot.clone()));
    }
    server.abort();
    Ok(())
}

/// Signals that other programs take for "read your settings again" or "say something": they would end the process if
/// nobody took them.
struct OtherSignals {
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

impl OtherSignals {
    fn new() -> std::io::Result<OtherSignals> {
        Ok(OtherSignals {
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for one of them, and says its name.
    async fn received(&mut self) -> &'static str {
        tokio::select! {
            _ = self.hangup.recv() => "SIGHUP",
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
