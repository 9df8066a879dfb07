//! The loop of the store's thread, around a [`Keeper`].
//!
//! It runs on a tokio current_thread runtime of its own, because a database client may need one; an embedded store
//! blocks it, which nobody notices: there is no other task. What always holds: questions are answered between any
//! two transactions, so that a session that catches up waits for one at most, which is short while somebody reads, and
//! reading has its part of the time however much is to be written; no answer is dropped, so that nobody waits
//! for ever; and the loop ends, when neither shards nor ledger can ask any more, with all that is durable applied and
//! secured, or after `stop_ms`.

use std::collections::VecDeque;
use std::time::Duration;

use crossbeam_channel::{Receiver, TrySendError};
use tokio::sync::mpsc;
use tokio::time;

use crate::clock::Clock;
use crate::contract::ids::ShardId;
use crate::contract::internal::{self, Place};
use crate::contract::policies::StoreRules;
use crate::contract::store::{Lookup, LookupAnswer, StoreAnswer, StoreAsk};
use crate::contract::store_counters::StoreCounters;
use crate::journal::disk::Disk;
use crate::limits::{
    CURSORS_READ_MAX, STORE_ANSWERED_MAX, STORE_ANSWERS_MAX, STORE_LINGER_ROWS, STORE_LOOK_MS, STORE_QUIET_MS,
    STORE_READ_LATELY_MS, STORE_READER_GAP_MS, STORE_READING_MS, TRANSACTION_BYTES_MAX,
};
use crate::store::Store;
use crate::store::keeper::devices::CursorAsked;
use crate::store::keeper::pages::PageAsked;
use crate::store::keeper::{Backlog, Keeper, Turn};
use crate::store::priority::{Priority, Readers};
use crate::store::retention::Expire;
use crate::store::yielding::{self, Yielding};
use crate::topology::store::StoreInbox;

/// How often the counters are handed to control, and the longest sleep: cursors and securing go by time.
const REPORT_MS: u64 = 1_000;

/// The loop, on the store's thread.
pub(crate) struct StoreLoop<S: Store, D: Disk> {
    /// What applies and answers.
    pub(crate) keeper: Keeper<S, D>,
    /// What connects it to the others.
    pub(crate) ends: StoreEnds,
    /// What the thread claims of its CPU.
    pub(crate) priority: Priority,
    /// Since when a transaction has been on its way, or made ready.
    writing_since_us: Option<u64>,
}

/// What connects the store to the others, whatever its database.
pub(crate) struct StoreEnds {
    /// Its time.
    pub(crate) clock: Clock,
    /// What it receives from, and where answers go.
    pub(crate) inbox: StoreInbox,
    /// To control.
    pub(crate) report: mpsc::Sender<StoreCounters>,
    /// How long rows wait for others, and how long messages are kept.
    pub(crate) rules: StoreRules,
    /// The same when it changes.
    pub(crate) new_rules: Receiver<StoreRules>,
    /// How long applying may take at the end.
    pub(crate) stop_ms: u64,
}

/// How the loop ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stopped {
    /// All that is durable is in the database.
    Settled,
    /// The database did not take it in time: it stays in the journal, and the next start goes on there.
    Unsettled,
}

/// What became of a round of questions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    /// All that waited were answered.
    All,
    /// There may be more.
    Some,
    /// Nobody can ask any more.
    Closed,
}

/// What became of answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Handed {
    All,
    /// There was no room for the others.
    Some,
}

/// What a loop keeps from one round to the next.
#[derive(Debug, Default)]
struct Round {
    pages: Vec<PageAsked>,
    cursors: Vec<CursorAsked>,
    lookups: Vec<Lookup>,
    /// What the ledger was found and has no room for yet, oldest first.
    found: VecDeque<LookupAnswer>,
    /// Answers that a shard's mailbox had no room for, oldest first.
    unsent: VecDeque<(ShardId, StoreAnswer)>,
    /// Shards to wake, by id.
    answered: Vec<bool>,
    /// Whether somebody waited for an answer.
    readers: Readers,
    /// What lingered at the last look, and when it last grew.
    lingering: Backlog,
    grew_at_ms: u64,
    /// When the rows that linger are to be written.
    write_at_ms: Option<u64>,
    /// Since when the next transaction has waited for those who read, and when somebody was answered last.
    reading_since_ms: Option<u64>,
    read_at_ms: Option<u64>,
    reported_ms: u64,
}

