//! What the ledger receives from the shards: submissions, and one wake-up a batch.
//!
//! The sending ends belong to the shards, the inbox to the ledger's thread. What always holds: a full inbox hands the
//! submission back, and so does one in which a shard has `SUBMISSIONS_BYTES_MAX` waiting, or an account of it
//! `SUBMISSIONS_ACCOUNT_BYTES_MAX`; whoever submits wakes once after a batch. A ledger that is woken by the first of a hundred
//! submissions commits it alone: the others then wait for two syncs instead of one.
//!
//! A shard's accounts are counted in `BUCKETS` by a keyed hash: a table of who has what waiting would be written by two
//! threads. Who floods fills one bucket, and of all others one in so many is in it too (as in P. McKenney, "Stochastic
//! Fairness Queueing", 1990).

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
use crate::limits::{self, FAIR_TURN_ROWS, SUBMISSIONS_ACCOUNT_BYTES_MAX, SUBMISSIONS_BYTES_MAX};
use ringway_wire::ids::UserId;

/// A submission without a body and without a list.
const SMALL_BYTES: usize = Submission::BYTES_MIN;
/// In so many a shard's accounts are counted.
const BUCKETS: usize = 256;

/// Bytes of one shard's submissions that the ledger has taken since the start, of all and of each bucket. The ledger alone
/// writes it, and the shard reads it only when it has sent so much that it must know.
#[derive(Debug)]
#[repr(align(64))]
struct Taken {
    all: AtomicU64,
    of_bucket: [AtomicU64; BUCKETS],
}

impl Default for Taken {
    fn default() -> Self {
        Taken { all: AtomicU64::new(0), of_bucket: [const { AtomicU64::new(0) }; BUCKETS] }
    }
}

impl Taken {
    /// The ledger has taken so many more.
    fn add(&self, bucket: Option<usize>, bytes: usize) {
        let of_bucket = bucket.and_then(|bucket| self.of_bucket.get(bucket));
        for taken in [Some(&self.all), of_bucket].into_iter().flatten() {
            taken.store(taken.load(Ordering::Relaxed) + bytes as u64, Ordering::Relaxed);
        }
    }
}

/// Whose share it counts in. None: a login's, or a shard's own question.
fn bucket_of(key: TableKey, submission: &Submission) -> Option<usize> {
    let user = submission.sender().filter(|_| !matches!(submission, Submission::Position { .. }))?;
    Some(key.hash(user.0) as usize % BUCKETS)
}

/// Bytes sent since the start, and as many as the ledger had taken at the last look.
#[derive(Clone, Copy, Default, Debug)]
struct Sent {
    sent: u64,
    known_taken: u64,
}

impl Sent {
    /// So many more may wait.
    fn has_room(&mut self, taken: &AtomicU64, bytes: usize, max: usize) -> bool {
        let fits = |of: &Sent| (of.sent - of.known_taken) as usize + bytes <= max;
        if !fits(self) {
            self.known_taken = taken.load(Ordering::Relaxed);
        }
        fits(self)
    }
}

/// Makes the sending ends.
#[derive(Clone, Debug)]
pub(crate) struct SubmissionSenders {
    submissions: Sender<(ShardId, Submission)>,
    wake: Sender<()>,
    taken: Arc<[Taken]>,
    key: TableKey,
}

impl SubmissionSenders {
    /// The one of a shard; call it once for each.
    pub(crate) fn of_shard(&self, shard: ShardId) -> SubmissionSender {
        assert!(usize::from(shard.0) < self.taken.len(), "{shard:?} submits nothing: the inbox was made without it");
        let SubmissionSenders { submissions, wake, taken, key } = self.clone();
        let of_bucket = [const { Cell::new(Sent { sent: 0, known_taken: 0 }) }; BUCKETS];
        SubmissionSender { submissions, wake, taken, key, shard, all: Cell::default(), of_bucket: Box::new(of_bucket) }
    }
}

/// The sending end, one per shard. The fields go in this order: who has seen the end of the wake-ups finds the end
/// of the submissions too.
#[derive(Debug)]
pub(crate) struct SubmissionSender {
    submissions: Sender<(ShardId, Submission)>,
    wake: Sender<()>,
    taken: Arc<[Taken]>,
    key: TableKey,
    shard: ShardId,
    all: Cell<Sent>,
    of_bucket: Box<[Cell<Sent>; BUCKETS]>,
}

impl SubmissionSender {
    /// A shard's submission; a full inbox hands it back.
    pub(crate) fn submit(&self, submission: Submission) -> Result<(), Submission> {
        let (bytes, bucket) = (submission.bytes(), bucket_of(self.key, &submission));
        if !self.has_room(bytes, bucket) {
            return Err(submission);
        }
        self.submissions.try_send((self.shard, submission)).map_err(|refused| refused.into_inner().1)?;
        for sent in [Some(&self.all), self.bucket(bucket)].into_iter().flatten() {
            let Sent { sent: before, known_taken } = sent.get();
            sent.set(Sent { sent: before + bytes as u64, known_taken });
        }
        Ok(())
    }

    /// So many bytes more may wait. What is small is asked of its account alone, and a login of nobody: both go on beside a
    /// flood.
    fn has_room(&self, bytes: usize, bucket: Option<usize>) -> bool {
        let taken = &self.taken[usize::from(self.shard.0)];
        let has_room = |sent: &Cell<Sent>, taken: &AtomicU64, max: usize| {
            let mut looked = sent.get();
            let has_room = looked.has_room(taken, bytes, max);
            sent.set(looked);
            has_room
        };
        let of_bucket = bucket.and_then(|bucket| taken.of_bucket.get(bucket));
        std::iter::zip(self.bucket(bucket), of_bucket)
            .all(|(sent, taken)| has_room(sent, taken, SUBMISSIONS_ACCOUNT_BYTES_MAX))
            && (bytes <= SMALL_BYTES || has_room(&self.all, &taken.all, SUBMISSIONS_BYTES_MAX))
    }

    fn bucket(&self, bucket: Option<usize>) -> Option<&Cell<Sent>> {
        bucket.and_then(|bucket| self.of_bucket.get(bucket))
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
    key: TableKey,
    /// For the ledger's sleep.
    pub(crate) wake: Receiver<()>,
}

impl SubmissionInbox {
    /// The next submission, if one waits.
    pub(crate) fn next(&mut self) -> Result<Submission, TryRecvError> {
        let received = self.receive();
        match (self.waiting.pop(), received) {
            (Some((shard, submission)), _) => {
                if let Some(taken) = self.taken.get(usize::from(shard.0)).or_count(Place::Mailbox) {
                    taken.add(bucket_of(self.key, &submission), submission.bytes());
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

    /// So many rows of this sender's were made out of turn.
    pub(crate) fn charge_sender(&mut self, sender: UserId, rows: usize) {
        self.waiting.charge_sender(sender, rows);
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
    let key = TableKey::of_process().derived(12);
    let inbox = SubmissionInbox {
        submissions: receive_submissions,
        waiting: FairQueue::new(TableKey::of_process().derived(9), FAIR_TURN_ROWS),
        taken: Arc::clone(&taken),
        key,
        wake: receive_wake,
    };
    (inbox, SubmissionSenders { submissions, wake, taken, key })
}
