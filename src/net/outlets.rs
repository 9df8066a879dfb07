//! What a core's effects go to: the sockets of its connections, and the channels to other threads.
//!
//! Owned by the shell of one shard. What always holds: nothing here waits; each receiver is woken once for a batch; a
//! connection that is to end stays in the table until the ring watches its socket no more.

pub(crate) mod refused;
pub(crate) mod write;

use std::collections::VecDeque;
use std::ffi::c_int;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::ioctl::{Getter, Opcode, ioctl};
use rustix::net::{Shutdown, shutdown};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::clock::{Clock, Now};
use crate::contract::ids::{ConnId, ShardId};
use crate::contract::internal::{OrCount, Place};
use crate::contract::lane::{HandedOver, LaneEnvelope};
use crate::contract::nodes::ToNodes;
use crate::contract::report::ShellCounters;
use crate::contract::store::StoreAsk;
use crate::contract::submission::Submission;
use crate::net::closes;
use crate::net::connections::{Connection, Connections, Phase};
use crate::net::outlets::refused::Refused;
use crate::net::outlets::write::Lingering;
use crate::net::ring::{SocketRing, Watch};
use crate::net::run_queue::{Line, RunQueues};
use crate::shard::effects::Closed;
use crate::shard::route::Outlets;
use crate::topology::mailbox::{Crossing, Handover, Slot};
use crate::topology::store::StoreSender;
use crate::topology::submissions::SubmissionSender;
use ringway_wire::schema::CloseReason;

/// Bytes read from a socket at once, one buffer per shard: so few that what they ask does not take others' time, and so many
/// that the system call is a small part of it.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// The channels from a shard to the other threads.
#[derive(Debug)]
pub(crate) struct Channels {
    /// To the ledger.
    pub(crate) submissions: SubmissionSender,
    /// To each other shard, by its id.
    pub(crate) lanes: Vec<Option<Slot<Crossing>>>,
    /// To the store.
    pub(crate) store: StoreSender,
    /// To the cluster's other nodes, if there is a cluster.
    pub(crate) nodes: Option<mpsc::Sender<ToNodes>>,
}

/// Where a shard's effects go.
pub(crate) struct ShardOutlets {
    /// Whose they are.
    pub(crate) shard: ShardId,
    /// Its time.
    pub(crate) clock: Clock,
    /// Its connections.
    pub(crate) connections: Connections,
    /// Those that wait for their turns.
    pub(crate) run_queues: RunQueues,
    /// Tells what can be read or written.
    pub(crate) ring: SocketRing,
    /// Sockets of peers that were not taken.
    pub(crate) refused: Refused,
    /// What is read lies here until the core has seen it.
    pub(crate) read_buffer: Box<[u8]>,
    /// What was done with sockets.
    pub(crate) counters: ShellCounters,
    /// Outboxes to write; whoever writes them takes the whole list, so that the last on it has its turn too.
    pub(crate) dirty: Vec<ConnId>,
    /// Closed connections whose peers may still close first.
    pub(crate) lingering: Lingering,
    channels: Channels,
    /// Whom this batch has been sent to, and who is still to be woken.
    unwoken: Unwoken,
}

/// Who is to be woken.
#[derive(Default)]
struct Unwoken {
    /// The ledger was given something that others wait for.
    ledger: bool,
    /// The ledger was asked for somebody who logs in.
    ledger_for_login: bool,
    /// The shard that was sent to last. Runs of envelopes to one shard wake it once.
    lane: Option<ShardId>,
    store: bool,
}

impl ShardOutlets {
    /// Those of a shard without connections.
    pub(crate) fn new(shard: ShardId, clock: Clock, channels: Channels, ring: SocketRing) -> Self {
        ShardOutlets {
            shard,
            clock,
            connections: Connections::default(),
            run_queues: RunQueues::default(),
            ring,
            refused: Refused::default(),
            read_buffer: vec![0; READ_BUFFER_BYTES].into_boxed_slice(),
            counters: ShellCounters::default(),
            dirty: Vec::new(),
            lingering: VecDeque::new(),
            channels,
            unwoken: Unwoken::default(),
        }
    }

    /// The other end of a connection; `None`: it is gone.
    pub(crate) fn peer(&mut self, conn: ConnId) -> Option<SocketAddr> {
        closes::peer(&self.connections.get(conn)?.socket)
    }

    /// Adds the socket of a connection that the core has taken. Most have said something already.
    pub(crate) fn connect(&mut self, conn: ConnId, socket: OwnedFd, line: Line) {
        self.connections.insert(conn, Connection::new(socket, conn, line));
        self.enqueue(conn);
    }

    /// The connection is to have a turn. Nothing for one that has gone.
    pub(crate) fn enqueue(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.get(conn)
            && connection.enqueue()
        {
            self.run_queues.push(connection.line, conn);
        }
    }

    /// Has the ring watch a connection's socket.
    pub(crate) fn watch(&mut self, conn: ConnId, watch: Watch) {
        if let Some(connection) = self.connections.get(conn)
            && !connection.is_watched(watch)
        {
            connection.watched(watch);
            self.ring.watch(connection.socket.as_raw_fd(), conn, watch);
        }
    }

    /// The connection is to end: at its next turn, or when the ring's last event for it has come, which shutting the
    /// socket brings about.
    pub(crate) fn end(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get(conn) else { return };
        connection.phase = Phase::Cut;
        if connection.is_watched_at_all() {
            // That the peer is gone already is an event too.
            shutdown(&connection.socket, Shutdown::Both).ok();
        } else {
            self.enqueue(conn);
        }
    }

