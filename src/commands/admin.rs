//! `ringway admin`: what an operator asks and tells a gateway that runs.
//!
//! On the main thread of a process of its own, which must run as the gateway's user: it speaks to the sockets in the gateway's
//! data directory. Who may not log in goes over one, in words; everything else is a call of the API over the other. What
//! always holds: a command that ends with 0 was carried out, and what it states of who may log in is on that gateway's disk.

mod call;
mod operate;
mod show;

use std::error::Error;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use self::call::call;
use self::operate::{Changed, Level, Message, Resumed};
use self::show::{CONNECTIONS, EVENTS, GROUPS, SESSIONS, fields, table};
use crate::auth::{TOKEN_TIME_MAX_S, token_id};
use crate::clock::Clock;
use crate::config::args::ConfigArgs;
use crate::control::access::SOCKET;
use crate::control::http::API_SOCKET;

/// How long the gateway may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections that are asked for at once.
const PAGE: usize = 1_000;

/// Ask and tell a gateway that runs here: users, connections, groups, figures, who may not log in.
#[derive(Args, Debug)]
pub struct AdminArgs {
    #[command(subcommand)]
    command: AdminCommand,
}

#[derive(Subcommand, Debug)]
enum AdminCommand {
    /// End a user's sessions now. The user may log in again.
    Kick {
        #[command(flatten)]
        user: User,
        /// That of this device alone.
        #[arg(long, value_name = "NUMBER")]
        device: Option<u64>,
    },
    /// End a user's sessions now, and refuse that user's logins until `unban`.
    Ban(User),
    /// Let a user who was banned log in again.
    Unban(User),
    /// End a user's sessions now, and refuse tokens of that user that were issued before.
    Revoke {
        #[command(flatten)]
        user: User,
        /// The Unix second from which on issued tokens count [default: the next one].
        #[arg(long, value_name = "SECONDS")]
        before: Option<u64>,
        /// Revoke the one token with this claim `jti` instead, and end the sessions that began with it.
        #[arg(long, value_name = "TEXT", conflicts_with = "before")]
        jti: Option<String>,
        /// The Unix second at which that token expires: until then it is kept in mind [default: for good].
        #[arg(long, value_name = "SECONDS", requires = "jti")]
        until: Option<u64>,
    },
    /// Print all that is stated of who may log in, a line for each user.
    List(ConfigArgs),
    /// Show a user: sessions on all nodes, the newest row, groups.
    Users(Shown<User>),
    /// Show what happened to a user lately on this node: logins, refusals, closes.
    Events(Shown<User>),
    /// Follow a message: its rows, who was given it, has acknowledged it, lacks it.
    Trace(Shown<Message>),
    /// Show the connections of this node.
    Connections(Shown<Which>),
    /// Show the groups that a user is in.
    Groups(Shown<User>),
    /// Send a text in a user's name.
    Send(Shown<Sending>),
    /// Show the gateway's figures.
    Stats(Shown<ConfigArgs>),
    /// Show the nodes of the cluster.
    Nodes(Shown<ConfigArgs>),
    /// Show the settings in force, or change some while the gateway runs: all of them, or none.
    Config(Shown<Changed>),
    /// Change what the log says until the gateway ends.
    Log(Shown<Level>),
    /// Show the endpoints that are told what happens, or have one tried now.
    Webhooks(Shown<Resumed>),
    /// Stop the gateway as SIGTERM does.
    Drain(Shown<ConfigArgs>),
}

/// How it is printed.
#[derive(Args, Debug)]
struct Shown<A: Args> {
    #[command(flatten)]
    asked: A,
    /// Print what the API answers.
    #[arg(long)]
    json: bool,
}

/// Which connections.
#[derive(Args, Debug)]
struct Which {
    #[command(flatten)]
    config: ConfigArgs,
    /// This user's.
    #[arg(long, value_name = "NUMBER")]
    user: Option<u64>,
    /// Those from this address.
    #[arg(long)]
    address: Option<IpAddr>,
    /// unauthenticated, logging_in, live, behind or closing.
    #[arg(long)]
    state: Option<String>,
    /// Those that were not sent so many rows yet, or more.
    #[arg(long, value_name = "ROWS")]
    behind: Option<u64>,
    /// At most so many.
    #[arg(long, value_name = "COUNT", default_value_t = 1_000)]
    limit: usize,
}

