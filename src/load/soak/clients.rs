//! The clients of one process: who is logged in, who is on the way, who comes back when; kept alive, acknowledged.
//!
//! Owned by a soak's process. What always holds: client `n` is the swarm's link `n`; a client takes 32 bytes here, and
//! nothing elsewhere unless something of it is unfinished; tokens are made when they are needed. Whatever ends a
//! connection is counted by its name, and the client comes back as a well-behaved one does.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use nix::errno::Errno;

use super::dial::Dialer;
use super::orders::{Names, Totals, count_name};
use super::pace::Pace;
use super::seats::Seats;
use crate::clock::Clock;
use crate::swarm::{LinkId, Swarm};
use crate::tokens::{Secret, TokenMinter};
use ringway_wire::frame::Encoder;
use ringway_wire::ids::{DeviceId, Seq};
use ringway_wire::limits::ACK_ROWS_MAX;

/// Logins of this process that may be unanswered at once.
const DIALING_MAX: u32 = 512;
/// Connections made in one turn.
const DIALS_PER_TURN_MAX: u32 = 256;
/// Connections closed in one turn, when all are.
const LEAVES_PER_TURN_MAX: u32 = 1_024;
/// Pings or acks sent in one turn.
const SAID_PER_TURN_MAX: u32 = 1_024;
/// A connection or a login that is not answered for so long is given up.
const DIAL_PATIENCE_MS: u32 = 30_000;
/// A lost connection is tried again after so long; twice as long each time, up to the second.
const BACK_OFF_MS: (u32, u32) = (500, 30_000);
/// Nobody dials for so long when the kernel has nothing left to dial with.
const EXHAUSTED_PAUSE_MS: u32 = 200;
/// Who is told to come back now does so within this.
const HURRY_MS: u32 = 2_000;
/// How often acks are sent.
const ACK_EVERY_MS: u32 = 1_000;

const _: () = assert!(size_of::<Client>() <= 32, "there may be a million of them");

/// One client.
#[derive(Clone, Copy)]
struct Client {
    /// The highest row it has.
    cursor: u64,
    /// When its login was answered; while it is not, when it was dialed. Milliseconds of the process.
    since_ms: u32,
    /// Rows that it has not acknowledged.
    unacked: u16,
    phase: Phase,
    /// Ever logged in.
    seen: bool,
    /// Connections lost in a row.
    tries: u8,
    /// Told by Closing: this end has its name already.
    told: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Not asked to come.
    Out,
    /// Waits before it comes back.
    Away,
    Dialing,
    Live,
    /// Told not to come back.
    Banned,
}

/// How many are where.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[expect(missing_docs, reason = "as in Beat")]
pub struct Census {
    pub live: u32,
    pub seen: u32,
    pub dialing: u32,
    pub away: u32,
}

/// How a row stands to its client's cursor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Row {
    /// The next one.
    Next,
    /// Too far ahead; that is in the totals.
    Ahead,
    /// One it has; a client ignores it, and it is in the totals.
    Repeat,
}

/// All clients of this process.
pub struct Clients {
    /// Who they are.
    pub seats: Seats,
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
    /// Server's Unix milliseconds minus ours.
    ahead_ms: i64,
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
    /// Clients with rows to acknowledge at the next round, and those that must do so at once.
    unacked: Vec<u32>,
    acks: VecDeque<u32>,
    ack_round_ms: u32,
}

