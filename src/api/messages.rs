//! `POST /messages`: one message, or up to a thousand, in any users' names.
//!
//! What always holds: what is answered with a `msg_id` is durable, unless it was to be ephemeral; messages of one call from one sender are numbered in
//! the order in which they stand; sent again under the same `client_msg_id`, a message is the same message.

use std::fmt;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ringway_wire::ids::{ClientMsgId, Conversation, GroupId, UserId};
use ringway_wire::limits::BODY_BYTES_MAX;
use ringway_wire::request::{Durability, Taken};
use ringway_wire::schema::ErrorCode;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::openapi::schema::{ArrayBuilder, OneOfBuilder, Schema};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::Api;
use super::dispatch::{Answer, Question};
use super::ids::Id;
use super::keys::Scope;
use super::openapi::CallProblems;
use super::problem::Problem;
use crate::contract::keyed::unguessable;
use crate::limits::API_MESSAGES_MAX;

/// One message or several.
pub(super) enum Posts {
    One(Post),
    Several(Vec<Post>),
}

/// As it is read, and with the limit that it is read with.
impl PartialSchema for Posts {
    fn schema() -> RefOr<Schema> {
        let one = || Ref::from_schema_name(Post::name());
        let several = ArrayBuilder::new().items(one()).min_items(Some(1)).max_items(Some(API_MESSAGES_MAX));
        OneOfBuilder::new().item(one()).item(several).into()
    }
}

impl ToSchema for Posts {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Post::name().into_owned(), Post::schema()));
        Post::schemas(schemas);
    }
}

impl<'de> Deserialize<'de> for Posts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Posts, D::Error> {
        struct OneOrSeveral;
        impl<'de> Visitor<'de> for OneOrSeveral {
            type Value = Posts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a message, or an array of messages")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Posts, A::Error> {
                Post::deserialize(MapAccessDeserializer::new(map)).map(Posts::One)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut posts: A) -> Result<Posts, A::Error> {
                let mut several = Vec::new();
                while let Some(post) = posts.next_element()? {
                    // One too many says that there are too many; more need no room.
                    if several.len() <= API_MESSAGES_MAX {
                        several.push(post);
                    }
                }
                Ok(Posts::Several(several))
            }
        }
        deserializer.deserialize_any(OneOrSeveral)
    }
}

/// A message to be sent: with a text or a body.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Post {
    /// The user in whose name it is sent.
    from: Id,
    to: Address,
    /// A UUIDv7: sent again under the same name, it is the same message.
    client_msg_id: Option<String>,
    /// Base64 of 1 to 16,384 bytes.
    body: Option<String>,
    /// 1 to 16,384 bytes of UTF-8.
    text: Option<String>,
    /// To whoever is online now, and neither numbered nor stored.
    #[serde(default)]
    ephemeral: bool,
}

/// A user or a group.
#[derive(Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Address {
    /// One user.
    User(Id),
    /// The members of a group.
    Group(Id),
}

impl From<Address> for Conversation {
    fn from(address: Address) -> Conversation {
        match address {
            Address::User(user) => Conversation::User(UserId(user.0)),
            Address::Group(group) => Conversation::Group(GroupId(group.0)),
        }
    }
}

impl From<Conversation> for Address {
    fn from(conversation: Conversation) -> Address {
        match conversation {
            Conversation::User(user) => Address::User(Id(user.0)),
            Conversation::Group(group) => Address::Group(Id(group.0)),
        }
    }
}

/// A message that is stored, or, if it is ephemeral, has gone out.
#[derive(Serialize, ToSchema)]
pub(super) struct Sent {
    msg_id: Id,
    /// Unix milliseconds.
    sent_at_ms: u64,
    /// Whether it was there before.
    repeat: bool,
}

/// What came of a message.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Outcome {
    Sent(Sent),
    Failed(Problem),
}

/// What came of one message, or of each of several, in their order.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Outcomes {
    One(Sent),
    Several(Vec<Outcome>),
}

/// Sends one message, or up to 1,000, in any users' names.
///
/// The answer comes when they are durable; an ephemeral one is answered when it has gone out. An array is answered with an array.
#[utoipa::path(post, path = "/messages", operation_id = "send_messages", tag = "messages", request_body = Posts,
    responses((status = 200, description = "What came of them.", body = Outcomes), CallProblems))]
