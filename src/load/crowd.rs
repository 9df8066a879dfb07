//! The sessions on a swarm: logged in many at once, kept alive, acknowledged.
//!
//! Owned by the load generator's thread. What always holds: session `n` is the swarm's link `n`; frames of a
//! session reach the scenario only once it is logged in, and what has come counts as stored. It counts and judges
//! nothing: see [`super::check`].

use std::net::SocketAddr;
use std::time::Duration;

use super::error::LoadError;
use super::measured;
use super::soak::pace::Pace;
use super::swarm::{Brought, LinkId, Swarm, Window};
use super::tokens::{Secret, TokenMinter};
use crate::clock::Clock;
use ringway_client::{AckDue, CloseReason, Due, Incoming, Now, Session, SessionError};
use ringway_wire::frame::Encoder;
use ringway_wire::ids::{DeviceId, Seq, UserId};

/// Logins that may be unanswered at once: well below what a gateway lets wait unauthenticated.
const LOGINS_OPEN_MAX: usize = 256;
/// How long logins may make no progress.
const LOGIN_PATIENCE_S: u64 = 30;
/// How often a session is looked at per heartbeat: it says something so much later at most than it should.
const LOOKS_PER_HEARTBEAT: u32 = 8;
/// Sessions looked at in one turn.
const LOOKS_PER_TURN_MAX: u64 = 256;

/// A session's place in its crowd.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct SessionId(pub u32);

/// What came for a session that is logged in.
pub(crate) enum CrowdEvent<'a> {
    /// One frame.
    Frame(CrowdFrame<'a>),
    /// The connection ended.
    Ended,
}

/// A frame that was not read yet, and the session it came for.
pub(crate) struct CrowdFrame<'a> {
    /// Prefix included.
    pub bytes: &'a [u8],
    /// When its read returned, by the clock.
    pub at_ns: u64,
    session: &'a mut Session,
    now: Now,
}

impl<'a> CrowdFrame<'a> {
    /// Reads it; what is out of order is counted, and the session goes on behind it.
    pub(crate) fn read(&mut self, out_of_order: &mut u64) -> Result<Incoming<'a>, SessionError> {
        measured::receive(self.session, self.now, self.bytes, out_of_order)
    }

    /// It is, but for this seq, a push that was read already.
    pub(crate) fn is_copy(&mut self, seq: Seq) -> Result<(), SessionError> {
        measured::receive_copy(self.session, self.now, seq).map(drop)
    }
}

/// Sessions, by [`SessionId`].
pub(crate) struct Crowd {
    swarm: Swarm,
    addr: SocketAddr,
    minter: TokenMinter,
    members: Vec<Member>,
    encoder: Encoder,
    clock: Clock,
    /// Unix milliseconds when the clock started, as of the last turn.
    unix_start_ms: u64,
    looks: Pace,
    /// What `looks` was made for: heartbeat and number of sessions.
    looks_of: (u32, usize),
    look_next: usize,
    sink: Sink,
}

/// What sessions want done when all that came is read.
#[derive(Default)]
struct Sink {
    heartbeat_ms: u32,
    /// Rows to acknowledge at once.
    acks: Vec<(SessionId, Seq)>,
    /// Sessions whose login is to be sent again from their newest row.
    again: Vec<SessionId>,
    refusal: Option<LoadError>,
}

/// One session and its connection.
struct Member {
    addr: SocketAddr,
    user: UserId,
    window: Window,
    state: State,
    session: Session,
    /// The user's newest row when it logged in.
    newest: Seq,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Out,
    LoggingIn,
    Live,
}

impl Crowd {
    /// Nobody yet.
    pub(crate) fn new(addr: SocketAddr, secret: Secret, clock: Clock) -> Result<Crowd, LoadError> {
        Ok(Crowd {
            swarm: Swarm::new(clock).map_err(LoadError::io("epoll is not available"))?,
            addr,
            minter: secret.minter(),
            members: Vec::new(),
            encoder: Encoder::new(),
            clock,
            unix_start_ms: 0,
            looks: Pace::default(),
            looks_of: (0, 0),
            look_next: 0,
            sink: Sink::default(),
        })
    }

    /// Adds a user's session, not connected yet; its inbox begins behind the user's newest row.
    pub(crate) fn add(&mut self, user: UserId, window: Window) -> SessionId {
        self.add_at(self.addr, user, window)
    }

    /// The same with the gateway at this address.
    pub(crate) fn add_at(&mut self, addr: SocketAddr, user: UserId, window: Window) -> SessionId {
        let session = Session::new(None);
        self.members.push(Member { addr, user, window, state: State::Out, session, newest: Seq(0) });
        SessionId((self.members.len() - 1) as u32)
    }

