//! Which session sends which stream, and who receives it; what came for them is counted here.
//!
//! Owned by the load generator's thread. A group is one stream with many recipients; a pair is a stream with
//! one. What always holds: every frame of every session ends in a count, an answer, or a failure; none is
//! ignored except pongs and announcements.

use std::collections::HashSet;

use hdrhistogram::Histogram;

use super::acks::Acks;
use super::body::{self, Mark};
use super::check::{Checker, LaneId, Terms};
use super::crowd::{CrowdEvent, CrowdFrame, SessionId};
use super::error::LoadError;
use super::latency::latencies;
use ringway_client::incoming::{ClosingInfo, Refusal};
use ringway_client::{Incoming, RequestId, SessionError};
use ringway_wire::frame::Encoder;
use ringway_wire::ids::{ClientMsgId, Conversation, MsgId, Seq, UserId};
use ringway_wire::request::Durability;
use ringway_wire::schema::{CloseReason, ErrorCode};

/// All streams of a bench.
pub(crate) struct Room {
    /// The streams.
    pub streams: Vec<Stream>,
    /// By session.
    roles: Vec<Role>,
    /// Sessions on other nodes than the sender's.
    across: HashSet<SessionId>,
    /// From send to delivery, nanoseconds.
    pub delivery: Histogram<u64>,
    /// The same to recipients on other nodes than the sender's; they are in `delivery` only after [`Room::sum_up`].
    pub delivery_across: Histogram<u64>,
    /// From send to ack, nanoseconds.
    pub ack: Histogram<u64>,
    /// Messages to send again, with the time from which on.
    pub retries: Vec<Retry>,
    /// Sessions whose connection ended.
    pub ended: Vec<SessionId>,
    /// What stops the bench.
    pub failure: Option<LoadError>,
    kind: Durability,
    run: u32,
}

/// One sender's messages to one conversation.
pub(crate) struct Stream {
    /// Checks the deliveries.
    pub checker: Checker,
    /// Checks the acks.
    pub acks: Acks,
    /// Who sends.
    pub sender: SessionId,
    /// Who receives, online.
    pub recipients: Vec<(SessionId, LaneId)>,
    /// Everybody who gets rows, online or not, the sender too, with the newest row before the round.
    pub inboxes: Vec<(UserId, Seq)>,
    to: Conversation,
    body: Vec<u8>,
    /// The first message of the round.
    round_from: u32,
    /// What the acks counted before the round.
    before: AcksBefore,
}

#[derive(Clone, Copy, Default)]
struct AcksBefore {
    acked: u64,
    refused: u64,
    deferred: u64,
    out_of_order: u64,
    repeated: u64,
}

/// A message that was refused for now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retry {
    /// Which stream.
    pub stream: usize,
    /// Which of its messages.
    pub index: u32,
    /// Not before.
    pub due_ns: u64,
}

#[derive(Clone, Copy)]
enum Role {
    Sender(usize),
    Recipient(usize, LaneId),
    Empty,
}

impl Room {
    /// An empty room for messages of one kind.
    pub(crate) fn new(kind: Durability) -> Room {
        Room {
            streams: Vec::new(),
            roles: Vec::new(),
            across: HashSet::new(),
            delivery: latencies(),
            delivery_across: latencies(),
            ack: latencies(),
            retries: Vec::new(),
            ended: Vec::new(),
            failure: None,
            kind,
            run: fastrand::u32(..),
        }
    }

    /// Adds a stream: `recipients` with their newest rows.
    pub(crate) fn add(
        &mut self,
        sender: (SessionId, UserId),
        to: Conversation,
        recipients: &[(SessionId, Seq)],
        inboxes: Vec<(UserId, Seq)>,
        body_bytes: usize,
    ) {
        let (session, user) = sender;
        let terms = Terms { run: self.run, sender: user, to, kind: self.kind, body_bytes };
        let mut checker = Checker::new(terms);
        let stream = self.streams.len();
        self.set_role(session, Role::Sender(stream));
        let mut lanes = Vec::with_capacity(recipients.len());
        for (session, newest) in recipients {
            let lane = checker.join(*newest);
            lanes.push((*session, lane));
            self.set_role(*session, Role::Recipient(stream, lane));
        }
        self.streams.push(Stream {
            checker,
            acks: Acks::new(self.kind),
            sender: session,
            recipients: lanes,
            inboxes,
            to,
            body: vec![0; body_bytes],
            round_from: 0,
            before: AcksBefore::default(),
        });
    }

