//! The shard's core: an event in, effects out. No socket, no clock, no file, no await.

pub mod event;