    /// Connects and logs in every session that is out, `each` called as they are done.
    pub(crate) fn login_all(&mut self, mut each: impl FnMut()) -> Result<(), LoadError> {
        let out: Vec<SessionId> = (0..self.members.len() as u32).map(SessionId).filter(|s| !self.is_live(*s)).collect();
        let asked = out.len();
        let (mut next, mut live, mut progress_ns) = (0, 0, self.clock.mono_ns());
        // All before it are live: only the few that are being logged in are looked at again.
        let mut first_open = 0;
        while live < asked {
            while next < asked && next - live < LOGINS_OPEN_MAX {
                if let Some(session) = out.get(next) {
                    self.connect(*session)?;
                }
                next += 1;
            }
            self.turn(Duration::from_millis(20), &mut |_, _| {})?;
            while first_open < next && out.get(first_open).is_some_and(|s| self.is_live(*s)) {
                first_open += 1;
            }
            let later = out.get(first_open..next).unwrap_or_default();
            let now_live = first_open + later.iter().filter(|s| self.is_live(**s)).count();
            if now_live > live {
                (live..now_live).for_each(|_| each());
                (live, progress_ns) = (now_live, self.clock.mono_ns());
            }
            if self.clock.mono_ns() - progress_ns > LOGIN_PATIENCE_S * 1_000_000_000 {
                return Err(LoadError::LoginTimeout { missing: asked - live, asked, seconds: LOGIN_PATIENCE_S });
            }
        }
        Ok(())
    }

    /// Logs a session in again behind the last row it has, after its connection ended.
    pub(crate) fn log_in_again(&mut self, session: SessionId) -> Result<(), LoadError> {
        self.connect(session)
    }

    /// The user's newest row when the session logged in.
    pub(crate) fn newest(&self, session: SessionId) -> Seq {
        self.members.get(session.0 as usize).map_or(Seq(0), |s| s.newest)
    }

    /// Whether the session is logged in.
    pub(crate) fn is_live(&self, session: SessionId) -> bool {
        self.members.get(session.0 as usize).is_some_and(|s| s.state == State::Live)
    }

    /// How many are logged in.
    pub(crate) fn live_count(&self) -> u64 {
        self.members.iter().filter(|s| s.state == State::Live).count() as u64
    }

    /// The clock that stamps what arrives.
    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// Sends frames.
    pub(crate) fn send(&mut self, session: SessionId, bytes: &[u8]) {
        self.swarm.send(LinkId(session.0), bytes);
    }

    /// Acknowledges all that came.
    pub(crate) fn ack_all(&mut self) {
        let now = self.now_at(self.clock.mono_ns());
        for (at, member) in self.members.iter_mut().enumerate() {
            if let Some(seq) = member.session.take_ack(now) {
                self.swarm.send(LinkId(at as u32), self.encoder.ack(seq));
            }
        }
    }

    /// Stops reading from the session's connection.
    pub(crate) fn pause(&mut self, session: SessionId) {
        self.swarm.pause(LinkId(session.0));
    }

