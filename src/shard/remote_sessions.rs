//! The sessions of this shard's users on other nodes, and the notices that other nodes get of the sessions here.
//!
//! Part of the shard's core. Every node knows all sessions of the cluster, each shard those of its users: 40 bytes and an
//! index entry for each. So a login waits for nobody, and a Presence request or a device policy is decided here. The cost
//! is a notice per login and logout, a batch each tick. What always holds: notices leave in the order of the events; a
//! session with an older stamp than its node's `valid_from` has ended, at once, however long the sweep takes; when more
//! notices wait than are kept, the shard notifies of all its sessions again.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Shard;
use super::group::RosterAsk;
use super::index::Index;
use super::session::NIL;
use super::slab::{Chunked, Slab};
use crate::clock::Now;
use crate::contract::ids::Origin;
use crate::contract::internal::{self, OrCount, Place};
use crate::contract::keyed::TableKey;
use crate::contract::message::Message;
use crate::contract::nodes::{FromNodes, Reach, SessionNews, SessionNotice, ToNodes};
use crate::limits::{REMOTE_SESSIONS_MAX, SESSION_NEWS_MAX, SESSION_NEWS_PER_TICK_MAX, SESSIONS_SWEPT_PER_TICK_MAX};
use ringway_wire::ids::{Conversation, DeviceId, UserId};

/// A session on another node.
#[derive(Debug, Default)]
pub(super) struct RemoteSession {
    user: UserId,
    pub(super) device: DeviceId,
    pub(super) since_ms: u64,
    /// The stamp of the last notice of it.
    stamp: u32,
    /// The user's next, `NIL` at the end.
    next: u32,
    pub(super) node: u16,
    is_taken: bool,
}

const _: () = assert!(size_of::<RemoteSession>() <= 40, "half a million sessions are 20 MB");

/// Notifying of all sessions.
#[derive(Clone, Copy, Debug)]
struct Walk {
    number: u32,
    /// The next slot.
    at: u32,
}

/// Sessions on other nodes, and notices of those here.
#[derive(Debug)]
pub(super) struct RemoteSessions {
    /// By user: the first of its sessions on other nodes.
    index: Index,
    sessions: Slab<RemoteSession>,
    /// By node: the first stamp that counts.
    valid_from: Vec<u32>,
    /// Slots below it are still to be looked at since a node was forgotten.
    unswept: u32,
    /// When each session here began, by slot.
    since_ms: Chunked<u64>,
    /// Notices that wait for the next tick.
    notices: VecDeque<SessionNotice>,
    /// More has happened than was kept.
    is_incomplete: bool,
    walk: Option<Walk>,
}

impl RemoteSessions {
    pub(super) fn new(key: TableKey) -> Self {
        RemoteSessions {
            index: Index::new(key),
            sessions: Slab::new(),
            valid_from: Vec::new(),
            unswept: 0,
            since_ms: Chunked::new(),
            notices: VecDeque::new(),
            is_incomplete: false,
            walk: None,
        }
    }

    /// How many sessions are held, those not swept yet too.
    pub(super) fn count(&self) -> usize {
        self.sessions.taken()
    }

    /// The user has a session on another node.
    pub(super) fn has(&self, user: UserId) -> bool {
        self.of(user).next().is_some()
    }

    /// A user's sessions on other nodes.
    pub(super) fn of(&self, user: UserId) -> impl Iterator<Item = &RemoteSession> {
        let mut at = self.find(user).unwrap_or(NIL);
        let all = std::iter::from_fn(move || {
            let session = self.sessions.at(at)?;
            at = session.next;
            Some(session)
        });
        all.filter(|session| self.counts(session))
    }

