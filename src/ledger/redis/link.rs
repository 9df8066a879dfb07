//! What crosses between the ledger's thread and the thread that talks to Redis.
//!
//! Two bounded channels: orders one way, news the other. What always holds: an order carries the session it was made
//! in, and one of another session is not carried out; news come in the order in which Redis said them, and `Disconnected`
//! or `OtherGeneration` ends a session, after which nothing of it comes any more.

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tokio::sync::mpsc;

use super::entry::Call;
use crate::contract::report::StandsStill;
use crate::limits::{LINK_NEWS_MAX, LINK_ORDERS_MAX};
use ringway_wire::ids::Seq;

/// A stretch of the ledger's life between two losses of Redis: its number and a nonce, as Redis has it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Generation {
    /// One more each time.
    pub(crate) number: u64,
    /// Tells two nodes apart that make the same one.
    pub(crate) nonce: u64,
}

impl Generation {
    /// As Redis keeps it.
    pub fn text(&self) -> String {
        format!("{}.{:016x}", self.number, self.nonce)
    }

    /// From what Redis has.
    pub fn parse(text: &str) -> Option<Generation> {
        let (number, nonce) = text.split_once('.')?;
        Some(Generation { number: number.parse().ok()?, nonce: u64::from_str_radix(nonce, 16).ok()? })
    }
}

/// What Redis says of the ledger.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Which generation.
    pub there: Generation,
    /// The last entry.
    pub count: u64,
    /// What every user's rows of the generation are numbered above.
    pub floor: Seq,
    /// When the generation was made, Unix milliseconds.
    pub since_ms: u64,
    /// What Redis's clock said, before which it had no more than this, Unix milliseconds.
    pub now_ms: u64,
    /// Whether it may be gone on with.
    pub age: Age,
    /// A node that was there before Redis was started has said that it has all that node had read.
    pub is_confirmed: bool,
    /// Whether it is there at all.
    pub extent: Extent,
}

/// How much of a generation is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// All of it, as far as can be told by Redis alone.
    Whole,
    /// Not what is needed to go on, whatever this node knows: a bucket has less than was ordered of it, or is of another
    /// generation, or there are more or fewer of them.
    Part,
}

/// How long Redis has been what it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Age {
    /// Long enough for every node to have looked at what it has.
    Settled,
    /// It was started a moment ago, perhaps with less than it had: a node that has read more will say so.
    Fresh,
}

/// What the ledger wants of Redis.
#[derive(Debug)]
pub struct Order {
    /// In which session.
    pub session: u64,
    /// What.
    pub what: What,
}

/// What an order is about. Dropped with its session: the ledger makes it again in the next one.
#[derive(Debug)]
pub enum What {
    /// Read the stream behind this entry.
    Follow {
        /// Of which generation.
        generation: Generation,
        /// The last entry known.
        after: u64,
        /// The last entries that were followed, and their checksums: a stream that has others is another one.
        known: Vec<(u64, u32)>,
    },
    /// Submit these in one call; answered by [`News::Replies`].
    Submit {
        /// In which generation.
        generation: Generation,
        /// Each submission.
        calls: Vec<Call>,
    },
    /// How many entries are there? Answered by [`News::Count`].
    Count,
    /// Take the lock for making a generation; answered by [`News::Begun`].
    Begin {
        /// The one to be made.
        generation: Generation,
        /// What is there now.
        replaces: Option<Generation>,
        /// Who asks: a lock that this node has is no obstacle.
        node: u16,
    },
    /// Make it, and finish; answered by [`News::Status`] when it is done.
    Seed {
        /// The one to be made.
        generation: Generation,
        /// The entry that counts as its last.
        base: u64,
        /// What every user's rows are numbered above.
        floor: Seq,
        /// Groups and their versions, one behind the other: the values of each step.
        groups: Vec<Vec<Vec<u8>>>,
    },
    /// Compare with other nodes how the entries of a window were numbered; answered by [`News::Compared`].
    Compare {
        /// Of which generation.
        generation: Generation,
        /// Which window.
        window: u64,
        /// The digest of its rows.
        digest: u64,
        /// Who has come to it.
        node: u16,
        /// Whose rows the database has.
        writer: Writer,
    },
    /// Look again, a little later; answered by [`News::Status`], before which what is read of the stream has ended.
    Status,
    /// This node was there before Redis was started, and has read no more than it has; answered by [`News::Status`].
    Confirm {
        /// What this node has followed.
        generation: Generation,
        /// The last entry that it has read.
        read: u64,
    },
}

