//! What becomes of a message before it is numbered: it is refused, answered as a repeat, or waits, for the store's answer or
//! for what its sender sent before.
//!
//! Owned by the ledger's thread; both engines use it, each with its own moments ([`Pending`]). What always holds: those whose
//! messages can be gone on with have turns of one message each, so that a thousand of one do not go before one of another; who cannot
//! be answered because the store is away is refused together with all that waits behind it, so that a client that sends
//! again keeps its order. Whether what the store does not have is new is the engine's to say.

use std::collections::{HashSet, VecDeque};

use super::answers::{Answers, Refusal};
use super::dedup::{Known, named_ms};
use super::ledger_clock::LedgerClock;
use super::pending::{Answered, Parked, Pending, Released, Wait};
use crate::contract::keyed::TableKey;
use crate::contract::message::Incoming;
use crate::contract::store::{Lookup, LookupFound, StoredMessage};
use crate::contract::submission::MessageSubmission;
use ringway_wire::ids::UserId;
use ringway_wire::limits::BODY_BYTES_MAX;
use ringway_wire::schema::ErrorCode;

/// What waits, and whose turn has come.
#[derive(Debug)]
pub(crate) struct Admission<M> {
    pending: Pending<M>,
    /// Senders for whom the store has answered, and whose messages have not all been gone on with; each is in it once.
    releasing: VecDeque<UserId>,
    is_releasing: HashSet<UserId, TableKey>,
}

/// A message whose turn has come.
#[derive(Debug)]
pub(crate) enum Turn<M> {
    /// It was answered.
    Over,
    /// The store was not asked: it is judged like one that comes, before all that waits.
    Unasked(MessageSubmission),
    /// The store did not have it when it was asked, at this moment.
    NotStored(MessageSubmission, M),
}

/// The time in a message's name, Unix milliseconds, if the message may have it at the ledger's time. An error: it is
/// refused as it is.
pub(crate) fn named_at(incoming: &Incoming, time_ms: u64, clock: &LedgerClock) -> Result<u64, Refusal> {
    if incoming.body().len() > BODY_BYTES_MAX {
        return Err(Refusal::Code(ErrorCode::BodyTooLarge));
    }
    named_ms(&incoming.client_msg_id, time_ms).map_err(|code| match code {
        // The name may be of the time that is not believed yet.
        ErrorCode::ClientMsgIdAhead if clock.is_unverified() => Refusal::RetryLater,
        code => Refusal::Code(code),
    })
}

impl<M: Copy> Admission<M> {
    /// Nobody waits.
    pub(crate) fn new(seed: u64) -> Self {
        let is_releasing = HashSet::with_hasher(TableKey::new(seed ^ 2));
        Admission { pending: Pending::new(seed), releasing: VecDeque::new(), is_releasing }
    }

    /// Something of this sender waits.
    pub(crate) fn waits_for(&self, sender: UserId) -> bool {
        self.pending.waits_for(sender)
    }

    /// Somebody's turn has come.
    pub(crate) fn has_turns(&self) -> bool {
        !self.releasing.is_empty()
    }

    /// Lets a message wait, or refuses it when too many do.
    pub(crate) fn park(&mut self, submission: MessageSubmission, wait: Wait<M>, answers: &mut Answers) {
        match self.pending.park(submission, wait) {
            Ok(Parked::First) => answers.counters.lookups += 1,
            Ok(Parked::WithAnother) => {}
            Err(submission) => answers.refuse(submission.incoming.origin, Refusal::RetryLater),
        }
    }

    /// Puts a message back whose turn had come: the store has to be asked for it after all, or again.
    pub(crate) fn park_first(&mut self, submission: MessageSubmission, now: M, answers: &mut Answers) {
        let parked = self.pending.park_first(submission, now);
        answers.counters.lookups += u64::from(parked == Parked::First);
    }

    /// The store has answered.
    pub(crate) fn found(&mut self, lookup: &Lookup, found: LookupFound) {
        self.pending.answered(lookup, found);
        if self.is_releasing.insert(lookup.sender) {
            self.releasing.push_back(lookup.sender);
        }
    }

    /// The next message whose turn has come.
    pub(crate) fn next(&mut self, answers: &mut Answers) -> Option<Turn<M>> {
        let Released { submission, answered } = self.next_released()?;
        let Incoming { origin, sender, .. } = submission.incoming;
        let Some(Answered { found, asked }) = answered else { return Some(Turn::Unasked(submission)) };
        match found {
            LookupFound::Unavailable => {
                answers.refuse(origin, Refusal::RetryLater);
                self.refuse_behind(sender, answers);
            }
            // Whether it is a repeat cannot be known any more.
            LookupFound::Expired => answers.refuse(origin, Refusal::Code(ErrorCode::BadRequest)),
            LookupFound::Stored(StoredMessage { msg_id, seq, digest, .. }) => {
                answers.repeat(&submission.incoming, Known { msg_id, seq, digest });
            }
            LookupFound::Nothing => return Some(Turn::NotStored(submission, asked)),
        }
        Some(Turn::Over)
    }

    /// Refuses the next message whose turn has come, and all behind it: nothing can be numbered now.
    pub(crate) fn refuse_next(&mut self, answers: &mut Answers) -> Option<Turn<M>> {
        let Released { submission, .. } = self.next_released()?;
        let Incoming { origin, sender, .. } = submission.incoming;
        answers.refuse(origin, Refusal::RetryLater);
        self.refuse_behind(sender, answers);
        Some(Turn::Over)
    }

    fn next_released(&mut self) -> Option<Released<M>> {
        while let Some(sender) = self.releasing.pop_front() {
            if let Some(released) = self.pending.next(sender) {
                self.releasing.push_back(sender);
                return Some(released);
            }
            self.is_releasing.remove(&sender);
        }
        None
    }

    fn refuse_behind(&mut self, sender: UserId, answers: &mut Answers) {
        for behind in self.pending.refuse(sender) {
            answers.refuse(behind.incoming.origin, Refusal::RetryLater);
        }
    }

    /// Moves what the store is to be asked for to `out`.
    pub(crate) fn take_lookups(&mut self, out: &mut Vec<Lookup>) {
        self.pending.take_lookups(out);
    }
}