    /// The nodes on which the user is; `None`: on no other.
    pub(super) fn reach(&self, user: UserId) -> Option<Reach> {
        let mut nodes: Vec<u16> = self.of(user).map(|session| session.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        (!nodes.is_empty()).then_some(Reach::Nodes(nodes))
    }

    /// When the session in this slot began, Unix milliseconds.
    pub(super) fn since_ms(&self, slot: u32) -> u64 {
        self.since_ms.at(slot).copied().unwrap_or_default()
    }

    fn counts(&self, session: &RemoteSession) -> bool {
        self.valid_from.get(usize::from(session.node)).is_none_or(|from| session.stamp >= *from)
    }

    fn find(&self, user: UserId) -> Option<u32> {
        self.index.find(user.0, |slot| self.sessions.at(slot).map_or(0, |session| session.user.0))
    }

    /// The slot of one session.
    fn find_one(&self, node: u16, user: UserId, device: DeviceId) -> Option<u32> {
        let mut at = self.find(user)?;
        while let Some(session) = self.sessions.at(at) {
            if session.node == node && session.device == device {
                return Some(at);
            }
            at = session.next;
        }
        None
    }

    /// A session has begun on another node, or its notice is repeated. False: there is no room for it.
    fn upsert(&mut self, node: u16, stamp: u32, user: UserId, device: DeviceId, since_ms: u64) -> bool {
        if let Some(slot) = self.find_one(node, user, device) {
            let session = self.sessions.reached(slot);
            (session.since_ms, session.stamp) = (since_ms, stamp);
            return true;
        }
        if self.sessions.taken() >= REMOTE_SESSIONS_MAX {
            return false;
        }
        let head = self.find(user);
        let slot = self.sessions.take();
        let next = match head.and_then(|head| self.sessions.at_mut(head)) {
            Some(head) => std::mem::replace(&mut head.next, slot),
            None => NIL,
        };
        *self.sessions.reached(slot) = RemoteSession { user, device, since_ms, stamp, next, node, is_taken: true };
        if head.is_none() {
            let sessions = &self.sessions;
            self.index.insert(user.0, slot, |slot| sessions.at(slot).map_or(0, |session| session.user.0));
        }
        true
    }

    fn remove(&mut self, slot: u32) {
        let Some(session) = self.sessions.at(slot).filter(|session| session.is_taken) else { return };
        let (user, next) = (session.user, session.next);
        let Some(head) = self.find(user).or_count(Place::RemoteSessions) else { return };
        if head == slot {
            let entries = &self.sessions;
            let id_of = |slot| entries.at(slot).map_or(0, |session: &RemoteSession| session.user.0);
            self.index.remove(user.0, id_of);
            if next != NIL {
                self.index.insert(user.0, next, id_of);
            }
        } else {
            let mut at = head;
            while let Some(before) = self.sessions.at_mut(at) {
                if before.next == slot {
                    before.next = next;
                    break;
                }
                at = before.next;
            }
        }
        self.sessions.reached(slot).is_taken = false;
        self.sessions.give_back(slot);
    }

    fn forget(&mut self, node: u16, below: u32) {
        let node = usize::from(node);
        if self.valid_from.len() <= node {
            self.valid_from.resize(node + 1, 0);
        }
        if let Some(from) = self.valid_from.get_mut(node) {
            *from = below.max(*from);
        }
        self.unswept = self.sessions.high();
    }

    /// Takes away some of what has ended with its node.
    fn sweep(&mut self) {
        for _ in 0..SESSIONS_SWEPT_PER_TICK_MAX.min(self.unswept) {
            self.unswept -= 1;
            let slot = self.unswept;
            if self.sessions.at(slot).is_some_and(|session| session.is_taken && !self.counts(session)) {
                self.remove(slot);
            }
        }
    }

    fn enqueue(&mut self, notice: SessionNotice) {
        if self.is_incomplete {
            return;
        }
        if self.notices.len() >= SESSION_NEWS_MAX {
            self.notices.clear();
            self.walk = None;
            self.is_incomplete = true;
            return;
        }
        self.notices.push_back(notice);
    }
}

impl Shard {
    /// A login is accepted: other nodes are notified.
    pub(super) fn session_begins(&mut self, now: Now, slot: u32) {
        let Some(session) = self.sessions.at(slot).or_count(Place::Sessions) else { return };
        let Some(user) = self.directory.at(session.user).map(|user| user.id).or_count(Place::Directory) else { return };
        let device = session.device;
        let newest = self.remote_sessions.of(user).map(|session| session.since_ms.saturating_add(1)).max();
        let since_ms = now.unix_ms.max(newest.unwrap_or_default());
        *self.remote_sessions.since_ms.reached(slot) = since_ms;
        if self.config.node.is_none() {
            return;
        }
        self.remote_sessions.enqueue(SessionNotice::Changed(SessionNews { user, device, since_ms: Some(since_ms) }));
    }

