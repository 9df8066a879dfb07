//! A message is followed: who sent it, where it is, which row of whose inbox it became, who was given it and who lacks it.
//!
//! What always holds: nothing is changed, and nothing was kept for it: rows are found by looking into inboxes, whose numbers rise
//! with the messages', and who has them follows from what sessions were given and devices have acknowledged; what is not known
//! now is absent. One page asks about `TRACE_RECIPIENTS_MAX` recipients.

mod rows;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use ringway_wire::ids::{Conversation, DeviceId, MsgId, Seq, UserId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::dispatch::{Answer, Question};
use super::ids::{self, Id};
use super::keys::Scope;
use super::messages::Address;
use super::openapi::ReadProblems;
use super::problem::Problem;
use super::users::id_in_path;
use crate::contract::ids::ShardId;
use crate::contract::look::{Look, SessionsSeen};
use crate::contract::store::{CursorRow, MessageFound, TraceAsk, Traced};
use crate::limits::TRACE_RECIPIENTS_MAX;

/// Which recipients.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Recipients {
    /// Those whose number is above this one; without it, from the lowest.
    #[param(value_type = Option<Id>)]
    after: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 50, default = 50)]
    limit: Option<usize>,
}

/// A message, and what became of it.
#[derive(Serialize, ToSchema)]
pub(super) struct Followed {
    msg_id: Id,
    from: Id,
    to: Address,
    /// The sender's name for it, a UUID.
    client_msg_id: String,
    /// When the ledger numbered it, Unix milliseconds.
    sent_at_ms: u64,
    body_bytes: u64,
    /// Where it is durable: `database`, or `journal` while the database does not have it yet.
    kept_in: &'static str,
    /// Where its record is in this node's journal, bytes from its beginning; absent: the database has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    journal_position: Option<Id>,
    /// The sender, and whom it was sent to: of a group, those who are members now. Absent: the group is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    recipients_count: Option<usize>,
    /// Some of them, by number.
    recipients: Vec<Recipient>,
    /// The `after` of the recipients behind these; absent: there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Id>,
    /// Endpoints that are told what happens.
    webhooks: Vec<WebhookSeen>,
}

/// Somebody whose inbox has it.
#[derive(Serialize, ToSchema)]
struct Recipient {
    user: Id,
    /// Its row there; absent: it was not found, because the user came later, the row is no longer kept, or cannot be read now.
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<Id>,
    /// Sessions on all nodes.
    sessions: Vec<SessionGiven>,
    /// Devices that have acknowledged it; absent: the store does not say now.
    #[serde(skip_serializing_if = "Option::is_none")]
    acknowledged: Option<Vec<Id>>,
    /// Devices that are known, and have not.
    #[serde(skip_serializing_if = "Option::is_none")]
    lacking: Option<Vec<Id>>,
}

/// A session of a recipient.
#[derive(Serialize, ToSchema)]
struct SessionGiven {
    device: Id,
    node: u16,
    /// Whether it was sent it, or had it before; absent: the session is on another node, or the row is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pushed: Option<bool>,
}

/// How far an endpoint has been told.
#[derive(Clone, Serialize, ToSchema)]
pub(crate) struct WebhookSeen {
    pub(crate) webhook: String,
    pub(crate) state: &'static str,
    /// Whether it is past this message: then it was told, if it was to be. Absent: it is behind, and nobody keeps by which
    /// messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) past: Option<bool>,
    /// Why the last request failed, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_failure: Option<String>,
}

/// Tells how far each endpoint is.
#[derive(Clone)]
pub(crate) struct WebhooksSeen(pub(crate) Arc<dyn Fn() -> Vec<WebhookSeen> + Send + Sync>);

impl fmt::Debug for WebhooksSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhooksSeen")
    }
}

/// Follows a message: who sent it, its rows, who was given it, who has acknowledged it and who lacks it.
#[utoipa::path(get, path = "/messages/{message}", operation_id = "follow_message", tag = "messages",
    params(("message" = Id, Path, description = "The message's number."), Recipients),
    responses((status = 200, description = "What is known.", body = Followed), ReadProblems))]
