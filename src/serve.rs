//! The gateway as a whole: starts every thread in order, waits, stops them in order.
//!
//! Runs on the main thread. What always holds: what can go wrong before a client is served does so before the
//! first address is published; a thread that ends without having been told to ends the process with an error;
//! and a stop ends with exit code 0 only if everything acknowledged is durable and every thread has said so.

mod live;
mod memory;
mod parts;
mod rlimits;
mod settings;
mod stop;
mod threads;

use std::error::Error;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use nix::sys::stat::{Mode, umask};
use tokio::sync::watch;

use crate::api::keys::{Keys, KeysError};
use crate::auth::AuthKeyError;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::typed::Typed;
use crate::contract::chain::Chain;
use crate::control::access::SOCKET;
use crate::control::access::list::{AccessList, ListError};
use crate::control::http::API_SOCKET;
use crate::control::systemd::{Environment, Notices};
use crate::control::webhooks::endpoints::{self, EndpointsError};
use crate::control::{HttpSockets, Stage};
use crate::datadir::{DataDir, DataDirError};
use crate::doctor::start::UnfitHost;
use crate::net::listener::{self, ListenError};
use crate::serve::live::Live;
pub(crate) use crate::serve::live::ReadSettings;
use crate::serve::memory::MemoryWatch;
use crate::serve::parts::Persistence;
use crate::serve::threads::{Plan, Running};
use crate::token::KeyError;
use crate::topology::cpus::{CpuError, CpuPlan};

