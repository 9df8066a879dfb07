//! The contracts between threads, and the limits that several of them keep ([`traffic`]): neutral types.
//!
//! What crosses from one thread to another is one of the envelopes here, a closed set: a shard submits to the ledger
//! ([`submission`]), the ledger hands out deliveries ([`delivery`]), shards ask each other ([`lane`]) and the store
//! ([`store`]), a cluster's nodes tell each other of sessions ([`nodes`]), and all of them report to control
//! ([`report`]). Each variant's comment says who recovers if it is dropped. What always holds: no envelope holds a
//! lock, and nothing here knows who sends or receives it.

pub(crate) mod access;
pub mod cause;
pub(crate) mod chain;
pub mod delivery;
pub(crate) mod device_policy;
pub(crate) mod digest;
pub mod ids;
pub mod internal;
pub mod keyed;
pub mod lane;
pub mod latencies;
pub mod look;
pub(crate) mod memory;
pub mod message;
pub mod names_kept;
pub mod nodes;
pub mod policies;
pub mod position;
pub mod progress;
pub mod report;
pub(crate) mod shard_counters;
pub mod snapshot;
pub mod store;
pub(crate) mod store_counters;
pub mod submission;
pub mod traffic;
