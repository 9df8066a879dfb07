//! What an operator asks of the gateway as a whole over the API: figures, shards, nodes, and to stop.
//!
//! On control's thread. What always holds: figures are those that the threads have reported last, a second old at the most
//! while they run, and nobody is asked for them; what was not reported is absent and not called 0.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::StopSignal;
use super::http::Facts;
use super::metrics::shed;
use super::settings::SettingsShown;
use super::snapshot::{Readiness, Stage};
use crate::api::audit::Audit;
use crate::api::keys::{Keys, Scope};
use crate::api::openapi::{CallProblems, ReadProblems};
use crate::api::problem::Problem;
use crate::contract::report::ShardReport;
use ringway_wire::request::reason_name;
use ringway_wire::schema::CloseReason;

/// What these calls need.
#[derive(Clone)]
pub(crate) struct Operator {
    /// What is known.
    pub(crate) facts: Facts,
    /// Who may call.
    pub(crate) keys: Arc<Keys>,
    /// Keeps what was changed.
    pub(crate) audit: Audit,
    /// To the main thread.
    pub(crate) stops: crossbeam_channel::Sender<StopSignal>,
    /// This node's number.
    pub(crate) node: u16,
    /// What is in force.
    pub(crate) settings: watch::Receiver<Arc<SettingsShown>>,
}

/// The gateway's figures. Those that end in `_total` count since it was started.
#[derive(Serialize, ToSchema)]
struct Stats {
    version: &'static str,
    /// This node's number.
    node: u16,
    /// `starting`, `waiting_for_store`, `serving`, `leaving` or `draining`.
    stage: &'static str,
    /// Whether clients should be sent here.
    ready: bool,
    /// Why not, or what cannot be had meanwhile.
    reasons: Vec<String>,
    /// Milliseconds since it was started.
    up_ms: u64,
    /// Grows with each change of the settings.
    generation: u64,
    connections_max: u64,
    /// What keeps the connections down to that.
    connections_limited_by: String,
    /// Bytes left on the disk that has the journal; absent: the system does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    journal_disk_free_bytes: Option<u64>,
    /// All shards together.
    shards: Figures,
    /// Connections closed, by reason.
    closes_total: BTreeMap<String, u64>,
    /// Refused or dropped because something was full, by what was.
    shed_total: BTreeMap<&'static str, u64>,
    ledger: LedgerFigures,
    store: StoreFigures,
}

/// One shard's figures, or those of all.
#[derive(Default, Serialize, ToSchema)]
struct Figures {
    connections: u64,
    connections_unauthenticated: u64,
    sessions: u64,
    users: u64,
    sessions_behind: u64,
    sessions_throttled: u64,
    /// Bytes that wait for clients.
    outbox_bytes: u64,
    logins_total: u64,
    frames_in_total: u64,
    bytes_in_total: u64,
    bytes_out_total: u64,
    /// Messages that were acknowledged to the sessions that sent them.
    sends_total: u64,
    pushes_live_total: u64,
    pushes_caught_up_total: u64,
    pushes_ephemeral_total: u64,
}

/// The ledger's.
#[derive(Serialize, ToSchema)]
struct LedgerFigures {
    messages_total: u64,
    rows_total: u64,
    commits_total: u64,
    journal_bytes_total: u64,
    repeats_total: u64,
    /// Refused with `StorageFull`.
    storage_full_total: u64,
    /// Refused with `RetryLater`.
    retry_later_total: u64,
    /// What waits for it now.
    submissions: u64,
    /// The journal takes nothing now.
    journal_full: bool,
}

/// The store's.
#[derive(Serialize, ToSchema)]
struct StoreFigures {
    rows_total: u64,
    messages_total: u64,
    pages_total: u64,
    /// The database takes no writes now.
    unavailable: bool,
    /// Journal and database contradict each other.
    broken: bool,
    /// How far it is behind what is durable: bytes of the journal, or entries of a cluster's stream.
    lag: u64,
}

/// The shards.
#[derive(Serialize, ToSchema)]
struct Shards {
    /// Those that have reported.
    shards: Vec<Shard>,
}