impl Clients {
    /// Everybody is out. Without `heartbeat_ms` clients say something as often as the gateway wants it.
    pub fn new(seats: Seats, dialer: Dialer, secret: Secret, heartbeat_ms: Option<u32>, clock: Clock) -> Clients {
        let out = Client { cursor: 0, since_ms: 0, unacked: 0, phase: Phase::Out, seen: false, tries: 0, told: false };
        Clients {
            seats,
            ends: Names::new(),
            kernel: Names::new(),
            login_ns: 0,
            clients: vec![out; seats.share() as usize],
            census: Census::default(),
            dialer,
            minter: secret.minter(),
            encoder: Encoder::new(),
            clock,
            start_ns: clock.mono_ns(),
            ahead_ms: 0,
            dials: Pace::default(),
            first: seats.share(),
            leaving: seats.share(),
            returns: BinaryHeap::new(),
            pending: VecDeque::new(),
            dial_from_ms: 0,
            heartbeat_ms: heartbeat_ms.unwrap_or(0),
            heartbeat_wanted_ms: 0,
            pings: Pace::default(),
            ping_next: 0,
            unacked: Vec::new(),
            acks: VecDeque::new(),
            ack_round_ms: 0,
        }
    }

    /// How many are where.
    pub fn census(&self) -> Census {
        self.census
    }

    /// Milliseconds since the process began.
    pub fn now_ms(&self) -> u32 {
        (self.clock.mono_ns().saturating_sub(self.start_ns) / 1_000_000) as u32
    }

    /// The gateway's clock, Unix milliseconds.
    pub fn server_ms(&self) -> u64 {
        self.clock.unix_ms().saturating_add_signed(self.ahead_ms)
    }

    /// How often the gateway wants to hear something, milliseconds; 0: it has not said so yet.
    pub fn heartbeat_wanted_ms(&self) -> u32 {
        self.heartbeat_wanted_ms
    }

    /// From now on every client says something this often, at moments spread evenly.
    pub fn keep_alive_every(&mut self, heartbeat_ms: u32) {
        let per_s = f64::from(self.seats.share()) * 1e3 / f64::from(heartbeat_ms.max(1));
        self.pings.start(per_s, self.clock.mono_ns());
    }

    /// Whether a client is logged in.
    pub fn is_live(&self, local: u32) -> bool {
        self.clients.get(local as usize).is_some_and(|c| c.phase == Phase::Live)
    }

    /// Whether a client is logged in, if it ever was.
    pub fn state(&self, local: u32) -> Option<bool> {
        self.clients.get(local as usize).filter(|c| c.seen).map(|c| c.phase == Phase::Live)
    }

    /// Whether a message of this time was sent when the client was logged in already.
    pub fn was_live_at(&self, local: u32, sent_ns: u64) -> bool {
        let since = self.clients.get(local as usize).map_or(u32::MAX, |c| c.since_ms);
        sent_ns >= self.start_ns + (u64::from(since) + 1) * 1_000_000
    }

    /// Everybody who is out comes in, so many a second; so do those who come back, from now on.
    pub fn come(&mut self, per_s: f64) {
        self.dials.start(per_s, self.clock.mono_ns());
        self.first = 0;
    }

    /// Everybody leaves without a word, in the turns that follow, and stays out.
    pub fn leave(&mut self) {
        self.returns.clear();
        self.census.away = 0;
        self.first = self.seats.share();
        self.leaving = 0;
    }

    fn leave_due(&mut self, swarm: &mut Swarm) {
        let next = (self.leaving + LEAVES_PER_TURN_MAX).min(self.seats.share());
        for local in self.leaving..next {
            self.uncount(local);
            if self.clients.get(local as usize).is_some_and(|c| c.phase != Phase::Banned) {
                self.set(local, Phase::Out);
                swarm.reset(LinkId(local));
            }
        }
        self.leaving = next;
    }

    /// Whoever is away comes back at once, spread over two seconds.
    pub fn hurry(&mut self) {
        let now_ms = self.now_ms();
        let returns =
            self.returns.drain().map(|Reverse((_, local))| Reverse((now_ms + fastrand::u32(..HURRY_MS), local)));
        self.returns = returns.collect();
    }

    /// One client breaks off and comes back in a while; false: it was not logged in.
    pub fn break_off(&mut self, local: u32, after_ms: u32, swarm: &mut Swarm) -> bool {
        if !self.is_live(local) {
            return false;
        }
        swarm.reset(LinkId(local));
        self.census.live -= 1;
        self.send_away(local, after_ms);
        true
    }

