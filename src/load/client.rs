//! One connection to a gateway, blocking: `chat`, tests, and the slow path of the benches use it.
//!
//! Owned by the thread that made it. What always holds: the cursor moves by one row at a time; a row at or below
//! it is dropped, a row further ahead than the next is an error; a `SendOk` that has the next number is the
//! sender's own row. It leaves out reconnecting: the caller logs a new client in with the old one's cursor.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use thiserror::Error;

use crate::clock::Clock;
use ringway_wire::frame::{Encoder, FrameError, read_server};
use ringway_wire::ids::{ClientMsgId, Conversation, DeviceId, GroupId, MsgId, Seq, UserId};
use ringway_wire::limits::SERVER_FRAME_BYTES_MAX;
use ringway_wire::request::{PushView, Reply};
use ringway_wire::schema::{CloseReason, ErrorCode, GroupChangeKind, Role};

const READ_BYTES: usize = 64 * 1024;

/// A session with a gateway.
pub struct Client {
    stream: TcpStream,
    /// Bytes read and not yet understood, from `start`.
    input: Vec<u8>,
    start: usize,
    /// What was understood and not yet handed out, in the order it came.
    heard: VecDeque<Said>,
    encoder: Encoder,
    clock: Clock,
    /// Server's Unix milliseconds minus ours.
    ahead_ms: i64,
    cursor: Seq,
    next_request: u32,
    session: Option<LoginInfo>,
}

/// What `LoginOk` said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoginInfo {
    /// The gateway's name for the session.
    pub session: u64,
    /// Who we are, by the token.
    pub user: UserId,
    /// Say something at least this often, milliseconds.
    pub heartbeat_ms: u32,
    /// The user's newest row at that moment.
    pub last_seq: Seq,
    /// The next row is the one after this.
    pub from_seq: Seq,
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

/// What a client heard, in the order it came, owned. See the schema for the fields.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the fields are the schema's")]
pub enum Said {
    /// The inbox's next row.
    Row(Row),
    /// An ephemeral message.
    Ephemeral(Row),
    /// A message of ours is durable. `row`: this is also the inbox's next row.
    Sent {
        request: u32,
        msg_id: MsgId,
        seq: Seq,
        sent_at_ms: u64,
        repeat: bool,
        row: bool,
    },
    /// Rows that are no longer kept; the cursor is now `to`.
    Gap {
        from: Seq,
        to: Seq,
    },
    /// A page of history; the cursor does not move.
    Page {
        request: u32,
        rows: Vec<Row>,
        through: Seq,
        end: bool,
        gap_to: Option<Seq>,
    },
    Pong {
        request: u32,
        server_time_ms: u64,
    },
    GroupOk {
        request: u32,
        group: GroupId,
        version: u32,
    },
    GroupInfo {
        request: u32,
        group: GroupId,
        version: u32,
        members: Vec<(UserId, Role)>,
    },
    GroupList {
        request: u32,
        groups: Vec<(GroupId, u32, Role, u32)>,
    },
    GroupChanged {
        group: GroupId,
        version: u32,
        kind: GroupChangeKind,
        actor: UserId,
        members: Vec<UserId>,
    },
    Presence {
        request: u32,
        online: Vec<UserId>,
    },
    Refused {
        request: u32,
        code: ErrorCode,
        message: String,
        retry_after_ms: u32,
    },
    /// The connection's last frame.
    Closing {
        reason: CloseReason,
        message: String,
        reconnect: bool,
        reconnect_after_ms: u32,
    },
    LoggedIn(LoginInfo),
}

impl Said {
    /// The request this answers, 0 for what nobody asked for.
    pub fn request(&self) -> u32 {
        match self {
            Said::Sent { request, .. }
            | Said::Page { request, .. }
            | Said::Pong { request, .. }
            | Said::GroupOk { request, .. }
            | Said::GroupInfo { request, .. }
            | Said::GroupList { request, .. }
            | Said::Presence { request, .. }
            | Said::Refused { request, .. } => *request,
            Said::Row(_)
            | Said::Ephemeral(_)
            | Said::Gap { .. }
            | Said::GroupChanged { .. }
            | Said::Closing { .. }
            | Said::LoggedIn(_) => 0,
        }
    }
}