/// A shard.
#[derive(Serialize, ToSchema)]
struct Shard {
    shard: u16,
    /// Milliseconds since it has reported; more than some thousands: it stands still.
    reported_ago_ms: u64,
    figures: Figures,
    /// Nanoseconds that each kind of its work has taken.
    busy_ns_total: BTreeMap<&'static str, u64>,
    /// Commits, envelopes and answers that wait for it.
    mailbox: u64,
}

/// The nodes of the cluster.
#[derive(Serialize, ToSchema)]
struct Nodes {
    this: ThisNode,
    /// The others that are alive, as this one knows; without a cluster, and while Redis is away, there are none.
    others: Vec<u16>,
}

/// This node.
#[derive(Serialize, ToSchema)]
struct ThisNode {
    node: u16,
    /// Whether it is one of a cluster.
    clustered: bool,
    /// Why it numbers nothing now; absent: it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    stands_still: Option<&'static str>,
    /// How far its clock is from Redis's, milliseconds.
    clock_skew_ms: u64,
    /// How far its store is behind what is durable.
    store_lag: u64,
}

/// A stop that has begun.
#[derive(Serialize, ToSchema)]
struct Draining {
    draining: bool,
}

/// The calls.
pub(crate) fn routes(operator: Operator) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(stats))
        .routes(routes!(shards))
        .routes(routes!(nodes))
        .routes(routes!(drain))
        .with_state(operator)
}

/// The gateway's figures.
#[utoipa::path(get, path = "/stats", operation_id = "stats", tag = "gateway",
    responses((status = 200, description = "They are these.", body = Stats), ReadProblems))]
async fn stats(State(operator): State<Operator>, headers: HeaderMap) -> Result<Json<Stats>, Problem> {
    operator.keys.allow(&headers, Scope::Operate)?;
    let facts = &operator.facts;
    let snapshot = Arc::clone(&facts.snapshot.borrow());
    let (ready, reasons) = match facts.readiness() {
        Readiness::Ready => (true, Vec::new()),
        Readiness::Degraded(what) => (true, vec![what]),
        Readiness::NotReady(reasons) => (false, reasons),
    };
    let (mut figures, mut closes_total, mut shed_total) = (Figures::default(), BTreeMap::new(), BTreeMap::new());
    for (_, report) in snapshot.shards.iter().flatten() {
        figures.add(report);
        for (reason, count) in report.core.closes_total.iter().enumerate().filter(|(_, count)| **count > 0) {
            *closes_total.entry(reason_name(CloseReason(reason as u16)).to_string()).or_default() += count;
        }
        for (what, count) in shed(&report.core).filter(|(_, count)| *count > 0) {
            *shed_total.entry(what).or_default() += count;
        }
    }
    let (ledger, store) = (&snapshot.ledger.counters, &snapshot.store);
    Ok(Json(Stats {
        version: env!("CARGO_PKG_VERSION"),
        node: operator.node,
        stage: name_of(*facts.stage.borrow()),
        ready,
        reasons,
        up_ms: facts.clock.now().mono_ms,
        generation: operator.settings.borrow().generation,
        connections_max: facts.room.connections_max,
        connections_limited_by: facts.room.limited_by.clone(),
        journal_disk_free_bytes: facts.journal_disk_free_bytes(),
        shards: figures,
        closes_total,
        shed_total,
        ledger: LedgerFigures {
            messages_total: ledger.messages,
            rows_total: ledger.rows,
            commits_total: ledger.commits,
            journal_bytes_total: ledger.bytes,
            repeats_total: ledger.repeats,
            storage_full_total: ledger.storage_full,
            retry_later_total: ledger.retry_later,
            submissions: snapshot.ledger.submissions,
            journal_full: ledger.journal_full != 0,
        },
        store: StoreFigures {
            rows_total: store.rows,
            messages_total: store.messages,
            pages_total: store.pages,
            unavailable: store.unavailable != 0,
            broken: store.broken != 0,
            lag: store.durable.saturating_sub(store.applied),
        },
    }))
}

