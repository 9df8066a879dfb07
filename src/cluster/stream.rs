//! The ledger's entries as a session reads them: one stream, or the streams of several buckets made into one.
//!
//! On Redis's thread. What always holds: entries come in the ledger's order with the ledger's numbers; with several
//! buckets whatever is read and not ordered is ordered by this node, at once if it is the one whose store writes, after
//! `ORDER_PATIENCE_MS` if not; waiting may be broken off at any time.

use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::StreamsInterface;
use fred::types::Value;
use tokio::time::{Instant, Sleep, sleep_until};

use super::buckets::{Buckets, FIRST};
use super::connection::{Awaited, Ended, bytes_of};
use super::order::{Merge, OrderEntry, Place};
use crate::contract::internal::{self, OrCount};
use crate::ledger::redis::link::{Arrival, Generation};
use crate::limits::{ORDER_EVERY_MS, ORDER_PATIENCE_MS, STREAM_READ_MAX};

/// How long a node waits that was not allowed to order.
const ORDER_REFUSED_MS: u64 = 100;
/// How long one read of a stream waits for an entry.
const READ_BLOCK_MS: u64 = 1_000;

/// Whose turn it is to order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Orders {
    /// This node's.
    AtOnce,
    /// Another's, as long as it does.
    Later,
}

/// A stream, and what is read of it.
struct Reader {
    /// It waits for entries: nothing else is asked on it.
    client: Client,
    key: String,
    reading: Option<Awaited<Vec<Arrival>>>,
}

impl Reader {
    fn new(client: &Client, key: String) -> Reader {
        Reader { client: client.clone(), key, reading: None }
    }

