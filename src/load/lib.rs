//! Ringway's load: what `bench`, `soak` and `chat` run, and what the end-to-end tests log in with.
//!
//! It knows the gateway only by its wire protocol, by what its data directory says and by what the kernel says of its
//! process; what else it needs of the gateway (the rows it has stored) is handed in, as [`contract`] says. What always holds: a load generator runs on one thread (of each of its processes) and
//! checks every delivery it counts; a figure is printed only beside the losses found while it was measured.
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
//! - [`group`], [`direct`], [`idle`], [`storm`], [`disk`], [`floor`]: the scenarios; [`targets`] runs them all. [`report`],
//!   [`latency`], [`table`], [`bars`]: their figures.

pub mod acks;
pub mod args;
pub mod bars;
pub mod bench;
pub mod body;
pub mod chat;
pub mod check;
pub mod cli;
pub mod clock;
pub mod command;
pub mod contract;
pub mod cpus;
pub mod crowd;
pub mod direct;
pub mod disk;
pub mod error;
pub mod floor;
pub mod gateway;
pub mod group;
pub mod idle;
pub mod latency;
mod measured;
pub mod outcome;
pub mod pace;
pub mod report;
pub mod room;
pub mod rounds;
pub mod soak;
pub mod stored;
pub mod storm;
pub mod swarm;
pub mod table;
pub mod target;
pub mod targets;
pub mod tokens;
