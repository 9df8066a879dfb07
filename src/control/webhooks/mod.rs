//! Webhooks: what happens is told to a backend's endpoints over HTTP, signed as Standard Webhooks 1.0 says.
//!
//! On a thread of their own, `webhooks`, because they read and write files; without `webhooks.endpoints_file` there is none. The
//! queue is the journal: what an endpoint is told is read from there, by a cursor of its own that is kept on disk, so nothing
//! that is durable is missed after a `kill -9`, and an endpoint that is down costs nobody latency, memory or a message. The store
//! is no source for it: rows lie there by user, and messages without their recipients, while the journal has both in the one
//! order in which they were stored, in a cluster too. Segments that the store no longer needs are kept for it up to
//! `webhooks.journal_bytes` behind the end, always, told or not: so disk is bounded without anybody having to hold a segment
//! back, and what was told can be told again. An endpoint that is further behind misses what is gone, and that is counted.
//!
//! What always holds: an event has one id, whoever tells it and however often; events come in the journal's order; a sender is not
//! told of his own message.
//!
//! - [`endpoints`]: who is told what, and signatures.
//! - [`feed`]: reads the journal.
//! - [`events`], [`kept`]: what is told, and what of it is on disk.
//! - [`teller`]: one endpoint's task.
//! - [`post`], [`address`]: a request, and where it may go.
//! - [`calls`], [`status`]: what the API shows and does.

mod address;
mod calls;
pub(crate) mod endpoints;
mod events;
mod feed;
mod kept;
mod post;
pub(crate) mod status;
mod teller;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

pub(crate) use self::calls::{WebhookCalls, routes};
use self::endpoints::Endpoint;
use self::kept::StateFile;
use self::status::Webhook;
use self::teller::{Surroundings, Teller, TellerEnds, TellerOrder};
use crate::api::dispatch::Dispatcher;
use crate::api::trace::{WebhookSeen, WebhooksSeen};
use crate::clock::Clock;
use crate::contract::progress::Progress;
use crate::control::Stage;
use crate::journal::disk::Directory;
use crate::limits::WEBHOOK_ORDERS_MAX;

/// Where what happens is read.
#[derive(Clone, Debug)]
pub(crate) struct JournalSource {
    /// The journal's directory; in a cluster, that of this node's copy of the stream.
    pub(crate) disk: Directory,
    /// How far it is durable.
    pub(crate) progress: Arc<Progress>,
    /// Whether other nodes have the same.
    pub(crate) is_cluster: bool,
}

/// What webhooks are given.
pub(crate) struct WebhookEnds {
    /// As the file says; the newest hold.
    pub(crate) endpoints: watch::Receiver<Vec<Endpoint>>,
    /// Once the journal is open.
    pub(crate) journal: oneshot::Receiver<JournalSource>,
    /// After a start users may be on their way back for so long, milliseconds.
    pub(crate) return_ms: u64,
}

type Tellers = Arc<Vec<TellerEnds>>;

/// The endpoints, as the API and the metrics see them.
#[derive(Clone)]
pub(crate) struct Webhooks {
    /// `None`: none are configured.
    tellers: Option<watch::Receiver<Tellers>>,
}

impl Webhooks {
    /// None.
    pub(crate) fn none() -> Webhooks {
        Webhooks { tellers: None }
    }

    /// Starts the thread. It ends with the process: nobody waits for it.
    pub(crate) fn start(
        ends: WebhookEnds,
        data_dir: PathBuf,
        dispatcher: Dispatcher,
        stage: watch::Receiver<Stage>,
        clock: Clock,
    ) -> std::io::Result<Webhooks> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (publish, tellers) = watch::channel(Tellers::default());
        let run = async move {
            let WebhookEnds { endpoints, journal, return_ms } = ends;
            // Dropped: the gateway did not get so far.
            let Ok(source) = journal.await else { return };
            let around = Surroundings { source, dispatcher, stage, clock, return_ms };
            follow(around, data_dir, endpoints, publish).await;
        };
        std::thread::Builder::new().name("webhooks".to_owned()).spawn(move || runtime.block_on(run))?;
        Ok(Webhooks { tellers: Some(tellers) })
    }

    /// All of them, as they are now.
    pub(crate) fn shown(&self) -> Vec<Webhook> {
        let Some(tellers) = &self.tellers else { return Vec::new() };
        tellers.borrow().iter().map(TellerEnds::shown).collect()
    }

    /// Hands an order to the task of one; `None`: there is none of this name.
    fn order(&self, name: &str, order: TellerOrder) -> Option<Result<(), Full>> {
        let tellers = self.tellers.as_ref()?.borrow();
        let teller = tellers.iter().find(|teller| teller.endpoint.name == name)?;
        Some(teller.orders.try_send(order).map_err(|_| Full))
    }
}

/// How far they are, for whoever follows a message.
pub(crate) fn seen(webhooks: &Webhooks) -> WebhooksSeen {
    let webhooks = webhooks.clone();
    let seen = |it: Webhook| WebhookSeen {
        webhook: it.webhook,
        state: it.state,
        past: (it.behind_bytes == 0).then_some(true),
        last_failure: it.last_failure,
    };
    WebhooksSeen(Arc::new(move || webhooks.shown().into_iter().map(seen).collect()))
}

/// As many orders wait as may.
struct Full;

/// Has a task for each endpoint that there is.
async fn follow(
    around: Surroundings,
    data_dir: PathBuf,
    mut endpoints: watch::Receiver<Vec<Endpoint>>,
    publish: watch::Sender<Tellers>,
) {
    let mut tasks: HashMap<String, JoinHandle<()>> = HashMap::new();
    let mut known: HashMap<String, TellerEnds> = HashMap::new();
    loop {
        let wanted = endpoints.borrow_and_update().clone();
        let mut next: HashMap<String, TellerEnds> = HashMap::new();
        let mut changed: Vec<(mpsc::Sender<TellerOrder>, Endpoint)> = Vec::new();
        for endpoint in wanted {
            let name = endpoint.name.clone();
            let ends = match known.remove(&name) {
                Some(ends) => {
                    if ends.endpoint != endpoint {
                        changed.push((ends.orders.clone(), endpoint.clone()));
                    }
                    TellerEnds { endpoint, ..ends }
                }
                None => {
                    let (orders, receive_orders) = mpsc::channel(WEBHOOK_ORDERS_MAX);
                    let (tell, status) = watch::channel(Webhook::default());
                    let (around, described) = (around.clone(), endpoint.clone());
                    let (file, before) = (StateFile::new(&data_dir, &name), tasks.remove(&name));
                    let task = tokio::spawn(async move {
                        // One of this name that is told to end keeps how far it is.
                        if let Some(before) = before {
                            before.await.ok();
                        }
                        Teller::new(around, described, file, receive_orders, tell).run().await;
                    });
                    tasks.insert(name.clone(), task);
                    TellerEnds { endpoint, orders, status }
                }
            };
            next.insert(name, ends);
        }
        // What is left in `known` is no longer wanted: without a sender of orders its task ends.
        known = next;
        let mut shown: Vec<TellerEnds> = known.values().map(TellerEnds::again).collect();
        shown.sort_by(|a, b| a.endpoint.name.cmp(&b.endpoint.name));
        publish.send_replace(Arc::new(shown));
        for (orders, endpoint) in changed {
            // A task that is busy takes it when it waits the next time.
            orders.send(TellerOrder::Change(Box::new(endpoint))).await.ok();
        }
        if endpoints.changed().await.is_err() {
            break;
        }
    }
    // The main thread is through; what is under way ends with the process.
    std::future::pending::<()>().await;
}
