//! Users that talk, lose their connection and come back, and remember all they saw.
//!
//! One thread a user, which owns its [`User`]; the test reads what they remember after it has joined them. What
//! always holds: a user notices by itself a row that comes twice, out of order, or differs from what it was.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ringway_client::{Event, RequestId, Row};
use ringway_wire::ids::{ClientMsgId, Conversation, GroupId, MsgId, Seq, UserId};
use ringway_wire::schema::{CloseReason, ErrorCode};

use crate::connection::{Connection, ConnectionError};
use crate::gateway::{PATIENCE, address, log_in, pause};

/// Messages of one user that may wait for their `SendOk`.
const IN_FLIGHT_MAX: usize = 16;

/// What the test tells its users.
#[derive(Default)]
pub(crate) struct Orders {
    /// No new messages; those not acked are still sent again.
    pub quiet: AtomicBool,
    /// No user has to say anything any more: end when all is acked and read.
    pub done: AtomicBool,
    /// Users with an odd number close their connection and come back each time this grows.
    pub come_back: AtomicU64,
    /// Acks over all users.
    pub acked: AtomicU64,
    /// Messages over all users that wait for their first ack.
    pub unacked: AtomicU64,
}

/// A message a user wants delivered.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub to: Conversation,
    pub client_msg_id: ClientMsgId,
    pub body: Vec<u8>,
    /// The first `SendOk` for it.
    pub acked: Option<(MsgId, Seq)>,
}

/// One user on one device.
pub(crate) struct User {
    pub id: UserId,
    data_dir: PathBuf,
    groups: Vec<GroupId>,
    peers: Vec<UserId>,
    orders: Arc<Orders>,
    random: fastrand::Rng,
    /// All that was ever sent, by number of sending.
    pub sent: Vec<Sent>,
    /// Request ids of this connection that wait for an answer.
    asked: BTreeMap<RequestId, usize>,
    /// Refused with `RETRY_LATER`: to be sent again.
    refused: Vec<usize>,
    /// Every row received, over all connections.
    pub rows: BTreeMap<Seq, Row>,
    cursor: Seq,
    pub reconnects: u64,
    /// How many of these it wanted itself.
    pub came_back: u64,
    /// `Closing{Draining}` frames received.
    pub farewells: u64,
}

impl User {
    pub(crate) fn new(
        id: UserId,
        data_dir: &Path,
        groups: Vec<GroupId>,
        peers: Vec<UserId>,
        orders: Arc<Orders>,
        seed: u64,
    ) -> User {
        User {
            id,
            data_dir: data_dir.to_owned(),
            groups,
            peers,
            orders,
            random: fastrand::Rng::with_seed(seed ^ id.0),
            sent: Vec::new(),
            asked: BTreeMap::new(),
            refused: Vec::new(),
            rows: BTreeMap::new(),
            cursor: Seq(0),
            reconnects: 0,
            came_back: 0,
            farewells: 0,
        }
    }

    /// Talks until the orders are to end and all is acked, across as many connections as it takes.
    pub(crate) fn run(mut self) -> User {
        loop {
            match self.connection() {
                Ok(()) => return self,
                Err(
                    ConnectionError::Io(_)
                    | ConnectionError::Closed
                    | ConnectionError::TimedOut(_)
                    | ConnectionError::Closing { reason: CloseReason::Draining, .. },
                ) => {
                    self.reconnects += 1;
                    pause(Duration::from_millis(self.random.u64(5..40)));
                }
                // It was told that its rows cannot be read for a while, and comes back as it was told.
                Err(ConnectionError::Closing {
                    reason: CloseReason::StoreUnavailable,
                    reconnect_after_ms: Some(wait_ms),
                    ..
                }) => pause(Duration::from_millis(wait_ms.into())),
                Err(error) => panic!("user {}: {error}", self.id),
            }
        }
    }

    fn addr(&self) -> Result<SocketAddr, ConnectionError> {
        address(&self.data_dir, "listen").ok_or(ConnectionError::Closed)
    }