    /// Whether messages are numbered.
    pub(crate) fn kind(&self) -> Durability {
        self.kind
    }

    /// Starts a new count.
    pub(crate) fn begin(&mut self) {
        self.delivery.reset();
        self.delivery_across.reset();
        self.ack.reset();
        for stream in &mut self.streams {
            stream.checker.begin();
            stream.round_from = stream.acks.next_index();
            stream.before = AcksBefore {
                acked: stream.acks.acked(),
                refused: stream.acks.refused(),
                deferred: stream.acks.deferred(),
                out_of_order: stream.acks.out_of_order(),
                repeated: stream.acks.repeated(),
            };
        }
    }

    /// Encodes `stream`'s next message, stamped `sent_ns`, behind what is in `out`.
    pub(crate) fn compose(
        &mut self,
        stream: usize,
        sent_ns: u64,
        unix_ms: u64,
        encoder: &mut Encoder,
        out: &mut Vec<u8>,
    ) {
        if let Some(open) = self.streams.get_mut(stream) {
            let index = open.acks.sent(sent_ns, unix_ms);
            self.compose_again(stream, index, encoder, out);
        }
    }

    /// Encodes a message as it was encoded first.
    pub(crate) fn compose_again(&mut self, stream: usize, index: u32, encoder: &mut Encoder, out: &mut Vec<u8>) {
        let (run, durability) = (self.run, self.kind);
        let Some(open) = self.streams.get_mut(stream) else { return };
        let Some((sent_ns, unix_ms)) = open.acks.sent_at(index) else { return };
        body::write(Mark { run, index, sent_ns }, &mut open.body);
        let name = u128::from(run) << 64 | (stream as u128) << 32 | u128::from(index);
        let client_msg_id = ClientMsgId::from_parts(unix_ms, name);
        let request = RequestId::of_index(index).0;
        out.extend_from_slice(encoder.send(request, open.to, client_msg_id, &open.body, durability));
    }

    /// A recipient is on another node than the sender.
    pub(crate) fn mark_across(&mut self, session: SessionId) {
        self.across.insert(session);
    }

    /// The round is over: every delivery is one.
    pub(crate) fn sum_up(&mut self) {
        self.delivery.add(&self.delivery_across).ok();
    }

    /// What came for a session.
    pub(crate) fn receive(&mut self, session: SessionId, event: CrowdEvent<'_>) {
        let mut frame = match event {
            CrowdEvent::Frame(frame) => frame,
            CrowdEvent::Ended => return self.ended.push(session),
        };
        match self.roles.get(session.0 as usize).copied().unwrap_or(Role::Empty) {
            Role::Recipient(stream, lane) => {
                let Some(open) = self.streams.get_mut(stream) else { return };
                let is_across = !self.across.is_empty() && self.across.contains(&session);
                let latencies = if is_across { &mut self.delivery_across } else { &mut self.delivery };
                let (bytes, at_ns) = (frame.bytes, frame.at_ns);
                let taken = match open.checker.take_copy(lane, bytes, at_ns, latencies) {
                    Some(seq) => return self.fail_on(frame.is_copy(seq)),
                    // What is out of order the checker sees by itself.
                    None => frame.read(&mut 0),
                };
                match taken {
                    Ok(Incoming::Row(push) | Incoming::Repeated(push) | Incoming::Ephemeral(push)) => {
                        open.checker.take_push(lane, bytes, &push, at_ns, latencies);
                    }
                    Ok(other) => self.aside(session, &other),
                    Err(SessionError::Frame(_)) => open.checker.take_corrupt(),
                    Err(error) => self.failure = Some(LoadError::Session(error)),
                }
            }
            Role::Sender(stream) => self.answer(stream, session, &mut frame),
            Role::Empty => {}
        }
    }

    fn fail_on(&mut self, taken: Result<(), SessionError>) {
        if let Err(error) = taken {
            self.failure = Some(LoadError::Session(error));
        }
    }

    /// Messages acked, messages delivered: it changes as long as something happens.
    pub(crate) fn progress(&self) -> u64 {
        self.streams.iter().map(|s| s.acks.acked() + s.checker.tally().delivered).sum()
    }

    /// Whether every message sent is acked, and is with every recipient who reads.
    pub(crate) fn is_done(&mut self) -> bool {
        self.streams.iter_mut().all(|s| s.open() == 0)
    }

