//! The settings over the API: what is in force and where it came from, and what is to be otherwise from now on.
//!
//! On control's thread; the main thread owns them and is asked. What always holds: what is secret is not shown; a change holds
//! as a whole or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ReloadSignal;
use crate::api::audit::Audit;
use crate::api::keys::{Keys, Scope};
use crate::api::openapi::{CallProblems, ReadProblems};
use crate::api::problem::Problem;
use crate::limits::API_ANSWER_MS;

/// All settings.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, ToSchema)]
pub(crate) struct SettingsShown {
    /// Grows with each change.
    pub(crate) generation: u64,
    /// By key, in the order of the documentation.
    pub(crate) settings: Vec<Setting>,
}

/// One setting.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub(crate) struct Setting {
    /// Its key.
    pub(crate) setting: &'static str,
    /// What is in force; of a secret `(hidden)`.
    pub(crate) value: String,
    /// `default`, the file, the environment's variable, the command line, or the API and its key.
    pub(crate) origin: String,
    /// `now`, while the gateway runs; `at_reload`, when the files are read again; or `at_start`.
    pub(crate) changes: &'static str,
    /// What the files say, and what holds from the next start on; absent: the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_value: Option<String>,
    /// What it says.
    pub(crate) about: &'static str,
}

/// Settings are to be otherwise. Dropped: the caller is told that nothing came in time.
#[derive(Debug)]
pub(crate) struct SettingsWish {
    /// By key; `None`: what the files say.
    pub(crate) values: BTreeMap<String, Option<String>>,
    /// The key that the API was called with.
    pub(crate) by: String,
    /// What is in force since, or why nothing has changed.
    pub(crate) answer: oneshot::Sender<Result<Arc<SettingsShown>, String>>,
}

/// Values by key.
#[derive(Deserialize)]
#[serde(transparent)]
struct NewSettings(BTreeMap<String, Option<NewValue>>);

impl PartialSchema for NewSettings {
    fn schema() -> RefOr<Schema> {
        let of = |kind| ObjectBuilder::new().schema_type(kind);
        let value = OneOfBuilder::new().item(of(Type::String)).item(of(Type::Integer)).item(of(Type::Null));
        of(Type::Object).additional_properties(Some(Schema::from(value))).build().into()
    }
}

impl ToSchema for NewSettings {}

/// A text or a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum NewValue {
    Text(String),
    Number(u64),
}

/// What these calls need.
#[derive(Clone)]
pub(crate) struct SettingsCalls {
    /// Who may call.
    pub(crate) keys: Arc<Keys>,
    /// Keeps what was changed.
    pub(crate) audit: Audit,
    /// What is in force.
    pub(crate) shown: watch::Receiver<Arc<SettingsShown>>,
    /// To the main thread.
    pub(crate) wishes: crossbeam_channel::Sender<ReloadSignal>,
}

/// The calls.
pub(crate) fn routes(calls: SettingsCalls) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(show, change)).with_state(calls)
}

/// The settings that are in force.
#[utoipa::path(get, path = "/config", operation_id = "read_config", tag = "gateway",
    responses((status = 200, description = "They are these.", body = SettingsShown), ReadProblems))]
async fn show(State(calls): State<SettingsCalls>, headers: HeaderMap) -> Result<Json<SettingsShown>, Problem> {
    calls.keys.allow(&headers, Scope::Operate)?;
    Ok(Json(SettingsShown::clone(&calls.shown.borrow())))
}

/// Changes settings while the gateway runs, all or none.
///
/// `null` takes back what was said so before. What is said holds until then, or until the gateway ends.
#[utoipa::path(patch, path = "/config", operation_id = "change_config", tag = "gateway", request_body = NewSettings,
    responses((status = 200, description = "All of it is in force.", body = SettingsShown), CallProblems))]
async fn change(
    State(calls): State<SettingsCalls>,
    headers: HeaderMap,
    new: Result<Json<NewSettings>, JsonRejection>,
) -> Result<Json<SettingsShown>, Problem> {
    let key = calls.keys.allow(&headers, Scope::Operate)?;
    let Json(NewSettings(new)) = new?;
    let text = |value| match value {
        NewValue::Text(text) => text,
        NewValue::Number(number) => number.to_string(),
    };
    let values: BTreeMap<String, Option<String>> =
        new.into_iter().map(|(name, value)| (name, value.map(text))).collect();
    let (answer, answered) = oneshot::channel();
    let wish = SettingsWish { values: values.clone(), by: key.to_string(), answer };
    calls.wishes.try_send(ReloadSignal::Wish(wish)).map_err(|_| Problem::too_many())?;
    match timeout(Duration::from_millis(API_ANSWER_MS), answered).await {
        Ok(Ok(Ok(shown))) => {
            calls.audit.record(&key, "settings were changed", json!({"settings": values}));
            Ok(Json(SettingsShown::clone(&shown)))
        }
        Ok(Ok(Err(why))) => Err(Problem::bad_request(why)),
        Ok(Err(_)) => Err(Problem::not_serving()),
        Err(_) => Err(Problem::no_answer()),
    }
}
