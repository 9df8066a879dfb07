//! A user as an operator sees it: sessions with their devices, rows, groups; and the end of sessions.
//!
//! What always holds: what is not known now, because the ledger or the database does not answer, is absent and not invented;
//! a session is ended as `ringway admin kick` ends it, on whichever node it is.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use ringway_wire::ids::{DeviceId, Seq, UserId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::access::AccessAsked;
use super::dispatch::{Answer, Question};
use super::ids::{self, Id};
use super::keys::Scope;
use super::openapi::{CallProblems, ReadProblems};
use super::problem::Problem;
use super::users::id_in_path;
use crate::contract::ids::ShardId;
use crate::contract::look::{ConnectionSeen, Look, Owner, SessionsSeen};

/// A user.
#[derive(Serialize, ToSchema)]
pub(super) struct User {
    user: Id,
    /// Whether there is a session, on whichever node.
    online: bool,
    /// The newest row of the inbox; absent: the ledger does not say now.
    #[serde(skip_serializing_if = "Option::is_none")]
    newest_seq: Option<Id>,
    /// The groups that the user is in; absent: the ledger does not say now.
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<Id>>,
    sessions: Vec<Session>,
}

/// A session.
#[derive(Serialize, ToSchema)]
pub(super) struct Session {
    device: Id,
    /// The node that it is on.
    node: u16,
    /// When it began, Unix milliseconds; absent: its login is not answered yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    since_ms: Option<u64>,
    /// What this node knows of its own connections; absent for those of other nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<Connection>,
}

/// A connection.
#[derive(Serialize, ToSchema)]
pub(super) struct Connection {
    /// Its number, as clients and the log name it.
    number: Id,
    /// The shard that it is on.
    shard: u16,
    /// `unauthenticated`, `logging_in`, `live`, `behind` or `closing`.
    state: &'static str,
    /// When something last came from it, Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    heard_ms: Option<u64>,
    /// The other end: address and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    /// `tcp` or `websocket`.
    transport: &'static str,
    /// Rows that it was not sent yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    rows_behind: Option<u64>,
    /// The last row that its device has acknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    acknowledged_seq: Option<Id>,
    /// Bytes that wait to be written to it.
    outbox_bytes: usize,
    /// Requests that wait for their answers.
    requests_in_flight: u16,
}

/// Which sessions are ended.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OfDevice {
    /// That of this device alone.
    #[param(value_type = Option<Id>)]
    device: Option<String>,
}

/// Sessions that are ended.
#[derive(Serialize, ToSchema)]
pub(super) struct Ended {
    /// Those that there were just before, as far as they are meant.
    sessions: Vec<Session>,
}

impl Connection {
    /// As it is shown.
    pub(super) fn of(shard: ShardId, seen: &ConnectionSeen) -> Connection {
        Connection {
            number: Id(seen.number),
            shard: shard.0,
            state: seen.state.name(),
            heard_ms: seen.heard_ms,
            peer: seen.peer.as_ref().map(SocketAddr::to_string),
            transport: if seen.is_websocket { "websocket" } else { "tcp" },
            rows_behind: seen.owner.map(|owner| owner.rows_behind),
            acknowledged_seq: seen.owner.and_then(|owner| owner.acknowledged).map(|seq| Id(seq.0)),
            outbox_bytes: seen.outbox_bytes,
            requests_in_flight: seen.in_flight,
        }
    }
}

/// A user: sessions on all nodes, the newest row, groups.
#[utoipa::path(get, path = "/users/{user}", operation_id = "read_user", tag = "users",
    params(("user" = Id, Path, description = "The user's number.")),
    responses((status = 200, description = "What is known.", body = User), ReadProblems))]
