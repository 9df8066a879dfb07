//! A client for programs that run on tokio (feature `tokio`).
//!
//! Owned by one task. What always holds: as in [`crate::blocking`]; every call may be cancelled, and the next one goes
//! on where it was, so `select!` and `timeout` are safe. Nothing happens between two calls: keep one waiting in
//! [`Client::next`].

use std::io::ErrorKind;
use std::time::Duration;

use ::tokio::io::Interest;
use ::tokio::net::TcpStream;
use ::tokio::time::timeout;

use crate::client_core::{Device, Question};
use crate::event::Cause;
use crate::event::Event;
use crate::incoming::{LoginInfo, RequestId};
use crate::transport::{ClientError, READ_BYTES, SOCKET_PATIENCE_MS, Step, Transport, group_ok};
use crate::{Conversation, DeviceId, GroupId, Role, Seq, UserId};

/// How long to wait for the socket when nothing is due.
const IDLE: Duration = Duration::from_secs(3_600);

/// A device's session with a gateway, over as many connections as it takes.
#[derive(Debug)]
pub struct Client {
    transport: Transport,
    /// `host:port`, looked up for each connection.
    address: String,
    stream: Option<TcpStream>,
    buffer: Box<[u8]>,
}

impl Client {
    /// Connects to `host:port` and logs in. `last_seq`: the newest row that this device has; `None`: the gateway knows
    /// what it acknowledged last. A first connection that fails is an error; every later one is made again.
    pub async fn connect(
        address: impl Into<String>,
        token: impl Into<String>,
        device: DeviceId,
        last_seq: Option<Seq>,
    ) -> Result<Client, ClientError> {
        Client::connect_as(address, token, Device::new(device, last_seq)).await
    }

