//! The sessions on a swarm: logged in many at once, kept alive, acknowledged.
//!
//! Owned by the load generator's thread. What always holds: session `n` is the swarm's link `n`; frames of a
//! session reach the scenario only once it is logged in. It counts and judges nothing: see [`super::check`].

use std::net::SocketAddr;
use std::time::Duration;

use super::error::LoadError;
use super::swarm::{Brought, LinkId, Swarm, Window};
use super::tokens::Secret;
use crate::clock::Clock;
use ringway_wire::frame::{Encoder, read_server};
use ringway_wire::ids::{DeviceId, Seq, UserId};
use ringway_wire::request::Reply;
use ringway_wire::schema::CloseReason;

/// Logins that may be unanswered at once: well below what a gateway lets wait unauthenticated.
const LOGINS_OPEN_MAX: usize = 256;
/// How long logins may make no progress.
const LOGIN_PATIENCE_S: u64 = 30;

/// A session's place in its crowd.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u32);

/// Where a session's inbox starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// At the user's newest row: whatever was in the inbox before is left alone.
    Newest,
    /// After this row.
    After(Seq),
}

/// Sessions, by [`SessionId`].
pub struct Crowd {
    swarm: Swarm,
    addr: SocketAddr,
    secret: Secret,
    sessions: Vec<Session>,
    encoder: Encoder,
    clock: Clock,
    heartbeat_ms: u32,
    ping_due_ns: u64,
    /// Sessions whose login is to be sent again from their newest row.
    again: Vec<SessionId>,
    refusal: Option<LoadError>,
}

struct Session {
    addr: SocketAddr,
    user: UserId,
    window: Window,
    start: Start,
    state: State,
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
    pub fn new(addr: SocketAddr, secret: Secret, clock: Clock) -> Result<Crowd, LoadError> {
        Ok(Crowd {
            swarm: Swarm::new(clock).map_err(LoadError::io("epoll is not available"))?,
            addr,
            secret,
            sessions: Vec::new(),
            encoder: Encoder::new(),
            clock,
            heartbeat_ms: 0,
            ping_due_ns: u64::MAX,
            again: Vec::new(),
            refusal: None,
        })
    }

    /// Adds a user's session, not connected yet.
    pub fn add(&mut self, user: UserId, start: Start, window: Window) -> SessionId {
        self.add_at(self.addr, user, start, window)
    }

    /// Adds a user's session with the gateway at this address, not connected yet.
    pub fn add_at(&mut self, addr: SocketAddr, user: UserId, start: Start, window: Window) -> SessionId {
        self.sessions.push(Session { addr, user, window, start, state: State::Out, newest: Seq(0) });
        SessionId((self.sessions.len() - 1) as u32)
    }

