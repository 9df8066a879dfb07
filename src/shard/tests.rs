//! Claims about the shard's core, each shown on whole shards with a ledger and a store that are models: no socket,
//! no clock, no thread.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod access;
mod bad_input;
mod ephemerals;
mod got;
mod groups;
mod heartbeats;
mod inbox;
mod limits;
mod logins;
mod look;
mod model;
mod races;
mod remote_sessions;
mod requests;
mod traffic;
mod unauthenticated;
pub(super) mod world;

use ringway_wire::schema::CloseReason;

/// Why a client was closed, if the last that it got says so.
fn closing(got: &[world::Got]) -> Option<CloseReason> {
    match got.last() {
        Some(world::Got::Closing { reason, .. }) => Some(*reason),
        _ => None,
    }
}
