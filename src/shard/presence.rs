//! Who of these users is online? Asked of each user's shard, gathered, answered in the order asked.
//!
//! Part of the shard's core. In a cluster a user's shard knows of its sessions on other nodes too (`remote_sessions.rs`), so
//! that nobody else is asked. What always holds: at most `PRESENCE_GATHERS_MAX` questions are open; one whose
//! answers do not all come within `PRESENCE_TIMEOUT_MS` is refused with `RETRY_LATER`.

use std::collections::{BTreeMap, BTreeSet};

use super::Shard;
use crate::clock::Now;
use crate::contract::ids::{Origin, ShardId};
use crate::contract::lane::{LaneAnswer, LaneEnvelope};
use crate::limits::{PRESENCE_GATHERS_MAX, PRESENCE_TIMEOUT_MS, RETRY_AFTER_MS};
use ringway_wire::ids::UserId;
use ringway_wire::schema::ErrorCode;

/// Questions whose answers are not all here. On the lanes a question goes by its number here, in place of the
/// request id.
#[derive(Debug, Default)]
pub(super) struct Gathers {
    /// By number, which is by age.
    open: BTreeMap<u32, Gather>,
    next: u32,
}

#[derive(Debug)]
struct Gather {
    origin: Origin,
    asked: Vec<UserId>,
    online: BTreeSet<UserId>,
    /// Shards that have not answered.
    missing: usize,
    expires_ms: u64,
}

impl Shard {
    /// Asks each shard for its users.
    pub(super) fn gather_presence(&mut self, now: Now, origin: Origin, asked: Vec<UserId>) {
        let mut by_home: BTreeMap<u16, Vec<UserId>> = BTreeMap::new();
        for user in &asked {
            by_home.entry(ShardId::of_user(*user, self.config.shards).0).or_default().push(*user);
        }
        let here = by_home.remove(&self.config.id.0).unwrap_or_default();
        let online: BTreeSet<UserId> = here.into_iter().filter(|user| self.is_online(*user)).collect();
        let gather =
            Gather { origin, asked, online, missing: by_home.len(), expires_ms: now.mono_ms + PRESENCE_TIMEOUT_MS };
        if gather.missing == 0 {
            return self.answer_gather(now, &gather);
        }
        if self.gathers.open.len() >= PRESENCE_GATHERS_MAX {
            self.counts.shed.presence += 1;
            return self.refuse_origin(now, origin, ErrorCode::RetryLater, RETRY_AFTER_MS);
        }
        let number = self.gathers.next;
        self.gathers.next = number.wrapping_add(1);
        self.gathers.open.insert(number, gather);
        for (shard, users) in by_home {
            let origin = Origin { request_id: number, ..origin };
            self.effects
                .lanes
                .push_back((crate::contract::ids::ShardId(shard), LaneEnvelope::Presence { origin, users }));
        }
    }

    /// A user of this shard has a session, here or on another node.
    fn is_online(&self, user: UserId) -> bool {
        self.directory.is_online(user) || self.remote_sessions.has(user)
    }

    /// Another shard asks who of its question's users is online here.
    pub(super) fn presence_asked(&mut self, origin: Origin, mut users: Vec<UserId>) {
        users.retain(|user| self.is_online(*user));
        let answer = LaneEnvelope::Answer { origin, answer: LaneAnswer::Online(users) };
        self.effects.lanes.push_back((origin.session.shard, answer));
    }

    /// One shard has answered.
    pub(super) fn gathered(&mut self, now: Now, origin: Origin, online: &[UserId]) {
        let Some(gather) = self.gathers.open.get_mut(&origin.request_id) else { return };
        gather.online.extend(online);
        gather.missing -= 1;
        if gather.missing == 0
            && let Some(gather) = self.gathers.open.remove(&origin.request_id)
        {
            self.answer_gather(now, &gather);
        }
    }

    fn answer_gather(&mut self, now: Now, gather: &Gather) {
        let Some(slot) = self.settle(gather.origin) else { return };
        let online: Vec<UserId> = gather.asked.iter().copied().filter(|user| gather.online.contains(user)).collect();
        self.reply_large(now, slot, |encoder| encoder.presence(gather.origin.request_id, &online));
    }

    /// A lane had no room for the question.
    pub(super) fn presence_refused(&mut self, now: Now, origin: Origin) {
        self.give_up_gather(now, origin.request_id);
    }

    /// Gives up what has waited too long.
    pub(super) fn expire_gathers(&mut self, now: Now) {
        let expired = |gather: &Gather| now.mono_ms >= gather.expires_ms;
        while let Some((number, _)) = self.gathers.open.iter().find(|(_, gather)| expired(gather)) {
            let number = *number;
            self.give_up_gather(now, number);
        }
    }

    fn give_up_gather(&mut self, now: Now, number: u32) {
        if let Some(gather) = self.gathers.open.remove(&number) {
            self.counts.shed.presence += 1;
            self.refuse_origin(now, gather.origin, ErrorCode::RetryLater, RETRY_AFTER_MS);
        }
    }
}
