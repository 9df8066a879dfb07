//! `ringway chat`: a person, or a pipe, on one session.
//!
//! Lines of the input are messages, lines that begin with `/` are commands; what others say goes to the output,
//! everything else to the error output. What always holds: a message keeps its client_msg_id until it is acked,
//! through any number of reconnects, so it is stored once; a reconnect goes on after the last row printed, and
//! waits as long as the gateway asked for.

use std::collections::VecDeque;
use std::io::BufRead;
use std::net::SocketAddr;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError, bounded};

use super::args::ChatArgs;
use super::client::{Client, ClientError, Row, Said};
use super::command::{Command, HELP};
use super::error::LoadError;
use super::gateway::{listen_address, pause, read_secret};
use super::outcome::Outcome;
use crate::clock::Clock;
use ringway_wire::ids::{ClientMsgId, Conversation, DeviceId, GroupId, Seq, UserId};
use ringway_wire::limits::ACK_ROWS_MAX;
use ringway_wire::schema::ErrorCode;

const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// How long the input waits while the socket is listened to.
const TURN: Duration = Duration::from_millis(20);
const LINES_WAITING_MAX: usize = 64;
/// Messages that may be unacked at once; above it the input waits.
const UNACKED_MAX: usize = 256;
const BACKOFF_FIRST_MS: u64 = 100;
const BACKOFF_MAX_MS: u64 = 10_000;
const RECONNECTS_MAX: u32 = 100;

/// A user's session, across reconnects.
struct Chat {
    addr: SocketAddr,
    credentials: Credentials,
    user: UserId,
    device: DeviceId,
    to: Option<Conversation>,
    client: Client,
    unacked: VecDeque<Unacked>,
    clock: Clock,
    acked: Seq,
    acked_at_ns: u64,
    pinged_at_ns: u64,
}

/// A message that the gateway has not acked.
struct Unacked {
    request: u32,
    client_msg_id: ClientMsgId,
    to: Conversation,
    body: Vec<u8>,
    /// Not to be sent again before.
    due_ns: Option<u64>,
}

enum Credentials {
    Token(String),
    Secret(super::tokens::Secret),
}

/// Runs until the input ends and all of it is acked.
pub fn run(args: &ChatArgs) -> Result<Outcome, LoadError> {
    let addr = args.connect.or_else(|| listen_address(&args.data_dir)).ok_or(LoadError::Options(
        "no gateway is known: give --connect ADDR, or --data-dir with the data directory of one that runs here",
    ))?;
    let credentials = match &args.token {
        Some(token) => Credentials::Token(token.clone()),
        None => Credentials::Secret(read_secret(&args.data_dir)?),
    };
    let to_user = args.to_user.map(|user| Conversation::User(UserId(user)));
    let to = to_user.or(args.to_group.map(|group| Conversation::Group(GroupId(group))));
    let (user, device, clock) = (UserId(args.user), DeviceId(args.device), Clock::start());
    let client =
        log_in(addr, &credentials, user, device, None, clock).map_err(LoadError::client("logging in failed"))?;
    let mut chat = Chat {
        addr,
        credentials,
        user,
        device,
        to,
        acked: client.cursor(),
        client,
        unacked: VecDeque::new(),
        clock,
        acked_at_ns: 0,
        pinged_at_ns: 0,
    };
    chat.greet();
    chat.talk(&lines(), Duration::from_secs_f64(args.linger.clamp(0.0, 86_400.0)))
}

