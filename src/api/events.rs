//! What happened to a user lately.
//!
//! What always holds: nothing is changed; every shard of this node is asked, for a login that was refused where it came in is
//! kept there; what other nodes have met, they are asked for.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use ringway_wire::ids::UserId;
use ringway_wire::request::reason_name;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::dispatch::{Answer, Question};
use super::ids::Id;
use super::keys::Scope;
use super::openapi::ReadProblems;
use super::problem::Problem;
use super::users::id_in_path;
use crate::contract::ids::ShardId;
use crate::contract::look::{Look, UserEvent, UserEventKind};

/// What happened to a user.
#[derive(Serialize, ToSchema)]
pub(super) struct Events {
    user: Id,
    /// The node that has met it.
    node: u16,
    /// Oldest first.
    events: Vec<Event>,
}

/// Something that happened.
#[derive(Serialize, ToSchema)]
struct Event {
    /// When; of what happened several times, when it last did, Unix milliseconds.
    at_ms: u64,
    /// When it first did.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_ms: Option<u64>,
    /// How often.
    times: u32,
    /// `connected`, `logged_in`, `login_refused`, `behind`, `caught_up`, `refused` or `closed`.
    event: &'static str,
    /// Why a login was refused or a session closed, or what a request was refused with.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    device: Id,
    /// The connection's number, as clients and the log name it.
    connection: Id,
    shard: u16,
}

impl Event {
    fn of(shard: ShardId, seen: &UserEvent) -> Event {
        let (event, why) = match seen.kind {
            UserEventKind::Connected => ("connected", None),
            UserEventKind::LoggedIn => ("logged_in", None),
            UserEventKind::LoginRefused(reason) => ("login_refused", Some(reason_name(reason).to_owned())),
            UserEventKind::Behind => ("behind", None),
            UserEventKind::CaughtUp => ("caught_up", None),
            UserEventKind::Refused(code) => ("refused", Some(code.variant_name().unwrap_or("Unknown").to_owned())),
            UserEventKind::Closed(reason) => ("closed", Some(reason_name(reason).to_owned())),
        };
        Event {
            at_ms: seen.last_ms,
            first_ms: (seen.times > 1).then_some(seen.first_ms),
            times: seen.times,
            event,
            why,
            device: Id(seen.device.0),
            connection: Id(seen.connection),
            shard: shard.0,
        }
    }
}

/// What happened to a user lately, on this node.
///
/// Each shard keeps the last events of its users, in a room that is bounded; what a session does over and over is one event.
#[utoipa::path(get, path = "/users/{user}/events", operation_id = "list_events_of_user", tag = "users",
    params(("user" = Id, Path, description = "The user's number.")),
    responses((status = 200, description = "What is known.", body = Events), ReadProblems))]
pub(super) async fn list(
    State(api): State<Api>,
    headers: HeaderMap,
    user: Result<Path<String>, PathRejection>,
) -> Result<Json<Events>, Problem> {
    api.keys.allow(&headers, Scope::Read)?;
    let user = UserId(id_in_path(user)?);
    let shards = (0..api.dispatcher.shards()).map(ShardId);
    let questions = shards.clone().map(|shard| Question::Look(shard, Look::Events(user))).collect();
    let mut seen = Vec::new();
    for (shard, answer) in shards.zip(api.dispatcher.ask(questions).await?) {
        match answer {
            Answer::Events(events) => seen.extend(events.into_iter().map(|event| (shard, event))),
            Answer::Failed(problem) => return Err(problem),
            _ => return Err(Problem::no_answer()),
        }
    }
    // Those of one shard are in their order, which is kept.
    seen.sort_by_key(|(_, event)| event.last_ms);
    let events = seen.iter().map(|(shard, event)| Event::of(*shard, event)).collect();
    Ok(Json(Events { user: Id(user.0), node: api.node, events }))
}
