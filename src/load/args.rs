//! What `ringway bench` and `ringway chat` take on the command line.
//!
//! What always holds: options that do not go together are refused before anything is started.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::body::BODY_BYTES_MIN;
use super::error::LoadError;
use super::gateway::AccountLimits;
use super::pace::Pace;
use ringway_wire::limits::{BODY_BYTES_MAX, GROUP_MEMBERS_MAX};

/// Gateways of one bench.
const NODES_MAX: u16 = 32;

/// Messages a flood keeps in flight.
pub const FLOOD_IN_FLIGHT: u64 = 100;
/// Messages of one burst: each may wait for its answer at once.
const MESSAGES_MAX: u64 = 1_000;
const BODY_RANGE: &str = "--body must be from 16 (the time and the number inside) to 16384 bytes";

/// Measure a gateway, checking every delivery.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// What to measure.
    #[command(subcommand)]
    pub scenario: BenchScenario,
}

/// The scenarios.
#[derive(Subcommand, Clone, Debug)]
pub enum BenchScenario {
    /// One group: every message to every member.
    Group(GroupArgs),
    /// Pairs: each sender to a recipient of its own.
    Direct(DirectArgs),
    /// Connections that are logged in and say nothing: the gateway's memory for each.
    Idle(IdleArgs),
    /// The disk alone: what the journal's writes take here without a gateway.
    Disk(DiskArgs),
    /// This machine alone: what a paced group message takes of its disk and its loopback without a gateway.
    Floor(FloorArgs),
    /// Everybody logs in at once, is idle, is dropped at once and comes back: what it costs, and what messages notice.
    Storm(StormArgs),
    /// One account that does as much harm as it can, in one way after another, and what an honest pair notices of it.
    Abuse(AbuseArgs),
    /// All of these, with their targets beside what is measured here.
    Targets,
}

/// Which gateway is measured, and where the two run.
#[derive(Args, Clone, Default, Debug)]
pub struct TargetArgs {
    /// Measure the gateway that listens here; without it one is started for the time of the bench.
    #[arg(long, value_name = "ADDR")]
    pub connect: Option<SocketAddr>,
    /// The data directory of that gateway, for its secret.
    #[arg(long, value_name = "DIR", requires = "connect")]
    pub data_dir: Option<PathBuf>,
    /// A file with that gateway's HS256 secret.
    #[arg(long, value_name = "FILE", requires = "connect", conflicts_with = "data_dir")]
    pub secret_file: Option<PathBuf>,
    /// The store.url of the gateway that is started, as in mysql://USER:PASSWORD@HOST/DATABASE, where rows are counted
    /// too; with --connect, where that gateway stores them (else they are counted over the protocol).
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// Shards of the gateway that is started.
    #[arg(long, value_name = "N", conflicts_with = "connect")]
    pub shards: Option<String>,
    /// CPUs of the gateway that is started, such as 0 or 0,2-3 [default: the first].
    #[arg(long, value_name = "LIST", conflicts_with = "connect")]
    pub gateway_cpus: Option<String>,
    /// CPUs of the load [default: the second, if there is one].
    #[arg(long, value_name = "LIST")]
    pub load_cpus: Option<String>,
    /// Keep the data directory of the gateway that is started, and say where it is.
    #[arg(long, conflicts_with = "connect")]
    pub keep_data: bool,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// How messages are sent.
#[derive(Args, Clone, Debug)]
pub struct PaceArgs {
    /// Messages of a round, per sender.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub messages: u64,
    /// Bytes of a body.
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    pub body: usize,
    /// Messages per second over all senders; without it all at once.
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
    /// Rounds to measure, after one that is not counted.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub rounds: u64,
    /// Send for so many seconds, with 100 messages in flight.
    #[arg(long, value_name = "SECONDS", conflicts_with = "rate")]
    pub flood: Option<f64>,
    /// Messages that are neither numbered nor stored.
    #[arg(long)]
    pub ephemeral: bool,
}

/// `bench group`.
#[derive(Args, Clone, Debug)]
pub struct GroupArgs {
    /// Members of the group, the sender included.
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub members: usize,
    /// Members who are online, besides the sender.
    #[arg(long, value_name = "N", default_value_t = 300)]
    pub online: usize,
    /// How messages are sent.
    #[command(flatten)]
    pub pace: PaceArgs,
    /// Let so many of those online read nothing until the others have everything; measured beside a run without.
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub stalled: usize,
    /// Gateways that are started, as one cluster; those online are spread over them. More than one need --store and
    /// --redis.
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "connect")]
    pub nodes: u16,
    /// The cluster.redis_url of the gateways that are started.
    #[arg(long, value_name = "URL", conflicts_with = "connect")]
    pub redis: Option<String>,
    /// Which gateway.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// `bench direct`.