/// The figures of each shard.
#[utoipa::path(get, path = "/shards", operation_id = "list_shards", tag = "gateway",
    responses((status = 200, description = "They are these.", body = Shards), ReadProblems))]
async fn shards(State(operator): State<Operator>, headers: HeaderMap) -> Result<Json<Shards>, Problem> {
    operator.keys.allow(&headers, Scope::Operate)?;
    let now_ms = operator.facts.clock.now().mono_ms;
    let snapshot = Arc::clone(&operator.facts.snapshot.borrow());
    let shown = |(at_ms, report): &(u64, Arc<ShardReport>)| {
        let mut figures = Figures::default();
        figures.add(report);
        Shard {
            shard: report.shard.0,
            reported_ago_ms: now_ms.saturating_sub(*at_ms),
            figures,
            busy_ns_total: report.budgets.iter().map(|spent| (spent.name, spent.busy_ns)).collect(),
            mailbox: report.depths.commits + report.depths.lanes + report.depths.answers,
        }
    };
    Ok(Json(Shards { shards: snapshot.shards.iter().flatten().map(shown).collect() }))
}

/// The nodes of the cluster.
#[utoipa::path(get, path = "/nodes", operation_id = "list_nodes", tag = "gateway",
    responses((status = 200, description = "They are these.", body = Nodes), ReadProblems))]
async fn nodes(State(operator): State<Operator>, headers: HeaderMap) -> Result<Json<Nodes>, Problem> {
    operator.keys.allow(&headers, Scope::Operate)?;
    let snapshot = Arc::clone(&operator.facts.snapshot.borrow());
    let (ledger, store) = (&snapshot.ledger.counters, &snapshot.store);
    let this = ThisNode {
        node: operator.node,
        clustered: snapshot.nodes.is_some(),
        stands_still: ledger.stands_still.map(|why| why.said()),
        clock_skew_ms: ledger.clock_skew_ms,
        store_lag: store.durable.saturating_sub(store.applied),
    };
    let others = snapshot.nodes.as_ref().map(|nodes| nodes.others.clone()).unwrap_or_default();
    Ok(Json(Nodes { this, others }))
}

/// Stops the gateway as SIGTERM does: clients are told when to come back, everything is flushed, the process ends.
#[utoipa::path(post, path = "/drain", operation_id = "drain", tag = "gateway",
    responses((status = 202, description = "It begins.", body = Draining), CallProblems))]
async fn drain(State(operator): State<Operator>, headers: HeaderMap) -> Result<(StatusCode, Json<Draining>), Problem> {
    let key = operator.keys.allow(&headers, Scope::Operate)?;
    // A second one would end a stop early: whoever asks again finds it begun.
    if !matches!(*operator.facts.stage.borrow(), Stage::Leaving | Stage::Draining) {
        operator.audit.record(&key, "the gateway is to stop", json!({}));
        operator.stops.try_send(StopSignal).map_err(|_| Problem::not_serving())?;
    }
    Ok((StatusCode::ACCEPTED, Json(Draining { draining: true })))
}

pub(crate) fn name_of(stage: Stage) -> &'static str {
    match stage {
        Stage::Starting => "starting",
        Stage::WaitingForStore => "waiting_for_store",
        Stage::Serving => "serving",
        Stage::Leaving => "leaving",
        Stage::Draining => "draining",
    }
}

impl Figures {
    fn add(&mut self, report: &ShardReport) {
        let core = &report.core;
        self.connections += core.connections;
        self.connections_unauthenticated += core.connections_unauthenticated;
        self.sessions += core.sessions;
        self.users += core.users;
        self.sessions_behind += core.sessions_behind;
        self.sessions_throttled += core.sessions_throttled;
        self.outbox_bytes += core.outbox_bytes;
        self.logins_total += core.logins_total;
        self.frames_in_total += core.frames_in_total;
        self.bytes_in_total += core.bytes_in_total;
        self.bytes_out_total += core.bytes_out_total;
        self.sends_total += core.sends_total;
        self.pushes_live_total += core.pushes_live_total;
        self.pushes_caught_up_total += core.pushes_caught_up_total;
        self.pushes_ephemeral_total += core.pushes_ephemeral_total;
    }
}
