//! The groups that live on this shard: their rosters, and what waits for one: ephemeral messages, and questions for members.
//!
//! Part of the shard's core. What always holds: the ledger is the authority on rosters, and this cache follows it in its
//! order. A message that is stored does not come here: it goes to the ledger from its sender's shard, whoever sends it,
//! because only the ledger knows whether it is a repeat, and who is a member when it is numbered. What waits is bounded, for
//! each group and in all, and one account has at most `ROSTER_WAITERS_ACCOUNT_MAX` of it. Above `SHARD_ROSTERS_MAX` the
//! longest unused rosters go (second chance), and are asked for again.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Shard;
use super::index::Index;
use super::requests::text;
use super::shares::{Share, Shares};
use super::slab::Slab;
use crate::clock::Now;
use crate::contract::delivery::GroupAnnouncement;
use crate::contract::ids::{Origin, ShardId};
use crate::contract::internal::{OrCount, Place};
use crate::contract::keyed::TableKey;
use crate::contract::lane::{LaneAnswer, LaneEnvelope};
use crate::contract::message::{Incoming, Message, Roster};
use crate::contract::submission::Submission;
use crate::limits::{RETRY_AFTER_MS, ROSTER_WAITERS_ACCOUNT_MAX, ROSTER_WAITERS_MAX, ROSTER_WAITERS_SHARD_MAX};
use ringway_wire::ids::{GroupId, RosterVersion, UserId};
use ringway_wire::schema::{ErrorCode, GroupChangeKind};

/// What of the waiters may be one account's. Bodies are not counted: they are as many as that times the largest.
const WAITERS_SHARE: Share = Share { items: ROSTER_WAITERS_ACCOUNT_MAX, bytes: usize::MAX };

/// What waits for its group's roster.
#[derive(Debug)]
pub(super) enum RosterAsk {
    /// An ephemeral message of this node.
    Ephemeral(Incoming),
    Info {
        origin: Origin,
        user: UserId,
    },
    /// An ephemeral message from another node.
    Remote(Arc<Message>),
}

impl RosterAsk {
    /// Whose it is.
    fn account(&self) -> UserId {
        match self {
            RosterAsk::Ephemeral(incoming) => incoming.sender,
            RosterAsk::Info { user, .. } => *user,
            RosterAsk::Remote(message) => message.sender,
        }
    }
}

#[derive(Debug, Default)]
struct Cached {
    /// `None`: the slot is not in use.
    roster: Option<Arc<Roster>>,
    used_lately: bool,
}

impl Cached {
    fn id(&self) -> u64 {
        self.roster.as_ref().map_or(0, |roster| roster.group.0)
    }
}

/// Rosters of groups that live here, and what waits for those that are not here.
#[derive(Debug)]
pub(super) struct Rosters {
    index: Index,
    cached: Slab<Cached>,
    rosters_max: usize,
    hand: u32,
    asked: BTreeMap<GroupId, Vec<RosterAsk>>,
    /// In all of `asked`.
    waiters_count: usize,
    waiters: Shares,
}