    /// Connects and logs in every session that is out, `each` told as they are done.
    pub fn login_all(&mut self, mut each: impl FnMut()) -> Result<(), LoadError> {
        let out: Vec<SessionId> =
            (0..self.sessions.len() as u32).map(SessionId).filter(|s| !self.is_live(*s)).collect();
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
            self.turn(Duration::from_millis(20), &mut |_, _, _| {})?;
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

    /// Logs a session in again from `start`, after its connection ended.
    pub fn log_in_again(&mut self, session: SessionId, start: Start) -> Result<(), LoadError> {
        if let Some(s) = self.sessions.get_mut(session.0 as usize) {
            s.start = start;
        }
        self.connect(session)
    }

    /// The user's newest row when the session logged in.
    pub fn newest(&self, session: SessionId) -> Seq {
        self.sessions.get(session.0 as usize).map_or(Seq(0), |s| s.newest)
    }

    /// Whether the session is logged in.
    pub fn is_live(&self, session: SessionId) -> bool {
        self.sessions.get(session.0 as usize).is_some_and(|s| s.state == State::Live)
    }

    /// How many are logged in.
    pub fn live_count(&self) -> u64 {
        self.sessions.iter().filter(|s| s.state == State::Live).count() as u64
    }

    /// The clock that stamps what arrives.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Sends frames.
    pub fn send(&mut self, session: SessionId, bytes: &[u8]) {
        self.swarm.send(LinkId(session.0), bytes);
    }

    /// Acknowledges everything up to `seq`.
    pub fn ack(&mut self, session: SessionId, seq: Seq) {
        self.swarm.send(LinkId(session.0), self.encoder.ack(seq));
    }

    /// Stops reading from the session's connection.
    pub fn pause(&mut self, session: SessionId) {
        self.swarm.pause(LinkId(session.0));
    }

    /// Reads from it again.
    pub fn resume(&mut self, session: SessionId, hear: &mut impl FnMut(SessionId, Brought<'_>, u64)) {
        let Crowd { swarm, sessions, again, heartbeat_ms, refusal, .. } = self;
        swarm.resume(LinkId(session.0), &mut |link, brought, at_ns| {
            pass(sessions, again, heartbeat_ms, refusal, link, brought, at_ns, hear);
        });
    }

    /// Waits at most `wait` and handles what came; frames of logged-in sessions go to `hear` with their time.
    pub fn turn(
        &mut self,
        wait: Duration,
        hear: &mut impl FnMut(SessionId, Brought<'_>, u64),
    ) -> Result<(), LoadError> {
        let Crowd { swarm, sessions, again, heartbeat_ms, refusal, .. } = self;
        swarm
            .turn(wait, &mut |link, brought, at_ns| {
                pass(sessions, again, heartbeat_ms, refusal, link, brought, at_ns, hear);
            })
            .map_err(LoadError::io("waiting for the sockets failed"))?;
        if let Some(refusal) = self.refusal.take() {
            return Err(refusal);
        }
        for session in std::mem::take(&mut self.again) {
            self.swarm.close(LinkId(session.0));
            self.connect(session)?;
        }
        self.keep_alive();
        Ok(())
    }

    fn connect(&mut self, id: SessionId) -> Result<(), LoadError> {
        let Some(session) = self.sessions.get_mut(id.0 as usize) else { return Ok(()) };
        session.state = State::LoggingIn;
        let link = LinkId(id.0);
        let failed = LoadError::io("connecting to the gateway failed (is it running, and are descriptors left?)");
        self.swarm.open(link, session.addr, session.window).map_err(failed)?;
        let token = self.secret.token(session.user, self.clock.unix_ms());
        let last_seq = match session.start {
            Start::Newest => None,
            Start::After(seq) => Some(seq),
        };
        self.swarm.send(link, self.encoder.login(0, &token, DeviceId(1), last_seq));
        Ok(())
    }

    /// Every session says something twice per heartbeat interval.
    fn keep_alive(&mut self) {
        let now_ns = self.clock.mono_ns();
        let half_ns = u64::from(self.heartbeat_ms) * 500_000;
        if half_ns == 0 {
            return;
        }
        if self.ping_due_ns == u64::MAX {
            self.ping_due_ns = now_ns + half_ns;
        }
        if now_ns < self.ping_due_ns {
            return;
        }
        self.ping_due_ns = now_ns + half_ns;
        for (at, session) in self.sessions.iter().enumerate() {
            if session.state == State::Live {
                self.swarm.send(LinkId(at as u32), self.encoder.ping(0));
            }
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the crowd's fields, taken apart so that the swarm can be borrowed")]
fn pass(
    sessions: &mut [Session],
    again: &mut Vec<SessionId>,
    heartbeat_ms: &mut u32,
    refusal: &mut Option<LoadError>,
    link: LinkId,
    brought: Brought<'_>,
    at_ns: u64,
    hear: &mut impl FnMut(SessionId, Brought<'_>, u64),
) {
    let Some(session) = sessions.get_mut(link.0 as usize) else { return };
    if session.state == State::Live {
        if matches!(brought, Brought::End(_)) {
            session.state = State::Out;
        }
        return hear(SessionId(link.0), brought, at_ns);
    }
    let closed =
        |reason, message: &str| Some(LoadError::Closed { user: session.user.0, reason, message: message.to_owned() });
    let frame = match brought {
        Brought::Frame(frame) => frame,
        Brought::End(_) => {
            *refusal = closed(CloseReason::PeerClosed, "the connection ended before the login was answered");
            return;
        }
    };
    match read_server(frame) {
        Ok((_, Reply::LoginOk { heartbeat_ms: heartbeat, last_seq, from_seq, .. })) => {
            *heartbeat_ms = heartbeat;
            session.newest = last_seq;
            if session.start == Start::Newest && from_seq != last_seq {
                session.start = Start::After(last_seq);
                again.push(SessionId(link.0));
            } else {
                session.state = State::Live;
            }
        }
        Ok((_, Reply::Closing { reason, message, .. })) => *refusal = closed(reason, message),
        // Rows of a session that is about to log in again from its newest one.
        _ => {}
    }
}