/// The input's lines, read on a thread of their own: reading them cannot be given a time limit.
fn lines() -> Receiver<String> {
    let (tell, lines) = bounded(LINES_WAITING_MAX);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

fn log_in(
    addr: SocketAddr,
    credentials: &Credentials,
    user: UserId,
    device: DeviceId,
    last_seq: Option<Seq>,
    clock: Clock,
) -> Result<Client, ClientError> {
    let token = match credentials {
        Credentials::Token(token) => token.clone(),
        Credentials::Secret(secret) => secret.token(user, clock.unix_ms()),
    };
    let mut client = Client::connect(addr, ANSWER_PATIENCE)?;
    client.login(&token, device, last_seq, ANSWER_PATIENCE)?;
    Ok(client)
}

impl Chat {
    fn greet(&self) {
        if let Some(info) = self.client.session() {
            eprintln!("logged in as user {} at {}, from row {} on; /help", info.user, self.addr, info.from_seq);
        }
    }

    fn talk(&mut self, lines: &Receiver<String>, linger: Duration) -> Result<Outcome, LoadError> {
        let mut ended_ns = None;
        loop {
            let stepped = self.step(lines, &mut ended_ns);
            match stepped {
                Ok(()) => {}
                Err(ClientError::Closing { reconnect_after_ms: None, reason, message }) => {
                    return Err(LoadError::Closed { user: self.user.0, reason, message });
                }
                Err(e) => self.reconnect(e)?,
            }
            let quiet = |since: u64| self.clock.mono_ns() - since >= linger.as_nanos() as u64;
            if self.unacked.is_empty() && ended_ns.is_some_and(quiet) {
                self.leave();
                return Ok(Outcome::Clean);
            }
        }
    }

    /// Hears what there is, then takes what the input has.
    fn step(&mut self, lines: &Receiver<String>, ended_ns: &mut Option<u64>) -> Result<(), ClientError> {
        let mut wait = TURN;
        while let Some(said) = self.client.next(wait)? {
            self.hear(said)?;
            wait = Duration::ZERO;
        }
        while ended_ns.is_none() && self.unacked.len() < UNACKED_MAX {
            match lines.try_recv() {
                Ok(line) => {
                    if !self.take(&line)? {
                        *ended_ns = Some(self.clock.mono_ns());
                    }
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => *ended_ns = Some(self.clock.mono_ns()),
            }
        }
        self.send_again()?;
        self.keep_alive()
    }

    fn hear(&mut self, said: Said) -> Result<(), ClientError> {
        match said {
            Said::Row(row) | Said::Ephemeral(row) => show(&row),
            Said::Sent { request, .. } => self.unacked.retain(|m| m.request != request),
            Said::Gap { from, to } => eprintln!("rows {from} to {to} are no longer kept"),
            Said::GroupChanged { group, version, kind, actor, members } => {
                let who: Vec<String> = members.iter().map(ToString::to_string).collect();
                eprintln!("group {group}, version {version}: user {actor}: {kind:?} {}", who.join(" "));
            }
            Said::Refused { request, code, message, retry_after_ms } => {
                self.refused(request, code, &message, retry_after_ms);
            }
            Said::Closing { reason, message, reconnect, reconnect_after_ms } => {
                let reconnect_after_ms = reconnect.then_some(reconnect_after_ms);
                return Err(ClientError::Closing { reason, message, reconnect_after_ms });
            }
            Said::Pong { .. }
            | Said::Page { .. }
            | Said::GroupOk { .. }
            | Said::GroupInfo { .. }
            | Said::GroupList { .. }
            | Said::Presence { .. }
            | Said::LoggedIn(_) => {}
        }
        Ok(())
    }

    fn refused(&mut self, request: u32, code: ErrorCode, message: &str, retry_after_ms: u32) {
        if matches!(code, ErrorCode::RetryLater | ErrorCode::StorageFull) {
            let due_ns = self.clock.mono_ns() + u64::from(retry_after_ms.max(1)) * 1_000_000;
            self.unacked.iter_mut().filter(|m| m.request == request).for_each(|m| m.due_ns = Some(due_ns));
            return;
        }
        self.unacked.retain(|m| m.request != request);
        eprintln!("refused: {code:?}: {message}");
    }

    /// One line of the input; false: it was the last.
    fn take(&mut self, line: &str) -> Result<bool, ClientError> {
        match Command::parse(line) {
            Ok(Command::Nothing) => {}
            Ok(Command::Quit) => return Ok(false),
            Ok(Command::Help) => eprintln!("{HELP}"),
            Ok(Command::To(to)) => self.to = Some(to),
            Ok(Command::Say(text)) => match self.to {
                Some(to) => self.say(to, text.as_bytes())?,
                None => eprintln!("to whom? /to user N or /to group N, or start with --to-user or --to-group"),
            },
            Ok(command) => match self.ask(command) {
                Err(ClientError::Refused { code, message, .. }) => eprintln!("refused: {code:?}: {message}"),
                asked => asked?,
            },
            Err(why) => eprintln!("{why}; /help"),
        }
        Ok(true)
    }

    fn say(&mut self, to: Conversation, body: &[u8]) -> Result<(), ClientError> {
        let client_msg_id = self.client.new_client_msg_id();
        // Kept before it is sent: a connection that fails now must not lose it.
        self.unacked.push_back(Unacked { request: 0, client_msg_id, to, body: body.to_vec(), due_ns: None });
        let request = self.client.send(to, client_msg_id, body, false)?;
        if let Some(last) = self.unacked.back_mut() {
            last.request = request;
        }
        Ok(())
    }

    /// Commands that have an answer.
    fn ask(&mut self, command: Command<'_>) -> Result<(), ClientError> {
        let (client, wait) = (&mut self.client, ANSWER_PATIENCE);
        match command {
            Command::Create(members) => {
                let (group, version) = client.group_create(&members, wait)?;
                println!("group {group}, version {version}");
                self.to = Some(Conversation::Group(group));
            }
            Command::Add(group, members) => {
                println!("group {group}, version {}", client.group_add(group, &members, wait)?);
            }
            Command::Remove(group, members) => {
                println!("group {group}, version {}", client.group_remove(group, &members, wait)?);
            }
            Command::Leave(group) => println!("group {group}, version {}", client.group_leave(group, wait)?),
            Command::Info(group) => {
                if let Said::GroupInfo { version, members, .. } = client.group_info(group, wait)? {
                    let who: Vec<String> = members.iter().map(|(user, role)| format!("{user} ({role:?})")).collect();
                    println!("group {group}, version {version}: {}", who.join(" "));
                }
            }
            Command::Groups => {
                for (group, version, role, members) in client.group_list(wait)? {
                    println!("group {group}, version {version}: {members} members, {role:?}");
                }
            }
            Command::Online(users) => {
                let online: Vec<String> = client.presence(&users, wait)?.iter().map(ToString::to_string).collect();
                println!("online: {}", online.join(" "));
            }
            Command::Nothing | Command::Quit | Command::Help | Command::To(_) | Command::Say(_) => {}
        }
        Ok(())
    }

    fn send_again(&mut self) -> Result<(), ClientError> {
        let now_ns = self.clock.mono_ns();
        for message in self.unacked.iter_mut().filter(|m| m.due_ns.is_some_and(|due| due <= now_ns)) {
            message.due_ns = None;
            message.request = self.client.send(message.to, message.client_msg_id, &message.body, false)?;
        }
        Ok(())
    }

    /// Acknowledges once a second or every `ACK_ROWS_MAX` rows, and says something twice per heartbeat interval.
    fn keep_alive(&mut self) -> Result<(), ClientError> {
        let (now_ns, cursor) = (self.clock.mono_ns(), self.client.cursor());
        let many = cursor.0 >= self.acked.0 + ACK_ROWS_MAX;
        if cursor > self.acked && (many || now_ns - self.acked_at_ns > 1_000_000_000) {
            self.client.ack(cursor)?;
            (self.acked, self.acked_at_ns) = (cursor, now_ns);
        }
        let heartbeat_ms = self.client.session().map_or(0, |s| s.heartbeat_ms);
        if heartbeat_ms > 0 && now_ns - self.pinged_at_ns > u64::from(heartbeat_ms) * 500_000 {
            self.client.ping()?;
            self.pinged_at_ns = now_ns;
        }
        Ok(())
    }

    /// Comes back after the last row printed, later each time, and sends again what is not acked.
    fn reconnect(&mut self, why: ClientError) -> Result<(), LoadError> {
        let cursor = self.client.cursor();
        let mut wait_ms = match &why {
            ClientError::Closing { reconnect_after_ms: Some(ms), .. } => u64::from(*ms),
            _ => BACKOFF_FIRST_MS,
        };
        let mut backoff_ms = BACKOFF_FIRST_MS;
        let mut failure = why;
        for _ in 0..RECONNECTS_MAX {
            eprintln!("{failure}; reconnecting in {wait_ms} ms");
            pause(Duration::from_millis(wait_ms));
            match log_in(self.addr, &self.credentials, self.user, self.device, Some(cursor), self.clock) {
                Ok(client) => {
                    self.client = client;
                    self.acked = cursor;
                    let now_ns = self.clock.mono_ns();
                    self.unacked.iter_mut().for_each(|m| m.due_ns = Some(now_ns));
                    self.greet();
                    return Ok(());
                }
                Err(ClientError::Closing { reconnect_after_ms: None, reason, message }) => {
                    return Err(LoadError::Closed { user: self.user.0, reason, message });
                }
                Err(e) => {
                    backoff_ms = (backoff_ms * 2).min(BACKOFF_MAX_MS);
                    wait_ms = match &e {
                        ClientError::Closing { reconnect_after_ms: Some(ms), .. } => u64::from(*ms),
                        // Spread, so that many clients do not come back at once.
                        _ => fastrand::u64(backoff_ms / 2..=backoff_ms),
                    };
                    failure = e;
                }
            }
        }
        Err(LoadError::Client { what: "the gateway did not come back", source: failure })
    }

    /// Acknowledges what was printed and logs out. The connection may be gone already: nothing is owed any more.
    fn leave(&mut self) {
        let said = self.client.ack(self.client.cursor()).and_then(|()| self.client.logout());
        if said.is_ok() {
            while let Ok(Some(said)) = self.client.next(Duration::from_secs(1)) {
                match said {
                    Said::Row(row) | Said::Ephemeral(row) => show(&row),
                    Said::Closing { .. } => break,
                    _ => {}
                }
            }
        }
    }
}

fn show(row: &Row) {
    let text = String::from_utf8_lossy(&row.body);
    match row.to {
        Conversation::User(_) => println!("[{}] user {}: {text}", row.seq, row.sender),
        Conversation::Group(group) => println!("[{}] group {group}, user {}: {text}", row.seq, row.sender),
    }
}
