//! What a sender was told about its messages: each `SendOk` is matched with its message and with the sender's
//! next row.
//!
//! Owned by the load generator's thread, one per sending session. What always holds: a message counts as acked
//! once; an ack counts as in order only if its row is the sender's next. Ephemeral messages have no row.

use hdrhistogram::Histogram;

use ringway_client::incoming::{OwnRow, SendAnswer};
use ringway_wire::ids::{MsgId, Seq};
use ringway_wire::request::Durability;

/// The sender's messages, by index from 0 since the session began.
pub(crate) struct Acks {
    kind: Durability,
    messages: Vec<Sent>,
    acked: u64,
    refused: u64,
    deferred: u64,
    out_of_order: u64,
    repeated: u64,
}

#[derive(Clone, Copy)]
struct Sent {
    sent_ns: u64,
    unix_ms: u64,
    /// The number it got; `None`: not acked yet.
    msg_id: Option<MsgId>,
}

/// What an answer was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// The first ack of this message.
    First,
    /// Not a message of ours, or one that was acked before.
    Unexpected,
}

impl Acks {
    /// For a sender who has said nothing yet.
    pub(crate) fn new(kind: Durability) -> Acks {
        Acks { kind, messages: Vec::new(), acked: 0, refused: 0, deferred: 0, out_of_order: 0, repeated: 0 }
    }

    /// A message is sent; returns its index.
    pub(crate) fn sent(&mut self, sent_ns: u64, unix_ms: u64) -> u32 {
        self.messages.push(Sent { sent_ns, unix_ms, msg_id: None });
        (self.messages.len() - 1) as u32
    }

    /// The next message's index.
    pub(crate) fn next_index(&self) -> u32 {
        self.messages.len() as u32
    }

    /// When message `index` was sent first: by our clock in nanoseconds, and in Unix milliseconds.
    pub(crate) fn sent_at(&self, index: u32) -> Option<(u64, u64)> {
        self.messages.get(index as usize).map(|m| (m.sent_ns, m.unix_ms))
    }

    /// An ephemeral message was refused: it is given up.
    pub(crate) fn give_up(&mut self) {
        self.refused += 1;
    }

    /// A message was refused for now: it is sent again.
    pub(crate) fn count_deferred(&mut self) {
        self.deferred += 1;
    }

    /// Messages sent and not given up.
    pub(crate) fn standing(&self) -> u64 {
        self.messages.len() as u64 - self.refused
    }

    /// A message was answered; its latency goes into `latency`. Its index is its request's.
    pub(crate) fn answered(&mut self, answer: &SendAnswer, now_ns: u64, latency: &mut Histogram<u64>) -> Answer {
        let message = answer.request.index().and_then(|index| self.messages.get_mut(index as usize));
        let Some(sent) = message.filter(|m| m.msg_id.is_none()) else {
            self.repeated += 1;
            return Answer::Unexpected;
        };
        sent.msg_id = Some(answer.msg_id);
        self.acked += 1;
        latency.saturating_record(now_ns.saturating_sub(sent.sent_ns));
        let is_in_order = match self.kind {
            Durability::Durable => answer.row == OwnRow::Next,
            Durability::Ephemeral => answer.seq == Seq(0),
        };
        self.out_of_order += u64::from(!is_in_order);
        Answer::First
    }

    /// Rows came that were not the sender's next.
    pub(crate) fn count_out_of_order(&mut self, rows: u64) {
        self.out_of_order += rows;
    }

    /// Messages acked.
    pub(crate) fn acked(&self) -> u64 {
        self.acked
    }

    /// Messages given up.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }

    /// Refusals after which a message was sent again.
    pub(crate) fn deferred(&self) -> u64 {
        self.deferred
    }

    /// Answers whose row was not the sender's next.
    pub(crate) fn out_of_order(&self) -> u64 {
        self.out_of_order
    }

    /// Answers to what was answered before, or never asked.
    pub(crate) fn repeated(&self) -> u64 {
        self.repeated
    }

    /// The number message `index` got, if acked.
    pub(crate) fn msg_id(&self, index: u32) -> Option<MsgId> {
        self.messages.get(index as usize).and_then(|m| m.msg_id)
    }
}

#[cfg(test)]
mod tests;
