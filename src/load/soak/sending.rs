//! What the clients of one process say: owners to their groups, everybody to a partner.
//!
//! Owned by a soak's process. What always holds: each group and each sender of direct messages has one message open
//! at a time, so that their order is known everywhere; an open message is sent again, under its first name, when its
//! sender is back or the gateway said later; a message that could not be sent in time is held back and counted.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use hdrhistogram::Histogram;

use super::assignment::Assignment;
use super::clients::Clients;
use super::orders::{Names, Totals, count_name};
use super::pace::Pace;
use crate::body::{self, Mark};
use crate::clock::Clock;
use crate::latency::latencies;
use crate::swarm::{LinkId, Swarm};
use ringway_client::incoming::{Refusal, SendAnswer};
use ringway_client::unanswered::Fate;
use ringway_client::{CrowdRequests, RequestId};
use ringway_wire::frame::Encoder;
use ringway_wire::ids::{ClientMsgId, Conversation, GroupId, UserId};
use ringway_wire::request::Durability;

/// Messages and groups of this process that may be unanswered at once.
const OPEN_MAX: usize = 16_384;
/// Groups being made at once.
const MAKING_MAX: usize = 64;
/// Messages sent in one turn.
const SENDS_PER_TURN_MAX: u64 = 256;
/// A message that has been due for longer is never sent: its pace was not kept, and that is counted.
const HELD_BACK_NS: u64 = 1_000_000_000;
/// A message that is sent later than this after it was due counts its latency from then. Below, it is the loop's
/// grain.
const GRAIN_NS: u64 = 2_000_000;
/// Stands for a group's number in the names of direct messages.
const DIRECT: u32 = 0x3fff_ffff;

/// What the clients have to say.
pub(crate) struct Sending {
    /// What requests were refused with.
    pub refusals: Names,
    /// From send to ack, nanoseconds.
    pub ack: Histogram<u64>,
    assignment: Assignment,
    run: u32,
    own: Vec<Own>,
    /// Where the next group message is looked for.
    at: usize,
    group_pace: Pace,
    /// The next message of each client to its partner, and whether the one before is open.
    direct: Vec<Direct>,
    direct_at: u32,
    direct_pace: Pace,
    requests: CrowdRequests<Open>,
    /// Messages that were refused for good.
    given_up: u32,
    making: Making,
    body: Vec<u8>,
    encoder: Encoder,
    clock: Clock,
}

/// A group whose owner is here.
struct Own {
    group: u32,
    owner: u32,
    /// `None`: not made yet.
    id: Option<GroupId>,
    acked: u32,
    open: bool,
}

#[derive(Clone, Copy, Default)]
struct Direct {
    acked: u32,
    open: bool,
}

/// What a request that is not answered is made from.
#[derive(Clone, Copy)]
struct Open {
    what: What,
    index: u32,
    sent_ns: u64,
    unix_ms: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// A message to the group at this place of `own`.
    Group(u32),
    Direct,
    /// The group at this place of `own` itself.
    Make(u32),
}

impl What {
    fn is_making(self) -> bool {
        matches!(self, What::Make(_))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Making {
    No,
    /// From this place of `own` on; so many are open.
    From(usize),
    Done,
}

/// What an ack was for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Acked {
    /// A message of a group, with its index.
    Group(u32, u32),
    /// A direct message.
    Direct,
    /// Nothing that was open.
    Unknown,
}

impl Sending {
    /// Nothing to say yet.
    pub(crate) fn new(assignment: Assignment, run: u32, body_bytes: usize, clock: Clock) -> Sending {
        let owner = |group| assignment.local(assignment.member(group, 0)).unwrap_or(0);
        let own =
            assignment.own_groups().map(|group| Own { group, owner: owner(group), id: None, acked: 0, open: false });
        Sending {
            refusals: Names::new(),
            ack: latencies(),
            own: own.collect(),
            assignment,
            run,
            at: 0,
            group_pace: Pace::default(),
            direct: vec![Direct::default(); assignment.share() as usize],
            direct_at: 0,
            direct_pace: Pace::default(),
            requests: CrowdRequests::default(),
            given_up: 0,
            making: Making::No,
            body: vec![0; body_bytes],
            encoder: Encoder::new(),
            clock,
        }
    }

    /// Owners begin to make their groups.
    pub(crate) fn make_groups(&mut self) {
        self.making = Making::From(0);
    }

    /// The groups that were made, when all answers are here.
    pub(crate) fn made(&self) -> Option<Vec<(u32, u64)>> {
        let made = || self.own.iter().filter_map(|own| Some((own.group, own.id?.0))).collect();
        (self.making == Making::Done).then(made)
    }

