//! Pages: how a session that is behind gets what it has missed, and how Sync reads history.
//!
//! Part of the shard's core. What always holds: a session has at most one catch-up page on its way, and asks for
//! one only while its outbox has room for it; the shard has at most `PAGES_IN_FLIGHT_MAX`, and those who wait
//! take turns, those who catch up before those who read history; rows go out in order, from the one after the cursor; a session is live again when its cursor is
//! the newest row, and not before; one whose rows the store cannot read is told so after `STORE_UNREADABLE_MS`, and one
//! whose page is not answered after `STORE_SILENT_MS`, since it would get nothing, not even what is new. Who reads history
//! is told to ask again after `STORE_SILENT_MS`, and stays.

use std::collections::{BTreeMap, VecDeque};

use super::Shard;
use super::session::{Flags, Phase};
use crate::clock::Now;
use crate::contract::ids::{ConnId, Origin, SessionRef};
use crate::contract::internal::{OrCount, Place};
use crate::contract::look::UserEventKind;
use crate::contract::store::{Page, PagePurpose, StoreAsk};
use crate::limits::{
    PAGES_IN_FLIGHT_MAX, RETRY_AFTER_MS, STORE_SILENT_MS, STORE_UNREADABLE_MS, SYNCS_IN_FLIGHT_MAX, SYNCS_WAITING_MAX,
};
use ringway_wire::ids::Seq;
use ringway_wire::limits::{BODY_BYTES_MAX, PAGE_BYTES_MAX, PAGE_ROWS_MAX};
use ringway_wire::request::PageEnd;
use ringway_wire::schema::{CloseReason, ErrorCode};

/// Bytes a full page takes in an outbox.
pub(super) const PAGE_OUTBOX_BYTES: usize = PAGE_BYTES_MAX + BODY_BYTES_MAX + PAGE_ROWS_MAX * 160;

/// Who waits for a page.
#[derive(Debug, Default)]
pub(super) struct Pages {
    /// Sessions that catch up, in turn, each since this monotonic time in milliseconds.
    catching_up: VecDeque<(ConnId, u64)>,
    /// Syncs, in turn: one of a session's at a time.
    syncs: VecDeque<Sync>,
    /// Asked of the store and not answered, oldest first, whether or not somebody still waits for it.
    asked: VecDeque<PageAsked>,
    /// When the last tick was, monotonic milliseconds.
    ticked_ms: u64,
    /// Asked without success, or no room in the shard: again later.
    later: Vec<ConnId>,
    /// Since when the store has been unable to read what a session needs, by slot, monotonic milliseconds.
    unreadable: BTreeMap<u32, u64>,
}

/// A page on its way.
#[derive(Clone, Copy, Debug)]
struct PageAsked {
    conn: ConnId,
    purpose: PagePurpose,
    /// Monotonic milliseconds.
    since_ms: u64,
    /// Who has read history was told to ask again: the answer is for nobody.
    is_given_up: bool,
}

/// History that a client has asked for.
#[derive(Clone, Copy, Debug)]
struct Sync {
    conn: ConnId,
    request_id: u32,
    after: Seq,
    rows_max: u16,
    /// Monotonic milliseconds.
    since_ms: u64,
}

/// Whether somebody waits for a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Awaited {
    Yes,
    /// Who asked was told to ask again.
    NoMore,
}

impl Pages {
    /// A Sync's turn: one may always be on its way, more only while nobody waits to catch up.
    fn next_sync(&mut self) -> Option<Sync> {
        let is_sync = |asked: &&PageAsked| matches!(asked.purpose, PagePurpose::Sync(_));
        let max = if self.catching_up.is_empty() { SYNCS_IN_FLIGHT_MAX } else { 1 };
        if self.syncs.is_empty() || self.asked.iter().filter(is_sync).count() >= max {
            return None;
        }
        self.syncs.pop_front()
    }
}

