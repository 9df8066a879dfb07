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
use crate::contract::message::Message;
use crate::contract::store::Page;
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
    /// The rows below this one, the newest first.
    #[param(value_type = Option<Id>)]
    before: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 256, default = 256)]
    limit: Option<usize>,
}

/// A row.
#[derive(Serialize, ToSchema)]
pub(super) struct InboxRow {
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
    /// The same backwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_before: Option<Id>,
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

/// Rows of a user's inbox, forwards, or backwards with `before`.
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
    let Query(Rows { after, before, limit }) = rows?;
    let number = |text: Option<String>, name| match text.map(|text| ids::parse(&text)) {
        Some(None) => Err(Problem::bad_request(format!("{name} is no number of up to 64 bits"))),
        Some(number) => Ok(number),
        None => Ok(None),
    };
    let (after, before) = (number(after, "after")?, number(before, "before")?);
    if after.is_some() && before.is_some() {
        return Err(Problem::bad_request("rows are asked for after one or before one, not both"));
    }
    let limit = limit.unwrap_or(PAGE_ROWS_MAX);
    if limit == 0 || limit > PAGE_ROWS_MAX {
        return Err(Problem::bad_request(format!("limit is 1 to {PAGE_ROWS_MAX}")));
    }
    if let Some(before) = before {
        return backwards(&api, user, Seq(before), limit).await;
    }
    let page = page(&api, user, Seq(after.unwrap_or_default()), limit).await?;
    let rows = page.rows.iter().map(|(seq, message)| InboxRow::of(*seq, message)).collect();
    let last = page.rows.last().map(|(seq, _)| *seq).or(page.gap_to);
    let next_after = last.map(|seq| Id(seq.0));
    Ok(Json(Inbox { rows, gap_to: page.gap_to.map(|seq| Id(seq.0)), next_after, next_before: None }))
}

async fn page(api: &Api, user: UserId, after: Seq, rows_max: usize) -> Result<Page, Problem> {
    let question = Question::Page { user, after, rows_max: rows_max as u16 };
    match api.dispatcher.ask_one(question).await? {
        Answer::Page(page) => Ok(page),
        _ => Err(Problem::no_answer()),
    }
}

/// The rows below one, the newest first. The store reads forwards: from so far below that as many rows as are wanted may lie
/// between, and from further below where numbers have no rows.
async fn backwards(api: &Api, user: UserId, before: Seq, limit: usize) -> Result<Json<Inbox>, Problem> {
    let Answer::Newest(newest) = api.dispatcher.ask_one(Question::Newest(user)).await? else {
        return Err(Problem::no_answer());
    };
    let end = Seq(before.0.min(newest.0.saturating_add(1)));
    let (mut width, mut gap_to) = (limit as u64, None);
    loop {
        let begin = Seq(end.0.saturating_sub(1).saturating_sub(width));
        let (mut rows, mut at) = (Vec::new(), begin);
        // Pages have a limit in bytes, so there may be several.
        while at.0 + 1 < end.0 {
            let page = page(api, user, at, PAGE_ROWS_MAX).await?;
            gap_to = gap_to.max(page.gap_to);
            let last = page.rows.last().map(|(seq, _)| *seq).or(page.gap_to).filter(|last| *last > at);
            let Some(last) = last else { break };
            rows.extend(page.rows.into_iter().filter(|(seq, _)| *seq < end));
            at = last;
        }
        // Numbers without rows look like rows that are no longer kept: whether there are any below, the first one says.
        let is_all = begin == Seq(0) || gap_to.is_some() && is_first_above(api, user, begin).await?;
        if rows.is_empty() && !is_all {
            width = width.saturating_mul(16);
            continue;
        }
        let skipped = rows.len().saturating_sub(limit);
        let first =
            rows.get(skipped).map_or(begin.0 + 1, |(seq, _)| if skipped > 0 || is_all { seq.0 } else { begin.0 + 1 });
        let next_before = (skipped > 0 || !is_all).then_some(Id(first));
        let rows = rows.iter().skip(skipped).rev().map(|(seq, message)| InboxRow::of(*seq, message)).collect();
        // What is no longer kept is said with the last rows above it.
        let gap_to = gap_to.filter(|_| next_before.is_none()).map(|seq| Id(seq.0));
        return Ok(Json(Inbox { rows, gap_to, next_after: None, next_before }));
    }
}

/// No row up to here is kept.
async fn is_first_above(api: &Api, user: UserId, seq: Seq) -> Result<bool, Problem> {
    Ok(page(api, user, Seq(0), 1).await?.rows.first().is_none_or(|(first, _)| *first > seq))
}

impl InboxRow {
    /// As it is shown.
    pub(super) fn of(seq: Seq, message: &Message) -> InboxRow {
        let view = message.view(seq);
        InboxRow {
            seq: Id(seq.0),
            msg_id: Id(view.msg_id.0),
            from: Id(view.sender.0),
            to: view.to.into(),
            sent_at_ms: view.sent_at_ms,
            body: STANDARD.encode(view.body),
            text: std::str::from_utf8(view.body).ok().map(str::to_owned),
        }
    }
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