/// Why the session cannot go on, or a call got no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The socket failed.
    #[error("the connection to the gateway failed")]
    Io(#[from] std::io::Error),
    /// The gateway closed the socket without a word.
    #[error("the gateway closed the connection")]
    Closed,
    /// It sent what is not a frame of this protocol.
    #[error("the gateway sent a frame that cannot be read")]
    Frame(#[from] FrameError),
    /// It announced a frame above the limit.
    #[error("the gateway announced a frame of {0} bytes, more than the protocol allows")]
    FrameTooLarge(usize),
    /// A row is missing or came too early.
    #[error("row {got} came where row {expected} was due")]
    OutOfOrder {
        /// The cursor's next.
        expected: Seq,
        /// What came.
        got: Seq,
    },
    /// The gateway said goodbye while an answer was awaited.
    #[error("the gateway closed the session: {reason:?}: {message}")]
    Closing {
        /// Why.
        reason: CloseReason,
        /// In its words.
        message: String,
        /// When to come back, milliseconds; `None`: not at all.
        reconnect_after_ms: Option<u32>,
    },
    /// A request was refused.
    #[error("the gateway refused: {code:?}: {message}")]
    Refused {
        /// Why.
        code: ErrorCode,
        /// In its words.
        message: String,
        /// When to try again, milliseconds; 0: never.
        retry_after_ms: u32,
    },
    /// No answer in time.
    #[error("no answer from the gateway within {0:?}")]
    TimedOut(Duration),
    /// The answer was of another kind than the request.
    #[error("the gateway answered the request with something else")]
    WrongAnswer,
}

impl Client {
    /// Opens the connection; nothing is said yet.
    pub fn connect(addr: SocketAddr, timeout: Duration) -> Result<Client, ClientError> {
        Ok(Client::over(TcpStream::connect_timeout(&addr, timeout)?)?)
    }

    /// Speaks over a stream that is already connected.
    pub fn over(stream: TcpStream) -> std::io::Result<Client> {
        stream.set_nodelay(true)?;
        Ok(Client {
            stream,
            input: Vec::new(),
            start: 0,
            heard: VecDeque::new(),
            encoder: Encoder::new(),
            clock: Clock::start(),
            ahead_ms: 0,
            cursor: Seq(0),
            next_request: 1,
            session: None,
        })
    }

    /// Logs in and waits for the answer. `last_seq`: the newest row this device has; `None`: the gateway knows.
    pub fn login(
        &mut self,
        token: &str,
        device: DeviceId,
        last_seq: Option<Seq>,
        timeout: Duration,
    ) -> Result<LoginInfo, ClientError> {
        let request = self.ask_to_log_in(token, device, last_seq)?;
        match self.wait(timeout, |said| matches!(said, Said::LoggedIn(_)) || said.request() == request)? {
            Said::LoggedIn(info) => Ok(info),
            other => Err(refused(other)),
        }
    }

    /// Asks to log in; `Said::LoggedIn` or `Said::Closing` answers.
    pub fn ask_to_log_in(&mut self, token: &str, device: DeviceId, last_seq: Option<Seq>) -> Result<u32, ClientError> {
        let request = self.request();
        self.stream.write_all(self.encoder.login(request, token, device, last_seq))?;
        Ok(request)
    }

    /// What `LoginOk` said, once logged in.
    pub fn session(&self) -> Option<LoginInfo> {
        self.session
    }

    /// The newest row that came, all before it included.
    pub fn cursor(&self) -> Seq {
        self.cursor
    }

    /// A new name for a message, in the server's time.
    pub fn new_client_msg_id(&self) -> ClientMsgId {
        ClientMsgId::from_parts(self.server_now_ms(), fastrand::u128(..))
    }

    /// The server's clock as far as we know it, Unix milliseconds.
    pub fn server_now_ms(&self) -> u64 {
        self.clock.unix_ms().saturating_add_signed(self.ahead_ms)
    }

    /// Sends a message; `Said::Sent` or `Said::Refused` with the returned request id answers it.
    pub fn send(
        &mut self,
        to: Conversation,
        client_msg_id: ClientMsgId,
        body: &[u8],
        ephemeral: bool,
    ) -> Result<u32, ClientError> {
        let request = self.request();
        let frame = self.encoder.send(request, to, client_msg_id, body, ephemeral);
        self.stream.write_all(frame)?;
        Ok(request)
    }

    /// Says that everything up to `seq` is here.
    pub fn ack(&mut self, seq: Seq) -> Result<(), ClientError> {
        Ok(self.stream.write_all(self.encoder.ack(seq))?)
    }

    /// Keeps the session alive; `Said::Pong` answers.
    pub fn ping(&mut self) -> Result<u32, ClientError> {
        let request = self.request();
        self.stream.write_all(self.encoder.ping(request))?;
        Ok(request)
    }

    /// Ends the session; the gateway answers with `Closing`.
    pub fn logout(&mut self) -> Result<(), ClientError> {
        let request = self.request();
        Ok(self.stream.write_all(self.encoder.logout(request))?)
    }

    /// Sends bytes as they are: for tests of what the gateway does with nonsense.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// One page of the inbox after `after`.
    pub fn sync(&mut self, after: Seq, rows_max: u32, timeout: Duration) -> Result<Said, ClientError> {
        let request = self.request();
        self.stream.write_all(self.encoder.sync(request, after, rows_max))?;
        match self.answer(request, timeout)? {
            page @ Said::Page { .. } => Ok(page),
            other => Err(refused(other)),
        }
    }

    /// Makes a group of `members` and ourselves.
    pub fn group_create(&mut self, members: &[UserId], timeout: Duration) -> Result<(GroupId, u32), ClientError> {
        let request = self.request();
        self.stream.write_all(self.encoder.group_create(request, members))?;
        self.group_ok(request, timeout)
    }

    /// Adds members; returns the group's version.
    pub fn group_add(&mut self, group: GroupId, members: &[UserId], timeout: Duration) -> Result<u32, ClientError> {
        let request = self.request();
        self.stream.write_all(self.encoder.group_add(request, group, members))?;
        self.group_ok(request, timeout).map(|(_, version)| version)
    }

    /// Removes members; returns the group's version.
    pub fn group_remove(&mut self, group: GroupId, members: &[UserId], timeout: Duration) -> Result<u32, ClientError> {
        let request = self.request();
        self.stream.write_all(self.encoder.group_remove(request, group, members))?;
        self.group_ok(request, timeout).map(|(_, version)| version)
    }

    /// Leaves a group; returns its version.
    pub fn group_leave(&mut self, group: GroupId, timeout: Duration) -> Result<u32, ClientError> {
        let request = self.request();
        self.stream.write_all(self.encoder.group_leave(request, group))?;
        self.group_ok(request, timeout).map(|(_, version)| version)
    }

    /// A group's members.
    pub fn group_info(&mut self, group: GroupId, timeout: Duration) -> Result<Said, ClientError> {
        let request = self.request();
        self.stream.write_all(self.encoder.group_info_request(request, group))?;
        match self.answer(request, timeout)? {
            info @ Said::GroupInfo { .. } => Ok(info),
            other => Err(refused(other)),
        }
    }

    /// The groups we are in.
    pub fn group_list(&mut self, timeout: Duration) -> Result<Vec<(GroupId, u32, Role, u32)>, ClientError> {
        let request = self.request();
        self.stream.write_all(self.encoder.group_list_request(request))?;
        match self.answer(request, timeout)? {
            Said::GroupList { groups, .. } => Ok(groups),
            other => Err(refused(other)),
        }
    }

    /// Which of `users` are online.
    pub fn presence(&mut self, users: &[UserId], timeout: Duration) -> Result<Vec<UserId>, ClientError> {
        let request = self.request();
        self.stream.write_all(self.encoder.presence_request(request, users))?;
        match self.answer(request, timeout)? {
            Said::Presence { online, .. } => Ok(online),
            other => Err(refused(other)),
        }
    }

    /// What comes next; `None` when nothing came in time.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Said>, ClientError> {
        let end_ns = self.clock.mono_ns().saturating_add(timeout.as_nanos() as u64);
        loop {
            if let Some(said) = self.heard.pop_front() {
                return Ok(Some(said));
            }
            if !self.read_until(end_ns)? {
                return Ok(None);
            }
        }
    }

    /// Waits for what answers `request`; everything else stays for [`Self::next`], in order.
    pub fn answer(&mut self, request: u32, timeout: Duration) -> Result<Said, ClientError> {
        self.wait(timeout, |said| said.request() == request)
    }

    fn group_ok(&mut self, request: u32, timeout: Duration) -> Result<(GroupId, u32), ClientError> {
        match self.answer(request, timeout)? {
            Said::GroupOk { group, version, .. } => Ok((group, version)),
            other => Err(refused(other)),
        }
    }

    fn request(&mut self) -> u32 {
        let id = self.next_request;
        self.next_request = id.checked_add(1).unwrap_or(1);
        id
    }

    fn wait(&mut self, timeout: Duration, wanted: impl Fn(&Said) -> bool) -> Result<Said, ClientError> {
        let end_ns = self.clock.mono_ns().saturating_add(timeout.as_nanos() as u64);
        let mut looked = 0;
        loop {
            while looked < self.heard.len() {
                let found = self.heard.get(looked).is_some_and(|s| wanted(s) || matches!(s, Said::Closing { .. }));
                if found && let Some(said) = self.heard.remove(looked) {
                    return match said {
                        closing @ Said::Closing { .. } => Err(refused(closing)),
                        said => Ok(said),
                    };
                }
                looked += 1;
            }
            if !self.read_until(end_ns)? {
                return Err(ClientError::TimedOut(timeout));
            }
        }
    }

    /// Reads until at least one more frame is understood; false: the time is over.
    fn read_until(&mut self, end_ns: u64) -> Result<bool, ClientError> {
        loop {
            if self.understand()? {
                return Ok(true);
            }
            let left_ns = end_ns.saturating_sub(self.clock.mono_ns());
            if left_ns == 0 {
                return Ok(false);
            }
            self.stream.set_read_timeout(Some(Duration::from_nanos(left_ns.max(1_000))))?;
            self.input.drain(..self.start);
            self.start = 0;
            // Not into the client's own memory: a test may hold thousands of clients.
            let mut read = [0; READ_BYTES];
            match self.stream.read(&mut read) {
                Ok(0) => return Err(ClientError::Closed),
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return Err(ClientError::Closed),
                Ok(bytes) => self.input.extend_from_slice(&read[..bytes]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Takes every whole frame out of `input`; true if there was one.
    fn understand(&mut self) -> Result<bool, ClientError> {
        let mut understood = false;
        while let Some(len) = frame_len(&self.input[self.start..]) {
            if len - 4 > SERVER_FRAME_BYTES_MAX {
                return Err(ClientError::FrameTooLarge(len - 4));
            }
            let Some(frame) = self.input.get(self.start..self.start + len) else { break };
            let (request, reply) = read_server(frame)?;
            let now_ms = self.clock.unix_ms();
            if let Some(server_ms) = server_time(&reply) {
                self.ahead_ms = server_ms as i64 - now_ms as i64;
            }
            let said = own(request, reply);
            self.start += len;
            if let Some(said) = self.follow(said)? {
                self.heard.push_back(said);
                understood = true;
            }
        }
        Ok(understood)
    }

    /// Moves the cursor; `None`: this row is here already.
    fn follow(&mut self, said: Said) -> Result<Option<Said>, ClientError> {
        let due = self.cursor.next();
        match said {
            Said::Row(row) if row.seq < due => Ok(None),
            Said::Row(row) if row.seq > due => Err(ClientError::OutOfOrder { expected: due, got: row.seq }),
            Said::Row(row) => {
                self.cursor = row.seq;
                Ok(Some(Said::Row(row)))
            }
            Said::Sent { request, msg_id, seq, sent_at_ms, repeat, .. } => {
                let row = seq == due;
                if row {
                    self.cursor = seq;
                }
                Ok(Some(Said::Sent { request, msg_id, seq, sent_at_ms, repeat, row }))
            }
            Said::Gap { from, to } => {
                if from > due {
                    return Err(ClientError::OutOfOrder { expected: due, got: from });
                }
                self.cursor = self.cursor.max(to);
                Ok(Some(Said::Gap { from, to }))
            }
            Said::LoggedIn(info) => {
                self.cursor = info.from_seq;
                self.session = Some(info);
                Ok(Some(Said::LoggedIn(info)))
            }
            other => Ok(Some(other)),
        }
    }
}

/// The whole frame's length, prefix included, once the prefix is there.
pub(super) fn frame_len(bytes: &[u8]) -> Option<usize> {
    let prefix = bytes.first_chunk::<4>()?;
    Some(4 + u32::from_le_bytes(*prefix) as usize)
}

fn refused(said: Said) -> ClientError {
    match said {
        Said::Refused { code, message, retry_after_ms, .. } => ClientError::Refused { code, message, retry_after_ms },
        Said::Closing { reason, message, reconnect, reconnect_after_ms } => {
            ClientError::Closing { reason, message, reconnect_after_ms: reconnect.then_some(reconnect_after_ms) }
        }
        _ => ClientError::WrongAnswer,
    }
}

fn server_time(reply: &Reply<'_>) -> Option<u64> {
    match reply {
        Reply::LoginOk { server_time_ms, .. }
        | Reply::Pong { server_time_ms }
        | Reply::Error { server_time_ms, .. }
        | Reply::Closing { server_time_ms, .. } => Some(*server_time_ms).filter(|ms| *ms != 0),
        _ => None,
    }
}

fn row(view: &PushView<'_>) -> Row {
    Row {
        seq: view.seq,
        msg_id: view.msg_id,
        sender: view.sender,
        to: view.to,
        sent_at_ms: view.sent_at_ms,
        body: view.body.to_vec(),
    }
}

fn own(request: u32, reply: Reply<'_>) -> Said {
    match reply {
        Reply::LoginOk { session, user, heartbeat_ms, last_seq, from_seq, .. } => {
            Said::LoggedIn(LoginInfo { session, user, heartbeat_ms, last_seq, from_seq })
        }
        Reply::Pong { server_time_ms } => Said::Pong { request, server_time_ms },
        Reply::SendOk { msg_id, seq, sent_at_ms, repeat } => {
            Said::Sent { request, msg_id, seq, sent_at_ms, repeat, row: false }
        }
        Reply::Push(view) if view.seq == Seq(0) => Said::Ephemeral(row(&view)),
        Reply::Push(view) => Said::Row(row(&view)),
        Reply::SyncPage { rows, through, end, gap_to } => {
            Said::Page { request, rows: rows.iter().map(row).collect(), through, end, gap_to }
        }
        Reply::Gap { from, to } => Said::Gap { from, to },
        Reply::GroupOk { group, version } => Said::GroupOk { request, group, version },
        Reply::GroupInfo { group, version, members } => Said::GroupInfo { request, group, version, members },
        Reply::GroupList { groups } => Said::GroupList { request, groups },
        Reply::GroupChanged { group, version, kind, actor, members } => {
            Said::GroupChanged { group, version, kind, actor, members }
        }
        Reply::Presence { online } => Said::Presence { request, online },
        Reply::Error { code, message, retry_after_ms, .. } => {
            Said::Refused { request, code, message: message.to_owned(), retry_after_ms }
        }
        Reply::Closing { reason, message, reconnect, reconnect_after_ms, .. } => {
            Said::Closing { reason, message: message.to_owned(), reconnect, reconnect_after_ms }
        }
    }
}

#[cfg(test)]
mod tests;
