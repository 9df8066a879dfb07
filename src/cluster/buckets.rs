//! The buckets that the ledger lies in, and the calls that are about all of them: what there is, in which order, a new
//! generation, what is no longer needed.
//!
//! On Redis's thread. A bucket is what one Redis does atomically: its groups with their versions, its claimed names, its
//! stream. What always holds: with one bucket there is no order beside its stream and no call that is about order; with
//! several the ledger is whole only if all of them have the generation of the first one and at least what was ordered of
//! them, and the first one is the last to get a new generation.

use std::sync::Arc;

use fred::clients::Client;
use fred::interfaces::{HashesInterface, LuaInterface};
use fred::types::{ConnectHandle, Value};
use tokio::time::Instant;

use super::connection::{Awaited, Ended, connect, run_of, sent};
use super::look::{Losses, RedisKind, RedisNeed, warn_of_losses};
use super::masters::{Masters, prefix};
use super::order::Place;
use crate::contract::names_kept::NamesKept;
use crate::ledger::redis::entry::{Home, decimal};
use crate::ledger::redis::link::{Age, Extent, Found, Generation, News};
use crate::limits::{REDIS_SETTLES_MS, STREAM_KEPT};
use ringway_wire::ids::{GroupId, Seq};

const SUBMIT: &str = include_str!("submit.lua");
const SEED: &str = include_str!("seed.lua");
const HEARTBEAT: &str = concat!(include_str!("order_at.lua"), include_str!("heartbeat.lua"));
const STATUS: &str = include_str!("status.lua");
const COMPARE: &str = include_str!("compare.lua");
const ORDER: &str = concat!(include_str!("order_at.lua"), include_str!("order.lua"));
const PLACE: &str = concat!(include_str!("order_at.lua"), include_str!("place.lua"));
const RESERVE: &str = include_str!("reserve.lua");
const TRIM: &str = include_str!("trim.lua");
const LEAVE: &str = include_str!("leave.lua");

/// The bucket in which all that there is once lies: the order, nodes' leases, the lock for a new generation.
pub(super) const FIRST: usize = 0;

/// The scripts, as Redis names them.
#[derive(Default)]
pub(super) struct Scripts {
    pub(super) submit: String,
    pub(super) seed: String,
    pub(super) heartbeat: String,
    pub(super) leave: String,
    pub(super) compare: String,
    status: String,
    order: String,
    place: String,
    pub(super) reserve: String,
    trim: String,
}

impl Scripts {
    /// On one master; all of them give a script the same name.
    async fn load(client: &Client, buckets: usize) -> Result<Scripts, Ended> {
        let mut scripts = Scripts {
            submit: client.script_load(SUBMIT).await?,
            seed: client.script_load(SEED).await?,
            heartbeat: client.script_load(HEARTBEAT).await?,
            leave: client.script_load(LEAVE).await?,
            compare: client.script_load(COMPARE).await?,
            status: client.script_load(STATUS).await?,
            ..Scripts::default()
        };
        if buckets > 1 {
            scripts.order = client.script_load(ORDER).await?;
            scripts.place = client.script_load(PLACE).await?;
            scripts.reserve = client.script_load(RESERVE).await?;
            scripts.trim = client.script_load(TRIM).await?;
        }
        Ok(scripts)
    }
}

/// What a session has of the buckets.
pub(super) struct Buckets {
    /// Each bucket's connection for calls; those of one master share one.
    calls: Vec<Client>,
    /// What each bucket's master calls its own process.
    runs: Vec<String>,
    /// What each bucket's keys begin with.
    roots: Vec<String>,
    /// How long names are kept.
    pub(super) names: NamesKept,
    pub(super) scripts: Scripts,
}

/// What one bucket has.
struct There {
    /// As it is kept; empty: none.
    generation: String,
    count: u64,
    floor: u64,
    since_s: u64,
    /// Milliseconds for which it is to be left alone.
    fresh_ms: u64,
    /// Of the first bucket: how many there are.
    buckets: u64,
    /// Of the first bucket: what is ordered.
    order: Option<Place>,
    highest: u64,
    /// Of the first bucket: a node has confirmed that its master has all that was ordered. Whether the others have, that tells.
    is_confirmed: bool,
    /// What its master's clock said, Unix milliseconds.
    now_ms: u64,
    /// Of the first bucket: how long its claims live, seconds.
    names_s: u64,
}

