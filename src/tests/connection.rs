//! One connection to a gateway, blocking, for tests: it does nothing by itself, so that a test says all that is said.
//!
//! Owned by the test that made it. What always holds: the session core of `ringway-client` judges what comes, so a row
//! that is missing or out of its order is an error of the call that read it.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use ringway::clock::Clock;
use ringway_client::{Event, LoginInfo, Now, RequestId, Session, SessionError};
use ringway_wire::deframer::{DeframeError, Deframer};
use ringway_wire::frame::Encoder;
use ringway_wire::ids::{ClientMsgId, Conversation, DeviceId, GroupId, Seq, UserId};
use ringway_wire::limits::SERVER_FRAME_BYTES_MAX;
use ringway_wire::request::Durability;
use ringway_wire::schema::{CloseReason, ErrorCode};
use thiserror::Error;

const READ_BYTES: usize = 64 * 1024;

/// A socket and the session on it.
pub(crate) struct Connection {
    stream: TcpStream,
    session: Session,
    deframer: Deframer,
    encoder: Encoder,
    /// What came and was not taken yet, in the order it came.
    events: VecDeque<Event>,
    info: Option<LoginInfo>,
    clock: Clock,
}

/// Why a call has no result.
#[derive(Debug, Error)]
pub(crate) enum ConnectionError {
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    #[error("the gateway closed the connection")]
    Closed,
    #[error("{0}")]
    Session(#[from] SessionError),
    #[error("{0}")]
    Deframe(#[from] DeframeError),
    #[error("the gateway closed the session: {reason:?}: {message}")]
    Closing { reason: CloseReason, message: String, reconnect_after_ms: Option<u32> },
    #[error("the gateway refused: {code:?}: {message}")]
    Refused { code: ErrorCode, message: String, retry_after_ms: u32 },
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("the gateway answered with something else: {0:?}")]
    WrongAnswer(Box<Event>),
}

impl Connection {
    /// Opens the connection; nothing is said yet.
    pub(crate) fn connect(addr: SocketAddr, timeout: Duration) -> Result<Connection, ConnectionError> {
        Ok(Connection::over(TcpStream::connect_timeout(&addr, timeout)?)?)
    }

    /// Speaks over a stream that is already connected.
    pub(crate) fn over(stream: TcpStream) -> std::io::Result<Connection> {
        stream.set_nodelay(true)?;
        let mut connection = Connection {
            stream,
            session: Session::new(None),
            deframer: Deframer::default(),
            encoder: Encoder::new(),
            events: VecDeque::new(),
            info: None,
            clock: Clock::start(),
        };
        connection.session.connecting(connection.now());
        Ok(connection)
    }

    /// Logs in and waits for the answer. `last_seq`: the newest row this device has; `None`: the gateway knows.
    pub(crate) fn login(
        &mut self,
        token: &str,
        device: DeviceId,
        last_seq: Option<Seq>,
        timeout: Duration,
    ) -> Result<LoginInfo, ConnectionError> {
        let request = self.ask_to_log_in(token, device, last_seq)?;
        let answers = |event: &Event| matches!(event, Event::LoggedIn(_)) || event.request() == Some(request);
        match self.wait(timeout, answers)? {
            Event::LoggedIn(info) => Ok(info),
            other => Err(refused(other)),
        }
    }

    /// Asks to log in; `Event::LoggedIn` or `Event::Closing` answers.
    pub(crate) fn ask_to_log_in(
        &mut self,
        token: &str,
        device: DeviceId,
        last_seq: Option<Seq>,
    ) -> Result<RequestId, ConnectionError> {
        self.session = Session::new(last_seq);
        self.session.connecting(self.now());
        let request = self.session.next_request();
        self.stream.write_all(self.encoder.login(request.0, token, device, last_seq))?;
        Ok(request)
    }

    /// What `LoginOk` said, once logged in.
    pub(crate) fn session(&self) -> Option<LoginInfo> {
        self.info
    }

    /// The newest row that came, all before it included.
    pub(crate) fn cursor(&self) -> Seq {
        self.session.cursor()
    }

    /// A new name for a message, in the server's time.
    pub(crate) fn new_client_msg_id(&self) -> ClientMsgId {
        self.session.new_client_msg_id(self.now(), fastrand::u128(..))
    }

    /// The server's clock as far as it is known, Unix milliseconds.
    pub(crate) fn server_now_ms(&self) -> u64 {
        self.session.server_ms(self.now())
    }

