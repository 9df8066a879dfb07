//! The state that a shard's tasks share: the core, the seats, the buffer to read into, the ends of the channels.
//!
//! Owned by one shard's thread, behind one `Rc<RefCell<_>>`. What always holds: after each batch of events
//! [`Shell::route`] has passed on what the core wants passed on, and the pump has been told if an outbox is dirty.
//! What an event means is the core's business, when to look at a socket is the tasks'.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::Waker;

use glommio::net::TcpStream;
use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::clock::{Clock, Now};
use crate::ids::{ConnId, ShardId};
use crate::limits::{DESCRIPTORS_FREE_ALWAYS, DESCRIPTORS_FREE_OF_CLIENTS};
use crate::net::budget::{BUDGETS, Budget, Budgets, Spent};
use crate::net::closes;
use crate::net::connection::Connection;
use crate::net::seat::{Phase, Seat, Seats, Writer};
use crate::net::shard::ShellCounters;
use crate::shard::event::HandedOver;
use crate::shard::event::nodes::ToNodes;
use crate::shard::{AfterWrite, NotAdopted, Shard};
use crate::topology::mailbox::{Crossing, Handover, Slot};
use crate::topology::store::StoreDoor;
use crate::topology::submissions::SubmissionDoor;
use crate::wire::generated::ringway::wire::CloseReason;

/// Bytes read from a socket at once, one buffer per shard.
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// Slices of an outbox written with one system call: 64 chunks, or 32 bodies and what lies between.
const WRITE_SLICES_MAX: usize = 64;
/// How long a closed connection's peer may take to close its side.
const LINGER_MS: u64 = 1_000;
/// Sockets of refused peers that are kept so long; above it the oldest is closed.
const REFUSED_KEPT_MAX: usize = 64;

/// A shard's shell, as its tasks hold it.
pub type Door = Rc<RefCell<Shell>>;

/// Where a shard sends to.
#[derive(Debug)]
pub struct Outlets {
    /// To the ledger.
    pub submissions: SubmissionDoor,
    /// To each other shard, by its id.
    pub lanes: Vec<Option<Slot<Crossing>>>,
    /// To the store.
    pub store: StoreDoor,
    /// To the cluster's other nodes, if there is a cluster.
    pub nodes: Option<mpsc::Sender<ToNodes>>,
}

/// The state.
pub struct Shell {
    /// The core.
    pub core: Shard,
    /// Its time.
    pub clock: Clock,
    /// What the shell knows of each connection.
    pub seats: Seats,
    /// What is read lies here until the core has seen it.
    pub read_buffer: Box<[u8]>,
    /// Counted by the shell.
    pub counters: ShellCounters,
    outlets: Outlets,
    /// Wakes the pump if it sleeps.
    pump: Option<Waker>,
    /// Outboxes to write this turn; keeps its memory from turn to turn.
    flushing: Vec<ConnId>,
    /// Closed connections whose peers may still close first, by the time that ends.
    lingering: VecDeque<(u64, ConnId)>,
    /// Sockets of refused peers, likewise.
    refused: VecDeque<(u64, OwnedFd)>,
    /// On whose time the shard's tasks run.
    budgets: Budgets,
}

/// Whether a flush is through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flush {
    /// Every dirty outbox was written.
    Done,
    /// Some are left: let other tasks run, then go on.
    More,
}

/// How far a write went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wrote {
    /// Nothing waits any more.
    All,
    /// The socket takes no more now.
    Full,
    /// The socket takes nothing ever again.
    Broken,
}

impl Shell {
    /// A shell without connections.
    pub fn new(core: Shard, clock: Clock, outlets: Outlets, budgets: Budgets) -> Self {
        Shell {
            core,
            clock,
            seats: Seats::default(),
            read_buffer: vec![0; READ_BUFFER_BYTES].into_boxed_slice(),
            counters: ShellCounters::default(),
            outlets,
            pump: None,
            flushing: Vec::new(),
            lingering: VecDeque::new(),
            refused: VecDeque::new(),
            budgets,
        }
    }

