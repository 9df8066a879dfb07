//! What each recipient of one stream of messages must receive, and what it did: every delivery is checked.
//!
//! Owned by the load generator's thread; knows no socket, no session and no clock. The first copy of a message is verified
//! and read in full, and kept; every other recipient's copy must equal it byte for byte, except for its seq,
//! which must be that recipient's next. Whatever differs takes the slow path: read in full and judged by its
//! msg_id. What always holds: a message counts as delivered to a recipient at most once; `lost`, `duplicated`,
//! `out_of_order` and `corrupt` are all zero only if every recipient received every message once, whole, in the
//! ledger's order, under consecutive numbers.

use std::collections::VecDeque;

use hdrhistogram::Histogram;

use super::body::{self, Mark};
use ringway_wire::ids::{Conversation, MsgId, Seq, UserId};
use ringway_wire::request::{Durability, PushView};

/// What all messages of the stream have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// The run their bodies name.
    pub run: u32,
    /// Who sends them.
    pub sender: UserId,
    /// Where they are addressed.
    pub to: Conversation,
    /// Whether they are numbered.
    pub kind: Durability,
    /// The length of every body.
    pub body_bytes: usize,
}

/// A recipient's place in a [`Checker`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LaneId(pub u32);

/// What was found since the last [`Checker::begin`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Tally {
    /// Messages that reached a recipient, each counted once per recipient.
    pub delivered: u64,
    /// Deliveries of a message that the recipient had already.
    pub duplicated: u64,
    /// Deliveries that came later than they should have, or under a number that does not follow.
    pub out_of_order: u64,
    /// Deliveries that are not what was sent.
    pub corrupt: u64,
}

/// Checks one stream of messages to many recipients.
pub(crate) struct Checker {
    terms: Terms,
    /// The messages that not all recipients have yet, in the ledger's order, from position `first`.
    known: VecDeque<Known>,
    first: u64,
    /// msg_id (of ephemeral messages: the index) by position, strictly ascending, from the stream's start.
    keys: Vec<u64>,
    /// The sender's index by position.
    indices: Vec<u32>,
    lanes: Vec<Lane>,
    /// Recipients that are waited for.
    reading: u32,
    tally: Tally,
}

struct Known {
    frame: Box<[u8]>,
    /// Where the seq is; `None`: this frame has none, and every copy takes the slow path.
    seq_at: Option<usize>,
    sent_ns: u64,
    /// Recipients that have not received it yet.
    awaited: u32,
}

struct Lane {
    /// The next position due.
    position: u64,
    cursor: u64,
    /// Positions passed over, ascending.
    skipped: Vec<u64>,
    /// Positions received under a higher number than was due, and by how much, since the count began: out of
    /// order, unless messages turn up that explain it.
    jumps: Vec<(u64, u64)>,
    stalled: bool,
}

impl Checker {
    /// No recipients yet.
    pub(crate) fn new(terms: Terms) -> Checker {
        Checker {
            terms,
            known: VecDeque::new(),
            first: 0,
            keys: Vec::new(),
            indices: Vec::new(),
            lanes: Vec::new(),
            reading: 0,
            tally: Tally::default(),
        }
    }

    /// Adds a recipient whose newest row is `cursor`. Only before the stream's first message.
    pub(crate) fn join(&mut self, cursor: Seq) -> LaneId {
        let lane = LaneId(self.lanes.len() as u32);
        let cursor = if self.terms.kind == Durability::Durable { cursor.0 } else { 0 };
        self.lanes.push(Lane { position: 0, cursor, skipped: Vec::new(), jumps: Vec::new(), stalled: false });
        self.reading += 1;
        lane
    }

    /// This recipient stops reading: nobody waits for it, and its latencies do not count.
    pub(crate) fn stall(&mut self, lane: LaneId) {
        if let Some(lane) = self.lanes.get_mut(lane.0 as usize).filter(|l| !l.stalled) {
            lane.stalled = true;
            self.reading -= 1;
        }
    }

    /// This recipient reads again and has everything: it is waited for as before.
    pub(crate) fn rejoin(&mut self, lane: LaneId) {
        let seen = self.keys.len() as u64;
        if let Some(lane) = self.lanes.get_mut(lane.0 as usize).filter(|l| l.stalled) {
            lane.stalled = false;
            if self.terms.kind == Durability::Ephemeral {
                lane.position = seen;
            }
            self.reading += 1;
        }
    }

    /// Starts a new count; what is known of the messages and the recipients stays.
    pub(crate) fn begin(&mut self) {
        self.tally = Tally::default();
        self.lanes.iter_mut().for_each(|lane| lane.jumps.clear());
    }

    /// What was found since [`Self::begin`].
    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    /// Recipients that are waited for.
    pub(crate) fn reading(&self) -> u64 {
        u64::from(self.reading)
    }

