//! The clients of one process: who is logged in, who is on the way, who comes back when; kept alive, acknowledged.
//!
//! Owned by a soak's process. What always holds: client `n` is the swarm's link `n`; a client takes 72 bytes here, 64
//! of them its session's, and nothing elsewhere unless something of it is unfinished; tokens are made when they are
//! needed. Whatever ends a connection is counted by its name, and the client comes back when the session says so.

mod keep_alive;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use nix::errno::Errno;

use super::assignment::Assignment;
use super::dial::Dialer;
use super::orders::{Names, Totals, count_name};
use super::pace::Pace;
use crate::clock::Clock;
use crate::measured;
use crate::swarm::{LinkId, Swarm};
use crate::tokens::{Secret, TokenMinter};
use ringway_client::incoming::{ClosingInfo, OwnRow};
use ringway_client::{AckDue, CloseReason, Incoming, LoginInfo, NextStep, Now, Session, SessionError};
use ringway_wire::frame::Encoder;
use ringway_wire::ids::{DeviceId, Seq};
use ringway_wire::request::{Login, Reply};

pub(crate) use keep_alive::since_ping;

/// Logins of this process that may be unanswered at once.
const DIALING_MAX: u32 = 512;
/// Connections made in one turn.
const DIALS_PER_TURN_MAX: u32 = 256;
/// Connections closed in one turn, when all are.
const LEAVES_PER_TURN_MAX: u32 = 1_024;
/// Pings or acks sent in one turn.
const SAID_PER_TURN_MAX: u32 = 1_024;
/// Nobody dials for so long when the kernel has nothing left to dial with.
const EXHAUSTED_PAUSE_MS: u32 = 200;
/// Who is ordered to come back now does so within this.
const HURRY_MS: u32 = 2_000;

const _: () = assert!(size_of::<Client>() <= 72, "there may be a million of them");

/// One client.
struct Client {
    session: Session,
    phase: Phase,
    /// Ever logged in.
    seen: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Not asked to come.
    Out,
    /// Waits before it comes back.
    Away,
    Dialing,
    Live,
    /// The gateway does not want it back.
    Banned,
}

/// How many are where.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Census {
    pub live: u32,
    pub seen: u32,
    pub dialing: u32,
    pub away: u32,
}

/// All clients of this process.
pub(crate) struct Clients {
    /// Who they are.
    pub assignment: Assignment,
    /// How connections ended.
    pub ends: Names,
    /// What the kernel refused.
    pub kernel: Names,
    /// When the newest login was answered.
    pub login_ns: u64,
    clients: Vec<Client>,
    census: Census,
    dialer: Dialer,
    minter: TokenMinter,
    encoder: Encoder,
    clock: Clock,
    start_ns: u64,
    /// Unix milliseconds when the process began, by the clock of this turn.
    unix_start_ms: u64,
    dials: Pace,
    /// The next to come in for the first time.
    first: u32,
    /// The next to leave.
    leaving: u32,
    returns: BinaryHeap<Reverse<(u32, u32)>>,
    pending: VecDeque<(u32, u32)>,
    dial_from_ms: u32,
    heartbeat_ms: u32,
    heartbeat_wanted_ms: u32,
    pings: Pace,
    ping_next: u32,
    /// Clients with rows to acknowledge, since when, and those that must do so at once.
    acks_later: VecDeque<(u32, u32)>,
    acks_now: VecDeque<u32>,
    /// Clients whose connection is to be closed.
    broken: Vec<u32>,
}

impl Clients {
    /// Everybody is out. With `heartbeat_ms` clients ask for this heartbeat, and say something that often.
    pub(crate) fn new(
        assignment: Assignment,
        dialer: Dialer,
        secret: Secret,
        heartbeat_ms: Option<u32>,
        clock: Clock,
    ) -> Clients {
        let out = || Client { session: Session::new(Some(Seq(0))), phase: Phase::Out, seen: false };
        Clients {
            assignment,
            ends: Names::new(),
            kernel: Names::new(),
            login_ns: 0,
            clients: (0..assignment.share()).map(|_| out()).collect(),
            census: Census::default(),
            dialer,
            minter: secret.minter(),
            encoder: Encoder::new(),
            clock,
            start_ns: clock.mono_ns(),
            unix_start_ms: clock.unix_ms(),
            dials: Pace::default(),
            first: assignment.share(),
            leaving: assignment.share(),
            returns: BinaryHeap::new(),
            pending: VecDeque::new(),
            dial_from_ms: 0,
            heartbeat_ms: heartbeat_ms.unwrap_or(0),
            heartbeat_wanted_ms: 0,
            pings: Pace::default(),
            ping_next: 0,
            acks_later: VecDeque::new(),
            acks_now: VecDeque::new(),
            broken: Vec::new(),
        }
    }