#[derive(Args, Clone, Debug)]
pub struct DirectArgs {
    /// Pairs of a sender and a recipient.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub pairs: u64,
    /// How messages are sent.
    #[command(flatten)]
    pub pace: PaceArgs,
    /// Which gateway.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// `bench idle`.
#[derive(Args, Clone, Debug)]
pub struct IdleArgs {
    /// Connections to open.
    #[arg(long, value_name = "N", default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(100..))]
    pub connections: u64,
    /// The process whose memory is measured, with --connect.
    #[arg(long, value_name = "PID", requires = "connect")]
    pub pid: Option<u32>,
    /// Which gateway.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// `bench disk`.
#[derive(Args, Clone, Debug)]
pub struct DiskArgs {
    /// Writes, each with an `fdatasync`.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub syncs: u64,
    /// Bytes of each: a message to 500 members takes about 1,000.
    #[arg(long, value_name = "BYTES", default_value_t = 1_000)]
    pub bytes: usize,
    /// So many a second.
    #[arg(long, value_name = "N", default_value_t = 100.0)]
    pub rate: f64,
    /// On the disk of this directory [default: where a bench's gateway has its data].
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

impl DiskArgs {
    /// Refuses what cannot be measured.
    pub fn check(&self) -> Result<(), LoadError> {
        if self.bytes == 0 || self.bytes > 1 << 20 {
            return Err(LoadError::Options("--bytes must be from 1 to 1048576"));
        }
        if !(self.rate > 0.0 && self.rate <= 1e6) {
            return Err(LoadError::Options("--rate takes writes per second, more than 0 and at most a million"));
        }
        Ok(())
    }
}

/// `bench floor`.
#[derive(Args, Clone, Debug)]
pub struct FloorArgs {
    /// Messages, one after another.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub messages: u64,
    /// To so many sockets each.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub online: u32,
    /// Bytes sent to each socket: a push of 100 bytes takes about 200.
    #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = clap::value_parser!(u32).range(12..=16_384))]
    pub bytes: u32,
    /// Messages per second.
    #[arg(long, value_name = "N", default_value_t = 100.0)]
    pub rate: f64,
    /// On the disk of this directory [default: where a bench's gateway has its data].
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// `bench storm`.
#[derive(Args, Clone, Debug)]
pub struct StormArgs {
    /// Connections, a user each.
    #[arg(long, value_name = "N", default_value_t = 15_000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    pub connections: u32,
    /// Measure so long what the idle connections cost.
    #[arg(long, value_name = "SECONDS", default_value_t = 20.0)]
    pub idle: f64,
    /// Messages per second, between any two who are logged in.
    #[arg(long, value_name = "N", default_value_t = 400.0)]
    pub rate: f64,
    /// Measure so long how fast they are while nothing else happens.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    pub quiet: f64,
    /// Those who were dropped come back spread over so long.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    pub jitter: f64,
    /// Bytes of a body.
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    pub body: usize,
    /// Which gateway.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// `bench abuse`.
#[derive(Args, Clone, Debug)]
pub struct AbuseArgs {
    /// Only these attacks: rows, groups, spam, recipients, rosters, lock-out, typing, lists, members, presence, history,
    /// pings, logins, silent [default: all].
    #[arg(long = "attack", value_name = "NAME")]
    pub attacks: Vec<String>,
    /// All of them at once, for so long; the honest pair's messages are counted where they are stored, and the gateway's memory is
    /// shown every `--seconds`.
    #[arg(long, value_name = "SECONDS")]
    pub together: Option<f64>,
    /// Measure the honest pair so long before each attack, and as long under it.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    pub seconds: f64,
    /// Messages of the pair per second.
    #[arg(long, value_name = "N", default_value_t = 100.0)]
    pub rate: f64,
    /// Which gateway.
    #[command(flatten)]
    pub target: TargetArgs,
}

impl AbuseArgs {
    /// Whether this attack is one of those asked for.
    pub(crate) fn takes(&self, attack: &str) -> bool {
        self.attacks.is_empty() || self.attacks.iter().any(|name| name == attack)
    }

