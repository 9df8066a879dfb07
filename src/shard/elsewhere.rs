//! The sessions of this shard's users on other nodes, as those tell of them, and what they are told of the sessions here.
//!
//! Part of the shard's core. Every node knows all sessions of the cluster, each shard those of its users: 40 bytes and an
//! index entry for each. So a login waits for nobody, a Presence request and a device policy look at home only, and what
//! it costs is an announcement per login and logout, a batch each tick. What always holds: news leave in the order in
//! which things happened; what was heard of a node under an earlier stamp than its `valid_from` counts as ended, at once,
//! however long it takes to sweep it away; what cannot be kept until it is told makes the shard tell everything again.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Shard;
use super::group::RosterAsk;
use super::index::Index;
use super::session::NIL;
use super::slab::{Chunked, Slab};
use crate::clock::Now;
use crate::contract::ids::Origin;
use crate::contract::internal::{OrCount, Place};
use crate::contract::keyed::TableKey;
use crate::contract::message::Message;
use crate::contract::nodes::{FromNodes, Reach, SessionNews, Telling, ToNodes};
use crate::limits::{SESSION_NEWS_MAX, SESSION_NEWS_PER_TICK_MAX, SESSIONS_ELSEWHERE_MAX, SESSIONS_SWEPT_PER_TICK_MAX};
use ringway_wire::ids::{Conversation, DeviceId, UserId};

/// A session on another node.
#[derive(Debug, Default)]
pub(super) struct There {
    user: UserId,
    pub(super) device: DeviceId,
    pub(super) since_ms: u64,
    /// Under which it was heard of last.
    stamp: u32,
    /// The user's next, `NIL` at the end.
    next: u32,
    pub(super) node: u16,
    is_taken: bool,
}

const _: () = assert!(size_of::<There>() <= 40, "half a million sessions are 20 MB");

/// Telling all sessions.
#[derive(Clone, Copy, Debug)]
struct Walk {
    number: u32,
    /// The next slot.
    at: u32,
}

/// Sessions there, and news of those here.
#[derive(Debug)]
pub(super) struct Elsewhere {
    /// By user: the first of its sessions there.
    index: Index,
    there: Slab<There>,
    /// By node: the first stamp that counts.
    valid_from: Vec<u32>,
    /// Slots below it are still to be looked at since a node was forgotten.
    unswept: u32,
    /// When each session here began, by slot.
    since_ms: Chunked<u64>,
    /// What is to be told.
    telling: VecDeque<Telling>,
    /// More has happened than was kept.
    is_incomplete: bool,
    walk: Option<Walk>,
}

impl Elsewhere {
    pub(super) fn new(key: TableKey) -> Self {
        Elsewhere {
            index: Index::new(key),
            there: Slab::new(),
            valid_from: Vec::new(),
            unswept: 0,
            since_ms: Chunked::new(),
            telling: VecDeque::new(),
            is_incomplete: false,
            walk: None,
        }
    }

    /// How many sessions are held, those not swept yet too.
    pub(super) fn count(&self) -> usize {
        self.there.taken()
    }

    /// The user has a session there.
    pub(super) fn has(&self, user: UserId) -> bool {
        self.of(user).next().is_some()
    }

    /// A user's sessions there.
    pub(super) fn of(&self, user: UserId) -> impl Iterator<Item = &There> {
        let mut at = self.find(user).unwrap_or(NIL);
        let all = std::iter::from_fn(move || {
            let there = self.there.at(at)?;
            at = there.next;
            Some(there)
        });
        all.filter(|there| self.counts(there))
    }