    /// How many are where.
    pub(crate) fn census(&self) -> Census {
        self.census
    }

    /// Milliseconds since the process began.
    pub(crate) fn now_ms(&self) -> u32 {
        (self.clock.mono_ns().saturating_sub(self.start_ns) / 1_000_000) as u32
    }

    /// Both clocks at a time of the process's clock, in the session's words.
    fn now_at(&self, at_ns: u64) -> Now {
        let mono_ms = at_ns.saturating_sub(self.start_ns) / 1_000_000;
        Now { mono_ms, unix_ms: self.unix_start_ms + mono_ms }
    }

    fn now(&self) -> Now {
        self.now_at(self.clock.mono_ns())
    }

    /// The gateway's clock as a client knows it, Unix milliseconds.
    pub(crate) fn server_ms(&self, local: u32) -> u64 {
        let now = self.now();
        self.clients.get(local as usize).map_or(now.unix_ms, |client| client.session.server_ms(now))
    }

    /// The heartbeat that was agreed on with the gateway, milliseconds; 0: with nobody yet.
    pub(crate) fn heartbeat_wanted_ms(&self) -> u32 {
        self.heartbeat_wanted_ms
    }

    /// From now on every client says something this often, at moments spread evenly.
    pub(crate) fn keep_alive_every(&mut self, heartbeat_ms: u32) {
        let per_s = f64::from(self.assignment.share()) * 1e3 / f64::from(heartbeat_ms.max(1));
        self.pings.start(per_s, self.clock.mono_ns());
    }

    /// Whether a client is logged in.
    pub(crate) fn is_live(&self, local: u32) -> bool {
        self.clients.get(local as usize).is_some_and(|c| c.phase == Phase::Live)
    }

    /// Whether a client is logged in, if it ever was.
    pub(crate) fn state(&self, local: u32) -> Option<bool> {
        self.clients.get(local as usize).filter(|c| c.seen).map(|c| c.phase == Phase::Live)
    }

    /// Whether a message of this time was sent when the client was logged in already.
    pub(crate) fn was_live_at(&self, local: u32, sent_ns: u64, at_ns: u64) -> bool {
        let since_ms = self.clients.get(local as usize).and_then(|c| c.session.live_since_ms(self.now_at(at_ns)));
        since_ms.is_some_and(|since_ms| sent_ns >= self.start_ns + (since_ms + 1) * 1_000_000)
    }

    /// Everybody who is out comes in, so many a second; so do those who come back, from now on.
    pub(crate) fn come(&mut self, per_s: f64) {
        self.dials.start(per_s, self.clock.mono_ns());
        self.first = 0;
    }

    /// Everybody leaves without a word, in the turns that follow, and stays out.
    pub(crate) fn leave(&mut self) {
        self.returns.clear();
        self.census.away = 0;
        self.first = self.assignment.share();
        self.leaving = 0;
    }

    fn leave_due(&mut self, swarm: &mut Swarm) {
        let next = (self.leaving + LEAVES_PER_TURN_MAX).min(self.assignment.share());
        for local in self.leaving..next {
            self.uncount(local);
            if self.clients.get(local as usize).is_some_and(|c| c.phase != Phase::Banned) {
                self.next_step(local);
                self.set(local, Phase::Out);
                swarm.reset(LinkId(local));
            }
        }
        self.leaving = next;
    }

    /// Whoever is away comes back at once, spread over two seconds.
    pub(crate) fn hurry(&mut self) {
        let now_ms = self.now_ms();
        let returns =
            self.returns.drain().map(|Reverse((_, local))| Reverse((now_ms + fastrand::u32(..HURRY_MS), local)));
        self.returns = returns.collect();
    }

    /// One client breaks off and comes back in a while; false: it was not logged in.
    pub(crate) fn break_off(&mut self, local: u32, after_ms: u32, swarm: &mut Swarm) -> bool {
        if !self.is_live(local) {
            return false;
        }
        swarm.reset(LinkId(local));
        self.uncount(local);
        self.next_step(local);
        self.send_away(local, after_ms);
        true
    }