    /// Dials, pings and acknowledges what is due.
    pub fn turn(&mut self, swarm: &mut Swarm, totals: &mut Totals) {
        let now_ms = self.now_ms();
        self.leave_due(swarm);
        self.dial_due(now_ms, swarm, totals);
        self.give_up_due(now_ms, swarm);
        self.ping_due(swarm, totals);
        self.ack_due(now_ms, swarm);
    }

    /// `LoginOk`: true, if a login was awaited.
    pub fn logged_in(&mut self, local: u32, from: Seq, heartbeat_ms: u32, server_ms: u64, totals: &mut Totals) -> bool {
        let (now_ms, now_ns) = (self.now_ms(), self.clock.mono_ns());
        self.ahead_ms = server_ms as i64 - self.clock.unix_ms() as i64;
        let wanted = if self.heartbeat_ms == 0 { heartbeat_ms } else { self.heartbeat_ms.min(heartbeat_ms) };
        self.heartbeat_wanted_ms = heartbeat_ms;
        if self.pings.per_s() == 0.0 && wanted > 0 {
            self.keep_alive_every(wanted);
        }
        let Some(client) = self.clients.get_mut(local as usize).filter(|c| c.phase == Phase::Dialing) else {
            return false;
        };
        self.login_ns = now_ns;
        client.phase = Phase::Live;
        client.since_ms = now_ms;
        client.tries = 0;
        // It said which row it has: the gateway goes on from there.
        totals.out_of_order += u64::from(from.0 != client.cursor);
        totals.logins += 1;
        totals.resumed += u64::from(client.seen);
        self.census.seen += u32::from(!client.seen);
        client.seen = true;
        self.census.dialing -= 1;
        self.census.live += 1;
        true
    }

    /// A row came.
    pub fn row(&mut self, local: u32, seq: Seq, totals: &mut Totals) -> Row {
        let Some(client) = self.clients.get_mut(local as usize) else { return Row::Repeat };
        totals.rows += 1;
        if seq.0 <= client.cursor {
            totals.duplicated += 1;
            return Row::Repeat;
        }
        let next = seq.0 == client.cursor + 1;
        totals.out_of_order += u64::from(!next);
        client.cursor = seq.0;
        client.unacked = client.unacked.saturating_add(1);
        if client.unacked == 1 {
            self.unacked.push(local);
        } else if u64::from(client.unacked) == ACK_ROWS_MAX {
            self.acks.push_back(local);
        }
        if next { Row::Next } else { Row::Ahead }
    }

    /// Whether a row of this number would be the client's next.
    pub fn is_next(&self, local: u32, seq: Seq) -> bool {
        self.clients.get(local as usize).is_some_and(|c| c.cursor + 1 == seq.0)
    }

    /// `Closing`: the connection's last frame.
    pub fn closing(&mut self, local: u32, reason: &str, again_after_ms: Option<u32>, totals: &mut Totals) {
        count_name(&mut self.ends, reason);
        let Some(client) = self.clients.get_mut(local as usize) else { return };
        client.told = true;
        totals.dropped += u64::from(client.phase == Phase::Live);
        self.uncount(local);
        match again_after_ms {
            Some(ms) => self.send_away(local, ms + fastrand::u32(..=ms.max(1))),
            None => self.set(local, Phase::Banned),
        }
    }

    /// The connection ended.
    pub fn ended(&mut self, local: u32, errno: Option<Errno>, totals: &mut Totals) {
        let Some(client) = self.clients.get_mut(local as usize) else { return };
        if std::mem::take(&mut client.told) || !matches!(client.phase, Phase::Live | Phase::Dialing) {
            return;
        }
        totals.dropped += u64::from(client.phase == Phase::Live);
        match errno {
            Some(errno) => count_name(&mut self.ends, &format!("{errno:?}")),
            None => count_name(&mut self.ends, "closed without a word"),
        }
        self.lost(local);
    }