impl Round {
    /// So long the next transaction waits for those who read: whoever has a page asks for the next one within moments.
    /// They have as much of the time as a short transaction takes, and no more: what is durable is applied as well.
    fn reading_ms(&mut self, now_ms: u64) -> u64 {
        if self.readers == Readers::None {
            return 0;
        }
        self.read_at_ms = Some(now_ms);
        let since_ms = *self.reading_since_ms.get_or_insert(now_ms);
        if now_ms - since_ms < STORE_READING_MS { STORE_READER_GAP_MS } else { 0 }
    }

    /// Whether somebody has read a moment ago.
    fn readers_lately(&self, now_ms: u64) -> Readers {
        match self.read_at_ms {
            Some(at_ms) if now_ms - at_ms < STORE_READ_LATELY_MS => Readers::Waited,
            _ => Readers::None,
        }
    }

    /// No answer waits for room.
    fn is_handed_over(&self) -> bool {
        self.unsent.is_empty() && self.found.is_empty()
    }
}

impl<S: Expire, D: Disk> StoreLoop<S, D> {
    /// A loop that has not begun.
    pub(crate) fn new(keeper: Keeper<S, D>, ends: StoreEnds, priority: Priority) -> Self {
        StoreLoop { keeper, ends, priority, writing_since_us: None }
    }

    /// Runs until all shards and the ledger have ended.
    pub(crate) async fn run(mut self) -> Stopped {
        let mut round = Round::default();
        let mut retry_at_ms = None;
        self.keeper.keep_days(self.ends.rules.retention_days);
        loop {
            if let Ok(rules) = self.ends.new_rules.try_recv() {
                self.ends.rules = rules;
                self.keeper.keep_days(rules.retention_days);
            }
            let asked = self.answer(&mut round).await;
            if asked == Asked::Closed {
                return self.stop().await;
            }
            let now_ms = self.ends.clock.now().mono_ms;
            self.report(now_ms, &mut round);
            let unapplied_bytes = self.keeper.backlog().map_or(0, |backlog| backlog.bytes);
            self.priority.follow(round.readers, unapplied_bytes);
            let reading_ms = round.reading_ms(now_ms);
            self.keeper.follow_readers(round.readers_lately(now_ms));
            let due_ms = match self.keeper.is_writing() {
                true => 0,
                false => self.due_in(now_ms, retry_at_ms, &mut round).max(reading_ms),
            };
            let sleep_ms = match due_ms {
                0 => match self.turn().await {
                    Turn::Applied { .. } => {
                        (retry_at_ms, round.write_at_ms, round.reading_since_ms) = (None, None, None);
                        0
                    }
                    Turn::Writing => REPORT_MS,
                    Turn::Idle => {
                        (retry_at_ms, round.write_at_ms) = (None, None);
                        REPORT_MS
                    }
                    Turn::RetryAt(at_ms) => {
                        retry_at_ms = Some(at_ms);
                        at_ms.saturating_sub(now_ms).min(REPORT_MS)
                    }
                },
                wait_ms => wait_ms.min(REPORT_MS),
            };
            self.keeper.retain(self.ends.clock.now());
            let sleep_ms = self
                .keeper
                .retain_due_ms()
                .map_or(sleep_ms, |due_ms| sleep_ms.min(due_ms.saturating_sub(now_ms).max(1)));
            if sleep_ms > 0 && asked == Asked::All {
                match unapplied_bytes == 0 && !self.keeper.is_writing() && round.is_handed_over() {
                    true => self.sleep_idle(sleep_ms).await,
                    false => self.sleep(sleep_ms.min(STORE_LOOK_MS)).await,
                }
            }
        }
    }

