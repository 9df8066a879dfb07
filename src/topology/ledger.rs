//! The ledger's thread: a blocking loop around an [`Engine`].
//!
//! It sleeps until something comes, takes what waits, commits, hands each shard its deliveries and wakes it
//! once. What always holds: a shard sees the deliveries of every commit in order and loses none, because the
//! loop waits for room in a shard's mailbox before it takes more. It ends, after a last commit, when no shard
//! can submit any more. What a message means is the engine's business.

#[cfg(test)]
mod tests;

use crossbeam_channel::{Receiver, TryRecvError, select_biased};
use std::time::Duration;

use crate::clock::Clock;
use crate::contract::delivery::Delivery;
use crate::contract::internal::{InternalErrors, OrCount, Place};
use crate::contract::policies::Rules;
use crate::contract::report::LedgerReport;
use crate::contract::report::Report;
use crate::contract::store::{Lookup, LookupAnswer, LookupFound};
use crate::contract::submission::Submission;
use crate::ledger::{Engine, LedgerError};
use crate::topology::mailbox::Slot;
use crate::topology::store::StoreSender;
use crate::topology::submissions::SubmissionInbox;

/// How often the counters are handed to control.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// The ledger's ends, on its thread.
pub(crate) struct LedgerLoop<E: Engine> {
    /// What orders and makes durable.
    pub(crate) engine: E,
    /// Its time.
    pub(crate) clock: Clock,
    /// From every shard.
    pub(crate) submissions: SubmissionInbox,
    /// From the store.
    pub(crate) found: Receiver<LookupAnswer>,
    /// Wakes the loop when something has come for the engine; never, on one machine.
    pub(crate) nudges: Receiver<()>,
    /// What clients may do, whenever that is changed.
    pub(crate) rules: Receiver<Rules>,
    /// To each shard, by its id.
    pub(crate) shards: Vec<Slot<Vec<Delivery>>>,
    /// To the API. It is not waited for: what it has no room for goes with the next commit's.
    pub(crate) api: Slot<Vec<Delivery>>,
    /// To the store.
    pub(crate) store: StoreSender,
    /// To control.
    pub(crate) reports: tokio::sync::mpsc::Sender<Report>,
}

/// Whether a shard, or the API, is left that could submit anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Submitters {
    Present,
    Gone,
}

/// What became of the look-ups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    All,
    Refused,
}

impl<E: Engine> LedgerLoop<E> {
    /// Runs until all shards have ended; returns the engine, everything it was given committed.
    pub(crate) fn run(mut self) -> Result<E, LedgerError> {
        let mut out: Vec<Vec<Delivery>> = (0..=self.shards.len()).map(|_| Vec::new()).collect();
        let mut lookups = Vec::new();
        let mut waits_for_room = 0;
        let mut reported_ms = 0;
        loop {
            let submitters = self.wait_and_take();
            self.engine.commit(self.clock.now(), &mut out)?;
            self.hand_out(&mut out, &mut waits_for_room);
            while self.ask_store(&mut lookups) == Asked::Refused {
                self.engine.commit(self.clock.now(), &mut out)?;
                self.hand_out(&mut out, &mut waits_for_room);
            }
            let now_ms = self.clock.now().mono_ms;
            if now_ms - reported_ms >= REPORT_EVERY.as_millis() as u64 || submitters == Submitters::Gone {
                reported_ms = now_ms;
                let submissions = self.submissions.len() as u64;
                let (counters, internal) = (self.engine.counters(), InternalErrors::of_this_thread());
                let report = LedgerReport { counters, submissions, waits_for_room, internal };
                // Control that is behind gets the next one.
                drop(self.reports.try_send(Report::Ledger(Box::new(report))));
            }
            if submitters == Submitters::Gone {
                return Ok(self.engine);
            }
        }
    }

    /// Sleeps until something comes, and submits what waits, up to what one commit may hold.
    fn wait_and_take(&mut self) -> Submitters {
        if self.submissions.is_empty() && self.found.is_empty() && !self.engine.has_more() {
            self.sleep();
        }
        self.submissions.awake();
        if let Ok(rules) = self.rules.try_recv() {
            self.engine.set_rules(rules);
        }
        let now = self.clock.now();
        // A shut store cannot answer: what waits for it stays unanswered, as the process ends.
        while let Ok(answer) = self.found.try_recv() {
            self.engine.found(now, answer);
        }
        let mut released = Vec::new();
        self.engine.take_released(&mut released);
        for (sender, rows) in released {
            self.submissions.charge_sender(sender, rows);
        }
        while !self.engine.full() {
            match self.submissions.next() {
                Ok(submission) => {
                    if !matches!(submission, Submission::Position { .. }) {
                        self.store.store_yield().commit_begins();
                    }
                    let rows_before = self.engine.staged_rows();
                    self.engine.submit(now, submission);
                    self.submissions.charge(self.engine.staged_rows().saturating_sub(rows_before));
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Submitters::Gone,
            }
        }
        Submitters::Present
    }

    fn sleep(&mut self) {
        select_biased! {
            // Woken, or no shard is left to wake it: the submissions tell.
            recv(self.submissions.wake) -> _ => {}
            recv(self.found) -> answer => match answer {
                Ok(answer) => self.engine.found(self.clock.now(), answer),
                // The store's thread has ended: nothing will come from it, so wait for submissions alone.
                Err(_) => self.submissions.sleep(REPORT_EVERY),
            },
            recv(self.nudges) -> nudge => match nudge {
                Ok(()) => {}
                // Who nudged has ended, and the engine knows by itself what that means.
                Err(_) => self.submissions.sleep(REPORT_EVERY),
            },
            default(REPORT_EVERY) => {}
        }
    }

    /// Hands each shard its part of the commit, and wakes it.
    fn hand_out(&self, out: &mut [Vec<Delivery>], waits_for_room: &mut u64) {
        for (slot, deliveries) in self.shards.iter().zip(out.iter_mut()) {
            if deliveries.is_empty() {
                continue;
            }
            self.store.store_yield().commit_lands();
            if let Err(deliveries) = slot.put(std::mem::take(deliveries)) {
                *waits_for_room += 1;
                slot.wake();
                // A shard that has ended in a drain has no sessions left that could miss these.
                drop(slot.put_waiting(deliveries));
            }
            slot.wake();
        }
        // Bounded by what the API may have asked: the API takes no more while that many wait for an answer.
        let answers = out.get_mut(self.shards.len()).or_count(Place::Mailbox);
        if let Some(answers) = answers.filter(|answers| !answers.is_empty()) {
            if let Err(answers_left) = self.api.put_if_received(std::mem::take(answers)) {
                *answers = answers_left;
            }
            self.api.wake();
        }
    }

    /// Passes look-ups on to the store, and tells it if the journal has grown. What the store has no room for
    /// is answered as unavailable, which the next commit hands out.
    fn ask_store(&mut self, lookups: &mut Vec<Lookup>) -> Asked {
        let mut asked = Asked::All;
        self.engine.take_lookups(lookups);
        let asks = !lookups.is_empty();
        for lookup in lookups.drain(..) {
            if self.store.look_up(lookup).is_err() {
                let answer = LookupAnswer { lookup, found: LookupFound::Unavailable };
                self.engine.found(self.clock.now(), answer);
                asked = Asked::Refused;
            }
        }
        if asks {
            self.store.wake();
        }
        if self.engine.grew() {
            self.store.grew();
        }
        asked
    }
}
