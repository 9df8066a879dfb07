//! What a client hears, owned: the transports hand these out.
//!
//! Plain values. What always holds: rows come in the order of their numbers, each once.

use std::io;

use thiserror::Error;

use ringway_wire::deframer::DeframeError;
use ringway_wire::request::{PushView, Reply};

use crate::incoming::{Incoming, LoginInfo, OwnRow, RequestId};
use crate::session::SessionError;
use crate::{CloseReason, Conversation, ErrorCode, GroupChangeKind, GroupId, MsgId, Role, Seq, UserId};

/// Why a connection ended.
#[derive(Clone, PartialEq, Eq, Error, Debug)]
pub enum Cause {
    /// The gateway said so.
    #[error("the gateway closed the session: {reason:?}: {message}")]
    Closing {
        /// As the schema names it; it decides what a client may do next.
        reason: CloseReason,
        /// What the gateway adds, for people to read.
        message: String,
    },
    /// The gateway's end is closed.
    #[error("the gateway closed the connection")]
    Closed,
    /// The socket failed, or none could be made.
    #[error("the connection to the gateway failed: {0}")]
    Io(io::ErrorKind),
    /// What came does not fit the session.
    #[error(transparent)]
    Session(SessionError),
    /// What came is no frame.
    #[error(transparent)]
    Deframe(DeframeError),
    /// A login or a ping was not answered.
    #[error("the gateway gives no sign of life")]
    Silent,
}

/// A message as a recipient has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Its number in this inbox; 0: ephemeral.
    pub seq: Seq,
    /// The message.
    pub msg_id: MsgId,
    /// Who sent it.
    pub sender: UserId,
    /// Where it was addressed.
    pub to: Conversation,
    /// The gateway's time, Unix milliseconds.
    pub sent_at_ms: u64,
    /// What was said.
    pub body: Vec<u8>,
}

/// What came from the gateway, or became of the connection. See the schema for the fields.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the fields are the schema's")]
pub enum Event {
    /// The inbox's next row.
    Row(Row),
    /// An ephemeral message.
    Ephemeral(Row),
    /// A message of ours is durable. `row`: this is also the inbox's next row.
    Sent { request: RequestId, msg_id: MsgId, seq: Seq, sent_at_ms: u64, repeat: bool, row: bool },
    /// Rows that are no longer kept; the next row is the one after `to`.
    Gap { from: Seq, to: Seq },
    /// A page of history; the cursor does not move.
    Page { request: RequestId, rows: Vec<Row>, through: Seq, end: bool, gap_to: Option<Seq> },
    /// The answer to a ping.
    Pong { request: RequestId, server_time_ms: u64 },
    /// A group was made or changed.
    GroupOk { request: RequestId, group: GroupId, version: u32, left_out: Vec<UserId> },
    /// A group's members.
    GroupInfo { request: RequestId, group: GroupId, version: u32, members: Vec<(UserId, Role)> },
    /// Our groups: each with its version, our role, and how many members it has.
    GroupList { request: RequestId, groups: Vec<(GroupId, u32, Role, u32)> },
    /// Somebody changed a group of ours; `owner` owns it since.
    GroupChanged {
        group: GroupId,
        version: u32,
        kind: GroupChangeKind,
        actor: UserId,
        members: Vec<UserId>,
        owner: UserId,
    },
    /// Those asked for who are online.
    Presence { request: RequestId, online: Vec<UserId> },
    /// The session ends when its newer token expires.
    Refreshed { request: RequestId, expires_at_ms: u64 },
    /// A request was refused for good.
    Refused { request: RequestId, code: ErrorCode, message: String, retry_after_ms: u32 },
    /// A message was refused for now; it is sent again by itself.
    Delayed { request: RequestId, code: ErrorCode, message: String, retry_after_ms: u32 },
    /// The connection's last frame.
    Closing { reason: CloseReason, message: String, reconnect_after_ms: Option<u32> },
    /// The session has begun, for the first time or again.
    LoggedIn(LoginInfo),
    /// The connection was lost; it is made again by itself after so long.
    Disconnected { cause: Cause, reconnect_after_ms: u64 },
}

