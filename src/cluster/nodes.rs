//! The other nodes of the cluster: who is there, what they are told, what they tell.
//!
//! A state machine without I/O, owned by Redis's thread: what the shards say and what was heard goes in, messages to
//! publish and envelopes for the shards come out. The nodes talk over Redis's pub/sub: each announces its logins and
//! logouts to all, and every node keeps all of it in its shards. The alternative, a hash per node in Redis, would cost a
//! look-up there for every user of every Presence request, in the one thread that also numbers the cluster's messages,
//! and a device policy would still have to be announced; what the disk of Redis syncs stays the ledger alone.
//!
//! What always holds: nodes are alive as long as their leases (`heartbeat.lua`); Redis hands the messages of a node on
//! in order and loses them only with a connection. Whoever may have missed something says Hello, and is told everything
//! again by everybody: sessions in a new epoch, then Whole, and what was heard only in earlier epochs has ended. Until
//! Whole the old counts on, so that nobody's presence flickers because somebody asks.

mod passed;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc;

use self::passed::Passed;
use super::talk::{self, Item, Speaker};
use crate::contract::access::{AccessNews, AccessOrder};
use crate::contract::ids::ShardId;
use crate::contract::internal::{InternalErrors, OrCount, Place};
use crate::contract::keyed::TableKey;
use crate::contract::message::Message;
use crate::contract::nodes::{FromNodes, Reach, SessionNews, SessionNotice, ToNodes};
use crate::contract::report::NodesReport;
use crate::limits::NODE_MESSAGE_BYTES;
use crate::topology::mailbox::Slot;
use ringway_wire::ids::{Conversation, UserId};

/// A message to publish.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Publish {
    /// To whom; `None`: all.
    pub(crate) to: Option<u16>,
    /// [`talk`].
    pub(crate) bytes: Vec<u8>,
}

/// Another node that is alive.
#[derive(Clone, Copy, Debug)]
struct Known {
    process: u64,
    epoch: u32,
    /// What it says is passed on under this.
    stamp: u32,
}

/// SessionNotice everything.
#[derive(Debug)]
struct Walk {
    /// The epoch.
    number: u32,
    /// Shards that are through.
    through: usize,
    reach: Reach,
}

/// What is known of a node that holds no lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Leaseless {
    /// All who are there have had the time to renew theirs: it is gone.
    Gone,
    /// The session with Redis is younger than a lease.
    Perhaps,
}

/// The state.
#[derive(Debug)]
pub(crate) struct Nodes {
    us: Speaker,
    shards: Vec<Slot<FromNodes>>,
    /// Beside each of them.
    passed: Vec<Passed>,
    /// To the thread that keeps who may log in.
    access: Option<mpsc::Sender<AccessNews>>,
    /// It had no room to be asked for all that it keeps.
    asks_access: bool,
    known: BTreeMap<u16, Known>,
    /// Their leases have ended, and they said no Bye: they may not know it.
    lapsed: BTreeSet<u16>,
    /// The last one given out, to whichever node.
    stamp: u32,
    walk: Option<Walk>,
    /// To whom everything is to be announced next; empty: nobody.
    newcomers: BTreeSet<u16>,
    /// To everybody.
    announces_all: bool,
    /// Something was missed: everybody has to announce everything.
    misses: bool,
    /// What shards had no room for: to forget these nodes. Nobody says it again, so it is kept.
    unforgotten: Vec<(usize, FromNodes)>,
    /// A message that grows, and to whom.
    reach: Reach,
    growing: Vec<u8>,
    publishes: VecDeque<Publish>,
    report: NodesReport,
}

impl Nodes {
    /// Of a node that knows nobody yet. `process` is another one in every process.
    pub(crate) fn new(node: u16, process: u64, shards: Vec<Slot<FromNodes>>) -> Self {
        Nodes {
            us: Speaker { node, process, epoch: 0 },
            passed: shards.iter().map(|_| Passed::new(TableKey::of_process())).collect(),
            shards,
            access: None,
            asks_access: false,
            known: BTreeMap::new(),
            lapsed: BTreeSet::new(),
            stamp: 0,
            walk: None,
            newcomers: BTreeSet::new(),
            announces_all: false,
            misses: false,
            unforgotten: Vec::new(),
            reach: Reach::All,
            growing: Vec::new(),
            publishes: VecDeque::new(),
            report: NodesReport::default(),
        }
    }