    /// One connection, from login until it breaks or everything is done.
    fn connection(&mut self) -> Result<(), ConnectionError> {
        let mut client = log_in(self.addr()?, self.id.0, 1, Some(self.cursor))?;
        let info = client.session().unwrap();
        assert!(info.last_seq >= self.cursor, "user {}: the newest row went back", self.id);
        assert_eq!(info.from_seq, self.cursor);
        self.asked.clear();
        self.refused.clear();
        let waiting: Vec<usize> = (0..self.sent.len()).filter(|at| self.sent[*at].acked.is_none()).collect();
        for at in waiting {
            self.ask(&mut client, at)?;
        }
        loop {
            self.say(&mut client)?;
            while let Some(said) = client.next(Duration::from_millis(1))? {
                self.hear(said)?;
            }
            self.cursor = client.cursor();
            if self.orders.done.load(Ordering::Relaxed)
                && matches!(client.sync(self.cursor, 1, PATIENCE)?, Event::Page { rows, end: true, .. } if rows.is_empty())
            {
                return Ok(());
            }
            if self.random.u32(..50) == 0 {
                client.ack(self.cursor)?;
            }
            if self.id.0 % 2 == 1 && self.orders.come_back.load(Ordering::Relaxed) > self.came_back {
                self.came_back += 1;
                return Err(ConnectionError::Closed);
            }
        }
    }

    fn say(&mut self, client: &mut Connection) -> Result<(), ConnectionError> {
        if let Some(at) = self.refused.pop() {
            return self.ask(client, at);
        }
        let loud = !self.orders.quiet.load(Ordering::Relaxed);
        if !loud || self.asked.len() >= IN_FLIGHT_MAX {
            return Ok(());
        }
        if self.random.u32(..20) == 0 && !self.sent.is_empty() {
            // A message that was acked long ago, sent again: the answer must be the first one.
            let again = self.random.usize(..self.sent.len());
            if !self.asked.values().any(|at| *at == again) {
                return self.ask(client, again);
            }
        }
        let to = if self.random.bool() && !self.groups.is_empty() {
            Conversation::Group(self.groups[self.random.usize(..self.groups.len())])
        } else {
            Conversation::User(self.peers[self.random.usize(..self.peers.len())])
        };
        let length =
            if self.random.u32(..30) == 0 { self.random.usize(2_000..8_000) } else { self.random.usize(..200) };
        let mut body = format!("{} says {}: ", self.id, self.sent.len()).into_bytes();
        body.resize(body.len() + length, b'.');
        self.orders.unacked.fetch_add(1, Ordering::Relaxed);
        self.sent.push(Sent { to, client_msg_id: client.new_client_msg_id(), body, acked: None });
        self.ask(client, self.sent.len() - 1)
    }

    fn ask(&mut self, client: &mut Connection, at: usize) -> Result<(), ConnectionError> {
        let sent = &self.sent[at];
        let request = client.send(sent.to, sent.client_msg_id, &sent.body)?;
        self.asked.insert(request, at);
        Ok(())
    }

    fn hear(&mut self, said: Event) -> Result<(), ConnectionError> {
        match said {
            Event::Row(row) => self.remember(row),
            Event::Sent { request, msg_id, seq, sent_at_ms, repeat, row } => {
                let at = self.asked.remove(&request).expect("an answer to a question");
                let sent = self.sent[at].clone();
                match sent.acked {
                    None => {
                        self.sent[at].acked = Some((msg_id, seq));
                        self.orders.acked.fetch_add(1, Ordering::Relaxed);
                        self.orders.unacked.fetch_sub(1, Ordering::Relaxed);
                    }
                    Some(first) => {
                        assert_eq!(first, (msg_id, seq), "user {}: a repeat got another number", self.id);
                        assert!(repeat, "user {}: a repeat was not recognised", self.id);
                    }
                }
                if row {
                    let (sender, to, body) = (self.id, sent.to, sent.body);
                    self.remember(Row { seq, msg_id, sender, to, sent_at_ms, body });
                }
            }
            Event::Refused { request, code: ErrorCode::RetryLater | ErrorCode::StorageFull, .. } => {
                self.refused.extend(self.asked.remove(&request));
            }
            Event::Closing { reason, message, reconnect_after_ms } => {
                assert!(reconnect_after_ms.is_some(), "user {}: closed for good: {reason:?} {message}", self.id);
                self.farewells += u64::from(reason == CloseReason::Draining);
                return Err(ConnectionError::Closing { reason, message, reconnect_after_ms });
            }
            Event::GroupChanged { .. } | Event::Pong { .. } => {}
            other => panic!("user {}: nobody asked for {other:?}", self.id),
        }
        Ok(())
    }

    /// A row of the inbox, in its turn.
    fn remember(&mut self, row: Row) {
        assert_eq!(row.seq, self.cursor.next(), "user {}: a row is missing or came twice", self.id);
        self.cursor = row.seq;
        let before = self.rows.insert(row.seq, row);
        assert!(before.is_none(), "user {}: a seq was given twice", self.id);
    }
}
