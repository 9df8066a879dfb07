//! Tells one endpoint: takes from the journal what is due, cuts it into requests, and sends one after another.
//!
//! A task on the webhooks' thread, which owns all that it has. What always holds: a request is on disk before its first try, and
//! is tried until it is taken; the next one is cut only then, so that events come in the journal's order, and an endpoint that is
//! down costs one request now and then and no memory; nobody is said to be offline by a gateway that has just started, or that
//! sends everybody away.

mod cutting;
mod takeover;

use std::collections::HashMap;
use std::time::Duration;

use axum::http::StatusCode;
use ringway_wire::ids::UserId;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::JournalSource;
use super::endpoints::Endpoint;
use super::events::{EventBatch, ToldUpTo};
use super::feed::{FeedItem, JournalFeed};
use super::kept::{KeptBatch, KeptState, StateFile};
use super::post::{Poster, Sent};
use super::status::Webhook;
use crate::api::dispatch::Dispatcher;
use crate::clock::Clock;
use crate::contract::chain::Chain;
use crate::control::Stage;
use crate::journal::JournalError;
use crate::limits::WEBHOOK_RETRIES_S;

/// How long to wait after something of this machine's own has failed.
const TRY_AGAIN_MS: u64 = 1_000;
/// How often it is shown how far behind an endpoint is that takes nothing.
const SHOW_MS: u64 = 1_000;
/// How often it is kept how far an endpoint is that has nothing to be told.
const KEEP_MS: u64 = 1_000;

/// What a task is asked to do.
#[derive(Debug)]
pub(super) enum TellerOrder {
    /// Tell again all since then, Unix milliseconds, that the journal still has.
    PlayFrom(u64),
    /// Try now; if it was off, it is on.
    Resume,
    /// It is described otherwise now.
    Change(Box<Endpoint>),
}

/// What the tasks have in common.
#[derive(Clone)]
pub(super) struct Surroundings {
    /// Where the journal is.
    pub(super) source: JournalSource,
    /// Knows who is online.
    pub(super) dispatcher: Dispatcher,
    /// Where the gateway is in its life.
    pub(super) stage: watch::Receiver<Stage>,
    /// The process's time.
    pub(super) clock: Clock,
    /// So long after a start users may still be on their way back, milliseconds.
    pub(super) return_ms: u64,
}

/// Why a task does not go on with what it was doing.
enum Interrupt {
    /// Something was changed: it begins anew from what is kept.
    Anew,
    /// The gateway stops, or the endpoint is gone.
    End,
}

/// See the module.
pub(super) struct Teller {
    around: Surroundings,
    endpoint: Endpoint,
    poster: Option<Poster>,
    feed: JournalFeed,
    /// What was taken from the feed and not told yet, and the recipients of it that are done with.
    current: Option<(FeedItem, usize)>,
    kept: KeptState,
    /// The last entry of a cluster's stream that was taken from the feed.
    entry: u64,
    file: StateFile,
    /// What the file says, and since when it may say something else.
    written: Option<KeptState>,
    written_ms: u64,
    /// Whether this node tells, in a cluster.
    leads: bool,
    /// Who was online, a moment ago.
    presence: HashMap<UserId, bool>,
    presence_ms: u64,
    orders: mpsc::Receiver<TellerOrder>,
    status: watch::Sender<Webhook>,
}

impl Teller {
    /// Goes on where the endpoint was; with one that is new, at what is durable from now on.
    pub(super) fn new(
        around: Surroundings,
        endpoint: Endpoint,
        file: StateFile,
        orders: mpsc::Receiver<TellerOrder>,
        status: watch::Sender<Webhook>,
    ) -> Teller {
        let durable = around.source.progress.durable();
        let mut fresh = KeptState::default();
        fresh.set_told(ToldUpTo { at: durable, recipients: 0 });
        let read = file.read().unwrap_or_else(|error| {
            let name = &endpoint.name;
            tracing::error!(webhook = name, error = %Chain(&error), "it is not known how far this endpoint was: it goes on now");
            None
        });
        // What a cluster's copy of the stream was before is gone; a journal that was moved away begins anew.
        let mut kept = read.clone().unwrap_or(fresh.clone());
        if kept.told().at > durable && !around.source.is_cluster {
            (kept.batch, kept) = (None, fresh);
        }
        let feed = JournalFeed::new(around.source.disk.clone(), kept.told().at);
        Teller {
            around,
            endpoint,
            poster: None,
            feed,
            current: None,
            entry: kept.entry,
            kept,
            file,
            written: read,
            written_ms: 0,
            leads: false,
            presence: HashMap::new(),
            presence_ms: 0,
            orders,
            status,
        }
    }

