//! Groups: made, read, deleted, members added, removed and replaced.
//!
//! What always holds: a change is made in the owner's name, as if the owner had asked for it, so the ledger orders it among
//! the changes that sessions make; who is in already, or out already, is no error.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use ringway_wire::ids::{GroupId, UserId};
use ringway_wire::limits::GROUP_MEMBERS_MAX;
use ringway_wire::request::Adding;
use ringway_wire::schema::{ErrorCode, Role};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::Api;
use super::dispatch::{Answer, Question};
use super::ids::Id;
use super::keys::Scope;
use super::openapi::{CallProblems, ReadProblems};
use super::problem::Problem;
use super::users::id_in_path;
use crate::contract::message::Roster;
use crate::contract::submission::GroupChange;
use crate::limits::API_OWNERS_TRIED;

/// A group to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewGroup {
    owner: Id,
    #[schema(min_items = 1, max_items = 5000)]
    members: Vec<Id>,
    /// Make it without those who cannot be added.
    #[serde(default)]
    best_effort: bool,
}

/// Who is to be added.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Joining {
    #[schema(min_items = 1, max_items = 5000)]
    members: Vec<Id>,
    /// Add the others if some cannot be added.
    #[serde(default)]
    best_effort: bool,
}

/// Who is to be removed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Leaving {
    #[schema(min_items = 1, max_items = 5000)]
    members: Vec<Id>,
}

/// A group after a change.
#[derive(Serialize, ToSchema)]
pub(super) struct Changed {
    group: Id,
    version: u32,
    /// With `best_effort`: who was to be added and cannot be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left_out: Vec<Id>,
}

/// A group with its members.
#[derive(Serialize, ToSchema)]
pub(super) struct Group {
    group: Id,
    version: u32,
    owner: Option<Id>,
    members: Vec<Id>,
}

/// Makes a group. Asked again, it makes another one.
#[utoipa::path(post, path = "/groups", operation_id = "create_group", tag = "groups", request_body = NewGroup,
    responses((status = 201, description = "It is made.", body = Changed), CallProblems))]
pub(super) async fn create(
    State(api): State<Api>,
    headers: HeaderMap,
    new: Result<Json<NewGroup>, JsonRejection>,
) -> Result<(StatusCode, Json<Changed>), Problem> {
    let key = api.keys.allow(&headers, Scope::Groups)?;
    let Json(NewGroup { owner, members, best_effort }) = new?;
    let members = users(members)?;
    let (actor, change, adding) = (UserId(owner.0), GroupChange::Create(members), adding(best_effort));
    let changed = changed(api.dispatcher.ask_one(Question::Change { actor, change, adding }).await?)?;
    api.audit.record(&key, "a group was made", json!({"group": changed.group, "owner": owner}));
    Ok((StatusCode::CREATED, Json(changed)))
}

/// Who is in a group.
#[utoipa::path(get, path = "/groups/{group}", operation_id = "read_group", tag = "groups",
    params(("group" = Id, Path, description = "The group's number.")),
    responses((status = 200, description = "The group.", body = Group), ReadProblems))]
pub(super) async fn read(
    State(api): State<Api>,
    headers: HeaderMap,
    group: Result<Path<String>, PathRejection>,
) -> Result<Json<Group>, Problem> {
    api.keys.allow(&headers, Scope::Read)?;
    let group = GroupId(id_in_path(group)?);
    let Answer::Roster(roster) = api.dispatcher.ask_one(Question::Roster(group)).await? else {
        return Err(Problem::no_answer());
    };
    let mut members: Vec<u64> = roster.members().iter().map(|member| member.user.0).collect();
    members.sort_unstable();
    let owner = roster.owner().map(|user| Id(user.0));
    Ok(Json(Group {
        group: Id(group.0),
        version: roster.version.0,
        owner,
        members: members.into_iter().map(Id).collect(),
    }))
}

/// Adds members.
///
/// Who is in already is no error.
#[utoipa::path(post, path = "/groups/{group}/members", operation_id = "add_members", tag = "groups",
    params(("group" = Id, Path, description = "The group's number.")), request_body = Joining,
    responses((status = 200, description = "They are in.", body = Changed), CallProblems))]