pub(super) async fn read(
    State(api): State<Api>,
    headers: HeaderMap,
    user: Result<Path<String>, PathRejection>,
) -> Result<Json<User>, Problem> {
    api.keys.allow(&headers, Scope::Read)?;
    let user = UserId(id_in_path(user)?);
    let home = ShardId::of_user(user, api.dispatcher.shards());
    let look = Question::Look(home, Look::Sessions(user));
    let mut answers = api.dispatcher.ask(vec![look, Question::Newest(user), Question::Groups(user)]).await?.into_iter();
    let seen = match answers.next() {
        Some(Answer::Sessions(seen)) => seen,
        Some(Answer::Failed(problem)) => return Err(problem),
        _ => return Err(Problem::no_answer()),
    };
    let newest_seq = match answers.next() {
        Some(Answer::Newest(seq)) => Some(Id(seq.0)),
        _ => None,
    };
    let groups = match answers.next() {
        Some(Answer::Groups(groups)) => Some(groups.into_iter().map(|entry| Id(entry.group.0)).collect()),
        _ => None,
    };
    let mut sessions = shown(&api, home, &seen);
    for (session, seen) in sessions.iter_mut().zip(&seen.here) {
        let Some(owner) = seen.owner else { continue };
        if let Some(connection) = &mut session.connection {
            connection.acknowledged_seq = acknowledged(&api, owner).await.map(|seq| Id(seq.0));
        }
    }
    Ok(Json(User { user: Id(user.0), online: !sessions.is_empty(), newest_seq, groups, sessions }))
}

/// Ends a user's sessions, or that of one device, on whichever node.
///
/// Their clients are told not to come back by themselves (`Kicked`). The user may log in again.
#[utoipa::path(delete, path = "/users/{user}/sessions", operation_id = "end_sessions", tag = "users",
    params(("user" = Id, Path, description = "The user's number."), OfDevice),
    responses((status = 200, description = "They are ended.", body = Ended), CallProblems))]
pub(super) async fn end(
    State(api): State<Api>,
    headers: HeaderMap,
    user: Result<Path<String>, PathRejection>,
    of: Result<Query<OfDevice>, QueryRejection>,
) -> Result<Json<Ended>, Problem> {
    let key = api.keys.allow(&headers, Scope::Operate)?;
    let user = UserId(id_in_path(user)?);
    let device = match of?.0.device {
        Some(text) => {
            Some(ids::parse(&text).ok_or_else(|| Problem::bad_request("device is no number of up to 64 bits"))?)
        }
        None => None,
    };
    let home = ShardId::of_user(user, api.dispatcher.shards());
    let Answer::Sessions(seen) = api.dispatcher.ask_one(Question::Look(home, Look::Sessions(user))).await? else {
        return Err(Problem::no_answer());
    };
    api.ask_access(user, AccessAsked::Kick(device.map(DeviceId))).await?;
    api.audit.record(&key, "sessions were ended", json!({"user": Id(user.0), "device": device.map(Id)}));
    let mut sessions = shown(&api, home, &seen);
    sessions.retain(|session| device.is_none_or(|device| session.device.0 == device));
    Ok(Json(Ended { sessions }))
}

fn shown(api: &Api, home: ShardId, seen: &SessionsSeen) -> Vec<Session> {
    let here = seen.here.iter().filter_map(|seen| {
        let Owner { device, since_ms, .. } = seen.owner?;
        Some(Session {
            device: Id(device.0),
            node: api.node,
            since_ms: (since_ms > 0).then_some(since_ms),
            connection: Some(Connection::of(home, seen)),
        })
    });
    let elsewhere = seen.elsewhere.iter().map(|seen| Session {
        device: Id(seen.device.0),
        node: seen.node,
        since_ms: Some(seen.since_ms),
        connection: None,
    });
    here.chain(elsewhere).collect()
}

/// The last row that a device has acknowledged: what the shard knows is newer than what the store has.
async fn acknowledged(api: &Api, owner: Owner) -> Option<Seq> {
    if owner.acknowledged.is_some() {
        return owner.acknowledged;
    }
    match api.dispatcher.ask_one(Question::Cursor(owner.user, owner.device)).await {
        Ok(Answer::Cursor(seq)) => seq,
        _ => None,
    }
}