    /// Until the gateway stops.
    pub(super) async fn run(mut self) {
        self.show();
        while !matches!(*self.around.stage.borrow(), Stage::Serving) {
            if self.around.stage.changed().await.is_err() {
                return;
            }
        }
        let mut settle_ms = self.around.return_ms + self.endpoint.grace_ms;
        loop {
            let round = match settle_ms {
                0 => self.round().await,
                ms => {
                    settle_ms = 0;
                    self.wait(ms).await
                }
            };
            match round {
                Ok(()) => {}
                Err(Interrupt::Anew) => self.begin_anew(),
                Err(Interrupt::End) => break,
            }
        }
        self.keep();
    }

    async fn round(&mut self) -> Result<(), Interrupt> {
        if self.kept.is_off {
            self.show();
            return self.wait(SHOW_MS).await;
        }
        if self.around.source.is_cluster && !self.lead().await? {
            return self.wait(TRY_AGAIN_MS).await;
        }
        let batch = match self.kept.batch.clone() {
            Some(kept) => self.cut_again(&kept),
            None => self.cut().await?,
        };
        match batch {
            Ok(Some(batch)) => self.tell(&batch).await,
            Ok(None) => Ok(()),
            Err(error) => {
                self.failed(Chain(&error).to_string());
                self.wait(TRY_AGAIN_MS).await?;
                Err(Interrupt::Anew)
            }
        }
    }

    /// Sends it until it is taken.
    async fn tell(&mut self, batch: &EventBatch) -> Result<(), Interrupt> {
        self.kept.batch = Some(KeptBatch::of(batch));
        while !self.keep() {
            self.wait(TRY_AGAIN_MS).await?;
        }
        let (id, payload) = (batch.id(), batch.payload().into());
        let mut sent = Sent { id, timestamp_s: 0, payload };
        let mut failures = 0;
        loop {
            sent.timestamp_s = self.around.clock.now().unix_ms / 1_000;
            let retry_after_s = match self.post(&sent).await {
                Ok(()) => break,
                Err(Refused::Gone) => {
                    tracing::warn!(webhook = self.endpoint.name, "the endpoint is gone (410): it is told nothing more");
                    self.kept.is_off = true;
                    self.keep();
                    return Ok(());
                }
                Err(Refused::Now(retry_after_s)) => retry_after_s,
            };
            let last = WEBHOOK_RETRIES_S.len() - 1;
            let after_s = WEBHOOK_RETRIES_S.get(failures.min(last)).copied().unwrap_or(1);
            // Endpoints that went away together do not all come back at once.
            let after_ms = after_s * 1_000 * fastrand::u64(80..=100) / 100;
            let after_ms = after_ms.max(retry_after_s.unwrap_or(0) * 1_000);
            failures += 1;
            let next_try_ms = self.around.clock.now().unix_ms + after_ms;
            self.status.send_modify(|it| it.next_try_ms = Some(next_try_ms));
            self.wait_long(after_ms).await?;
        }
        self.kept.batch = None;
        self.kept.set_told(batch.to);
        self.kept.entry = self.entry;
        self.status.send_modify(|it| {
            it.requests_total += 1;
            it.events_total += batch.ids.len() as u64;
            it.next_try_ms = None;
            it.state = "telling";
        });
        self.share();
        self.show();
        Ok(())
    }

    async fn post(&mut self, sent: &Sent) -> Result<(), Refused> {
        if self.poster.is_none() {
            match Poster::new(&self.endpoint) {
                Ok(poster) => self.poster = Some(poster),
                Err(error) => self.failed(Chain(&error).to_string()),
            }
        }
        let Some(poster) = &mut self.poster else { return Err(Refused::Now(None)) };
        let began_us = self.around.clock.mono_us();
        let answer = poster.post(&self.endpoint, sent).await;
        let took_us = self.around.clock.mono_us().saturating_sub(began_us);
        self.status.send_modify(|it| it.requests.record(took_us));
        match answer {
            Ok(answered) if answered.status.is_success() => Ok(()),
            Ok(answered) => {
                self.failed(format!("it has answered {}", answered.status));
                match answered.status {
                    StatusCode::GONE => Err(Refused::Gone),
                    _ => Err(Refused::Now(answered.retry_after_s)),
                }
            }
            Err(error) => {
                self.failed(Chain(&error).to_string());
                Err(Refused::Now(None))
            }
        }
    }

    fn failed(&mut self, why: String) {
        let now_ms = self.around.clock.now().unix_ms;
        let is_new =
            self.status.borrow().last_failure.as_ref() != Some(&why) || self.status.borrow().state != "retrying";
        if is_new {
            tracing::warn!(webhook = self.endpoint.name, why, "an endpoint cannot be told, and is tried again");
        }
        self.status.send_modify(|it| {
            it.state = "retrying";
            it.failures_total += 1;
            it.last_failure = Some(why);
            it.last_failure_ms = Some(now_ms);
        });
    }