    fn set_role(&mut self, session: SessionId, role: Role) {
        let at = session.0 as usize;
        if self.roles.len() <= at {
            self.roles.resize(at + 1, Role::Empty);
        }
        if let Some(place) = self.roles.get_mut(at) {
            *place = role;
        }
    }

    fn answer(&mut self, stream: usize, session: SessionId, frame: &mut CrowdFrame<'_>) {
        let Some(open) = self.streams.get_mut(stream) else { return };
        let (at_ns, mut out_of_order) = (frame.at_ns, 0);
        let read = frame.read(&mut out_of_order);
        open.acks.count_out_of_order(out_of_order);
        match read {
            Ok(Incoming::Sent(answer)) => {
                open.acks.answered(&answer, at_ns, &mut self.ack);
            }
            // The sender's own, from before it logged in again.
            Ok(Incoming::Row(_)) => {}
            Ok(Incoming::Repeated(_)) => open.acks.count_out_of_order(1),
            Ok(Incoming::Refused(refusal)) => match (refusal.code, self.kind) {
                (ErrorCode::RetryLater | ErrorCode::StorageFull, Durability::Durable) => {
                    open.acks.count_deferred();
                    let due_ns = at_ns + u64::from(refusal.retry_after_ms.max(1)) * 1_000_000;
                    self.retries.extend(refusal.request.index().map(|index| Retry { stream, index, due_ns }));
                }
                (ErrorCode::RetryLater, Durability::Ephemeral) => open.acks.give_up(),
                _ => self.aside(session, &Incoming::Refused(refusal)),
            },
            Ok(other) => self.aside(session, &other),
            Err(error) => self.failure = Some(LoadError::Session(error)),
        }
    }

    /// Frames that are neither deliveries nor answers.
    fn aside(&mut self, session: SessionId, incoming: &Incoming<'_>) {
        match incoming {
            // Slow readers come again; the others end with their connection.
            Incoming::Closing(ClosingInfo { reason: CloseReason::SlowReader, .. }) => {}
            Incoming::Closing(ClosingInfo { reason, message, .. }) => {
                let (user, message) = (u64::from(session.0), (*message).to_owned());
                self.failure = Some(LoadError::Closed { user, reason: *reason, message });
            }
            Incoming::Refused(Refusal { code, message, .. }) => {
                self.failure = Some(LoadError::Refused { code: *code, message: (*message).to_owned() });
            }
            // A gap's rows are never delivered, and so counted as lost.
            _ => {}
        }
    }
}

impl Stream {
    /// Messages that are not acked yet, or not with every recipient who reads.
    pub(crate) fn open(&mut self) -> u64 {
        self.checker.trim();
        let everywhere = if self.checker.reading() == 0 { self.acks.acked() } else { self.checker.complete() };
        self.acks.standing() - self.acks.acked().min(everywhere)
    }

    /// The round's messages as the acks name them, in the ledger's order.
    pub(crate) fn round_msg_ids(&self) -> Vec<MsgId> {
        let mut ids: Vec<MsgId> =
            (self.round_from..self.acks.next_index()).filter_map(|index| self.acks.msg_id(index)).collect();
        ids.sort_unstable();
        ids
    }

    /// Messages sent in the round.
    pub(crate) fn round_messages(&self) -> u64 {
        u64::from(self.acks.next_index() - self.round_from)
    }

    /// Messages given up in the round.
    pub(crate) fn round_refused(&self) -> u64 {
        self.acks.refused() - self.before.refused
    }

    /// Refusals of the round after which a message was sent again.
    pub(crate) fn round_deferred(&self) -> u64 {
        self.acks.deferred() - self.before.deferred
    }

    /// Messages acked in the round.
    pub(crate) fn round_acked(&self) -> u64 {
        self.acks.acked() - self.before.acked
    }

    /// Acks of the round whose row was not the sender's next.
    pub(crate) fn round_acks_out_of_order(&self) -> u64 {
        self.acks.out_of_order() - self.before.out_of_order
    }

    /// Acks of the round for what was acked before, or never sent.
    pub(crate) fn round_acks_repeated(&self) -> u64 {
        self.acks.repeated() - self.before.repeated
    }

    /// Messages that the sender was told another number for than the recipients.
    pub(crate) fn differing_msg_ids(&self) -> u64 {
        let delivered = |index| self.checker.msg_id_of(index);
        let differs = |index: &u32| match (self.acks.msg_id(*index), delivered(*index)) {
            (Some(acked), Some(delivered)) => acked != delivered,
            _ => false,
        };
        (self.round_from..self.acks.next_index()).filter(differs).count() as u64
    }
}
