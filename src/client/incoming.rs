//! What comes from the gateway, borrowed from the frame it came in.
//!
//! Made by [`crate::Session`]. What always holds: it was read from a verified frame, and the session's cursor has
//! been moved already.

use std::fmt;

use ringway_wire::request::{PushView, Reply};

use crate::{CloseReason, ErrorCode, MsgId, Seq, UserId};

/// A request's number, chosen by the client and echoed by the answer; 0 belongs to what nobody asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct RequestId(pub u32);

impl RequestId {
    /// The number of the request at this place among those that somebody numbers from 0: none is 0.
    pub fn of_index(index: u32) -> RequestId {
        RequestId(index.wrapping_add(1).max(1))
    }

    /// The place of the request; `None`: nobody asked.
    pub fn index(self) -> Option<u32> {
        self.0.checked_sub(1)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What `LoginOk` said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoginInfo {
    /// The gateway's name for the session, for logs.
    pub session: u64,
    /// Who we are, by the token.
    pub user: UserId,
    /// Something must be sent at least this often, milliseconds.
    pub heartbeat_ms: u32,
    /// The user's newest row at that moment.
    pub last_seq: Seq,
    /// The next row is the one after this.
    pub from_seq: Seq,
}

/// One frame from the gateway, read.
#[derive(Clone, Debug)]
pub enum Incoming<'a> {
    /// The session has begun.
    LoggedIn(LoginInfo),
    /// The inbox's next row.
    Row(PushView<'a>),
    /// A row that is here already.
    Repeated(PushView<'a>),
    /// An ephemeral message: no row.
    Ephemeral(PushView<'a>),
    /// Rows that are no longer kept; the cursor is now `to`.
    Gap {
        /// The first of them.
        from: Seq,
        /// The last of them.
        to: Seq,
    },
    /// A message of ours is durable.
    Sent(SendAnswer),
    /// A request was refused; the connection stays.
    Refused(Refusal<'a>),
    /// The connection's last frame.
    Closing(ClosingInfo<'a>),
    /// Any other answer, and `GroupChanged`.
    Other {
        /// The request that it answers.
        request: RequestId,
        /// What it says.
        reply: Reply<'a>,
    },
}

/// What a row's number in a `SendOk` means for the cursor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OwnRow {
    /// This is the inbox's next row; no push follows.
    Next,
    /// Only the answer: the row comes, or came, as a push.
    NotNext,
}

/// `SendOk`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendAnswer {
    /// The request that it answers.
    pub request: RequestId,
    /// The message's number for everybody.
    pub msg_id: MsgId,
    /// The sender's own row; 0 for an ephemeral message.
    pub seq: Seq,
    /// The gateway's time, Unix milliseconds.
    pub sent_at_ms: u64,
    /// The message was stored before; the numbers are the first ones.
    pub repeat: bool,
    /// Whether it is also the inbox's next row.
    pub row: OwnRow,
}

/// `Error`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal<'a> {
    /// The request that was refused.
    pub request: RequestId,
    /// As the schema names it; it says whether asking again can help.
    pub code: ErrorCode,
    /// In the gateway's words, for people.
    pub message: &'a str,
    /// When the same may be sent again, milliseconds from now; 0: not unchanged.
    pub retry_after_ms: u32,
}

/// `Closing`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClosingInfo<'a> {
    /// As the schema names it; it decides what a client may do next.
    pub reason: CloseReason,
    /// In the gateway's words, for people.
    pub message: &'a str,
    /// When to come back, milliseconds; `None`: not by itself.
    pub reconnect_after_ms: Option<u32>,
}

impl Incoming<'_> {
    /// The request that this answers; `None` for what nobody asked for, and for `LoginOk`.
    pub fn request(&self) -> Option<RequestId> {
        let request = match self {
            Incoming::Sent(sent) => sent.request,
            Incoming::Refused(refusal) => refusal.request,
            Incoming::Other { request, .. } => *request,
            Incoming::LoggedIn(_)
            | Incoming::Row(_)
            | Incoming::Repeated(_)
            | Incoming::Ephemeral(_)
            | Incoming::Gap { .. }
            | Incoming::Closing(_) => RequestId(0),
        };
        Some(request).filter(|request| request.0 != 0)
    }
}
