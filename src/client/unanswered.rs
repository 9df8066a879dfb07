//! Messages that are kept until the gateway has answered them for good.
//!
//! Part of a client; a connection's end does not touch it. What always holds: a message keeps its `client_msg_id` and
//! its request's number through refusals and reconnects (only a name that lies in the future is made anew, and only if the
//! message cannot be stored under it); at most [`UNANSWERED_MAX`] are kept; they are sent again in the
//! order they were first sent in.

use std::collections::VecDeque;

use thiserror::Error;

use ringway_wire::limits::SESSION_IN_FLIGHT_MAX;

use crate::incoming::{Refusal, RequestId};
use crate::{ClientMsgId, Conversation, ErrorCode};

/// Messages of one client without an answer. Half of what a session may have open: other requests have the rest.
pub const UNANSWERED_MAX: usize = SESSION_IN_FLIGHT_MAX as usize / 2;
/// The longest that a refused message waits before it is sent again.
pub const RETRY_MS_MAX: u64 = 30_000;
/// A message whose name is found to lie in the future that often is given up: the clock is beyond help.
const RENAMES_MAX: u8 = 3;

/// The shortest that a message waits that may be stored under a name that lies in the future: until the gateway's clock is
/// there, and it can say so.
const AHEAD_RETRY_MS: u32 = 1_000;

/// There are [`UNANSWERED_MAX`] already.
#[derive(Clone, Copy, PartialEq, Eq, Error, Debug)]
#[error("{UNANSWERED_MAX} messages wait for their answer already: send more when some have been answered")]
pub struct TooManyUnanswered;

/// Messages in the order they were first sent.
#[derive(Debug, Default)]
pub struct Unanswered {
    sends: VecDeque<Kept>,
}

#[derive(Debug)]
struct Kept {
    request: RequestId,
    client_msg_id: ClientMsgId,
    to: Conversation,
    body: Box<[u8]>,
    name: NameIs,
    state: KeptState,
    /// Refusals since its connection began.
    refusals: u8,
    renames: u8,
}

/// Whether a message may be stored under its name already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NameIs {
    /// It cannot: what was sent under the name, if anything, was refused for the name.
    New,
    /// It may: it was sent, and whether it was taken is not known. Another name could make two messages of it.
    Used,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum KeptState {
    InFlight,
    /// To be sent at this time (monotonic milliseconds).
    Due(u64),
    /// To be sent at once under another name.
    Rename,
}

/// A message to be sent, for the first time or again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "as in the schema's Send")]
pub struct Resend<'a> {
    pub request: RequestId,
    pub client_msg_id: ClientMsgId,
    pub to: Conversation,
    pub body: &'a [u8],
}

/// What became of a message that was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is kept, and sent again by itself.
    Kept,
    /// It is no longer kept: it cannot be sent as it is.
    GivenUp,
}

impl Unanswered {
    /// Keeps a message that is being sent now.
    pub fn keep(
        &mut self,
        request: RequestId,
        client_msg_id: ClientMsgId,
        name: NameIs,
        to: Conversation,
        body: &[u8],
    ) -> Result<(), TooManyUnanswered> {
        self.add(KeptState::InFlight, request, (client_msg_id, name), to, body)
    }

    /// Keeps a message that is to be sent when there is a connection.
    pub fn keep_for_later(
        &mut self,
        request: RequestId,
        client_msg_id: ClientMsgId,
        name: NameIs,
        to: Conversation,
        body: &[u8],
    ) -> Result<(), TooManyUnanswered> {
        self.add(KeptState::Due(0), request, (client_msg_id, name), to, body)
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.sends.len()
    }

    /// None are.
    pub fn is_empty(&self) -> bool {
        self.sends.is_empty()
    }

    /// Whether the message that was sent under this number still waits for its answer.
    pub fn keeps(&self, request: RequestId) -> bool {
        self.place(request).is_some()
    }

    /// A message was answered for good: its name, if it was kept.
    pub fn answered(&mut self, request: RequestId) -> Option<ClientMsgId> {
        let at = self.place(request)?;
        self.sends.remove(at).map(|kept| kept.client_msg_id)
    }