    /// From now on so many messages a second; 0: none.
    pub(crate) fn start(&mut self, group_per_s: f64, direct_per_s: f64) {
        let now_ns = self.clock.mono_ns();
        self.group_pace.start(group_per_s, now_ns);
        self.direct_pace.start(direct_per_s, now_ns);
    }

    /// Requests that are not answered, or that were refused for good: those were never acked either.
    pub(crate) fn open(&self) -> u32 {
        self.requests.len() as u32 + self.given_up
    }

    /// Messages acked, by group.
    pub(crate) fn acked(&self) -> Vec<(u32, u32)> {
        self.own.iter().map(|own| (own.group, own.acked)).collect()
    }

    /// Direct messages of a client that were acked.
    pub(crate) fn direct_acked(&self, local: u32) -> u32 {
        self.direct.get(local as usize).map_or(0, |direct| direct.acked)
    }

    /// When the next message is due.
    pub(crate) fn next_ns(&self) -> u64 {
        self.group_pace.next_ns().min(self.direct_pace.next_ns())
    }

    /// Sends what is due, and again what was refused.
    pub(crate) fn turn(&mut self, clients: &Clients, swarm: &mut Swarm, totals: &mut Totals) {
        let now_ns = self.clock.mono_ns();
        self.retry_due(clients, swarm);
        self.make_more(clients, swarm);
        for _ in 0..self.group_pace.due(now_ns).min(SENDS_PER_TURN_MAX) {
            if !self.send_to_group(clients, swarm, totals) {
                break;
            }
        }
        for _ in 0..self.direct_pace.due(now_ns).min(SENDS_PER_TURN_MAX) {
            if !self.send_directly(clients, swarm, totals) {
                break;
            }
        }
        for pace in [&mut self.group_pace, &mut self.direct_pace] {
            if now_ns.saturating_sub(pace.next_ns()) > HELD_BACK_NS && pace.per_s() > 0.0 {
                pace.done();
                totals.held_back += 1 + pace.skip_to(now_ns - HELD_BACK_NS);
            }
        }
    }

    /// A client is logged in again: what it has open goes out once more.
    pub(crate) fn back(&mut self, client: u32, now_ms: u32) {
        self.requests.back(client, now_ms.into());
    }

    /// `SendOk`.
    pub(crate) fn acked_by(&mut self, client: u32, sent: &SendAnswer, at_ns: u64, totals: &mut Totals) -> Acked {
        let Some(open) = self.requests.answered(client, sent.request) else { return Acked::Unknown };
        totals.repeats += u64::from(sent.repeat);
        if !sent.repeat {
            self.ack.saturating_record(at_ns.saturating_sub(open.sent_ns));
        }
        match open.what {
            What::Group(at) => {
                let Some(own) = self.own.get_mut(at as usize) else { return Acked::Unknown };
                totals.group_acked += 1;
                own.acked = open.index + 1;
                own.open = false;
                Acked::Group(own.group, open.index)
            }
            What::Direct => {
                let Some(direct) = self.direct.get_mut(client as usize) else { return Acked::Unknown };
                totals.direct_acked += 1;
                *direct = Direct { acked: open.index + 1, open: false };
                Acked::Direct
            }
            What::Make(_) => Acked::Unknown,
        }
    }

    /// `GroupOk`: the group's id.
    pub(crate) fn made_by(&mut self, client: u32, request: RequestId, id: GroupId) {
        if let Some(Open { what: What::Make(at), .. }) = self.requests.answered(client, request)
            && let Some(own) = self.own.get_mut(at as usize)
        {
            own.id = Some(id);
        }
    }

    /// `Error`: said again when the gateway wants it, or given up.
    pub(crate) fn refused(&mut self, client: u32, refusal: &Refusal<'_>, now_ms: u32) {
        count_name(&mut self.refusals, refusal.code.variant_name().unwrap_or("Unknown"));
        let is_message =
            matches!(self.requests.get(refusal.request), Some((_, Open { what, .. })) if !what.is_making());
        if self.requests.refused(client, now_ms.into(), refusal) == Some(Fate::GivenUp) {
            self.given_up += u32::from(is_message);
        }
    }

    fn room(&self) -> bool {
        self.requests.len() < OPEN_MAX
    }

    fn begin(&mut self, client: u32, open: Open, swarm: &mut Swarm) {
        let request = self.requests.begin(client, open);
        self.say(request, swarm);
    }