impl Event {
    /// The request that this answers; `None` for what nobody asked for.
    pub fn request(&self) -> Option<RequestId> {
        match self {
            Event::Sent { request, .. }
            | Event::Page { request, .. }
            | Event::Pong { request, .. }
            | Event::GroupOk { request, .. }
            | Event::GroupInfo { request, .. }
            | Event::GroupList { request, .. }
            | Event::Presence { request, .. }
            | Event::Refreshed { request, .. }
            | Event::Refused { request, .. } => Some(*request),
            Event::Row(_)
            | Event::Ephemeral(_)
            | Event::Gap { .. }
            | Event::GroupChanged { .. }
            | Event::Delayed { .. }
            | Event::Closing { .. }
            | Event::LoggedIn(_)
            | Event::Disconnected { .. } => None,
        }
    }

    /// The row that is here once the caller has this event.
    pub(crate) fn stored(&self) -> Option<Seq> {
        match self {
            Event::Row(row) => Some(row.seq),
            Event::Sent { seq, row: true, .. } => Some(*seq),
            Event::Gap { to, .. } => Some(*to),
            _ => None,
        }
    }
}

/// `None`: a row that is here already.
impl From<Incoming<'_>> for Option<Event> {
    fn from(incoming: Incoming<'_>) -> Option<Event> {
        Some(match incoming {
            Incoming::Repeated(_) => return None,
            Incoming::LoggedIn(info) => Event::LoggedIn(info),
            Incoming::Row(view) => Event::Row(Row::from(&view)),
            Incoming::Ephemeral(view) => Event::Ephemeral(Row::from(&view)),
            Incoming::Gap { from, to } => Event::Gap { from, to },
            Incoming::Sent(sent) => Event::Sent {
                request: sent.request,
                msg_id: sent.msg_id,
                seq: sent.seq,
                sent_at_ms: sent.sent_at_ms,
                repeat: sent.repeat,
                row: sent.row == OwnRow::Next,
            },
            Incoming::Refused(refusal) => Event::Refused {
                request: refusal.request,
                code: refusal.code,
                message: refusal.message.to_owned(),
                retry_after_ms: refusal.retry_after_ms,
            },
            Incoming::Closing(closing) => Event::Closing {
                reason: closing.reason,
                message: closing.message.to_owned(),
                reconnect_after_ms: closing.reconnect_after_ms,
            },
            Incoming::Other { request, reply } => return other(request, reply),
        })
    }
}

fn other(request: RequestId, reply: Reply<'_>) -> Option<Event> {
    match reply {
        Reply::Pong { server_time_ms } => Some(Event::Pong { request, server_time_ms }),
        Reply::SyncPage { rows, through, end, gap_to } => {
            Some(Event::Page { request, rows: rows.iter().map(Row::from).collect(), through, end, gap_to })
        }
        Reply::GroupOk { group, version, left_out } => Some(Event::GroupOk { request, group, version, left_out }),
        Reply::GroupInfo { group, version, members } => Some(Event::GroupInfo { request, group, version, members }),
        Reply::GroupList { groups } => Some(Event::GroupList { request, groups }),
        Reply::GroupChanged { group, version, kind, actor, members, owner } => {
            Some(Event::GroupChanged { group, version, kind, actor, members, owner })
        }
        Reply::Presence { online } => Some(Event::Presence { request, online }),
        Reply::RefreshOk { expires_at_ms } => Some(Event::Refreshed { request, expires_at_ms }),
        // The session has variants of its own for these.
        Reply::LoginOk { .. }
        | Reply::SendOk { .. }
        | Reply::Push(_)
        | Reply::Gap { .. }
        | Reply::Error { .. }
        | Reply::Closing { .. } => {
            debug_assert!(false, "the session reads this frame itself");
            None
        }
    }
}

impl From<&PushView<'_>> for Row {
    fn from(view: &PushView<'_>) -> Row {
        Row {
            seq: view.seq,
            msg_id: view.msg_id,
            sender: view.sender,
            to: view.to,
            sent_at_ms: view.sent_at_ms,
            body: view.body.to_vec(),
        }
    }
}
