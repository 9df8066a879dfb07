//! What the ledger receives from the shards: submissions, and one wake-up a batch.
//!
//! The sending ends belong to the shards, the inbox to the ledger's thread. What always holds: a full inbox hands the
//! submission back, and so does one in which a shard has `SUBMISSIONS_BYTES_MAX` waiting; whoever submits wakes once after
//! a batch. A ledger that is woken by the first of a hundred
//! submissions commits it alone: the others then wait for two syncs instead of one.

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};

use crate::contract::ids::ShardId;
use crate::contract::internal::{OrCount, Place};
use crate::contract::keyed::TableKey;
use crate::contract::submission::Submission;
use crate::ledger::fair_queue::FairQueue;
use crate::limits::{self, FAIR_TURN_ROWS, SUBMISSIONS_BYTES_MAX};

/// A submission without a body and without a list.
const SMALL_BYTES: usize = Submission::BYTES_MIN;

/// Bytes of one shard's submissions that the ledger has taken since the start. The ledger alone writes it, and the shard
/// reads it only when it has sent so much that it must know.
#[derive(Default, Debug)]
#[repr(align(64))]
struct Taken(AtomicU64);

/// Makes the sending ends.
#[derive(Clone, Debug)]
pub(crate) struct SubmissionSenders {
    submissions: Sender<(ShardId, Submission)>,
    wake: Sender<()>,
    taken: Arc<[Taken]>,
}

impl SubmissionSenders {
    /// The one of a shard; call it once for each.
    pub(crate) fn of_shard(&self, shard: ShardId) -> SubmissionSender {
        assert!(usize::from(shard.0) < self.taken.len(), "{shard:?} submits nothing: the inbox was made without it");
        let SubmissionSenders { submissions, wake, taken } = self.clone();
        SubmissionSender { submissions, wake, taken, shard, sent_bytes: Cell::new(0), known_taken_bytes: Cell::new(0) }
    }
}

/// The sending end, one per shard. The fields go in this order: who has seen the end of the wake-ups finds the end
/// of the submissions too.
#[derive(Debug)]
pub(crate) struct SubmissionSender {
    submissions: Sender<(ShardId, Submission)>,
    wake: Sender<()>,
    taken: Arc<[Taken]>,
    shard: ShardId,
    /// Since the start.
    sent_bytes: Cell<u64>,
    /// As many as the ledger had taken at the last look.
    known_taken_bytes: Cell<u64>,
}

impl SubmissionSender {
    /// A shard's submission; a full inbox hands it back.
    pub(crate) fn submit(&self, submission: Submission) -> Result<(), Submission> {
        let bytes = submission.bytes();
        if !self.has_room(bytes) {
            return Err(submission);
        }
        self.submissions.try_send((self.shard, submission)).map_err(|refused| refused.into_inner().1)?;
        self.sent_bytes.set(self.sent_bytes.get() + bytes as u64);
        Ok(())
    }

    /// So many bytes more may wait. What is small enough is not asked: logins go on beside a flood.
    fn has_room(&self, bytes: usize) -> bool {
        let waiting = |taken: u64| (self.sent_bytes.get() - taken) as usize;
        if bytes <= SMALL_BYTES || waiting(self.known_taken_bytes.get()) + bytes <= SUBMISSIONS_BYTES_MAX {
            return true;
        }
        let taken = self.taken[usize::from(self.shard.0)].0.load(Ordering::Relaxed);
        self.known_taken_bytes.set(taken);
        waiting(taken) + bytes <= SUBMISSIONS_BYTES_MAX
    }

    /// Wakes the ledger: something was submitted.
    pub(crate) fn wake(&self) {
        // A wake-up that is on its way is as good.
        self.wake.try_send(()).ok();
    }
}

/// The receiving end. What is received waits in turns by sender: how long somebody waits does not depend on how much
/// others have sent before.
#[derive(Debug)]
pub(crate) struct SubmissionInbox {
    submissions: Receiver<(ShardId, Submission)>,
    waiting: FairQueue,
    taken: Arc<[Taken]>,
    /// For the ledger's sleep.
    pub(crate) wake: Receiver<()>,
}

impl SubmissionInbox {
    /// The next submission, if one waits.
    pub(crate) fn next(&mut self) -> Result<Submission, TryRecvError> {
        let received = self.receive();
        match (self.waiting.pop(), received) {
            (Some((shard, submission)), _) => {
                if let Some(Taken(taken)) = self.taken.get(usize::from(shard.0)).or_count(Place::Mailbox) {
                    taken.store(taken.load(Ordering::Relaxed) + submission.bytes() as u64, Ordering::Relaxed);
                }
                Ok(submission)
            }
            (None, Err(error)) => Err(error),
            (None, Ok(())) => Err(TryRecvError::Empty),
        }
    }

    /// The last one has made so many rows.
    pub(crate) fn charge(&mut self, rows: usize) {
        self.waiting.charge(rows);
    }

    /// Takes in all that was sent, as far as there is room.
    fn receive(&mut self) -> Result<(), TryRecvError> {
        while self.waiting.len() < limits::SUBMISSIONS_MAX {
            let (shard, submission) = self.submissions.try_recv()?;
            self.waiting.push(shard, submission);
        }
        Ok(())
    }

    /// Forgets a wake-up: what it was for is about to be taken.
    pub(crate) fn awake(&self) {
        self.wake.try_recv().ok();
    }

    /// Sleeps until something was submitted, all sending ends are gone, or the time is over.
    pub(crate) fn sleep(&self, time: Duration) {
        // It makes no difference which.
        self.wake.recv_timeout(time).ok();
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.submissions.len() + self.waiting.len()
    }

    /// None waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.submissions.is_empty() && self.waiting.is_empty()
    }
}

/// Makes the ledger's inbox, and what makes the sending ends of so many shards, the API counted as one.
pub(crate) fn inbox(shards: u16) -> (SubmissionInbox, SubmissionSenders) {
    let (submissions, receive_submissions) = bounded(limits::SUBMISSIONS_MAX);
    let (wake, receive_wake) = bounded(1);
    let taken: Arc<[Taken]> = (0..shards).map(|_| Taken::default()).collect();
    let inbox = SubmissionInbox {
        submissions: receive_submissions,
        waiting: FairQueue::new(TableKey::of_process().derived(9), FAIR_TURN_ROWS),
        taken: Arc::clone(&taken),
        wake: receive_wake,
    };
    (inbox, SubmissionSenders { submissions, wake, taken })
}
