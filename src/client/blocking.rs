//! A client on an ordinary socket, for one thread: every call waits.
//!
//! Owned by the thread that uses it. What always holds: a lost connection is made again, when the gateway asked for
//! it or later each time, and goes on where it was; nothing happens between two calls, so call [`Client::next`] at
//! least once per heartbeat.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::client_core::{Device, Question};
use crate::event::Cause;
use crate::event::Event;
use crate::incoming::{LoginInfo, RequestId};
use crate::transport::{ClientError, READ_BYTES, SOCKET_PATIENCE_MS, Step, Transport, group_ok};
use crate::{Conversation, DeviceId, GroupId, Role, Seq, UserId};

/// A device's session with a gateway, over as many connections as it takes.
#[derive(Debug)]
pub struct Client {
    transport: Transport,
    /// `host:port`, looked up for each connection.
    address: String,
    stream: Option<TcpStream>,
}

impl Client {
    /// Connects to `host:port` and logs in. `last_seq`: the newest row that this device has; `None`: the gateway knows
    /// what it acknowledged last. A first connection that fails is an error; every later one is made again.
    pub fn connect(
        address: impl Into<String>,
        token: impl Into<String>,
        device: DeviceId,
        last_seq: Option<Seq>,
    ) -> Result<Client, ClientError> {
        Client::connect_as(address, token, Device::new(device, last_seq))
    }

    /// The same, with all that a login may say of the device.
    pub fn connect_as(
        address: impl Into<String>,
        token: impl Into<String>,
        device: Device,
    ) -> Result<Client, ClientError> {
        let transport = Transport::new(token.into(), device);
        let mut client = Client { transport, address: address.into(), stream: None };
        let end_ms = client.transport.now().mono_ms + 2 * SOCKET_PATIENCE_MS;
        while !client.transport.has_logged_in() {
            if !client.step(end_ms)? {
                return Err(ClientError::TimedOut);
            }
            if let (Step::Connect(_), Some(cause)) = (&client.transport.step, client.transport.lost()) {
                return Err(ClientError::Lost(cause));
            }
        }
        Ok(client)
    }

    /// What the last login was answered with: who we are, and where the inbox stood.
    pub fn session(&self) -> Option<LoginInfo> {
        self.transport.info()
    }

    /// The highest row that came, and all before it.
    pub fn cursor(&self) -> Seq {
        self.transport.core.session().cursor()
    }

    /// Messages that have no answer yet.
    pub fn unanswered(&self) -> usize {
        self.transport.core.unanswered().len()
    }

    /// Sends a message; [`Event::Sent`] with this number says that it is on the gateway's disk. It is sent again as
    /// often as it takes, and stored once.
    pub fn send(&mut self, to: Conversation, body: &[u8]) -> Result<RequestId, ClientError> {
        let request = self.transport.send(to, body)?;
        self.write();
        Ok(request)
    }

    /// Sends a message to those who are online, without number or storage; it may be lost.
    pub fn send_ephemeral(&mut self, to: Conversation, body: &[u8]) -> Result<RequestId, ClientError> {
        let request = self.transport.send_ephemeral(to, body)?;
        self.write();
        Ok(request)
    }

    /// Waits until a message that was sent is on the gateway's disk; what else comes waits for [`Self::next`].
    pub fn wait_sent(&mut self, request: RequestId, timeout: Duration) -> Result<Event, ClientError> {
        self.answer(request, timeout)
    }

