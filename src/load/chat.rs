//! `ringway chat`: a person, or a pipe, on one session.
//!
//! Lines of the input are messages, lines that begin with `/` are commands; what others say goes to the output,
//! everything else to the error output. What always holds: a message is sent again until it is answered, through any
//! number of reconnects, and stored once; nothing that others say reaches the terminal as anything but text.

use std::io::BufRead;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use ringway_client::blocking::Client;
use ringway_client::{Cause, ClientError, CloseReason, Event};
use ringway_wire::ids::{Conversation, DeviceId, GroupId, UserId};

use super::args::ChatArgs;
use super::command::{Command, HELP};
use super::error::LoadError;
use super::gateway::{listen_address, read_secret};
use super::outcome::Outcome;
use super::tokens::{Secret, subject};
use crate::clock::Clock;

mod text;

use text::{destination, line};

const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// How long a logout may take: nothing is owed any more.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(1);
/// How long the input waits while the socket is listened to.
const TURN: Duration = Duration::from_millis(20);
const LINES_WAITING_MAX: usize = 64;
/// Messages that may be unanswered at once; above it the input waits.
const UNANSWERED_MAX: usize = 256;
/// Connections lost in a row: a quarter of an hour without a gateway.
const RECONNECTS_MAX: u32 = 30;

/// A user's session, across reconnects.
struct Chat {
    client: Client,
    address: String,
    credentials: Credentials,
    user: UserId,
    to: Option<Conversation>,
    clock: Clock,
    reconnects: u32,
}

enum Credentials {
    Token(String),
    Secret(Secret),
}

impl Credentials {
    fn token(&self, user: UserId, clock: Clock) -> String {
        match self {
            Credentials::Token(token) => token.clone(),
            Credentials::Secret(secret) => secret.token(user, clock.unix_ms()),
        }
    }
}

/// Runs until the input ends and all of it is answered.
pub(crate) fn run(args: &ChatArgs) -> Result<Outcome, LoadError> {
    let listening = || listen_address(&args.data_dir).map(|address| address.to_string());
    let address = args.connect.clone().or_else(listening).ok_or(LoadError::Options(
        "no gateway is known: give --connect HOST:PORT, or --data-dir with the data directory of one that runs here",
    ))?;
    let user = user(args)?;
    let credentials = match &args.token {
        Some(token) => Credentials::Token(token.clone()),
        None => Credentials::Secret(read_secret(&args.data_dir)?),
    };
    let to_user = args.to_user.map(|user| Conversation::User(UserId(user)));
    let to = to_user.or(args.to_group.map(|group| Conversation::Group(GroupId(group))));
    let clock = Clock::start();
    let client = Client::connect(&address, credentials.token(user, clock), DeviceId(args.device), None)
        .map_err(LoadError::client("logging in failed"))?;
    let mut chat = Chat { client, address, credentials, user, to, clock, reconnects: 0 };
    chat.talk(&lines(), Duration::from_secs_f64(args.linger.clamp(0.0, 86_400.0)))?;
    chat.leave();
    Ok(Outcome::Clean)
}

/// Who is to be logged in: the token's user, and no other than was asked for.
fn user(args: &ChatArgs) -> Result<UserId, LoadError> {
    match (args.user.map(UserId), args.token.as_deref().and_then(subject)) {
        (Some(asked), Some(token)) if asked != token => Err(LoadError::OtherUser { asked, token }),
        (Some(user), _) | (None, Some(user)) => Ok(user),
        (None, None) => Err(LoadError::Options("the token names no user, and there is no --user")),
    }
}