    /// The honest pair's.
    pub(crate) fn pace(&self) -> Result<Pace, LoadError> {
        let messages = self.rate * self.seconds;
        if !(self.rate > 0.0 && (1.0..=MESSAGES_MAX as f64).contains(&messages)) {
            return Err(LoadError::Options("--rate times --seconds must be from 1 to 1000 messages"));
        }
        Ok(Pace::Rate(messages as u64, self.rate))
    }
}

/// Talk to a gateway: lines of the input are messages, what others say is printed.
#[derive(Args, Clone, Debug)]
pub struct ChatArgs {
    /// Log in as this user; with a token, nobody but the one it is for.
    #[arg(long, value_name = "N", required_unless_present = "token")]
    pub user: Option<u64>,
    /// From this device.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub device: u64,
    /// Lines go to this user.
    #[arg(long, value_name = "N", conflicts_with = "to_group")]
    pub to_user: Option<u64>,
    /// Lines go to this group.
    #[arg(long, value_name = "N")]
    pub to_group: Option<u64>,
    /// The token to log in with; without it one is made with the data directory's secret.
    #[arg(long, value_name = "JWT", conflicts_with = "data_dir")]
    pub token: Option<String>,
    /// A gateway's data directory: for its secret, and for its address if --connect is not given.
    #[arg(long, value_name = "DIR", default_value = "ringway-data")]
    pub data_dir: PathBuf,
    /// Where the gateway listens.
    #[arg(long, value_name = "HOST:PORT")]
    pub connect: Option<String>,
    /// After the input's end, wait so many seconds for what others still say.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    pub linger: f64,
}

impl PaceArgs {
    /// What was typed, understood.
    pub fn pace(&self) -> Result<Pace, LoadError> {
        if self.body < BODY_BYTES_MIN || self.body > BODY_BYTES_MAX {
            return Err(LoadError::Options(BODY_RANGE));
        }
        match (self.flood, self.rate) {
            (Some(seconds), _) if seconds > 0.0 && seconds < 86_400.0 => {
                Ok(Pace::Flood(Duration::from_secs_f64(seconds), FLOOD_IN_FLIGHT))
            }
            (Some(_), _) => Err(LoadError::Options("--flood takes seconds, more than 0 and less than a day")),
            (None, Some(rate)) if rate > 0.0 && rate.is_finite() => Ok(Pace::Rate(self.messages, rate)),
            (None, Some(_)) => Err(LoadError::Options("--rate takes messages per second, more than 0")),
            (None, None) if self.messages > MESSAGES_MAX => {
                Err(LoadError::Options("a burst has at most 1000 messages; give a --rate or a --flood for more"))
            }
            (None, None) => Ok(Pace::Burst(self.messages)),
        }
    }

