//! The configuration: what was typed ([`typed`]) and what it means ([`Config`]).
//!
//! Made once at start on the main thread, immutable afterwards; every part is handed what it needs of it. What
//! always holds: a [`Config`] that exists can be started with, as far as that can be known without the network
//! and the disk. Precedence rises from defaults over file and environment to the command line.

pub(crate) mod addresses;
pub mod args;
pub(crate) mod keys;
pub(crate) mod logs;
mod policies;
mod rates;
mod rules;
pub(crate) mod typed;
pub(crate) mod webhooks;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;

use addresses::ApiConfig;
pub use logs::Log;
pub(crate) use logs::LogFormat;
use mysql_async::Opts;
use typed::{Origin, Typed};
use webhooks::WebhooksConfig;

use crate::contract::device_policy::DevicePolicy;
use crate::contract::names_kept::{NAMES_S_MIN, NamesKept};
use crate::contract::policies::Policies;
use crate::contract::traffic::TrafficLimits;
use crate::limits;
use crate::limits::SECRET_BYTES_MIN;
use crate::topology::cpus::Shards;
use ringway_wire::limits::GROUP_MEMBERS_MAX;

/// Highest shard count: a lane from each to each must stay affordable.
pub(crate) const SHARDS_MAX: u16 = 256;

/// What is in force.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect.
    pub(crate) listen: SocketAddr,
    /// Where the admin HTTP server listens.
    pub(crate) admin: SocketAddr,
    /// The HTTP API.
    pub(crate) api: ApiConfig,
    /// Everything the gateway keeps on disk.
    pub(crate) data_dir: PathBuf,
    /// How many shards.
    pub(crate) shards: Shards,
    /// The CPUs the whole gateway may use; `None`: those the process may run on.
    pub(crate) cpus: Option<Vec<usize>>,
    /// What verifies tokens.
    pub(crate) auth: Auth,
    /// Whom tokens must be made for; empty: anybody.
    pub(crate) audience: String,
    /// What a token's `iss` must be; empty: it is not looked at.
    pub(crate) issuer: String,
    /// Files with keys that are good beside it, of the same kind.
    pub(crate) other_key_files: Vec<PathBuf>,
    /// About sessions.
    pub(crate) session: Session,
    /// About the store.
    pub(crate) store: Store,
    /// About the other nodes.
    pub(crate) cluster: Cluster,
    /// About stopping.
    pub(crate) drain: Drain,
    /// About logs.
    pub log: Log,
    /// Who is told over HTTP what happens.
    pub(crate) webhooks: WebhooksConfig,
    /// What clients are let do.
    pub(crate) policies: Policies,
    /// Bounds an operator may move.
    pub(crate) limits: Limits,
    /// Who said how many connections: the default is what the host can keep, anything else is kept or refused.
    pub(crate) connections_origin: Origin,
}

/// What verifies tokens.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Auth {
    /// A shared secret.
    Secret(Vec<u8>),
    /// A file with a shared secret.
    SecretFile(PathBuf),
    /// A PEM file with a public key: Ed25519, RSA or P-256.
    PublicKeyFile(PathBuf),
    /// A file with a JSON Web Key Set.
    KeySetFile(PathBuf),
    /// Nothing was said and only this machine can connect: a secret made in the data directory.
    Development,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Auth::Secret(_) => f.write_str("Secret(hidden)"),
            Auth::SecretFile(path) => f.debug_tuple("SecretFile").field(path).finish(),
            Auth::PublicKeyFile(path) => f.debug_tuple("PublicKeyFile").field(path).finish(),
            Auth::KeySetFile(path) => f.debug_tuple("KeySetFile").field(path).finish(),
            Auth::Development => f.write_str("Development"),
        }
    }
}

/// About sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Session {
    /// What clients are told; silence of two and a half of these ends a session.
    pub(crate) heartbeat_s: u32,
    /// The longest that a client may ask for instead.
    pub(crate) heartbeat_max_s: u32,
    /// How long a connection may take to log in.
    pub(crate) login_timeout_s: u32,
    /// Sessions of one user at a time.
    pub(crate) devices_max: u16,
    /// What happens above.
    pub(crate) device_policy: DevicePolicy,
    /// How long a connection may take no byte.
    pub(crate) stall_timeout_s: u32,
}

/// About the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Store {
    /// Which database.
    pub(crate) url: StoreUrl,
    /// How long to wait for more rows.
    pub(crate) linger_ms: u32,
    /// Rows of one insert.
    pub(crate) batch_rows: usize,
    /// Connections to a database server.
    pub(crate) pool_size: usize,
    /// How long messages are kept; 0: for ever.
    pub(crate) retention_days: u32,
}

