//! What the transports have in common: everything but the socket.
//!
//! Owned by a [`crate::blocking::Client`] or a `tokio::Client`. What always holds: an event counts as stored once the
//! caller comes back for the next one, and only then is its row acknowledged; events wait here only while an answer is
//! awaited, at most [`EVENTS_MAX`] of them.

use std::collections::VecDeque;
use std::io;

use thiserror::Error;

use crate::client_core::{ClientCore, CoreError, Device, Liveliness, Question, SendError};
use crate::clock::Clock;
use crate::event::{Cause, Event};
use crate::incoming::{LoginInfo, RequestId};
use crate::reconnect::NextStep;
use crate::{CloseReason, Conversation, ErrorCode, GroupId, Now, Seq};

/// Events that may wait while an answer is awaited.
pub(crate) const EVENTS_MAX: usize = 16 * 1024;
/// How long a connection may take to be made, or to take what is written.
pub(crate) const SOCKET_PATIENCE_MS: u64 = 10_000;
/// How much is read at once.
pub(crate) const READ_BYTES: usize = 64 * 1024;

/// Why a call has no result.
#[derive(Clone, PartialEq, Eq, Error, Debug)]
pub enum ClientError {
    /// The session has ended and does not begin again by itself. For `TokenInvalid` and `TokenExpired` give another
    /// token, for `SeqAhead` drop the copy of the inbox and say so.
    #[error("{0}")]
    Ended(Cause),
    /// The connection was lost while an answer was awaited; whether the request was carried out is not known.
    #[error("the connection was lost before the answer came: {0}")]
    Lost(Cause),
    /// The request was refused.
    #[error("the gateway refused: {code:?}: {message}")]
    Refused {
        /// As the schema names it; it says whether asking again can help.
        code: ErrorCode,
        /// What the gateway adds, for people to read.
        message: String,
    },
    /// The message was not taken.
    #[error(transparent)]
    Send(#[from] SendError),
    /// No answer in time.
    #[error("no answer from the gateway in time")]
    TimedOut,
    /// The answer was of another kind than the request.
    #[error("the gateway answered the request with something else")]
    WrongAnswer,
    /// Events came faster than the awaited answer.
    #[error("{EVENTS_MAX} events wait to be taken: take some, then ask again")]
    EventsWait,
}

/// What the transport is to do now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Write what there is, read what comes.
    Exchange,
    /// Connect, but not before this time (monotonic milliseconds).
    Connect(u64),
    /// Nothing, until the caller changes something.
    Stay(Cause),
}

/// A client without its socket.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) core: ClientCore,
    pub(crate) clock: Clock,
    pub(crate) step: Step,
    token: String,
    events: VecDeque<Event>,
    /// The newest row handed out: stored, once the caller comes back.
    handed_out: Option<Seq>,
    /// What the connection's `Closing` said.
    closing: Option<(CloseReason, String)>,
    /// What the last login was answered with.
    info: Option<LoginInfo>,
    /// How the last connection ended, until there is another or somebody was told.
    lost: Option<Cause>,
}

impl Transport {
    pub(crate) fn new(token: String, device: Device) -> Transport {
        Transport {
            core: ClientCore::new(device),
            clock: Clock::start(),
            step: Step::Connect(0),
            token,
            events: VecDeque::new(),
            handed_out: None,
            closing: None,
            info: None,
            lost: None,
        }
    }

    pub(crate) fn now(&self) -> Now {
        self.clock.now()
    }

    /// A socket is connected.
    pub(crate) fn connected(&mut self) {
        (self.closing, self.lost) = (None, None);
        self.core.connected(self.clock.now(), &self.token);
        self.step = Step::Exchange;
    }

    /// Bytes came.
    pub(crate) fn received(&mut self, bytes: &[u8]) -> Result<(), Cause> {
        let (mut input, now) = (bytes, self.clock.now());
        while let Some(incoming) = self.core.receive(now, &mut input)? {
            let Some(event) = Option::<Event>::from(incoming) else { continue };
            if let Event::LoggedIn(info) = event {
                self.info = Some(info);
            }
            match event {
                Event::Closing { reason, message, .. } => self.closing = Some((reason, message)),
                Event::Refused { request, code, message, retry_after_ms } if self.core.unanswered().keeps(request) => {
                    self.events.push_back(Event::Delayed { request, code, message, retry_after_ms });
                }
                event => self.events.push_back(event),
            }
        }
        Ok(())
    }

    /// Does what is due: afterwards there may be something to write.
    pub(crate) fn tick(&mut self) -> Result<(), Cause> {
        match self.core.tick(self.clock.now(), || fastrand::u128(..)) {
            Liveliness::Alive => Ok(()),
            Liveliness::GiveUp => Err(Cause::Silent),
        }
    }