pub(super) async fn post(
    State(api): State<Api>,
    headers: HeaderMap,
    posts: Result<Json<Posts>, JsonRejection>,
) -> Result<Json<Outcomes>, Problem> {
    let key = api.keys.allow(&headers, Scope::Send)?;
    let Json(posts) = posts?;
    match posts {
        Posts::One(post) => {
            let answer = api.dispatcher.ask_one(question(&api, post)?).await?;
            tracing::debug!(key = &*key, messages = 1, "api: messages were sent");
            match outcome(answer) {
                Outcome::Failed(problem) => Err(problem),
                Outcome::Sent(sent) => Ok(Json(Outcomes::One(sent))),
            }
        }
        Posts::Several(posts) if posts.is_empty() || posts.len() > API_MESSAGES_MAX => {
            Err(Problem::bad_request(format!("an array of 1 to {API_MESSAGES_MAX} messages is expected")))
        }
        Posts::Several(posts) => {
            let mut outcomes: Vec<Option<Outcome>> = Vec::with_capacity(posts.len());
            let mut questions = Vec::with_capacity(posts.len());
            for post in posts {
                match question(&api, post) {
                    Ok(question) => {
                        questions.push(question);
                        outcomes.push(None);
                    }
                    Err(problem) => outcomes.push(Some(Outcome::Failed(problem))),
                }
            }
            tracing::debug!(key = &*key, messages = questions.len(), "api: messages were sent");
            let answers = if questions.is_empty() { Vec::new() } else { api.dispatcher.ask(questions).await? };
            let mut answers = answers.into_iter().map(outcome);
            let all = outcomes.into_iter().filter_map(|known| known.or_else(|| answers.next())).collect();
            Ok(Json(Outcomes::Several(all)))
        }
    }
}

/// What a message says: a text, or a body in base64.
pub(crate) fn body_of(text: Option<String>, body: Option<String>) -> Result<Vec<u8>, Problem> {
    let body = match (text, body) {
        (Some(text), None) => text.into_bytes(),
        (None, Some(body)) => STANDARD.decode(body).map_err(|_| Problem::bad_request("body is not base64"))?,
        _ => return Err(Problem::bad_request("a message has either a text or a body")),
    };
    if body.is_empty() {
        return Err(Problem::bad_request("the body is empty"));
    }
    if body.len() > BODY_BYTES_MAX {
        return Err(Problem::refused(ErrorCode::BodyTooLarge, 0));
    }
    Ok(body)
}

fn question(api: &Api, post: Post) -> Result<Question, Problem> {
    let body = body_of(post.text, post.body)?;
    let client_msg_id = match post.client_msg_id {
        Some(text) => uuid(&text)
            .filter(|id| id.unix_ms().is_some())
            .ok_or_else(|| Problem::refused(ErrorCode::ClientMsgIdInvalid, 0))?,
        None => {
            let random = u128::from(unguessable()) << 64 | u128::from(unguessable());
            ClientMsgId::from_parts(api.clock.now().unix_ms, random)
        }
    };
    let durability = if post.ephemeral { Durability::Ephemeral } else { Durability::Durable };
    Ok(Question::Message { sender: UserId(post.from.0), to: post.to.into(), client_msg_id, body, durability })
}

/// `0190f5c2-7a3e-7c1d-8e2f-0123456789ab`, or the same without hyphens.
pub(crate) fn uuid(text: &str) -> Option<ClientMsgId> {
    let hyphens = text.bytes().enumerate().filter(|(_, byte)| *byte == b'-').map(|(at, _)| at);
    let digits = match text.len() {
        36 if hyphens.eq([8, 13, 18, 23]) => text.replace('-', ""),
        32 => text.to_owned(),
        _ => return None,
    };
    let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u128::from_str_radix(&digits, 16).ok().filter(|_| plain)?;
    Some(ClientMsgId(number.to_be_bytes()))
}

fn outcome(answer: Answer) -> Outcome {
    match answer {
        Answer::Numbered { msg_id, sent_at_ms, taken } => {
            Outcome::Sent(Sent { msg_id: Id(msg_id.0), sent_at_ms, repeat: taken == Taken::Before })
        }
        Answer::Failed(problem) => Outcome::Failed(problem),
        _ => Outcome::Failed(Problem::no_answer()),
    }
}

#[cfg(test)]
mod tests {
    use super::uuid;

    #[test]
    fn a_uuid_is_read_with_and_without_hyphens_and_nothing_else_is() {
        let id = uuid("0190f5c2-7a3e-7c1d-8e2f-0123456789ab");
        assert_eq!(id, uuid("0190f5c27a3e7c1d8e2f0123456789ab"));
        assert_eq!(id.and_then(|id| id.unix_ms()), Some(0x0190_f5c2_7a3e));
        for wrong in [
            "",
            "0190f5c27a3e7c1d8e2f0123456789a",
            "+190f5c27a3e7c1d8e2f0123456789ab",
            "0190f5c2-7a3e-7c1d-8e2f0-123456789ab",
        ] {
            assert_eq!(uuid(wrong), None, "{wrong}");
        }
    }
}
