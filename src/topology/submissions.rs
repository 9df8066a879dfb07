//! What the ledger receives from the shards: submissions, and one wake-up a batch.
//!
//! The sending ends belong to the shards, the inbox to the ledger's thread. What always holds: a full inbox hands the
//! submission back; whoever submits wakes once after a batch. A ledger that is woken by the first of a hundred
//! submissions commits it alone: the others then wait for two syncs instead of one.

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};

use crate::contract::submission::Submission;
use crate::limits;

/// The sending end, one per shard. The fields go in this order: who has seen the end of the wake-ups finds the end
/// of the submissions too.
#[derive(Clone, Debug)]
pub(crate) struct SubmissionSender {
    submissions: Sender<Submission>,
    wake: Sender<()>,
}

impl SubmissionSender {
    /// A shard's submission; a full inbox hands it back.
    pub(crate) fn submit(&self, submission: Submission) -> Result<(), Submission> {
        self.submissions.try_send(submission).map_err(TrySendError::into_inner)
    }

    /// Wakes the ledger: something was submitted.
    pub(crate) fn wake(&self) {
        // A wake-up that is on its way is as good.
        self.wake.try_send(()).ok();
    }
}

/// The receiving end.
#[derive(Debug)]
pub(crate) struct SubmissionInbox {
    submissions: Receiver<Submission>,
    /// For the ledger's sleep.
    pub wake: Receiver<()>,
}

impl SubmissionInbox {
    /// The next submission, if one waits.
    pub(crate) fn next(&self) -> Result<Submission, TryRecvError> {
        self.submissions.try_recv()
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
        self.submissions.len()
    }

    /// None waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.submissions.is_empty()
    }
}

/// Makes the ledger's inbox and a sending end.
pub(crate) fn inbox() -> (SubmissionInbox, SubmissionSender) {
    let (submissions, receive_submissions) = bounded(limits::SUBMISSIONS_MAX);
    let (wake, receive_wake) = bounded(1);
    (SubmissionInbox { submissions: receive_submissions, wake: receive_wake }, SubmissionSender { submissions, wake })
}