    /// Messages that every recipient who reads has, since the stream's start.
    pub(crate) fn complete(&self) -> u64 {
        self.first
    }

    /// Messages seen by anybody, since the stream's start.
    pub(crate) fn seen(&self) -> u64 {
        self.keys.len() as u64
    }

    /// The number the gateway gave the sender's message `index`, if anybody has received it.
    pub(crate) fn msg_id_of(&self, index: u32) -> Option<MsgId> {
        // The ledger's order is all but always the sender's: look there first.
        let near = index as usize;
        let at = if self.indices.get(near) == Some(&index) {
            near
        } else {
            self.indices.iter().position(|i| *i == index)?
        };
        self.keys.get(at).copied().map(MsgId)
    }

    /// What a recipient has not received of the messages seen so far.
    pub(crate) fn missing(&self, lane: LaneId) -> u64 {
        let Some(lane) = self.lanes.get(lane.0 as usize) else { return 0 };
        self.seen() - lane.position.min(self.seen()) + lane.skipped.len() as u64
    }

    /// A frame that a recipient received at `now_ns`: its seq, if it is a copy of a message that is known, in its place;
    /// then all is counted. From send to delivery goes into `latency`, in nanoseconds, stalled recipients left out.
    pub(crate) fn take_copy(
        &mut self,
        lane_id: LaneId,
        frame: &[u8],
        now_ns: u64,
        latency: &mut Histogram<u64>,
    ) -> Option<Seq> {
        let lane = self.lanes.get_mut(lane_id.0 as usize).filter(|lane| !lane.stalled)?;
        let at = lane.position.checked_sub(self.first)?;
        let known = self.known.get_mut(at as usize)?;
        let seq = known.equals(frame).filter(|seq| *seq == lane.due(self.terms.kind))?;
        lane.position += 1;
        lane.cursor = seq;
        known.awaited = known.awaited.saturating_sub(1);
        self.tally.delivered += 1;
        latency.saturating_record(now_ns.saturating_sub(known.sent_ns));
        Some(Seq(seq))
    }

    /// A frame that could not be read.
    pub(crate) fn take_corrupt(&mut self) {
        self.tally.corrupt += 1;
    }

    /// Checks any other push, which was read from `frame`.
    pub(crate) fn take_push(
        &mut self,
        lane_id: LaneId,
        frame: &[u8],
        push: &PushView<'_>,
        now_ns: u64,
        latency: &mut Histogram<u64>,
    ) {
        let Some(mark) = self.mark(push) else {
            self.tally.corrupt += 1;
            return;
        };
        let key = if self.terms.kind == Durability::Durable { push.msg_id.0 } else { u64::from(mark.index) };
        let position = match self.keys.binary_search(&key) {
            Ok(at) if self.indices.get(at) == Some(&mark.index) => at as u64,
            Ok(_) => {
                self.tally.corrupt += 1;
                return;
            }
            Err(at) if at == self.keys.len() => self.learn(key, mark, frame),
            // Those who have newer ones passed it over unseen.
            Err(at) => self.learn_late(at, key, mark, frame),
        };
        let late_ns = now_ns.saturating_sub(mark.sent_ns);
        if self.arrive(lane_id, position, push.seq.0) == Arrival::Awaited {
            latency.saturating_record(late_ns);
        }
    }

    /// Forgets the copies of messages that everybody has. Once per turn is enough.
    pub(crate) fn trim(&mut self) {
        while self.known.front().is_some_and(|k| k.awaited == 0) {
            self.known.pop_front();
            self.first += 1;
        }
    }

    /// The body's mark, if all of the push is as it was sent.
    fn mark(&self, push: &PushView<'_>) -> Option<Mark> {
        let terms = &self.terms;
        let mark = body::read(push.body)?;
        let as_sent = mark.run == terms.run
            && push.sender == terms.sender
            && push.to == terms.to
            && push.body.len() == terms.body_bytes;
        as_sent.then_some(mark)
    }

    fn learn(&mut self, key: u64, mark: Mark, frame: &[u8]) -> u64 {
        let position = self.keys.len() as u64;
        self.keys.push(key);
        self.indices.push(mark.index);
        self.known.push_back(Known::new(frame, mark.sent_ns, self.reading));
        position
    }

