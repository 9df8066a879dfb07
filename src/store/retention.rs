//! Deleting what is older than `store.retention_days`, a little at a time.
//!
//! Owned by the store's core, which takes a step when one is due. A pass first walks all inboxes and deletes old rows
//! from their beginnings, then deletes the old messages that no row refers to any more. What always holds: a user's
//! newest row stays, and its message with it, so that numbers never fall; before anything is deleted the database
//! says from where on it is complete, so that a repeat of what was deleted is refused and never stored again; and a
//! step is so small that inserts and readers do not notice. A pass that was interrupted begins anew, and finds what it
//! had deleted gone. What comes into the database late, with an old number, may lose its message before its row: such a
//! row counts as deleted. A clock that is put ahead deletes nothing: how old a message is follows from the time that has
//! passed since the clock was right.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::{Store, StoreError};
use crate::clock::Now;
use crate::contract::chain::Chain;
use crate::contract::store_counters::StoreCounters;
use crate::limits::{
    RETENTION_AGAIN_MS, RETENTION_CLOCK_AHEAD_MS, RETENTION_CLOCK_STEADY_MS, RETENTION_CLOCK_STEP_MS,
    RETENTION_PASS_EVERY_MS, RETENTION_STEP_EVERY_MS,
};
use ringway_wire::ids::{MsgId, UserId};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A database that can delete what is old.
pub trait Expire: Store {
    /// Takes a step, which goes on by itself, whether or not anybody looks at it, and beside transactions. One at a
    /// time. After an error the pass is over: the next step is [`Step::Begin`].
    fn expire(&mut self, step: Step) -> Expiring;
}

/// A step on its way.
pub(crate) type Expiring = Pin<Box<dyn Future<Output = Result<Done, StoreError>> + Send>>;

/// What a pass consists of, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A pass for messages below `cutoff`, and no higher than what is stored, begins: the database is told that they
    /// may be gone. Only one gateway at a time is in a pass.
    Begin {
        /// Older than this, as a number that no older message has.
        cutoff: MsgId,
    },
    /// Some old rows go, from the place on that the walk over all users has reached.
    Rows {
        /// As it began.
        cutoff: MsgId,
        /// Where to go on.
        walk: Walk,
    },
    /// Some old messages above `after` go that no newest row refers to.
    Messages {
        /// As it began.
        cutoff: MsgId,
        /// Where to go on.
        after: MsgId,
    },
    /// The pass is over.
    End,
}

/// What a step has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Done {
    /// The pass has begun, for messages below this number.
    Begun(MsgId),
    /// Nothing is stored, or another gateway is in a pass.
    NothingToDo,
    /// Rows are gone.
    Rows(RowsExpired),
    /// Messages are gone.
    Messages(MessagesExpired),
    /// The pass is over.
    Ended,
}

/// A walk over all users, in the database's order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Walk {
    /// Nobody was visited.
    Begin,
    /// This user was, and all before.
    After(UserId),
    /// All were.
    End,
}

/// What a step over inboxes did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowsExpired {
    /// Rows deleted.
    pub(crate) rows: u64,
    /// Where to go on.
    pub(crate) walk: Walk,
}

/// What a step over messages did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessagesExpired {
    /// Messages deleted.
    pub(crate) messages: u64,
    /// Where to go on; `None`: those were the last old ones.
    pub(crate) through: Option<MsgId>,
}

/// How late it is at least, whatever the host's clock says.
#[derive(Clone, Copy, Debug, Default)]
struct SteadyClock {
    /// The last reading that was as far from the one before as time had passed, or less.
    steady: Option<Now>,
    /// What it says counts from then on, monotonic milliseconds.
    counts_ms: u64,
    /// That it was put ahead was said.
    is_said: bool,
}

impl SteadyClock {
    /// Unix milliseconds; `None`: that is not known yet. `newest`: a message that is stored.
    fn read(&mut self, now: Now, newest: MsgId) -> Option<u64> {
        let may_be_wrong = now.unix_ms > newest.sent_at_ms() + RETENTION_CLOCK_AHEAD_MS;
        let begins_ms = if may_be_wrong { now.mono_ms + RETENTION_CLOCK_STEADY_MS } else { now.mono_ms };
        let Some(before) = self.steady else {
            (self.steady, self.counts_ms) = (Some(now), begins_ms);
            return (!may_be_wrong).then_some(now.unix_ms);
        };
        let expected_ms = before.unix_ms + now.mono_ms.saturating_sub(before.mono_ms);
        if now.unix_ms > expected_ms + RETENTION_CLOCK_STEP_MS {
            if !self.is_said {
                let ahead_ms = now.unix_ms - expected_ms;
                tracing::warn!(
                    ahead_ms,
                    "the host's clock was put ahead: until the next start messages are deleted as if it had not been"
                );
            }
            self.is_said = true;
            return (now.mono_ms >= self.counts_ms).then_some(expected_ms);
        }
        if now.unix_ms + RETENTION_CLOCK_STEP_MS < expected_ms {
            self.counts_ms = begins_ms;
        }
        (self.steady, self.is_said) = (Some(now), false);
        (now.mono_ms >= self.counts_ms).then_some(now.unix_ms)
    }
}

