//! The gateways that a soak is about, one or those of a cluster: where they are, what tokens are made with, which
//! processes they are.
//!
//! What always holds: one login has worked at each before half a million are tried; and what is said of several of them
//! is said only when all could be looked at.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use super::args::SoakArgs;
use super::watch::{self, Watched};
use crate::clock::Clock;
use crate::error::LoadError;
use crate::gateway::{read_secret, resident_bytes, written_address};
use crate::tokens::Secret;
use ringway_client::blocking::Client;
use ringway_wire::ids::{DeviceId, Seq, UserId};

/// Users of one run; each run has users of its own, whose inboxes are empty.
const USERS_PER_RUN_BITS: u32 = 24;

/// What is soaked.
pub(crate) struct Subject {
    /// One, or those of a cluster.
    pub gateways: Vec<Watched>,
    /// What tokens are made with.
    pub secret: Secret,
    /// This run's name.
    pub run: u32,
    /// When it began.
    pub started_unix_ms: u64,
}

impl Subject {
    /// Finds it by what was given, and by data directories.
    pub(crate) fn find(args: &SoakArgs) -> Result<Subject, LoadError> {
        let gateways =
            args.data_dir.iter().map(|dir| gateway(args, dir)).collect::<Result<Vec<Watched>, LoadError>>()?;
        let secret = match (&args.secret_file, args.data_dir.first()) {
            (Some(file), _) => {
                let bytes = fs::read(file).map_err(LoadError::io("the secret's file cannot be read"))?;
                Secret(bytes.trim_ascii_end().to_vec())
            }
            (None, Some(dir)) => read_secret(dir)?,
            (None, None) => return Err(UNKNOWN),
        };
        let started_unix_ms = Clock::start().unix_ms();
        Ok(Subject { gateways, secret, run: fastrand::u32(..), started_unix_ms })
    }

    /// Where they listen.
    pub(crate) fn targets(&self) -> Vec<SocketAddr> {
        self.gateways.iter().map(|gateway| gateway.target).collect()
    }

    /// Their processes; none, unless all are known.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.gateways.iter().map(|gateway| gateway.pid).collect::<Option<Vec<u32>>>().unwrap_or_default()
    }

    /// The metrics of all of them can be read.
    pub(crate) fn has_metrics(&self) -> bool {
        self.gateways.iter().all(|gateway| gateway.admin.is_some())
    }

    /// The memory of all of them; `None`: not known.
    pub(crate) fn resident_bytes(&self) -> Option<u64> {
        let bytes = self.pids().into_iter().map(resident_bytes);
        bytes.map(|bytes| (bytes > 0).then_some(bytes)).sum::<Option<u64>>().filter(|bytes| *bytes > 0)
    }

    /// The descriptors of all of them; `None`: not known.
    pub(crate) fn descriptors(&self) -> Option<u64> {
        self.pids().into_iter().map(watch::descriptors).sum::<Option<u64>>().filter(|count| *count > 0)
    }

    /// The first of this run's users.
    pub(crate) fn first_user(&self) -> u64 {
        (u64::from(self.run) << USERS_PER_RUN_BITS) + 1
    }

    /// Logs in a user who takes no part, at each gateway.
    pub(crate) fn try_login(&self, args: &SoakArgs) -> Result<(), LoadError> {
        let nobody = UserId(self.first_user() + u64::from(args.connections));
        let token = self.secret.token(nobody, self.started_unix_ms);
        self.gateways.iter().try_for_each(|gateway| {
            Client::connect(gateway.target.to_string(), token.as_str(), DeviceId(1), Some(Seq(0)))
                .map(drop)
                .map_err(LoadError::client("a first login did not work, so the soak was not started"))
        })
    }
}

const UNKNOWN: LoadError =
    LoadError::Options("no gateway is known: give --target ADDR, or --data-dir of a gateway that runs on this host");

fn gateway(args: &SoakArgs, dir: &Path) -> Result<Watched, LoadError> {
    let written = written_address(dir, "listen");
    let target = args.target.or(written).ok_or(UNKNOWN)?;
    // The data directory may be another gateway's.
    let here = written.is_some_and(|address| address.port() == target.port());
    Ok(Watched {
        target,
        admin: args.admin.or_else(|| written_address(dir, "admin").filter(|_| here)),
        pid: args.pid.or_else(|| watch::holder(dir).filter(|_| here)),
    })
}