    /// A request was refused: what becomes of the message, if it was one that is kept.
    pub fn refused(&mut self, now_ms: u64, refusal: &Refusal<'_>) -> Option<Fate> {
        let at = self.place(refusal.request)?;
        let kept = self.sends.get_mut(at)?;
        let after_ms = match (refusal.code, kept.name) {
            (ErrorCode::ClientMsgIdAhead, NameIs::New) if kept.renames < RENAMES_MAX => {
                kept.renames += 1;
                kept.state = KeptState::Rename;
                return Some(Fate::Kept);
            }
            (ErrorCode::ClientMsgIdAhead, NameIs::Used) => refusal.retry_after_ms.max(AHEAD_RETRY_MS),
            _ if refusal.retry_after_ms == 0 => {
                self.sends.remove(at);
                return Some(Fate::GivenUp);
            }
            _ => refusal.retry_after_ms,
        };
        kept.name = NameIs::Used;
        let wait_ms = retry_ms(after_ms, kept.refusals);
        kept.refusals = kept.refusals.saturating_add(1);
        kept.state = KeptState::Due(now_ms + wait_ms);
        Some(Fate::Kept)
    }

    /// The connection is gone: all that has no answer is to be sent again on the next one.
    pub fn disconnected(&mut self) {
        for kept in &mut self.sends {
            kept.refusals = 0;
            if kept.state == KeptState::InFlight {
                kept.name = NameIs::Used;
            }
            if kept.state != KeptState::Rename {
                kept.state = KeptState::Due(0);
            }
        }
    }

    /// Hands each message that is to be sent now to `send`; `rename` makes a new name. One that needs a new name and is
    /// given none stays to be sent.
    pub fn take_due(
        &mut self,
        now_ms: u64,
        mut rename: impl FnMut() -> Option<ClientMsgId>,
        mut send: impl FnMut(Resend<'_>),
    ) {
        for kept in &mut self.sends {
            match kept.state {
                KeptState::InFlight => continue,
                KeptState::Due(at_ms) if at_ms > now_ms => continue,
                KeptState::Due(_) => {}
                KeptState::Rename => {
                    let Some(name) = rename() else { continue };
                    (kept.client_msg_id, kept.name) = (name, NameIs::New);
                }
            }
            kept.state = KeptState::InFlight;
            let Kept { request, client_msg_id, to, body, .. } = &*kept;
            send(Resend { request: *request, client_msg_id: *client_msg_id, to: *to, body });
        }
    }

    /// When the next message is to be sent again (monotonic milliseconds).
    pub fn next_due_ms(&self) -> Option<u64> {
        let due = |kept: &Kept| match kept.state {
            KeptState::InFlight => None,
            KeptState::Due(at_ms) => Some(at_ms),
            KeptState::Rename => Some(0),
        };
        self.sends.iter().filter_map(due).min()
    }

    fn add(
        &mut self,
        state: KeptState,
        request: RequestId,
        (client_msg_id, name): (ClientMsgId, NameIs),
        to: Conversation,
        body: &[u8],
    ) -> Result<(), TooManyUnanswered> {
        if self.sends.len() >= UNANSWERED_MAX {
            return Err(TooManyUnanswered);
        }
        let (body, refusals, renames) = (body.into(), 0, 0);
        self.sends.push_back(Kept { request, client_msg_id, to, body, name, state, refusals, renames });
        Ok(())
    }

    /// Answers come nearly in the order of their requests, so this looks at few.
    fn place(&self, request: RequestId) -> Option<usize> {
        self.sends.iter().position(|kept| kept.request == request)
    }
}

/// How long a request waits that the gateway wants again after so long, and that it has refused so often before.
pub(crate) fn retry_ms(after_ms: u32, refusals: u8) -> u64 {
    let after_ms = u64::from(after_ms);
    // The gateway's own time is kept to, however long.
    (after_ms << refusals.min(16)).min(RETRY_MS_MAX).max(after_ms)
}

#[cfg(test)]
mod tests;
