//! The end of a shard: stop accepting, tell the clients, wait until the last connection is gone.
//!
//! Part of the shard's pump. What always holds: once a drain has begun nothing new is taken in, and the pump runs
//! on until no connection is left, so that everything told to a client before is also written.

use crate::net::shell::{Door, Shell};

/// How far a shard is with ending.
pub struct Drain {
    state: State,
    spread_ms: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Serving,
    Draining,
}

impl Drain {
    /// Of a shard that serves. `spread_ms`: over how long clients come back.
    pub fn new(spread_ms: u32) -> Self {
        Drain { state: State::Serving, spread_ms }
    }

    /// The order has come.
    pub fn begin(&mut self, shell: &mut Shell) {
        if self.state == State::Serving {
            self.state = State::Draining;
            shell.stop_accepting();
            let now = shell.clock.now();
            shell.core.drain(now, self.spread_ms);
        }
    }

    /// A drain has begun and no connection is left.
    pub fn is_over(&self, door: &Door) -> bool {
        self.state == State::Draining && door.borrow().seats.is_empty()
    }
}
