//! What the command line calls and is no part of a gateway: its own manual, what the load generator is handed, and what
//! an operator tells a gateway that runs.
//!
//! On the main thread. `version.rs` beside it is the package's build script and no module. What always holds: nothing of
//! the gateway knows these.

pub mod admin;
pub mod config;
pub mod manual;
pub mod measure;
