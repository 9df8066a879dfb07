//! A device's session: the connection it has, and what it keeps from one to the next.
//!
//! Owned by whoever has the socket; it knows neither that nor a clock. What always holds: rows are taken one after
//! another, in the order of their numbers; what is acknowledged is what the caller has said it has, never more; after
//! a `Closing` nothing more is taken. It keeps no message: that is [`crate::unanswered`].

use thiserror::Error;

use ringway_wire::frame::{FrameError, read_server};
use ringway_wire::limits::ACK_ROWS_MAX;
use ringway_wire::request::Reply;

use crate::incoming::{ClosingInfo, Incoming, LoginInfo, OwnRow, Refusal, RequestId, SendAnswer};
use crate::reconnect::{self, NextStep, STABLE_MS};
use crate::tick::Tick;
use crate::{ClientMsgId, CloseReason, ErrorCode, Now, Seq};

/// A login that is not answered for so long is given up.
pub const LOGIN_PATIENCE_MS: u32 = 30_000;
/// A connection on which nothing comes for so long after a `Ping` is given up.
pub const PONG_PATIENCE_MS: u32 = 10_000;
/// Acks are sent this often while there is something to acknowledge.
pub const ACK_EVERY_MS: u32 = 1_000;

/// What a crowd pays for a session.
const _: () = assert!(size_of::<Session>() <= 64, "a load generator has a million of them");

/// A session, from one connection to the next.
#[derive(Debug)]
pub struct Session {
    /// The highest row that came, and all before it.
    cursor: Seq,
    /// The highest row that the caller has in safety, and all before it.
    stored: Seq,
    /// Server's Unix milliseconds minus ours.
    ahead_ms: i64,
    state: State,
    /// Rows that are stored and not acknowledged.
    unacked: u16,
    next_request: u32,
    heartbeat_ms: u32,
    /// Connections lost in a row.
    failures: u8,
    resume: Resume,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// No connection.
    Out,
    /// A connection is being made, or a login waits for its answer.
    LoggingIn {
        since: Tick,
    },
    Live(Live),
    /// The gateway has said its last.
    Closing {
        reason: CloseReason,
        reconnect_after_ms: Option<u32>,
    },
}

/// Moments of a session that stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Live {
    since: Tick,
    /// The last time anything was sent.
    sent: Tick,
    /// The last time anything came.
    received: Tick,
    /// Since when there is something to acknowledge; without meaning while there is not.
    unacked: Tick,
    liveness: Liveness,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Liveness {
    Confirmed,
    /// A ping was sent, at `sent` or before it, and nothing has come since.
    Unverified {
        since: Tick,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Resume {
    /// After what the gateway knows that the device acknowledged.
    Acknowledged,
    /// After the cursor.
    Cursor,
}

/// Why a session cannot go on: close the connection, then ask [`Session::ended`].
#[derive(Clone, Copy, PartialEq, Eq, Error, Debug)]
pub enum SessionError {
    /// What came is no frame of this protocol.
    #[error("the gateway sent a frame that cannot be read")]
    Frame(#[from] FrameError),
    /// A row is missing.
    #[error("row {got} came where row {expected} was due")]
    OutOfOrder {
        /// The cursor's next.
        expected: Seq,
        /// What came.
        got: Seq,
    },
    /// The gateway has fewer rows than were acknowledged: the next login lets it say where the device is.
    #[error("the gateway does not know the rows that were acknowledged")]
    AckRefused,
    /// A frame came that has no place in the session's state.
    #[error("the gateway sent a frame where none of its kind was due")]
    Unexpected,
}

/// Where a row stands that came as a push.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RowPlace {
    /// It is the inbox's next.
    Next,
    /// It is here already.
    Repeated,
    /// It is none: an ephemeral message.
    Ephemeral,
}

/// When rows that were stored are to be acknowledged: for who has many sessions and looks only at those with something
/// due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AckDue {
    /// As before these rows.
    AsBefore,
    /// [`ACK_EVERY_MS`] from now; before there was nothing to acknowledge.
    Later,
    /// Now: there are many.
    Now,
}

/// What a session must do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// Send `Ack` of this row.
    Ack(Seq),
    /// Send `Ping`.
    Ping,
    /// The gateway gives no sign of life: close the connection, then ask [`Session::ended`].
    GiveUp,
}

impl Session {
    /// A session of a device that has `last_seq` and all rows before it; `None`: the gateway knows where it is.
    pub fn new(last_seq: Option<Seq>) -> Session {
        let cursor = last_seq.unwrap_or_default();
        Session {
            cursor,
            stored: cursor,
            ahead_ms: 0,
            state: State::Out,
            unacked: 0,
            next_request: 1,
            heartbeat_ms: 0,
            failures: 0,
            resume: if last_seq.is_some() { Resume::Cursor } else { Resume::Acknowledged },
        }
    }