    /// Takes in a message that is older than some that are known: whoever was read first did not get it in its
    /// place, and it must not be the others who are blamed for that.
    fn learn_late(&mut self, at: usize, key: u64, mark: Mark, frame: &[u8]) -> u64 {
        let position = at as u64;
        self.keys.insert(at, key);
        self.indices.insert(at, mark.index);
        while self.first > position {
            self.known.push_front(Known::forgotten());
            self.first -= 1;
        }
        let known = Known::new(frame, mark.sent_ns, self.reading);
        self.known.insert((position - self.first) as usize, known);
        for lane in self.lanes.iter_mut().filter(|lane| lane.position > position) {
            let due = match lane.stalled && self.terms.kind == Durability::Ephemeral {
                true => Due::Perhaps,
                false => Due::Surely,
            };
            if lane.pass_over_late(position, due) == Jump::Explained {
                self.tally.out_of_order -= 1;
            }
        }
        position
    }

    /// Judges a message that is whole by where it stands and where it should.
    fn arrive(&mut self, lane_id: LaneId, position: u64, seq: u64) -> Arrival {
        let Some(lane) = self.lanes.get_mut(lane_id.0 as usize) else { return Arrival::Uncounted };
        if position < lane.position {
            let Ok(at) = lane.skipped.binary_search(&position) else {
                self.tally.duplicated += 1;
                return Arrival::Uncounted;
            };
            lane.skipped.remove(at);
            self.tally.out_of_order += 1;
        } else {
            let due = match self.terms.kind {
                Durability::Durable => lane.cursor + 1 + (position - lane.position),
                Durability::Ephemeral => 0,
            };
            // A stalled reader misses ephemeral messages by right.
            if !(lane.stalled && self.terms.kind == Durability::Ephemeral) {
                lane.skipped.extend(lane.position..position);
            }
            self.tally.out_of_order += u64::from(seq != due);
            if seq > due && self.terms.kind == Durability::Durable {
                lane.jumps.push((position, seq - due));
            }
            lane.position = position + 1;
            lane.cursor = lane.cursor.max(seq);
        }
        if lane.stalled {
            self.tally.delivered += u64::from(self.terms.kind == Durability::Durable);
            return Arrival::Uncounted;
        }
        self.tally.delivered += 1;
        if let Some(at) = position.checked_sub(self.first)
            && let Some(known) = self.known.get_mut(at as usize)
        {
            known.awaited = known.awaited.saturating_sub(1);
        }
        Arrival::Awaited
    }
}

/// Whether somebody waited for a delivery, so that its latency counts.
#[derive(PartialEq, Eq)]
enum Arrival {
    Awaited,
    Uncounted,
}

/// Whether a lane is to receive a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Due {
    Surely,
    /// A stalled reader misses ephemeral messages by right.
    Perhaps,
}

/// Whether all that a jump in a lane's numbers left out has been seen with others.
#[derive(PartialEq, Eq)]
enum Jump {
    Explained,
    Open,
}

impl Lane {
    /// A message turned up at `position`, behind where this lane stands, and everything from there on moved by one.
    fn pass_over_late(&mut self, position: u64, due: Due) -> Jump {
        self.position += 1;
        self.skipped.iter_mut().filter(|at| **at >= position).for_each(|at| *at += 1);
        self.jumps.iter_mut().filter(|(at, _)| *at >= position).for_each(|(at, _)| *at += 1);
        if due == Due::Surely {
            let among = self.skipped.partition_point(|at| *at < position);
            self.skipped.insert(among, position);
        }
        // The number it has belongs to the jump to what this lane received next.
        let mut next = position + 1;
        while self.skipped.binary_search(&next).is_ok() {
            next += 1;
        }
        let Some(found) = self.jumps.iter().position(|(at, _)| *at == next) else { return Jump::Open };
        if let Some((_, missing)) = self.jumps.get_mut(found).filter(|(_, missing)| *missing > 1) {
            *missing -= 1;
            return Jump::Open;
        }
        self.jumps.swap_remove(found);
        Jump::Explained
    }

    fn due(&self, kind: Durability) -> u64 {
        match kind {
            Durability::Durable => self.cursor + 1,
            Durability::Ephemeral => 0,
        }
    }
}

impl Known {
    fn new(frame: &[u8], sent_ns: u64, awaited: u32) -> Known {
        Known { frame: frame.into(), seq_at: ringway_wire::push::seq_at(frame), sent_ns, awaited }
    }

    /// A message whose copy is gone because everybody has it.
    fn forgotten() -> Known {
        Known { frame: Box::default(), seq_at: None, sent_ns: 0, awaited: 0 }
    }

    /// The copy's seq, if everything else is the same.
    fn equals(&self, frame: &[u8]) -> Option<u64> {
        let at = self.seq_at?;
        if frame.len() != self.frame.len() {
            return None;
        }
        let (before, rest) = frame.split_at_checked(at)?;
        let (seq, after) = rest.split_first_chunk::<8>()?;
        let same = before == self.frame.get(..at)? && after == self.frame.get(at + 8..)?;
        same.then(|| u64::from_le_bytes(*seq))
    }
}

#[cfg(test)]
mod tests;
