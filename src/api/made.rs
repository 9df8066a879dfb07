//! The groups that count against a user: those the user made, or has added members to since, and may have left. Who has
//! filled the ledger with them is found by this, and they are collected.
//!
//! What always holds: a group is deleted as [`super::groups`] deletes it, by changes in the ledger's order, so who is in
//! one is told; one call deletes `API_MADE_DELETED_MAX` at most, and says how many are left. It leaves out the rows that
//! there are of messages to these groups: they stay their owners'.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use ringway_wire::ids::{GroupId, UserId};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::Api;
use super::dispatch::{Answer, Question};
use super::groups::deleted;
use super::ids::Id;
use super::keys::Scope;
use super::openapi::{CallProblems, ReadProblems};
use super::problem::Problem;
use super::users::id_in_path;
use crate::limits::API_MADE_DELETED_MAX;

/// One of them.
#[derive(Serialize, ToSchema)]
struct MadeGroup {
    group: Id,
    members_count: u32,
}

/// All of them.
#[derive(Serialize, ToSchema)]
pub(super) struct MadeGroups {
    groups: Vec<MadeGroup>,
}

/// What became of them.
#[derive(Serialize, ToSchema)]
pub(super) struct Collected {
    /// Groups that there are no more.
    deleted: usize,
    /// Groups that still count against the user: the same call again deletes some of them.
    left: usize,
}

/// The groups that count against a user, in them or not.
#[utoipa::path(get, path = "/users/{user}/groups/made", operation_id = "list_groups_made", tag = "users",
    params(("user" = Id, Path, description = "The user's number.")),
    responses((status = 200, description = "They are these.", body = MadeGroups), ReadProblems))]
pub(super) async fn list(
    State(api): State<Api>,
    headers: HeaderMap,
    user: Result<Path<String>, PathRejection>,
) -> Result<Json<MadeGroups>, Problem> {
    api.keys.allow(&headers, Scope::Read)?;
    let made = made(&api, UserId(id_in_path(user)?)).await?;
    let groups = made.into_iter().map(|(group, members_count)| MadeGroup { group: Id(group.0), members_count });
    Ok(Json(MadeGroups { groups: groups.collect() }))
}

/// Deletes groups that count against a user, up to 100 with a call.
#[utoipa::path(delete, path = "/users/{user}/groups/made", operation_id = "delete_groups_made", tag = "users",
    params(("user" = Id, Path, description = "The user's number.")),
    responses((status = 200, description = "Some, or all, are gone.", body = Collected), CallProblems))]
pub(super) async fn delete(
    State(api): State<Api>,
    headers: HeaderMap,
    user: Result<Path<String>, PathRejection>,
) -> Result<Json<Collected>, Problem> {
    let key = api.keys.allow(&headers, Scope::Groups)?;
    let user = UserId(id_in_path(user)?);
    let mut gone = 0;
    for (group, _) in made(&api, user).await?.into_iter().take(API_MADE_DELETED_MAX) {
        match deleted(&api, group).await {
            Ok(_) => gone += 1,
            // Its members have left it meanwhile.
            Err(problem) if problem == Problem::unknown_group() => {}
            Err(problem) => return Err(problem),
        }
    }
    let left = made(&api, user).await?.len();
    api.audit.record(&key, "groups of one maker were deleted", json!({"user": Id(user.0), "groups": gone}));
    Ok(Json(Collected { deleted: gone, left }))
}

async fn made(api: &Api, user: UserId) -> Result<Vec<(GroupId, u32)>, Problem> {
    match api.dispatcher.ask_one(Question::Made(user)).await? {
        Answer::Groups(groups) => Ok(groups.into_iter().map(|entry| (entry.group, entry.members_count)).collect()),
        _ => Err(Problem::no_answer()),
    }
}