impl Buckets {
    /// Connects, and says what masters may lose.
    pub(super) async fn connect(
        masters: &Masters,
        names: NamesKept,
        entries_max: u64,
        warns: Warns,
    ) -> Result<(Buckets, Vec<ConnectHandle>), Ended> {
        let buckets = masters.places().len();
        let (mut clients, mut runs, mut tasks) = (Vec::new(), Vec::new(), Tasks::default());
        let mut scripts = Scripts::default();
        for master in masters.each() {
            let (client, task) = connect(&master.config).await?;
            tasks.0.push(task);
            if let Warns::With(losses) = warns {
                let stream_entries_max = entries_max * master.buckets as u64 / buckets as u64;
                let need = RedisNeed { url: &master.url, stream_entries_max, kind: RedisKind::Alone };
                warn_of_losses(&client, &need, losses).await;
            }
            runs.push(run_of(&client).await);
            scripts = Scripts::load(&client, buckets).await?;
            clients.push(client);
        }
        let of_each = |each: &[String]| masters.places().iter().filter_map(|at| each.get(*at).cloned()).collect();
        let buckets = Buckets {
            calls: masters.places().iter().filter_map(|at| clients.get(*at).cloned()).collect(),
            runs: of_each(&runs),
            roots: (0..buckets).map(prefix).collect(),
            names,
            scripts,
        };
        Ok((buckets, std::mem::take(&mut tasks.0)))
    }

    /// Number of buckets; all nodes of a cluster agree on it.
    pub(super) fn count(&self) -> usize {
        self.roots.len()
    }

    /// What a bucket's keys begin with.
    pub(super) fn root(&self, bucket: usize) -> &str {
        self.roots.get(bucket).map_or("", String::as_str)
    }

    /// A bucket's connection for calls.
    pub(super) fn client(&self, bucket: usize) -> Result<&Client, Ended> {
        self.calls.get(bucket).ok_or_else(|| Ended::Lost(format!("there is no bucket {bucket}")))
    }

    /// Calls a script in a bucket.
    pub(super) async fn call<R: fred::types::FromValue>(
        &self,
        bucket: usize,
        script: &str,
        values: Vec<Value>,
    ) -> Result<R, Ended> {
        Ok(self.client(bucket)?.evalsha(script.to_owned(), self.root(bucket), values).await?)
    }

    /// How many entries the ledger has.
    pub(super) async fn entries(&self) -> Result<News, Ended> {
        let field = if self.count() > 1 { "order" } else { "count" };
        let count: Option<u64> = self.client(FIRST)?.hget(format!("{}state", self.root(FIRST)), field).await?;
        count.map(News::Count).ok_or(Ended::OtherGeneration)
    }

