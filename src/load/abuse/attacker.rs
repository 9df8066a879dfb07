//! One account that means harm: as much of one thing as its connection takes.
//!
//! On a thread of its own. What always holds: it writes until its socket takes no more, reads whatever comes, and counts
//! what was refused; its session is that of [`ringway_client`], so it breaks no rule of the protocol, and nothing but limits
//! stops it: it is back when a `Closing` lets it, and goes when that says so. It sends nothing twice, and has no row in safety,
//! so it acknowledges none.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Clock;
use crate::error::LoadError;
use crate::tokens::Secret;
use ringway_client::{Due, Incoming, NextStep, Now, Session};
use ringway_wire::deframer::Deframer;
use ringway_wire::frame::Encoder;
use ringway_wire::ids::{Conversation, DeviceId, GroupId, Seq, UserId};
use ringway_wire::limits::{BODY_BYTES_MAX, GROUP_MEMBERS_MAX, PRESENCE_USERS_MAX, SERVER_FRAME_BYTES_MAX};
use ringway_wire::request::{Durability, Reply};

/// The attackers' users, one an attack, and those whom they invent.
const FIRST_ATTACKER: u64 = 6_660_000;
const VICTIM: UserId = UserId(6_650_000);
const FIRST_INVENTED: u64 = 1 << 40;
/// Bytes that are ready to be written at the most.
const READY_BYTES: usize = 256 * 1024;
const READ_BYTES: usize = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(30);
/// When the socket takes and gives nothing.
const PAUSE: Duration = Duration::from_millis(1);
/// Silent sockets of [`Attack::Silent`].
const SILENT_MAX: usize = 2_000;

/// What is done without end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Attack {
    /// Messages to 5,000 who were invented: rows owed.
    Rows,
    /// Groups of 500 made and left.
    Groups,
    /// The largest messages to one victim.
    Spam,
    /// Messages to users whom nobody knows.
    Recipients,
    /// One-byte messages to one group of 5,000 after the other.
    Rosters,
    /// Groups with one victim.
    LockOut,
    /// Ephemeral messages to 5,000.
    Typing,
    /// Lists of groups.
    Lists,
    /// Members of a group of 5,000.
    Members,
    /// Who of 256 is online?
    Presence,
    /// The whole inbox, again and again.
    History,
    /// Pings.
    Pings,
    /// Logins, each of another device.
    Logins,
    /// Sockets that say nothing.
    Silent,
}

impl Attack {
    pub(crate) const ALL: &[Attack] = &[
        Attack::Rows,
        Attack::Groups,
        Attack::Spam,
        Attack::Recipients,
        Attack::Rosters,
        Attack::LockOut,
        Attack::Typing,
        Attack::Lists,
        Attack::Members,
        Attack::Presence,
        Attack::History,
        Attack::Pings,
        Attack::Logins,
        Attack::Silent,
    ];

