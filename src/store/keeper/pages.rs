//! Pages of inboxes, from the database and from the unapplied tail.
//!
//! What always holds: nothing is applied while pages are read, so there is no hole between what the database has and
//! what the tail has; what is in the tail alone needs no database; and in a cluster no row is said to be no longer kept
//! before the database was asked whether it went back.

use super::position::{Follows, Known};
use super::{Fault, Keeper};
use crate::contract::ids::{SessionRef, ShardId};
use crate::contract::internal::{OrCount, Place};
use crate::contract::store::{Page, PagePurpose, StoreAnswer};
use crate::journal::disk::Disk;
use crate::store::page::Assembly;
use crate::store::{PageWanted, Store};
use ringway_wire::ids::{Seq, UserId};
use ringway_wire::limits::{PAGE_BYTES_MAX, PAGE_ROWS_MAX};

/// A page that a shard asks for: see `StoreAsk::Page`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageAsked {
    /// Who reads.
    pub(crate) session: SessionRef,
    /// What for.
    pub(crate) purpose: PagePurpose,
    /// Whose inbox.
    pub(crate) user: UserId,
    /// Rows after this one.
    pub(crate) after: Seq,
    /// At most so many.
    pub(crate) rows_max: u16,
}

impl PageAsked {
    fn wanted(&self) -> PageWanted {
        let rows_max = usize::from(self.rows_max).min(PAGE_ROWS_MAX);
        PageWanted { user: self.user, after: self.after, rows_max, bytes_max: PAGE_BYTES_MAX }
    }
}

impl<S: Store, D: Disk> Keeper<S, D> {
    /// Answers shards, several at once; the answers are appended, parallel to `asked`.
    pub(crate) async fn pages(&mut self, asked: &[PageAsked], answers: &mut Vec<(ShardId, StoreAnswer)>) {
        let mut whole = self.whole_pages(asked).await;
        self.confirm_gaps(asked, &mut whole).await;
        for (asked, page) in std::iter::zip(asked, whole) {
            let PageAsked { session, purpose, after, .. } = *asked;
            let answer = match page {
                Ok(page) => {
                    self.counters.pages += 1;
                    self.counters.page_rows += page.rows.len() as u64;
                    StoreAnswer::Page { session, purpose, after, page }
                }
                Err(fault) => {
                    self.refused(&fault);
                    StoreAnswer::Unavailable { session, purpose: Some(purpose) }
                }
            };
            answers.push((session.shard, answer));
        }
    }

    /// What database and tail have of them together.
    async fn whole_pages(&mut self, asked: &[PageAsked]) -> Vec<Result<Page, Fault>> {
        let read = match self.read_pages(asked).await {
            Ok(read) => read,
            Err(fault) => {
                let others = std::iter::repeat_with(|| Err(Fault::Unavailable));
                std::iter::once(Err(fault)).chain(others).take(asked.len()).collect()
            }
        };
        std::iter::zip(asked, read)
            .map(|(asked, stored)| stored.and_then(|stored| self.with_tail(asked, stored)))
            .collect()
    }

    /// In a cluster: what a database lacks because it went back a moment ago is applied to it again, by whichever node
    /// has it, and is not to be called gone. So a page with a gap counts only if it has one again when it is read between
    /// two looks that find the database where it was thought to be; else it is asked for again.
    async fn confirm_gaps(&mut self, asked: &[PageAsked], pages: &mut [Result<Page, Fault>]) {
        let has_gap = |page: &Result<Page, Fault>| page.as_ref().is_ok_and(|page| page.gap_to.is_some());
        let unverified: Vec<usize> = (0..).zip(&*pages).filter(|(_, page)| has_gap(page)).map(|(at, _)| at).collect();
        if self.follows == Follows::Alone || unverified.is_empty() {
            return;
        }
        let mut again = Vec::new();
        if self.is_where_it_was().await && self.holes.is_none() {
            let asked: Vec<PageAsked> = unverified.iter().filter_map(|at| asked.get(*at).copied()).collect();
            again = self.whole_pages(&asked).await;
        }
        if again.iter().any(has_gap) && !self.is_where_it_was().await {
            again.iter_mut().filter(|page| has_gap(page)).for_each(|page| *page = Err(Fault::Unavailable));
        }
        let mut again = again.into_iter();
        for at in unverified {
            if let Some(page) = pages.get_mut(at).or_count(Place::Store) {
                *page = again.next().unwrap_or(Err(Fault::Unavailable));
            }
        }
    }

    /// Asks the database how far it is: whether it is known not to have gone back.
    async fn is_where_it_was(&mut self) -> bool {
        let put_back = self.counters.put_back;
        !self.in_flight.is_busy() && {
            self.position = Known::Unverified;
            self.settle().await.is_ok() && self.counters.put_back == put_back
        }
    }

    /// What the database has of them; `None`: the tail has all that was asked for.
    async fn read_pages(&mut self, asked: &[PageAsked]) -> Result<Vec<Result<Option<Page>, Fault>>, Fault> {
        self.prepare_read().await?;
        let mut pages = Vec::with_capacity(asked.len());
        let (mut wanted, mut places) = (Vec::new(), Vec::new());
        for (place, asked) in asked.iter().enumerate() {
            let in_tail = self.tail.covers(asked.user, asked.after)?;
            if !in_tail && !self.reads_unavailable {
                wanted.push(asked.wanted());
                places.push(place);
            }
            pages.push(if in_tail { Ok(None) } else { Err(Fault::Unavailable) });
        }
        if !wanted.is_empty() {
            let stored = self.store.pages(&wanted, &mut self.messages).await;
            for (place, stored) in std::iter::zip(places, stored) {
                if let Some(page) = pages.get_mut(place).or_count(Place::Store) {
                    *page = stored.map(Some).map_err(Fault::Store);
                }
            }
        }
        Ok(pages)
    }

    fn with_tail(&mut self, asked: &PageAsked, stored: Option<Page>) -> Result<Page, Fault> {
        let PageWanted { user, after, rows_max, bytes_max } = asked.wanted();
        let mut assembly = match stored {
            Some(stored) => Assembly::resume(stored, after, rows_max, bytes_max),
            None => Assembly::new(after, rows_max, bytes_max),
        };
        self.tail.fill(user, &mut assembly, &mut self.messages)?;
        Ok(assembly.finish())
    }
}
