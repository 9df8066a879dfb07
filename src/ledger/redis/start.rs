//! Builds the engine at start: what the database knows, and this node's log. The stream brings the rest.
//!
//! Runs once, before the ledger's thread loops. What always holds: the database's position, its groups and its newest
//! rows are of one snapshot, so they are what following the stream up to that position would have made of them.

use std::sync::Arc;

use super::copy::StreamCopy;
use super::follower::Follower;
use super::link::LedgerEnds;
use super::orders::Orders;
use super::questions::Questions;
use super::reload::Standing;
use super::session::Session;
use super::submitter::Submitter;
use super::submitter::log::Log;
use super::{RedisEngine, Settings};
use crate::contract::progress::Progress;
use crate::contract::report::StandsStill;
use crate::contract::snapshot::SnapshotAsker;
use crate::contract::store::NewestRow;
use crate::contract::store::{StorePosition, Stored};
use crate::journal::disk::Disk;
use crate::ledger::answers::Answers;
use crate::ledger::groups::Groups;
use crate::ledger::sequence::{MsgIdSource, Sequences};
use crate::ledger::start::StartError;
use crate::limits::LEDGER_USERS_MAX;

/// Gathers what the database knows; [`RedisStart::finish`] adds the log.
#[derive(Debug)]
pub struct RedisStart {
    settings: Settings,
    sequences: Sequences,
    groups: Groups,
    users_over: bool,
}

impl RedisStart {
    /// Before groups and rows are visited.
    pub fn new(settings: Settings) -> Self {
        let sequences = Sequences::new(settings.seed);
        let groups = Groups::new(settings.seed ^ 1, settings.shards, settings.groups);
        RedisStart { settings, sequences, groups, users_over: false }
    }

    /// Something the database has.
    pub fn visit(&mut self, stored: Stored) {
        match stored {
            Stored::Group(group) => self.users_over |= self.groups.load(&group, &mut self.sequences).is_none(),
            Stored::Newest(NewestRow { user, seq }) => match self.sequences.assign(user) {
                Some(slot) => self.sequences.raise(slot, seq),
                None => self.users_over = true,
            },
        }
    }

    /// Opens the log, empties the copy. `at` is the snapshot's position.
    pub fn finish<D: Disk>(
        self,
        (log_disk, copy_disk): (D, D),
        progress: Arc<Progress>,
        (link, asker): (LedgerEnds, SnapshotAsker),
        at: StorePosition,
    ) -> Result<RedisEngine<D>, StartError> {
        let RedisStart { settings, sequences, groups, users_over } = self;
        if users_over {
            return Err(StartError::Users(LEDGER_USERS_MAX));
        }
        let (log, torn) = Log::open(log_disk, settings.segment_bytes, settings.seed ^ 2)?;
        if let Some(torn) = torn {
            tracing::warn!(file = torn.file, offset = torn.offset, "the log ended in a batch that was being written");
        }
        let mut ids = MsgIdSource::new(settings.node, at.msg_id_max);
        log.each_open(&mut |record| {
            if let Some(msg_id) = record.msg_id() {
                ids.raise(msg_id);
            }
        })?;
        let copy = StreamCopy::begin(copy_disk, settings.segment_bytes, Arc::clone(&progress), settings.seed ^ 3)?;
        progress.advance_applied(at.applied);
        progress.report_followed(at.applied.in_stream());
        let follower = Follower::new(at, (groups, sequences), copy, settings.seed);
        Ok(RedisEngine {
            settings,
            progress,
            orders: Orders::new(link),
            asker,
            session: Session::Disconnected { why: StandsStill::Disconnected },
            submitter: Submitter::new(log, ids, settings.seed),
            follower,
            questions: Questions::default(),
            answers: Answers::default(),
            nonce: settings.seed,
            making_told: 0,
            standing: Standing::default(),
        })
    }
}