    /// On the command line and in the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Attack::Rows => "rows",
            Attack::Groups => "groups",
            Attack::Spam => "spam",
            Attack::Recipients => "recipients",
            Attack::Rosters => "rosters",
            Attack::LockOut => "lock-out",
            Attack::Typing => "typing",
            Attack::Lists => "lists",
            Attack::Members => "members",
            Attack::Presence => "presence",
            Attack::History => "history",
            Attack::Pings => "pings",
            Attack::Logins => "logins",
            Attack::Silent => "silent",
        }
    }

    /// Groups that it needs, and the members of each.
    fn groups(self) -> (usize, usize) {
        match self {
            Attack::Rows | Attack::Typing | Attack::Members => (1, GROUP_MEMBERS_MAX - 1),
            Attack::Rosters => (30, GROUP_MEMBERS_MAX - 1),
            Attack::Lists => (500, 0),
            _ => (0, 0),
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Done {
    /// Requests sent.
    pub asked: u64,
    /// Of these, refused, or answered with the connection's end.
    pub refused: u64,
}

/// One account, logged in.
pub(crate) struct Attacker {
    attack: Attack,
    addr: SocketAddr,
    token: String,
    clock: Clock,
    stream: TcpStream,
    device: DeviceId,
    session: Session,
    deframer: Deframer,
    encoder: Encoder,
    /// What is to be written.
    out: Vec<u8>,
    invented: u64,
    groups: Vec<GroupId>,
    done: Done,
}

impl Attacker {
    /// Logs in, and makes ready what the attack needs.
    pub(crate) fn log_in(
        addr: SocketAddr,
        secret: &Secret,
        clock: Clock,
        attack: Attack,
        number: u64,
    ) -> Result<Attacker, LoadError> {
        let token = secret.token(UserId(FIRST_ATTACKER + number), clock.unix_ms());
        let mut attacker = Attacker {
            attack,
            addr,
            token,
            clock,
            stream: connect(addr)?,
            device: DeviceId(1),
            session: Session::new(Some(Seq(0))),
            deframer: Deframer::default(),
            encoder: Encoder::new(),
            out: Vec::new(),
            invented: FIRST_INVENTED + (number << 32),
            groups: Vec::new(),
            done: Done::default(),
        };
        attacker.login();
        attacker.write_all()?;
        attacker.read_until(|attacker| attacker.session.is_live())?;
        let (groups, members) = attack.groups();
        for _ in 0..groups {
            let members = attacker.invent(members);
            attacker.put(|encoder, request| encoder.group_create(request, &members));
            let made = attacker.groups.len();
            attacker.write_all()?;
            attacker.read_until(|attacker| attacker.groups.len() > made)?;
        }
        attacker.done = Done::default();
        Ok(attacker)
    }

    /// Attacks until it is told to stop, or not to come back.
    pub(crate) fn run(&mut self, stop: &AtomicBool, asked: &AtomicU64) -> Done {
        let mut silent = Vec::new();
        let mut buffer = vec![0; READ_BYTES];
        if self.stream.set_nonblocking(true).is_err() {
            return self.done;
        }
        while !stop.load(Ordering::Relaxed) {
            let moved = match self.attack {
                Attack::Logins => self.log_in_anew(&mut buffer),
                Attack::Silent if silent.len() < SILENT_MAX => {
                    silent.extend(connect(self.addr).ok());
                    self.done.asked += 1;
                    Some(true)
                }
                Attack::Silent => Some(false),
                _ => self.turn(&mut buffer).or_else(|| self.come_back(stop)),
            };
            asked.store(self.done.asked, Ordering::Relaxed);
            match moved {
                Some(true) => {}
                Some(false) => std::thread::park_timeout(PAUSE),
                None => break,
            }
        }
        self.done
    }

    /// Writes and reads what there is; whether that was anything; `None`: the connection has ended.
    fn turn(&mut self, buffer: &mut [u8]) -> Option<bool> {
        while let Some(due) = self.session.due(self.now()) {
            match due {
                Due::Ping => self.put(|encoder, request| encoder.ping(request)),
                Due::Ack(seq) => self.out.extend_from_slice(self.encoder.ack(seq)),
                Due::GiveUp => return None,
            }
        }
        while self.session.is_live() && self.out.len() < READY_BYTES {
            self.ask();
        }
        let mut moved = false;
        match self.stream.write(&self.out) {
            Ok(written) => {
                self.out.drain(..written);
                moved |= written > 0;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
        match self.stream.read(buffer) {
            Ok(0) => return None,
            Ok(bytes) => {
                self.take(buffer.get(..bytes).unwrap_or_default())?;
                moved = true;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
        Some(moved)
    }

    /// The connection has ended: the next one is made when the session says; `None`: it does not, or none can be made.
    fn come_back(&mut self, stop: &AtomicBool) -> Option<bool> {
        let NextStep::Reconnect { at_ms } = self.session.ended(self.now(), fastrand::u64(..)) else { return None };
        while self.now().mono_ms < at_ms && !stop.load(Ordering::Relaxed) {
            std::thread::park_timeout(PAUSE);
        }
        self.stream = connect(self.addr).ok()?;
        self.stream.set_nonblocking(true).ok()?;
        self.login();
        Some(true)
    }

    fn now(&self) -> Now {
        Now { mono_ms: self.clock.mono_ns() / 1_000_000, unix_ms: self.clock.unix_ms() }
    }

    /// One more request.
    fn ask(&mut self) {
        const MANY: usize = 500;
        let name = self.session.new_client_msg_id(self.now(), fastrand::u128(..));
        let group = self.groups.get(self.done.asked as usize % self.groups.len().max(1)).copied().unwrap_or_default();
        let to_group = Conversation::Group(group);
        match self.attack {
            Attack::Rows => self.put(|e, r| e.send(r, to_group, name, &[b'x'; 100], Durability::Durable)),
            Attack::Rosters => self.put(|e, r| e.send(r, to_group, name, b"x", Durability::Durable)),
            Attack::Typing => self.put(|e, r| e.send(r, to_group, name, b"typing", Durability::Ephemeral)),
            Attack::Spam => {
                let body = [b'x'; BODY_BYTES_MAX];
                self.put(|e, r| e.send(r, Conversation::User(VICTIM), name, &body, Durability::Durable));
            }
            Attack::Recipients => {
                let to = self.invent(1).first().copied().unwrap_or_default();
                self.put(|e, r| e.send(r, Conversation::User(to), name, b"x", Durability::Durable));
            }
            Attack::Groups => {
                let members = self.invent(MANY);
                self.put(|e, r| e.group_create(r, &members));
            }
            Attack::LockOut => self.put(|e, r| e.group_create(r, &[VICTIM])),
            Attack::Lists => self.put(|e, r| e.group_list_request(r)),
            Attack::Members => self.put(|e, r| e.group_info_request(r, group)),
            Attack::Presence => {
                let users = self.invent(PRESENCE_USERS_MAX);
                self.put(|e, r| e.presence_request(r, &users));
            }
            Attack::History => self.put(|e, r| e.sync(r, Seq(0), 0)),
            Attack::Pings | Attack::Logins | Attack::Silent => self.put(|e, r| e.ping(r)),
        }
    }

    /// One more connection, of another device; the one before is dropped.
    fn log_in_anew(&mut self, buffer: &mut [u8]) -> Option<bool> {
        self.stream = connect(self.addr).ok()?;
        (self.device, self.session) = (DeviceId(fastrand::u64(..)), Session::new(Some(Seq(0))));
        self.login();
        self.write_all().ok()?;
        // Its first answer says enough.
        let bytes = self.stream.read(buffer).unwrap_or(0);
        self.take(buffer.get(..bytes).unwrap_or_default());
        Some(true)
    }

    /// A connection begins.
    fn login(&mut self) {
        self.deframer = Deframer::default();
        self.out.clear();
        self.session.connecting(self.now());
        let (token, device, cursor) = (self.token.clone(), self.device, self.session.last_seq());
        self.put(|encoder, request| encoder.login(request, &token, device, cursor));
    }

    fn put(&mut self, frame: impl for<'e> FnOnce(&'e mut Encoder, u32) -> &'e [u8]) {
        self.done.asked += 1;
        self.out.extend_from_slice(frame(&mut self.encoder, self.session.next_request().0));
    }

    /// So many whom nobody has heard of.
    fn invent(&mut self, count: usize) -> Vec<UserId> {
        let first = self.invented;
        self.invented += count as u64;
        (first..self.invented).map(UserId).collect()
    }

    /// Looks at what came; `None`: the session cannot go on.
    fn take(&mut self, mut bytes: &[u8]) -> Option<()> {
        let now = self.now();
        while let Some(frame) = self.deframer.next(&mut bytes, SERVER_FRAME_BYTES_MAX).ok()? {
            match self.session.receive(now, frame).ok()? {
                Incoming::Other { reply: Reply::GroupOk { group, version: 1, .. }, .. } => match self.attack {
                    Attack::Groups => {
                        self.done.asked += 1;
                        let request = self.session.next_request();
                        self.out.extend_from_slice(self.encoder.group_leave(request.0, group));
                    }
                    _ => self.groups.push(group),
                },
                Incoming::Refused(_) | Incoming::Closing(_) => self.done.refused += 1,
                _ => {}
            }
        }
        Some(())
    }

    fn write_all(&mut self) -> Result<(), LoadError> {
        let out = std::mem::take(&mut self.out);
        self.stream.write_all(&out).map_err(LoadError::io("the attacker cannot write"))
    }

    fn read_until(&mut self, done: impl Fn(&Attacker) -> bool) -> Result<(), LoadError> {
        let mut buffer = vec![0; READ_BYTES];
        while !done(self) {
            match self.stream.read(&mut buffer).map_err(LoadError::io("the attacker cannot read"))? {
                0 => return Err(LoadError::Options("the attacker was thrown out before it began")),
                bytes => {
                    let taken = self.take(buffer.get(..bytes).unwrap_or_default());
                    taken.ok_or(LoadError::Options("the attacker was told what it did not ask for"))?;
                }
            }
        }
        Ok(())
    }
}

/// A socket on which nobody waits for ever.
fn connect(addr: SocketAddr) -> Result<TcpStream, LoadError> {
    let failed = LoadError::io("the attacker cannot connect");
    let stream = TcpStream::connect_timeout(&addr, PATIENCE).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).ok();
    stream.set_write_timeout(Some(PATIENCE)).ok();
    stream.set_nodelay(true).ok();
    Ok(stream)
}
