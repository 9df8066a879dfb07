//! A node: a gateway's process on disks of its own, and its link with Redis.
//!
//! What always holds: a process starts through the real start, on what the disks and the database have.

use std::sync::Arc;

use futures_lite::future::block_on;
use ringway::contract::policies::Policies;
use ringway::contract::position::{JournalPosition, StreamPosition};
use ringway::contract::progress::Progress;
use ringway::contract::snapshot::snapshots;
use ringway::ledger::GroupLimits;
use ringway::ledger::redis;
use ringway::ledger::redis::link::link;
use ringway::ledger::redis::start::RedisStart;
use ringway::store::Store;
use ringway::store::keeper::Keeper;

use super::link::{Link, Settings};
use super::mutation::Mutation;
use super::plan::ClusterPlan;
use crate::disk::SimDisk;
use crate::gateway::{Gateway, Syncs};
use crate::store::{Database, Sharing, SimStore};
use crate::world::World;

/// What a copy has before its first entry.
const HEADER_BYTES: u64 = 32;

/// What stays of a node while its process goes.
pub(super) struct Node {
    pub id: u16,
    pub log: SimDisk,
    pub copy: SimDisk,
    /// Its log as it was some time ago.
    pub backup: Option<SimDisk>,
    pub progress: Arc<Progress>,
    /// Where in the stream its process began.
    pub began_at: StreamPosition,
    pub link: Link,
    /// Tells its process from others.
    pub process: u64,
    /// Until then it does not reach Redis, the world's milliseconds.
    pub cut_until_ms: u64,
    /// When its process starts again, or is no longer paused, the world's milliseconds.
    pub goes_on_at_ms: u64,
    /// Its process has numbered: it can tell whether a Redis that was started since has all it had.
    pub has_numbered: bool,
    /// It has ended because a copy of its directory is the node now.
    pub is_over: bool,
}

impl Node {
    /// One whose first process has started on these disks, a log and a copy.
    pub(super) fn new(id: u16, (log, copy): (SimDisk, SimDisk), process: Process) -> (Node, Gateway) {
        let Process { gateway, link, progress, began_at, process } = process;
        let node = Node {
            id,
            log,
            copy,
            backup: None,
            progress,
            began_at,
            link,
            process,
            cut_until_ms: 0,
            goes_on_at_ms: 0,
            has_numbered: false,
            is_over: false,
        };
        (node, gateway)
    }
}

/// What its process is made of.
pub(super) struct Process {
    pub gateway: Gateway,
    pub link: Link,
    pub progress: Arc<Progress>,
    pub began_at: StreamPosition,
    pub process: u64,
}

impl Node {
    /// Nobody hears that the database has other entries than this node has read.
    pub(super) fn overlook_other_entries(&self) {
        self.progress.report_diverged(StreamPosition(0));
        self.progress.advance_applied(self.progress.applied());
    }
}

impl Process {
    /// Starts; the error is why it cannot.
    pub(super) fn start(
        world: &World,
        plan: &ClusterPlan,
        (id, mutation): (u16, Mutation),
        (log, copy): (&SimDisk, &SimDisk),
        database: &Database,
    ) -> Result<Process, String> {
        let (random, seed) = (&world.random, world.random.bits() as u64);
        let mut store = SimStore::new(database.clone(), Sharing::Cluster).of_process(seed);
        let settings = redis::Settings {
            shards: world.plan.shards,
            node: id,
            segment_bytes: world.plan.segment_bytes,
            buckets: 1,
            names: plan.names,
            entries_max: plan.entries_max,
            groups: GroupLimits::default(),
            traffic: world.plan.traffic(),
            policies: Policies::default(),
            seed,
        };
        let mut start = RedisStart::new(settings);
        let read = block_on(async {
            store.position().await?;
            store.snapshot(&mut |stored| start.visit(stored)).await
        });
        let at = read.map_err(|error| error.to_string())?;
        let progress = Arc::new(Progress::default());
        let (ledger, ends, _) = link();
        let (asker, answerer) = snapshots(ends.nudge());
        let disks = (log.clone(), copy.clone());
        let engine = start.finish(disks, Arc::clone(&progress), (ledger, asker), at);
        let engine = engine.map_err(|error| error.to_string())?;
        if mutation == Mutation::CountsHeader {
            progress.advance_durable(JournalPosition(HEADER_BYTES));
        }
        let keeper = Keeper::of_cluster(store, copy.clone(), Arc::clone(&progress), answerer, seed);
        let gateway = Gateway::new(
            Box::new(engine),
            keeper,
            (log.clone(), Syncs::BeforeCalling),
            &world.plan,
            (random, &world.events),
        );
        let token = match mutation {
            Mutation::SharesTokens => u64::from(id),
            _ => random.bits() as u64,
        };
        let (entries_max, kept, names) = (plan.entries_max, plan.kept, plan.names);
        let settings = Settings { node: id, token, entries_max, names, kept, mutation };
        let link = Link::new(ends, Arc::clone(&progress), settings, (random.clone(), world.events.clone()));
        Ok(Process { gateway, link, progress, began_at: at.applied.in_stream(), process: seed })
    }
}