impl Shard {
    /// A session is behind: queues it for a page if its outbox has room for one.
    pub(super) fn want_page(&mut self, slot: u32) {
        let room = self.config.outbox_bytes_max.saturating_sub(PAGE_OUTBOX_BYTES);
        let Some(session) = self.sessions.at_mut(slot).or_count(Place::Sessions) else { return };
        let busy = session.flags.has(Flags::PAGE_ASKED) || session.flags.has(Flags::PAGE_QUEUED);
        if session.phase != Phase::Behind || busy || session.outbox_len() > room {
            return;
        }
        session.flags.set(Flags::PAGE_QUEUED);
        self.pages.catching_up.push_back((session.conn(slot), self.pages.ticked_ms));
        self.ask_pages();
    }

    /// The same, but not before a little later.
    pub(super) fn retry_page(&mut self, slot: u32) {
        let Some(session) = self.sessions.at_mut(slot).or_count(Place::Sessions) else { return };
        if session.phase == Phase::Behind && !session.flags.has(Flags::PAGE_QUEUED) {
            session.flags.set(Flags::PAGE_QUEUED);
            self.pages.later.push(session.conn(slot));
        }
    }

    /// Later has come.
    pub(super) fn retry_pages(&mut self, now: Now) {
        self.pages.ticked_ms = now.mono_ms;
        self.close_unanswered(now);
        for conn in std::mem::take(&mut self.pages.later) {
            let Some(slot) = self.slot_of(conn) else { continue };
            if let Some(session) = self.sessions.at_mut(slot).or_count(Place::Sessions) {
                session.flags.clear(Flags::PAGE_QUEUED);
            }
            self.want_page(slot);
        }
        self.ask_pages();
    }

    /// A client asks for history. False: too many wait.
    pub(super) fn want_sync(&mut self, slot: u32, request_id: u32, after: Seq, rows_max: u16) -> bool {
        if self.pages.syncs.len() >= SYNCS_WAITING_MAX {
            return false;
        }
        let Some(session) = self.sessions.at(slot).or_count(Place::Sessions) else { return false };
        let (conn, since_ms) = (session.conn(slot), self.pages.ticked_ms);
        self.pages.syncs.push_back(Sync { conn, request_id, after, rows_max, since_ms });
        self.ask_pages();
        true
    }

    /// Asks the store for the next ones in turn.
    fn ask_pages(&mut self) {
        while self.pages.asked.len() < PAGES_IN_FLIGHT_MAX {
            let ask = if let Some(Sync { conn, request_id, after, rows_max, .. }) = self.pages.next_sync() {
                self.page_ask(conn, PagePurpose::Sync(request_id), Some(after), rows_max)
            } else if let Some((conn, _)) = self.pages.catching_up.pop_front() {
                self.catch_up_ask(conn)
            } else {
                return;
            };
            if let Some((asked, ask)) = ask {
                self.pages.asked.push_back(asked);
                self.effects.asks.push_back(ask);
            }
        }
    }

    /// A page is not on its way any more.
    fn page_settled(&mut self, conn: ConnId, purpose: PagePurpose) -> Awaited {
        let is_it = |asked: &PageAsked| asked.conn == conn && asked.purpose == purpose;
        let at = self.pages.asked.iter().position(is_it).or_count(Place::Pages);
        match at.and_then(|at| self.pages.asked.remove(at)) {
            Some(PageAsked { is_given_up: true, .. }) => Awaited::NoMore,
            _ => Awaited::Yes,
        }
    }

    /// The store has not answered for long: who waits for it, or for a turn to ask it, is told to come again.
    fn close_unanswered(&mut self, now: Now) {
        let is_over = |since_ms: u64| now.mono_ms.saturating_sub(since_ms) >= STORE_SILENT_MS;
        if !self.pages.asked.front().is_some_and(|oldest| is_over(oldest.since_ms)) {
            return;
        }
        let catching_up = |asked: &&PageAsked| asked.purpose == PagePurpose::CatchUp && is_over(asked.since_ms);
        let mut over: Vec<(ConnId, u8)> =
            self.pages.asked.iter().filter(catching_up).map(|asked| (asked.conn, Flags::PAGE_ASKED)).collect();
        self.pages.catching_up.retain(|(conn, since_ms)| {
            if is_over(*since_ms) {
                over.push((*conn, Flags::PAGE_QUEUED));
            }
            !is_over(*since_ms)
        });
        for (conn, flag) in over {
            if let Some(slot) = self.slot_of(conn)
                && self
                    .sessions
                    .at(slot)
                    .is_some_and(|session| session.phase == Phase::Behind && session.flags.has(flag))
            {
                self.close(now, slot, CloseReason::StoreUnavailable);
            }
        }
        self.give_up_syncs(now);
    }