    /// With the thread that keeps who may log in.
    #[must_use]
    pub(crate) fn with_access(self, access: mpsc::Sender<AccessNews>) -> Self {
        Nodes { access: Some(access), ..self }
    }

    /// Somebody may not know who may log in, and is to be told all.
    fn announce_access(&mut self) {
        let asked = self.access.as_ref().map(|access| access.try_send(AccessNews::TellAll));
        self.asks_access = matches!(asked, Some(Err(_)));
    }

    /// A session with Redis begins; what is published comes from here on. Both sides may have missed anything.
    pub(crate) fn begin(&mut self) {
        self.growing.clear();
        self.publishes.clear();
        self.walk = None;
        self.newcomers.clear();
        self.announces_all = true;
        self.misses = false;
        self.say(&Reach::All, &Item::Hello);
        self.flush();
        self.announce_access();
        self.go_on();
    }

    /// These hold leases.
    pub(crate) fn alive(&mut self, alive: &BTreeSet<u16>, others: Leaseless) {
        for node in alive {
            if *node != self.us.node && !self.known.contains_key(node) {
                let stamp = self.next_stamp();
                self.meet(*node, Known { process: 0, epoch: 0, stamp });
            }
        }
        let gone: Vec<u16> = self.known.keys().filter(|node| !alive.contains(node)).copied().collect();
        for node in gone.into_iter().filter(|_| others == Leaseless::Gone) {
            tracing::warn!(node, nodes = self.known.len(), "a node is gone: its lease has ended");
            self.lapsed.insert(node);
            self.part(node);
        }
        for (shard, forget) in std::mem::take(&mut self.unforgotten) {
            self.send_forget(shard, forget);
        }
        if self.asks_access {
            self.announce_access();
        }
        if std::mem::take(&mut self.misses) {
            self.say(&Reach::All, &Item::Hello);
        }
        self.go_on();
        self.flush();
    }

    /// A shard says something.
    pub(crate) fn apply_shard(&mut self, said: ToNodes) {
        match said {
            ToNodes::Sessions(notices) => {
                for notice in notices {
                    match notice {
                        // Whoever is not known yet says Hello, and is told all of it.
                        SessionNotice::Changed(_) if self.known.is_empty() => {}
                        SessionNotice::Changed(news) => self.say(&Reach::All, &Item::Session(news)),
                        SessionNotice::Repeated(news) => self.say_again(news),
                        SessionNotice::Through(number) => self.through(number),
                    }
                }
            }
            ToNodes::Incomplete => {
                self.walk = None;
                self.announces_all = true;
                self.go_on();
            }
            ToNodes::Ephemeral { .. } | ToNodes::Access(_) if self.known.is_empty() => {}
            ToNodes::Access(orders) => {
                orders.into_iter().for_each(|order| self.say(&Reach::All, &Item::Access(order)));
                self.flush();
            }
            ToNodes::Ephemeral { reach, message } => self.say(&reach, &Item::Ephemeral(message)),
        }
    }