/// A message.
#[derive(Args, Debug)]
struct Sending {
    #[command(flatten)]
    config: ConfigArgs,
    /// The user in whose name it is sent.
    #[arg(long, value_name = "USER")]
    from: u64,
    /// To a user.
    #[arg(long, value_name = "NUMBER", required_unless_present = "group", conflicts_with = "group")]
    user: Option<u64>,
    /// To a group.
    #[arg(long, value_name = "NUMBER")]
    group: Option<u64>,
    /// What it says.
    text: String,
}

#[derive(Args, Debug)]
struct User {
    #[command(flatten)]
    config: ConfigArgs,
    /// The user's number.
    user: u64,
}

/// Why it was not carried out.
#[derive(Debug, thiserror::Error)]
enum AdminError {
    /// No gateway listens there.
    #[error("no gateway can be spoken to at {0}: does it run, with this data directory, and as this user?")]
    Gateway(PathBuf, #[source] std::io::Error),
    /// It said so.
    #[error("the gateway refuses: {0}")]
    Refused(String),
    /// It ended in between, most likely.
    #[error("the gateway did not answer; look at `ringway admin list`")]
    Silent,
}

/// Carries a command out, and prints what the gateway says.
pub fn run(args: &AdminArgs) -> Result<(), Box<dyn Error>> {
    let said = match &args.command {
        AdminCommand::Kick { user, device } => {
            let device = device.map_or_else(String::new, |device| format!(" {device}"));
            tell(&user.config, &format!("kick {}{device}\n", user.user))?
        }
        AdminCommand::Ban(user) => tell(&user.config, &format!("ban {}\n", user.user))?,
        AdminCommand::Unban(user) => tell(&user.config, &format!("unban {}\n", user.user))?,
        AdminCommand::Revoke { user, jti: Some(jti), until, .. } => {
            let (token, until_s) = (token_id(jti).0, until.unwrap_or(TOKEN_TIME_MAX_S));
            tell(&user.config, &format!("revoke-token {} {token:016x} {until_s}\n", user.user))?
        }
        AdminCommand::Revoke { user, before, .. } => {
            let before = before.map_or_else(String::new, |before| format!(" {before}"));
            tell(&user.config, &format!("revoke {}{before}\n", user.user))?
        }
        AdminCommand::List(config) => tell(config, "list\n")?,
        AdminCommand::Users(shown) => shown.user()?,
        AdminCommand::Events(shown) => shown.events()?,
        AdminCommand::Trace(shown) => shown.trace()?,
        AdminCommand::Connections(shown) => shown.connections()?,
        AdminCommand::Groups(shown) => shown.groups()?,
        AdminCommand::Send(shown) => shown.send()?,
        AdminCommand::Stats(shown) => shown.fields("GET", "/stats")?,
        AdminCommand::Nodes(shown) => shown.fields("GET", "/nodes")?,
        AdminCommand::Config(shown) => shown.config()?,
        AdminCommand::Log(shown) => shown.log()?,
        AdminCommand::Webhooks(shown) => shown.webhooks()?,
        AdminCommand::Drain(shown) => shown.fields("POST", "/drain")?,
    };
    // Whoever reads may have gone.
    write!(std::io::stdout(), "{said}").ok();
    Ok(())
}

/// Says something about who may log in.
fn tell(config: &ConfigArgs, line: &str) -> Result<String, Box<dyn Error>> {
    Ok(ask(&config.config()?.data_dir.join(SOCKET), line)?)
}

/// Calls the API.
fn api(config: &ConfigArgs, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Box<dyn Error>> {
    Ok(call(&config.config()?.data_dir.join(API_SOCKET), method, path, body)?)
}

impl<A: Args> Shown<A> {
    fn printed(&self, answer: &Value, for_people: impl FnOnce(&Value) -> String) -> String {
        if self.json { format!("{answer}\n") } else { for_people(answer) }
    }
}

impl Shown<User> {
    fn user(&self) -> Result<String, Box<dyn Error>> {
        let User { config, user } = &self.asked;
        let mut answer = api(config, "GET", &format!("/users/{user}"), None)?;
        Ok(self.printed(&answer.clone(), |_| {
            let sessions = answer.as_object_mut().and_then(|user| user.remove("sessions")).unwrap_or_default();
            let mut text = String::new();
            fields(&answer, "", &mut text);
            text + &rows(SESSIONS, &sessions)
        }))
    }

    fn events(&self) -> Result<String, Box<dyn Error>> {
        let User { config, user } = &self.asked;
        let answer = api(config, "GET", &format!("/users/{user}/events"), None)?;
        Ok(self.printed(&answer, |answer| rows(EVENTS, &answer["events"])))
    }

    fn groups(&self) -> Result<String, Box<dyn Error>> {
        let User { config, user } = &self.asked;
        let answer = api(config, "GET", &format!("/users/{user}/groups"), None)?;
        Ok(self.printed(&answer, |answer| rows(GROUPS, &answer["groups"])))
    }
}

impl Shown<Which> {
    /// Page by page, up to the limit.
    fn connections(&self) -> Result<String, Box<dyn Error>> {
        let Which { config, user, address, state, behind, limit } = &self.asked;
        let mut filter = String::new();
        let filters = [
            ("user", user.map(|it| it.to_string())),
            ("address", address.map(|it| it.to_string())),
            ("state", state.clone()),
            ("behind", behind.map(|it| it.to_string())),
        ];
        for (name, value) in filters.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            // Nothing that a query would have to escape is any of these.
            let plain: String = value.chars().filter(|c| c.is_ascii_alphanumeric() || "_.:".contains(*c)).collect();
            filter.push_str(&format!("&{name}={plain}"));
        }
        let (mut all, mut cursor) = (Vec::new(), String::new());
        while all.len() < *limit {
            let page_max = (limit - all.len()).min(PAGE);
            let page = api(config, "GET", &format!("/connections?limit={page_max}{filter}{cursor}"), None)?;
            all.extend(page["connections"].as_array().into_iter().flatten().cloned());
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        Ok(self.printed(&json!({"connections": all}), |_| rows(CONNECTIONS, &Value::Array(all.clone()))))
    }
}

impl Shown<Sending> {
    fn send(&self) -> Result<String, Box<dyn Error>> {
        let Sending { config, from, user, group, text } = &self.asked;
        let to = match (user, group) {
            (Some(user), _) => json!({"user": user.to_string()}),
            (None, group) => json!({"group": group.unwrap_or_default().to_string()}),
        };
        let post = json!({"from": from.to_string(), "to": to, "text": text});
        let answer = api(config, "POST", "/messages", Some(&post))?;
        Ok(self.printed(&answer, |answer| format!("sent: {}\n", answer["msg_id"].as_str().unwrap_or_default())))
    }
}

impl Shown<ConfigArgs> {
    fn fields(&self, method: &str, path: &str) -> Result<String, Box<dyn Error>> {
        let answer = api(&self.asked, method, path, None)?;
        Ok(self.printed(&answer, |answer| {
            let mut text = String::new();
            fields(answer, "", &mut text);
            text
        }))
    }
}

fn rows(columns: &[show::Column], rows: &Value) -> String {
    let now_ms = Clock::start().now().unix_ms;
    table(columns, rows.as_array().map(Vec::as_slice).unwrap_or_default(), now_ms)
}

fn ask(path: &std::path::Path, line: &str) -> Result<String, AdminError> {
    let failed = |error| AdminError::Gateway(path.to_owned(), error);
    let mut stream = UnixStream::connect(path).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.write_all(line.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|_| AdminError::Silent)?;
    match answer.split_once('\n') {
        Some(("ok", said)) => Ok(said.to_owned()),
        Some(("error", why)) => Err(AdminError::Refused(why.trim().to_owned())),
        _ => Err(AdminError::Silent),
    }
}