    /// What one account may send to a gateway that is started for it. A flood is more than any account may, and so are
    /// rounds without a pause: they show what the gateway can do, and not what it lets one do.
    pub(crate) fn account_limits(&self) -> AccountLimits {
        if self.flood.is_some() || self.rounds > 1 { AccountLimits::Off } else { AccountLimits::Usual }
    }
}

impl GroupArgs {
    /// Refuses what does not go together.
    pub fn check(&self) -> Result<(), LoadError> {
        if self.members > GROUP_MEMBERS_MAX || self.members < 2 {
            return Err(LoadError::Options("--members must be from 2 to 5000"));
        }
        if self.online >= self.members || self.online == 0 {
            return Err(LoadError::Options(
                "--online must be at least 1 and less than --members: the sender is a member",
            ));
        }
        if self.nodes == 0 || self.nodes > NODES_MAX {
            return Err(LoadError::Options("--nodes must be from 1 to 32"));
        }
        if self.nodes > 1 && (self.redis.is_none() || self.target.store.is_none()) {
            return Err(LoadError::Options(
                "--nodes above 1 needs --redis and --store: see scripts/services.sh status",
            ));
        }
        if self.stalled >= self.online && self.stalled > 0 {
            return Err(LoadError::Options("--stalled must be less than --online"));
        }
        Ok(())
    }
}

impl StormArgs {
    /// Refuses what makes no sense.
    pub fn check(&self) -> Result<(), LoadError> {
        let is_time = |seconds: f64| seconds > 0.0 && seconds < 86_400.0;
        if !is_time(self.idle) || !is_time(self.quiet) || !is_time(self.jitter) {
            return Err(LoadError::Options(
                "--idle, --quiet and --jitter take seconds, more than 0 and less than a day",
            ));
        }
        if !(self.rate > 0.0 && self.rate <= 100_000.0) {
            return Err(LoadError::Options("--rate takes messages per second, more than 0 and at most 100000"));
        }
        if self.body < BODY_BYTES_MIN || self.body > BODY_BYTES_MAX {
            return Err(LoadError::Options(BODY_RANGE));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn group(line: &str) -> Result<GroupArgs, String> {
        let words = ["bench", "group"].into_iter().chain(line.split_whitespace());
        match Line::try_parse_from(words).map_err(|e| e.to_string())?.bench.scenario {
            BenchScenario::Group(args) => {
                args.check().and(args.pace.pace().map(drop)).map_err(|e| e.to_string())?;
                Ok(args)
            }
            _ => Err("not a group".into()),
        }
    }

    #[test]
    fn the_defaults_are_the_demo() {
        let args = group("").unwrap();
        assert_eq!((args.members, args.online, args.stalled), (500, 300, 0));
        assert_eq!(args.pace.pace().unwrap(), Pace::Burst(100));
        assert_eq!((args.pace.body, args.pace.rounds, args.pace.ephemeral), (100, 1, false));
    }

    #[test]
    fn paces_are_told_apart() {
        assert_eq!(group("--rate 100 --messages 5000").unwrap().pace.pace().unwrap(), Pace::Rate(5000, 100.0));
        let flood = Pace::Flood(Duration::from_secs(3), FLOOD_IN_FLIGHT);
        assert_eq!(group("--flood 3 --ephemeral").unwrap().pace.pace().unwrap(), flood);
    }

    #[test]
    fn what_no_account_may_send_is_measured_without_its_limits() {
        for (line, limits) in [
            ("", AccountLimits::Usual),
            ("--rate 100 --messages 1000", AccountLimits::Usual),
            ("--rounds 21", AccountLimits::Off),
            ("--flood 1", AccountLimits::Off),
        ] {
            assert_eq!(group(line).unwrap().pace.account_limits(), limits, "{line}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for line in [
            "--members 5001",
            "--members 10 --online 10",
            "--members 10 --online 5 --stalled 5",
            "--messages 0",
            "--messages 1001",
            "--rounds 0",
            "--rate 0",
            "--rate 10 --flood 3",
            "--flood 0",
            "--body 15",
            "--body 16385",
            "--connect 127.0.0.1:7400 --shards 2",
        ] {
            assert!(group(line).is_err(), "{line}");
        }
    }
}
