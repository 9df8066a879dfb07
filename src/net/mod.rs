//! The shell around a shard's core: sockets, the mailbox, the loop. Of what is on a message's way, nothing else knows
//! glommio (start, the log and the doctor ask it whether it can run here).
//!
//! Everything here runs on one shard's thread. What always holds: the core is reached through [`Shell::with_core`]
//! alone, which passes on what the core wants passed on; the ring is looked at in one place, the [`event_loop`]; the
//! loop's state (`RefCell`) is never borrowed across an await; bytes are read into one buffer per shard; a dirty outbox
//! is written once per turn; nothing is allocated per message.
//!
//! ```text
//! shard.rs        the thread: executor, task queues, from start to end
//! event_loop.rs   poll the ring, let time pass, give out the work, sleep       tasks.rs      whose turn it is
//! budget.rs       whose time is whose                                          run_queue.rs  connections that wait
//! mail.rs         mailbox → core → outboxes                                    connection.rs a connection's turn
//! shell.rs        the core, and what its effects go to                         outlets.rs    each effect's way
//! connections.rs  the table of connections                                     write.rs      outboxes → sockets
//! ring.rs, listener.rs, refused.rs (peers that are not taken), closes.rs (the log line of a close),
//! taken.rs (who has a port that cannot be bound), written.rs (how long messages take until they are written)
//! ```
//!
//! [`Shell::with_core`]: shell::Shell::with_core

pub(crate) mod budget;
pub(crate) mod closes;
pub(crate) mod connection;
pub(crate) mod connections;
pub(crate) mod event_loop;
pub(crate) mod listener;
pub(crate) mod mail;
pub(crate) mod outlets;
pub(crate) mod ring;
pub(crate) mod run_queue;
pub(crate) mod shard;
pub(crate) mod shell;
mod taken;
pub(crate) mod tasks;
mod written;
