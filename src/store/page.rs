//! How rows become a page: in order, without a hole, within limits.
//!
//! Used on the store's thread by every database and by the unapplied tail, so that both keep the same rules.
//! What always holds: the rows of a page follow one another without a hole; only before the first may some be
//! missing, and then `gap_to` says so.

use std::sync::Arc;

use crate::contract::message::Message;
use crate::contract::store::Page;
use ringway_wire::ids::Seq;

/// A page while it is filled.
#[derive(Debug)]
pub(crate) struct Assembly {
    page: Page,
    /// The seq that follows without a hole.
    next: Seq,
    rows_max: usize,
    bytes_max: usize,
    bytes: usize,
}

impl Assembly {
    /// An empty page of rows after `after`: at most `rows_max`, and no more once the bodies reach `bytes_max`.
    pub(crate) fn new(after: Seq, rows_max: usize, bytes_max: usize) -> Self {
        Assembly { page: Page::default(), next: after.next(), rows_max, bytes_max, bytes: 0 }
    }

    /// Goes on with a page that already has rows, under the same limits.
    pub(crate) fn resume(page: Page, after: Seq, rows_max: usize, bytes_max: usize) -> Self {
        let next = page.rows.last().map(|(seq, _)| *seq).max(page.gap_to).unwrap_or(after).next();
        let bytes = page.rows.iter().map(|(_, message)| message.push.body().len()).sum();
        Assembly { page, next, rows_max, bytes_max, bytes }
    }

    /// Nothing more fits.
    pub(crate) fn is_full(&self) -> bool {
        self.page.rows.len() >= self.rows_max || self.bytes >= self.bytes_max
    }

    /// The row may be pushed: there is room, and no hole before it (but before a page's first row).
    pub(crate) fn wants(&self, seq: Seq) -> bool {
        !self.is_full() && (seq == self.next || (self.page.rows.is_empty() && seq > self.next))
    }

    /// Adds a row that [`Self::wants`] said yes to.
    pub(crate) fn push(&mut self, seq: Seq, message: Arc<Message>) {
        debug_assert!(self.wants(seq), "a row that leaves a hole, or one too many");
        if seq > self.next {
            self.page.gap_to = Some(Seq(seq.0 - 1));
        }
        self.next = seq.next();
        self.bytes += message.push.body().len();
        self.page.rows.push((seq, message));
    }

    /// Counts a row whose message is no longer kept as missing. Says whether the page may go on behind it.
    pub(crate) fn skip(&mut self, seq: Seq) -> bool {
        let first = self.page.rows.is_empty();
        if first {
            self.page.gap_to = Some(seq);
            self.next = seq.next();
        }
        first
    }

    /// The last row so far, or what the page starts after.
    pub(crate) fn last(&self) -> Seq {
        Seq(self.next.0 - 1)
    }

    /// The page.
    pub(crate) fn finish(self) -> Page {
        self.page
    }
}