/// Which database.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum StoreUrl {
    /// SQLite, in this file; `None`: in the data directory.
    Sqlite(Option<PathBuf>),
    /// A MySQL or MariaDB server.
    MySql(Box<Opts>),
}

impl StoreUrl {
    /// What was typed, understood; or what would do.
    pub(crate) fn parse(url: &str) -> Result<StoreUrl, String> {
        const EXPECTED: &str =
            "expected sqlite: (in data_dir), sqlite:PATH or mysql://USER:PASSWORD@HOST:PORT/DATABASE";
        match url.split_once(':') {
            Some(("sqlite", "")) => Ok(StoreUrl::Sqlite(None)),
            Some(("sqlite", path)) => Ok(StoreUrl::Sqlite(Some(path.trim_start_matches("//").into()))),
            Some(("mysql" | "mariadb", rest)) => {
                let opts = Opts::from_url(&format!("mysql:{rest}")).map_err(|error| format!("{EXPECTED} ({error})"))?;
                match opts.db_name() {
                    Some(name) if !name.is_empty() => Ok(StoreUrl::MySql(Box::new(opts))),
                    _ => Err(format!("the URL names no database: {EXPECTED}")),
                }
            }
            _ => Err(EXPECTED.to_owned()),
        }
    }
}

impl std::fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StoreUrl::Sqlite(path) => f.debug_tuple("Sqlite").field(path).finish(),
            StoreUrl::MySql(opts) => f
                .debug_struct("MySql")
                .field("host", &opts.ip_or_hostname())
                .field("port", &opts.tcp_port())
                .field("database", &opts.db_name())
                .finish_non_exhaustive(),
        }
    }
}

/// About the other nodes.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// The Redis, or the Redis Cluster, that the nodes share; `None`: there is this node alone.
    pub(crate) redis_url: Option<String>,
    /// The node's part of message ids.
    pub(crate) node_id: u16,
    /// Into how many parts the ledger is split.
    pub(crate) buckets: usize,
    /// How long Redis keeps names.
    pub(crate) names: NamesKept,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let redis_url = if self.redis_url.is_some() { "(hidden)" } else { "(none)" };
        f.debug_struct("Cluster")
            .field("redis_url", &redis_url)
            .field("node_id", &self.node_id)
            .field("buckets", &self.buckets)
            .field("names", &self.names)
            .finish()
    }
}

/// About stopping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Drain {
    /// Seconds before it in which clients are served and no new ones should be sent here.
    pub(crate) notice_s: u32,
    /// When to give up.
    pub(crate) timeout_s: u32,
    /// Over how long the clients' reconnects are spread.
    pub(crate) spread_s: u32,
}

/// Bounds an operator may move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Limits {
    /// Connections of the whole gateway that have logged in.
    pub(crate) connections_max: usize,
    /// Those that have not.
    pub(crate) unauthenticated_max: usize,
    /// Of these, those of one address.
    pub(crate) unauthenticated_per_address_max: usize,
    /// Bytes that may wait for one connection.
    pub(crate) outbox_bytes_max: usize,
    /// Bytes that may wait for all connections of a shard.
    pub(crate) outbox_bytes_per_shard_max: usize,
    /// Journal bytes not yet in the store.
    pub(crate) journal_bytes_max: u64,
    /// Entries of a cluster's stream that may be unstored.
    pub(crate) stream_entries_max: u64,
    /// Memory of the process, bytes; `None`: what the host has.
    pub(crate) memory_bytes_max: Option<u64>,
    /// How long accepting, asking or delivering may keep a shard from the others.
    pub(crate) turn_ms: u32,
    /// What the groups that one user has made may take of the ledger's memory, bytes.
    pub(crate) user_groups_bytes_max: u64,
    /// What one account may send.
    pub(crate) traffic: TrafficLimits,
}

/// What was typed makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value out of its range or form.
    #[error("`{key} = {value}` ({origin}): {expected}")]
    Value {
        /// Which key.
        key: &'static str,
        /// As typed.
        value: String,
        /// By whom.
        origin: Origin,
        /// What would do.
        expected: String,
    },
    /// Nothing verifies tokens, and others than this machine can connect.
    #[error(
        "no key to verify tokens with, and {listen} is not a loopback address: set auth.hs256_secret, \
         auth.hs256_secret_file, auth.public_key_file or auth.jwks_file (RINGWAY_AUTH_HS256_SECRET, ...)"
    )]
    NoSecret {
        /// The address asked for.
        listen: SocketAddr,
    },
    /// More than one key to verify tokens with.
    #[error("`{first}` and `{second}` are both set: set one of them, or nobody knows which tokens are good")]
    TwoSecrets {
        /// One.
        first: &'static str,
        /// Another.
        second: &'static str,
    },
}

