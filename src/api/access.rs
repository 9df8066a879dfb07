//! A user's tokens are revoked: one by its name, or all that were issued before some time.
//!
//! What always holds: it is done as `ringway admin revoke` does it; the answer comes when it is on this node's disk and on its
//! way to the sessions, on whichever node they are.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use ringway_wire::ids::{DeviceId, UserId};
use ringway_wire::limits::TOKEN_BYTES_MAX;
use ringway_wire::schema::ErrorCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::Api;
use super::ids::Id;
use super::keys::Scope;
use super::openapi::CallProblems;
use super::problem::Problem;
use super::users::id_in_path;
use crate::auth::{TOKEN_TIME_MAX_S, token_id};
use crate::contract::access::TokenId;
use crate::limits::API_ANSWER_MS;

/// Asked of the thread that keeps who may log in. Dropped: the caller is told that nothing came in time.
#[derive(Debug)]
pub(crate) struct AccessAsk {
    /// About whom.
    pub(crate) user: UserId,
    /// What.
    pub(crate) asked: AccessAsked,
    /// What became of it.
    pub(crate) done: oneshot::Sender<AccessDone>,
}

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AccessAsked {
    /// Sessions are to end: the one of this device; `None`: all.
    Kick(Option<DeviceId>),
    /// This token is not to count any more; it expires at this Unix second.
    RevokeToken(TokenId, u64),
    /// Tokens issued before this Unix second are not to count; `None`: those that were issued up to now.
    RevokeBefore(Option<u64>),
}

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AccessDone {
    /// It is on its way to the user's sessions.
    Done,
    /// The token has expired.
    Expired,
    /// As much is stated as is kept.
    Full,
    /// It cannot be written to disk.
    NotKept,
}

/// Which tokens.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Revocation {
    /// The one with this claim `jti`; absent: all that were issued before some time.
    #[serde(default)]
    jti: Option<String>,
    /// When it expires, Unix seconds: until then this is kept; absent: for good.
    #[serde(default)]
    expires_at_s: Option<u64>,
    /// Without `jti`: the Unix second from which on issued tokens count; absent: the next one.
    #[serde(default)]
    before_s: Option<u64>,
}

/// They are revoked.
#[derive(Serialize, ToSchema)]
pub(super) struct Revoked {
    user: Id,
    revoked: bool,
}

/// Revokes a user's token, or all that were issued before some time, and ends the sessions that it concerns, on whichever node.
///
/// Their clients are told not to come back by themselves (`TokenRevoked`). The user may log in with another token.
#[utoipa::path(post, path = "/users/{user}/revocations", operation_id = "revoke_tokens", tag = "users",
    params(("user" = Id, Path, description = "The user's number.")), request_body = Revocation,
    responses((status = 200, description = "They are revoked.", body = Revoked), CallProblems))]
pub(super) async fn revoke(
    State(api): State<Api>,
    headers: HeaderMap,
    user: Result<Path<String>, PathRejection>,
    revocation: Result<Json<Revocation>, JsonRejection>,
) -> Result<Json<Revoked>, Problem> {
    let key = api.keys.allow(&headers, Scope::Operate)?;
    let user = UserId(id_in_path(user)?);
    let Json(revocation) = revocation?;
    let asked = match revocation {
        Revocation { jti: Some(jti), expires_at_s, before_s: None } => {
            if jti.is_empty() || jti.len() > TOKEN_BYTES_MAX {
                return Err(Problem::bad_request("jti is empty, or longer than a token may be"));
            }
            AccessAsked::RevokeToken(token_id(&jti), expires_at_s.unwrap_or(TOKEN_TIME_MAX_S))
        }
        Revocation { jti: None, expires_at_s: None, before_s } => AccessAsked::RevokeBefore(before_s),
        _ => return Err(Problem::bad_request("expires_at_s goes with jti, and before_s without it")),
    };
    api.ask_access(user, asked).await?;
    let what = match asked {
        AccessAsked::RevokeToken(token, until_s) => json!({"token": format!("{:016x}", token.0), "until_s": until_s}),
        AccessAsked::RevokeBefore(before_s) => json!({"before_s": before_s}),
        AccessAsked::Kick(_) => json!({}),
    };
    api.audit.record(&key, "tokens were revoked", json!({"user": Id(user.0), "which": what}));
    Ok(Json(Revoked { user: Id(user.0), revoked: true }))
}

impl Api {
    /// Has the thread that keeps who may log in do something; an error: it did not, or nobody knows.
    pub(super) async fn ask_access(&self, user: UserId, asked: AccessAsked) -> Result<(), Problem> {
        let (done, became) = oneshot::channel();
        self.access.try_send(AccessAsk { user, asked, done }).map_err(|_| Problem::too_many())?;
        match timeout(Duration::from_millis(API_ANSWER_MS), became).await {
            Ok(Ok(AccessDone::Done)) => Ok(()),
            Ok(Ok(AccessDone::Expired)) => Err(Problem::bad_request("the token has expired by expires_at_s")),
            Ok(Ok(AccessDone::Full | AccessDone::NotKept)) => Err(Problem::refused(ErrorCode::StorageFull, 0)),
            Ok(Err(_)) => Err(Problem::not_serving()),
            Err(_) => Err(Problem::no_answer()),
        }
    }
}