    /// Dials, pings and acknowledges what is due.
    pub(crate) fn turn(&mut self, swarm: &mut Swarm, totals: &mut Totals) {
        let now_ms = self.now_ms();
        self.unix_start_ms = self.clock.unix_ms().saturating_sub(u64::from(now_ms));
        for local in std::mem::take(&mut self.broken) {
            swarm.reset(LinkId(local));
        }
        self.leave_due(swarm);
        self.dial_due(now_ms, swarm, totals);
        self.give_up_due(now_ms, swarm, totals);
        self.ping_due(swarm, totals);
        self.ack_due(now_ms, swarm);
    }

    /// Reads a frame that came for a client: what the session says of it, and what has no place in it is counted.
    pub(crate) fn receive<'a>(
        &mut self,
        local: u32,
        frame: &'a [u8],
        at_ns: u64,
        totals: &mut Totals,
    ) -> Option<Incoming<'a>> {
        let now = self.now_at(at_ns);
        // What comes behind a connection's last frame is of no session.
        let client =
            self.clients.get_mut(local as usize).filter(|c| matches!(c.phase, Phase::Live | Phase::Dialing))?;
        let incoming = match measured::receive(&mut client.session, now, frame, &mut totals.out_of_order) {
            Ok(incoming) => incoming,
            Err(error) => {
                self.does_not_fit(local, error, totals);
                return None;
            }
        };
        match client.session.stored(now, client.session.cursor()) {
            AckDue::AsBefore => {}
            AckDue::Later => self.acks_later.push_back((local, now.mono_ms as u32)),
            AckDue::Now => self.acks_now.push_back(local),
        }
        match &incoming {
            Incoming::Row(_) => totals.rows += 1,
            Incoming::Repeated(_) => {
                totals.rows += 1;
                totals.duplicated += 1;
            }
            Incoming::Sent(sent) => totals.rows += u64::from(sent.row == OwnRow::Next),
            Incoming::Gap { .. } => totals.gaps += 1,
            Incoming::LoggedIn(info) => self.logged_in(local, info, now, totals),
            Incoming::Closing(closing) => self.closing(local, closing, totals),
            Incoming::Other { reply: Reply::Pong { .. }, .. } => totals.pongs += 1,
            // Nobody sends ephemeral messages.
            Incoming::Ephemeral(_) => totals.corrupt += 1,
            Incoming::Refused(_) | Incoming::Other { .. } => {}
        }
        Some(incoming)
    }

    fn does_not_fit(&mut self, local: u32, error: SessionError, totals: &mut Totals) {
        match error {
            SessionError::Frame(_) | SessionError::Unexpected => totals.corrupt += 1,
            SessionError::OutOfOrder { .. } | SessionError::AckRefused => {
                count_name(&mut self.ends, &error.to_string());
                self.broken.push(local);
                self.lost(local, totals);
            }
        }
    }

    fn logged_in(&mut self, local: u32, info: &LoginInfo, now: Now, totals: &mut Totals) {
        self.heartbeat_wanted_ms = info.heartbeat_ms;
        if self.pings.per_s() == 0.0 && info.heartbeat_ms > 0 {
            let own_ms = if self.heartbeat_ms == 0 { info.heartbeat_ms } else { self.heartbeat_ms };
            self.keep_alive_every(own_ms.min(info.heartbeat_ms));
        }
        self.login_ns = self.clock.mono_ns();
        let Some(client) = self.clients.get_mut(local as usize) else { return };
        totals.logins += 1;
        totals.resumed += u64::from(client.seen);
        if client.seen {
            // What it did not acknowledge on its last connection.
            self.acks_later.push_back((local, now.mono_ms as u32));
        }
        self.census.seen += u32::from(!client.seen);
        client.seen = true;
        client.phase = Phase::Live;
        self.census.dialing -= 1;
        self.census.live += 1;
    }

    /// The connection's last frame.
    fn closing(&mut self, local: u32, closing: &ClosingInfo<'_>, totals: &mut Totals) {
        count_name(&mut self.ends, closing.reason.variant_name().unwrap_or("Unknown"));
        self.lost(local, totals);
    }

    /// The connection ended.
    pub(crate) fn ended(&mut self, local: u32, errno: Option<Errno>, totals: &mut Totals) {
        let phase = self.clients.get(local as usize).map(|client| client.phase);
        if !matches!(phase, Some(Phase::Live | Phase::Dialing)) {
            // It was said before why.
            return;
        }
        match errno {
            Some(errno) => count_name(&mut self.ends, &format!("{errno:?}")),
            None => count_name(&mut self.ends, "closed without a word"),
        }
        self.lost(local, totals);
    }

    /// The client is without a connection, and does what its session says.
    fn lost(&mut self, local: u32, totals: &mut Totals) {
        totals.dropped += u64::from(self.is_live(local));
        self.uncount(local);
        let now_ms = u64::from(self.now_ms());
        match self.next_step(local) {
            Some(NextStep::Reconnect { at_ms }) => self.send_away(local, at_ms.saturating_sub(now_ms) as u32),
            // A token is made for each login.
            Some(NextStep::NewToken(CloseReason::TokenExpired)) => self.send_away(local, 0),
            Some(NextStep::NewToken(_) | NextStep::DropInbox | NextStep::Stop(_)) => self.set(local, Phase::Banned),
            None => {}
        }
    }

    /// The session has no connection: what it does next.
    fn next_step(&mut self, local: u32) -> Option<NextStep> {
        let now = self.now();
        self.clients.get_mut(local as usize).map(|client| client.session.ended(now, fastrand::u64(..)))
    }

    fn uncount(&mut self, local: u32) {
        match self.clients.get(local as usize).map(|c| c.phase) {
            Some(Phase::Live) => self.census.live -= 1,
            Some(Phase::Dialing) => self.census.dialing -= 1,
            _ => {}
        }
    }

    fn send_away(&mut self, local: u32, after_ms: u32) {
        if self.leaving < self.assignment.share() {
            // Everybody leaves: nobody comes back by itself.
            return self.set(local, Phase::Out);
        }
        self.set(local, Phase::Away);
        self.census.away += 1;
        self.returns.push(Reverse((self.now_ms() + after_ms, local)));
    }

    fn set(&mut self, local: u32, phase: Phase) {
        if let Some(client) = self.clients.get_mut(local as usize) {
            client.phase = phase;
        }
    }

    fn dial_due(&mut self, now_ms: u32, swarm: &mut Swarm, totals: &mut Totals) {
        let mut due = self.dials.due(self.clock.mono_ns()).min(u64::from(DIALS_PER_TURN_MAX));
        while due > 0 && self.census.dialing < DIALING_MAX && now_ms >= self.dial_from_ms {
            let Some(local) = self.next_to_dial(now_ms) else {
                // Nobody wants to come: the pace does not save up.
                self.dials.skip_to(self.clock.mono_ns());
                return;
            };
            due -= 1;
            self.dials.done();
            self.dial(local, now_ms, swarm, totals);
        }
        if due > 0 {
            self.dials.skip_to(self.clock.mono_ns());
        }
    }

    fn next_to_dial(&mut self, now_ms: u32) -> Option<u32> {
        if self.returns.peek().is_some_and(|Reverse((due_ms, _))| *due_ms <= now_ms) {
            let Reverse((_, local)) = self.returns.pop()?;
            self.census.away -= 1;
            return Some(local);
        }
        while self.first < self.assignment.share() {
            self.first += 1;
            let client = self.clients.get(self.first as usize - 1);
            if client.is_some_and(|c| c.phase == Phase::Out) {
                return Some(self.first - 1);
            }
        }
        None
    }

    fn dial(&mut self, local: u32, now_ms: u32, swarm: &mut Swarm, totals: &mut Totals) {
        totals.dialed += 1;
        let (kernel, dial_from_ms) = (&mut self.kernel, &mut self.dial_from_ms);
        let stream = self.dialer.dial(|errno| {
            count_name(kernel, &format!("{errno:?}"));
            *dial_from_ms = now_ms + EXHAUSTED_PAUSE_MS;
        });
        let adopted = stream.map(|stream| swarm.adopt(LinkId(local), stream));
        match adopted {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                count_name(kernel, &format!("{:?}", Errno::from_i32(error.raw_os_error().unwrap_or(0))));
                return self.lost(local, totals);
            }
            None => return self.lost(local, totals),
        }
        let Some(client) = self.clients.get_mut(local as usize) else { return };
        client.phase = Phase::Dialing;
        client.session.connecting(Now { mono_ms: u64::from(now_ms), unix_ms: 0 });
        self.census.dialing += 1;
        self.pending.push_back((local, now_ms));
        let token = self.minter.token(self.assignment.user(local), self.clock.unix_ms());
        let (cursor, heartbeat_ms) = (client.session.last_seq(), self.heartbeat_ms);
        let login = Login { token: &token, device: DeviceId(1), cursor, heartbeat_ms };
        swarm.send(LinkId(local), self.encoder.login_as(0, &login));
    }
}
