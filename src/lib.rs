//! Ringway: a thread-per-core io_uring messaging gateway.
//!
//! This page is the map. [`send`] follows one message through the house, step by step, and [`glossary`] says what each
//! word means. README.md says what it is and where to go on, `src/wire/README.md` how to speak to it.
//!
//! # The way of a message
//!
//! ```text
//!             ┌ shard 0 ┐   lanes    ┌ shard 1 ┐  ...       one thread each, one io_uring loop each
//!  sockets ──▶│ sessions│◀──────────▶│ sessions│
//!             └────┬────┘            └────┬────┘
//!      submissions │                      ▲ deliveries, one batch and one wake-up per commit and shard
//!                  ▼                      │
//!              ┌──────────── ledger ────────────┐           drop repeats, number, append, fdatasync
//!              └───────────────┬────────────────┘
//!                       journal (a file)
//!              ┌──────────── store ─────────────┐           batches into the database, and reads
//!              └────────────────────────────────┘
//!              ┌─────────── control ────────────┐           health, metrics, the backend's HTTP API, operators
//!              └────────────────────────────────┘
//!              ┌─────────── cluster ────────────┐           with Redis: the ledger's order comes from there
//!              └────────────────────────────────┘
//! ```
//!
//! A frame is read in its connection's turn ([`net`]), and the bytes go to the shard's core ([`shard`]). A
//! Send goes to the [`ledger`], where each sender has its turns; the ledger knows who is in the group, numbers the message,
//! writes it to the [`journal`] and, once it is on disk, hands each shard what its users are to receive. The
//! shard puts it into outboxes, and writes each once. The [`store`] reads the journal and catches up on its own.
//!
//! # The modules, in reading order
//!
//! | module | what it is | what it does not know |
//! |---|---|---|
//! | [`ringway_wire`] | a crate: ids, frames, WebSocket, as pure functions | sockets, clocks |
//! | [`limits`], [`clock`], [`rate`], [`contract`] | bounds, time, so much in a time, what crosses threads | anything else |
//! | [`spending`] | what accounts and groups have taken of their limits | who limits them |
//! | [`auth`] | tokens, as pure functions | sockets, clocks |
//! | [`shard`] | the core of a shard: sessions, groups, fan-out, outboxes, time-outs | sockets, files, clocks, threads |
//! | [`ledger`] | what orders messages, numbers rows and makes them durable: by the journal alone, or by Redis | sockets, clocks, shards' state |
//! | [`journal`] | the append-only log: segments, batches, recovery | what its records mean to users |
//! | [`store`] | the database's thread: batches in, pages out, the unapplied tail | sessions |
//! | [`cluster`] | the thread that talks to Redis, and through it to other nodes | what entries of the ledger mean |
//! | [`net`], [`topology`] | the shell: io_uring, mailboxes, threads and CPUs | what frames mean |
//! | `api` | what a backend calls over HTTP | sockets, sessions: it asks as one more shard would |
//! | [`control`] | the admin server's thread, the one that hears operators, and the one that tells webhooks | the state of a shard: it is sent copies of counters |
//! | [`config`], [`datadir`], [`log`], [`token`], [`serve`] | start and stop | |
//! | [`doctor`] | what a host must be like, what this one is like, what to do | how any of it is set |
//! | [`commands`] | the manual; what `bench` and `soak` are handed of the gateway: stores, memory limits | how they measure |
//! | `ringway_client` | a crate: the client's core without sockets, and a blocking and a tokio client on it | the gateway |
//! | [`ringway_load`] | a crate: clients in crowds, `bench`, `soak`, `chat` | the gateway's insides |
//! | `ringway_chaos` | a crate: real clusters with faults, and the checker of what clients saw | the gateway's insides |
//!
//! # What always holds
//!
//! - A message is visible to nobody before it is on disk: acks and pushes leave after the `fdatasync` that covers
//!   them. The ledger is the only place that allots numbers, so the journal's order is every inbox's order.
//! - Shards share no state. What crosses threads is one of the envelopes of [`contract`], through a bounded
//!   channel; a full channel is an answer to somebody, never a wait on a message's way.
//! - The cores do no I/O and read no clock: events in, effects out. So they run under the simulator (`make sim`)
//!   as they run under io_uring.
//! - A session is a cursor over its inbox. It is live, and the next row goes straight out, or it catches up by
//!   pages; a live push never overtakes a page.
//! - Everything is bounded, by a constant in [`limits`] that says what it costs.
//! - What a peer sends can close its connection, and nothing else.

/// The version, and in a release the commit it was built from.
pub const VERSION: &str = env!("BUILD_VERSION");

pub(crate) mod api;
pub mod auth;
pub mod clock;
pub mod cluster;
pub mod commands;
pub mod config;
pub mod contract;
pub(crate) mod control;
pub(crate) mod datadir;
pub mod doctor;
pub(crate) mod glossary;
pub mod journal;
pub mod ledger;
pub mod limits;
pub mod log;
pub(crate) mod net;
pub mod rate;
pub(crate) mod send;
pub mod serve;
#[cfg(test)]
#[path = "tests/services.rs"]
mod services;
pub mod shard;
pub(crate) mod spending;
pub mod store;
pub mod store_cli;
pub mod token;
pub mod topology;
