//! The OpenAPI document: generated from the calls, so that it says what they take and what they answer.
//!
//! Made once, at start. What always holds: every status that a call may be answered with is in it, since the sets of problems
//! below are declared beside each call; anybody may read it, for it says nothing of what is stored.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, ResponseBuilder, Server,
};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

use super::ids::Id;
use super::problem::Document;

/// The name of the way in which a call shows its key.
const KEY: &str = "key";
/// What a problem's body is.
const PROBLEM: &str = "application/problem+json";

/// The document before any call is in it.
pub(super) fn empty() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Ringway")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Messages in any user's name, groups, inboxes, who is online, and what an operator sees. Numbers of users, \
             groups, messages and rows are strings of digits, because they have 64 bits.",
        ))
        .build();
    let key = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A key of the file `api.keys_file`; without such a file none is asked for on this machine."))
        .build();
    let components = ComponentsBuilder::new()
        .security_scheme(KEY, SecurityScheme::Http(key))
        .schema_from::<Document<'static>>()
        .schema_from::<Id>()
        .build();
    OpenApiBuilder::new()
        .info(info)
        .servers(Some([Server::new("/api/v1")]))
        .components(Some(components))
        // Without a file of keys none is asked for.
        .security(Some([SecurityRequirement::new(KEY, [""; 0]), SecurityRequirement::default()]))
        .build()
}

/// The document, as it is answered.
pub(super) fn answer(document: &Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document.clone()).into_response()
}

/// The problems of calls that only read, and take nothing but a path and a query.
pub(crate) struct ReadProblems;

/// The problems of calls that take a body, or change something.
pub(crate) struct CallProblems;

impl IntoResponses for ReadProblems {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        problems(&[400, 401, 403, 404, 503, 504])
    }
}

impl IntoResponses for CallProblems {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        problems(&[400, 401, 403, 404, 409, 413, 415, 503, 504, 507])
    }
}

fn problems(statuses: &[u16]) -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
    let response = |status: &u16| {
        let body = Ref::from_schema_name(Document::name());
        let response = ResponseBuilder::new()
            .description(description(*status))
            .content(PROBLEM, ContentBuilder::new().schema(Some(body)).build());
        let response = match status {
            401 => response.header("WWW-Authenticate", text("`Bearer`")),
            503 | 504 => response.header("Retry-After", text("Seconds after which the same call may succeed.")),
            _ => response,
        };
        (status.to_string(), RefOr::T(response.build()))
    };
    statuses.iter().map(response).collect()
}

fn text(description: &str) -> Header {
    let schema = ObjectBuilder::new().schema_type(Type::String).build();
    HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()
}

fn description(status: u16) -> &'static str {
    match status {
        400 => "The call makes no sense as it is; `detail` says why.",
        401 => "There is no key, or one that nobody has.",
        403 => "The key, or the user, may not do this.",
        404 => "What the call is about is not there.",
        409 => "It contradicts what is there.",
        413 => "The body, or the request, is too large.",
        415 => "The body is not `application/json`.",
        503 => "Not now: later the same call may succeed.",
        504 => "Nothing came from within in time; what was asked for may have happened.",
        _ => "There is no room to store it.",
    }
}

impl PartialSchema for Id {
    fn schema() -> RefOr<utoipa::openapi::Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some("^(0|[1-9][0-9]{0,19})$"))
            .description(Some("A number of 64 bits, without a sign, in decimal digits."))
            .examples(["42"])
            .build()
            .into()
    }
}

impl ToSchema for Id {}
