//! What is known of users: their groups, their inbox, who is online.
//!
//! What always holds: nothing is changed; rows come in their order, each once, from the one that was asked for on.

use std::collections::{BTreeMap, HashSet};

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ringway_wire::ids::{Seq, UserId};
use ringway_wire::limits::PAGE_ROWS_MAX;
use ringway_wire::schema::Role;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::dispatch::{Answer, Question};
use super::ids::{self, Id};
use super::keys::Scope;
use super::messages::Address;
use super::openapi::{CallProblems, ReadProblems};
use super::problem::Problem;
use crate::contract::ids::ShardId;
use crate::limits::API_PRESENCE_MAX;

/// One of a user's groups.
#[derive(Serialize, ToSchema)]
struct Membership {
    group: Id,
    version: u32,
    role: &'static str,
    members_count: u32,
}

/// All of them.
#[derive(Serialize, ToSchema)]
pub(super) struct Memberships {
    groups: Vec<Membership>,
}

/// Which rows.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Rows {
    /// The rows above this one; without it, from the first.
    #[param(value_type = Option<Id>)]
    after: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 256, default = 256)]
    limit: Option<usize>,
}

/// A row.
#[derive(Serialize, ToSchema)]
struct InboxRow {
    seq: Id,
    msg_id: Id,
    from: Id,
    to: Address,
    sent_at_ms: u64,
    /// Base64.
    body: String,
    /// The same, if it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// Rows of an inbox.
#[derive(Serialize, ToSchema)]
pub(super) struct Inbox {
    rows: Vec<InboxRow>,
    /// Rows up to here are no longer kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    gap_to: Option<Id>,
    /// What to ask for next; absent: this was all there is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_after: Option<Id>,
}

/// Whom a look-up is about.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Users {
    #[schema(min_items = 1, max_items = 1000)]
    users: Vec<Id>,
}

/// Who of them is online.
#[derive(Serialize, ToSchema)]
pub(super) struct Online {
    online: Vec<Id>,
}

/// A number in a path.
pub(super) fn id_in_path(path: Result<Path<String>, PathRejection>) -> Result<u64, Problem> {
    let Path(text) = path?;
    ids::parse(&text).ok_or_else(|| Problem::bad_request("the path names no number of up to 64 bits"))
}

/// A user's groups.
#[utoipa::path(get, path = "/users/{user}/groups", operation_id = "list_groups_of_user", tag = "users",
    params(("user" = Id, Path, description = "The user's number.")),
    responses((status = 200, description = "They are these.", body = Memberships), ReadProblems))]
pub(super) async fn groups(
    State(api): State<Api>,
    headers: HeaderMap,
    user: Result<Path<String>, PathRejection>,
) -> Result<Json<Memberships>, Problem> {
    api.keys.allow(&headers, Scope::Read)?;
    let user = UserId(id_in_path(user)?);
    let Answer::Groups(groups) = api.dispatcher.ask_one(Question::Groups(user)).await? else {
        return Err(Problem::no_answer());
    };
    let groups = groups.into_iter().map(|entry| Membership {
        group: Id(entry.group.0),
        version: entry.version.0,
        role: if entry.role == Role::Owner { "owner" } else { "member" },
        members_count: entry.members_count,
    });
    Ok(Json(Memberships { groups: groups.collect() }))
}

/// Rows of a user's inbox, forwards.
#[utoipa::path(get, path = "/users/{user}/inbox", operation_id = "read_inbox", tag = "users",
    params(("user" = Id, Path, description = "The user's number."), Rows),
    responses((status = 200, description = "The rows.", body = Inbox), ReadProblems))]
pub(super) async fn inbox(
    State(api): State<Api>,
    headers: HeaderMap,
    user: Result<Path<String>, PathRejection>,
    rows: Result<Query<Rows>, QueryRejection>,
) -> Result<Json<Inbox>, Problem> {
    api.keys.allow(&headers, Scope::Read)?;
    let user = UserId(id_in_path(user)?);
    let Query(Rows { after, limit }) = rows?;
    let after = match after {
        Some(text) => ids::parse(&text).ok_or_else(|| Problem::bad_request("after is no number of up to 64 bits"))?,
        None => 0,
    };
    let limit = limit.unwrap_or(PAGE_ROWS_MAX);
    if limit == 0 || limit > PAGE_ROWS_MAX {
        return Err(Problem::bad_request(format!("limit is 1 to {PAGE_ROWS_MAX}")));
    }
    let question = Question::Page { user, after: Seq(after), rows_max: limit as u16 };
    let Answer::Page(page) = api.dispatcher.ask_one(question).await? else { return Err(Problem::no_answer()) };
    let rows: Vec<InboxRow> = page
        .rows
        .iter()
        .map(|(seq, message)| {
            let view = message.view(*seq);
            InboxRow {
                seq: Id(seq.0),
                msg_id: Id(view.msg_id.0),
                from: Id(view.sender.0),
                to: view.to.into(),
                sent_at_ms: view.sent_at_ms,
                body: STANDARD.encode(view.body),
                text: std::str::from_utf8(view.body).ok().map(str::to_owned),
            }
        })
        .collect();
    let last = page.rows.last().map(|(seq, _)| *seq).or(page.gap_to);
    Ok(Json(Inbox { rows, gap_to: page.gap_to.map(|seq| Id(seq.0)), next_after: last.map(|seq| Id(seq.0)) }))
}

/// Who of up to a thousand users is online, on whichever node.
#[utoipa::path(post, path = "/presence", operation_id = "presence", tag = "users", request_body = Users,
    responses((status = 200, description = "Those who are.", body = Online), CallProblems))]
pub(super) async fn presence(
    State(api): State<Api>,
    headers: HeaderMap,
    users: Result<Json<Users>, JsonRejection>,
) -> Result<Json<Online>, Problem> {
    api.keys.allow(&headers, Scope::Read)?;
    let Json(Users { users }) = users?;
    if users.is_empty() || users.len() > API_PRESENCE_MAX {
        return Err(Problem::bad_request(format!("users are 1 to {API_PRESENCE_MAX}")));
    }
    let mut by_shard: BTreeMap<ShardId, Vec<UserId>> = BTreeMap::new();
    for user in &users {
        let user = UserId(user.0);
        by_shard.entry(ShardId::of_user(user, api.dispatcher.shards())).or_default().push(user);
    }
    let questions = by_shard.into_iter().map(|(shard, users)| Question::Online(shard, users)).collect();
    let mut online = HashSet::new();
    for answer in api.dispatcher.ask(questions).await? {
        match answer {
            Answer::Online(users) => online.extend(users),
            Answer::Failed(problem) => return Err(problem),
            _ => return Err(Problem::no_answer()),
        }
    }
    Ok(Json(Online { online: users.into_iter().filter(|user| online.contains(&UserId(user.0))).collect() }))
}
