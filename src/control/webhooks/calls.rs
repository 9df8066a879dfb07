//! What the API shows of webhooks, and what an operator can have done with one.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::status::Webhook;
use super::teller::TellerOrder;
use super::{Full, Webhooks};
use crate::api::audit::Audit;
use crate::api::keys::{Keys, Scope};
use crate::api::openapi::{CallProblems, ReadProblems};
use crate::api::problem::Problem;

/// What these calls need.
#[derive(Clone)]
pub(crate) struct WebhookCalls {
    /// Who may call.
    pub(crate) keys: Arc<Keys>,
    /// Keeps what was changed.
    pub(crate) audit: Audit,
    /// All of them.
    pub(crate) webhooks: Webhooks,
}

/// The endpoints.
#[derive(Serialize, ToSchema)]
struct WebhookList {
    webhooks: Vec<Webhook>,
}

/// From when on what happened is told again.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Since {
    /// Unix milliseconds.
    from_ms: u64,
}

/// An endpoint that goes on.
#[derive(Serialize, ToSchema)]
struct GoesOn {
    /// Its name.
    webhook: String,
}

/// The calls.
pub(crate) fn routes(calls: WebhookCalls) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(resume)).routes(routes!(play)).with_state(calls)
}

/// The endpoints that are told what happens, and how far each is.
#[utoipa::path(get, path = "/webhooks", operation_id = "list_webhooks", tag = "gateway",
    responses((status = 200, description = "They are these.", body = WebhookList), ReadProblems))]
async fn list(State(calls): State<WebhookCalls>, headers: HeaderMap) -> Result<Json<WebhookList>, Problem> {
    calls.keys.allow(&headers, Scope::Operate)?;
    Ok(Json(WebhookList { webhooks: calls.webhooks.shown() }))
}

/// Tries an endpoint now that is down, and switches one on that was off.
#[utoipa::path(post, path = "/webhooks/{webhook}/resume", operation_id = "resume_webhook", tag = "gateway",
    params(("webhook" = String, Path, description = "Its name.")),
    responses((status = 202, description = "It goes on.", body = GoesOn), CallProblems))]
async fn resume(
    State(calls): State<WebhookCalls>,
    headers: HeaderMap,
    name: Result<Path<String>, PathRejection>,
) -> Result<(StatusCode, Json<GoesOn>), Problem> {
    let key = calls.keys.allow(&headers, Scope::Operate)?;
    let Path(webhook) = name?;
    ordered(&calls.webhooks, &webhook, TellerOrder::Resume)?;
    calls.audit.record(&key, "a webhook was resumed", json!({"webhook": webhook}));
    Ok((StatusCode::ACCEPTED, Json(GoesOn { webhook })))
}

/// Tells an endpoint again what happened since then, as far back as the journal reaches.
#[utoipa::path(post, path = "/webhooks/{webhook}/play", operation_id = "play_webhook", tag = "gateway",
    params(("webhook" = String, Path, description = "Its name.")), request_body = Since,
    responses((status = 202, description = "It goes on from there.", body = GoesOn), CallProblems))]
async fn play(
    State(calls): State<WebhookCalls>,
    headers: HeaderMap,
    name: Result<Path<String>, PathRejection>,
    since: Result<Json<Since>, JsonRejection>,
) -> Result<(StatusCode, Json<GoesOn>), Problem> {
    let key = calls.keys.allow(&headers, Scope::Operate)?;
    let (Path(webhook), Json(Since { from_ms })) = (name?, since?);
    ordered(&calls.webhooks, &webhook, TellerOrder::PlayFrom(from_ms))?;
    calls.audit.record(&key, "a webhook is told again", json!({"webhook": webhook, "from_ms": from_ms}));
    Ok((StatusCode::ACCEPTED, Json(GoesOn { webhook })))
}

fn ordered(webhooks: &Webhooks, name: &str, order: TellerOrder) -> Result<(), Problem> {
    match webhooks.order(name, order) {
        Some(Ok(())) => Ok(()),
        Some(Err(Full)) => Err(Problem::too_many()),
        None => Err(Problem::unknown_webhook()),
    }
}
