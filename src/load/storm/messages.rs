//! Messages between any two clients that are logged in, and what became of each.
//!
//! Owned by the load generator's thread. What always holds: a message is sent once, by a client that is logged in to
//! one that is; it has arrived when its recipient has it, whole, and only then does its latency count, from the moment
//! of its sending.

use hdrhistogram::Histogram;

use crate::body::{self, Mark};
use crate::clock::Clock;
use crate::latency::latencies;
use crate::soak::assignment::Assignment;
use crate::soak::clients::Clients;
use crate::soak::orders::{Names, count_name};
use crate::soak::pace::Pace;
use crate::swarm::{LinkId, Swarm};
use ringway_client::RequestId;
use ringway_wire::frame::Encoder;
use ringway_wire::ids::{ClientMsgId, Conversation};
use ringway_wire::request::{Durability, PushView};
use ringway_wire::schema::ErrorCode;

/// Messages sent in one turn.
const SENDS_PER_TURN_MAX: u64 = 64;

/// What was said.
pub(crate) struct Messages {
    /// What messages were refused with.
    pub refusals: Names,
    /// Deliveries that were not what was sent, or not to whom.
    pub corrupt: u64,
    /// Deliveries that came twice.
    pub duplicated: u64,
    /// Messages of all phases.
    sent: Vec<Sent>,
    /// Neither arrived and acked, nor refused.
    open: u64,
    live: Vec<u32>,
    /// Where in `live` a client is, by client.
    place: Vec<Option<u32>>,
    pace: Pace,
    delivery: Histogram<u64>,
    ack: Histogram<u64>,
    assignment: Assignment,
    run: u32,
    body: Vec<u8>,
    encoder: Encoder,
    clock: Clock,
}

#[derive(Clone, Copy)]
struct Sent {
    from: u32,
    to: u32,
    sent_ns: u64,
    arrived: bool,
    acked: bool,
}

impl Messages {
    /// Nobody is logged in, nothing is said.
    pub(crate) fn new(assignment: Assignment, run: u32, body_bytes: usize, clock: Clock) -> Messages {
        Messages {
            refusals: Names::new(),
            corrupt: 0,
            duplicated: 0,
            sent: Vec::new(),
            open: 0,
            live: Vec::new(),
            place: vec![None; assignment.share() as usize],
            pace: Pace::default(),
            delivery: latencies(),
            ack: latencies(),
            assignment,
            run,
            body: vec![0; body_bytes],
            encoder: Encoder::new(),
            clock,
        }
    }

    /// From now on so many messages a second; 0: none.
    pub(crate) fn start(&mut self, per_s: f64) {
        self.pace.start(per_s, self.clock.mono_ns());
    }

    /// A client has logged in.
    pub(crate) fn is_live(&mut self, client: u32) {
        if let Some(place) = self.place.get_mut(client as usize).filter(|place| place.is_none()) {
            *place = Some(self.live.len() as u32);
            self.live.push(client);
        }
    }

    /// A client's connection is going, or gone.
    pub(crate) fn is_gone(&mut self, client: u32) {
        let Some(at) = self.place.get_mut(client as usize).and_then(Option::take) else { return };
        self.live.swap_remove(at as usize);
        if let Some(moved) = self.live.get(at as usize)
            && let Some(place) = self.place.get_mut(*moved as usize)
        {
            *place = Some(at);
        }
    }

    /// All connections were dropped.
    pub(crate) fn nobody_is_live(&mut self) {
        self.live.clear();
        self.place.fill(None);
    }

    /// Messages that are on their way, or not acked.
    pub(crate) fn open(&self) -> u64 {
        self.open
    }

    /// Messages that were acked and have not arrived.
    pub(crate) fn lost(&self) -> u64 {
        self.sent.iter().filter(|sent| sent.acked && !sent.arrived).count() as u64
    }

    /// Messages that were not answered at all, or only with an error.
    pub(crate) fn unacked(&self) -> u64 {
        self.sent.iter().filter(|sent| !sent.acked).count() as u64
    }

    /// Messages sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.len() as u64
    }

    /// From send to delivery and to ack, nanoseconds, since this was last asked.
    pub(crate) fn take_latencies(&mut self) -> (Histogram<u64>, Histogram<u64>) {
        (std::mem::replace(&mut self.delivery, latencies()), std::mem::replace(&mut self.ack, latencies()))
    }

    /// Sends what is due.
    pub(crate) fn turn(&mut self, clients: &Clients, swarm: &mut Swarm) {
        let now_ns = self.clock.mono_ns();
        for _ in 0..self.pace.due(now_ns).min(SENDS_PER_TURN_MAX) {
            if self.live.len() < 2 {
                // Nobody to send to: what was due is not made up for.
                self.pace.skip_to(now_ns);
                return;
            }
            self.pace.done();
            self.say(clients, swarm);
        }
    }

    fn say(&mut self, clients: &Clients, swarm: &mut Swarm) {
        let from = fastrand::usize(..self.live.len());
        // Another than the sender: the one so many places further.
        let to = (from + fastrand::usize(1..self.live.len())) % self.live.len();
        let (Some(from), Some(to)) = (self.live.get(from).copied(), self.live.get(to).copied()) else { return };
        let (index, sent_ns) = (self.sent.len() as u32, self.clock.mono_ns());
        body::write(Mark { run: self.run, index, sent_ns }, &mut self.body);
        let name = ClientMsgId::from_parts(clients.server_ms(from), u128::from(self.run) << 32 | u128::from(index));
        let conversation = Conversation::User(self.assignment.user(to));
        let request = RequestId::of_index(index).0;
        swarm.send(LinkId(from), self.encoder.send(request, conversation, name, &self.body, Durability::Durable));
        self.sent.push(Sent { from, to, sent_ns, arrived: false, acked: false });
        self.open += 2;
    }

    /// A push came to a client.
    pub(crate) fn arrived(&mut self, client: u32, push: &PushView<'_>, at_ns: u64) {
        let from = self.assignment.local(push.sender);
        if from == Some(client) {
            // The row of its own message, that it was shown as a `SendOk` out of its place.
            return;
        }
        let mark = body::read(push.body).filter(|mark| mark.run == self.run && push.body.len() == self.body.len());
        let sent = mark.and_then(|mark| self.sent.get_mut(mark.index as usize));
        match sent.filter(|sent| sent.to == client && Some(sent.from) == from) {
            None => self.corrupt += 1,
            Some(sent) if sent.arrived => self.duplicated += 1,
            Some(sent) => {
                sent.arrived = true;
                self.open -= 1;
                self.delivery.saturating_record(at_ns.saturating_sub(sent.sent_ns));
            }
        }
    }

    /// `SendOk`.
    pub(crate) fn acked(&mut self, client: u32, request: RequestId, at_ns: u64) {
        let sent = request.index().and_then(|index| self.sent.get_mut(index as usize));
        match sent.filter(|sent| sent.from == client) {
            None => self.corrupt += 1,
            Some(sent) if sent.acked => self.duplicated += 1,
            Some(sent) => {
                sent.acked = true;
                self.open -= 1;
                self.ack.saturating_record(at_ns.saturating_sub(sent.sent_ns));
            }
        }
    }

    /// An error: the message is given up.
    pub(crate) fn refused(&mut self, client: u32, request: RequestId, code: ErrorCode) {
        count_name(&mut self.refusals, code.variant_name().unwrap_or("Unknown"));
        let sent = request.index().and_then(|index| self.sent.get(index as usize));
        if sent.is_some_and(|sent| sent.from == client && !sent.acked) {
            self.open -= 2;
        }
    }
}

#[cfg(test)]
mod tests;
