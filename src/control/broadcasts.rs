//! Broadcasts: the same message to many users, one after another at a rate, as a job that survives a restart.
//!
//! One task on control's thread owns all jobs. What always holds: a job is on disk before its caller is answered; each
//! recipient has the message once, however often the process dies: the name of each recipient's message follows from the job
//! and the recipient, so that what is sent again is the same message; how far a job is, is kept behind what was sent, never
//! before it; there are at most `BROADCASTS_MAX` jobs, of which the oldest that is over makes room.

mod job;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use ringway_wire::ids::{ClientMsgId, Conversation, UserId};
use ringway_wire::request::Durability;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::job::{Job, Jobs, Progress};
use crate::api::audit::Audit;
use crate::api::dispatch::{Answer, Dispatcher, Question};
use crate::api::ids::Id;
use crate::api::keys::{Keys, Scope};
use crate::api::messages::{body_of, uuid};
use crate::api::openapi::{CallProblems, ReadProblems};
use crate::api::problem::Problem;
use crate::clock::Clock;
use crate::contract::chain::Chain;
use crate::contract::keyed::unguessable;
use crate::limits::{BROADCAST_RATE_DEFAULT, BROADCAST_RATE_MAX, BROADCAST_STEP_MS, BROADCAST_USERS_MAX};

/// What handlers ask the task, and wait for.
const ASKED_MAX: usize = 64;

/// A broadcast to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewBroadcast {
    /// The user in whose name it is sent.
    from: Id,
    /// Whom it is for.
    #[schema(min_items = 1, max_items = 100_000)]
    users: Vec<Id>,
    /// A UUIDv7: asked for again under the same name, it is the same broadcast.
    broadcast: Option<String>,
    /// Base64 of 1 to 16,384 bytes.
    body: Option<String>,
    /// 1 to 16,384 bytes of UTF-8.
    text: Option<String>,
    /// Messages a second.
    #[schema(minimum = 1, maximum = 10_000, default = 500)]
    rate_per_s: Option<u32>,
}

/// How far a broadcast is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub(super) struct Broadcast {
    /// Its name.
    pub(super) broadcast: String,
    /// `running`, `done` or `stopped`.
    pub(super) state: &'static str,
    /// Whom it is for.
    pub(super) users: usize,
    /// Of these, those who have it.
    pub(super) sent: usize,
    /// And those to whom it cannot be sent.
    pub(super) failed: usize,
}

/// What a handler wants of the task.
#[derive(Debug)]
enum Wish {
    Begin(Box<Job>),
    Show(String),
    Stop(String),
}

#[derive(Debug)]
struct Asked {
    wish: Wish,
    answer: oneshot::Sender<Result<Broadcast, Problem>>,
}

/// Where wishes are handed in.
#[derive(Clone, Debug)]
pub(crate) struct Broadcasts(mpsc::Sender<Asked>);

impl Broadcasts {
    /// Starts the task; jobs that were not through go on.
    pub(crate) fn start(data_dir: PathBuf, dispatcher: Dispatcher) -> Broadcasts {
        let (asked, receive_asked) = mpsc::channel(ASKED_MAX);
        tokio::spawn(run(data_dir, dispatcher, receive_asked));
        Broadcasts(asked)
    }

    async fn ask(&self, wish: Wish) -> Result<Broadcast, Problem> {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(Asked { wish, answer }).map_err(|_| Problem::too_many())?;
        answered.await.map_err(|_| Problem::not_serving())?
    }
}

/// What these calls need.
#[derive(Clone)]
pub(crate) struct BroadcastCalls {
    /// Who may call.
    pub(crate) keys: Arc<Keys>,
    /// Keeps what was changed.
    pub(crate) audit: Audit,
    /// The process's time.
    pub(crate) clock: Clock,
    /// All of them.
    pub(crate) broadcasts: Broadcasts,
}

/// The calls.
pub(crate) fn routes(calls: BroadcastCalls) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(begin)).routes(routes!(show, stop)).with_state(calls)
}

/// Sends the same message to up to 100,000 users, as a job.
///
/// It is answered when the job is on disk, and goes on over a restart. Each recipient has the message once.
#[utoipa::path(post, path = "/broadcasts", operation_id = "begin_broadcast", tag = "messages", request_body = NewBroadcast,
    responses((status = 202, description = "It is on disk, and goes on by itself.", body = Broadcast), CallProblems))]