/// Where retention is.
pub(crate) struct Retention {
    /// How long messages are kept; `None`: for ever.
    keep_ms: Option<u64>,
    clock: SteadyClock,
    /// The next step; `None`: a pass is to begin.
    next: Option<Step>,
    running: Option<Expiring>,
    due_ms: u64,
    failing: bool,
}

impl Retention {
    /// Keeps messages so many days; 0: for ever.
    pub(crate) fn new(days: u32) -> Self {
        let keep_ms = (days > 0).then(|| u64::from(days) * DAY_MS);
        Retention { keep_ms, clock: SteadyClock::default(), next: None, running: None, due_ms: 0, failing: false }
    }

    /// From now on so many days; 0: for ever. A pass that has begun ends as it began; with 0 it ends with the step it is in.
    pub(crate) fn keep_days(&mut self, days: u32) {
        let keep_ms = (days > 0).then(|| u64::from(days) * DAY_MS);
        if std::mem::replace(&mut self.keep_ms, keep_ms) != keep_ms {
            self.due_ms = 0;
        }
    }

    /// When the next step is to be taken, or looked at, on the monotonic clock; `None`: never.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        (self.keep_ms.is_some() || self.is_in_pass()).then_some(self.due_ms)
    }

    fn is_in_pass(&self) -> bool {
        self.running.is_some() || self.next.is_some()
    }

    /// Looks at the step on its way, and takes the next, if one is due. `newest`: a message that is stored.
    pub(crate) fn step<S: Expire>(&mut self, store: &mut S, now: Now, newest: MsgId, counters: &mut StoreCounters) {
        if now.mono_ms < self.due_ms || (self.keep_ms.is_none() && !self.is_in_pass()) {
            return;
        }
        let Some(time_ms) = self.clock.read(now, newest) else {
            self.due_ms = now.mono_ms + RETENTION_AGAIN_MS;
            return;
        };
        self.due_ms = now.mono_ms + RETENTION_STEP_EVERY_MS;
        let Some(mut running) = self.running.take() else {
            let step = self.keep_ms.map_or(Step::End, |keep_ms| {
                let cutoff = MsgId::first_at(time_ms.saturating_sub(keep_ms));
                self.next.unwrap_or(Step::Begin { cutoff })
            });
            self.running = Some(store.expire(step));
            return;
        };
        // Nobody is to be woken here: it is looked at again in a moment.
        match running.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => self.running = Some(running),
            Poll::Ready(Ok(done)) => {
                self.failing = false;
                self.done(done, now, counters);
            }
            Poll::Ready(Err(error)) => {
                counters.refuse(error.cause());
                if !self.failing {
                    tracing::warn!(error = %Chain(&error), "old messages cannot be deleted now; trying again later");
                }
                // A pass begins anew: what it had remembered may be gone with a connection.
                (self.next, self.failing) = (None, true);
                self.due_ms = now.mono_ms + RETENTION_AGAIN_MS;
            }
        }
    }

    /// A step is done: what comes next, and when.
    fn done(&mut self, done: Done, now: Now, counters: &mut StoreCounters) {
        let cutoff = match self.next {
            Some(Step::Rows { cutoff, .. } | Step::Messages { cutoff, .. }) => cutoff,
            Some(Step::Begin { .. } | Step::End) | None => MsgId(0),
        };
        self.next = match done {
            Done::Begun(cutoff) => Some(Step::Rows { cutoff, walk: Walk::Begin }),
            Done::Rows(RowsExpired { rows, walk }) => {
                counters.rows_expired += rows;
                match walk {
                    Walk::End => Some(Step::Messages { cutoff, after: MsgId(0) }),
                    walk => Some(Step::Rows { cutoff, walk }),
                }
            }
            Done::Messages(MessagesExpired { messages, through }) => {
                counters.messages_expired += messages;
                through.map_or(Some(Step::End), |after| Some(Step::Messages { cutoff, after }))
            }
            Done::NothingToDo | Done::Ended => {
                counters.expiries += u64::from(done == Done::Ended);
                self.due_ms = now.mono_ms + RETENTION_PASS_EVERY_MS;
                None
            }
        };
    }
}

#[cfg(test)]
mod tests;