pub(super) async fn add(
    State(api): State<Api>,
    headers: HeaderMap,
    group: Result<Path<String>, PathRejection>,
    members: Result<Json<Joining>, JsonRejection>,
) -> Result<Json<Changed>, Problem> {
    let key = api.keys.allow(&headers, Scope::Groups)?;
    let group = GroupId(id_in_path(group)?);
    let Json(Joining { members, best_effort }) = members?;
    let users = users(members)?;
    let changed = as_owner(&api, group, adding(best_effort), |_, _| GroupChange::Add(group, users.clone())).await?;
    api.audit.record(&key, "members were added", json!({"group": Id(group.0), "users": users.len()}));
    Ok(Json(changed))
}

/// Removes members. The owner goes last, and the member with the lowest number becomes owner.
#[utoipa::path(delete, path = "/groups/{group}/members", operation_id = "remove_members", tag = "groups",
    params(("group" = Id, Path, description = "The group's number.")), request_body = Leaving,
    responses((status = 200, description = "They are out.", body = Changed), CallProblems))]
pub(super) async fn remove(
    State(api): State<Api>,
    headers: HeaderMap,
    group: Result<Path<String>, PathRejection>,
    members: Result<Json<Leaving>, JsonRejection>,
) -> Result<Json<Changed>, Problem> {
    let key = api.keys.allow(&headers, Scope::Groups)?;
    let group = GroupId(id_in_path(group)?);
    let users = users(members?.0.members)?;
    let changed = removed(&api, group, &users).await?;
    api.audit.record(&key, "members were removed", json!({"group": Id(group.0), "users": users.len()}));
    Ok(Json(changed))
}

/// Removes them, an owner last.
async fn removed(api: &Api, group: GroupId, users: &[UserId]) -> Result<Changed, Problem> {
    let mut last = None;
    loop {
        let mut owner_goes = false;
        let changed = as_owner(api, group, Adding::All, |roster, owner| {
            let others: Vec<UserId> = users.iter().copied().filter(|user| *user != owner).collect();
            let any_left = others.iter().any(|user| roster.role(*user).is_some());
            owner_goes = users.contains(&owner);
            if owner_goes && !any_left { GroupChange::Leave(group) } else { GroupChange::Remove(group, others) }
        })
        .await;
        match (changed, last.take()) {
            // Nobody was left when the last owner had gone.
            (Err(problem), Some(before)) if problem == Problem::unknown_group() => {
                last = Some(before);
                break;
            }
            (Err(problem), _) => return Err(problem),
            (Ok(changed), _) => last = Some(changed),
        }
        if !owner_goes {
            break;
        }
    }
    last.ok_or_else(Problem::no_answer)
}

/// Deletes a group: nobody is in it any more.
#[utoipa::path(delete, path = "/groups/{group}", operation_id = "delete_group", tag = "groups",
    params(("group" = Id, Path, description = "The group's number.")),
    responses((status = 200, description = "It is gone.", body = Changed), CallProblems))]
pub(super) async fn delete(
    State(api): State<Api>,
    headers: HeaderMap,
    group: Result<Path<String>, PathRejection>,
) -> Result<Json<Changed>, Problem> {
    let key = api.keys.allow(&headers, Scope::Groups)?;
    let group = GroupId(id_in_path(group)?);
    let deleted = deleted(&api, group).await?;
    api.audit.record(&key, "a group was deleted", json!({"group": Id(group.0)}));
    Ok(Json(deleted))
}

/// Removes whoever is in it.
pub(super) async fn deleted(api: &Api, group: GroupId) -> Result<Changed, Problem> {
    let mut last = None;
    // Others may be added meanwhile.
    for _ in 0..API_OWNERS_TRIED {
        let members = match roster(api, group).await {
            Ok(roster) => roster.members().iter().map(|member| member.user).collect::<Vec<_>>(),
            Err(problem) if problem == Problem::unknown_group() && last.is_some() => break,
            Err(problem) => return Err(problem),
        };
        last = Some(removed(api, group, &members).await?);
    }
    last.ok_or_else(Problem::no_answer)
}

