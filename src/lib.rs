//! Ringway: a thread-per-core io_uring messaging gateway.

pub mod auth;
pub mod clock;
pub mod config;
pub mod control;
pub mod datadir;
pub mod ids;
pub mod journal;
pub mod ledger;
pub mod limits;
pub mod load;
pub mod log;
pub mod message;
pub mod net;
pub mod serve;
pub mod shard;
pub mod store;
pub mod token;
pub mod topology;
pub mod wire;