    /// What there is of the ledger. If it may be gone on with, what is unordered is ordered, but not before a node has
    /// confirmed the order.
    pub(super) async fn status(
        self: Arc<Self>,
        session: u64,
        confirms: Option<(Generation, u64)>,
    ) -> Result<News, Ended> {
        // The others are asked when the first has answered: what it has ordered they have had by then.
        let first = self.look(FIRST, confirms).await?;
        let mut looks = Vec::new();
        for bucket in 1..self.count() {
            let this = Arc::clone(&self);
            let look: Awaited<There> = Box::pin(async move { this.look(bucket, None).await });
            looks.push(sent(look).await);
        }
        let mut all = vec![first];
        for look in looks {
            all.push(look.await?);
        }
        let highest = all.iter().map(|there| there.highest).max().unwrap_or_default();
        let Some((first, others)) = all.split_first() else { return Err(Ended::OtherGeneration) };
        let Some(there) = Generation::parse(&first.generation) else {
            return Ok(News::Status { session, found: None, highest });
        };
        if first.buckets != self.count() as u64 {
            tracing::warn!(
                there = first.buckets,
                configured = self.count(),
                "the cluster's ledger has another number of buckets, and no node that wants it so"
            );
        }
        let is_kept_alike = first.names_s == self.names.seconds();
        if !is_kept_alike {
            tracing::warn!(
                there_s = first.names_s,
                configured_s = self.names.seconds(),
                "the cluster's ledger was made with another limits.names_s, and no node has that now"
            );
        }
        let extent = if is_kept_alike { extent_of(first, others, self.count()) } else { Extent::Part };
        let age = if all.iter().all(|there| there.fresh_ms == 0) { Age::Settled } else { Age::Fresh };
        let mut count = first.count;
        if self.count() > 1 {
            count = first.order.as_ref().map_or(0, |order| order.entry);
            // What is there of an order that was lost must be found out first, by whoever has read more.
            if (extent, age) == (Extent::Whole, Age::Settled) {
                let newest = all.iter().map(|there| there.count).enumerate().collect();
                count = Arc::clone(&self).order(there.clone(), newest).await?.entry;
            }
        }
        let (floor, since_ms) = (Seq(first.floor), (first.since_s + 1) * 1_000);
        let (is_confirmed, now_ms) = (first.is_confirmed, first.now_ms);
        // Redis tells the second in which the generation was made: all names from before its end may be older.
        let found = Found { there, count, floor, since_ms, now_ms, age, is_confirmed, extent };
        Ok(News::Status { session, found: Some(found), highest })
    }

    /// Looks at a bucket. `confirms`: what this node has read of which generation, if it was there before its master was
    /// started.
    async fn look(&self, bucket: usize, confirms: Option<(Generation, u64)>) -> Result<There, Ended> {
        let (generation, read) = confirms.map_or_else(Default::default, |(ours, read)| (ours.text(), read));
        let run = self.runs.get(bucket).cloned().unwrap_or_default();
        let settles_ms = REDIS_SETTLES_MS.to_string();
        let values: Vec<Value> = vec![run.into(), settles_ms.into(), generation.into(), read.to_string().into()];
        let values: Vec<String> = self.call(bucket, &self.scripts.status, values).await?;
        let number = |at: usize| values.get(at).and_then(|text| text.parse().ok()).unwrap_or(0);
        let text = |at: usize| values.get(at).map_or("", String::as_str);
        Ok(There {
            generation: text(0).to_owned(),
            count: number(1),
            floor: number(2),
            since_s: number(3),
            fresh_ms: number(4),
            buckets: number(5),
            order: Place::parse(&format!("{} {}", number(6), text(7)), self.count()),
            highest: number(8),
            is_confirmed: number(9) == 1,
            now_ms: number(10),
            names_s: number(11),
        })
    }

    /// Orders what is there of buckets, up to these entries. Returns what is ordered.
    pub(super) async fn order(
        self: Arc<Self>,
        generation: Generation,
        newest: Vec<(usize, u64)>,
    ) -> Result<Place, Ended> {
        let mut values: Vec<Value> = vec![generation.text().into()];
        for (bucket, entry) in newest {
            values.extend([Value::from(bucket.to_string()), entry.to_string().into()]);
        }
        let reply: String = self.call(FIRST, &self.scripts.order, values).await?;
        self.place(&reply)
    }

    /// How far each bucket was at an entry of the ledger.
    pub(super) async fn place_of(&self, generation: &Generation, entry: u64) -> Result<Place, Ended> {
        let values: Vec<Value> = vec![generation.text().into(), entry.to_string().into()];
        let reply: String = self.call(FIRST, &self.scripts.place, values).await?;
        self.place(&reply)
    }

    fn place(&self, reply: &str) -> Result<Place, Ended> {
        match reply {
            "GEN" => Err(Ended::OtherGeneration),
            place => Place::parse(place, self.count())
                .ok_or_else(|| Ended::Lost("what Redis says of the ledger's order makes no sense".to_owned())),
        }
    }