    /// What comes next; `None` when nothing came in time. The event before it counts as stored, and is acknowledged.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Event>, ClientError> {
        let end_ms = self.end_ms(timeout);
        loop {
            if let Some(event) = self.transport.next_event() {
                return Ok(Some(event));
            }
            if !self.step(end_ms)? {
                return Ok(None);
            }
        }
    }

    /// Another token, for this and all later logins: after `TokenExpired`, or before.
    pub fn set_token(&mut self, token: impl Into<String>) {
        self.transport.set_token(token.into());
    }

    /// After `SeqAhead`: the caller has dropped its copy of the inbox, which now begins before its first row.
    pub fn forget_inbox(&mut self) {
        self.transport.forget();
    }

    /// One page of the inbox after `after`, for history.
    pub fn sync(&mut self, after: Seq, rows_max: u32, timeout: Duration) -> Result<Event, ClientError> {
        self.ask(Question::Sync { after, rows_max }, timeout)
    }

    /// Makes a group of `members` and ourselves: its number and version.
    pub fn group_create(&mut self, members: &[UserId], timeout: Duration) -> Result<(GroupId, u32), ClientError> {
        group_ok(self.ask(Question::GroupCreate { members }, timeout)?)
    }

    /// Adds members; returns the group's version.
    pub fn group_add(&mut self, group: GroupId, members: &[UserId], timeout: Duration) -> Result<u32, ClientError> {
        group_ok(self.ask(Question::GroupAdd { group, members }, timeout)?).map(|(_, version)| version)
    }

    /// Removes members; returns the group's version.
    pub fn group_remove(&mut self, group: GroupId, members: &[UserId], timeout: Duration) -> Result<u32, ClientError> {
        group_ok(self.ask(Question::GroupRemove { group, members }, timeout)?).map(|(_, version)| version)
    }

    /// Leaves a group; returns its version.
    pub fn group_leave(&mut self, group: GroupId, timeout: Duration) -> Result<u32, ClientError> {
        group_ok(self.ask(Question::GroupLeave { group }, timeout)?).map(|(_, version)| version)
    }

    /// A group's version and members.
    pub fn group_info(&mut self, group: GroupId, timeout: Duration) -> Result<(u32, Vec<(UserId, Role)>), ClientError> {
        match self.ask(Question::GroupInfo { group }, timeout)? {
            Event::GroupInfo { version, members, .. } => Ok((version, members)),
            _ => Err(ClientError::WrongAnswer),
        }
    }

    /// The groups we are in: each with its version, our role, and how many members it has.
    pub fn group_list(&mut self, timeout: Duration) -> Result<Vec<(GroupId, u32, Role, u32)>, ClientError> {
        match self.ask(Question::GroupList, timeout)? {
            Event::GroupList { groups, .. } => Ok(groups),
            _ => Err(ClientError::WrongAnswer),
        }
    }

    /// Which of `users` are online.
    pub fn presence(&mut self, users: &[UserId], timeout: Duration) -> Result<Vec<UserId>, ClientError> {
        match self.ask(Question::Presence { users }, timeout)? {
            Event::Presence { online, .. } => Ok(online),
            _ => Err(ClientError::WrongAnswer),
        }
    }

    /// Gives the session a newer token of the same user; returns when that one expires, Unix milliseconds. An error, that
    /// it does not count: the session goes on with the one it has.
    pub fn refresh(&mut self, token: &str, timeout: Duration) -> Result<u64, ClientError> {
        match self.ask(Question::Refresh { token }, timeout)? {
            Event::Refreshed { expires_at_ms, .. } => Ok(expires_at_ms),
            _ => Err(ClientError::WrongAnswer),
        }
    }

    /// Acknowledges all that was handed out and ends the session; what else came with its end is given back.
    pub fn logout(mut self, timeout: Duration) -> Vec<Event> {
        self.transport.log_out();
        let (mut rest, end_ms) = (Vec::new(), self.end_ms(timeout));
        loop {
            rest.extend(std::iter::from_fn(|| self.transport.next_event()));
            // The end of the connection is what was asked for, whatever it looks like.
            if self.stream.is_none() || !matches!(self.step(end_ms), Ok(true)) {
                return rest;
            }
        }
    }

    fn ask(&mut self, question: Question<'_>, timeout: Duration) -> Result<Event, ClientError> {
        let request = self.transport.ask(question)?;
        self.write();
        self.answer(request, timeout)
    }

    fn answer(&mut self, request: RequestId, timeout: Duration) -> Result<Event, ClientError> {
        let end_ms = self.end_ms(timeout);
        loop {
            if let Some(event) = self.transport.take_answer(request)? {
                return Ok(event);
            }
            if !self.step(end_ms)? {
                return Err(ClientError::TimedOut);
            }
        }
    }

    fn end_ms(&self, timeout: Duration) -> u64 {
        self.transport.now().mono_ms.saturating_add(timeout.as_millis() as u64)
    }

    /// Connects, or writes what there is and reads what comes, waiting for it; false: the time is over.
    fn step(&mut self, end_ms: u64) -> Result<bool, ClientError> {
        match self.transport.step.clone() {
            Step::Stay(cause) => return Err(ClientError::Ended(cause)),
            Step::Connect(at_ms) => {
                self.stream = None;
                if self.transport.now().mono_ms < at_ms {
                    std::thread::park_timeout(self.transport.clock.until(at_ms.min(end_ms)));
                    return Ok(self.transport.now().mono_ms < end_ms);
                }
                match connect(&self.address) {
                    Ok(stream) => {
                        self.stream = Some(stream);
                        self.transport.connected();
                    }
                    Err(error) => self.transport.ended(error.into()),
                }
            }
            Step::Exchange => {
                if let Err(cause) = self.exchange(end_ms) {
                    self.stream = None;
                    self.transport.ended(cause);
                    return Ok(true);
                }
            }
        }
        Ok(self.transport.has_events() || self.transport.now().mono_ms < end_ms)
    }

    /// Writes, reads once, and writes what that gave.
    fn exchange(&mut self, end_ms: u64) -> Result<(), Cause> {
        self.transport.tick()?;
        let until_ms = self.transport.wait_until_ms().map_or(end_ms, |due_ms| due_ms.min(end_ms));
        let wait = self.transport.clock.until(until_ms).max(Duration::from_millis(1));
        let Client { transport, stream: Some(stream), .. } = self else { return Err(Cause::Closed) };
        flush(stream, transport)?;
        stream.set_read_timeout(Some(wait))?;
        let mut buffer = [0; READ_BYTES];
        match stream.read(&mut buffer) {
            Ok(0) => return Err(Cause::Closed),
            Ok(bytes) => transport.received(&buffer[..bytes])?,
            Err(error) if is_pause(&error) => {}
            Err(error) => return Err(error.into()),
        }
        transport.tick()?;
        flush(stream, transport)
    }

    /// Writes at once what a call has made. A failure is seen by the read that follows.
    fn write(&mut self) {
        if let Client { transport, stream: Some(stream), .. } = self
            && transport.step == Step::Exchange
            && let Err(cause) = flush(stream, transport)
        {
            self.stream = None;
            self.transport.ended(cause);
        }
    }
}

fn flush(stream: &mut TcpStream, transport: &mut Transport) -> Result<(), Cause> {
    while !transport.core.output().is_empty() {
        match stream.write(transport.core.output()) {
            Ok(0) => return Err(Cause::Closed),
            Ok(bytes) => transport.core.written(bytes),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Tries each address that the name has.
fn connect(address: &str) -> io::Result<TcpStream> {
    let patience = Duration::from_millis(SOCKET_PATIENCE_MS);
    let mut failure = io::Error::from(ErrorKind::NotFound);
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(patience))?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Nothing came, and nothing is wrong.
fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests;
