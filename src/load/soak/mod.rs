//! `ringway soak`: many connections for long, from several processes, every delivery checked; then a verdict.
//!
//! The conductor starts processes of this same program, each with its share of the clients, and orders them what to
//! do; it watches the gateway and judges. What always holds: processes share nothing but the plan, and check their
//! own users' deliveries by themselves, because every message says which it is and when it was sent by the host's
//! clock; a count is compared only after the sending has ended; a verdict says what it rests on.
//!
//! - [`args`], [`fit`]: what was asked, and whether this host can carry it.
//! - [`assignment`], [`orders`]: the plan that all processes share, and what they and the conductor say to each other.
//! - [`process`]: one process: its [`clients`] (with [`dial`] and [`pace`]), what they say ([`sending`]), and what
//!   they receive ([`inboxes`]).
//! - [`conduct`], [`children`], [`progress`]: the conductor, its processes, and what it shows while it runs.
//! - [`subject`], [`watch`], [`memory_limit`]: the gateway, and what it looks like from outside.
//! - [`figures`], [`evidence`], [`verdict`]: what was measured, and what it means.
//! - [`report`], [`html`], [`chart`]: how it is shown.

pub mod args;
pub(crate) mod assignment;
pub(crate) mod chart;
pub mod children;
pub(crate) mod clients;
pub mod conduct;
pub(crate) mod dial;
pub(crate) mod evidence;
pub(crate) mod figures;
pub(crate) mod fit;
pub(crate) mod html;
pub(crate) mod inboxes;
pub(crate) mod memory_limit;
pub(crate) mod orders;
pub(crate) mod pace;
pub mod process;
pub(crate) mod progress;
pub(crate) mod report;
pub(crate) mod sending;
pub(crate) mod subject;
pub mod verdict;
pub mod watch;
