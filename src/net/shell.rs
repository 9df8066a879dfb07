//! The state that a shard's tasks share: the core, the seats, the buffer to read into, the ends of the channels.
//!
//! Owned by one shard's thread, behind one `Rc<RefCell<_>>`. What always holds: after each batch of events
//! [`Shell::route`] has passed on what the core wants passed on, and the pump has been told if an outbox is dirty; a
//! seat owns its socket. What an event means is the core's business, when to look at a socket is the tasks'.

mod route;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::Waker;

use tokio::sync::mpsc;

use crate::clock::{Clock, Now};
use crate::contract::ids::ConnId;
use crate::contract::nodes::ToNodes;
use crate::contract::report::ShellCounters;
use crate::contract::report::{BUDGETS, Spent};
use crate::limits::{DESCRIPTORS_FREE_OF_CLIENTS, TURN_ITEMS_MAX};
use crate::net::budget::{Budget, Budgets};
use crate::net::connection;
use crate::net::listener::{Accepted, Listener};
use crate::net::refused::Refused;
use crate::net::ring::{Event, SocketRing, Watch};
use crate::net::seat::{Phase, Seat, Seats, Writer};
use crate::net::turns::Ready;
use crate::shard::{AfterWrite, NotAdopted, Shard};
use crate::topology::mailbox::{Crossing, Handover, Slot};
use crate::topology::store::StoreDoor;
use crate::topology::submissions::SubmissionDoor;
use ringway_wire::schema::CloseReason;

