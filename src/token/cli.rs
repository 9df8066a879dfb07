//! `ringway token` on the command line: makes a token, or says what is wrong with one.

use std::error::Error;
use std::io::Write;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{check, mint, parse_duration};
use crate::clock::Clock;
use crate::config::args::ConfigArgs;
use ringway_wire::ids::{DeviceId, UserId};

/// Mint a login token with the gateway's shared secret, or check one.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct TokenArgs {
    #[command(subcommand)]
    command: Option<TokenCommand>,
    #[command(flatten)]
    config: ConfigArgs,
    /// The user the token is for.
    #[arg(long, required = true)]
    user: Option<u64>,
    /// The only device it is good for; without it, any.
    #[arg(long)]
    device: Option<u64>,
    /// How long it is good for: 90s, 15m, 1h30m, 7d.
    #[arg(long, default_value = "1h", value_parser = parse_duration)]
    ttl: Duration,
}

#[derive(Subcommand, Debug)]
enum TokenCommand {
    /// Say whom a token is for, or exactly why this gateway would refuse it; exits with 1 if it would.
    Check(CheckArgs),
}

#[derive(Args, Debug)]
struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The token.
    #[arg(value_name = "TOKEN", env = "RINGWAY_TOKEN", hide_env_values = true)]
    token: String,
}

/// Prints a token, or what one says.
pub fn run(args: &TokenArgs) -> Result<(), Box<dyn Error>> {
    let said = match (&args.command, args.user) {
        (Some(TokenCommand::Check(args)), _) => checked(args)?,
        (None, Some(user)) => mint(&args.config.config()?, UserId(user), args.device.map(DeviceId), args.ttl)?,
        // The command line's own rule is that there is one.
        (None, None) => return Err("--user is missing".into()),
    };
    // Whoever reads may have gone.
    writeln!(std::io::stdout(), "{said}").ok();
    Ok(())
}

fn checked(args: &CheckArgs) -> Result<String, Box<dyn Error>> {
    let now_s = Clock::start().now().unix_ms / 1000;
    let claims = check(&args.config.config()?, args.token.trim(), now_s)?;
    let device = claims.device.map_or_else(|| "any device".to_owned(), |device| format!("device {} alone", device.0));
    let left = humantime::format_duration(Duration::from_secs(claims.expires_at_s.saturating_sub(now_s)));
    Ok(format!("accepted: user {}, {device}, for another {left}", claims.user.0))
}