/// The input's lines, read on a thread of their own: reading them cannot be given a time limit.
fn lines() -> Receiver<String> {
    let (send, lines) = bounded(LINES_WAITING_MAX);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

impl Chat {
    fn talk(&mut self, lines: &Receiver<String>, linger: Duration) -> Result<(), LoadError> {
        let mut ended_ns = None;
        loop {
            if let Err(error) = self.step(lines, &mut ended_ns) {
                self.failed(error)?;
            }
            let over = |since: u64| self.clock.mono_ns() - since >= linger.as_nanos() as u64;
            if self.client.unanswered() == 0 && ended_ns.is_some_and(over) {
                return Ok(());
            }
            if self.reconnects > RECONNECTS_MAX {
                return Err(LoadError::Options("the gateway did not come back"));
            }
        }
    }

    /// Acknowledges what was shown and logs out.
    fn leave(self) {
        for event in self.client.logout(GOODBYE_PATIENCE) {
            if let Event::Row(row) | Event::Ephemeral(row) = event {
                println!("{}", line(&row, self.user));
            }
        }
    }

    /// Shows what there is, then takes what the input has.
    fn step(&mut self, lines: &Receiver<String>, ended_ns: &mut Option<u64>) -> Result<(), ClientError> {
        let mut wait = TURN;
        while let Some(event) = self.client.next(wait)? {
            self.show(event);
            wait = Duration::ZERO;
        }
        while ended_ns.is_none() && self.client.unanswered() < UNANSWERED_MAX {
            match lines.try_recv() {
                Ok(line) => {
                    if self.take(&line)? == Input::Ended {
                        *ended_ns = Some(self.clock.mono_ns());
                    }
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => *ended_ns = Some(self.clock.mono_ns()),
            }
        }
        Ok(())
    }

    /// Goes on after what can be mended.
    fn failed(&mut self, error: ClientError) -> Result<(), LoadError> {
        match (error, &self.credentials) {
            (ClientError::Ended(Cause::Closing { reason: CloseReason::TokenExpired, .. }), Credentials::Secret(_)) => {
                self.client.set_token(self.credentials.token(self.user, self.clock));
                Ok(())
            }
            (ClientError::Ended(Cause::Closing { reason, message }), _) => {
                Err(LoadError::Closed { user: self.user.0, reason, message })
            }
            (error @ ClientError::Ended(_), _) => {
                Err(LoadError::Client { what: "the session has ended", source: error })
            }
            (error, _) => {
                eprintln!("{error}");
                Ok(())
            }
        }
    }

    fn show(&mut self, event: Event) {
        match event {
            Event::Row(row) | Event::Ephemeral(row) => println!("{}", line(&row, self.user)),
            Event::LoggedIn(info) => {
                self.reconnects = 0;
                eprintln!("logged in as user {} at {}, from row {} on; /help", info.user, self.address, info.from_seq);
                eprintln!("{}", destination(self.to));
            }
            Event::Disconnected { cause, reconnect_after_ms } => {
                self.reconnects += 1;
                eprintln!("{cause}; reconnecting in {reconnect_after_ms} ms");
            }
            Event::Gap { from, to } => eprintln!("rows {from} to {to} are no longer kept"),
            Event::GroupChanged { group, version, kind, actor, members, owner } => {
                let who: Vec<String> = members.iter().map(ToString::to_string).collect();
                let who = who.join(" ");
                eprintln!("group {group}, version {version}: user {actor}: {kind:?} {who}; owner: {owner}");
            }
            Event::Refused { code, message, .. } => eprintln!("refused: {code:?}: {message}; the message is not sent"),
            Event::Delayed { code, message, retry_after_ms, .. } => {
                eprintln!("refused: {code:?}: {message}; sent again by itself, not before {retry_after_ms} ms");
            }
            // The one before a `Disconnected`, or before the end, which says it.
            Event::Closing { .. } => {}
            Event::Sent { .. }
            | Event::Pong { .. }
            | Event::Page { .. }
            | Event::GroupOk { .. }
            | Event::GroupInfo { .. }
            | Event::GroupList { .. }
            | Event::Presence { .. }
            | Event::Refreshed { .. } => {}
        }
    }

    /// One line of the input.
    fn take(&mut self, line: &str) -> Result<Input, ClientError> {
        match Command::parse(line) {
            Ok(Command::Nothing) => {}
            Ok(Command::Quit) => return Ok(Input::Ended),
            Ok(Command::Help) => eprintln!("{HELP}"),
            Ok(Command::To(to)) => self.turn_to(to),
            Ok(Command::Say(text)) => match self.to {
                Some(to) => drop(self.client.send(to, text.as_bytes())?),
                None => eprintln!("{}", destination(None)),
            },
            Ok(command) => self.ask(command)?,
            Err(why) => eprintln!("{why}; /help"),
        }
        Ok(Input::Open)
    }

    fn turn_to(&mut self, to: Conversation) {
        self.to = Some(to);
        eprintln!("{}", destination(self.to));
    }

    /// Commands that have an answer.
    fn ask(&mut self, command: Command<'_>) -> Result<(), ClientError> {
        let (client, wait) = (&mut self.client, ANSWER_PATIENCE);
        match command {
            Command::Create(members) => {
                let (group, version) = client.group_create(&members, wait)?;
                println!("group {group}, version {version}");
                self.turn_to(Conversation::Group(group));
            }
            Command::Add(group, members) => {
                println!("group {group}, version {}", client.group_add(group, &members, wait)?);
            }
            Command::Remove(group, members) => {
                println!("group {group}, version {}", client.group_remove(group, &members, wait)?);
            }
            Command::Leave(group) => println!("group {group}, version {}", client.group_leave(group, wait)?),
            Command::Info(group) => {
                let (version, members) = client.group_info(group, wait)?;
                let who: Vec<String> = members.iter().map(|(user, role)| format!("{user} ({role:?})")).collect();
                println!("group {group}, version {version}: {}", who.join(" "));
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
}

/// Whether there may be another line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Input {
    Open,
    Ended,
}
