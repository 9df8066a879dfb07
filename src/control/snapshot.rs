//! What the other threads have said last, and what it comes to: ready, degraded, or not.
//!
//! Plain data and functions of it. What always holds: nobody is called ready who refuses messages, and nobody not ready
//! for what clients do not notice.

use std::sync::Arc;

use crate::contract::ids::ShardId;
use crate::contract::internal::{InternalErrors, OrCount, Place};
use crate::contract::report::{LedgerReport, NodesReport, Report, ShardReport};
use crate::contract::store_counters::StoreCounters;
use crate::control::store_lag::StoreLag;

/// A shard or a ledger that has not reported for so long stands still.
const SILENCE_MS: u64 = 5_000;

/// Where the gateway is in its life; set by the main thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// Recovering the journal, starting threads.
    Starting,
    /// The database does not answer, and the newest rows are not known without it.
    WaitingForStore,
    /// Clients are served.
    Serving,
    /// Clients are served; before long they are sent away, and no new ones should be sent here.
    Leaving,
    /// Clients are sent away.
    Draining,
}

/// Who would be concerned if the gateway stopped.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Population {
    /// Other nodes that are alive.
    pub(crate) others: usize,
    /// Connections here.
    pub(crate) connections: u64,
}

/// How many connections there is room for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Room {
    /// So many.
    pub(crate) connections_max: u64,
    /// What keeps them down to that: `limits.connections_max`, or what the host has too little of, as the doctor calls
    /// it.
    pub(crate) limited_by: String,
}

/// Whether clients should be sent here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Readiness {
    /// Yes, and everything can be had.
    Ready,
    /// Yes: messages are taken and delivered. Something else cannot be had meanwhile, and this says what.
    Degraded(String),
    /// No, and why.
    NotReady(Vec<String>),
}

/// The latest reports, replaced as a whole.
#[derive(Clone, Default, Debug)]
pub(crate) struct Snapshot {
    /// By shard, with the monotonic millisecond it came.
    pub(crate) shards: Vec<Option<(u64, Arc<ShardReport>)>>,
    /// The ledger's; zeroes before the first.
    pub(crate) ledger: LedgerReport,
    /// The monotonic millisecond it came.
    pub(crate) ledger_at_ms: u64,
    /// Since when reports are expected.
    pub(crate) serving_since_ms: u64,
    /// The store's; zeroes before the first.
    pub(crate) store: StoreCounters,
    /// How far it is behind.
    pub(crate) store_lag: StoreLag,
    /// Of the cluster's nodes, if this is one.
    pub(crate) nodes: Option<NodesReport>,
}

impl Snapshot {
    /// As the last reports have it.
    pub(crate) fn population(&self) -> Population {
        Population {
            others: self.nodes.as_ref().map_or(0, |nodes| nodes.others.len()),
            connections: self.shards.iter().flatten().map(|(_, report)| report.core.connections).sum(),
        }
    }

    /// Puts a report in the place of the one before.
    pub(crate) fn take(&mut self, now_ms: u64, report: Report) {
        match report {
            Report::Shard(report) => {
                let ShardId(at) = report.shard;
                if let Some(place) = self.shards.get_mut(usize::from(at)).or_count(Place::Mailbox) {
                    *place = Some((now_ms, Arc::from(report)));
                }
            }
            Report::Ledger(report) => {
                self.ledger = *report;
                self.ledger_at_ms = now_ms;
            }
            Report::Store(counters) => {
                self.store = *counters;
                self.store_lag.note(now_ms, counters.applied, counters.durable);
            }
            Report::Nodes(report) => self.nodes = Some(*report),
        }
    }

    /// What all threads have counted.
    pub(crate) fn internal_errors(&self) -> InternalErrors {
        let shards = self.shards.iter().flatten().map(|(_, report)| &report.core.internal);
        let nodes = self.nodes.iter().map(|report| &report.internal);
        let of_others = shards.chain([&self.ledger.internal, &self.store.internal]).chain(nodes);
        of_others.fold(InternalErrors::of_this_thread(), InternalErrors::with)
    }

    /// Whether clients should be sent here. A gateway that takes messages and delivers them is ready, whatever its
    /// database does.
    pub(crate) fn readiness(&self, stage: Stage, now_ms: u64) -> Readiness {
        let mut reasons = Vec::new();
        match stage {
            Stage::Starting => reasons.push("starting".to_owned()),
            Stage::WaitingForStore => reasons.push("waiting for the store".to_owned()),
            Stage::Leaving => reasons.push("stopping soon: clients are still served".to_owned()),
            Stage::Draining => reasons.push("draining".to_owned()),
            Stage::Serving => {}
        }
        reasons.extend(self.silent(stage, now_ms));
        let stands_still = self.ledger.counters.stands_still;
        reasons.extend(
            stands_still.filter(|_| matches!(stage, Stage::Serving | Stage::Leaving)).map(|why| why.said().to_owned()),
        );
        if self.ledger.counters.journal_full != 0 {
            reasons.push(
                "the journal is full, or its disk is: messages are refused with STORAGE_FULL, and what was acked is safe"
                    .to_owned(),
            );
        }
        if !reasons.is_empty() {
            return Readiness::NotReady(reasons);
        }
        match (self.store.broken, self.store.unavailable) {
            (0, 0) => Readiness::Ready,
            (0, _) => Readiness::Degraded(
                "the database takes no writes: messages are acked, delivered and kept in the journal; rows and cursors \
                 that are in the database alone cannot be read while it does not answer"
                    .to_owned(),
            ),
            _ => Readiness::Degraded(
                "journal and database contradict each other (see the log): messages are acked, delivered and kept in the \
                 journal; what it has is in the database only up to there"
                    .to_owned(),
            ),
        }
    }

    /// Who should have reported and has not: each shard and the ledger does once a second while clients are served.
    /// The store is not asked: a database may be away for hours.
    pub(crate) fn silent(&self, stage: Stage, now_ms: u64) -> Vec<String> {
        if !matches!(stage, Stage::Serving | Stage::Leaving) {
            return Vec::new();
        }
        let silent = |at: u64| now_ms.saturating_sub(at.max(self.serving_since_ms)) > SILENCE_MS;
        let reported = self.shards.iter().map(|report| report.as_ref().map_or(0, |(at, _)| *at));
        let shards = reported.enumerate().filter(|(_, at)| silent(*at)).map(|(id, _)| format!("shard {id}"));
        let ledger = silent(self.ledger_at_ms).then(|| "the ledger".to_owned());
        shards.chain(ledger).map(|who| format!("{who} has not reported for {} s", SILENCE_MS / 1000)).collect()
    }
}