impl Config {
    /// What was typed, validated.
    pub fn new(typed: &Typed) -> Result<Config, ConfigError> {
        let listen = typed.address("listen")?;
        Ok(Config {
            listen,
            admin: typed.address("admin")?,
            api: typed.api()?,
            data_dir: PathBuf::from(typed.filled("data_dir")?),
            shards: match typed.text("shards") {
                "auto" => Shards::Auto,
                _ => Shards::Count(typed.number("shards", 1, u64::from(SHARDS_MAX))? as u16),
            },
            cpus: typed.cpus("cpus")?,
            auth: typed.auth(listen)?,
            audience: typed.text("auth.audience").to_owned(),
            issuer: typed.text("auth.issuer").to_owned(),
            other_key_files: typed.other_key_files()?,
            session: typed.session()?,
            store: Store {
                url: typed.store_url()?,
                linger_ms: typed.number("store.linger_ms", 0, 10_000)? as u32,
                batch_rows: typed.number("store.batch_rows", 1, limits::BATCH_ROWS_MAX as u64)? as usize,
                pool_size: typed.number("store.pool_size", 2, limits::MYSQL_POOL_SIZE_MAX as u64)? as usize,
                retention_days: typed.number("store.retention_days", 0, 36_500)? as u32,
            },
            cluster: Cluster {
                redis_url: typed.redis_url()?,
                node_id: typed.number("cluster.node_id", 0, 1023)? as u16,
                buckets: typed.number("cluster.buckets", 1, limits::BUCKETS_MAX as u64)? as usize,
                names: NamesKept::new(typed.number("limits.names_s", NAMES_S_MIN, limits::CLAIMS_S)?),
            },
            drain: Drain {
                notice_s: typed.number("drain.notice_s", 0, 3600)? as u32,
                timeout_s: typed.number("drain.timeout_s", 0, 3600)? as u32,
                spread_s: typed.number("drain.spread_s", 0, 3600)? as u32,
            },
            log: typed.log()?,
            webhooks: typed.webhooks()?,
            policies: typed.policies()?,
            limits: Limits {
                connections_max: typed.number("limits.connections_max", 1, 16 << 20)? as usize,
                unauthenticated_max: typed.number("limits.unauthenticated_max", 1, 16 << 20)? as usize,
                unauthenticated_per_address_max: typed.number("limits.unauthenticated_per_address_max", 1, 16 << 20)?
                    as usize,
                outbox_bytes_max: typed.number("limits.outbox_bytes_max", limits::OUTBOX_BYTES_MIN as u64, 1 << 30)?
                    as usize,
                outbox_bytes_per_shard_max: typed.number(
                    "limits.outbox_bytes_per_shard_max",
                    limits::OUTBOX_SHARD_BYTES_MIN as u64,
                    1 << 40,
                )? as usize,
                journal_bytes_max: typed.number("limits.journal_bytes_max", limits::SEGMENT_BYTES * 2, 1 << 44)?,
                stream_entries_max: typed.number(
                    "limits.stream_entries_max",
                    limits::STREAM_UNSTORED_MIN,
                    limits::STREAM_UNSTORED_MAX,
                )?,
                turn_ms: typed.number("limits.turn_ms", 1, 1000)? as u32,
                memory_bytes_max: match typed.text("limits.memory_bytes_max") {
                    "auto" => None,
                    _ => Some(typed.number("limits.memory_bytes_max", 1 << 20, 1 << 50)?),
                },
                user_groups_bytes_max: typed.number(
                    "limits.user_groups_bytes_max",
                    limits::GROUP_BYTES + GROUP_MEMBERS_MAX as u64 * limits::MEMBERSHIP_BYTES,
                    1 << 40,
                )?,
                traffic: typed.traffic()?,
            },
            connections_origin: typed.origin("limits.connections_max"),
        })
    }
}

/// Reading one value each.
impl Typed {
    fn session(&self) -> Result<Session, ConfigError> {
        Ok(Session {
            heartbeat_s: self.number("session.heartbeat_s", 1, 3600)? as u32,
            heartbeat_max_s: self.number("session.heartbeat_max_s", 1, 86_400)? as u32,
            login_timeout_s: self.number("session.login_timeout_s", 1, 600)? as u32,
            devices_max: self.number("session.devices_max", 1, 64)? as u16,
            device_policy: match self.text("session.device_policy") {
                "replace-oldest" => DevicePolicy::ReplaceOldest,
                "refuse-new" => DevicePolicy::RefuseNew,
                _ => return Err(self.refuse("session.device_policy", "expected replace-oldest or refuse-new")),
            },
            stall_timeout_s: self.number("session.stall_timeout_s", 1, 3600)? as u32,
        })
    }

