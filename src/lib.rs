//! Ringway: a thread-per-core io_uring messaging gateway.

pub mod auth;
pub mod clock;
pub mod ids;
pub mod journal;
pub mod ledger;
pub mod limits;
pub mod message;
pub mod shard;
pub mod store;
pub mod wire;
