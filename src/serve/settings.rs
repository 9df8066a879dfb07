//! What the configuration means for the parts: the key, the room for connections, each shard's settings.
//!
//! On the main thread, at start. What always holds: nothing here has been served yet, so what is wrong is an error.

use crate::auth::AuthKeys;
use crate::config::{Auth, Config};
use crate::contract::ids::ShardId;
use crate::control::Room;
use crate::datadir::{DataDir, SecretOrigin};
use crate::doctor::start::{self, UnfitHost};
use crate::limits::{MEMORY_PERCENT, STORE_STOP_MS};
use crate::net::closes;
use crate::shard::config::ShardConfig;
use crate::token;

use super::{ServeError, rlimits};

/// What verifies tokens.
pub(super) fn authenticator(config: &Config, data_dir: &DataDir) -> Result<AuthKeys, ServeError> {
    let key = match &config.auth {
        Auth::Secret(secret) => AuthKeys::hs256(secret),
        Auth::SecretFile(path) => AuthKeys::hs256(&token::read_secret(path)?),
        Auth::PublicKeyFile(path) => {
            AuthKeys::public_pem(&token::read_key_file(path)?).map_err(ServeError::PublicKey)?
        }
        Auth::KeySetFile(path) => AuthKeys::key_set(&token::read_key_file(path)?).map_err(ServeError::PublicKey)?,
        Auth::Development => {
            let (secret, origin) = data_dir.development_secret()?;
            let file = data_dir.path().join("secret");
            match origin {
                SecretOrigin::Made => tracing::warn!(
                    file = %file.display(),
                    "no key to verify tokens with was configured: made a secret for development; \
                     `ringway token` mints with it; set auth.hs256_secret for anything else"
                ),
                SecretOrigin::Found => tracing::info!(file = %file.display(), "verifying tokens with this secret"),
            }
            AuthKeys::hs256(&secret)
        }
    };
    Ok(token::with_others(key, config)?)
}

/// Connections of the gateway: what is configured and this host can keep.
pub(super) fn room(config: &Config, shards: usize) -> Result<Room, UnfitHost> {
    rlimits::raise();
    let kept = start::connections(config, shards)?;
    if let Some(reduction) = kept.reduction() {
        tracing::info!(connections_max = kept.connections, "{reduction}");
    }
    for finding in &kept.warnings {
        tracing::warn!("this host will not keep the configured connections: {finding}");
    }
    let limited_by = kept.reduced_by.map_or_else(|| "limits.connections_max".to_owned(), |finding| finding.id);
    Ok(Room { connections_max: kept.connections, limited_by })
}

/// Memory that the process may have; `None`: nobody knows how much there is.
pub(super) fn memory_bytes_max(config: &Config) -> Option<u64> {
    config.limits.memory_bytes_max.or_else(|| Some(start::memory_total(config)? / 100 * MEMORY_PERCENT))
}

/// The settings of one shard.
pub(super) fn shard_config(config: &Config, id: ShardId, shards: u16, connections_max: usize) -> ShardConfig {
    let part = part_of(connections_max, shards);
    let session = &config.session;
    ShardConfig {
        id,
        shards,
        node: config.cluster.redis_url.is_some().then_some(config.cluster.node_id),
        heartbeat_ms: session.heartbeat_s * 1000,
        heartbeat_max_ms: session.heartbeat_max_s * 1000,
        login_timeout_ms: session.login_timeout_s * 1000,
        devices_max: session.devices_max,
        device_policy: session.device_policy,
        outbox_bytes_max: config.limits.outbox_bytes_max,
        outbox_shard_bytes_max: config.limits.outbox_bytes_per_shard_max,
        connections_max: part,
        unauthenticated_max: part_of(config.limits.unauthenticated_max, shards),
        unauthenticated_per_address_max: part_of(config.limits.unauthenticated_per_address_max, shards),
        stall_timeout_ms: session.stall_timeout_s * 1000,
        traffic: config.limits.traffic,
        policies: config.policies,
        lists_closes: closes::are_logged(),
        ..ShardConfig::new(id, shards)
    }
}

/// How long the store may go on when everybody before it has ended: the whole stop may take `timeout_s`, of which the
/// others have had some, and the last transaction and its sync need some. What it leaves stays in the journal, and is no
/// failure.
pub(super) fn store_stop_ms(timeout_s: u32) -> u64 {
    STORE_STOP_MS.min(u64::from(timeout_s) * 1_000 / 2)
}

/// A shard's part of a limit of the gateway. Users and connections spread evenly but not exactly: beside its part, each
/// shard has a sixteenth of it in reserve.
fn part_of(whole: usize, shards: u16) -> usize {
    let part = whole.div_ceil(usize::from(shards));
    if shards == 1 { part } else { (part + part / 16).min(whole) }
}