/// What comes from Redis.
#[derive(Debug)]
pub enum News {
    /// A session begins, or the status was asked for.
    Status {
        /// Which session.
        session: u64,
        /// What Redis has; `None`: nothing.
        found: Option<Found>,
        /// The highest number of a generation that any bucket has, or was to have.
        highest: u64,
    },
    /// The lock was taken.
    Begun,
    /// Entries, in order.
    Entries(Vec<Arrival>),
    /// Entries behind those that were read are no longer in the stream, up to this one.
    Cut(u64),
    /// To a `Submit`, in the order of orders.
    Replies {
        /// One per submission.
        replies: Vec<Reply>,
        /// How many entries there were then.
        count: u64,
    },
    /// To a `Count`, in the order of orders.
    Count(u64),
    /// What Redis's clock says, with every heartbeat.
    Clock {
        /// Which generation there is, as Redis has it.
        generation: String,
        /// How many entries there are.
        count: u64,
        /// Unix milliseconds.
        redis_ms: u64,
    },
    /// To a `Follow`: Redis has other entries under these numbers, and nothing is followed.
    OtherEntries,
    /// To a `Compare`, in the order of orders.
    Compared {
        /// Which window.
        window: u64,
        /// What came of it.
        outcome: Compared,
    },
    /// The connection is lost: the session is over.
    Disconnected,
    /// Redis has another generation than an order said, or another node is making one: the session is over.
    OtherGeneration,
    /// There is no session, and this is why.
    NoSession(StandsStill),
    /// Nothing new finds room in Redis, and this is why; told with every heartbeat while it lasts.
    NoRoom(StandsStill),
    /// The node's id is another's.
    Taken,
    /// The nodes that are there have Redis keep names for so long, and this one was told otherwise.
    Names {
        /// What they have, seconds.
        theirs_s: u64,
        /// What this node was told.
        ours_s: u64,
    },
    /// The nodes that are there have so many buckets, and this one was told otherwise.
    Buckets {
        /// What they have.
        theirs: u64,
        /// What this node was told.
        ours: u64,
    },
}

/// An entry as it was read.
#[derive(Debug)]
pub struct Arrival {
    /// Its number.
    pub count: u64,
    /// [`super::entry::Entry`], encoded.
    pub entry: Vec<u8>,
}

/// Whether other nodes have numbered the same entries otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compared {
    /// None of them, as far as is known.
    Same,
    /// At least one.
    Other,
}

/// Whose store writes the cluster's database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writer {
    /// This node's.
    This,
    /// Another's, or nobody's.
    Other,
}

/// What became of a submission.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// It is in the stream.
    Appended,
    /// The name is taken; [`super::entry::Claimed`], encoded.
    Repeat(Vec<u8>),
    /// The name was used for another conversation, or something else was said in it.
    Reused,
    /// The roster's version is another one.
    Bounced,
    /// The name may have been used so long ago that Redis has forgotten it: the store must be asked first.
    Forgotten,
    /// Redis has no memory for it, and has taken nothing of the call.
    NoMemory,
    /// Too much is unstored.
    Full,
}

/// The ledger's ends.
#[derive(Debug)]
pub struct LedgerEnds {
    orders: mpsc::Sender<Order>,
    news: Receiver<News>,
}

impl LedgerEnds {
    /// Gives an order; a full channel hands it back.
    pub(crate) fn order(&self, order: Order) -> Result<(), Order> {
        self.orders.try_send(order).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(order) | mpsc::error::TrySendError::Closed(order) => order,
        })
    }

    /// The next news, if there are any.
    pub(crate) fn news(&self) -> Option<News> {
        self.news.try_recv().ok()
    }

    /// More news wait.
    pub(crate) fn has_news(&self) -> bool {
        !self.news.is_empty()
    }
}

/// The ends of the thread that talks to Redis.
#[derive(Debug)]
pub struct RedisEnds {
    /// From the ledger. Closed: the ledger has ended.
    pub orders: mpsc::Receiver<Order>,
    news: Sender<News>,
    nudge: Sender<()>,
}

impl RedisEnds {
    /// What wakes the ledger, for another thread that has something for it.
    pub fn nudge(&self) -> Sender<()> {
        self.nudge.clone()
    }

    /// Tells the ledger, and wakes it; a full channel hands the news back. A ledger that has ended needs no news.
    pub fn notify(&self, news: News) -> Result<(), News> {
        let told = match self.news.try_send(news) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
            Err(TrySendError::Full(news)) => Err(news),
        };
        // One that waits wakes it as well.
        self.nudge.try_send(()).ok();
        told
    }
}

/// Makes both, and what wakes the ledger's loop.
pub fn link() -> (LedgerEnds, RedisEnds, Receiver<()>) {
    let (orders, receive_orders) = mpsc::channel(LINK_ORDERS_MAX);
    let (news, receive_news) = bounded(LINK_NEWS_MAX);
    let (nudge, nudges) = bounded(1);
    (LedgerEnds { orders, news: receive_news }, RedisEnds { orders: receive_orders, news, nudge }, nudges)
}