/// Bytes read from a socket at once, one buffer per shard.
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// Slices of an outbox written with one system call: 64 chunks, or 32 bodies and what lies between.
const WRITE_SLICES_MAX: usize = 64;
/// How long a closed connection's peer may take to close its side.
pub const LINGER_MS: u64 = 1_000;
/// Connections that have their turn, and as many that are accepted, before others are looked at.
const TURNS_MAX: usize = TURN_ITEMS_MAX / 4;

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
    /// Who is to have a turn.
    pub ready: Ready,
    /// Tells what can be read or written.
    pub ring: SocketRing,
    /// Sockets of refused peers.
    pub refused: Refused,
    /// `None`: nobody is let in any more.
    listener: Option<Listener>,
    outlets: Outlets,
    /// The ledger was asked for somebody who logs in, and not woken yet.
    asked: bool,
    /// Wakes the pump if it sleeps.
    pump: Option<Waker>,
    /// Wakes the rest, which sleeps while any other task has something to do.
    rest: Option<Waker>,
    /// When time is to pass for the core again.
    tick_due_ms: u64,
    /// Outboxes to write this turn; keeps its memory from turn to turn.
    flushing: Vec<ConnId>,
    /// Closed connections whose peers may still close first, by the time that ends.
    lingering: VecDeque<(u64, ConnId)>,
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
    pub fn new(
        core: Shard,
        clock: Clock,
        outlets: Outlets,
        budgets: Budgets,
        ring: SocketRing,
        listener: Listener,
    ) -> Self {
        Shell {
            core,
            clock,
            seats: Seats::default(),
            read_buffer: vec![0; READ_BUFFER_BYTES].into_boxed_slice(),
            counters: ShellCounters::default(),
            ready: Ready::default(),
            ring,
            refused: Refused::default(),
            listener: Some(listener),
            outlets,
            asked: false,
            pump: None,
            rest: None,
            tick_due_ms: 0,
            flushing: Vec::new(),
            lingering: VecDeque::new(),
            budgets,
        }
    }

    /// The connection is to have a turn.
    pub fn ready(&mut self, conn: ConnId) {
        if let Some(seat) = self.seats.seat(conn)
            && seat.enlist()
        {
            self.ready.push(seat.budget, conn);
        }
    }

    /// The connection is to be closed at once.
    fn cut(&mut self, conn: ConnId) {
        if let Some(seat) = self.seats.seat(conn) {
            seat.phase = Phase::Cut;
            self.ready(conn);
        }
    }

    /// Has the ring watch a connection's socket.
    pub fn watch(&mut self, conn: ConnId, watch: Watch) {
        if let Some(seat) = self.seats.seat(conn)
            && !seat.is_watched(watch)
        {
            seat.watched(watch);
            self.ring.watch(seat.socket.as_raw_fd(), conn, watch);
        }
    }

    /// Takes in what the ring has to tell, and gives it what it is to watch. Every task does so at each turn, since
    /// nobody else looks at the ring while one of them is awake.
    pub fn hear(&mut self) {
        self.ring.submit();
        while let Some(event) = self.ring.next_event() {
            match event {
                Event::Listener => self.look_at_listener(),
                Event::Alarm => self.wake_pump(),
                Event::Socket(conn, watch) => {
                    if let Some(seat) = self.seats.seat(conn) {
                        seat.watch_ended(watch);
                        self.ready(conn);
                    }
                }
            }
        }
    }

    /// Lets some of a budget's connections have their turn. True: there are more.
    pub fn take_turns(&mut self, budget: Budget) -> bool {
        self.hear();
        let accepted_all = budget != Budget::Accept || self.accept_some();
        for _ in 0..TURNS_MAX {
            let Some(conn) = self.ready.pop(budget) else { break };
            if let Some(seat) = self.seats.seat(conn) {
                seat.delist();
                connection::turn(self, conn);
            }
        }
        self.wake_ledger();
        !accepted_all || self.ready.has(budget)
    }

    /// The pump goes to sleep: wake it when there is something to write. `false`: there is already.
    pub fn pump_sleeps(&mut self, waker: &Waker) -> bool {
        if !self.core.effects().dirty.is_empty() || !self.flushing.is_empty() {
            return false;
        }
        if !self.pump.as_ref().is_some_and(|pump| pump.will_wake(waker)) {
            self.pump = Some(waker.clone());
        }
        self.fell_asleep();
        true
    }

    /// Lets the pump look around.
    fn wake_pump(&mut self) {
        if let Some(pump) = self.pump.take() {
            pump.wake();
        }
    }

    /// A task has nothing to do: if none has, the shard rests.
    pub fn fell_asleep(&mut self) {
        if self.is_idle() {
            self.wake_rest();
        }
    }

    /// No task but the rest has anything to do.
    pub fn is_idle(&self) -> bool {
        self.pump.is_some() && self.ready.is_asleep()
    }

    fn wake_rest(&mut self) {
        if let Some(rest) = self.rest.take() {
            rest.wake();
        }
    }

    /// The rest sleeps: wake it when no other task has anything to do, or time is to pass.
    pub fn rest_sleeps(&mut self, waker: &Waker) {
        self.rest = Some(waker.clone());
    }

    /// Time is to pass for the core at `tick_due_ms`: whoever looks at the clock then wakes the rest.
    pub fn tick_at(&mut self, tick_due_ms: u64) {
        self.tick_due_ms = tick_due_ms;
    }

    /// A task that has gone on since `began_ms` is to let the others run.
    pub fn is_time_over(&mut self, began_ms: u64) -> bool {
        let now_ms = self.clock.now().mono_ms;
        if now_ms >= self.tick_due_ms {
            self.wake_rest();
        }
        now_ms - began_ms >= self.budgets.slice_ms()
    }

    /// What each task may take of the time.
    pub fn budgets(&mut self) -> &mut Budgets {
        &mut self.budgets
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

    /// Writes a connection's outbox, unless that is left to its turn, as what the socket does not take is.
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
                seat.writer = Writer::Turn;
                self.watch(conn, Watch::Writable);
            }
            // Reset by the peer, most likely: reading would say so too.
            Wrote::Broken => self.cut(conn),
        }
    }

    /// Writes a connection's outbox as far as its socket takes it, with as few system calls as it takes.
    pub fn write_socket(&mut self, now: Now, conn: ConnId) -> Wrote {
        let Some(seat) = self.seats.seat(conn) else { return Wrote::Broken };
        let socket = seat.socket.as_raw_fd();
        loop {
            let Some(outbox) = self.core.outbox(conn) else { return Wrote::All };
            let mut slices = [IoSlice::new(&[]); WRITE_SLICES_MAX];
            let filled = outbox.slices(&mut slices);
            let slices = slices.get(..filled).unwrap_or_default();
            let offered: usize = slices.iter().map(|slice| slice.len()).sum();
            let written = send(socket, slices);
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

    /// The last frame is out: shuts our side, and gives the peer some time to close its own.
    fn linger(&mut self, now: Now, conn: ConnId) {
        let Some(seat) = self.seats.seat(conn) else { return };
        shut_writing(seat.socket.as_raw_fd());
        seat.phase = Phase::Lingering;
        self.ready(conn);
        self.lingering.push_back((now.mono_ms + LINGER_MS, conn));
    }

    /// Connections wait to be accepted, or may be by now.
    fn look_at_listener(&mut self) {
        if let Some(listener) = &mut self.listener {
            listener.look();
            self.ready.wake(Budget::Accept);
        }
    }

    /// Nobody is let in any more.
    pub fn stop_accepting(&mut self) {
        self.listener = None;
    }

    /// Lets some in; true: that was all.
    fn accept_some(&mut self) -> bool {
        if self.listener.as_ref().is_none_or(|listener| !listener.is_waiting()) {
            return true;
        }
        self.refused.look_at_limit();
        for _ in 0..TURNS_MAX {
            let Some(listener) = &mut self.listener else { return true };
            match listener.accept(self.clock.now()) {
                Accepted::Socket(socket) => self.accept(socket),
                Accepted::Nobody => {
                    self.ring.watch_listener(listener.as_raw_fd());
                    return true;
                }
                Accepted::NotNow => return true,
                Accepted::Nothing => self.counters.descriptors_out += 1,
            }
        }
        false
    }

    /// A socket was accepted: takes it, or tells its peer why not.
    fn accept(&mut self, socket: OwnedFd) {
        if !self.refused.leaves_free(socket.as_raw_fd(), DESCRIPTORS_FREE_OF_CLIENTS) {
            self.core.refused_for_descriptors();
            return self.refuse(socket, CloseReason::Overloaded);
        }
        match self.core.accept(self.clock.now()) {
            Ok(conn) => self.seat(socket, conn, Budget::Accept),
            Err(reason) => self.refuse(socket, reason),
        }
    }

    /// A connection comes from another shard: as one that was accepted.
    pub fn adopt(&mut self, handover: Handover) {
        match self.core.adopt(self.clock.now(), handover.session) {
            Ok(conn) => self.seat(handover.descriptor, conn, Budget::Sessions),
            Err(NotAdopted { reason, bytes }) => self.refuse_with(handover.descriptor, reason, &bytes),
        }
    }

    /// The seat is its pass: a drain waits until all are free. Most have said something already.
    fn seat(&mut self, socket: OwnedFd, conn: ConnId, budget: Budget) {
        self.seats.take(conn, Seat::new(socket, conn, budget));
        self.ready(conn);
    }

    /// What each budget has taken.
    pub fn spent(&mut self) -> [Spent; BUDGETS] {
        self.budgets.spent()
    }

    /// The connection's socket is going away: the core and the pump hear of it. Nothing for one handed over.
    pub fn leave(&mut self, conn: ConnId) {
        if self.seats.seat(conn).is_none() {
            return;
        }
        self.core.disconnected(self.clock.now(), conn);
        self.tell_closes();
        if let Some(seat) = self.seats.leave(conn) {
            let watches = seat.watches();
            self.ring.let_go(seat.socket, conn, watches);
        }
        self.route();
        if self.seats.is_empty() {
            self.wake_pump();
        }
    }

    /// The last connection of a drain has gone: the tasks end.
    pub fn end(&mut self) {
        self.ready.end();
        self.wake_rest();
    }

    /// Questions that wait for the store, all shards' together.
    pub fn store_asks(&self) -> u64 {
        self.outlets.store.len() as u64
    }

    /// Lets time pass: the core's time-outs, and connections that have lingered long enough.
    pub fn tick(&mut self) {
        let now = self.clock.now();
        if self.listener.as_ref().is_some_and(|listener| listener.is_due(now)) {
            self.look_at_listener();
        }
        self.core.tick(now);
        while let Some((until, conn)) = self.lingering.front().copied()
            && until <= now.mono_ms
        {
            self.lingering.pop_front();
            self.cut(conn);
        }
        self.close_refused(now);
        self.route();
        self.wake_ledger();
    }
}

/// Shuts our side of a connection.
pub fn shut_writing(socket: RawFd) {
    // SAFETY: a plain system call on a descriptor that the caller keeps open. That the peer has closed already is all
    // that can go wrong.
    unsafe { libc::shutdown(socket, libc::SHUT_WR) };
}

/// One non-blocking write of several slices.
pub fn send(socket: RawFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    const FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let sent = match slices {
        // SAFETY: the slice is readable for its length; the descriptor is open as long as its seat is taken.
        [one] => unsafe { libc::send(socket, one.as_ptr().cast(), one.len(), FLAGS) },
        _ => {
            // SAFETY: a msghdr is plain data, for which all zeroes are valid.
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            // An IoSlice has the layout of an iovec (std's promise); sendmsg does not write through it.
            message.msg_iov = slices.as_ptr().cast_mut().cast();
            message.msg_iovlen = slices.len() as _;
            // SAFETY: `message` points to as many iovecs as it says, all of which live through the call.
            unsafe { libc::sendmsg(socket, &raw const message, FLAGS) }
        }
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}
