//! Which gateway a bench measures: one of our own, or one that runs already.

use std::fs;
use std::net::SocketAddr;

use super::args::{PaceArgs, TargetArgs};
use super::cpus::{self, Cpus};
use super::crowd::Crowd;
use super::error::LoadError;
use super::gateway::{AccountLimits, Gateway, GatewayOptions, read_secret};
use super::stored::Stored;
use super::tokens::Secret;
use crate::clock::Clock;
use crate::contract::Stores;

/// A gateway to measure, and what is needed for it.
pub(crate) struct Target {
    /// Where it listens.
    pub addr: SocketAddr,
    /// What it verifies tokens with.
    pub secret: Secret,
    /// The gateway, if it is ours.
    pub gateway: Option<Gateway>,
    /// The other nodes of its cluster.
    pub others: Vec<Gateway>,
    /// Where it and the load run.
    pub cpus: Cpus,
    /// The clock of the bench.
    pub clock: Clock,
}

/// How gateways are started that do not run already.
struct Started<'a> {
    nodes: u16,
    redis: Option<&'a str>,
    account_limits: AccountLimits,
}

impl Target {
    /// Starts a gateway, or finds the one that was named; then pins the load.
    pub(crate) fn prepare(args: &TargetArgs, stores: &dyn Stores) -> Result<Target, LoadError> {
        Target::start(args, stores, Started { nodes: 1, redis: None, account_limits: AccountLimits::Usual })
    }

    /// The same to be sent to at this pace.
    pub(crate) fn at_pace(args: &TargetArgs, stores: &dyn Stores, pace: &PaceArgs) -> Result<Target, LoadError> {
        Target::of_nodes(args, stores, pace, 1, None)
    }

    /// The same for so many gateways that share a Redis, as one cluster.
    pub(crate) fn of_nodes(
        args: &TargetArgs,
        stores: &dyn Stores,
        pace: &PaceArgs,
        nodes: u16,
        redis: Option<&str>,
    ) -> Result<Target, LoadError> {
        Target::start(args, stores, Started { nodes, redis, account_limits: pace.account_limits() })
    }

    fn start(args: &TargetArgs, stores: &dyn Stores, started: Started<'_>) -> Result<Target, LoadError> {
        let Started { nodes, redis, account_limits } = started;
        if let Some(url) = &args.store {
            stores.check(url)?;
        }
        raise_descriptor_limit();
        let clock = Clock::start();
        let cpus = Cpus::plan(args.gateway_cpus.as_deref(), args.load_cpus.as_deref(), &cpus::allowed())?;
        let target = match args.connect {
            Some(addr) => {
                let cpus = Cpus { gateway: None, load: if args.load_cpus.is_some() { cpus.load } else { Vec::new() } };
                Target { addr, secret: named_secret(args)?, gateway: None, others: Vec::new(), cpus, clock }
            }
            None => {
                let options = GatewayOptions {
                    shards: args.shards.clone(),
                    cpus: cpus.gateway.clone(),
                    store: args.store.clone(),
                    cluster: redis.map(|url| (url.to_owned(), 1)),
                    secret: None,
                    keep_data: args.keep_data,
                    account_limits,
                };
                let gateway = Gateway::start(&options)?;
                let secret = gateway.secret()?;
                let mut others = Vec::new();
                for node in 2..=nodes {
                    let cluster = redis.map(|url| (url.to_owned(), node));
                    let secret = Some(String::from_utf8_lossy(&secret.0).into_owned());
                    others.push(Gateway::start(&GatewayOptions { cluster, secret, ..options.clone() })?);
                }
                if args.keep_data {
                    eprintln!("the gateway's data stays in {}", gateway.data_dir().display());
                }
                Target { addr: gateway.addr(), secret, gateway: Some(gateway), others, cpus, clock }
            }
        };
        target.cpus.pin_load();
        Ok(target)
    }

    /// Sessions on it.
    pub(crate) fn crowd(&self) -> Result<Crowd, LoadError> {
        Crowd::new(self.addr, self.secret.clone(), self.clock)
    }

    /// Where its rows are counted.
    pub(crate) fn stored(&self, args: &TargetArgs, stores: &dyn Stores) -> Result<Stored, LoadError> {
        if args.store.is_none() && self.gateway.is_none() {
            return Ok(Stored::protocol(self.addr, self.secret.clone(), self.clock));
        }
        let own_file = self.gateway.as_ref().map(Gateway::store_file);
        Ok(Stored::Rows(stores.open(args.store.as_deref(), own_file.as_deref())?))
    }
}

fn named_secret(args: &TargetArgs) -> Result<Secret, LoadError> {
    if let Some(file) = &args.secret_file {
        let bytes = fs::read(file).map_err(LoadError::io("the secret's file cannot be read"))?;
        return Ok(Secret(bytes.trim_ascii_end().to_vec()));
    }
    match &args.data_dir {
        Some(data_dir) => read_secret(data_dir),
        None => Err(LoadError::Options("--connect needs --data-dir or --secret-file, to make tokens with")),
    }
}

/// As many descriptors as this process may have.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Refused: connecting will say so when descriptors run out.
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).ok();
    }
}
