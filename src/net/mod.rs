//! The shell around a shard's core: sockets, tasks, mailbox. The only place besides `topology` that knows glommio.
//!
//! Everything here runs on one shard's thread. What always holds: the door to the shell's state (`RefCell`) is
//! never open across an await; bytes are read into one buffer per shard; a dirty outbox is written once per turn;
//! nothing is allocated per message.
//!
//! [`ring`] tells what can be read or written; [`rest`] is where the thread sleeps; [`listener`] accepts, [`connection`] is a connection's turn, [`turns`]
//! the tasks in which they have them; [`pump`] empties the mailbox and flushes, [`drain`] ends it all; [`shell`] is the
//! state they share, [`seat`] what it knows of each connection, [`refused`] those it does not take, [`closes`] the log
//! line at a connection's end, [`budget`] whose time is whose, `taken` who has a port that cannot be bound.

pub mod budget;
pub mod closes;
pub mod connection;
pub mod drain;
pub mod listener;
pub mod pump;
pub mod refused;
pub mod rest;
pub mod ring;
pub mod seat;
pub mod shard;
pub mod shell;
mod taken;
pub mod turns;