impl Rosters {
    pub(super) fn new(rosters_max: usize, key: TableKey) -> Self {
        Rosters {
            index: Index::new(key),
            cached: Slab::new(),
            rosters_max,
            hand: 0,
            asked: BTreeMap::new(),
            waiters_count: 0,
            waiters: Shares::new(WAITERS_SHARE, Place::Rosters, key.derived(10)),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.cached.taken()
    }

    fn find(&self, group: GroupId) -> Option<u32> {
        self.index.find(group.0, |slot| self.cached.at(slot).map_or(0, Cached::id))
    }

    fn get(&mut self, group: GroupId) -> Option<Arc<Roster>> {
        let slot = self.find(group)?;
        let cached = self.cached.at_mut(slot)?;
        cached.used_lately = true;
        cached.roster.clone()
    }

    /// The ledger's roster: kept if it is newer than what is here.
    fn put(&mut self, roster: &Arc<Roster>) {
        if let Some(slot) = self.find(roster.group) {
            if let Some(current) = self.cached.at_mut(slot).and_then(|cached| cached.roster.as_mut())
                && current.version < roster.version
            {
                *current = Arc::clone(roster);
            }
            return;
        }
        while self.count() >= self.rosters_max && self.evict_one() {}
        let slot = self.cached.take();
        *self.cached.reached(slot) = Cached { roster: Some(Arc::clone(roster)), used_lately: true };
        let cached = &self.cached;
        self.index.insert(roster.group.0, slot, |slot| cached.at(slot).map_or(0, Cached::id));
    }

    /// Those who wait for a group's roster.
    fn take_waiters(&mut self, group: GroupId) -> Vec<RosterAsk> {
        let waiters = self.asked.remove(&group).unwrap_or_default();
        self.waiters_count -= waiters.len();
        waiters.iter().for_each(|ask| self.waiters.give_back(ask.account(), 0));
        waiters
    }

    /// Lets one wait for its group's roster; hands it back if there is no room, or none for its account.
    fn wait(&mut self, group: GroupId, ask: RosterAsk) -> Result<(), RosterAsk> {
        let of_group = self.asked.get(&group).map_or(0, Vec::len);
        if of_group >= ROSTER_WAITERS_MAX
            || self.waiters_count >= ROSTER_WAITERS_SHARD_MAX
            || !self.waiters.has_room(ask.account(), 0)
        {
            return Err(ask);
        }
        self.waiters_count += 1;
        self.waiters.take(ask.account(), 0);
        self.asked.entry(group).or_default().push(ask);
        Ok(())
    }

    fn remove(&mut self, group: GroupId) {
        let Some(slot) = self.find(group) else { return };
        let cached = &self.cached;
        self.index.remove(group.0, |slot| cached.at(slot).map_or(0, Cached::id));
        self.cached.reached(slot).roster = None;
        self.cached.give_back(slot);
    }

    fn evict_one(&mut self) -> bool {
        for _ in 0..2 * self.cached.high() {
            let at = self.hand;
            self.hand = (self.hand + 1) % self.cached.high().max(1);
            let Some(cached) = self.cached.at_mut(at).or_count(Place::Rosters) else { continue };
            if let Some(group) = cached.roster.as_ref().map(|roster| roster.group)
                && !std::mem::take(&mut cached.used_lately)
            {
                self.remove(group);
                return true;
            }
        }
        false
    }
}

impl Shard {
    /// Something that needs the roster of a group that lives here.
    pub(super) fn with_roster(&mut self, now: Now, group: GroupId, ask: RosterAsk) {
        // What waits goes first, though the roster has come otherwise meanwhile.
        let is_asked = self.rosters.asked.contains_key(&group);
        if let Some(roster) = self.rosters.get(group).filter(|_| !is_asked) {
            return self.roster_ask(now, &roster, ask);
        }
        if let Err(ask) = self.rosters.wait(group, ask) {
            self.counts.shed.roster_waiters += 1;
            return self.refuse_ask(now, &ask, ErrorCode::RetryLater, RETRY_AFTER_MS);
        }
        if !is_asked {
            self.effects.submissions.push_back(Submission::Roster { shard: self.config.id, group });
        }
    }

    /// The ledger's answer to a roster asked for.
    pub(super) fn roster_found(&mut self, now: Now, group: GroupId, roster: Option<&Arc<Roster>>) {
        if let Some(roster) = roster {
            self.rosters.put(roster);
        }
        let current = self.rosters.get(group);
        for ask in self.rosters.take_waiters(group) {
            match (&current, ask) {
                (Some(roster), ask) => self.roster_ask(now, roster, ask),
                (None, ask) => self.refuse_ask(now, &ask, ErrorCode::UnknownGroup, 0),
            }
        }
    }

    /// The ledger's mailbox had no room for the question.
    pub(super) fn roster_refused(&mut self, now: Now, group: GroupId) {
        for ask in self.rosters.take_waiters(group) {
            self.refuse_ask(now, &ask, ErrorCode::RetryLater, RETRY_AFTER_MS);
        }
    }

    fn roster_ask(&mut self, now: Now, roster: &Arc<Roster>, ask: RosterAsk) {
        match ask {
            RosterAsk::Info { origin, user }
                if roster.position(user).is_some() || origin.is_api(self.config.shards) =>
            {
                self.answer_anywhere(now, origin, LaneAnswer::Members(Arc::clone(roster)));
            }
            RosterAsk::Ephemeral(incoming) if roster.position(incoming.sender).is_some() => {
                self.fan_out_ephemeral(now, incoming, roster);
            }
            // Its own node has looked whether its sender is a member, perhaps in a newer roster.
            RosterAsk::Remote(message) => self.spread_ephemeral(now, Origin::NOBODY, &message, roster),
            ask @ (RosterAsk::Info { .. } | RosterAsk::Ephemeral(_)) => {
                self.refuse_ask(now, &ask, ErrorCode::NotAMember, 0);
            }
        }
    }