    /// Reads from it again.
    pub(crate) fn resume(&mut self, session: SessionId, take: &mut impl FnMut(SessionId, CrowdEvent<'_>)) {
        let unix_start_ms = self.unix_start_ms;
        let Crowd { swarm, members, sink, .. } = self;
        swarm.resume(LinkId(session.0), &mut |link, brought, at_ns| {
            sink.pass(members, link, brought, (at_ns, unix_start_ms), take);
        });
    }

    /// Waits at most `wait` and handles what came; what is for sessions that are logged in goes to `take`.
    pub(crate) fn turn(
        &mut self,
        wait: Duration,
        take: &mut impl FnMut(SessionId, CrowdEvent<'_>),
    ) -> Result<(), LoadError> {
        self.unix_start_ms = self.clock.unix_ms().saturating_sub(self.clock.mono_ns() / 1_000_000);
        let unix_start_ms = self.unix_start_ms;
        let Crowd { swarm, members, sink, .. } = self;
        swarm
            .turn(wait, &mut |link, brought, at_ns| sink.pass(members, link, brought, (at_ns, unix_start_ms), take))
            .map_err(LoadError::io("waiting for the sockets failed"))?;
        if let Some(refusal) = self.sink.refusal.take() {
            return Err(refusal);
        }
        for (session, seq) in self.sink.acks.drain(..) {
            self.swarm.send(LinkId(session.0), self.encoder.ack(seq));
        }
        for session in std::mem::take(&mut self.sink.again) {
            self.swarm.close(LinkId(session.0));
            self.connect(session)?;
        }
        self.keep_alive(take);
        Ok(())
    }

    fn now_at(&self, at_ns: u64) -> Now {
        now_at(at_ns, self.unix_start_ms)
    }

    fn connect(&mut self, id: SessionId) -> Result<(), LoadError> {
        let now = self.now_at(self.clock.mono_ns());
        let Some(member) = self.members.get_mut(id.0 as usize) else { return Ok(()) };
        member.state = State::LoggingIn;
        member.session.connecting(now);
        let link = LinkId(id.0);
        let failed = LoadError::io("connecting to the gateway failed (is it running, and are descriptors left?)");
        self.swarm.open(link, member.addr, member.window).map_err(failed)?;
        let token = self.minter.token(member.user, self.clock.unix_ms());
        self.swarm.send(link, self.encoder.login(0, &token, DeviceId(1), member.session.last_seq()));
        Ok(())
    }

    /// Sessions are looked at in turn, at moments spread evenly, and say what is due.
    fn keep_alive(&mut self, take: &mut impl FnMut(SessionId, CrowdEvent<'_>)) {
        let now_ns = self.clock.mono_ns();
        let looks_of = (self.sink.heartbeat_ms, self.members.len());
        if looks_of != self.looks_of {
            let per_s = looks_of.1 as f64 * f64::from(LOOKS_PER_HEARTBEAT) * 1e3 / f64::from(looks_of.0.max(1));
            self.looks.start(if looks_of.0 == 0 { 0.0 } else { per_s }, now_ns);
            self.looks_of = looks_of;
        }
        let now = self.now_at(now_ns);
        for _ in 0..self.looks.due(now_ns).min(LOOKS_PER_TURN_MAX) {
            self.looks.done();
            let at = self.look_next;
            self.look_next = (at + 1) % self.members.len().max(1);
            let Some(member) = self.members.get_mut(at).filter(|member| member.state == State::Live) else { continue };
            let link = LinkId(at as u32);
            match member.session.due(now) {
                Some(Due::Ack(seq)) => self.swarm.send(link, self.encoder.ack(seq)),
                Some(Due::Ping) => self.swarm.send(link, self.encoder.ping(0)),
                // Who does not read sees no sign of life; its pings are for the gateway.
                Some(Due::GiveUp) if !self.swarm.is_reading(link) => {
                    member.session.sent(now);
                    self.swarm.send(link, self.encoder.ping(0));
                }
                Some(Due::GiveUp) => {
                    self.swarm.close(link);
                    member.state = State::Out;
                    take(SessionId(link.0), CrowdEvent::Ended);
                }
                None => {}
            }
        }
    }
}

fn now_at(at_ns: u64, unix_start_ms: u64) -> Now {
    let mono_ms = at_ns / 1_000_000;
    Now { mono_ms, unix_ms: unix_start_ms + mono_ms }
}

impl Sink {
    /// What a link brought: to `take`, if its session is logged in. `at`: by the clock, and the clock's start in Unix
    /// milliseconds.
    fn pass(
        &mut self,
        members: &mut [Member],
        link: LinkId,
        brought: Brought<'_>,
        at: (u64, u64),
        take: &mut impl FnMut(SessionId, CrowdEvent<'_>),
    ) {
        let (at_ns, id) = (at.0, SessionId(link.0));
        let Some(member) = members.get_mut(link.0 as usize) else { return };
        let now = now_at(at_ns, at.1);
        match brought {
            Brought::Frame(bytes) if member.state == State::Live => {
                let session = &mut member.session;
                take(id, CrowdEvent::Frame(CrowdFrame { bytes, at_ns, session, now }));
                let session = &mut member.session;
                if session.stored(now, session.cursor()) == AckDue::Now
                    && let Some(seq) = session.take_ack(now)
                {
                    self.acks.push((id, seq));
                }
            }
            Brought::Frame(bytes) => self.log_in(member, id, bytes, now),
            Brought::End(_) if member.state == State::Live => {
                member.state = State::Out;
                take(id, CrowdEvent::Ended);
            }
            Brought::End(_) => {
                let message = "the connection ended before the login was answered";
                self.refusal = Some(closed(member.user, CloseReason::PeerClosed, message));
            }
        }
    }

    /// A session whose inbox begins at the user's newest row learns which that is, if it is another than the one it
    /// began with.
    fn log_in(&mut self, member: &mut Member, id: SessionId, frame: &[u8], now: Now) {
        let is_first = member.session.last_seq().is_none();
        match member.session.receive(now, frame) {
            Ok(Incoming::LoggedIn(info)) => {
                self.heartbeat_ms = info.heartbeat_ms;
                if is_first && info.from_seq != info.last_seq {
                    member.session = Session::new(Some(info.last_seq));
                    self.again.push(id);
                } else {
                    member.state = State::Live;
                }
                member.newest = info.last_seq;
            }
            Ok(Incoming::Closing(closing)) => self.refusal = Some(closed(member.user, closing.reason, closing.message)),
            // Rows of a session that is about to log in again from its newest one.
            Ok(_) | Err(SessionError::Unexpected) => {}
            Err(error) => self.refusal = Some(LoadError::Session(error)),
        }
    }
}

fn closed(user: UserId, reason: CloseReason, message: &str) -> LoadError {
    LoadError::Closed { user: user.0, reason, message: message.to_owned() }
}