    /// A message of the channel; our own come back too.
    pub(crate) fn apply_message(&mut self, bytes: &[u8]) {
        let Some((speaker, items)) = talk::read(bytes) else {
            if self.report.unreadable == 0 {
                tracing::error!("another node says what makes no sense: are all nodes of the same version?");
            }
            self.report.unreadable += 1;
            return;
        };
        if speaker.node == self.us.node {
            return;
        }
        self.report.received += 1;
        let Some(stamp) = self.stamp_of(speaker) else { return };
        let mut sessions: Vec<Vec<SessionNews>> = self.shards.iter().map(|_| Vec::new()).collect();
        let mut orders = Vec::new();
        for item in items {
            match item {
                Item::Access(order) => orders.push(order),
                Item::Session(news) => {
                    if let Some(list) = sessions.get_mut(usize::from(self.home(news.user))).or_count(Place::Cluster) {
                        list.push(news);
                    }
                }
                Item::Whole => {
                    self.pass(speaker.node, stamp, &mut sessions);
                    self.forget(speaker.node, stamp);
                }
                Item::Hello => {
                    self.lapsed.remove(&speaker.node);
                    self.newcomers.insert(speaker.node);
                    self.announce_access();
                }
                Item::Bye => {
                    tracing::info!(node = speaker.node, nodes = self.known.len(), "a node has left the cluster");
                    return self.part(speaker.node);
                }
                Item::Ephemeral(message) => self.pass_ephemeral(message),
            }
        }
        self.pass(speaker.node, stamp, &mut sessions);
        self.shards.iter().for_each(Slot::wake);
        self.pass_access(orders);
        self.go_on();
    }

    /// So many messages were lost before anybody looked at them.
    pub(crate) fn missed(&mut self, count: u64) {
        self.report.missed += count;
        self.misses = true;
    }