    /// Sends what is open, the same each time.
    fn say(&mut self, request: RequestId, swarm: &mut Swarm) {
        let Some((client, open)) = self.requests.get(request).map(|(client, open)| (client, *open)) else { return };
        let (to, group) = match open.what {
            What::Make(at) => {
                let Some(own) = self.own.get(at as usize) else { return };
                let members: Vec<UserId> =
                    (1..self.assignment.members()).map(|place| self.assignment.member(own.group, place)).collect();
                return swarm.send(LinkId(client), self.encoder.group_create(request.0, &members));
            }
            What::Group(at) => match self.own.get(at as usize).and_then(|own| Some((own.id?, own.group))) {
                Some((id, group)) => (Conversation::Group(id), group),
                None => return,
            },
            What::Direct => match self.assignment.recipient(client) {
                Some(to) => (Conversation::User(self.assignment.user(to)), DIRECT),
                None => return,
            },
        };
        body::write(Mark { run: self.run, index: open.index, sent_ns: open.sent_ns }, &mut self.body);
        let name = u128::from(group) << 32 | u128::from(open.index);
        let id = ClientMsgId::from_parts(open.unix_ms, name);
        swarm.send(LinkId(client), self.encoder.send(request.0, to, id, &self.body, Durability::Durable));
    }

    fn retry_due(&mut self, clients: &Clients, swarm: &mut Swarm) {
        for request in self.requests.take_due(clients.now_ms().into()) {
            // Away: it goes out when the client is back.
            if self.requests.get(request).is_some_and(|(client, _)| clients.is_live(client)) {
                self.say(request, swarm);
            }
        }
    }

    fn make_more(&mut self, clients: &Clients, swarm: &mut Swarm) {
        let Making::From(mut at) = self.making else { return };
        while self.requests.len() < MAKING_MAX {
            let Some(own) = self.own.get(at) else { break };
            let owner = own.owner;
            if clients.is_live(owner) {
                let (sent_ns, unix_ms) = (self.clock.mono_ns(), clients.server_ms(owner));
                let open = Open { what: What::Make(at as u32), index: 0, sent_ns, unix_ms };
                self.begin(owner, open, swarm);
            }
            // The owner never came: a group less, and the report says how many there are.
            at += 1;
        }
        self.making = if at >= self.own.len() && self.requests.is_empty() { Making::Done } else { Making::From(at) };
    }

    /// False: no group can take a message now.
    fn send_to_group(&mut self, clients: &Clients, swarm: &mut Swarm, totals: &mut Totals) -> bool {
        if !self.room() {
            return false;
        }
        for _ in 0..self.own.len() {
            let at = self.at;
            self.at = (at + 1) % self.own.len();
            let Some(own) = self.own.get_mut(at) else { return false };
            if own.open || own.id.is_none() || !clients.is_live(own.owner) {
                continue;
            }
            own.open = true;
            let (client, index) = (own.owner, own.acked);
            let sent_ns = stamp(&self.group_pace, self.clock.mono_ns());
            self.group_pace.done();
            totals.group_sent += 1;
            let what = What::Group(at as u32);
            self.begin(client, Open { what, index, sent_ns, unix_ms: clients.server_ms(client) }, swarm);
            return true;
        }
        false
    }

    /// False: nobody can send now.
    fn send_directly(&mut self, clients: &Clients, swarm: &mut Swarm, totals: &mut Totals) -> bool {
        let share = self.assignment.share();
        if !self.room() || share < 2 {
            return false;
        }
        for _ in 0..share.min(64) {
            let client = self.direct_at;
            self.direct_at = (client + 1) % share;
            let Some(direct) = self.direct.get_mut(client as usize) else { return false };
            if direct.open || !clients.is_live(client) {
                continue;
            }
            direct.open = true;
            let index = direct.acked;
            let sent_ns = stamp(&self.direct_pace, self.clock.mono_ns());
            self.direct_pace.done();
            totals.direct_sent += 1;
            let open = Open { what: What::Direct, index, sent_ns, unix_ms: clients.server_ms(client) };
            self.begin(client, open, swarm);
            return true;
        }
        false
    }
}

/// From when a message's latency counts.
fn stamp(pace: &Pace, now_ns: u64) -> u64 {
    let due_ns = pace.next_ns();
    if now_ns.saturating_sub(due_ns) > GRAIN_NS { due_ns } else { now_ns }
}

/// The acked messages of all processes, for a look-up.
pub(crate) fn by_group(acked: Vec<(u32, u32)>) -> HashMap<u32, u32, RandomState> {
    acked.into_iter().collect()
}