    /// Milliseconds until the keeper is to take its next turn. Rows linger for others to be written with them, unless
    /// there are enough already, or no more seem to come.
    fn due_in(&mut self, now_ms: u64, retry_at_ms: Option<u64>, round: &mut Round) -> u64 {
        if let Some(at_ms) = retry_at_ms {
            return at_ms.saturating_sub(now_ms);
        }
        match self.keeper.backlog() {
            Some(backlog)
                if backlog.bytes > 0 && backlog.rows < STORE_LINGER_ROWS && backlog.bytes < TRANSACTION_BYTES_MAX =>
            {
                if backlog != round.lingering {
                    round.lingering = backlog;
                    round.grew_at_ms = now_ms;
                }
                let at_most = *round.write_at_ms.get_or_insert(now_ms + self.ends.rules.linger_ms);
                at_most.min(round.grew_at_ms + STORE_QUIET_MS).saturating_sub(now_ms)
            }
            _ => 0,
        }
    }

    async fn turn(&mut self) -> Turn {
        let began_us = *self.writing_since_us.get_or_insert(self.ends.clock.mono_us());
        let turn = self.keeper.turn(self.ends.clock.now()).await;
        if matches!(turn, Turn::Applied { .. }) {
            self.keeper.applied_in(self.ends.clock.mono_us() - began_us);
        }
        if !self.keeper.is_writing() {
            self.writing_since_us = None;
        }
        turn
    }

    /// Until somebody asks, the journal has grown, or a transaction has ended; it makes no difference which.
    async fn sleep(&mut self, wait_ms: u64) {
        let something = async {
            tokio::select! {
                () = self.ends.inbox.wake.notified() => {}
                () = self.keeper.ended() => {}
            }
        };
        time::timeout(Duration::from_millis(wait_ms), something).await.ok();
    }

    /// The same while there is nothing to apply: when the journal grows it looks a little later, because now the
    /// shards are busy with what has made it grow, perhaps on this very CPU.
    async fn sleep_idle(&mut self, wait_ms: u64) {
        let inbox = &self.ends.inbox;
        tokio::select! {
            () = inbox.wake.notified() => {}
            () = inbox.grew.notified() => self.sleep(STORE_LOOK_MS).await,
            () = time::sleep(Duration::from_millis(wait_ms)) => {}
        }
    }

    /// Answers what waits, up to a limit, and wakes those who were answered.
    async fn answer(&mut self, round: &mut Round) -> Asked {
        round.answered.clear();
        round.answered.resize(self.ends.inbox.answers.len(), false);
        round.readers = Readers::None;
        for (shard, answer) in std::mem::take(&mut round.unsent) {
            self.hand_over(shard, answer, round);
        }
        // Somebody waits for these; what the thread claims after them, `follow` says.
        yielding::set(Yielding::Off);
        let mut asked = Asked::All;
        let mut others = 0;
        loop {
            if others == STORE_ANSWERED_MAX || round.cursors.len() == CURSORS_READ_MAX {
                asked = Asked::Some;
                break;
            }
            if round.unsent.len() >= STORE_ANSWERS_MAX {
                // Those who have asked so much read nothing: questions wait until they do.
                break;
            }
            match self.ends.inbox.asks.try_recv() {
                Ok(StoreAsk::Cursor { origin, user, device }) => {
                    round.cursors.push(CursorAsked { origin, user, device });
                    continue;
                }
                Ok(StoreAsk::Page { session, purpose, user, after, rows_max }) => {
                    round.pages.push(PageAsked { session, purpose, user, after, rows_max });
                }
                Ok(ask) => {
                    if let Some((shard, answer)) = self.keeper.ask(ask).await {
                        round.readers = Readers::Waited;
                        self.hand_over(shard, answer, round);
                    }
                }
                Err(refusal) => {
                    if refusal.is_disconnected() && self.ends.inbox.lookups.is_empty() {
                        asked = Asked::Closed;
                    }
                    break;
                }
            }
            others += 1;
        }
        self.answer_together(round).await;
        for (slot, answered) in std::iter::zip(&self.ends.inbox.answers, &round.answered) {
            if *answered {
                slot.wake();
            }
        }
        match self.look_up(round).await {
            Asked::Some if asked == Asked::All => Asked::Some,
            _ => asked,
        }
    }

