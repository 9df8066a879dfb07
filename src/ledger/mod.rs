//! The ledger: what orders messages, numbers rows and makes them durable. One contract, [`Engine`].
//!
//! Owned by the ledger's thread, a blocking loop in `topology/ledger.rs`. What always holds: nothing that an engine
//! hands out was visible to anybody before it was durable, and what it hands out is in one order per user.

pub(crate) mod admission;
pub(crate) mod answers;
pub(crate) mod bases;
pub mod dedup;
pub mod fair_queue;
pub(crate) mod groups;
pub mod journal_engine;
pub(crate) mod ledger_clock;
pub(crate) mod parts;
pub(crate) mod pending;
pub(crate) mod pending_delivery;
pub mod redis;
pub mod sequence;
pub mod start;
pub(crate) mod unstored;

use crate::clock::Now;
use crate::contract::delivery::Delivery;
use crate::contract::policies::Rules;
use crate::contract::report::LedgerCounters;
use crate::contract::store::{Lookup, LookupAnswer};
use crate::contract::submission::Submission;
use crate::journal::JournalError;
use crate::limits::LEDGER_USERS_MAX;
pub use groups::GroupLimits;
use ringway_wire::ids::{Seq, UserId};

/// What may be asked of a ledger. [`journal_engine`] is one machine's, [`redis`] the one that several machines share.
pub trait Engine {
    /// Takes one submission: stages it for the next commit, parks it behind a look-up, or refuses it (the
    /// refusal goes out with the next commit). A message is first looked for among those that were stored: a repeat
    /// is answered as such even if its sender has left the group since, or the group is no more; only what is none
    /// is refused for that, and then takes no number. Waits for nobody; now and then it allocates a file.
    fn submit(&mut self, now: Now, submission: Submission);

    /// Takes the store's answer to a look-up: what waited for it is staged or answered.
    fn found(&mut self, now: Now, answer: LookupAnswer);

    /// The next commit has reached a limit: commit before submitting more.
    fn full(&self) -> bool;

    /// Rows that the next commit has so far, or will make where they are numbered elsewhere.
    fn staged_rows(&self) -> usize;

    /// Rows that were staged out of turn since this was asked last, with whose messages they are: those that had waited for
    /// the store. Appended to `out`.
    fn take_released(&mut self, out: &mut Vec<(UserId, usize)>);

    /// Makes all that is staged durable (blocks for the sync), then appends what each shard may now see to
    /// `out[shard]`. With nothing staged it only hands out answers and refusals. A full disk is no error:
    /// numbers are rolled back and the senders refused. An error means that nothing can be promised any more.
    fn commit(&mut self, now: Now, out: &mut [Vec<Delivery>]) -> Result<(), LedgerError>;

    /// Look-ups to ask the store since the last call, moved to `out`.
    fn take_lookups(&mut self, out: &mut Vec<Lookup>);

    /// Whether what the store reads may have grown since this was asked last.
    fn grew(&mut self) -> bool;

    /// There is more to do at once: the loop must not sleep.
    fn has_more(&self) -> bool;

    /// What clients may do from now on.
    fn set_rules(&mut self, rules: Rules);

    /// Plain counters, for metrics.
    fn counters(&self) -> LedgerCounters;
}

/// Why the process must stop: what was written may not be what is on disk.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// `fdatasync` failed: the kernel may have dropped the pages, and a second try would report success.
    #[error("fdatasync of the journal failed; the process stops, and recovery decides what is durable: {0}")]
    Sync(#[source] std::io::Error),
    /// The copy of the stream cannot be written: nothing could be served from it.
    #[error("this node's copy of the cluster's stream cannot be written: {0}")]
    Copy(#[source] JournalError),
    /// The stream was cut off behind what the stores have, and this node had not read that far.
    #[error(
        "this node stood still for too long: it has followed the cluster's stream up to entry {seen}, and the stream now \
         begins at {next}; start it again, and it reads the rest from the database"
    )]
    Behind {
        /// The last entry it has.
        seen: u64,
        /// The next there is.
        next: u64,
    },
    /// A new stream would give out numbers that were given out before.
    #[error(
        "the cluster's new stream numbers rows above {floor}, and this node knows of a row {highest}: was the database put \
         back to an earlier state?"
    )]
    Floor {
        /// The stream's floor.
        floor: Seq,
        /// The highest number that this node knows.
        highest: Seq,
    },
    /// Nodes have come to different numbers.
    #[error(
        "this node has numbered window {0} of the cluster's stream otherwise than another node: what it has delivered \
         cannot be relied on. The process ends; started again it begins from the database. Look there whether rows were \
         changed by hand, and whether all nodes are of the same version"
    )]
    Diverged(u64),
    /// An entry does not follow from those before it.
    #[error("entry {0} of the cluster's stream cannot be understood: are all nodes of the same version?")]
    Entry(u64),
    /// The database has more users than this node has room for.
    #[error("the database has more users than the limit of {LEDGER_USERS_MAX}")]
    Users,
    /// Somebody else is this node.
    #[error("another gateway runs as node {0} of this cluster: give each its own cluster.node_id")]
    Lease(u16),
    /// Nodes of one cluster would look for the same thing in different buckets.
    #[error(
        "the gateways of this cluster have cluster.buckets = {theirs}, and this one has {ours}: give all of them the same; \
         another number is taken when all have been stopped"
    )]
    Buckets {
        /// What the others have.
        theirs: u64,
        /// What this one has.
        ours: u64,
    },
    /// A cluster has one life of names.
    #[error(
        "the gateways of this cluster have limits.names_s = {theirs_s}, and this one has {ours_s}: give all of them the \
         same; another one is taken when all have been stopped"
    )]
    Names {
        /// What the others have.
        theirs_s: u64,
        /// What this one has.
        ours_s: u64,
    },
}