    /// Sends a message; `Event::Sent` or `Event::Refused` with the returned request answers it.
    pub(crate) fn send(
        &mut self,
        to: Conversation,
        client_msg_id: ClientMsgId,
        body: &[u8],
    ) -> Result<RequestId, ConnectionError> {
        self.ask(|encoder, id| encoder.send(id, to, client_msg_id, body, Durability::Durable))
    }

    /// The same to whoever is online.
    pub(crate) fn send_ephemeral(
        &mut self,
        to: Conversation,
        client_msg_id: ClientMsgId,
        body: &[u8],
    ) -> Result<RequestId, ConnectionError> {
        self.ask(|encoder, id| encoder.send(id, to, client_msg_id, body, Durability::Ephemeral))
    }

    /// Says that everything up to `seq` is here, whether that is so or not.
    pub(crate) fn ack(&mut self, seq: Seq) -> Result<(), ConnectionError> {
        Ok(self.stream.write_all(self.encoder.ack(seq))?)
    }

    /// Keeps the session alive; `Event::Pong` answers.
    pub(crate) fn ping(&mut self) -> Result<RequestId, ConnectionError> {
        self.ask(|encoder, id| encoder.ping(id))
    }

    /// Ends the session; the gateway answers with `Closing`.
    pub(crate) fn logout(&mut self) -> Result<(), ConnectionError> {
        self.ask(|encoder, id| encoder.logout(id)).map(drop)
    }

    /// Sends bytes as they are: for tests of what the gateway does with nonsense.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> Result<(), ConnectionError> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// One page of the inbox after `after`.
    pub(crate) fn sync(&mut self, after: Seq, rows_max: u32, timeout: Duration) -> Result<Event, ConnectionError> {
        let request = self.ask(|encoder, id| encoder.sync(id, after, rows_max))?;
        match self.answer(request, timeout)? {
            page @ Event::Page { .. } => Ok(page),
            other => Err(refused(other)),
        }
    }

    /// Makes a group of `members` and ourselves.
    pub(crate) fn group_create(
        &mut self,
        members: &[UserId],
        timeout: Duration,
    ) -> Result<(GroupId, u32), ConnectionError> {
        let request = self.ask(|encoder, id| encoder.group_create(id, members))?;
        self.group_ok(request, timeout)
    }

    /// Adds members; returns the group's version.
    pub(crate) fn group_add(
        &mut self,
        group: GroupId,
        members: &[UserId],
        timeout: Duration,
    ) -> Result<u32, ConnectionError> {
        let request = self.ask(|encoder, id| encoder.group_add(id, group, members))?;
        self.group_ok(request, timeout).map(|(_, version)| version)
    }

    /// Removes members; returns the group's version.
    pub(crate) fn group_remove(
        &mut self,
        group: GroupId,
        members: &[UserId],
        timeout: Duration,
    ) -> Result<u32, ConnectionError> {
        let request = self.ask(|encoder, id| encoder.group_remove(id, group, members))?;
        self.group_ok(request, timeout).map(|(_, version)| version)
    }

    /// Leaves a group; returns its version.
    pub(crate) fn group_leave(&mut self, group: GroupId, timeout: Duration) -> Result<u32, ConnectionError> {
        let request = self.ask(|encoder, id| encoder.group_leave(id, group))?;
        self.group_ok(request, timeout).map(|(_, version)| version)
    }

    /// The groups that we are in.
    pub(crate) fn group_list(&mut self, timeout: Duration) -> Result<Vec<GroupId>, ConnectionError> {
        let request = self.ask(|encoder, id| encoder.group_list_request(id))?;
        match self.answer(request, timeout)? {
            Event::GroupList { groups, .. } => Ok(groups.into_iter().map(|(group, ..)| group).collect()),
            other => Err(refused(other)),
        }
    }

    /// A group's members.
    pub(crate) fn group_info(&mut self, group: GroupId, timeout: Duration) -> Result<Event, ConnectionError> {
        let request = self.ask(|encoder, id| encoder.group_info_request(id, group))?;
        match self.answer(request, timeout)? {
            info @ Event::GroupInfo { .. } => Ok(info),
            other => Err(refused(other)),
        }
    }

