//! All that a transport needs: a session, the messages that wait for their answer, frames in and out of bytes.
//!
//! Owned by the transport. What always holds: bytes to be written wait in [`ClientCore::output`] in their order; a row
//! is acknowledged only once [`ClientCore::stored`] has said that it is safe; what waits is bounded by
//! [`UNANSWERED_MAX`](crate::unanswered::UNANSWERED_MAX) messages. It leaves out connecting, waiting and tokens.

use thiserror::Error;

use ringway_wire::deframer::{DeframeError, Deframer};
use ringway_wire::frame::Encoder;
use ringway_wire::limits::{BODY_BYTES_MAX, SERVER_FRAME_BYTES_MAX};
use ringway_wire::request::{Durability, Login};

use crate::incoming::{Incoming, RequestId};
use crate::reconnect::NextStep;
use crate::session::{Due, Session, SessionError};
use crate::unanswered::{NameIs, TooManyUnanswered, Unanswered};
use crate::{ClientMsgId, Conversation, DeviceId, GroupId, Now, Seq, UserId};

/// Memory for bytes to be written that is kept while there are none.
const OUTPUT_BYTES_KEPT: usize = 64 * 1024;

/// Which device logs in, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Device {
    /// Its number among the user's devices.
    pub id: DeviceId,
    /// It has this row and all before it; `None`: the gateway knows what it acknowledged last.
    pub last_seq: Option<Seq>,
    /// How often it wants to have to send something, milliseconds; 0: as the gateway likes. The gateway's limits hold:
    /// `LoginInfo::heartbeat_ms` is what was agreed.
    pub heartbeat_ms: u32,
}

impl Device {
    /// With the gateway's own heartbeat.
    pub fn new(id: DeviceId, last_seq: Option<Seq>) -> Device {
        Device { id, last_seq, heartbeat_ms: 0 }
    }
}

/// A client without its sockets.
#[derive(Debug)]
pub struct ClientCore {
    session: Session,
    device: DeviceId,
    /// What logins ask for.
    heartbeat_ms: u32,
    unanswered: Unanswered,
    deframer: Deframer,
    encoder: Encoder,
    output: Vec<u8>,
}

