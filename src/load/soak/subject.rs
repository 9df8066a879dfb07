//! The gateway that a soak is about: where it is, what its tokens are made with, which process it is.
//!
//! What always holds: one login has worked before half a million are tried.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use super::args::SoakArgs;
use super::watch;
use crate::clock::Clock;
use crate::ids::{DeviceId, Seq, UserId};
use crate::load::client::Client;
use crate::load::crowd::Secret;
use crate::load::error::LoadError;
use crate::load::gateway::read_secret;

/// How long the first login may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Users of one run; each run has users of its own, whose inboxes are empty.
const USERS_PER_RUN_BITS: u32 = 24;

/// The gateway.
pub struct Subject {
    /// Where it listens.
    pub target: SocketAddr,
    /// Where its metrics are.
    pub admin: Option<SocketAddr>,
    /// Its process.
    pub pid: Option<u32>,
    /// What tokens are made with.
    pub secret: Secret,
    /// This run's name.
    pub run: u32,
    /// When it began.
    pub started_unix_ms: u64,
}

impl Subject {
    /// Finds it by what was given, and by its data directory.
    pub fn find(args: &SoakArgs) -> Result<Subject, LoadError> {
        let dir = &args.data_dir;
        let target = args.target.or_else(|| written(args, "listen"));
        let target = target.ok_or(LoadError::Options(
            "no gateway is known: give --target ADDR, or --data-dir of a gateway that runs on this host",
        ))?;
        // The data directory may be another gateway's.
        let here = written(args, "listen").is_some_and(|address| address.port() == target.port());
        let secret = match &args.secret_file {
            Some(file) => {
                let bytes = fs::read(file).map_err(LoadError::io("the secret's file cannot be read"))?;
                Secret(bytes.trim_ascii_end().to_vec())
            }
            None => read_secret(dir)?,
        };
        Ok(Subject {
            target,
            admin: args.admin.or_else(|| written(args, "admin").filter(|_| here)),
            pid: args.pid.or_else(|| watch::holder(dir).filter(|_| here)),
            secret,
            run: fastrand::u32(..),
            started_unix_ms: Clock::start().now().unix_ms,
        })
    }

    /// The first of this run's users.
    pub fn first_user(&self) -> u64 {
        (u64::from(self.run) << USERS_PER_RUN_BITS) + 1
    }

    /// Logs in a user who takes no part.
    pub fn try_login(&self, args: &SoakArgs) -> Result<(), LoadError> {
        let nobody = UserId(self.first_user() + u64::from(args.connections));
        let token = self.secret.token(nobody, self.started_unix_ms);
        let login = || {
            let mut client = Client::connect(self.target, PATIENCE)?;
            client.login(&token, DeviceId(1), Some(Seq(0)), PATIENCE)
        };
        login().map(drop).map_err(LoadError::client("a first login did not work, so the soak was not started"))
    }
}

fn written(args: &SoakArgs, name: &str) -> Option<SocketAddr> {
    fs::read_to_string(args.data_dir.join(name)).ok()?.trim().parse().ok()
}
