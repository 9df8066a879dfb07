//! What rounds of a bench have shown, one by one, and the latencies of all of them together.

use hdrhistogram::Histogram;

use super::check::Tally;
use super::latency::latencies;
use super::room::Room;

/// What one round showed.
#[derive(Clone, Default, Debug)]
pub(crate) struct Round {
    /// Messages sent.
    pub messages: u64,
    /// Deliveries due.
    pub expected: u64,
    /// What came.
    pub tally: Tally,
    /// Messages acked.
    pub acked: u64,
    /// Refusals for now, after which the message was sent again.
    pub deferred: u64,
    /// Rows due.
    pub rows_expected: u64,
    /// Rows found where they are due; `None`: not counted.
    pub rows_stored: Option<u64>,
    /// From the last ack to the last row.
    pub rows_stored_ms: Option<f64>,
    /// From the first send to the last row, seconds.
    pub storing_s: Option<f64>,
    /// From the first send to the last delivery.
    pub burst_ms: f64,
    /// The gateway's CPU time from the first send to the last delivery, nanoseconds.
    pub cpu_ns: Option<u64>,
    /// The same to the last row stored.
    pub cpu_stored_ns: Option<u64>,
    /// How much the gateway's memory grew at most while messages were delivered, bytes.
    pub resident_growth_bytes: Option<u64>,
    /// How long those who had stalled needed to catch up.
    pub caught_up_ms: Option<f64>,
    /// From send to delivery, of one delivery in a hundred or longer, nanoseconds.
    pub delivery_p99_ns: u64,
}

/// Rounds alike, and the latencies of all of them.
pub(crate) struct Rounds {
    /// One after another.
    pub rounds: Vec<Round>,
    /// From send to delivery, nanoseconds.
    pub delivery: Histogram<u64>,
    /// Of these, to recipients on other nodes than the sender's.
    pub delivery_across: Histogram<u64>,
    /// From send to ack, nanoseconds.
    pub ack: Histogram<u64>,
}

impl Default for Rounds {
    fn default() -> Self {
        Rounds { rounds: Vec::new(), delivery: latencies(), delivery_across: latencies(), ack: latencies() }
    }
}

impl Rounds {
    /// One more, which the room has just seen.
    pub(crate) fn add(&mut self, mut round: Round, room: &mut Room) {
        room.sum_up();
        round.delivery_p99_ns = room.delivery.value_at_quantile(0.99);
        self.rounds.push(round);
        // All were made by `latencies`: adding cannot fail.
        self.delivery.add(&room.delivery).ok();
        self.delivery_across.add(&room.delivery_across).ok();
        self.ack.add(&room.ack).ok();
    }
}

impl Round {
    /// Deliveries that never came.
    pub(crate) fn lost(&self) -> u64 {
        self.expected.saturating_sub(self.tally.delivered)
    }

    /// Nothing lost, doubled, misplaced, harmed, unacked or unstored.
    pub(crate) fn is_clean(&self) -> bool {
        let tally = self.tally;
        self.messages > 0
            && self.lost() == 0
            && tally.duplicated + tally.out_of_order + tally.corrupt == 0
            && self.acked == self.messages
            && self.rows_stored.is_none_or(|rows| rows == self.rows_expected)
    }
}