    /// The nodes on which the user is; `None`: on no other.
    pub(super) fn reach(&self, user: UserId) -> Option<Reach> {
        let mut nodes: Vec<u16> = self.of(user).map(|there| there.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        (!nodes.is_empty()).then_some(Reach::Nodes(nodes))
    }

    /// When the session in this slot began; 0 without a cluster.
    pub(super) fn since_ms(&self, slot: u32) -> u64 {
        self.since_ms.at(slot).copied().unwrap_or_default()
    }

    fn counts(&self, there: &There) -> bool {
        self.valid_from.get(usize::from(there.node)).is_none_or(|from| there.stamp >= *from)
    }

    fn find(&self, user: UserId) -> Option<u32> {
        self.index.find(user.0, |slot| self.there.at(slot).map_or(0, |there| there.user.0))
    }

    /// The slot of one session.
    fn find_one(&self, node: u16, user: UserId, device: DeviceId) -> Option<u32> {
        let mut at = self.find(user)?;
        while let Some(there) = self.there.at(at) {
            if there.node == node && there.device == device {
                return Some(at);
            }
            at = there.next;
        }
        None
    }

    /// A session begins there, or is told again. False: there is no room to know it.
    fn put(&mut self, node: u16, stamp: u32, user: UserId, device: DeviceId, since_ms: u64) -> bool {
        if let Some(slot) = self.find_one(node, user, device) {
            let there = self.there.reached(slot);
            (there.since_ms, there.stamp) = (since_ms, stamp);
            return true;
        }
        if self.there.taken() >= SESSIONS_ELSEWHERE_MAX {
            return false;
        }
        let head = self.find(user);
        let slot = self.there.take();
        let next = match head.and_then(|head| self.there.at_mut(head)) {
            Some(head) => std::mem::replace(&mut head.next, slot),
            None => NIL,
        };
        *self.there.reached(slot) = There { user, device, since_ms, stamp, next, node, is_taken: true };
        if head.is_none() {
            let there = &self.there;
            self.index.insert(user.0, slot, |slot| there.at(slot).map_or(0, |there| there.user.0));
        }
        true
    }

    fn remove(&mut self, slot: u32) {
        let Some(there) = self.there.at(slot).filter(|there| there.is_taken) else { return };
        let (user, next) = (there.user, there.next);
        let Some(head) = self.find(user).or_count(Place::RemoteSessions) else { return };
        if head == slot {
            let entries = &self.there;
            let id_of = |slot| entries.at(slot).map_or(0, |there: &There| there.user.0);
            self.index.remove(user.0, id_of);
            if next != NIL {
                self.index.insert(user.0, next, id_of);
            }
        } else {
            let mut at = head;
            while let Some(before) = self.there.at_mut(at) {
                if before.next == slot {
                    before.next = next;
                    break;
                }
                at = before.next;
            }
        }
        self.there.reached(slot).is_taken = false;
        self.there.give_back(slot);
    }

    fn forget(&mut self, node: u16, below: u32) {
        let node = usize::from(node);
        if self.valid_from.len() <= node {
            self.valid_from.resize(node + 1, 0);
        }
        if let Some(from) = self.valid_from.get_mut(node) {
            *from = below.max(*from);
        }
        self.unswept = self.there.high();
    }

    /// Takes away some of what has ended with its node.
    fn sweep(&mut self) {
        for _ in 0..SESSIONS_SWEPT_PER_TICK_MAX.min(self.unswept) {
            self.unswept -= 1;
            let slot = self.unswept;
            if self.there.at(slot).is_some_and(|there| there.is_taken && !self.counts(there)) {
                self.remove(slot);
            }
        }
    }

    fn tell(&mut self, telling: Telling) {
        if self.is_incomplete {
            return;
        }
        if self.telling.len() >= SESSION_NEWS_MAX {
            self.telling.clear();
            self.walk = None;
            self.is_incomplete = true;
            return;
        }
        self.telling.push_back(telling);
    }
}

impl Shard {
    /// A session is registered: other nodes are to hear of it.
    pub(super) fn session_begins(&mut self, now: Now, slot: u32) {
        if self.config.node.is_none() {
            return;
        }
        let Some(session) = self.sessions.at(slot).or_count(Place::Sessions) else { return };
        let Some(user) = self.directory.at(session.user).map(|user| user.id).or_count(Place::Directory) else { return };
        let device = session.device;
        let newest = self.elsewhere.of(user).map(|there| there.since_ms.saturating_add(1)).max();
        let since_ms = now.unix_ms.max(newest.unwrap_or_default());
        *self.elsewhere.since_ms.reached(slot) = since_ms;
        self.elsewhere.tell(Telling::News(SessionNews { user, device, since_ms: Some(since_ms) }));
    }