    /// The same, with all that a login may say of the device.
    pub async fn connect_as(
        address: impl Into<String>,
        token: impl Into<String>,
        device: Device,
    ) -> Result<Client, ClientError> {
        let transport = Transport::new(token.into(), device);
        let buffer = vec![0; READ_BYTES].into_boxed_slice();
        let mut client = Client { transport, address: address.into(), stream: None, buffer };
        while !client.transport.has_logged_in() {
            client.step().await?;
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

    /// Sends a message with the next call that waits; [`Event::Sent`] with this number says that it is on the
    /// gateway's disk. It is sent again as often as it takes, and stored once.
    pub fn send(&mut self, to: Conversation, body: &[u8]) -> Result<RequestId, ClientError> {
        self.transport.send(to, body)
    }

    /// Sends a message to those who are online, without number or storage; it may be lost.
    pub fn send_ephemeral(&mut self, to: Conversation, body: &[u8]) -> Result<RequestId, ClientError> {
        self.transport.send_ephemeral(to, body)
    }

    /// Waits until a message that was sent is on the gateway's disk; what else comes waits for [`Self::next`].
    pub async fn wait_sent(&mut self, request: RequestId) -> Result<Event, ClientError> {
        self.answer(request).await
    }

    /// What comes next. The event before it counts as stored, and is acknowledged.
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        loop {
            if let Some(event) = self.transport.next_event() {
                return Ok(event);
            }
            self.step().await?;
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
    pub async fn sync(&mut self, after: Seq, rows_max: u32) -> Result<Event, ClientError> {
        self.ask(Question::Sync { after, rows_max }).await
    }

    /// Makes a group of `members` and ourselves: its number and version.
    pub async fn group_create(&mut self, members: &[UserId]) -> Result<(GroupId, u32), ClientError> {
        group_ok(self.ask(Question::GroupCreate { members }).await?)
    }

    /// Adds members; returns the group's version.
    pub async fn group_add(&mut self, group: GroupId, members: &[UserId]) -> Result<u32, ClientError> {
        group_ok(self.ask(Question::GroupAdd { group, members }).await?).map(|(_, version)| version)
    }

    /// Removes members; returns the group's version.
    pub async fn group_remove(&mut self, group: GroupId, members: &[UserId]) -> Result<u32, ClientError> {
        group_ok(self.ask(Question::GroupRemove { group, members }).await?).map(|(_, version)| version)
    }

    /// Leaves a group; returns its version.
    pub async fn group_leave(&mut self, group: GroupId) -> Result<u32, ClientError> {
        group_ok(self.ask(Question::GroupLeave { group }).await?).map(|(_, version)| version)
    }

    /// A group's version and members.
    pub async fn group_info(&mut self, group: GroupId) -> Result<(u32, Vec<(UserId, Role)>), ClientError> {
        match self.ask(Question::GroupInfo { group }).await? {
            Event::GroupInfo { version, members, .. } => Ok((version, members)),
            _ => Err(ClientError::WrongAnswer),
        }
    }

    /// The groups we are in: each with its version, our role, and how many members it has.
    pub async fn group_list(&mut self) -> Result<Vec<(GroupId, u32, Role, u32)>, ClientError> {
        match self.ask(Question::GroupList).await? {
            Event::GroupList { groups, .. } => Ok(groups),
            _ => Err(ClientError::WrongAnswer),
        }
    }

    /// Which of `users` are online.
    pub async fn presence(&mut self, users: &[UserId]) -> Result<Vec<UserId>, ClientError> {
        match self.ask(Question::Presence { users }).await? {
            Event::Presence { online, .. } => Ok(online),
            _ => Err(ClientError::WrongAnswer),
        }
    }

    /// Gives the session a newer token of the same user; returns when that one expires, Unix milliseconds. An error, that
    /// it does not count: the session goes on with the one it has.
    pub async fn refresh(&mut self, token: &str) -> Result<u64, ClientError> {
        match self.ask(Question::Refresh { token }).await? {
            Event::Refreshed { expires_at_ms, .. } => Ok(expires_at_ms),
            _ => Err(ClientError::WrongAnswer),
        }
    }

    /// Acknowledges all that was handed out and ends the session; what else came with its end is given back.
    pub async fn logout(mut self) -> Vec<Event> {
        self.transport.log_out();
        let mut rest = Vec::new();
        loop {
            rest.extend(std::iter::from_fn(|| self.transport.next_event()));
            // The end of the connection is what was asked for, whatever it looks like.
            if self.stream.is_none() || self.step().await.is_err() {
                return rest;
            }
        }
    }

    async fn ask(&mut self, question: Question<'_>) -> Result<Event, ClientError> {
        let request = self.transport.ask(question)?;
        self.answer(request).await
    }

    async fn answer(&mut self, request: RequestId) -> Result<Event, ClientError> {
        loop {
            if let Some(event) = self.transport.take_answer(request)? {
                return Ok(event);
            }
            self.step().await?;
        }
    }

    /// Connects, or waits for the socket once. What is changed is changed without waiting, so that it may be cancelled.
    async fn step(&mut self) -> Result<(), ClientError> {
        match self.transport.step.clone() {
            Step::Stay(cause) => return Err(ClientError::Ended(cause)),
            Step::Connect(at_ms) => {
                self.stream = None;
                ::tokio::time::sleep(self.transport.clock.until(at_ms)).await;
                match connect(&self.address).await {
                    Ok(stream) => {
                        self.stream = Some(stream);
                        self.transport.connected();
                    }
                    Err(cause) => self.transport.ended(cause),
                }
            }
            Step::Exchange => {
                if let Err(cause) = self.exchange().await {
                    self.stream = None;
                    self.transport.ended(cause);
                }
            }
        }
        Ok(())
    }

    /// Writes, reads once, and writes what that gave.
    async fn exchange(&mut self) -> Result<(), Cause> {
        self.transport.tick()?;
        let Client { transport, stream: Some(stream), buffer, .. } = self else { return Err(Cause::Closed) };
        flush(stream, transport)?;
        let interest = match transport.core.output().is_empty() {
            true => Interest::READABLE,
            false => Interest::READABLE | Interest::WRITABLE,
        };
        let wait = transport.wait_until_ms().map_or(IDLE, |due_ms| transport.clock.until(due_ms));
        match timeout(wait, stream.ready(interest)).await {
            Ok(ready) => drop(ready?),
            Err(_elapsed) => return Ok(()),
        }
        match stream.try_read(buffer) {
            Ok(0) => return Err(Cause::Closed),
            Ok(bytes) => transport.received(buffer.get(..bytes).unwrap_or_default())?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        transport.tick()?;
        flush(stream, transport)
    }
}

/// Writes what the socket takes now.
fn flush(stream: &TcpStream, transport: &mut Transport) -> Result<(), Cause> {
    while !transport.core.output().is_empty() {
        match stream.try_write(transport.core.output()) {
            Ok(0) => return Err(Cause::Closed),
            Ok(bytes) => transport.core.written(bytes),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn connect(address: &str) -> Result<TcpStream, Cause> {
    match timeout(Duration::from_millis(SOCKET_PATIENCE_MS), TcpStream::connect(address)).await {
        Ok(connected) => {
            let stream = connected?;
            stream.set_nodelay(true)?;
            Ok(stream)
        }
        Err(_elapsed) => Err(Cause::Io(ErrorKind::TimedOut)),
    }
}

#[cfg(test)]
mod tests;
