//! What the conductor and its processes say to each other: JSON, one line each, orders down a process's standard
//! input, a beat up its standard output once a second.
//!
//! What always holds: orders are carried out one after another, and a beat says how many were; all counts in a beat
//! are since the process began, all latencies since the last beat.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::assignment::Counts;

/// What a process is to be: the first line it gets.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct Plan {
    /// Names the run in every body.
    pub run: u32,
    /// How many there are of everything.
    pub counts: Counts,
    /// Which process this is, from 0.
    pub process: u32,
    /// The gateway.
    pub target: SocketAddr,
    /// Where connections come from; none: from where the kernel likes.
    pub sources: Vec<IpAddr>,
    /// What tokens are made with. It goes through the pipe, so that it is on no command line.
    pub secret: Vec<u8>,
    /// How often a client says something; `None`: as often as the gateway wants it.
    pub heartbeat_ms: Option<u32>,
    /// Bytes of a body.
    pub body_bytes: usize,
}

/// What the conductor wants.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Everybody who is out comes in, so many a second.
    Come {
        /// Connections a second of this process.
        per_s: f64,
    },
    /// Owners make their groups; the beat that has them all says so.
    MakeGroups,
    /// The groups everybody is in: number in the plan, id at the gateway.
    Know {
        /// All of them.
        groups: Vec<(u32, u64)>,
    },
    /// Send and churn so much a second; zeros stop it.
    Traffic {
        /// Messages to groups.
        group_per_s: f64,
        /// Messages to users.
        direct_per_s: f64,
        /// Connections that break off.
        churn_per_s: f64,
    },
    /// Everybody leaves, without a word.
    Leave,
    /// Whoever is away comes back now; the next beats say what was acked.
    Quiesce,
    /// So many messages of each group were acked: the next beats say what is missing.
    Compare {
        /// By number in the plan.
        acked: Vec<(u32, u32)>,
    },
    /// It is over.
    End,
}

/// Counts since a process began.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct Totals {
    pub dialed: u64,
    pub logins: u64,
    pub resumed: u64,
    pub churned: u64,
    pub dropped: u64,
    pub pings: u64,
    pub pongs: u64,
    pub group_sent: u64,
    pub group_acked: u64,
    pub direct_sent: u64,
    pub direct_acked: u64,
    pub repeats: u64,
    pub held_back: u64,
    pub rows: u64,
    pub delivered: u64,
    pub caught_up: u64,
    pub duplicated: u64,
    pub out_of_order: u64,
    pub corrupt: u64,
    pub gaps: u64,
}

/// How the process itself did since its last beat.
#[derive(Clone, Copy, PartialEq, Default, Serialize, Deserialize, Debug)]
pub struct Effort {
    /// Time that passed.
    pub wall_ns: u64,
    /// Of it, not spent waiting for something to happen.
    pub busy_ns: u64,
    /// Of it, in turns that were late by more than [`LATE_NS`].
    pub late_ns: u64,
    /// The longest time for which nothing was looked at.
    pub lag_ns_max: u64,
    /// CPU time.
    pub cpu_ns: u64,
}

/// A turn that starts so much later than it should makes latencies look longer than they are.
pub(crate) const LATE_NS: u64 = 100_000_000;

/// What is missing of what was acked.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct Missing {
    /// Deliveries due to clients that were ever logged in.
    pub due: u64,
    /// Of them, not with a client that is logged in.
    pub lost: u64,
    /// Of them, not with a client that is not logged in: it could not be asked.
    pub away: u64,
}

/// Names and how often.
pub(crate) type Names = BTreeMap<String, u64>;

/// What a process says.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
pub struct Beat {
    /// Orders carried out.
    pub orders: u32,
    /// Clients logged in.
    pub live: u32,
    /// Clients that were ever logged in.
    pub seen: u32,
    /// Clients whose connection or login is not answered yet.
    pub dialing: u32,
    /// Clients that wait before they come back.
    pub away: u32,
    /// Sends that are not answered yet.
    pub open: u32,
    /// When the newest login was answered, nanoseconds of the host; 0: none was.
    pub login_ns: u64,
    /// Resident memory of the process.
    pub resident_bytes: u64,
    /// Counts.
    pub totals: Totals,
    /// How connections ended that should have stayed: close reasons, or what the kernel said.
    pub ends: Names,
    /// What requests were refused with.
    pub refusals: Names,
    /// What the kernel refused this process.
    pub kernel: Names,
    /// How it did.
    pub effort: Effort,
    /// From send to delivery.
    pub delivery: Buckets,
    /// From send to ack.
    pub ack: Buckets,
    /// From ping to pong.
    pub pong: Buckets,
    /// The groups made, when all are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Vec<(u32, u64)>>,
    /// Messages acked by group, once ordered to quiesce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acked: Option<Vec<(u32, u32)>>,
    /// What is missing, once ordered to compare.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<Missing>,
}

/// A histogram on its way: values and how often, none left out but those that never were.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct Buckets(pub Vec<(u64, u64)>);

impl Buckets {
    /// Takes what was recorded, and empties the histogram.
    pub fn take(from: &mut Histogram<u64>) -> Buckets {
        // Most are, while everybody logs in; looking through one takes a million instructions.
        if from.is_empty() {
            return Buckets::default();
        }
        let buckets = from.iter_recorded().map(|v| (v.value_iterated_to(), v.count_since_last_iteration())).collect();
        from.reset();
        Buckets(buckets)
    }

    /// Adds them to a histogram of the same bounds.
    pub fn add_to(&self, to: &mut Histogram<u64>) {
        for (value, count) in &self.0 {
            to.saturating_record_n(*value, *count);
        }
    }
}

impl Totals {
    /// Adds another process's.
    pub fn add(&mut self, other: &Totals) {
        let Totals {
            dialed,
            logins,
            resumed,
            churned,
            dropped,
            pings,
            pongs,
            group_sent,
            group_acked,
            direct_sent,
            direct_acked,
            repeats,
            held_back,
            rows,
            delivered,
            caught_up,
            duplicated,
            out_of_order,
            corrupt,
            gaps,
        } = other;
        self.dialed += dialed;
        self.logins += logins;
        self.resumed += resumed;
        self.churned += churned;
        self.dropped += dropped;
        self.pings += pings;
        self.pongs += pongs;
        self.group_sent += group_sent;
        self.group_acked += group_acked;
        self.direct_sent += direct_sent;
        self.direct_acked += direct_acked;
        self.repeats += repeats;
        self.held_back += held_back;
        self.rows += rows;
        self.delivered += delivered;
        self.caught_up += caught_up;
        self.duplicated += duplicated;
        self.out_of_order += out_of_order;
        self.corrupt += corrupt;
        self.gaps += gaps;
    }
}

impl Missing {
    /// Adds another process's.
    pub fn add(&mut self, other: &Missing) {
        self.due += other.due;
        self.lost += other.lost;
        self.away += other.away;
    }
}

/// Adds names to names.
pub(crate) fn add_names(to: &mut Names, from: &Names) {
    for (name, count) in from {
        *to.entry(name.clone()).or_default() += count;
    }
}

/// One more of a name.
pub(crate) fn count_name(names: &mut Names, name: &str) {
    match names.get_mut(name) {
        Some(count) => *count += 1,
        None => {
            names.insert(name.to_owned(), 1);
        }
    }
}
