//! What a caller is told that cannot have what it wants: RFC 9457's problem+json.
//!
//! What always holds: `code` is the wire's name for it where the wire has one; `retry_after_ms`, and the header
//! `Retry-After`, are there exactly if the same call may succeed later.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ringway_wire::ids::UserId;
use ringway_wire::schema::ErrorCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::ids::Id;
use crate::limits::RETRY_AFTER_MS;

/// Why a call failed, or one of the messages of a call.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[schema(as = Failure)]
pub(crate) struct Problem {
    /// The status of the answer.
    #[serde(skip)]
    pub(crate) status: StatusCode,
    /// A name that programs can compare.
    pub(crate) code: &'static str,
    /// A sentence for people.
    #[serde(rename = "message")]
    pub(crate) detail: String,
    /// When the same call may succeed, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retry_after_ms: Option<u32>,
    /// Because of whom, of those whom the call named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) users: Vec<Id>,
}

/// Why a call failed (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Document<'a> {
    /// `about:blank`: `code` tells problems apart.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The answer's status.
    status: u16,
    /// A sentence for people.
    detail: &'a str,
    /// A name that programs can compare: the wire protocol's, where it has one.
    code: &'static str,
    /// When the same call may succeed, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u32>,
    /// Because of whom, of those whom the call named.
    #[serde(skip_serializing_if = "<[Id]>::is_empty")]
    users: &'a [Id],
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Problem {
        Problem { status, code, detail: detail.into(), retry_after_ms: None, users: Vec::new() }
    }

    fn later(status: StatusCode, code: &'static str, detail: impl Into<String>, after_ms: u32) -> Problem {
        Problem { retry_after_ms: Some(after_ms), ..Problem::new(status, code, detail) }
    }

    /// Something in the request is missing or out of its range.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "BadRequest", detail)
    }

    /// No key, or one that nobody has.
    pub(super) fn unauthorized() -> Problem {
        let detail = "this call needs the header `Authorization: Bearer KEY` with a key of the file api.keys_file";
        Problem::new(StatusCode::UNAUTHORIZED, "Unauthorized", detail)
    }

    /// The key may do other things.
    pub(super) fn forbidden(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, "Forbidden", detail)
    }

    /// There is no such call.
    pub(super) fn unknown_path() -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "UnknownPath", "there is no such call in this API")
    }

    /// There is no broadcast of this name.
    pub(crate) fn unknown_broadcast() -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "UnknownBroadcast", "there is no broadcast of this name")
    }

    /// There is no endpoint of this name.
    pub(crate) fn unknown_webhook() -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "UnknownWebhook", "there is no webhook of this name")
    }

    /// There is no message of this number.
    pub(super) fn unknown_message() -> Problem {
        let detail = "there is no message of this number, or it is no longer kept";
        Problem::new(StatusCode::NOT_FOUND, "UnknownMessage", detail)
    }

    /// There is one of another method.
    pub(super) fn method() -> Problem {
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "this path is called by another method")
    }

    /// The gateway starts or stops.
    pub(crate) fn not_serving() -> Problem {
        let detail = "the gateway is starting or stopping";
        Problem::later(StatusCode::SERVICE_UNAVAILABLE, "NotServing", detail, 1_000)
    }

    /// As many requests are open as may be.
    pub(crate) fn too_many() -> Problem {
        let detail = "as many requests of this API are open as may be";
        Problem::later(StatusCode::SERVICE_UNAVAILABLE, "RetryLater", detail, RETRY_AFTER_MS)
    }

    /// No answer came from within in time. What was asked for may happen all the same.
    pub(crate) fn no_answer() -> Problem {
        let detail = "there was no answer in time; what was asked for may have happened, and asking again makes no second one \
                      of a message with the same client_msg_id";
        Problem::later(StatusCode::GATEWAY_TIMEOUT, "NoAnswer", detail, RETRY_AFTER_MS)
    }

    /// The database cannot be read now.
    pub(super) fn store_unavailable() -> Problem {
        let detail = "the database cannot be read now";
        Problem::later(StatusCode::SERVICE_UNAVAILABLE, "StoreUnavailable", detail, 1_000)
    }

    /// The same because of these.
    pub(super) fn naming(self, users: &[UserId]) -> Problem {
        Problem { users: users.iter().map(|user| Id(user.0)).collect(), ..self }
    }

    /// There is no such group.
    pub(super) fn unknown_group() -> Problem {
        Problem::refused(ErrorCode::UnknownGroup, 0)
    }

    /// What a session would be told.
    pub(super) fn refused(code: ErrorCode, retry_after_ms: u32) -> Problem {
        let (status, detail) = match code {
            ErrorCode::RetryLater => (StatusCode::SERVICE_UNAVAILABLE, "a queue is at its limit; nothing was stored"),
            ErrorCode::StorageFull => (
                StatusCode::INSUFFICIENT_STORAGE,
                "the journal is at its limit or the disk is full; nothing was stored",
            ),
            ErrorCode::UnknownGroup => (StatusCode::NOT_FOUND, "there is no such group"),
            ErrorCode::NotAMember => (StatusCode::FORBIDDEN, "the user is no member of the group"),
            ErrorCode::NotAllowed => {
                (StatusCode::FORBIDDEN, "only the group's owner may do this, or whom the operator lets do it")
            }
            ErrorCode::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "a body has at most 16384 bytes"),
            ErrorCode::ClientMsgIdInvalid => (StatusCode::BAD_REQUEST, "client_msg_id is not a UUIDv7"),
            ErrorCode::ClientMsgIdAhead => {
                (StatusCode::BAD_REQUEST, "client_msg_id lies more than 5 s ahead of the gateway's clock")
            }
            ErrorCode::ClientMsgIdReused => {
                (StatusCode::CONFLICT, "client_msg_id was used before, with another body or another conversation")
            }
            ErrorCode::TooManyMembers => (StatusCode::BAD_REQUEST, "a group has at most 5000 members"),
            ErrorCode::TooManyGroups => (StatusCode::CONFLICT, "somebody is in as many groups as anybody may be"),
            _ => (StatusCode::BAD_REQUEST, "the gateway refused it"),
        };
        let code = code.variant_name().unwrap_or("BadRequest");
        match retry_after_ms {
            0 => Problem::new(status, code, detail),
            after => Problem::later(status, code, detail, after),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = Document {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Problem"),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
            retry_after_ms: self.retry_after_ms,
            users: &self.users,
        };
        // Strings and numbers: nothing that JSON has not.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(after_ms) = self.retry_after_ms {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after_ms.div_ceil(1_000)));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Problem {
        let code = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => "RequestTooLarge",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "UnsupportedMediaType",
            _ => "BadRequest",
        };
        let status = match rejection.status() {
            StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
            status => status,
        };
        Problem::new(status, code, rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Problem {
        Problem::bad_request(rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Problem {
        Problem::bad_request(rejection.body_text())
    }
}
