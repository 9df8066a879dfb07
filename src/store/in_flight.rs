//! The transaction on its way into the database, and the one made ready meanwhile.
//!
//! Owned by the store's core. What always holds: at most one transaction is on its way, and the next begins where it
//! ends; if it fails, the next is thrown away, because what the database has must be asked first.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::names::Written;
use super::{Store, StoreError, Transaction};
use crate::contract::position::{AppliedPosition, StreamDigest};

/// What a transaction has, for the counters.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Load {
    /// Everything below is in it or in one before.
    pub(crate) applied: AppliedPosition,
    /// In a cluster: what the stream's entries are, up to there.
    pub(crate) digest: StreamDigest,
    /// Its inbox rows.
    pub(crate) rows: usize,
    /// Its messages.
    pub(crate) messages: usize,
    /// Its changes of groups.
    pub(crate) groups: usize,
}

impl Load {
    fn of(transaction: &Transaction) -> Load {
        Load {
            applied: transaction.applied,
            digest: transaction.digest,
            rows: transaction.rows.len(),
            messages: transaction.messages.len(),
            groups: transaction.groups.len(),
        }
    }
}

/// How a transaction ended.
pub(crate) type Ended = (Load, Result<Written, StoreError>);

/// See the module.
pub(crate) struct InFlight<S: Store> {
    writing: Option<(Load, S::Writing)>,
    ended: Option<Ended>,
    next: Option<(Load, S::Encoded)>,
}

impl<S: Store> Default for InFlight<S> {
    fn default() -> Self {
        InFlight { writing: None, ended: None, next: None }
    }
}

impl<S: Store> InFlight<S> {
    /// A transaction is on its way, or its end was not looked at yet.
    pub(crate) fn is_busy(&self) -> bool {
        self.writing.is_some() || self.ended.is_some()
    }

    /// The next one is ready.
    pub(crate) fn has_next(&self) -> bool {
        self.next.is_some()
    }

    /// What is on its way.
    pub(crate) fn load(&self) -> Option<Load> {
        self.writing.as_ref().map(|(load, _)| *load).or(self.ended.as_ref().map(|(load, _)| *load))
    }

    /// Makes the next one ready.
    pub(crate) fn prepare(&mut self, store: &S, transaction: Transaction) {
        debug_assert!(self.next.is_none(), "one is ready already");
        self.next = Some((Load::of(&transaction), store.encode(transaction)));
    }

    /// Sends the one that is ready on its way.
    pub(crate) fn start(&mut self, store: &mut S) {
        debug_assert!(!self.is_busy(), "one at a time");
        if let Some((load, encoded)) = self.next.take() {
            self.writing = Some((load, store.apply(encoded)));
        }
    }

    /// How the one on its way has ended, if it has.
    pub(crate) fn take_ended(&mut self) -> Option<Ended> {
        // Nobody is to be woken here: whoever waits does so in `ended`.
        let mut nobody = Context::from_waker(std::task::Waker::noop());
        if self.poll(&mut nobody).is_pending() {
            return None;
        }
        let ended = self.ended.take();
        if ended.as_ref().is_some_and(|(_, outcome)| outcome.is_err()) {
            self.next = None;
        }
        ended
    }

    /// Waits until the one on its way has ended; for ever, if there is none.
    pub(crate) async fn ended(&mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ended.is_some() {
            return Poll::Ready(());
        }
        let Some((load, writing)) = &mut self.writing else { return Poll::Pending };
        let Poll::Ready(outcome) = Pin::new(writing).poll(cx) else { return Poll::Pending };
        self.ended = Some((*load, outcome));
        self.writing = None;
        Poll::Ready(())
    }
}
