//! A client's core on a socket: bytes in, bytes out, and what came.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use ringway_client::client_core::{CoreError, Device, Liveliness, Question};
use ringway_client::{ClientCore, DeviceId, Incoming, Seq, UserId};
use ringway_wire::request::Reply;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::{Crowd, PATIENCE};
use crate::clock;
use crate::error::Failure;

/// How long a connection may take to be made.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// The longest that nothing is looked at.
const IDLE_MS: u64 = 1_000;
/// The heartbeat that devices ask for: so a connection whose other end is gone is found dead in a quarter of a minute.
const HEARTBEAT_MS: u32 = 5_000;
const READ_BYTES: usize = 16 * 1024;

/// Why a connection has ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// By the network, or by the gateway.
    #[error("{0}")]
    Lost(String),
    /// What came is not what the protocol allows.
    #[error("{0}")]
    Broken(String),
    /// The run cannot go on.
    #[error("{0}")]
    Failed(Failure),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Ended {
        Ended::Lost(error.kind().to_string())
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Ended {
        Ended::Failed(failure)
    }
}

impl From<CoreError> for Ended {
    fn from(error: CoreError) -> Ended {
        Ended::Broken(error.to_string())
    }
}

/// A connection.
pub(crate) struct Socket {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// What the gateway's last frame said.
    closing: Option<String>,
}

/// A device as it logs in.
pub(crate) fn device(id: u64, last_seq: Option<u64>) -> Device {
    Device { heartbeat_ms: HEARTBEAT_MS, ..Device::new(DeviceId(id), last_seq.map(Seq)) }
}

impl Socket {
    /// Connects, and logs the core's device in.
    pub(crate) async fn connect(address: SocketAddr, core: &mut ClientCore, token: &str) -> Result<Socket, Ended> {
        let connected = timeout(CONNECT_PATIENCE, TcpStream::connect(address)).await;
        let stream = connected.map_err(|_| Ended::Lost("not connected in time".to_owned()))??;
        stream.set_nodelay(true)?;
        core.connected(clock::now(), token);
        Ok(Socket { stream, buffer: vec![0; READ_BYTES], closing: None })
    }

    /// Writes, waits for the socket until `until_ms` at the latest, reads once, and hands out what that gave.
    pub(crate) async fn exchange(
        &mut self,
        core: &mut ClientCore,
        until_ms: u64,
        mut take: impl FnMut(Incoming<'_>) -> Result<(), Failure>,
    ) -> Result<(), Ended> {
        let now = clock::now();
        if core.tick(now, || fastrand::u128(..)) == Liveliness::GiveUp {
            return Err(Ended::Lost("no sign of life".to_owned()));
        }
        self.flush(core)?;
        let due_ms = core.next_due_ms(now).unwrap_or(u64::MAX).min(until_ms).min(now.mono_ms + IDLE_MS);
        let wait = Duration::from_millis((due_ms + 1).saturating_sub(now.mono_ms));
        let interest = match core.output().is_empty() {
            true => Interest::READABLE,
            false => Interest::READABLE | Interest::WRITABLE,
        };
        let Ok(ready) = timeout(wait, self.stream.ready(interest)).await else { return Ok(()) };
        ready?;
        match self.stream.try_read(&mut self.buffer) {
            Ok(0) => return Err(Ended::Lost(self.closing.take().unwrap_or_else(|| "closed".to_owned()))),
            Ok(bytes) => {
                let mut input = self.buffer.get(..bytes).unwrap_or_default();
                while let Some(incoming) = core.receive(clock::now(), &mut input)? {
                    if let Incoming::Closing(closing) = &incoming {
                        self.closing = Some(format!("{:?}", closing.reason));
                    }
                    take(incoming)?;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        // All that came is in the history.
        let cursor = core.session().cursor();
        core.stored(clock::now(), cursor);
        self.flush(core)
    }

    fn flush(&mut self, core: &mut ClientCore) -> Result<(), Ended> {
        while !core.output().is_empty() {
            match self.stream.try_write(core.output()) {
                Ok(0) => return Err(Ended::Lost("closed".to_owned())),
                Ok(bytes) => core.written(bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Makes a group of `members`, the first of which has this token; asks until it is made.
pub(super) async fn make_group(crowd: &Crowd, token: &str, members: &[u64]) -> Result<u64, Failure> {
    let members: Vec<UserId> = members.iter().copied().map(UserId).collect();
    let mut last = String::new();
    for attempt in 0..PATIENCE.as_secs() as usize {
        match try_make_group(crowd, token, &members, attempt).await {
            Ok(Some(group)) => return Ok(group),
            Ok(None) => last = "it was refused".to_owned(),
            Err(Ended::Failed(failure)) => return Err(failure),
            Err(ended) => last = ended.to_string(),
        }
        sleep(Duration::from_secs(1)).await;
    }
    Err(Failure::Clients(format!("a group could not be made: {last}")))
}

async fn try_make_group(crowd: &Crowd, token: &str, members: &[UserId], attempt: usize) -> Result<Option<u64>, Ended> {
    let Some(address) = crowd.gateways.get(attempt % crowd.gateways.len().max(1)) else { return Ok(None) };
    let mut core = ClientCore::new(device(100, Some(0)));
    let mut socket = Socket::connect(*address, &mut core, token).await?;
    let (mut asked, mut made, mut refused) = (false, None, false);
    for _ in 0..30 {
        if core.session().is_live() && !asked {
            core.ask(clock::now(), Question::GroupCreate { members });
            asked = true;
        }
        let taken = |incoming: Incoming<'_>| {
            match incoming {
                Incoming::Other { reply: Reply::GroupOk { group, .. }, .. } => made = Some(group.0),
                Incoming::Refused(_) => refused = true,
                _ => {}
            }
            Ok(())
        };
        socket.exchange(&mut core, u64::MAX, taken).await?;
        if made.is_some() || refused {
            return Ok(made);
        }
    }
    Ok(None)
}