    /// What waited for a roster is not done.
    fn refuse_ask(&mut self, now: Now, ask: &RosterAsk, code: ErrorCode, retry_after_ms: u32) {
        match ask {
            RosterAsk::Ephemeral(Incoming { origin, .. }) | RosterAsk::Info { origin, .. } => {
                self.refuse_anywhere(now, *origin, code, retry_after_ms);
            }
            RosterAsk::Remote(_) => self.counts.shed.ephemeral += 1,
        }
    }

    /// A durable change: the group's home swaps its roster, the asker is answered, those concerned are told.
    pub(super) fn changed(&mut self, now: Now, origin: Origin, roster: &Arc<Roster>, what: &GroupAnnouncement) {
        if ShardId::of_group(roster.group, self.config.shards) == self.config.id {
            if roster.members().is_empty() {
                self.rosters.remove(roster.group);
            } else if self.rosters.find(roster.group).is_some()
                || (what.kind == GroupChangeKind::Created && origin != Origin::NOBODY)
            {
                // Who makes a group on this node is about to send to it.
                self.rosters.put(roster);
            }
        }
        self.group_ok(now, origin, roster.group, roster.version, &what.left_out);
        let (group, version, owner) = (roster.group, roster.version, roster.owner());
        let frame: Arc<[u8]> =
            self.encoder.group_changed(group, version, what.kind, what.actor, &what.users, owner).into();
        let members = roster.members().get(roster.range(self.config.id)).or_count(Place::Rosters).unwrap_or_default();
        for member in members {
            self.announce(now, member.user, &frame);
        }
        // Those who are members no more.
        let is_ours = |user: &&UserId| ShardId::of_user(**user, self.config.shards) == self.config.id;
        let gone: Vec<UserId> =
            what.users.iter().filter(is_ours).filter(|user| roster.position(**user).is_none()).copied().collect();
        for user in gone {
            self.announce(now, user, &frame);
        }
    }

    /// The ledger goes on with this roster, whatever was here.
    pub(super) fn reloaded(&mut self, group: GroupId, roster: Option<&Arc<Roster>>) {
        self.audiences.forget(group, &mut self.directory);
        if self.rosters.find(group).is_some() {
            self.rosters.remove(group);
            roster.into_iter().for_each(|roster| self.rosters.put(roster));
        }
    }

    /// Answers a change.
    pub(super) fn group_ok(
        &mut self,
        now: Now,
        origin: Origin,
        group: GroupId,
        version: RosterVersion,
        left_out: &[UserId],
    ) {
        if let Some(slot) = self.settle(origin) {
            self.reply(now, slot, |encoder| encoder.group_ok_without(origin.request_id, group, version, left_out));
        }
    }

    /// Refuses a change because of these.
    pub(super) fn not_added(&mut self, now: Now, origin: Origin, code: ErrorCode, users: &[UserId]) {
        if let Some(slot) = self.settle(origin) {
            self.reply(now, slot, |encoder| {
                encoder.error_naming(origin.request_id, code, text(code), users, now.unix_ms)
            });
            self.count_refusal(now, slot, 0);
        }
    }

    /// Tells a user's sessions of a change, where there is room: what they miss, GroupInfo tells.
    fn announce(&mut self, now: Now, user: UserId, frame: &Arc<[u8]>) {
        let mut slot = self.directory.first_session(user);
        while let Some(session) = self.sessions.at_mut(slot) {
            let next = session.next_of_user;
            if session.phase.is_open() {
                if self.outgoing.has_room(session, frame.len()) {
                    self.outgoing.shared_frame(session, slot, frame, now.mono_ms, &mut self.effects.dirty);
                } else {
                    self.counts.shed.announcements += 1;
                }
            }
            slot = next;
        }
    }

    /// Answers a session wherever it is.
    pub(super) fn answer_anywhere(&mut self, now: Now, origin: Origin, answer: LaneAnswer) {
        if origin.session.shard == self.config.id {
            self.answered(now, origin, answer);
        } else {
            self.effects.lanes.push_back((origin.session.shard, LaneEnvelope::Answer { origin, answer }));
        }
    }

    /// Refuses a request of a session wherever it is.
    pub(super) fn refuse_anywhere(&mut self, now: Now, origin: Origin, code: ErrorCode, retry_after_ms: u32) {
        self.answer_anywhere(now, origin, LaneAnswer::Refused { code, retry_after_ms });
    }
}