    /// Answers look-ups of the ledger, up to a limit. What it has no room for is kept until it has, and nothing more is
    /// looked up meanwhile: what waits for an answer would wait for ever, and all that its sender sends behind it.
    async fn look_up(&mut self, round: &mut Round) -> Asked {
        if self.hand_over_found(round) == Handed::Some {
            return Asked::All;
        }
        round.lookups.extend(self.ends.inbox.lookups.try_iter().take(STORE_ANSWERED_MAX));
        if round.lookups.is_empty() {
            return Asked::All;
        }
        round.readers = Readers::Waited;
        let mut found = Vec::with_capacity(round.lookups.len());
        self.keeper.lookups(&round.lookups, &mut found).await;
        round.lookups.clear();
        round.found.extend(found);
        match self.hand_over_found(round) == Handed::All && !self.ends.inbox.lookups.is_empty() {
            true => Asked::Some,
            false => Asked::All,
        }
    }

    fn hand_over_found(&self, round: &mut Round) -> Handed {
        while let Some(answer) = round.found.pop_front() {
            match self.ends.inbox.found.try_send(answer) {
                // Without the ledger nobody waits for it.
                Ok(()) | Err(TrySendError::Disconnected(_)) => {}
                Err(TrySendError::Full(answer)) => {
                    round.found.push_front(answer);
                    return Handed::Some;
                }
            }
        }
        Handed::All
    }

    /// Cursors are read together, and pages are: a database elsewhere is asked once for all of those, and reads several
    /// of these at once.
    async fn answer_together(&mut self, round: &mut Round) {
        if round.pages.is_empty() && round.cursors.is_empty() {
            return;
        }
        round.readers = Readers::Waited;
        let mut answers = Vec::with_capacity(round.cursors.len() + round.pages.len());
        self.keeper.cursors(&round.cursors, &mut answers).await;
        round.cursors.clear();
        if !round.pages.is_empty() {
            self.keeper.pages(&round.pages, &mut answers).await;
            round.pages.clear();
        }
        for (shard, answer) in answers {
            self.hand_over(shard, answer, round);
        }
    }

    /// Puts an answer into its shard's mailbox. One that finds no room there is kept until it does: the session that
    /// waits for it asks for nothing else meanwhile.
    fn hand_over(&self, shard: ShardId, answer: StoreAnswer, round: &mut Round) {
        let at = usize::from(shard.0);
        if let (Some(slot), Some(answered)) = (self.ends.inbox.answers.get(at), round.answered.get_mut(at)) {
            if let Err(answer) = slot.put_if_received(answer) {
                round.unsent.push_back((shard, answer));
            }
            *answered = true;
        } else {
            internal::count(Place::Store);
        }
    }

    fn report(&self, now_ms: u64, round: &mut Round) {
        if now_ms.saturating_sub(round.reported_ms) >= REPORT_MS {
            round.reported_ms = now_ms;
            // Control that is behind gets the next one.
            self.ends.report.try_send(self.keeper.counters()).ok();
        }
    }

    /// Applies what is left.
    async fn stop(mut self) -> Stopped {
        self.priority.hurry();
        self.keeper.follow_readers(Readers::None);
        let deadline_ms = self.ends.clock.now().mono_ms + self.ends.stop_ms;
        let mut stopped = Stopped::Unsettled;
        loop {
            let turn = self.turn().await;
            let now_ms = self.ends.clock.now().mono_ms;
            match turn {
                Turn::Idle => {
                    if self.keeper.save_cursors().await.is_ok() && !self.keeper.is_settled() && now_ms < deadline_ms {
                        continue;
                    }
                    if self.keeper.is_settled() {
                        stopped = Stopped::Settled;
                    }
                    break;
                }
                _ if now_ms >= deadline_ms => break,
                Turn::Applied { .. } => {}
                Turn::Writing => {
                    let wait = Duration::from_millis(deadline_ms - now_ms);
                    // Not ended in time: the journal has it, and the next start asks what became of it.
                    time::timeout(wait, self.keeper.ended()).await.ok();
                }
                Turn::RetryAt(at_ms) => {
                    let wait_ms = at_ms.min(deadline_ms).saturating_sub(now_ms);
                    time::sleep(Duration::from_millis(wait_ms.max(1))).await;
                }
            }
        }
        self.keeper.secure(self.ends.clock.now()).await;
        self.ends.report.try_send(self.keeper.counters()).ok();
        stopped
    }
}

#[cfg(test)]
mod tests;