pub(super) async fn follow(
    State(api): State<Api>,
    headers: HeaderMap,
    message: Result<Path<String>, PathRejection>,
    recipients: Result<Query<Recipients>, QueryRejection>,
) -> Result<Json<Followed>, Problem> {
    api.keys.allow(&headers, Scope::Read)?;
    let msg_id = MsgId(id_in_path(message)?);
    let Query(Recipients { after, limit }) = recipients?;
    let after = match after {
        Some(text) => {
            Some(ids::parse(&text).ok_or_else(|| Problem::bad_request("after is no number of up to 64 bits"))?)
        }
        None => None,
    };
    let limit = limit.unwrap_or(TRACE_RECIPIENTS_MAX);
    if limit == 0 || limit > TRACE_RECIPIENTS_MAX {
        return Err(Problem::bad_request(format!("limit is 1 to {TRACE_RECIPIENTS_MAX}")));
    }
    let asked = Question::Trace(TraceAsk::Message(msg_id));
    let Answer::Traced(Traced::Message(found)) = api.dispatcher.ask_one(asked).await? else {
        return Err(Problem::no_answer());
    };
    let Some(MessageFound { head, journal }) = found else { return Err(Problem::unknown_message()) };
    let all = recipients_of(&api, head.sender, head.to).await?;
    let page: Vec<UserId> = match &all {
        Some(users) => users.iter().copied().filter(|user| after.is_none_or(|after| user.0 > after)).collect(),
        // Of a group that is no more, the sender is known.
        None => vec![head.sender],
    };
    let next = page.get(limit).and(page.get(limit - 1)).map(|user| Id(user.0));
    let page = page.get(..limit).unwrap_or(&page);
    let known = (head.sender_seq != Seq(0)).then_some((head.sender, head.sender_seq));
    let rows = rows::find(&api.dispatcher, msg_id, page, known).await?;
    Ok(Json(Followed {
        msg_id: Id(msg_id.0),
        from: Id(head.sender.0),
        to: head.to.into(),
        client_msg_id: uuid(&head.client_msg_id.0),
        sent_at_ms: msg_id.sent_at_ms(),
        body_bytes: head.body_bytes,
        kept_in: if journal.is_some() { "journal" } else { "database" },
        journal_position: journal.map(|at| Id(at.0)),
        recipients_count: all.map(|users| users.len()),
        recipients: given(&api, page, &rows).await?,
        next,
        webhooks: (api.webhooks.0)(),
    }))
}

/// By number; `None`: its group is not known.
async fn recipients_of(api: &Api, sender: UserId, to: Conversation) -> Result<Option<Vec<UserId>>, Problem> {
    let mut users = match to {
        Conversation::User(user) => vec![user],
        Conversation::Group(group) => match api.dispatcher.ask_one(Question::Roster(group)).await {
            Ok(Answer::Roster(roster)) => roster.members().iter().map(|member| member.user).collect(),
            Ok(_) => return Err(Problem::no_answer()),
            Err(problem) if problem.retry_after_ms.is_none() => return Ok(None),
            Err(problem) => return Err(problem),
        },
    };
    users.push(sender);
    users.sort_unstable();
    users.dedup();
    Ok(Some(users))
}

/// Who of them was given it.
async fn given(api: &Api, users: &[UserId], rows: &[Option<Seq>]) -> Result<Vec<Recipient>, Problem> {
    let home = |user: UserId| ShardId::of_user(user, api.dispatcher.shards());
    let mut questions: Vec<Question> =
        users.iter().map(|user| Question::Look(home(*user), Look::Sessions(*user))).collect();
    questions.push(Question::Trace(TraceAsk::Devices(users.to_vec())));
    let mut answers = api.dispatcher.ask(questions).await?;
    let cursors = match answers.pop() {
        Some(Answer::Traced(Traced::Devices(cursors))) => Some(cursors),
        _ => None,
    };
    let mut recipients = Vec::with_capacity(users.len());
    for ((user, row), answer) in users.iter().zip(rows).zip(answers) {
        let seen = match answer {
            Answer::Sessions(seen) => seen,
            Answer::Failed(problem) => return Err(problem),
            _ => return Err(Problem::no_answer()),
        };
        recipients.push(recipient(api.node, *user, *row, &seen, cursors.as_deref()));
    }
    Ok(recipients)
}

fn recipient(
    node: u16,
    user: UserId,
    row: Option<Seq>,
    seen: &SessionsSeen,
    cursors: Option<&[CursorRow]>,
) -> Recipient {
    let here = seen.here.iter().filter_map(|session| {
        let owner = session.owner?;
        let pushed = row.map(|row| owner.sent >= row);
        Some(SessionGiven { device: Id(owner.device.0), node, pushed })
    });
    let elsewhere = seen.elsewhere.iter().map(|remote| SessionGiven {
        device: Id(remote.device.0),
        node: remote.node,
        pushed: None,
    });
    let sessions: Vec<SessionGiven> = here.chain(elsewhere).collect();
    let (acknowledged, lacking) = match (row, cursors) {
        (Some(row), Some(cursors)) => {
            let mut devices: BTreeMap<DeviceId, Seq> =
                cursors.iter().filter(|it| it.user == user).map(|it| (it.device, it.seq)).collect();
            for session in &sessions {
                devices.entry(DeviceId(session.device.0)).or_default();
            }
            // What a shard knows is newer.
            for owner in seen.here.iter().filter_map(|session| session.owner) {
                let seq = devices.entry(owner.device).or_default();
                *seq = owner.acknowledged.unwrap_or_default().max(*seq);
            }
            let (has, lacks): (Vec<_>, Vec<_>) = devices.into_iter().partition(|(_, seq)| *seq >= row);
            let ids = |devices: Vec<(DeviceId, Seq)>| devices.into_iter().map(|(device, _)| Id(device.0)).collect();
            (Some(ids(has)), Some(ids(lacks)))
        }
        _ => (None, None),
    };
    Recipient { user: Id(user.0), seq: row.map(|row| Id(row.0)), sessions, acknowledged, lacking }
}

/// As people write them.
fn uuid(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_written_as_a_uuid() {
        let bytes = 0x0199_0000_0000_7000_8000_0000_0000_00ff_u128.to_be_bytes();
        assert_eq!(uuid(&bytes), "01990000-0000-7000-8000-0000000000ff");
    }
}
