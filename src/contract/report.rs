//! What threads tell control, once a second: copies of plain counters, through bounded channels.
//!
//! Dropped when control is slow: the next report says it all again.

use crate::contract::ids::ShardId;
use crate::contract::internal::InternalErrors;
use crate::contract::latencies::Latencies;
use crate::contract::shard_counters::ShardCounters;
use crate::contract::store_counters::StoreCounters;
use crate::contract::traffic::LimitedCounters;

/// What control is told.
#[derive(Debug)]
pub enum Report {
    /// By a shard.
    Shard(Box<ShardReport>),
    /// By the ledger.
    Ledger(Box<LedgerReport>),
    /// By the store.
    Store(Box<StoreCounters>),
    /// By the thread that talks to the cluster's other nodes.
    Nodes(Box<NodesReport>),
}

/// What control is told about a shard, once a second.
#[derive(Clone, Debug)]
pub struct ShardReport {
    /// The shard that reports.
    pub(crate) shard: ShardId,
    /// The core's counters.
    pub(crate) core: ShardCounters,
    /// The shell's.
    pub(crate) shell: ShellCounters,
    /// What waits in its mailbox.
    pub(crate) depths: Depths,
    /// Questions that wait for the store, all shards' together.
    pub(crate) store_asks: u64,
    /// What each budget has taken of the shard's time.
    pub(crate) budgets: [Spent; BUDGETS],
}

/// What the shell counts beside the core; all only grow.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct ShellCounters {
    /// Successful reads of sockets.
    pub(crate) reads: u64,
    /// System calls that wrote to sockets.
    pub(crate) sends: u64,
    /// Sockets that took less than there was.
    pub(crate) sockets_full: u64,
    /// Times that descriptors or memory ran out while accepting.
    pub(crate) descriptors_out: u64,
    /// Connections closed because they could not be handed over.
    pub(crate) handovers_refused: u64,
    /// From when a durable message was taken to when what its recipients here are given of it was written to their
    /// sockets.
    pub(crate) deliveries: Latencies,
    /// The same of the answers to those who sent it from here.
    pub(crate) acks: Latencies,
}

/// How many wait in one mailbox.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Depths {
    /// Commits from the ledger.
    pub(crate) commits: u64,
    /// Envelopes from other shards.
    pub(crate) lanes: u64,
    /// Answers from the store.
    pub(crate) answers: u64,
}

/// How many budgets there are.
pub(crate) const BUDGETS: usize = 4;

/// What a budget was given and has taken.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Spent {
    /// `Budget::name`.
    pub(crate) name: &'static str,
    /// Its part of the time when all want some.
    pub(crate) shares: u64,
    /// Time spent in it; other threads of the CPU may have had some of that.
    pub(crate) busy_ns: u64,
    /// How often it had its turn.
    pub(crate) turns: u64,
}

/// What control is told about the ledger, once a second.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct LedgerReport {
    /// The engine's counters.
    pub(crate) counters: LedgerCounters,
    /// Submissions that wait.
    pub(crate) submissions: u64,
    /// How often a shard's mailbox was full and the ledger waited.
    pub(crate) waits_for_room: u64,
    /// Of its thread.
    pub(crate) internal: InternalErrors,
}

/// What the ledger counts, since the process started.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct LedgerCounters {
    /// Messages made durable.
    pub messages: u64,
    /// Rows numbered.
    pub(crate) rows: u64,
    /// Commits with at least one record.
    pub commits: u64,
    /// Journal bytes written.
    pub bytes: u64,
    /// Sends answered from the window or the store.
    pub repeats: u64,
    /// Look-ups that went to the store.
    pub lookups: u64,
    /// Submissions refused with `STORAGE_FULL`.
    pub storage_full: u64,
    /// Submissions refused with `RETRY_LATER`.
    pub(crate) retry_later: u64,
    /// Of these, those whose sender or group may not have more now.
    pub(crate) limited: LimitedCounters,
    /// Group messages and changes that Redis did not take, because another change of the group had come first.
    pub bounced: u64,
    /// How long its `fdatasync`s took.
    pub syncs: Latencies,
    /// Now: 1 while the journal takes nothing, because its disk is full or it has as much as it may.
    pub(crate) journal_full: u64,
    /// In a cluster: why nothing new can be numbered now.
    pub stands_still: Option<StandsStill>,
    /// In a cluster: how far this node's clock is from Redis's, milliseconds; not a counter.
    pub(crate) clock_skew_ms: u64,
}

/// Why a node of a cluster numbers nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StandsStill {
    /// Redis does not answer.
    Disconnected,
    /// Redis takes no writes: it is a replica, or its disk takes nothing.
    ReadOnly,
    /// Another gateway has this node's id.
    Taken,
    /// The nodes that are there have another number of buckets.
    OtherBuckets,
    /// The nodes that are there have Redis keep names for another time.
    OtherNames,
    /// The ledger is being made anew.
    Rebuilding,
    /// The stream is not read so far as it was when the session began.
    CatchingUp,
    /// Redis was started while no node was there to tell whether it has all it had.
    Unverified,
    /// What a lost ledger may have had is looked for in the store.
    Searching,
    /// This node's clock is too far from Redis's.
    Clock,
    /// Redis has no memory left.
    NoMemory,
    /// As much of the stream is not in the database as may be.
    Full,
    /// The disk takes no more of what this node submits.
    LogFull,
}

impl StandsStill {
    /// What an operator is told.
    pub(crate) fn said(self) -> &'static str {
        match self {
            StandsStill::Disconnected => "Redis does not answer this node: nothing is numbered",
            StandsStill::ReadOnly => "Redis takes no writes, as a replica, or for want of disk: nothing is numbered",
            StandsStill::Taken => "another gateway has this node's id: nothing is numbered until its lease ends",
            StandsStill::OtherBuckets => {
                "the other gateways have another number of buckets: nothing is numbered until their leases end"
            }
            StandsStill::OtherNames => {
                "the other gateways have another limits.names_s: nothing is numbered until their leases end"
            }
            StandsStill::Rebuilding => "the cluster's ledger is being made anew: nothing is numbered",
            StandsStill::CatchingUp => "the cluster's stream is not read to its end yet: nothing is numbered",
            StandsStill::Unverified => {
                "Redis was started and may lack something: nothing is numbered until that is settled"
            }
            StandsStill::Searching => "the store is searched for what Redis may have lost: nothing is numbered",
            StandsStill::Clock => "this node's clock is more than a minute from Redis's: nothing is numbered",
            StandsStill::NoMemory => "Redis has no memory left: messages are refused",
            StandsStill::Full => {
                "the stream has as much as it may that is not in the database: messages are refused with STORAGE_FULL, \
                 and what was acked is safe"
            }
            StandsStill::LogFull => "this node's disk takes nothing more: messages are refused with STORAGE_FULL",
        }
    }
}

/// What control is told once a second. All but `nodes` and `others` only grow.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct NodesReport {
    /// Nodes alive, this one too; none that is known to be while Redis is away.
    pub(crate) nodes: u64,
    /// The others of these, by number.
    pub(crate) others: Vec<u16>,
    /// Messages published.
    pub(crate) published: u64,
    /// Messages of other nodes that came.
    pub(crate) received: u64,
    /// Messages, or parts for a shard, that were lost here.
    pub(crate) missed: u64,
    /// Messages that make no sense.
    pub(crate) unreadable: u64,
    /// Ephemeral messages that a shard had no room for.
    pub(crate) ephemeral_dropped: u64,
    /// Of its thread.
    pub(crate) internal: InternalErrors,
}
