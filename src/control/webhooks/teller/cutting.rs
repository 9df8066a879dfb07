//! From the journal to requests: what is due, who is offline, what goes together.

use std::collections::{BTreeMap, HashSet};

use ringway_wire::ids::UserId;

use super::{Cut, Interrupt, Teller};
use crate::api::dispatch::{Answer, Question};
use crate::api::problem::Problem;
use crate::clock::Now;
use crate::contract::ids::ShardId;
use crate::control::Stage;
use crate::control::webhooks::endpoints::EventKind;
use crate::control::webhooks::events::{
    EventBatch, ToldUpTo, id_of_change, id_of_message, id_of_sent, of_change, of_message, of_sent,
};
use crate::control::webhooks::feed::{FedMessage, FeedContent, FeedItem};
use crate::control::webhooks::kept::KeptBatch;
use crate::limits::{API_PRESENCE_MAX, WEBHOOK_LINGER_MS, WEBHOOK_LOOK_MS};

/// How long an answer who is online is good for.
const PRESENCE_MS: u64 = 100;

/// What came of one item.
enum Taken {
    /// All of it is in the batch, or need not be.
    Whole,
    /// The batch takes no more; so many recipients are done with.
    Full(usize),
    /// It is not known of a recipient whether he is online; those before are done with.
    Unknown(usize),
}

impl Teller {
    /// The next request. Waits until there is something for one, and then a little for more.
    pub(super) async fn cut(&mut self) -> Result<Cut, Interrupt> {
        let mut batch: Option<EventBatch> = None;
        loop {
            let now = self.around.clock.now();
            let wait_ms = match self.next_item() {
                Err(error) => return Ok(Err(error)),
                Ok(Some((item, done))) => {
                    let due_ms = self.due_ms(&item).saturating_sub(now.unix_ms).min(self.endpoint.grace_ms);
                    if due_ms == 0 {
                        match self.take(item, done, &mut batch, now).await? {
                            Some(to) => return Ok(Ok(finished(batch, to))),
                            None => continue,
                        }
                    }
                    self.current = Some((item, done));
                    due_ms.min(WEBHOOK_LOOK_MS)
                }
                Ok(None) => WEBHOOK_LOOK_MS,
            };
            let lingers_ms = batch.as_ref().map(|batch| (batch.cut_ms + WEBHOOK_LINGER_MS).saturating_sub(now.unix_ms));
            let to = match &self.current {
                Some((item, recipients)) => ToldUpTo { at: item.at, recipients: *recipients },
                None => ToldUpTo { at: self.feed.position(), recipients: 0 },
            };
            match lingers_ms {
                Some(0) => return Ok(Ok(finished(batch, to))),
                Some(ms) => self.wait(wait_ms.min(ms)).await?,
                None => {
                    self.told_so_far(to);
                    self.show();
                    self.wait(wait_ms).await?;
                }
            }
        }
    }

    /// The request that was being told, again; nothing, if the journal no longer has it.
    pub(super) fn cut_again(&mut self, kept: &KeptBatch) -> Cut {
        let (from, to) = (self.kept.told(), kept.to());
        let ids: HashSet<&str> = kept.ids.iter().map(String::as_str).collect();
        let mut batch = EventBatch::new(kept.kind, kept.cut_ms);
        self.current = None;
        self.feed.seek(from.at);
        let durable = self.around.source.progress.durable();
        while let Some(at) = self.feed.peek(durable)?.front().map(|item| item.at)
            && (ToldUpTo { at, recipients: 0 }) < to
        {
            let Some(item) = self.feed.take() else { break };
            match &item.what {
                FeedContent::Message(message) if kept.kind == EventKind::MessageOffline => {
                    for (user, seq) in &message.recipients {
                        let id = id_of_message(message, *user);
                        if ids.contains(id.as_str()) {
                            let (event, bytes) = of_message(message, *user, *seq, self.endpoint.bodies);
                            batch.push(id, event, bytes);
                        }
                    }
                }
                FeedContent::Message(message) if kept.kind == EventKind::MessageSent => {
                    let id = id_of_sent(message);
                    if ids.contains(id.as_str()) {
                        let (event, bytes) = of_sent(message, self.endpoint.bodies);
                        batch.push(id, event, bytes);
                    }
                }
                FeedContent::Change(change) if kept.kind == EventKind::GroupChanged => {
                    let id = id_of_change(change);
                    if ids.contains(id.as_str()) {
                        let (event, bytes) = of_change(change);
                        batch.push(id, event, bytes);
                    }
                }
                FeedContent::Mark(entry) => self.entry = *entry,
                FeedContent::Message(_) | FeedContent::Change(_) => {}
            }
        }
        self.feed.seek(to.at);
        batch.to = to;
        if batch.ids.is_empty() {
            self.kept.batch = None;
            self.kept.set_told(to);
            return Ok(None);
        }
        Ok(Some(batch))
    }

    /// The first that was not taken, and how many of its recipients are done with.
    fn next_item(&mut self) -> Result<Option<(FeedItem, usize)>, crate::journal::JournalError> {
        if let Some(current) = self.current.take() {
            return Ok(Some(current));
        }
        self.feed.peek(self.around.source.progress.durable())?;
        let told = self.kept.told();
        Ok(self.feed.take().map(|item| {
            let done = if item.at == told.at { told.recipients } else { 0 };
            (item, done)
        }))
    }

