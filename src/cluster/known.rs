//! Whether Redis still has, under their numbers, the entries that a node has followed.
//!
//! On Redis's thread, at a session's beginning: a replica that lacked the end of a stream, and was made the master, has
//! given other entries the same numbers since. What always holds: nothing is waited for, and what was cut off is not
//! compared; with several buckets the order tells which entry of which bucket one is, and it is the content that counts.

use fred::interfaces::StreamsInterface;
use fred::types::Value;

use super::buckets::{Buckets, FIRST};
use super::connection::Ended;
use super::order::OrderEntry;
use super::stream::entries_of;
use crate::ledger::redis::link::{Arrival, Generation};

/// Entries of one stream, rising, each with the checksum of what it was.
type Known = Vec<(u64, u32)>;

/// Compares entries of the ledger, each with its checksum, with what is there.
pub(super) async fn has_other_entries(
    buckets: &Buckets,
    generation: &Generation,
    known: &[(u64, u32)],
) -> Result<bool, Ended> {
    let of_buckets = match buckets.count() {
        1 => vec![known.to_vec()],
        _ => by_bucket(buckets, generation, known).await?,
    };
    for (bucket, known) in of_buckets.iter().enumerate() {
        if has_others(buckets, bucket, generation, known).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Which entries of which bucket they are, by the order as it is now.
async fn by_bucket(buckets: &Buckets, generation: &Generation, known: &[(u64, u32)]) -> Result<Vec<Known>, Ended> {
    let mut of_buckets = vec![Known::new(); buckets.count()];
    let Some((first, _)) = known.first() else { return Ok(of_buckets) };
    let key = format!("{}{}:order", buckets.root(FIRST), generation.text());
    let from = format!("{}-{first}", generation.number);
    // Each has one of them at least.
    let there: Value = buckets.client(FIRST)?.xrange(key, from, "+", Some(known.len() as u64)).await?;
    let something_else = || Ended::Lost("the order has something else than entries".to_owned());
    for Arrival { count, entry } in entries_of(there).ok_or_else(something_else)? {
        let order = OrderEntry::parse(count, &entry, buckets.count()).ok_or_else(something_else)?;
        for (entry, checksum) in known {
            if let Some((bucket, at)) = order.find(*entry)
                && let Some(of_bucket) = of_buckets.get_mut(bucket)
            {
                of_bucket.push((at, *checksum));
            }
        }
    }
    Ok(of_buckets)
}

async fn has_others(
    buckets: &Buckets,
    bucket: usize,
    generation: &Generation,
    known: &[(u64, u32)],
) -> Result<bool, Ended> {
    let (Some((first, _)), Some((last, _))) = (known.first(), known.last()) else { return Ok(false) };
    let key = format!("{}{}:stream", buckets.root(bucket), generation.text());
    let id = |entry: &u64| format!("{}-{entry}", generation.number);
    let there: Value = buckets.client(bucket)?.xrange(key, id(first), id(last), None).await?;
    let there =
        entries_of(there).ok_or_else(|| Ended::Lost("the stream has something else than entries".to_owned()))?;
    let is_other = |arrival: &Arrival| {
        let known = known.iter().find(|(count, _)| *count == arrival.count);
        known.is_some_and(|(_, checksum)| *checksum != crc32c::crc32c(&arrival.entry))
    };
    Ok(there.iter().any(is_other))
}