    /// Begins to wait for entries behind one, if it does not wait already.
    fn read(&mut self, generation: &Generation, after: u64) {
        if self.reading.is_none() {
            let (client, key) = (self.client.clone(), self.key.clone());
            let id = format!("{}-{after}", generation.number);
            self.reading = Some(Box::pin(async move {
                let read: Value = client.xread(Some(STREAM_READ_MAX as u64), Some(READ_BLOCK_MS), key, id).await?;
                arrivals(read).ok_or_else(|| Ended::Lost("the stream has something else than entries".to_owned()))
            }));
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Arrival>, Ended>> {
        let Some(reading) = &mut self.reading else { return Poll::Pending };
        let read = reading.as_mut().poll(cx);
        if read.is_ready() {
            self.reading = None;
        }
        read
    }
}

/// What is followed.
pub(super) enum Stream {
    /// Nothing yet.
    Nothing,
    /// The stream of the only bucket.
    One(One),
    /// Those of several.
    Split(Box<Split>),
}

impl Stream {
    /// Follows a generation behind an entry. `reads`: a connection for each bucket, and with several one more.
    pub(super) async fn follow(
        buckets: &Arc<Buckets>,
        reads: &[Client],
        generation: Generation,
        after: u64,
    ) -> Result<Stream, Ended> {
        let key = |bucket: usize, what: &str| format!("{}{}:{what}", buckets.root(bucket), generation.text());
        if let [client] = reads {
            let reader = Reader::new(client, key(FIRST, "stream"));
            return Ok(Stream::One(One { generation, after, reader, there: after, there_before: after }));
        }
        let place = buckets.place_of(&generation, after).await?;
        // Where the order was cut off, what follows is numbered behind that, and the ledger sees it.
        let mut readers: Vec<Reader> = reads
            .iter()
            .take(buckets.count())
            .enumerate()
            .map(|(bucket, client)| Reader::new(client, key(bucket, "stream")))
            .collect();
        let Some(client) = reads.get(buckets.count()).or_count(internal::Place::Cluster) else {
            return Ok(Stream::Nothing);
        };
        readers.push(Reader::new(client, key(FIRST, "order")));
        let since = vec![None; buckets.count()];
        let (buckets, merge) = (Arc::clone(buckets), Merge::begin(place));
        Ok(Stream::Split(Box::new(Split {
            buckets,
            generation,
            merge,
            readers,
            since,
            ordering: None,
            ordered_at: None,
            timer: None,
        })))
    }

    /// Which generation is followed, and how far it was handed out.
    pub(super) fn given(&self) -> Option<(&Generation, u64)> {
        match self {
            Stream::Nothing => None,
            Stream::One(one) => Some((&one.generation, one.after)),
            Stream::Split(split) => Some((&split.generation, split.merge.given())),
        }
    }

    /// Redis has had this entry.
    pub(super) fn has(&mut self, entry: u64) {
        if let Stream::One(one) = self {
            one.there = entry;
        }
    }

    /// Up to where entries that were not handed out are no longer there, when [`Self::next`] has just found none.
    pub(super) fn cut_to(&self) -> Option<u64> {
        match self {
            Stream::One(one) => Some(one.there_before).filter(|entry| *entry > one.after),
            // Its order tells, when the next entry comes.
            Stream::Nothing | Stream::Split(_) => None,
        }
    }

    /// The streams of several buckets.
    pub(super) fn merge(&self) -> Option<&Merge> {
        match self {
            Stream::Split(split) => Some(&split.merge),
            Stream::Nothing | Stream::One(_) => None,
        }
    }

    /// The next entries; perhaps none, if it is time to look whether something else has happened.
    pub(super) async fn next(&mut self, orders: Orders) -> Result<Vec<Arrival>, Ended> {
        match self {
            Stream::Nothing => pending().await,
            Stream::One(one) => one.next().await,
            Stream::Split(split) => split.next(orders).await,
        }
    }
}

/// The stream of the only bucket.
pub(super) struct One {
    generation: Generation,
    after: u64,
    reader: Reader,
    /// The last entry that Redis is known to have had: now, and when the read that is under way began.
    there: u64,
    there_before: u64,
}

impl One {
    async fn next(&mut self) -> Result<Vec<Arrival>, Ended> {
        if self.reader.reading.is_none() {
            self.there_before = self.there;
        }
        self.reader.read(&self.generation, self.after);
        let arrivals = poll_fn(|cx| self.reader.poll(cx)).await?;
        if let Some(last) = arrivals.last() {
            self.after = last.count;
        }
        Ok(arrivals)
    }
}

/// The streams of several buckets.
pub(super) struct Split {
    buckets: Arc<Buckets>,
    generation: Generation,
    merge: Merge,
    /// Each bucket's; last the order.
    readers: Vec<Reader>,
    /// Of each bucket an entry that is known and not ordered, and since when.
    since: Vec<Option<(Instant, u64)>>,
    /// What is being ordered.
    ordering: Option<Awaited<Ordered>>,
    /// When this node ordered last, and when it is to do so next.
    ordered_at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// What came of ordering.
struct Ordered {
    /// What is ordered.
    place: Place,
    /// Nobody has confirmed the order yet: what was to be ordered is not.
    is_refused: bool,
}

/// What can happen to several streams.
enum Happened {
    Read(usize, Vec<Arrival>),
    Ordered(Ordered),
    /// It is time to order.
    Due,
}

impl Split {
    async fn next(&mut self, orders: Orders) -> Result<Vec<Arrival>, Ended> {
        loop {
            let given = self.merge.take(STREAM_READ_MAX);
            if !given.is_empty() {
                return Ok(given);
            }
            self.read_on();
            self.order(orders);
            match poll_fn(|cx| self.poll(cx)).await? {
                Happened::Read(at, arrivals) if at < self.buckets.count() => self.merge.read(at, arrivals),
                Happened::Read(_, arrivals) => self.read_order(arrivals)?,
                Happened::Ordered(Ordered { place, is_refused }) => {
                    place.buckets.iter().enumerate().for_each(|(at, to)| self.merge.knows_ordered(at, *to));
                    if is_refused {
                        self.ordered_at = Some(Instant::now() + Duration::from_millis(ORDER_REFUSED_MS));
                    }
                }
                Happened::Due => {}
            }
        }
    }

    fn read_on(&mut self) {
        let order = self.buckets.count();
        for (at, reader) in self.readers.iter_mut().enumerate() {
            let after = if at == order { self.merge.wants_order() } else { self.merge.wants(at) };
            if let Some(after) = after {
                reader.read(&self.generation, after);
            }
        }
    }

    fn read_order(&mut self, arrivals: Vec<Arrival>) -> Result<(), Ended> {
        for Arrival { count, entry } in arrivals {
            let entry = OrderEntry::parse(count, &entry, self.buckets.count());
            self.merge.ordered(entry.ok_or_else(|| Ended::Lost("the order has something else".to_owned()))?);
        }
        Ok(())
    }

    /// Orders what is unordered, if it is time, and nothing is being ordered.
    fn order(&mut self, orders: Orders) {
        let now = Instant::now();
        let mut newest = Vec::new();
        for (bucket, since) in self.since.iter_mut().enumerate() {
            match self.merge.unordered(bucket) {
                Some(last) => {
                    since.take_if(|(_, entry)| self.merge.is_ordered(bucket, *entry));
                    since.get_or_insert((now, last));
                    newest.push((bucket, last));
                }
                None => *since = None,
            }
        }
        self.timer = None;
        let Some((first, _)) = self.since.iter().flatten().min() else { return };
        if self.ordering.is_some() {
            return;
        }
        // Under load much is ordered at once, instead of one after the other.
        let soonest = self.ordered_at.map_or(now, |at| at + Duration::from_millis(ORDER_EVERY_MS));
        let due = match orders {
            Orders::AtOnce => soonest,
            Orders::Later => soonest.max(*first + Duration::from_millis(ORDER_PATIENCE_MS)),
        };
        if due <= now {
            self.ordered_at = Some(now);
            let (buckets, generation) = (Arc::clone(&self.buckets), self.generation.clone());
            self.ordering = Some(Box::pin(async move {
                let place = buckets.order(generation, newest.clone()).await?;
                let lacks = |(bucket, to): &(usize, u64)| place.buckets.get(*bucket).is_none_or(|taken| taken < to);
                Ok(Ordered { is_refused: newest.iter().any(lacks), place })
            }));
        } else {
            self.timer = Some(Box::pin(sleep_until(due)));
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Happened, Ended>> {
        if let Some(ordering) = &mut self.ordering
            && let Poll::Ready(place) = ordering.as_mut().poll(cx)
        {
            self.ordering = None;
            return Poll::Ready(place.map(Happened::Ordered));
        }
        for (at, reader) in self.readers.iter_mut().enumerate() {
            if let Poll::Ready(read) = reader.poll(cx) {
                return Poll::Ready(read.map(|arrivals| Happened::Read(at, arrivals)));
            }
        }
        match &mut self.timer {
            Some(timer) => timer.as_mut().poll(cx).map(|()| Ok(Happened::Due)),
            None => Poll::Pending,
        }
    }
}

/// Entries out of a read: one stream with its entries, each an id and fields.
fn arrivals(read: Value) -> Option<Vec<Arrival>> {
    let streams = match read {
        Value::Null => return Some(Vec::new()),
        Value::Array(streams) => streams,
        _ => return None,
    };
    let mut arrivals = Vec::new();
    for stream in streams {
        let Value::Array(mut pair) = stream else { return None };
        arrivals.append(&mut entries_of(pair.pop()?)?);
    }
    Some(arrivals)
}

/// Entries, each an id and fields.
pub(super) fn entries_of(entries: Value) -> Option<Vec<Arrival>> {
    let Value::Array(entries) = entries else { return None };
    let mut arrivals = Vec::with_capacity(entries.len());
    for entry in entries {
        let Value::Array(mut entry) = entry else { return None };
        let Value::Array(fields) = entry.pop()? else { return None };
        let id = entry.pop()?.into_string()?;
        let count = id.split_once('-')?.1.parse().ok()?;
        let mut fields = fields.into_iter();
        let (_, entry) = (fields.next()?, fields.next()?);
        arrivals.push(Arrival { count, entry: bytes_of(entry)? });
    }
    Some(arrivals)
}
