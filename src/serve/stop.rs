//! Waiting for the stop, and the stop itself: shards, then the ledger, then the store.
//!
//! On the main thread. What always holds: nobody is told to end before everybody who sends to it has, so nothing
//! that was taken in is lost on the way.

use std::time::Duration;

use crossbeam_channel::{Receiver, after, never, select, tick};

use super::live::Live;
use super::memory::MemoryWatch;
use super::threads::Running;
use super::{NoReason, ServeError};
use crate::contract::ids::ShardId;
use crate::control::{Population, Stage};
use crate::limits::MEMORY_LOOK_MS;
use crate::topology::Ended;
use crate::topology::mailbox::Order;

/// How often a stop looks at the time and reminds the store.
const REMIND: Duration = Duration::from_millis(50);
/// How long the last ones who are told to go may take to be gone, and that to be reported.
const DISPERSED: Duration = Duration::from_millis(1_500);
/// How long the reason of another thread is waited for, when one has ended without having been told to and has none.
const REASON_PATIENCE: Duration = Duration::from_secs(2);

impl Running {
    /// Waits until every shard listens.
    pub(super) fn await_listening(&mut self, listening: &Receiver<ShardId>, shards: usize) -> Result<(), ServeError> {
        for _ in 0..shards {
            select! {
                // Nothing comes from a shard that has ended before it could listen: its report says why.
                recv(listening) -> shard => if shard.is_err() {
                    return Err(unexpected(self.ended.recv().ok(), &self.ended));
                },
                recv(self.ended) -> ended => return Err(unexpected(ended.ok(), &self.ended)),
            }
        }
        Ok(())
    }

    /// Waits until somebody wants the process to stop, or a thread ends by itself; meanwhile watches memory, and reads the settings again when
    /// somebody wants that.
    pub(super) fn await_stop(&mut self, live: &mut Live<'_>, memory: &mut MemoryWatch) -> Result<(), ServeError> {
        let looks = tick(Duration::from_millis(MEMORY_LOOK_MS));
        let mut reloads = self.reloads.clone();
        loop {
            select! {
                recv(self.stops) -> _ => return Ok(()),
                recv(self.ended) -> ended => return Err(unexpected(ended.ok(), &self.ended)),
                recv(looks) -> _ => self.watch_memory(memory),
                recv(reloads) -> reload => match reload {
                    Ok(signal) => live.follow(self, signal),
                    // Control has ended, and says so itself.
                    Err(_) => reloads = never(),
                },
            }
        }
    }

    /// Lets load balancers know before anybody is sent away: `/readyz` says no, and everything else goes on. A second signal
    /// ends it.
    pub(super) fn notice(&mut self, notice_s: u32, memory: &mut MemoryWatch) -> Result<(), ServeError> {
        if notice_s == 0 {
            return Ok(());
        }
        tracing::info!(notice_s, "stopping soon: /readyz says so, and clients are served meanwhile");
        self.stage.send_replace(Stage::Leaving);
        let (over, looks) = (after(Duration::from_secs(notice_s.into())), tick(Duration::from_millis(MEMORY_LOOK_MS)));
        loop {
            select! {
                recv(self.stops) -> _ => return Ok(()),
                recv(self.ended) -> ended => return Err(unexpected(ended.ok(), &self.ended)),
                recv(looks) -> _ => self.watch_memory(memory),
                recv(over) -> _ => return Ok(()),
            }
        }
    }