    /// The highest row that came, and all before it.
    pub fn cursor(&self) -> Seq {
        self.cursor
    }

    /// What `Login` says the device has.
    pub fn last_seq(&self) -> Option<Seq> {
        match self.resume {
            Resume::Acknowledged => None,
            Resume::Cursor => Some(self.cursor),
        }
    }

    /// How often something must be sent, milliseconds; 0: that is not known, or not wanted.
    pub fn heartbeat_ms(&self) -> u32 {
        self.heartbeat_ms
    }

    /// Whether a login has been answered, and neither side has ended the connection.
    pub fn is_live(&self) -> bool {
        matches!(self.state, State::Live(_))
    }

    /// Since when a login has been answered (monotonic milliseconds); `None`: the session is not live.
    pub fn live_since_ms(&self, now: Now) -> Option<u64> {
        match &self.state {
            State::Live(live) => Some(now.mono_ms.saturating_sub(u64::from(live.since.age_ms(now.mono_ms)))),
            State::Out | State::LoggingIn { .. } | State::Closing { .. } => None,
        }
    }

    /// The gateway's clock as far as it is known, Unix milliseconds.
    pub fn server_ms(&self, now: Now) -> u64 {
        now.unix_ms.saturating_add_signed(self.ahead_ms)
    }

    /// A new name for a message, in the server's time.
    pub fn new_client_msg_id(&self, now: Now, random: u128) -> ClientMsgId {
        ClientMsgId::from_parts(self.server_ms(now), random)
    }

    /// The number of the next request.
    pub fn next_request(&mut self) -> RequestId {
        let id = self.next_request;
        self.next_request = id.checked_add(1).unwrap_or(1);
        RequestId(id)
    }

    /// A connection is being made, or was made: `Login` goes first.
    pub fn connecting(&mut self, now: Now) {
        self.state = State::LoggingIn { since: Tick::at(now.mono_ms) };
    }

    /// Something was sent that [`Self::due`] did not ask for: no ping is needed for a while.
    pub fn sent(&mut self, now: Now) {
        if let State::Live(live) = &mut self.state {
            live.sent = Tick::at(now.mono_ms);
        }
    }

    /// The caller has this row and all before it in safety: they may be acknowledged. More than has come is not
    /// believed.
    pub fn stored(&mut self, now: Now, seq: Seq) -> AckDue {
        let rows = seq.min(self.cursor).0.saturating_sub(self.stored.0);
        if rows == 0 {
            return AckDue::AsBefore;
        }
        self.stored = Seq(self.stored.0 + rows);
        let before = self.unacked;
        if let State::Live(live) = &mut self.state
            && before == 0
        {
            live.unacked = Tick::at(now.mono_ms);
        }
        self.unacked = before.saturating_add(u16::try_from(rows).unwrap_or(u16::MAX));
        match (u64::from(before), u64::from(self.unacked)) {
            (..ACK_ROWS_MAX, ACK_ROWS_MAX..) => AckDue::Now,
            (0, _) => AckDue::Later,
            _ => AckDue::AsBefore,
        }
    }

    /// Rows up to `to` have never come, and are given up: for who measures a gateway, counts what is missing and goes
    /// on. Who has an inbox ends the connection instead, and they come.
    pub fn pass_over(&mut self, to: Seq) {
        self.cursor = self.cursor.max(to);
    }

    /// The row to acknowledge at once, if there is one; it counts as acknowledged then.
    pub fn take_ack(&mut self, now: Now) -> Option<Seq> {
        let State::Live(live) = &mut self.state else { return None };
        if self.unacked == 0 {
            return None;
        }
        self.unacked = 0;
        live.sent = Tick::at(now.mono_ms);
        Some(self.stored)
    }

    /// What must be done now; it counts as done. Ask until there is nothing.
    pub fn due(&mut self, now: Now) -> Option<Due> {
        let now_ms = now.mono_ms;
        let live = match &mut self.state {
            State::LoggingIn { since } => return (since.age_ms(now_ms) >= LOGIN_PATIENCE_MS).then_some(Due::GiveUp),
            State::Live(live) => live,
            State::Out | State::Closing { .. } => return None,
        };
        if live.since.age_ms(now_ms) >= STABLE_MS {
            self.failures = 0;
        }
        if let Liveness::Unverified { since } = live.liveness
            && since.age_ms(now_ms) >= PONG_PATIENCE_MS
        {
            return Some(Due::GiveUp);
        }
        let many = u64::from(self.unacked) >= ACK_ROWS_MAX;
        if self.unacked > 0 && (many || live.unacked.age_ms(now_ms) >= ACK_EVERY_MS) {
            return self.take_ack(now).map(Due::Ack);
        }
        let silent_ms = live.sent.age_ms(now_ms).max(live.received.age_ms(now_ms));
        if self.heartbeat_ms > 0 && live.liveness == Liveness::Confirmed && silent_ms >= self.heartbeat_ms {
            self.pinged(now);
            return Some(Due::Ping);
        }
        None
    }