    fn refuse(&self, key: &'static str, expected: impl Into<String>) -> ConfigError {
        let value = format!("{:?}", self.shown(key));
        ConfigError::Value { key, value, origin: self.origin(key), expected: expected.into() }
    }

    fn filled(&self, key: &'static str) -> Result<&str, ConfigError> {
        Some(self.text(key)).filter(|text| !text.is_empty()).ok_or_else(|| self.refuse(key, "must not be empty"))
    }

    fn number(&self, key: &'static str, min: u64, max: u64) -> Result<u64, ConfigError> {
        let text = self.text(key).replace('_', "");
        let number = text.parse::<u64>().ok().filter(|number| (min..=max).contains(number));
        number.ok_or_else(|| self.refuse(key, format!("expected a whole number from {min} to {max}")))
    }

    fn cpus(&self, key: &'static str) -> Result<Option<Vec<usize>>, ConfigError> {
        let text = self.text(key);
        if text.trim().is_empty() {
            return Ok(None);
        }
        let refuse = || self.refuse(key, "expected CPU numbers and ranges, as in \"0,2-3\"");
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            let from: usize = from.trim().parse().map_err(|_| refuse())?;
            let to: usize = to.trim().parse().map_err(|_| refuse())?;
            if from > to || to >= 4096 {
                return Err(refuse());
            }
            cpus.extend(from..=to);
        }
        cpus.sort_unstable();
        cpus.dedup();
        Ok(Some(cpus))
    }

    fn auth(&self, listen: SocketAddr) -> Result<Auth, ConfigError> {
        const KEYS: [&str; 5] = [
            "auth.hs256_secret",
            "auth.hs256_secret_file",
            "auth.public_key_file",
            "auth.eddsa_public_key_file",
            "auth.jwks_file",
        ];
        let mut set = KEYS.iter().filter(|key| !self.text(key).is_empty());
        let first = set.next();
        if let (Some(first), Some(second)) = (first, set.next()) {
            return Err(ConfigError::TwoSecrets { first, second });
        }
        match first.copied() {
            Some("auth.hs256_secret") => {
                let secret = self.text("auth.hs256_secret").as_bytes().to_vec();
                if secret.len() < SECRET_BYTES_MIN {
                    // Not by `refuse`: the value must not be printed.
                    return Err(ConfigError::Value {
                        key: "auth.hs256_secret",
                        value: "(hidden)".to_owned(),
                        origin: self.origin("auth.hs256_secret"),
                        expected: format!(
                            "a secret has at least {SECRET_BYTES_MIN} bytes, this one has {}",
                            secret.len()
                        ),
                    });
                }
                Ok(Auth::Secret(secret))
            }
            Some("auth.hs256_secret_file") => Ok(Auth::SecretFile(self.text("auth.hs256_secret_file").into())),
            Some("auth.jwks_file") => Ok(Auth::KeySetFile(self.text("auth.jwks_file").into())),
            Some(key) => Ok(Auth::PublicKeyFile(self.text(key).into())),
            None if listen.ip().is_loopback() => Ok(Auth::Development),
            None => Err(ConfigError::NoSecret { listen }),
        }
    }

    fn other_key_files(&self) -> Result<Vec<PathBuf>, ConfigError> {
        let key = "auth.other_key_files";
        let files: Vec<PathBuf> =
            self.text(key).split(',').map(str::trim).filter(|path| !path.is_empty()).map(PathBuf::from).collect();
        if files.len() > limits::TOKEN_KEYS_OTHER_MAX {
            return Err(
                self.refuse(key, format!("at most {} files, with commas between", limits::TOKEN_KEYS_OTHER_MAX))
            );
        }
        Ok(files)
    }

    fn store_url(&self) -> Result<StoreUrl, ConfigError> {
        StoreUrl::parse(self.text("store.url")).map_err(|expected| self.refuse("store.url", expected))
    }

    fn redis_url(&self) -> Result<Option<String>, ConfigError> {
        const KEY: &str = "cluster.redis_url";
        match self.text(KEY) {
            "" => Ok(None),
            url if url.starts_with("redis://") || url.starts_with("redis-cluster://") => match self.store_url()? {
                StoreUrl::MySql(_) => Ok(Some(url.to_owned())),
                StoreUrl::Sqlite(_) => {
                    Err(self.refuse("store.url", "with cluster.redis_url all nodes store in one mysql://... database"))
                }
            },
            // Not by `refuse`: it may hold a password.
            _ => Err(ConfigError::Value {
                key: KEY,
                value: "(hidden)".to_owned(),
                origin: self.origin(KEY),
                expected: "expected redis://[USER:PASSWORD@]HOST:PORT[/DATABASE], or \
                           redis-cluster://[USER:PASSWORD@]HOST:PORT[?node=HOST:PORT&node=...]"
                    .to_owned(),
            }),
        }
    }
}