    /// A registered session ends.
    pub(super) fn session_ends(&mut self, slot: u32) {
        if self.config.node.is_none() {
            return;
        }
        let Some(session) = self.sessions.at(slot).or_count(Place::Sessions) else { return };
        let Some(user) = self.directory.at(session.user).map(|user| user.id).or_count(Place::Directory) else { return };
        self.elsewhere.tell(Telling::News(SessionNews { user, device: session.device, since_ms: None }));
    }

    /// Other nodes have something to say.
    pub fn from_nodes(&mut self, now: Now, envelope: FromNodes) {
        match envelope {
            FromNodes::Sessions { node, stamp, news } => {
                for SessionNews { user, device, since_ms } in news {
                    match since_ms {
                        Some(since_ms) if self.elsewhere.put(node, stamp, user, device, since_ms) => {
                            self.hold_to_policy(now, user);
                        }
                        Some(_) => self.counts.shed.sessions_elsewhere += 1,
                        None => {
                            if let Some(slot) = self.elsewhere.find_one(node, user, device) {
                                self.elsewhere.remove(slot);
                            }
                        }
                    }
                }
            }
            FromNodes::Forget { node, below } => self.elsewhere.forget(node, below),
            FromNodes::TellAll(number) => self.elsewhere.walk = Some(Walk { number, at: 0 }),
            FromNodes::Ephemeral(message) => match message.to {
                Conversation::User(_) => self.deliver_ephemeral(now, &message, None, Origin::NOBODY),
                Conversation::Group(group) => self.with_roster(now, group, RosterAsk::Heard(message)),
            },
        }
    }

    /// An ephemeral message for other nodes, if there are any.
    pub(super) fn ephemeral_elsewhere(&mut self, reach: Reach, message: Arc<Message>) {
        if self.config.node.is_some() {
            self.effects.to_nodes.push_back(ToNodes::Ephemeral { reach, message });
        }
    }

    /// Once a tick: what has happened since, or the next sessions of a walk through all.
    pub(super) fn tell_nodes(&mut self) {
        if self.config.node.is_none() {
            return;
        }
        self.elsewhere.sweep();
        if std::mem::take(&mut self.elsewhere.is_incomplete) {
            self.effects.to_nodes.push_back(ToNodes::Incomplete);
            return;
        }
        if self.elsewhere.telling.len() < SESSION_NEWS_PER_TICK_MAX {
            self.walk_on();
        }
        let waiting = &mut self.elsewhere.telling;
        let batch: Vec<Telling> = waiting.drain(..waiting.len().min(SESSION_NEWS_PER_TICK_MAX)).collect();
        if !batch.is_empty() {
            self.effects.to_nodes.push_back(ToNodes::Sessions(batch));
        }
    }

    fn walk_on(&mut self) {
        let Some(Walk { number, at }) = self.elsewhere.walk.take() else { return };
        let until = at.saturating_add(SESSION_NEWS_PER_TICK_MAX as u32).min(self.sessions.high());
        for slot in at..until {
            let Some(session) = self.sessions.at(slot).or_count(Place::Sessions) else { continue };
            let Some(user) = self.directory.at(session.user).map(|user| user.id) else { continue };
            let since_ms = Some(self.elsewhere.since_ms(slot));
            self.elsewhere.tell(Telling::Again(SessionNews { user, device: session.device, since_ms }));
        }
        if until >= self.sessions.high() {
            self.elsewhere.tell(Telling::Through(number));
        } else {
            self.elsewhere.walk = Some(Walk { number, at: until });
        }
    }

    /// The thread that talks to other nodes had no room. Several: the last one first.
    pub fn refused_to_nodes(&mut self, refused: ToNodes) {
        match refused {
            ToNodes::Sessions(tellings) => {
                let waiting = &mut self.elsewhere.telling;
                tellings.into_iter().rev().for_each(|telling| waiting.push_front(telling));
            }
            ToNodes::Incomplete => self.elsewhere.is_incomplete = true,
            ToNodes::Ephemeral { .. } => self.counts.shed.ephemeral += 1,
        }
    }
}