    /// Waits, unless there is an order, or the gateway begins to send everybody away.
    async fn wait(&mut self, ms: u64) -> Result<(), Interrupt> {
        let Teller { around, orders, .. } = self;
        let draining = async { around.stage.wait_for(|stage| *stage == Stage::Draining).await.is_ok() };
        let order = tokio::select! {
            order = orders.recv() => order,
            _ = draining => None,
            () = sleep(Duration::from_millis(ms)) => return Ok(()),
        };
        let order = order.ok_or(Interrupt::End)?;
        self.follow(order);
        Err(Interrupt::Anew)
    }

    /// The same for long: how far behind it is, is shown meanwhile.
    async fn wait_long(&mut self, mut ms: u64) -> Result<(), Interrupt> {
        while ms > 0 {
            let part_ms = ms.min(SHOW_MS);
            self.wait(part_ms).await?;
            self.show();
            ms -= part_ms;
        }
        Ok(())
    }

    fn follow(&mut self, order: TellerOrder) {
        match order {
            TellerOrder::Resume => self.kept.is_off = false,
            TellerOrder::Change(endpoint) => {
                self.endpoint = *endpoint;
                self.poster = None;
            }
            TellerOrder::PlayFrom(unix_ms) => match self.feed.since(unix_ms, self.around.source.progress.durable()) {
                Ok(at) => {
                    (self.kept.is_off, self.kept.batch) = (false, None);
                    self.kept.set_told(ToldUpTo { at, recipients: 0 });
                }
                Err(error) => self.failed(Chain(&error).to_string()),
            },
        }
        self.keep();
        self.show();
    }

    /// From what is kept.
    fn begin_anew(&mut self) {
        self.current = None;
        self.entry = self.kept.entry;
        self.feed.seek(self.kept.told().at);
        self.show();
    }

    /// Writes what is to be kept, if the file says something else; `false`: it could not be written.
    fn keep(&mut self) -> bool {
        if self.written.as_ref() == Some(&self.kept) {
            return true;
        }
        self.written_ms = self.around.clock.now().mono_ms;
        match self.file.write(&self.kept) {
            Ok(()) => {
                self.written = Some(self.kept.clone());
                true
            }
            Err(error) => {
                self.failed(format!("its state cannot be written: {}", Chain(&error)));
                false
            }
        }
    }

    /// All that was taken from the feed needs not be told.
    fn told_so_far(&mut self, to: ToldUpTo) {
        self.kept.set_told(to);
        self.kept.entry = self.entry;
        if self.around.clock.now().mono_ms.saturating_sub(self.written_ms) >= KEEP_MS {
            self.keep();
            self.share();
        }
    }

    /// What is shown of it.
    fn show(&mut self) {
        let durable = self.around.source.progress.durable().0;
        let behind_bytes = durable.saturating_sub(self.kept.told().at.0);
        let skipped_bytes = self.feed.take_skipped_bytes();
        if skipped_bytes > 0 {
            let name = &self.endpoint.name;
            tracing::error!(
                webhook = name,
                skipped_bytes,
                "an endpoint was behind for so long that the journal is gone"
            );
        }
        let (endpoint, is_off) = (&self.endpoint, self.kept.is_off);
        let stands_by = self.around.source.is_cluster && !self.leads;
        self.status.send_if_modified(|it| {
            let before = it.clone();
            it.webhook.clone_from(&endpoint.name);
            it.url = endpoint.url.to_string();
            it.events = endpoint.events.iter().map(|kind| kind.name()).collect();
            it.behind_bytes = behind_bytes;
            it.skipped_bytes_total += skipped_bytes;
            it.state = match it.state {
                _ if is_off => "off",
                _ if stands_by => "standby",
                "retrying" => "retrying",
                _ => "telling",
            };
            *it != before
        });
    }
}

/// Why a request was not taken.
enum Refused {
    /// The endpoint wants nothing any more.
    Gone,
    /// It is tried again; when it wants that, seconds.
    Now(Option<u64>),
}

/// What a read of the journal came to.
type Cut = Result<Option<EventBatch>, JournalError>;

/// What others have of a task.
pub(super) struct TellerEnds {
    /// As it was last described.
    pub(super) endpoint: Endpoint,
    /// To the task, which ends when nobody has this.
    pub(super) orders: mpsc::Sender<TellerOrder>,
    /// What it shows.
    pub(super) status: watch::Receiver<Webhook>,
}

impl TellerEnds {
    /// The same ends, for somebody else.
    pub(super) fn again(&self) -> TellerEnds {
        TellerEnds { endpoint: self.endpoint.clone(), orders: self.orders.clone(), status: self.status.clone() }
    }

    /// What is shown of it now.
    pub(super) fn shown(&self) -> Webhook {
        self.status.borrow().clone()
    }
}