    /// Passes on what the core wants passed on, with one wake-up per receiver, and tells the pump if there is
    /// something to write.
    pub fn route(&mut self) {
        let now = self.clock.now();
        self.tell_closes();
        self.route_submissions(now);
        self.route_handovers();
        self.route_lanes(now);
        self.route_asks(now);
        self.route_to_nodes();
        let effects = self.core.effects();
        for conn in effects.resumed.drain(..) {
            if let Some(seat) = self.seats.seat(conn) {
                seat.wake();
            }
        }
        for conn in effects.cuts.drain(..) {
            if let Some(seat) = self.seats.seat(conn) {
                seat.phase = Phase::Cut;
                seat.wake();
            }
        }
        if !effects.dirty.is_empty()
            && let Some(pump) = self.pump.take()
        {
            pump.wake();
        }
    }

    /// Writes down what was closed, if anybody reads it: nothing is listed otherwise.
    fn tell_closes(&mut self) {
        let shard = self.core.id();
        for closed in self.core.effects().closed.drain(..) {
            let descriptor = self.seats.seat(closed.conn).map(|seat| seat.descriptor);
            closes::tell(&closed, shard, descriptor);
        }
    }

    fn route_submissions(&mut self, now: Now) {
        if self.core.effects().submissions.is_empty() {
            return;
        }
        while let Some(submission) = self.core.effects().submissions.pop_front() {
            if let Err(refused) = self.outlets.submissions.submit(submission) {
                self.core.refused_submission(now, refused);
            }
        }
        self.rush();
        self.outlets.submissions.wake();
    }

    /// Deliveries are in hand.
    pub fn rush(&self) {
        self.outlets.store.rush().passes();
    }

    fn route_lanes(&mut self, now: Now) {
        let mut woken: Option<ShardId> = None;
        while let Some((to, envelope)) = self.core.effects().lanes.pop_front() {
            let lane = self.outlets.lanes.get(usize::from(to.0)).and_then(Option::as_ref);
            let Some(lane) = lane else {
                debug_assert!(false, "the core sends to itself or to no shard");
                self.core.refused_lane(now, to, envelope);
                continue;
            };
            match lane.put(Crossing::Envelope(envelope)) {
                // Runs of envelopes to one shard wake it once; it is awake after the first wake-up anyway.
                Ok(()) if woken == Some(to) => {}
                Ok(()) => {
                    if let Some(before) = woken.replace(to) {
                        self.wake_lane(before);
                    }
                }
                Err(Crossing::Envelope(refused)) => {
                    lane.wake();
                    self.core.refused_lane(now, to, refused);
                }
                Err(Crossing::Connection(_)) => {}
            }
        }
        if let Some(last) = woken {
            self.wake_lane(last);
        }
    }

    fn wake_lane(&self, to: ShardId) {
        if let Some(lane) = self.outlets.lanes.get(usize::from(to.0)).and_then(Option::as_ref) {
            lane.wake();
        }
    }

    fn route_asks(&mut self, now: Now) {
        let mut asked = false;
        while let Some(ask) = self.core.effects().asks.pop_front() {
            match self.outlets.store.ask(ask) {
                Ok(()) => asked = true,
                Err(refused) => self.core.refused_ask(now, refused),
            }
        }
        if asked {
            self.outlets.store.wake();
        }
    }

    fn route_to_nodes(&mut self) {
        let mut refused = Vec::new();
        while let Some(told) = self.core.effects().to_nodes.pop_front() {
            let Some(door) = &self.outlets.nodes else { continue };
            if let Err(TrySendError::Full(told) | TrySendError::Closed(told)) = door.try_send(told) {
                refused.push(told);
            }
        }
        // What the core keeps of it goes to the front of what it keeps, so the last is given back first.
        refused.into_iter().rev().for_each(|told| self.core.refused_to_nodes(told));
    }

    fn route_handovers(&mut self) {
        while let Some((conn, to, session)) = self.core.effects().handovers.pop() {
            // The core has freed the connection: its task finds no seat and ends.
            let Some(seat) = self.seats.leave(conn) else { continue };
            seat.wake();
            if let Err(session) = self.hand_over(seat.descriptor, to, session) {
                self.counters.handovers_refused += 1;
                let bytes = self.core.handover_failed(self.clock.now(), &session);
                self.refuse_with(seat.descriptor, CloseReason::Overloaded, &bytes);
            }
        }
    }

