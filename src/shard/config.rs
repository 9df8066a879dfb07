//! What an operator decides about a shard, as the core needs it. Validated by `crate::config`, immutable here, but for
//! what one account may send.

use crate::contract::device_policy::DevicePolicy;
use crate::contract::ids::{ConnId, SessionRef, ShardId};
use crate::contract::keyed::TableKey;
use crate::contract::policies::Policies;
use crate::contract::traffic::TrafficLimits;
use crate::limits;

/// One shard's settings; all shards of a process have the same but for `id`.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Which shard this is.
    pub id: ShardId,
    /// Of how many.
    pub shards: u16,
    /// The node's number, if it is one of a cluster: other nodes are told of sessions and ephemeral messages.
    pub node: Option<u16>,
    /// Clients send something at least this often; a connection silent for two and a half times as long is
    /// closed (two lost heartbeats and half an interval of delay).
    pub heartbeat_ms: u32,
    /// The longest interval that a login may ask for instead; not above `heartbeat_ms`: none.
    pub heartbeat_max_ms: u32,
    /// From accept to a complete login.
    pub login_timeout_ms: u32,
    /// Sessions one user may have at once, on all nodes of a cluster together.
    pub devices_max: u16,
    /// What happens above `devices_max`.
    pub device_policy: DevicePolicy,
    /// Bytes that may wait for one connection before its session stops being live.
    pub outbox_bytes_max: usize,
    /// Bytes that may wait in all outboxes of the shard.
    pub outbox_shard_bytes_max: usize,
    /// Bytes that the fan-out of a run of messages puts into outboxes at once.
    pub fanout_part_bytes_max: usize,
    /// Bytes of incomplete frames that all connections of the shard may hold.
    pub intake_shard_bytes_max: usize,
    /// Sessions of this shard: connections that have logged in.
    pub connections_max: usize,
    /// Connections of this shard that have not logged in yet, beside the sessions.
    pub unauthenticated_max: usize,
    /// Of these, those of one address.
    pub unauthenticated_per_address_max: usize,
    /// A connection for which bytes wait and none goes out for so long is closed.
    pub stall_timeout_ms: u32,
    /// What one account may send.
    pub traffic: TrafficLimits,
    /// What clients are let do.
    pub policies: Policies,
    /// Keys the tables whose entries a peer can choose.
    pub table_key: TableKey,
    /// List every close in `Effects::closed`: somebody writes them down.
    pub lists_closes: bool,
}

impl ShardConfig {
    /// The settings of shard `id` of `shards` where nobody has said otherwise.
    pub fn new(id: ShardId, shards: u16) -> Self {
        ShardConfig {
            id,
            shards: shards.max(1),
            node: None,
            heartbeat_ms: 25_000,
            heartbeat_max_ms: 300_000,
            login_timeout_ms: 10_000,
            devices_max: 8,
            device_policy: DevicePolicy::ReplaceOldest,
            outbox_bytes_max: limits::OUTBOX_BYTES_MAX,
            outbox_shard_bytes_max: limits::OUTBOX_SHARD_BYTES_MAX,
            fanout_part_bytes_max: limits::FANOUT_PART_BYTES_MAX,
            intake_shard_bytes_max: limits::INTAKE_SHARD_BYTES_MAX,
            connections_max: 1 << 20,
            unauthenticated_max: limits::UNAUTHENTICATED_MAX,
            unauthenticated_per_address_max: limits::UNAUTHENTICATED_PER_ADDRESS_MAX,
            stall_timeout_ms: 30_000,
            traffic: TrafficLimits::default(),
            policies: Policies::default(),
            table_key: TableKey::of_process(),
            lists_closes: false,
        }
    }

    /// How one of this shard's sessions is named everywhere.
    pub(super) fn session_ref(&self, conn: ConnId) -> SessionRef {
        SessionRef { shard: self.id, conn }
    }
}