    /// When an item may be told, Unix milliseconds.
    fn due_ms(&self, item: &FeedItem) -> u64 {
        match &item.what {
            FeedContent::Message(message) if self.tells(EventKind::MessageOffline) => {
                message.msg_id.sent_at_ms() + self.endpoint.grace_ms
            }
            _ => 0,
        }
    }

    fn tells(&self, kind: EventKind) -> bool {
        self.endpoint.events.contains(&kind)
    }

    /// Takes an item into the batch. `Some`: the batch is to be told now, and then the endpoint is so far.
    async fn take(
        &mut self,
        item: FeedItem,
        done: usize,
        batch: &mut Option<EventBatch>,
        now: Now,
    ) -> Result<Option<ToldUpTo>, Interrupt> {
        let kind = match &item.what {
            FeedContent::Mark(entry) => {
                self.entry = *entry;
                return Ok(None);
            }
            FeedContent::Message(_) if self.tells(EventKind::MessageSent) => EventKind::MessageSent,
            FeedContent::Message(_) => EventKind::MessageOffline,
            FeedContent::Change(_) => EventKind::GroupChanged,
        };
        if !self.tells(kind) {
            return Ok(None);
        }
        let here = |recipients| ToldUpTo { at: item.at, recipients };
        if batch.as_ref().is_some_and(|batch| batch.kind != kind || batch.is_full()) {
            let to = here(done);
            self.current = Some((item, done));
            return Ok(Some(to));
        }
        match &item.what {
            FeedContent::Message(message) if kind == EventKind::MessageSent => {
                let (event, bytes) = of_sent(message, self.endpoint.bodies);
                let batch = batch.get_or_insert_with(|| EventBatch::new(kind, now.unix_ms));
                batch.push(id_of_sent(message), event, bytes);
            }
            FeedContent::Message(message) => match self.take_message(message, done, batch, now) {
                Taken::Whole => {}
                Taken::Full(done) => {
                    let to = here(done);
                    self.current = Some((item, done));
                    return Ok(Some(to));
                }
                Taken::Unknown(done) => {
                    let users = self.unknown(message, done);
                    self.ask(users).await?;
                    self.current = Some((item, done));
                }
            },
            FeedContent::Change(change) => {
                let (event, bytes) = of_change(change);
                let batch = batch.get_or_insert_with(|| EventBatch::new(kind, now.unix_ms));
                batch.push(id_of_change(change), event, bytes);
            }
            FeedContent::Mark(_) => {}
        }
        Ok(None)
    }

    fn take_message(&mut self, message: &FedMessage, done: usize, batch: &mut Option<EventBatch>, now: Now) -> Taken {
        if now.mono_ms.saturating_sub(self.presence_ms) > PRESENCE_MS {
            self.presence.clear();
        }
        for (at, (user, seq)) in message.recipients.iter().enumerate().skip(done) {
            match self.presence.get(user) {
                None => return Taken::Unknown(at),
                Some(true) => {}
                Some(false) => {
                    let batch = batch.get_or_insert_with(|| EventBatch::new(EventKind::MessageOffline, now.unix_ms));
                    if batch.is_full() {
                        return Taken::Full(at);
                    }
                    let (event, bytes) = of_message(message, *user, *seq, self.endpoint.bodies);
                    batch.push(id_of_message(message, *user), event, bytes);
                }
            }
        }
        Taken::Whole
    }

    /// Of whom it is to be asked whether they are online: of this message's recipients, and of those of the next ones.
    fn unknown(&self, message: &FedMessage, done: usize) -> Vec<UserId> {
        let mut users: Vec<UserId> = message.recipients.iter().skip(done).map(|(user, _)| *user).collect();
        // What was read already costs nothing to look at.
        for item in self.feed.items() {
            if users.len() >= API_PRESENCE_MAX {
                break;
            }
            if let FeedContent::Message(message) = &item.what {
                users.extend(message.recipients.iter().map(|(user, _)| *user));
            }
        }
        users.truncate(API_PRESENCE_MAX);
        users.sort_unstable();
        users.dedup();
        users
    }

    /// Asks the shards who of these is online, on whichever node.
    async fn ask(&mut self, users: Vec<UserId>) -> Result<(), Interrupt> {
        let shards = self.around.dispatcher.shards();
        let mut by_shard: BTreeMap<ShardId, Vec<UserId>> = BTreeMap::new();
        for user in &users {
            by_shard.entry(ShardId::of_user(*user, shards)).or_default().push(*user);
        }
        let questions = by_shard.into_iter().map(|(shard, users)| Question::Online(shard, users)).collect();
        let answers = self.around.dispatcher.ask(questions).await;
        // A gateway that sends everybody away has nobody online.
        if !matches!(*self.around.stage.borrow(), Stage::Serving | Stage::Leaving) {
            return Err(Interrupt::End);
        }
        let mut online = HashSet::new();
        for answer in answers.unwrap_or_else(|problem| vec![Answer::Failed(problem)]) {
            match answer {
                Answer::Online(users) => online.extend(users),
                Answer::Failed(problem) if problem == Problem::not_serving() => return Err(Interrupt::End),
                _ => return self.wait(WEBHOOK_LOOK_MS).await,
            }
        }
        self.presence_ms = self.around.clock.now().mono_ms;
        self.presence.extend(users.into_iter().map(|user| (user, online.contains(&user))));
        Ok(())
    }
}

fn finished(batch: Option<EventBatch>, to: ToldUpTo) -> Option<EventBatch> {
    let mut batch = batch?;
    batch.to = to;
    Some(batch)
}