    /// Sends a duplicate of the socket to the user's shard; hands back what could not be sent: no descriptor is left,
    /// or the lane is full.
    fn hand_over(&self, descriptor: RawFd, to: ShardId, session: HandedOver) -> Result<(), HandedOver> {
        let lane = self.outlets.lanes.get(usize::from(to.0)).and_then(Option::as_ref);
        // SAFETY: the descriptor is open: the stream that owns it is dropped by its task, which is not running.
        let duplicate = unsafe { BorrowedFd::borrow_raw(descriptor) }.try_clone_to_owned();
        let duplicate = duplicate.ok().filter(|copy| leaves_free(copy.as_raw_fd(), DESCRIPTORS_FREE_ALWAYS));
        let (Some(lane), Some(descriptor)) = (lane, duplicate) else { return Err(session) };
        let sent = lane.put(Crossing::Connection(Box::new(Handover { descriptor, session })));
        lane.wake();
        match sent {
            Err(Crossing::Connection(refused)) => Err(refused.session),
            _ => Ok(()),
        }
    }

    /// The pump goes to sleep: wake it when there is something to write. `false`: there is already.
    pub fn pump_sleeps(&mut self, waker: &Waker) -> bool {
        if !self.core.effects().dirty.is_empty() || !self.flushing.is_empty() {
            return false;
        }
        if !self.pump.as_ref().is_some_and(|pump| pump.will_wake(waker)) {
            self.pump = Some(waker.clone());
        }
        true
    }

    /// Writes up to `connections_max` dirty outboxes, each with as few system calls as it takes.
    pub fn flush(&mut self, connections_max: usize) -> Flush {
        if self.flushing.is_empty() {
            std::mem::swap(&mut self.flushing, &mut self.core.effects().dirty);
        }
        let now = self.clock.now();
        for _ in 0..connections_max {
            match self.flushing.pop() {
                Some(conn) => self.write(now, conn),
                None => break,
            }
        }
        if self.flushing.is_empty() && self.core.effects().dirty.is_empty() { Flush::Done } else { Flush::More }
    }

    /// Writes at once what a connection that was just read has been answered. If that waited for the pump, a
    /// heartbeat of everybody at once would be an outbox each.
    pub fn write_replies(&mut self, now: Now, conn: ConnId) {
        let dirty = &mut self.core.effects().dirty;
        if dirty.last() == Some(&conn) {
            dirty.pop();
            self.write(now, conn);
        }
    }

    /// Writes a connection's outbox, unless its task does. What the socket does not take is left to the task.
    fn write(&mut self, now: Now, conn: ConnId) {
        match self.seats.seat(conn) {
            Some(seat) if seat.phase == Phase::Open && seat.writer == Writer::Pump => {}
            _ => return,
        }
        let wrote = self.write_socket(now, conn);
        let Some(seat) = self.seats.seat(conn) else { return };
        match wrote {
            Wrote::All => {}
            Wrote::Full => {
                self.counters.sockets_full += 1;
                seat.writer = Writer::Task;
                seat.wake();
            }
            // Reset by the peer, most likely: reading would say so too.
            Wrote::Broken => {
                seat.phase = Phase::Cut;
                seat.wake();
            }
        }
    }

