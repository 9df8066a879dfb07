//! A session's calls in flight, and the submissions among them.
//!
//! On Redis's thread. A submission goes to the bucket of its conversation; if the sender's names lie in another one, the
//! name is reserved there first. What always holds: what is submitted in one bucket is sent in the order in which the
//! ledger gave it, whatever has to be reserved before; answers come in the order of calls.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use fred::types::Value;
use tokio::sync::oneshot;

use super::buckets::{Buckets, FIRST};
use super::connection::{Awaited, Ended, bytes_of, sent};
use super::order::Merge;
use crate::contract::internal::{OrCount, Place};
use crate::ledger::redis::entry::{Call, Claimed, VALUES};
use crate::ledger::redis::link::{Generation, News, Reply};
use crate::limits::CALL_SUBMISSIONS_MAX;

/// What was begun, each answered in its turn.
pub(super) struct Calls<T> {
    in_flight: VecDeque<Turn<T>>,
}

/// A call in its turn.
enum Turn<T> {
    Awaited(Awaited<T>),
    Answered(T),
}

impl<T: Send + 'static> Calls<T> {
    pub(super) fn new() -> Calls<T> {
        Calls { in_flight: VecDeque::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// Begins a call.
    pub(super) async fn push(&mut self, begun: Awaited<T>) {
        self.in_flight.push_back(Turn::Awaited(sent(begun).await));
    }

    /// The first one's answer; for ever, if nothing is under way. May be dropped while it waits.
    pub(super) async fn next(&mut self) -> Result<T, Ended> {
        poll_fn(|cx| {
            for turn in &mut self.in_flight {
                if let Turn::Awaited(call) = turn
                    && let Poll::Ready(answer) = call.as_mut().poll(cx)
                {
                    match answer {
                        Ok(answer) => *turn = Turn::Answered(answer),
                        Err(ended) => return Poll::Ready(Err(ended)),
                    }
                }
            }
            match self.in_flight.pop_front() {
                Some(Turn::Answered(answer)) => Poll::Ready(Ok(answer)),
                Some(first) => {
                    self.in_flight.push_front(first);
                    Poll::Pending
                }
                None => Poll::Pending,
            }
        })
        .await
    }
}

/// What a call came to.
pub(super) enum Answer {
    /// It can be told.
    News(News),
    /// Submissions were taken, or not, in several buckets.
    Replies(BucketReplies),
}

/// What several buckets say of submissions.
pub(super) struct BucketReplies {
    /// One per submission, with its bucket.
    replies: Vec<(usize, Reply)>,
    /// The buckets' last entries then.
    counts: Vec<(usize, u64)>,
}

impl BucketReplies {
    /// One of them is this.
    pub(super) fn contains(&self, reply: &Reply) -> bool {
        self.replies.iter().any(|(_, other)| other == reply)
    }

    /// In the ledger's numbers. Nothing yet, if something else than that they were appended is to be told before this node
    /// has read the buckets so far.
    pub(super) fn news(&self, merge: &Merge) -> Option<News> {
        let is_plain = self.replies.iter().all(|(_, reply)| *reply == Reply::Appended);
        if !is_plain && !self.counts.iter().all(|(bucket, count)| merge.has_given(*bucket, *count)) {
            return None;
        }
        let replies = self.replies.iter().map(|(bucket, reply)| match reply {
            Reply::Repeat(claimed) => Reply::Repeat(in_ledger(claimed, *bucket, merge)),
            other => other.clone(),
        });
        Some(News::Replies { replies: replies.collect(), count: merge.given() })
    }
}

/// Message and digest.
const KNOWN_BYTES: usize = 16;
/// Behind them, in what is reserved for a conversation of another bucket.
const RESERVED: u8 = b'@';

/// A claimed name with the ledger's number of its entry instead of the bucket's; zero, if it was long ago, is an entry
/// that nobody finds, so the store is asked.
fn in_ledger(claimed: &[u8], bucket: usize, merge: &Merge) -> Vec<u8> {
    let (known, entry) = claimed.split_at_checked(KNOWN_BYTES).unwrap_or((claimed, &[]));
    let entry = std::str::from_utf8(entry).ok().and_then(|text| text.parse().ok());
    let entry = entry.and_then(|entry| merge.entry_of(bucket, entry)).unwrap_or(0);
    [known, entry.to_string().as_bytes()].concat()
}

/// Submits to the only bucket.
pub(super) async fn submit(
    buckets: Arc<Buckets>,
    generation: Generation,
    entries_max: u64,
    calls: Vec<Call>,
) -> Result<Answer, Ended> {
    let (replies, count) = submit_to(&buckets, FIRST, &generation, entries_max, calls).await?;
    Ok(Answer::News(News::Replies { replies, count }))
}

/// Submits to several. `turn` comes when all that was given before has been sent, and `next` is told so in its turn.
pub(super) async fn submit_split(
    buckets: Arc<Buckets>,
    generation: Generation,
    entries_max: u64,
    calls: Vec<Call>,
    (turn, next): (Option<oneshot::Receiver<()>>, oneshot::Sender<()>),
) -> Result<Answer, Ended> {
    let count = buckets.count();
    let homes: Vec<usize> = calls.iter().map(|call| call.home.bucket(count)).collect();
    let is_used = match reserve(&buckets, &generation, &calls).await {
        Err(Ended::NoMemory) => {
            // What was given before is sent before what comes after.
            if let Some(turn) = turn {
                turn.await.map_err(|_| Ended::Lost("a call before this one failed".to_owned()))?;
            }
            next.send(()).ok();
            let replies = homes.into_iter().map(|home| (home, Reply::NoMemory)).collect();
            return Ok(Answer::Replies(BucketReplies { replies, counts: Vec::new() }));
        }
        reserved => reserved?,
    };
    if let Some(turn) = turn {
        // What was given before and failed is made again in the next session, and this behind it.
        turn.await.map_err(|_| Ended::Lost("a call before this one failed".to_owned()))?;
    }
    let mut parts: Vec<(Vec<usize>, Vec<Call>)> = vec![Default::default(); count];
    for (at, (call, home)) in std::iter::zip(calls, &homes).enumerate() {
        let Some((places, part)) = parts.get_mut(*home).or_count(Place::Cluster) else { continue };
        if is_used.get(at) == Some(&false) {
            places.push(at);
            part.push(call);
        }
    }
    let mut in_flight = Vec::new();
    for (bucket, (places, mut part)) in parts.into_iter().enumerate() {
        for places in places.chunks(CALL_SUBMISSIONS_MAX) {
            let calls: Vec<Call> = part.drain(..places.len()).collect();
            let (buckets, generation) = (Arc::clone(&buckets), generation.clone());
            let call: Awaited<(Vec<Reply>, u64)> =
                Box::pin(async move { submit_to(&buckets, bucket, &generation, entries_max, calls).await });
            in_flight.push((bucket, places.to_vec(), sent(call).await));
        }
    }
    // If nobody comes after this, nobody waits.
    next.send(()).ok();
    let mut replies: Vec<(usize, Reply)> = homes.into_iter().map(|home| (home, Reply::Reused)).collect();
    let mut counts = Vec::new();
    for (bucket, places, call) in in_flight {
        let (part, count) = call.await?;
        counts.push((bucket, count));
        for (at, reply) in std::iter::zip(places, part) {
            if let Some(place) = replies.get_mut(at).or_count(Place::Cluster) {
                place.1 = reply;
            }
        }
    }
    Ok(Answer::Replies(BucketReplies { replies, counts }))
}

/// Reserves names whose bucket is not their conversation's. Tells of each submission whether its name is used for something
/// else.
async fn reserve(buckets: &Arc<Buckets>, generation: &Generation, calls: &[Call]) -> Result<Vec<bool>, Ended> {
    let count = buckets.count();
    let mut parts: Vec<(Vec<usize>, Vec<Value>)> = vec![Default::default(); count];
    for (at, call) in calls.iter().enumerate() {
        let home = call.home.bucket(count);
        let Some(named) = call.named.map(|named| named.bucket(count)).filter(|named| *named != home) else { continue };
        let Some((places, values)) = parts.get_mut(named).or_count(Place::Cluster) else { continue };
        let [.., name, slice, known, _, _] = &call.values;
        let reserved = [known.as_slice(), &[RESERVED], home.to_string().as_bytes()].concat();
        places.push(at);
        values.extend([slice, name, &reserved].map(|bytes| Value::Bytes(bytes.clone().into())));
    }
    let mut in_flight = Vec::new();
    for (bucket, (places, part)) in parts.into_iter().enumerate().filter(|(_, (places, _))| !places.is_empty()) {
        let mut values: Vec<Value> = vec![generation.text().into(), buckets.names.seconds().to_string().into()];
        values.extend(part);
        let buckets = Arc::clone(buckets);
        let call: Awaited<Value> =
            Box::pin(async move { buckets.call(bucket, &buckets.scripts.reserve, values).await });
        in_flight.push((places, sent(call).await));
    }
    let mut is_used = vec![false; calls.len()];
    for (places, call) in in_flight {
        let Value::Array(words) = call.await? else { return Err(Ended::OtherGeneration) };
        if words.len() != places.len() {
            return Err(Ended::Lost("a reservation's reply makes no sense".to_owned()));
        }
        for (at, word) in std::iter::zip(places, words) {
            if let Some(is_used) = is_used.get_mut(at).or_count(Place::Cluster) {
                *is_used = bytes_of(word).as_deref() != Some(b"A");
            }
        }
    }
    Ok(is_used)
}

async fn submit_to(
    buckets: &Buckets,
    bucket: usize,
    generation: &Generation,
    entries_max: u64,
    calls: Vec<Call>,
) -> Result<(Vec<Reply>, u64), Ended> {
    let submissions = calls.len();
    let mut values: Vec<Value> = Vec::with_capacity(4 + submissions * VALUES);
    values.push(generation.text().into());
    values.push((entries_max / buckets.count() as u64).to_string().into());
    values.push(buckets.names.seconds().to_string().into());
    values.push(buckets.names.slack_s().to_string().into());
    values.extend(calls.into_iter().flat_map(|call| call.values).map(|bytes| Value::Bytes(bytes.into())));
    let reply: Value = match buckets.call(bucket, &buckets.scripts.submit, values).await {
        // The first thing that it would have written was refused: nothing was, and what it has read says nothing.
        Err(Ended::NoMemory) => return Ok((vec![Reply::NoMemory; submissions], 0)),
        called => called?,
    };
    let Value::Array(mut replies) = reply else { return Err(Ended::OtherGeneration) };
    let count = replies.pop().and_then(|count| count.as_u64());
    let replies: Option<Vec<Reply>> = replies.into_iter().map(understood).collect();
    match (replies, count) {
        (Some(replies), Some(count)) if replies.len() == submissions => Ok((replies, count)),
        _ => Err(Ended::Lost("a call's reply makes no sense".to_owned())),
    }
}

fn understood(reply: Value) -> Option<Reply> {
    let bytes = bytes_of(reply)?;
    match bytes.split_first()? {
        (b'A', _) => Some(Reply::Appended),
        (b'B', _) => Some(Reply::Bounced),
        (b'O', _) => Some(Reply::Forgotten),
        (b'F', _) => Some(Reply::Full),
        // Whoever has reserved it here has its conversation elsewhere.
        (b'R', claimed) if claimed.get(KNOWN_BYTES) == Some(&RESERVED) => Some(Reply::Reused),
        (b'R', claimed) => Claimed::decode(claimed).map(|_| Reply::Repeat(claimed.to_vec())),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