/// Why the gateway did not start, or did not stop well.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The CPUs.
    #[error(transparent)]
    Cpus(#[from] CpuError),
    /// What the connections take of the host.
    #[error(transparent)]
    Host(#[from] UnfitHost),
    /// The key that verifies tokens.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The public keys are none.
    #[error("the keys that tokens are verified with cannot be used")]
    PublicKey(#[source] AuthKeyError),
    /// Who may not log in.
    #[error("who may not log in is not known")]
    Access(#[from] ListError),
    /// The addresses.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Store and journal.
    #[error("the data of {0} cannot be used")]
    Data(std::path::PathBuf, #[source] Box<dyn Error + Send + Sync>),
    /// The kernel gives no thread.
    #[error("a thread cannot be started")]
    Thread(#[source] std::io::Error),
    /// A thread has ended that should not have.
    #[error("the thread `{0}` has ended; the gateway cannot go on without it")]
    ThreadEnded(String, #[source] Box<dyn Error + Send + Sync>),
    /// The API's keys cannot be used.
    #[error(transparent)]
    ApiKeys(#[from] KeysError),
    /// The endpoints of webhooks cannot be used.
    #[error(transparent)]
    Endpoints(#[from] EndpointsError),
    /// The stop took too long, or was interrupted.
    #[error("stopped before everything was done ({why}); still running: {threads}. {consequence}")]
    StopIncomplete {
        /// What ended it.
        why: &'static str,
        /// The threads that had not ended.
        threads: String,
        /// What that means.
        consequence: &'static str,
    },
}

/// A thread ended with nothing to say.
#[derive(Debug, thiserror::Error)]
#[error("it was not told to, and gave no reason")]
struct NoReason;

/// Runs the gateway until it is told to stop. `config` is what `typed` means; `read_settings` is called at each SIGHUP.
pub fn run(config: &Config, typed: &Typed, read_settings: ReadSettings<'_>) -> Result<(), ServeError> {
    let clock = Clock::start();
    // What this process writes, messages above all, is for its user alone.
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    let notices = notices();
    let data_dir = DataDir::lock(&config.data_dir)?;
    for name in ["listen", "admin", "api"] {
        // Left by a crash, it would send clients to a gateway that is not there.
        data_dir.withdraw_address(name);
    }
    let cpus = CpuPlan::new(config.cpus.as_deref(), config.shards)?;
    cpus.confine()?;
    let shards = cpus.shards.len();
    let room = settings::room(config, shards)?;
    let connections_max = usize::try_from(room.connections_max).unwrap_or(usize::MAX);
    let memory_bytes_max = settings::memory_bytes_max(config);
    let auth = settings::authenticator(config, &data_dir)?;
    let access = AccessList::read(&config.data_dir)?;
    let (sockets, listen) = listener::bind(config.listen, shards)?;
    let (keys, change_keys) =
        Keys::load(config.api.keys_file.as_deref(), config.api.listen.unwrap_or(config.admin).ip())?;
    let endpoints = config.webhooks.endpoints_file.as_deref().map(endpoints::load).transpose()?.unwrap_or_default();
    let (admin_listener, admin) = http_listener("admin", config.admin)?;
    let api = config.api.listen.map(|address| http_listener("api.listen", address)).transpose()?;
    let (api_listener, api) = api.unzip();
    let socket_of = |name| {
        let made = data_dir.admin_socket(name);
        made.inspect_err(|error| tracing::warn!(error = %Chain(error), "`ringway admin` will not be heard")).ok()
    };
    let (show, shown) = watch::channel(Arc::default());
    let mut live = Live::new(typed, read_settings, config.drain, show, change_keys, auth.clone());
    let plan = Plan { config, cpus, clock, auth, connections_max };

    let (mut running, report_to) = Running::start_control(
        &plan,
        HttpSockets { admin: admin_listener, api: api_listener, owner: socket_of(API_SOCKET) },
        room,
        keys,
        endpoints,
        shown,
    )?;
    let persistence = Persistence::open(config, &clock, &plan.cpus, &running.stage, &running.stops)
        .map_err(|source| ServeError::Data(config.data_dir.clone(), source))?;
    let Some(persistence) = persistence else {
        tracing::info!("stopped while waiting for the store: nobody had been served");
        return Ok(());
    };
    running.start_all(&plan, persistence, sockets, (access, socket_of(SOCKET)), report_to)?;

    publish(&data_dir, "admin", admin)?;
    if let Some(api) = api {
        publish(&data_dir, "api", api)?;
    }
    publish(&data_dir, "listen", listen)?;
    running.stage.send_replace(Stage::Serving);
    tracing::info!(%listen, %admin, shards, connections_max, data_dir = %config.data_dir.display(), "serving");
    notices.ready(&format!("serving on {listen}, room for {connections_max} connections"));

    let mut memory = MemoryWatch::new(memory_bytes_max);
    running.await_stop(&mut live, &mut memory)?;
    notices.stopping("clients are told to come back, then everything is flushed");
    running.notice(live.drain.notice_s, &mut memory)?;
    data_dir.withdraw_address("listen");
    running.disperse(config.drain.spread_s, &mut memory)?;
    tracing::info!("stopping: clients are told to come back, then everything is flushed");
    let stopped = running.stop(live.drain.timeout_s);
    data_dir.withdraw_address("admin");
    data_dir.withdraw_address("api");
    data_dir.withdraw_address(SOCKET);
    data_dir.withdraw_address(API_SOCKET);
    stopped
}

/// Says in the data directory where something listens. On a full disk that is not said, and the gateway serves all the same.
fn publish(data_dir: &DataDir, name: &str, address: SocketAddr) -> Result<(), DataDirError> {
    match data_dir.publish_address(name, address) {
        Err(DataDirError::File { source, .. }) if source.kind() == ErrorKind::StorageFull => {
            tracing::warn!(name, %address, "the disk is full: who looks for this address in the data directory does not find it");
            Ok(())
        }
        published => published,
    }
}

/// What systemd is told, where it wants to know.
fn notices() -> Notices {
    Notices::new(&Environment::of_process()).unwrap_or_else(|error| {
        tracing::warn!(error = %Chain(&error), "systemd is told nothing");
        Notices::none()
    })
}

fn http_listener(key: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), ListenError> {
    let failed = |source| listener::named(address, key, source);
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let real = listener.local_addr().map_err(failed)?;
    Ok((listener, real))
}