/// Why a connection must be closed: then ask [`ClientCore::ended`].
#[derive(Clone, Copy, PartialEq, Eq, Error, Debug)]
pub enum CoreError {
    /// What came does not fit the session.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// What came is no frame.
    #[error(transparent)]
    Deframe(#[from] DeframeError),
}

/// Why a message was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Error, Debug)]
pub enum SendError {
    /// It would be refused: nothing, or too much.
    #[error("a body must have 1 to {BODY_BYTES_MAX} bytes, this one has {0}")]
    BodyLength(usize),
    /// Too many wait already.
    #[error(transparent)]
    TooMany(#[from] TooManyUnanswered),
}

/// What a client asks beside sending.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "as in the schema")]
pub enum Question<'a> {
    Ping,
    Sync { after: Seq, rows_max: u32 },
    GroupCreate { members: &'a [UserId] },
    GroupAdd { group: GroupId, members: &'a [UserId] },
    GroupRemove { group: GroupId, members: &'a [UserId] },
    GroupLeave { group: GroupId },
    GroupInfo { group: GroupId },
    GroupList,
    Presence { users: &'a [UserId] },
    Logout,
    Refresh { token: &'a str },
}

/// What [`ClientCore::tick`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Liveliness {
    /// Go on: write what is in [`ClientCore::output`].
    Alive,
    /// The gateway gives no sign of life: close the connection, then ask [`ClientCore::ended`].
    GiveUp,
}

impl ClientCore {
    /// A client of this device.
    pub fn new(device: Device) -> ClientCore {
        ClientCore {
            session: Session::new(device.last_seq),
            device: device.id,
            heartbeat_ms: device.heartbeat_ms,
            unanswered: Unanswered::default(),
            deframer: Deframer::default(),
            encoder: Encoder::new(),
            output: Vec::new(),
        }
    }

    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Messages without an answer.
    pub fn unanswered(&self) -> &Unanswered {
        &self.unanswered
    }

    /// A connection was made: it begins with this login.
    pub fn connected(&mut self, now: Now, token: &str) -> RequestId {
        self.deframer = Deframer::default();
        self.output.clear();
        self.session.connecting(now);
        let request = self.session.next_request();
        let (device, cursor, heartbeat_ms) = (self.device, self.session.last_seq(), self.heartbeat_ms);
        let login = Login { token, device, cursor, heartbeat_ms };
        self.output.extend_from_slice(self.encoder.login_as(request.0, &login));
        request
    }

    /// Sends a message, now or when there is a session: [`Incoming::Sent`] or [`Incoming::Refused`] with this number
    /// answers it, over as many connections as it takes. What was sent before and is due goes first.
    pub fn send(&mut self, now: Now, to: Conversation, body: &[u8], random: u128) -> Result<RequestId, SendError> {
        let client_msg_id = self.session.new_client_msg_id(now, random);
        self.send_named(now, (client_msg_id, NameIs::New), to, body)
    }

    /// The same under a name that the caller has made, or kept from an earlier life: it is never made anew.
    pub fn send_as(
        &mut self,
        now: Now,
        client_msg_id: ClientMsgId,
        to: Conversation,
        body: &[u8],
    ) -> Result<RequestId, SendError> {
        self.send_named(now, (client_msg_id, NameIs::Used), to, body)
    }

    fn send_named(
        &mut self,
        now: Now,
        (client_msg_id, name): (ClientMsgId, NameIs),
        to: Conversation,
        body: &[u8],
    ) -> Result<RequestId, SendError> {
        check_body(body)?;
        let request = self.session.next_request();
        if self.session.is_live() {
            self.send_due(now, || None);
            self.unanswered.keep(request, client_msg_id, name, to, body)?;
            self.output.extend_from_slice(self.encoder.send(request.0, to, client_msg_id, body, Durability::Durable));
            self.session.sent(now);
        } else {
            self.unanswered.keep_for_later(request, client_msg_id, name, to, body)?;
        }
        Ok(request)
    }

    /// Sends an ephemeral message: it may be lost, and is not sent again.
    pub fn send_ephemeral(
        &mut self,
        now: Now,
        to: Conversation,
        body: &[u8],
        random: u128,
    ) -> Result<RequestId, SendError> {
        check_body(body)?;
        let (client_msg_id, request) = (self.session.new_client_msg_id(now, random), self.session.next_request());
        if self.session.is_live() {
            self.send_due(now, || None);
            self.output.extend_from_slice(self.encoder.send(request.0, to, client_msg_id, body, Durability::Ephemeral));
            self.session.sent(now);
        }
        Ok(request)
    }

    /// Asks; the answer has this number. A connection that ends takes the question along.
    pub fn ask(&mut self, now: Now, question: Question<'_>) -> RequestId {
        let (request, encoder) = (self.session.next_request(), &mut self.encoder);
        let id = request.0;
        let frame = match question {
            Question::Ping => encoder.ping(id),
            Question::Sync { after, rows_max } => encoder.sync(id, after, rows_max),
            Question::GroupCreate { members } => encoder.group_create(id, members),
            Question::GroupAdd { group, members } => encoder.group_add(id, group, members),
            Question::GroupRemove { group, members } => encoder.group_remove(id, group, members),
            Question::GroupLeave { group } => encoder.group_leave(id, group),
            Question::GroupInfo { group } => encoder.group_info_request(id, group),
            Question::GroupList => encoder.group_list_request(id),
            Question::Presence { users } => encoder.presence_request(id, users),
            Question::Logout => encoder.logout(id),
            Question::Refresh { token } => encoder.refresh(id, token),
        };
        self.output.extend_from_slice(frame);
        match question {
            Question::Ping => self.session.pinged(now),
            _ => self.session.sent(now),
        }
        request
    }

    /// The next frame off the front of `input`; `None`: all of it is used. Call until then.
    pub fn receive<'a, 'i: 'a>(
        &'a mut self,
        now: Now,
        input: &mut &'i [u8],
    ) -> Result<Option<Incoming<'a>>, CoreError> {
        let Some(frame) = self.deframer.next(input, SERVER_FRAME_BYTES_MAX)? else { return Ok(None) };
        let incoming = self.session.receive(now, frame)?;
        match &incoming {
            Incoming::Sent(sent) => drop(self.unanswered.answered(sent.request)),
            Incoming::Refused(refusal) => drop(self.unanswered.refused(now.mono_ms, refusal)),
            Incoming::LoggedIn(_)
            | Incoming::Row(_)
            | Incoming::Repeated(_)
            | Incoming::Ephemeral(_)
            | Incoming::Gap { .. }
            | Incoming::Closing(_)
            | Incoming::Other { .. } => {}
        }
        Ok(Some(incoming))
    }

    /// This row and all before it are safe on the device: they may be acknowledged.
    pub fn stored(&mut self, now: Now, seq: Seq) {
        self.session.stored(now, seq);
    }

    /// Acknowledges at once what is stored: before an end.
    pub fn ack_now(&mut self, now: Now) {
        if let Some(seq) = self.session.take_ack(now) {
            self.output.extend_from_slice(self.encoder.ack(seq));
        }
    }

    /// Acks, pings and sends again what is due.
    pub fn tick(&mut self, now: Now, mut random: impl FnMut() -> u128) -> Liveliness {
        while let Some(due) = self.session.due(now) {
            match due {
                Due::Ack(seq) => self.output.extend_from_slice(self.encoder.ack(seq)),
                Due::Ping => {
                    let request = self.session.next_request();
                    self.output.extend_from_slice(self.encoder.ping(request.0));
                }
                Due::GiveUp => return Liveliness::GiveUp,
            }
        }
        if self.session.is_live() {
            let server_ms = self.session.server_ms(now);
            self.send_due(now, || Some(ClientMsgId::from_parts(server_ms, random())));
        }
        Liveliness::Alive
    }

    /// When to call [`Self::tick`] again, if nothing happens before (monotonic milliseconds).
    pub fn next_due_ms(&self, now: Now) -> Option<u64> {
        let again_ms = self.unanswered.next_due_ms().filter(|_| self.session.is_live());
        self.session.next_due_ms(now).into_iter().chain(again_ms).min()
    }

    /// Bytes to be written.
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// So many of them were written.
    pub fn written(&mut self, bytes: usize) {
        self.output.drain(..bytes.min(self.output.len()));
        if self.output.is_empty() && self.output.capacity() > OUTPUT_BYTES_KEPT {
            self.output = Vec::new();
        }
    }

    /// The connection is gone, whoever ended it: what to do next.
    pub fn ended(&mut self, now: Now, random: u64) -> NextStep {
        self.unanswered.disconnected();
        self.output.clear();
        self.session.ended(now, random)
    }

    /// The caller has dropped its copy of the inbox: the next login begins before the first row.
    pub fn forget(&mut self) {
        self.session.forget();
    }

    /// Sends what is due, for the first time or again: it goes before whatever is sent next. `rename` makes a new name for
    /// a message whose first one lies in the future; without one that message waits for the next tick.
    fn send_due(&mut self, now: Now, rename: impl FnMut() -> Option<ClientMsgId>) {
        let ClientCore { session, unanswered, encoder, output, .. } = self;
        let before = output.len();
        unanswered.take_due(now.mono_ms, rename, |again| {
            let frame = encoder.send(again.request.0, again.to, again.client_msg_id, again.body, Durability::Durable);
            output.extend_from_slice(frame);
        });
        if output.len() > before {
            session.sent(now);
        }
    }
}

fn check_body(body: &[u8]) -> Result<(), SendError> {
    match body.len() {
        1..=BODY_BYTES_MAX => Ok(()),
        length => Err(SendError::BodyLength(length)),
    }
}

#[cfg(test)]
mod tests;