    /// Writes a connection's outbox as far as its socket takes it, with as few system calls as it takes.
    pub fn write_socket(&mut self, now: Now, conn: ConnId) -> Wrote {
        let Some(seat) = self.seats.seat(conn) else { return Wrote::Broken };
        let descriptor = seat.descriptor;
        loop {
            let Some(outbox) = self.core.outbox(conn) else { return Wrote::All };
            let mut slices = [IoSlice::new(&[]); WRITE_SLICES_MAX];
            let filled = outbox.slices(&mut slices);
            let slices = slices.get(..filled).unwrap_or_default();
            let offered: usize = slices.iter().map(|slice| slice.len()).sum();
            let written = send(descriptor, slices);
            self.counters.sends += 1;
            let taken = match &written {
                Ok(bytes) => *bytes,
                Err(_) => 0,
            };
            match (self.core.written(now, conn, taken), written) {
                (AfterWrite::Drained, Ok(_)) => return Wrote::All,
                (AfterWrite::CloseNow, Ok(_)) => {
                    self.linger(now, conn);
                    return Wrote::All;
                }
                (AfterWrite::More, Ok(_)) if taken == offered => {}
                (AfterWrite::More, Ok(_)) => return Wrote::Full,
                (_, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return Wrote::Full,
                (_, Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                (_, Err(_)) => return Wrote::Broken,
            }
        }
    }

    /// So many bytes of the outbox went out by another way.
    pub fn wrote(&mut self, now: Now, conn: ConnId, bytes: usize) {
        if self.core.written(now, conn, bytes) == AfterWrite::CloseNow {
            self.linger(now, conn);
        }
    }

    /// The last frame is out: shuts our side, and gives the peer some time to close its own.
    fn linger(&mut self, now: Now, conn: ConnId) {
        let Some(seat) = self.seats.seat(conn) else { return };
        // SAFETY: a plain system call on a descriptor that the connection's task keeps open. That the peer has
        // closed already is all that can go wrong.
        unsafe { libc::shutdown(seat.descriptor, libc::SHUT_WR) };
        seat.phase = Phase::Lingering;
        seat.wake();
        self.lingering.push_back((now.mono_ms + LINGER_MS, conn));
    }

    /// A socket was accepted: takes it, or tells its peer why not.
    pub fn accept(&mut self, door: &Door, stream: TcpStream) {
        if !leaves_free(stream.as_raw_fd(), DESCRIPTORS_FREE_OF_CLIENTS) {
            self.core.refused_for_descriptors();
            return self.refuse(stream.as_raw_fd(), CloseReason::Overloaded);
        }
        match self.core.accept(self.clock.now()) {
            Ok(conn) => self.seat(door, stream, conn, Budget::Accept),
            Err(reason) => self.refuse(stream.as_raw_fd(), reason),
        }
    }

    /// A connection comes from another shard: as [`Self::accept`].
    pub fn adopt(&mut self, door: &Door, handover: Handover) {
        let adopted = self.core.adopt(self.clock.now(), handover.session);
        // SAFETY: the descriptor is open and owned by nobody else; the stream takes it over.
        let stream = unsafe { TcpStream::from_raw_fd(handover.descriptor.into_raw_fd()) };
        match adopted {
            Ok(conn) => self.seat(door, stream, conn, Budget::Sessions),
            Err(NotAdopted { reason, bytes }) => self.refuse_with(stream.as_raw_fd(), reason, &bytes),
        }
    }

    fn seat(&mut self, door: &Door, stream: TcpStream, conn: ConnId, budget: Budget) {
        self.seats.take(conn, Seat::new(stream.as_raw_fd(), conn, budget));
        // The seat is the task's pass: a drain waits until all are free.
        self.start(door, stream, conn, budget);
    }

    /// A connection has logged in: from now on its time is the sessions'. Its task so far has ended.
    pub fn move_to_sessions(&mut self, door: &Door, stream: TcpStream, conn: ConnId) {
        let Some(seat) = self.seats.seat(conn) else { return };
        seat.waker = None;
        seat.budget = Budget::Sessions;
        self.start(door, stream, conn, Budget::Sessions);
    }

    fn start(&mut self, door: &Door, stream: TcpStream, conn: ConnId, budget: Budget) {
        match glommio::spawn_local_into(Connection::new(stream, door, conn), self.budgets.queue(budget)) {
            Ok(task) => drop(task.detach()),
            Err(error) => {
                // Only a queue that does not exist is refused, and this one lives as long as the executor.
                tracing::error!(%error, "a connection's task could not be started");
                self.leave(conn);
            }
        }
    }

    /// What each budget has taken.
    pub fn spent(&mut self) -> [Spent; BUDGETS] {
        self.budgets.spent()
    }

    /// Tells a peer why it is refused.
    pub fn refuse(&mut self, descriptor: RawFd, reason: CloseReason) {
        let frame = self.core.encode_refusal(self.clock.now(), reason).to_vec();
        self.refuse_with(descriptor, reason, &frame);
    }

    /// Tells a peer in these bytes why it is refused, and shuts our side. Its socket is kept a little, so that what
    /// the peer has sent meanwhile does not reset the connection before it has read that.
    fn refuse_with(&mut self, descriptor: RawFd, reason: CloseReason, bytes: &[u8]) {
        let now = self.clock.now();
        closes::tell_refused(reason, self.core.id(), descriptor);
        // A fresh socket takes a small frame; one that does not is broken.
        drop(send(descriptor, &[IoSlice::new(bytes)]));
        // SAFETY: the descriptor is open: the caller owns it. A failure means that the peer is gone.
        unsafe { libc::shutdown(descriptor, libc::SHUT_WR) };
        // SAFETY: as above; the duplicate owns itself.
        let kept = unsafe { BorrowedFd::borrow_raw(descriptor) }.try_clone_to_owned();
        match kept.ok().filter(|kept| leaves_free(kept.as_raw_fd(), DESCRIPTORS_FREE_ALWAYS)) {
            Some(kept) => {
                if self.refused.len() >= REFUSED_KEPT_MAX {
                    self.let_go_of_refused();
                }
                self.refused.push_back((now.mono_ms + LINGER_MS, kept));
            }
            // The caller closes it now.
            None => self.discard_unread(descriptor),
        }
    }

    /// Closes the socket that was refused first.
    fn let_go_of_refused(&mut self) {
        if let Some((_, socket)) = self.refused.pop_front() {
            self.discard_unread(socket.as_raw_fd());
        }
    }

    /// Throws away what a socket has received: closing it with that unread would reset the connection.
    fn discard_unread(&mut self, descriptor: RawFd) {
        let (into, length) = (self.read_buffer.as_mut_ptr(), self.read_buffer.len());
        // SAFETY: the descriptor is open: the caller owns it; the buffer is writable for its length, and nobody reads
        // from it between turns. Whether there was anything does not matter.
        unsafe { libc::recv(descriptor, into.cast(), length, libc::MSG_DONTWAIT) };
    }

    /// The connection's socket is going away: the core and the pump hear of it. Nothing for one handed over.
    pub fn leave(&mut self, conn: ConnId) {
        if self.seats.seat(conn).is_none() {
            return;
        }
        self.core.disconnected(self.clock.now(), conn);
        self.tell_closes();
        self.seats.leave(conn);
        self.route();
        if self.seats.is_empty()
            && let Some(pump) = self.pump.take()
        {
            pump.wake();
        }
    }

    /// Questions that wait for the store, all shards' together.
    pub fn store_asks(&self) -> u64 {
        self.outlets.store.len() as u64
    }

    /// Lets time pass: the core's time-outs, and connections that have lingered long enough.
    pub fn tick(&mut self) {
        let now = self.clock.now();
        self.core.tick(now);
        while let Some((until, conn)) = self.lingering.front().copied()
            && until <= now.mono_ms
        {
            self.lingering.pop_front();
            if let Some(seat) = self.seats.seat(conn) {
                seat.phase = Phase::Cut;
                seat.wake();
            }
        }
        while self.refused.front().is_some_and(|(until, _)| *until <= now.mono_ms) {
            self.let_go_of_refused();
        }
        self.route();
    }
}

/// Whether so many more descriptors can be opened after this one. The kernel gives out the lowest number that is free,
/// so a number near the limit says that nearly all below it are taken, whoever has them.
fn leaves_free(descriptor: RawFd, count: u64) -> bool {
    // Asked each time: an operator may change the limit of a process that runs.
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    u64::try_from(descriptor).is_ok_and(|number| number < limit.saturating_sub(count))
}

/// One non-blocking write of several slices.
fn send(descriptor: RawFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    const FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let sent = match slices {
        // SAFETY: the slice is readable for its length; the descriptor is open as long as its seat is taken.
        [one] => unsafe { libc::send(descriptor, one.as_ptr().cast(), one.len(), FLAGS) },
        _ => {
            // SAFETY: a msghdr is plain data, for which all zeroes are valid.
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            // An IoSlice has the layout of an iovec (std's promise); sendmsg does not write through it.
            message.msg_iov = slices.as_ptr().cast_mut().cast();
            message.msg_iovlen = slices.len() as _;
            // SAFETY: `message` points to as many iovecs as it says, all of which live through the call.
            unsafe { libc::sendmsg(descriptor, &raw const message, FLAGS) }
        }
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}