    /// Gives the session another token; what is answered.
    pub(crate) fn refresh(&mut self, token: &str, timeout: Duration) -> Result<Event, ConnectionError> {
        let request = self.ask(|encoder, id| encoder.refresh(id, token))?;
        self.answer(request, timeout)
    }

    /// Which of `users` are online.
    pub(crate) fn presence(&mut self, users: &[UserId], timeout: Duration) -> Result<Vec<UserId>, ConnectionError> {
        let request = self.ask(|encoder, id| encoder.presence_request(id, users))?;
        match self.answer(request, timeout)? {
            Event::Presence { online, .. } => Ok(online),
            other => Err(refused(other)),
        }
    }

    /// What comes next; `None` when nothing came in time.
    pub(crate) fn next(&mut self, timeout: Duration) -> Result<Option<Event>, ConnectionError> {
        let end_ns = self.end_ns(timeout);
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if !self.read_until(end_ns)? {
                return Ok(None);
            }
        }
    }

    /// Waits for what answers `request`; everything else stays for [`Self::next`], in order.
    pub(crate) fn answer(&mut self, request: RequestId, timeout: Duration) -> Result<Event, ConnectionError> {
        self.wait(timeout, |event| event.request() == Some(request))
    }

    fn ask<'a>(
        &'a mut self,
        frame: impl FnOnce(&'a mut Encoder, u32) -> &'a [u8],
    ) -> Result<RequestId, ConnectionError> {
        let request = self.session.next_request();
        self.stream.write_all(frame(&mut self.encoder, request.0))?;
        Ok(request)
    }

    fn group_ok(&mut self, request: RequestId, timeout: Duration) -> Result<(GroupId, u32), ConnectionError> {
        match self.answer(request, timeout)? {
            Event::GroupOk { group, version, .. } => Ok((group, version)),
            other => Err(refused(other)),
        }
    }

    fn wait(&mut self, timeout: Duration, wanted: impl Fn(&Event) -> bool) -> Result<Event, ConnectionError> {
        let (end_ns, mut looked) = (self.end_ns(timeout), 0);
        loop {
            while looked < self.events.len() {
                if wanted(&self.events[looked]) || matches!(self.events[looked], Event::Closing { .. }) {
                    return match self.events.remove(looked).unwrap() {
                        closing @ Event::Closing { .. } => Err(refused(closing)),
                        event => Ok(event),
                    };
                }
                looked += 1;
            }
            if !self.read_until(end_ns)? {
                return Err(ConnectionError::TimedOut(timeout));
            }
        }
    }

    /// Reads until at least one more event has come; false: the time is over.
    fn read_until(&mut self, end_ns: u64) -> Result<bool, ConnectionError> {
        let before = self.events.len();
        // Not in the connection's own memory: a test may hold thousands of them.
        let mut buffer = [0; READ_BYTES];
        while self.events.len() == before {
            let left_ns = end_ns.saturating_sub(self.clock.mono_ns());
            if left_ns == 0 {
                return Ok(false);
            }
            self.stream.set_read_timeout(Some(Duration::from_nanos(left_ns.max(1_000))))?;
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ConnectionError::Closed),
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return Err(ConnectionError::Closed),
                Ok(bytes) => self.received(&buffer[..bytes])?,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(true)
    }

    fn received(&mut self, mut bytes: &[u8]) -> Result<(), ConnectionError> {
        let now = self.now();
        while let Some(frame) = self.deframer.next(&mut bytes, SERVER_FRAME_BYTES_MAX)? {
            let event: Option<Event> = self.session.receive(now, frame)?.into();
            if let Some(Event::LoggedIn(info)) = event {
                self.info = Some(info);
            }
            self.events.extend(event);
        }
        Ok(())
    }

    fn end_ns(&self, timeout: Duration) -> u64 {
        self.clock.mono_ns().saturating_add(timeout.as_nanos() as u64)
    }

    fn now(&self) -> Now {
        let now = self.clock.now();
        Now { mono_ms: now.mono_ms, unix_ms: now.unix_ms }
    }
}

fn refused(event: Event) -> ConnectionError {
    match event {
        Event::Refused { code, message, retry_after_ms, .. } => {
            ConnectionError::Refused { code, message, retry_after_ms }
        }
        Event::Closing { reason, message, reconnect_after_ms } => {
            ConnectionError::Closing { reason, message, reconnect_after_ms }
        }
        other => ConnectionError::WrongAnswer(Box::new(other)),
    }
}