async fn begin(
    State(calls): State<BroadcastCalls>,
    headers: HeaderMap,
    new: Result<Json<NewBroadcast>, JsonRejection>,
) -> Result<(StatusCode, Json<Broadcast>), Problem> {
    let key = calls.keys.allow(&headers, Scope::Send)?;
    let Json(NewBroadcast { from, users, broadcast, body, text, rate_per_s }) = new?;
    if users.is_empty() || users.len() > BROADCAST_USERS_MAX {
        return Err(Problem::bad_request(format!("users are 1 to {BROADCAST_USERS_MAX}")));
    }
    let rate_per_s = rate_per_s.unwrap_or(BROADCAST_RATE_DEFAULT);
    if rate_per_s == 0 || rate_per_s > BROADCAST_RATE_MAX {
        return Err(Problem::bad_request(format!("rate_per_s is 1 to {BROADCAST_RATE_MAX}")));
    }
    let now_ms = calls.clock.now().unix_ms;
    let name = match broadcast {
        Some(text) => named(&text, now_ms)?,
        None => ClientMsgId::from_parts(now_ms, u128::from(unguessable()) << 64 | u128::from(unguessable())),
    };
    let mut users: Vec<u64> = users.into_iter().map(|user| user.0).collect();
    users.sort_unstable();
    users.dedup();
    let job = Job { name, from: from.0, users, body: body_of(text, body)?, rate_per_s };
    let broadcast = calls.broadcasts.ask(Wish::Begin(Box::new(job))).await?;
    let facts = json!({"broadcast": broadcast.broadcast, "from": from, "users": broadcast.users});
    calls.audit.record(&key, "a broadcast was begun", facts);
    Ok((StatusCode::ACCEPTED, Json(broadcast)))
}

/// How far a broadcast is.
#[utoipa::path(get, path = "/broadcasts/{broadcast}", operation_id = "read_broadcast", tag = "messages",
    params(("broadcast" = String, Path, description = "Its name.")),
    responses((status = 200, description = "So far.", body = Broadcast), ReadProblems))]
async fn show(
    State(calls): State<BroadcastCalls>,
    headers: HeaderMap,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Broadcast>, Problem> {
    calls.keys.allow(&headers, Scope::Read)?;
    Ok(Json(calls.broadcasts.ask(Wish::Show(name?.0)).await?))
}

/// Stops a broadcast: who has the message keeps it.
#[utoipa::path(delete, path = "/broadcasts/{broadcast}", operation_id = "stop_broadcast", tag = "messages",
    params(("broadcast" = String, Path, description = "Its name.")),
    responses((status = 200, description = "It is stopped, or was over.", body = Broadcast), CallProblems))]
async fn stop(
    State(calls): State<BroadcastCalls>,
    headers: HeaderMap,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Broadcast>, Problem> {
    let key = calls.keys.allow(&headers, Scope::Send)?;
    let broadcast = calls.broadcasts.ask(Wish::Stop(name?.0)).await?;
    calls.audit.record(&key, "a broadcast was stopped", json!({"broadcast": broadcast.broadcast}));
    Ok(Json(broadcast))
}

fn named(text: &str, now_ms: u64) -> Result<ClientMsgId, Problem> {
    let name = uuid(text).filter(|name| name.unix_ms().is_some_and(|ms| ms <= now_ms));
    name.ok_or_else(|| Problem::bad_request("broadcast is no UUIDv7 of a time that is past"))
}

async fn run(data_dir: PathBuf, dispatcher: Dispatcher, mut asked: mpsc::Receiver<Asked>) {
    let mut jobs = Jobs::read(data_dir);
    let mut step = interval(Duration::from_millis(BROADCAST_STEP_MS));
    step.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            asked = asked.recv() => match asked {
                Some(Asked { wish, answer }) => {
                    // Who does not wait any more can ask again.
                    answer.send(fulfilled(&mut jobs, wish)).ok();
                }
                None => return,
            },
            _ = step.tick(), if jobs.any_runs() => {
                for at in 0..jobs.len() {
                    send_some(&mut jobs, at, &dispatcher).await;
                }
            }
        }
    }
}

fn fulfilled(jobs: &mut Jobs, wish: Wish) -> Result<Broadcast, Problem> {
    let failed = |error: std::io::Error| {
        tracing::warn!(error = %Chain(&error), "a broadcast cannot be kept");
        Problem::too_many()
    };
    match wish {
        Wish::Begin(job) => jobs.begin(*job).map_err(failed)?.ok_or_else(Problem::too_many),
        Wish::Show(name) => jobs.shown(&name).ok_or_else(Problem::unknown_broadcast),
        Wish::Stop(name) => jobs.stop(&name).map_err(failed)?.ok_or_else(Problem::unknown_broadcast),
    }
}

/// The next of a job's recipients, as many as its rate allows. Those who cannot have it now are tried again with the next.
async fn send_some(jobs: &mut Jobs, at: usize, dispatcher: &Dispatcher) {
    let Some((job, progress)) = jobs.running(at) else { return };
    let count = (u64::from(job.rate_per_s) * BROADCAST_STEP_MS).div_ceil(1_000) as usize;
    let next: Vec<u64> = job.users.iter().skip(progress.through).take(count).copied().collect();
    let questions = next.iter().map(|user| Question::Message {
        sender: UserId(job.from),
        to: Conversation::User(UserId(*user)),
        client_msg_id: job.name_for(*user),
        body: job.body.clone(),
        durability: Durability::Durable,
    });
    let Ok(answers) = dispatcher.ask(questions.collect()).await else { return };
    let Progress { mut through, mut failed, .. } = progress;
    for answer in answers {
        match answer {
            Answer::Numbered { .. } => {}
            Answer::Failed(problem) if problem.retry_after_ms.is_none() => failed += 1,
            // What lies behind it is the same message when it is sent again.
            _ => break,
        }
        through += 1;
    }
    jobs.advance(at, through, failed);
}
