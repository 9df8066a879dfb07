//! What `ringway soak` takes on the command line.
//!
//! What always holds: options that do not go together are refused before anything is started.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::body::BODY_BYTES_MIN;
use crate::error::LoadError;
use ringway_wire::limits::{BODY_BYTES_MAX, GROUP_MEMBERS_MAX};

/// Addresses in one range, or connections per address, would not make sense above this.
const SOURCES_MAX: u32 = 4_096;

/// No soak is longer.
const STEADY_MAX: Duration = Duration::from_secs(3_650 * 86_400);

/// Hold many connections for long, send and break off, check every delivery, and say whether the gateway passed.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXIT_CODES)]
pub struct SoakArgs {
    /// Where the gateway listens; without it, what its data directory says.
    #[arg(long, value_name = "ADDR")]
    pub target: Option<SocketAddr>,
    /// The gateway's data directory: for its secret, its addresses and its process, where they are not given. Given
    /// several times: those of the gateways of one cluster on this host, which share the connections evenly.
    #[arg(long, value_name = "DIR", default_value = "ringway-data")]
    pub data_dir: Vec<PathBuf>,
    /// A file with the gateway's HS256 secret.
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Where the gateway's metrics are; without it, what its data directory says.
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<SocketAddr>,
    /// The gateway's process, to watch its memory, CPU and descriptors; without it, the one that has the data directory.
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// Connections, a user each.
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    pub connections: u32,
    /// How fast they come, such as 20000/s.
    #[arg(long, value_name = "RATE", default_value = "5000/s", value_parser = parse_rate)]
    pub ramp: f64,
    /// How long messages are sent, such as 1h.
    #[arg(long = "for", value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub steady: Duration,
    /// How often a client that has nothing to say says so: asked for at login, within what the gateway allows.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub heartbeat: Option<Duration>,
    /// Groups, and the members of each: 200x50 [default: a group of 50 for every 100 connections].
    #[arg(long, value_name = "G[xM]", value_parser = parse_groups)]
    pub groups: Option<Groups>,
    /// Messages to groups.
    #[arg(long, value_name = "RATE", default_value = "50/s", value_parser = parse_rate)]
    pub rate: f64,
    /// Messages to single users.
    #[arg(long, value_name = "RATE", default_value = "50/s", value_parser = parse_rate)]
    pub direct_rate: f64,
    /// Which part of the connections breaks off each minute, and comes back after some seconds.
    #[arg(long, value_name = "PERCENT", default_value = "2%", value_parser = parse_share)]
    pub churn: f64,
    /// Bytes of a body.
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    pub body: usize,
    /// Where connections come from, such as 127.0.0.2-127.0.0.40; each address has a port range of its own
    /// [default: on loopback as many as are needed, else what the kernel chooses].
    #[arg(long, value_name = "ADDR[-ADDR]", value_parser = parse_sources)]
    pub source_ip: Option<Sources>,
    /// Processes of the load generator [default: one for 100,000 connections, or for as many descriptors as it may have].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub processes: Option<u32>,
    /// After the messages everybody leaves, and comes again.
    #[arg(long = "return")]
    pub return_: bool,
    /// Fail if one delivery in a hundred takes longer.
    #[arg(long, value_name = "MILLISECONDS")]
    pub p99_max_ms: Option<f64>,
    /// Fail if an idle connection costs the gateway more memory.
    #[arg(long, value_name = "BYTES")]
    pub memory_max: Option<f64>,
    /// The machine is emulated, and everything on it late: judge no latencies, and no lateness of the load generator.
    #[arg(long, conflicts_with = "p99_max_ms")]
    pub emulated: bool,
    /// Start even if the host does not look fit for it.
    #[arg(long)]
    pub anyway: bool,
    /// Where report.html and report.json go.
    #[arg(long, value_name = "DIR", default_value = "soak-report")]
    pub report: PathBuf,
    /// Print report.json instead of a table.
    #[arg(long)]
    pub json: bool,
}

const EXIT_CODES: &str = "Exit codes: 0 passed; 1 the gateway failed; 2 the soak could not be carried out; 3 the \
evidence is invalid, because the load generator was the bottleneck or was interrupted; 4 the host is not fit: \
descriptors, ports, memory or disk ran out, or would.";

/// `--groups`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Groups {
    /// Number of groups.
    pub groups: u32,
    /// Members of each.
    pub members: u32,
}

/// `--source-ip`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sources(pub Vec<IpAddr>);

/// Members of a group, if it is not said.
const MEMBERS: u32 = 50;

impl SoakArgs {
    /// Refuses what does not go together.
    pub fn check(&self) -> Result<(), LoadError> {
        let groups = self.groups();
        let gateways = self.data_dir.len();
        if gateways > 1 && (self.target.is_some() || self.admin.is_some() || self.pid.is_some()) {
            return Err(LoadError::Options(
                "of several gateways each is known by its --data-dir: no --target, --admin or --pid",
            ));
        }
        if self.processes.is_some_and(|processes| (processes as usize) < gateways) {
            return Err(LoadError::Options("--processes: each gateway needs one of its own at least"));
        }
        if self.body < BODY_BYTES_MIN || self.body > BODY_BYTES_MAX {
            return Err(LoadError::Options("--body must be from 16 (the time and the number inside) to 16384 bytes"));
        }
        if groups.members as usize > GROUP_MEMBERS_MAX {
            return Err(LoadError::Options("a group of --groups has at most 5000 members"));
        }
        if groups.groups > 0 && (groups.members < 2 || groups.members > self.connections) {
            return Err(LoadError::Options(
                "a group of --groups has 2 members or more, and not more than --connections",
            ));
        }
        Ok(())
    }