    /// The same of those who read history: they are told to ask again.
    fn give_up_syncs(&mut self, now: Now) {
        let is_over = |since_ms: u64| now.mono_ms.saturating_sub(since_ms) >= STORE_SILENT_MS;
        let mut over = Vec::new();
        for asked in self.pages.asked.iter_mut().filter(|asked| !asked.is_given_up && is_over(asked.since_ms)) {
            if let PagePurpose::Sync(request_id) = asked.purpose {
                asked.is_given_up = true;
                over.push((asked.conn, request_id));
            }
        }
        self.pages.syncs.retain(|sync| {
            if is_over(sync.since_ms) {
                over.push((sync.conn, sync.request_id));
            }
            !is_over(sync.since_ms)
        });
        for (conn, request_id) in over {
            self.counts.shed.syncs += 1;
            let origin = Origin::new(self.config.session_ref(conn), request_id);
            self.refuse_origin(now, origin, ErrorCode::RetryLater, RETRY_AFTER_MS);
        }
    }

    fn catch_up_ask(&mut self, conn: ConnId) -> Option<(PageAsked, StoreAsk)> {
        let slot = self.slot_of(conn)?;
        let has_room = self.outgoing.shard_has_room(PAGE_OUTBOX_BYTES);
        let session = self.sessions.at_mut(slot)?;
        session.flags.clear(Flags::PAGE_QUEUED);
        if session.phase != Phase::Behind {
            return None;
        }
        if !has_room {
            self.retry_page(slot);
            return None;
        }
        session.flags.set(Flags::PAGE_ASKED);
        self.page_ask(conn, PagePurpose::CatchUp, None, PAGE_ROWS_MAX as u16)
    }

    fn page_ask(
        &self,
        conn: ConnId,
        purpose: PagePurpose,
        after: Option<Seq>,
        rows_max: u16,
    ) -> Option<(PageAsked, StoreAsk)> {
        let session = self.sessions.at(self.slot_of(conn)?)?;
        let user = self.directory.at(session.user)?.id;
        let after = after.unwrap_or(session.cursor);
        let session = self.config.session_ref(conn);
        let asked = PageAsked { conn, purpose, since_ms: self.pages.ticked_ms, is_given_up: false };
        Some((asked, StoreAsk::Page { session, purpose, user, after, rows_max }))
    }

    /// The store answers.
    pub(super) fn page(&mut self, now: Now, session: SessionRef, purpose: PagePurpose, after: Seq, page: &Page) {
        let awaited = self.page_settled(session.conn, purpose);
        match purpose {
            PagePurpose::CatchUp => self.catch_up_page(now, session.conn, page),
            PagePurpose::Sync(_) if awaited == Awaited::NoMore => {}
            PagePurpose::Sync(request_id) => self.sync_page(now, Origin::new(session, request_id), after, page),
        }
        self.ask_pages();
    }