    /// A session ends; nothing for a login that was not accepted.
    pub(super) fn session_ends(&mut self, slot: u32) {
        if self.config.node.is_none() {
            return;
        }
        let Some(session) = self.sessions.at(slot).or_count(Place::Sessions) else { return };
        if !session.phase.is_open() {
            return;
        }
        let Some(user) = self.directory.at(session.user).map(|user| user.id).or_count(Place::Directory) else { return };
        self.remote_sessions.enqueue(SessionNotice::Changed(SessionNews {
            user,
            device: session.device,
            since_ms: None,
        }));
    }

    /// Applies what another node sends.
    pub(crate) fn receive_from_nodes(&mut self, now: Now, envelope: FromNodes) {
        match envelope {
            FromNodes::Sessions { node, stamp, news } => {
                for SessionNews { user, device, since_ms } in news {
                    match since_ms {
                        Some(since_ms) if self.remote_sessions.upsert(node, stamp, user, device, since_ms) => {
                            self.apply_device_policy(now, user);
                        }
                        Some(_) => self.counts.shed.remote_sessions += 1,
                        None => {
                            if let Some(slot) = self.remote_sessions.find_one(node, user, device) {
                                self.remote_sessions.remove(slot);
                            }
                        }
                    }
                }
            }
            FromNodes::Forget { node, below } => self.remote_sessions.forget(node, below),
            FromNodes::NotifyAll(number) => self.remote_sessions.walk = Some(Walk { number, at: 0 }),
            FromNodes::Ephemeral(message) => match message.to {
                Conversation::User(_) => self.deliver_ephemeral_direct(now, &message, Origin::NOBODY),
                Conversation::Group(group) => self.with_roster(now, group, RosterAsk::Remote(message)),
            },
        }
    }

    /// An ephemeral message for other nodes, if there are any. What the API sends counts for nobody.
    pub(super) fn ephemeral_to_nodes(&mut self, origin: Origin, reach: Reach, message: Arc<Message>) {
        if self.config.node.is_none() {
            return;
        }
        if origin.is_api(self.config.shards) || self.to_nodes.take(message.sender) {
            self.effects.to_nodes.push_back(ToNodes::Ephemeral { reach, message });
        } else {
            self.counts.shed.ephemeral += 1;
        }
    }

    /// Once a tick: what has happened since, or the next sessions of a walk through all.
    pub(super) fn notify_nodes(&mut self) {
        if self.config.node.is_none() {
            return;
        }
        self.remote_sessions.sweep();
        if std::mem::take(&mut self.remote_sessions.is_incomplete) {
            self.effects.to_nodes.push_back(ToNodes::Incomplete);
            return;
        }
        if self.remote_sessions.notices.len() < SESSION_NEWS_PER_TICK_MAX {
            self.walk_on();
        }
        let waiting = &mut self.remote_sessions.notices;
        let batch: Vec<SessionNotice> = waiting.drain(..waiting.len().min(SESSION_NEWS_PER_TICK_MAX)).collect();
        if !batch.is_empty() {
            self.effects.to_nodes.push_back(ToNodes::Sessions(batch));
        }
    }

    fn walk_on(&mut self) {
        let Some(Walk { number, at }) = self.remote_sessions.walk.take() else { return };
        let until = at.saturating_add(SESSION_NEWS_PER_TICK_MAX as u32).min(self.sessions.high());
        for slot in at..until {
            let Some(session) = self.sessions.at(slot).or_count(Place::Sessions) else { continue };
            if !session.phase.is_open() {
                continue;
            }
            let Some(user) = self.directory.at(session.user).map(|user| user.id).or_count(Place::Directory) else {
                continue;
            };
            let since_ms = Some(self.remote_sessions.since_ms(slot));
            self.remote_sessions.enqueue(SessionNotice::Repeated(SessionNews {
                user,
                device: session.device,
                since_ms,
            }));
        }
        if until >= self.sessions.high() {
            self.remote_sessions.enqueue(SessionNotice::Through(number));
        } else {
            self.remote_sessions.walk = Some(Walk { number, at: until });
        }
    }

    /// The thread that talks to other nodes had no room. Several: the last one first.
    pub(crate) fn refused_to_nodes(&mut self, refused: ToNodes) {
        match refused {
            ToNodes::Sessions(notices) => {
                let waiting = &mut self.remote_sessions.notices;
                notices.into_iter().rev().for_each(|notice| waiting.push_front(notice));
            }
            ToNodes::Incomplete => self.remote_sessions.is_incomplete = true,
            ToNodes::Ephemeral { .. } => self.counts.shed.ephemeral += 1,
            ToNodes::Access(_) => internal::count(Place::Route),
        }
    }
}