    /// Groups as asked for, or a group for every hundred connections.
    pub fn groups(&self) -> Groups {
        let members = MEMBERS.min(self.connections);
        let usual = if members < 2 { 0 } else { (self.connections / 100).max(1) };
        self.groups.unwrap_or(Groups { groups: usual, members })
    }
}

/// Reads `20000/s`, `600/min`, or a bare number a second.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    let (number, unit) = text.split_once('/').unwrap_or((text, "s"));
    let seconds = match unit.trim() {
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        _ => return Err("expected a rate such as 20000/s or 600/min".to_owned()),
    };
    match number.trim().parse::<f64>() {
        Ok(number) if number >= 0.0 && number.is_finite() => Ok(number / seconds),
        _ => Err("expected a rate such as 20000/s or 600/min".to_owned()),
    }
}

/// Reads `2%` or `0.02`.
fn parse_share(text: &str) -> Result<f64, String> {
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse(),
    };
    share.ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "expected 0% to 100%, such as 2%".to_owned())
}

/// As people write them: `90s`, `15m`, `1h30m`; a bare number means seconds.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let bare = text.trim().parse().map(Duration::from_secs);
    let time = bare.or_else(|_| humantime::parse_duration(text.trim()));
    time.ok()
        .filter(|time| !time.is_zero() && *time <= STEADY_MAX)
        .ok_or_else(|| "expected a duration as in 90s, 15m or 1h30m".to_owned())
}

fn parse_groups(text: &str) -> Result<Groups, String> {
    let text = text.trim().trim_end_matches("members").trim_end();
    let (groups, members) = match text.split_once('x') {
        Some((groups, members)) => (groups.trim().parse().ok(), members.trim().parse().ok()),
        None => (text.parse().ok(), Some(MEMBERS)),
    };
    match (groups, members) {
        (Some(groups), Some(members)) => Ok(Groups { groups, members }),
        _ => Err("expected groups and their members, such as 200x50".to_owned()),
    }
}

fn parse_sources(text: &str) -> Result<Sources, String> {
    const EXPECTED: &str = "expected an address or a range, such as 127.0.0.2-127.0.0.40";
    let Some((first, last)) = text.split_once('-') else {
        return text.parse().map(|address| Sources(vec![address])).map_err(|_| EXPECTED.to_owned());
    };
    match (first.parse::<Ipv4Addr>(), last.parse::<Ipv4Addr>()) {
        (Ok(first), Ok(last)) if first <= last && u32::from(last) - u32::from(first) < SOURCES_MAX => {
            let all = (u32::from(first)..=u32::from(last)).map(|address| IpAddr::V4(Ipv4Addr::from(address)));
            Ok(Sources(all.collect()))
        }
        _ => Err(EXPECTED.to_owned()),
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
        soak: SoakArgs,
    }

    fn soak(line: &str) -> Result<SoakArgs, String> {
        let words = ["soak"].into_iter().chain(line.split_whitespace());
        let args = Line::try_parse_from(words).map_err(|e| e.to_string())?.soak;
        args.check().map_err(|e| e.to_string())?;
        Ok(args)
    }

    #[test]
    fn the_line_of_the_half_million_is_understood() {
        let args = soak(
            "--target 127.0.0.1:7400 --connections 500000 --ramp 20000/s --for 1h --heartbeat 60s --groups 1000x100 \
             --rate 6000/min --direct-rate 25 --churn 1.5% --source-ip 127.0.0.2-127.0.0.40 --processes 26 --report r",
        )
        .unwrap();
        assert_eq!((args.ramp, args.rate, args.direct_rate, args.churn), (20_000.0, 100.0, 25.0, 0.015));
        assert_eq!(args.steady, Duration::from_secs(3_600));
        assert_eq!(soak("--for 90").unwrap().steady, soak("--for 1m30s").unwrap().steady);
        assert_eq!(args.groups(), Groups { groups: 1_000, members: 100 });
        let sources = args.source_ip.unwrap().0;
        assert_eq!((sources.len(), sources[38].to_string().as_str()), (39, "127.0.0.40"));
    }

    #[test]
    fn without_options_a_soak_has_groups_that_fit() {
        assert_eq!(soak("").unwrap().groups(), Groups { groups: 50, members: 50 });
        assert_eq!(soak("--connections 7").unwrap().groups(), Groups { groups: 1, members: 7 });
        assert_eq!(soak("--connections 1").unwrap().groups().groups, 0);
        assert_eq!(soak("--groups 3").unwrap().groups(), Groups { groups: 3, members: 50 });
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "--connections 0",
            "--ramp fast",
            "--ramp 5/d",
            "--rate -1",
            "--churn 101%",
            "--churn lots",
            "--groups 5x1",
            "--groups 5x5001",
            "--groups x",
            "--connections 10 --groups 1x11",
            "--source-ip 127.0.0.9-127.0.0.2",
            "--source-ip 1.0.0.0-9.0.0.0",
            "--source-ip here",
            "--processes 0",
            "--body 15",
            "--for 0",
            "--for long",
            "--data-dir a --data-dir b --target 127.0.0.1:7400",
            "--data-dir a --data-dir b --processes 1",
        ] {
            assert!(soak(line).is_err(), "{line}");
        }
    }
}