    /// Ends the message that grows: nothing more waits now.
    pub(crate) fn flush(&mut self) {
        if self.growing.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut self.growing);
        match &self.reach {
            Reach::All => self.publishes.push_back(Publish { to: None, bytes }),
            Reach::Nodes(nodes) => {
                let each = nodes.iter().map(|node| Publish { to: Some(*node), bytes: bytes.clone() });
                self.publishes.extend(each);
            }
        }
    }

    /// Messages that wait to be published.
    pub(crate) fn waiting(&self) -> usize {
        self.publishes.len()
    }

    /// The next message to publish.
    pub(crate) fn next_publish(&mut self) -> Option<Publish> {
        let next = self.publishes.pop_front();
        self.report.published += u64::from(next.is_some());
        next
    }

    /// The last message of a node that stops.
    pub(crate) fn bye(&self) -> Publish {
        let mut bytes = Vec::new();
        talk::begin(self.us, &mut bytes);
        talk::put(&Item::Bye, &mut bytes);
        Publish { to: None, bytes }
    }

    /// For metrics.
    pub(crate) fn report(&self) -> NodesReport {
        let internal = InternalErrors::of_this_thread();
        let others = self.known.keys().copied().collect();
        NodesReport { nodes: self.known.len() as u64 + 1, others, internal, ..self.report }
    }

    /// Begins to tell everything, if somebody waits for it and nobody is being told.
    fn go_on(&mut self) {
        let nobody_waits = !self.announces_all && self.newcomers.is_empty();
        if self.walk.is_some() || nobody_waits {
            return;
        }
        let number = self.us.epoch + 1;
        let asked = self.shards.iter().filter(|shard| shard.put(FromNodes::NotifyAll(number)).is_ok()).count();
        self.shards.iter().for_each(Slot::wake);
        if asked < self.shards.len() {
            // With the next heartbeat, under another number.
            self.us.epoch = number;
            return;
        }
        self.flush();
        self.us.epoch = number;
        let newcomers = std::mem::take(&mut self.newcomers);
        let announces_all = std::mem::take(&mut self.announces_all);
        let reach = if announces_all { Reach::All } else { Reach::Nodes(newcomers.into_iter().collect()) };
        self.walk = Some(Walk { number, through: 0, reach });
    }

    fn say_again(&mut self, news: SessionNews) {
        // Of a walk that was given up for another one.
        let Some(walk) = self.walk.take() else { return };
        self.say(&walk.reach, &Item::Session(news));
        self.walk = Some(walk);
    }

    /// A shard has told everything.
    fn through(&mut self, number: u32) {
        let Some(mut walk) = self.walk.take() else { return };
        walk.through += usize::from(walk.number == number);
        if walk.through < self.shards.len() {
            self.walk = Some(walk);
            return;
        }
        self.say(&walk.reach, &Item::Whole);
        self.flush();
        self.go_on();
    }

    fn say(&mut self, reach: &Reach, item: &Item) {
        if self.reach != *reach {
            self.flush();
            self.reach = reach.clone();
        }
        if self.growing.is_empty() {
            talk::begin(self.us, &mut self.growing);
        }
        talk::put(item, &mut self.growing);
        if self.growing.len() >= NODE_MESSAGE_BYTES {
            self.flush();
        }
    }

    fn next_stamp(&mut self) -> u32 {
        self.stamp += 1;
        self.stamp
    }

    /// Under which stamp a message counts; `None`: it is older than what was heard already.
    fn stamp_of(&mut self, speaker: Speaker) -> Option<u32> {
        let Speaker { node, process, epoch } = speaker;
        let before = self.known.get(&node).copied();
        match before {
            Some(known) if known.process == process && known.epoch == epoch => return Some(known.stamp),
            Some(known) if known.process == process && known.epoch > epoch => return None,
            _ => {}
        }
        let stamp = self.next_stamp();
        let known = Known { process, epoch, stamp };
        match before {
            Some(before) => {
                if before.process != process && before.process != 0 {
                    tracing::info!(node, "a node has started again");
                }
                self.known.insert(node, known);
            }
            None => self.meet(node, known),
        }
        Some(stamp)
    }

    fn meet(&mut self, node: u16, known: Known) {
        self.known.insert(node, known);
        tracing::info!(node, nodes = self.known.len() + 1, "a node has joined the cluster");
        if self.lapsed.remove(&node) {
            // It only stood still, and does not know that its sessions are forgotten here, and it was told nothing.
            self.say(&Reach::Nodes(vec![node]), &Item::Hello);
            self.newcomers.insert(node);
        }
    }

    fn part(&mut self, node: u16) {
        self.known.remove(&node);
        self.newcomers.remove(&node);
        let below = self.next_stamp();
        self.forget(node, below);
        self.shards.iter().for_each(Slot::wake);
    }

    /// What was heard of the node before this stamp has ended.
    fn forget(&mut self, node: u16, below: u32) {
        for shard in 0..self.shards.len() {
            self.send_forget(shard, FromNodes::Forget { node, below });
        }
    }

    fn send_forget(&mut self, shard: usize, forget: FromNodes) {
        let put = self.shards.get(shard).map(|shard| shard.put(forget));
        if let Some(Err(forget)) = put {
            self.unforgotten.push((shard, forget));
        }
    }

    fn pass(&mut self, node: u16, stamp: u32, sessions: &mut [Vec<SessionNews>]) {
        for (shard, news) in sessions.iter_mut().enumerate() {
            if !news.is_empty() {
                let sessions = FromNodes::Sessions { node, stamp, news: std::mem::take(news) };
                if self.shards.get(shard).is_some_and(|shard| shard.put(sessions).is_err()) {
                    self.missed(1);
                }
            }
        }
    }

    /// What another node says of who may log in.
    fn pass_access(&mut self, orders: Vec<AccessOrder>) {
        if let Some(access) = self.access.as_ref().filter(|_| !orders.is_empty())
            && access.try_send(AccessNews::Received(orders)).is_err()
        {
            self.missed(1);
        }
    }

    fn pass_ephemeral(&mut self, message: Arc<Message>) {
        let home = match message.to {
            Conversation::User(user) => self.home(user),
            Conversation::Group(group) => ShardId::of_group(group, self.shards.len() as u16).0,
        };
        let at = usize::from(home);
        let Some((shard, passed)) = self.shards.get(at).zip(self.passed.get_mut(at)).or_count(Place::Cluster) else {
            return;
        };
        let has_room = passed.take(message.sender, shard.is_empty());
        if !has_room || shard.put(FromNodes::Ephemeral(message)).is_err() {
            self.report.ephemeral_dropped += 1;
        }
    }

    fn home(&self, user: UserId) -> u16 {
        ShardId::of_user(user, self.shards.len() as u16).0
    }
}

#[cfg(test)]
mod tests;