/// Makes these the members of a group: who is missing is added, then who is not named is removed.
///
/// An owner who is not named goes last, and the member with the lowest number becomes owner. Sent again, it changes nothing.
#[utoipa::path(put, path = "/groups/{group}/members", operation_id = "replace_members", tag = "groups",
    params(("group" = Id, Path, description = "The group's number.")), request_body = Joining,
    responses((status = 200, description = "They are its members.", body = Changed), CallProblems))]
pub(super) async fn replace(
    State(api): State<Api>,
    headers: HeaderMap,
    group: Result<Path<String>, PathRejection>,
    members: Result<Json<Joining>, JsonRejection>,
) -> Result<Json<Changed>, Problem> {
    let key = api.keys.allow(&headers, Scope::Groups)?;
    let group = GroupId(id_in_path(group)?);
    let Json(Joining { members, best_effort }) = members?;
    let users = users(members)?;
    let Changed { left_out, mut version, .. } =
        as_owner(&api, group, adding(best_effort), |_, _| GroupChange::Add(group, users.clone())).await?;
    let named: HashSet<UserId> = users.iter().copied().collect();
    let roster = roster(&api, group).await?;
    let gone: Vec<UserId> =
        roster.members().iter().map(|member| member.user).filter(|user| !named.contains(user)).collect();
    if !gone.is_empty() {
        version = removed(&api, group, &gone).await?.version;
    }
    api.audit.record(&key, "members were replaced", json!({"group": Id(group.0), "users": users.len()}));
    Ok(Json(Changed { group: Id(group.0), version, left_out }))
}

async fn roster(api: &Api, group: GroupId) -> Result<Arc<Roster>, Problem> {
    match api.dispatcher.ask_one(Question::Roster(group)).await? {
        Answer::Roster(roster) => Ok(roster),
        _ => Err(Problem::no_answer()),
    }
}

/// A change in the owner's name, whoever that is by now.
async fn as_owner(
    api: &Api,
    group: GroupId,
    adding: Adding,
    mut change: impl FnMut(&Roster, UserId) -> GroupChange,
) -> Result<Changed, Problem> {
    let mut refused = Problem::unknown_group();
    for _ in 0..API_OWNERS_TRIED {
        let Answer::Roster(roster) = api.dispatcher.ask_one(Question::Roster(group)).await? else {
            return Err(Problem::no_answer());
        };
        let Some(owner) = roster.members().iter().find(|member| member.role == Role::Owner) else {
            return Err(Problem::unknown_group());
        };
        let change = change(&roster, owner.user);
        match api.dispatcher.ask_one(Question::Change { actor: owner.user, change, adding }).await {
            Ok(answer) => return changed(answer),
            Err(problem)
                if [Problem::refused(ErrorCode::NotAllowed, 0), Problem::refused(ErrorCode::NotAMember, 0)]
                    .contains(&problem) =>
            {
                refused = problem;
            }
            Err(problem) => return Err(problem),
        }
    }
    Err(refused)
}

fn changed(answer: Answer) -> Result<Changed, Problem> {
    match answer {
        Answer::Changed(group, version, left_out) => {
            let left_out = left_out.into_iter().map(|user| Id(user.0)).collect();
            Ok(Changed { group: Id(group.0), version: version.0, left_out })
        }
        Answer::Failed(problem) => Err(problem),
        _ => Err(Problem::no_answer()),
    }
}

fn adding(best_effort: bool) -> Adding {
    if best_effort { Adding::BestEffort } else { Adding::All }
}

fn users(ids: Vec<Id>) -> Result<Vec<UserId>, Problem> {
    match ids.len() {
        0 => Err(Problem::bad_request("members is empty")),
        1..=GROUP_MEMBERS_MAX => Ok(ids.into_iter().map(|id| UserId(id.0)).collect()),
        _ => Err(Problem::refused(ErrorCode::TooManyMembers, 0)),
    }
}