    /// A `Ping` was sent: something must come soon.
    pub fn pinged(&mut self, now: Now) {
        if let State::Live(live) = &mut self.state {
            live.sent = Tick::at(now.mono_ms);
            if live.liveness == Liveness::Confirmed {
                live.liveness = Liveness::Unverified { since: live.sent };
            }
        }
    }

    /// When to ask [`Self::due`] again, if nothing happens before (monotonic milliseconds).
    pub fn next_due_ms(&self, now: Now) -> Option<u64> {
        let now_ms = now.mono_ms;
        let live = match &self.state {
            State::LoggingIn { since } => return Some(since.plus(LOGIN_PATIENCE_MS, now_ms)),
            State::Live(live) => live,
            State::Out | State::Closing { .. } => return None,
        };
        let ack_ms = match u64::from(self.unacked) {
            0 => None,
            1..ACK_ROWS_MAX => Some(live.unacked.plus(ACK_EVERY_MS, now_ms)),
            _ => Some(now_ms),
        };
        let liveness_ms = match live.liveness {
            Liveness::Unverified { since } => Some(since.plus(PONG_PATIENCE_MS, now_ms)),
            Liveness::Confirmed if self.heartbeat_ms == 0 => None,
            Liveness::Confirmed => {
                let (sent_ms, received_ms) =
                    (live.sent.plus(self.heartbeat_ms, now_ms), live.received.plus(self.heartbeat_ms, now_ms));
                Some(sent_ms.min(received_ms))
            }
        };
        ack_ms.into_iter().chain(liveness_ms).min()
    }