    fn catch_up_page(&mut self, now: Now, conn: ConnId, page: &Page) {
        let Some(slot) = self.slot_of(conn) else { return };
        let Some(session) = self.sessions.at_mut(slot).or_count(Place::Sessions) else { return };
        session.flags.clear(Flags::PAGE_ASKED);
        self.pages.unreadable.remove(&slot);
        if session.phase != Phase::Behind {
            return;
        }
        let before = session.cursor;
        if let Some(gap_to) = page.gap_to.filter(|gap_to| *gap_to > before) {
            let frame = self.encoder.gap(before.next(), gap_to);
            if self.outgoing.has_room(session, frame.len()) {
                self.outgoing.frame(session, slot, frame, now.mono_ms, &mut self.effects.dirty);
                session.cursor = gap_to;
                session.newest = session.newest.max(gap_to);
                self.counts.gaps_total += 1;
            }
        }
        for (seq, message) in page.rows.iter().filter(|(seq, _)| *seq > before) {
            // A row that is not the next one would leave a hole: the rest is asked for again.
            let fits = self.outgoing.has_room(session, message.push.bytes().len());
            if *seq <= session.cursor {
                continue;
            }
            if *seq != session.cursor.next() || !fits {
                break;
            }
            self.outgoing.push(session, slot, message, *seq, now.mono_ms, &mut self.effects.dirty);
            session.cursor = *seq;
            self.counts.pushes_caught_up_total += 1;
        }
        session.newest = session.newest.max(session.cursor);
        let progressed = session.cursor > before;
        let drains = session.outbox.is_some();
        self.catch_up_done(now, slot);
        if progressed {
            self.want_page(slot);
        }
        if !progressed || !drains {
            self.retry_page(slot);
        }
    }

    /// A session that has everything is live again.
    pub(super) fn catch_up_done(&mut self, now: Now, slot: u32) {
        let Some(session) = self.sessions.at_mut(slot).or_count(Place::Sessions) else { return };
        if session.phase == Phase::Behind && session.cursor >= session.newest {
            session.phase = Phase::Live;
            self.behind -= 1;
            self.forget_pages(slot);
            self.note_of_session(now, slot, UserEventKind::CaughtUp);
        }
    }

    fn sync_page(&mut self, now: Now, origin: Origin, after: Seq, page: &Page) {
        let Some(slot) = self.settle(origin) else { return };
        let Some(session) = self.sessions.at(slot).or_count(Place::Sessions) else { return };
        if self.outgoing.is_over_cap(session) {
            self.counts.shed.syncs += 1;
            self.refuse(now, slot, origin.request_id, ErrorCode::RetryLater, RETRY_AFTER_MS);
            return;
        }
        let through = page.rows.last().map(|(seq, _)| *seq).max(page.gap_to).unwrap_or(after);
        let end = if through >= session.newest { PageEnd::Newest } else { PageEnd::More };
        self.reply_large(now, slot, |encoder| {
            let rows = page.rows.iter().map(|(seq, message)| message.view(*seq));
            encoder.sync_page(origin.request_id, rows, page.gap_to, through, end)
        });
    }

    /// The store cannot be read now.
    pub(super) fn page_unreadable(&mut self, now: Now, session: SessionRef, purpose: PagePurpose) {
        if let (PagePurpose::CatchUp, Some(slot)) = (purpose, self.slot_of(session.conn))
            && self.sessions.at(slot).is_some_and(|session| session.phase == Phase::Behind)
        {
            let since_ms = *self.pages.unreadable.entry(slot).or_insert(now.mono_ms);
            if now.mono_ms.saturating_sub(since_ms) >= STORE_UNREADABLE_MS {
                self.close(now, slot, CloseReason::StoreUnavailable);
            }
        }
        self.page_unavailable(now, session, purpose);
    }

    /// A session is not behind any more, or ends.
    pub(super) fn forget_pages(&mut self, slot: u32) {
        self.pages.unreadable.remove(&slot);
    }

    /// The store had no room for the question, or cannot be read now.
    pub(super) fn page_unavailable(&mut self, now: Now, session: SessionRef, purpose: PagePurpose) {
        let awaited = self.page_settled(session.conn, purpose);
        match purpose {
            PagePurpose::Sync(_) if awaited == Awaited::NoMore => {}
            PagePurpose::CatchUp => {
                let Some(slot) = self.slot_of(session.conn) else { return };
                if let Some(session) = self.sessions.at_mut(slot).or_count(Place::Sessions) {
                    session.flags.clear(Flags::PAGE_ASKED);
                }
                self.retry_page(slot);
            }
            PagePurpose::Sync(request_id) => {
                self.counts.shed.syncs += 1;
                self.refuse_origin(now, Origin::new(session, request_id), ErrorCode::RetryLater, RETRY_AFTER_MS);
            }
        }
    }
}