    /// The connection is gone, or could not be made.
    pub(crate) fn ended(&mut self, cause: Cause) {
        let now = self.clock.now();
        let cause = match self.closing.take() {
            Some((reason, message)) => Cause::Closing { reason, message },
            None => cause,
        };
        self.step = match self.core.ended(now, fastrand::u64(..)) {
            NextStep::Reconnect { at_ms } => {
                let reconnect_after_ms = at_ms.saturating_sub(now.mono_ms);
                self.events.push_back(Event::Disconnected { cause: cause.clone(), reconnect_after_ms });
                Step::Connect(at_ms)
            }
            NextStep::NewToken(_) | NextStep::DropInbox | NextStep::Stop(_) => Step::Stay(cause.clone()),
        };
        self.lost = Some(cause);
    }

    pub(crate) fn info(&self) -> Option<LoginInfo> {
        self.info
    }

    /// How the last connection ended, if there has been none since.
    pub(crate) fn lost(&self) -> Option<Cause> {
        self.lost.clone()
    }

    /// A login was answered, and nobody has been told.
    pub(crate) fn has_logged_in(&self) -> bool {
        self.events.iter().any(|event| matches!(event, Event::LoggedIn(_)))
    }

    /// There is something to take.
    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// All that was handed out is stored and acknowledged; the session is to end.
    pub(crate) fn log_out(&mut self) {
        self.stored();
        if self.step == Step::Exchange {
            let now = self.clock.now();
            self.core.ack_now(now);
            self.core.ask(now, Question::Logout);
        }
    }

    /// Another token, for this and all later logins.
    pub(crate) fn set_token(&mut self, token: String) {
        self.token = token;
        self.connect_again();
    }

    /// The caller has dropped its copy of the inbox.
    pub(crate) fn forget(&mut self) {
        self.core.forget();
        self.handed_out = None;
        self.connect_again();
    }

    fn connect_again(&mut self) {
        if let Step::Stay(_) = self.step {
            self.step = Step::Connect(0);
        }
    }

    /// The next event; the one before it is stored.
    pub(crate) fn next_event(&mut self) -> Option<Event> {
        self.stored();
        let event = self.events.pop_front()?;
        self.handed_out = event.stored();
        Some(event)
    }

    /// What was handed out is stored.
    pub(crate) fn stored(&mut self) {
        if let Some(seq) = self.handed_out.take() {
            self.core.stored(self.clock.now(), seq);
        }
    }

    pub(crate) fn send(&mut self, to: Conversation, body: &[u8]) -> Result<RequestId, ClientError> {
        Ok(self.core.send(self.clock.now(), to, body, fastrand::u128(..))?)
    }

    pub(crate) fn send_ephemeral(&mut self, to: Conversation, body: &[u8]) -> Result<RequestId, ClientError> {
        Ok(self.core.send_ephemeral(self.clock.now(), to, body, fastrand::u128(..))?)
    }

    /// Asks: the answer is found with [`Self::take_answer`].
    pub(crate) fn ask(&mut self, question: Question<'_>) -> Result<RequestId, ClientError> {
        match &self.step {
            Step::Exchange => {}
            Step::Connect(_) => return Err(ClientError::Lost(self.lost.clone().unwrap_or(Cause::Closed))),
            Step::Stay(cause) => return Err(ClientError::Ended(cause.clone())),
        }
        self.lost = None;
        Ok(self.core.ask(self.clock.now(), question))
    }

    /// The answer to a request, if it has come; other events keep their places.
    pub(crate) fn take_answer(&mut self, request: RequestId) -> Result<Option<Event>, ClientError> {
        let Some(at) = self.events.iter().position(|event| event.request() == Some(request)) else {
            // A message outlives its connection; a question does not.
            return match self.lost.take() {
                Some(cause) if !self.core.unanswered().keeps(request) => Err(ClientError::Lost(cause)),
                _ if self.events.len() >= EVENTS_MAX => Err(ClientError::EventsWait),
                _ => Ok(None),
            };
        };
        // A row stays in its place too, for whoever reads the inbox.
        let is_row = self.events.get(at).is_some_and(|event| event.stored().is_some());
        match if is_row { self.events.get(at).cloned() } else { self.events.remove(at) } {
            Some(Event::Refused { code, message, .. }) => Err(ClientError::Refused { code, message }),
            event => Ok(event),
        }
    }

    /// Until when to wait for the socket (monotonic milliseconds), if nobody wants to be back before.
    pub(crate) fn wait_until_ms(&self) -> Option<u64> {
        self.core.next_due_ms(self.clock.now())
    }
}

impl From<CoreError> for Cause {
    fn from(error: CoreError) -> Cause {
        match error {
            CoreError::Session(error) => Cause::Session(error),
            CoreError::Deframe(error) => Cause::Deframe(error),
        }
    }
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Cause {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Cause::Closed,
            kind => Cause::Io(kind),
        }
    }
}

/// The group and its version, if that is the answer.
pub(crate) fn group_ok(event: Event) -> Result<(GroupId, u32), ClientError> {
    match event {
        Event::GroupOk { group, version, .. } => Ok((group, version)),
        _ => Err(ClientError::WrongAnswer),
    }
}