    /// Takes a frame from the gateway, prefix included.
    pub fn receive<'a>(&mut self, now: Now, frame: &'a [u8]) -> Result<Incoming<'a>, SessionError> {
        let (request, reply) = read_server(frame)?;
        self.take(now, RequestId(request), reply)
    }

    /// Takes a push that equals one which was read already, but for its seq: who has many recipients of one message need
    /// not read it for each of them.
    pub fn receive_copy(&mut self, now: Now, seq: Seq) -> Result<RowPlace, SessionError> {
        let State::Live(live) = &mut self.state else { return Err(SessionError::Unexpected) };
        live.received = Tick::at(now.mono_ms);
        live.liveness = Liveness::Confirmed;
        self.pushed(seq)
    }

    /// Takes a frame that was read already.
    pub fn take<'a>(&mut self, now: Now, request: RequestId, reply: Reply<'a>) -> Result<Incoming<'a>, SessionError> {
        match &mut self.state {
            State::Live(live) => {
                live.received = Tick::at(now.mono_ms);
                live.liveness = Liveness::Confirmed;
            }
            State::LoggingIn { .. }
                if matches!(reply, Reply::LoginOk { .. } | Reply::Closing { .. } | Reply::Error { .. }) => {}
            State::LoggingIn { .. } | State::Out | State::Closing { .. } => return Err(SessionError::Unexpected),
        }
        match reply {
            Reply::LoginOk { session, user, server_time_ms, heartbeat_ms, last_seq, from_seq } => {
                self.apply_server_time(now, server_time_ms);
                self.logged_in(now, LoginInfo { session, user, heartbeat_ms, last_seq, from_seq })
            }
            Reply::Push(push) => Ok(match self.pushed(push.seq)? {
                RowPlace::Next => Incoming::Row(push),
                RowPlace::Repeated => Incoming::Repeated(push),
                RowPlace::Ephemeral => Incoming::Ephemeral(push),
            }),
            Reply::SendOk { msg_id, seq, sent_at_ms, repeat } => {
                let row = self.own_row(seq);
                Ok(Incoming::Sent(SendAnswer { request, msg_id, seq, sent_at_ms, repeat, row }))
            }
            Reply::Gap { from, to } => self.gap(from, to),
            Reply::Error { code, message, retry_after_ms, server_time_ms, .. } => {
                self.apply_server_time(now, server_time_ms);
                // Only an Ack has no number.
                if code == ErrorCode::SeqAhead && request == RequestId(0) {
                    self.resume = Resume::Acknowledged;
                    return Err(SessionError::AckRefused);
                }
                Ok(Incoming::Refused(Refusal { request, code, message, retry_after_ms }))
            }
            Reply::Closing { reason, message, reconnect, reconnect_after_ms, server_time_ms } => {
                self.apply_server_time(now, server_time_ms);
                let reconnect_after_ms = reconnect.then_some(reconnect_after_ms);
                self.state = State::Closing { reason, reconnect_after_ms };
                Ok(Incoming::Closing(ClosingInfo { reason, message, reconnect_after_ms }))
            }
            Reply::Pong { server_time_ms } => {
                self.apply_server_time(now, server_time_ms);
                Ok(Incoming::Other { request, reply })
            }
            Reply::SyncPage { .. }
            | Reply::GroupOk { .. }
            | Reply::GroupInfo { .. }
            | Reply::GroupList { .. }
            | Reply::GroupChanged { .. }
            | Reply::Presence { .. }
            | Reply::RefreshOk { .. } => Ok(Incoming::Other { request, reply }),
        }
    }

    /// The connection is gone, whoever ended it: what to do next.
    pub fn ended(&mut self, now: Now, random: u64) -> NextStep {
        let state = std::mem::replace(&mut self.state, State::Out);
        match state {
            State::Closing { reason, reconnect_after_ms: None } => reconnect::demanded(reason),
            State::Closing { reconnect_after_ms: Some(after_ms), .. } if after_ms > 0 => {
                NextStep::Reconnect { at_ms: now.mono_ms + reconnect::asked_ms(after_ms, random) }
            }
            State::Live(live) if live.since.age_ms(now.mono_ms) >= STABLE_MS => {
                self.failures = 1;
                NextStep::Reconnect { at_ms: now.mono_ms + reconnect::backoff_ms(0, random) }
            }
            State::Out | State::LoggingIn { .. } | State::Live(_) | State::Closing { .. } => {
                let wait_ms = reconnect::backoff_ms(self.failures, random);
                self.failures = self.failures.saturating_add(1);
                NextStep::Reconnect { at_ms: now.mono_ms + wait_ms }
            }
        }
    }

    /// The caller has dropped its copy of the inbox: the next login begins before the first row.
    pub fn forget(&mut self) {
        (self.cursor, self.stored, self.unacked, self.resume) = (Seq(0), Seq(0), 0, Resume::Cursor);
    }

    fn logged_in<'a>(&mut self, now: Now, info: LoginInfo) -> Result<Incoming<'a>, SessionError> {
        if self.is_live() {
            return Err(SessionError::Unexpected);
        }
        if self.resume == Resume::Cursor && info.from_seq != self.cursor {
            return Err(SessionError::OutOfOrder { expected: self.cursor, got: info.from_seq });
        }
        if self.resume == Resume::Acknowledged {
            // What was not acknowledged comes again, or is the gateway's word against ours.
            (self.stored, self.unacked) = (info.from_seq, 0);
        }
        self.cursor = info.from_seq;
        self.resume = Resume::Cursor;
        self.heartbeat_ms = info.heartbeat_ms;
        let tick = Tick::at(now.mono_ms);
        self.state =
            State::Live(Live { since: tick, sent: tick, received: tick, unacked: tick, liveness: Liveness::Confirmed });
        Ok(Incoming::LoggedIn(info))
    }

    fn pushed(&mut self, seq: Seq) -> Result<RowPlace, SessionError> {
        let expected = self.next_row();
        if seq == expected {
            self.cursor = seq;
            return Ok(RowPlace::Next);
        }
        match seq {
            Seq(0) => Ok(RowPlace::Ephemeral),
            seq if seq < expected => Ok(RowPlace::Repeated),
            seq => Err(SessionError::OutOfOrder { expected, got: seq }),
        }
    }

    /// The sender's own row of a message that was taken: the inbox's next one, or one that has come or will come in a page.
    fn own_row(&mut self, seq: Seq) -> OwnRow {
        if seq != self.next_row() {
            return OwnRow::NotNext;
        }
        self.cursor = seq;
        OwnRow::Next
    }

    fn gap<'a>(&mut self, from: Seq, to: Seq) -> Result<Incoming<'a>, SessionError> {
        let expected = self.next_row();
        if from > expected {
            return Err(SessionError::OutOfOrder { expected, got: from });
        }
        self.cursor = self.cursor.max(to);
        Ok(Incoming::Gap { from, to })
    }

    /// The number of the inbox's next row; a gateway may say anything, so not one too many.
    fn next_row(&self) -> Seq {
        Seq(self.cursor.0.saturating_add(1))
    }

    fn apply_server_time(&mut self, now: Now, server_time_ms: u64) {
        if server_time_ms != 0 {
            self.ahead_ms = server_time_ms.wrapping_sub(now.unix_ms) as i64;
        }
    }
}

#[cfg(test)]
mod tests;