    /// A tick: ends what has lingered long enough.
    pub(crate) fn end_lingering(&mut self, now: Now) {
        while let Some((until, conn)) = self.lingering.front().copied()
            && until <= now.mono_ms
        {
            self.lingering.pop_front();
            self.end(conn);
        }
    }

    /// Wakes the ledger if it was asked for somebody who logs in. Those wait for each other, and this is called once for
    /// all who had their turns: to wake another thread costs more than everything else that a login takes of the ledger.
    pub(crate) fn wake_ledger_for_logins(&mut self) {
        if std::mem::take(&mut self.unwoken.ledger_for_login) {
            self.channels.submissions.wake();
        }
    }

    /// Deliveries go on to their next step: a store that shares this CPU yields to them.
    pub(crate) fn delivery_step(&self) {
        self.channels.store.store_yield().delivery_step();
    }

    /// Questions that wait for the store, all shards' together.
    pub(crate) fn store_asks(&self) -> u64 {
        self.channels.store.len() as u64
    }

    fn lane(&self, to: ShardId) -> Option<&Slot<Crossing>> {
        // The core sends neither to itself nor to a shard that is not there.
        self.channels.lanes.get(usize::from(to.0)).and_then(Option::as_ref).or_count(Place::Route)
    }
}

impl Outlets for ShardOutlets {
    type Peer = OwnedFd;

    fn submit(&mut self, mut submission: Submission) -> Result<(), Submission> {
        submission.handed_on(self.clock.mono_us());
        match submission {
            Submission::Position { .. } => self.unwoken.ledger_for_login = true,
            _ => self.unwoken.ledger = true,
        }
        self.channels.submissions.submit(submission)
    }

    fn cross(&mut self, to: ShardId, envelope: LaneEnvelope) -> Result<(), LaneEnvelope> {
        if self.unwoken.lane != Some(to) {
            self.wake_lane();
        }
        let Some(lane) = self.lane(to) else { return Err(envelope) };
        let sent = lane.put(Crossing::Envelope(envelope));
        self.unwoken.lane = Some(to);
        match sent {
            Err(Crossing::Envelope(refused)) => Err(refused),
            Ok(()) | Err(Crossing::Connection(_) | Crossing::Look(_)) => Ok(()),
        }
    }

    fn ask(&mut self, ask: StoreAsk) -> Result<(), StoreAsk> {
        self.unwoken.store = true;
        self.channels.store.ask(ask)
    }

    fn notify_nodes(&mut self, envelope: ToNodes) -> Result<(), ToNodes> {
        // Without a cluster the core tells other nodes nothing.
        let Some(nodes) = self.channels.nodes.as_ref().or_count(Place::Route) else { return Ok(()) };
        nodes.try_send(envelope).map_err(|error| match error {
            TrySendError::Full(envelope) | TrySendError::Closed(envelope) => envelope,
        })
    }

    fn hand_over(&mut self, conn: ConnId, to: ShardId, session: HandedOver) -> Result<(), (OwnedFd, HandedOver)> {
        // A connection that has just been read is watched for nothing: it had sent a login, and was sent nothing.
        let Some(connection) = self.connections.remove(conn).or_count(Place::Connections) else { return Ok(()) };
        debug_assert!(!connection.is_watched_at_all(), "the ring watches a socket that is handed over");
        let handover = Box::new(Handover { descriptor: connection.socket, session });
        let refused = match self.lane(to) {
            Some(lane) => {
                let sent = lane.put(Crossing::Connection(handover));
                lane.wake();
                match sent {
                    Err(Crossing::Connection(refused)) => refused,
                    Ok(()) | Err(Crossing::Envelope(_) | Crossing::Look(_)) => return Ok(()),
                }
            }
            None => handover,
        };
        self.counters.handovers_refused += 1;
        Err((refused.descriptor, refused.session))
    }

    fn refuse(&mut self, now: Now, peer: OwnedFd, reason: CloseReason, last: &[u8]) {
        self.refuse_peer(now, peer, reason, last);
    }

    fn unacknowledged(&mut self, conn: ConnId) -> Option<u64> {
        let connection = self.connections.get(conn)?;
        // SAFETY: this request writes one int to where its argument points, and reads nothing.
        let unacknowledged = unsafe { ioctl(&connection.socket, Getter::<{ libc::TIOCOUTQ as Opcode }, c_int>::new()) };
        u64::try_from(unacknowledged.ok()?).ok()
    }

    /// Writes it down, if anybody reads that: nothing is listed otherwise.
    fn closed(&mut self, closed: &Closed) {
        let connection = self.connections.get(closed.conn);
        closes::log(closed, self.shard, connection.map(|connection| &connection.socket));
    }

    fn resume(&mut self, conn: ConnId) {
        self.enqueue(conn);
    }

    fn cut(&mut self, conn: ConnId) {
        self.end(conn);
    }

    fn write(&mut self, dirty: &mut Vec<ConnId>) {
        if self.dirty.is_empty() {
            std::mem::swap(&mut self.dirty, dirty);
        } else {
            self.dirty.append(dirty);
        }
    }

    fn wake(&mut self) {
        if std::mem::take(&mut self.unwoken.ledger) {
            self.unwoken.ledger_for_login = false;
            self.delivery_step();
            self.channels.submissions.wake();
        }
        self.wake_lane();
        if std::mem::take(&mut self.unwoken.store) {
            self.channels.store.wake();
        }
    }
}

impl ShardOutlets {
    fn wake_lane(&mut self) {
        if let Some(to) = self.unwoken.lane.take()
            && let Some(lane) = self.lane(to)
        {
            lane.wake();
        }
    }
}