    /// Where other nodes take them, sends clients there one after another, each served until its turn. A second signal ends
    /// it.
    pub(super) fn disperse(&mut self, spread_s: u32, memory: &mut MemoryWatch) -> Result<(), ServeError> {
        let Population { others, connections } = *self.population.borrow();
        if spread_s == 0 || others == 0 || connections == 0 {
            return Ok(());
        }
        tracing::info!(
            spread_s,
            connections,
            nodes = others,
            "clients are told one after another to go to other nodes"
        );
        self.stage.send_replace(Stage::Leaving);
        for orders in &self.orders {
            if orders.put(Order::Disperse).is_err() {
                tracing::error!("a shard did not take the order to send clients to other nodes");
            }
            orders.wake();
        }
        // What is reported may be as old as that.
        let over = after(Duration::from_secs(spread_s.into()) + DISPERSED);
        let (ticks, looks) = (tick(REMIND), tick(Duration::from_millis(MEMORY_LOOK_MS)));
        loop {
            select! {
                recv(self.stops) -> _ => return Ok(()),
                recv(self.ended) -> ended => return Err(unexpected(ended.ok(), &self.ended)),
                recv(looks) -> _ => self.watch_memory(memory),
                recv(over) -> _ => return Ok(()),
                recv(ticks) -> _ => if self.population.borrow().connections == 0 {
                    return Ok(());
                },
            }
        }
    }

    /// Stops every thread in order. A second signal, or the time, ends it early, with an error.
    pub(super) fn stop(mut self, timeout_s: u32) -> Result<(), ServeError> {
        self.stage.send_replace(Stage::Draining);
        for orders in &self.orders {
            if orders.put(Order::Drain).is_err() {
                tracing::error!("a shard did not take the order to drain");
            }
            orders.wake();
        }
        let ticks = tick(REMIND);
        let mut ticks_left = u64::from(timeout_s) * 1_000 / REMIND.as_millis() as u64;
        while !self.threads.is_empty() {
            select! {
                recv(self.ended) -> ended => self.ended_in_order(ended.ok())?,
                recv(self.stops) -> _ => return Err(self.incomplete("a second signal")),
                recv(ticks) -> _ => {
                    // The store looks who is left each time: whoever ended last did not know to be the last.
                    self.store_wake.notify_one();
                    ticks_left = ticks_left.saturating_sub(1);
                    if ticks_left == 0 {
                        return Err(self.incomplete("drain.timeout_s is over"));
                    }
                }
            }
        }
        tracing::info!("stopped: everything acknowledged is on disk");
        Ok(())
    }

    fn ended_in_order(&mut self, ended: Option<Ended>) -> Result<(), ServeError> {
        match ended {
            Some(Ended { thread, outcome: Ok(()) }) => {
                self.threads.retain(|name| *name != thread);
                self.store_wake.notify_one();
                Ok(())
            }
            other => Err(unexpected(other, &self.ended)),
        }
    }

    fn incomplete(&self, why: &'static str) -> ServeError {
        let shards_left = self.threads.iter().any(|name| name.starts_with("shard"));
        let consequence = match shards_left {
            true => "Clients that were not told reconnect by themselves; what was acknowledged is in the journal",
            false => "What was acknowledged is in the journal, and goes into the store at the next start",
        };
        ServeError::StopIncomplete { why, threads: self.threads.join(", "), consequence }
    }
}

/// Who has ended and why. A thread that has no reason has mostly ended because another has, and may be heard of before that
/// one: whose error comes a moment later is the one to be told of.
fn unexpected(first: Option<Ended>, others: &Receiver<Ended>) -> ServeError {
    let Some(Ended { thread: first, outcome }) = first else {
        return ServeError::ThreadEnded("unknown".to_owned(), Box::new(NoReason));
    };
    if let Err(error) = outcome {
        return ServeError::ThreadEnded(first, error);
    }
    let patience = after(REASON_PATIENCE);
    loop {
        select! {
            recv(others) -> ended => match ended {
                Ok(Ended { thread, outcome: Err(error) }) => return ServeError::ThreadEnded(thread, error),
                Ok(Ended { outcome: Ok(()), .. }) => {}
                Err(_) => return ServeError::ThreadEnded(first, Box::new(NoReason)),
            },
            recv(patience) -> _ => return ServeError::ThreadEnded(first, Box::new(NoReason)),
        }
    }
}

#[cfg(test)]
mod tests;