    /// Tells every bucket what of it is stored, and what nobody needs.
    pub(super) async fn trim(
        self: &Arc<Self>,
        generation: &str,
        stored: &str,
        cut: &str,
        memory: Memory,
    ) -> Result<(), Ended> {
        let mut trims = Vec::new();
        for (bucket, (stored, cut)) in std::iter::zip(stored.split(' '), cut.split(' ')).enumerate() {
            let this = Arc::clone(self);
            let values: Vec<Value> = vec![generation.into(), stored.into(), cut.into(), memory.cuts().into()];
            let trim: Awaited<String> = Box::pin(async move { this.call(bucket, &this.scripts.trim, values).await });
            trims.push(sent(trim).await);
        }
        for trim in trims {
            if trim.await? != "OK" {
                return Err(Ended::OtherGeneration);
            }
        }
        Ok(())
    }

    /// Makes a generation: every bucket its groups, the first one last.
    pub(super) async fn seed(
        &self,
        generation: &Generation,
        (base, floor): (u64, Seq),
        groups: Vec<Vec<Vec<u8>>>,
    ) -> Result<(), Ended> {
        let began = Instant::now();
        for bucket in (0..self.count()).rev() {
            if bucket != FIRST {
                self.seed_step(bucket, "join", generation, Vec::new()).await?;
            }
            for step in &groups {
                let own = groups_of(step, bucket, self.count());
                if !own.is_empty() {
                    self.seed_step(bucket, "groups", generation, own).await?;
                }
            }
            let last =
                vec![decimal(base), decimal(floor.0), decimal(self.count() as u64), decimal(self.names.seconds())];
            self.seed_step(bucket, "finish", generation, last).await?;
        }
        let (generation, buckets) = (generation.number, self.count());
        tracing::info!(
            generation,
            buckets,
            ms = began.elapsed().as_millis() as u64,
            "the cluster's ledger is made anew"
        );
        Ok(())
    }

    async fn seed_step(
        &self,
        bucket: usize,
        step: &str,
        generation: &Generation,
        values: Vec<Vec<u8>>,
    ) -> Result<(), Ended> {
        let mut all: Vec<Value> = vec![step.into(), generation.text().into()];
        all.extend(values.into_iter().map(|bytes| Value::Bytes(bytes.into())));
        let reply: String = self.call(bucket, &self.scripts.seed, all).await?;
        if reply == "OK" { Ok(()) } else { Err(Ended::OtherGeneration) }
    }
}

/// Whether Redis has the memory that it may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Memory {
    Enough,
    /// A call was refused: what nobody needs goes at once, to the last entry.
    Short,
}

impl Memory {
    /// How exactly `XTRIM` cuts.
    pub(super) fn cuts(self) -> &'static str {
        match self {
            Memory::Enough => "~",
            Memory::Short => "=",
        }
    }

    /// How many entries are kept that nobody needs.
    pub(super) fn kept(self) -> u64 {
        match self {
            Memory::Enough => STREAM_KEPT,
            Memory::Short => 0,
        }
    }
}

/// Whether a session says what a master may lose.
#[derive(Clone, Copy, Debug)]
pub(super) enum Warns {
    /// In these words.
    With(Losses),
    /// A former one has.
    No,
}

/// Connections that end unless all of them are there.
#[derive(Default)]
struct Tasks(Vec<ConnectHandle>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(ConnectHandle::abort);
    }
}

fn extent_of(first: &There, others: &[There], buckets: usize) -> Extent {
    if first.buckets != buckets as u64 {
        return Extent::Part;
    }
    if buckets == 1 {
        return Extent::Whole;
    }
    let Some(order) = &first.order else { return Extent::Part };
    let all = std::iter::once(first).chain(others);
    let has = |(there, taken): (&There, &u64)| there.generation == first.generation && there.count >= *taken;
    if std::iter::zip(all, &order.buckets).all(has) { Extent::Whole } else { Extent::Part }
}

/// Of pairs of group and version those that lie in a bucket.
fn groups_of(pairs: &[Vec<u8>], bucket: usize, buckets: usize) -> Vec<Vec<u8>> {
    let is_its = |pair: &&[Vec<u8>]| {
        let group = pair.first().and_then(|group| std::str::from_utf8(group).ok()?.parse().ok());
        group.is_some_and(|group| Home::of_group(GroupId(group)).bucket(buckets) == bucket)
    };
    pairs.chunks_exact(2).filter(is_its).flatten().cloned().collect()
}

#[cfg(test)]
mod tests;