    fn lost(&mut self, local: u32) {
        self.uncount(local);
        let Some(client) = self.clients.get_mut(local as usize) else { return };
        let (first, longest) = BACK_OFF_MS;
        let wait_ms = (first << client.tries.min(6)).min(longest);
        client.tries = client.tries.saturating_add(1);
        self.send_away(local, wait_ms / 2 + fastrand::u32(..wait_ms));
    }

    fn uncount(&mut self, local: u32) {
        match self.clients.get(local as usize).map(|c| c.phase) {
            Some(Phase::Live) => self.census.live -= 1,
            Some(Phase::Dialing) => self.census.dialing -= 1,
            _ => {}
        }
    }

    fn send_away(&mut self, local: u32, after_ms: u32) {
        if self.leaving < self.seats.share() {
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
            client.unacked = 0;
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
        while self.first < self.seats.share() {
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
                return self.lost(local);
            }
            None => return self.lost(local),
        }
        let Some(client) = self.clients.get_mut(local as usize) else { return };
        client.phase = Phase::Dialing;
        client.since_ms = now_ms;
        client.told = false;
        self.census.dialing += 1;
        self.pending.push_back((local, now_ms));
        let token = self.minter.token(self.seats.user(local), self.clock.unix_ms());
        let login = self.encoder.login(0, &token, DeviceId(1), Some(Seq(client.cursor)));
        swarm.send(LinkId(local), login);
    }

    fn give_up_due(&mut self, now_ms: u32, swarm: &mut Swarm) {
        while let Some((local, since_ms)) = self.pending.front().copied() {
            let client = self.clients.get(local as usize);
            let awaited = client.is_some_and(|c| c.phase == Phase::Dialing && c.since_ms == since_ms);
            if awaited && now_ms.saturating_sub(since_ms) < DIAL_PATIENCE_MS {
                return;
            }
            self.pending.pop_front();
            if awaited {
                swarm.close(LinkId(local));
                count_name(&mut self.ends, "login unanswered");
                self.lost(local);
            }
        }
    }

    fn ping_due(&mut self, swarm: &mut Swarm, totals: &mut Totals) {
        let now_ns = self.clock.mono_ns();
        for _ in 0..self.pings.due(now_ns).min(u64::from(SAID_PER_TURN_MAX)) {
            self.pings.done();
            let local = self.ping_next;
            self.ping_next = (local + 1) % self.seats.share().max(1);
            if self.is_live(local) {
                // The request's number is its time, so that nothing has to be remembered.
                swarm.send(LinkId(local), self.encoder.ping(ping_stamp(now_ns)));
                totals.pings += 1;
            }
        }
    }

    fn ack_due(&mut self, now_ms: u32, swarm: &mut Swarm) {
        if now_ms >= self.ack_round_ms + ACK_EVERY_MS {
            self.ack_round_ms = now_ms;
            self.acks.extend(self.unacked.drain(..));
        }
        for _ in 0..SAID_PER_TURN_MAX {
            let Some(local) = self.acks.pop_front() else { return };
            let Some(client) = self.clients.get_mut(local as usize) else { continue };
            if client.phase == Phase::Live && client.unacked > 0 {
                client.unacked = 0;
                swarm.send(LinkId(local), self.encoder.ack(Seq(client.cursor)));
            }
        }
    }
}

/// A time as a ping's request id: microseconds, never 0; the client's own way to know how long the pong took.
fn ping_stamp(now_ns: u64) -> u32 {
    ((now_ns / 1_000) as u32).max(1)
}

/// How long ago a pong's ping was sent, nanoseconds.
pub fn since_ping(stamp: u32, now_ns: u64) -> u64 {
    u64::from(((now_ns / 1_000) as u32).wrapping_sub(stamp)) * 1_000
}
