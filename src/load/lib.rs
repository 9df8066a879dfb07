//! Ringway's load: what `bench`, `soak` and `chat` run.
//!
//! It knows the gateway only by its wire protocol, by what its data directory says and by what the kernel says of its
//! process; what else it needs of the gateway (the rows it has stored) is handed in, as [`contract`] says. What always
//! holds: those who count run on one thread (of each process), and an attacker or a floor's peer has one of its own; every
//! delivery that is counted is checked; a figure is printed only beside the losses found while it was measured.
//!
//! - [`swarm`]: thousands of connections on one thread, frames handed to a closure.
//! - [`crowd`]: the sessions on a swarm: logging in, acknowledging, keeping alive.
//! - `measured`: the client's core for one who counts what goes wrong.
//! - [`check`]: what each recipient must receive, and what it did receive; knows no socket.
//! - [`gateway`]: a gateway process of our own, its CPU time and its memory.
//! - [`stored`]: counts inbox rows where they are kept.
//! - [`tokens`], [`clock`]: what they log in with, and the time.
//! - [`args`], [`cli`], [`outcome`]: the command line, and what it runs.
//! - [`room`], [`mod@bench`], [`pace`], [`rounds`]: who sends and receives what, the rounds that drive it, what they show.
//! - [`soak`]: half a million connections for hours, from several processes, with a verdict.
//! - [`group`], [`direct`], [`idle`], [`storm`], [`abuse`], [`disk`], [`floor`]: the scenarios; [`targets`] runs them all. [`report`],
//!   [`latency`], [`table`], [`bars`]: their figures.

pub(crate) mod abuse;
pub(crate) mod acks;
pub mod args;
pub(crate) mod bars;
pub(crate) mod bench;
pub(crate) mod body;
pub(crate) mod chat;
pub(crate) mod check;
pub mod cli;
pub(crate) mod clock;
pub(crate) mod command;
pub mod contract;
pub(crate) mod cpus;
pub(crate) mod crowd;
pub(crate) mod direct;
pub(crate) mod disk;
pub(crate) mod error;
pub(crate) mod floor;
pub(crate) mod gateway;
pub(crate) mod group;
pub(crate) mod idle;
pub(crate) mod latency;
mod measured;
pub mod outcome;
pub(crate) mod pace;
pub(crate) mod report;
pub(crate) mod room;
pub(crate) mod rounds;
pub mod soak;
pub(crate) mod stored;
pub(crate) mod storm;
pub(crate) mod swarm;
pub(crate) mod table;
pub(crate) mod target;
pub(crate) mod targets;
pub(crate) mod tokens;
